package app_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

type obj = map[string]any

func say(text string) obj { return obj{"type": "whatsapp.text", "text": text} }

func rest(d string) obj { return obj{"type": "wait", "for": d} }

// rule makes a live rule that is entered by every event.
func (c *client) rule(trigger string, extra obj, actions ...obj) *answer {
	c.e.t.Helper()
	r := obj{"name": "r", "trigger": trigger, "enabled": true, "reenrol": "every_event", "actions": actions}
	for k, v := range extra {
		r[k] = v
	}
	return c.call("POST", "/api/crm/automations/rules", r).want(201)
}

// happen tells an event of a phone.
func (c *client) happen(trigger, phone string, vars obj) *answer {
	c.e.t.Helper()
	return c.call("POST", "/api/crm/automations/events", obj{"trigger": trigger, "phone": phone, "createLeadIfMissing": true, "variables": vars}).want(202)
}

// shows compares values of an answer, in pairs of path and value; nil also where there is none.
func shows(t *testing.T, what string, a *answer, pairs ...any) {
	t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		if got := a.get(pairs[i].(string)); got != pairs[i+1] {
			t.Errorf("%s: %s is %v, want %v in %s", what, pairs[i], got, pairs[i+1], a.Body)
		}
	}
}

func runOf(a *answer) string {
	a.t.Helper()
	id, ok := a.get("runs.0.runId").(string)
	if !ok {
		a.t.Fatalf("no run: %s", a.Body)
	}
	return id
}

// write lets a customer write to a client.
func (c *client) write(phone, text string) {
	c.e.t.Helper()
	c.e.webhook(whatsapptest.Batch(c.e.meta.InboundText(c.Number, phone, "Ana", text))).want(200)
}

// texts are what Meta accepted for a phone, in order.
func (c *client) texts(phone string) (out []string) {
	for _, a := range c.e.meta.Accepted() {
		if a.PhoneNumberID == c.Number && a.To == phone {
			out = append(out, a.Text)
		}
	}
	return out
}

func stamp(t *testing.T, v any) time.Time {
	t.Helper()
	s, _ := v.(string)
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatalf("%v is no time", v)
	}
	return at
}

// pass waits until a moment is over.
func pass(t *testing.T, moment time.Time) {
	t.Helper()
	eventually(t, "time goes by", func() string {
		if time.Now().Before(moment) {
			return "not yet"
		}
		return ""
	})
}

// A run waits, shows until when, and goes on with the lead as it is then.
func TestRunWaits(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.rule("custom.wait", nil, rest("1s"), say("Score {{lead.score}}, {{name}}"), obj{"type": "lead.tag.add", "tags": []string{"after"}}, rest("1s"), say("Bye"))
	c.rule("custom.more", nil, obj{"type": "lead.score", "points": 7})
	before := time.Now()
	a := c.happen("custom.wait", "918143963821", obj{"name": "Ana"})
	shows(t, "answer", a, "runs.0.state", "waiting")
	run := c.run(runOf(a), "waiting")
	if until := stamp(t, run.get("waitUntil")); until.Before(before.Add(900*time.Millisecond)) || until.After(time.Now().Add(time.Second)) {
		t.Errorf("it waits until %s", until)
	}
	shows(t, "run", run, "steps.0.state", "waiting", "steps.1", nil)
	j := c.call("GET", "/api/jobs/"+run.get("steps.0.jobId").(string), nil).want(200)
	shows(t, "job", j, "type", "automation.wake", "state", "scheduled", "runAt", run.get("waitUntil"), "causation.runId", run.get("id"))
	c.happen("custom.more", "918143963821", nil)
	run = c.run(runOf(a), "done")
	if got := c.texts("918143963821"); len(got) != 2 || got[0] != "Score 7, Ana" || got[1] != "Bye" {
		t.Errorf("sent %q", got)
	}
	shows(t, "run", run, "steps.0.state", "done", "steps.3.state", "done", "waitUntil", nil)
	lead := c.call("GET", "/api/crm/leads/"+a.get("leadId").(string), nil).want(200)
	shows(t, "lead", lead, "tags.0", "after", "tags.1", nil)
	for _, m := range e.meta.Accepted() {
		if m.Text == "Bye" && m.At.Before(before.Add(2*time.Second)) {
			t.Errorf("the second wait took %s", m.At.Sub(before))
		}
	}
}

