package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/rule"
)

// An event whose effect can never be stored fails once and says so, instead of being promised and tried for hours.
func TestEventThatCanNeverBeStored(t *testing.T) {
	w := newTown(t)
	scores := strings.TrimSuffix(strings.Repeat(`{"type":"lead.score","points":1},`, 100), ",")
	for range 21 { // two thousand points are two thousand writes
		w.ok(w.asA("POST", rulesPath, `{"name":"x","trigger":"appointment_confirmed","enabled":true,"reenrol":"every_event","actions":[`+scores+`]}`), 201)
	}
	body := event("much", "+918143963821", "")
	w.problem(w.asA("POST", events, body), 422, "event.too_large")
	w.problem(w.asA("POST", events, body), 422, "event.too_large")
	got := w.ok(w.asA("GET", events+"/much", ""), 200)
	if got["deferred"] != false || str(got, "error", "code") != "event.too_large" || text(got["runs"]) != "[]" {
		t.Error(text(got))
	}
	jobs := items(w.ok(w.asA("GET", "/api/jobs?type="+rule.EventJob, ""), 200))
	if len(jobs) != 1 || jobs[0]["state"] != "succeeded" || jobs[0]["attempt"] != 0.0 {
		t.Error(text(jobs))
	}
	if l := items(w.ok(w.asA("GET", "/api/crm/leads", ""), 200)); len(l) != 0 {
		t.Error("half of it was done", text(l))
	}
}

