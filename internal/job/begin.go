package job

import (
	"context"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// aheadMost is how long jobs that were claimed ahead of free slots wait for them.
const aheadMost = 10 * time.Millisecond

// claimed is a job that is leased to this process, and has its place among what is worked on.
type claimed struct {
	store.Job
	ctx  context.Context
	free func() // its slot, or its place if it has none yet
	left func() // the quarantine
}

// learn notes how long an execution took.
func (r *Runner) learn(took time.Duration) {
	took = max(took, time.Microsecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.usual == 0 {
		r.usual = took
	}
	r.usual += (took - r.usual) / 16
}

// ahead is how many jobs a claim asks for beyond the free slots: as many as will be free when it is answered, if it takes
// as long as the last one and jobs take what they usually do. So workers of short jobs are not idle while the next ones
// are claimed; of jobs that take longer than claims, next to none are.
func (r *Runner) ahead(slots int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.usual == 0 {
		return 0
	}
	return int(min(int64(slots), int64(slots)*int64(r.claims)/int64(r.usual)))
}

// begin runs jobs, each as soon as a slot is free. That one soon is was a guess: those that find none in time are given
// back, for whoever has one.
func (r *Runner) begin(ctx, work context.Context, slots chan struct{}, jobs []store.Job) {
	all := make([]*claimed, len(jobs)) // each on its own: one that takes long keeps none of the others in memory
	for i, j := range jobs {
		c := &claimed{Job: j, ctx: r.hold(work, &j), left: r.confine(&j)}
		c.free = sync.OnceFunc(func() {
			r.occupy(c.Lane, -1)
			<-slots
			nudge(r.free)
		})
		r.occupy(c.Lane, 1)
		r.enter()
		all[i] = c
	}
	var patience <-chan time.Time
	for i, j := range all {
		select {
		case slots <- struct{}{}:
		default:
			if patience == nil {
				patience = time.After(aheadMost)
			}
			select {
			case slots <- struct{}{}:
			case <-patience:
				r.handBack(all[i:])
				return
			case <-ctx.Done():
				r.handBack(all[i:])
				return
			}
		}
		go func() {
			_, err := r.execute(j.ctx, &j.Job, j.free)
			j.left()
			r.leave()
			r.vacate(err)
			j.free()
		}()
	}
}

// handBack gives back jobs that were not begun.
func (r *Runner) handBack(jobs []*claimed) {
	for _, j := range jobs {
		go func() {
			defer r.leave()
			defer j.left()
			defer r.occupy(j.Lane, -1)
			defer r.letGo(&j.Job)
			_, err := r.record(&store.Outcome{ID: j.ID, Token: j.Token, State: store.Ready}, nil)
			if err != nil {
				r.cfg.Log.Error("a job cannot be given back; it will run again when its lease ends", "client", j.Tenant, "job", j.ID, "error", err)
			}
		}()
	}
}
