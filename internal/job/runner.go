package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Lease and beat: a job whose runner vanished is taken over when its lease ends.
const (
	Lease     = 15 * time.Second
	beat      = 5 * time.Second
	trust     = Lease - 2*time.Second // without a beat for so long, this runner no longer trusts its leases
	softStop  = 16 * time.Second      // running jobs may finish for so long after a stop is asked
	hardStop  = 3 * time.Second       // and get so long to give up after that
	claimMost = 64

	unavailablePause = 5 * time.Second // of a job whose client's database cannot be reached
)

// ErrLeaseLost is the cause of a job's cancelled context when another runner may have it by now.
var ErrLeaseLost = errors.New("job: lease lost")

// errStopping is the cause when the process stops; the job goes back, its attempt not counted.
var errStopping = errors.New("job: the engine is stopping")

// errCancelled is the cause when the job was asked to stop.
var errCancelled = errors.New("job: cancelled")

// Config is what a Runner is built from.
type Config struct {
	Queue       store.Queue
	Wake        <-chan struct{} // something may be ready
	Tenants     *tenant.Registry
	Concurrency int           // jobs at once
	PerClient   int           // of them, of one client; 0: all
	PerLane     int           // of those, in one slow lane; 0: half
	Poll        time.Duration // the safety poll
	Log         *slog.Logger
	Now         func() time.Time
	// Observe is called after each execution, for metrics.
	Observe func(typ string, state store.State, wait, run time.Duration)
	// Changed is called after a job changed, for live views; it must not block.
	Changed func(tenant, jobID string)
}

// Runner claims and runs jobs. Owner is its name in the leases, new for every process.
type Runner struct {
	cfg   Config
	Owner string
	types map[string]Type
	names []string

	mu      sync.Mutex
	held    map[string]held // by job id
	busy    map[string]int  // slots by lane
	active  int             // executions under way, and jobs being made for one
	idle    chan struct{}   // closed when active comes to 0; nil while nobody waits for that
	free    chan struct{}   // a slot was freed
	failing atomic.Bool     // the last round did not reach the queue
}

// NewRunner makes a runner of these types.
func NewRunner(cfg Config, types ...Type) *Runner {
	r := &Runner{cfg: cfg, Owner: id.New("run"), types: map[string]Type{}, held: map[string]held{}, busy: map[string]int{}, free: make(chan struct{}, 1)}
	if r.cfg.Observe == nil {
		r.cfg.Observe = func(string, store.State, time.Duration, time.Duration) {}
	}
	if r.cfg.Changed == nil {
		r.cfg.Changed = func(string, string) {}
	}
	r.Know(types...)
	return r
}

// Know adds types, before Run.
func (r *Runner) Know(types ...Type) {
	for _, t := range types {
		r.types[t.Name] = t.withDefaults()
		r.names = append(r.names, t.Name)
	}
}

// Run claims and runs jobs until ctx ends, then lets the running ones finish, gives the others back, and returns.
func (r *Runner) Run(ctx context.Context) error {
	work, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWork(nil)
	beating := make(chan struct{})
	go func() { defer close(beating); r.beat(work) }()
	r.unpark(ctx)

	slots := make(chan struct{}, r.cfg.Concurrency)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-r.cfg.Wake:
		case <-r.free:
		case <-timer.C:
		}
		timer.Reset(r.round(ctx, work, slots))
	}
	r.drain(stopWork)
	stopWork(nil)
	<-beating
	return nil
}

// round promotes what is due, claims what slots are free for, and tells how long to wait at most before the next round.
func (r *Runner) round(ctx, work context.Context, slots chan struct{}) time.Duration {
	_, next, err := r.cfg.Queue.Promote(ctx)
	if err != nil {
		r.complain(ctx, "jobs cannot be promoted", err)
		return time.Second
	}
	for {
		n := min(cap(slots)-len(slots), claimMost)
		if n == 0 {
			break
		}
		jobs, err := r.cfg.Queue.Claim(ctx, store.ClaimRequest{
			Owner: r.Owner, Limit: n, Lease: Lease, Types: r.names,
			MaxPerTenant: r.cfg.PerClient, MaxPerLane: r.cfg.PerLane, Held: r.busyWith(),
		})
		if err != nil {
			r.complain(ctx, "jobs cannot be claimed", err)
			return time.Second
		}
		for _, j := range jobs {
			slots <- struct{}{}
			r.occupy(j.Lane, 1)
			jctx := r.hold(work, j)
			r.enter()
			go func() {
				defer r.leave()
				defer func() {
					r.occupy(j.Lane, -1)
					<-slots
					select {
					case r.free <- struct{}{}:
					default:
					}
				}()
				_, _ = r.execute(jctx, j)
			}()
		}
		if len(jobs) < n {
			break
		}
	}
	r.failing.Store(false)
	wait := r.cfg.Poll
	if !next.IsZero() {
		wait = min(wait, max(next.Sub(r.cfg.Now()), time.Millisecond))
	}
	return wait
}

