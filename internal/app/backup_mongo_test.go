package app_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// A backup of MongoDB, taken at rest, holds every client's database, also at an address of its own. It is restored into
// empty databases only; cut short, no engine starts on what is there, and it is run again; then an engine goes on with what
// waited.
func TestBackupOfMongoDB(t *testing.T) {
	t.Parallel()
	url, own, into := servertest.Mongo(t), servertest.Mongo(t), servertest.Mongo(t)
	meta := newMeta(t)
	conf := func(url string) app.Config {
		cfg := config(t.TempDir(), meta.URL)
		useMongo(&cfg, url)
		must(t, cfg.Resolve(func(string) string { return "" }))
		return cfg
	}
	e := start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, url) })
	acme := e.addClient("ACME", 1)
	e.admin("POST", "/api/clients", map[string]any{"clientCode": "OWN", "name": "Own", "databaseUrl": own}).want(201)
	p := newPostbox(acme)
	p.fill(30)
	p.holds(e, time.Minute)
	acme.call("POST", "/api/crm/automations/rules", map[string]any{"name": "Later", "trigger": "form_submitted", "enabled": true,
		"actions": []map[string]any{{"type": "wait", "for": "5s"}, {"type": "lead.tag.add", "tags": []string{"told"}}}}).want(201)
	acme.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "form_submitted", "eventId": "1", "phone": "918100000001", "createLeadIfMissing": true}).want(202)
	tn, release, err := e.app.Tenants.Use(t.Context(), "OWN")
	must(t, err)
	must(t, tn.NeedsAttention(t.Context(), "google", "invalid_grant", time.Now()))
	release()

	ctx := t.Context()
	from, out := conf(url), filepath.Join(t.TempDir(), "backup.tar.gz")
	if _, _, err := app.Backup(ctx, from, app.BackupOptions{To: out}); err == nil || !strings.Contains(err.Error(), "nodes serve") {
		t.Errorf("backed up under a node: %v", err)
	}
	e.stop()
	_, m, err := app.Backup(ctx, from, app.BackupOptions{To: out})
	must(t, err)
	if m.Clients != 2 || m.Engine != "mongodb" {
		t.Errorf("%+v", m)
	}

	to := conf(into)
	if _, err := app.Restore(ctx, conf(url), out, false); err == nil || !strings.Contains(err.Error(), "nothing was restored: ") || !strings.Contains(err.Error(), "holds data already") {
		t.Errorf("restored over data: %v", err)
	}
	if _, err := app.Restore(ctx, to, out, false); err == nil || !strings.Contains(err.Error(), "client OWN") {
		t.Errorf("restored over a client's own database: %v", err)
	}
	if _, err := app.New(ctx, to, "test", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "restore again") {
		t.Fatalf("an engine starts on half a restore: %v", err)
	}
	cl, err := mongo.Connect(options.Client().ApplyURI(own))
	must(t, err)
	defer func() { _ = cl.Disconnect(context.Background()) }()
	must(t, cl.Database(own[strings.LastIndex(own, "/")+1:]+"_t_own").Drop(ctx))
	damaged := filepath.Join(t.TempDir(), "damaged.tar.gz")
	b, err := os.ReadFile(out)
	must(t, err)
	must(t, os.WriteFile(damaged, b[:len(b)/2], 0o600))
	if _, err := app.Restore(ctx, to, damaged, false); err == nil {
		t.Error("half a backup is restored")
	}
	_, err = app.Restore(ctx, to, out, false)
	must(t, err)

	e = start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, into) })
	acme.e = e
	p.holds(e, time.Minute)
	eventuallyIn(t, 2*time.Minute, "what waited goes on", func() string {
		return unless(strings.Contains(string(acme.call("GET", "/api/crm/leads", nil).want(200).Body), "told"), "no lead is tagged")
	})
	tn, release, err = e.app.Tenants.Use(ctx, "OWN")
	must(t, err)
	defer release()
	a, err := e.app.Tenants.Account(ctx, "OWN")
	must(t, err)
	if a.DatabaseURL == "" || tn.Code != "OWN" {
		t.Error("the client's own address is gone")
	}
	if n, err := tn.DB.Count(ctx, store.Query{Kind: "connections"}); err != nil || n != 1 {
		t.Errorf("%d records in the client's own database, %v", n, err)
	}
	p.fill(3)
	p.holds(e, time.Minute)
}
