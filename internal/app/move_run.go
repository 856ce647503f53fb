package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// moveRun is one execution of a move.
type moveRun struct {
	*Mover
	code, id string
	acct     *tenant.Account
	progress tenant.Progress
	told     time.Time
	records  int64
	took     struct{ wait, copy, verify time.Duration }
}

func (r *moveRun) run(ctx context.Context) (err error) {
	v := r.acct.Move
	if v == nil || v.ID != r.id || v.Phase == tenant.MoveFailed {
		return tenant.ErrMoveOver
	}
	if v.Phase == tenant.MoveFailing {
		return &refusedMove{code: v.Reason, detail: "the move was given up"}
	}
	if v.Phase == tenant.MoveDone {
		r.records = v.Records
		return r.resume(ctx)
	}
	target, err := r.Tenants.Target(r.acct)
	if err != nil {
		return &refusedMove{code: "move.target_unreadable", detail: "the new address cannot be read", err: err}
	}
	if v.Phase == tenant.MoveAsked {
		err = r.Storage.unclaimed(ctx, target)
	}
	var to store.Copier
	if err == nil {
		to, err = r.open(ctx, target)
	}
	if no := (*refusedMove)(nil); errors.As(err, &no) {
		return no
	}
	if err != nil && v.Phase == tenant.MoveAsked {
		return &refusedMove{code: "move.target_unreachable", detail: "the new database cannot be opened", err: err}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if v.Phase == tenant.MoveAsked {
		switch same, err := r.same(ctx, r.acct, target); {
		case err != nil:
			return err
		case same:
			return &refusedMove{code: "move.same_database", detail: "the new address leads to the database where the client is"}
		}
		if err := r.empty(ctx, to); err != nil {
			return err
		}
		if r.acct, err = r.Tenants.BeginMove(ctx, r.code, r.id); err != nil {
			return err
		}
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	if err := r.recall(ctx); err != nil {
		return err
	}
	if r.acct.Move.Phase == tenant.MovePreparing {
		if err := r.empty(ctx, to); err != nil { // still
			return err
		}
		if r.acct, err = r.Tenants.CopyMove(ctx, r.code, r.id); err != nil {
			return err
		}
	}
	copying := time.Now()
	from, err := r.open(ctx, r.acct)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	if err := r.copy(ctx, from, to); err != nil {
		return err
	}
	// What another process writes until it has heard of the copying is compared, too; what it writes later it does not say it
	// has written (tenant.guarded).
	if err := wait(ctx, r.Settle-time.Since(copying)); err != nil {
		return err
	}
	if err := r.verify(ctx, from, to); err != nil {
		return err
	}
	if err := job.Leased(ctx); err != nil {
		return err
	}
	if r.acct, err = r.Tenants.FinishMove(ctx, r.code, r.id, r.records); err != nil {
		return err
	}
	r.Log.Info("client moved", "client", r.code, "job", r.id, "records", r.records, "wait", r.took.wait.String(), "copy", r.took.copy.String(),
		"verify", r.took.verify.String())
	return r.resume(ctx)
}

func (r *moveRun) open(ctx context.Context, a *tenant.Account) (store.Copier, error) {
	db, err := r.Storage.OpenDB(ctx, a)
	if err != nil {
		return nil, err
	}
	c, ok := db.(store.Copier)
	if !ok {
		return nil, errors.Join(&refusedMove{code: "move.engine", detail: "the engine of this database makes no copies"}, db.Close())
	}
	return c, nil
}

func (r *moveRun) empty(ctx context.Context, to store.Copier) error {
	empty, err := store.Empty(ctx, to, tenantSchemas)
	if err == nil && !empty {
		err = &refusedMove{code: "move.target_not_empty", detail: "the new database holds data of a client of this code already"}
	}
	return err
}

// quiet waits until nobody uses the client's database: its lanes rest, its running jobs end or are asked to, and every
// process has heard that it is out of service.
func (r *moveRun) quiet(ctx context.Context) error {
	began := time.Now()
	defer func() { r.took.wait = time.Since(began) }()
	if _, err := r.Queue.Pause(ctx, store.PauseRequest{Scope: r.code, Reason: store.Moving, Detail: movePauseFor}); err != nil {
		return err
	}
	for asked := false; ; {
		running, err := r.Queue.Jobs(ctx, store.JobFilter{Tenant: r.code, States: []store.State{store.Running}, Limit: 1})
		if err != nil {
			return err
		}
		heard := time.Since(r.acct.Move.BeganAt) > r.Settle
		if len(running) == 0 && heard {
			break
		}
		if len(running) > 0 && time.Since(began) > moveEnd && !asked {
			r.Yield(r.code)
			asked = true
		}
		if err := wait(ctx, moveLook); err != nil {
			return err
		}
	}
	return r.Tenants.Vacate(ctx, r.code)
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// recall takes up what an execution before this one copied.
func (r *moveRun) recall(ctx context.Context) error {
	p, err := tenant.Moves.Get(ctx, r.Storage.Services, r.code)
	if err == nil && p.JobID == r.id && r.acct.Move.Phase == tenant.MoveCopying {
		r.progress = *p
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	r.progress = tenant.Progress{Code: r.code, JobID: r.id}
	return r.tell(ctx, tenant.MovePreparing)
}

// tell records the progress, which is also where the next execution goes on.
func (r *moveRun) tell(ctx context.Context, step string) error {
	if step == r.progress.Step && time.Since(r.told) < moveTold {
		return nil
	}
	r.progress.Step, r.told = step, time.Now()
	r.progress.At = r.told.UTC()
	return r.Storage.Services.Commit(ctx, tenant.Moves.Set(&r.progress))
}

// copy copies what is not copied yet, kind by kind in the order of their names, each by id.
func (r *moveRun) copy(ctx context.Context, from, to store.Copier) error {
	began := time.Now()
	defer func() { r.took.copy = time.Since(began) }()
	kinds := kindsOf(tenantSchemas)
	total := int64(0)
	for _, kind := range kinds {
		n, err := from.Count(ctx, store.Query{Kind: kind})
		if err != nil {
			return err
		}
		total += n
	}
	r.progress.Total = total
	r.told = time.Time{}
	if err := r.tell(ctx, tenant.MoveCopying); err != nil {
		return err
	}
	for _, kind := range kinds {
		after := ""
		switch {
		case kind < r.progress.Kind:
			continue
		case kind == r.progress.Kind:
			after = r.progress.After
		}
		r.progress.Kind, r.progress.After = kind, after
		err := store.CopyKind(ctx, from, to, kind, after, func(page []store.Raw) error {
			r.progress.After = page[len(page)-1].ID
			r.progress.Done = min(r.progress.Done+int64(len(page)), total)
			if err := job.Leased(ctx); err != nil {
				return err
			}
			return r.tell(ctx, tenant.MoveCopying)
		})
		if err != nil {
			return fmt.Errorf("copy %s: %w", kind, err)
		}
	}
	last, err := from.LastSeq(ctx)
	if err != nil {
		return err
	}
	return to.SkipSeq(ctx, last)
}

// verify reads both databases whole and compares what they hold.
func (r *moveRun) verify(ctx context.Context, from, to store.Copier) error {
	began := time.Now()
	defer func() { r.took.verify = time.Since(began) }()
	r.records = 0
	for _, kind := range kindsOf(tenantSchemas) {
		r.progress.Done = r.records
		if err := r.tell(ctx, "verifying"); err != nil {
			return err
		}
		have, err := store.DigestKind(ctx, from, kind)
		if err != nil {
			return err
		}
		copied, err := store.DigestKind(ctx, to, kind)
		if err != nil {
			return err
		}
		if have.Records != copied.Records || have.Sum() != copied.Sum() {
			return &refusedMove{code: "move.differs", detail: fmt.Sprintf("the copy of %s is not what it should be: %d records of %d", kind, copied.Records, have.Records)}
		}
		r.records += have.Records
	}
	a, err := from.LastSeq(ctx)
	if err != nil {
		return err
	}
	b, err := to.LastSeq(ctx)
	if err == nil && b < a {
		err = &refusedMove{code: "move.differs", detail: "numbers would be given twice"}
	}
	return err
}

// resume lets the client's work go on.
func (r *moveRun) resume(ctx context.Context) error {
	r.progress = tenant.Progress{Code: r.code, JobID: r.id, Done: r.records, Total: r.records}
	if err := r.tell(ctx, tenant.MoveDone); err != nil {
		return err
	}
	_, err := r.Queue.Resume(ctx, r.code, store.Moving)
	return err
}

// Moved is the result of a MoveJob.
type Moved struct {
	ClientCode string `json:"clientCode"`
	Records    int64  `json:"records"`
	Database   string `json:"database"`
	OldCopy    string `json:"oldCopy"`
}

func (r *moveRun) result() Moved {
	m := Moved{ClientCode: r.code, Records: r.records}
	if at, err := r.Where(r.acct); err == nil {
		m.Database = at
	}
	m.OldCopy, _ = r.OldCopy(r.acct)
	return m
}

// kindsOf gives the names of kinds, in order.
func kindsOf(schemas []store.Schema) []string {
	kinds := make([]string, 0, len(schemas))
	for _, s := range schemas {
		kinds = append(kinds, s.Kind)
	}
	slices.Sort(kinds)
	return kinds
}
