package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

func doc(a store.Action, id string, ifVersion int64, doc string) store.Write {
	return store.Write{Action: a, Kind: "plain", ID: id, IfVersion: ifVersion, Doc: []byte(doc)}
}

func (w *dbTest) get() {
	for _, id := range []string{"a", "b", "c"} {
		w.commit(doc(store.Insert, id, 0, `{"n":"`+id+`"}`))
	}
	for _, c := range []struct{ ask, want []string }{
		{nil, nil},
		{[]string{"b"}, []string{"b"}},
		{[]string{"c", "a", "b"}, []string{"c", "a", "b"}},
		{[]string{"x", "c", "y", "a"}, []string{"c", "a"}},
		{[]string{"a", "a"}, []string{"a", "a"}},
		{[]string{"A", "", "a "}, nil},
	} {
		rs, err := w.Get(w.ctx, "plain", c.ask...)
		if got := recordIDs(rs); err != nil || len(got)+len(c.want) > 0 && !reflect.DeepEqual(got, c.want) {
			w.Errorf("get %q: %q, %v; want %q", c.ask, got, err, c.want)
		}
	}
	w.is("plain", "b", 1, `{"n":"b"}`)
	w.isNot("things", "a", "b") // ids are of a kind

	var all []string
	for i := range 3000 {
		all = append(all, fmt.Sprintf("many-%d", i))
	}
	var writes []store.Write
	for _, id := range all[:2000] {
		writes = append(writes, doc(store.Insert, id, 0, `{}`))
	}
	w.commit(writes...)
	rs, err := w.Get(w.ctx, "plain", all...)
	if err != nil || !reflect.DeepEqual(recordIDs(rs), all[:2000]) {
		w.Errorf("get of 3000 ids, 2000 of them there: %d, %v", len(rs), err)
	}
}

func (w *dbTest) insert() {
	w.commit(doc(store.Insert, "a", 0, `{"n":1}`))
	w.is("plain", "a", 1, `{"n":1}`)
	w.refuse(store.ErrDuplicate, doc(store.Insert, "a", 0, `{"n":2}`))
	w.is("plain", "a", 1, `{"n":1}`)
	w.commit(thing(store.Insert, "a", nil)) // another kind's
	w.commit(doc(store.Insert, "A", 0, `{"n":3}`), doc(store.Insert, "a ", 0, `{"n":4}`))
	w.is("plain", "A", 1, `{"n":3}`)
	w.is("plain", "a ", 1, `{"n":4}`)
}

func (w *dbTest) ensure() {
	w.commit(doc(store.Ensure, "a", 0, `{"n":1}`))
	w.is("plain", "a", 1, `{"n":1}`)
	w.commit(doc(store.Ensure, "a", 0, `{"n":2}`))
	w.is("plain", "a", 1, `{"n":1}`)

	w.commit(thing(store.Ensure, "x", fields{"email": "x@x", "name": "x", "tags": []string{"old"}}))
	w.commit(thing(store.Ensure, "x", fields{"email": "y@y", "name": "y", "tags": []string{"new"}}))
	w.found(where(store.Where("name", store.Eq, "x")), "x")
	w.found(where(store.Where("tags", store.Eq, "old")), "x")
	w.found(where(store.Where("tags", store.Eq, "new")))
	w.refuse(store.ErrDuplicate, thing(store.Ensure, "z", fields{"email": "x@x"}))
	w.isNot("things", "z")

	// The id stands: all is left as it is, even if a unique value is another's.
	w.commit(thing(store.Insert, "y", fields{"email": "y@y"}))
	w.commit(thing(store.Ensure, "x", fields{"email": "y@y"}))
	w.found(where(store.Where("email", store.Eq, "y@y")), "y")
}

