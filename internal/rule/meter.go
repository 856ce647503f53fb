package rule

import (
	"errors"
	"fmt"
	"reflect"
	"regexp/syntax"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// A condition is a client's text, evaluated between the work of all others. The evaluator bounds neither its time nor
// the texts that it builds, and does not look at a context. So every operation whose cost depends on data is given a
// toll: what it is about to read is measured and paid for before it is read, out of a purse that one condition, and all
// conditions of one event, share. One unit is some fifty nanoseconds at most, and a handful of bytes.
const (
	conditionUnits = 200_000
	eventUnits     = 20 * conditionUnits

	payName   = "__pay"
	purseName = "__purse"
)

// errCostly ends the evaluation of a condition that costs more than it may.
var errCostly = errors.New("the condition costs too much")

// purse is what may still be spent.
type purse struct {
	units int
	texts int    // bytes
	all   *purse // that it is a part of
}

func newPurse() *purse { return &purse{units: eventUnits, texts: maxEventTexts} }

// write pays for a text of n bytes; false: there is nothing left to pay with.
func (p *purse) write(n int) bool {
	if p == nil {
		return true
	}
	if p.texts -= n; p.texts < 0 {
		p.texts = 0
		return false
	}
	return true
}

// forOne gives what one condition may spend. A scope without a purse has that alone.
func (p *purse) forOne() *purse { return &purse{units: conditionUnits, all: p} }

func (p *purse) pay(units int) error {
	if p.units -= units; p.units < 0 || units < 0 {
		p.units = 0
		return errCostly
	}
	if p.all != nil {
		return p.all.pay(units)
	}
	return nil
}

// pay measures a value, pays for it, and gives it on: (purse, value, what a unit of its size costs, what an element costs).
func pay(args ...any) (any, error) {
	if len(args) != 4 {
		return nil, errCostly
	}
	p, _ := args[0].(*purse)
	deep, _ := args[2].(int)
	each, _ := args[3].(int)
	if p == nil {
		return nil, errCostly
	}
	cost := 1
	if each > 0 {
		cost += each * elements(args[1])
	}
	if deep > 0 {
		cost += deep * size(args[1], p.units/deep+1)
	}
	return args[1], p.pay(cost)
}

// elements is how often a loop over a value runs.
func elements(v any) int {
	switch x := v.(type) {
	case nil:
		return 0
	case []any:
		return len(x)
	}
	if r := reflect.ValueOf(v); r.Kind() == reflect.Slice || r.Kind() == reflect.Array {
		return r.Len()
	}
	return 0
}

// size is how much there is of a value, with all that is in it: one for each, and one for sixteen bytes of text. It stops
// counting beyond most; what shares its parts is counted as often as it would be walked.
func size(v any, most int) int {
	switch x := v.(type) {
	case string:
		return 1 + len(x)/16
	case []any:
		n := 1
		for _, e := range x {
			if n > most {
				break
			}
			n += size(e, most-n)
		}
		return n
	case map[string]any:
		n := 1
		for k, e := range x {
			if n > most {
				break
			}
			n += 1 + len(k)/16 + size(e, most-n)
		}
		return n
	case nil, bool, int, float64:
		return 1
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.String:
		return 1 + r.Len()/16
	case reflect.Slice, reflect.Array, reflect.Map:
		return 1 + r.Len()
	}
	return 1
}

// toll is what a function of conditions costs: deep for a unit of the size of what it is given, each for an element.
type toll struct{ deep, each int }

// functions are those that conditions may use. What multiplies its input (repeat, replace, join …) is not among them.
var functions = map[string]toll{
	"len": {1, 0}, "type": {0, 0}, "abs": {1, 0}, "ceil": {1, 0}, "floor": {1, 0}, "round": {1, 0}, "int": {1, 0}, "float": {1, 0}, "string": {6, 0},
	"trim": {1, 0}, "trimPrefix": {1, 0}, "trimSuffix": {1, 0}, "upper": {3, 0}, "lower": {3, 0}, "split": {16, 0}, "indexOf": {1, 0},
	"lastIndexOf": {1, 0}, "hasPrefix": {1, 0}, "hasSuffix": {1, 0}, "max": {4, 0}, "min": {4, 0}, "mean": {4, 0}, "median": {16, 0},
	"now": {0, 0}, "duration": {4, 0}, "date": {200, 0}, "first": {0, 0}, "last": {0, 0}, "get": {0, 0}, "take": {0, 1}, "keys": {2, 0},
	"values": {2, 0}, "reverse": {0, 2}, "concat": {0, 2}, "sort": {16, 0},
	"bitand": {0, 0}, "bitor": {0, 0}, "bitxor": {0, 0}, "bitnand": {0, 0}, "bitnot": {0, 0}, "bitshl": {0, 0}, "bitshr": {0, 0}, "bitushr": {0, 0},
}

// loops are the functions that evaluate something for each element of what they are given.
var loops = []string{"all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex", "count", "sum"}

// Limits of a condition's own text.
const (
	maxRange   = 1000 // elements of 1..n
	maxNested  = 2    // loops in each other
	maxPattern = 300  // instructions of a regular expression
)

// meter puts the tolls into a condition, and refuses what has no place in one.
type meter struct{ refused error }

func (m *meter) refuse(format string, args ...any) {
	if m.refused == nil {
		m.refused = fmt.Errorf(format, args...)
	}
}

// Visit implements ast.Visitor; what is below a node was visited before it.
func (m *meter) Visit(node *ast.Node) {
	if m.refused != nil {
		return
	}
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if n.Value == "$env" || n.Value == payName || n.Value == purseName {
			m.refuse("may not name %s", n.Value)
		}
	case *ast.BinaryNode:
		m.binary(node, n)
	case *ast.BuiltinNode:
		m.builtin(n)
	case *ast.CallNode:
		// of a method, as of now.Format: nothing else can be called
		for i := range n.Arguments {
			tax(&n.Arguments[i], toll{deep: 4})
		}
	}
}

