package rule

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// AbandonedJob is the type of the job that takes care of a run whose own job, the end of a wait or a webhook, was cancelled
// or given up.
const AbandonedJob = "automation.abandoned"

type abandonedPayload struct {
	RunID  string `json:"runId,omitempty"`
	Step   string `json:"step,omitempty"`
	PostID string `json:"postId,omitempty"`
}

// Abandoned gives the job that takes care of what WakeJob or WebhookJob will not do any more. It is their Abandoned.
func Abandoned(j store.Job) []store.NewJob {
	var p abandonedPayload
	if json.Unmarshal(j.Payload, &p) != nil {
		return nil
	}
	n := job.New(j.Tenant, AbandonedJob, p)
	n.UniqueKey, n.Causation = "abandoned:"+j.ID, j.Causation
	return []store.NewJob{n}
}

// HandleAbandoned is the handler of AbandonedJob: a run that waited is cancelled, a webhook has failed.
func (e *Engine) HandleAbandoned(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[abandonedPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	if p.PostID == "" {
		return job.Result{}, conflictFree(ctx, func() error {
			run, err := Runs.Get(ctx, tn.DB, p.RunID)
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			if err != nil || run.State != RunWaiting || run.Cursor != p.Step {
				return err
			}
			return e.cancel(ctx, tn, run)
		})
	}
	var next []store.NewJob
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
		return tn.DB.Commit(ctx, Posts.Update(post))
	})
	return job.Result{Next: next}, err
}
