package job_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// A client that has too many jobs is told so, with the numbers; what follows from its work, and what ends it, is taken.
func TestFull(t *testing.T) {
	bubble(t, func(y *yard) {
		w := y.runner(job.Config{}, does("a", func(int) (job.Result, error) {
			return job.Result{Next: []store.NewJob{{Tenant: "ACME", Type: "a"}, {Tenant: "ACME", Type: "a"}}}, nil
		}))
		w.Limit(store.Room{Tenant: 2, Lane: 100})
		if _, err := w.Offer(y.Context(), job.New("ACME", "a", nil)); err != nil {
			t.Fatal(err)
		}
		keyed := job.New("ACME", "a", nil)
		keyed.UniqueKey = "k"
		if _, _, err := w.Do(y.Context(), keyed); err != nil { // it leaves two: three now
			t.Fatal(err)
		}
		full := func(what string, err error) {
			t.Helper()
			var f *fault.Error
			if !errors.As(err, &f) || f.Kind != fault.Limited || f.Code != "queue.full" || f.RetryAfter <= 0 || f.Extra["jobs"] != int64(3) || f.Extra["limit"] != int64(2) {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err := w.Offer(y.Context(), job.New("ACME", "a", nil))
		full("offered", err)
		made, _, err := w.Do(y.Context(), job.New("ACME", "a", nil))
		full("done at once", err)
		if made.Job.ID != "" || y.count("a") != 4 {
			t.Errorf("%+v was made, %d are there", made, y.count("a"))
		}
		full("sent round again", w.HasRoom(y.Context(), "ACME"))
		if again, _, err := w.Do(y.Context(), keyed); err != nil || !again.Duplicate {
			t.Errorf("what was taken before: %+v, %v", again, err)
		}
		if err := w.HasRoom(y.Context(), "OTHER"); err != nil {
			t.Errorf("another client: %v", err)
		}
		if _, _, err := w.DoAnyway(y.Context(), job.New("ACME", "a", nil)); err != nil {
			t.Errorf("what ends work: %v", err)
		}
	})
}

// What was to be done for something that is over is cancelled, wherever it is, and its domain is told; the job that found
// out goes on.
func TestCancelCaused(t *testing.T) {
	bubble(t, func(y *yard) {
		const other = 600 // more than a page
		hung, done := make(chan struct{}), make(chan error, 1)
		var w *worker
		run := store.Causation{RunID: "run_1"}
		w = y.start(job.Config{Concurrency: 2},
			job.Type{Name: "send", Tied: true, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
				close(hung)
				<-ctx.Done()
				return job.Result{}, context.Cause(ctx)
			}, Abandoned: func(j store.Job) []store.NewJob {
				return []store.NewJob{{Tenant: j.Tenant, Type: "told", UniqueKey: "told:" + j.ID, RunAt: time.Now().Add(time.Hour)}}
			}},
			job.Type{Name: "find", Tied: true, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
				n, err := w.CancelCaused(ctx, "ACME", run)
				if err == nil && (n != other+1 || ctx.Err() != nil) {
					err = errBoom
				}
				done <- err
				return job.Result{}, err
			}},
			does("told", nil), does("loose", nil))
		_, err := w.Enqueue(y.Context(), store.NewJob{Tenant: "ACME", Type: "send", Causation: run})
		y.must(err)
		<-hung
		var later []store.NewJob
		for range other {
			later = append(later, store.NewJob{Tenant: "ACME", Type: "send", Causation: run, RunAt: time.Now().Add(time.Hour)})
		}
		_, err = w.Enqueue(y.Context(), append(later,
			store.NewJob{Tenant: "ACME", Type: "send", Causation: store.Causation{RunID: "run_2"}, RunAt: time.Now().Add(time.Hour)},
			store.NewJob{Tenant: "ACME", Type: "loose", Causation: run, RunAt: time.Now().Add(time.Hour)})...)
		y.must(err)
		made, err := w.Enqueue(y.Context(), store.NewJob{Tenant: "ACME", Type: "find", Causation: run})
		y.must(err)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		jobs, err := y.queue.Jobs(y.Context(), store.JobFilter{Tenant: "ACME", Limit: 1000, States: []store.State{store.Cancelled}})
		y.must(err)
		if len(jobs) != other+1 || y.job(made[0].Job.ID).State != store.Succeeded {
			t.Errorf("%d are cancelled, who found out is %s", len(jobs), y.job(made[0].Job.ID).State)
		}
		open, err := y.queue.Jobs(y.Context(), store.JobFilter{Tenant: "ACME", Limit: 1000, States: []store.State{store.Scheduled}, Types: []string{"send", "loose"}})
		y.must(err)
		if len(open) != 2 || y.count("told") != other+1 {
			t.Errorf("%d are left, %d were told of", len(open), y.count("told"))
		}
		for _, nobody := range []store.Causation{{}, {Step: "s"}} {
			if _, err := w.CancelCaused(y.Context(), "ACME", nobody); err == nil {
				t.Error("the jobs of nothing in particular were cancelled")
			}
		}
	})
}

// A job that nobody wants any more is cancelled, not dead: what follows is made, and nobody is alarmed.
func TestCancelVerdict(t *testing.T) {
	bubble(t, func(y *yard) {
		w := y.start(job.Config{}, does("a", func(int) (job.Result, error) {
			return job.Result{}, job.Cancel("run_over", errBoom, store.NewJob{Tenant: "ACME", Type: "next"})
		}))
		made, _, err := w.Do(y.Context(), job.New("ACME", "a", nil))
		if job.Ended(err) != nil {
			t.Error(err)
		}
		j := y.job(made.Job.ID)
		if j.State != store.Cancelled || j.Attempt != 0 || len(j.Errors) != 1 || j.Errors[0].Code != "run_over" || y.count("next") != 1 {
			t.Errorf("%+v, %d next", j, y.count("next"))
		}
	})
}

// A call under way is not cut by a cancel, but by all else that ends its job.
func TestCalling(t *testing.T) {
	bubble(t, func(y *yard) {
		calls := make(chan error, 2)
		began := make(chan struct{}, 2)
		w := y.start(job.Config{}, job.Type{Name: "a", Timeout: time.Minute, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
			cctx, end := job.Calling(ctx)
			defer end()
			began <- struct{}{}
			<-ctx.Done()
			select {
			case <-cctx.Done():
				calls <- context.Cause(cctx)
			case <-time.After(10 * time.Second):
				calls <- nil
			}
			return job.Result{}, nil
		}})
		made, err := w.Enqueue(y.Context(), job.New("ACME", "a", nil), job.New("ACME", "a", nil))
		y.must(err)
		<-began
		<-began
		_, err = w.Cancel(y.Context(), made[0].Job.ID)
		y.must(err)
		if err := <-calls; err != nil {
			t.Errorf("a cancel cut the call: %v", err)
		}
		if err := <-calls; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the end of the job's time: %v", err)
		}
	})
}
