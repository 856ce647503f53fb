package job

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

type held struct {
	token  int64
	cancel context.CancelCauseFunc
}

// hold registers a claimed job, so that its lease is watched.
func (r *Runner) hold(ctx context.Context, j store.Job) context.Context {
	jctx, cancel := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.held[j.ID]; ok { // its lease ended, and it came back to us
		old.cancel(ErrLeaseLost)
	}
	r.held[j.ID] = held{j.Token, cancel}
	return jctx
}

// cancelAll ends the contexts of everything that is held.
func (r *Runner) cancelAll(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.held {
		h.cancel(cause)
	}
}

// beat prolongs the leases of what is held, and cancels what is held no longer.
func (r *Runner) beat(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	beaten := time.Now() // when the last beat began that came through
	doubt := time.NewTimer(trust)
	defer doubt.Stop()
	strays := map[string]int64{} // leases in our name that nobody here works on, seen at the last beat
	for {
		select {
		case <-ctx.Done():
			return
		case <-doubt.C: // before the leases end, all work under them does
			r.cancelAll(ErrLeaseLost)
			continue
		case <-tick.C:
		}
		r.mu.Lock()
		mine := maps.Clone(r.held)
		r.mu.Unlock()
		began := time.Now()
		until := began.Add(beat)
		if limit := beaten.Add(trust); limit.After(began) && limit.Before(until) {
			until = limit
		}
		bctx, cancel := context.WithDeadline(ctx, until)
		kept, err := r.cfg.Queue.Beat(bctx, r.Owner, Lease)
		cancel()
		if err != nil {
			r.complain(ctx, "leases cannot be prolonged", err)
			continue
		}
		beaten = began
		doubt.Reset(time.Until(began.Add(trust)))
		still := map[string]store.Held{}
		for _, k := range kept {
			still[k.ID] = k
		}
		for jobID, h := range mine {
			switch k, ok := still[jobID]; {
			case !ok || k.Token != h.token:
				h.cancel(ErrLeaseLost)
			case k.Cancel:
				h.cancel(errCancelled)
			}
		}
		strays = r.giveBack(ctx, kept, strays)
	}
}

// giveBack returns jobs that are leased to us but that nobody here works on: the answer to a claim, or to a finish,
// was lost. It waits for the second sight, since a job claimed just now may not be held yet.
func (r *Runner) giveBack(ctx context.Context, kept []store.Held, seen map[string]int64) map[string]int64 {
	strays := map[string]int64{}
	r.mu.Lock()
	for _, k := range kept {
		if _, ok := r.held[k.ID]; !ok {
			strays[k.ID] = k.Token
		}
	}
	r.mu.Unlock()
	for jobID, token := range strays {
		if seen[jobID] != token {
			continue
		}
		if _, err := r.cfg.Queue.Finish(ctx, store.Outcome{ID: jobID, Token: token, State: store.Ready}); err != nil {
			r.complain(ctx, "a job without a worker cannot be given back", err)
		}
	}
	return strays
}

// Cancel cancels jobs, and gives the ids of those that it ended or asked to end. What a domain must be told of them is
// durable before: a domain that is told makes sure itself that the job does nothing more.
func (r *Runner) Cancel(ctx context.Context, ids ...string) ([]string, error) {
	var next []store.NewJob
	for _, jobID := range ids {
		j, err := r.cfg.Queue.Job(ctx, jobID)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !j.State.Terminal() {
			next = append(next, r.types[j.Type].abandoned(j)...)
		}
	}
	if len(next) > 0 {
		if _, err := r.Enqueue(ctx, next...); err != nil {
			return nil, err
		}
	}
	did, err := r.cfg.Queue.Cancel(ctx, ids...)
	for _, jobID := range did {
		r.Interrupt(jobID)
	}
	return did, err
}

// Interrupt tells a running job of this process that it is asked to cancel, at once instead of at the next beat.
func (r *Runner) Interrupt(jobID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h, ok := r.held[jobID]; ok {
		h.cancel(errCancelled)
	}
}

// Running is the number of jobs held now.
func (r *Runner) Running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held)
}

// occupy counts the slots that a lane's jobs have. A client never has all of them, and its slow lanes never all of the
// client's: what hangs leaves slots for the others at once.
func (r *Runner) occupy(lane string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[lane] += n; r.busy[lane] == 0 {
		delete(r.busy, lane)
	}
}

func (r *Runner) busyWith() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.busy)
}

// enter and leave count the executions. Unlike a WaitGroup they may begin anew while somebody waits.
func (r *Runner) enter() {
	r.mu.Lock()
	r.active++
	r.mu.Unlock()
}

func (r *Runner) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.active--; r.active == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// whenIdle gives a channel that is closed once nothing runs.
func (r *Runner) whenIdle() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	idle := make(chan struct{})
	if r.active == 0 {
		close(idle)
	} else {
		r.idle = idle
	}
	return idle
}
