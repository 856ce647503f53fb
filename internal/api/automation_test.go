package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/ecodrix/ecod/internal/rule"
)

const confirmRule = `{"name":"Confirm","trigger":"appointment_confirmed","enabled":true,"reenrol":"every_event","actions":[
	{"type":"lead.tag.add","tags":["booked"]},
	{"type":"lead.score","points":20},
	{"type":"whatsapp.template","template":"hello","language":"en","parameters":["{{patientName}}"]}]}`

func event(id, phone, more string) string {
	return `{"trigger":"appointment_confirmed","phone":"` + phone + `","eventId":"` + id + `","createLeadIfMissing":true` + more + `}`
}

const events, rulesPath, runsPath = "/api/crm/automations/events", "/api/crm/automations/rules", "/api/crm/automations/runs"

func TestEvents(t *testing.T) {
	w := newTown(t)
	ruleID := str(w.ok(w.asA("POST", rulesPath, confirmRule), 201), "id")
	w.ok(w.asA("POST", rulesPath, `{"name":"Other","trigger":"appointment_confirmed","enabled":true,"condition":"lead.score > 100","actions":[{"type":"lead.score","points":1}]}`), 201)

	// whom nobody knows
	none := w.ok(w.asA("POST", events, `{"trigger":"appointment_confirmed","email":"d@example.com","eventId":"e-0"}`), 202)
	if none["leadId"] != nil || none["leadCreated"] != false || text(none["runs"]) != "[]" || !strings.Contains(text(none["skipped"]), `"no_lead"`) || none["deferred"] != false {
		t.Fatal(text(none))
	}
	body := event("bk/1 ü", "81439 63821", `,"variables":{"patientName":"Dhanesh","n":1.50},"leadData":{"source":"website","name":"Dhanesh","tags":["new"],"fields":{"a":1}},"occurredAt":"2026-11-22T10:00:00+05:30"`)
	first := w.ok(w.asA("POST", events, body), 202)
	leadID := str(first, "leadId")
	runs := first["runs"].([]any)
	if leadID == "" || first["duplicate"] != false || first["leadCreated"] != true || len(runs) != 1 || str(runs[0].(map[string]any), "ruleId") != ruleID || first["eventId"] != "bk/1 ü" {
		t.Fatal(text(first))
	}
	lead := w.ok(w.asA("GET", "/api/crm/leads/"+leadID, ""), 200)
	if lead["phone"] != "+918143963821" || lead["score"] != 20.0 || text(lead["tags"]) != `["new","booked"]` || lead["source"] != "website" {
		t.Fatal(text(lead))
	}
	contact := w.ok(w.asA("GET", "/api/crm/contacts/"+str(lead, "contactId"), ""), 200)
	if contact["phone"] != lead["phone"] || contact["leadId"] != leadID || contact["optedOutAt"] != nil {
		t.Fatal(text(contact))
	}
	// the same again: spaces and the order of members do not matter, the way a number is written does
	again := w.ok(w.asA("POST", events, strings.Replace(strings.Replace(body, `{"trigger":"appointment_confirmed",`, ` { `, 1), `"createLead`, `"trigger" : "appointment_confirmed", "createLead`, 1)), 202)
	if again["duplicate"] != true || text(again["runs"]) != text(first["runs"]) || str(again, "leadId") != leadID {
		t.Fatal(text(again))
	}
	w.problem(w.asA("POST", events, strings.Replace(body, "1.50", "1.5", 1)), 409, "event.mismatch")
	w.problem(w.asA("POST", events, strings.Replace(body, "Dhanesh", "Danesh", 1)), 409, "event.mismatch")

	read := w.ok(w.asA("GET", events+"/bk%2F1%20%C3%BC", ""), 200)
	if read["trigger"] != "appointment_confirmed" || read["occurredAt"] != "2026-11-22T04:30:00.000Z" || text(read["skipped"]) != text(first["skipped"]) || str(read, "leadId") != leadID {
		t.Fatal(text(read))
	}
	// the send follows
	if _, err := w.meta.WaitAccepted(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	run := w.until("the run is done", func() reply { return w.asA("GET", runsPath+"/"+str(runs[0].(map[string]any), "runId"), "") },
		func(m map[string]any) bool { return m["state"] == "done" })
	if steps := run["steps"].([]any); len(steps) != 3 || str(steps[2].(map[string]any), "messageId") == "" || !strings.Contains(text(steps[2]), `"parameters":["Dhanesh"]`) {
		t.Fatal(text(run))
	}
	for query, want := range map[string]int{"": 1, "?ruleId=" + ruleID: 1, "?leadId=" + leadID + "&state=done": 1, "?state=failed": 0, "?leadId=x": 0} {
		if l := items(w.ok(w.asA("GET", runsPath+query, ""), 200)); len(l) != want {
			t.Errorf("%s: %d", query, len(l))
		}
	}
	w.problem(w.asA("GET", runsPath+"?state=x", ""), 422, "invalid", "query.state")

	// Idempotency-Key names the event where the body does not, and nobody does where neither is there
	unnamed := `{"trigger":"custom.ping","phone":"+918143963821"}`
	one, two := w.ok(w.asA("POST", events, unnamed, "Idempotency-Key", "k-1"), 202), w.ok(w.asA("POST", events, unnamed, "Idempotency-Key", "k-1"), 202)
	if one["eventId"] != "k-1" || two["duplicate"] != true || str(one, "leadId") != leadID {
		t.Fatal(text(one), text(two))
	}
	w.problem(w.asA("POST", events, `{"trigger":"custom.pong","phone":"+918143963821"}`, "Idempotency-Key", "k-1"), 409, "event.mismatch")
	if a, b := w.ok(w.asA("POST", events, unnamed), 202), w.ok(w.asA("POST", events, unnamed), 202); a["eventId"] == b["eventId"] || b["duplicate"] != false {
		t.Fatal(text(a), text(b))
	}
}

func TestEventsAtOnceAreOne(t *testing.T) {
	w := newTown(t)
	w.ok(w.asA("POST", rulesPath, `{"name":"r","trigger":"custom.x","enabled":true,"reenrol":"every_event","actions":[{"type":"lead.score","points":1}]}`), 201)
	var mu sync.Mutex
	firsts, leads := 0, map[string]bool{}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			r := w.asA("POST", events, `{"trigger":"custom.x","phone":"+918143963821","eventId":"same","createLeadIfMissing":true}`)
			mu.Lock()
			defer mu.Unlock()
			if r.StatusCode != http.StatusAccepted {
				t.Errorf("%d %s", r.StatusCode, r.body)
				return
			}
			m := r.json(t)
			if m["duplicate"] == false {
				firsts++
			}
			leads[str(m, "leadId")] = true
		})
	}
	wg.Wait()
	if firsts != 1 || len(leads) != 1 {
		t.Fatalf("%d first answers, leads %v", firsts, leads)
	}
	for id := range leads {
		if lead := w.ok(w.asA("GET", "/api/crm/leads/"+id, ""), 200); lead["score"] != 1.0 {
			t.Fatal(text(lead))
		}
	}
}

