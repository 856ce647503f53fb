package app_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/servertest"
)

// databaseOf is a client's database at an address of its own, as a hand sees it.
func databaseOf(t *testing.T, url, code string) *mongo.Database {
	t.Helper()
	c, err := mongo.Connect(options.Client().ApplyURI(url))
	must(t, err)
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c.Database(url[strings.LastIndex(url, "/")+1:] + "_t_" + strings.ToLower(code))
}

// rulesIn counts the rules that a database holds.
func rulesIn(t *testing.T, d *mongo.Database) int64 {
	t.Helper()
	n, err := d.Collection("automationRules").CountDocuments(t.Context(), bson.D{})
	must(t, err)
	return n
}

// Two installations name one database for a client of one code. The backup of who came second leaves it out; and a restore
// writes over it neither where it meets it first, nor where it had begun to write there itself before the other took it.
func TestForeignDatabaseInMongoDBBackup(t *testing.T) {
	t.Parallel()
	mine, theirs, into := servertest.Mongo(t), servertest.Mongo(t), servertest.Mongo(t)
	shared, first, last := servertest.Mongo(t), servertest.Mongo(t), servertest.Mongo(t)
	meta, ctx := newMeta(t), t.Context()
	on := func(url string) *engine {
		return start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, url) })
	}
	conf := func(url string) app.Config {
		cfg := config(t.TempDir(), meta.URL)
		useMongo(&cfg, url)
		must(t, cfg.Resolve(func(string) string { return "" }))
		return cfg
	}
	backup := func(url string) (string, app.Manifest) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "backup.tar.gz")
		_, m, err := app.Backup(ctx, conf(url), app.BackupOptions{To: out})
		must(t, err)
		return out, m
	}
	n := 0
	add := func(e *engine, code, own string) *client {
		t.Helper()
		n++
		e.own = own
		return e.addClient(code, n)
	}
	rule := func(c *client) { c.call("POST", "/api/crm/automations/rules", helloRule()).want(201) }

	them := on(theirs)
	rule(add(them, "SHARED", shared))
	us := on(mine)
	add(us, "SHARED", shared).call("GET", "/api/crm/automations/rules", nil).problem(503, "client.unavailable")
	rule(add(us, "FIRST", first))
	rule(add(us, "LAST", last))
	us.stop()
	out, m := backup(mine)
	clients := map[string]bool{}
	for _, f := range m.Files {
		if rest, ok := strings.CutPrefix(f.Name, "mongodb/clients/"); ok {
			code, _, _ := strings.Cut(rest, "/")
			clients[code] = true
		}
	}
	if m.Clients != 2 || clients["SHARED"] || !clients["FIRST"] || !clients["LAST"] {
		t.Errorf("the backup holds %d clients' databases: %v", m.Clients, clients)
	}

	// The others come to both databases while they are empty: to LAST's before the restore, to FIRST's when half of it is done.
	firstDB, lastDB := databaseOf(t, first, "FIRST"), databaseOf(t, last, "LAST")
	must(t, firstDB.Drop(ctx))
	must(t, lastDB.Drop(ctx))
	rule(add(them, "LAST", last))
	to := conf(into)
	refused := func(code string, d *mongo.Database, rules int64) {
		t.Helper()
		_, err := app.Restore(ctx, to, out, false)
		if err == nil || !strings.Contains(err.Error(), "client "+code) || !strings.Contains(err.Error(), "belongs to client "+code+" of another installation") {
			t.Errorf("restored over another's: %v", err)
		}
		if got := rulesIn(t, d); got != rules {
			t.Errorf("the other's database has %d rules, had %d", got, rules)
		}
	}
	refused("LAST", lastDB, 1)
	if n := rulesIn(t, firstDB); n != 1 {
		t.Fatalf("the restore had put back %d rules before it was refused", n)
	}
	rule(add(them, "FIRST", first))
	refused("FIRST", firstDB, 2)

	// Back in its owner's hands, it is in the owner's backup.
	them.stop()
	if _, m := backup(theirs); m.Clients != 3 || !slices.ContainsFunc(m.Files, func(f app.Entry) bool { return f.Name == "mongodb/clients/SHARED/automationRules.bson" }) {
		t.Errorf("the owner's backup holds %d clients' databases", m.Clients)
	}
}

// A move goes to no database that holds something and says not whose it is, and makes it nobody's. An old copy that became
// another's is not dropped, wherever its client is by then.
func TestMoveAndOldCopyOfAnotherOnMongoDB(t *testing.T) {
	t.Parallel()
	urls := []string{servertest.Mongo(t), servertest.Mongo(t), servertest.Mongo(t)}
	private := func(c *app.Config) { c.AllowPrivate = true }
	e, other := start(t, t.TempDir(), newMeta(t), private), start(t, t.TempDir(), newMeta(t), private)
	ctx := t.Context()

	e.addClient("BETA", 2)
	unmarked := databaseOf(t, urls[0], "BETA")
	_, err := unmarked.Collection("leads").InsertOne(ctx, bson.M{"_id": "lead_1"})
	must(t, err)
	id := e.move("BETA", urls[0])
	eventuallyIn(t, time.Minute, "the move is refused", func() string {
		v := e.admin("GET", "/api/admin/jobs/"+id, nil).want(200)
		return unless(v.get("state") == "dead" && strings.Contains(string(v.Body), "move.target_not_empty"), string(v.Body))
	})
	if names, err := unmarked.ListCollectionNames(ctx, bson.D{}); err != nil || len(names) != 1 || names[0] != "leads" {
		t.Errorf("the refused move left %v, %v", names, err)
	}

	for i, to := range []any{urls[2], nil} { // to MongoDB, and into a file
		code, from := []string{"ACME", "GAMMA"}[i], urls[1]
		e.own = from
		c := e.addClient(code, 3+i)
		e.own = ""
		c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
		e.moved(code, e.move(code, to), 2*time.Minute)
		old := databaseOf(t, from, code)
		_, err := old.Collection("_ecod").DeleteOne(ctx, bson.M{"_id": "owner"}) // as docs/operating.md says it is given away
		must(t, err)
		other.own = from
		taken := other.addClient(code, 3+i)
		if rules := taken.all("/api/crm/automations/rules"); len(rules) != 1 {
			t.Fatalf("who took the old copy over has %d rules", len(rules))
		}
		e.admin("DELETE", "/api/clients/"+code+"/move/old-copy", nil).problem(409, "client.not_its_database")
		if n := rulesIn(t, old); n != 1 {
			t.Errorf("another's database has %d rules", n)
		}
		if rules := c.all("/api/crm/automations/rules"); len(rules) != 1 {
			t.Errorf("the moved client has %d rules", len(rules))
		}
	}
}
