package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// The poll is an hour: a job that starts before was told of.
func TestWake(t *testing.T) {
	bubble(t, func(y *yard) {
		y.start(job.Config{}, job.Type{Name: "a", Handle: fine})
		time.Sleep(time.Minute)
		began := time.Now()
		y.until(y.add("a"), store.Succeeded, 0)
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %v", d)
		}

		later := y.add("a", func(n *store.NewJob) { n.RunAt = time.Now().Add(5 * time.Minute) })
		sooner := y.add("a", func(n *store.NewJob) { n.RunAt = time.Now().Add(90 * time.Second) })
		for id, due := range map[string]time.Duration{sooner: 90 * time.Second, later: 5 * time.Minute} {
			j := y.until(id, store.Succeeded, time.Hour)
			if late := j.StartedAt.Sub(began.Add(due)); late < 0 || late > 10*time.Millisecond {
				t.Errorf("due after %v, started %v late", due, late)
			}
		}
	})
}

// Without a wake, the poll finds what is ready.
func TestPoll(t *testing.T) {
	bubble(t, func(y *yard) {
		y.start(job.Config{Queue: elsewhere{y.queue}, Poll: 5 * time.Second}, job.Type{Name: "a", Handle: fine})
		time.Sleep(time.Minute)
		synctest.Wait()
		y.until(y.add("a"), store.Succeeded, 5*time.Second)
	})
}

func TestRetryThenDead(t *testing.T) {
	bubble(t, func(y *yard) {
		var starts []time.Time
		typ := does("a", func(n int) (job.Result, error) {
			starts = append(starts, time.Now())
			return job.Result{Next: []store.NewJob{job.New("ACME", "next", nil)}}, fmt.Errorf("failure %d: %w", n, errBoom)
		})
		typ.Base, typ.Cap, typ.MaxAttempts = time.Second, 4*time.Second, 5
		y.start(job.Config{}, typ)
		j := y.until(y.add("a"), store.Dead, time.Minute)
		if j.Attempt != 5 || j.Starts != 5 || len(j.Errors) != 5 || j.EndedAt.IsZero() {
			t.Errorf("attempt %d, starts %d, errors %v, ended %v", j.Attempt, j.Starts, j.Errors, j.EndedAt)
		}
		for i, e := range j.Errors {
			if e.Attempt != i+1 || e.Code != "error" || e.Message != fmt.Sprintf("failure %d: boom", i+1) || !e.At.Equal(starts[i]) {
				t.Errorf("error %d: %+v", i, e)
			}
		}
		for i, base := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second} {
			if gap := starts[i+1].Sub(starts[i]); gap < base/2 || gap > base+260*time.Millisecond {
				t.Errorf("pause %d was %v, want %v to %v", i+1, gap, base/2, base+250*time.Millisecond)
			}
		}
		if n := y.count("next"); n != 0 {
			t.Errorf("failures made %d jobs", n)
		}
		// An operator runs it again: all attempts anew.
		if ids, err := y.queue.Retry(y.Context(), j.ID); err != nil || len(ids) != 1 {
			t.Fatal(ids, err)
		}
		if j = y.until(j.ID, store.Dead, time.Minute); j.Attempt != 5 || len(j.Errors) != 10 {
			t.Errorf("again: attempt %d, %d errors", j.Attempt, len(j.Errors))
		}
	})
}

