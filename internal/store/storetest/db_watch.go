package storetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func secret(a store.Action, id string, f fields) store.Write {
	return store.Write{Action: a, Kind: "ClientSecrets", ID: id, Doc: []byte(`{"name":"n"}`), Fields: f}
}

// changed reads all changes since a cursor.
func (w *dbTest) changed(since int64) ([]string, int64) {
	w.Helper()
	var all []string
	for {
		ids, next, err := w.Changes(w.ctx, "ClientSecrets", since)
		if err != nil {
			w.Fatal(err)
		}
		if len(ids) == 0 {
			if next != since {
				w.Fatalf("nothing changed, and the cursor went from %d to %d", since, next)
			}
			return all, next
		}
		if len(ids) > 1000 || next <= since {
			w.Fatalf("%d ids, cursor from %d to %d", len(ids), since, next)
		}
		all, since = append(all, ids...), next
	}
}

func (w *dbTest) changes() {
	expect := func(since int64, want string) int64 {
		w.Helper()
		ids, next := w.changed(since)
		if got := strings.Join(ids, " "); got != want {
			w.Fatalf("since %d: %q, want %q", since, got, want)
		}
		return next
	}
	if ids, next, err := w.Changes(w.ctx, "ClientSecrets", 0); err != nil || len(ids) != 0 || next != 0 {
		w.Fatal(ids, next, err)
	}
	w.commit(secret(store.Insert, "a", nil), secret(store.Insert, "b", nil))
	at := expect(0, "a b")
	expect(at, "")
	w.commit(secret(store.Put, "c", fields{"numbers": []string{"1"}}))
	w.commit(store.Write{Action: store.Put, Kind: "watchedToo", ID: "other", Doc: []byte(`{}`)}) // has its own
	at = expect(at, "c")
	w.commit(secret(store.Put, "a", fields{"numbers": []string{"2"}}))
	w.is("ClientSecrets", "a", 2, `{"name":"n"}`) // once, however it is noted
	at = expect(at, "a")
	w.commit(secret(store.Delete, "b", nil))
	w.isNot("ClientSecrets", "b")
	at = expect(at, "b")
	w.commit(secret(store.Delete, "a", nil), secret(store.Insert, "a", nil))
	if ids, next := w.changed(at); len(slices.Compact(ids)) != 1 || ids[0] != "a" {
		w.Fatalf("%q", ids)
	} else {
		at = next
	}
	w.refuse(store.ErrDuplicate, secret(store.Insert, "d", fields{"numbers": []string{"1"}}))
	w.isNot("ClientSecrets", "d")
	w.commit(secret(store.Insert, "d", nil))
	at = expect(at, "d")

	// From the beginning: every id that was ever written, its newest change in its place.
	ids, next := w.changed(0)
	if last := ids[len(ids)-4:]; strings.Join(last, " ") != "c b a d" || next != at {
		w.Errorf("%q, %d; want … c b a d, %d", ids, next, at)
	}
	if _, _, err := w.Changes(w.ctx, "plain", 0); err == nil {
		w.Error("changes of a kind that is not watched: no error")
	}
	if _, _, err := w.Changes(w.ctx, "unknown", 0); err == nil {
		w.Error("changes of an unknown kind: no error")
	}
}

func (w *dbTest) changesPages() {
	var want []string
	for at := 0; at < 2500; at += 500 {
		var writes []store.Write
		for i := at; i < at+500; i++ {
			id := fmt.Sprintf("%04d", i)
			want = append(want, id)
			writes = append(writes, secret(store.Insert, id, nil))
		}
		w.commit(writes...)
	}
	ids, next, err := w.Changes(w.ctx, "ClientSecrets", 0)
	if err != nil || len(ids) != 1000 || !slices.Equal(ids, want[:1000]) {
		w.Fatalf("%d ids, %v", len(ids), err)
	}
	rest, _ := w.changed(next)
	if !slices.Equal(rest, want[1000:]) {
		w.Errorf("%d more ids", len(rest))
	}
}

// changesFollow: one who follows the cursor while others write misses no id.
func (w *dbTest) changesFollow() {
	const writers, times = 6, 20
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			for i := range times {
				id := fmt.Sprintf("%d-%d", g, i)
				if err := w.Commit(w.ctx, secret(store.Put, "shared", nil), secret(store.Insert, id, nil)); err != nil {
					w.Error(err)
				}
			}
		})
	}
	seen := map[string]bool{}
	var at int64
	deadline := time.Now().Add(time.Minute)
	for len(seen) < writers*times+1 && !w.Failed() && time.Now().Before(deadline) {
		ids, next, err := w.Changes(w.ctx, "ClientSecrets", at)
		if err != nil {
			w.Error(err)
			break
		}
		for _, id := range ids {
			seen[id] = true
		}
		at = next
	}
	wg.Wait()
	if len(seen) != writers*times+1 {
		w.Errorf("saw %d ids", len(seen))
	}
}
