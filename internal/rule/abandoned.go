package rule

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// AbandonedJob is the type of the job that takes care of a run whose own job, its event, a step, the end of a wait or a
// webhook, was cancelled or given up.
const AbandonedJob = "automation.abandoned"

type abandonedPayload struct {
	EventRef string `json:"eventRef,omitempty"`
	RunID    string `json:"runId,omitempty"`
	Step     string `json:"step,omitempty"`
	PostID   string `json:"postId,omitempty"`
	Reason   string `json:"reason,omitempty"` // of package job; "": withdrawn
}

// Abandoned gives the job that takes care of what EventJob, WakeJob, AdvanceJob or WebhookJob will not do any more. It is their Abandoned.
func Abandoned(j store.Job) []store.NewJob {
	var p abandonedPayload
	if json.Unmarshal(j.Payload, &p) != nil {
		return nil
	}
	p.Reason = job.Reason(j)
	n := job.New(j.Tenant, AbandonedJob, p)
	n.UniqueKey, n.KeyHash, n.Causation = "abandoned:"+j.ID, j.ID, j.Causation
	return []store.NewJob{n}
}

// HandleAbandoned is the handler of AbandonedJob: a run that nobody will take further is cancelled, or has failed; so has
// a webhook.
func (e *Engine) HandleAbandoned(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[abandonedPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	if p.EventRef != "" {
		next, err := e.abandonedEvent(ctx, tn, p)
		return job.Result{Next: next}, err
	}
	var next []store.NewJob
	if p.PostID == "" {
		err = conflictFree(ctx, func() error {
			run, err := Runs.Get(ctx, tn.DB, p.RunID)
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			if !run.awaits(p.Step) {
				if i := run.at(p.Step); i >= 0 { // it took the run further, and may have ended before its jobs were made
					next, err = e.again(ctx, tn, run, run.Steps[i].Led)
				}
				return err
			}
			now, i := e.Now().UTC(), run.at(p.Step)
			if run.Steps[i].State == StepQueued { // what it did is done, whoever was to take the run further
				if err := e.learn(ctx, tn, run, i, now); err != nil && !errors.Is(err, errNotEnded) && !errors.Is(err, store.ErrNotFound) {
					return err
				}
			}
			gone := &StepError{p.Reason, "The job of this step failed, and is not tried again."}
			switch s := run.Steps[i].State; {
			case run.Ended():
			case p.Reason != job.GivenUp:
				return e.cancel(ctx, tn, run)
			case s == StepQueued || s == StepWaiting:
				fail(run, i, now, gone)
			default:
				run.skip(now, &StepError{"previous_failed", "The run was not taken further after an earlier step."})
				run.end(RunFailed, now, gone)
			}
			return e.commitEnd(ctx, tn, run, now)
		})
		return job.Result{Next: next}, err
	}
	err = conflictFree(ctx, func() error {
		post, err := Posts.Get(ctx, tn.DB, p.PostID)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		next = []store.NewJob{e.Advance(tn, post.RunID, post.Step, post.ID)}
		if post.State != postPlanned {
			return nil
		}
		post.State, post.Body, post.Error = postFailed, nil, &StepError{"cancelled", "The webhook was cancelled, or given up."}
		var over *chat.Refusal
		if err := e.MayBegin(ctx, tn, post.RunID, post.Step); errors.As(err, &over) {
			post.State, post.Error = postSkipped, &StepError{over.Code, over.Detail}
		} else if err != nil {
			return err
		}
		return tn.DB.Commit(ctx, Posts.Update(post))
	})
	return job.Result{Next: next}, err
}

// abandonedEvent takes care of an event that may have had its effect before its job ended: what follows from it is made, or
// cancelled with it. One without an effect is left to the operator.
func (e *Engine) abandonedEvent(ctx context.Context, tn *tenant.Tenant, p abandonedPayload) ([]store.NewJob, error) {
	ev, err := Events.Get(ctx, tn.DB, p.EventRef)
	if errors.Is(err, store.ErrNotFound) || err == nil && ev.Outcome == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	runs, err := e.runsOf(ctx, tn, ev)
	if err != nil {
		return nil, err
	}
	if p.Reason == job.GivenUp {
		return e.follow(ctx, tn, ev, runs, nil)
	}
	for _, r := range runs {
		err := conflictFree(ctx, func() error {
			run, err := Runs.Get(ctx, tn.DB, r.ID)
			if errors.Is(err, store.ErrNotFound) || err == nil && run.Ended() {
				return nil
			}
			if err != nil {
				return err
			}
			return e.cancel(ctx, tn, run)
		})
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// awaits tells whether a run goes on with a step, once that has ended.
func (r *Run) awaits(step string) bool {
	i := r.at(step)
	if i < 0 || r.Ended() {
		return false
	}
	return r.Steps[i].State == StepQueued || (r.State == RunWaiting && r.Cursor == step)
}
