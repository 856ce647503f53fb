package job

import (
	"context"
	"errors"
	"slices"

	"github.com/ecodrix/ecod/internal/store"
)

// cancelPage is how many jobs one commit cancels.
const cancelPage = 500

var unfinished = []store.State{store.Scheduled, store.Ready, store.Running, store.Parked}

// CancelCaused cancels the jobs made for something that is over, a run, a campaign, a lead, an appointment, those of the
// types that are tied to it; how many. The job in which it is called goes on. It may be called again.
func (r *Runner) CancelCaused(ctx context.Context, client string, cause store.Causation) (int, error) {
	if client == "" || cause.Selects(store.Causation{}) {
		return 0, errors.New("job: a cancel of all jobs")
	}
	f := store.JobFilter{Tenant: client, Cause: cause, States: unfinished, Limit: cancelPage}
	for _, name := range r.names {
		if r.types[name].Tied {
			f.Types = append(f.Types, name)
		}
	}
	if len(f.Types) == 0 {
		return 0, nil
	}
	n := 0
	for {
		jobs, err := r.cfg.Queue.Jobs(ctx, f)
		if err != nil || len(jobs) == 0 {
			return n, err
		}
		var ids []string
		for _, j := range jobs {
			f.After = j.ID
			ids = append(ids, j.ID)
		}
		ids = slices.DeleteFunc(ids, func(id string) bool { return id == executing(ctx) })
		did, err := r.Cancel(ctx, ids...)
		if n += len(did); err != nil || len(jobs) < cancelPage {
			return n, err
		}
	}
}

type executingKey struct{}

// during marks a context as that of a job's execution.
func during(ctx context.Context, jobID string) context.Context {
	return context.WithValue(ctx, executingKey{}, jobID)
}

// executing is the id of the job in which something is called; "" outside of any.
func executing(ctx context.Context) string {
	jobID, _ := ctx.Value(executingKey{}).(string)
	return jobID
}

// Calling gives the context of a call whose answer must not be lost: that somebody cancels the job does not end it, all
// else that ends the job's own does.
func Calling(ctx context.Context) (context.Context, context.CancelFunc) {
	call, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); !errors.Is(cause, errCancelled) {
			cancel(cause)
		}
	})
	end := func() {
		stop()
		cancel(nil)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return call, end
	}
	call, done := context.WithDeadline(call, deadline)
	return call, func() {
		done()
		end()
	}
}
