package mongo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// pair opens one database twice, as two nodes do.
func pair(t *testing.T, schemas []store.Schema) (a, b *DB) {
	t.Helper()
	c, url, prefix := testClusters(t, Config{})
	name := fmt.Sprintf("%s_pair%d", prefix, databases.Add(1))
	for _, db := range []**DB{&a, &b} {
		var err error
		if *db, err = c.Open(t.Context(), url, name, schemas); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*db).Close() })
	}
	return a, b
}

// hand does to a collection what somebody at a database browser does.
func (db *DB) hand(t *testing.T, coll string, fn func(ctx context.Context, c *driver.Collection) error) {
	t.Helper()
	err := db.call(t.Context(), func(ctx context.Context, d *driver.Database) error { return fn(ctx, d.Collection(coll)) })
	if err != nil {
		t.Fatal(err)
	}
}

func one(t *testing.T, db *DB, kind, id string) store.Record {
	t.Helper()
	rs, err := db.Get(t.Context(), kind, id)
	if err != nil || len(rs) != 1 {
		t.Fatalf("%s %s: %d records, %v", kind, id, len(rs), err)
	}
	return rs[0]
}

var secrets = []store.Schema{{Kind: "ClientSecrets", Fields: []store.Field{{Name: "status"}}, Watched: true}}

// What a hand edits, adds and removes, and what another node writes, is told like a write of our own, and is a version.
func TestHandsAreWatched(t *testing.T) {
	a, b := pair(t, secrets)
	at := map[*DB]int64{}
	changed := func(db *DB) string {
		t.Helper()
		ids, next, err := db.Changes(t.Context(), "ClientSecrets", at[db])
		if err != nil {
			t.Fatal(err)
		}
		at[db] = next
		return strings.Join(slices.Compact(ids), " ")
	}
	told := func(db *DB, want string) {
		t.Helper()
		began := time.Now()
		got := ""
		eventually(t, "told of "+want, func() bool {
			got += " " + changed(db)
			return slices.Contains(strings.Fields(got), want)
		})
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("told of %s after %v", want, took)
		}
	}
	write := func(db *DB, w store.Write) {
		t.Helper()
		w.Kind = "ClientSecrets"
		if err := db.Commit(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	if changed(a)+changed(b) != "" {
		t.Fatal("changes of an empty kind")
	}
	write(a, store.Write{Action: store.Insert, ID: "ACME", Doc: []byte(`{"name":"Acme","n":1}`), Fields: store.Fields{"status": "active"}})
	if got := changed(a); got != "ACME" {
		t.Fatalf("our own write: %q", got)
	}
	told(b, "ACME")

	set := func(id string, d bson.D) {
		a.hand(t, "ClientSecrets", func(ctx context.Context, c *driver.Collection) error {
			r, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$set", Value: d}})
			if err == nil && r.MatchedCount != 1 {
				err = errors.New("nothing there")
			}
			return err
		})
	}
	set("ACME", bson.D{{Key: "name", Value: "Acme & Co"}, {Key: "n", Value: int32(2)}, {Key: "half", Value: 0.5}, {Key: "at", Value: time.Unix(1700000000, 0)}})
	told(a, "ACME")
	r := one(t, a, "ClientSecrets", "ACME")
	if r.Version != 2 || !sameJSON(t, r.Doc, `{"name":"Acme & Co","n":2,"half":0.5,"at":"2023-11-14T22:13:20Z"}`) {
		t.Errorf("edited: version %d, %s", r.Version, r.Doc)
	}
	err := b.Commit(t.Context(), store.Write{Action: store.Put, Kind: "ClientSecrets", ID: "ACME", IfVersion: 1, Doc: []byte(`{}`)})
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("written over a hand's edit: %v", err)
	}
	told(b, "ACME")

	a.hand(t, "ClientSecrets", func(ctx context.Context, c *driver.Collection) error {
		_, err := c.InsertMany(ctx, []any{bson.D{{Key: "_id", Value: "BETA"}, {Key: "name", Value: "Beta"}, {Key: "whatsapp", Value: bson.D{{Key: "wabaId", Value: "1"}}}},
			bson.D{{Key: "name", Value: "no id"}}})
		return err
	})
	var ids []string
	eventually(t, "both are told of", func() bool {
		if c := changed(b); c != "" {
			ids = append(ids, strings.Fields(c)...)
		}
		return len(ids) >= 2
	})
	if r := one(t, b, "ClientSecrets", "BETA"); r.Version != 1 || !sameJSON(t, r.Doc, `{"name":"Beta","whatsapp":{"wabaId":"1"}}`) {
		t.Errorf("added by hand: version %d, %s", r.Version, r.Doc)
	}
	write(b, store.Write{Action: store.Put, ID: "BETA", IfVersion: 1, Doc: []byte(`{"name":"B"}`)})
	if r := one(t, a, "ClientSecrets", "BETA"); r.Version != 2 {
		t.Errorf("version %d", r.Version)
	}
	for changed(a) != "" {
	}
	a.hand(t, "ClientSecrets", func(ctx context.Context, c *driver.Collection) error {
		_, err := c.DeleteOne(ctx, bson.D{{Key: "_id", Value: "ACME"}})
		return err
	})
	told(a, "ACME")
}

