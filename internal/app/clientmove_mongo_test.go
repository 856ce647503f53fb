package app_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/servertest"
)

// From files to MongoDB and back, while webhooks keep coming.
func TestClientMoveToMongoDB(t *testing.T) {
	t.Parallel()
	to := servertest.Mongo(t)
	messages := 150
	if os.Getenv("ECOD_TEST_LONG") != "" {
		messages = 100_000
	}
	e := start(t, t.TempDir(), newMeta(t), func(c *app.Config) { c.AllowPrivate = true })
	c := e.addClient("ACME", 1)
	p := newPostbox(c)
	p.pause = 100 * time.Millisecond
	moveWhileBusy(t, e, c, p, messages, to, 10*time.Minute)
	if v := e.admin("GET", "/api/clients/ACME/move", nil).want(200); !strings.HasSuffix(v.get("database").(string), "_t_acme") {
		t.Errorf("%s", v.Body)
	}
	e.admin("DELETE", "/api/clients/ACME/move/old-copy", nil).want(204)
	moveWhileBusy(t, e, c, p, 10, nil, 10*time.Minute)
}

// The real engine is killed while a client moves to MongoDB, when it copies and when it compares: the move goes on where it
// was when the engine is started again, and what came in is there once. The way back is made from the shell, with the
// engine stopped.
func TestClientMoveToMongoDBKilled(t *testing.T) {
	t.Parallel()
	to := servertest.Mongo(t)
	dir, meta := t.TempDir(), newMeta(t)
	const private = "ECOD_ALLOW_PRIVATE_NETWORKS=true"
	e := serve(t, dir, meta, private)
	c := e.addClient("ACME", 1)
	p := newPostbox(c)
	p.fill(1500)
	e.allSorted(time.Minute)
	jobID := e.move("ACME", to)
	hit := 0
	for _, step := range []string{"copying", "verifying"} {
		eventuallyIn(t, 3*time.Minute, "it is at "+step, func() string {
			v := e.admin("GET", "/api/clients/ACME/move", nil).want(200)
			if v.get("state") == step {
				hit++
				return ""
			}
			return unless(v.get("state") == "done", string(v.Body))
		})
		e.kill()
		e = serve(t, dir, meta, private)
		c.e = e.engine
		p.fill(5)
	}
	if hit == 0 {
		t.Error("no kill met the move")
	}
	v := e.moved("ACME", jobID, 5*time.Minute)
	t.Logf("%d kills met the move: %s", hit, v.Body)
	total := 1510
	counted := func() string {
		sum := 0.0
		for _, one := range c.all("/api/whatsapp/conversations") {
			sum += one["unread"].(float64)
		}
		return unless(int(sum) == total && len(p.acked) == total, fmt.Sprintf("%v unread of %d, %d acknowledged", sum, total, len(p.acked)))
	}
	eventuallyIn(t, 2*time.Minute, "every message is there once", counted)
	e.kill()

	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	ecod := func(args ...string) (string, error) {
		cmd := exec.Command(bin, args...)
		cmd.Env = environ("ECOD_DATA_DIR="+dir, private)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := ecod("client", "move", "ACME", "--to", "sqlite"); err == nil || !strings.Contains(out, "--drop-old") {
		t.Errorf("moved back over the old copy: %v\n%s", err, out)
	}
	if out, err := ecod("client", "move", "acme", "--drop-old"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := ecod("client", "move", "ACME", "--to", "sqlite")
	if err != nil || !strings.Contains(out, "ecod_t_ACME.db") || !strings.Contains(out, "_t_acme; drop it") {
		t.Fatalf("%v\n%s", err, out)
	}
	e = serve(t, dir, meta, private)
	c.e = e.engine
	eventually(t, "every message is there once", counted)
	if n := count(t, filepath.Join(dir, "tenants", "ecod_t_ACME.db"), "SELECT count(*) FROM messages"); n != total {
		t.Errorf("%d messages in the file", n)
	}
}

// A server has many names: a client is not moved to the database where it is, whose "old copy" would be all it has. Nor is
// an old copy dropped that a hand made the client's database again.
func TestClientMoveToMongoDBItself(t *testing.T) {
	t.Parallel()
	at := servertest.Mongo(t)
	again := at + "?appName=again"
	e := start(t, t.TempDir(), newMeta(t), func(c *app.Config) { c.AllowPrivate = true })
	e.admin("POST", "/api/clients", map[string]any{"clientCode": "ACME", "name": "Acme", "databaseUrl": at}).want(201)
	id := e.admin("POST", "/api/clients/ACME/move", map[string]any{"databaseUrl": again}).want(202).get("jobId").(string)
	eventuallyIn(t, time.Minute, "the move is refused", func() string {
		v := e.admin("GET", "/api/admin/jobs/"+id, nil).want(200)
		return unless(v.get("state") == "dead" && strings.Contains(string(v.Body), "move.same_database"), string(v.Body))
	})
	if v := e.admin("GET", "/api/clients/ACME", nil).want(200); v.get("status") != "active" {
		t.Errorf("%s", v.Body)
	}
}
