package rule

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ResumeJob is the type of the job that lets a held run go on.
const ResumeJob = "automation.resume"

type advancePayload struct {
	RunID     string `json:"runId"`
	Step      string `json:"step"`
	MessageID string `json:"messageId"`
}

type resumePayload struct {
	RunID string `json:"runId"`
}

// Settled gives the job that takes a run further once a message of it was sent, refused, or lost its answer. It is the
// Settled of chat.Desk.
func (e *Engine) Settled(tn *tenant.Tenant, m *chat.Message) []store.NewJob {
	if m.Origin.RunID == "" {
		return nil
	}
	n := job.New(tn.Code, AdvanceJob, advancePayload{m.Origin.RunID, m.Origin.Step, m.ID})
	n.UniqueKey = "advance:" + m.Origin.RunID + ":" + m.Origin.Step
	n.Causation = store.Causation{RunID: m.Origin.RunID, Step: m.Origin.Step, Message: m.ID}
	return []store.NewJob{n}
}

// HandleAdvance is the handler of AdvanceJob: it records how a send ended and plans the next one.
func (e *Engine) HandleAdvance(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[advancePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	var next []store.NewJob
	err = conflictFree(ctx, func() error { next, err = e.advance(ctx, tn, p); return err })
	return job.Result{Next: next}, err
}

func (e *Engine) advance(ctx context.Context, tn *tenant.Tenant, p advancePayload) ([]store.NewJob, error) {
	run, err := Runs.Get(ctx, tn.DB, p.RunID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil // erased meanwhile
	}
	if err != nil {
		return nil, err
	}
	i := -1
	for k := range run.Steps {
		if run.Steps[k].ID == p.Step && run.Steps[k].State == StepQueued && run.Steps[k].MessageID == p.MessageID {
			i = k
		}
	}
	if i < 0 || run.Ended() {
		return e.sendJobs(tn, run), nil // done before: only the job that follows may be missing
	}
	m, err := chat.Messages.Get(ctx, tn.DB, p.MessageID)
	if err != nil {
		return nil, err
	}
	now := e.Now().UTC()
	s := &run.Steps[i]
	s.EndedAt = &now
	var writes []store.Write
	switch {
	case m.Status == chat.FailedSend && m.WAMID == "":
		se := &StepError{"failed", "The message was not accepted."}
		if m.Error != nil {
			se = &StepError{m.Error.Code, m.Error.Title}
		}
		fail(run, i, now, se)
	default:
		s.State, s.Output = StepDone, raw(map[string]string{"messageId": m.ID, "wamid": m.WAMID})
		if m.Status == chat.Unconfirmed {
			s.State = StepUnconfirmed
		}
		contact, err := e.Book.Person(ctx, tn, m.ContactID)
		if err != nil {
			return nil, err
		}
		if writes, err = e.planNext(ctx, tn, run, contact, now); err != nil {
			return nil, err
		}
	}
	writes = append(writes, news.Write(now, news.AutomationRun, run.ID+"|"+p.Step+"|"+run.State, "run", run.View()), Runs.Update(run))
	if err := tn.DB.Commit(ctx, writes...); err != nil {
		return nil, err
	}
	return e.sendJobs(tn, run), nil
}

// Supply gives a held run variables; the job that it returns lets the run go on.
func (e *Engine) Supply(ctx context.Context, tn *tenant.Tenant, runID string, vars map[string]any) (store.NewJob, error) {
	var key string
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
		return tn.DB.Commit(ctx, Runs.Update(run))
	})
	n := job.New(tn.Code, ResumeJob, resumePayload{runID})
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
	err = conflictFree(ctx, func() error { next, err = e.resume(ctx, tn, p.RunID); return err })
	return job.Result{Next: next}, err
}

func (e *Engine) resume(ctx context.Context, tn *tenant.Tenant, runID string) ([]store.NewJob, error) {
	run, err := Runs.Get(ctx, tn.DB, runID)
	if err != nil {
		return nil, err
	}
	ev, err := Events.Get(ctx, tn.DB, run.EventRef)
	if err != nil {
		return nil, err
	}
	version, err := Versions.Get(ctx, tn.DB, VersionID(run.RuleID, run.RuleVersion))
	if err != nil {
		return nil, err
	}
	lead, err := crm.Leads.Get(ctx, tn.DB, run.LeadID)
	if err != nil {
		return nil, err
	}
	contact, err := e.Book.Person(ctx, tn, lead.ContactID)
	if err != nil {
		return nil, err
	}
	stages, err := e.Book.Stages(ctx, tn)
	if err != nil {
		return nil, err
	}
	now := e.Now().UTC()
	mark := "resume:" + run.ID
	var writes []store.Write
	if run.State == RunHeld {
		if writes, err = e.begin(ctx, tn, run, &version.Definition, newScope(ev, lead, contact, run.Extra, now).in(stages), lead, contact, now); err != nil {
			return nil, err
		}
		writes = append(writes, news.Write(now, news.AutomationRun, run.ID+"|resumed|"+run.State, "run", run.View()), Runs.Update(run))
	} else if !lead.Did(mark) {
		replay(run.Steps, lead)
	}
	if run.State != RunHeld && !lead.Did(mark) {
		lead.Mark(mark)
		lead.UpdatedAt, lead.LastActivityAt = now, now
		writes = append(writes, news.Write(now, news.LeadUpdated, lead.ID+"|"+mark, "lead", lead.View(lead.Version+1)), crm.Leads.Update(lead))
	}
	if len(writes) > 0 {
		if err := tn.DB.Commit(ctx, writes...); err != nil {
			return nil, err
		}
	}
	return e.follow(ctx, tn, ev, []*Run{run})
}

// Run reads a run; fault.NotFound. Steps whose answer was lost show what became known of their messages since.
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
		if s.State != StepUnconfirmed {
			continue
		}
		m, err := chat.Messages.Get(ctx, tn.DB, s.MessageID)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return nil, err
		case m.WAMID != "":
			s.State, s.Output = StepDone, raw(map[string]string{"messageId": m.ID, "wamid": m.WAMID})
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
	State     string          `json:"state" enum:"done,planned,queued,failed,skipped,unconfirmed"`
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
		if s.MessageID != "" {
			sv.MessageID = &s.MessageID
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
