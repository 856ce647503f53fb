package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// jobsFor gives the jobs of a cause that are not over, and those that were cancelled, by type.
func (c *client) jobsFor(cause string) (open, cancelled map[string]int) {
	c.e.t.Helper()
	open, cancelled = map[string]int{}, map[string]int{}
	for _, v := range c.call("GET", "/api/jobs?"+cause+"&limit=200", nil).want(200).get("items").([]any) {
		j := v.(map[string]any)
		switch s := j["state"].(string); s {
		case "cancelled":
			cancelled[j["type"].(string)]++
		case "scheduled", "ready", "running", "parked":
			open[j["type"].(string)]++
		}
	}
	return open, cancelled
}

// over waits until a cause has no job left that is not over, and gives what was cancelled.
func (c *client) over(cause string) (cancelled map[string]int) {
	c.e.t.Helper()
	eventually(c.e.t, "nothing is left of "+cause, func() (why string) {
		var open map[string]int
		if open, cancelled = c.jobsFor(cause); len(open) > 0 {
			why = fmt.Sprint(open)
		}
		return why
	})
	return cancelled
}

// noAlarm fails if the log says that a job died.
func (e *engine) noAlarm() {
	e.t.Helper()
	for line := range strings.Lines(e.log.String()) {
		if strings.Contains(line, `"level":"ERROR"`) {
			e.t.Error("alarm: ", line)
		}
	}
}

// A client with too many unfinished jobs is told so, with the numbers, and nothing is kept; what it is written, and what
// makes its jobs fewer, is taken all the same.
func TestFullClient(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for _, x := range []*client{c, other} {
		x.rule("custom.sleep", nil, rest("24h"), say("x"))
	}
	first := runOf(c.happen("custom.sleep", "918143963821", nil))
	if open, _ := c.jobsFor("runId=" + first); open["automation.wake"] != 1 {
		t.Fatalf("of the run: %v", open)
	}
	e.app.Runner.Limit(store.Room{Tenant: 1, Lane: 100})

	event := obj{"trigger": "custom.sleep", "phone": "918143963822", "eventId": "too-many", "createLeadIfMissing": true}
	a := c.e.send("POST", "/api/crm/automations/events", event, map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, "Idempotency-Key": "k-1"})
	if a.Status != http.StatusTooManyRequests || a.get("code") != "queue.full" || a.get("jobs") != 1.0 || a.get("limit") != 1.0 || a.Header.Get("Retry-After") == "" ||
		!strings.Contains(a.get("detail").(string), "1 jobs of this client are unfinished, of at most 1") {
		t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
	}
	c.call("GET", "/api/crm/automations/events/too-many", nil).want(404)
	if l := c.call("GET", "/api/crm/leads?phone=918143963822", nil).want(200); l.get("items.0") != nil {
		t.Errorf("a lead was made: %s", l.Body)
	}
	if open, cancelled := c.jobsFor("eventId=too-many"); len(open)+len(cancelled) != 0 {
		t.Errorf("%v, %v were made", open, cancelled)
	}
	c.call("POST", "/api/crm/leads/import", "name,phone\nA,918143963823\n").problem(415, "")
	if a := c.e.send("POST", "/api/crm/leads/import", "name,phone\nA,918143963823\n", map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, "Content-Type": "text/csv"}); a.Status != 429 || a.get("code") != "queue.full" {
		t.Errorf("an import: %d %s", a.Status, a.Body)
	}
	if a := c.call("POST", "/api/jobs/retry", obj{"state": "cancelled"}); a.Status != 429 || a.get("code") != "queue.full" {
		t.Errorf("jobs sent round again: %d %s", a.Status, a.Body)
	}
	c.call("POST", "/api/jobs/retry", obj{"state": "cancelled", "dryRun": true}).want(200)
	// others, and whoever writes to the client, notice nothing
	runOf(other.happen("custom.sleep", "918143963822", nil))
	c.write("918143963829", "hello")
	eventually(t, "what a customer wrote is there", func() string {
		a := c.call("GET", "/api/whatsapp/conversations", nil).want(200)
		return unless(a.get("items.0.unread") == 1.0, string(a.Body))
	})
	// an event costs a job even if no rule hears it
	if a := c.call("POST", "/api/crm/automations/events", obj{"trigger": "custom.nobody", "phone": "918143963821"}); a.Status != 429 {
		t.Errorf("an event that nobody hears: %d %s", a.Status, a.Body)
	}
	// the way out
	c.call("POST", "/api/crm/automations/runs/"+first+"/cancel", nil).want(200)
	c.over("runId=" + first)
	runOf(c.call("POST", "/api/crm/automations/events", event).want(202))
}