func (w *dbTest) put() {
	w.commit(doc(store.Put, "a", 0, `{"n":1}`)) // inserts
	w.is("plain", "a", 1, `{"n":1}`)
	w.commit(doc(store.Put, "a", 0, `{"n":2}`)) // replaces
	w.is("plain", "a", 2, `{"n":2}`)
	w.commit(doc(store.Put, "a", 2, `{"n":3}`))
	w.is("plain", "a", 3, `{"n":3}`)
	w.refuse(store.ErrConflict, doc(store.Put, "a", 2, `{"n":4}`))
	w.refuse(store.ErrConflict, doc(store.Put, "a", 4, `{"n":4}`))
	w.refuse(store.ErrConflict, doc(store.Put, "absent", 1, `{"n":4}`))
	w.is("plain", "a", 3, `{"n":3}`)
	w.isNot("plain", "absent")

	// It replaces the fields too: those it does not name are gone.
	w.commit(thing(store.Put, "x", fields{"name": "n", "rank": int64(1), "tags": []string{"a", "b"}, "email": "e"}))
	w.commit(thing(store.Put, "x", fields{"rank": int64(2), "tags": []string{"b", "c"}}))
	w.found(where(store.Where("name", store.Eq, "n")))
	w.found(where(store.Where("rank", store.Eq, int64(1))))
	w.found(where(store.Where("rank", store.Eq, int64(2))), "x")
	w.found(where(store.Where("tags", store.Eq, "a")))
	w.found(where(store.Where("tags", store.Eq, "b")), "x")
	w.found(where(store.Where("tags", store.Eq, "c")), "x")
	w.commit(thing(store.Insert, "y", fields{"email": "e"})) // given up by x
	w.refuse(store.ErrDuplicate, thing(store.Put, "x", fields{"email": "e"}))
	w.refuse(store.ErrDuplicate, thing(store.Put, "new", fields{"email": "e"}))
	w.isNot("things", "new")
	w.found(where(store.Where("tags", store.Eq, "c")), "x")
	w.commit(thing(store.Put, "y", fields{"email": "e", "name": "still mine"}))
	w.found(where(store.Where("email", store.Eq, "e")), "y")
}

// still holds that what is said to change seldom may change all the same: name and number are.
func (w *dbTest) still() {
	name := func(v any) store.Query { return where(store.Where("name", store.Eq, v)) }
	number := func(n int64) store.Query { return where(store.Where("number", store.Eq, n)) }
	put := func(version int64, f fields) store.Write {
		p := thing(store.Put, "x", f)
		p.IfVersion, p.Doc = version, fmt.Appendf(nil, `{"n":%d}`, version)
		return p
	}
	w.commit(thing(store.Insert, "x", fields{"name": "a", "number": int64(1), "rank": int64(1), "tags": []string{"t"}}), thing(store.Insert, "y", fields{"number": int64(9)}))
	w.commit(put(1, fields{"name": "a", "number": int64(1), "rank": int64(2), "tags": []string{"u"}})) // they stay
	w.is("things", "x", 2, `{"n":1}`)
	w.found(name("a"), "x")
	w.found(where(store.Where("rank", store.Eq, int64(2))), "x")
	w.found(where(store.Where("tags", store.Eq, "t")))
	w.found(where(store.Where("tags", store.Eq, "u")), "x")
	w.refuse(store.ErrConflict, put(1, fields{"name": "a", "number": int64(1)}))
	w.refuse(store.ErrConflict, put(1, fields{"name": "b"}))
	w.commit(put(2, fields{"name": "b", "number": int64(1)}), put(3, fields{"name": "b", "number": int64(2), "rank": int64(3)})) // one after the other changes
	w.is("things", "x", 4, `{"n":3}`)
	w.found(name("a"))
	w.found(name("b"), "x")
	w.found(number(1))
	w.found(number(2), "x")
	w.refuse(store.ErrDuplicate, put(4, fields{"name": "b", "number": int64(9)}))
	w.commit(put(4, nil)) // both go
	w.found(name("b"))
	w.found(number(2))
	w.commit(put(5, nil), put(6, fields{"name": "c"})) // and one comes again
	w.is("things", "x", 7, `{"n":6}`)
	w.found(name("c"), "x")
}