// What was answered deferred can be read at once, by its own client only.
func TestDeferredEventIsRead(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.noDB.Store(true)
	w.ok(w.asA("POST", events, event("later", "+918143963821", `,"occurredAt":"2026-11-22T10:00:00Z"`)), 202)
	got := w.ok(w.asA("GET", events+"/later", ""), 200)
	if got["deferred"] != true || got["eventId"] != "later" || got["trigger"] != "appointment_confirmed" || got["occurredAt"] != "2026-11-22T10:00:00.000Z" || got["leadId"] != nil || got["error"] != nil {
		t.Error(text(got))
	}
	if r := w.asA("GET", events+"/other", ""); r.StatusCode != http.StatusServiceUnavailable { // it may be in the database
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	w.noDB.Store(false)
	w.problem(w.asB("GET", events+"/later", ""), 404, "event.not_found")
	w.until("the event is worked off", func() reply { return w.asA("GET", events+"/later", "") }, func(m map[string]any) bool { return m["deferred"] == false })
	w.problem(w.asA("GET", events+"/other", ""), 404, "event.not_found") // the database is there again
}

// A name by which an event could not be read again is refused; any other reads it.
func TestEventIDs(t *testing.T) {
	w := newTown(t)
	for _, id := range []string{`a\u0000b`, `a\nb`, `\u007f`, `\u0085`, `\ud800`, `a\udc00b`, `.`, `..`} {
		w.problem(w.asA("POST", events, event(id, "+918143963821", "")), 422, "invalid")
	}
	for _, id := range []string{"...", "a/b", "a/../b", "%2F", "a b", "ü", "👩", "?x#y", "+"} {
		w.ok(w.asA("POST", events, event(id, "+918143963821", "")), 202)
		if got := w.ok(w.asA("GET", events+"/"+url.PathEscape(id), ""), 200); got["eventId"] != id {
			t.Errorf("%q reads %s", id, text(got))
		}
	}
}

// What a customer is sent: numbers as they were written, no control characters; and junk holds the run.
func TestVariablesAsTheyAreSent(t *testing.T) {
	w := newTown(t)
	id := str(w.ok(w.asA("POST", rulesPath, `{"name":"x","trigger":"appointment_confirmed","enabled":true,"reenrol":"every_event","condition":"event.variables.n > 5",
		"actions":[{"type":"whatsapp.template","template":"hello","language":"en","parameters":["{{n}} {{price}} {{name}}"]}]}`), 201), "id")
	w.ok(w.asA("POST", events, event("num", "+918143963821", `,"variables":{"n":12345678901234567890,"price":1.50,"name":"A\u0000n\u001ba"}`)), 202)
	w.until("it is sent", func() reply { return w.asA("GET", runsPath+"?ruleId="+id, "") }, func(m map[string]any) bool {
		l := items(m)
		return len(l) == 1 && strings.Contains(text(l[0]), `12345678901234567890 1.50 Ana`) && l[0]["state"] == "done"
	})
	got := w.ok(w.asA("POST", rulesPath+"/"+id+"/simulate", `{"phone":"+918143963821","variables":{"n":9007199254740993,"price":-0.0,"name":"Bo"}}`), 200)
	if !strings.Contains(text(got), "9007199254740993 -0.0 Bo") {
		t.Error(text(got))
	}
	held := w.ok(w.asA("POST", events, event("junk", "+918143963821", `,"variables":{"n":7,"price":1,"name":"\ufeffUndefined"}`)), 202)
	run := held["runs"].([]any)[0].(map[string]any)
	if run["state"] != "held" {
		t.Fatal(text(held))
	}
	w.ok(w.asA("PATCH", runsPath+"/"+str(run, "runId"), `{"variables":{"name":"Bo","price":98765432109876543210}}`), 200)
	w.until("it goes on", func() reply { return w.asA("GET", runsPath+"/"+str(run, "runId"), "") }, func(m map[string]any) bool {
		return m["state"] == "done" && strings.Contains(text(m), "7 98765432109876543210 Bo")
	})
}

// Rules that cause each other widely: one event from outside leads to a bounded number of others, and its outcome says so.
func TestBreadthOfCausesIsBounded(t *testing.T) {
	w := newTown(t)
	tags := func(n, k int) string {
		var out []string
		for i := range 40 {
			out = append(out, fmt.Sprintf(`"t%d-%d-%d"`, n, k, i))
		}
		return strings.Join(out, ",")
	}
	for n := range 8 {
		w.ok(w.asA("POST", rulesPath, fmt.Sprintf(`{"name":"wide","trigger":"tag_added","enabled":true,"reenrol":"every_event","actions":[
			{"type":"lead.tag.remove","tags":[%[1]s]},{"type":"lead.tag.add","tags":[%[1]s]},
			{"type":"branch","condition":"'t%[3]d-1-0' in lead.tags","then":[{"type":"lead.tag.remove","tags":[%[2]s]}],"else":[{"type":"lead.tag.add","tags":[%[2]s]}]}]}`,
			tags(n, 0), tags(n, 1), n)), 201)
	}
	w.ok(w.asA("POST", rulesPath, `{"name":"first","trigger":"appointment_confirmed","enabled":true,"reenrol":"every_event","actions":[{"type":"lead.tag.add","tags":["go"]}]}`), 201)
	w.ok(w.asA("POST", events, event("wide", "+918143963821", "")), 202)
	w.until("it ends", func() reply { return w.asA("GET", "/api/jobs?state=ready&type="+rule.EventJob, "") }, func(m map[string]any) bool { return len(items(m)) == 0 })
	w.until("it ends", func() reply { return w.asA("GET", "/api/jobs?state=running&type="+rule.EventJob, "") }, func(m map[string]any) bool { return len(items(m)) == 0 })
	n, warned := 0, 0
	for cursor := ""; ; {
		page := w.ok(w.asA("GET", "/api/jobs?limit=200&type="+rule.EventJob+cursor, ""), 200)
		for _, j := range items(page) {
			n++
			got := w.ok(w.asA("GET", events+"/"+url.PathEscape(str(j, "causation", "eventId")), ""), 200)
			if l, ok := got["warnings"].([]any); ok && len(l) == 1 && str(l[0].(map[string]any), "code") == "loop" {
				warned++
			}
		}
		next, ok := page["nextCursor"].(string)
		if !ok {
			break
		}
		cursor = "&cursor=" + next
	}
	if n < 50 || n > 201 {
		t.Errorf("one event led to %d", n)
	}
	if warned == 0 || !strings.Contains(w.log.text(), "the rest is dropped") {
		t.Errorf("%d outcomes tell that something was dropped", warned)
	}
}
