package app_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
)

const leadsPath = "/api/crm/leads"

// hear publishes a rule that gives a point for each occurrence of a trigger; its runs count them.
func (c *client) hear(trigger string) string {
	c.e.t.Helper()
	return c.call("POST", "/api/crm/automations/rules", map[string]any{
		"name": "on " + trigger, "trigger": trigger, "enabled": true, "reenrol": "every_event",
		"actions": []map[string]any{{"type": "lead.score", "points": 1}},
	}).want(201).get("id").(string)
}

// quiet waits until a client has no work left.
func (c *client) quiet() {
	c.e.t.Helper()
	eventuallyIn(c.e.t, takeover, "all work is done", func() string {
		for _, state := range []string{"ready", "running", "scheduled"} {
			if n := len(c.call("GET", "/api/jobs?state="+state, nil).want(200).get("items").([]any)); n > 0 {
				return fmt.Sprintf("%d jobs %s", n, state)
			}
		}
		return ""
	})
}

// heard counts the runs of a rule.
func (c *client) heard(rule string) int {
	c.e.t.Helper()
	n, cursor := 0, ""
	for {
		page := c.call("GET", "/api/crm/automations/runs?limit=200&ruleId="+rule+cursor, nil).want(200)
		n += len(page.get("items").([]any))
		next, _ := page.get("nextCursor").(string)
		if next == "" {
			return n
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
}

// listeners are rules on all triggers of the CRM.
type listeners map[string]string

func (c *client) listeners() listeners {
	l := listeners{}
	for _, t := range []string{"lead_created", "stage_changed", "deal_won", "deal_lost", "tag_added", "tag_removed"} {
		l[t] = c.hear(t)
	}
	return l
}

// expect waits for quiet and compares how often each trigger was heard.
func (l listeners) expect(c *client, what string, want map[string]int) {
	c.e.t.Helper()
	c.quiet()
	for trigger, rule := range l {
		if n := c.heard(rule); n != want[trigger] {
			c.e.t.Errorf("%s: %s was heard %d times, want %d", what, trigger, n, want[trigger])
		}
	}
}

// members compares parts of an answer.
func members(t *testing.T, a *answer, pairs ...any) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := a.get(pairs[i].(string)); fmt.Sprint(got) != fmt.Sprint(pairs[i+1]) {
			t.Errorf("%s: %s is %v, want %v: %s", a.what, pairs[i], got, pairs[i+1], a.Body)
		}
	}
}

