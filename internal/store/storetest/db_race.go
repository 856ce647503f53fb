package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ecodrix/ecod/internal/store"
)

// each runs fn in n goroutines at once and waits for them.
func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() { <-start; fn(i) })
	}
	close(start)
	wg.Wait()
}

// increments: with IfVersion, no update is lost.
func (w *dbTest) increments() {
	const workers, times = 12, 15
	type counter struct{ N int }
	w.commit(doc(store.Insert, "counter", 0, `{"N":0}`))
	each(workers, func(int) {
		for done := 0; done < times; {
			rs, err := w.Get(w.ctx, "plain", "counter")
			if err != nil || len(rs) != 1 {
				w.Error(err)
				return
			}
			var c counter
			if err := json.Unmarshal(rs[0].Doc, &c); err != nil {
				w.Error(err)
				return
			}
			err = w.Commit(w.ctx, doc(store.Put, "counter", rs[0].Version, fmt.Sprintf(`{"N":%d}`, c.N+1)))
			switch {
			case err == nil:
				done++
			case !errors.Is(err, store.ErrConflict):
				w.Error(err)
				return
			}
		}
	})
	w.is("plain", "counter", workers*times+1, fmt.Sprintf(`{"N":%d}`, workers*times))
}

// uniqueRace: of many that want a value, one gets it and the others are told.
func (w *dbTest) uniqueRace() {
	for round, f := range []fields{{"email": "x"}, {"number": int64(1)}, {"handles": []string{"a", "x"}}} {
		var won, lost atomic.Int64
		each(24, func(i int) {
			a := []store.Action{store.Insert, store.Ensure, store.Put}[i%3]
			switch err := w.Commit(w.ctx, thing(a, fmt.Sprintf("%d-%d", round, i), f)); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, store.ErrDuplicate):
				lost.Add(1)
			default:
				w.Error(err)
			}
		})
		if won.Load() != 1 || lost.Load() != 23 {
			w.Errorf("%v: %d won, %d lost", f, won.Load(), lost.Load())
		}
		if n, err := w.Count(w.ctx, store.Query{Kind: "things"}); err != nil || int(n) != round+1 {
			w.Errorf("%d records, %v", n, err)
		}
	}
}

func (w *dbTest) idRace() {
	var won atomic.Int64
	each(24, func(i int) {
		switch err := w.Commit(w.ctx, doc(store.Insert, "a", 0, fmt.Sprint(i))); {
		case err == nil:
			won.Add(1)
		case !errors.Is(err, store.ErrDuplicate):
			w.Error(err)
		}
	})
	if won.Load() != 1 || w.record("plain", "a").Version != 1 {
		w.Errorf("%d inserted the same id", won.Load())
	}
	each(24, func(i int) {
		if err := w.Commit(w.ctx, doc(store.Ensure, "b", 0, fmt.Sprint(i))); err != nil {
			w.Error(err)
		}
	})
	if r := w.record("plain", "b"); r.Version != 1 {
		w.Errorf("ensured into version %d", r.Version)
	}
}

func (w *dbTest) putRace() {
	each(24, func(i int) { // all of them count, whoever inserts
		if err := w.Commit(w.ctx, doc(store.Put, "a", 0, fmt.Sprint(i))); err != nil {
			w.Error(err)
		}
	})
	if r := w.record("plain", "a"); r.Version != 24 {
		w.Errorf("24 puts made version %d", r.Version)
	}
	var won atomic.Int64
	each(24, func(i int) {
		a := []store.Action{store.Put, store.Delete}[i%2]
		switch err := w.Commit(w.ctx, doc(a, "a", 24, `{}`)); {
		case err == nil:
			won.Add(1)
		case !errors.Is(err, store.ErrConflict):
			w.Error(err)
		}
	})
	if won.Load() != 1 {
		w.Errorf("%d changed the same version", won.Load())
	}
}

