package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func (w *dbTest) limits() {
	text := func(n int) string { return strings.Repeat("x", n) }
	list := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint(i))
		}
		return out
	}
	big := func(n int) []byte { return []byte(`"` + text(n-2) + `"`) }
	for i, c := range []struct {
		ok  bool
		put store.Write
	}{
		{true, store.Write{ID: text(store.MaxID)}},
		{false, store.Write{ID: text(store.MaxID + 1)}},
		{false, store.Write{ID: ""}},
		{true, store.Write{ID: "a", Doc: big(store.MaxDoc)}},
		{false, store.Write{ID: "b", Doc: big(store.MaxDoc + 1)}},
		{true, store.Write{ID: "c", Fields: fields{"name": text(store.MaxField), "email": text(store.MaxField)}}},
		{false, store.Write{ID: "d", Fields: fields{"name": text(store.MaxField + 1)}}},
		{true, store.Write{ID: "e", Fields: fields{"tags": list(store.MaxMulti)}}},
		{false, store.Write{ID: "f", Fields: fields{"tags": list(store.MaxMulti + 1)}}},
		{true, store.Write{ID: "g", Fields: fields{"tags": []string{text(store.MaxField)}}}},
		{false, store.Write{ID: "h", Fields: fields{"tags": []string{"x", text(store.MaxField + 1)}}}},
	} {
		put := c.put
		put.Kind = "things"
		if put.Doc == nil {
			put.Doc = []byte(`{}`)
		}
		for _, a := range []store.Action{store.Put, store.Ensure, store.Insert} {
			put.Action = a
			if put.ID != "" && len(put.ID) <= store.MaxID {
				w.commit(store.Write{Action: store.Delete, Kind: "things", ID: put.ID})
			}
			err := w.Commit(w.ctx, put)
			if c.ok && err != nil || !c.ok && !errors.Is(err, store.ErrTooLarge) {
				w.Errorf("%d: %v", i, err)
			}
		}
		if put.ID == "" || len(put.ID) > store.MaxID {
			continue
		}
		rs, err := w.Get(w.ctx, "things", put.ID)
		if err != nil || (len(rs) == 1) != c.ok || c.ok && !sameJSON(rs[0].Doc, put.Doc) {
			w.Errorf("%d: %d records, %v", i, len(rs), err)
		}
	}
	w.found(where(store.Where("tags", store.Eq, "255")), "e")
	w.found(where(store.Where("name", store.Eq, text(store.MaxField))), "c")
	w.refuse(store.ErrTooLarge, store.Write{Action: store.Delete, Kind: "things", ID: text(store.MaxID + 1)})

	var many []store.Write
	for i := range store.MaxWrites + 1 {
		many = append(many, doc(store.Insert, fmt.Sprintf("m%d", i), 0, `{}`))
	}
	w.refuse(store.ErrTooLarge, many...)
	w.isNot("plain", "m0")
	w.commit(many[:store.MaxWrites]...)
	if n, err := w.Count(w.ctx, store.Query{Kind: "plain"}); err != nil || n != store.MaxWrites {
		w.Errorf("%d, %v", n, err)
	}
	// One that is too large refuses the commit before anything of it is done.
	w.refuse(store.ErrTooLarge, doc(store.Insert, "before", 0, `{}`), store.Write{Action: store.Insert, Kind: "plain", ID: "b", Doc: big(store.MaxDoc + 1)})
	w.isNot("plain", "before", "b")
}

func (w *dbTest) findLimit() {
	for at := 0; at < 12_000; at += 2000 {
		var writes []store.Write
		for i := at; i < at+2000; i++ {
			writes = append(writes, doc(store.Insert, fmt.Sprintf("%06d", i), 0, `{}`))
		}
		w.commit(writes...)
	}
	for limit, want := range map[int]int{0: 100, 1: 1, 1000: 1000, store.MaxLimit: store.MaxLimit} {
		rs, err := w.Find(w.ctx, store.Query{Kind: "plain", Limit: limit})
		if err != nil || len(rs) != want || rs[want-1].ID != fmt.Sprintf("%06d", want-1) {
			w.Errorf("limit %d: %d records, %v", limit, len(rs), err)
		}
	}
	if _, err := w.Find(w.ctx, store.Query{Kind: "plain", Limit: store.MaxLimit + 1}); !errors.Is(err, store.ErrTooLarge) {
		w.Errorf("limit above the highest: %v", err)
	}
	if _, err := w.Find(w.ctx, store.Query{Kind: "plain", Limit: -1}); err == nil {
		w.Error("a negative limit: no error")
	}
	if n, err := w.Count(w.ctx, store.Query{Kind: "plain", Limit: 1, Order: "", After: &store.Cursor{ID: "5"}}); err != nil || n != 12_000 {
		w.Errorf("count with a limit and a cursor: %d, %v", n, err)
	}
}

