package tenant

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

const (
	openWait = 10 * time.Second // callers wait so long for a database that is being opened
	openMost = 10 * time.Minute // and it may take so long: a large file is brought up to date
	// A database that could not be had is left alone for twice as long as it took to find that out, so that its callers
	// are answered at once meanwhile. What fails at once costs nothing, and is tried every time.
	atOnce   = 250 * time.Millisecond
	holdMost = 30 * time.Second
	slow     = 2 * time.Second // an operation that fails after so long says that the database is out of reach
	comeBack = 5 * time.Second // what callers are told who cannot know better
)

// opening is a database that is being opened, for all who wait for it. None of them ends it by giving up.
type opening struct {
	began time.Time
	done  chan struct{}
	err   error
}

// ailment is why a client's database cannot be had. Until is when it is tried again, by whoever comes then.
type ailment struct {
	since, until time.Time
	detail       string
}

// Trouble is why a database cannot be had, in words for the operator, without a secret.
type Trouble struct {
	Detail string
	Err    error
}

func (t *Trouble) Error() string { return t.Err.Error() }

// Unwrap gives the cause.
func (t *Trouble) Unwrap() error { return t.Err }

// Ailing tells since when a client's database cannot be had, and why, in words without a secret; false: it can, as far
// as is known.
func (r *Registry) Ailing(code string) (since time.Time, detail string, yes bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.clients[code]
	if e == nil || e.ails == nil {
		return time.Time{}, "", false
	}
	return e.ails.since, e.ails.detail, true
}

// away is the answer to who wants a database that cannot be had.
func away(err error, wait time.Duration) error {
	f := fault.Wrap(err, fault.Unavailable, "client.unavailable", "The client's database cannot be reached now.")
	if f.RetryAfter = comeBack; wait > comeBack {
		f.RetryAfter = wait
	}
	return f
}

// held is the answer while a database is left alone; nil: it may be tried, and the caller does, alone for a while.
// r.mu is held.
func (r *Registry) held(e *entry) error {
	if e.ails == nil {
		return nil
	}
	now := r.cfg.Now()
	if wait := e.ails.until.Sub(now); wait > 0 {
		return away(errors.New(e.ails.detail), wait)
	}
	if e.opening != nil { // somebody tries already
		return away(errors.New(e.ails.detail), 0)
	}
	if e.handle != nil {
		e.ails.until = now.Add(openWait)
	}
	return nil
}

// begin gives the opening of a closed database, and begins it if nobody has. It uses the entry as callers do. r.mu is held.
func (r *Registry) begin(e *entry) *opening {
	if e.opening == nil {
		o := &opening{began: time.Now(), done: make(chan struct{})}
		e.opening = o
		e.refs++
		r.busy++
		go r.openHandle(e, o)
	}
	return e.opening
}

