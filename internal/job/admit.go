package job

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

// The most unfinished jobs: of a client, and in one of its lanes. Beyond, who asks for more is told to come back later.
// What follows from work that was taken in is never refused, nor are webhooks.
const (
	MostOfClient = 200_000
	MostInLane   = 100_000
	comeBack     = 30 * time.Second
)

// Limit sets how many unfinished jobs there may be, where it is to be another number than usual.
func (r *Runner) Limit(room store.Room) { r.room.Store(&room) }

// Offer is Enqueue for who can be told to come back later: fault.Limited where the client has too many jobs already.
func (r *Runner) Offer(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	for i := range jobs {
		jobs[i].Room = *r.room.Load()
	}
	made, err := r.Enqueue(ctx, jobs...)
	return made, refused(err)
}

// HasRoom is fault.Limited while a client has too many unfinished jobs: for what makes no job, but sends ended ones round
// again.
func (r *Runner) HasRoom(ctx context.Context, client string) error {
	n, err := r.cfg.Queue.JobCounts(ctx, client)
	if err != nil {
		return err
	}
	jobs, most := n[store.Scheduled]+n[store.Ready]+n[store.Running]+n[store.Parked], r.room.Load().Tenant
	if jobs >= most {
		return refused(&store.FullError{Tenant: client, Jobs: jobs, Limit: most})
	}
	return nil
}

// refused is what the caller hears of a job for which there was no room.
func refused(err error) error {
	var full *store.FullError
	if !errors.As(err, &full) {
		return err
	}
	where := "of this client"
	extra := map[string]any{"jobs": full.Jobs, "limit": full.Limit}
	if full.Lane != "" {
		where, extra["lane"] = "in this lane of the client's", full.Lane
	}
	f := fault.Wrap(err, fault.Limited, "queue.full", "%d jobs %s are unfinished, of at most %d. Nothing was stored: try again later.", full.Jobs, where, full.Limit)
	f.RetryAfter, f.Extra = comeBack, extra
	return f
}
