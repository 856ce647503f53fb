package job

import (
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// alone is how long a job that crashed before has the quarantine for itself. One that takes the process down does so at
// once, as a rule, and then takes none of the others along that it took along before.
const alone = 150 * time.Millisecond

// admits tells whether a job that crashed before may be claimed: when the last one has ended, or lived for a while.
func (r *Runner) admits() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.confined
}

// confine closes the quarantine behind a job that is in it. left opens it before its time.
func (r *Runner) confine(j *store.Job) (left func()) {
	if _, _, class := store.SplitLane(j.Lane); class != store.Quarantine {
		return func() {}
	}
	r.mu.Lock()
	r.confined = true
	r.mu.Unlock()
	open := sync.OnceFunc(func() {
		r.mu.Lock()
		r.confined = false
		r.mu.Unlock()
		nudge(r.wake)
	})
	timer := time.AfterFunc(alone, open)
	return func() {
		timer.Stop()
		open()
	}
}
