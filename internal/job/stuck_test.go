package job_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// deafFor makes a deaf type that is told to end after a while.
func deafFor(name string, timeout time.Duration) (typ job.Type, letGo func()) {
	typ, letGo = deaf(name)
	typ.Timeout = timeout
	return typ, sync.OnceFunc(letGo)
}

// A handler that ignores its context costs its job an attempt, and nobody else anything: its slot is given to others,
// the job is tried again, and what it says in the end is not heard.
func TestStuck(t *testing.T) {
	bubble(t, func(y *yard) {
		var calls atomic.Int64
		gate := make(chan struct{})
		typ := job.Type{Name: "a", Timeout: time.Second, Base: time.Second, Cap: time.Second, Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
			if calls.Add(1) == 1 {
				<-gate
				return job.Result{Result: "late", Next: []store.NewJob{{Tenant: "ACME", Type: "zombie"}}}, nil
			}
			return job.Result{Result: "right"}, nil
		}}
		var log bytes.Buffer
		w := y.runner(job.Config{Concurrency: 1, Log: slog.New(slog.NewTextHandler(&log, nil))}, typ, job.Type{Name: "other", Handle: fine})
		w.run(y)
		began := time.Now()
		id := y.add("a")
		y.settle(id)
		other := y.add("other")
		y.until(other, store.Succeeded, 6*time.Second+100*time.Millisecond)
		if d := time.Since(began); d < 6*time.Second || w.Stuck() != 1 || w.Running() != 0 {
			t.Errorf("the slot was given to another after %v; %d stuck, %d running", d, w.Stuck(), w.Running())
		}
		j := y.until(id, store.Succeeded, 10*time.Second)
		if j.Attempt != 1 || !slices.Equal(codes(j), []string{"stuck"}) || j.Crashes != 0 || string(j.Result) != `"right"` {
			t.Errorf("attempt %d, errors %v, result %s", j.Attempt, j.Errors, j.Result)
		}
		close(gate)
		if j = y.settle(id); string(j.Result) != `"right"` || y.count("zombie") != 0 || w.Stuck() != 0 || w.Healthy() != nil {
			t.Errorf("the late one was heard: result %s; %d stuck", j.Result, w.Stuck())
		}
		w.stop()
		if s := log.String(); !strings.Contains(s, "does not heed its context") || !strings.Contains(s, "type=a") || !strings.Contains(s, "TestStuck") {
			t.Errorf("the log does not tell where it stands: %s", s)
		}
	})
}

// Eight slots are replaced; beyond that they stay taken until their handlers end, and readiness says so. The others'
// throughput does not change.
func TestManyStuck(t *testing.T) {
	const slots = 4
	bubble(t, func(y *yard) {
		typ, letGo := deafFor("deaf", time.Second)
		typ.MaxAttempts = 1
		typ.Abandoned = func(j store.Job) []store.NewJob { return []store.NewJob{job.New(j.Tenant, "told", nil)} }
		var done atomic.Int64
		work := job.Type{Name: "work", Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
			time.Sleep(time.Second)
			done.Add(1)
			return job.Result{}, nil
		}}
		w := y.start(job.Config{Concurrency: slots}, typ, work, job.Type{Name: "told", Handle: fine})
		throughput := func() int64 {
			before := done.Load()
			time.Sleep(time.Minute)
			return done.Load() - before
		}
		for range 2 { // rounds of slots
			for range slots {
				y.add("deaf")
			}
			time.Sleep(7 * time.Second)
			synctest.Wait()
		}
		if w.Stuck() != 8 || w.Healthy() != nil || y.count("told") != 8 {
			t.Fatalf("%d stuck, %v, %d told", w.Stuck(), w.Healthy(), y.count("told"))
		}
		wanted := job.New("ACME", "work", nil)
		wanted.Class = store.Interactive // it may have any slot
		y.must(enqueue(y, slices.Repeat([]store.NewJob{wanted}, 900)))
		if n := throughput(); n < slots*59 {
			t.Errorf("%d jobs in a minute beside 8 that are stuck", n)
		}
		more := y.add("deaf", func(n *store.NewJob) { n.RunAt = time.Now().Add(-time.Hour) })
		y.until(more, store.Dead, 10*time.Second)
		if err := w.Healthy(); err == nil || !strings.Contains(err.Error(), "9 handlers") {
			t.Errorf("readiness: %v", err)
		}
		if n := throughput(); n < (slots-1)*59 || n > (slots-1)*61 {
			t.Errorf("%d jobs in a minute beside 9 that are stuck", n)
		}
		letGo()
		synctest.Wait()
		if w.Stuck() != 0 || w.Healthy() != nil {
			t.Errorf("%d stuck, %v", w.Stuck(), w.Healthy())
		}
		if n := throughput(); n < slots*59 {
			t.Errorf("%d jobs in a minute when all have ended", n)
		}
	})
}

