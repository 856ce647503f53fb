package job_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

func TestDo(t *testing.T) {
	bubble(t, func(y *yard) {
		runs := 0
		w := y.start(job.Config{}, does("a", func(n int) (job.Result, error) {
			runs = n
			return job.Result{Result: "done", Next: []store.NewJob{{Tenant: "ACME", Type: "next"}}}, nil
		}))
		nj := job.New("ACME", "a", nil)
		nj.UniqueKey = "k"
		made, res, err := w.Do(y.Context(), nj)
		if err != nil || made.Duplicate || res.Result != "done" || runs != 1 {
			t.Fatalf("made %+v, result %v, %d runs, %v", made, res, runs, err)
		}
		j := y.job(made.Job.ID)
		if j.State != store.Succeeded || j.Starts != 1 || j.Owner != "" || string(j.Result) != `"done"` || y.count("next") != 1 {
			t.Errorf("%s, starts %d, owner %q, result %s, %d next", j.State, j.Starts, j.Owner, j.Result, y.count("next"))
		}

		again, res, err := w.Do(y.Context(), nj)
		if err != nil || !again.Duplicate || again.Job.ID != j.ID || again.Job.State != store.Succeeded || res.Result != nil || runs != 1 {
			t.Errorf("again: %+v, result %v, %d runs, %v", again, res, runs, err)
		}
		nj.Payload = []byte(`{"other":1}`)
		if _, _, err := w.Do(y.Context(), nj); !errors.Is(err, store.ErrKeyReuse) || runs != 1 {
			t.Errorf("another payload: %v, %d runs", err, runs)
		}
		if w.Running() != 0 {
			t.Errorf("%d held", w.Running())
		}
	})
}

// What a handler could not do at once, a runner does later; the caller hears why.
func TestDoFails(t *testing.T) {
	bubble(t, func(y *yard) {
		typ := does("a", func(n int) (job.Result, error) {
			switch n {
			case 1:
				return job.Result{}, errBoom
			case 2:
				panic("oh")
			}
			return job.Result{}, nil
		})
		typ.MaxAttempts = 3
		w := y.start(job.Config{}, typ)
		made, _, err := w.Do(y.Context(), job.New("ACME", "a", nil))
		if !errors.Is(err, errBoom) {
			t.Errorf("got %v", err)
		}
		if j := y.job(made.Job.ID); j.State != store.Scheduled || j.Attempt != 1 || j.MaxAttempts != 3 {
			t.Errorf("%s, attempt %d of %d", j.State, j.Attempt, j.MaxAttempts)
		}
		if j := y.until(made.Job.ID, store.Succeeded, time.Minute); j.Attempt != 2 || !slices.Equal(codes(j), []string{"error", "panic"}) {
			t.Errorf("attempt %d, errors %v", j.Attempt, codes(j))
		}

		made, _, err = w.Do(y.Context(), job.New("ACME", "nobody knows", nil))
		if j := y.job(made.Job.ID); err == nil || j.State != store.Parked || !slices.Equal(codes(j), []string{"unknown_type"}) {
			t.Errorf("%s, %v, %v", j.State, codes(j), err)
		}
	})
}

// A caller that goes away does not take its work along.
func TestDoWithoutItsCaller(t *testing.T) {
	bubble(t, func(y *yard) {
		ctx, leave := context.WithCancel(y.Context())
		w := y.start(job.Config{}, job.Type{Name: "a", Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
			leave()
			return job.Result{}, ctx.Err()
		}})
		made, _, err := w.Do(ctx, job.New("ACME", "a", nil))
		if j := y.job(made.Job.ID); err != nil || j.State != store.Succeeded {
			t.Errorf("%s, %v", j.State, err)
		}
	})
}

// The process that was asked dies in the middle: a runner takes the job over.
func TestDoTakenOver(t *testing.T) {
	bubble(t, func(y *yard) {
		typ, letGo := deaf("a")
		asked := y.runner(job.Config{}, typ) // not run: nobody beats for it
		done := make(chan error)
		go func() {
			_, _, err := asked.Do(context.Background(), job.New("ACME", "a", nil))
			done <- err
		}()
		synctest.Wait()
		js, err := y.queue.Jobs(y.Context(), store.JobFilter{Tenant: "ACME"})
		if err != nil || len(js) != 1 || js[0].State != store.Running {
			t.Fatalf("%v, %v", js, err)
		}
		y.start(job.Config{Poll: 5 * time.Second}, job.Type{Name: "a", Handle: fine})
		y.until(js[0].ID, store.Succeeded, 21*time.Second)
		letGo()
		if err := <-done; !errors.Is(err, job.ErrLeaseLost) {
			t.Errorf("the first was told %v", err)
		}
		if y.count("zombie") != 0 {
			t.Error("the first made what follows")
		}
	})
}

// The type says how often, whoever made the job.
func TestMaxAttempts(t *testing.T) {
	bubble(t, func(y *yard) {
		follow := does("b", func(int) (job.Result, error) { return job.Result{}, errBoom })
		follow.MaxAttempts, follow.Base, follow.Cap = 2, time.Second, time.Second
		plain := does("c", func(int) (job.Result, error) { return job.Result{}, errBoom })
		plain.Base, plain.Cap = time.Second, time.Second
		y.start(job.Config{}, follow, plain, does("a", func(int) (job.Result, error) {
			return job.Result{Next: []store.NewJob{{ID: "job_b", Tenant: "ACME", Type: "b"}}}, nil
		}))
		y.add("a")
		for id, want := range map[string]int{"job_b": 2, y.add("b"): 2, y.add("c"): 8, y.add("c", func(n *store.NewJob) { n.MaxAttempts = 3 }): 3} {
			if j := y.until(id, store.Dead, time.Minute); j.Attempt != want {
				t.Errorf("%s of type %s: %d attempts, want %d", id, j.Type, j.Attempt, want)
			}
		}
		if j := y.job("job_b"); j.MaxAttempts != 2 {
			t.Errorf("its record says %d", j.MaxAttempts)
		}
	})
}
