package storetest

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

func (w *dbTest) operators() {
	for i, name := range []string{"ann", "anna", "ben", "Ann", "a%n", "a_n", "a*n", "[a]n", ""} {
		w.commit(thing(store.Insert, fmt.Sprint(i), fields{"name": name, "rank": int64(i)}))
	}
	w.commit(thing(store.Insert, "9", nil))
	for _, c := range []struct {
		term store.Term
		want string
	}{
		{store.Where("name", store.Eq, "ann"), "0"},
		{store.Where("name", store.Eq, "ANN"), ""},
		{store.Where("name", store.Eq, ""), "8"},
		{store.Where("name", store.Eq, "absent"), ""},
		{store.Where("name", store.In, "ann", "ben", "absent"), "0 2"},
		{store.Where("name", store.In, "ben"), "2"},
		{store.Where("name", store.In, "ben", "ben"), "2"},
		{store.Where("name", store.In), ""},
		{store.Where("name", store.Lt, "ann"), "3 4 5 6 7 8"},
		{store.Where("name", store.Le, "ann"), "0 3 4 5 6 7 8"},
		{store.Where("name", store.Gt, "anna"), "2"},
		{store.Where("name", store.Ge, "anna"), "1 2"},
		{store.Where("name", store.Prefix, "ann"), "0 1"},
		{store.Where("name", store.Prefix, "a%"), "4"},
		{store.Where("name", store.Prefix, "a_"), "5"},
		{store.Where("name", store.Prefix, "a*"), "6"},
		{store.Where("name", store.Prefix, "[a]"), "7"},
		{store.Where("name", store.Prefix, "a"), "0 1 4 5 6"},
		{store.Where("name", store.Prefix, "A"), "3"},
		{store.Where("name", store.Prefix, ""), "0 1 2 3 4 5 6 7 8"},
		{store.Where("rank", store.Eq, int64(3)), "3"},
		{store.Where("rank", store.In, int64(3), int64(5), int64(99)), "3 5"},
		{store.Where("rank", store.Lt, int64(2)), "0 1"},
		{store.Where("rank", store.Le, int64(2)), "0 1 2"},
		{store.Where("rank", store.Gt, int64(6)), "7 8"},
		{store.Where("rank", store.Ge, int64(6)), "6 7 8"},
		{store.Where("", store.Eq, "4"), "4"},
		{store.Where("", store.In, "4", "7", "x"), "4 7"},
		{store.Where("", store.Gt, "7"), "8 9"},
		{store.Where("", store.Lt, "2"), "0 1"},
	} {
		w.found(where(c.term), strings.Fields(c.want)...)
	}
	w.found(store.Query{}, strings.Fields("0 1 2 3 4 5 6 7 8 9")...)
	w.found(where(store.Where("name", store.Prefix, "a"), store.Where("rank", store.Gt, int64(0)), store.Where("", store.Lt, "6")), "1", "4", "5")
	w.found(where(store.Where("rank", store.Ge, int64(2)), store.Where("rank", store.Lt, int64(4))), "2", "3")
	w.found(store.Query{Kind: "plain"})
}

