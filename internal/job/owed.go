package job

import (
	"context"
	"log/slog"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// owedBatch is how many jobs' domains are told in one commit.
const owedBatch = 100

// tellOwed tells domains of jobs that ended by themselves: when the queue says so, and at every poll, because another
// process may have died between a job's end and its domain's hearing of it.
func (r *Runner) tellOwed(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.owed:
		case <-timer.C:
		}
		for {
			n, err := r.tellSome(ctx)
			if err != nil {
				r.complain(ctx, "domains cannot be told of jobs that ended", err)
			}
			if err != nil || n < owedBatch {
				break
			}
		}
		timer.Reset(r.cfg.Poll)
	}
}

func (r *Runner) tellSome(ctx context.Context) (int, error) {
	jobs, err := r.cfg.Queue.Owed(ctx, r.names, owedBatch)
	if err != nil || len(jobs) == 0 {
		return 0, err
	}
	told := make([]store.Told, len(jobs))
	for i, j := range jobs {
		t, _ := r.typeOf(j.Type)
		told[i] = store.Told{ID: j.ID, Next: t.abandoned(&j, j.State)}
		for k := range told[i].Next {
			told[i].Next[k] = r.following(&j, told[i].Next[k])
		}
		level := slog.LevelDebug
		if j.State == store.Dead {
			level = slog.LevelError
		}
		r.cfg.Log.Log(ctx, level, "job "+string(j.State)+" by itself", "client", j.Tenant, "job", j.ID, "type", j.Type, "crashes", j.Crashes)
	}
	if err = r.cfg.Queue.Told(ctx, told...); err == nil || passing(err) {
		return len(jobs), err
	}
	for _, t := range told { // one of them can never be told: the others are
		if err = r.cfg.Queue.Told(ctx, t); err != nil && !passing(err) {
			r.cfg.Log.Error("a domain cannot be told of a job that ended", "job", t.ID, "error", err)
			err = r.cfg.Queue.Told(ctx, store.Told{ID: t.ID})
		}
		if err != nil {
			return 0, err
		}
	}
	return len(jobs), nil
}
