package app_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// journeys are the tests that are run on MongoDB, too, as they are.
var journeys = map[string]func(*testing.T){
	"Event":       TestEventJourney,
	"Campaign":    TestEmailCampaign,
	"Appointment": TestAppointmentThroughTheCalendar,
	"Media":       TestMediaUpload,
	"MediaIn":     TestMediaComesIn,
	"Import":      TestImport,
	"Realtime":    TestRealtime,
	"Suspend":     TestSuspend,
}

const mongoSuite = "TestJourneysOnMongoDB/"

// TestJourneysOnMongoDB runs the main journeys with the services database and the clients' on MongoDB.
func TestJourneysOnMongoDB(t *testing.T) {
	servertest.Mongo(t) // or be skipped once
	for name, journey := range journeys {
		t.Run(name, journey)
	}
}

// storages are the addresses of the services databases of data folders whose engines are on MongoDB: who starts on a
// folder again finds what was there.
var storages sync.Map

var mongoKeys = secret.Generate("k1")

// onMongo puts an engine of a test of the suite on MongoDB.
func onMongo(t *testing.T, cfg *app.Config) {
	if !strings.HasPrefix(t.Name(), mongoSuite) {
		return
	}
	url, ok := storages.Load(cfg.DataDir)
	if !ok {
		url, _ = storages.LoadOrStore(cfg.DataDir, servertest.Mongo(t))
	}
	useMongo(cfg, url.(string))
	t.Cleanup(func() { // which ends before the address is dropped: the engine really was there
		if n, err := services(t, url.(string)).Collection("ClientSecrets").EstimatedDocumentCount(within(10 * time.Second)); err != nil || n == 0 {
			t.Errorf("%d clients on MongoDB, %v", n, err)
		}
	})
}

func useMongo(cfg *app.Config, url string) {
	cfg.DatabaseURL, cfg.AdminToken, cfg.SecretKeys, cfg.AllowPrivate = url, "an-admin-token-for-tests", mongoKeys, true
}

// slowness is how much more patience a test needs for its engine's storage.
func slowness(t *testing.T) int {
	if strings.Contains(t.Name(), "MongoDB") {
		return 6
	}
	return 1
}

// services is the services database of an address, as an operator's tools see it.
func services(t *testing.T, url string) *mongo.Database {
	t.Helper()
	c, err := mongo.Connect(options.Client().ApplyURI(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Disconnect(within(5 * time.Second)) })
	return c.Database(url[strings.LastIndex(url, "/")+1:] + "_services")
}