func (w *dbTest) multi() {
	for id, tags := range map[string][]string{"a": {"x"}, "b": {"x", "y"}, "c": {"x", "y", "zed"}, "d": {"zoo", "zed", "zed"}, "e": {}, "f": nil, "g": {"", "100%"}} {
		f := fields{"tags": tags, "name": id}
		if tags == nil {
			delete(f, "tags")
		}
		w.commit(thing(store.Insert, id, f))
	}
	tag := func(op store.Op, v ...any) store.Term { return store.Where("tags", op, v...) }
	for _, c := range []struct {
		terms []store.Term
		want  string
	}{
		{[]store.Term{tag(store.Eq, "x")}, "a b c"},
		{[]store.Term{tag(store.Eq, "zed")}, "c d"},
		{[]store.Term{tag(store.Eq, "")}, "g"},
		{[]store.Term{tag(store.Eq, "absent")}, ""},
		{[]store.Term{tag(store.Eq, "x"), tag(store.Eq, "y")}, "b c"},
		{[]store.Term{tag(store.Eq, "y"), tag(store.Eq, "x"), tag(store.Eq, "zed")}, "c"},
		{[]store.Term{tag(store.Eq, "x"), tag(store.Eq, "zoo")}, ""},
		{[]store.Term{tag(store.Prefix, "z")}, "c d"},
		{[]store.Term{tag(store.Prefix, "zo")}, "d"},
		{[]store.Term{tag(store.Prefix, "100%")}, "g"},
		{[]store.Term{tag(store.Prefix, "%")}, ""},
		{[]store.Term{tag(store.Prefix, "")}, "a b c d g"},
		{[]store.Term{tag(store.Prefix, "z"), tag(store.Eq, "x")}, "c"},
		{[]store.Term{tag(store.Prefix, "z"), tag(store.Prefix, "y")}, "c"},
		{[]store.Term{tag(store.In, "y", "zoo")}, "b c d"},
		{[]store.Term{tag(store.In)}, ""},
		{[]store.Term{tag(store.Eq, "x"), store.Where("name", store.Gt, "a")}, "b c"},
	} {
		want := strings.Fields(c.want)
		w.found(store.Query{Where: c.terms}, want...)
		slices.Reverse(want)
		w.found(store.Query{Where: c.terms, Order: "name", Desc: true}, want...)
		for i, id := range want { // and by pages of one
			q := store.Query{Where: c.terms, Order: "name", Desc: true, Limit: 1}
			if i > 0 {
				q.After = &store.Cursor{Value: want[i-1], ID: want[i-1]}
			}
			w.found(q, id)
		}
	}
}

// multiOrdered pages through the records of a frequent and of a rare tag in the order of another field.
func (w *dbTest) multiOrdered() {
	var all, rare, both []string
	for at := 0; at < 3000; at += 1000 {
		var writes []store.Write
		for i := at; i < at+1000; i++ {
			id := fmt.Sprintf("%04d", i)
			tags := []string{"all"}
			all = append(all, id)
			if i%500 == 7 {
				tags = append(tags, "rare")
				rare = append(rare, id)
			}
			if i%2 == 0 {
				tags = append(tags, "even")
				if i%3 == 0 {
					both = append(both, id)
				}
			}
			if i%3 == 0 {
				tags = append(tags, "third")
			}
			writes = append(writes, thing(store.Insert, id, fields{"rank": int64(i / 10), "tags": tags}))
		}
		w.commit(writes...)
	}
	tag := func(v string) store.Term { return store.Where("tags", store.Eq, v) }
	for _, c := range []struct {
		terms []store.Term
		want  []string
	}{
		{[]store.Term{tag("all")}, all},
		{[]store.Term{tag("rare")}, rare},
		{[]store.Term{tag("rare"), tag("all")}, rare},
		{[]store.Term{tag("even"), tag("third")}, both},
	} {
		for _, order := range []string{"", "rank"} {
			for _, desc := range []bool{false, true} {
				want := slices.Clone(c.want)
				if desc {
					slices.Reverse(want)
				}
				q := store.Query{Where: c.terms, Order: order, Desc: desc, Limit: 211}
				if got := w.walk(q, func(id string) any { n := 0; fmt.Sscan(strings.TrimLeft(id, "0"), &n); return int64(n / 10) }); !reflect.DeepEqual(got, want) {
					w.Errorf("%+v: %d records, want %d", q, len(got), len(want))
				}
			}
		}
		if n, err := w.Count(w.ctx, store.Query{Kind: "things", Where: c.terms}); err != nil || int(n) != len(c.want) {
			w.Errorf("count %v: %d, %v; want %d", c.terms, n, err, len(c.want))
		}
	}
}

// walk reads a query of things page by page; value gives the ordering field's value of an id.
func (w *dbTest) walk(q store.Query, value func(id string) any) []string {
	w.Helper()
	q.Kind = "things"
	var got []string
	for range 100_000 {
		page := recordIDs(w.find(q))
		got = append(got, page...)
		if len(page) < q.Limit {
			return got
		}
		last := page[len(page)-1]
		q.After = &store.Cursor{ID: last}
		if q.Order != "" {
			q.After.Value = value(last)
		}
	}
	w.Fatalf("%+v never ends", q)
	return nil
}