// wholeRecords: whoever reads meanwhile sees records as some commit left them: document, version and fields agree.
func (w *dbTest) wholeRecords() {
	put := func(n int64) store.Write {
		return store.Write{Action: store.Put, Kind: "things", ID: "a", Doc: fmt.Appendf(nil, `%d`, n), Fields: fields{"rank": n, "tags": []string{fmt.Sprint(n % 2)}}}
	}
	w.commit(put(1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := int64(2); n <= 150; n++ {
			if err := w.Commit(w.ctx, put(n)); err != nil {
				w.Error(err)
				return
			}
		}
	}()
	last := int64(0)
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for _, q := range []store.Query{{Kind: "things"}, {Kind: "things", Where: []store.Term{store.Where("rank", store.Gt, int64(0))}, Order: "rank"}} {
			rs := w.find(q)
			if len(rs) != 1 || string(rs[0].Doc) != fmt.Sprint(rs[0].Version) || rs[0].Version < last {
				w.Fatalf("after version %d: %d records: %+v", last, len(rs), rs)
			}
			last = rs[0].Version
		}
	}
	if last != 150 {
		w.Errorf("a read after the last commit gave version %d", last)
	}
}

// between: no reader sees a part of a commit.
func (w *dbTest) between() {
	set := func(n int) []store.Write {
		d := fmt.Sprint(n)
		writes := []store.Write{doc(store.Put, "a", 0, d), doc(store.Put, "b", 0, d), doc(store.Put, "c", 0, d)}
		for i := range 5 { // some have a name and some have none, in turn
			f := fields{}
			if (n+i)%2 == 0 {
				f["name"] = "x"
			}
			writes = append(writes, thing(store.Put, fmt.Sprint(i), f))
		}
		return writes
	}
	w.commit(set(0)...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; n <= 150; n++ {
			if err := w.Commit(w.ctx, set(n)...); err != nil {
				w.Error(err)
				return
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		got, err := w.Get(w.ctx, "plain", "a", "b", "c")
		if err != nil {
			w.Fatal(err)
		}
		for _, rs := range [][]store.Record{got, w.find(store.Query{Kind: "plain"})} {
			if len(rs) != 3 || rs[0].Version != rs[1].Version || rs[1].Version != rs[2].Version {
				w.Fatalf("a part of a commit was seen: %+v", rs)
			}
		}
		// A page over those without and those with a name.
		for _, q := range []store.Query{{Order: "name", After: &store.Cursor{}}, {Order: "name", Desc: true, After: &store.Cursor{Value: "y"}}} {
			q.Kind = "things"
			if rs := w.find(q); len(rs) != 5 {
				w.Fatalf("a page of two moments: %q", recordIDs(rs))
			}
		}
	}
}

// transfers: many commits that move from one record to another at once, some refused half-way, keep the sum.
func (w *dbTest) transfers() {
	const accounts, start = 5, 100
	type account struct{ Sum int }
	id := func(i int) string { return fmt.Sprintf("account-%d", i%accounts) }
	for i := range accounts {
		w.commit(doc(store.Insert, id(i), 0, fmt.Sprintf(`{"Sum":%d}`, start)))
	}
	each(8, func(g int) {
		for i := range 20 {
			from, to := id(g+i), id(g+i+1+i%(accounts-1))
			if from == to {
				continue
			}
			rs, err := w.Get(w.ctx, "plain", from, to)
			if err != nil || len(rs) != 2 {
				w.Error(err)
				return
			}
			var a, b account
			if err := errors.Join(json.Unmarshal(rs[0].Doc, &a), json.Unmarshal(rs[1].Doc, &b)); err != nil {
				w.Error(err)
				return
			}
			err = w.Commit(w.ctx,
				doc(store.Put, from, rs[0].Version, fmt.Sprintf(`{"Sum":%d}`, a.Sum-i)),
				doc(store.Put, to, rs[1].Version, fmt.Sprintf(`{"Sum":%d}`, b.Sum+i)))
			if err != nil && !errors.Is(err, store.ErrConflict) {
				w.Error(err)
				return
			}
		}
	})
	sum := 0
	for _, r := range w.find(store.Query{Kind: "plain"}) {
		var a account
		if err := json.Unmarshal(r.Doc, &a); err != nil {
			w.Fatal(err)
		}
		sum += a.Sum
	}
	if sum != accounts*start {
		w.Errorf("the sum is %d", sum)
	}
}