func sameJSON(t *testing.T, a []byte, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

// A record reads well at the server: the members of its JSON stand beside ours.
func TestDocumentsReadWell(t *testing.T) {
	a, _ := pair(t, []store.Schema{{Kind: "people", Fields: []store.Field{{Name: "email", Unique: true}, {Name: "age", Type: store.Int}, {Name: "tags", Multi: true}}}})
	err := a.Commit(t.Context(), store.Write{Action: store.Put, Kind: "people", ID: "per_1", Doc: []byte(`{"name":"Ada","born":{"year":1815,"noted":[true,null,"x"]},"share":0.25}`),
		Fields: store.Fields{"email": "ada@x", "age": int64(36), "tags": []string{"b", "a", "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	a.hand(t, "people", func(ctx context.Context, c *driver.Collection) error {
		var got bson.D
		if err := c.FindOne(ctx, bson.D{{Key: "_id", Value: "per_1"}}).Decode(&got); err != nil {
			return err
		}
		want := bson.D{{Key: "_id", Value: "per_1"}, {Key: "name", Value: "Ada"},
			{Key: "born", Value: bson.D{{Key: "year", Value: int64(1815)}, {Key: "noted", Value: bson.A{true, nil, "x"}}}}, {Key: "share", Value: 0.25},
			{Key: "_fields", Value: bson.D{{Key: "age", Value: int64(36)}, {Key: "email", Value: "ada@x"}, {Key: "tags", Value: bson.A{"a", "b"}}}}, {Key: "_version", Value: int64(1)}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("stored\n%v, want\n%v", got, want)
		}
		return nil
	})
}

func FuzzDocuments(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"a":-0,"b":1.0,"c":1e400,"d":[1,[2,{}]],"e":{"$x":1}}`, `{"_id":1}`, `[1]`, `"x"`, `{"a":1,"a":2}`, `{"n":9007199254740993}`, `{"é":"\ud800<>&\u2028"}`, `{"a":1} `, `{"a":1}x`, ``, `{"":1}`, `{"a":{"":1,"b.c":2}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		if !json.Valid([]byte(doc)) {
			return
		}
		w := &store.Write{ID: "a", Doc: []byte(doc)}
		s := &writeStep{Write: w}
		raw := s.whole(3, "")
		if err := raw.Validate(); err != nil {
			t.Fatal(err)
		}
		r, err := record(raw)
		if err != nil || r.ID != "a" || r.Version != 3 {
			t.Fatal(r, err)
		}
		if got, want := value(t, r.Doc), value(t, []byte(doc)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s came back as %s", doc, r.Doc)
		}
	})
}

func value(t *testing.T, doc []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(doc)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return v
}

var sequenced = []store.Schema{{Kind: "news", Sequenced: true}, {Kind: "plain"}}

func item(id string) store.Write {
	return store.Write{Action: store.Insert, Kind: "news", ID: id, Doc: []byte(`{}`)}
}

func read(t *testing.T, db *DB) (out []string) {
	t.Helper()
	rs, err := db.Find(t.Context(), store.Query{Kind: "news", Order: "seq", Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		out = append(out, fmt.Sprintf("%d %s", r.Seq, r.ID))
	}
	return out
}

// A node that dies while it numbers records leaves no hole: readers see what is before it, and after a moment number the rest.
func TestNumbersOfADeadNode(t *testing.T) {
	a, b := pair(t, sequenced)
	ctx := t.Context()
	if err := a.Commit(ctx, item("one")); err != nil {
		t.Fatal(err)
	}
	// Dead after the plan: numbers 2 and 3 are taken.
	left := plan{From: 2, For: []unnumbered{{"news", "two", "m.0"}, {"news", "three", "m.1"}}}
	a.hand(t, "news", func(ctx context.Context, c *driver.Collection) error {
		_, err := c.InsertMany(ctx, []any{
			bson.D{{Key: "_id", Value: "two"}, {Key: versionKey, Value: int64(1)}, {Key: pendingKey, Value: "m.0"}},
			bson.D{{Key: "_id", Value: "three"}, {Key: versionKey, Value: int64(1)}, {Key: pendingKey, Value: "m.1"}},
			bson.D{{Key: "_id", Value: "orphan"}, {Key: versionKey, Value: int64(1)}, {Key: pendingKey, Value: "o.0"}}, // and one dead before
		})
		return err
	})
	a.hand(t, ownColl, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: numbersID}}, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: int64(3)}, {Key: "plans.dead", Value: left}}}})
		return err
	})
	if err := b.Commit(ctx, item("four")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, b); fmt.Sprint(got) != "[1 one]" {
		t.Errorf("before the plan is given up: %q", got)
	}
	old := func(db *DB) { // time goes by
		db.numbers.seen.Lock()
		defer db.numbers.seen.Unlock()
		for k := range db.numbers.since {
			db.numbers.since[k] = time.Now().Add(-time.Minute)
		}
		db.numbers.orphans = time.Time{}
	}
	old(b)
	if got := read(t, b); fmt.Sprint(got) != "[1 one 2 two 3 three 4 four 5 orphan]" {
		t.Errorf("afterwards: %q", got)
	}
	// The dead was only slow: it finds nothing left to do.
	a.hand(t, "news", func(ctx context.Context, c *driver.Collection) error {
		return carryOut(ctx, c.Database(), "dead", left)
	})
	if got := read(t, a); fmt.Sprint(got) != "[1 one 2 two 3 three 4 four 5 orphan]" {
		t.Errorf("after the late: %q", got)
	}
}