func (w *dbTest) remove() {
	w.commit(doc(store.Insert, "a", 0, `{}`), doc(store.Put, "a", 0, `{}`))
	w.refuse(store.ErrConflict, doc(store.Delete, "a", 1, ""))
	w.is("plain", "a", 2, `{}`)
	w.commit(doc(store.Delete, "a", 2, ""))
	w.isNot("plain", "a")
	w.refuse(store.ErrConflict, doc(store.Delete, "a", 2, ""))
	w.commit(doc(store.Delete, "a", 0, "")) // absent: no error
	w.commit(doc(store.Insert, "a", 0, `{"again":true}`))
	w.is("plain", "a", 1, `{"again":true}`)
	w.commit(doc(store.Delete, "a", 0, ""))
	w.isNot("plain", "a")

	w.commit(thing(store.Insert, "x", fields{"name": "n", "email": "e", "tags": []string{"t"}, "handles": []string{"h"}}))
	w.commit(store.Write{Action: store.Delete, Kind: "things", ID: "x"})
	w.found(where(store.Where("name", store.Eq, "n")))
	w.found(where(store.Where("tags", store.Eq, "t")))
	w.commit(thing(store.Insert, "y", fields{"email": "e", "handles": []string{"h"}})) // free again
	w.commit(thing(store.Insert, "x", nil))
	w.found(where(store.Where("tags", store.Eq, "t")))
}

func (w *dbTest) check() {
	w.commit(doc(store.Insert, "a", 0, `{}`), doc(store.Put, "a", 0, `{}`))
	w.commit(doc(store.Check, "a", 2, ""))
	w.commit(doc(store.Check, "absent", 0, ""))
	w.refuse(store.ErrConflict, doc(store.Check, "a", 1, ""))
	w.refuse(store.ErrConflict, doc(store.Check, "a", 0, ""))
	w.refuse(store.ErrConflict, doc(store.Check, "absent", 1, ""))
	w.is("plain", "a", 2, `{}`)
	w.refuse(store.ErrConflict, doc(store.Check, "a", 1, ""), doc(store.Insert, "b", 0, `{}`))
	w.isNot("plain", "b")
	w.commit(doc(store.Check, "a", 2, ""), doc(store.Insert, "b", 0, `{}`))
	w.is("plain", "b", 1, `{}`)
}

func (w *dbTest) unique() {
	w.commit(thing(store.Insert, "a", nil), thing(store.Insert, "b", nil), thing(store.Insert, "c", fields{"name": "same"}), thing(store.Insert, "d", fields{"name": "same"}))
	w.commit(thing(store.Insert, "e", fields{"email": "x", "number": int64(7)}))
	err := w.Commit(w.ctx, thing(store.Insert, "f", fields{"email": "x", "number": int64(8)}))
	if !errors.Is(err, store.ErrDuplicate) || !strings.Contains(err.Error(), "things") || !strings.Contains(err.Error(), "email") {
		w.Errorf("a taken email: %v", err)
	}
	err = w.Commit(w.ctx, thing(store.Insert, "f", fields{"email": "y", "number": int64(7)}))
	if !errors.Is(err, store.ErrDuplicate) || !strings.Contains(err.Error(), "number") {
		w.Errorf("a taken number: %v", err)
	}
	w.isNot("things", "f")
	w.commit(thing(store.Insert, "f", fields{"email": "X", "number": int64(8)})) // bytes, no case
	w.commit(thing(store.Insert, "g", fields{"email": ""}))                      // empty is a value
	w.refuse(store.ErrDuplicate, thing(store.Insert, "h", fields{"email": ""}))
	w.refuse(store.ErrDuplicate, thing(store.Put, "a", fields{"email": "x"}))
	w.commit(thing(store.Put, "e", nil), thing(store.Put, "a", fields{"email": "x"}))
	w.found(where(store.Where("email", store.Eq, "x")), "a")
}

