package rule

import (
	"errors"
	"fmt"
	"maps"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	lru "github.com/hashicorp/golang-lru/v2"
)

// program is a compiled condition.
type program = vm.Program

// programs are the conditions compiled last, by their text: compiling costs fifty times what evaluating does.
var programs = newPrograms()

func newPrograms() *lru.Cache[string, *program] {
	c, err := lru.New[string, *program](4096)
	if err != nil {
		panic(err) // the size is not positive
	}
	return c
}

// conditionEnv is emptyEnv with the purse that a condition is evaluated on.
func conditionEnv() map[string]any {
	env := emptyEnv()
	env[purseName] = (*purse)(nil)
	return env
}

// compile checks a condition and makes it ready to run. Its size is bounded here, and so is what it may cost: what
// depends on the data is paid for as it is evaluated (see meter).
func compile(src string) (*program, error) {
	if len(src) > 2000 {
		return nil, errors.New("is longer than 2,000 bytes")
	}
	if p, ok := programs.Get(src); ok {
		return p, nil
	}
	// once as it was written, for what is wrong with it; then with its meters, which hide the types
	if _, err := expr.Compile(src, expr.Env(emptyEnv()), expr.AsBool(), expr.MaxNodes(300)); err != nil {
		return nil, fmt.Errorf("does not compile: %s", firstLine(err.Error()))
	}
	m := &meter{}
	p, err := expr.Compile(src, expr.Env(conditionEnv()), expr.AsBool(), expr.MaxNodes(300), expr.Function(payName, pay), expr.Patch(m))
	if m.refused != nil {
		return nil, m.refused
	}
	if err != nil {
		return nil, fmt.Errorf("does not compile: %s", firstLine(err.Error()))
	}
	programs.Add(src, p)
	return p, nil
}

func firstLine(s string) string {
	for i := range s {
		if s[i] == '\n' {
			return s[:i]
		}
	}
	return s
}

// holds evaluates a compiled condition; nil holds always.
func (s *scope) holds(p *program) (bool, error) {
	if p == nil {
		return true, nil
	}
	env := maps.Clone(s.env)
	if s.counted == nil {
		s.counted, _ = counted(s.env["event"]).(map[string]any)
	}
	env["event"] = s.counted
	env[purseName] = s.purse.forOne()
	machine := vm.VM{MemoryBudget: 100_000}
	v, err := machine.Run(p, env)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, errors.New("the condition is not true or false")
	}
	return b, nil
}