// A client that is written into ClientSecrets by hand is served within 5 seconds, and so is what is changed there.
func TestHandWrittenClientOnMongoDB(t *testing.T) {
	t.Parallel()
	url, meta := servertest.Mongo(t), newMeta(t)
	e := start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, url) })
	old := e.addClient("OLD", 1)
	all := services(t, url).Collection("ClientSecrets")
	var doc bson.M
	if err := all.FindOne(t.Context(), bson.M{"_id": "OLD"}).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if w, _ := doc["whatsapp"].(bson.D); doc["name"] != "OLD" || doc["status"] != "active" || len(w) == 0 || doc["apiKeys"] == nil {
		t.Fatalf("the document is not plain to edit: %v", doc)
	}
	ring, err := secret.ParseRing(mongoKeys)
	if err != nil {
		t.Fatal(err)
	}
	token, err := ring.Seal("NEW", "whatsapp.accessToken", "token-of-NEW")
	if err != nil {
		t.Fatal(err)
	}
	_, err = all.InsertOne(t.Context(), bson.M{"_id": "NEW", "name": "By hand", "apiKeys": doc["apiKeys"],
		"whatsapp": bson.M{"wabaId": "200000000000077", "phoneNumberIds": bson.A{"300000000000077"}, "accessToken": token}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c := &client{e: e, Code: "NEW", Key: old.Key}
	eventually(t, "the client is served", func() string {
		time.Sleep(100 * time.Millisecond) // wrong keys are counted
		if a := c.call("GET", "/api/crm/leads", nil); a.Status != 200 {
			return string(a.Body)
		}
		return ""
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	e.webhook(whatsapptest.Batch(meta.InboundText("300000000000077", "12025550143", "Ana", "Hello"))).want(200)
	eventually(t, "its message is stored", func() string {
		if len(c.all("/api/whatsapp/conversations")) != 1 {
			return "no conversation"
		}
		return ""
	})
	began = time.Now()
	if _, err := all.UpdateOne(t.Context(), bson.M{"_id": "NEW"}, bson.M{"$set": bson.M{"status": "suspended"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is suspended", func() string {
		if a := c.call("GET", "/api/crm/leads", nil); a.Status != 403 {
			return string(a.Body)
		}
		return ""
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	old.call("GET", "/api/crm/leads", nil).want(200)
}

// What is wrong with the address of the database is told plainly, soon, and without what is secret in it.
func TestStartWithoutMongoDB(t *testing.T) {
	t.Parallel()
	cfg := config(t.TempDir(), "http://127.0.0.1:1")
	useMongo(&cfg, "mongodb://someone:p4ssw0rd@127.0.0.1:1/?serverSelectionTimeoutMS=500&timeoutMS=500")
	if err := cfg.Resolve(func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err := app.New(context.Background(), cfg, "test", slog.New(slog.DiscardHandler))
	var bad app.BadConfig
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "p4ssw0rd") || strings.Contains(err.Error(), "someone") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("it took %s", took)
	}
}

// Keys that are not those of the other nodes are refused at the start.
func TestForeignKeysOnMongoDB(t *testing.T) {
	t.Parallel()
	url, meta := servertest.Mongo(t), newMeta(t)
	e := start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, url) })
	e.addClient("ACME", 1)
	for name, keys := range map[string]string{"another key of the name": secret.Generate("k1"), "another key": secret.Generate("k2")} {
		cfg := config(t.TempDir(), meta.URL)
		useMongo(&cfg, url)
		cfg.SecretKeys = keys
		if err := cfg.Resolve(func(string) string { return "" }); err != nil {
			t.Fatal(err)
		}
		_, err := app.New(context.Background(), cfg, "test", slog.New(slog.DiscardHandler))
		var bad app.BadConfig
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "key k1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a node with wrong keys left behind refuses a start with the right ones, whose message says what to look at and what to
// delete; that done, it starts.
func TestForeignKeyCheckOnMongoDB(t *testing.T) {
	t.Parallel()
	url, meta := servertest.Mongo(t), newMeta(t)
	e := start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, url); c.SecretKeys = secret.Generate("k9") }) // and no client yet
	e.stop()
	cfg := config(t.TempDir(), meta.URL)
	useMongo(&cfg, url)
	if err := cfg.Resolve(func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	_, err := app.New(context.Background(), cfg, "test", slog.New(slog.DiscardHandler))
	if bad := (app.BadConfig)(nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), `db.keyChecks.deleteOne({_id: "k9"})`) {
		t.Fatalf("refused with %v", err)
	}
	found := map[string]bool{}
	if _, err := app.Examine(t.Context(), cfg, nil, "", func(f app.Finding) { found[f.Name] = f.OK }); err != nil {
		t.Fatal(err)
	}
	if found["keys fit"] || !found["sealed values"] {
		t.Errorf("the doctor says %v", found)
	}
	if res, err := services(t, url).Collection("keyChecks").DeleteOne(t.Context(), bson.M{"_id": "k9"}); err != nil || res.DeletedCount != 1 {
		t.Fatal(res, err)
	}
	start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, url) }).addClient("ACME", 1)
}

