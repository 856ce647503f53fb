package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

// Open opens an empty database that knows these kinds; it is closed when the test ends.
type Open func(t *testing.T, schemas []store.Schema) store.DB

// Run holds an engine's DB against the contract. Every sentence of package store's comments on DB, Schema, Query
// and Write has its test here; what the comments leave open, these tests settle:
//
//   - a record deleted and made again has version 1 again;
//   - an id that is asked twice of Get comes twice;
//   - a cursor in the order "seq" goes by the number alone;
//   - In on a multi field means one of them, as Eq does; other comparisons with it are errors.
func Run(t *testing.T, open func(t *testing.T, schemas []store.Schema) store.DB) {
	for _, c := range []struct {
		name string
		run  func(*dbTest)
	}{
		{"Get", (*dbTest).get},
		{"Insert", (*dbTest).insert},
		{"Ensure", (*dbTest).ensure},
		{"Put", (*dbTest).put},
		{"PutStill", (*dbTest).still},
		{"Delete", (*dbTest).remove},
		{"Check", (*dbTest).check},
		{"UniqueWhenPresent", (*dbTest).unique},
		{"UniqueMulti", (*dbTest).uniqueMulti},
		{"UniqueHandedOver", (*dbTest).handedOver},
		{"CommitInOrder", (*dbTest).inOrder},
		{"CommitStopsAtConflict", (*dbTest).stops},
		{"Documents", (*dbTest).documents},
		{"Kind", (*dbTest).kind},

		{"FindOperators", (*dbTest).operators},
		{"FindMulti", (*dbTest).multi},
		{"FindMultiOrdered", (*dbTest).multiOrdered},
		{"FindManyValues", (*dbTest).manyValues},
		{"FindAbsent", (*dbTest).absent},
		{"FindPages", (*dbTest).pages},
		{"FindPagesWhileWritten", (*dbTest).pagesMoving},
		{"FindLikeTheModel", (*dbTest).model},
		{"FindBytes", (*dbTest).bytes},
		{"FindRefuses", (*dbTest).findRefuses},
		{"Integers", (*dbTest).integers},

		{"Limits", (*dbTest).limits},
		{"LimitOfFind", (*dbTest).findLimit},
		{"CommitRefuses", (*dbTest).commitRefuses},

		{"RaceOfIncrements", (*dbTest).increments},
		{"RaceForUnique", (*dbTest).uniqueRace},
		{"RaceForID", (*dbTest).idRace},
		{"RaceOfPuts", (*dbTest).putRace},
		{"ReadersSeeWholeRecords", (*dbTest).wholeRecords},

		{"Sequence", (*dbTest).sequence},
		{"SequenceGapless", (*dbTest).gapless},
		{"SequenceInCommitOrder", (*dbTest).commitOrder},
		{"Changes", (*dbTest).changes},
		{"ChangesPages", (*dbTest).changesPages},
		{"ChangesMissNothing", (*dbTest).changesFollow},

		{"CopyKeepsAll", (*dbTest).copyKeepsAll},
		{"CopyPages", (*dbTest).copyPages},
		{"FillRefuses", (*dbTest).fillRefuses},
		{"FillGoesOn", (*dbTest).fillGoesOn},

		{"Cancelled", (*dbTest).cancelled},
		{"Closed", (*dbTest).closed},
		{"CloseLetsFinish", (*dbTest).closeWaits},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(&dbTest{T: t, DB: open(t, schemas), ctx: context.Background()}) })
	}
}

// RunAtomic is Run's addition for engines whose Commit applies all of its writes or none.
func RunAtomic(t *testing.T, open func(t *testing.T, schemas []store.Schema) store.DB) {
	for _, c := range []struct {
		name string
		run  func(*dbTest)
	}{
		{"NothingOfAConflict", (*dbTest).nothing},
		{"NothingInBetween", (*dbTest).between},
		{"AtomicUnderLoad", (*dbTest).transfers},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(&dbTest{T: t, DB: open(t, schemas), ctx: context.Background()}) })
	}
}