func TestEventsWhileTheDatabaseIsAway(t *testing.T) {
	w := newTown(t)
	w.noDB.Store(true)
	body := event("later", "+918143963821", "")
	got := w.ok(w.asA("POST", events, body), 202)
	if got["deferred"] != true || got["leadId"] != nil || text(got["runs"]) != "[]" || text(got["skipped"]) != "[]" || got["eventId"] != "later" {
		t.Fatal(text(got))
	}
	if r := w.asA("GET", "/api/crm/leads", ""); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	w.problem(w.asA("POST", events, strings.Replace(body, "+91", "+49", 1)), 409, "event.mismatch")
	w.noDB.Store(false)
	if l := items(w.ok(w.asA("GET", "/api/jobs?type="+rule.EventJob, ""), 200)); len(l) != 1 || str(l[0], "causation", "eventId") != "later" {
		t.Fatal(text(l))
	}
	w.until("the event is worked off", func() reply { return w.asA("GET", events+"/later", "") }, func(m map[string]any) bool { return m["leadCreated"] == true })
	if got := w.ok(w.asA("POST", events, body), 202); got["duplicate"] != true || got["leadId"] == nil {
		t.Fatal(text(got))
	}
}

func TestEventsRefuseBadInput(t *testing.T) {
	w := newTown(t)
	long := strings.Repeat("x", 201)
	for body, at := range map[string]string{
		`{}`:                                  "/trigger",
		`{"trigger":"x","phone":"123456789"}`: "/trigger",
		`{"trigger":"custom.","phone":"123456789"}`:                                                                       "/trigger",
		`{"trigger":"custom.x"}`:                                                                                          "/phone",
		`{"trigger":"custom.x","phone":null,"email":""}`:                                                                  "/phone",
		`{"trigger":"custom.x","phone":"call me"}`:                                                                        "/phone",
		`{"trigger":"custom.x","phone":"12","email":"no"}`:                                                                "/phone /email",
		`{"trigger":"custom.x","phone":918143963821}`:                                                                     "/phone",
		`{"trigger":"custom.x","phone":"+918143963821","eventId":""}`:                                                     "/eventId",
		`{"trigger":"custom.x","phone":"+918143963821","eventId":"` + long + `"}`:                                         "/eventId",
		`{"trigger":"custom.x","phone":"+918143963821","occurredAt":"today"}`:                                             "/occurredAt",
		`{"trigger":"custom.x","phone":"+918143963821","variables":[]}`:                                                   "/variables",
		`{"trigger":"custom.x","phone":"+918143963821","variables":{"a":"` + strings.Repeat("x", 32<<10) + `"}}`:          "/variables",
		`{"trigger":"custom.x","phone":"+918143963821","leadData":{"sourc":"x"}}`:                                         "/leadData/sourc",
		`{"trigger":"custom.x","phone":"+918143963821","leadData":{"name":7,"tags":["ok",1]}}`:                            "/leadData/name /leadData/tags/1",
		`{"trigger":"custom.x","phone":"+918143963821","leadData":{"tags":["` + long + `"]}}`:                             "/leadData/tags/0",
		`{"trigger":"custom.x","phone":"+918143963821","leadData":{"currency":"rupees"}}`:                                 "/leadData/currency",
		`{"trigger":"custom.x","phone":"+918143963821","leadData":{"fields":{"a":"` + strings.Repeat("x", 8<<10) + `"}}}`: "/leadData",
		`{"trigger":"custom.x","phone":"+918143963821","rules":[]}`:                                                       "/rules",
	} {
		w.problem(w.asA("POST", events, body), 422, "invalid", strings.Fields(at)...)
	}
	p := w.problem(w.asA("POST", events, `{"trigger":"nope","phone":"+918143963821"}`), 422, "invalid", "/trigger")
	for _, known := range []string{"appointment_confirmed", "score_crossed", "custom.*"} {
		if !strings.Contains(text(p), known) {
			t.Errorf("%s is not listed: %s", known, text(p))
		}
	}
	for _, key := range []string{strings.Repeat("k", 256), "two words", "\xff", "é"} {
		w.problem(w.asA("POST", events, `{"trigger":"custom.x","phone":"+918143963821"}`, "Idempotency-Key", key), 400, "idempotency.bad_key", "header.Idempotency-Key")
		w.problem(w.asA("POST", rulesPath, confirmRule, "Idempotency-Key", key), 400, "idempotency.bad_key", "header.Idempotency-Key")
	}
	w.problem(w.asA("GET", events+"/none", ""), 404, "event.not_found")
	if l := items(w.ok(w.asA("GET", "/api/jobs", ""), 200)); len(l) != 0 {
		t.Fatalf("refused events made jobs: %v", l)
	}
	// what just fits: also where it is written with escapes that take more room at rest
	for i, v := range []string{strings.Repeat("x", 32<<10-8), strings.Repeat("é", 16<<10-8), strings.Repeat("&", 32<<10-8)} {
		r := w.asA("POST", events, fmt.Sprintf(`{"trigger":"custom.x","phone":"+918143963821","eventId":"big-%d","variables":{"a":%q}}`, i, v))
		if r.StatusCode != http.StatusAccepted && (i < 2 || r.StatusCode != http.StatusUnprocessableEntity) {
			t.Errorf("%d: %d %s", i, r.StatusCode, r.body)
		}
	}
}

