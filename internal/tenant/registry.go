package tenant

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
)

// Config is what a Registry is built from.
type Config struct {
	Services store.DB
	Ring     *secret.Ring
	// OpenDB opens a client's database, making it if it is new.
	OpenDB func(ctx context.Context, a *Account) (store.DB, error)
	// DropDB erases a client's database for good; no error if it is not there.
	DropDB func(ctx context.Context, a *Account) error
	// CheckDB tells what is wrong with the database that a new client would have, as far as its name tells, as a fault; nil:
	// nothing ever is.
	CheckDB func(code string, own secret.Text) error
	// OnChange is called after a known client's account changed: held work may go on, or live views must end. status is "" of
	// a client that is gone. It must not block.
	OnChange func(code, status string)
	// OnBack is called when the database of a client can be had again that could not. It must not block; nil: nobody hears.
	OnBack func(code string)
	// Probe makes a call to a database, to find out whether it answers; nil: that it opens is enough.
	Probe func(ctx context.Context, db store.DB) error
	Now   func() time.Time
	Log   *slog.Logger
	// Trust is for how long a write to a client's database relies on what was last heard of its account; then the account is
	// read anew before the write is said to stand. 0: no other process writes accounts.
	Trust   time.Duration
	MaxOpen int           // open databases at most, beyond those in use; 0: 200
	IdleFor time.Duration // a database unused for so long is closed; 0: 2 min
}

// Registry knows every client and holds the open databases. Safe for concurrent use.
type Registry struct {
	cfg Config

	mu      sync.RWMutex
	clients map[string]*entry // by code
	byPhone map[string]string // phone number id -> code
	byWABA  map[string][]string
	origins map[string]int  // how many clients allow each
	open    map[*entry]bool // those with an open handle, also of clients that are gone
	busy    int             // uses not yet released, and databases being closed
	closed  bool
	life    context.Context // of what is being opened
	endLife context.CancelFunc

	heard atomic.Pointer[time.Time]         // all that was written before is known
	look  chan struct{}                     // the next look is wanted now
	told  map[string]bool                   // clients that it is wanted for; under mu
	wrote atomic.Pointer[func(code string)] // OnWrite's

	// Of Load, which one goroutine calls at a time.
	cursor int64           // of Changes
	again  map[string]bool // clients whose edited document could not be written back; tried again
}

// entry is what is kept in memory of every registered client: enough to route and to check keys, little enough for 10,000s.
type entry struct {
	code    string
	name    string
	status  string
	version int64
	keys    []keyHash
	phones  []string
	waba    string
	origins []string
	rate    float64 // calls of its API a second; 0: the product's
	flawed  bool    // its document has a time zone that is none

	opening *opening    // of the database; nil: nobody opens it
	ails    *ailment    // why the database cannot be had; nil: it can, for all that is known
	sick    atomic.Bool // ails is not nil
	wellAt  time.Time   // when that was last over
	heardAt time.Time   // when its account was last read for a write
	handle  *Tenant     // nil: closed
	refs    int
	closing int // of its databases, how many are being closed
	usedAt  time.Time
}

type keyHash struct {
	sum   [sha256.Size]byte
	until time.Time // zero: no end
}

// NewRegistry makes an empty registry; call Load before use and Watch beside it.
func NewRegistry(cfg Config) *Registry {
	if cfg.MaxOpen == 0 {
		cfg.MaxOpen = 200
	}
	if cfg.IdleFor == 0 {
		cfg.IdleFor = 2 * time.Minute
	}
	r := &Registry{cfg: cfg, clients: map[string]*entry{}, byPhone: map[string]string{}, byWABA: map[string][]string{},
		origins: map[string]int{}, open: map[*entry]bool{}, again: map[string]bool{}, told: map[string]bool{}, look: make(chan struct{}, 1)}
	r.life, r.endLife = context.WithCancel(context.Background())
	return r
}

// Load reads what changed in ClientSecrets since the last call: everything, the first time.
func (r *Registry) Load(ctx context.Context) error {
	for {
		began := time.Now()
		ids, next, err := r.cfg.Services.Changes(ctx, Accounts.Schema.Kind, r.cursor)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			r.cursor = next
			r.heard.Store(&began)
			if len(r.again) == 0 {
				return nil
			}
			return r.reload(ctx, slices.Sorted(maps.Keys(r.again))...)
		}
		if err := r.reload(ctx, ids...); err != nil {
			return err
		}
		r.cursor = next
	}
}

