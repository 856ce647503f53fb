package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func testFile(t testing.TB) *file {
	t.Helper()
	f, err := openFile(context.Background(), filepath.Join(t.TempDir(), "a.db"), 256)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	})
	err = f.write(context.Background(), func(tx *wtx) error { return tx.script("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT)") })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func numbers(t testing.TB, f *file) string {
	t.Helper()
	var out []string
	err := f.read(context.Background(), func(c *conn) error {
		for r, err := range c.rows(context.Background(), "SELECT n FROM t ORDER BY n") {
			if err != nil {
				return err
			}
			out = append(out, fmt.Sprint(r.int(0)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func insert(n int) func(tx *wtx) error {
	return func(tx *wtx) error {
		_, err := tx.exec("INSERT INTO t VALUES (?, 'x')", n)
		return err
	}
}

// waitFor waits until a condition on the file holds.
func waitFor(f *file, is func() bool) {
	for {
		f.mu.Lock()
		ok := is()
		f.mu.Unlock()
		if ok {
			return
		}
		runtime.Gosched()
	}
}

// together holds the writer until all fns are queued, so that they share one transaction.
func together(t testing.TB, f *file, fns ...func(tx *wtx) error) []error {
	t.Helper()
	hold, held := make(chan struct{}), make(chan struct{})
	go f.write(context.Background(), func(*wtx) error { close(held); <-hold; return nil })
	<-held
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v", p)
				}
			}()
			errs[i] = f.write(context.Background(), fn)
		})
		waitFor(f, func() bool { return len(f.queue) > i }) // before the next is made: the order is theirs
	}
	close(hold)
	wg.Wait()
	return errs
}

func TestWriteUndoesOnlyTheOneThatFails(t *testing.T) {
	f := testFile(t)
	no := errors.New("no")
	twice := func(a, b int, err error) func(tx *wtx) error {
		return func(tx *wtx) error {
			if err := insert(a)(tx); err != nil {
				return err
			}
			if err := insert(b)(tx); err != nil {
				return err
			}
			return err
		}
	}
	var hooks atomic.Int64
	errs := together(t, f,
		twice(1, 2, no), // the first that writes: a ROLLBACK
		twice(3, 4, nil),
		twice(5, 6, store.ErrConflict),
		func(tx *wtx) error { tx.onCommit(func() { hooks.Add(1) }); return insert(7)(tx) },
		func(tx *wtx) error { tx.onCommit(func() { hooks.Add(100) }); _ = insert(8)(tx); panic("at the disco") },
		twice(9, 3, nil), // the key is taken
		insert(10),
	)
	if got := numbers(t, f); got != "3 4 7 10" {
		t.Errorf("stored %s", got)
	}
	for i, want := range []error{store.ErrUnavailable, nil, store.ErrConflict, nil, nil, store.ErrUnavailable, nil} {
		if i == 4 {
			if errs[i] == nil || !strings.Contains(errs[i].Error(), "at the disco") {
				t.Errorf("the panic came back as %v", errs[i])
			}
		} else if !errors.Is(errs[i], want) {
			t.Errorf("%d: %v, want %v", i, errs[i], want)
		}
	}
	if hooks.Load() != 1 {
		t.Errorf("hooks: %d", hooks.Load())
	}
}

// TestWriteBreaks: what SQLite cannot do ends the whole transaction, and nothing of it is there.
func TestWriteBreaks(t *testing.T) {
	f := testFile(t)
	if err := f.write(context.Background(), insert(1)); err != nil {
		t.Fatal(err)
	}
	pages := func(n int) {
		if err := f.write(context.Background(), func(tx *wtx) error { return tx.script(fmt.Sprintf("PRAGMA max_page_count = %d", n)) }); err != nil {
			t.Fatal(err)
		}
	}
	pages(10)
	var hooks atomic.Int64
	fns := []func(tx *wtx) error{
		func(tx *wtx) error { tx.onCommit(func() { hooks.Add(1) }); return insert(2)(tx) },
		func(tx *wtx) error { return store.ErrConflict },
		func(tx *wtx) error { // too much, and it looks away
			_, _ = tx.exec("INSERT INTO t VALUES (3, ?)", strings.Repeat("x", 100_000))
			return nil
		},
		insert(4),
	}
	errs := together(t, f, fns...)
	for i, want := range []error{store.ErrUnavailable, store.ErrConflict, store.ErrUnavailable, store.ErrUnavailable} {
		if !errors.Is(errs[i], want) {
			t.Errorf("%d: %v, want %v", i, errs[i], want)
		}
	}
	if got := numbers(t, f); got != "1" || hooks.Load() != 0 {
		t.Errorf("stored %s, %d hooks", got, hooks.Load())
	}
	pages(1000)
	for i, err := range together(t, f, fns...) {
		if (err != nil) != (i == 1) {
			t.Errorf("with space again: %d: %v", i, err)
		}
	}
	if got := numbers(t, f); got != "1 2 3 4" || hooks.Load() != 1 {
		t.Errorf("stored %s, %d hooks", got, hooks.Load())
	}
}

func TestWriteOne(t *testing.T) {
	f := testFile(t)
	if err := f.writeOne(context.Background(), insert(1)); err != nil {
		t.Fatal(err)
	}
	if err := f.writeOne(context.Background(), insert(1)); err == nil {
		t.Fatal("a taken key was taken again")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("two writes in writeOne went through")
			}
		}()
		_ = f.writeOne(context.Background(), func(tx *wtx) error { _ = insert(2)(tx); return insert(3)(tx) })
	}()
	if got := numbers(t, f); got != "1" {
		t.Errorf("stored %s", got)
	}
}

