package rule

import (
	"context"
	"maps"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Raise gives the jobs that tell the client's rules of occurrences; none for what no rule listens to. Whoever made the
// change leaves them to its own job (job.Result.Next), or enqueues them before it calls its work done: their keys are
// derived, so that asking twice makes them once.
//
// What an event caused is bounded in all (see budget.go): what is beyond is dropped, and told of in the log.
func (e *Engine) Raise(ctx context.Context, tn *tenant.Tenant, occurrences ...crm.Occurrence) ([]store.NewJob, error) {
	heard, unheard, dropped, err := e.heard(ctx, tn, occurrences)
	if err != nil {
		return nil, err
	}
	if dropped > 0 {
		e.Log.Warn("rules cause more events than one may lead to; the rest is dropped", "client", tn.Code, "dropped", dropped)
	}
	next, err := e.exitsOf(ctx, tn, occurrences)
	if err != nil {
		return nil, err
	}
	for _, o := range unheard {
		next = append(next, pointsJobs(tn, o)...)
	}
	for _, o := range heard {
		vars := o.Variables
		if len(o.Inherited) > 0 {
			vars = clone(o.Inherited)
			maps.Copy(vars, o.Variables)
		}
		at := o.At.UTC()
		n, err := e.eventJob(tn.Seal, tn.Code, &Event{
			ID: EventRecordID(tn.Code, o.Key), EventID: o.Key, Hash: o.Key, Trigger: o.Trigger, LeadID: o.LeadID, Phone: o.Phone, Email: o.Email,
			OccurredAt: at, ReceivedAt: at, Variables: vars, Depth: o.Depth, Chain: o.Chain, Budget: o.Budget, Appointment: o.Appointment,
		})
		if err != nil {
			return nil, err
		}
		next = append(next, n)
	}
	return next, nil
}

// exitsOf gives the jobs that look whether occurrences make runs of their leads pointless. They look at the lead as it
// is: a few of them see what many would.
func (e *Engine) exitsOf(ctx context.Context, tn *tenant.Tenant, occurrences []crm.Occurrence) ([]store.NewJob, error) {
	var next []store.NewJob
	for _, o := range occurrences[:min(len(occurrences), maxDescendants)] {
		exits, err := e.exitJobs(ctx, tn, EventRecordID(tn.Code, o.Key), o.LeadID, o.Trigger, o.At)
		if err != nil {
			return nil, err
		}
		next = append(next, exits...)
	}
	return next, nil
}

// heard gives the occurrences that rules listen to, each with its share of what may follow, those that none does, and how
// many had to be dropped.
func (e *Engine) heard(ctx context.Context, tn *tenant.Tenant, occurrences []crm.Occurrence) (kept, unheard []crm.Occurrence, dropped int, err error) {
	var os []crm.Occurrence
	listens := map[string]bool{}
	for _, o := range occurrences {
		yes, asked := listens[o.Trigger]
		if !asked {
			n, err := tn.DB.Count(ctx, store.Query{Kind: Rules.Schema.Kind, Where: []store.Term{store.Where("liveTrigger", store.Eq, o.Trigger)}})
			if err != nil {
				return nil, nil, 0, err
			}
			yes = n > 0
			listens[o.Trigger] = yes
		}
		switch {
		case !yes:
			unheard = append(unheard, o)
		case o.Depth <= maxDepthOfEvents:
			os = append(os, o)
		}
	}
	kept, dropped = share(os)
	return kept, unheard, dropped, nil
}

// caused are the occurrences that an event's effect made, all of its runs together.
func caused(ev *Event, runs []*Run) []crm.Occurrence {
	var out []crm.Occurrence
	budget := ev.atOnce(runs)
	if ev.Outcome.LeadCreated {
		out = append(out, ev.causes("lead", "lead_created", nil, ev.ReceivedAt, budget))
	}
	return append(out, causedBy(ev, inOrder(ev, runs), 0, budget)...)
}

// causedBy are the occurrences that one leg of runs made.
func causedBy(ev *Event, runs []*Run, leg, budget int) []crm.Occurrence {
	var out []crm.Occurrence
	net := netTags(runs, leg)
	for _, run := range runs {
		for _, s := range run.legSteps(leg) {
			for _, t := range transitions(s, func(tag string) bool {
				n := net[tag]
				return n.first == n.last && n.run == run.ID && n.step == s.ID
			}) {
				o := ev.causes(run.ID+"|"+s.ID+"|"+t.key, t.trigger, t.vars, s.At, budget)
				o.Chain = append(o.Chain, run.RuleID)
				out = append(out, o)
			}
		}
	}
	return out
}

// causes makes the occurrence of something that an event led to.
func (ev *Event) causes(key, trigger string, vars map[string]any, at time.Time, budget int) crm.Occurrence {
	return crm.Occurrence{
		Key: causeKey(ev.ID, key, trigger), Trigger: trigger, LeadID: ev.Outcome.LeadID, Inherited: ev.Variables, Variables: vars, At: at,
		Depth: ev.Depth + 1, Budget: budget, Chain: append([]string{}, ev.Chain...),
	}
}
