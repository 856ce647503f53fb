package job

import (
	"fmt"
	"time"
)

// errYield is the cause when a client's jobs are to make way; they go back, their attempts not counted.
var errYield = fmt.Errorf("the client's work is to rest: %w", errStopping)

// movingPause is how long a job's lane rests that finds its client being moved. The move itself lets all of them rest
// until it is over; this is for what was claimed just before.
const movingPause = 2 * time.Second

// Yield asks a client's jobs that run here to end; they run again later.
func (r *Runner) Yield(client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.held {
		if h.tenant == client {
			h.cancel(errYield)
		}
	}
}