func (r *Runner) complain(ctx context.Context, msg string, err error) {
	r.failing.Store(true)
	if ctx.Err() == nil {
		r.cfg.Log.Error(msg, "error", err)
	}
}

// unpark lets jobs go on that were held for a client whom somebody mended while no process ran.
func (r *Runner) unpark(ctx context.Context) {
	all, err := r.cfg.Queue.JobCounts(ctx, "")
	if err == nil && all[store.Parked] > 0 {
		for _, code := range r.cfg.Tenants.Codes(tenant.Active) {
			var c store.JobCounts
			if c, err = r.cfg.Queue.JobCounts(ctx, code); err == nil && c[store.Parked] > 0 {
				_, err = r.cfg.Queue.ReleaseParked(ctx, code)
			}
			if err != nil {
				break
			}
		}
	}
	if err != nil {
		r.complain(ctx, "held jobs cannot be looked through", err)
	}
}

// declared gives a job that is to be made the attempts and the lane of its type. What is put into the queue past the
// runner waits in the main lane.
func (r *Runner) declared(nj store.NewJob) store.NewJob {
	if nj.MaxAttempts == 0 {
		nj.MaxAttempts = r.types[nj.Type].MaxAttempts
	}
	if nj.Lane == "" {
		nj.Lane = r.types[nj.Type].Lane
	}
	return nj
}

// Enqueue makes jobs, each with the attempts and in the lane of its type.
func (r *Runner) Enqueue(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	for i := range jobs {
		jobs[i] = r.declared(jobs[i])
	}
	return r.cfg.Queue.Enqueue(ctx, jobs...)
}

// Do enqueues a job claimed by the caller and runs it here and now; if this process dies, a runner takes it over.
// For a duplicate it runs nothing. The error is the queue's, or the handler's (then the job is retried by a runner).
func (r *Runner) Do(ctx context.Context, nj store.NewJob) (store.Enqueued, Result, error) {
	r.enter() // before the job is there: a stop that finds nothing running gives back what is leased
	defer r.leave()
	nj.ClaimFor = r.Owner
	made, err := r.cfg.Queue.Enqueue(ctx, r.declared(nj))
	if err != nil || made[0].Duplicate {
		if err == nil {
			return made[0], Result{}, nil
		}
		return store.Enqueued{}, Result{}, err
	}
	j := made[0].Job
	// the caller may go away; what it asked for is durable and goes on
	jctx := r.hold(context.WithoutCancel(ctx), j)
	res, err := r.execute(jctx, j)
	return made[0], res, err
}

