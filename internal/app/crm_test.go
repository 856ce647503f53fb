package app_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
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
		// in one look: between two, a job could leave another where the first look was
		if n := len(c.call("GET", "/api/jobs?state=ready&state=running&state=scheduled", nil).want(200).get("items").([]any)); n > 0 {
			return fmt.Sprintf("%d jobs and more", n)
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

// A client's own pipeline: what is won is told by the stage's kind, and a stage that is in use stays.
func TestPipelines(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	on := c.listeners()
	const path = "/api/crm/pipelines"

	def := c.call("GET", path, nil).want(200)
	members(t, def, "items.0.id", "default", "items.0.default", true, "items.0.version", 1, "items.0.stages.0.id", "new", "items.1", nil)
	made := c.call("POST", path, map[string]any{"name": "B2B deals", "stages": []map[string]any{
		{"name": "Asked"}, {"name": "Signed", "kind": "won"}, {"id": "paid", "kind": "won"}, {"id": "lost"}}}).want(201)
	members(t, made, "id", "b2b-deals", "stages.0.id", "asked", "stages.0.kind", "open", "stages.1.kind", "won", "stages.2.name", "paid", "stages.3.kind", "lost", "version", 1)
	c.call("POST", path, map[string]any{"name": "b2b DEALS", "stages": []map[string]any{{"name": "x"}}}).problem(409, "pipeline.exists")
	c.call("POST", path, map[string]any{"id": "default", "name": "x", "stages": []map[string]any{{"name": "x"}}}).problem(409, "pipeline.exists")
	for body, pointer := range map[string]string{
		`{"name":"x","stages":[]}`: "/stages", `{"name":"x","stages":[{"name":"a"},{"name":"A"}]}`: "/stages/1/id", `{"name":"x","stages":[{"name":"a","kind":"won"}]}`: "/stages/0/kind",
		`{"name":"x","stages":[{"name":"a","kind":"odd"}]}`: "/stages/0/kind", `{"name":" ","stages":[{"name":"a"}]}`: "/name", `{"name":"x","stages":[{}]}`: "/stages", `{"name":"x","id":"A b","stages":[{"name":"a"}]}`: "/id",
	} {
		if p := c.call("POST", path, body).problem(422, ""); p.pointers() != pointer {
			t.Errorf("%s: %s", body, p.Body)
		}
	}
	other.call("GET", path+"/b2b-deals", nil).problem(404, "pipeline.not_found")
	other.call("POST", leadsPath, map[string]any{"phone": "8143963821", "pipeline": "b2b-deals"}).problem(422, "")

	lead := c.call("POST", leadsPath, map[string]any{"phone": "8143963821", "pipeline": "b2b-deals"}).want(201)
	members(t, lead, "stage", "asked", "status", "open")
	at := leadsPath + "/" + lead.get("id").(string)
	c.call("POST", at+"/stage", map[string]any{"stage": "won"}).problem(422, "") // of another pipeline
	members(t, c.call("POST", at+"/stage", map[string]any{"stage": "signed"}).want(200), "status", "won", "pipeline", "b2b-deals")
	members(t, c.call("POST", at+"/stage", map[string]any{"stage": "paid"}).want(200), "status", "won")
	members(t, c.call("POST", at+"/stage", map[string]any{"pipeline": "default", "stage": "won"}).want(200), "status", "won")
	on.expect(c, "won once", map[string]int{"lead_created": 1, "stage_changed": 3, "deal_won": 1})
	members(t, c.call("PATCH", at, map[string]any{"pipeline": "b2b-deals"}).want(200), "stage", "asked", "status", "open")
	if n := len(c.call("GET", leadsPath+"?pipeline=b2b-deals&stage=asked", nil).want(200).get("items").([]any)); n != 1 {
		t.Errorf("%d leads in the pipeline", n)
	}

	// an automation moves by the same rules
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "move", "trigger": "custom.pay", "enabled": true, "actions": []map[string]any{
		{"type": "lead.stage", "stage": "nowhere"}, {"type": "lead.stage", "stage": "paid"}}}).want(201)
	c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "custom.pay", "phone": "8143963821"}).want(202)
	members(t, c.call("GET", at, nil).want(200), "stage", "paid", "status", "won")
	on.expect(c, "moved by a rule", map[string]int{"lead_created": 1, "stage_changed": 5, "deal_won": 2})

	edit := func(stages string) *answer { return c.call("PATCH", path+"/b2b-deals", `{"stages":`+stages+`}`) }
	edit(`[{"id":"asked"},{"id":"signed","kind":"won"}]`).problem(409, "pipeline.stage_in_use")
	edit(`[{"id":"asked"},{"id":"paid","kind":"lost"}]`).problem(409, "pipeline.stage_in_use")
	c.call("DELETE", path+"/b2b-deals", nil).problem(409, "pipeline.in_use")
	c.call("DELETE", path+"/default", nil).problem(409, "pipeline.default")
	members(t, edit(`[{"id":"asked"},{"id":"paid","kind":"won","name":"Money is here"}]`).want(200), "version", 2, "stages.1.name", "Money is here")
	c.call("PATCH", path+"/b2b-deals", `{"name":"x","version":1}`).problem(409, "version.conflict")
	members(t, c.e.send("PATCH", path+"/default", `{"stages":[{"id":"fresh"},{"id":"won"}]}`, c.headers("If-Match", `"1"`)).want(200), "version", 2, "name", "Default")
	c.e.send("PATCH", path+"/default", `{"stages":[{"id":"x"}]}`, c.headers("If-Match", `"1"`)).problem(409, "version.conflict")
	members(t, c.call("POST", leadsPath, map[string]any{"phone": "8143963822"}).want(201), "stage", "fresh")
	ev := c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "custom.x", "phone": "8143963823", "createLeadIfMissing": true}).want(202)
	members(t, c.call("GET", leadsPath+"/"+ev.get("leadId").(string), nil), "stage", "fresh")
	c.call("DELETE", at, nil).want(204)
	c.call("DELETE", path+"/b2b-deals", nil).want(204)
	c.call("GET", path+"/b2b-deals", nil).problem(404, "pipeline.not_found")
}

