package job_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// What the other side wants to rest rests, at no job's cost, and goes on to the moment: first one, then all.
func TestPauseLane(t *testing.T) {
	bubble(t, func(y *yard) {
		began := time.Now()
		var now, most, trial, calls, done atomic.Int64
		var times []time.Duration
		y.start(job.Config{}, job.Type{Name: "send", Resource: "wa:1", Class: store.Interactive, Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
			most.Store(max(most.Load(), now.Add(1)))
			if done.Load() == 0 {
				trial.Store(most.Load())
			}
			defer now.Add(-1)
			if calls.Add(1) <= 2 {
				times = append(times, time.Since(began))
				return job.Result{}, job.PauseLane("", store.RateLimited, 2*time.Second, time.Minute, "slow_down", errBoom)
			}
			time.Sleep(time.Second)
			done.Add(1)
			return job.Result{}, nil
		}}, job.Type{Name: "other", Handle: fine})
		w := y.runner(job.Config{}, job.Type{Name: "send", Resource: "wa:1", Class: store.Interactive}) // only to declare
		made, err := w.Enqueue(y.Context(), job.New("ACME", "send", 1))
		y.must(err)
		first := made[0].Job.ID
		y.settle(first)
		for range 4 {
			made, err = w.Enqueue(y.Context(), job.New("ACME", "send", 1))
			y.must(err)
		}
		y.until(y.add("other"), store.Succeeded, 0)
		if j := y.settle(first); j.State != store.Ready || j.Attempt != 0 || codes(j)[0] != "slow_down" {
			t.Errorf("%s, attempt %d, %v", j.State, j.Attempt, codes(j))
		}
		y.until(first, store.Succeeded, 8*time.Second) // 2 s, 4 s, and 1 s of work
		if len(times) != 2 || times[1] != 2*time.Second {
			t.Errorf("called at %v", times)
		}
		if d := time.Since(began); trial.Load() != 1 || d != 7*time.Second {
			t.Errorf("on trial %d ran at once; it was over after %v", trial.Load(), d)
		}
		if j := y.until(made[0].Job.ID, store.Succeeded, 1100*time.Millisecond); j.Starts != 1 || most.Load() != 4 {
			t.Errorf("then %d ran at once", most.Load())
		}
		if p, err := y.queue.Pauses(y.Context(), "ACME"); err != nil || len(p) != 0 {
			t.Errorf("%v, %v", p, err)
		}
	})
}

// What a patient job causes is as patient, unless it says otherwise.
func TestFollowingIsAsPatient(t *testing.T) {
	bubble(t, func(y *yard) {
		y.start(job.Config{},
			job.Type{Name: "import", Resource: "import", Class: store.Bulk, Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
				return job.Result{Next: []store.NewJob{
					{Tenant: "ACME", Type: "usual"}, {Tenant: "ACME", Type: "tidy"}, {Tenant: "ACME", Type: "usual", Class: store.Interactive},
				}}, nil
			}},
			job.Type{Name: "usual", Handle: fine}, job.Type{Name: "tidy", Class: store.Maintenance, Handle: fine})
		for class, want := range map[store.Class][]string{
			store.Bulk:        {"ACME/internal/bulk", "ACME/internal/maintenance", "ACME/internal/interactive"},
			store.Maintenance: {"ACME/internal/maintenance", "ACME/internal/maintenance", "ACME/internal/interactive"},
			store.Normal:      {"ACME/internal/normal", "ACME/internal/maintenance", "ACME/internal/interactive"},
		} {
			y.settle(y.add("import", func(nj *store.NewJob) { nj.Class = class }))
			js, err := y.queue.Jobs(y.Context(), store.JobFilter{Tenant: "ACME", Limit: 3})
			y.must(err)
			for i, j := range js {
				if got := want[2-i]; j.Lane != got {
					t.Errorf("of a %s job %d is in %s, want %s", class, 2-i, j.Lane, got)
				}
			}
		}
	})
}
