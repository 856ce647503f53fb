package storetest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

// model compares random queries over random records with the plainest reading of the contract.
func (w *dbTest) model() {
	rnd := rand.New(rand.NewPCG(1, 2))
	m := map[string]fields{}
	for round := range 6 {
		var writes []store.Write
		for range 120 {
			id := fmt.Sprintf("%c%d", 'a'+rune(rnd.IntN(4)), rnd.IntN(60))
			if rnd.IntN(5) == 0 {
				writes = append(writes, store.Write{Action: store.Delete, Kind: "things", ID: id})
				delete(m, id)
				continue
			}
			f := randomFields(rnd)
			writes = append(writes, thing(store.Put, id, f))
			m[id] = f
		}
		w.commit(writes...)
		for range 120 {
			q := randomQuery(rnd)
			all := selected(m, q)
			if n, err := w.Count(w.ctx, q); err != nil || int(n) != len(all) {
				w.Fatalf("round %d: count %+v: %d, %v; want %d", round, q, n, err, len(all))
			}
			var got []string
			for {
				rs := w.find(q)
				got = append(got, recordIDs(rs)...)
				if len(rs) < q.Limit {
					break
				}
				last := rs[len(rs)-1].ID
				q.After = &store.Cursor{ID: last}
				if q.Order != "" {
					q.After.Value = m[last][q.Order]
				}
			}
			if len(got)+len(all) > 0 && !reflect.DeepEqual(got, all) {
				w.Fatalf("round %d: %+v:\n got %q\nwant %q", round, q, got, all)
			}
		}
	}
}

var (
	someTexts = []string{"", "a", "aa", "ab", "b", "B", "a%", "é", "日本", "\U0001F600", "\uFFFD", "z"}
	someInts  = []int64{-5, 0, 1, 2, 3, 1 << 53, 1<<53 + 1}
)

func pick[T any](rnd *rand.Rand, of []T) T { return of[rnd.IntN(len(of))] }

func randomFields(rnd *rand.Rand) fields {
	f := fields{}
	for _, name := range []string{"name", "group"} {
		if rnd.IntN(4) > 0 {
			f[name] = pick(rnd, someTexts)
		}
	}
	if rnd.IntN(4) > 0 {
		f["rank"] = pick(rnd, someInts)
	}
	var tags []string
	for range rnd.IntN(4) {
		tags = append(tags, pick(rnd, someTexts))
	}
	if len(tags) > 0 {
		f["tags"] = tags
	}
	return f
}

func randomQuery(rnd *rand.Rand) store.Query {
	q := store.Query{Kind: "things", Order: pick(rnd, []string{"", "name", "rank", "group", "rank"}), Desc: rnd.IntN(2) == 0, Limit: 1 + rnd.IntN(40)}
	for range rnd.IntN(4) {
		t := store.Term{Field: pick(rnd, []string{"name", "group", "rank", "tags", "tags", ""}), Op: store.Op(rnd.IntN(int(store.Prefix) + 1))}
		for n := 1; n > 0; n-- {
			switch t.Field {
			case "rank":
				t.Values = append(t.Values, pick(rnd, someInts))
			case "":
				t.Values = append(t.Values, fmt.Sprintf("%c%d", 'a'+rune(rnd.IntN(4)), rnd.IntN(60)))
			default:
				t.Values = append(t.Values, pick(rnd, someTexts))
			}
			if t.Op == store.In {
				n += rnd.IntN(2)
			}
		}
		switch {
		case t.Field == "rank" && t.Op == store.Prefix, t.Field == "" && t.Op == store.Prefix:
			t.Op = store.Gt
		case t.Field == "tags" && t.Op != store.In && t.Op != store.Prefix:
			t.Op = store.Eq
		}
		q.Where = append(q.Where, t)
	}
	return q
}

// selected gives the ids of all records that satisfy the query, in its order.
func selected(m map[string]fields, q store.Query) []string {
	var out []string
	for id, f := range m {
		if !slices.ContainsFunc(q.Where, func(t store.Term) bool { return !satisfies(id, f, t) }) {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		c := compare(m[a][q.Order], a, m[b][q.Order], b)
		if q.Desc {
			return -c
		}
		return c
	})
	return out
}

func satisfies(id string, f fields, t store.Term) bool {
	var values []any
	switch x := f[t.Field].(type) {
	case []string:
		for _, s := range x {
			values = append(values, s)
		}
	case nil:
	default:
		values = append(values, x)
	}
	if t.Field == "" {
		values = []any{id}
	}
	return slices.ContainsFunc(values, func(v any) bool {
		return slices.ContainsFunc(t.Values, func(with any) bool {
			c := compareValues(v, with)
			switch t.Op {
			case store.Lt:
				return c < 0
			case store.Le:
				return c <= 0
			case store.Gt:
				return c > 0
			case store.Ge:
				return c >= 0
			case store.Prefix:
				return strings.HasPrefix(v.(string), with.(string))
			}
			return c == 0
		})
	})
}

// compare is the contract's order: absent first, then by value, ties by id.
func compare(a any, aID string, b any, bID string) int {
	if c := compareValues(a, b); c != 0 {
		return c
	}
	return strings.Compare(aID, bID)
}

func compareValues(a, b any) int {
	switch x := a.(type) {
	case nil:
		if b == nil {
			return 0
		}
		return -1
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y)
		}
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
	}
	return 1 // b is absent
}