// Tags are known with their leads; renamed ones go over silently, deleted ones are taken away loudly.
func TestTags(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	const n = 230 // more than one window
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				c.call("POST", leadsPath, map[string]any{"phone": fmt.Sprintf("+9181439%05d", i), "tags": []string{"old", "keep"}}).want(201)
			}
		})
	}
	wg.Wait()
	other.call("POST", leadsPath, map[string]any{"phone": "8143963821", "tags": []string{"old"}}).want(201)
	c.call("POST", "/api/crm/tags", map[string]any{"name": " spare "}).want(201)
	c.call("POST", "/api/crm/tags", map[string]any{"name": "old"}).problem(409, "tag.exists")
	list := c.call("GET", "/api/crm/tags", nil).want(200)
	members(t, list, "items.0.name", "keep", "items.0.leads", n, "items.1.name", "old", "items.1.leads", n, "items.2.name", "spare", "items.2.leads", 0, "items.3", nil)
	old, keep := "/api/crm/tags/"+list.get("items.1.id").(string), "/api/crm/tags/"+list.get("items.0.id").(string)
	other.call("GET", old, nil).problem(404, "tag.not_found")

	on := c.listeners()
	c.call("PATCH", old, map[string]any{"name": "keep"}).problem(409, "tag.exists")
	renamed := c.call("PATCH", old, map[string]any{"name": "fresh"}).want(200)
	c.call("GET", old, nil).problem(404, "tag.not_found")
	c.quiet()
	members(t, c.call("GET", "/api/crm/tags/"+renamed.get("id").(string), nil).want(200), "name", "fresh", "leads", n)
	if left := len(c.call("GET", leadsPath+"?tag=old", nil).want(200).get("items").([]any)); left != 0 {
		t.Errorf("%d leads still have the old name", left)
	}
	c.call("DELETE", keep, nil).want(204)
	c.call("GET", keep, nil).problem(404, "tag.not_found")
	on.expect(c, "deleted", map[string]int{"tag_removed": n})
	members(t, c.call("GET", "/api/crm/tags", nil).want(200), "items.0.name", "fresh", "items.1.name", "spare", "items.2", nil)
	if left := len(other.call("GET", leadsPath+"?tag=old", nil).want(200).get("items").([]any)); left != 1 {
		t.Error("the other client's lead lost its tag")
	}
}

