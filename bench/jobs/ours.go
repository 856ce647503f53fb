package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ours is the engine's queue in its file, with its registry of clients; each opens a file of its own at its first job.
type ours struct {
	dir     string
	db      *sqlite.DB
	queue   *sqlite.Queue
	clients *tenant.Registry
}

const servicesFile = "ecod_services.db"

func openOurs(ctx context.Context, dir string) (*ours, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ring, err := secret.ParseRing(secret.Generate("k"))
	if err != nil {
		return nil, err
	}
	o := &ours{dir: dir}
	if o.db, err = sqlite.Open(ctx, filepath.Join(dir, servicesFile), []store.Schema{tenant.Accounts.Schema}); err != nil {
		return nil, err
	}
	if o.queue, err = sqlite.OpenQueue(ctx, o.db, time.Now); err != nil {
		return nil, errors.Join(err, o.db.Close())
	}
	o.clients = tenant.NewRegistry(tenant.Config{
		Services: o.db, Ring: ring, Now: time.Now, Log: slog.New(slog.DiscardHandler), OnChange: func(string, string) {},
		OpenDB: func(ctx context.Context, a *tenant.Account) (store.DB, error) {
			return sqlite.Open(ctx, filepath.Join(dir, a.Code+".db"), nil)
		},
		DropDB: func(context.Context, *tenant.Account) error { return nil },
	})
	return o, nil
}

// register makes clients.
func (o *ours) register(ctx context.Context, n int) error {
	for i := range n {
		if _, _, err := o.clients.Create(ctx, tenant.NewClient{Code: client(i), Name: "Client"}); err != nil {
			return err
		}
	}
	return nil
}

func client(i int) string { return fmt.Sprintf("CLIENT%04d", i) }

// discard closes everything and removes it.
func (o *ours) discard() error {
	return errors.Join(o.clients.Close(context.Background()), o.db.Close(), os.RemoveAll(o.dir))
}

// wanted is the job of a work.
func wanted(w work) store.NewJob {
	b, err := json.Marshal(w)
	if err != nil {
		panic(err) // two strings and a number
	}
	return store.NewJob{Tenant: w.Client, Type: w.Kind(), Payload: b}
}

func (o *ours) insert(ctx context.Context, w work) error {
	_, err := o.queue.Enqueue(ctx, wanted(w))
	return err
}

func (o *ours) fill(ctx context.Context, n int, client func(i int) string) error {
	const batch = 1000
	for from := 0; from < n; from += batch {
		all := make([]store.NewJob, min(batch, n-from))
		for i := range all {
			all[i] = wanted(work{int64(from + i), client(from + i), pad})
		}
		if _, err := o.queue.Enqueue(ctx, all...); err != nil {
			return err
		}
	}
	return nil
}

// start runs the engine's runner, with its rule of how much of it one client may have. ended is told of every job whose
// end is durable. system jobs need no registered client.
func (o *ours) start(ctx context.Context, workers int, system bool, do func(work), ended func()) (stop func() error) {
	r := job.NewRunner(job.Config{
		Queue: o.queue, Tenants: o.clients, Now: time.Now, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Concurrency: workers, PerClient: max(2, workers/2), Poll: 5 * time.Second,
		Observe: func(e job.Execution) {
			if e.State == store.Succeeded {
				ended()
			}
		},
	}, job.Type{Name: work{}.Kind(), System: system, Handle: func(_ context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
		var w work
		if err := json.Unmarshal(j.Payload, &w); err != nil {
			return job.Result{}, err
		}
		do(w)
		return job.Result{}, nil
	}})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func (o *ours) succeeded(ctx context.Context, want int64) error {
	counts, err := o.queue.JobCounts(ctx, "")
	if err == nil && counts[store.Succeeded] != want {
		err = fmt.Errorf("%d of %d jobs succeeded", counts[store.Succeeded], want)
	}
	return err
}
