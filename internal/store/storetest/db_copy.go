package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

// copier is the database as copies use it.
func (w *dbTest) copier() store.Copier {
	w.Helper()
	c, ok := w.DB.(store.Copier)
	if !ok {
		w.Fatal("the engine makes no copies")
	}
	return c
}

// dump reads a whole kind in pages of a size.
func (w *dbTest) dump(kind string, page int) (all []store.Raw) {
	w.Helper()
	for after := ""; ; {
		rs, err := w.copier().Dump(w.ctx, kind, after, page)
		if err != nil {
			w.Fatal(err)
		}
		if len(rs) == 0 {
			return all
		}
		if len(rs) > page {
			w.Fatalf("%d records in a page of %d", len(rs), page)
		}
		all = append(all, rs...)
		after = rs[len(rs)-1].ID
	}
}

func (w *dbTest) digest(kind string) string {
	w.Helper()
	d, err := store.DigestKind(w.ctx, w.copier(), kind)
	if err != nil {
		w.Fatal(err)
	}
	return fmt.Sprint(d.Records, " ", d.Sum())
}

// copyKeepsAll: what is dumped, deleted and filled again is what it was: documents, versions, numbers and fields, as Find
// sees them and as the next writes do.
func (w *dbTest) copyKeepsAll() {
	odd := `{"id":"a","n":9007199254740993,"e":{},"l":[],"z":null,"a.b":1,"$c":2,"t":"\u0000<é"}`
	w.commit(
		store.Write{Action: store.Insert, Kind: "things", ID: "a", Doc: []byte(odd), Fields: fields{
			"name": "", "group": "g", "rank": int64(-3), "email": "e1", "number": int64(1) << 60, "tags": []string{"y", "x", "y"}, "handles": []string{"h1"}}},
		thing(store.Insert, "b", nil),
		store.Write{Action: store.Insert, Kind: "things", ID: "c", Doc: []byte(odd), Fields: fields{"tags": []string{}, "rank": int64(5), "email": "e2"}},
		news(store.Insert, "n1", fields{"topic": "t", "key": "k", "words": []string{"w"}}), news(store.Insert, "n2", nil), event(store.Insert, "e1"),
		store.Write{Action: store.Insert, Kind: "ClientSecrets", ID: "ACME", Doc: []byte(`{"_id":"ACME"}`), Fields: fields{"numbers": []string{"1", "2"}}},
	)
	w.commit(thing(store.Put, "b", fields{"group": "g", "rank": int64(7)}), thing(store.Put, "b", fields{"group": "g", "rank": int64(8)}))
	w.commit(event(store.Insert, "e2"), event(store.Delete, "e2")) // number 4 is gone for good
	w.seq("events", "e1", 3)
	kinds := []string{"things", "news", "events", "ClientSecrets"}
	was, digests := map[string][]store.Raw{}, map[string]string{}
	for _, kind := range kinds {
		was[kind], digests[kind] = w.dump(kind, 2), w.digest(kind)
	}
	if a := was["things"][0]; a.Version != 1 || !sameJSON(a.Doc, []byte(odd)) || !reflect.DeepEqual(a.Fields, fields{
		"name": "", "group": "g", "rank": int64(-3), "email": "e1", "number": int64(1) << 60, "tags": []string{"x", "y"}, "handles": []string{"h1"}}) {
		w.Errorf("dumped %+v", a)
	}
	if c := was["things"][2]; len(c.Fields) != 2 {
		w.Errorf("dumped %+v", c)
	}
	last, err := w.copier().LastSeq(w.ctx)
	if err != nil || last != 4 {
		w.Fatalf("last number %d, %v", last, err)
	}
	for _, kind := range kinds {
		for _, r := range was[kind] {
			w.commit(store.Write{Action: store.Delete, Kind: kind, ID: r.ID})
		}
		if rest := w.dump(kind, 10); len(rest) > 0 {
			w.Fatalf("%d left of %s", len(rest), kind)
		}
	}
	for _, kind := range kinds {
		for range 2 { // a second time changes nothing
			if err := w.copier().Fill(w.ctx, kind, was[kind]...); err != nil {
				w.Fatalf("%s: %v", kind, err)
			}
			if got := w.digest(kind); got != digests[kind] {
				w.Errorf("%s: %s, was %s", kind, got, digests[kind])
			}
		}
	}
	late := was["things"][1]
	late.Version, late.Doc = 9, []byte(`{"late":true}`)
	if err := w.copier().Fill(w.ctx, "things", late); err != nil { // what is there is left alone
		w.Fatal(err)
	}
	w.is("things", "b", 3, `{"id":"of the document"}`)
	w.seq("news", "n2", 2)
	w.found(where(store.Where("tags", store.Eq, "y")), "a")
	w.found(where(store.Where("tags", store.Eq, "z")))
	w.found(store.Query{Where: []store.Term{store.Where("group", store.Eq, "g")}, Order: "rank"}, "a", "b")
	w.found(where(store.Where("name", store.Eq, "")), "a")
	w.found(store.Query{Kind: "ClientSecrets", Where: []store.Term{store.Where("numbers", store.Eq, "2")}}, "ACME")
	w.refuse(store.ErrDuplicate, thing(store.Insert, "d", fields{"handles": []string{"h1"}}))
	w.refuse(store.ErrDuplicate, thing(store.Insert, "d", fields{"email": "e2"}))
	w.commit(store.Write{Action: store.Put, Kind: "things", ID: "b", IfVersion: 3, Doc: []byte(`{}`)})
	w.commit(store.Write{Action: store.Put, Kind: "things", ID: "a", IfVersion: 1, Doc: []byte(`{}`), Fields: fields{"tags": []string{"z"}}})
	w.found(where(store.Where("tags", store.Eq, "y")))
	ids, _, err := w.Changes(w.ctx, "ClientSecrets", 0)
	if err != nil || len(ids) != 1 {
		w.Errorf("changes: %q, %v", ids, err)
	}
}