// Watch keeps the registry in step with ClientSecrets and closes idle databases, until ctx ends.
func (r *Registry) Watch(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.look:
		}
		err := r.reloadTold(ctx)
		if err == nil {
			err = r.Load(ctx)
		}
		if err != nil && ctx.Err() == nil {
			if !failing {
				r.cfg.Log.Error("client registry cannot be refreshed; the last known state serves on", "error", err)
			}
			failing = true
		} else {
			failing = false
		}
		r.closeIdle()
		r.tryAiling(ctx)
	}
}

// Look has Watch look at once: another process may have written. It reads the clients that are named without asking
// whether they changed, which a store may be able to tell seconds later only.
func (r *Registry) Look(codes ...string) {
	r.mu.Lock()
	for _, code := range codes {
		r.told[code] = true
	}
	r.mu.Unlock()
	select {
	case r.look <- struct{}{}:
	default:
	}
}

func (r *Registry) reloadTold(ctx context.Context) error {
	r.mu.Lock()
	codes := slices.Sorted(maps.Keys(r.told))
	clear(r.told)
	r.mu.Unlock()
	if len(codes) == 0 {
		return nil
	}
	return r.reload(ctx, codes...)
}

// OnWrite sets what is called after this process wrote an account. It must not block.
func (r *Registry) OnWrite(f func(code string)) { r.wrote.Store(&f) }

func (r *Registry) written(code string) {
	if f := r.wrote.Load(); f != nil {
		(*f)(code)
	}
}

// reload takes the accounts with these record ids into memory, and writes back those that a hand edited, so that
// their searchable values are right again.
func (r *Registry) reload(ctx context.Context, ids ...string) error {
	known := r.versions(ids)
	recs, err := r.cfg.Services.Get(ctx, Accounts.Schema.Kind, ids...)
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, id := range ids {
		gone[id] = true
	}
	for _, rec := range recs {
		delete(gone, rec.ID)
		if rec.Version < known[rec.ID] {
			r.renew(rec.ID) // versions only grow: this record was deleted and made anew
		}
		a, err := decode(rec)
		if err != nil {
			// one unreadable document must not take the others down
			r.cfg.Log.Error("a client's document cannot be read; what is known of it serves on", "client", rec.ID, "error", err)
			delete(r.again, rec.ID)
			continue
		}
		r.take(ctx, rec, a)
	}
	for id := range gone {
		delete(r.again, id)
		r.forget(id)
	}
	return nil
}

// versions gives the versions at which clients are known.
func (r *Registry) versions(codes []string) map[string]int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make(map[string]int64, len(codes))
	for _, code := range codes {
		if e := r.clients[code]; e != nil {
			out[code] = e.version
		}
	}
	return out
}

// renew lets a client's record begin anew at version 1.
func (r *Registry) renew(code string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.clients[code]; e != nil {
		e.version = 0
	}
}

func (r *Registry) take(ctx context.Context, rec store.Record, a *Account) {
	if code, ok := Code(rec.ID); !ok || code != rec.ID {
		r.cfg.Log.Error("a client's _id must be its code in upper case; the client is not served", "client", rec.ID)
		return
	}
	if a.Rev == RevOf(a.Code, rec.Version) {
		delete(r.again, a.Code)
		r.remember(a)
		return
	}
	edited := *a
	edited.Rev = RevOf(a.Code, rec.Version+1)
	if a.Status == Suspended && r.Status(a.Code) != Suspended { // by hand
		edited.SuspendedAt = r.cfg.Now().UTC()
		a.SuspendedAt = edited.SuspendedAt
	}
	switch err := r.cfg.Services.Commit(ctx, Accounts.Update(&edited)); {
	case err == nil:
		r.written(a.Code)
		edited.Version++
		a = &edited
		delete(r.again, a.Code)
	case errors.Is(err, store.ErrConflict):
		return // written again meanwhile: the next look takes it
	default: // served all the same, and tried again: a number may become free, a disk
		if !r.again[a.Code] && ctx.Err() == nil {
			msg := "a client's edited document is served, but cannot be written back"
			if errors.Is(err, store.ErrDuplicate) {
				msg = "a client's phone number belongs to another client already; it is routed to the first until that gives it up"
			}
			r.cfg.Log.Error(msg, "client", a.Code, "error", err)
		}
		r.again[a.Code] = true
	}
	r.remember(a)
}

