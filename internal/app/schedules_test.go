package app_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
)

const schedulesPath, adminSchedules = "/api/crm/automations/schedules", "/api/admin/schedules"

// withServices works on the services database of an engine that stands still.
func withServices(t *testing.T, dir string, f func(ctx context.Context, db store.DB)) {
	t.Helper()
	s, err := app.OpenEmbedded(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f(t.Context(), s.Services)
}

// lateBy makes every schedule wait for what was due so long ago.
func lateBy(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	withServices(t, dir, func(ctx context.Context, db store.DB) {
		all, err := job.Schedules.Find(ctx, db, store.Query{})
		if err != nil || len(all) == 0 {
			t.Fatal(len(all), err)
		}
		for _, s := range all {
			s.Next = time.Now().Add(-by)
			if err := db.Commit(ctx, job.Schedules.Update(s)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func (c *client) lead(body obj) string {
	c.e.t.Helper()
	return c.call("POST", leadsPath, body).want(201).get("id").(string)
}

func tickRule() obj {
	return obj{"name": "tick", "trigger": "custom.tick", "enabled": true, "reenrol": "every_event", "actions": []obj{{"type": "lead.score", "points": 1}}}
}

// jobsMade gives the ids of a client's jobs of a type, "" being the system.
func (e *engine) jobsMade(client, typ string) (ids []string) {
	e.t.Helper()
	for _, v := range e.admin("GET", "/api/admin/jobs?limit=200&type="+typ, nil).want(200).get("items").([]any) {
		j := v.(map[string]any)
		if got, _ := j["client"].(string); got == client {
			ids = append(ids, j["id"].(string))
		}
	}
	return ids
}

// A client has an event raised each minute: by the real clock, so it is the one test here that waits for it.
func TestSchedulesRaiseEvents(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", tickRule()).want(201)
	lead := c.lead(obj{"phone": "918143963821"})
	made := c.call("POST", schedulesPath, obj{"name": "each minute", "expr": "* * * * *", "timeZone": "Europe/Madrid", "trigger": "custom.tick", "leadId": lead}).want(201)
	path := schedulesPath + "/" + made.get("id").(string)
	if loc := made.Header.Get("Location"); loc != path {
		t.Errorf("Location %q", loc)
	}
	shows(t, "made", made, "enabled", true, "lastFiredFor", nil, "missed", 0.0, "trigger", "custom.tick", "leadId", lead, "catchUp", nil, "timeZone", "Europe/Madrid")
	next := made.get("next").(string)
	eventuallyIn(t, 75*time.Second, "the minute comes", func() string {
		if got := c.call("GET", leadsPath+"/"+lead, nil).want(200).get("score"); got != 1.0 {
			return fmt.Sprint("score ", got)
		}
		return ""
	})
	if early := time.Now().UTC().Format("2006-01-02T15:04:05.000Z"); early < next {
		t.Errorf("it is %s, and it fired for %s", early, next)
	}
	shows(t, "fired", c.call("PATCH", path, obj{"enabled": false}).want(200), "lastFiredFor", next, "next", nil, "missed", 0.0)
	if n := e.jobsMade("ACME", "automation.scheduled"); len(n) != 1 {
		t.Errorf("jobs %v", n)
	}
}

// The engine stood still when occurrences came: the latest one is made up for, once over several starts and a kill.
func TestSchedulesCatchUp(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	e := start(t, dir, meta)
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", tickRule()).want(201)
	lead := c.lead(obj{"phone": "918143963821"})
	const yearly = "0 0 1 1 *" // but for what is set back below, nothing is due
	ids := map[string]string{}
	for _, catchUp := range []string{"6h", "30m"} {
		ids[catchUp] = c.call("POST", schedulesPath, obj{"name": catchUp, "expr": "@hourly", "timeZone": "UTC", "trigger": "custom.tick", "leadId": lead, "catchUp": catchUp}).want(201).get("id").(string)
	}
	idle := e.admin("POST", adminSchedules, obj{"name": "idle", "client": "acme", "expr": yearly, "type": "whatsapp.templates.sync"}).want(201).get("id").(string)
	e.stop()
	withServices(t, dir, func(ctx context.Context, db store.DB) {
		for catchUp, id := range ids { // both by an hour's grid that is 40 minutes off now
			s, err := job.Schedules.Get(ctx, db, id)
			if err != nil {
				t.Fatal(err)
			}
			past := time.Now().UTC().Add(-40 * time.Minute)
			s.Expr, s.Next = fmt.Sprintf("%d * * * *", past.Minute()), past.Truncate(time.Minute).Add(-2*time.Hour)
			if err := db.Commit(ctx, job.Schedules.Update(s)); err != nil {
				t.Fatal(catchUp, err)
			}
		}
	})
	p := serve(t, dir, meta)
	c.e = p.engine
	missed := func(what, id string, want float64) {
		t.Helper()
		eventually(t, what, func() string {
			if got := c.call("GET", schedulesPath+"/"+id, nil).want(200).get("missed"); got != want {
				return fmt.Sprint("missed ", got)
			}
			return ""
		})
	}
	missed("within catchUp", ids["6h"], 2)
	missed("too late", ids["30m"], 3)
	p.kill()
	// killed right after the job was made, before the schedule was marked
	fired := ""
	withServices(t, dir, func(ctx context.Context, db store.DB) {
		s, err := job.Schedules.Get(ctx, db, ids["6h"])
		if err != nil {
			t.Fatal(err)
		}
		fired = s.LastFiredFor.Format("2006-01-02T15:04:05.000Z")
		s.Next, s.LastFiredFor = s.LastFiredFor, time.Time{}
		if err := db.Commit(ctx, job.Schedules.Update(s)); err != nil {
			t.Fatal(err)
		}
	})
	p = serve(t, dir, meta)
	c.e = p.engine
	eventuallyIn(t, takeover, "it is marked", func() string {
		if got := c.call("GET", schedulesPath+"/"+ids["6h"], nil).want(200).get("lastFiredFor"); got != fired {
			return fmt.Sprint("fired for ", got)
		}
		if got := c.call("GET", leadsPath+"/"+lead, nil).want(200).get("score"); got != 1.0 {
			return fmt.Sprint("score ", got)
		}
		return ""
	})
	if n := p.jobsMade("ACME", "automation.scheduled"); len(n) != 1 {
		t.Errorf("jobs %v", n)
	}
	shows(t, "idle", p.admin("GET", adminSchedules+"/"+idle, nil).want(200), "lastFiredFor", nil, "missed", 0.0, "client", "ACME")
}

// What the engine does by the clock is scheduled too: it is there once, runs, and cannot be changed.
func TestEngineSchedules(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	e := start(t, dir, meta)
	c := e.addClient("ACME", 1)
	c.lead(obj{"phone": "918143963821"})
	e.addClient("SLEEPY", 2) // has no database yet
	e.stop()
	lateBy(t, dir, 25*time.Hour)
	e = start(t, dir, meta)
	eventually(t, "the daily look at scores", func() string {
		if n := e.jobsMade("ACME", "score.refresh"); len(n) != 1 {
			return fmt.Sprint("jobs ", n)
		}
		return ""
	})
	if n := e.jobsMade("SLEEPY", "score.refresh"); len(n) != 0 {
		t.Errorf("a database was opened for nothing: %v", n)
	}
	eventually(t, "files and webhooks are cleaned up", func() string {
		ids := e.jobsMade("", "upkeep.clean")
		if len(ids) != 1 {
			return fmt.Sprint("jobs ", ids)
		}
		if s := e.admin("GET", "/api/admin/jobs/"+ids[0], nil).want(200).get("state"); s != "succeeded" {
			return fmt.Sprint(s)
		}
		return ""
	})
	all := e.admin("GET", adminSchedules, nil).want(200).get("items").([]any)
	var names []string
	for _, v := range all {
		s := v.(map[string]any)
		names = append(names, s["type"].(string))
		own := adminSchedules + "/" + s["id"].(string)
		e.admin("PATCH", own, obj{"enabled": false}).problem(409, "schedule.engine")
		e.admin("DELETE", own, nil).problem(409, "schedule.engine")
	}
	if slices.Sort(names); !slices.Equal(names, []string{"upkeep.clean", "upkeep.scores"}) {
		t.Errorf("schedules %v", names)
	}
}

func TestSchedulesAreChecked(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	lead := c.lead(obj{"phone": "918143963821"})
	good := obj{"name": "x", "expr": "0 9 1 * *", "trigger": "custom.tick", "leadId": lead}
	with := func(base obj, name string, v any) obj {
		out := obj{}
		for k, v := range base {
			out[k] = v
		}
		out[name] = v
		return out
	}
	refused := func(a *answer, pointer string) {
		t.Helper()
		if got := a.problem(422, "invalid").get("errors.0.pointer"); got != pointer {
			t.Errorf("%s: points at %v, want %s: %s", a.what, got, pointer, a.Body)
		}
	}
	for name, v := range map[string]any{
		"expr": "0 0 31 2 *", "timeZone": "Mars/Olympus", "trigger": "deal_won", "leadId": "led_none", "catchUp": "8d", "name": "\u0007",
	} {
		refused(c.call("POST", schedulesPath, with(good, name, v)), "/"+name)
	}
	refused(c.call("POST", schedulesPath, with(good, "expr", "every day")), "/expr")
	refused(c.call("POST", schedulesPath, with(good, "catchUp", "-1h")), "/catchUp")
	refused(other.call("POST", schedulesPath, good), "/leadId")

	sync := obj{"name": "x", "client": "ACME", "expr": "@daily", "type": "whatsapp.templates.sync"}
	for name, v := range map[string]any{"type": "whatsapp.send", "client": "NOBODY", "payload": obj{"a": 1}, "expr": "* * * * * *", "timeZone": "Local"} {
		refused(e.admin("POST", adminSchedules, with(sync, name, v)), "/"+name)
	}
	refused(e.admin("POST", adminSchedules, with(sync, "type", "upkeep.clean")), "/type")
	refused(e.admin("POST", adminSchedules, with(with(sync, "type", "automation.scheduled"), "payload", obj{"trigger": "custom.x"})), "/payload/leadId")
	if d, _ := e.admin("POST", adminSchedules, with(sync, "type", "x")).get("errors.0.detail").(string); !strings.Contains(d, "automation.scheduled, whatsapp.templates.sync") {
		t.Errorf("the types are not named: %s", d)
	}

	// nobody else's, nor the operator's
	mine := schedulesPath + "/" + c.call("POST", schedulesPath, with(good, "catchUp", "90m")).want(201).get("id").(string)
	operators := schedulesPath + "/" + e.admin("POST", adminSchedules, sync).want(201).get("id").(string)
	for _, path := range []string{mine, operators} {
		other.call("GET", path, nil).problem(404, "schedule.not_found")
		other.call("PATCH", path, obj{"enabled": false}).problem(404, "schedule.not_found")
		other.call("DELETE", path, nil).problem(404, "schedule.not_found")
	}
	c.call("GET", operators, nil).problem(404, "schedule.not_found")
	c.call("DELETE", operators, nil).problem(404, "schedule.not_found")
	if l := other.call("GET", schedulesPath, nil).want(200).get("items.0"); l != nil {
		t.Errorf("another's list: %v", l)
	}
	if l := c.call("GET", schedulesPath, nil).want(200).get("items").([]any); len(l) != 1 {
		t.Errorf("list: %v", l)
	}
	if l := e.admin("GET", adminSchedules+"?client=acme&limit=1", nil).want(200); l.get("nextCursor") == nil {
		t.Errorf("list: %s", l.Body)
	}
	refused(e.admin("GET", adminSchedules+"?cursor=x", nil), "query.cursor")

	shows(t, "as made", c.call("GET", mine, nil).want(200), "catchUp", "90m", "timeZone", "UTC")
	shows(t, "changed", c.call("PATCH", mine, obj{"expr": "30 2 * * *", "timeZone": "Europe/Madrid", "catchUp": nil, "name": "y"}).want(200),
		"expr", "30 2 * * *", "catchUp", nil, "name", "y", "enabled", true)
	refused(c.call("PATCH", mine, obj{"expr": "0 0 30 2 *"}), "/expr")
	refused(c.call("PATCH", mine, obj{"catchUp": "soon"}), "/catchUp")
	c.call("DELETE", mine, nil).want(204)
	c.call("GET", mine, nil).problem(404, "schedule.not_found")

	// a client that is erased leaves none
	e.admin("DELETE", "/api/clients/ACME?confirm=ACME", nil).want(202)
	eventually(t, "its schedules are gone", func() string {
		if l := e.admin("GET", adminSchedules+"?client=ACME", nil).want(200).get("items.0"); l != nil {
			return fmt.Sprint(l)
		}
		return ""
	})
}
