package auth

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

// The lockout: after so many failed logins in a row an account is locked, for twice as long with each further one.
const (
	lockAfter   = 5
	firstLock   = 30 * time.Second
	longestLock = 15 * time.Minute
	forgetAfter = 24 * time.Hour // without a failed login
)

// FailedLogins counts failed logins in a row of one account, in the services database. It does not say whether there is
// such an account: what does not exist is counted and locked alike. The address itself is not kept, only what is derived
// from it.
type FailedLogins struct {
	store.Meta
	ID          string    `json:"_id"`
	Count       int       `json:"count"`
	At          time.Time `json:"at"`
	LockedUntil time.Time `json:"lockedUntil,omitzero"`
}

// Failures is the kind; the services database must know its Schema.
var Failures = store.Kind[FailedLogins]{
	Schema: store.Schema{Kind: "failedLogins", Fields: []store.Field{{Name: "at", Type: store.Int}}, Orders: [][]string{{"at"}}},
	Key:    func(f *FailedLogins) string { return f.ID },
	Index:  func(f *FailedLogins) store.Fields { return store.Fields{"at": f.At.UnixMilli()} },
	Meta:   func(f *FailedLogins) *store.Meta { return &f.Meta },
}

// lockFor is how long an account is locked after so many failed logins.
func lockFor(count int) time.Duration {
	if count < lockAfter {
		return 0
	}
	d := firstLock
	for ; count > lockAfter && d < longestLock; count-- {
		d *= 2
	}
	return min(d, longestLock)
}

// attempt counts a login before its password is looked at, so that no number of them at once gets more tries; fault.Limited
// if the account is locked. A login that succeeds takes the count back.
func (p *Porter) attempt(ctx context.Context, code, email string) (*FailedLogins, error) {
	for range 5 {
		now := p.cfg.Now().UTC()
		f := &FailedLogins{ID: id.Derived("lgf", code, email)}
		old, err := Failures.Get(ctx, p.cfg.Services, f.ID)
		switch {
		case err == nil:
			f = old
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
		if wait := f.LockedUntil.Sub(now); wait > 0 {
			limited := fault.New(fault.Limited, "session.locked", "Too many failed logins. Wait before the next.")
			limited.RetryAfter = wait
			return nil, limited
		}
		if now.Sub(f.At) > forgetAfter {
			f.Count = 0
		}
		f.Count++
		f.At, f.LockedUntil = now, now.Add(lockFor(f.Count))
		err = p.cfg.Services.Commit(ctx, Failures.Update(f))
		if err == nil {
			f.Version++
			return f, nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return nil, err
		}
	}
	f := fault.New(fault.Limited, "session.busy", "Too many logins at once. Try again.")
	f.RetryAfter = time.Second
	return nil, f
}

// takeBack makes a login that came to nothing for reasons of ours not count.
func (p *Porter) takeBack(ctx context.Context, f *FailedLogins) {
	f.Count--
	f.LockedUntil = time.Time{}
	if err := p.cfg.Services.Commit(ctx, Failures.Update(f)); err != nil && !errors.Is(err, store.ErrConflict) {
		p.cfg.Log.Warn("a login that was not looked at stays counted as failed", "error", err)
	}
}

// unlock forgets an account's failed logins.
func (p *Porter) unlock(ctx context.Context, code, email string) {
	err := p.cfg.Services.Commit(ctx, store.Write{Action: store.Delete, Kind: Failures.Schema.Kind, ID: id.Derived("lgf", code, email)})
	if err != nil {
		p.cfg.Log.Warn("an account's failed logins stay counted", "client", code, "error", err)
	}
}

// PruneFailures forgets failed logins that are long ago, at most limit; how many.
func PruneFailures(ctx context.Context, db store.DB, now time.Time, limit int) (int, error) {
	old, err := Failures.Find(ctx, db, store.Query{
		Where: []store.Term{store.Where("at", store.Lt, now.Add(-forgetAfter).UnixMilli())}, Order: "at", Limit: limit,
	})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, f := range old {
		switch err := db.Commit(ctx, Failures.Remove(f)); {
		case err == nil:
			n++
		case !errors.Is(err, store.ErrConflict): // a conflict: it failed anew
			return n, err
		}
	}
	return n, nil
}

// ForgetFailures forgets the failed logins of a client's users: the client is going, and its database with it.
func ForgetFailures(ctx context.Context, services store.DB, code string, client store.DB) error {
	const page = 500
	q := store.Query{Limit: page}
	for {
		users, err := Users.Find(ctx, client, q)
		if err != nil {
			return err
		}
		for _, u := range users {
			q.After = &store.Cursor{ID: u.ID}
			err := services.Commit(ctx, store.Write{Action: store.Delete, Kind: Failures.Schema.Kind, ID: id.Derived("lgf", code, u.Email)})
			if err != nil {
				return err
			}
		}
		if len(users) < page {
			return nil
		}
	}
}

// queues lets the logins of one account come one by one: those at once would count as failed to each other.
type queues struct {
	mu   sync.Mutex
	open map[string]*queue
}

type queue struct {
	turn    chan struct{}
	waiting int
}

func (q *queues) enter(ctx context.Context, key string) (leave func(), err error) {
	q.mu.Lock()
	one := q.open[key]
	if one == nil {
		one = &queue{turn: make(chan struct{}, 1)}
		q.open[key] = one
	}
	one.waiting++
	q.mu.Unlock()
	gone := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if one.waiting--; one.waiting == 0 {
			delete(q.open, key)
		}
	}
	select {
	case one.turn <- struct{}{}:
		return func() { <-one.turn; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}
