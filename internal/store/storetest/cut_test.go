package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

// TestCut takes a handler through all of its cuts, as handlers' tests do: facts with derived ids first, the deciding
// record last, and run again it ends the same.
func TestCut(t *testing.T) {
	ctx := context.Background()
	put := func(id string) store.Write {
		return store.Write{Action: store.Ensure, Kind: "k", ID: id, Doc: []byte(`{}`)}
	}
	handle := func(db store.DB) error {
		if err := db.Commit(ctx, put("fact 1"), put("fact 2")); err != nil {
			return err
		}
		return db.Commit(ctx, put("fact 3"), put("fact 4"), put("decided"))
	}
	there := func(db store.DB) int64 {
		n, err := db.Count(ctx, store.Query{Kind: "k"})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, lose := range []bool{false, true} {
		cuts := 0
		for n := 0; ; n++ {
			db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), fmt.Sprint(n)), []store.Schema{{Kind: "k"}})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			c := storetest.Cut(db, n)
			if lose {
				c.LosingAnswer()
			}
			err = handle(c)
			if got := there(c); got != int64(min(n, 5)) || c.Writes() != int(got) {
				t.Errorf("cut after %d: %d records, %d writes", n, got, c.Writes())
			}
			if c.Writes() < n {
				if err != nil {
					t.Errorf("not cut, and %v", err)
				}
				break
			}
			if wants := n < 5 || lose; (err != nil) != wants || wants && (!errors.Is(err, storetest.ErrCut) || !errors.Is(err, store.ErrUnavailable)) {
				t.Errorf("cut after %d: %v", n, err)
			}
			if err != nil {
				cuts++
				if err := c.Commit(ctx, put("later")); !errors.Is(err, storetest.ErrCut) {
					t.Errorf("a commit after the cut: %v", err)
				}
			}
			c.Heal()
			if err := handle(c); err != nil || there(c) != 5 {
				t.Errorf("again after a cut at %d: %v, %d records", n, err, there(c))
			}
		}
		if want := map[bool]int{false: 5, true: 6}[lose]; cuts != want {
			t.Errorf("%d cuts, want %d", cuts, want)
		}
	}
}

// TestCutSplits: a refused commit leaves what was before the refused write, as on an engine without transactions.
func TestCutSplits(t *testing.T) {
	ctx := context.Background()
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "a.db"), []store.Schema{{Kind: "k"}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := storetest.Cut(db, 100)
	writes := []store.Write{
		{Action: store.Put, Kind: "k", ID: "a", Doc: []byte(`{}`)},
		{Action: store.Check, Kind: "k", ID: "b", IfVersion: 1},
		{Action: store.Put, Kind: "k", ID: "c", Doc: []byte(`{}`)},
	}
	for _, want := range []string{"a", "a"} {
		if err := c.Commit(ctx, writes...); !errors.Is(err, store.ErrConflict) {
			t.Error(err)
		}
		if rs, err := c.Get(ctx, "k", "a", "b", "c"); err != nil || len(rs) != 1 || rs[0].ID != want {
			t.Errorf("%v, %v", rs, err)
		}
		c.Heal()
	}
}
