package job_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// fair is a load of jobs that take their time, and what came of it by the bubble's clock: nothing of what the machine is
// busy with besides is in the figures.
type fair struct {
	*yard
	mu      sync.Mutex
	ended   map[string]int           // by client
	last    map[string]time.Duration // when its last job ended
	waits   map[string][]time.Duration
	running map[string]int
	most    map[string]int
	began   time.Time
	slow    string // the client whose jobs take 10 s
	gone    chan struct{}
}

func newFair(y *yard) *fair {
	return &fair{yard: y, ended: map[string]int{}, last: map[string]time.Duration{}, waits: map[string][]time.Duration{}, running: map[string]int{},
		most: map[string]int{}, began: time.Now(), gone: make(chan struct{})}
}

// takes makes a type whose jobs take so long.
func (f *fair) takes(name string, d time.Duration) job.Type {
	return job.Type{Name: name, System: true, Handle: func(ctx context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
		f.mu.Lock()
		f.waits[j.Tenant] = append(f.waits[j.Tenant], time.Since(j.CreatedAt))
		f.running[j.Tenant]++
		f.most[j.Tenant] = max(f.most[j.Tenant], f.running[j.Tenant])
		f.mu.Unlock()
		pause := d
		if j.Tenant == f.slow {
			pause = 10 * time.Second
		}
		select {
		case <-time.After(pause):
		case <-f.gone: // enough was seen
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.running[j.Tenant]--
		f.ended[j.Tenant]++
		f.last[j.Tenant] = time.Since(f.began)
		return job.Result{}, nil
	}}
}

// fill makes n jobs of a client.
func (f *fair) fill(client, typ string, n int) {
	f.Helper()
	for n > 0 {
		batch := make([]store.NewJob, min(n, 500))
		for i := range batch {
			batch[i] = store.NewJob{Tenant: client, Type: typ}
		}
		_, err := f.queue.Enqueue(f.Context(), batch...)
		f.must(err)
		n -= len(batch)
	}
}

// Many clients with much to do each, and one of them slow: the others are done within 15 % of the time that they need when it
// is as fast as they are.
func TestOneSlowClientDelaysNobody(t *testing.T) {
	clients, jobs := 100, 40
	if os.Getenv("ECOD_TEST_LONG") != "" {
		clients, jobs = 500, 200
	}
	const slots = 16
	// done gives when the last job of the others ended.
	done := func(t *testing.T, slow string) (took time.Duration) {
		bubble(t, func(y *yard) {
			f := newFair(y)
			f.slow = slow
			for i := range clients {
				f.fill(fmt.Sprint("T", i), "a", jobs)
			}
			f.began = time.Now()
			y.start(job.Config{Concurrency: slots, PerClient: slots / 2}, f.takes("a", 20*time.Millisecond))
			for left := true; left; {
				time.Sleep(20 * time.Millisecond)
				synctest.Wait()
				f.mu.Lock()
				left = false
				for i := 1; i < clients; i++ {
					left = left || f.ended[fmt.Sprint("T", i)] < jobs
				}
				f.mu.Unlock()
			}
			f.mu.Lock()
			for i := 1; i < clients; i++ {
				took = max(took, f.last[fmt.Sprint("T", i)])
			}
			if most := f.most["T0"]; most > slots/2 {
				t.Errorf("%d jobs of the slow client ran at once, it may have %d", most, slots/2)
			}
			_, err := y.queue.Cancel(context.Background(), f.ids("T0")...)
			y.must(err)
			f.mu.Unlock()
			close(f.gone)
		})
		return took
	}
	even, uneven := done(t, ""), done(t, "T0")
	t.Logf("%d clients with %d jobs: the others took %v, beside a slow one %v", clients, jobs, even, uneven)
	if uneven > even*115/100 {
		t.Errorf("beside a slow client the others took %v, without it %v", uneven, even)
	}
}

// ids are the jobs of a client that wait.
func (f *fair) ids(client string) (ids []string) {
	f.Helper()
	js, err := f.queue.Jobs(context.Background(), store.JobFilter{Tenant: client, States: []store.State{store.Ready}, Limit: 1000})
	f.must(err)
	for _, j := range js {
		ids = append(ids, j.ID)
	}
	return ids
}

// A client with a job a second beside one with a hundred thousand that wait: all of its jobs start, and wait no longer than a
// job of the other takes.
func TestNobodyStarves(t *testing.T) {
	backlog, seconds := 5_000, 20
	if os.Getenv("ECOD_TEST_LONG") != "" {
		backlog, seconds = 100_000, 120
	}
	const slots, takes = 8, 50 * time.Millisecond
	waits := func(t *testing.T, class store.Class, backlog int) (waits []time.Duration) {
		bubble(t, func(y *yard) {
			f := newFair(y)
			bulk := f.takes("bulk", takes)
			bulk.Class = class
			f.fill("A", "bulk", backlog)
			w := y.start(job.Config{Concurrency: slots}, bulk, f.takes("one", takes))
			time.Sleep(3 * time.Millisecond) // not in step with the others
			for range seconds {
				_, err := w.Enqueue(y.Context(), store.NewJob{Tenant: "B", Type: "one"})
				y.must(err)
				time.Sleep(time.Second)
			}
			synctest.Wait()
			f.mu.Lock()
			defer f.mu.Unlock()
			if waits = slices.SortedFunc(slices.Values(f.waits["B"]), cmp.Compare[time.Duration]); len(waits) != seconds {
				t.Errorf("%d of %d started", len(waits), seconds)
			}
			if backlog > 0 && f.ended["A"] == backlog {
				t.Error("the backlog was gone before the end: nothing was shown")
			}
			_, err := y.queue.Cancel(context.Background(), f.ids("A")...)
			y.must(err)
			close(f.gone)
		})
		return waits
	}
	alone := waits(t, store.Normal, 0)
	for _, class := range []store.Class{store.Normal, store.Bulk} {
		beside := waits(t, class, backlog)
		p99 := beside[len(beside)*99/100]
		t.Logf("%s: p99 %v, alone %v", class, p99, alone[len(alone)*99/100])
		if p99 > alone[len(alone)*99/100]+2*takes {
			t.Errorf("beside %d %s jobs of another client it waits %v", backlog, class, p99)
		}
	}
}