// No reply within the time: a follow-up. A reply: none, and the run is left at once.
func TestFollowUpUnlessTheyReply(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for _, c := range []*client{c, other} {
		shows(t, "rule", c.rule("form_submitted", nil, say("Hello"), rest("1h"), say("Still there?")), "exits.0", "reply", "exits.1", "opt_out", "exits.2", nil)
	}
	c.rule("custom.short", nil, say("Hello"), rest("1s"), say("Still there?"))
	c.rule("custom.stubborn", obj{"exits": []string{}}, rest("1h"), say("Still there?"))
	ana, ben := "918143963821", "918143963822"
	replied, silent, elsewhere := runOf(c.happen("form_submitted", ana, nil)), runOf(c.happen("form_submitted", ben, nil)), runOf(other.happen("form_submitted", ana, nil))
	stubborn := runOf(c.happen("custom.stubborn", ana, nil))
	for _, run := range []string{replied, silent} {
		c.run(run, "waiting")
	}
	other.run(elsewhere, "waiting")
	wake := c.run(replied, "waiting").get("steps.1.jobId").(string)
	at := time.Now()
	c.write(ana, "Yes please")
	run := c.run(replied, "exited")
	if d := time.Since(at); d > time.Second {
		t.Errorf("left after %s", d)
	}
	shows(t, "run", run, "exitReason", "reply", "waitUntil", nil, "steps.1.state", "skipped", "steps.1.error.code", "reply", "error", nil)
	eventually(t, "its job is cancelled", func() string {
		if j := c.call("GET", "/api/jobs/"+wake, nil).want(200); j.get("state") != "cancelled" {
			return string(j.Body)
		}
		return ""
	})
	for id, c := range map[string]*client{silent: c, elsewhere: other, stubborn: c} {
		shows(t, "another's run", c.call("GET", "/api/crm/automations/runs/"+id, nil).want(200), "state", "waiting")
	}
	// said stop
	c.write(ben, "STOP")
	if got := c.run(silent, "exited").get("exitReason"); got != "reply" && got != "opt_out" {
		t.Errorf("left because of %v", got)
	}
	// silence
	carl := "918143963823"
	c.run(runOf(c.happen("custom.short", carl, nil)), "done")
	if got := c.texts(carl); len(got) != 2 || got[1] != "Still there?" {
		t.Errorf("sent %q", got)
	}
	if got := c.texts(ana); len(got) != 1 {
		t.Errorf("sent %q to somebody who replied", got)
	}
}

// Goals, stages and people end a run, too.
func TestRunsAreLeft(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.rule("custom.goal", obj{"exits": []string{"goal:lead.score >= 10 || event.trigger == 'deal_won'"}}, rest("1h"), say("x"))
	c.rule("custom.stage", obj{"exits": []string{"stage:booked"}}, rest("1h"), say("x"))
	c.rule("custom.points", nil, obj{"type": "lead.score", "points": 6})
	c.rule("custom.book", nil, obj{"type": "lead.stage", "stage": "booked"})
	phone := "918143963821"
	goal, stage := runOf(c.happen("custom.goal", phone, nil)), runOf(c.happen("custom.stage", phone, nil))
	c.happen("custom.points", phone, nil)
	shows(t, "run", c.call("GET", "/api/crm/automations/runs/"+goal, nil).want(200), "state", "waiting")
	c.happen("custom.points", phone, nil)
	shows(t, "run", c.run(goal, "exited"), "exitReason", "goal")
	c.happen("custom.book", phone, nil)
	shows(t, "run", c.run(stage, "exited"), "exitReason", "stage")
	won := runOf(c.happen("custom.goal", "918143963822", nil))
	c.happen("deal_won", "918143963822", nil)
	shows(t, "run", c.run(won, "exited"), "exitReason", "goal")

	waiting := runOf(c.happen("custom.goal", "918143963823", nil))
	shows(t, "cancelled", c.call("POST", "/api/crm/automations/runs/"+waiting+"/cancel", nil).want(200), "state", "cancelled", "steps.0.state", "skipped", "waitUntil", nil)
	c.call("POST", "/api/crm/automations/runs/"+waiting+"/cancel", nil).problem(409, "run.ended")
	c.call("POST", "/api/crm/automations/runs/arn_none/cancel", nil).problem(404, "")
	// an operator cancels the job that a run waits for
	again := c.happen("custom.goal", "918143963824", nil)
	run := c.run(runOf(again), "waiting")
	c.call("POST", "/api/jobs/"+run.get("steps.0.jobId").(string)+"/cancel", nil).want(200)
	c.run(runOf(again), "cancelled")
}

