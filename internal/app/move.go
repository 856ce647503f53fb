package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// MoveJob is the type of the job that moves a client's database, MoveBackJob of the one that ends a move which was
// cancelled or given up.
const (
	MoveJob     = "client.move"
	MoveBackJob = "client.move_back"
)

// MovePayload is the payload of both. Where to stands, sealed, in the account.
type MovePayload struct {
	ClientCode string `json:"clientCode"`
	MoveID     string `json:"moveId,omitempty"` // of MoveBackJob
}

const (
	moveTries    = 20
	moveEnd      = 20 * time.Second       // a client's running jobs get so long to end by themselves
	moveLook     = 100 * time.Millisecond // between two looks whether they have
	moveTold     = 500 * time.Millisecond // between two records of the progress
	movePauseFor = "the client's database is being moved"
)

// Mover moves clients between databases: out of service, copied, compared, switched by one write, in service again. What a
// crash cuts goes on where it was, and until the switch the old database is the client's, after it the new one (ADR 9).
type Mover struct {
	Storage *Storage
	Tenants *tenant.Registry
	Queue   store.Queue
	Yield   func(code string) // asks a client's jobs of this process to end
	Settle  time.Duration     // how long other processes may take to hear that a client is out of service
	Log     *slog.Logger
}

func (a *App) mover() *Mover {
	return &Mover{Storage: a.storage, Tenants: a.Tenants, Queue: a.Queue, Yield: a.Runner.Yield, Settle: a.storage.hearing(), Log: a.log.With("part", "moves")}
}

// hearing is how long another process may take to hear of an account's change: where there is one, it looks every 2 s, and
// may be a while about it.
func (s *Storage) hearing() time.Duration {
	if !s.Shared() {
		return 0
	}
	return heardWithin
}

const (
	heardWithin = 6 * time.Second
	heardFor    = 3 * time.Second // a process that writes trusts for so long what it heard of an account, which may be 2 s old
)

// types are the job types of moves.
func (m *Mover) types() []job.Type {
	return []job.Type{
		{Name: MoveJob, Handle: m.handle, System: true, Timeout: 24 * time.Hour, Base: 2 * time.Second, Cap: 30 * time.Second, MaxAttempts: moveTries,
			Abandoned: func(j store.Job) []store.NewJob {
				p, err := job.Payload[MovePayload](j)
				if err != nil {
					return nil
				}
				next := job.New("", MoveBackJob, MovePayload{p.ClientCode, j.ID})
				next.UniqueKey = "move-back:" + j.ID
				return []store.NewJob{next}
			}},
		{Name: MoveBackJob, Handle: m.handleBack, System: true, Timeout: 10 * time.Minute, Base: 2 * time.Second, Cap: time.Minute, MaxAttempts: 1000},
	}
}

// Ask begins a move by making its job.
func (m *Mover) Ask(ctx context.Context, code string, to secret.Text) (jobID string, err error) {
	if to != "" {
		if err := checkDatabaseURL(to.Reveal()); err != nil {
			return "", fault.Bad("/databaseUrl", "%s", err)
		}
	}
	if err := m.Storage.checkDB(code, to); err != nil {
		return "", err
	}
	jobID = id.New("job")
	acct, err := m.Tenants.AskMove(ctx, code, jobID, to)
	if err != nil {
		return "", err
	}
	n := job.New("", MoveJob, MovePayload{ClientCode: acct.Code})
	n.ID, n.MaxAttempts = jobID, moveTries
	_, err = m.Queue.Enqueue(ctx, n)
	return jobID, err
}

// checkDatabaseURL tells what is wrong with an address of a client's own database.
func checkDatabaseURL(raw string) error {
	if scheme, _, _ := strings.Cut(raw, "://"); (scheme != "mongodb" && scheme != "mongodb+srv") || servers(raw) == "" {
		return errors.New("Expected mongodb:// or mongodb+srv:// and a host.") //nolint:staticcheck // a sentence for the caller
	}
	return nil
}

// handle is the handler of MoveJob.
func (m *Mover) handle(ctx context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[MovePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	acct, err := m.Tenants.Account(ctx, p.ClientCode)
	if fault.Of(err) == fault.NotFound {
		return job.Result{}, job.Dead("move.client_gone", err)
	}
	if err != nil {
		return job.Result{}, job.Retry(0, "move.services", err)
	}
	run := &moveRun{Mover: m, code: acct.Code, id: j.ID, acct: acct}
	err = run.run(ctx)
	var no *refusedMove
	switch {
	case err == nil:
		return job.Result{Result: run.result()}, nil
	case ctx.Err() != nil: // told to stop: it goes on later, or who cancelled it has it ended
		return job.Result{}, err
	case errors.Is(err, tenant.ErrMoveOver):
		return job.Result{}, job.Dead("move.over", err)
	case errors.As(err, &no), job.LastAttempt(j):
		reason := "move.failed"
		if no != nil {
			reason = no.code
		}
		m.Log.Error("a client could not be moved and is served where it was", "client", run.code, "job", j.ID, "error", err)
		if berr := m.back(ctx, run.code, j.ID, reason); berr != nil {
			return job.Result{}, job.Retry(0, reason, berr)
		}
		return job.Result{}, job.Dead(reason, err)
	}
	return job.Result{}, job.Retry(0, "move.failed", err)
}

// handleBack is the handler of MoveBackJob.
func (m *Mover) handleBack(ctx context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[MovePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	if err := m.back(ctx, p.ClientCode, p.MoveID, "move.cancelled"); err != nil && fault.Of(err) != fault.NotFound {
		return job.Result{}, job.Retry(0, "move.back", err)
	}
	return job.Result{}, nil
}

// back ends a move that came to nothing. It can switch no more before what it copied goes. Where it was done, its client is
// but let go on.
func (m *Mover) back(ctx context.Context, code, moveID, reason string) error {
	acct, err := m.Tenants.StopMove(ctx, code, moveID, reason)
	if err != nil {
		return err
	}
	if v := acct.Move; v != nil && v.ID == moveID && v.Phase == tenant.MoveFailing {
		target, err := m.Tenants.Target(acct)
		if err == nil && m.copied(ctx, code, moveID) {
			err = m.Storage.RemoveDB(ctx, target)
		}
		if err != nil {
			m.Log.Error("what a move had copied cannot be removed; do so before the next move there", "client", code, "error", err)
		}
	}
	if _, err := m.Tenants.FailMove(ctx, code, moveID, reason); err != nil {
		return err
	}
	_, err = m.Queue.Resume(ctx, code, store.Moving)
	return err
}

// copied tells whether a move began to copy: before that, what stands in the target is not its own.
func (m *Mover) copied(ctx context.Context, code, moveID string) bool {
	p, err := tenant.Moves.Get(ctx, m.Storage.Services, code)
	return err == nil && p.JobID == moveID && p.Step != tenant.MovePreparing
}

// refusedMove is why a move can never be made.
type refusedMove struct {
	code, detail string
	err          error
}

func (e *refusedMove) Error() string {
	if e.err != nil {
		return e.detail + ": " + e.err.Error()
	}
	return e.detail
}

func (e *refusedMove) Unwrap() error { return e.err }

// yieldLater asks a moving client's jobs of this process to end that do not end by themselves, whichever process moves it.
func (a *App) yieldLater(code string) {
	time.AfterFunc(moveEnd, func() {
		if a.Tenants.Status(code) == tenant.Moving {
			a.Runner.Yield(code)
		}
	})
}