func TestVerdicts(t *testing.T) {
	next := store.NewJob{Tenant: "ACME", Type: "next", UniqueKey: "derived"}
	for _, c := range []struct {
		name     string
		say      func(n int) (job.Result, error)
		state    store.State
		attempt  int
		starts   int
		codes    []string
		within   time.Duration // from the first start to the last, at least this and at most 60 ms more
		nextMade int
	}{
		{"success", func(int) (job.Result, error) {
			return job.Result{Next: []store.NewJob{next, next}, Result: map[string]int{"n": 7}}, nil
		}, store.Succeeded, 0, 1, nil, 0, 1},
		{"retry after", func(n int) (job.Result, error) {
			if n < 3 {
				return job.Result{}, job.Retry(time.Minute, "limited", errBoom)
			}
			return job.Result{}, nil
		}, store.Succeeded, 2, 3, []string{"limited", "limited"}, 2 * time.Minute, 0},
		{"snooze", func(n int) (job.Result, error) {
			if n < 13 { // more often than it has attempts
				return job.Result{}, job.Snooze(10*time.Second, "later", nil)
			}
			return job.Result{}, nil
		}, store.Succeeded, 0, 13, slices.Repeat([]string{"later"}, 10), 2 * time.Minute, 0},
		{"dead", func(int) (job.Result, error) {
			return job.Result{}, fmt.Errorf("wrapped: %w", job.Dead("refused", errBoom, next))
		}, store.Dead, 1, 1, []string{"refused"}, 0, 1},
		{"parked", func(int) (job.Result, error) { return job.Result{}, job.Park("credential", errBoom) }, store.Parked, 0, 1, []string{"credential"}, 0, 0},
		{"panic", func(n int) (job.Result, error) {
			if n == 1 {
				panic("boom")
			}
			return job.Result{}, nil
		}, store.Succeeded, 1, 2, []string{"panic"}, 0, 0},
		{"database away", func(n int) (job.Result, error) {
			if n < 13 {
				return job.Result{}, fmt.Errorf("write: %w", store.ErrUnavailable)
			}
			return job.Result{}, nil
		}, store.Succeeded, 0, 13, slices.Repeat([]string{"storage_unavailable"}, 10), time.Minute, 0},
		{"a query that can never be run", func(int) (job.Result, error) {
			return job.Result{}, fmt.Errorf("read: %w", store.ErrQuery)
		}, store.Dead, 3, 3, []string{"storage_query", "storage_query", "storage_query"}, 0, 0},
		{"what cannot be recorded", func(int) (job.Result, error) {
			return job.Result{Result: strings.Repeat("x", 65<<10), Next: []store.NewJob{next}}, nil
		}, store.Dead, 3, 3, []string{"outcome", "outcome", "outcome"}, 0, 0},
		{"next that cannot be made", func(int) (job.Result, error) {
			return job.Result{Next: []store.NewJob{next, {Tenant: "ACME"}}}, nil
		}, store.Dead, 3, 3, []string{"outcome", "outcome", "outcome"}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(y *yard) {
				var first, last time.Time
				typ := does("a", func(n int) (job.Result, error) {
					if last = time.Now(); n == 1 {
						first = last
					}
					return c.say(n)
				})
				typ.MaxAttempts = 3
				y.start(job.Config{}, typ)
				j := y.until(y.add("a"), c.state, time.Hour)
				if j.Attempt != c.attempt || j.Starts != c.starts || !slices.Equal(codes(j), c.codes) {
					t.Errorf("attempt %d, want %d; starts %d, want %d; errors %v, want %v", j.Attempt, c.attempt, j.Starts, c.starts, codes(j), c.codes)
				}
				if d := last.Sub(first); c.within > 0 && (d < c.within || d > c.within+60*time.Millisecond) {
					t.Errorf("it took %v, want %v", d, c.within)
				}
				if n := y.count("next"); n != c.nextMade {
					t.Errorf("%d jobs follow, want %d", n, c.nextMade)
				}
				if c.name == "success" && string(j.Result) != `{"n":7}` {
					t.Errorf("result %s", j.Result)
				}
				if c.state == store.Parked {
					time.Sleep(10 * time.Minute)
					if j := y.settle(j.ID); j.Starts != 1 {
						t.Error("a parked job was started")
					}
					n, err := y.queue.ReleaseParked(y.Context(), "ACME")
					if j := y.settle(j.ID); n != 1 || err != nil || j.Starts != 2 {
						t.Errorf("released %d, %v; started %d times", n, err, j.Starts)
					}
				}
			})
		})
	}
}

// Types that this process does not know stay ready for one that does.
func TestUnknownType(t *testing.T) {
	bubble(t, func(y *yard) {
		w := y.start(job.Config{}, job.Type{Name: "a", Handle: fine})
		unknown, known := y.add("b"), y.add("a")
		y.until(known, store.Succeeded, 0)
		time.Sleep(10 * time.Minute)
		if j := y.settle(unknown); j.State != store.Ready || j.Starts != 0 {
			t.Errorf("%s, %d starts", j.State, j.Starts)
		}
		w.stop()
		y.start(job.Config{}, job.Type{Name: "b", Handle: fine})
		y.until(unknown, store.Succeeded, 0)
	})
}

