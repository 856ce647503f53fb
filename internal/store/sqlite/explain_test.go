package sqlite

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

var planned = []store.Schema{{
	Kind: "messages",
	Fields: []store.Field{
		{Name: "conversationId"}, {Name: "wamid", Unique: true}, {Name: "status"}, {Name: "name"},
		{Name: "createdAt", Type: store.Int}, {Name: "tags", Multi: true},
	},
	Orders: [][]string{{"conversationId", "createdAt"}, {"conversationId", "status", "createdAt"}},
}, {
	Kind: "news", Fields: []store.Field{{Name: "topic"}}, Orders: [][]string{{"topic", "seq"}}, Sequenced: true,
}}

// plan gives what SQLite does for a query, one step a line, of each statement that Find would run.
func plan(t *testing.T, db *DB, q store.Query) string {
	t.Helper()
	ctx := context.Background()
	s, err := db.search(q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	q.Limit = 10
	s.prepare(q)
	err = db.f.read(ctx, func(c *conn) error {
		if err := s.drive(ctx, c, q); err != nil {
			return err
		}
		parts, err := s.parts(q)
		if err != nil {
			return err
		}
		for _, p := range parts {
			sql, args := s.sql(s.t.columns, p)
			for r, err := range c.rows(ctx, "EXPLAIN QUERY PLAN "+sql+s.order(q), append(args, q.Limit)...) {
				if err != nil {
					return fmt.Errorf("%s: %w", sql, err)
				}
				out = append(out, r.text(3))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// TestPlans: no query with terms on declared fields reads the whole table, and none in a declared order sorts.
func TestPlans(t *testing.T) {
	db := openFresh(t, planned).(*DB)
	ctx := context.Background()
	var writes []store.Write
	for i := range 1500 {
		tags := []string{"frequent"}
		if i%100 == 0 {
			tags = append(tags, "rare")
		}
		name := "many"
		if i%100 == 1 {
			name = "few"
		}
		writes = append(writes, store.Write{Action: store.Insert, Kind: "messages", ID: fmt.Sprint(i), Fields: store.Fields{"tags": tags, "name": name}})
	}
	if err := db.Commit(ctx, writes...); err != nil {
		t.Fatal(err)
	}
	eq := func(f, v string) store.Term { return store.Where(f, store.Eq, v) }
	at := func(v any) *store.Cursor { return &store.Cursor{Value: v, ID: "x"} }
	for _, c := range []struct {
		q    store.Query
		uses string // what the plan names
		sort bool   // whether it may sort
	}{
		{store.Query{Where: []store.Term{eq("conversationId", "c")}, Order: "createdAt"}, "messages_by_conversationId_createdAt (conversationId=?)", false},
		{store.Query{Where: []store.Term{eq("conversationId", "c")}, Order: "createdAt", Desc: true}, "messages_by_conversationId_createdAt (conversationId=?)", false},
		{store.Query{Where: []store.Term{eq("conversationId", "c")}, Order: "createdAt", After: at(int64(1))}, "(conversationId=? AND (createdAt,_id)>(?,?))", false},
		{store.Query{Where: []store.Term{eq("conversationId", "c")}, Order: "createdAt", Desc: true, After: at(int64(1))}, "(conversationId=? AND (createdAt,_id)<(?,?))", false},
		{store.Query{Where: []store.Term{eq("conversationId", "c")}, Order: "createdAt", Desc: true, After: at(int64(1))}, "(conversationId=? AND createdAt=?)", false},
		{store.Query{Where: []store.Term{eq("conversationId", "c")}, Order: "createdAt", After: at(nil)}, "(conversationId=? AND createdAt=? AND _id>?)", false},
		{store.Query{Where: []store.Term{eq("conversationId", "c")}, Order: "createdAt", After: at(nil)}, "(conversationId=? AND createdAt>?)", false},
		{store.Query{Where: []store.Term{eq("conversationId", "c"), eq("status", "s")}, Order: "createdAt"}, "messages_by_conversationId_status_createdAt (conversationId=? AND status=?)", false},
		{store.Query{Where: []store.Term{eq("conversationId", "c"), store.Where("createdAt", store.Ge, int64(5))}, Order: "createdAt"}, "messages_by_conversationId_createdAt (conversationId=? AND createdAt>?)", false},
		{store.Query{Order: "createdAt"}, "SCAN t USING INDEX messages_by_createdAt", false},
		{store.Query{Order: "createdAt", Desc: true, After: at(int64(1))}, "messages_by_createdAt ((createdAt,_id)<(?,?))", false},
		{store.Query{Where: []store.Term{eq("wamid", "w")}}, "messages_unique_wamid (wamid=?)", true},
		{store.Query{Where: []store.Term{eq("status", "s")}}, "messages_by_status (status=?)", false},
		{store.Query{Where: []store.Term{store.Where("status", store.In, "s", "t", "u")}}, "messages_by_status (status=?)", true},
		{store.Query{Where: []store.Term{store.Where("name", store.Prefix, "a")}, Order: "name"}, "messages_by_name (name>? AND name<?)", false},
		{store.Query{}, "SCAN t USING INDEX sqlite_autoindex_messages_1", false},
		{store.Query{After: &store.Cursor{ID: "x"}}, "sqlite_autoindex_messages_1 (_id>?)", false},
		{store.Query{Where: []store.Term{store.Where("", store.In, "a", "b")}}, "sqlite_autoindex_messages_1 (_id=?)", false},

		{store.Query{Where: []store.Term{eq("tags", "frequent")}}, "m USING PRIMARY KEY (value=?)", false},
		{store.Query{Where: []store.Term{eq("tags", "frequent")}, After: &store.Cursor{ID: "x"}}, "m USING PRIMARY KEY (value=? AND _id>?)", false},
		{store.Query{Where: []store.Term{eq("tags", "frequent"), eq("tags", "rare")}}, "m USING PRIMARY KEY (value=?)", false},
		{store.Query{Where: []store.Term{eq("tags", "rare")}, Order: "createdAt"}, "m USING PRIMARY KEY (value=?)", true},
		{store.Query{Where: []store.Term{eq("tags", "frequent")}, Order: "createdAt"}, "SCAN t USING INDEX messages_by_createdAt", false},
		{store.Query{Where: []store.Term{eq("tags", "frequent")}, Order: "createdAt"}, "SEARCH messages_tags EXISTS USING", false},
		{store.Query{Where: []store.Term{eq("tags", "frequent"), eq("conversationId", "c")}, Order: "createdAt", Desc: true, After: at(int64(1))}, "(conversationId=? AND (createdAt,_id)<(?,?))", false},
		{store.Query{Where: []store.Term{store.Where("tags", store.Prefix, "fr")}}, "messages_tags USING PRIMARY KEY (value>? AND value<?)", true},

		// what a field's value begins with leads only where few have it
		{store.Query{Where: []store.Term{eq("name", "few")}, Order: "createdAt"}, "messages_by_name (name=?)", true},
		{store.Query{Where: []store.Term{eq("name", "few")}, Order: "createdAt", Desc: true, After: at(int64(1))}, "messages_by_name (name=?)", true},
		{store.Query{Where: []store.Term{eq("name", "many")}, Order: "createdAt"}, "SCAN t USING INDEX messages_by_createdAt", false},
		{store.Query{Where: []store.Term{eq("name", "many")}, Order: "createdAt", Desc: true, After: at(int64(1))}, "messages_by_createdAt ((createdAt,_id)<(?,?))", false},
		{store.Query{Where: []store.Term{eq("name", "many"), eq("conversationId", "c")}, Order: "createdAt"}, "messages_by_conversationId_createdAt (conversationId=?)", false},
		{store.Query{Where: []store.Term{eq("name", "few"), eq("tags", "frequent")}, Order: "createdAt"}, "messages_by_name (name=?)", true},
		{store.Query{Where: []store.Term{eq("name", "many"), eq("tags", "rare")}, Order: "createdAt"}, "m USING PRIMARY KEY (value=?)", true},
		{store.Query{Where: []store.Term{store.Where("tags", store.Prefix, "ra")}, Order: "createdAt"}, "messages_tags USING PRIMARY KEY (value>? AND value<?)", true},
		{store.Query{Where: []store.Term{store.Where("tags", store.Prefix, "fr")}, Order: "createdAt"}, "SCAN t USING INDEX messages_by_createdAt", false},
		{store.Query{Where: []store.Term{store.Where("tags", store.Prefix, "fr")}, Order: "createdAt"}, "SEARCH messages_tags EXISTS USING COVERING INDEX messages_tags_by_id (_id=?)", false},
		{store.Query{Where: []store.Term{store.Where("name", store.Ge, "a")}, Order: "createdAt"}, "SCAN t USING INDEX messages_by_createdAt", false},
		{store.Query{Where: []store.Term{store.Where("name", store.Lt, "g")}, Order: "createdAt"}, "messages_by_name (name<?)", true},
		{store.Query{Where: []store.Term{store.Where("createdAt", store.Ge, int64(5)), eq("name", "many")}, Order: "createdAt"}, "messages_by_createdAt (createdAt>?)", false},

		{store.Query{Kind: "news", Order: "seq", After: at(int64(7))}, "news_unique_seq (seq>?)", false},
		{store.Query{Kind: "news", Order: "seq", Desc: true}, "SCAN t USING INDEX news_unique_seq", false},
		{store.Query{Kind: "news", Where: []store.Term{eq("topic", "t")}, Order: "seq", After: at(int64(7))}, "news_by_topic_seq (topic=? AND seq>?)", false},
	} {
		if c.q.Kind == "" {
			c.q.Kind = "messages"
		}
		p := plan(t, db, c.q)
		if !strings.Contains(p, c.uses) {
			t.Errorf("%+v:\n%s\nwant %s", c.q, p, c.uses)
		}
		if !c.sort && strings.Contains(p, "TEMP B-TREE") {
			t.Errorf("%+v sorts:\n%s", c.q, p)
		}
		for line := range strings.Lines(p) {
			if strings.HasPrefix(line, "SCAN") && !strings.Contains(line, "USING") {
				t.Errorf("%+v reads the whole table:\n%s", c.q, p)
			}
		}
	}
}

// TestUpdatesLeaveStillFieldsAlone: an update that changes no field that seldom changes opens none of their indexes.
func TestUpdatesLeaveStillFieldsAlone(t *testing.T) {
	db := openFresh(t, []store.Schema{{
		Kind: "recipients", Fields: []store.Field{{Name: "campaign", Still: true}, {Name: "state"}, {Name: "at", Type: store.Int, Still: true}},
	}}).(*DB)
	opened := func(sql string, args ...any) (n int) {
		err := db.f.read(context.Background(), func(c *conn) error {
			for r, err := range c.rows(context.Background(), "EXPLAIN "+sql, args...) {
				if err != nil {
					return err
				}
				if r.text(1) == "OpenWrite" {
					n++
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	w := store.Write{Action: store.Put, Kind: "recipients", ID: "a", IfVersion: 1, Doc: []byte(`{}`), Fields: store.Fields{"campaign": "c", "state": "s", "at": int64(1)}}
	table := db.tables["recipients"]
	if n := opened(table.updateIf, append(table.row(&w), "a", int64(1))...); n != 5 {
		t.Errorf("a full update opens %d, the table, its ids and three indexes wanted", n)
	}
	if n := opened(table.updateMoving, table.moving(&w)...); n != 3 {
		t.Errorf("an update opens %d, the table, its ids and one index wanted", n)
	}
}
