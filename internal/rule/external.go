package rule

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Doer does the external actions of one or more types. What it makes for a step (a message, a mail, a meeting) is named
// by a ref, derived from Task.Seed: planned again after a crash, it is the same one.
type Doer interface {
	// Plan gives the ref of what is to be done for a step and the writes that make it ready, deciding record last; they
	// stand in one commit with the run. It calls nobody and writes nothing itself: a simulation plans too, and throws the
	// plan away. A *chat.Refusal, or a fault.Error, fails the step and the run with its code and detail.
	Plan(ctx context.Context, tn *tenant.Tenant, t Task) (ref string, writes []store.Write, err error)
	// Job is the job that does what ref names: the same unique key at every call. Its id is set by the engine.
	Job(tn *tenant.Tenant, ref string, cause store.Causation) store.NewJob
	// Outcome tells how it ended. It is asked by the job that Engine.Advance makes.
	Outcome(ctx context.Context, tn *tenant.Tenant, ref string) (Ended, error)
}

// Task is an external step that is to be planned.
type Task struct {
	RunID, Step string
	EventID     string // as the caller of the event knows it
	Type        string // of the action
	Seed        string // names what is done: the same for the same step of the same run
	// Input is the action as it is done: rendered and frozen. TemplateInput, TextInput, EmailInput, MeetInput, WebhookInput.
	Input   json.RawMessage
	Contact *crm.Contact
	LeadID  string
	At      time.Time // the run's now
	// Trial: only a simulation.
	Trial bool
}

// Ended is how an external step ended.
type Ended struct {
	State  string          // StepDone, StepFailed, StepUnconfirmed, or StepSkipped where MayBegin said so; "" if it has not
	Output json.RawMessage // shown in the run
	Error  *StepError      // of a failed or skipped one
	// Result is what later actions of the run see under the root of the action's type: {{meet.url}}.
	Result map[string]any
	// Appointment is what they see as appointment.* from then on; nil: as before.
	Appointment map[string]any
}

// EmailInput is the frozen input of e-mails; html is escaped where placeholders were filled.
type EmailInput struct {
	Subject string `json:"subject"`
	HTML    string `json:"html,omitempty"`
	Text    string `json:"text,omitempty"`
	Resend  bool   `json:"resend,omitempty"`
}

// MeetInput is the frozen input of meetings.
type MeetInput struct {
	Title           string     `json:"title"`
	StartsAt        time.Time  `json:"startsAt"`
	DurationMinutes int        `json:"durationMinutes"`
	TimeZone        string     `json:"timeZone"` // IANA; in which it is shown
	Attendees       []Attendee `json:"attendees,omitempty"`
}

// TemplateInput and TextInput are the frozen inputs of WhatsApp sends.
type TemplateInput struct {
	Template   string   `json:"template"`
	Language   string   `json:"language"`
	Parameters []string `json:"parameters"`
	From       string   `json:"from,omitempty"`
	Resend     bool     `json:"resend,omitempty"`
}

// TextInput see TemplateInput.
type TextInput struct {
	Text   string `json:"text"`
	From   string `json:"from,omitempty"`
	Resend bool   `json:"resend,omitempty"`
}

// AdvanceJob is the type of the job that takes a run further.
const AdvanceJob = "automation.advance"

type advancePayload struct {
	RunID string `json:"runId"`
	Step  string `json:"step"`
	Ref   string `json:"ref"`
}

// Advance is the job that takes a run further once what ref names was done, failed, or lost its answer. Whoever does a
// step leaves it to its own job (job.Result.Next, or that of job.Dead); asking twice makes it once.
func (e *Engine) Advance(tn *tenant.Tenant, runID, step, ref string) store.NewJob {
	n := job.New(tn.Code, AdvanceJob, advancePayload{runID, step, ref})
	n.UniqueKey = "advance:" + runID + ":" + step
	n.Causation = store.Causation{RunID: runID, Step: step}
	return n
}

