package job_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// waits makes a type whose handler waits until its context ends, and tells why it did.
func waits(name string, timeout time.Duration) (job.Type, <-chan error) {
	causes := make(chan error, 10)
	return job.Type{Name: name, Timeout: timeout, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return job.Result{Next: []store.NewJob{{Tenant: "ACME", Type: "zombie"}}}, ctx.Err()
	}}, causes
}

// deaf makes a type whose handler hears nothing until it is let go; then it succeeds.
func deaf(name string) (typ job.Type, letGo func()) {
	gate := make(chan struct{})
	return job.Type{Name: name, Timeout: time.Hour, Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
		<-gate
		return job.Result{Result: "late", Next: []store.NewJob{{Tenant: "ACME", Type: "zombie"}}}, nil
	}}, func() { close(gate) }
}

// A job may take far longer than a lease while its runner lives: nobody takes it over.
func TestBeatKeepsTheLease(t *testing.T) {
	bubble(t, func(y *yard) {
		typ := job.Type{Name: "a", Timeout: time.Hour, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
			time.Sleep(2 * time.Minute)
			return job.Result{}, ctx.Err()
		}}
		y.start(job.Config{}, typ)
		id := y.add("a")
		j := y.settle(id)
		other := y.start(job.Config{Queue: elsewhere{y.queue}, Poll: time.Second}, typ)
		for range 23 {
			time.Sleep(5 * time.Second)
			if now := y.settle(id); now.State != store.Running || now.Owner != j.Owner || time.Until(now.LeaseUntil) < 10*time.Second {
				t.Fatalf("%s of %s, leased for %v", now.State, now.Owner, time.Until(now.LeaseUntil))
			}
		}
		if j = y.until(id, store.Succeeded, 6*time.Second); j.Starts != 1 || j.Crashes != 0 || other.Running() != 0 {
			t.Errorf("starts %d, crashes %d", j.Starts, j.Crashes)
		}
	})
}

// The jobs of a process that vanished run elsewhere as soon as their leases end, whatever the poll; one that took three down stays down.
func TestTakeover(t *testing.T) {
	bubble(t, func(y *yard) {
		vanish := func() {
			js, err := y.queue.Claim(y.Context(), store.ClaimRequest{Owner: "vanished", Limit: 1, Lease: job.Lease, Types: []string{"a"}, Quarantine: true})
			if err != nil || len(js) != 1 {
				t.Fatalf("claimed %d, %v", len(js), err)
			}
		}
		id := y.add("a")
		vanish()
		w := y.start(job.Config{}, job.Type{Name: "a", Handle: fine})
		if j := y.until(id, store.Succeeded, job.Lease+100*time.Millisecond); j.Crashes != 1 || j.Starts != 2 || j.Attempt != 0 {
			t.Errorf("crashes %d, starts %d, attempt %d", j.Crashes, j.Starts, j.Attempt)
		}
		w.stop()

		poison := y.add("a")
		for range 3 {
			vanish()
			time.Sleep(job.Lease)
			_, _, err := y.queue.Promote(y.Context())
			y.must(err)
		}
		y.start(job.Config{}, job.Type{Name: "a", Handle: fine})
		if j := y.settle(poison); j.State != store.Dead || !slices.Equal(codes(j), []string{"poison"}) || j.Starts != 3 {
			t.Errorf("%s, errors %v, starts %d", j.State, codes(j), j.Starts)
		}
	})
}

// A handler that outlives its lease: what it says is refused, whole.
func TestFence(t *testing.T) {
	bubble(t, func(y *yard) {
		typ, letGo := deaf("a")
		slow := y.start(job.Config{Concurrency: 1}, typ)
		id := y.add("a")
		first := y.settle(id)
		_, err := y.queue.Release(y.Context(), slow.Owner) // as if its lease had ended
		y.must(err)
		y.start(job.Config{Queue: elsewhere{y.queue}, Poll: time.Second}, job.Type{Name: "a", Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
			return job.Result{Result: "right", Next: []store.NewJob{{Tenant: "ACME", Type: "next"}}}, nil
		}})
		second := y.until(id, store.Succeeded, time.Second)
		letGo()
		last := y.settle(id)
		if last.State != store.Succeeded || string(last.Result) != `"right"` || last.Token != second.Token || first.Token >= second.Token {
			t.Errorf("after the late one: %s, result %s, token %d then %d", last.State, last.Result, first.Token, last.Token)
		}
		if y.count("zombie") != 0 || y.count("next") != 1 {
			t.Errorf("%d jobs of the late one were made, %d of the other", y.count("zombie"), y.count("next"))
		}
		if slow.Running() != 0 {
			t.Error("the late one is still held")
		}
	})
}

// A job that comes back to the runner that lost it: the new execution is not mistaken for the old.
func TestComesBackToItsRunner(t *testing.T) {
	bubble(t, func(y *yard) {
		var calls atomic.Int64
		causes := make(chan error, 1)
		w := y.start(job.Config{}, job.Type{Name: "a", Timeout: time.Hour, Handle: func(ctx context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return job.Result{}, ctx.Err()
			}
			time.Sleep(30 * time.Second)
			return job.Result{Result: j.Token}, ctx.Err()
		}})
		id := y.add("a")
		y.settle(id)
		_, err := y.queue.Release(y.Context(), w.Owner) // wakes the runner, which claims it again
		y.must(err)
		synctest.Wait()
		if cause := <-causes; !errors.Is(cause, job.ErrLeaseLost) {
			t.Errorf("the first was told %v", cause)
		}
		if j := y.until(id, store.Succeeded, time.Minute); j.Starts != 2 || j.Attempt != 0 || string(j.Result) != "2" {
			t.Errorf("starts %d, attempt %d, result %s", j.Starts, j.Attempt, j.Result)
		}
	})
}