// Jobs handled are given their own client's database, and its account; system jobs get none.
func TestTenant(t *testing.T) {
	bubble(t, func(y *yard) {
		y.client("BETA")
		var system atomic.Int64
		y.start(job.Config{},
			job.Type{Name: "a", Handle: func(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
				if tn.Code != j.Tenant || tn.Account().Code != j.Tenant {
					t.Errorf("a job of %s got %s", j.Tenant, tn.Code)
				}
				return job.Result{}, tn.DB.Commit(ctx, store.Write{Action: store.Put, Kind: "notes", ID: j.Tenant, Doc: []byte("{}")})
			}},
			job.Type{Name: "s", System: true, Handle: func(_ context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
				if tn != nil {
					t.Error("a system job has a client")
				}
				system.Add(1)
				return job.Result{}, nil
			}})
		a := y.add("a")
		b := y.add("a", func(n *store.NewJob) { n.Tenant = "BETA" })
		s := y.add("s", func(n *store.NewJob) { n.Tenant = "" })
		g := y.add("a", func(n *store.NewJob) { n.Tenant = "GHOST" })
		for _, id := range []string{a, b, s} {
			y.until(id, store.Succeeded, 0)
		}
		if j := y.until(g, store.Parked, 0); !slices.Equal(codes(j), []string{"client_gone"}) || system.Load() != 1 {
			t.Errorf("errors %v, %d system jobs", codes(j), system.Load())
		}
		for _, code := range []string{"ACME", "BETA"} {
			tn, release, err := y.tenants.Use(y.Context(), code)
			y.must(err)
			recs, err := tn.DB.Find(y.Context(), store.Query{Kind: "notes"})
			if err != nil || len(recs) != 1 || recs[0].ID != code {
				t.Errorf("in %s: %v, %v", code, recs, err)
			}
			release()
		}
	})
}

func TestSuspendedClient(t *testing.T) {
	bubble(t, func(y *yard) {
		y.start(job.Config{}, job.Type{Name: "a", Handle: fine})
		_, err := y.tenants.SetStatus(y.Context(), "ACME", tenant.Suspended)
		y.must(err)
		id := y.add("a")
		if j := y.until(id, store.Parked, 0); j.Attempt != 0 || !slices.Equal(codes(j), []string{"client_suspended"}) {
			t.Errorf("attempt %d, errors %v", j.Attempt, codes(j))
		}
		_, err = y.tenants.SetStatus(y.Context(), "ACME", tenant.Active)
		y.must(err)
		y.until(id, store.Succeeded, 0)
	})
}

// A client mended while a job found it broken: who released the held jobs came too early for this one.
func TestParkedTooLate(t *testing.T) {
	bubble(t, func(y *yard) {
		typ := does("a", func(n int) (job.Result, error) {
			if n > 1 {
				return job.Result{}, nil
			}
			if _, err := y.tenants.SetWhatsApp(context.Background(), "ACME", tenant.WhatsAppSecrets{AccessToken: "new"}); err != nil {
				t.Error(err)
			}
			return job.Result{}, job.Park("credential", errBoom)
		})
		y.start(job.Config{}, typ)
		y.until(y.add("a"), store.Succeeded, 0)
	})
}

// A client mended while no process ran.
func TestParkedBeforeTheStart(t *testing.T) {
	bubble(t, func(y *yard) {
		y.client("BETA")
		_, err := y.tenants.SetStatus(y.Context(), "BETA", tenant.Suspended)
		y.must(err)
		park := func(code string) string {
			made, err := y.queue.Enqueue(y.Context(), store.NewJob{Tenant: code, Type: "a", ClaimFor: "before"})
			y.must(err)
			_, err = y.queue.Finish(y.Context(), store.Outcome{ID: made[0].Job.ID, Token: 1, State: store.Parked})
			y.must(err)
			return made[0].Job.ID
		}
		acme, beta := park("ACME"), park("BETA")
		y.start(job.Config{}, job.Type{Name: "a", Handle: fine})
		y.until(acme, store.Succeeded, 0)
		if j := y.settle(beta); j.State != store.Parked || j.Starts != 1 {
			t.Errorf("the suspended client's: %s, %d starts", j.State, j.Starts)
		}
	})
}

