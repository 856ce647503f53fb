package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// cacheKB bounds the page cache of each connection of a database. The system's own cache stands behind it.
const cacheKB = 512

// DB is one database in one file. It is a store.DB.
type DB struct {
	f       *file
	tables  map[string]*table
	schemas map[string]store.Schema
	seqText string // reads the last number given
}

var _ store.DB = (*DB)(nil)

// Open opens the database in a file, and makes the file and its folder if they are not there. Kinds that the file
// does not know yet, and new fields and orders of those it does, are added; a field that changes its type, or a
// unique field whose values are not, is an error. A second DB on the same file, in this process or
// another, works but shares no commits.
func Open(ctx context.Context, path string, schemas []store.Schema) (*DB, error) {
	db := &DB{tables: map[string]*table{}, schemas: map[string]store.Schema{}}
	db.seqText = "SELECT max((SELECT n FROM _seq)"
	seen := map[string]bool{} // SQLite knows no case in names
	for _, s := range schemas {
		t, err := newTable(s)
		if err != nil {
			return nil, err
		}
		if low := strings.ToLower(s.Kind); seen[low] {
			return nil, fmt.Errorf("store/sqlite: kind %s is declared twice", s.Kind)
		} else {
			seen[low] = true
		}
		db.tables[s.Kind], db.schemas[s.Kind] = t, s
		if s.Sequenced {
			db.seqText += ", ifnull((SELECT max(seq) FROM " + quote(s.Kind) + "), 0)"
		}
	}
	db.seqText += ", 0)"
	f, err := openFile(ctx, path, cacheKB)
	if err != nil {
		return nil, err
	}
	db.f = f
	if err := db.upgrade(ctx); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return db, nil
}

// upgrade makes the file hold what the kinds need; one that already does costs one read.
func (db *DB) upgrade(ctx context.Context) error {
	done := false
	err := db.f.read(ctx, func(c *conn) (err error) {
		done, err = current(ctx, c, db.tables)
		return err
	})
	if err != nil || done {
		return err
	}
	return db.f.write(ctx, func(tx *wtx) error {
		if err := tx.script(meta); err != nil {
			return err
		}
		for _, t := range db.tables {
			if err := t.apply(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (db *DB) table(kind string) (*table, error) {
	t := db.tables[kind]
	if t == nil {
		return nil, fmt.Errorf("store: unknown kind %q", kind)
	}
	return t, nil
}

// Get is store.DB's. Several records are of one moment.
func (db *DB) Get(ctx context.Context, kind string, ids ...string) ([]store.Record, error) {
	t, err := db.table(kind)
	if err != nil {
		return nil, err
	}
	sql := "SELECT " + t.columns + " FROM " + quote(kind) + " t WHERE _id = ?"
	var out []store.Record
	fn := func(c *conn) error {
		for _, id := range ids {
			// No context for the driver: it would cost more than the look-up.
			for r, err := range c.rows(context.Background(), sql, id) {
				if err != nil {
					return err
				}
				out = append(out, record(r))
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	}
	if len(ids) > 1 {
		err = db.f.snapshot(ctx, fn)
	} else {
		err = db.f.read(ctx, fn)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// record reads table.columns.
func record(r row) store.Record {
	return store.Record{ID: r.text(0), Version: r.int(1), Seq: r.int(2), Doc: r.bytes(3)}
}

// maxChanges is how many ids Changes gives at a time.
const maxChanges = 1000

// Changes is store.DB's. It keeps the newest change of each id only.
func (db *DB) Changes(ctx context.Context, kind string, since int64) (ids []string, next int64, err error) {
	t, err := db.table(kind)
	if err != nil {
		return nil, since, err
	}
	if !t.Watched {
		return nil, since, fmt.Errorf("store: kind %s is not watched", kind)
	}
	next = since
	err = db.f.read(ctx, func(c *conn) error {
		sql := "SELECT n, _id FROM " + t.log() + " WHERE n > ? ORDER BY n LIMIT ?"
		for r, err := range c.rows(context.Background(), sql, since, maxChanges) {
			if err != nil {
				return err
			}
			next = r.int(0)
			ids = append(ids, r.text(1))
		}
		return nil
	})
	if err != nil {
		return nil, since, err
	}
	return ids, next, nil
}

// Close is store.DB's.
func (db *DB) Close() error { return db.f.close() }

// OnCommit sets what hears of every commit: how many callers shared it, and how long it took. It must not block.
func (db *DB) OnCommit(f func(group int, took time.Duration)) { db.f.observe.Store(&f) }
