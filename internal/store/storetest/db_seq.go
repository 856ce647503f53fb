package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func news(a store.Action, id string, f fields) store.Write {
	return store.Write{Action: a, Kind: "news", ID: id, Doc: []byte(`{}`), Fields: f}
}

func event(a store.Action, id string) store.Write {
	return store.Write{Action: a, Kind: "events", ID: id, Doc: []byte(`{}`)}
}

func (w *dbTest) seq(kind, id string, want int64) {
	w.Helper()
	if got := w.record(kind, id).Seq; got != want {
		w.Fatalf("%s %s has number %d, want %d", kind, id, got, want)
	}
}

func (w *dbTest) sequence() {
	w.commit(news(store.Insert, "z", fields{"topic": "t", "key": "k"}))
	w.seq("news", "z", 1)
	w.commit(event(store.Insert, "a")) // the numbers are the database's
	w.seq("events", "a", 2)
	w.commit(doc(store.Insert, "plain", 0, `{}`))
	w.seq("plain", "plain", 0)
	w.commit(news(store.Put, "y", fields{"topic": "t"}), event(store.Ensure, "b"), news(store.Insert, "x", nil))
	w.seq("news", "y", 3)
	w.seq("events", "b", 4)
	w.seq("news", "x", 5)

	// What inserts nothing takes no number.
	w.commit(news(store.Ensure, "z", nil), news(store.Put, "y", fields{"topic": "u"}), store.Write{Action: store.Check, Kind: "events", ID: "a", IfVersion: 1}, news(store.Delete, "absent", nil))
	w.commit(store.Write{Action: store.Put, Kind: "news", ID: "z", IfVersion: 1, Doc: []byte(`{}`), Fields: fields{"topic": "t", "key": "k"}})
	w.refuse(store.ErrDuplicate, news(store.Insert, "z", nil))
	w.refuse(store.ErrDuplicate, news(store.Insert, "w", fields{"key": "k"}))
	w.refuse(store.ErrConflict, store.Write{Action: store.Check, Kind: "events", ID: "a", IfVersion: 9}, news(store.Insert, "w", nil))
	w.seq("news", "z", 1)
	w.seq("news", "y", 3)
	w.commit(news(store.Insert, "v", nil))
	w.seq("news", "v", 6)

	// A number is never given twice, not even when its record is gone.
	w.commit(news(store.Delete, "v", nil))
	w.commit(news(store.Insert, "v", nil))
	w.seq("news", "v", 7)
	w.commit(news(store.Delete, "v", nil), news(store.Insert, "v", nil))
	w.seq("news", "v", 8)

	ids := func(q store.Query) []string { q.Kind, q.Order = "news", "seq"; return recordIDs(w.find(q)) }
	for _, c := range []struct {
		q    store.Query
		want string
	}{
		{store.Query{}, "[z y x v]"},
		{store.Query{Desc: true}, "[v x y z]"},
		{store.Query{Limit: 2}, "[z y]"},
		{store.Query{After: &store.Cursor{Value: int64(0)}}, "[z y x v]"},
		{store.Query{After: &store.Cursor{Value: int64(1)}}, "[y x v]"},
		{store.Query{After: &store.Cursor{Value: int64(3), ID: "y"}}, "[x v]"},
		{store.Query{After: &store.Cursor{Value: int64(4), ID: ""}}, "[x v]"},
		{store.Query{After: &store.Cursor{Value: int64(5), ID: "x"}, Desc: true}, "[y z]"},
		{store.Query{After: &store.Cursor{Value: int64(99), ID: "x"}}, "[]"},
		{where(store.Where("topic", store.Eq, "t")), "[z]"},
		{where(store.Where("topic", store.In, "t", "u")), "[z y]"},
	} {
		if got := fmt.Sprint(ids(c.q)); got != c.want {
			w.Errorf("%+v: %s, want %s", c.q, got, c.want)
		}
	}
}

// gapless: after many commits at once, some refused, the numbers are 1 to the number of records.
func (w *dbTest) gapless() {
	w.commit(news(store.Insert, "first", fields{"key": "taken"}))
	each(8, func(g int) {
		for i := range 15 {
			id := fmt.Sprintf("%d-%d", g, i)
			var err error
			switch i % 5 {
			case 0:
				err = w.Commit(w.ctx, news(store.Insert, id, nil))
			case 1:
				err = w.Commit(w.ctx, news(store.Insert, id, fields{"words": []string{"a", "b"}}), event(store.Insert, id), doc(store.Put, "shared", 0, `{}`))
			case 2:
				if err = w.Commit(w.ctx, event(store.Ensure, "same"), news(store.Ensure, "same", nil)); err == nil {
					err = w.Commit(w.ctx, event(store.Put, "put"))
				}
			case 3:
				if err = w.Commit(w.ctx, store.Write{Action: store.Check, Kind: "plain", ID: "absent", IfVersion: 1}, news(store.Insert, id, nil)); errors.Is(err, store.ErrConflict) {
					err = nil
				}
			case 4:
				if err = w.Commit(w.ctx, news(store.Insert, id, fields{"key": "taken"})); errors.Is(err, store.ErrDuplicate) {
					err = nil
				}
			}
			if err != nil {
				w.Error(err)
			}
		}
	})
	var numbers []int64
	for _, kind := range []string{"news", "events"} {
		for _, r := range w.find(store.Query{Kind: kind, Limit: 1000, Order: "seq"}) {
			numbers = append(numbers, r.Seq)
		}
	}
	slices.Sort(numbers)
	if len(numbers) != 1+8*3*3+3 {
		w.Errorf("%d records", len(numbers))
	}
	for i, n := range numbers {
		if n != int64(i+1) {
			w.Fatalf("numbers with a gap: %d", numbers)
		}
	}
}

// commitOrder: a reader that goes on from the last number it saw misses nothing, and a commit that began after
// another had returned has the higher number.
func (w *dbTest) commitOrder() {
	const writers, each = 6, 25
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			last := int64(0)
			for i := range each {
				id := fmt.Sprintf("%d-%d", g, i)
				if err := w.Commit(w.ctx, news(store.Insert, id, nil)); err != nil {
					w.Error(err)
					return
				}
				rs, err := w.Get(w.ctx, "news", id)
				if err != nil || len(rs) != 1 || rs[0].Seq <= last {
					w.Errorf("after %d: %+v, %v", last, rs, err)
					return
				}
				last = rs[0].Seq
			}
		})
	}
	var last int64
	deadline := time.Now().Add(time.Minute)
	for seen := 0; seen < writers*each && !w.Failed(); {
		rs, err := w.Find(w.ctx, store.Query{Kind: "news", Order: "seq", Limit: 7, After: &store.Cursor{Value: last}})
		if err != nil {
			w.Error(err)
			break
		}
		for _, r := range rs {
			if r.Seq != last+1 {
				w.Errorf("%d follows %d", r.Seq, last)
			}
			last = r.Seq
			seen++
		}
		if time.Now().After(deadline) {
			w.Errorf("the reader saw %d", seen)
			break
		}
	}
	wg.Wait()
}
