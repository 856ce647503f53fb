package rule

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ExitJob is the type of the job that ends the runs of a lead that something made pointless.
const ExitJob = "automation.exit"

// What makes a run pointless. exitGoal and exitStage go before a condition, or a stage.
const (
	exitReply  = "reply"
	exitOptOut = "opt_out"
	exitGoal   = "goal:"
	exitStage  = "stage:"
)

// maxExits bounds how many a rule has.
const maxExits = 20

func (v *validation) exits(exits []string) {
	if len(exits) > maxExits {
		v.add("/exits", "must be at most %d", maxExits)
	}
	for i, x := range exits {
		p := "/exits/" + itoa(i)
		cond, goal := strings.CutPrefix(x, exitGoal)
		stage, staged := strings.CutPrefix(x, exitStage)
		switch {
		case x == exitReply, x == exitOptOut:
		case goal && strings.TrimSpace(cond) != "":
			v.condition(p, cond)
		case staged && stageForm.MatchString(stage):
		default:
			v.add(p, `must be "reply", "opt_out", "goal:<condition>" or "stage:<id>"`)
		}
	}
}

// exits are what makes a run of this definition pointless; by default, of one with a wait, a reply or an opt-out.
func (d *Definition) exits() []string {
	if d.Exits == nil && hasWait(d.Actions) {
		return []string{exitReply, exitOptOut}
	}
	return d.Exits
}

func hasWait(as []Action) bool {
	return slices.ContainsFunc(as, func(a Action) bool { return a.Type == Wait || hasWait(a.Then) || hasWait(a.Else) })
}

// exitReason tells what made a run pointless; "" for nothing. sc shows the lead as it is; replied: the person wrote since
// the run began.
func (r *Run) exitReason(sc *scope, s subject, replied bool) string {
	for _, x := range r.Exits {
		cond, goal := strings.CutPrefix(x, exitGoal)
		stage, staged := strings.CutPrefix(x, exitStage)
		switch {
		case x == exitReply && replied, x == exitOptOut && s.contact.OptedOutAt != nil:
			return x
		case staged && s.lead.Stage == stage:
			return "stage"
		case goal:
			if p, err := compile(cond); err == nil {
				if ok, err := sc.holds(p); err == nil && ok {
					return "goal"
				}
			}
		}
	}
	return ""
}