// A client may have its database on a cluster of its own while all else stands in the data folder; it is erased there, too. One
// whose cluster is away is told so at once, and hurts nobody.
func TestOwnClusterOnMongoDB(t *testing.T) {
	t.Parallel()
	url, meta := servertest.Mongo(t), newMeta(t)
	e := start(t, t.TempDir(), meta, func(c *app.Config) { c.AllowPrivate = true })
	e.own = url
	c := e.addClient("OWN", 1)
	e.own = "mongodb://someone:p4ssw0rd@127.0.0.1:1/?serverSelectionTimeoutMS=1000"
	lost := e.addClient("LOST", 2)
	e.own = ""
	other := e.addClient("BETA", 3)
	names := func() []string {
		all, err := services(t, url).Client().ListDatabaseNames(t.Context(), bson.M{})
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(all, func(n string) bool { return n != url[strings.LastIndex(url, "/")+1:]+"_t_own" })
	}
	lost.call("POST", "/api/crm/automations/events", confirmEvent(nil)).want(202)
	e.webhook(whatsapptest.Batch(meta.InboundText(lost.Number, "12025550143", "Ana", "Hello"))).want(200)
	for _, x := range []*client{c, other} {
		x.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
		x.run(x.tell("918143963821"), "done")
	}
	if len(names()) != 1 {
		t.Error("its database is not on its cluster")
	}
	began := time.Now()
	a := lost.call("GET", "/api/crm/leads", nil)
	a.problem(503, "client.unavailable")
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("answered after %s", took)
	}
	want(t, "the client", e.admin("GET", "/api/clients/LOST", nil).want(200), "database.state", "unavailable", "database.own", true)
	e.send("GET", "/readyz", nil, nil).want(200)
	if jobs := e.admin("GET", "/api/admin/jobs?client=LOST&state=dead", nil).want(200); jobs.get("items.0") != nil {
		t.Errorf("its work was given up: %s", jobs.Body)
	}
	e.admin("DELETE", "/api/clients/OWN?confirm=OWN", nil).want(202)
	eventually(t, "the client is erased", func() string {
		if a := e.admin("GET", "/api/clients/OWN", nil); a.Status != 404 {
			return string(a.Body)
		}
		return ""
	})
	if len(names()) != 0 {
		t.Error("its database is still there")
	}
	for _, secret := range []string{"p4ssw0rd", "someone"} {
		if strings.Contains(e.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// Operators' tools work on MongoDB: keys are rotated, a client is exported, the doctor finds all well; and a client is erased.
func TestToolsOnMongoDB(t *testing.T) {
	t.Parallel()
	url, meta, dir := servertest.Mongo(t), newMeta(t), t.TempDir()
	k2 := secret.Generate("k2")
	e := start(t, dir, meta, func(c *app.Config) { useMongo(c, url) })
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	c.run(c.tell("918143963821"), "done")
	cfg := e.app.Config
	cfg.SecretKeys = k2 + "," + mongoKeys
	if _, err := app.RotateKeys(t.Context(), cfg, false); err == nil || !strings.Contains(err.Error(), "does not seal with key k2 yet") {
		t.Errorf("beside a node of the old keys: %v", err)
	}
	e.stop()
	e = start(t, dir, meta, func(c *app.Config) { useMongo(c, url); c.SecretKeys = k2 + "," + mongoKeys })
	rot, err := app.RotateKeys(t.Context(), cfg, false)
	if err != nil || rot.Resealed == 0 || !slices.Equal(rot.Unneeded, []string{"k1"}) || len(rot.Unreadable) > 0 {
		t.Fatalf("%+v, %v", rot, err)
	}
	e.stop()
	e = start(t, dir, meta, func(c *app.Config) { useMongo(c, url); c.SecretKeys = k2 }) // without the old key
	c.e = e
	c.run(c.tell("918143963822"), "done")
	cfg.SecretKeys = k2
	ex, err := app.ExportClient(t.Context(), cfg, "ACME", filepath.Join(t.TempDir(), "acme.tar.gz"), "test")
	if err != nil || ex.Records < 2 {
		t.Errorf("exported %d records, %v", ex.Records, err)
	}
	failed, err := app.Examine(t.Context(), cfg, nil, "ACME", func(f app.Finding) {
		if !f.OK && !strings.HasPrefix(f.Name, "public URL") && f.Name != "disk" {
			t.Errorf("doctor: %s: %s", f.Name, f.Detail)
		}
	})
	t.Logf("doctor: %d failed, %v", failed, err)
	e.admin("DELETE", "/api/clients/ACME?confirm=ACME", nil).want(202)
	eventually(t, "the client is erased", func() string {
		if a := e.admin("GET", "/api/clients/ACME", nil); a.Status != 404 {
			return string(a.Body)
		}
		return ""
	})
	all, err := services(t, url).Client().ListDatabaseNames(t.Context(), bson.M{})
	if err != nil || slices.Contains(all, url[strings.LastIndex(url, "/")+1:]+"_t_acme") {
		t.Errorf("its database is still there: %v", err)
	}
	if n, err := services(t, url).Collection("jobs").CountDocuments(t.Context(), bson.M{"tenant": "ACME"}); err != nil || n > 0 {
		t.Errorf("%d of its jobs are still there, %v", n, err)
	}
}
