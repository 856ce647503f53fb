package rule

import (
	"context"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Raise gives the jobs that tell the client's rules of occurrences; none for what no rule listens to. Whoever made the
// change leaves them to its own job (job.Result.Next), or enqueues them before it calls its work done: their keys are
// derived, so that asking twice makes them once.
func (e *Engine) Raise(ctx context.Context, tn *tenant.Tenant, occurrences ...crm.Occurrence) ([]store.NewJob, error) {
	var next []store.NewJob
	listens := map[string]bool{}
	for _, o := range occurrences {
		exits, err := e.exitJobs(ctx, tn, EventRecordID(tn.Code, o.Key), o.LeadID, o.Trigger, o.At)
		if err != nil {
			return nil, err
		}
		next = append(next, exits...)
		yes, asked := listens[o.Trigger]
		if !asked {
			n, err := tn.DB.Count(ctx, store.Query{Kind: Rules.Schema.Kind, Where: []store.Term{store.Where("liveTrigger", store.Eq, o.Trigger)}})
			if err != nil {
				return nil, err
			}
			yes = n > 0
			listens[o.Trigger] = yes
		}
		if !yes || o.Depth > maxDepthOfEvents {
			continue
		}
		at := o.At.UTC()
		n, err := e.eventJob(tn.Seal, tn.Code, &Event{
			ID: EventRecordID(tn.Code, o.Key), EventID: o.Key, Hash: o.Key, Trigger: o.Trigger, LeadID: o.LeadID, Phone: o.Phone, Email: o.Email,
			OccurredAt: at, ReceivedAt: at, Variables: o.Variables, Depth: o.Depth, Chain: o.Chain, Appointment: o.Appointment,
		})
		if err != nil {
			return nil, err
		}
		next = append(next, n)
	}
	return next, nil
}

// caused are the occurrences that an event's effect made.
func caused(ev *Event, runs []*Run) []crm.Occurrence {
	var out []crm.Occurrence
	if ev.Outcome.LeadCreated {
		out = append(out, ev.causes("lead", "lead_created", ev.Variables, ev.ReceivedAt))
	}
	for _, run := range runs {
		out = append(out, causedBy(ev, run, 0)...)
	}
	return out
}

// causedBy are the occurrences that one leg of a run made.
func causedBy(ev *Event, run *Run, leg int) []crm.Occurrence {
	vars := ev.Variables
	var out []crm.Occurrence
	for _, s := range run.legSteps(leg) {
		for _, t := range transitions(s, vars) {
			o := ev.causes(run.ID+"|"+s.ID+"|"+t.key, t.trigger, t.vars, s.At)
			o.Chain = append(o.Chain, run.RuleID)
			out = append(out, o)
		}
	}
	return out
}

// causes makes the occurrence of something that an event led to.
func (ev *Event) causes(key, trigger string, vars map[string]any, at time.Time) crm.Occurrence {
	return crm.Occurrence{
		Key: causeKey(ev.ID, key, trigger), Trigger: trigger, LeadID: ev.Outcome.LeadID, Variables: vars, At: at, Depth: ev.Depth + 1,
		Chain: append([]string{}, ev.Chain...),
	}
}