// What was to be done for something that is over is cancelled at once: it does not find out itself, and alarms nobody.
func TestJobsEndWithTheirCause(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	phone := "918143963821"
	lead := c.call("POST", "/api/crm/leads", obj{"phone": phone, "email": "d@example.com", "name": "D"}).want(201).get("id").(string)
	c.write(phone, "hi")
	c.rule("custom.send", nil, say("now"), say("then"))
	c.rule("custom.sleep", nil, rest("24h"), say("x"))

	// a run that is cancelled while its send is held back
	e.meta.SetToken(c.WABA, "another-token")
	run := runOf(c.happen("custom.send", phone, nil))
	c.jobOf(run, "parked")
	c.call("POST", "/api/crm/automations/runs/"+run+"/cancel", nil).want(200)
	if cancelled := c.over("runId=" + run); cancelled["whatsapp.send"] != 1 {
		t.Errorf("of the run: %v", cancelled)
	}
	eventually(t, "its message ends", func() string {
		a := c.call("GET", "/api/crm/automations/runs/"+run, nil).want(200)
		m := c.call("GET", "/api/whatsapp/messages/"+a.get("steps.0.messageId").(string), nil).want(200)
		return unless(m.get("status") == "failed" && m.get("error.code") == "run_over" && a.get("steps.0.state") == "skipped", string(m.Body)+string(a.Body))
	})
	e.meta.SetToken(c.WABA, c.Token)

	// a campaign that is cancelled before it begins
	campaign := c.campaign(mailing(obj{"list": people(2)}, obj{"schedule": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}))
	id := campaign[strings.LastIndex(campaign, "/")+1:]
	if open, _ := c.jobsFor("campaignId=" + id); open["campaign.begin"] != 1 {
		t.Fatalf("of the campaign: %v", open)
	}
	c.call("POST", campaign+"/cancel", nil).want(200)
	eventually(t, "the campaign's beginning is cancelled", func() string {
		open, cancelled := c.jobsFor("campaignId=" + id)
		return unless(cancelled["campaign.begin"] == 1 && open["campaign.begin"] == 0, fmt.Sprint(open, cancelled))
	})
	shows(t, "campaign", c.call("GET", campaign, nil).want(200), "state", "cancelled")

	// a lead that is deleted: what waits for it, and reminders
	sleeping := runOf(c.happen("custom.sleep", phone, nil))
	when := time.Now().Add(72 * time.Hour).UTC().Format(time.RFC3339)
	appointment := c.call("POST", "/api/appointments", obj{"leadId": lead, "title": "T", "startsAt": when, "durationMinutes": 30}).want(201).get("id").(string)
	if open, _ := c.jobsFor("appointmentId=" + appointment); open["appointment.reminder"] != 2 {
		t.Fatalf("of the appointment: %v", open)
	}
	if open, _ := c.jobsFor("leadId=" + lead); open["automation.wake"] != 1 {
		t.Fatalf("of the lead: %v", open)
	}
	c.call("DELETE", "/api/crm/leads/"+lead, nil).want(204)
	if cancelled := c.over("leadId=" + lead); cancelled["automation.wake"] != 1 {
		t.Errorf("of the lead: %v", cancelled)
	}
	c.over("appointmentId=" + appointment)
	shows(t, "run", c.run(sleeping, "exited"), "exitReason", "lead_gone")
	if len(box.Accepted()) != 0 {
		t.Errorf("mails went out: %d", len(box.Accepted()))
	}
	e.noAlarm()
}

// A thousand dead jobs are counted first, and then each is run again, once.
func TestRunAgainByFilter(t *testing.T) {
	t.Parallel()
	const many = 1000
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	var jobs []store.NewJob
	for range many { // messages that are not there
		jobs = append(jobs, store.NewJob{Tenant: c.Code, Type: "whatsapp.send", Payload: []byte(`{"messageId":"msg_none"}`), Causation: store.Causation{RunID: "run_x"}})
	}
	if _, err := e.app.Queue.Enqueue(t.Context(), jobs...); err != nil {
		t.Fatal(err)
	}
	dead := func() float64 {
		return c.call("POST", "/api/jobs/retry", obj{"runId": "run_x", "dryRun": true}).want(200).get("count").(float64)
	}
	eventuallyIn(t, 2*time.Minute, "all are dead", func() string { return unless(dead() == many, fmt.Sprint(dead())) })
	if n := c.call("POST", "/api/jobs/retry", obj{"runId": "run_x"}).want(200).get("count"); n != float64(many) {
		t.Fatalf("%v were sent round again", n)
	}
	eventuallyIn(t, 2*time.Minute, "all are dead again", func() string { return unless(dead() == many, fmt.Sprint(dead())) })
	for cursor := ""; ; {
		a := e.admin("GET", "/api/admin/jobs?runId=run_x&limit=200&cursor="+cursor, nil).want(200)
		for _, v := range a.get("items").([]any) {
			if j := v.(map[string]any); j["starts"] != 2.0 {
				t.Fatalf("%v", j)
			}
		}
		if cursor, _ = a.get("nextCursor").(string); cursor == "" {
			break
		}
	}
}