func TestLostLease(t *testing.T) {
	bubble(t, func(y *yard) {
		typ, causes := waits("a", time.Hour)
		w := y.start(job.Config{Concurrency: 1}, typ)
		id := y.add("a")
		y.settle(id)
		_, err := y.queue.Release(y.Context(), w.Owner)
		y.must(err)
		_, err = y.queue.Claim(y.Context(), store.ClaimRequest{Owner: "other", Limit: 1, Lease: time.Hour, Types: []string{"a"}, Quarantine: true})
		y.must(err)
		began := time.Now()
		if cause := <-causes; !errors.Is(cause, job.ErrLeaseLost) {
			t.Errorf("cause %v", cause)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("told after %v", d)
		}
		if j := y.settle(id); j.Owner != "other" || j.State != store.Running || len(j.Errors) != 0 || y.count("zombie") != 0 {
			t.Errorf("%s of %s, errors %v", j.State, j.Owner, j.Errors)
		}
	})
}

// A runner that cannot beat ends its work before the leases end, and the work begins again when it can.
func TestNoBeatNoTrust(t *testing.T) {
	bubble(t, func(y *yard) {
		q := &badQueue{Queue: y.queue}
		var calls atomic.Int64
		told := make(chan time.Time, 1)
		typ := job.Type{Name: "a", Timeout: time.Hour, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
			if calls.Add(1) > 1 {
				return job.Result{}, nil
			}
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, job.ErrLeaseLost) {
				t.Errorf("cause %v", cause)
			}
			told <- time.Now()
			return job.Result{}, ctx.Err()
		}}
		y.start(job.Config{Queue: q, Poll: 5 * time.Second}, typ)
		id := y.add("a")
		y.settle(id)
		for range 3 { // beats come through
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		q.beat.Store(true)
		leased := y.job(id).LeaseUntil
		if at := <-told; !at.Before(leased) || leased.Sub(at) > 3*time.Second {
			t.Errorf("told %v before the lease ended", leased.Sub(at))
		}
		q.beat.Store(false)
		if j := y.until(id, store.Succeeded, 20*time.Second); j.Starts != 2 || j.Attempt != 0 {
			t.Errorf("starts %d, attempt %d", j.Starts, j.Attempt)
		}
	})
}

// Each of several runners hears at once of a job of its own, and within a second of what another process asked.
func TestCancel(t *testing.T) {
	for _, c := range []struct {
		name   string
		of     func(store.Queue) store.Queue
		within time.Duration
	}{
		{"asked in this process", func(q store.Queue) store.Queue { return q }, 0},
		{"asked in another", func(q store.Queue) store.Queue { return elsewhere{q} }, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(y *yard) {
				typ, causes := waits("a", time.Hour)
				for range 2 {
					y.start(job.Config{Queue: c.of(y.queue), Concurrency: 1, Poll: time.Second}, typ)
				}
				ids := []string{y.add("a"), y.add("a"), y.add("a", func(n *store.NewJob) { n.RunAt = time.Now().Add(time.Hour) })}
				time.Sleep(1500 * time.Millisecond)
				synctest.Wait()
				if a, b := y.job(ids[0]), y.job(ids[1]); a.Owner == b.Owner || a.Owner == "" || b.Owner == "" {
					t.Fatalf("run by %q and %q", a.Owner, b.Owner)
				}
				did, err := y.queue.Cancel(y.Context(), ids...)
				if err != nil || len(did) != 3 {
					t.Fatal(did, err)
				}
				if j := y.job(ids[2]); j.State != store.Cancelled {
					t.Errorf("the waiting one is %s", j.State)
				}
				began := time.Now()
				<-causes
				<-causes
				if d := time.Since(began); d > c.within {
					t.Errorf("told after %v", d)
				}
				for _, id := range ids[:2] {
					if j := y.settle(id); j.State != store.Cancelled || j.EndedAt.IsZero() || y.count("zombie") != 0 || j.Attempt != 0 || len(j.Errors) != 0 {
						t.Errorf("%s, ended %v, %d failures, %v", j.State, j.EndedAt, j.Attempt, j.Errors)
					}
				}
			})
		})
	}
}

// Cancelled too late: what has happened is told as it happened.
func TestCancelTooLate(t *testing.T) {
	bubble(t, func(y *yard) {
		typ, letGo := deaf("a")
		y.start(job.Config{}, typ)
		id := y.add("a")
		y.settle(id)
		_, err := y.queue.Cancel(y.Context(), id)
		y.must(err)
		letGo()
		if j := y.settle(id); j.State != store.Succeeded || string(j.Result) != `"late"` {
			t.Errorf("%s, result %s", j.State, j.Result)
		}
	})
}

// Jobs leased in a runner's name whose claim was never answered go back.
func TestStrays(t *testing.T) {
	bubble(t, func(y *yard) {
		w := y.runner(job.Config{}, job.Type{Name: "a", Handle: fine})
		id := y.add("a")
		_, err := y.queue.Claim(y.Context(), store.ClaimRequest{Owner: w.Owner, Limit: 1, Lease: job.Lease, Types: []string{"a"}})
		y.must(err)
		w.run(y)
		if j := y.until(id, store.Succeeded, 11*time.Second); j.Starts != 2 || j.Attempt != 0 || j.Crashes != 0 {
			t.Errorf("starts %d, attempt %d, crashes %d", j.Starts, j.Attempt, j.Crashes)
		}
	})
}
