package sqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	maxReaders  = 4                // connections that read one file at once
	busyTimeout = 5 * time.Second  // waiting for another process (a shell) that writes
	idleAfter   = 30 * time.Second // when a connection that nobody used is closed
)

// file is one SQLite file: a connection that writes (see write) and some that read, all opened on demand and
// closed when idle: each holds 100 to 200 KB, and hundreds of files are open at once. A file that nobody uses
// holds no descriptor, and its log is folded into it.
type file struct {
	path    string
	cacheKB int // page cache of each connection, at most

	calls   sync.WaitGroup // calls under way, and the writer's goroutine
	reading chan struct{}  // a place for each reader
	w       *conn          // the writer goroutine's own
	tuning  string         // so is this: pragmas of w beyond the usual
	relaxed bool           // and this: w's COMMIT does not wait for the disk now

	observe atomic.Pointer[func(group int, took time.Duration)] // OnCommit's

	mu      sync.Mutex
	closed  bool
	queue   []*request
	writing bool       // a goroutine has f.w
	wrote   time.Time  // when it last gave it back
	idle    []idleConn // readers, most recently used last
	sweeper *time.Timer
}

type idleConn struct {
	*conn
	since time.Time
}

// openFile opens a file or makes it, durably.
func openFile(ctx context.Context, path string, cacheKB int) (*file, error) {
	f := &file{path: path, cacheKB: cacheKB, reading: make(chan struct{}, maxReaders)}
	if st, err := os.Stat(path); err == nil && st.Size() > 0 {
		return f, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, unavailable(err)
	}
	// SQLite gives the log and the index of a file the file's own permissions.
	empty, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = empty.Close()
	}
	if err != nil {
		return nil, unavailable(err)
	}
	c, err := f.connect(ctx, true)
	if err != nil {
		return nil, unavailable(err)
	}
	// SQLite syncs the file; its name in the folder is for us to sync.
	if err := syncDir(filepath.Dir(path)); err != nil {
		_ = c.close()
		return nil, unavailable(err)
	}
	f.w = c
	return f, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// connect opens a connection. Those that only read can still recover and check-point the file.
func (f *file) connect(ctx context.Context, writes bool) (*conn, error) {
	pragmas := fmt.Sprintf("PRAGMA busy_timeout = %d; PRAGMA cache_size = -%d; PRAGMA temp_store = MEMORY",
		busyTimeout.Milliseconds(), f.cacheKB)
	if writes {
		// WAL is the file's own setting, but a file that was restored from a backup may have lost it. FULL: COMMIT
		// returns after the log was synced. The limit shrinks a log that a burst left long.
		pragmas += "; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA journal_size_limit = 4194304"
		pragmas += "; " + f.tuning
	} else {
		pragmas += "; PRAGMA query_only = ON"
	}
	return openConn(ctx, f.path, pragmas)
}

// tune sets pragmas for the connection that writes, the one there is and those to come.
func (f *file) tune(tx *wtx, pragmas string) error {
	f.tuning = pragmas
	return tx.script(pragmas)
}

// read runs fn with a connection that sees everything committed before. fn's errors come back as the contract
// has them: what SQLite reports is store.ErrUnavailable, store.ErrQuery if it is of the statement itself, or ctx's error
// if ctx is done.
func (f *file) read(ctx context.Context, fn func(c *conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return store.ErrClosed
	}
	f.calls.Add(1)
	f.mu.Unlock()
	defer f.calls.Done()

	select {
	case f.reading <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.reading }()

	c, err := f.reader(ctx)
	if err != nil {
		return unavailable(err)
	}
	sound := false
	defer func() { // also when fn panics
		if !sound {
			_ = c.close()
			return
		}
		f.keep(c)
	}()
	err = fn(c)
	if err != nil && ctx.Err() != nil { // it may have been interrupted in the middle
		return ctx.Err()
	}
	sound = !ends(err)
	return unavailable(impossible(err))
}

// snapshot is read for an fn of several statements that must see the same state.
func (f *file) snapshot(ctx context.Context, fn func(c *conn) error) error {
	return f.read(ctx, func(c *conn) error {
		if _, err := c.exec(ctx, "BEGIN"); err != nil {
			return err
		}
		err := fn(c)
		if _, end := c.exec(context.Background(), "ROLLBACK"); err == nil {
			err = end
		}
		return err
	})
}

func (f *file) reader(ctx context.Context) (*conn, error) {
	f.mu.Lock()
	if n := len(f.idle); n > 0 {
		c := f.idle[n-1].conn
		f.idle = f.idle[:n-1]
		f.mu.Unlock()
		return c, nil
	}
	f.mu.Unlock()
	return f.connect(ctx, false)
}

func (f *file) keep(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, idleConn{c, time.Now()})
	f.sweepLater()
}

func (f *file) sweepLater() {
	if f.sweeper == nil && !f.closed {
		f.sweeper = time.AfterFunc(idleAfter, f.sweep)
	}
}

// sweep closes the connections that were not used for a while.
func (f *file) sweep() {
	f.mu.Lock()
	f.sweeper = nil
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.calls.Add(1)
	defer f.calls.Done()
	old := 0
	for old < len(f.idle) && time.Since(f.idle[old].since) >= idleAfter {
		old++
	}
	closing := slices.Clone(f.idle[:old])
	f.idle = slices.Delete(f.idle, 0, old)
	writer := !f.writing && f.w != nil && time.Since(f.wrote) >= idleAfter
	if writer {
		f.writing = true
		f.calls.Add(1)
	}
	if len(f.idle) > 0 || f.writing || f.w != nil {
		f.sweepLater()
	}
	f.mu.Unlock()

	// Without the lock, since the last connection of a file checkpoints its log.
	for _, c := range closing {
		_ = c.close()
	}
	if writer {
		_ = f.w.close()
		f.w = nil
		f.drain() // what has come meanwhile
	}
}

// close lets the calls under way finish and releases the file. The last connection checkpoints the log.
func (f *file) close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		f.calls.Wait()
		return nil
	}
	f.closed = true
	f.mu.Unlock()
	f.calls.Wait()

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sweeper != nil {
		f.sweeper.Stop()
	}
	var err error
	for _, c := range f.idle {
		err = c.close()
	}
	f.idle = nil
	if f.w != nil {
		err = f.w.close()
		f.w = nil
	}
	return unavailable(err)
}
