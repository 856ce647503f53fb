package app_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// contents is what a database file holds, table by table, as text; without its news, which are told a second later.
func contents(t *testing.T, path string) map[string]string {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(5000)&_pragma=query_only(1)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows := func(query string) (all [][]any) {
		t.Helper()
		rs, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rs.Close()
		names, err := rs.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rs.Next() {
			values := make([]any, len(names))
			into := make([]any, len(names))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rs.Scan(into...); err != nil {
				t.Fatal(err)
			}
			all = append(all, values)
		}
		if err := rs.Err(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	out := map[string]string{}
	for _, table := range rows(`SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'news' AND name <> '_seq'`) {
		var b strings.Builder
		for _, r := range rows(fmt.Sprintf(`SELECT * FROM "%v" ORDER BY 1`, table[0])) {
			fmt.Fprintf(&b, "%s\n", r)
		}
		out[fmt.Sprint(table[0])] = b.String()
	}
	return out
}

// Every job that a client ever had, with its own payload, in the name of another client: it finds nothing there, and the first
// client's database and its calls stay as they are.
func TestForeignJobs(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	e := start(t, dir, meta)
	owner, thief := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for _, c := range []*client{owner, thief} {
		c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201)
		c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	}
	owner.call("POST", "/api/crm/automations/events", confirmEvent(nil)).want(202)
	conversation, _ := owner.writes(ana, "Hello?")
	owner.call("POST", "/api/whatsapp/messages", map[string]any{"conversationId": conversation, "type": "text", "text": "Hi"}).want(202)
	lead := owner.call("GET", "/api/crm/leads?limit=1", nil).want(200).get("items.0.id").(string)
	owner.call("PATCH", "/api/crm/leads/"+lead, map[string]any{"name": "Changed"}).want(200)
	owner.call("POST", "/api/crm/tags", map[string]any{"name": "vip"}).want(201)
	owner.call("POST", "/api/crm/leads/"+lead+"/tags", map[string]any{"add": []string{"vip"}})
	owner.book(map[string]any{"startsAt": soon(3600), "reminders": []string{"-3s"}})
	owner.call("POST", "/api/whatsapp/templates/sync", nil)
	e.rests(owner)

	ctx := context.Background()
	payloads := map[string]store.Job{}
	for f := (store.JobFilter{Tenant: owner.Code, Limit: 1000}); ; {
		js, err := e.app.Queue.Jobs(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range js {
			payloads[j.Type] = j
		}
		if len(js) < f.Limit {
			break
		}
		f.After = js[len(js)-1].ID
	}
	if len(payloads) < 6 {
		t.Fatalf("only jobs of the types %v", slices.Sorted(maps.Keys(payloads)))
	}
	file := filepath.Join(dir, "tenants", "ecod_t_ACME.db")
	before, same := contents(t, file), 0
	eventually(t, "all that comes of it is there", func() string {
		now := contents(t, file)
		if same++; !maps.Equal(now, before) {
			before, same = now, 0
		}
		return unless(same == 20, "it still changes")
	})
	calls := len(meta.Requests())
	var ids []string
	for typ, j := range payloads {
		made, err := e.app.Runner.Enqueue(ctx, store.NewJob{Tenant: thief.Code, Type: typ, Payload: j.Payload, MaxAttempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, made[0].Job.ID)
	}
	for _, id := range ids {
		eventually(t, "a foreign job ends", func() string {
			j, err := e.app.Queue.Job(ctx, id)
			if err != nil {
				return err.Error()
			}
			return unless(j.State.Terminal() || j.State == store.Parked || j.State == store.Scheduled && len(j.Errors) > 0, fmt.Sprintf("%s is %s", j.Type, j.State))
		})
	}
	for table, was := range before {
		if is := contents(t, file)[table]; is != was {
			t.Errorf("table %s of the other client changed from\n%s\nto\n%s", table, short(was), short(is))
		}
	}
	for _, r := range meta.Requests()[calls:] {
		if strings.Contains(r.Path, owner.Number) || strings.Contains(r.Path, owner.WABA) {
			t.Errorf("a call for the other client's number: %s %s", r.Method, r.Path)
		}
	}
	t.Logf("types %v", slices.Sorted(maps.Keys(payloads)))

	// A client that is gone: its jobs are held, and its neighbour's go on.
	e.admin("POST", "/api/clients/BETA/suspend", nil).want(200)
	made, err := e.app.Runner.Enqueue(ctx, store.NewJob{Tenant: thief.Code, Type: "whatsapp.send", Payload: payloads["whatsapp.send"].Payload},
		store.NewJob{Tenant: "NOBODY", Type: "whatsapp.send", Payload: payloads["whatsapp.send"].Payload})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	owner.run(owner.tell("917000000009"), "done")
	t.Logf("the neighbour's run took %v", time.Since(began))
	for i, code := range []string{"client_suspended", "client_gone"} {
		eventually(t, "it is held", func() string {
			j, err := e.app.Queue.Job(ctx, made[i].Job.ID)
			if err != nil {
				return err.Error()
			}
			return unless(j.State == store.Parked && j.Errors[len(j.Errors)-1].Code == code, fmt.Sprintf("%s %v", j.State, j.Errors))
		})
	}
}

// rests waits until a client has no job that is due.
func (e *engine) rests(c *client) {
	e.t.Helper()
	eventually(e.t, "every job ends", func() string {
		for _, state := range []string{"ready", "running"} {
			if l := c.call("GET", "/api/jobs?limit=1&state="+state, nil).want(200); l.get("items.0") != nil {
				return short(string(l.Body))
			}
		}
		return ""
	})
}
