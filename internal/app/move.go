package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

// same tells whether two addresses of a client's lead to one database: a server has many names.
func (m *Mover) same(ctx context.Context, a, b *tenant.Account) (bool, error) {
	var urls, places [2]string
	for i, acct := range []*tenant.Account{a, b} {
		url, err := m.Tenants.DatabaseURL(acct)
		if err != nil {
			return false, err
		}
		urls[i] = url.Reveal()
	}
	if urls[0] == urls[1] {
		return true, nil
	}
	if !m.Storage.Shared() && (urls[0] == "" || urls[1] == "") { // a file and none
		return false, nil
	}
	for i, acct := range []*tenant.Account{a, b} {
		db, err := m.Storage.OpenDB(ctx, acct)
		if err != nil {
			return false, err
		}
		if p, ok := db.(interface {
			Place(ctx context.Context) (string, error)
		}); ok {
			places[i], err = p.Place(ctx)
		}
		if err = errors.Join(err, db.Close()); err != nil {
			return false, err
		}
	}
	return places[0] != "" && places[0] == places[1], nil
}

// errSame says that what should be an old copy is the client's database: a hand changed its address back.
var errSame = fault.New(fault.Conflict, "client.same_database", "The client is served from there: it is no old copy, and was not dropped.")

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

// Where tells where a client's database is, without a secret.
func (m *Mover) Where(a *tenant.Account) (string, error) {
	raw, err := m.Tenants.DatabaseURL(a)
	if err != nil {
		return "", err
	}
	return m.Storage.describe(a.Code, raw.Reveal()), nil
}

// OldCopy tells where the old copy of a client's last move is; "": there is none.
func (m *Mover) OldCopy(a *tenant.Account) (string, error) {
	if a.Move == nil || !a.Move.Kept {
		return "", nil
	}
	old, err := m.Tenants.Old(a)
	if err != nil {
		return "", err
	}
	return m.Where(old)
}

// DropOld deletes the old copy of a client's last move.
func (m *Mover) DropOld(ctx context.Context, code string) (dropped string, err error) {
	acct, err := m.Tenants.Account(ctx, code)
	if err != nil {
		return "", err
	}
	if acct.Move == nil || !acct.Move.Kept {
		return "", fault.Missing("old copy")
	}
	old, err := m.Tenants.Old(acct)
	if err != nil {
		return "", err
	}
	if dropped, err = m.Where(old); err != nil {
		return "", err
	}
	same, err := m.same(ctx, acct, old)
	if err == nil && !same {
		err = m.Storage.mine(ctx, old) // where the client is in a file, nothing was opened yet
	}
	trouble := (*tenant.Trouble)(nil)
	switch {
	case errors.As(err, &trouble):
		return "", fault.Wrap(err, fault.Conflict, "client.not_its_database", "One of the two databases is not this client's: nothing was dropped.")
	case err != nil:
		return "", err
	case same:
		if err := m.Tenants.ForgetOld(ctx, acct.Code); err != nil {
			return "", err
		}
		return "", errSame
	}
	if err := m.Storage.RemoveDB(ctx, old); err != nil {
		return "", err
	}
	return dropped, m.Tenants.ForgetOld(ctx, acct.Code)
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

// describe names the place of a client's database: servers and name, never a password.
func (s *Storage) describe(code, raw string) string {
	if raw == "" {
		return s.home(code)
	}
	return "mongodb://" + servers(raw) + "/" + mongoClient(raw, code)
}

// home names the place of a database in the engine's own storage.
func (s *Storage) home(code string) string {
	if !s.Shared() {
		return s.path(code)
	}
	return "the engine's own MongoDB, " + mongoClient(s.url, code)
}

// yieldLater asks a moving client's jobs of this process to end that do not end by themselves, whichever process moves it.
func (a *App) yieldLater(code string) {
	time.AfterFunc(moveEnd, func() {
		if a.Tenants.Status(code) == tenant.Moving {
			a.Runner.Yield(code)
		}
	})
}
