package app

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/bus/bustest"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// A storm of rings is few calls, and after the last ring there is one.
func TestBell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		var useful atomic.Bool
		useful.Store(true)
		b := newBell(10*time.Millisecond, 80*time.Millisecond, func() bool { calls.Add(1); return useful.Load() })
		storm := func(d time.Duration) int64 {
			before := calls.Load()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
				for range 100 {
					b.ring()
				}
			}
			time.Sleep(time.Second)
			return calls.Load() - before
		}
		if b.ring(); calls.Load() != 1 {
			t.Error("the first ring waits")
		}
		time.Sleep(time.Second)
		if calls.Load() != 1 {
			t.Errorf("%d calls of one ring", calls.Load())
		}
		if n := storm(time.Second); n < 98 || n > 102 {
			t.Errorf("100,000 rings in a second are %d calls", n)
		}
		useful.Store(false)
		if n := storm(time.Second); n < 12 || n > 17 { // 10, 20, 40, 80, 80 …
			t.Errorf("100,000 useless rings in a second are %d calls", n)
		}
		if before := calls.Load(); true {
			b.ring()
			time.Sleep(5 * time.Millisecond)
			b.ring()
			if time.Sleep(6 * time.Millisecond); calls.Load() != before+2 {
				t.Error("a ring after a quiet time is heard late")
			}
		}
	})
}

// station is what a node has of jobs and clients, over a folder that several share.
type station struct {
	queue   *sqlite.Queue
	tenants *tenant.Registry
	runner  *job.Runner
}

// untelling is a database that does not say in time what other nodes wrote.
type untelling struct{ store.DB }

func (untelling) Changes(_ context.Context, _ string, since int64) (ids []string, next int64, err error) {
	return nil, since, nil
}

func newStation(t *testing.T, dir string, ring *secret.Ring, b bus.Bus, types ...job.Type) *station {
	t.Helper()
	services, err := sqlite.Open(t.Context(), filepath.Join(dir, servicesFile), servicesSchemas)
	if err != nil {
		t.Fatal(err)
	}
	s := &station{}
	if s.queue, err = sqlite.OpenQueue(t.Context(), services, time.Now); err != nil {
		t.Fatal(err)
	}
	s.tenants = tenant.NewRegistry(tenant.Config{Services: untelling{services}, Ring: ring, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	s.runner = job.NewRunner(job.Config{Queue: s.queue, Tenants: s.tenants, Concurrency: 4, Poll: time.Minute, Log: slog.New(slog.DiscardHandler), Now: time.Now}, types...)
	s.tenants.OnWrite(joinNodes(b, s.queue, s.runner, s.tenants.Look))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	run := func(f func(context.Context) error) { go func() { _ = f(ctx); ended <- struct{}{} }() }
	run(s.tenants.Watch)
	if len(types) > 0 {
		run(s.runner.Run)
	} else {
		ended <- struct{}{}
	}
	t.Cleanup(func() {
		stop()
		<-ended
		<-ended
		_ = services.Close()
	})
	return s
}

func within(t *testing.T, d time.Duration, what string, is func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for !is() {
		if time.Since(begun) > d {
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begun)
}

// A node that has nothing to do starts a job that another made at once, not when it looks by itself; it hears of what is to
// be cancelled, and of clients.
func TestNodesWakeEachOther(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"memory", "redis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var a, b bus.Bus
			if kind == "memory" {
				m := bus.NewMemory(slog.New(slog.DiscardHandler))
				a, b = m.Node(), m.Node()
			} else {
				s := bustest.Start(t)
				var err error
				if a, err = bus.OpenRedis(s.URL(), slog.New(slog.DiscardHandler)); err != nil {
					t.Fatal(err)
				}
				if b, err = bus.OpenRedis(s.URL(), slog.New(slog.DiscardHandler)); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
			ring, err := secret.ParseRing(secret.Generate("k"))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			began := make(chan time.Time, 100)
			maker := newStation(t, dir, ring, a)
			newStation(t, dir, ring, b,
				job.Type{Name: "quick", System: true, Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) {
					began <- time.Now()
					return job.Result{}, nil
				}},
				job.Type{Name: "long", System: true, Handle: func(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
					began <- time.Now()
					<-ctx.Done()
					return job.Result{}, ctx.Err()
				}})
			other := newStation(t, dir, ring, b)
			within(t, 10*time.Second, "the bus is whole", func() bool { return a.Healthy() == nil && b.Healthy() == nil })
			enqueue := func(typ string) (id string, took time.Duration) {
				made, err := maker.queue.Enqueue(t.Context(), store.NewJob{Type: typ})
				if err != nil {
					t.Fatal(err)
				}
				at := time.Now()
				select {
				case began := <-began:
					return made[0].Job.ID, began.Sub(at)
				case <-time.After(10 * time.Second):
					t.Fatal("another node does not start a job")
				}
				return
			}
			var took []time.Duration
			for range 21 {
				_, d := enqueue("quick")
				took = append(took, d)
				time.Sleep(30 * time.Millisecond) // the node is at rest again
			}
			slices.Sort(took)
			if median := took[10]; median > 50*time.Millisecond {
				t.Errorf("another node starts a job after %v", took)
			} else {
				t.Logf("another node starts a job after %v, at most %v", median, took[20])
			}
			for range 3 {
				id, _ := enqueue("long")
				if _, err := maker.queue.Cancel(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				within(t, 600*time.Millisecond, "a cancelled job ends on another node", func() bool {
					j, err := maker.queue.Job(t.Context(), id)
					return err == nil && j.State == store.Cancelled
				})
			}
			for i := range 3 {
				code := fmt.Sprintf("CLIENT%d", i)
				if _, _, err := maker.tenants.Create(t.Context(), tenant.NewClient{Code: code}); err != nil {
					t.Fatal(err)
				}
				within(t, time.Second, "a client is known on another node", func() bool { return other.tenants.Status(code) == tenant.Active })
				if _, err := maker.tenants.SetStatus(t.Context(), code, tenant.Suspended); err != nil {
					t.Fatal(err)
				}
				within(t, time.Second, "its end is known there", func() bool { return other.tenants.Status(code) == tenant.Suspended })
			}
		})
	}
}