// HandleAdvance is the handler of AdvanceJob: it records how a step ended and takes the run to the next.
func (e *Engine) HandleAdvance(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[advancePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	var next []store.NewJob
	err = conflictFree(ctx, func() error { next, err = e.advance(ctx, tn, p); return err })
	if err == nil {
		err = conflictFree(ctx, func() error { return e.spoils(ctx, tn, p.RunID, p.Step) })
	}
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
	i := run.at(p.Step)
	if i < 0 || run.Steps[i].Ref != p.Ref {
		return nil, nil
	}
	s := &run.Steps[i]
	if s.State != StepQueued {
		return e.again(ctx, tn, run, s.Led)
	}
	now := e.Now().UTC()
	if err := e.learn(ctx, tn, run, i, now); err != nil {
		return nil, err
	}
	return e.onward(ctx, tn, run, s.ID, now)
}

var errNotEnded = errors.New("the step has not ended")

// learn writes into a queued step how it ended. A step that failed ends its run.
func (e *Engine) learn(ctx context.Context, tn *tenant.Tenant, run *Run, i int, now time.Time) error {
	s := &run.Steps[i]
	doer := e.Doers[s.Type]
	if doer == nil {
		return job.Park("no_doer", errors.New("nothing here does steps of type "+s.Type))
	}
	end, err := doer.Outcome(ctx, tn, s.Ref)
	if err != nil {
		return err
	}
	switch end.State {
	case StepFailed:
		if end.Error == nil {
			end.Error = &StepError{"failed", "The step failed."}
		}
		s.Output = end.Output
		if run.Ended() {
			s.State, s.Error, s.EndedAt = StepFailed, end.Error, &now
		} else {
			fail(run, i, now, end.Error)
		}
	case StepSkipped:
		s.State, s.Error, s.EndedAt = StepSkipped, end.Error, &now
	case StepDone, StepUnconfirmed:
		s.State, s.Output, s.EndedAt = end.State, end.Output, &now
		if root := external[s.Type]; root != "" && end.Result != nil {
			if run.Results == nil {
				run.Results = map[string]any{}
			}
			run.Results[root] = end.Result
			if end.Appointment != nil {
				run.Results["appointment"], run.About = end.Appointment, about("", end.Appointment)
			}
		}
	default:
		return errNotEnded
	}
	return nil
}

// plan makes the run's next planned step ready, or ends the run if there is none and nothing follows. It gives the
// writes of what is to be done.
func (e *Engine) plan(ctx context.Context, tn *tenant.Tenant, run *Run, contact *crm.Contact, now time.Time) ([]store.Write, error) {
	i := run.planned()
	if i < 0 {
		if run.State == RunActive && run.Cursor == "" {
			run.end(RunDone, now, nil)
		}
		return nil, nil
	}
	s := &run.Steps[i]
	ref, writes, err := e.planStep(ctx, tn, run, s, contact, now, false)
	if se := stepError(err); se != nil {
		fail(run, i, now, se)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.State, s.Ref, s.JobID = StepQueued, ref, id.DerivedAt("job", now, tn.Code, "send", ref)
	return writes, nil
}

func (e *Engine) planStep(ctx context.Context, tn *tenant.Tenant, run *Run, s *Step, contact *crm.Contact, now time.Time, trial bool) (string, []store.Write, error) {
	doer := e.Doers[s.Type]
	if doer == nil {
		return "", nil, &chat.Refusal{Code: "not_available", Detail: "Actions of type " + s.Type + " are not available here."}
	}
	if s.Input == nil {
		return "", nil, &chat.Refusal{Code: errTooLong().Code, Detail: errTooLong().Detail}
	}
	return doer.Plan(ctx, tn, Task{
		RunID: run.ID, Step: s.ID, EventID: run.EventID, Type: s.Type, Seed: run.ID + "|" + s.ID, Input: s.Input, Contact: contact,
		LeadID: run.LeadID, At: now, Trial: trial,
	})
}

// stepError is what a client is told of an error that a step's own making is; nil for those that will pass.
func stepError(err error) *StepError {
	var r *chat.Refusal
	var f *fault.Error
	switch {
	case errors.As(err, &r):
		return &StepError{r.Code, r.Detail}
	case errors.As(err, &f) && f.Kind != fault.Unavailable && f.Kind != fault.Internal && f.Kind != fault.Limited:
		return &StepError{f.Code, f.Detail}
	}
	return nil
}

// fail ends a run at a step; the external steps after it are not made.
func fail(run *Run, i int, now time.Time, se *StepError) {
	run.Steps[i].State, run.Steps[i].Error, run.Steps[i].EndedAt = StepFailed, se, &now
	run.skip(now, &StepError{"previous_failed", "An earlier step of this run failed."})
	run.end(RunFailed, now, se)
}

// stepJobs gives the job of what a run waits for: an external step, or the end of a wait.
func (e *Engine) stepJobs(tn *tenant.Tenant, run *Run) []store.NewJob {
	if run.Ended() {
		return nil
	}
	if run.State == RunWaiting {
		return e.wakeJob(tn, run)
	}
	for _, s := range run.Steps {
		if doer := e.Doers[s.Type]; s.State == StepQueued && doer != nil {
			n := doer.Job(tn, s.Ref, store.Causation{EventID: run.EventID, RunID: run.ID, Step: s.ID, LeadID: run.LeadID, AppointmentID: run.appointment()})
			n.ID = s.JobID
			if m, ok := doer.(Messages); ok {
				n.Resource, n.Pair = m.needs(tn, s.Input), run.LeadID
			}
			return []store.NewJob{n}
		}
	}
	return nil
}