// exitScope is what the goals of a run see: the lead as it is, the run's own event, but the trigger of what happens now.
func (e *Engine) exitScope(ctx context.Context, tn *tenant.Tenant, run *Run, s subject, trigger string, now time.Time) (*scope, error) {
	if !slices.ContainsFunc(run.Exits, func(x string) bool { return strings.HasPrefix(x, exitGoal) }) {
		return nil, nil
	}
	ev := run.Told
	if ev == nil {
		var err error
		if ev, err = Events.Get(ctx, tn.DB, run.EventRef); errors.Is(err, store.ErrNotFound) {
			ev, err = &Event{}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	told := *ev
	if trigger != "" {
		told.Trigger = trigger
	}
	sc := newScope(&told, s.lead, s.contact, run.Extra, now)
	sc.setResults(run.Results)
	return sc, nil
}

// exitNow is the guard before a step: it leaves the run if something has made it pointless, and tells what.
func (e *Engine) exitNow(ctx context.Context, tn *tenant.Tenant, run *Run, s subject, now time.Time) (reason string, err error) {
	if len(run.Exits) == 0 {
		return "", nil
	}
	replied := false
	if e.Replied != nil && slices.Contains(run.Exits, exitReply) {
		if replied, err = e.Replied(ctx, tn, s.contact.ID, run.StartedAt); err != nil {
			return "", err
		}
	}
	sc, err := e.exitScope(ctx, tn, run, s, "", now)
	if err != nil {
		return "", err
	}
	if reason = run.exitReason(sc, s, replied); reason != "" {
		run.exit(reason, now)
	}
	return reason, nil
}

type exitPayload struct {
	LeadID   string    `json:"leadId"`
	EventRef string    `json:"eventRef"`
	Trigger  string    `json:"trigger"`
	At       time.Time `json:"at"`
}

// exitJobs gives the job that looks at the runs of a lead to which something happened; none where none is open. The same
// happening gives the same job.
func (e *Engine) exitJobs(ctx context.Context, tn *tenant.Tenant, eventRef, leadID, trigger string, at time.Time) ([]store.NewJob, error) {
	if leadID == "" {
		return nil, nil
	}
	n, err := tn.DB.Count(ctx, openRuns(leadID, at))
	if err != nil || n == 0 {
		return nil, err
	}
	j := job.New(tn.Code, ExitJob, exitPayload{leadID, eventRef, trigger, at.UTC()})
	j.UniqueKey = "exit:" + eventRef
	j.KeyHash = j.UniqueKey
	j.Causation = store.Causation{LeadID: leadID}
	return []store.NewJob{j}, nil
}

// openRuns asks for the runs of a lead that began before something happened, and can be made pointless.
func openRuns(leadID string, at time.Time) store.Query {
	return store.Query{Kind: Runs.Schema.Kind, Where: []store.Term{
		store.Where("openLead", store.Eq, leadID), store.Where("startedAt", store.Lt, at.UnixMilli()),
	}, Order: "startedAt", Limit: 1000}
}

// HandleExit is the handler of ExitJob.
func (e *Engine) HandleExit(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[exitPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	runs, err := Runs.Find(ctx, tn.DB, openRuns(p.LeadID, p.At))
	if err != nil {
		return job.Result{}, err
	}
	for _, r := range runs {
		if r.EventRef == p.EventRef {
			continue
		}
		if err := conflictFree(ctx, func() error { return e.exitRun(ctx, tn, r.ID, p) }); err != nil {
			return job.Result{}, err
		}
	}
	return job.Result{}, nil
}

func (e *Engine) exitRun(ctx context.Context, tn *tenant.Tenant, runID string, p exitPayload) error {
	run, err := Runs.Get(ctx, tn.DB, runID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || run.Ended() {
		return err
	}
	now := e.Now().UTC()
	s, err := e.subjectOf(ctx, tn, run)
	switch {
	case errors.Is(err, errLeadGone):
		run.exit("lead_gone", now)
	case err != nil:
		return err
	default:
		sc, err := e.exitScope(ctx, tn, run, s, p.Trigger, now)
		if err != nil {
			return err
		}
		reason := run.exitReason(sc, s, p.Trigger == messageReceived)
		if reason == "" {
			return nil
		}
		run.exit(reason, now)
	}
	return e.commitEnd(ctx, tn, run, now)
}

// commitEnd writes a run that was left, and gives up the jobs that it waited for.
func (e *Engine) commitEnd(ctx context.Context, tn *tenant.Tenant, run *Run, now time.Time) error {
	if err := tn.DB.Commit(ctx, news.Write(now, news.AutomationRun, run.ID+"|"+run.State, "run", run.View()), Runs.Update(run)); err != nil {
		return err
	}
	var wakes []string
	for _, s := range run.Steps {
		if s.Type == Wait && s.State == StepSkipped && s.JobID != "" && s.EndedAt != nil && s.EndedAt.Equal(now) {
			wakes = append(wakes, s.JobID)
		}
	}
	if e.Cancel != nil && len(wakes) > 0 {
		if _, err := e.Cancel(ctx, wakes...); err != nil { // it finds the run over, and does nothing
			e.Log.Warn("the job of a run that was left stays", "client", tn.Code, "run", run.ID, "error", err)
		}
	}
	if e.CancelCaused != nil {
		if _, err := e.CancelCaused(ctx, tn.Code, store.Causation{RunID: run.ID}); err != nil { // MayBegin tells them
			e.Log.Warn("jobs of a run that was left stay", "client", tn.Code, "run", run.ID, "error", err)
		}
	}
	return nil
}

// MayBegin is asked right before an external step is done, by its job: a *chat.Refusal says that it must not be, because
// the run is over, something has made it pointless, or the moment it was for has passed. Outcome then is StepSkipped.
func (e *Engine) MayBegin(ctx context.Context, tn *tenant.Tenant, runID, step string) (err error) {
	err = conflictFree(ctx, func() error {
		run, err := Runs.Get(ctx, tn.DB, runID)
		if errors.Is(err, store.ErrNotFound) {
			return &chat.Refusal{Code: runOver, Detail: "The run is not there any more."}
		}
		if err != nil {
			return err
		}
		now := e.Now().UTC()
		if i := run.at(step); i >= 0 && run.Steps[i].Latest != nil && now.After(*run.Steps[i].Latest) {
			return &chat.Refusal{Code: tooLate, Detail: "Its moment had passed."}
		}
		over := &chat.Refusal{Code: runOver, Detail: "The run was left before this step."}
		// A step whose answer was lost let its run go on, and may be tried once more after the run's end.
		again := false
		if i := run.at(step); i >= 0 {
			again = run.State == RunDone && run.Steps[i].State == StepUnconfirmed
		}
		if run.Ended() && !again {
			return over
		}
		if err := e.unspoilt(ctx, tn, run, step); err != nil {
			return err
		}
		switch reason, err := e.unsaid(ctx, tn, run); {
		case err != nil:
			return err
		case reason == tooLate:
			return &chat.Refusal{Code: tooLate, Detail: "The appointment has begun."}
		case reason != "" && again:
			return over
		case reason != "":
			run.exit(reason, now)
			if err := e.commitEnd(ctx, tn, run, now); err != nil {
				return err
			}
			return over
		}
		if len(run.Exits) == 0 || again {
			return nil
		}
		s, err := e.subjectOf(ctx, tn, run)
		if errors.Is(err, errLeadGone) {
			return nil // whoever does the step finds that out, too
		}
		if err != nil {
			return err
		}
		reason, err := e.exitNow(ctx, tn, run, s, now)
		if err != nil || reason == "" {
			return err
		}
		if err := e.commitEnd(ctx, tn, run, now); err != nil {
			return err
		}
		return over
	})
	return err
}

// runOver is the code of a step that was not begun because its run had ended.
const runOver = "run_over"

// NotBegun tells whether a step was not done because MayBegin said so, by the code it failed with.
func NotBegun(code string) bool { return code == runOver || code == tooLate }

// CancelRun ends a run that goes on; 409 if it has ended.
func (e *Engine) CancelRun(ctx context.Context, tn *tenant.Tenant, runID string) (run *Run, err error) {
	err = conflictFree(ctx, func() error {
		if run, err = e.Run(ctx, tn, runID); err != nil {
			return err
		}
		if run.Ended() {
			return fault.New(fault.Conflict, "run.ended", "The run has ended.")
		}
		return e.cancel(ctx, tn, run)
	})
	return run, err
}

func (e *Engine) cancel(ctx context.Context, tn *tenant.Tenant, run *Run) error {
	now := e.Now().UTC()
	run.skip(now, &StepError{"cancelled", "The run was cancelled before this step."})
	run.end(RunCancelled, now, nil)
	return e.commitEnd(ctx, tn, run, now)
}
