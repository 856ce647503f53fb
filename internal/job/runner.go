package job

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Lease and beat: a job whose runner vanished is taken over when its lease ends.
const (
	Lease     = 15 * time.Second
	beat      = 5 * time.Second
	listen    = time.Second           // between looks for jobs that other processes ask to cancel
	trust     = Lease - 2*time.Second // without a beat for so long, this runner no longer trusts its leases
	softStop  = 16 * time.Second      // running jobs may finish for so long after a stop is asked
	hardStop  = 3 * time.Second       // and get so long to give up after that
	claimMost = 128

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
	Tenants     *tenant.Registry
	Concurrency int // jobs at once
	PerClient   int // of them, of one client; 0: all
	// Bounds gives the limits of a client's resource, from memory; nil: there are none.
	Bounds func(tenant, resource string) store.Bounds
	Poll   time.Duration // the safety poll
	Log    *slog.Logger
	Now    func() time.Time
	// Observe is called after each execution, for metrics.
	Observe func(e Execution)
	// Began is called before each execution, for metrics.
	Began func(j *store.Job)
	// Trouble is called when an execution lost its lease (lease_lost), or its end was refused (fence_rejected).
	Trouble func(what string)
	// Changed is called after a job changed, for live views; it must not block.
	Changed func(tenant, jobID string)
}

// Execution is one execution of a job that ended.
type Execution struct {
	Job   *store.Job    // as it was claimed
	State store.State   // that it left the job in
	Code  string        // of what went wrong; "": nothing did
	Wait  time.Duration // from due to started
	Run   time.Duration
}

// Runner claims and runs jobs. Owner is its name in the leases, new for every process.
type Runner struct {
	cfg   Config
	Owner string
	types map[string]*Type
	names []string

	mu      sync.Mutex
	held    map[string]held // by job id
	busy    map[string]int  // slots by lane
	active  int             // executions under way, and jobs being made for one
	usual   time.Duration   // what executions take, the last ones above all; 0: none ended yet
	idle    chan struct{}   // closed when active comes to 0; nil while nobody waits for that
	free    chan struct{}   // a slot was freed
	wake    chan struct{}   // something may be ready
	owed    chan struct{}   // jobs ended by themselves
	heed    chan struct{}   // another process may have asked to cancel
	hasty   chan struct{}   // a stop is not to wait for the running jobs
	room    atomic.Pointer[store.Room]
	failing atomic.Bool   // the last round did not reach the queue
	claims  time.Duration // how long the last claim took; the round's own
	look    time.Time     // when something may be due; so is this

	endings   []*ending // outcomes that wait to be recorded
	recording bool      // somebody does that

	confined bool // a job that crashed before has just begun

	stuck    int             // handlers that do not heed their contexts
	replaced int             // slots that were given to others meanwhile
	lost     int             // slots that were not
	dumped   map[string]bool // types of which it was logged where one stood

	beaten atomic.Pointer[time.Time] // when the last beat began that came through
}

// NewRunner makes a runner of these types.
func NewRunner(cfg Config, types ...Type) *Runner {
	r := &Runner{cfg: cfg, Owner: id.New("run"), types: map[string]*Type{}, held: map[string]held{}, busy: map[string]int{}, free: make(chan struct{}, 1), wake: make(chan struct{}, 1), owed: make(chan struct{}, 1), heed: make(chan struct{}, 1), hasty: make(chan struct{}, 1), dumped: map[string]bool{}}
	if r.cfg.Observe == nil {
		r.cfg.Observe = func(Execution) {}
	}
	if r.cfg.Began == nil {
		r.cfg.Began = func(*store.Job) {}
	}
	if r.cfg.Trouble == nil {
		r.cfg.Trouble = func(string) {}
	}
	r.Limit(store.Room{Tenant: MostOfClient, Lane: MostInLane})
	if r.cfg.Changed == nil {
		r.cfg.Changed = func(string, string) {}
	}
	r.Know(types...)
	cfg.Queue.Listen(store.Listener{
		Ready: func() { nudge(r.wake) },
		Asked: r.interrupt,
		Owed:  func() { nudge(r.owed) },
		Paused: func(ps ...store.Pause) {
			for _, p := range ps {
				attrs := []any{"scope", p.Scope, "reason", p.Reason, "detail", p.Detail}
				if !p.Until.IsZero() { // else until its cause is removed
					attrs = append(attrs, "until", p.Until)
				}
				r.cfg.Log.Warn("work rests", attrs...)
			}
		},
	})
	return r
}

