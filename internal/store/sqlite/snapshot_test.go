package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// A snapshot is what stood when it was taken, though others wrote since, checkpoints included.
func TestSnapshot(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, "a.db")
	schema := store.Schema{Kind: "things", Fields: []store.Field{{Name: "x", Type: store.Int}}}
	db, err := Open(ctx, path, []store.Schema{schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	put := func(from, to int) {
		for i := from; i < to; i++ {
			w := store.Write{Action: store.Put, Kind: "things", ID: fmt.Sprint(i), Fields: store.Fields{"x": int64(i)}, Doc: []byte(fmt.Sprintf(`{"i":%d,"pad":%q}`, i, make([]byte, 300)))}
			if err := db.Commit(ctx, w); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(0, 50)
	s, err := TakeSnapshot(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	put(50, 400)
	copied := filepath.Join(dir, "b.db")
	if err := s.CopyTo(ctx, copied); err != nil {
		t.Fatal(err)
	}
	if err := s.CopyTo(ctx, copied); !errors.Is(err, os.ErrExist) {
		t.Errorf("a copy over a file: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(copied); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	again, err := Open(ctx, copied, []store.Schema{schema})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Sound(ctx); err != nil {
		t.Error(err)
	}
	if n, err := again.Count(ctx, store.Query{Kind: "things"}); err != nil || n != 50 {
		t.Errorf("the copy holds %d things, %v", n, err)
	}
	if n, err := db.Count(ctx, store.Query{Kind: "things"}); err != nil || n != 400 {
		t.Errorf("the database holds %d things, %v", n, err)
	}
}

// While a file is held, nothing is committed to it; then what waited is.
func TestHold(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := Open(ctx, path, []store.Schema{{Kind: "things"}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	stop, stopped := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range 4 { // a file under load can be held, too
		wg.Go(func() {
			for n := 0; stop.Err() == nil; n++ {
				if err := db.Commit(ctx, store.Write{Action: store.Put, Kind: "things", ID: fmt.Sprint(i, "-", n), Doc: []byte(`{}`)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 5 {
		release, err := Hold(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		before, _ := db.Count(ctx, store.Query{Kind: "things"})
		time.Sleep(20 * time.Millisecond) // there is nothing to wait for: that nothing comes is the point
		if after, err := db.Count(ctx, store.Query{Kind: "things"}); err != nil || after != before {
			t.Errorf("%d then %d, %v", before, after, err)
		}
		release()
	}
	stopped()
	wg.Wait()
}