// Reminders before a moment: one that is due is sent, one that was due long before somebody booked is not.
func TestRemindersBeforeAMoment(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	until := func(offset string) obj { return obj{"type": "wait", "until": "{{startsAt}}", "offset": offset} }
	c.rule("appointment_confirmed", obj{"name": "a day"}, until("-24h"), say("Tomorrow"), obj{"type": "lead.tag.add", "tags": []string{"told"}}, until("-1h"), say("In an hour"))
	phone := "918143963821"
	starts := time.Now().Add(time.Hour + 2*time.Second)
	a := c.happen("appointment_confirmed", phone, obj{"startsAt": starts.UTC().Format(time.RFC3339Nano)})
	run := c.run(runOf(a), "waiting")
	shows(t, "run", run, "steps.0.state", "skipped", "steps.0.error.code", "too_late", "steps.1.state", "skipped", "steps.1.error.code", "too_late", "steps.2.state", "done", "steps.3.state", "waiting")
	shows(t, "run", c.run(runOf(a), "done"), "steps.4.state", "done")
	if got := c.texts(phone); len(got) != 1 || got[0] != "In an hour" {
		t.Errorf("sent %q", got)
	}
	if m := e.meta.Accepted()[0]; m.At.Before(starts.Add(-time.Hour - time.Second)) {
		t.Errorf("sent %s early", starts.Add(-time.Hour).Sub(m.At))
	}
	// no time at all: held, until somebody tells it
	b := c.happen("appointment_confirmed", "918143963822", obj{"startsAt": "Monday 10AM"})
	shows(t, "run", c.run(runOf(b), "held"), "held.names.0", "startsAt", "steps.0", nil)
	c.call("PATCH", "/api/crm/automations/runs/"+runOf(b), obj{"variables": obj{"startsAt": "2027-12-01T10:00"}}).want(200)
	shows(t, "run", c.run(runOf(b), "waiting"), "waitUntil", "2027-11-30T10:00:00.000Z")
	// in the client's own time, over a change of its clocks
	e.admin("PATCH", "/api/clients/ACME", obj{"timeZone": "Europe/Madrid"}).want(200)
	c.rule("custom.day", nil, obj{"type": "wait", "until": "{{startsAt}}", "offset": "-1d"}, say("Tomorrow"))
	for starts, until := range map[string]string{
		"2027-03-28T10:00": "2027-03-27T09:00:00.000Z", "2027-03-29T02:30": "2027-03-28T01:00:00.000Z", // 02:30 is skipped there
		"2027-11-01T02:30": "2027-10-31T00:30:00.000Z", "2027-10-31T10:00:00Z": "2027-10-30T09:00:00.000Z", // twice there: the first
	} {
		a := c.happen("custom.day", "+34612345678", obj{"startsAt": starts})
		shows(t, starts, c.run(runOf(a), "waiting"), "waitUntil", until)
	}
}