// await waits for an opening: each caller as long as it likes, and none for long.
func (r *Registry) await(ctx context.Context, e *entry, o *opening) (*Tenant, error) {
	patience := time.NewTimer(time.Until(o.began.Add(openWait)))
	defer patience.Stop()
	select {
	case <-o.done:
	case <-ctx.Done():
		return nil, away(ctx.Err(), 0)
	case <-patience.C:
		return nil, away(fmt.Errorf("the database of %s is still being opened", e.code), 0)
	}
	if o.err != nil {
		return nil, o.err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e.handle == nil { // closed again at once: the engine stops, or the client goes
		return nil, away(store.ErrClosed, 0)
	}
	return e.handle, nil
}

// openHandle opens a client's database for those who wait for it.
func (r *Registry) openHandle(e *entry, o *opening) {
	ctx, cancel := context.WithTimeout(r.life, openMost)
	defer cancel()
	defer close(o.done) // at last: who waits finds it in no use but their own
	defer r.release(e, true)
	late := time.AfterFunc(openWait, func() {
		r.ails(e, openWait, "the database is still being opened", errors.New("opening it takes long"))
	})
	err := r.openNow(ctx, e)
	late.Stop()
	took := time.Since(o.began)
	if f := (*fault.Error)(nil); err != nil && !errors.As(err, &f) {
		detail := "the database cannot be opened, or brought up to date"
		if t := (*Trouble)(nil); errors.As(err, &t) {
			detail = t.Detail
		}
		r.ails(e, took, detail, err)
		r.mu.RLock()
		wait := time.Duration(0)
		if e.ails != nil {
			wait = e.ails.until.Sub(r.cfg.Now())
		}
		r.mu.RUnlock()
		err = away(fmt.Errorf("open database of %s: %w", e.code, err), wait)
	} else if err == nil {
		r.recovers(e)
	}
	r.mu.Lock()
	o.err, e.opening = err, nil
	r.mu.Unlock()
}

func (r *Registry) openNow(ctx context.Context, e *entry) error {
	unread := func(err error) error {
		return fault.Wrap(err, fault.Unavailable, "client.unavailable", "The client's database cannot be reached now.")
	}
	a, err := r.read(ctx, e.code)
	if err != nil {
		return unread(err)
	}
	db, err := r.cfg.OpenDB(ctx, a)
	if err != nil {
		return err
	}
	tn := &Tenant{Code: e.code, DB: &guarded{DB: db, r: r, e: e, of: a}, ring: r.cfg.Ring}
	tn.account.Store(a)
	moves := a.Moves
	r.mu.Lock()
	for e.version > a.Version { // changed since it was read: who changed it must be served as it is now
		r.mu.Unlock()
		if a, err = r.read(ctx, e.code); err != nil {
			return unread(errors.Join(err, db.Close()))
		}
		tn.account.Store(a)
		r.mu.Lock()
	}
	if a.Status == Moving || a.Moves != moves {
		r.mu.Unlock()
		return errors.Join(ErrMoving(), db.Close())
	}
	e.handle = tn
	r.open[e] = true
	r.mu.Unlock()
	r.closeOldest()
	return nil
}

// ails notes that a client's database cannot be had, which took a while to find out.
func (r *Registry) ails(e *entry, took time.Duration, detail string, err error) {
	hold := time.Duration(0)
	if took > atOnce {
		hold = min(2*took, holdMost)
	}
	r.mu.Lock()
	now := r.cfg.Now()
	first := e.ails == nil
	if first {
		e.ails = &ailment{since: now}
	}
	e.ails.detail, e.ails.until = detail, now.Add(hold)
	e.sick.Store(true)
	stopping := r.closed
	r.mu.Unlock()
	if first && !stopping {
		r.cfg.Log.Error("a client's database cannot be had; its work waits, others' goes on", "client", e.code, "error", err)
	}
}

// recovers notes that a client's database can be had.
func (r *Registry) recovers(e *entry) {
	r.mu.Lock()
	was := e.ails
	if e.ails = nil; was != nil {
		e.wellAt = time.Now()
	}
	e.sick.Store(false)
	r.mu.Unlock()
	if was == nil {
		return
	}
	r.cfg.Log.Info("a client's database can be had again", "client", e.code, "away", r.cfg.Now().Sub(was.since).Round(time.Second).String())
	if r.cfg.OnBack != nil {
		r.cfg.OnBack(e.code)
	}
}

// tryAiling tries the databases that could not be had, each for itself: they come back also where nobody asks for them.
func (r *Registry) tryAiling(ctx context.Context) {
	r.mu.RLock()
	now := r.cfg.Now()
	var codes []string
	for code, e := range r.clients {
		if e.ails != nil && !e.ails.until.After(now) && e.opening == nil {
			codes = append(codes, code)
		}
	}
	r.mu.RUnlock()
	for _, code := range codes {
		go func() {
			tn, release, err := r.Use(ctx, code)
			if err != nil {
				return
			}
			defer release()
			if r.cfg.Probe != nil {
				_ = r.cfg.Probe(ctx, tn.DB) // what it finds is noted on its way (guarded)
			}
		}()
	}
}

// guarded is a client's database that notes when it is out of reach, and when it is not any more.
type guarded struct {
	store.DB
	r  *Registry
	e  *entry
	of *Account // as it was when it was opened
}

func (g *guarded) heard(began time.Time, err error) {
	switch {
	case err == nil:
		if g.e.sick.Load() {
			g.r.recovers(g.e)
		}
	case errors.Is(err, store.ErrUnavailable):
		if took := time.Since(began); took >= slow && !g.r.lastWell(g.e).After(began) {
			g.r.ails(g.e, took, "the database does not answer", err)
		}
	}
}

// lastWell is when a database was last found to be well again: what began before says nothing of it now.
func (r *Registry) lastWell(e *entry) time.Time {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return e.wellAt
}

// Get is store.DB's.
func (g *guarded) Get(ctx context.Context, kind string, ids ...string) ([]store.Record, error) {
	began := time.Now()
	recs, err := g.DB.Get(ctx, kind, ids...)
	g.heard(began, err)
	return recs, err
}

// Find is store.DB's.
func (g *guarded) Find(ctx context.Context, q store.Query) ([]store.Record, error) {
	began := time.Now()
	recs, err := g.DB.Find(ctx, q)
	g.heard(began, err)
	return recs, err
}

// Count is store.DB's.
func (g *guarded) Count(ctx context.Context, q store.Query) (int64, error) {
	began := time.Now()
	n, err := g.DB.Count(ctx, q)
	g.heard(began, err)
	return n, err
}

// Commit is store.DB's. A client may have gone elsewhere meanwhile, and this process have heard nothing of it: it was held
// up, or cut off. So what is written where the client is not any more is not said to be written.
func (g *guarded) Commit(ctx context.Context, writes ...store.Write) error {
	if err := g.here(ctx); err != nil {
		return err
	}
	began := time.Now()
	err := g.DB.Commit(ctx, writes...)
	g.heard(began, err)
	if err != nil {
		return err
	}
	return g.here(ctx)
}

// here tells whether this is still the client's database, as far as was heard a moment ago. Who moves it waits until others
// have heard that it is copied, and compares both databases after that.
func (g *guarded) here(ctx context.Context) error {
	if fresh, err := g.known(); err != nil || fresh {
		return err
	}
	began := time.Now()
	a, err := g.r.read(ctx, g.e.code)
	switch {
	case fault.Of(err) == fault.NotFound:
		return err
	case err != nil:
		return away(err, 0)
	case g.left(a):
		g.r.Look(g.e.code)
		return ErrMoving()
	}
	g.r.mu.Lock()
	g.e.heardAt = began
	g.r.mu.Unlock()
	return nil
}

// left tells whether a client's records are not, or soon will not be, in this database.
func (g *guarded) left(a *Account) bool {
	return g.r.parted(g.of, a) || a.Status == Moving && a.Move != nil && a.Move.Phase == MoveCopying
}

// known is here, by what is in memory; whether that is fresh.
func (g *guarded) known() (fresh bool, err error) {
	r := g.r
	r.mu.RLock()
	defer r.mu.RUnlock()
	switch now := r.clients[g.e.code]; {
	case now == nil:
		return false, ErrUnknown()
	case now != g.e, now.handle != nil && g.left(now.handle.Account()):
		return false, ErrMoving()
	}
	heard := r.heard.Load()
	return r.cfg.Trust == 0 || heard != nil && time.Since(*heard) < r.cfg.Trust || time.Since(g.e.heardAt) < r.cfg.Trust, nil
}
