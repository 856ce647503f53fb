package job_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// A stop lets jobs finish, then asks them to end, then gives them back; no attempt is lost to it.
func TestStop(t *testing.T) {
	bubble(t, func(y *yard) {
		quick := job.Type{Name: "quick", Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
			time.Sleep(10 * time.Second)
			return job.Result{Next: []store.NewJob{{ID: "job_next", Tenant: "ACME", Type: "quick"}}}, nil
		}}
		heeds, _ := waits("heeds", time.Hour)
		says := job.Type{Name: "says", Timeout: time.Hour, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
			<-ctx.Done()
			return job.Result{}, job.Retry(0, "transport", fmt.Errorf("call: %w", ctx.Err()))
		}}
		dies := job.Type{Name: "dies", Timeout: time.Hour, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
			<-ctx.Done()
			return job.Result{}, job.Dead("refused", errBoom)
		}}
		stubborn, letGo := deaf("stubborn")
		w := y.start(job.Config{Concurrency: 5}, quick, heeds, says, dies, stubborn)
		ids := map[string]string{}
		for _, typ := range []string{"quick", "heeds", "says", "dies", "stubborn"} {
			ids[typ] = y.add(typ)
		}
		synctest.Wait()
		if w.Running() != 5 {
			t.Fatalf("%d running", w.Running())
		}
		w.halt()
		synctest.Wait()
		late := y.add("quick")
		began := time.Now()
		time.Sleep(15 * time.Second)
		for typ, state := range map[string]store.State{"quick": store.Succeeded, "heeds": store.Running, "stubborn": store.Running} {
			if j := y.settle(ids[typ]); j.State != state {
				t.Errorf("within the time to finish, %s is %s", typ, j.State)
			}
		}
		<-w.stopped
		if d := time.Since(began); d < 19*time.Second || d > 22*time.Second {
			t.Errorf("it took %v", d)
		}
		for typ, state := range map[string]store.State{"heeds": store.Ready, "says": store.Ready, "dies": store.Dead, "stubborn": store.Ready} {
			attempt := 0
			if state == store.Dead {
				attempt = 1
			}
			if j := y.settle(ids[typ]); j.State != state || j.Attempt != attempt || j.Crashes != 0 || j.Owner != "" || len(j.Errors) != attempt {
				t.Errorf("%s: %s of %q, attempt %d, crashes %d, errors %v", typ, j.State, j.Owner, j.Attempt, j.Crashes, j.Errors)
			}
		}
		for _, id := range []string{late, "job_next"} {
			if j := y.job(id); j.State != store.Ready || j.Starts != 0 {
				t.Errorf("%s was claimed by a runner that stops: %s, %d starts", id, j.State, j.Starts)
			}
		}
		letGo()
		if j := y.settle(ids["stubborn"]); j.State != store.Ready || y.count("zombie") != 0 {
			t.Errorf("the stubborn one had its way: %s", j.State)
		}

		// The next process does it all at once.
		y.start(job.Config{Concurrency: 8}, job.Type{Name: "quick", Handle: fine}, job.Type{Name: "heeds", Handle: fine},
			job.Type{Name: "says", Handle: fine}, job.Type{Name: "stubborn", Handle: fine})
		for _, id := range []string{ids["heeds"], ids["says"], ids["stubborn"], late, "job_next"} {
			y.until(id, store.Succeeded, time.Second)
		}
	})
}

func TestStopIdle(t *testing.T) {
	bubble(t, func(y *yard) {
		w := y.start(job.Config{}, job.Type{Name: "a", Handle: fine})
		y.until(y.add("a"), store.Succeeded, 0)
		began := time.Now()
		w.stop()
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %v", d)
		}
		// A request that is still being answered while the process stops is answered.
		made, _, err := w.Do(y.Context(), job.New("ACME", "a", nil))
		if j := y.job(made.Job.ID); err != nil || j.State != store.Succeeded {
			t.Errorf("%s, %v", j.State, err)
		}
	})
}

// Work done for a request is waited for, and hears of the stop, as a runner's own.
func TestStopWaitsForDo(t *testing.T) {
	bubble(t, func(y *yard) {
		typ, causes := waits("a", time.Hour)
		w := y.start(job.Config{}, typ)
		type answer struct {
			made store.Enqueued
			err  error
		}
		done := make(chan answer, 1)
		go func() {
			made, _, err := w.Do(context.Background(), job.New("ACME", "a", nil))
			done <- answer{made, err}
		}()
		synctest.Wait()
		began := time.Now()
		w.stop()
		if d := time.Since(began); d != 16*time.Second {
			t.Errorf("it took %v", d)
		}
		if cause := <-causes; cause == nil || cause.Error() != "job: the engine is stopping" {
			t.Errorf("told %v", cause)
		}
		a := <-done
		if j := y.job(a.made.Job.ID); a.err == nil || j.State != store.Ready || j.Attempt != 0 {
			t.Errorf("%s, attempt %d, %v", j.State, j.Attempt, a.err)
		}
	})
}

// Leases are kept while a stop waits: nobody takes over what is being finished.
func TestStopKeepsLeases(t *testing.T) {
	bubble(t, func(y *yard) {
		w := y.start(job.Config{}, job.Type{Name: "a", Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
			time.Sleep(15900 * time.Millisecond) // longer than a lease
			return job.Result{}, nil
		}})
		id := y.add("a")
		synctest.Wait()
		other := y.start(job.Config{Queue: elsewhere{y.queue}, Poll: 100 * time.Millisecond}, job.Type{Name: "a", Handle: fine})
		w.stop()
		if j := y.job(id); j.State != store.Succeeded || j.Starts != 1 || other.Running() != 0 {
			t.Errorf("%s, %d starts", j.State, j.Starts)
		}
	})
}

// A stop in a hurry asks the running jobs to end at once, whether it is under way or yet to come.
func TestStopInHurry(t *testing.T) {
	for _, first := range []bool{true, false} {
		bubble(t, func(y *yard) {
			heeds, _ := waits("heeds", time.Hour)
			w := y.start(job.Config{Concurrency: 2}, heeds)
			id := y.add("heeds")
			synctest.Wait()
			if first {
				w.Hurry()
			}
			w.halt()
			time.Sleep(time.Second)
			if !first {
				w.Hurry()
			}
			synctest.Wait()
			select {
			case <-w.stopped:
			default:
				t.Error("it waits for its job")
			}
			if j := y.settle(id); j.State != store.Ready || j.Attempt != 0 || len(j.Errors) != 0 {
				t.Errorf("%s after %d attempts, %v", j.State, j.Attempt, j.Errors)
			}
			<-w.stopped
		})
	}
}