// A lead is made, changed, moved and deleted by hand; each real transition is heard once, and nothing else.
func TestLeadByHand(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	on, elsewhere := c.listeners(), other.listeners()

	made := c.call("POST", leadsPath, map[string]any{
		"name": " Dhanesh ", "phone": "8143963821", "email": "D@Example.com", "source": "website", "tags": []string{"new", " vip "}, "value": 1200, "currency": "inr",
		"fields": map[string]any{"doctor": "Dr. Arjun", "visits": 2},
	}).want(201)
	members(t, made, "name", "Dhanesh", "phone", "+918143963821", "email", "d@example.com", "pipeline", "default", "stage", "new", "status", "open",
		"tags", "[new vip]", "value", 1200, "currency", "INR", "fields.doctor", "Dr. Arjun", "fields.visits", 2, "version", 1)
	id := made.get("id").(string)
	path := leadsPath + "/" + id
	if made.Header.Get("Location") != path || made.Header.Get("ETag") != `"1"` {
		t.Errorf("headers %v", made.Header)
	}
	if contact := c.call("GET", "/api/crm/contacts/"+made.get("contactId").(string), nil).want(200); contact.get("leadId") != id {
		t.Errorf("contact %s", contact.Body)
	}
	on.expect(c, "made", map[string]int{"lead_created": 1, "tag_added": 2})

	// what is refused fires nothing
	for _, spelling := range []string{"918143963821", "+91 81439 63821", "08143963821"} {
		if p := c.call("POST", leadsPath, map[string]any{"phone": spelling, "tags": []string{"x"}}).problem(409, "lead.exists"); p.get("leadId") != id {
			t.Errorf("the problem names %v, want %s", p.get("leadId"), id)
		}
	}
	c.call("POST", leadsPath, map[string]any{"email": "d@example.com"}).problem(409, "lead.exists")
	for body, pointer := range map[string]string{
		`{"name":"x"}`: "/phone", `{"phone":"12"}`: "/phone", `{"phone":"+918143960001","email":"x"}`: "/email", `{"phone":"+918143960001","stage":"nowhere"}`: "/stage",
		`{"phone":"+918143960001","pipeline":"nowhere"}`: "/pipeline", `{"phone":"+918143960001","tags":[" "]}`: "/tags", `{"phone":"+918143960001","status":"won"}`: "/status",
		`{"phone":"+918143960001","fields":{" ":1}}`: "/fields",
	} {
		if p := c.call("POST", leadsPath, body).problem(422, ""); p.pointers() != pointer {
			t.Errorf("%s: %s", body, p.Body)
		}
	}
	c.call("POST", path+"/stage", map[string]any{"stage": "nowhere"}).problem(422, "")
	c.call("POST", path+"/stage", map[string]any{"stage": "won", "version": 99}).problem(409, "version.conflict")
	c.call("POST", leadsPath+"/none/stage", map[string]any{"stage": "won"}).problem(404, "lead.not_found")
	c.call("POST", leadsPath+"/none/tags", map[string]any{"tags": []string{"a"}}).problem(404, "lead.not_found")
	c.e.send("PATCH", path, map[string]any{"tags": []string{}}, c.headers("If-Match", `"7"`)).problem(409, "version.conflict")
	other.call("POST", path+"/stage", map[string]any{"stage": "won"}).problem(404, "lead.not_found")
	other.call("PATCH", path, map[string]any{"name": "stolen"}).problem(404, "lead.not_found")
	other.call("DELETE", path, nil).problem(404, "lead.not_found")
	members(t, c.call("GET", path, nil), "version", 4, "stage", "new", "score", 3) // three points, for what was heard

	// what changes nothing fires nothing
	members(t, c.call("POST", path+"/tags", map[string]any{"tags": []string{"vip", " new"}}).want(200), "version", 4)
	members(t, c.call("DELETE", path+"/tags?tag=absent", nil).want(200), "version", 4)
	members(t, c.call("POST", path+"/stage", map[string]any{"stage": "new"}).want(200), "version", 4)
	members(t, c.call("PATCH", path, map[string]any{"name": "Dhanesh", "tags": []string{"vip", "new"}}).want(200), "version", 4)
	on.expect(c, "refused and idle", map[string]int{"lead_created": 1, "tag_added": 2})

	// every write path
	members(t, c.call("POST", path+"/tags", map[string]any{"tags": []string{"gold", "vip"}}).want(200), "tags", "[new vip gold]")
	members(t, c.call("DELETE", path+"/tags", map[string]any{"tags": []string{"gold", "absent"}}).want(200), "tags", "[new vip]")
	members(t, c.call("PATCH", path, map[string]any{"tags": []string{"vip", "blue"}}).want(200), "tags", "[vip blue]")
	members(t, c.call("POST", path+"/stage", map[string]any{"stage": "booked"}).want(200), "status", "open")
	members(t, c.call("POST", path+"/stage", map[string]any{"stage": "won", "reason": "Trust"}).want(200), "status", "won")
	members(t, c.call("POST", path+"/stage", map[string]any{"stage": "won"}).want(200), "status", "won")
	members(t, c.call("PATCH", path, map[string]any{"stage": "lost"}).want(200), "status", "lost")
	on.expect(c, "changed", map[string]int{"lead_created": 1, "tag_added": 4, "tag_removed": 2, "stage_changed": 3, "deal_won": 1, "deal_lost": 1})

	// members, by version
	now := c.call("GET", path, nil).want(200)
	patched := c.e.send("PATCH", path, map[string]any{"email": nil, "value": nil, "ownerId": "own1", "phone": "+91 81439 63899", "fields": map[string]any{"visits": nil, "town": "Pune"}},
		c.headers("If-Match", now.Header.Get("ETag"))).want(200)
	members(t, patched, "email", nil, "value", 0, "ownerId", "own1", "phone", "+918143963899", "fields", "map[doctor:Dr. Arjun town:Pune]", "currency", "INR")
	c.e.send("PATCH", path, map[string]any{"name": "late"}, c.headers("If-Match", now.Header.Get("ETag"))).problem(409, "version.conflict")
	c.call("PATCH", path, map[string]any{"phone": nil}).problem(422, "")
	if n := len(c.call("GET", leadsPath+"?phone=8143963821", nil).want(200).get("items").([]any)); n != 0 {
		t.Error("the old phone still finds the lead")
	}
	second := c.call("POST", leadsPath, map[string]any{"phone": "8143963821", "stage": "won"}).want(201)
	if p := c.call("PATCH", path, map[string]any{"phone": "8143963821"}).problem(409, "lead.exists"); p.get("leadId") != second.get("id") {
		t.Error(string(p.Body))
	}
	on.expect(c, "made as won", map[string]int{"lead_created": 2, "tag_added": 4, "tag_removed": 2, "stage_changed": 3, "deal_won": 2, "deal_lost": 1})

	note := c.call("POST", path+"/notes", map[string]any{"text": " Call after six. "}).want(201)
	members(t, note, "text", "Call after six.", "leadId", id)
	c.call("POST", path+"/notes", map[string]any{"text": " "}).problem(422, "")
	c.call("POST", leadsPath+"/none/notes", map[string]any{"text": "x"}).problem(404, "lead.not_found")

	c.call("DELETE", path, nil).want(204)
	c.call("GET", path, nil).problem(404, "lead.not_found")
	c.call("DELETE", path, nil).problem(404, "lead.not_found")
	on.expect(c, "deleted", map[string]int{"lead_created": 2, "tag_added": 4, "tag_removed": 2, "stage_changed": 3, "deal_won": 2, "deal_lost": 1})
	c.call("POST", leadsPath, map[string]any{"phone": "+918143963899"}).want(201) // the number is free again
	elsewhere.expect(other, "of the other client", nil)
	for _, private := range []string{"8143963821", "Dhanesh", "Arjun"} {
		if strings.Contains(e.log.String(), private) {
			t.Errorf("%q is in the log", private)
		}
	}
}

// Many change one lead at once: each transition is heard once, and a repeated request is one.
func TestChangesAtOnce(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	on := c.listeners()
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids { // the same person, made by eight at once
		wg.Go(func() {
			r := c.call("POST", leadsPath, map[string]any{"phone": "+918143963821"})
			if r.Status == 201 {
				ids[i] = r.get("id").(string)
			} else if r.Status != 409 {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
	wg.Wait()
	id := strings.Join(ids, "")
	path := leadsPath + "/" + id
	c.call("GET", path, nil).want(200)
	for i := range 24 {
		wg.Go(func() {
			switch i % 3 {
			case 0:
				c.call("POST", path+"/tags", map[string]any{"tags": []string{"same", fmt.Sprint("t", i)}}).want(200)
			case 1:
				c.call("POST", path+"/stage", map[string]any{"stage": "won"}).want(200)
			default:
				c.e.send("POST", path+"/tags", map[string]any{"tags": []string{"again"}}, c.headers("Idempotency-Key", "k1"))
			}
		})
	}
	wg.Wait()
	on.expect(c, "at once", map[string]int{"lead_created": 1, "tag_added": 1 + 8 + 1, "stage_changed": 1, "deal_won": 1})
}