func (w *dbTest) uniqueMulti() {
	w.commit(thing(store.Insert, "a", fields{"handles": []string{"1", "2", "1"}}))
	err := w.Commit(w.ctx, thing(store.Insert, "b", fields{"handles": []string{"3", "2"}}))
	if !errors.Is(err, store.ErrDuplicate) || !strings.Contains(err.Error(), "handles") {
		w.Errorf("a taken handle: %v", err)
	}
	w.isNot("things", "b")
	w.found(where(store.Where("handles", store.Eq, "3")))
	w.commit(thing(store.Insert, "b", fields{"handles": []string{"3"}}))
	w.refuse(store.ErrDuplicate, thing(store.Put, "b", fields{"handles": []string{"3", "1"}}))
	w.commit(thing(store.Put, "a", fields{"handles": []string{"2", "4"}}))
	w.commit(thing(store.Put, "b", fields{"handles": []string{"3", "1"}}))
	w.found(where(store.Where("handles", store.Eq, "1")), "b")
	w.commit(thing(store.Insert, "c", fields{"handles": []string{}}), thing(store.Insert, "d", fields{"handles": []string{}}))
	w.commit(thing(store.Insert, "e", fields{"tags": []string{"1"}})) // not unique, and another field
}

func (w *dbTest) handedOver() {
	w.commit(thing(store.Insert, "a", fields{"email": "x", "handles": []string{"h"}}), thing(store.Insert, "b", nil))
	w.commit(thing(store.Put, "a", nil), thing(store.Put, "b", fields{"email": "x", "handles": []string{"h"}}))
	w.found(where(store.Where("email", store.Eq, "x")), "b")
	w.found(where(store.Where("handles", store.Eq, "h")), "b")
	w.commit(store.Write{Action: store.Delete, Kind: "things", ID: "b"}, thing(store.Insert, "c", fields{"email": "x", "handles": []string{"h"}}))
	w.found(where(store.Where("handles", store.Eq, "h")), "c")
	w.refuse(store.ErrDuplicate, thing(store.Insert, "d", fields{"email": "x"}), thing(store.Put, "c", nil)) // the wrong order
}

func (w *dbTest) inOrder() {
	w.commit() // nothing
	w.commit(
		doc(store.Check, "a", 0, ""),
		doc(store.Insert, "a", 0, `{"n":1}`),
		doc(store.Check, "a", 1, ""),
		doc(store.Put, "a", 1, `{"n":2}`),
		doc(store.Put, "a", 0, `{"n":3}`),
		doc(store.Ensure, "a", 0, `{"n":4}`),
		doc(store.Check, "a", 3, ""),
		doc(store.Insert, "b", 0, `{}`),
		doc(store.Delete, "b", 1, ""),
		doc(store.Check, "b", 0, ""),
	)
	w.is("plain", "a", 3, `{"n":3}`)
	w.isNot("plain", "b")
}

// stops: of a refused commit, a prefix may stand (by the contract, with engines without transactions), but
// nothing from the refused write on.
func (w *dbTest) stops() {
	w.commit(doc(store.Insert, "a", 0, `{}`))
	for i, bad := range []store.Write{
		doc(store.Insert, "a", 0, `{}`), doc(store.Put, "a", 9, `{}`), doc(store.Delete, "a", 9, ""), doc(store.Check, "a", 9, ""),
	} {
		id := func(s string) string { return fmt.Sprintf("%s%d", s, i) }
		err := w.Commit(w.ctx, doc(store.Insert, id("p"), 0, `{}`), doc(store.Insert, id("q"), 0, `{}`), bad, doc(store.Insert, id("r"), 0, `{}`), doc(store.Put, "a", 0, `{}`))
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			w.Fatalf("%d: %v", i, err)
		}
		w.isNot("plain", id("r"))
		w.is("plain", "a", 1, `{}`)
		rs, err := w.Get(w.ctx, "plain", id("p"), id("q"))
		if err != nil || len(rs) == 1 && rs[0].ID != id("p") {
			w.Errorf("%d: no prefix stands: %q, %v", i, recordIDs(rs), err)
		}
	}
}

func (w *dbTest) documents() {
	for i, d := range []string{
		`{}`, `{"a":null,"b":[],"c":{}}`,
		`{"n":9007199254740993,"m":-9223372036854775808,"k":9223372036854775807,"f":0.1,"e":1e300}`,
		`{"":"","$set":{"a.b":1},"_id":"inner","version":7,"seq":9,"a.b":true}`,
		`{"s":"日本 \u0000 \ud83d\ude00 \"quoted\" \\ é é"}`,
		`{"deep":` + strings.Repeat(`[`, 60) + strings.Repeat(`]`, 60) + `}`,
		`{"long":"` + strings.Repeat("x", 100_000) + `"}`,
	} {
		id := fmt.Sprint(i)
		w.commit(doc(store.Insert, id, 0, d))
		w.is("plain", id, 1, d)
		if rs := w.find(store.Query{Kind: "plain", Where: []store.Term{store.Where("", store.Eq, id)}}); len(rs) != 1 || !sameJSON(rs[0].Doc, []byte(d)) {
			w.Errorf("find gave another document: %.200s", d)
		}
	}
}

