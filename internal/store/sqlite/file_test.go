package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// pragma reads a setting of the connection that writes.
func pragma(t *testing.T, f *file, name string) (value string) {
	t.Helper()
	err := f.write(context.Background(), func(tx *wtx) error {
		r, err := tx.first("SELECT * FROM pragma_" + name)
		if err == nil {
			value = r.text(0)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func descriptors(t *testing.T, path string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, path) {
			n++
		}
	}
	return n
}

// TestIdle: a file that nobody uses holds nothing, and comes back as it was.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := testFile(t)
		if err := f.write(context.Background(), func(tx *wtx) error { return f.tune(tx, "PRAGMA cache_size = -777") }); err != nil {
			t.Fatal(err)
		}
		for round := 1; round <= 3; round++ {
			if err := f.write(context.Background(), insert(round)); err != nil {
				t.Fatal(err)
			}
			if got := strings.Fields(numbers(t, f)); len(got) != round {
				t.Fatalf("round %d: %q", round, got)
			}
			for name, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "0", "cache_size": "-777"} {
				if got := pragma(t, f, name); got != want {
					t.Errorf("round %d: %s is %s, want %s", round, name, got, want)
				}
			}
			if descriptors(t, f.path) == 0 {
				t.Error("the descriptors were not found at all")
			}
			time.Sleep(idleAfter - time.Second)
			f.mu.Lock()
			if f.w == nil || len(f.idle) != 1 {
				t.Errorf("round %d: closed too early", round)
			}
			f.mu.Unlock()
			time.Sleep(idleAfter)
			synctest.Wait()
			if n := descriptors(t, f.path); n > 0 || f.w != nil || len(f.idle) > 0 {
				t.Errorf("round %d: %d descriptors left", round, n)
			}
			if _, err := os.Stat(f.path + "-wal"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("round %d: the log is still there: %v", round, err)
			}
		}
	})
}

// TestReaders: many read at once over a few connections.
func TestReaders(t *testing.T) {
	f := testFile(t)
	if err := f.write(context.Background(), insert(1)); err != nil {
		t.Fatal(err)
	}
	inside, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for range maxReaders {
		wg.Go(func() {
			err := f.read(context.Background(), func(c *conn) error {
				inside <- struct{}{}
				<-leave
				_, err := c.first(context.Background(), "SELECT n FROM t")
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	for range maxReaders {
		<-inside
	}
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error)
	go func() { waiting <- f.read(ctx, func(*conn) error { return nil }) }()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("one reader too many: %v", err)
	}
	if err := f.write(context.Background(), insert(2)); err != nil { // readers hold up no writer
		t.Error(err)
	}
	close(leave)
	wg.Wait()
	if numbers(t, f) != "1 2" || len(f.idle) > maxReaders {
		t.Errorf("%d readers", len(f.idle))
	}
}

// TestReadOnly: a reader cannot write, and a query that is cancelled ends in its middle.
func TestReadOnly(t *testing.T) {
	f := testFile(t)
	err := f.read(context.Background(), func(c *conn) error {
		_, err := c.exec(context.Background(), "INSERT INTO t VALUES (1, '')")
		return err
	})
	if !errors.Is(err, store.ErrUnavailable) || numbers(t, f) != "" {
		t.Errorf("a reader wrote: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err = f.read(ctx, func(c *conn) error {
		_, err := c.first(ctx, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a query without end: %v", err)
	}
	if numbers(t, f) != "" {
		t.Error("reads after it")
	}
}

// TestPermissions: what holds customers' data is for its owner alone, whatever the umask.
func TestPermissions(t *testing.T) {
	f := testFile(t)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if st, err := os.Stat(f.path + suffix); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%q: %v, %v", suffix, st.Mode(), err)
		}
	}
}

func TestOpenFileFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database at all ", 300)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), path, nil); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a file that is no database: %v", err)
	}
	if _, err := Open(context.Background(), filepath.Join(path, "b.db"), nil); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a file for a folder: %v", err)
	}
}
