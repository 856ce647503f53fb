package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

// TestDrive: wherever a query starts from, it finds what looking at every record finds, in the same order, page by page.
func TestDrive(t *testing.T) {
	db := openFresh(t, planned).(*DB)
	ctx := context.Background()
	type row struct {
		id, name, status, conversation string
		at                             int64
		tags                           []string
	}
	r := rand.New(rand.NewPCG(3, 4))
	word := func(of ...string) string { return of[int(float64(len(of))*r.Float64()*r.Float64())] } // the first are frequent
	var rows []row
	var writes []store.Write
	for i := range 2500 {
		x := row{fmt.Sprintf("%05x", r.IntN(1<<30)+i), word("ana", "ben", "bea", "zoe", "rare"), word("new", "old", "odd"), word("c1", "c2", "c3"), int64(r.IntN(50)), []string{word("a", "ab", "b", "bc", "d")}}
		rows = append(rows, x)
		writes = append(writes, store.Write{Action: store.Put, Kind: "messages", ID: x.id, Fields: store.Fields{
			"name": x.name, "status": x.status, "conversationId": x.conversation, "createdAt": x.at, "tags": x.tags}})
		if len(writes) == 500 {
			if err := db.Commit(ctx, writes...); err != nil {
				t.Fatal(err)
			}
			writes = nil
		}
	}
	terms := []struct {
		term store.Term
		ok   func(row) bool
	}{}
	add := func(term store.Term, ok func(row) bool) {
		terms = append(terms, struct {
			term store.Term
			ok   func(row) bool
		}{term, ok})
	}
	for _, v := range []string{"ana", "zoe", "rare", "none"} {
		add(store.Where("name", store.Eq, v), func(x row) bool { return x.name == v })
	}
	add(store.Where("name", store.Prefix, "be"), func(x row) bool { return strings.HasPrefix(x.name, "be") })
	add(store.Where("name", store.Ge, "b"), func(x row) bool { return x.name >= "b" })
	add(store.Where("status", store.In, "old", "odd"), func(x row) bool { return x.status != "new" })
	add(store.Where("status", store.Eq, "odd"), func(x row) bool { return x.status == "odd" })
	add(store.Where("conversationId", store.Eq, "c1"), func(x row) bool { return x.conversation == "c1" })
	add(store.Where("createdAt", store.Lt, int64(9)), func(x row) bool { return x.at < 9 })
	add(store.Where("tags", store.Eq, "d"), func(x row) bool { return x.tags[0] == "d" })
	add(store.Where("tags", store.Eq, "a"), func(x row) bool { return x.tags[0] == "a" })
	add(store.Where("tags", store.Prefix, "a"), func(x row) bool { return x.tags[0][0] == 'a' })
	add(store.Where("tags", store.Prefix, "d"), func(x row) bool { return x.tags[0][0] == 'd' })
	led, walked := 0, 0
	for range 150 {
		q := store.Query{Kind: "messages", Limit: 1 + r.IntN(40), Desc: r.IntN(2) == 0, Order: []string{"createdAt", "name", "status"}[r.IntN(3)]}
		ok := func(row) bool { return true }
		for range 1 + r.IntN(3) {
			c := terms[r.IntN(len(terms))]
			q.Where = append(q.Where, c.term)
			before := ok
			ok = func(x row) bool { return before(x) && c.ok(x) }
		}
		key := func(x row) string {
			return map[string]string{"createdAt": fmt.Sprintf("%03d", x.at), "name": x.name, "status": x.status}[q.Order]
		}
		var want []string
		for _, x := range rows {
			if ok(x) {
				want = append(want, key(x)+"|"+x.id)
			}
		}
		slices.SortFunc(want, func(a, b string) int {
			if q.Desc {
				a, b = b, a
			}
			return cmp.Compare(a, b)
		})
		byID := map[string]row{}
		for _, x := range rows {
			byID[x.id] = x
		}
		var got []string
		for {
			found, err := db.Find(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				got = append(got, key(byID[f.ID])+"|"+f.ID)
			}
			if len(found) < q.Limit {
				break
			}
			last := byID[found[len(found)-1].ID]
			q.After = &store.Cursor{Value: map[string]any{"createdAt": last.at, "name": last.name, "status": last.status}[q.Order], ID: last.id}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v: %d found, want %d", q, len(got), len(want))
		}
		if strings.Contains(plan(t, db, q), "TEMP B-TREE") {
			led++
		} else {
			walked++
		}
	}
	if led < 20 || walked < 20 {
		t.Errorf("%d queries started from a value, %d walked an order: one of them is hardly tested", led, walked)
	}
}