// A stuck job that was asked to cancel is cancelled; one that another runner has by now is left to it.
func TestStuckAsked(t *testing.T) {
	bubble(t, func(y *yard) {
		typ, letGo := deafFor("a", time.Hour)
		w := y.start(job.Config{Concurrency: 1}, typ)
		id := y.add("a")
		y.settle(id)
		if _, err := w.Cancel(y.Context(), id); err != nil {
			t.Fatal(err)
		}
		y.until(id, store.Cancelled, 5100*time.Millisecond)
		id = y.add("a")
		y.settle(id)
		y.start(job.Config{Queue: elsewhere{y.queue}, Poll: 100 * time.Millisecond}, job.Type{Name: "a", Timeout: time.Hour, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
			time.Sleep(time.Minute)
			return job.Result{}, ctx.Err()
		}})
		_, err := y.queue.Release(y.Context(), w.Owner)
		y.must(err)
		if j := y.until(id, store.Succeeded, 80*time.Second); j.Attempt != 0 || len(j.Errors) != 0 {
			t.Errorf("attempt %d, errors %v", j.Attempt, j.Errors)
		}
		letGo()
	})
}

// Whoever waits for a job of their own is answered in time, whether it is slow or stuck.
func TestDoStuck(t *testing.T) {
	bubble(t, func(y *yard) {
		short, letGo := deafFor("short", 5*time.Second)
		long, letLongGo := deafFor("long", time.Minute)
		w := y.start(job.Config{}, short, long)
		began := time.Now()
		made, _, err := w.Do(y.Context(), job.New("ACME", "short", nil))
		if d := time.Since(began); d != 10*time.Second || err == nil || made.Job.ID == "" {
			t.Errorf("answered after %v: %v", d, err)
		}
		if j := y.job(made.Job.ID); j.State != store.Scheduled || !slices.Equal(codes(j), []string{"stuck"}) {
			t.Errorf("%s, %v", j.State, codes(j))
		}
		began = time.Now()
		made, _, err = w.Do(y.Context(), job.New("ACME", "long", nil))
		var f *fault.Error
		if d := time.Since(began); d != 20*time.Second || !errors.As(err, &f) || f.Code != "job.pending" || made.Job.ID == "" {
			t.Errorf("answered after %v: %v", d, err)
		}
		if j := y.job(made.Job.ID); j.State != store.Running {
			t.Errorf("it is %s", j.State)
		}
		y.until(made.Job.ID, store.Scheduled, 46*time.Second)
		letGo()
		letLongGo()
	})
}

// Stuck handlers do not keep a process from stopping.
func TestStopBesideStuck(t *testing.T) {
	bubble(t, func(y *yard) {
		typ, letGo := deafFor("a", time.Second)
		w := y.start(job.Config{Concurrency: 12}, typ)
		for range 10 {
			y.add("a", func(n *store.NewJob) { n.MaxAttempts = 1 })
		}
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if w.Stuck() != 10 {
			t.Fatalf("%d stuck", w.Stuck())
		}
		began := time.Now()
		w.stop()
		if d := time.Since(began); d > time.Second {
			t.Errorf("it took %v", d)
		}
		letGo()
	})
}