// What a stopped engine slept through is not sent after its moment; a wait that only takes its time goes on.
func TestNothingIsSentLate(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	e := start(t, dir, meta)
	c := e.addClient("ACME", 1)
	c.rule("appointment_confirmed", nil, obj{"type": "wait", "until": "{{startsAt}}", "offset": "-2s"}, say("Soon"), obj{"type": "lead.tag.add", "tags": []string{"passed"}})
	c.rule("custom.wait", nil, rest("2s"), say("Later"))
	starts := time.Now().Add(4 * time.Second)
	late, fine := c.happen("appointment_confirmed", "918143963821", obj{"startsAt": starts.UTC().Format(time.RFC3339Nano)}), c.happen("custom.wait", "918143963822", nil)
	c.run(runOf(late), "waiting")
	e.stop()
	pass(t, starts)
	e = start(t, dir, meta)
	c.e = e
	run := c.run(runOf(late), "done")
	shows(t, "run", run, "steps.0.state", "skipped", "steps.0.error.code", "too_late", "steps.1.state", "skipped", "steps.2.state", "done")
	c.run(runOf(fine), "done")
	if got := c.texts("918143963821"); len(got) != 0 {
		t.Errorf("sent %q late", got)
	}
	if got := c.texts("918143963822"); len(got) != 1 {
		t.Errorf("sent %q", got)
	}
}

// A process that is killed while runs wait: each goes on once.
func TestKilledWhileWaiting(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	c.rule("custom.wait", nil, obj{"type": "lead.score", "points": 1}, rest("3s"), obj{"type": "lead.score", "points": 10}, say("Here"), rest("1s"), say("There"))
	phones := []string{"918143963821", "918143963822", "918143963823"}
	var runs []string
	for _, ph := range phones {
		runs = append(runs, runOf(c.happen("custom.wait", ph, nil)))
	}
	p.kill()
	p = serve(t, dir, meta)
	c.e = p.engine
	eventually(t, "something is sent", func() string {
		if len(meta.Accepted()) == 0 {
			return "nothing"
		}
		return ""
	})
	p.kill() // in the middle of going on
	p = serve(t, dir, meta)
	c.e = p.engine
	meta.SetWebhook(c.WABA, p.url+"/api/whatsapp/webhook")
	for i, id := range runs {
		run := c.run(id, "done")
		lead := c.call("GET", "/api/crm/leads/"+run.get("leadId").(string), nil).want(200)
		shows(t, "lead", lead, "score", 11.0)
		texts, sent := []string{"Here", "There"}, map[string]int{}
		for _, got := range c.texts(phones[i]) {
			sent[got]++
		}
		for k, step := range []string{"3", "5"} { // a send that the kill met in flight is unconfirmed, and never made again
			if state := run.get("steps." + step + ".state"); sent[texts[k]] > 1 || (sent[texts[k]] == 0 && state != "unconfirmed") {
				t.Errorf("%s was sent %d times, and its step is %v", texts[k], sent[texts[k]], state)
			}
		}
	}
}

// Conversations are events: what a customer writes, and what could not be sent.
func TestMessagesAreEvents(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.rule("message_received", obj{"condition": "event.variables.text contains 'price'"}, say("You asked: {{text}}"), obj{"type": "lead.tag.add", "tags": []string{"asked"}})
	c.rule("message_failed", nil, obj{"type": "lead.tag.add", "tags": []string{"unreachable"}}, say("Sorry"))
	c.rule("custom.hello", nil, say("Hello"))
	phone := "918143963821"
	lead := c.happen("custom.hello", phone, nil).get("leadId").(string)
	body := whatsapptest.Batch(e.meta.InboundText(c.Number, phone, "Ana", "The price?"))
	e.webhook(body).want(200)
	e.webhook(body).want(200) // Meta repeats itself
	c.write(phone, "Thanks")
	tagged := func(tag string) func() string {
		return func() string {
			a := c.call("GET", "/api/crm/leads/"+lead, nil).want(200)
			if !strings.Contains(string(a.Body), `"`+tag+`"`) {
				return string(a.Body)
			}
			return ""
		}
	}
	eventually(t, "tagged", tagged("asked"))
	eventually(t, "answered", func() string {
		if got := strings.Join(c.texts(phone), "|"); got != "Hello|You asked: The price?" {
			return got
		}
		return ""
	})
	if _, err := e.meta.WaitAccepted(within(15*time.Second), 2); err != nil { // the refusal is for the next one
		t.Fatal(err)
	}
	e.meta.Next(1, whatsapptest.GraphError(400, 131026, "not on WhatsApp"))
	c.happen("custom.hello", phone, nil)
	eventually(t, "tagged", tagged("unreachable"))
	// accepted, and failed by a status; what the rule itself sent fails, too, and does not lead into it again
	eventually(t, "sorry", func() string {
		if got := c.texts(phone); got[len(got)-1] != "Sorry" {
			return strings.Join(got, "|")
		}
		return ""
	})
	n := len(c.texts(phone))
	sorry := e.meta.Accepted()[len(e.meta.Accepted())-1]
	e.webhook(whatsapptest.Batch(e.meta.StatusFor(sorry, "failed", 131026))).want(200)
	e.sorted(t)
	jobs := func() string {
		if a := c.call("GET", "/api/jobs?state=ready&state=running&state=scheduled", nil); a.Status == 200 && a.get("items.0") != nil {
			return string(a.Body)
		}
		return ""
	}
	eventually(t, "all is quiet", jobs)
	if got := c.texts(phone); len(got) != n {
		t.Errorf("sent %q", got)
	}
}

