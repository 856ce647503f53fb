package tenant

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
)

// Moving is the status of a client whose database is being moved: nobody uses it, and what comes in for it waits.
const Moving = "moving"

// Phases of a move.
const (
	MoveAsked     = "asked"     // the client is served as before
	MovePreparing = "preparing" // it is not served any more, and who uses its database ends
	MoveCopying   = "copying"   // what stands in the new database is this move's
	MoveFailing   = "failing"   // what stands in the new database goes
	MoveDone      = "done"
	MoveFailed    = "failed" // the client is where it was
)

// Move is a move of a client's database: the one under way, or the last one. It stands in the account, so that one
// conditional write switches the database and ends the move.
type Move struct {
	ID      string    `json:"id"`             // of the job that does it
	To      string    `json:"to,omitempty"`   // sealed; "": the engine's own storage
	From    string    `json:"from,omitempty"` // sealed; once done, where the old copy is
	Kept    bool      `json:"kept,omitempty"` // the old copy is still there
	Was     string    `json:"was,omitempty"`  // the status to go back to
	Phase   string    `json:"phase"`
	Reason  string    `json:"reason,omitempty"` // of one that failed: a dotted code
	AskedAt time.Time `json:"askedAt"`
	BeganAt time.Time `json:"beganAt,omitzero"`
	EndedAt time.Time `json:"endedAt,omitzero"`
	Records int64     `json:"records,omitempty"` // of the copy, once done
}

// moveTo and moveFrom are the fields that a move's addresses are sealed for.
const moveTo, moveFrom = "move.to", "move.from"

// MoveRetryAfter is what callers of a client that is being moved are told.
const MoveRetryAfter = 5 * time.Second

// ErrMoving is the answer to who wants a client that is being moved.
func ErrMoving() error {
	f := fault.New(fault.Unavailable, "client.moving", "This client's database is being moved. What comes in for it is kept; try again soon.")
	f.RetryAfter = MoveRetryAfter
	return f
}

// ErrMoveOver says that a move is not under way any more: it ended, another took its place, or a hand ended it.
var ErrMoveOver = fault.New(fault.Conflict, "move.over", "This move is not under way.")

// Progress is how far the copy of a client that is moved got. One per client: of the last move.
type Progress struct {
	store.Meta
	Code  string    `json:"code"`
	JobID string    `json:"jobId"`
	Step  string    `json:"step"` // what is done now: a phase, or "verifying"
	Kind  string    `json:"kind,omitempty"`
	After string    `json:"after,omitempty"` // the last id of Kind that is copied for sure; those of the kinds before are
	Done  int64     `json:"done"`
	Total int64     `json:"total"`
	At    time.Time `json:"at"`
}

// Moves is the kind of Progress, in the services database.
var Moves = store.Kind[Progress]{
	Schema: store.Schema{Kind: "moves"},
	Key:    func(p *Progress) string { return p.Code },
	Index:  func(*Progress) store.Fields { return store.Fields{} },
	Meta:   func(p *Progress) *store.Meta { return &p.Meta },
}

// AskMove notes that a client is to be moved, to a database of its own or ("") to the engine's storage, by the job of this
// id, which is made afterwards. Nothing is done by that.
func (r *Registry) AskMove(ctx context.Context, code, jobID string, to secret.Text) (*Account, error) {
	return r.Change(ctx, code, func(a *Account) error {
		switch {
		case a.Status == Erasing:
			return fault.New(fault.Conflict, "client.erasing", "This client is being erased.")
		case a.Status == Moving:
			return fault.New(fault.Conflict, "client.moving", "This client is being moved already.")
		case a.Move != nil && a.Move.Kept:
			return fault.New(fault.Conflict, "client.old_copy", "The old copy of the client's last move is still there. Drop it first: ecod client move %s --drop-old.", a.Code)
		}
		from, err := open(r.cfg.Ring, a, "databaseUrl")
		if err != nil {
			return err
		}
		if from == to {
			return fault.New(fault.Conflict, "client.same_database", "The client is there already.")
		}
		a.Move = &Move{ID: jobID, Phase: MoveAsked, AskedAt: r.cfg.Now().UTC()}
		return r.seal(a, map[string]secret.Text{moveTo: to})
	})
}

// moving edits the account of a move that is in one of some phases.
func (r *Registry) moving(ctx context.Context, code, jobID string, phases []string, edit func(*Account, *Move) error) (*Account, error) {
	return r.Change(ctx, code, func(a *Account) error {
		m := a.Move
		if m == nil || m.ID != jobID {
			return ErrMoveOver
		}
		for _, p := range phases {
			if m.Phase == p && (p == MoveAsked) == (a.Status != Moving) {
				return edit(a, m)
			}
		}
		return ErrMoveOver
	})
}

// BeginMove takes a client out of service.
func (r *Registry) BeginMove(ctx context.Context, code, jobID string) (*Account, error) {
	return r.moving(ctx, code, jobID, []string{MoveAsked}, func(a *Account, m *Move) error {
		if a.Status == Erasing {
			return ErrMoveOver
		}
		m.Was, m.Phase, m.BeganAt = a.Status, MovePreparing, r.cfg.Now().UTC()
		a.Status = Moving
		return nil
	})
}