var schemas = []store.Schema{
	{
		Kind: "things",
		Fields: []store.Field{
			{Name: "name", Still: true},
			{Name: "group"},
			{Name: "rank", Type: store.Int},
			{Name: "email", Unique: true},
			{Name: "number", Type: store.Int, Unique: true, Still: true},
			{Name: "tags", Multi: true},
			{Name: "handles", Multi: true, Unique: true},
		},
		Orders: [][]string{{"group", "rank"}, {"name"}, {"rank"}},
	},
	{Kind: "plain"},
	{Kind: "news", Fields: []store.Field{{Name: "topic"}, {Name: "key", Unique: true}, {Name: "words", Multi: true}}, Sequenced: true},
	{Kind: "events", Sequenced: true},
	{Kind: "ClientSecrets", Fields: []store.Field{{Name: "numbers", Multi: true, Unique: true}}, Watched: true},
	{Kind: "watchedToo", Watched: true},
}

// dbTest is one test of Run with its database.
type dbTest struct {
	*testing.T
	store.DB
	ctx context.Context
}

type fields = store.Fields

func thing(a store.Action, id string, f fields) store.Write {
	return store.Write{Action: a, Kind: "things", ID: id, Doc: []byte(`{"id":"of the document"}`), Fields: f}
}

func (w *dbTest) commit(writes ...store.Write) {
	w.Helper()
	if err := w.Commit(w.ctx, writes...); err != nil {
		w.Fatalf("commit: %v", err)
	}
}

func (w *dbTest) refuse(want error, writes ...store.Write) {
	w.Helper()
	if err := w.Commit(w.ctx, writes...); !errors.Is(err, want) {
		w.Fatalf("commit: %v, want %v", err, want)
	}
}

// record reads one record that must be there.
func (w *dbTest) record(kind, id string) store.Record {
	w.Helper()
	rs, err := w.Get(w.ctx, kind, id)
	if err != nil {
		w.Fatal(err)
	}
	if len(rs) != 1 || rs[0].ID != id {
		w.Fatalf("get %s %q: %d records", kind, id, len(rs))
	}
	return rs[0]
}

func (w *dbTest) is(kind, id string, version int64, doc string) {
	w.Helper()
	if r := w.record(kind, id); r.Version != version || !sameJSON(r.Doc, []byte(doc)) {
		w.Fatalf("%s %q: version %d, %.200s; want version %d, %.200s", kind, id, r.Version, r.Doc, version, doc)
	}
}

func (w *dbTest) isNot(kind string, ids ...string) {
	w.Helper()
	rs, err := w.Get(w.ctx, kind, ids...)
	if err != nil {
		w.Fatal(err)
	}
	for _, r := range rs {
		w.Errorf("%s %q is there", kind, r.ID)
	}
}

func (w *dbTest) find(q store.Query) []store.Record {
	w.Helper()
	rs, err := w.Find(w.ctx, q)
	if err != nil {
		w.Fatalf("find %+v: %v", q, err)
	}
	return rs
}

// found holds the ids that a query of things finds, and their number, against those wanted.
func (w *dbTest) found(q store.Query, want ...string) {
	w.Helper()
	if q.Kind == "" {
		q.Kind = "things"
	}
	got := recordIDs(w.find(q))
	if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		w.Errorf("find %+v:\n got %q\nwant %q", q, got, want)
	}
	if q.After != nil || q.Limit > 0 {
		return
	}
	if n, err := w.Count(w.ctx, q); err != nil || n != int64(len(want)) {
		w.Errorf("count %+v: %d, %v; want %d", q, n, err, len(want))
	}
}

func where(terms ...store.Term) store.Query { return store.Query{Where: terms} }

func recordIDs(rs []store.Record) []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.ID
	}
	return out
}

// sameJSON compares documents as values: an engine may keep them in a form of its own, but every number to its last digit.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	for doc, v := range map[*[]byte]*any{&a: &x, &b: &y} {
		d := json.NewDecoder(bytes.NewReader(*doc))
		d.UseNumber()
		if err := d.Decode(v); err != nil {
			return false
		}
	}
	return reflect.DeepEqual(x, y)
}