// Contacts by hand.
func TestContactsByHand(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	const path = "/api/crm/contacts"
	made := c.call("POST", path, map[string]any{"name": "Ana María", "phone": "8143963821", "email": "Ana@Example.com"}).want(201)
	members(t, made, "phone", "+918143963821", "email", "ana@example.com", "leadId", nil)
	at := path + "/" + made.get("id").(string)
	if p := c.call("POST", path, map[string]any{"phone": "+91 81439 63821"}).problem(409, "contact.exists"); p.get("contactId") != made.get("id") {
		t.Error(string(p.Body))
	}
	c.call("POST", path, map[string]any{"name": "x"}).problem(422, "")
	other.call("GET", at, nil).problem(404, "contact.not_found")
	second := c.call("POST", path, map[string]any{"email": "ben@example.com", "name": "Ben"}).want(201)
	for query, want := range map[string]int{"": 2, "?q=mar": 1, "?q=ANA+8143963": 0, "?q=ana+918143963": 1, "?phone=08143963821": 1, "?email=BEN@example.com": 1, "?phone=8143963829": 0, "?sort=name&limit=1": 1, "?q=nobody": 0} {
		if n := len(c.call("GET", path+query, nil).want(200).get("items").([]any)); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	// a lead of the same person finds it
	lead := c.call("POST", leadsPath, map[string]any{"phone": "918143963821"}).want(201)
	if lead.get("contactId") != made.get("id") {
		t.Errorf("lead %s", lead.Body)
	}
	c.call("DELETE", at, nil).problem(409, "contact.has_lead")
	now := c.call("GET", at, nil).want(200)
	members(t, now, "leadId", lead.get("id"))
	members(t, c.e.send("PATCH", at, map[string]any{"name": "Ana", "email": nil}, c.headers("If-Match", now.Header.Get("ETag"))).want(200), "name", "Ana", "email", nil)
	c.e.send("PATCH", at, map[string]any{"name": "late"}, c.headers("If-Match", now.Header.Get("ETag"))).problem(409, "version.conflict")
	c.call("PATCH", path+"/"+second.get("id").(string), map[string]any{"phone": "8143963821"}).problem(409, "contact.exists")
	c.call("PATCH", path+"/"+second.get("id").(string), map[string]any{"email": nil}).problem(422, "")
	c.call("DELETE", path+"/"+second.get("id").(string), nil).want(204)
	c.call("GET", path+"/"+second.get("id").(string), nil).problem(404, "contact.not_found")
	c.call("POST", path, map[string]any{"email": "ben@example.com"}).want(201)
	c.call("DELETE", leadsPath+"/"+lead.get("id").(string), nil).want(204)
	c.quiet()
	members(t, c.call("GET", at, nil).want(200), "leadId", nil)
	c.call("DELETE", at, nil).want(204)

	// one who asked for no messages is forgotten by name, and their wish is not
	e.webhook(e.inbound(c, "918143963821", "Ana", "STOP", "wamid.stop")).want(200)
	var id string
	eventually(t, "the contact is there", func() string {
		items := c.call("GET", path+"?phone=8143963821", nil).want(200).get("items").([]any)
		if len(items) == 0 || items[0].(map[string]any)["optedOutAt"] == nil {
			return fmt.Sprint(items)
		}
		id = items[0].(map[string]any)["id"].(string)
		return ""
	})
	c.call("DELETE", path+"/"+id, nil).want(204)
	c.call("GET", path+"/"+id, nil).problem(404, "contact.not_found")
	again := c.call("POST", leadsPath, map[string]any{"phone": "918143963821"}).want(201)
	if got := c.call("GET", path+"/"+again.get("contactId").(string), nil).want(200); got.get("optedOutAt") == nil || got.get("name") != "" {
		t.Errorf("%s", got.Body)
	}
}

// inbound is a text that somebody writes to a client.
func (e *engine) inbound(c *client, from, name, text, wamid string) []byte {
	return whatsapptest.Batch(e.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: c.Number, From: from, Name: name, Type: "text", Object: map[string]string{"body": text}, ID: wamid}))
}