func TestDatabaseOfClientAway(t *testing.T) {
	bubble(t, func(y *yard) {
		away := fmt.Errorf("disk: %w", store.ErrUnavailable)
		y.noDB.Store(&away)
		y.start(job.Config{}, job.Type{Name: "a", Handle: fine})
		id := y.add("a")
		if j := y.until(id, store.Ready, 0); j.Attempt != 0 || !slices.Equal(codes(j), []string{"client_unavailable"}) {
			t.Errorf("attempt %d, errors %v", j.Attempt, codes(j))
		}
		p, err := y.queue.Paused(context.Background(), "ACME/internal/normal") // all that is the client's rests
		if err != nil || p == nil || p.Scope != "ACME" || !p.Until.Equal(time.Now().Add(5*time.Second)) {
			t.Errorf("rests: %+v, %v", p, err)
		}
		time.Sleep(5 * time.Minute) // for more starts than it has attempts
		y.noDB.Store(nil)
		if j := y.until(id, store.Succeeded, 6*time.Second); j.Attempt != 0 || j.Starts < 50 {
			t.Errorf("attempt %d, %d starts", j.Attempt, j.Starts)
		}
	})
}

func TestTimeout(t *testing.T) {
	bubble(t, func(y *yard) {
		began := time.Now()
		y.start(job.Config{}, job.Type{Name: "a", Timeout: 30 * time.Second, MaxAttempts: 1, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
			<-ctx.Done()
			return job.Result{}, ctx.Err()
		}})
		j := y.until(y.add("a"), store.Dead, time.Minute)
		if d := j.EndedAt.Sub(began); d != 30*time.Second {
			t.Errorf("it ended after %v", d)
		}
	})
}

// Jobs of a slow type hang without holding up their client's others, however they were made; one that was stored before its
// type had a lane runs where it stands.
func TestSlowLaneLeavesSlots(t *testing.T) {
	bubble(t, func(y *yard) {
		let := make(chan struct{})
		var running atomic.Int32
		w := y.start(job.Config{Concurrency: 16, PerClient: 8, Bounds: func(_, resource string) store.Bounds {
			if resource == store.Internal {
				return store.Bounds{}
			}
			return store.Bounds{Running: 3, Slow: true}
		}},
			job.Type{Name: "slow", Resource: "hook", Timeout: time.Hour, Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
				running.Add(1)
				defer running.Add(-1)
				<-let
				return job.Result{}, nil
			}},
			job.Type{Name: "cause", Handle: func(_ context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
				n := job.New(j.Tenant, "slow", nil)
				n.UniqueKey = "slow:" + j.ID
				return job.Result{Next: []store.NewJob{n}}, nil
			}},
			job.Type{Name: "a", Handle: fine})
		for range 30 {
			y.until(y.add("cause"), store.Succeeded, time.Minute)
			_, err := w.Enqueue(y.Context(), job.New("ACME", "slow", nil))
			y.must(err)
		}
		time.Sleep(time.Minute)
		if n := running.Load(); n != 3 {
			t.Errorf("%d hang, want 3", n)
		}
		y.until(y.add("a"), store.Succeeded, 0)
		old := y.add("slow") // past the runner, as before there were slow lanes
		if j := y.until(old, store.Running, 0); j.Lane != "ACME/internal/interactive" {
			t.Errorf("it runs in lane %q", j.Lane)
		}
		close(let)
		y.until(old, store.Succeeded, time.Minute)
		all, err := y.queue.Jobs(y.Context(), store.JobFilter{Tenant: "ACME", Types: []string{"slow"}, Limit: 100})
		y.must(err)
		for _, j := range all {
			if y.until(j.ID, store.Succeeded, time.Minute); j.ID != old && j.Lane != "ACME/hook/normal" {
				t.Errorf("it ran in lane %q", j.Lane)
			}
		}
	})
}