func (w *dbTest) manyValues() {
	var writes []store.Write
	var names, ids, ranks []any
	for i := range 1000 {
		id := fmt.Sprintf("%04d", i)
		writes = append(writes, thing(store.Insert, id, fields{"name": "n'\"\\\x01" + id, "rank": int64(i) + 1<<60, "tags": []string{id, "é" + id}}))
	}
	w.commit(writes...)
	for i := range 5000 { // every third of the thousand, and many that are not there
		id := fmt.Sprintf("%04d", i*3)
		names, ids, ranks = append(names, "n'\"\\\x01"+id), append(ids, id), append(ranks, int64(i*3)+1<<60)
	}
	tags := append(slices.Clone(ids), "é0001")
	for _, c := range []struct {
		term store.Term
		want int
	}{
		{store.Where("name", store.In, names...), 334},
		{store.Where("", store.In, ids...), 334},
		{store.Where("rank", store.In, ranks...), 334},
		{store.Where("tags", store.In, tags...), 335},
		{store.Where("tags", store.In, tags[1:300]...), 299},
	} {
		rs := w.find(store.Query{Kind: "things", Where: []store.Term{c.term}, Limit: 1000})
		n, err := w.Count(w.ctx, store.Query{Kind: "things", Where: []store.Term{c.term}})
		if len(rs) != c.want || err != nil || int(n) != c.want {
			w.Errorf("In of %d on %q: found %d, counted %d, %v; want %d", len(c.term.Values), c.term.Field, len(rs), n, err, c.want)
		}
	}
}

// absent: records without the ordering field come first, or last when descending, and a cursor can stand there.
func (w *dbTest) absent() {
	w.commit(thing(store.Insert, "a", nil), thing(store.Insert, "c", nil), thing(store.Insert, "e", nil),
		thing(store.Insert, "b", fields{"name": ""}), thing(store.Insert, "d", fields{"name": "x"}))
	name := func(id string) any { return map[string]any{"b": "", "d": "x"}[id] }
	for limit := 1; limit <= 6; limit++ {
		for desc, want := range map[bool]string{false: "acebd", true: "dbeca"} {
			got := strings.Join(w.walk(store.Query{Order: "name", Desc: desc, Limit: limit}, name), "")
			if got != want {
				w.Errorf("limit %d, desc %v: %s, want %s", limit, desc, got, want)
			}
		}
	}
	for _, op := range []store.Op{store.Eq, store.In, store.Lt, store.Le, store.Gt, store.Ge, store.Prefix} {
		for _, r := range w.find(store.Query{Kind: "things", Where: []store.Term{store.Where("name", op, "")}}) {
			if r.ID != "b" && r.ID != "d" {
				w.Errorf("operator %d found %s, which has no name", op, r.ID)
			}
		}
	}
	w.found(store.Query{Order: "name", Where: []store.Term{store.Where("name", store.Ge, "")}}, "b", "d")
	w.found(store.Query{Order: "name", Desc: true, Where: []store.Term{store.Where("name", store.Ge, "")}, After: &store.Cursor{Value: "x", ID: "d"}, Limit: 5}, "b")
	w.found(store.Query{Order: "name", Where: []store.Term{store.Where("name", store.Ge, "")}, After: &store.Cursor{ID: "c"}, Limit: 5}, "b", "d")
	// A cursor need not stand on a record.
	w.found(store.Query{Order: "name", After: &store.Cursor{Value: "w", ID: "zzz"}, Limit: 5}, "d")
	w.found(store.Query{Order: "name", After: &store.Cursor{Value: "x", ID: ""}, Limit: 5}, "d")
	w.found(store.Query{After: &store.Cursor{ID: "bb"}, Limit: 2}, "c", "d")
	w.found(store.Query{Desc: true, After: &store.Cursor{ID: "bb"}, Limit: 5}, "b", "a")
}

