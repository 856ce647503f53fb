package job_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerDir); dir != "" {
		os.Exit(work(dir))
	}
	goleak.VerifyTestMain(m)
}

var notes = store.Schema{Kind: "notes"}

// yard is a real queue and a real registry with one client, ACME, in a bubble of testing/synctest: its clock stands
// while anything runs, so that hours of leases and pauses pass at once and to the nanosecond.
type yard struct {
	*testing.T
	queue    *sqlite.Queue
	services *sqlite.DB
	tenants  *tenant.Registry
	noDB     atomic.Pointer[error] // why clients' databases cannot be opened; nil: they can
}

// bubble runs a test in a yard.
func bubble(t *testing.T, test func(y *yard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newYard(t)) })
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{T: t}
	dir := t.TempDir()
	var err error
	y.services, err = sqlite.Open(t.Context(), filepath.Join(dir, "ecod_services.db"), []store.Schema{tenant.Accounts.Schema, job.Schedules.Schema})
	y.must(err)
	y.queue, err = sqlite.OpenQueue(t.Context(), y.services, time.Now)
	y.must(err)
	ring, err := secret.ParseRing(secret.Generate("k"))
	y.must(err)
	y.tenants = tenant.NewRegistry(tenant.Config{
		Services: y.services, Ring: ring, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		OpenDB: func(ctx context.Context, a *tenant.Account) (store.DB, error) {
			if err := y.noDB.Load(); err != nil {
				return nil, *err
			}
			return sqlite.Open(ctx, filepath.Join(dir, a.Code+".db"), []store.Schema{notes})
		},
		OnChange: func(code, status string) {
			if status == tenant.Active {
				_, err := y.queue.ReleaseParked(context.Background(), code)
				y.must(err)
			}
		},
	})
	y.client("ACME")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := y.tenants.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := y.services.Close(); err != nil {
			t.Error(err)
		}
	})
	return y
}

func (y *yard) must(err error) {
	y.Helper()
	if err != nil {
		y.Fatal(err)
	}
}

func (y *yard) client(code string) {
	y.Helper()
	_, _, err := y.tenants.Create(y.Context(), tenant.NewClient{Code: code})
	y.must(err)
}

// worker is a runner at work.
type worker struct {
	*job.Runner
	halt    context.CancelFunc
	stopped chan struct{}
}

// runner makes a runner whose poll is an hour: what starts sooner was woken.
func (y *yard) runner(cfg job.Config, types ...job.Type) *worker {
	y.Helper()
	if cfg.Queue == nil {
		cfg.Queue = y.queue
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 4
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Tenants, cfg.Now = y.tenants, time.Now
	return &worker{Runner: job.NewRunner(cfg, types...), stopped: make(chan struct{})}
}

// start makes a runner and runs it to the end of the test.
func (y *yard) start(cfg job.Config, types ...job.Type) *worker {
	y.Helper()
	w := y.runner(cfg, types...)
	w.run(y)
	return w
}

func (w *worker) run(y *yard) {
	ctx, halt := context.WithCancel(context.Background())
	w.halt = halt
	go func() {
		defer close(w.stopped)
		if err := w.Run(ctx); err != nil {
			y.Error(err)
		}
	}()
	y.Cleanup(w.stop)
}

// stop stops a runner and waits for its end.
func (w *worker) stop() {
	w.halt()
	<-w.stopped
}

// add enqueues a job of ACME, for which somebody waits: it may have any slot.
func (y *yard) add(typ string, edit ...func(*store.NewJob)) string {
	y.Helper()
	nj := job.New("ACME", typ, map[string]int{"n": 1})
	nj.Class = store.Interactive
	for _, f := range edit {
		f(&nj)
	}
	made, err := y.queue.Enqueue(y.Context(), nj)
	y.must(err)
	return made[0].Job.ID
}

func (y *yard) job(id string) store.Job {
	y.Helper()
	j, err := y.queue.Job(context.Background(), id)
	y.must(err)
	return j
}

// settle lets everything that can happen now happen, and gives the job.
func (y *yard) settle(id string) store.Job {
	y.Helper()
	synctest.Wait()
	return y.job(id)
}

// until lets time pass until a job is in a state, at most for so long, and gives the job.
func (y *yard) until(id string, state store.State, most time.Duration) store.Job {
	y.Helper()
	began := time.Now()
	for {
		j := y.settle(id)
		if j.State == state {
			return j
		}
		if time.Since(began) > most {
			y.Fatalf("after %v the job is %s, want %s; errors %v", most, j.State, state, j.Errors)
		}
		pause := 50 * time.Millisecond // of the bubble's clock
		if j.State == store.Scheduled {
			pause = max(pause, time.Until(j.RunAt))
		}
		time.Sleep(pause)
	}
}

// count gives how many jobs of a type there are.
func (y *yard) count(typ string) int {
	y.Helper()
	js, err := y.queue.Jobs(context.Background(), store.JobFilter{AllTenants: true, Types: []string{typ}, Limit: 1000})
	y.must(err)
	return len(js)
}

func codes(j store.Job) (codes []string) {
	for _, e := range j.Errors {
		codes = append(codes, e.Code)
	}
	return codes
}

// does makes a type of what a handler says, by the number of its calls from 1.
func does(name string, f func(n int) (job.Result, error)) job.Type {
	var calls atomic.Int64
	return job.Type{Name: name, Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
		return f(int(calls.Add(1)))
	}}
}

func fine(context.Context, *tenant.Tenant, store.Job) (job.Result, error) { return job.Result{}, nil }

var errBoom = errors.New("boom")

// elsewhere is the queue as another process sees it: of what is changed here it is told nothing.
type elsewhere struct{ store.Queue }

func (elsewhere) Listen(store.Listener) {}

// badQueue is a queue that can be told to fail.
type badQueue struct {
	store.Queue
	beat   atomic.Bool
	finish atomic.Int64 // how many calls fail from now on
	claim  atomic.Bool
}

func (b *badQueue) Beat(ctx context.Context, owner string, lease time.Duration) ([]store.Held, error) {
	if b.beat.Load() { // as a disk that hangs
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return b.Queue.Beat(ctx, owner, lease)
}

func (b *badQueue) Finish(ctx context.Context, o ...store.Outcome) ([]bool, error) {
	if b.finish.Add(-1) >= 0 {
		return nil, store.ErrUnavailable
	}
	return b.Queue.Finish(ctx, o...)
}

func (b *badQueue) Claim(ctx context.Context, r store.ClaimRequest) ([]store.Job, error) {
	if b.claim.Load() {
		return nil, store.ErrUnavailable
	}
	return b.Queue.Claim(ctx, r)
}
