package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// queue measures jobs made singly by 64 callers, each durable when the call returns, and then a runner with the
// engine's default settings that works them off: claim, the client's handle, nothing to do, the end recorded.
func (b *bench) queue(ctx context.Context) error {
	const lanes = 50
	s, err := app.OpenEmbedded(ctx, filepath.Join(b.dir, "queue"))
	if err != nil {
		return err
	}
	defer s.Close()
	ring, err := secret.ParseRing(secret.Generate("k"))
	if err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	clients := s.Registry(ring, quiet, func(string, string) {}, nil)
	defer clients.Close(context.WithoutCancel(ctx))
	for i := range lanes {
		if _, _, err := clients.Create(ctx, tenant.NewClient{Code: fmt.Sprintf("CLIENT%02d", i), Name: "Client"}); err != nil {
			return err
		}
	}

	var made atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	for range 64 {
		wg.Go(func() {
			for time.Since(began) < b.seconds/3 && ctx.Err() == nil && failed.Load() == nil {
				n := made.Add(1)
				_, err := s.Queue.Enqueue(ctx, store.NewJob{
					Tenant: fmt.Sprintf("CLIENT%02d", n%lanes), Type: "nothing", UniqueKey: fmt.Sprintf("send:msg_%032x", n),
					Payload: json.RawMessage(`{"messageId":"msg_0191f0c3aaaa70000000000000000001","conversationId":"cnv_0191f0c3aaaa70000000000000000001"}`),
				})
				if err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return *err
	}
	n := made.Load()
	rate := float64(n) / took.Seconds()
	b.note("jobs enqueued singly, 64 callers", rate >= 5000, "≥ 5,000/s", "%.0f/s", rate)

	var ran atomic.Int64
	done := make(chan struct{})
	runner := job.NewRunner(job.Config{
		Queue: s.Queue, Tenants: clients, Concurrency: 16, Poll: 5 * time.Second, Log: quiet, Now: time.Now,
		Observe: func(e job.Execution) { // called when the end is durable
			if e.State == store.Succeeded && ran.Add(1) == n {
				close(done)
			}
		},
	}, job.Type{Name: "nothing", Handle: func(context.Context, *tenant.Tenant, store.Job) (job.Result, error) { return job.Result{}, nil }})
	rctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	began = time.Now()
	go func() { ended <- runner.Run(rctx) }()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	rate = float64(n) / time.Since(began).Seconds()
	stop()
	if err := <-ended; err != nil {
		return err
	}
	counts, err := s.Queue.JobCounts(ctx, "")
	if err != nil {
		return err
	}
	if counts[store.Succeeded] != n {
		return fmt.Errorf("%d of %d jobs succeeded", counts[store.Succeeded], n)
	}
	b.note("empty jobs worked off, 16 at once", rate >= 5000, "≥ 5,000/s", "%.0f/s (%d jobs)", rate, n)
	return nil
}