// CopyMove says that from now on what stands in the new database is this move's.
func (r *Registry) CopyMove(ctx context.Context, code, jobID string) (*Account, error) {
	return r.moving(ctx, code, jobID, []string{MovePreparing, MoveCopying}, func(_ *Account, m *Move) error {
		m.Phase = MoveCopying
		return nil
	})
}

// FinishMove switches a client to its new database and serves it again, in one write.
func (r *Registry) FinishMove(ctx context.Context, code, jobID string, records int64) (*Account, error) {
	return r.moving(ctx, code, jobID, []string{MoveCopying}, func(a *Account, m *Move) error {
		from, err := open(r.cfg.Ring, a, "databaseUrl")
		if err != nil {
			return err
		}
		to, err := open(r.cfg.Ring, a, moveTo)
		if err != nil {
			return err
		}
		m.Phase, m.Kept, m.Records, m.EndedAt = MoveDone, true, records, r.cfg.Now().UTC()
		a.Status, m.Was = m.Was, ""
		a.Moves++
		return r.seal(a, map[string]secret.Text{"databaseUrl": to, moveFrom: from, moveTo: ""})
	})
}

// StopMove gives a move up: it can switch no more, so that what it copied may go. No error where it is over already.
func (r *Registry) StopMove(ctx context.Context, code, jobID, reason string) (*Account, error) {
	return r.unlessOver(ctx, code)(r.moving(ctx, code, jobID, []string{MovePreparing, MoveCopying, MoveFailing}, func(_ *Account, m *Move) error {
		if m.Phase != MoveFailing {
			m.Phase, m.Reason = MoveFailing, reason
		}
		return nil
	}))
}

// unlessOver gives the account as it is where a move is over.
func (r *Registry) unlessOver(ctx context.Context, code string) func(*Account, error) (*Account, error) {
	return func(a *Account, err error) (*Account, error) {
		if errors.Is(err, ErrMoveOver) {
			return r.Account(ctx, code)
		}
		return a, err
	}
}

// FailMove ends a move that came to nothing: the client is served where it was. No error where it is over already.
func (r *Registry) FailMove(ctx context.Context, code, jobID, reason string) (*Account, error) {
	return r.unlessOver(ctx, code)(r.moving(ctx, code, jobID, []string{MoveAsked, MoveFailing}, func(a *Account, m *Move) error {
		if a.Status == Moving {
			a.Status = m.Was
		}
		if m.Reason == "" {
			m.Reason = reason
		}
		m.Phase, m.To, m.Was, m.EndedAt = MoveFailed, "", "", r.cfg.Now().UTC()
		return nil
	}))
}

// ForgetOld notes that the old copy of a client's last move is gone.
func (r *Registry) ForgetOld(ctx context.Context, code string) error {
	_, err := r.Change(ctx, code, func(a *Account) error {
		if a.Move != nil {
			a.Move.Kept, a.Move.From = false, ""
		}
		return nil
	})
	return err
}

// Target is the account as it will be once it is moved, for who opens its new database; Old as it was before a move that is
// done, for who drops the old one.
func (r *Registry) Target(a *Account) (*Account, error) { return r.elsewhere(a, moveTo) }

// Old is the account as it was before its last move.
func (r *Registry) Old(a *Account) (*Account, error) { return r.elsewhere(a, moveFrom) }

func (r *Registry) elsewhere(a *Account, field string) (*Account, error) {
	url, err := open(r.cfg.Ring, a, field)
	if err != nil {
		return nil, err
	}
	b := *a
	return &b, r.seal(&b, map[string]secret.Text{"databaseUrl": url})
}

// DatabaseURL opens the address of a client's own database; "": it is in the engine's storage.
func (r *Registry) DatabaseURL(a *Account) (secret.Text, error) {
	return open(r.cfg.Ring, a, "databaseUrl")
}

// Vacate waits until nobody in this process uses a client's database, and closes it.
func (r *Registry) Vacate(ctx context.Context, code string) error { return r.vacate(ctx, code) }

// parted tells whether an account's database is another than it was: it was moved, or a hand set another address.
func (r *Registry) parted(was, is *Account) bool {
	if was.Moves != is.Moves || was.DatabaseURL == is.DatabaseURL {
		return was.Moves != is.Moves
	}
	before, err := open(r.cfg.Ring, was, "databaseUrl")
	if err != nil {
		return false
	}
	now, err := open(r.cfg.Ring, is, "databaseUrl")
	return err == nil && now != before // else it was but sealed anew
}

// leave closes the database of a client that is not where it was, as soon as nobody uses it: r.mu is held. What is opened
// from now on is another handle.
func (r *Registry) leave(e *entry) *entry {
	fresh := &entry{code: e.code, name: e.name, status: e.status, version: e.version, keys: e.keys, phones: e.phones, waba: e.waba,
		origins: e.origins, rate: e.rate}
	r.clients[e.code] = fresh
	if e.refs == 0 {
		db := r.detach(e)
		go r.close(e, db)
	}
	return fresh
}