func TestWriteWithdrawn(t *testing.T) {
	f := testFile(t)
	hold, held := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		first <- f.write(context.Background(), func(tx *wtx) error { close(held); <-hold; return insert(1)(tx) })
	}()
	<-held
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan error)
	go func() { second <- f.write(ctx, insert(2)) }()
	waitFor(f, func() bool { return len(f.queue) == 1 })
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("withdrawn: %v", err)
	}
	close(hold)
	if err := errors.Join(<-first, f.write(context.Background(), insert(3))); err != nil {
		t.Error(err)
	}
	if got := numbers(t, f); got != "1 3" {
		t.Errorf("stored %s", got)
	}
}

func TestCloseWaits(t *testing.T) {
	f := testFile(t)
	hold, held := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- f.write(context.Background(), func(tx *wtx) error { close(held); <-hold; return insert(1)(tx) })
	}()
	<-held
	closed := make(chan error, 1)
	go func() { closed <- f.close() }()
	waitFor(f, func() bool { return f.closed })
	if err := f.write(context.Background(), insert(2)); !errors.Is(err, store.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	close(hold)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	g, err := openFile(context.Background(), f.path, 256)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if got := numbers(t, g); got != "1" {
		t.Errorf("stored %s", got)
	}
}

// What many callers do at once shares a call; if one of them cannot have what it wants, the others get theirs.
func TestJointChanges(t *testing.T) {
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "services.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	q, err := OpenQueue(t.Context(), db, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Enqueue(t.Context(), store.NewJob{Tenant: "ACME", Type: "a", UniqueKey: "k"}); err != nil {
		t.Fatal(err)
	}
	most := 0
	joint := func(tx *wtx, steps []jointStep) error {
		most = max(most, len(steps))
		return q.together(tx, steps)
	}
	gate, entered := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // the writer is busy until all the others wait
		_ = db.f.write(t.Context(), func(*wtx) error { close(entered); <-gate; return nil })
	})
	<-entered
	errs := make([]error, 5)
	for i := range errs {
		wg.Go(func() {
			w, err := prepareAll([]store.NewJob{{Tenant: "ACME", Type: "b", UniqueKey: fmt.Sprint("k", i)}})
			if i == 2 {
				w, err = prepareAll([]store.NewJob{{Tenant: "ACME", Type: "b", UniqueKey: "k"}}) // another job's
			}
			if err != nil {
				t.Error(err)
			}
			errs[i] = db.f.writeJoint(t.Context(), joint, func(c *change) error {
				_, err := c.put(w[0])
				return err
			})
		})
	}
	for waiting := 0; waiting < len(errs); {
		db.f.mu.Lock()
		waiting = len(db.f.queue)
		db.f.mu.Unlock()
		runtime.Gosched()
	}
	close(gate)
	wg.Wait()
	if most != len(errs) {
		t.Errorf("at most %d steps in a call", most)
	}
	for i, err := range errs {
		if (i == 2) != errors.Is(err, store.ErrKeyReuse) || i != 2 && err != nil {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	counts, err := q.JobCounts(t.Context(), "ACME")
	if err != nil || counts[store.Ready] != 5 {
		t.Errorf("%v, %v", counts, err)
	}
}