func (w *dbTest) commitRefuses() {
	ok := thing(store.Insert, "ok", nil)
	for _, bad := range []store.Write{
		{Action: store.Insert, Kind: "unknown", ID: "x"},
		{Action: store.Insert, Kind: "", ID: "x"},
		{Action: store.Delete, Kind: "Things", ID: "x"},
		thing(store.Insert, "x", fields{"unknown": "v"}),
		thing(store.Insert, "x", fields{"name": int64(1)}),
		thing(store.Insert, "x", fields{"name": nil}),
		thing(store.Insert, "x", fields{"name": []string{"v"}}),
		thing(store.Insert, "x", fields{"rank": "v"}),
		thing(store.Insert, "x", fields{"rank": 1}),
		thing(store.Insert, "x", fields{"tags": "v"}),
		thing(store.Insert, "x", fields{"tags": []any{"v"}}),
		thing(store.Insert, "x", fields{"name": time.Now()}),
		thing(store.Action(99), "x", nil),
	} {
		if err := w.Commit(w.ctx, ok, bad); err == nil {
			w.Errorf("%+v: no error", bad)
		}
		w.commit(store.Write{Action: store.Delete, Kind: "things", ID: "ok"})
	}
	w.isNot("things", "x")
}

func (w *dbTest) cancelled() {
	w.commit(doc(store.Insert, "a", 0, `{}`))
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(w.ctx)
		if errors.Is(end, context.DeadlineExceeded) {
			ctx, cancel = context.WithDeadline(w.ctx, time.Unix(1, 0))
		}
		cancel()
		for name, err := range w.everything(ctx, "cancelled") {
			if !errors.Is(err, end) || errors.Is(err, store.ErrUnavailable) {
				w.Errorf("%s: %v, want %v", name, err, end)
			}
		}
	}
	w.isNot("plain", "cancelled")
	w.is("plain", "a", 1, `{}`)
}

// everything calls every method but Close.
func (w *dbTest) everything(ctx context.Context, id string) map[string]error {
	out := map[string]error{}
	_, out["Get"] = w.Get(ctx, "plain", "a")
	_, out["Get of several"] = w.Get(ctx, "plain", "a", "b")
	_, out["Find"] = w.Find(ctx, store.Query{Kind: "plain"})
	_, out["Count"] = w.Count(ctx, store.Query{Kind: "plain"})
	out["Commit"] = w.Commit(ctx, doc(store.Insert, id, 0, `{}`))
	out["Commit of several"] = w.Commit(ctx, doc(store.Put, id, 0, `{}`), doc(store.Put, id, 0, `{}`))
	_, _, out["Changes"] = w.Changes(ctx, "ClientSecrets", 0)
	return out
}

func (w *dbTest) closed() {
	w.commit(doc(store.Insert, "a", 0, `{}`))
	if err := w.Close(); err != nil {
		w.Fatal(err)
	}
	for name, err := range w.everything(w.ctx, "late") {
		if !errors.Is(err, store.ErrClosed) {
			w.Errorf("%s: %v", name, err)
		}
	}
	if err := w.Close(); err != nil {
		w.Errorf("a second close: %v", err)
	}
}

// closeWaits: a call under way when the handle is closed ends well; a later one is told that it is closed.
func (w *dbTest) closeWaits() {
	var wg sync.WaitGroup
	begun := make(chan struct{}, 16)
	for g := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				err := w.Commit(w.ctx, doc(store.Put, fmt.Sprintf("%d-%d", g, i), 0, `{}`))
				if err == nil {
					_, err = w.Find(w.ctx, store.Query{Kind: "plain"})
				}
				if errors.Is(err, store.ErrClosed) {
					return
				}
				if err != nil {
					w.Error(err)
					return
				}
				if i == 0 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range 16 {
		<-begun
	}
	if err := w.Close(); err != nil {
		w.Error(err)
	}
	wg.Wait()
}
