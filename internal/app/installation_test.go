package app_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/servertest"
)

// Two clients whose databases come to one name, of one installation or of two, do not share it: who came second is kept out,
// and neither a move nor an erasure of theirs touches the first one's.
func TestSharedNameOnMongoDB(t *testing.T) {
	t.Parallel()
	url := servertest.Mongo(t)
	private := func(c *app.Config) { c.AllowPrivate = true }
	e := start(t, t.TempDir(), newMeta(t), private)
	e.own = url
	first := e.addClient("X_T_ACME", 1)
	first.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	unharmed := func() {
		t.Helper()
		if rules := first.all("/api/crm/automations/rules"); len(rules) != 1 {
			t.Errorf("the first has %d rules", len(rules))
		}
	}
	e.own = url + "_t_x"
	second := e.addClient("ACME", 2)
	e.own = ""
	moving := e.addClient("BETA", 3)
	moving.call("POST", "/api/crm/automations/rules", helloRule()).want(201)

	refused := func(e *engine, c *client, code, why string) {
		t.Helper()
		c.call("GET", "/api/crm/automations/rules", nil).problem(503, "client.unavailable")
		v := e.admin("GET", "/api/clients/"+code, nil).want(200)
		want(t, "the client", v, "database.state", "unavailable")
		if detail, _ := v.get("database.detail").(string); !strings.Contains(detail, why) || strings.Contains(detail, "mongodb://") {
			t.Errorf("detail %q", detail)
		}
		unharmed()
	}
	refused(e, second, "ACME", "_t_x_t_acme belongs to client X_T_ACME: give")

	other := start(t, t.TempDir(), newMeta(t), private)
	other.own = url
	same := other.addClient("X_T_ACME", 1)
	refused(other, same, "X_T_ACME", "belongs to client X_T_ACME of another installation")
	other.own = ""
	third := other.addClient("ACME", 4)
	third.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	id := other.admin("POST", "/api/clients/ACME/move", map[string]any{"databaseUrl": url + "_t_x"}).want(202).get("jobId").(string)
	eventuallyIn(t, time.Minute, "the move is refused", func() string {
		v := other.admin("GET", "/api/admin/jobs/"+id, nil).want(200)
		return unless(v.get("state") == "dead" && strings.Contains(string(v.Body), "move.target_unreachable"), string(v.Body))
	})
	if rules := third.all("/api/crm/automations/rules"); len(rules) != 1 {
		t.Errorf("who was to move has %d rules", len(rules))
	}
	unharmed()

	for eng, code := range map[*engine]string{e: "ACME", other: "X_T_ACME"} {
		eng.admin("DELETE", "/api/clients/"+code+"?confirm="+code, nil).want(202)
		eventually(t, "the second is erased", func() string {
			a := eng.admin("GET", "/api/clients/"+code, nil)
			return unless(a.Status == 404, string(a.Body))
		})
		unharmed()
	}
}

// A client whose database could not have its name is refused, not made.
func TestNameTooLongForMongoDB(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t), func(c *app.Config) { c.AllowPrivate = true })
	long := strings.Repeat("P", 30)
	for path, ok := range map[string]bool{strings.Repeat("d", 30): true, strings.Repeat("d", 31): false, "a%2Eb": false} {
		a := e.admin("POST", "/api/clients", map[string]any{"clientCode": long, "name": "L", "databaseUrl": "mongodb://127.0.0.1:1/" + path})
		if ok {
			a.want(201)
			continue
		}
		a.problem(422, "invalid")
	}
	e.admin("POST", "/api/clients", map[string]any{"clientCode": "SHORT", "name": "S"}).want(201)
	e.admin("POST", "/api/clients/SHORT/move", map[string]any{"databaseUrl": "mongodb://127.0.0.1:1/" + strings.Repeat("d", 60)}).problem(422, "invalid")
}
