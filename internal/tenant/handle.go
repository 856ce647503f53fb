package tenant

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

// Use gives a client at work, opening its database if need be. Call release once, when done; the database stays open
// for the next caller until it is idle or the budget is needed. A client that is not registered is fault.NotFound; a
// database that cannot be had, fault.Unavailable, soon: nobody waits for a cluster that is away. Suspended clients can be used: who may act is asked elsewhere.
func (r *Registry) Use(ctx context.Context, code string) (tn *Tenant, release func(), err error) {
	r.mu.Lock()
	e := r.clients[code]
	if e == nil || e.status == Erasing {
		r.mu.Unlock()
		return nil, nil, ErrUnknown()
	}
	if e.status == Moving {
		r.mu.Unlock()
		return nil, nil, ErrMoving()
	}
	if r.closed {
		r.mu.Unlock()
		return nil, nil, fault.New(fault.Unavailable, "stopping", "The engine is stopping.")
	}
	if err := r.held(e); err != nil {
		r.mu.Unlock()
		return nil, nil, err
	}
	e.refs++
	r.busy++
	tn = e.handle
	var o *opening
	if tn == nil {
		o = r.begin(e)
	}
	r.mu.Unlock()
	release = sync.OnceFunc(func() { r.release(e, true) })
	if tn == nil {
		if tn, err = r.await(ctx, e, o); err != nil {
			release()
			return nil, nil, err
		}
	}
	return tn, release, nil
}

// Borrow gives a client whose database is open anyway, for upkeep: it does not count as use, so that an idle database
// still closes. False where it is closed.
func (r *Registry) Borrow(code string) (tn *Tenant, release func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.clients[code]
	if e == nil || e.status == Erasing || e.status == Moving || r.closed || e.handle == nil {
		return nil, nil, false
	}
	e.refs++
	r.busy++
	return e.handle, sync.OnceFunc(func() { r.release(e, false) }), true
}

func (r *Registry) release(e *entry, used bool) {
	r.mu.Lock()
	e.refs--
	r.busy--
	if used {
		e.usedAt = r.cfg.Now()
	}
	var db store.DB
	if e.refs == 0 && e.handle != nil && (r.closed || r.clients[e.code] != e || e.status == Moving) {
		db = r.detach(e)
	}
	over := len(r.open) > r.cfg.MaxOpen
	r.mu.Unlock()
	r.close(e, db)
	if over {
		r.closeOldest()
	}
}

// detach takes an unused handle out of its entry; r.mu is held. The caller closes the database without the lock:
// that writes a checkpoint, which nobody else should wait for.
func (r *Registry) detach(e *entry) store.DB {
	db := e.handle.DB
	e.handle = nil
	e.closing++
	r.busy++
	delete(r.open, e)
	return db
}

// close closes what detach gave, if anything.
func (r *Registry) close(e *entry, db store.DB) {
	if db == nil {
		return
	}
	if err := db.Close(); err != nil {
		r.cfg.Log.Error("a client's database did not close cleanly", "client", e.code, "error", err)
	}
	r.mu.Lock()
	e.closing--
	r.busy--
	r.mu.Unlock()
}

// closeAtOnce is how many databases are closed side by side: each waits for the disk.
const closeAtOnce = 8

// closeWhere closes the unused databases that pick chooses.
func (r *Registry) closeWhere(pick func(*entry) bool) {
	dbs := map[*entry]store.DB{}
	r.mu.Lock()
	for e := range r.open {
		if e.refs == 0 && pick(e) {
			dbs[e] = r.detach(e)
		}
	}
	r.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(closeAtOnce)
	for e, db := range dbs {
		g.Go(func() error {
			r.close(e, db)
			return nil
		})
	}
	_ = g.Wait()
}

func (r *Registry) closeIdle() {
	now := r.cfg.Now()
	r.closeWhere(func(e *entry) bool { return now.Sub(e.usedAt) > r.cfg.IdleFor })
}

// closeOldest closes what is over the budget, of the databases that nobody uses those used last longest ago.
func (r *Registry) closeOldest() {
	for {
		r.mu.Lock()
		var oldest *entry
		if len(r.open) > r.cfg.MaxOpen {
			for e := range r.open {
				if e.refs == 0 && (oldest == nil || e.usedAt.Before(oldest.usedAt)) {
					oldest = e
				}
			}
		}
		var db store.DB
		if oldest != nil {
			db = r.detach(oldest)
		}
		r.mu.Unlock()
		if db == nil {
			return
		}
		r.close(oldest, db)
	}
}

// Abandon ends the opening of databases that is under way: nobody waits for them any more. Close follows.
func (r *Registry) Abandon() { r.endLife() }

// Close closes every database, those in use when they are released. Wait for users first: it waits up to the
// context's end for them.
func (r *Registry) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.closeWhere(func(*entry) bool { return true })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.RLock()
		busy := r.busy
		r.mu.RUnlock()
		if busy == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("tenant: %d uses of databases have not ended: %w", busy, ctx.Err())
		case <-tick.C:
		}
	}
}