// Wake has the runner look for jobs at once: another process may have made some ready.
func (r *Runner) Wake() { nudge(r.wake) }

// Heed has the runner look at once for jobs that another process wants cancelled.
func (r *Runner) Heed() { nudge(r.heed) }

// nudge tells a receiver who may be told of several things by one value.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Know adds types, before Run.
func (r *Runner) Know(types ...Type) {
	for _, t := range types {
		t = t.withDefaults()
		r.types[t.Name] = &t
		r.names = append(r.names, t.Name)
	}
}

// unknown is the type of jobs whose type this runner does not know: it declares nothing.
var unknown Type

func (r *Runner) typeOf(name string) (t *Type, known bool) {
	if t, known = r.types[name]; !known {
		t = &unknown
	}
	return t, known
}

// Run claims and runs jobs until ctx ends, then lets the running ones finish, gives the others back, and returns.
func (r *Runner) Run(ctx context.Context) error {
	work, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWork(nil)
	beating := make(chan struct{})
	go func() { defer close(beating); r.beat(work) }()
	telling := make(chan struct{})
	go func() { defer close(telling); r.tellOwed(ctx) }()
	r.unpark(ctx)

	slots := make(chan struct{}, r.cfg.Concurrency)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		fresh := true
		select {
		case <-ctx.Done():
			continue
		case <-r.wake:
		case <-r.free:
			fresh = false
		case <-timer.C:
		}
		timer.Reset(r.round(ctx, work, slots, fresh))
	}
	r.drain(stopWork)
	stopWork(nil)
	<-beating
	<-telling
	return nil
}

