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
	tenant string
	cancel context.CancelCauseFunc
}

// leaseKey is under what an execution's context knows its lease.
type leaseKey struct{}

// lease is what this process may believe of an execution's lease.
type lease struct {
	r     *Runner
	since time.Time // when it was taken
}

// Leased is nil while an execution may believe that it has its job, to be asked right before what cannot be taken back.
// The context tells it of a lost lease, but a process that stood still goes on before its timers do; the time does not lie.
func Leased(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l, ok := ctx.Value(leaseKey{}).(lease)
	if !ok {
		return nil // not an execution of a runner's
	}
	since := l.since
	if b := l.r.beaten.Load(); b != nil && b.After(since) {
		since = *b
	}
	if time.Since(since) > trust {
		return ErrLeaseLost
	}
	return nil
}

// hold registers a claimed job, so that its lease is watched.
func (r *Runner) hold(ctx context.Context, j *store.Job) context.Context {
	jctx, cancel := context.WithCancelCause(context.WithValue(ctx, leaseKey{}, lease{r, time.Now()}))
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.held[j.ID]; ok { // its lease ended, and it came back to us
		old.cancel(ErrLeaseLost)
	}
	r.held[j.ID] = held{j.Token, j.Tenant, cancel}
	return jctx
}

// letGo ends what hold began.
func (r *Runner) letGo(j *store.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h, ok := r.held[j.ID]; ok && h.token == j.Token {
		h.cancel(nil)
		delete(r.held, j.ID)
	}
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
	ear := time.NewTicker(listen)
	defer ear.Stop()
	strays := map[string]int64{} // leases in our name that nobody here works on, seen at the last beat
	for {
		select {
		case <-ctx.Done():
			return
		case <-doubt.C: // before the leases end, all work under them does
			r.cancelAll(ErrLeaseLost)
			continue
		case <-ear.C:
			r.hear(ctx)
			continue
		case <-r.heed:
			r.hear(ctx)
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
		r.beaten.Store(&began)
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
			t, _ := r.typeOf(j.Type)
			next = append(next, t.abandoned(&j, store.Cancelled)...)
		}
	}
	if len(next) > 0 {
		if _, err := r.Enqueue(ctx, next...); err != nil {
			return nil, err
		}
	}
	return r.cfg.Queue.Cancel(ctx, ids...)
}

// interrupt tells jobs that are asked to cancel, those of them that run here.
func (r *Runner) interrupt(ids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, jobID := range ids {
		if h, ok := r.held[jobID]; ok {
			h.cancel(errCancelled)
		}
	}
}

// hear looks for jobs of ours that another process asks to cancel.
func (r *Runner) hear(ctx context.Context) {
	if r.Running() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, listen)
	defer cancel()
	ids, err := r.cfg.Queue.Asked(ctx, r.Owner)
	if err != nil {
		r.complain(ctx, "it cannot be seen which jobs are to be cancelled", err)
		return
	}
	r.interrupt(ids...)
}

// Running is the number of jobs held now.
func (r *Runner) Running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held)
}

// occupy counts the slots that a lane's jobs have: what a lane and a client may have at once is bounded by them.
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

// AtItsMost tells whether a lane has all the slots of this runner that it may have, or its client has.
func (r *Runner) AtItsMost(l store.Lane) bool {
	if l.Running > 0 && (l.Trial || l.Class == store.Quarantine) {
		return true
	}
	bounds := func(resource string) store.Bounds {
		if r.cfg.Bounds == nil {
			return store.Bounds{}
		}
		return r.cfg.Bounds(l.Tenant, resource)
	}
	of, slow := 0, 0 // slots of the client, and of its slow lanes
	held := r.busyWith()
	for lane, n := range held {
		if tenant, resource, _ := store.SplitLane(lane); tenant == l.Tenant {
			if of += n; bounds(resource).Slow {
				slow += n
			}
		}
	}
	b, most := bounds(l.Resource), r.cfg.PerClient
	if b.Running > 0 && held[l.Lane] >= b.Running {
		return true
	}
	return most > 0 && l.Tenant != "" && (of >= most || b.Slow && slow >= max(1, most/2))
}

// Serves tells whether there is such a client.
func (r *Runner) Serves(client string) bool { return r.cfg.Tenants.Status(client) != "" }