// No more jobs at once than slots; the next starts as soon as one is free.
// A client whose jobs all hang leaves slots for the others, and they start at once.
func TestHangingClientLeavesSlots(t *testing.T) {
	bubble(t, func(y *yard) {
		y.client("OTHER")
		let := make(chan struct{})
		var running atomic.Int32
		y.start(job.Config{Concurrency: 4, PerClient: 2}, job.Type{Name: "a", Timeout: time.Hour, Handle: func(ctx context.Context, tn *tenant.Tenant, _ store.Job) (job.Result, error) {
			if tn.Code == "OTHER" {
				return job.Result{}, nil
			}
			running.Add(1)
			defer running.Add(-1)
			<-let
			return job.Result{}, nil
		}})
		for range 200 {
			y.add("a")
		}
		time.Sleep(time.Minute)
		if n := running.Load(); n != 2 {
			t.Errorf("%d hang, want 2", n)
		}
		began := time.Now()
		y.until(y.add("a", func(n *store.NewJob) { n.Tenant = "OTHER" }), store.Succeeded, 0)
		if d := time.Since(began); d > 10*time.Millisecond {
			t.Errorf("the other client waited %s", d)
		}
		close(let) // and then the backlog goes on
		y.until(y.add("a"), store.Succeeded, time.Minute)
	})
}

func TestConcurrency(t *testing.T) {
	bubble(t, func(y *yard) {
		var now, most atomic.Int64
		y.start(job.Config{Concurrency: 3}, job.Type{Name: "a", Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return job.Result{}, nil
		}})
		began := time.Now()
		var ids []string
		for range 9 {
			ids = append(ids, y.add("a"))
		}
		for _, id := range ids {
			y.until(id, store.Succeeded, time.Minute)
		}
		if most.Load() != 3 || time.Since(began) != 3*time.Second {
			t.Errorf("%d at once, %v for nine of a second each", most.Load(), time.Since(began))
		}
	})
}

// Two processes on one queue: every job runs once.
func TestTwoRunners(t *testing.T) {
	const jobs = 1000
	bubble(t, func(y *yard) {
		var mu sync.Mutex
		ran := map[string]int{}
		by := map[string]int{}
		typ := job.Type{Name: "a", Handle: func(_ context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
			time.Sleep(time.Millisecond) // long enough for the other to come
			mu.Lock()
			defer mu.Unlock()
			ran[j.ID]++
			by[j.Owner]++
			return job.Result{}, nil
		}}
		for range 2 {
			y.start(job.Config{Concurrency: 16}, typ)
		}
		for range jobs / 100 {
			y.must(enqueue(y, slices.Repeat([]store.NewJob{job.New("ACME", "a", nil)}, 100)))
		}
		for {
			synctest.Wait()
			c, err := y.queue.JobCounts(y.Context(), "ACME")
			y.must(err)
			if c[store.Succeeded] == jobs {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		for id, n := range ran {
			if n != 1 {
				t.Errorf("job %s ran %d times", id, n)
			}
		}
		if len(ran) != jobs || len(by) != 2 {
			t.Errorf("%d jobs ran, by %v", len(ran), by)
		}
	})
}

func enqueue(y *yard, jobs []store.NewJob) error {
	_, err := y.queue.Enqueue(y.Context(), jobs...)
	return err
}

// While the queue cannot be reached the runner says so, and goes on when it can.
func TestQueueAway(t *testing.T) {
	bubble(t, func(y *yard) {
		q := &badQueue{Queue: y.queue}
		q.claim.Store(true)
		w := y.start(job.Config{Queue: q}, job.Type{Name: "a", Handle: fine})
		id := y.add("a")
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := w.Healthy(); err == nil {
			t.Error("healthy without a queue")
		}
		q.claim.Store(false)
		y.until(id, store.Succeeded, 2*time.Second)
		if err := w.Healthy(); err != nil {
			t.Error(err)
		}
	})
}

// An end that could not be recorded: the job comes back and runs again.
func TestEndNotRecorded(t *testing.T) {
	bubble(t, func(y *yard) {
		q := &badQueue{Queue: y.queue}
		q.finish.Store(1)
		y.start(job.Config{Queue: q}, does("a", func(n int) (job.Result, error) {
			return job.Result{Result: n, Next: []store.NewJob{{Tenant: "ACME", Type: "next", UniqueKey: "derived"}}}, nil
		}))
		j := y.until(y.add("a"), store.Succeeded, 11*time.Second)
		if j.Starts != 2 || j.Attempt != 0 || j.Crashes != 0 || string(j.Result) != "2" || y.count("next") != 1 {
			t.Errorf("starts %d, attempt %d, crashes %d, result %s, %d next", j.Starts, j.Attempt, j.Crashes, j.Result, y.count("next"))
		}
	})
}

func TestObserved(t *testing.T) {
	bubble(t, func(y *yard) {
		type seen struct {
			typ   string
			state store.State
			wait  time.Duration
			run   time.Duration
		}
		var all []seen
		var changed []string
		var mu sync.Mutex
		y.start(job.Config{
			Observe: func(e job.Execution) {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, seen{e.Job.Type, e.State, e.Wait, e.Run})
			},
			Changed: func(tn, id string) {
				mu.Lock()
				defer mu.Unlock()
				changed = append(changed, tn+" "+id)
			},
		}, does("a", func(n int) (job.Result, error) {
			time.Sleep(3 * time.Second)
			if n == 1 {
				return job.Result{}, job.Retry(time.Minute, "x", nil)
			}
			return job.Result{}, nil
		}))
		id := y.add("a")
		y.until(id, store.Succeeded, 2*time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"ACME " + id, "ACME " + id}; !slices.Equal(changed, want) {
			t.Errorf("changed %v", changed)
		}
		if len(all) != 2 || all[0] != (seen{"a", store.Scheduled, 0, 3 * time.Second}) || all[1].state != store.Succeeded || all[1].wait > 10*time.Millisecond {
			t.Errorf("observed %v", all)
		}
	})
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		base, cap time.Duration
		n         int
		want      time.Duration
	}{
		{time.Second, time.Minute, 0, time.Second},
		{time.Second, time.Minute, 1, time.Second},
		{time.Second, time.Minute, 4, 8 * time.Second},
		{time.Second, time.Minute, 7, time.Minute},
		{time.Second, time.Minute, 1 << 40, time.Minute},
		{time.Hour, 24 * time.Hour, 29, 24 * time.Hour},
		{time.Hour, time.Minute, 1, time.Minute},
	} {
		typ := job.Type{Base: c.base, Cap: c.cap}
		for range 100 {
			if d := typ.Backoff(c.n); d < c.want/2 || d > c.want+250*time.Millisecond {
				t.Errorf("%v, %v: pause %d is %v, want about %v", c.base, c.cap, c.n, d, c.want)
			}
		}
	}
}

