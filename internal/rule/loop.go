package rule

import (
	"context"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// What keeps rules from driving each other in circles: a change that changes nothing is no event; a rule is not entered
// twice by one cause (Event.Chain), nor by what is more than maxDepthOfEvents causes away; all that one event leads to is
// bounded (budget.go); its author is warned of circles
// when it is published; and where a circle leads through the world outside, the breaker ends it.

// How often a lead may enter a rule within an hour: where rules, or people at work on a lead, are the cause, and where the
// world outside says that something happened, which may be true a hundred times.
const (
	maxRunsPerHour    = 10
	maxOutsidePerHour = 200
)

// tooManyRuns is why a rule paused by itself, or why a lead does not enter it.
const tooManyRuns = "too_many_runs"

// breaks tells whether a lead that is about to enter a rule entered it too often in the last hour.
func (e *Engine) breaks(ctx context.Context, tn *tenant.Tenant, r *Rule, l *crm.Lead, ev *Event, now time.Time) (bool, error) {
	if m := r.Live.Reenrol.Mode; m == OnceEver || l.Version == 0 {
		return false, nil
	}
	n, err := tn.DB.Count(ctx, store.Query{Kind: Runs.Schema.Kind, Where: []store.Term{
		store.Where("ruleLead", store.Eq, r.ID+"|"+l.ID), store.Where("startedAt", store.Gt, now.Add(-time.Hour).UnixMilli()),
	}})
	most := int64(maxRunsPerHour)
	if fromOutside(ev) {
		most = maxOutsidePerHour
	}
	return n >= most, err
}

// fromOutside tells whether an event is something that the client's own systems told, and no rule caused.
func fromOutside(ev *Event) bool {
	switch ev.Trigger {
	case "appointment_confirmed", "product_purchased", "service_enrolled", "form_submitted":
		return ev.Depth == 0
	}
	return ev.Depth == 0 && customTrigger.MatchString(ev.Trigger)
}

// byCustomers are the triggers that a customer can cause as often as they like: those pause no rule for the others.
func byCustomers(trigger string) bool {
	return trigger == messageReceived || trigger == messageFailed || trigger == "link_clicked"
}

// trips lets the breaker act: it gives why the lead does not enter, and pauses the rule unless the event is a customer's,
// or one from outside: neither may stop the rule for the other leads.
func (r *Rule) trips(ev *Event, now time.Time) (reason string, writes []store.Write) {
	if byCustomers(ev.Trigger) || fromOutside(ev) {
		return tooManyRuns, nil
	}
	r.Status, r.PausedFor, r.UpdatedAt = Paused, tooManyRuns, now
	return RulePaused, []store.Write{Rules.Update(r)}
}

// causes tells whether actions may cause an event of a trigger.
func causes(as []Action, trigger string) bool {
	for _, a := range as {
		switch {
		case a.Type == TagAdd && trigger == "tag_added",
			a.Type == TagRemove && trigger == "tag_removed",
			a.Type == LeadStage && trigger == "stage_changed",
			a.Type == LeadStage && a.Stage == "won" && trigger == "deal_won",
			a.Type == LeadStage && a.Stage == "lost" && trigger == "deal_lost",
			a.Type == LeadScore && trigger == "score_crossed":
			return true
		}
		if causes(a.Then, trigger) || causes(a.Else, trigger) {
			return true
		}
	}
	return false
}

// cycle gives the shortest way from a rule's draft over live rules back to it: the ids of the rules, the first one also
// last; nil if there is none.
func cycle(r *Rule, others []*Rule) []string {
	if causes(r.Draft.Actions, r.Draft.Trigger) {
		return []string{r.ID, r.ID}
	}
	type way struct {
		actions []Action
		path    []string
	}
	seen := map[string]bool{r.ID: true}
	for next := []way{{r.Draft.Actions, []string{r.ID}}}; len(next) > 0; {
		w := next[0]
		next = next[1:]
		if len(w.path) > 1 && causes(w.actions, r.Draft.Trigger) {
			return append(w.path, r.ID)
		}
		for _, o := range others {
			if !seen[o.ID] && o.Status == Live && causes(w.actions, o.Live.Trigger) {
				seen[o.ID] = true
				next = append(next, way{o.Live.Actions, append(slices.Clone(w.path), o.ID)})
			}
		}
	}
	return nil
}

// lookOver notes in a rule, for its author, the circle that it would close and the stages that are not there. It stands
// already: that they cannot be looked for is no reason to tell otherwise.
func (e *Engine) lookOver(ctx context.Context, tn *tenant.Tenant, r *Rule) {
	others, err := Rules.Find(ctx, tn.DB, store.Query{Limit: maxRules})
	if err != nil {
		e.Log.Warn("circles of rules cannot be looked for", "client", tn.Code, "error", err)
		return
	}
	r.cycle = cycle(r, others)
	stages, err := e.Book.Stages(ctx, tn)
	if err != nil {
		e.Log.Warn("the stages of a rule cannot be looked for", "client", tn.Code, "error", err)
		return
	}
	r.strayStages = strayStages(stages, "/actions", r.Draft.Actions)
}

// strayStages gives where actions name a stage that is not there: such an action moves nobody. Without a pipeline the
// lead's own is meant, which may be any.
func strayStages(stages crm.Stages, at string, as []Action) (out []string) {
	for i, a := range as {
		p := at + "/" + itoa(i)
		if a.Type == LeadStage {
			known := slices.ContainsFunc(stages.All(), func(pl *crm.Pipeline) bool {
				_, ok := pl.Stage(a.Stage)
				return ok && (a.Pipeline == "" || a.Pipeline == pl.ID)
			})
			if !known {
				out = append(out, p+"/stage")
			}
		}
		out = append(out, strayStages(stages, p+"/then", a.Then)...)
		out = append(out, strayStages(stages, p+"/else", a.Else)...)
	}
	return out
}
