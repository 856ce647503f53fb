package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

// hand is a connection as the sqlite3 shell has it: none of the engine's settings.
func hand(t *testing.T, path string) func(sql string) error {
	t.Helper()
	c, err := openConn(context.Background(), path, "PRAGMA busy_timeout = 5000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c.script
}

func get(t *testing.T, db *DB, kind, id string) store.Record {
	t.Helper()
	rs, err := db.Get(context.Background(), kind, id)
	if err != nil || len(rs) != 1 {
		t.Fatalf("%s %s: %d records, %v", kind, id, len(rs), err)
	}
	return rs[0]
}

func found(t *testing.T, db *DB, kind string, terms ...store.Term) string {
	t.Helper()
	rs, err := db.Find(context.Background(), store.Query{Kind: kind, Where: terms})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range rs {
		ids = append(ids, r.ID)
	}
	return strings.Join(ids, " ")
}

// TestByHand: an operator writes into a watched kind while the engine runs.
func TestByHand(t *testing.T) {
	ctx := context.Background()
	kind := store.Schema{Kind: "ClientSecrets", Watched: true, Fields: []store.Field{
		{Name: "status"}, {Name: "phoneNumberIds", Multi: true, Unique: true},
	}}
	db := openFresh(t, []store.Schema{kind, {Kind: "other", Fields: []store.Field{{Name: "tags", Multi: true}}}}).(*DB)
	by := hand(t, db.f.path)
	at := int64(0)
	do := func(sql string) {
		t.Helper()
		if err := by(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	changed := func(want string) {
		t.Helper()
		ids, next, err := db.Changes(ctx, "ClientSecrets", at)
		if got := strings.Join(ids, " "); err != nil || got != want {
			t.Fatalf("changed %q, %v; want %q", got, err, want)
		}
		at = next
	}
	put := func(id string, version int64, numbers ...string) error {
		return db.Commit(ctx, store.Write{Action: store.Put, Kind: "ClientSecrets", ID: id, IfVersion: version, Doc: []byte(`{"put":1}`),
			Fields: store.Fields{"status": "active", "phoneNumberIds": numbers}})
	}

	do(`INSERT INTO ClientSecrets(_id, doc) VALUES('ACME', '{"name":"Acme"}')`)
	changed("ACME")
	if r := get(t, db, "ClientSecrets", "ACME"); r.Version != 1 || string(r.Doc) != `{"name":"Acme"}` {
		t.Errorf("%+v", r)
	}
	if got := found(t, db, "ClientSecrets"); got != "ACME" {
		t.Errorf("found %q", got)
	}
	if got := found(t, db, "ClientSecrets", store.Where("status", store.Eq, "active")); got != "" {
		t.Errorf("by a field that nobody set: %q", got)
	}
	if err := put("ACME", 1, "1", "2"); err != nil {
		t.Fatal(err)
	}
	changed("ACME")
	if got := found(t, db, "ClientSecrets", store.Where("phoneNumberIds", store.Eq, "2")); got != "ACME" {
		t.Errorf("after the put: %q", got)
	}

	do(`UPDATE ClientSecrets SET doc = '{"name":"Acme 2"}' WHERE _id = 'ACME'`)
	changed("ACME")
	if r := get(t, db, "ClientSecrets", "ACME"); r.Version != 3 {
		t.Errorf("a hand's update made version %d", r.Version)
	}
	if err := put("ACME", 2); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a put that did not see the hand's update: %v", err)
	}
	do(`UPDATE ClientSecrets SET doc = '{}', version = 9 WHERE _id = 'ACME'`)
	do(`UPDATE ClientSecrets SET version = 1`)
	if r := get(t, db, "ClientSecrets", "ACME"); r.Version != 10 {
		t.Errorf("the hand's version went to %d", r.Version)
	}
	changed("ACME")
	if err := by(`UPDATE ClientSecrets SET doc = '{"name":' WHERE _id = 'ACME'`); err == nil {
		t.Error("a document that is no JSON was taken")
	}
	changed("")

	do(`INSERT INTO ClientSecrets(_id, doc) VALUES('B', '{}'), ('C', '{}')`)
	changed("B C")
	do(`UPDATE ClientSecrets SET _id = 'ACME2' WHERE _id = 'ACME'`)
	if ids, next, err := db.Changes(ctx, "ClientSecrets", at); err != nil || !strings.Contains(fmt.Sprint(ids), "ACME2") || !strings.Contains(fmt.Sprint(ids), "ACME ") && ids[len(ids)-1] != "ACME" {
		t.Errorf("a new id: %q, %v", ids, err)
	} else {
		at = next
	}
	if got := found(t, db, "ClientSecrets", store.Where("phoneNumberIds", store.Eq, "2")); got != "ACME2" {
		t.Errorf("after the new id: %q", got)
	}
	do(`INSERT OR REPLACE INTO ClientSecrets(_id, doc) VALUES('B', '{"r":1}')`)
	changed("B")
	do(`INSERT OR IGNORE INTO ClientSecrets(_id, doc) VALUES('B', '{}'), ('D', '{}')`)
	changed("D")
	do(`DELETE FROM ClientSecrets WHERE _id = 'ACME2'`)
	changed("ACME2")
	if err := put("B", 0, "1", "2"); err != nil {
		t.Errorf("numbers of a record that a hand deleted: %v", err)
	}
	changed("B")
	do(`BEGIN; DELETE FROM ClientSecrets; ROLLBACK`)
	changed("")
	do(`DELETE FROM ClientSecrets WHERE _id = 'B'; DELETE FROM ClientSecrets`)
	changed("B C D")
	ids, _, err := db.Changes(ctx, "ClientSecrets", 0)
	if got := strings.Join(ids, " "); err != nil || got != "ACME ACME2 B C D" {
		t.Errorf("the log kept %q, %v", got, err)
	}

	// Deleting by hand is clean in a kind that nobody watches too.
	if err := db.Commit(ctx, store.Write{Action: store.Insert, Kind: "other", ID: "x", Fields: store.Fields{"tags": []string{"t"}}}); err != nil {
		t.Fatal(err)
	}
	do(`DELETE FROM other`)
	if err := db.Commit(ctx, store.Write{Action: store.Insert, Kind: "other", ID: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := found(t, db, "other", store.Where("tags", store.Eq, "t")); got != "" {
		t.Errorf("a tag outlived its record: %q", got)
	}
}

// TestHandHoldsTheLock: while a shell sits in a transaction, writes wait for it; readers do not.
func TestHandHoldsTheLock(t *testing.T) {
	db := openFresh(t, []store.Schema{{Kind: "k"}}).(*DB)
	by := hand(t, db.f.path)
	insert := func(ctx context.Context, id string) error {
		return db.Commit(ctx, store.Write{Action: store.Insert, Kind: "k", ID: id})
	}
	if err := errors.Join(insert(context.Background(), "a"), by("BEGIN IMMEDIATE; INSERT INTO k(_id, doc) VALUES('hand', '{}')")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waiting, gone := make(chan error, 1), make(chan error, 1)
	go func() { waiting <- insert(context.Background(), "b") }()
	go func() { gone <- insert(ctx, "c") }()
	if got := found(t, db, "k"); got != "a" {
		t.Errorf("read %q", got)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that gave up: %v", err)
	}
	select {
	case err := <-waiting:
		t.Errorf("wrote into a transaction of somebody else: %v", err)
	default:
	}
	if err := by("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if got := found(t, db, "k"); got != "a b hand" {
		t.Errorf("read %q", got)
	}
}

func TestReopen(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "a.db")
	v1 := store.Schema{Kind: "things", Fields: []store.Field{{Name: "name"}, {Name: "old"}, {Name: "tags", Multi: true}}, Orders: [][]string{{"name"}}}
	v2 := store.Schema{Kind: "things", Fields: []store.Field{
		{Name: "name", Unique: true}, {Name: "rank", Type: store.Int}, {Name: "tags", Multi: true, Unique: true}, {Name: "words", Multi: true},
	}, Orders: [][]string{{"name", "rank"}}, Watched: true}
	use := func(s store.Schema, more ...store.Schema) *DB {
		t.Helper()
		db, err := Open(ctx, path, append(more, s))
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	insert := func(db *DB, id string, f store.Fields) error {
		return db.Commit(ctx, store.Write{Action: store.Insert, Kind: "things", ID: id, Doc: []byte(`{}`), Fields: f})
	}
	db := use(v1)
	if err := errors.Join(insert(db, "a", store.Fields{"name": "x", "tags": []string{"1"}}), insert(db, "b", store.Fields{"name": "y"}), db.Close()); err != nil {
		t.Fatal(err)
	}

	db = use(v1)
	if db.f.w != nil {
		t.Error("opening a file that is up to date wrote")
	}
	if got := found(t, db, "things", store.Where("name", store.Eq, "x")); got != "a" {
		t.Errorf("found %q", got)
	}
	db.Close()

	db = use(v2, store.Schema{Kind: "another", Sequenced: true})
	if got := found(t, db, "things", store.Where("rank", store.Ge, int64(0))); got != "" {
		t.Errorf("by a new field: %q", got)
	}
	if err := insert(db, "c", store.Fields{"name": "x"}); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("a field that became unique: %v", err)
	}
	if err := insert(db, "c", store.Fields{"tags": []string{"1"}}); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("a multi field that became unique: %v", err)
	}
	if err := insert(db, "c", store.Fields{"rank": int64(1), "words": []string{"w"}}); err != nil {
		t.Fatal(err)
	}
	if ids, _, err := db.Changes(ctx, "things", 0); err != nil || strings.Join(ids, " ") != "a b c" {
		t.Errorf("a kind that became watched: %q, %v", ids, err)
	}
	if err := db.Commit(ctx, store.Write{Action: store.Insert, Kind: "another", ID: "n", Doc: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	db.Close()

	db = use(v1) // an older release again
	if err := errors.Join(insert(db, "d", store.Fields{"name": "x"}), db.Close()); err != nil {
		t.Errorf("a field that is unique no more: %v", err)
	}
	if _, err := Open(ctx, path, []store.Schema{v2}); err == nil || errors.Is(err, store.ErrDuplicate) {
		t.Errorf("unique over values that are not: %v", err)
	}
	for name, s := range map[string]store.Schema{
		"another type":     {Kind: "things", Fields: []store.Field{{Name: "name", Type: store.Int}}},
		"sequenced now":    {Kind: "things", Sequenced: true},
		"sequenced before": {Kind: "another"},
	} {
		if _, err := Open(ctx, path, []store.Schema{s}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	db = use(v1)
	if got := found(t, db, "things"); got != "a b c d" {
		t.Errorf("after refused changes: %q", got)
	}
	db.Close()
}

// TestRestored: a file that came back from a backup without its log mode gets it again.
func TestRestored(t *testing.T) {
	db := openFresh(t, planned).(*DB)
	path := filepath.Join(t.TempDir(), "restored.db")
	if err := hand(t, db.f.path)("VACUUM INTO '" + path + "'"); err != nil {
		t.Fatal(err)
	}
	restored, err := Open(context.Background(), path, planned)
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	if got := found(t, restored, "news"); got != "" {
		t.Errorf("found %q", got)
	}
	if got := pragma(t, restored.f, "journal_mode"); got != "wal" {
		t.Errorf("journal mode %s", got)
	}
}

func TestNumbersOutliveTheirRecords(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "a.db")
	news := []store.Schema{{Kind: "news", Sequenced: true}}
	for i := int64(1); i <= 3; i++ {
		db, err := Open(ctx, path, news)
		if err != nil {
			t.Fatal(err)
		}
		write := func(a store.Action) error {
			return db.Commit(ctx, store.Write{Action: a, Kind: "news", ID: "n", Doc: []byte(`{}`)})
		}
		if err := write(store.Insert); err != nil {
			t.Fatal(err)
		}
		if r := get(t, db, "news", "n"); r.Seq != i {
			t.Errorf("number %d, want %d", r.Seq, i)
		}
		if err := errors.Join(write(store.Delete), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	field := func(f ...store.Field) store.Schema { return store.Schema{Kind: "k", Fields: f} }
	for name, schemas := range map[string][]store.Schema{
		"no name":           {{}},
		"no identifier":     {{Kind: `a" (x); --`}},
		"underscore":        {{Kind: "_meta"}},
		"twice":             {{Kind: "a"}, {Kind: "a"}},
		"twice but case":    {{Kind: "aB"}, {Kind: "ab"}},
		"own column":        {field(store.Field{Name: "doc"})},
		"own column's case": {field(store.Field{Name: "Version"})},
		"field twice":       {field(store.Field{Name: "a"}, store.Field{Name: "A"})},
		"multi integers":    {field(store.Field{Name: "a", Multi: true, Type: store.Int})},
		"unknown order":     {{Kind: "k", Orders: [][]string{{"x"}}}},
		"order of a multi":  {{Kind: "k", Fields: []store.Field{{Name: "a", Multi: true}}, Orders: [][]string{{"a"}}}},
	} {
		if db, err := Open(context.Background(), filepath.Join(t.TempDir(), "a.db"), schemas); err == nil {
			db.Close()
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Open(context.Background(), t.TempDir(), nil); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a folder: %v", err)
	}
}
