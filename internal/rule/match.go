package rule

import (
	"maps"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
)

// scope is what conditions and placeholders see.
type scope struct {
	env     map[string]any
	results map[string]any  // of earlier steps, by root
	open    map[string]bool // roots of results that are still to come: their placeholders stay
	stages  crm.Stages      // of the client's pipelines
	purse   *purse          // of the event; nil: each condition has its own
	counted map[string]any  // the event as conditions see it; made when one looks
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
	s := &scope{env: emptyEnv(), purse: ev.purse()}
	s.env["event"] = map[string]any{"trigger": ev.Trigger, "variables": vars, "occurredAt": ev.OccurredAt}
	s.env["now"] = now
	if ev.Appointment != nil {
		s.env["appointment"] = ev.Appointment
	}
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
