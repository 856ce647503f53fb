package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

const (
	grace     = 5 * time.Second  // a handler gets so long to heed the end of its context
	stuckMost = 8                // slots that are replaced while their handlers do not end
	patience  = 20 * time.Second // of a caller of Do; its job goes on
)

// errPending is what a caller of Do is told whose job takes longer than somebody can be left waiting.
var errPending = fault.New(fault.Unavailable, "job.pending", "The work is kept and goes on. Ask for its outcome later.")

// errNoWord is the end of a handler whose goroutine was ended under it.
var errNoWord = errors.New("job: the handler ended without a word")

// stuck is the end of an execution whose handler did not end: it ignores its context. It goes on, but nobody listens to
// it any more.
type stuck struct {
	cause error           // why its context ended
	over  <-chan struct{} // closed when it ends after all
}

func (s *stuck) Error() string { return "it did not end when it was told to: " + s.cause.Error() }

func (s *stuck) Unwrap() error { return s.cause }

// attend runs a handler within its time. One that does not heed the end of that is left behind.
func (r *Runner) attend(ctx context.Context, t *Type, j *store.Job) (res Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	over := make(chan struct{})
	err = errNoWord
	var decided atomic.Bool // by the handler, that it ended in time, or by who waits for it, that it did not
	// With these a dump of the goroutines tells where a job stands.
	go pprof.Do(ctx, pprof.Labels("job", j.ID, "type", j.Type), func(ctx context.Context) {
		defer close(over)
		said, serr := r.call(ctx, t, j)
		if decided.CompareAndSwap(false, true) {
			res, err = said, serr
			return
		}
		r.mu.Lock()
		r.stuck--
		r.mu.Unlock()
		r.cfg.Log.Warn("a handler that did not heed its context has ended", "client", j.Tenant, "job", j.ID, "type", j.Type)
	})
	select {
	case <-over:
		return res, err
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-over:
		return res, err
	case <-timer.C:
	}
	r.mu.Lock() // before the handler can see that it is left behind
	defer r.mu.Unlock()
	if !decided.CompareAndSwap(false, true) {
		<-over
		return res, err
	}
	r.stuck++
	attrs := []any{"client", j.Tenant, "job", j.ID, "type", j.Type, "cause", context.Cause(ctx), "stuck", r.stuck}
	if !r.dumped[t.Name] {
		r.dumped[t.Name] = true
		attrs = append(attrs, "stands", standsAt(j.ID))
	}
	r.cfg.Log.Log(ctx, slog.LevelError, "a handler does not heed its context; its job goes on without it", attrs...)
	return Result{}, Retry(0, "stuck", &stuck{context.Cause(ctx), over})
}

// standsAt gives where the goroutines of a job stand.
func standsAt(jobID string) string {
	var b strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return ""
	}
	for _, g := range strings.Split(b.String(), "\n\n") {
		if strings.Contains(g, jobID) {
			return g
		}
	}
	return ""
}

// vacate keeps a slot from the next job while its handler is stuck and more than enough others are.
func (r *Runner) vacate(err error) {
	var s *stuck
	if !errors.As(err, &s) {
		return
	}
	r.mu.Lock()
	if replaced := r.replaced < stuckMost; replaced {
		r.replaced++
		r.mu.Unlock()
		go func() {
			<-s.over
			r.mu.Lock()
			r.replaced--
			r.mu.Unlock()
		}()
		return
	}
	r.lost++
	r.mu.Unlock()
	<-s.over
	r.mu.Lock()
	r.lost--
	r.mu.Unlock()
}

// Stuck is the number of handlers that do not heed the end of their contexts.
func (r *Runner) Stuck() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stuck
}

// lostSlots is an error if handlers are stuck for whose slots there is no replacement.
func (r *Runner) lostSlots() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost == 0 {
		return nil
	}
	return fmt.Errorf("%d handlers do not end, and %d slots are lost to them until they do, or the process is started again", r.stuck, r.lost)
}
