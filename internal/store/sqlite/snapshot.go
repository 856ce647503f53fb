package sqlite

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	sqlite3 "modernc.org/sqlite"
)

// Snapshot is a file as it stood at one moment, whatever is written to it since, also by other processes. It holds up to
// three descriptors and keeps the file's log from being folded in entirely, so close it soon.
type Snapshot struct{ c *conn }

// TakeSnapshot takes a snapshot of a database file, of any kind that this package makes.
func TakeSnapshot(ctx context.Context, path string) (*Snapshot, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	c, err := openConn(ctx, path, fmt.Sprintf("PRAGMA busy_timeout = %d; PRAGMA query_only = ON", busyTimeout.Milliseconds()))
	if err != nil {
		return nil, unavailable(err)
	}
	if err = c.script("BEGIN"); err == nil {
		_, err = c.first(ctx, "SELECT 1 FROM sqlite_schema LIMIT 1") // from here on it stands
	}
	if err != nil {
		return nil, errors.Join(unavailable(err), c.close())
	}
	return &Snapshot{c}, nil
}

// copyPages is how much is copied between two looks at the context.
const copyPages = 4096

// CopyTo writes the snapshot into a new file, which is durable when CopyTo returns.
func (s *Snapshot) CopyTo(ctx context.Context, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(abs, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	src, ok := s.c.dc.(interface {
		NewBackup(string) (*sqlite3.Backup, error)
	})
	if !ok {
		return errors.New("store/sqlite: the driver makes no backups")
	}
	b, err := src.NewBackup((&url.URL{Scheme: "file", Path: abs}).String())
	if err != nil {
		return unavailable(err)
	}
	for more := true; more && err == nil; {
		if err = ctx.Err(); err == nil {
			more, err = b.Step(copyPages)
		}
	}
	if end := b.Finish(); err == nil {
		err = end
	}
	if err != nil {
		return unavailable(err)
	}
	return f.Sync()
}

// Close lets the snapshot go.
func (s *Snapshot) Close() error { return s.c.close() }

// Hold keeps everybody, also other processes, from committing to a file until release is called: they wait, for the
// 5 seconds that they wait for anything. Hold it for much less.
func Hold(ctx context.Context, path string) (release func(), err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	c, err := openConn(ctx, path, fmt.Sprintf("PRAGMA busy_timeout = %d", busyTimeout.Milliseconds()))
	if err != nil {
		return nil, unavailable(err)
	}
	// A writer under load leaves only moments between its commits, and whoever waits sleeps for longer and longer between
	// two tries; so the tries are our own, and close together.
	_ = c.script("PRAGMA busy_timeout = 0")
	for deadline := time.Now().Add(2 * busyTimeout); ; {
		if err = c.script("BEGIN IMMEDIATE"); err == nil {
			return func() { _ = c.script("ROLLBACK"); _ = c.close() }, nil
		}
		if code(err)&0xff != codeBusy || time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errors.Join(unavailable(err), c.close())
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// Sound looks through a database for damage: every page, every index's order. It reads the whole file.
func (db *DB) Sound(ctx context.Context) error {
	return db.f.read(ctx, func(c *conn) error {
		r, err := c.first(ctx, "PRAGMA quick_check(1)")
		if err != nil {
			return err
		}
		if r == nil || r.text(0) != "ok" {
			return errors.New("store/sqlite: quick_check found damage")
		}
		return nil
	})
}