// copyPages: pages by id, of records that together are not too large.
func (w *dbTest) copyPages() {
	big := []byte(`"` + strings.Repeat("x", store.CopyBytes/2-100) + `"`)
	for i := range 5 {
		w.commit(store.Write{Action: store.Insert, Kind: "plain", ID: fmt.Sprint("big", i), Doc: big})
	}
	rs, err := w.copier().Dump(w.ctx, "plain", "", 100)
	if err != nil || len(rs) == 0 || len(rs) > 2 {
		w.Errorf("%d large records in a page, %v", len(rs), err)
	}
	if all := w.dump("plain", 100); len(all) != 5 {
		w.Errorf("%d records", len(all))
	}
	var ids []string
	for i := range 25 {
		id := fmt.Sprintf("t%02d", (i*7)%25)
		w.commit(thing(store.Insert, id, nil))
		ids = append(ids, fmt.Sprintf("t%02d", i))
	}
	for _, page := range []int{1, 10, 25, 100} {
		var got []string
		for _, r := range w.dump("things", page) {
			got = append(got, r.ID)
		}
		if !reflect.DeepEqual(got, ids) {
			w.Errorf("pages of %d: %q", page, got)
		}
	}
}

func (w *dbTest) fillRefuses() {
	raw := func(id string, version, seq int64, f fields) store.Raw {
		return store.Raw{Record: store.Record{ID: id, Version: version, Seq: seq, Doc: []byte(`{}`)}, Fields: f}
	}
	fill := func(kind string, rs ...store.Raw) error { return w.copier().Fill(w.ctx, kind, rs...) }
	w.commit(thing(store.Insert, "a", fields{"email": "e", "handles": []string{"h"}}))
	for name, err := range map[string]error{
		"unknown kind":             fill("nothing", raw("a", 1, 0, nil)),
		"no version":               fill("things", raw("x", 0, 0, nil)),
		"number of a kind without": fill("things", raw("x", 1, 1, nil)),
		"no number":                fill("news", raw("x", 1, 0, nil)),
		"unknown field":            fill("things", raw("x", 1, 0, fields{"none": "x"})),
	} {
		if err == nil {
			w.Errorf("%s: filled", name)
		}
	}
	if err := fill("things", raw("x", 1, 0, fields{"email": "e"})); !errors.Is(err, store.ErrDuplicate) {
		w.Errorf("taken unique value: %v", err)
	}
	if err := fill("things", raw("x", 1, 0, fields{"handles": []string{"h"}})); !errors.Is(err, store.ErrDuplicate) {
		w.Errorf("taken unique value of a list: %v", err)
	}
	w.isNot("things", "x")
	if _, err := w.copier().Dump(w.ctx, "nothing", "", 1); err == nil {
		w.Error("dumped an unknown kind")
	}
}

// fillGoesOn: numbers go on after those that were filled in or skipped, and never before.
func (w *dbTest) fillGoesOn() {
	c := w.copier()
	schema := schemas
	if empty, err := store.Empty(w.ctx, c, schema); err != nil || !empty {
		w.Errorf("empty: %v, %v", empty, err)
	}
	if err := c.Fill(w.ctx, "news", store.Raw{Record: store.Record{ID: "old", Version: 4, Seq: 41, Doc: json.RawMessage(`{}`)}}); err != nil {
		w.Fatal(err)
	}
	w.commit(event(store.Insert, "e"))
	w.seq("events", "e", 42)
	for _, n := range []int64{100, 7} {
		if err := c.SkipSeq(w.ctx, n); err != nil {
			w.Fatal(err)
		}
	}
	w.commit(news(store.Insert, "new", nil))
	w.seq("news", "new", 101)
	w.seq("news", "old", 41)
	w.is("news", "old", 4, `{}`)
	if n, err := c.LastSeq(w.ctx); err != nil || n != 101 {
		w.Errorf("last number %d, %v", n, err)
	}
	if empty, err := store.Empty(w.ctx, c, schema); err != nil || empty {
		w.Errorf("empty: %v, %v", empty, err)
	}
}
