package job

import (
	"context"
	"runtime"

	"github.com/ecodrix/ecod/internal/store"
)

// endsMost bounds the outcomes of one commit, and so how long the first of them waits for the last.
const endsMost = 256

// ending is an execution that waits for its outcome to be recorded.
type ending struct {
	outcome *store.Outcome
	free    func() // its slot; nil: none
	done    chan struct{}
	held    bool
	err     error
}

// record has an outcome recorded, and tells whether it held. What ends while a commit is under way shares the next one.
// The slot is freed at once, so that the next job runs while the disk is waited for; of jobs that end faster than the disk
// takes, as the commit begins: no more of them wait for it than there are slots, and so run again after a crash.
func (r *Runner) record(o *store.Outcome, free func()) (bool, error) {
	e := &ending{outcome: o, free: free, done: make(chan struct{})}
	r.mu.Lock()
	r.endings = append(r.endings, e)
	early := free != nil && len(r.endings) <= r.cfg.Concurrency
	if early {
		e.free = nil
	}
	if !r.recording { // no goroutine stays behind where nothing ends
		r.recording = true
		go r.recordAll()
	}
	r.mu.Unlock()
	if early {
		free()
	}
	<-e.done
	return e.held, e.err
}

// recordAll records until nothing waits for it. One runs at a time.
func (r *Runner) recordAll() {
	for {
		runtime.Gosched() // those that are about to end take part
		r.mu.Lock()
		n := min(len(r.endings), endsMost)
		batch := r.endings[:n:n]
		r.endings = r.endings[n:]
		if n == 0 {
			r.endings, r.recording = nil, false
		}
		r.mu.Unlock()
		if n == 0 {
			return
		}
		for _, e := range batch {
			if e.free != nil {
				e.free()
			}
		}
		finish(r.cfg.Queue, batch)
		for _, e := range batch {
			close(e.done)
		}
		nudge(r.free) // who claimed for a slot that was freed before may have found a lane held back by what has now ended
	}
}

// finish records outcomes in one commit, even while the process stops; one by one if the queue does not take one of them.
func finish(q store.Queue, batch []*ending) {
	ctx, cancel := context.WithTimeout(context.Background(), Lease)
	defer cancel()
	outcomes := make([]store.Outcome, len(batch))
	for i, e := range batch {
		outcomes[i] = *e.outcome
	}
	held, err := q.Finish(ctx, outcomes...)
	if err != nil && !passing(err) && len(batch) > 1 {
		for i := range batch {
			finish(q, batch[i:i+1])
		}
		return
	}
	for i, e := range batch {
		if e.err = err; err == nil {
			e.held = held[i]
		}
	}
}