// A webhook tells another system what happened, under a name by which it knows repetitions; not those in our own network.
func TestWebhooksOut(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []obj
	var names []string
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var v obj
		_ = json.Unmarshal(b, &v)
		mu.Lock()
		defer mu.Unlock()
		got, names = append(got, v), append(names, r.Header.Get("X-Ecod-Delivery"))
		switch r.URL.Path {
		case "/no":
			w.WriteHeader(http.StatusGone)
		case "/away":
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}
	}))
	defer site.Close()
	post := func(path string) obj { return obj{"type": "webhook.post", "url": site.URL + path} }
	e := start(t, t.TempDir(), newMeta(t), func(c *app.Config) { c.AllowPrivate = true })
	c := e.addClient("ACME", 1)
	c.rule("custom.tell", nil, obj{"type": "lead.score", "points": 3}, post("/yes"), say("Told"))
	a := c.happen("custom.tell", "918143963821", obj{"order": 7})
	run := c.run(runOf(a), "done")
	shows(t, "run", run, "steps.1.state", "done", "steps.1.output.status", 200.0, "steps.2.state", "done")
	mu.Lock()
	want(t, "posted", any(got[0]), "event.trigger", "custom.tell", "event.variables.order", 7.0, "event.id", a.get("eventId"), "lead.id", a.get("leadId"),
		"lead.score", 3.0, "lead.phone", "+918143963821", "run.id", run.get("id"))
	if len(got) != 1 || !strings.HasPrefix(names[0], "pst_") {
		t.Errorf("%d posts, named %q", len(got), names)
	}
	mu.Unlock()
	for path, status := range map[string]float64{"/no": 410, "/away": 307} {
		trigger := "custom" + strings.ReplaceAll(path, "/", ".")
		c.rule(trigger, nil, post(path), say("Told"))
		run = c.run(runOf(c.happen(trigger, "918143963822", nil)), "failed")
		shows(t, "run", run, "steps.0.error.code", "webhook.refused", "steps.0.output.status", status, "steps.1.state", "skipped")
	}
	mu.Lock()
	if len(got) != 3 {
		t.Errorf("%d posts", len(got))
	}
	mu.Unlock()

	e = start(t, t.TempDir(), newMeta(t))
	c = e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", obj{"name": "r", "trigger": "custom.tell", "actions": []obj{post("/x")}}).problem(422, "")
	for _, url := range []string{"https://127.0.0.1/", "https://[::1]:8443/", "https://10.0.0.1./x", "https://169.254.169.254/latest", "https://[::ffff:192.168.0.1]/"} {
		a := c.call("POST", "/api/crm/automations/rules", obj{"name": "r", "trigger": "custom.tell", "actions": []obj{{"type": "webhook.post", "url": url}}}).problem(422, "")
		shows(t, url, a, "errors.0.pointer", "/actions/0/url")
	}
	// a name is judged when it is called, in whatever case its scheme is written
	c.rule("custom.tell", nil, obj{"type": "webhook.post", "url": strings.Replace(site.URL, "http://127.0.0.1", "HTTPS://localhost", 1)})
	run = c.run(runOf(c.happen("custom.tell", "918143963821", nil)), "failed")
	shows(t, "run", run, "error.code", "webhook.address")
	if detail, _ := run.get("error.detail").(string); !strings.Contains(detail, "network") {
		t.Errorf("refused for %q", detail)
	}
}