func (m *meter) binary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "and", "&&", "or", "||", "??":
	case "..":
		from, ok1 := whole(n.Left)
		to, ok2 := whole(n.Right)
		// subtracted as floats: the difference of two ints may be none
		if !ok1 || !ok2 || float64(to)-float64(from) >= maxRange {
			m.refuse("has a range whose ends are not written out, or that has more than %d elements", maxRange)
			return
		}
		tax(node, toll{each: 2})
	case "matches":
		re, ok := n.Right.(*ast.StringNode)
		if !ok {
			m.refuse("needs the pattern of matches written out")
			return
		}
		insts, err := instructions(re.Value)
		if err != nil || insts > maxPattern {
			m.refuse("has a pattern that is not one, or is too complex")
			return
		}
		tax(&n.Left, toll{deep: 4 * (insts + 1)})
	case "in", "not in":
		if list, written := n.Right.(*ast.ArrayNode); written { // compared with each
			tax(&n.Left, toll{deep: 1 + len(list.Nodes)/4})
			return
		}
		tax(&n.Left, toll{deep: 1})
		tax(&n.Right, toll{deep: 1})
	default:
		tax(&n.Left, toll{deep: 1})
		tax(&n.Right, toll{deep: 1})
	}
}

func (m *meter) builtin(n *ast.BuiltinNode) {
	if slices.Contains(loops, n.Name) {
		if len(n.Arguments) == 0 {
			return
		}
		weight, inner := 2, 0
		for _, a := range n.Arguments[1:] {
			w := &weigher{}
			ast.Walk(&a, w)
			weight += w.nodes
			inner = max(inner, w.depth())
		}
		if inner+1 > maxNested {
			m.refuse("has more than %d loops in each other", maxNested)
			return
		}
		tax(&n.Arguments[0], toll{each: weight})
		return
	}
	t, ok := functions[n.Name]
	if !ok {
		m.refuse("may not use %s", n.Name)
		return
	}
	for i := range n.Arguments {
		tax(&n.Arguments[i], t)
	}
}

// tax lets a node pay its toll.
func tax(node *ast.Node, t toll) {
	switch (*node).(type) {
	case *ast.NilNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.PredicateNode: // its size is in the text
		return
	}
	ast.Patch(node, &ast.CallNode{
		Callee: &ast.IdentifierNode{Value: payName},
		Arguments: []ast.Node{
			&ast.IdentifierNode{Value: purseName}, *node, &ast.IntegerNode{Value: t.deep}, &ast.IntegerNode{Value: t.each},
		},
	})
}

// whole is the value of a written whole number.
func whole(n ast.Node) (int, bool) {
	switch x := n.(type) {
	case *ast.IntegerNode:
		return x.Value, true
	case *ast.UnaryNode:
		if i, ok := x.Node.(*ast.IntegerNode); ok && x.Operator == "-" {
			return -i.Value, true
		}
	}
	return 0, false
}

// instructions is the length of a compiled regular expression.
func instructions(pattern string) (int, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, err
	}
	p, err := syntax.Compile(re.Simplify())
	if err != nil {
		return 0, err
	}
	return len(p.Inst), nil
}

// weigher counts what is evaluated for each element of a loop.
type weigher struct {
	nodes int
	loops []*ast.BuiltinNode
}

// Visit implements ast.Visitor.
func (w *weigher) Visit(node *ast.Node) {
	w.nodes++
	switch n := (*node).(type) {
	case *ast.StringNode:
		w.nodes += len(n.Value) / 16
	case *ast.BuiltinNode:
		if slices.Contains(loops, n.Name) {
			w.loops = append(w.loops, n)
		}
	}
}

// depth is how many loops stand in each other.
func (w *weigher) depth() int {
	deepest := 0
	for _, l := range w.loops {
		in := &weigher{}
		for _, a := range l.Arguments[1:] {
			ast.Walk(&a, in)
		}
		deepest = max(deepest, 1+in.depth())
	}
	return deepest
}