// round promotes what is due, claims what slots are free for, and tells how long to wait at most before the next round.
// Where nothing has happened but that slots became free, nothing new is due before the time that was found last.
func (r *Runner) round(ctx, work context.Context, slots chan struct{}, fresh bool) time.Duration {
	if fresh || !time.Now().Before(r.look) {
		_, next, err := r.cfg.Queue.Promote(ctx)
		if err != nil {
			r.look = time.Time{}
			r.complain(ctx, "jobs cannot be promoted", err)
			return time.Second
		}
		wait := r.cfg.Poll
		if !next.IsZero() {
			wait = min(wait, max(next.Sub(r.cfg.Now()), time.Millisecond))
		}
		r.look = time.Now().Add(wait)
	}
	for ctx.Err() == nil {
		free := cap(slots) - len(slots)
		if free == 0 {
			break
		}
		ahead := r.ahead(cap(slots))
		n := min(free+ahead, claimMost)
		asked := time.Now()
		jobs, err := r.cfg.Queue.Claim(ctx, store.ClaimRequest{
			Owner: r.Owner, Limit: n, Slots: cap(slots) + ahead, Lease: Lease, Types: r.names,
			MaxPerTenant: r.cfg.PerClient, Bounds: r.cfg.Bounds, Held: r.busyWith(), Quarantine: r.admits(),
		})
		if err != nil {
			r.complain(ctx, "jobs cannot be claimed", err)
			return time.Second
		}
		r.claims = time.Since(asked)
		r.begin(ctx, work, slots, jobs)
		if len(jobs) < n {
			break
		}
	}
	r.failing.Store(false)
	return max(time.Until(r.look), time.Millisecond)
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

// declared gives a job that is to be made the attempts, the resource and the class of its type. What is put into the
// queue past the runner has none but its own.
func (r *Runner) declared(nj store.NewJob) store.NewJob {
	t, _ := r.typeOf(nj.Type)
	if nj.MaxAttempts == 0 {
		nj.MaxAttempts = t.MaxAttempts
	}
	if nj.Resource == "" {
		nj.Resource = t.Resource
	}
	if nj.Class == "" {
		nj.Class = t.Class
	}
	return nj
}

// following is declared for what a job leaves: unless it says itself how patient it is, it is at least as patient as a
// bulk or maintenance job that caused it.
func (r *Runner) following(j *store.Job, nj store.NewJob) store.NewJob {
	said := nj.Class != ""
	nj = r.declared(nj)
	if !said && j.Class.Patience() >= store.Bulk.Patience() && j.Class.Patience() > nj.Class.Patience() {
		nj.Class = j.Class
	}
	return nj
}

// Enqueue makes jobs, each as its type declares it.
func (r *Runner) Enqueue(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	for i := range jobs {
		jobs[i] = r.declared(jobs[i])
	}
	return r.cfg.Queue.Enqueue(ctx, jobs...)
}

// Do enqueues a job claimed by the caller and runs it here and now; if this process dies, a runner takes it over.
// For a duplicate it runs nothing. The error is the queue's, or the handler's (then the job is retried by a runner), or
// says that the job goes on although it was waited for long enough; fault.Limited where the client has too many jobs
// already.
func (r *Runner) Do(ctx context.Context, nj store.NewJob) (store.Enqueued, Result, error) {
	nj.Room = *r.room.Load()
	made, res, err := r.DoAnyway(ctx, nj)
	return made, res, refused(err)
}

// DoAnyway is Do for what makes a client's work less, or ends it: there is always room for it.
func (r *Runner) DoAnyway(ctx context.Context, nj store.NewJob) (store.Enqueued, Result, error) {
	r.enter() // before the job is there: a stop that finds nothing running gives back what is leased
	nj.ClaimFor = r.Owner
	made, err := r.cfg.Queue.Enqueue(ctx, r.declared(nj))
	if err != nil || made[0].Duplicate {
		r.leave()
		if err == nil {
			return made[0], Result{}, nil
		}
		return store.Enqueued{}, Result{}, err
	}
	j := made[0].Job
	// the caller may go away; what it asked for is durable and goes on
	jctx := r.hold(context.WithoutCancel(ctx), &j)
	var res Result
	done := make(chan struct{})
	go func() {
		defer r.leave()
		defer close(done)
		res, err = r.execute(jctx, &j, nil)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return made[0], res, err
	case <-timer.C:
		return made[0], Result{}, errPending
	}
}

// Healthy tells whether the runner can reach the queue.
func (r *Runner) Healthy() error {
	if r.failing.Load() {
		return errors.New("jobs cannot be claimed")
	}
	return r.lostSlots()
}

// Hurry lets a stop, the one under way or the next, ask the running jobs to end at once instead of waiting for them first.
func (r *Runner) Hurry() { nudge(r.hasty) }

// drain waits for the running jobs: softly, then with their contexts cancelled, then gives back what is left.
func (r *Runner) drain(stopWork context.CancelCauseFunc) {
	idle := r.whenIdle()
	hard := func() {
		stopWork(errStopping)
		r.cancelAll(errStopping)
		select {
		case <-idle:
		case <-time.After(hardStop):
			r.cfg.Log.Warn("jobs do not stop; they are given back and may run elsewhere", "jobs", r.Running())
		}
	}
	select {
	case <-idle:
	case <-r.hasty:
		hard()
	case <-time.After(softStop):
		hard()
	}
	ctx, cancel := context.WithTimeout(context.Background(), hardStop)
	defer cancel()
	if n, err := r.cfg.Queue.Release(ctx, r.Owner); err != nil {
		r.cfg.Log.Error("jobs cannot be given back; they run again when their leases end", "error", err)
	} else if n > 0 {
		r.cfg.Log.Info("jobs given back", "jobs", n)
	}
}
