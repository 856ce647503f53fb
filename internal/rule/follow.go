package rule

import (
	"context"
	"encoding/json"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// follow gives the jobs that an event's runs need: the send that each waits for, and the events that its actions cause.
// All have derived keys: asking twice makes them once. lead is the event's as it stands; nil: to be read.
func (e *Engine) follow(ctx context.Context, tn *tenant.Tenant, ev *Event, runs []*Run, lead *crm.Lead) ([]store.NewJob, error) {
	occurrences := caused(ev, runs)
	crossings, turns, err := e.crossings(ctx, tn, ev, runs, lead)
	if err != nil {
		return nil, err
	}
	next, err := e.Raise(ctx, tn, append(occurrences, crossings...)...)
	if err != nil {
		return nil, err
	}
	next = append(next, turns...)
	for _, run := range runs {
		next = append(next, e.stepJobs(tn, run)...)
	}
	if ev.Outcome.LeadCreated {
		return next, nil // nothing began before it
	}
	exits, err := e.exitJobs(ctx, tn, ev.ID, ev.Outcome.LeadID, ev.Trigger, ev.ReceivedAt)
	return append(next, exits...), err
}

func causeKey(eventRef, key, trigger string) string { return id.Derived("evk", eventRef, key, trigger) }

// transition is an event that a step's effect is.
type transition struct {
	key, trigger string
	vars         map[string]any
}

// transitions tells what a done step changed; a step that changed nothing is no event, and a tag is one where last says
// that the step is.
func transitions(s Step, last func(tag string) bool) []transition {
	if s.State != StepDone || len(s.Output) == 0 {
		return nil
	}
	var out []transition
	switch s.Type {
	case TagAdd, TagRemove:
		var c tagChange
		if json.Unmarshal(s.Output, &c) != nil {
			return nil
		}
		for _, t := range c.Added {
			if last(t) {
				out = append(out, transition{t, "tag_added", map[string]any{"tag": t}})
			}
		}
		for _, t := range c.Removed {
			if last(t) {
				out = append(out, transition{t, "tag_removed", map[string]any{"tag": t}})
			}
		}
	case LeadStage:
		var c stageChange
		if json.Unmarshal(s.Output, &c) != nil || !c.moved() {
			return nil
		}
		v := map[string]any{"stage": c.To, "fromStage": c.From, "pipeline": c.Pipeline}
		out = append(out, transition{c.To, "stage_changed", v})
		switch c.Status {
		case c.FromStatus: // from one lost stage to another: no deal was lost
		case crm.Won:
			out = append(out, transition{c.To, "deal_won", v})
		case crm.Lost:
			out = append(out, transition{c.To, "deal_lost", v})
		}
	}
	return out
}