// Two nodes number the records of one client: no number twice, none missing, and readers of either miss nothing.
func TestNumbersOfTwoNodes(t *testing.T) {
	a, b := pair(t, sequenced)
	const writers, each = 4, 15
	var wg sync.WaitGroup
	for _, db := range []*DB{a, b} {
		for g := range writers {
			wg.Go(func() {
				for i := range each {
					if err := db.Commit(t.Context(), item(fmt.Sprintf("%p-%d-%d", db, g, i))); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	last, seen := int64(0), 0
	for end := time.Now().Add(time.Minute); seen < 2*writers*each && !t.Failed(); {
		rs, err := b.Find(t.Context(), store.Query{Kind: "news", Order: "seq", Limit: 9, After: &store.Cursor{Value: last}})
		if err != nil || time.Now().After(end) {
			t.Fatal(seen, err)
		}
		for _, r := range rs {
			if r.Seq != last+1 {
				t.Errorf("%d follows %d", r.Seq, last)
			}
			last = r.Seq
			seen++
		}
	}
	wg.Wait()
}

// A commit whose conditions do not hold leaves no prefix, also where there are no transactions.
func TestRefusedCommitsLeaveNoPrefix(t *testing.T) {
	a, _ := pair(t, sequenced)
	ctx := t.Context()
	if err := put(ctx, a, "a"); err != nil {
		t.Fatal(err)
	}
	w := func(act store.Action, id string, v int64) store.Write {
		return store.Write{Action: act, Kind: "plain", ID: id, IfVersion: v, Doc: []byte(`{}`)}
	}
	for i, bad := range []store.Write{w(store.Put, "a", 2), w(store.Delete, "a", 2), w(store.Check, "a", 2), w(store.Check, "a", 0), w(store.Put, "absent", 1)} {
		if err := a.Commit(ctx, item("n"), w(store.Insert, "b", 0), bad); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%d: %v", i, err)
		}
		if n, err := a.Count(ctx, store.Query{Kind: "plain"}); err != nil || n != 1 {
			t.Errorf("%d: %d records, %v", i, n, err)
		}
		if n, err := a.Count(ctx, store.Query{Kind: "news"}); err != nil || n != 0 {
			t.Errorf("%d: %d news, %v", i, n, err)
		}
	}
}

// What a database was made for decides whether it opens.
func TestSchemas(t *testing.T) {
	c, url, prefix := testClusters(t, Config{})
	name := prefix + "_schema"
	fields := func(fs ...store.Field) []store.Schema { return []store.Schema{{Kind: "things", Fields: fs}} }
	open := func(s []store.Schema) error {
		db, err := c.Open(t.Context(), url, name, s)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		id := fmt.Sprint(databases.Add(1))
		return db.Commit(t.Context(), store.Write{Action: store.Insert, Kind: "things", ID: id, Doc: []byte(`{}`), Fields: store.Fields{"name": "same"}})
	}
	for range 2 {
		if err := open(fields(store.Field{Name: "name"})); err != nil {
			t.Fatal(err)
		}
	}
	for what, s := range map[string][]store.Schema{
		"another type":     fields(store.Field{Name: "name", Type: store.Int}),
		"several values":   fields(store.Field{Name: "name", Multi: true}),
		"values twice":     fields(store.Field{Name: "name", Unique: true}),
		"numbers from now": {{Kind: "things", Fields: []store.Field{{Name: "name"}}, Sequenced: true}},
		"no name":          {{Kind: "th.ings"}},
		"ours":             fields(store.Field{Name: "_id"}),
		"twice":            {{Kind: "x"}, {Kind: "x"}},
		"order of several": {{Kind: "x", Fields: []store.Field{{Name: "m", Multi: true}}, Orders: [][]string{{"m"}}}},
	} {
		err := open(s)
		if err == nil || errors.Is(err, store.ErrUnavailable) && (what != "values twice" || servertest.IsMongod(t)) { // another make has no code for it
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := open(fields(store.Field{Name: "name"}, store.Field{Name: "more", Unique: true})); err != nil {
		t.Error(err)
	}
	for range 2 { // it is unique no more
		if err := open(fields(store.Field{Name: "name"}, store.Field{Name: "more"})); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a.b", "a b", strings.Repeat("x", 64)} {
		if _, err := c.Open(t.Context(), url, bad, nil); err == nil {
			t.Errorf("opened a database %q", bad)
		}
	}
}

// The server's time is told, whatever this machine's clock says, and does not go back.
func TestServerClock(t *testing.T) {
	a, _ := pair(t, nil)
	if err := a.clock.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	if off := time.Since(a.clock.now()); off.Abs() > 5*time.Second {
		t.Errorf("the server's clock is off by %v", off) // it is this machine's
	}
	last := a.clock.now()
	a.clock.mu.Lock()
	a.clock.said = a.clock.said.Add(-time.Second) // the server was corrected
	a.clock.mu.Unlock()
	if now := a.clock.now(); now.Before(last) {
		t.Errorf("it went back by %v", last.Sub(now))
	}
	a.clock.mu.Lock()
	a.clock.said = a.clock.said.Add(-time.Hour) // another server, with another clock
	a.clock.mu.Unlock()
	if now := a.clock.now(); last.Sub(now) < 50*time.Minute {
		t.Errorf("another server's clock is not believed")
	}
}

// Who asks every 2 s is told of what a hand wrote by the next time, also where comparing takes long.
func TestHandsAreWatchedThoughComparingTakesLong(t *testing.T) {
	db, _ := pair(t, secrets)
	_, at, err := db.Changes(t.Context(), "ClientSecrets", 0)
	if err != nil {
		t.Fatal(err)
	}
	w := db.watched["ClientSecrets"]
	db.hand(t, "ClientSecrets", func(ctx context.Context, c *driver.Collection) error {
		_, err := c.InsertOne(ctx, bson.D{{Key: "_id", Value: "ACME"}})
		return err
	})
	w.mu.Lock()
	w.looked, w.took = time.Now().Add(-1900*time.Millisecond), time.Second // the next tick, after a comparison of a second
	w.mu.Unlock()
	if ids, _, err := db.Changes(t.Context(), "ClientSecrets", at); err != nil || !slices.Contains(ids, "ACME") {
		t.Errorf("told of %v, %v", ids, err)
	}
}