// pages goes through thousands of records with equal values, both ways, and misses and repeats none.
func (w *dbTest) pages() {
	const n = 4000
	var ids []string
	for at := 0; at < n; at += 1000 {
		var writes []store.Write
		for i := at; i < at+1000; i++ {
			f := fields{"group": "g", "rank": int64(i / 1500)} // a few values, each of more than a page
			if i >= 3000 {
				f = fields{"group": "g"}
			}
			id := fmt.Sprintf("%05d", (i*7919)%n)
			ids = append(ids, id)
			writes = append(writes, thing(store.Insert, id, f))
		}
		w.commit(writes...)
	}
	ranks := map[string]any{}
	for i, id := range ids {
		if i < 3000 {
			ranks[id] = int64(i / 1500)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return compare(ranks[a], a, ranks[b], b) })
	for _, desc := range []bool{false, true} {
		for _, terms := range [][]store.Term{nil, {store.Where("group", store.Eq, "g")}} {
			got := w.walk(store.Query{Where: terms, Order: "rank", Desc: desc, Limit: 333}, func(id string) any { return ranks[id] })
			if !reflect.DeepEqual(got, ids) {
				w.Errorf("desc %v, %d terms: %d records in another order than wanted (%d)", desc, len(terms), len(got), len(ids))
			}
		}
		slices.Reverse(ids)
	}
	slices.Sort(ids)
	if got := w.walk(store.Query{Limit: 999}, nil); !reflect.DeepEqual(got, ids) {
		w.Errorf("by id: %d records", len(got))
	}
}

// pagesMoving: records that stand through a walk are seen once, whatever comes and goes meanwhile.
func (w *dbTest) pagesMoving() {
	var want []string
	for i := range 100 {
		id := fmt.Sprintf("s%02d", i)
		want = append(want, id)
		w.commit(thing(store.Insert, id, fields{"rank": int64(i / 10)}), thing(store.Insert, fmt.Sprintf("t%02d", i), fields{"rank": int64(i / 10)}))
	}
	var got []string
	q := store.Query{Kind: "things", Order: "rank", Limit: 7}
	for i := 0; ; i++ {
		rs := w.find(q)
		for _, r := range rs {
			if r.ID[0] == 's' {
				got = append(got, r.ID)
			}
		}
		if len(rs) < q.Limit {
			break
		}
		last := rs[len(rs)-1]
		var n int64
		fmt.Sscan(strings.TrimLeft(last.ID[1:], "0"), &n)
		q.After = &store.Cursor{Value: n / 10, ID: last.ID}
		// The record the cursor stands on goes away if it may; others come before and behind it.
		if last.ID[0] == 't' {
			w.commit(store.Write{Action: store.Delete, Kind: "things", ID: last.ID})
		}
		w.commit(thing(store.Insert, fmt.Sprintf("n%02d", i), fields{"rank": int64(0)}), thing(store.Put, fmt.Sprintf("t%02d", i%100), fields{"rank": int64(-1)}))
	}
	slices.Sort(got)
	if !reflect.DeepEqual(got, want) {
		w.Errorf("got %q", got)
	}
}

