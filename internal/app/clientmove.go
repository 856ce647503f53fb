package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	moveFollow = 200 * time.Millisecond // between two looks at a job that another process does
	moveBack   = 10 * time.Second       // what ends a move that failed is a job, too; it gets so long
)

// MoveClient moves a client from the shell, beside a running engine, which then does it, or without one. A move of the
// client that is under way is gone on with. report is told how far it got.
func MoveClient(ctx context.Context, cfg Config, code string, to secret.Text, report func(tenant.Progress)) (Moved, error) {
	return withMover(ctx, cfg, func(m *Mover, engine bool) (Moved, error) {
		acct, err := m.Tenants.Account(ctx, code)
		if err != nil {
			return Moved{}, err
		}
		var jobID string
		if acct.Move != nil && acct.Status == tenant.Moving {
			jobID = acct.Move.ID
		} else if jobID, err = m.Ask(ctx, acct.Code, to); err != nil {
			return Moved{}, err
		}
		if !engine {
			return m.work(ctx, acct.Code, jobID, report)
		}
		return m.follow(ctx, acct.Code, jobID, report)
	})
}

// DropOldCopy deletes the old copy of a client's last move from the shell, and tells where it was.
func DropOldCopy(ctx context.Context, cfg Config, code string) (dropped string, err error) {
	_, err = withMover(ctx, cfg, func(m *Mover, _ bool) (Moved, error) {
		dropped, err = m.DropOld(ctx, code)
		return Moved{}, err
	})
	return dropped, err
}

// withMover opens the storage as the shell uses it. engine: an engine serves it, so that jobs are done there.
func withMover(ctx context.Context, cfg Config, f func(m *Mover, engine bool) (Moved, error)) (Moved, error) {
	if err := HasStorage(cfg); err != nil {
		return Moved{}, err
	}
	keys, err := cfg.LoadKeys()
	if err != nil {
		return Moved{}, err
	}
	_, engine := serving(cfg.DataDir)
	if cfg.DatabaseURL == "" && !engine {
		lock, err := lockDir(cfg.DataDir) // none may start in between
		if err != nil {
			return Moved{}, err
		}
		defer lock.Close()
		if err := notRestoring(cfg.DataDir); err != nil {
			return Moved{}, err
		}
	}
	storage, err := OpenStorage(ctx, cfg)
	if err != nil {
		return Moved{}, err
	}
	defer storage.Close()
	if storage.Shared() {
		nodes, err := present(ctx, storage.Services, time.Now())
		if err != nil {
			return Moved{}, err
		}
		engine = len(nodes) > 0
	}
	log := slog.New(slog.DiscardHandler)
	r := storage.Registry(keys.Ring, log, nil, nil)
	defer func() { _ = r.Close(context.WithoutCancel(ctx)) }()
	if err := r.Load(ctx); err != nil {
		return Moved{}, err
	}
	if !engine {
		if _, err := storage.TakeBack(ctx); err != nil {
			return Moved{}, err
		}
	}
	return f(&Mover{Storage: storage, Tenants: r, Queue: storage.Queue, Yield: func(string) {}, Settle: storage.hearing(), Log: log}, engine)
}

// follow waits for a job that another process does.
func (m *Mover) follow(ctx context.Context, code, jobID string, report func(tenant.Progress)) (Moved, error) {
	tick := time.NewTicker(moveFollow)
	defer tick.Stop()
	for {
		j, err := m.Queue.Job(ctx, jobID)
		if err != nil {
			return Moved{}, err
		}
		if p, err := tenant.Moves.Get(ctx, m.Storage.Services, code); err == nil && p.JobID == jobID {
			report(*p)
		}
		if j.State.Terminal() {
			return m.outcome(ctx, code, j)
		}
		select {
		case <-ctx.Done():
			return Moved{}, fmt.Errorf("job %s goes on: %w", jobID, ctx.Err())
		case <-tick.C:
		}
	}
}

func (m *Mover) outcome(ctx context.Context, code string, j store.Job) (Moved, error) {
	if j.State != store.Succeeded {
		why := string(j.State)
		if n := len(j.Errors); n > 0 {
			why = j.Errors[n-1].Code + ": " + j.Errors[n-1].Message
		}
		return Moved{}, fmt.Errorf("client %s was not moved and is served where it was: %s", code, why)
	}
	acct, err := m.Tenants.Account(ctx, code)
	if err != nil {
		return Moved{}, err
	}
	return (&moveRun{Mover: m, code: code, acct: acct, records: acct.Move.Records}).result(), nil
}

// work does the job in this process.
func (m *Mover) work(ctx context.Context, code, jobID string, report func(tenant.Progress)) (Moved, error) {
	runner := job.NewRunner(job.Config{
		Queue: m.Queue, Tenants: m.Tenants, Concurrency: 2, Poll: time.Second, Log: m.Log, Now: time.Now,
	}, m.types()...)
	rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- runner.Run(rctx) }()
	moved, err := m.follow(ctx, code, jobID, report)
	if ctx.Err() != nil {
		runner.Hurry()
	}
	for end := time.Now().Add(moveBack); err != nil && ctx.Err() == nil && time.Now().Before(end); {
		if acct, aerr := m.Tenants.Account(ctx, code); aerr != nil || acct.Status != tenant.Moving {
			break
		}
		if wait(ctx, moveFollow) != nil {
			break
		}
	}
	stop()
	return moved, errors.Join(err, <-done)
}
