package mongo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/store"
)

// DB is one database on a cluster. It is a store.DB.
type DB struct {
	name    string
	cl      *cluster
	kinds   map[string]*kind
	schemas map[string]store.Schema
	clock   *serverClock
	numbers numbers
	watched map[string]*watch
	observe atomic.Pointer[func(group int, took time.Duration)]

	using  sync.RWMutex // read-locked by every call under way
	closed bool
}

var _ store.DB = (*DB)(nil)

// Open opens a database, and makes the collections and indexes that its kinds need and it does not have; one that is up to
// date costs one read. A field that changes its type, or a unique field whose values are not, is an error.
func (c *Clusters) Open(ctx context.Context, url, database string, schemas []store.Schema) (*DB, error) {
	return c.openBy(ctx, url, database, schemas, nil)
}

func (c *Clusters) openBy(ctx context.Context, url, database string, schemas []store.Schema, by *Owner) (*DB, error) {
	if err := CheckName(database); err != nil {
		return nil, err
	}
	db := &DB{name: database, kinds: map[string]*kind{}, schemas: map[string]store.Schema{}, watched: map[string]*watch{}}
	for _, s := range schemas {
		k, err := newKind(s)
		if err != nil {
			return nil, err
		}
		if db.kinds[s.Kind] != nil {
			return nil, fmt.Errorf("store/mongo: kind %s is declared twice", s.Kind)
		}
		db.kinds[s.Kind], db.schemas[s.Kind] = k, s
		if s.Watched {
			db.watched[s.Kind] = &watch{db: db, kind: k}
		}
	}
	cl, err := c.cluster(url)
	if err != nil {
		return nil, err
	}
	db.cl = cl
	for _, w := range db.watched {
		w.stream.kind, w.stream.cl = w.kind.Kind, cl
	}
	db.clock = &serverClock{db: db}
	for range 3 {
		if err = db.make(ctx, by); !errors.Is(err, errDropped) { // what was dropped meanwhile is made anew
			break
		}
	}
	if err != nil {
		cl.release()
		return nil, err
	}
	return db, nil
}

// make makes what the database needs and does not have; first the mark of whose it is.
func (db *DB) make(ctx context.Context, by *Owner) error {
	if by != nil {
		if err := db.call(ctx, func(ctx context.Context, d *driver.Database) error { return own(ctx, d, *by) }); err != nil {
			return err
		}
	}
	return db.upgrade(ctx)
}

// call runs fn as one call of the database: while it runs the handle is not closed, and its collections may be used;
// elsewhere the cluster may have been left. Writes are acknowledged by a majority, with the journal, and reads are the
// primary's. The driver's errors become the contract's. One call must not be made within another.
func (db *DB) call(ctx context.Context, fn func(ctx context.Context, d *driver.Database) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db.using.RLock()
	defer db.using.RUnlock()
	if db.closed {
		return store.ErrClosed
	}
	client, err := db.cl.begin(ctx)
	if err != nil {
		return err
	}
	defer db.cl.end()
	return fail(ctx, fn(ctx, client.Database(db.name)))
}

// Close is store.DB's.
func (db *DB) Close() error {
	db.using.Lock()
	defer db.using.Unlock()
	if db.closed {
		return nil
	}
	db.closed = true
	for _, w := range db.watched {
		w.stop()
	}
	db.cl.release()
	return nil
}

// OnCommit sets what hears of every commit: how many callers shared it, and how long it took. It must not block.
func (db *DB) OnCommit(f func(group int, took time.Duration)) { db.observe.Store(&f) }