// nothing: of a refused commit nothing is there.
func (w *dbTest) nothing() {
	w.commit(thing(store.Insert, "a", fields{"email": "x", "tags": []string{"t"}}), doc(store.Insert, "d", 0, `{}`))
	good := []store.Write{
		thing(store.Insert, "b", fields{"email": "y", "tags": []string{"t", "u"}}),
		thing(store.Put, "a", fields{"name": "changed"}),
		doc(store.Delete, "d", 0, ""),
		{Action: store.Insert, Kind: "news", ID: "n", Doc: []byte(`{}`)},
	}
	for _, bad := range []store.Write{
		doc(store.Check, "d", 9, ""), doc(store.Check, "x", 1, ""), thing(store.Insert, "a", nil),
		thing(store.Insert, "c", fields{"email": "y"}), thing(store.Insert, "c", fields{"tags": []string{"v"}, "number": int64(1), "email": "y"}),
	} {
		if err := w.Commit(w.ctx, append(good, bad)...); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			w.Fatal(err)
		}
		w.isNot("things", "b", "c")
		w.isNot("news", "n")
		w.is("plain", "d", 1, `{}`)
		w.found(where(store.Where("tags", store.Eq, "t")), "a")
		w.found(where(store.Where("email", store.Eq, "x")), "a")
		w.found(where(store.Where("tags", store.Prefix, "")), "a")
	}
	w.commit(good...)
	if n := w.record("news", "n").Seq; n != 1 {
		w.Errorf("the refused commits took numbers: the first record has %d", n)
	}
}

// kind goes through the typed side of the contract.
func (w *dbTest) kind() {
	type contact struct {
		store.Meta
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	things := store.Kind[contact]{
		Schema: schemas[0],
		Key:    func(c *contact) string { return c.ID },
		Index:  func(c *contact) store.Fields { return fields{"name": c.Name} },
		Meta:   func(c *contact) *store.Meta { return &c.Meta },
	}
	w.commit(things.Update(&contact{ID: "a", Name: "Ada"}), things.Insert(&contact{ID: "b", Name: "Bob"}))
	a, err := things.Get(w.ctx, w.DB, "a")
	if err != nil || a.Name != "Ada" || a.Version != 1 {
		w.Fatalf("%+v, %v", a, err)
	}
	stale := *a
	a.Name = "Ada L."
	w.commit(things.Update(a))
	w.refuse(store.ErrConflict, things.Update(&stale))
	w.refuse(store.ErrConflict, things.Remove(&stale))
	w.refuse(store.ErrConflict, things.Unchanged(&stale))
	w.refuse(store.ErrDuplicate, things.Update(&contact{ID: "a"}))
	if _, err := things.Get(w.ctx, w.DB, "absent"); !errors.Is(err, store.ErrNotFound) {
		w.Error(err)
	}
	if _, err := things.First(w.ctx, w.DB, where(store.Where("name", store.Eq, "Eve"))); !errors.Is(err, store.ErrNotFound) {
		w.Error(err)
	}
	b, err := things.First(w.ctx, w.DB, store.Query{Order: "name", Desc: true})
	if err != nil || b.ID != "b" {
		w.Errorf("%+v, %v", b, err)
	}
	all, err := things.GetAll(w.ctx, w.DB, "b", "a")
	if err != nil || len(all) != 2 || all[1].Name != "Ada L." || all[1].Version != 2 {
		w.Errorf("%+v, %v", all, err)
	}
	w.commit(things.Ensure(&contact{ID: "b"}), things.Set(&contact{ID: "c"}), things.Unchanged(b), things.Remove(b))
	w.isNot("things", "b")
}