func (w *dbTest) integers() {
	values := []int64{math.MinInt64, math.MinInt64 + 1, -1 << 53, -1<<53 - 1, -1, 0, 1, 1 << 53, 1<<53 + 1, math.MaxInt64 - 1, math.MaxInt64}
	for i, v := range values {
		w.commit(thing(store.Insert, fmt.Sprintf("%02d", i), fields{"rank": v, "number": v}))
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	for i, v := range sorted {
		w.found(where(store.Where("rank", store.Eq, v)), fmt.Sprintf("%02d", slices.Index(values, v)))
		if n, err := w.Count(w.ctx, store.Query{Kind: "things", Where: []store.Term{store.Where("rank", store.Lt, v)}}); err != nil || int(n) != i {
			w.Errorf("%d below %d, %v; want %d", n, v, err, i)
		}
		w.refuse(store.ErrDuplicate, thing(store.Insert, "other", fields{"number": v}))
	}
	got := w.walk(store.Query{Order: "rank", Limit: 2}, func(id string) any {
		var i int
		fmt.Sscanf(id, "%d", &i)
		return values[i]
	})
	for i, id := range got {
		if id != fmt.Sprintf("%02d", slices.Index(values, sorted[i])) {
			w.Errorf("order: %q", got)
		}
	}
}

// bytes: texts are bytes, whatever they are.
func (w *dbTest) bytes() {
	texts := []string{
		"\x00", "\x00\x00", "a\x00b", "a\x00", "a", "a\x00c", "\xff", "\xff\xff", "\xffz", "a\xff", "a\xff\xff", "b",
		"é", "e\u0301", "\u00e9a", "日本", "日", "\U0001F600", "\uFFFD", "\uFFFF", "\x7f", "\xc3", "%", "_", "?", "*", " ", "a ", "'", `"`, "`", "\\",
	}
	for i, s := range texts {
		w.commit(thing(store.Insert, fmt.Sprintf("%02d", i), fields{"name": s, "email": s, "tags": []string{s, "t" + s}}))
	}
	id := func(match func(s string) bool) (out []string) {
		for i, s := range texts {
			if match(s) {
				out = append(out, fmt.Sprintf("%02d", i))
			}
		}
		return out
	}
	for _, s := range texts {
		is := id(func(x string) bool { return x == s })
		w.found(where(store.Where("name", store.Eq, s)), is...)
		w.found(where(store.Where("tags", store.Eq, s)), is...)
		w.found(where(store.Where("name", store.In, s, "nothing")), is...)
		w.found(where(store.Where("name", store.Lt, s)), id(func(x string) bool { return x < s })...)
		w.found(where(store.Where("name", store.Ge, s)), id(func(x string) bool { return x >= s })...)
		w.found(where(store.Where("name", store.Prefix, s)), id(func(x string) bool { return strings.HasPrefix(x, s) })...)
		w.found(where(store.Where("tags", store.Prefix, "t"+s)), id(func(x string) bool { return strings.HasPrefix(x, s) })...)
		w.refuse(store.ErrDuplicate, thing(store.Insert, "other", fields{"email": s}))
	}
	sorted := slices.Sorted(slices.Values(texts))
	got := w.walk(store.Query{Order: "name", Limit: 1}, func(id string) any {
		var i int
		fmt.Sscanf(id, "%d", &i)
		return texts[i]
	})
	for i, g := range got {
		if g != fmt.Sprintf("%02d", slices.Index(texts, sorted[i])) {
			w.Fatalf("order: %q", got)
		}
	}
	for _, s := range texts { // as ids
		w.commit(doc(store.Insert, s, 0, `{}`))
		w.is("plain", s, 1, `{}`)
	}
	if got := recordIDs(w.find(store.Query{Kind: "plain"})); !reflect.DeepEqual(got, sorted) {
		w.Errorf("ids: %q", got)
	}
}

func (w *dbTest) findRefuses() {
	w.commit(thing(store.Insert, "a", fields{"name": "n", "rank": int64(1), "tags": []string{"t"}}))
	for _, q := range []store.Query{
		{Kind: "unknown"},
		{Kind: ""},
		where(store.Where("unknown", store.Eq, "x")),
		where(store.Where("doc", store.Eq, "x")),
		where(store.Where("name", store.Eq)),
		where(store.Where("name", store.Eq, "a", "b")),
		where(store.Where("name", store.Eq, int64(1))),
		where(store.Where("name", store.Eq, nil)),
		where(store.Where("name", store.In, "a", int64(1))),
		where(store.Where("rank", store.Eq, "1")),
		where(store.Where("rank", store.Eq, 1)),
		where(store.Where("rank", store.Eq, 1.5)),
		where(store.Where("rank", store.Prefix, int64(1))),
		where(store.Where("tags", store.Gt, "a")),
		where(store.Where("", store.Eq, int64(1))),
		where(store.Where("name", store.Op(99), "a")),
		{Order: "unknown"},
		{Order: "tags"},
		{Order: "seq"}, // of a kind without
		{Order: "name", After: &store.Cursor{Value: int64(1), ID: "a"}},
		{Order: "rank", After: &store.Cursor{Value: "1", ID: "a"}},
		{Order: "rank", After: &store.Cursor{Value: 1.5, ID: "a"}},
		{Kind: "news", Order: "seq", After: &store.Cursor{Value: "1", ID: "a"}},
		{Kind: "news", Order: "seq", After: &store.Cursor{ID: "a"}},
	} {
		if q.Kind == "" && (q.Where != nil || q.Order != "") {
			q.Kind = "things"
		}
		if rs, err := w.Find(w.ctx, q); err == nil {
			w.Errorf("find %+v: %d records and no error", q, len(rs))
		}
	}
	if _, err := w.Get(w.ctx, "unknown", "a"); err == nil {
		w.Error("get of an unknown kind: no error")
	}
	if _, err := w.Count(w.ctx, where(store.Where("unknown", store.Eq, "x"))); err == nil {
		w.Error("count of an unknown kind: no error")
	}
}