// All that happened with a lead is in its timeline, also what happened with those that were merged into it.
func TestTimelineAndMerge(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	tagged := c.hear("tag_added")
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "greet", "trigger": "custom.hello", "enabled": true, "actions": []map[string]any{
		{"type": "whatsapp.template", "template": "appointment_confirmed", "language": "en", "parameters": []string{"a", "b", "c"}}, {"type": "lead.stage", "stage": "booked"}}}).want(201)

	a := c.call("POST", leadsPath, map[string]any{"phone": "8143963821", "tags": []string{"a", "both"}, "fields": map[string]any{"x": "of a", "y": "of a"}}).want(201).get("id").(string)
	b := c.call("POST", leadsPath, map[string]any{"email": "b@example.com", "name": "Ben", "tags": []string{"both", "b"}, "fields": map[string]any{"x": "of b"}, "value": 5}).want(201).get("id").(string)
	for i := range 5 {
		c.call("POST", leadsPath+"/"+a+"/notes", map[string]any{"text": fmt.Sprint("note ", i)}).want(201)
	}
	c.call("POST", leadsPath+"/"+b+"/notes", map[string]any{"text": "of b"}).want(201)
	c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "custom.hello", "phone": "8143963821"}).want(202)
	e.webhook(e.inbound(c, "918143963821", "Ana", "Hello", "wamid.in")).want(200)
	types := func(lead string) map[string]int {
		out := map[string]int{}
		for _, item := range c.all(leadsPath + "/" + lead + "/timeline") {
			out[item["type"].(string)]++
		}
		return out
	}
	wantA := map[string]int{"note": 5, "message": 2, "run": 3, "score": 2, "change": 2} // made, and moved by the rule
	eventually(t, "the timeline is whole", func() string {
		if got := types(a); fmt.Sprint(got) != fmt.Sprint(wantA) {
			return fmt.Sprint(got)
		}
		return ""
	})
	// in pages, newest first, none twice
	var seen []string
	last, cursor := "9", ""
	for {
		page := c.call("GET", leadsPath+"/"+a+"/timeline?limit=3"+cursor, nil).want(200)
		for _, it := range page.get("items").([]any) {
			item := it.(map[string]any)
			if slices.Contains(seen, item["id"].(string)) || item["at"].(string) > last {
				t.Errorf("%v after %v", item, last)
			}
			seen, last = append(seen, item["id"].(string)), item["at"].(string)
		}
		next, _ := page.get("nextCursor").(string)
		if next == "" {
			break
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
	if len(seen) != 14 {
		t.Errorf("%d entries in pages", len(seen))
	}
	other.call("GET", leadsPath+"/"+a+"/timeline", nil).problem(404, "lead.not_found")
	c.call("GET", leadsPath+"/"+a+"/timeline?cursor=x", nil).problem(422, "")
	c.quiet()
	before := c.heard(tagged)

	for body, status := range map[string]int{
		`{"into":"` + a + `","from":["` + a + `"]}`: 422, `{"into":"` + a + `","from":[]}`: 422, `{"into":"none","from":["` + b + `"]}`: 404, `{"into":"` + a + `","from":["none"]}`: 404,
	} {
		c.call("POST", leadsPath+"/merge", body).problem(status, "")
	}
	other.call("POST", leadsPath+"/merge", `{"into":"`+a+`","from":["`+b+`"]}`).problem(404, "lead.not_found")
	c.call("GET", leadsPath+"/"+b, nil).want(200)
	score := c.call("GET", leadsPath+"/"+a, nil).get("score").(float64) + c.call("GET", leadsPath+"/"+b, nil).get("score").(float64)
	merged := c.e.send("POST", leadsPath+"/merge", map[string]any{"into": a, "from": []string{b}}, c.headers("Idempotency-Key", "m1")).want(200)
	members(t, merged, "id", a, "email", "b@example.com", "phone", "+918143963821", "name", "Ben", "tags", "[a both b]", "fields", "map[x:of a y:of a]", "value", 5, "stage", "booked")
	c.quiet()
	members(t, c.call("POST", leadsPath+"/merge", map[string]any{"into": a, "from": []string{b}}).want(200), "id", a, "score", score+1) // again: nothing
	c.quiet()
	if n := c.heard(tagged); n != before+1 {
		t.Errorf("tag_added was heard %d times by the merging", n-before)
	}
	members(t, c.call("GET", leadsPath+"/"+b, nil).want(200), "id", a)
	members(t, c.call("PATCH", leadsPath+"/"+b, map[string]any{"name": "Ben B."}).want(200), "id", a, "name", "Ben B.")
	if n := len(c.all(leadsPath)); n != 1 {
		t.Errorf("%d leads", n)
	}
	got := types(a)
	if got["note"] != 6 || fmt.Sprint(types(b)) != fmt.Sprint(got) {
		t.Errorf("timeline %v, by the other id %v", got, types(b))
	}
	if n := len(c.all("/api/crm/contacts")); n != 2 {
		t.Errorf("%d contacts", n)
	}

	// a phone of a merged lead is the lead's
	d := c.call("POST", leadsPath, map[string]any{"phone": "8143963822"}).want(201).get("id").(string)
	c.call("POST", leadsPath+"/merge", map[string]any{"into": d, "from": []string{b}}).want(200) // by its old id
	members(t, c.call("GET", leadsPath+"/"+a, nil).want(200), "id", d, "phone", "+918143963822")
	members(t, c.call("GET", leadsPath+"/"+b, nil).want(200), "id", d)
	members(t, c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "custom.x", "phone": "8143963821", "createLeadIfMissing": true}).want(202), "leadId", d, "leadCreated", false)
	if p := c.call("POST", leadsPath, map[string]any{"phone": "8143963821"}).problem(409, "lead.exists"); p.get("leadId") != d {
		t.Error(string(p.Body))
	}
	c.quiet()
	if got := types(d); got["note"] != 6 || got["run"] < 5 {
		t.Errorf("timeline %v", got)
	}
	c.call("DELETE", leadsPath+"/"+d, nil).want(204)
	c.quiet()
	for _, id := range []string{a, b, d} {
		c.call("GET", leadsPath+"/"+id, nil).problem(404, "lead.not_found")
	}
	c.call("POST", leadsPath, map[string]any{"phone": "8143963821"}).want(201)
}

// Rules that undo each other's changes do it once: what a rule caused enters no rule that led to it.
func TestRulesThatAnswerEachOther(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	rule := func(trigger, action string) string {
		return c.call("POST", "/api/crm/automations/rules", map[string]any{"name": trigger, "trigger": trigger, "enabled": true, "reenrol": "every_event",
			"actions": []map[string]any{{"type": action, "tags": []string{"x"}}}}).want(201).get("id").(string)
	}
	added, removed := rule("tag_added", "lead.tag.remove"), rule("tag_removed", "lead.tag.add")
	lead := leadsPath + "/" + c.call("POST", leadsPath, map[string]any{"phone": "8143963821"}).want(201).get("id").(string)
	for n, method := range []string{"POST", "DELETE"} { // given by hand, then taken by hand
		c.call(method, lead+"/tags", map[string]any{"tags": []string{"x"}}).want(200)
		c.quiet()
		if a, r := c.heard(added), c.heard(removed); a != n+1 || r != n+1 {
			t.Fatalf("after %d changes the rules ran %d and %d times", n+1, a, r)
		}
	}
}
