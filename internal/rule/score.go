package rule

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// OwnPoints tells whether live rules of a client give points for a trigger: then the engine gives none. It is the
// OwnPoints of crm.Book.
func (e *Engine) OwnPoints(ctx context.Context, tn *tenant.Tenant, trigger string) (bool, error) {
	rules, err := Rules.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("liveTrigger", store.Eq, trigger)}, Order: "createdAt", Limit: 1000})
	return ownPoints(rules), err
}

func ownPoints(rules []*Rule) bool {
	return slices.ContainsFunc(rules, func(r *Rule) bool { return r.Status == Live && scores(r.Live.Actions) })
}

func scores(as []Action) bool {
	return slices.ContainsFunc(as, func(a Action) bool { return a.Type == LeadScore || scores(a.Then) || scores(a.Else) })
}

// interaction is the row of the score ledger that an event itself is; nil if it has no points, or rules of its trigger
// give their own.
func interaction(tn *tenant.Tenant, ev *Event, l *crm.Lead, rules []*Rule) *crm.ScoreEvent {
	if !crm.ScoredTrigger(ev.Trigger) || ownPoints(rules) {
		return nil
	}
	at := ev.OccurredAt
	if at.After(ev.ReceivedAt) { // what is still to come is told now
		at = ev.ReceivedAt
	}
	return crm.NewPoints(tn.Code, l.ID, ev.Trigger, ev.ID, ev.EventID, amount(ev.Variables), at)
}

// amount is what an event says was paid; 0 if it does not.
func amount(vars Values) float64 {
	for _, name := range []string{"amount", "total", "price", "value"} {
		var v float64
		var err error
		switch x := vars[name].(type) {
		case float64:
			v = x
		case int:
			v = float64(x)
		case json.Number:
			v, err = x.Float64()
		case string:
			v, err = strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(x), ",", ""), 64)
		default:
			continue
		}
		if err == nil && v > 0 && !math.IsInf(v, 0) {
			return v
		}
	}
	return 0
}

// given is what the actions of some steps gave.
func given(steps []Step) float64 {
	sum := 0.0
	for _, s := range steps {
		var c scoreChange
		if s.Type == LeadScore && s.State == StepDone && json.Unmarshal(s.Output, &c) == nil {
			sum += c.Points
		}
	}
	return sum
}

// led makes an occurrence one that an event led to, by rules.
func (ev *Event) led(o crm.Occurrence, budget int, rules ...string) crm.Occurrence {
	o.Inherited, o.Budget = ev.Variables, budget
	o.Depth, o.Chain = ev.Depth+1, append(append([]string{}, ev.Chain...), rules...)
	return o
}

// crossings are what follows from the score that an event left its lead with.
func (e *Engine) crossings(ctx context.Context, tn *tenant.Tenant, ev *Event, runs []*Run, l *crm.Lead) (os []crm.Occurrence, next []store.NewJob, err error) {
	if !ev.Outcome.Rescored {
		return nil, nil, nil
	}
	if l == nil {
		if l, err = e.Book.LeadByID(ctx, tn, ev.Outcome.LeadID); errors.Is(err, store.ErrNotFound) {
			return nil, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
	var by []string
	for _, r := range runs {
		if slices.ContainsFunc(r.legSteps(0), func(s Step) bool { return s.Type == LeadScore && s.State == StepDone }) {
			by = append(by, r.RuleID)
		}
	}
	os, next = e.Book.Scored(tn, l, ev.ID)
	for i := range os {
		os[i] = ev.led(os[i], ev.atOnce(runs), by...)
	}
	return os, next, nil
}

// pointsJobs gives the job that counts an occurrence of which no rule is told, if it has points.
func pointsJobs(tn *tenant.Tenant, o crm.Occurrence) []store.NewJob {
	if o.LeadID == "" || !crm.ScoredTrigger(o.Trigger) {
		return nil
	}
	return []store.NewJob{crm.PointsOf(tn, o.LeadID, o.Trigger, EventRecordID(tn.Code, o.Key), o.Key, amount(o.Variables), o.At)}
}