// A rule that a lead enters again and again is stopped; others go on. Its author is warned of circles.
func TestLoopsAreBroken(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	loop := c.rule("tag_added", nil, obj{"type": "lead.score", "points": 1}).get("id").(string)
	other := c.rule("tag_added", obj{"reenrol": "once_ever"}, obj{"type": "lead.score", "points": 100}).get("id").(string)
	phone := "918143963821"
	for range 10 {
		if a := c.happen("tag_added", phone, nil); a.get("runs.0.ruleId") != loop {
			t.Fatal(string(a.Body))
		}
	}
	outside := c.rule("custom.outside", nil, obj{"type": "lead.score", "points": 1}).get("id").(string)
	for range 12 { // the world outside may say so as often as it is true
		if a := c.happen("custom.outside", phone, nil); a.get("runs.0.ruleId") != outside {
			t.Fatal(string(a.Body))
		}
	}
	a := c.happen("tag_added", phone, nil)
	shows(t, "the 11th", a, "runs.0", nil, "skipped.0.ruleId", loop, "skipped.0.reason", "rule_paused")
	shows(t, "rule", c.call("GET", "/api/crm/automations/rules/"+loop, nil).want(200), "status", "paused", "pausedFor", "too_many_runs", "enabled", false)
	b := c.happen("tag_added", "918143963822", nil)
	shows(t, "another lead", b, "runs.0.ruleId", other, "skipped.0.reason", "rule_paused")
	shows(t, "rule", c.call("POST", "/api/crm/automations/rules/"+loop+"/resume", nil).want(200), "status", "live", "pausedFor", nil)

	c.rule("message_received", nil, obj{"type": "lead.score", "points": 0})
	mine := c.call("GET", "/api/crm/automations/rules?limit=1", nil).want(200).get("items.0.id").(string)
	for range 12 {
		c.write(phone, "Hi")
		e.sorted(t)
	}
	eventually(t, "the chatty customer is left out", func() string {
		a := c.call("GET", "/api/crm/automations/runs?ruleId="+mine, nil).want(200)
		if len(a.get("items").([]any)) < 10 {
			return string(a.Body)
		}
		return ""
	})
	shows(t, "rule", c.call("GET", "/api/crm/automations/rules/"+mine, nil).want(200), "status", "live")

	first := c.rule("tag_added", nil, obj{"type": "lead.stage", "stage": "booked"})
	shows(t, "one way", first, "warnings.0", nil)
	second := c.rule("stage_changed", nil, obj{"type": "branch", "condition": "lead.score > 5", "then": []obj{{"type": "lead.tag.add", "tags": []string{"x"}}}})
	shows(t, "a circle", second, "warnings.0.code", "cycle", "warnings.0.path.0", second.get("id"), "warnings.0.path.1", first.get("id"), "warnings.0.path.2", second.get("id"))
	shows(t, "published", c.call("POST", "/api/crm/automations/rules/"+first.get("id").(string)+"/publish", nil).want(200), "warnings.0.path.1", second.get("id"))
}