// remember puts an account's routing into memory.
func (r *Registry) remember(a *Account) {
	flaw := a.Validate()
	r.mu.Lock()
	e := r.clients[a.Code]
	if e == nil {
		e = &entry{code: a.Code}
		r.clients[a.Code] = e
	}
	if a.Version < e.version {
		r.mu.Unlock()
		return
	}
	changed := e.status != "" && e.version != a.Version
	tell := flaw != nil && !e.flawed // once, until it is mended
	e.flawed = flaw != nil
	if e.handle != nil && r.parted(e.handle.Account(), a) {
		e = r.leave(e)
	}
	r.unroute(e)
	e.name, e.status, e.version, e.origins, e.rate = a.Name, a.Status, a.Version, a.AllowedOrigins, 0
	if a.Settings != nil {
		e.rate = a.Settings.RatePerSecond
	}
	for _, o := range e.origins {
		r.origins[o]++
	}
	e.keys = e.keys[:0]
	for _, k := range a.APIKeys {
		b, err := hex.DecodeString(k.SHA256)
		if err != nil || len(b) != sha256.Size {
			continue
		}
		h := keyHash{sum: [sha256.Size]byte(b)}
		if k.ValidUntil != nil {
			h.until = *k.ValidUntil
		}
		e.keys = append(e.keys, h)
	}
	e.phones, e.waba = nil, ""
	if w := a.WhatsApp; w != nil {
		e.waba = w.WABAID
		for _, p := range w.PhoneNumberIDs {
			if owner, taken := r.byPhone[p]; taken && owner != a.Code {
				continue
			}
			r.byPhone[p] = a.Code
			e.phones = append(e.phones, p)
		}
		if e.waba != "" {
			r.byWABA[e.waba] = append(r.byWABA[e.waba], a.Code)
		}
	}
	if e.handle != nil {
		e.handle.account.Store(a)
	}
	r.mu.Unlock()
	if tell {
		r.cfg.Log.Error("a client's time zone is none, and UTC is used for it; mend it in its document or over the API", "client", a.Code, "error", flaw)
	}
	if a.Status == Moving {
		r.closeWhere(func(e *entry) bool { return e.code == a.Code })
	}
	if changed && r.cfg.OnChange != nil {
		r.cfg.OnChange(a.Code, a.Status)
	}
}

// unroute removes an entry's routes; r.mu is held.
func (r *Registry) unroute(e *entry) {
	for _, o := range e.origins {
		if r.origins[o]--; r.origins[o] <= 0 {
			delete(r.origins, o)
		}
	}
	for _, p := range e.phones {
		if r.byPhone[p] == e.code {
			delete(r.byPhone, p)
		}
	}
	if e.waba != "" {
		rest := slices.DeleteFunc(r.byWABA[e.waba], func(c string) bool { return c == e.code })
		if len(rest) == 0 {
			delete(r.byWABA, e.waba)
		} else {
			r.byWABA[e.waba] = rest
		}
	}
}

func (r *Registry) forget(code string) {
	r.mu.Lock()
	e := r.clients[code]
	if e == nil {
		r.mu.Unlock()
		return
	}
	r.unroute(e)
	delete(r.clients, code)
	var db store.DB
	if e.handle != nil && e.refs == 0 {
		db = r.detach(e)
	}
	r.mu.Unlock()
	r.close(e, db)
	if r.cfg.OnChange != nil {
		r.cfg.OnChange(code, "")
	}
}

// ErrUnknown is the fault for a client that is not registered.
func ErrUnknown() error { return fault.Missing("client") }

// Opened lists the clients whose databases are open.
func (r *Registry) Opened() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	codes := make([]string, 0, len(r.open))
	for e := range r.open {
		codes = append(codes, e.code)
	}
	return codes
}

// Len is the number of registered clients, and of open databases.
func (r *Registry) Len() (registered, open int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.clients), len(r.open)
}