func TestRules(t *testing.T) {
	w := newTown(t)
	r := w.asA("POST", rulesPath, strings.Replace(confirmRule, `"enabled":true`, `"enabled":false`, 1))
	made := w.ok(r, 201)
	path := rulesPath + "/" + str(made, "id")
	if made["enabled"] != false || made["status"] != "draft" || made["reenrol"] != "every_event" || text(made["warnings"]) != "[]" || r.Header.Get("Location") != path || r.Header.Get("ETag") != `"1"` {
		t.Fatal(text(made), r.Header)
	}
	if got := w.ok(w.asA("GET", path, ""), 200); text(got) != text(made) {
		t.Fatal(text(got))
	}
	w.problem(w.asA("POST", path+"/pause", ""), 409, "rule.not_published")
	if got := w.ok(w.asA("POST", path+"/publish", ""), 200); got["enabled"] != true || got["liveVersion"] != 1.0 {
		t.Fatal(text(got))
	}
	if got := w.ok(w.asA("POST", path+"/pause", ""), 200); got["status"] != "paused" {
		t.Fatal(text(got))
	}
	if got := w.ok(w.asA("POST", path+"/resume", ""), 200); got["status"] != "live" {
		t.Fatal(text(got))
	}
	// the draft is edited; what runs is what was published
	got := w.ok(w.asA("PATCH", path, `{"name":"Renamed","reenrol":{"cooldown":"24h"},"condition":"lead.score < 5","actions":[{"type":"lead.score","points":1}]}`), 200)
	if got["name"] != "Renamed" || text(got["reenrol"]) != `{"cooldown":"24h"}` || got["liveVersion"] != 1.0 || got["enabled"] != true || len(got["actions"].([]any)) != 1 {
		t.Fatal(text(got))
	}
	answer := w.ok(w.asA("POST", events, event("e1", "+918143963821", `,"variables":{"patientName":"D"}`)), 202)
	if lead := w.ok(w.asA("GET", "/api/crm/leads/"+str(answer, "leadId"), ""), 200); lead["score"] != 20.0 {
		t.Fatal(text(lead))
	}
	if got := w.ok(w.asA("PATCH", path, `{"enabled":true,"condition":null}`), 200); got["liveVersion"] != 2.0 || got["condition"] != "" {
		t.Fatal(text(got))
	}
	if got := w.ok(w.asA("PATCH", path, `{"enabled":false}`), 200); got["status"] != "paused" {
		t.Fatal(text(got))
	}
	// of two who read the same version, one changes it
	read := w.asA("GET", path, "")
	tag := read.Header.Get("ETag")
	w.ok(w.asA("PATCH", path, `{"name":"first"}`, "If-Match", tag), 200)
	p := w.problem(w.asA("PATCH", path, `{"name":"second"}`, "If-Match", tag), 409, "version.conflict")
	w.problem(w.asA("PATCH", path, fmt.Sprintf(`{"name":"third","version":%v}`, read.json(t)["version"])), 409, "version.conflict")
	w.ok(w.asA("PATCH", path, fmt.Sprintf(`{"name":"fourth","version":%v}`, p["version"])), 200)
	w.ok(w.asA("PATCH", path, `{"name":"fifth"}`, "If-Match", "*"), 200)
	w.problem(w.asA("PATCH", path, `{"name":"sixth"}`, "If-Match", `"x"`), 422, "invalid", "header.If-Match")

	cycle := w.ok(w.asA("POST", rulesPath, `{"name":"Loop","trigger":"tag_added","actions":[{"type":"branch","condition":"true","then":[{"type":"lead.tag.add","tags":["x"]}]}]}`), 201)
	if !strings.Contains(text(cycle["warnings"]), `"code":"cycle"`) {
		t.Fatal(text(cycle))
	}
	page := w.ok(w.asA("GET", rulesPath+"?limit=1", ""), 200)
	rest := w.ok(w.asA("GET", rulesPath+"?limit=1&cursor="+str(page, "nextCursor"), ""), 200)
	if items(page)[0]["name"] != "Loop" || items(rest)[0]["name"] != "fifth" || rest["nextCursor"] != nil {
		t.Fatal(text(page), text(rest))
	}
	if r := w.asA("DELETE", path, ""); r.StatusCode != http.StatusNoContent {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	w.problem(w.asA("DELETE", path, ""), 404, "rule.not_found")
	w.problem(w.asA("PATCH", path, `{}`), 404, "rule.not_found")
	w.problem(w.asA("POST", path+"/publish", ""), 404, "rule.not_found")
}

func TestRulesRefuseBadInput(t *testing.T) {
	w := newTown(t)
	id := str(w.ok(w.asA("POST", rulesPath, confirmRule), 201), "id")
	with := func(actions string) string { return `{"name":"x","trigger":"custom.x","actions":` + actions + `}` }
	for body, at := range map[string]string{
		`{}`:                       "/actions /name /trigger",
		with(`[]`):                 "/actions",
		with(`{}`):                 "/actions",
		with(`[7]`):                "/actions/0",
		with(`[{}]`):               "/actions/0/type",
		with(`[{"type":"dance"}]`): "/actions/0/type",
		with(`[{"type":"lead.score","points":1,"foo":1}]`):    "/actions/0/foo",
		with(`[{"type":"lead.score","points":"1"}]`):          "/actions/0/points",
		with(`[{"type":"lead.score"}]`):                       "/actions/0/points",
		with(`[{"type":"lead.score","points":1,"text":"x"}]`): "/actions/0/text",
		with(`[{"type":"lead.tag.add","tags":["a"]},{"type":"branch","condition":"true","then":[{"type":"lead.stage","stage":"x","colour":1}]}]`): "/actions/1/then/0/colour",
		with(`[{"type":"branch","condition":"lead.","then":[{"type":"lead.stage","stage":"x"}]}]`):                                                "/actions/0/condition",
		with(`[{"type":"whatsapp.template","template":"t","language":"en","parameters":["{{a}"]}]`):                                               "/actions/0/parameters/0",
		`{"name":"x","trigger":"nope","actions":[{"type":"lead.score","points":1}]}`:                                                              "/trigger",
		`{"name":" ","trigger":"custom.x","actions":[{"type":"lead.score","points":1}]}`:                                                          "/name",
		`{"name":"x","trigger":"custom.x","condition":"1 +","actions":[{"type":"lead.score","points":1}]}`:                                        "/condition",
		`{"name":"x","trigger":"custom.x","reenrol":"sometimes","actions":[{"type":"lead.score","points":1}]}`:                                    "/reenrol",
		`{"name":"x","trigger":"custom.x","reenrol":{"cooldown":"soon"},"actions":[{"type":"lead.score","points":1}]}`:                            "/reenrol/cooldown",
		`{"name":"x","trigger":"custom.x","reenrol":{"pause":"1h"},"actions":[{"type":"lead.score","points":1}]}`:                                 "/reenrol",
		`{"name":"x","trigger":"custom.x","reenrol":7,"actions":[{"type":"lead.score","points":1}]}`:                                              "/reenrol",
		`{"name":"x","trigger":"custom.x","id":"mine","actions":[{"type":"lead.score","points":1}]}`:                                              "/id",
	} {
		w.problem(w.asA("POST", rulesPath, body), 422, "invalid", strings.Fields(at)...)
	}
	for body, at := range map[string]string{
		`{"name":""}`: "/name", `{"actions":[]}`: "/actions", `{"trigger":"x"}`: "/trigger", `{"version":0}`: "/version", `{"reenrol":"x"}`: "/reenrol",
		`{"condition":"("}`: "/condition", `{"status":"live"}`: "/status", `{"actions":[{"type":"lead.score","points":1e9}]}`: "/actions/0/points",
	} {
		w.problem(w.asA("PATCH", rulesPath+"/"+id, body), 422, "invalid", at)
	}
	if l := items(w.ok(w.asA("GET", rulesPath, ""), 200)); len(l) != 1 || l[0]["version"] != 1.0 {
		t.Fatal(text(l))
	}
}

func TestHeldRun(t *testing.T) {
	w := newTown(t)
	w.ok(w.asA("POST", rulesPath, confirmRule), 201)
	answer := w.ok(w.asA("POST", events, event("held", "+918143963821", "")), 202)
	runs := answer["runs"].([]any)[0].(map[string]any)
	path := runsPath + "/" + str(runs, "runId")
	run := w.ok(w.asA("GET", path, ""), 200)
	if run["state"] != "held" || text(run["held"]) != `{"names":["patientName"],"reason":"missing_variable"}` {
		t.Fatal(text(run))
	}
	for body, at := range map[string]string{`{}`: "/variables", `{"variables":{}}`: "/variables", `{"variables":1}`: "/variables", `{"variables":{"a":1},"state":"done"}`: "/state"} {
		w.problem(w.asA("PATCH", path, body), 422, "invalid", at)
	}
	if run := w.ok(w.asA("PATCH", path, `{"variables":{"other":1}}`), 200); run["state"] != "held" {
		t.Fatal(text(run))
	}
	if run := w.ok(w.asA("PATCH", path, `{"variables":{"patientName":"Dhanesh"}}`), 200); run["state"] != "active" && run["state"] != "done" {
		t.Fatal(text(run))
	}
	if _, err := w.meta.WaitAccepted(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	w.until("the run is done", func() reply { return w.asA("GET", path, "") }, func(m map[string]any) bool { return m["state"] == "done" })
	w.problem(w.asA("PATCH", path, `{"variables":{"patientName":"x"}}`), 409, "run.not_held")
	w.problem(w.asA("PATCH", runsPath+"/none", `{"variables":{"patientName":"x"}}`), 404, "run.not_found")
}

func TestSimulate(t *testing.T) {
	w := newTown(t)
	leadID := str(w.ok(w.asA("POST", events, event("e", "+918143963821", `,"leadData":{"name":"Dhanesh"}`)), 202), "leadId")
	id := str(w.ok(w.asA("POST", rulesPath, `{"name":"x","trigger":"appointment_confirmed","condition":"lead.score < 5 && event.variables.kind == 'a'","actions":[
		{"type":"lead.score","points":20},
		{"type":"branch","condition":"lead.score >= 20","then":[{"type":"whatsapp.text","text":"Hi {{lead.name}}, {{time}}"}],"else":[{"type":"lead.tag.add","tags":["cold"]}]},
		{"type":"whatsapp.template","template":"hello","language":"en","parameters":["{{lead.name}}"],"from":"999"},
		{"type":"whatsapp.text","text":"after"},
		{"type":"lead.stage","stage":"booked"}]}`), 201), "id")
	path := rulesPath + "/" + id + "/simulate"
	before := text(w.ok(w.asA("GET", "/api/crm/leads/"+leadID, ""), 200))
	got := w.ok(w.asA("POST", path, `{"leadId":"`+leadID+`","event":{"trigger":"appointment_confirmed","variables":{"kind":"b","time":"Monday"}},"variables":{"kind":"a"},"at":"2026-01-02T03:04:05Z"}`), 200)
	if got["matched"] != true {
		t.Fatal(text(got))
	}
	type step struct{ id, would, at, reason string }
	var steps []string
	for _, s := range got["steps"].([]any) {
		m := s.(map[string]any)
		steps = append(steps, fmt.Sprint(step{str(m, "id"), text(m["wouldRun"]), str(m, "at"), str(m, "reason")}))
	}
	want := []string{
		"{0 true 2026-01-02T03:04:05.000Z }", "{1 true 2026-01-02T03:04:05.000Z }", "{1.then.0 true 2026-01-02T03:04:05.000Z }",
		"{1.else.0 false  branch_not_taken}", "{2 false  whatsapp.unknown_number}", "{3 false  previous_failed}", "{4 true 2026-01-02T03:04:05.000Z }",
	}
	if fmt.Sprint(steps) != fmt.Sprint(want) || !strings.Contains(text(got), `"text":"Hi Dhanesh, Monday"`) {
		t.Fatalf("%v\n%s", steps, text(got))
	}
	for body, reason := range map[string]string{
		`{"phone":"81439 63821","variables":{"kind":"b"}}`:           "condition_false",
		`{"phone":"+918143963821","variables":{"kind":"a"}}`:         "missing_variable",
		`{"phone":"+918143960000","variables":{"kind":"a"}}`:         "no_lead",
		`{"leadId":"none","variables":{"kind":"a"}}`:                 "no_lead",
		`{"leadId":"` + leadID + `","event":{"trigger":"deal_won"}}`: "other_trigger",
		`{"leadId":"` + leadID + `","variables":{"kind":{"a":1}}}`:   "condition_false",
	} {
		if got := w.ok(w.asA("POST", path, body), 200); got["reason"] != reason {
			t.Errorf("%s: %s", body, text(got))
		}
	}
	for body, at := range map[string]string{
		`{}`: "/leadId", `{"phone":"x"}`: "/phone", `{"leadId":"x","event":{"trigger":"nope"}}`: "/event/trigger", `{"leadId":"x","at":"x"}`: "/at",
		`{"leadId":"x","event":{"kind":1}}`: "/event/kind",
	} {
		w.problem(w.asA("POST", path, body), 422, "invalid", at)
	}
	w.problem(w.asA("POST", rulesPath+"/none/simulate", `{"leadId":"x"}`), 404, "rule.not_found")
	if after := text(w.ok(w.asA("GET", "/api/crm/leads/"+leadID, ""), 200)); after != before {
		t.Fatalf("before %s\nafter %s", before, after)
	}
	if l := items(w.ok(w.asA("GET", runsPath, ""), 200)); len(l) != 0 {
		t.Fatal(text(l))
	}
	if len(w.meta.Accepted()) != 0 {
		t.Fatal("a simulation was sent")
	}
}
