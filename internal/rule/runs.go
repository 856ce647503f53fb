package rule

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ResumeJob is the type of the job that lets a held run go on.
const ResumeJob = "automation.resume"

type resumePayload struct {
	RunID string `json:"runId"`
	Leg   int    `json:"leg"` // that the run goes on with
}

// Supply gives a held run variables; the job that it returns lets the run go on.
func (e *Engine) Supply(ctx context.Context, tn *tenant.Tenant, runID string, vars map[string]any) (store.NewJob, error) {
	var key string
	var leg int
	err := conflictFree(ctx, func() error {
		run, err := e.Run(ctx, tn, runID)
		if err != nil {
			return err
		}
		if run.State != RunHeld {
			return fault.New(fault.Conflict, "run.not_held", "The run is not held.")
		}
		if run.Extra == nil {
			run.Extra = map[string]any{}
		}
		maps.Copy(run.Extra, vars)
		key = "resume:" + run.ID + ":" + strconv.FormatInt(run.Version, 10)
		leg = run.Leg + 1
		return tn.DB.Commit(ctx, Runs.Update(run))
	})
	n := job.New(tn.Code, ResumeJob, resumePayload{runID, leg})
	n.UniqueKey = key
	n.Causation = store.Causation{RunID: runID}
	return n, err
}

// HandleResume is the handler of ResumeJob.
func (e *Engine) HandleResume(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[resumePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	var next []store.NewJob
	err = conflictFree(ctx, func() error { next, err = e.resume(ctx, tn, p); return err })
	return job.Result{Next: next}, err
}

func (e *Engine) resume(ctx context.Context, tn *tenant.Tenant, p resumePayload) ([]store.NewJob, error) {
	run, err := Runs.Get(ctx, tn.DB, p.RunID)
	if err != nil {
		return nil, err
	}
	if run.State != RunHeld {
		return e.again(ctx, tn, run, p.Leg)
	}
	now := e.Now().UTC()
	c, err := e.course(ctx, tn, run)
	var writes []store.Write
	var reason string
	if err == nil {
		reason, err = e.exitNow(ctx, tn, run, subject{c.lead, c.contact}, now)
	}
	switch {
	case err != nil:
	case reason != "":
		c = nil
	default:
		writes, err = e.nextLeg(ctx, tn, run, c, now)
	}
	if errors.Is(err, errLeadGone) {
		run.exit("lead_gone", now)
		c, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := e.commitLeg(ctx, tn, run, c, "resumed", writes, now); err != nil {
		return nil, err
	}
	return e.followLeg(ctx, tn, run, c)
}

// Run reads a run; fault.NotFound. Steps whose answer was lost show what became known since.
func (e *Engine) Run(ctx context.Context, tn *tenant.Tenant, runID string) (*Run, error) {
	r, err := Runs.Get(ctx, tn.DB, runID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("run")
	}
	if err != nil {
		return nil, err
	}
	for i := range r.Steps {
		s := &r.Steps[i]
		doer := e.Doers[s.Type]
		if s.State != StepUnconfirmed || doer == nil {
			continue
		}
		end, err := doer.Outcome(ctx, tn, s.Ref)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return nil, err
		case end.State == StepDone:
			s.State, s.Output = end.State, end.Output
		}
	}
	return r, nil
}

// conflictFree runs a read-then-commit until no other writer came between.
func conflictFree(ctx context.Context, step func() error) error {
	var err error
	for range 20 {
		if err = step(); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

// RunView is a run as the API shows it.
type RunView struct {
	ID          string     `json:"id"`
	RuleID      string     `json:"ruleId"`
	RuleVersion int        `json:"ruleVersion"`
	EventID     string     `json:"eventId"`
	LeadID      string     `json:"leadId"`
	State       string     `json:"state" enum:"active,waiting,held,done,exited,failed,cancelled"`
	Held        *Held      `json:"held"`
	WaitUntil   *string    `json:"waitUntil"`
	ExitReason  *string    `json:"exitReason"`
	Error       *StepError `json:"error"`
	Steps       []StepView `json:"steps"`
	StartedAt   *string    `json:"startedAt"`
	EndedAt     *string    `json:"endedAt"`
}

// StepView is a step as the API shows it.
type StepView struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	State     string          `json:"state" enum:"done,planned,queued,waiting,failed,skipped,unconfirmed"`
	Input     json.RawMessage `json:"input,omitempty"`
	Output    json.RawMessage `json:"output,omitempty"`
	Error     *StepError      `json:"error"`
	MessageID *string         `json:"messageId"`
	JobID     *string         `json:"jobId"`
	At        *string         `json:"at"`
	EndedAt   *string         `json:"endedAt"`
}

// View is the run as the API shows it.
func (r *Run) View() RunView {
	v := RunView{
		ID: r.ID, RuleID: r.RuleID, RuleVersion: r.RuleVersion, EventID: r.EventID, LeadID: r.LeadID, State: r.State, Held: r.Held,
		Error: r.Error, Steps: []StepView{}, StartedAt: news.Stamp(r.StartedAt),
	}
	if r.WaitUntil != nil {
		v.WaitUntil = news.Stamp(*r.WaitUntil)
	}
	if r.ExitReason != "" {
		v.ExitReason = &r.ExitReason
	}
	if r.EndedAt != nil {
		v.EndedAt = news.Stamp(*r.EndedAt)
	}
	for _, s := range r.Steps {
		sv := StepView{ID: s.ID, Type: s.Type, State: s.State, Input: s.Input, Output: s.Output, Error: s.Error, At: news.Stamp(s.At)}
		if s.Ref != "" && sends(s.Type) {
			sv.MessageID = &s.Ref
		}
		if s.JobID != "" {
			sv.JobID = &s.JobID
		}
		if s.EndedAt != nil {
			sv.EndedAt = news.Stamp(*s.EndedAt)
		}
		v.Steps = append(v.Steps, sv)
	}
	return v
}
