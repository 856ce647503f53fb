package rule

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/ecodrix/ecod/internal/crm"
)

// scope is what conditions and placeholders see.
type scope struct {
	env     map[string]any
	results map[string]any  // of earlier steps, by root
	open    map[string]bool // roots of results that are still to come: their placeholders stay
	stages  crm.Stages      // of the client's pipelines
}

// emptyEnv has the roots that conditions may name, for compiling.
func emptyEnv() map[string]any {
	return map[string]any{
		"lead": map[string]any{}, "contact": map[string]any{}, "event": map[string]any{}, "appointment": map[string]any{}, "now": time.Time{},
		"meet": map[string]any{},
	}
}

func newScope(ev *Event, l *crm.Lead, c *crm.Contact, extra map[string]any, now time.Time) *scope {
	vars := map[string]any{}
	for k, v := range ev.Variables {
		vars[k] = v
	}
	for k, v := range extra {
		vars[k] = v
	}
	s := &scope{env: emptyEnv()}
	s.env["event"] = map[string]any{"trigger": ev.Trigger, "variables": vars, "occurredAt": ev.OccurredAt}
	s.env["now"] = now
	if c != nil {
		s.env["contact"] = map[string]any{
			"id": c.ID, "name": c.Name, "phone": c.Phone, "email": c.Email, "username": c.Username, "optedOut": c.OptedOutAt != nil,
		}
	}
	s.setLead(l)
	return s
}

// setResults shows what came of earlier steps.
func (s *scope) setResults(results map[string]any) {
	s.results = results
	maps.Copy(s.env, results)
}

// setLead shows conditions the lead as it is now.
func (s *scope) setLead(l *crm.Lead) {
	if l == nil {
		return
	}
	fields := map[string]any{}
	for k, v := range l.Fields {
		fields[k] = v
	}
	tags := make([]any, len(l.Tags))
	for i, t := range l.Tags {
		tags[i] = t
	}
	s.env["lead"] = map[string]any{
		"id": l.ID, "name": l.Name, "phone": l.Phone, "email": l.Email, "source": l.Source, "pipeline": l.Pipeline, "stage": l.Stage,
		"status": l.Status, "tags": tags, "score": l.Score, "grade": l.Grade, "ownerId": l.OwnerID, "value": l.Value,
		"currency": l.Currency, "fields": fields, "createdAt": l.CreatedAt, "updatedAt": l.UpdatedAt, "lastActivityAt": l.LastActivityAt,
	}
}

func (s *scope) variables() map[string]any {
	ev, _ := s.env["event"].(map[string]any)
	vars, _ := ev["variables"].(map[string]any)
	return vars
}

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

// compile checks a condition and makes it ready to run. Its size and what it may allocate are bounded.
func compile(src string) (*program, error) {
	if len(src) > 2000 {
		return nil, errors.New("is longer than 2,000 bytes")
	}
	if p, ok := programs.Get(src); ok {
		return p, nil
	}
	p, err := expr.Compile(src, expr.Env(emptyEnv()), expr.AsBool(), expr.MaxNodes(300))
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
	v, err := expr.Run(p, s.env)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, errors.New("the condition is not true or false")
	}
	return b, nil
}