// A type that names a base and no cap does not spin.
func TestBackoffWithoutCap(t *testing.T) {
	bubble(t, func(y *yard) {
		typ := does("a", func(int) (job.Result, error) { return job.Result{}, errBoom })
		typ.Base = time.Minute
		y.start(job.Config{}, typ)
		j := y.until(y.add("a"), store.Scheduled, 0)
		if d := time.Until(j.RunAt); d < 30*time.Second {
			t.Errorf("again in %v", d)
		}
	})
}

func TestPayload(t *testing.T) {
	type p struct {
		Name string `json:"name"`
	}
	nj := job.New("ACME", "a", p{"x"})
	if nj.Tenant != "ACME" || nj.Type != "a" {
		t.Errorf("%+v", nj)
	}
	got, err := job.Payload[p](store.Job{Payload: nj.Payload})
	if err != nil || got.Name != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = job.Payload[p](store.Job{Type: "a", Payload: json.RawMessage(`{"name":7}`)})
	var syntax *json.UnmarshalTypeError
	if !errors.As(err, &syntax) {
		t.Errorf("got %v", err)
	}
	next := []store.NewJob{{Type: "x"}}
	for _, c := range []struct {
		res  job.Result
		err  error
		want int
	}{{job.Result{Next: next}, nil, 1}, {job.Result{Next: next}, errBoom, 0}, {job.Result{}, job.Dead("x", nil, next...), 1}, {job.Result{Next: next}, job.Retry(0, "x", nil), 0}} {
		if got := len(job.Following(c.res, c.err)); got != c.want {
			t.Errorf("%v: %d follow", c.err, got)
		}
	}
	if job.LastAttempt(store.Job{Attempt: 6, MaxAttempts: 8}) || !job.LastAttempt(store.Job{Attempt: 7, MaxAttempts: 8}) {
		t.Error("the last of eight attempts is the eighth")
	}
}