// execute runs one claimed job and records its end.
func (r *Runner) execute(ctx context.Context, j store.Job) (Result, error) {
	started := r.cfg.Now()
	defer func() {
		r.mu.Lock()
		if h, ok := r.held[j.ID]; ok && h.token == j.Token {
			h.cancel(nil)
			delete(r.held, j.ID)
		}
		r.mu.Unlock()
	}()
	log := r.cfg.Log.With("client", j.Tenant, "job", j.ID, "type", j.Type)
	t, known := r.types[j.Type]
	if t.MaxAttempts > 0 {
		j.MaxAttempts = t.MaxAttempts
	}
	account := r.cfg.Tenants.Version(j.Tenant)
	var res Result
	var err error
	if !known {
		err = Park("unknown_type", nil)
	} else {
		res, err = r.call(ctx, t, j)
	}
	now := r.cfg.Now()
	o := t.outcome(j, res, err, now)
	switch cause := context.Cause(ctx); {
	case err == nil:
	case errors.Is(cause, ErrLeaseLost):
		log.Warn("lease lost; another runner has the job", "error", err)
		return res, errors.Join(err, ErrLeaseLost)
	case errors.Is(cause, errStopping) && cut(err):
		o = store.Outcome{ID: j.ID, Token: j.Token, State: store.Ready}
	case errors.Is(cause, errCancelled):
		o.State, o.RunAt, o.Next = store.Cancelled, time.Time{}, t.abandoned(j)
	}
	for i := range o.Next {
		o.Next[i] = r.declared(o.Next[i])
	}
	// the outcome must be recorded even while the process stops
	fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Lease)
	defer cancel()
	ok, ferr := r.cfg.Queue.Finish(fctx, o)
	if ferr != nil && !passing(ferr) {
		// The handler left what the queue never takes. Without an end the job would run for ever.
		err = Retry(0, "outcome", ferr)
		o = t.outcome(j, Result{}, err, now)
		ok, ferr = r.cfg.Queue.Finish(fctx, o)
	}
	switch {
	case ferr != nil:
		log.Error("a job's end cannot be recorded; it will run again when its lease ends", "error", ferr)
		return res, errors.Join(err, ferr)
	case !ok[0]:
		log.Warn("a job's end was refused: it was taken over by another runner")
		return res, errors.Join(err, ErrLeaseLost)
	}
	if o.State == store.Parked && r.cfg.Tenants.Version(j.Tenant) != account && r.cfg.Tenants.Status(j.Tenant) == tenant.Active {
		// the cause was removed while we found it: who released the parked jobs did not see this one
		if _, err := r.cfg.Queue.ReleaseParked(fctx, j.Tenant); err != nil {
			log.Error("a held job cannot be released", "error", err)
		}
	}
	level := slog.LevelDebug
	if o.State == store.Dead {
		level = slog.LevelError
	} else if err != nil && !snoozed(err) {
		level = slog.LevelWarn
	}
	if err != nil {
		log.Log(ctx, level, "job "+string(o.State), "attempt", j.Attempt+1, "error", err)
	} else {
		log.Log(ctx, level, "job "+string(o.State), "ms", now.Sub(started).Milliseconds())
	}
	r.cfg.Observe(j.Type, o.State, started.Sub(j.RunAt), now.Sub(started))
	r.cfg.Changed(j.Tenant, j.ID)
	return res, err
}

// passing tells whether the queue may take tomorrow what it did not take now.
func passing(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// call gives the handler its tenant and its time, and turns a panic into an error.
func (r *Runner) call(ctx context.Context, t Type, j store.Job) (res Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.cfg.Log.Error("panic in a job", "client", j.Tenant, "job", j.ID, "type", j.Type, "panic", p, "stack", string(debug.Stack()))
			err = Retry(0, "panic", fmt.Errorf("panic: %v", p))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	if t.System {
		return t.Handle(ctx, nil, j)
	}
	switch r.cfg.Tenants.Status(j.Tenant) {
	case tenant.Active:
	case tenant.Suspended:
		return res, Park("client_suspended", nil)
	default:
		return res, Park("client_gone", nil)
	}
	tn, release, err := r.cfg.Tenants.Use(ctx, j.Tenant)
	if err != nil {
		if fault.Of(err) == fault.NotFound {
			return res, Park("client_gone", err)
		}
		return res, Snooze(unavailablePause, "client_unavailable", err)
	}
	defer release()
	return t.Handle(ctx, tn, j)
}

// Healthy tells whether the runner can reach the queue.
func (r *Runner) Healthy() error {
	if r.failing.Load() {
		return errors.New("jobs cannot be claimed")
	}
	return nil
}

// drain waits for the running jobs: softly, then with their contexts cancelled, then gives back what is left.
func (r *Runner) drain(stopWork context.CancelCauseFunc) {
	idle := r.whenIdle()
	select {
	case <-idle:
	case <-time.After(softStop):
		stopWork(errStopping)
		r.cancelAll(errStopping)
		select {
		case <-idle:
		case <-time.After(hardStop):
			r.cfg.Log.Warn("jobs do not stop; they are given back and may run elsewhere", "jobs", r.Running())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), hardStop)
	defer cancel()
	if n, err := r.cfg.Queue.Release(ctx, r.Owner); err != nil {
		r.cfg.Log.Error("jobs cannot be given back; they run again when their leases end", "error", err)
	} else if n > 0 {
		r.cfg.Log.Info("jobs given back", "jobs", n)
	}
}