// An author is told of a stage that is not there: a lead would never come into it.
func TestUnknownStagesAreWarnedOf(t *testing.T) {
	t.Parallel()
	c := start(t, t.TempDir(), newMeta(t)).addClient("ACME", 1)
	move := func(stage, pipeline string) obj {
		return obj{"type": "lead.stage", "stage": stage, "pipeline": pipeline}
	}
	r := c.rule("deal_won", obj{"enabled": false}, obj{"type": "lead.stage", "stage": "booked"}, move("booked", "default"),
		obj{"type": "branch", "condition": "true", "then": []obj{move("nowhere", "default")}, "else": []obj{move("booked", "b2b")}}, obj{"type": "lead.stage", "stage": "nowhere"})
	r = c.call("POST", "/api/crm/automations/rules/"+r.get("id").(string)+"/publish", nil).want(200)
	shows(t, "published", r, "status", "live", "warnings.0.code", "stage_unknown", "warnings.0.path.0", "/actions/2/then/0/stage",
		"warnings.1.path.0", "/actions/2/else/0/stage", "warnings.2.path.0", "/actions/3/stage", "warnings.3", nil)
}

// A simulation goes through waits and tells when each step would be done.
func TestSimulatedWaits(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	r := c.rule("custom.sim", nil, say("One"), rest("24h"), say("Two"), obj{"type": "wait", "until": "{{startsAt}}", "offset": "-1h"}, say("Three"),
		obj{"type": "wait", "until": "2027-01-01T00:00:00Z"}, say("Four"), rest("1d"), say("Five"))
	lead := c.happen("custom.other", "918143963821", nil).get("leadId")
	a := c.call("POST", "/api/crm/automations/rules/"+r.get("id").(string)+"/simulate", obj{"leadId": lead, "at": "2027-03-01T10:00:00Z", "variables": obj{"startsAt": "2027-03-10T10:00:00Z"}}).want(200)
	shows(t, "simulation", a, "matched", true, "steps.0.at", "2027-03-01T10:00:00.000Z", "steps.1.wouldRun", true, "steps.2.at", "2027-03-02T10:00:00.000Z",
		"steps.4.at", "2027-03-10T09:00:00.000Z", "steps.4.rendered.text", "Three", "steps.5.wouldRun", false, "steps.5.reason", "too_late", "steps.6.wouldRun", false,
		"steps.6.reason", "too_late", "steps.8.wouldRun", true, "steps.8.at", "2027-03-11T09:00:00.000Z")
	if n := len(e.meta.Accepted()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

// A send that was put off until its moment had passed is kept back, and the run goes on without it.
func TestLateSendIsKeptBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rule(`{"trigger":"form_submitted","actions":[{"type":"wait","until":"{{startsAt}}","offset":"-1h"},{"type":"whatsapp.text","text":"In an hour"}]}`)
	ctx := t.Context()
	_, err := w.engine.HandleEvent(ctx, w.tn, w.eventJob(obj{"startsAt": w.now.Add(3 * time.Hour).Format(time.RFC3339)}))
	w.must(err)
	wake := store.Job{Type: rule.WakeJob, Tenant: "ACME", Payload: payload(obj{"runId": w.onlyRun().ID, "step": "0"})}
	if _, err := w.engine.HandleWake(ctx, w.tn, wake); err == nil || w.onlyRun().State != rule.RunWaiting { // woken early: put off
		t.Fatalf("woken early: %v, %+v", err, w.onlyRun())
	}
	w.now = w.now.Add(2*time.Hour + 10*time.Minute)
	_, err = w.engine.HandleWake(ctx, w.tn, wake)
	w.must(err)
	if s := w.onlyRun().Steps[1]; s.State != rule.StepQueued {
		t.Fatalf("%+v", s)
	}
	w.now = w.now.Add(21 * time.Minute) // Meta's limits, say
	_, err = w.desk.HandleSend(ctx, w.tn, w.sendJob(1))
	w.must(ignoreVerdict(err))
	_, err = w.engine.HandleAdvance(ctx, w.tn, store.Job{Type: rule.AdvanceJob, Tenant: "ACME",
		Payload: payload(obj{"runId": w.onlyRun().ID, "step": "1", "ref": w.firstMessage().ID})})
	w.must(err)
	r := w.onlyRun()
	if len(w.meta.Accepted()) != 0 || r.State != rule.RunDone || r.Steps[1].State != rule.StepSkipped || r.Steps[1].Error.Code != "too_late" {
		t.Errorf("sent %d; run %+v", len(w.meta.Accepted()), r)
	}
}
