package job_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// farQueue takes its time to give jobs, and calls ahead when it is first asked for more than four.
type farQueue struct {
	store.Queue
	ahead func()
}

func (f *farQueue) Claim(ctx context.Context, r store.ClaimRequest) ([]store.Job, error) {
	if r.Limit > 4 {
		f.ahead()
	}
	time.Sleep(5 * time.Millisecond)
	return f.Queue.Claim(ctx, r)
}

// misjudged has four slots and jobs that take a millisecond each, until more than four are claimed at once: from then on
// a second.
type misjudged struct {
	ids                  []string
	long                 atomic.Bool
	running, most, begun atomic.Int64
}

func (m *misjudged) start(y *yard) *worker {
	for range 60 {
		m.ids = append(m.ids, y.add("work"))
	}
	far := &farQueue{y.queue, func() { m.long.Store(true) }}
	return y.start(job.Config{Queue: far, Concurrency: 4}, job.Type{Name: "work", Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
		m.begun.Add(1)
		m.most.Store(max(m.most.Load(), m.running.Add(1)))
		defer m.running.Add(-1)
		takes := time.Millisecond
		if m.long.Load() {
			takes = time.Second
		}
		time.Sleep(takes)
		return job.Result{}, nil
	}})
}

// Short jobs are claimed ahead of free slots. Where they are not short after all, those that find no slot are given back,
// nothing runs beside more than there are slots for, and nothing twice.
func TestClaimedAhead(t *testing.T) {
	bubble(t, func(y *yard) {
		var m misjudged
		m.start(y)
		time.Sleep(time.Minute)
		synctest.Wait()
		again := 0
		for _, id := range m.ids {
			j := y.job(id)
			if j.State != store.Succeeded || j.Attempt != 0 {
				t.Errorf("%s after %d failures", j.State, j.Attempt)
			}
			again += j.Starts - 1
		}
		if m.most.Load() > 4 || m.begun.Load() != int64(len(m.ids)) {
			t.Errorf("%d at once, %d executions of %d jobs", m.most.Load(), m.begun.Load(), len(m.ids))
		}
		if !m.long.Load() || again == 0 {
			t.Errorf("claimed ahead: %t, given back: %d", m.long.Load(), again)
		}
	})
}

// What was claimed ahead is given back at once by who stops.
func TestStopWithClaimedAhead(t *testing.T) {
	bubble(t, func(y *yard) {
		var m misjudged
		w := m.start(y)
		for i := 0; w.Running() <= 4; i++ {
			if i > 1000 {
				t.Fatal("nothing was claimed ahead")
			}
			time.Sleep(time.Millisecond)
		}
		w.halt()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := w.Running(); n > 4 {
			t.Errorf("who stops holds %d jobs with 4 slots", n)
		}
		w.stop()
		counts, err := y.queue.JobCounts(context.Background(), "ACME")
		y.must(err)
		if counts[store.Running] != 0 || counts[store.Ready]+counts[store.Succeeded] != int64(len(m.ids)) {
			t.Errorf("%v", counts)
		}
	})
}
