package app_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// The main journey: an event comes in; the lead is found or made, the internal actions are done when the answer arrives,
// the template goes out, and its statuses come back.
func TestEventJourney(t *testing.T) {
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	ruleID := c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201).get("id").(string)

	a := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"eventId": "bk-1"})).want(202)
	if a.get("eventId") != "bk-1" || a.get("duplicate") != false || a.get("deferred") != false || a.get("leadCreated") != true {
		t.Fatalf("answer %s", a.Body)
	}
	if a.get("runs.0.ruleId") != ruleID || a.get("runs.0.state") != "active" || len(a.get("skipped").([]any)) != 0 {
		t.Fatalf("answer %s", a.Body)
	}
	leadID, runID := a.get("leadId").(string), a.get("runs.0.runId").(string)

	lead := c.call("GET", "/api/crm/leads/"+leadID, nil).want(200)
	if lead.get("stage") != "booked" || lead.get("tags.0") != "booked" || lead.get("score") != 20.0 || lead.get("fields.doctor") != "Dr. Arjun" ||
		lead.get("phone") != "+918143963821" || lead.get("name") != "Dhanesh" || lead.get("source") != "website" || lead.get("status") != "open" {
		t.Errorf("lead %s", lead.Body)
	}

	sent, err := e.meta.WaitAccepted(within(10*time.Second), 1)
	if err != nil {
		t.Fatal(err)
	}
	m := sent[0]
	if m.Template != "appointment_confirmed" || m.Text != "Hi Dhanesh, Dr. Arjun sees you Monday 10AM." || m.PhoneNumberID != c.Number || m.To != "918143963821" {
		t.Errorf("Meta accepted %+v", m)
	}
	if !strings.HasPrefix(m.BizOpaque, "msg_") {
		t.Errorf("biz_opaque_callback_data is %q, not our message id", m.BizOpaque)
	}
	var conversation string
	eventually(t, "the run is done and the message read", func() string {
		run := c.call("GET", "/api/crm/automations/runs/"+runID, nil).want(200)
		if run.get("state") != "done" || run.get("steps.0.state") != "done" {
			return string(run.Body)
		}
		list := c.call("GET", "/api/whatsapp/conversations", nil).want(200)
		if conversation, _ = list.get("items.0.id").(string); conversation == "" {
			return string(list.Body)
		}
		msgs := c.call("GET", "/api/whatsapp/conversations/"+conversation+"/messages", nil).want(200)
		if msgs.get("items.0.status") != "read" || msgs.get("items.0.wamid") != m.ID || msgs.get("items.0.id") != m.BizOpaque {
			return string(msgs.Body)
		}
		return ""
	})
	step := c.call("GET", "/api/crm/automations/runs/"+runID, nil).want(200)
	if step.get("steps.0.messageId") != m.BizOpaque || c.call("GET", "/api/jobs/"+step.get("steps.0.jobId").(string), nil).want(200).get("causation.messageId") != m.BizOpaque {
		t.Errorf("the step does not lead to its message and its job: %s", step.Body)
	}
	jobs := c.call("GET", "/api/jobs?type=whatsapp.send", nil).want(200)
	if jobs.get("items.0.state") != "succeeded" || jobs.get("items.0.attempt") != 0.0 || jobs.get("items.1") != nil {
		t.Errorf("jobs %s", jobs.Body)
	}

	// the same event again, and with another body
	again := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"eventId": "bk-1"})).want(202)
	if again.get("duplicate") != true || again.get("runs.0.runId") != runID || again.get("leadId") != leadID {
		t.Errorf("repeated: %s", again.Body)
	}
	other := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"eventId": "bk-1", "phone": "918143963822"})).want(409)
	if other.get("code") != "event.mismatch" {
		t.Errorf("other body: %s", other.Body)
	}
	// another spelling of the phone is the same lead
	spelled := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"phone": "081439-63821"})).want(202)
	if spelled.get("leadId") != leadID || spelled.get("leadCreated") != false {
		t.Errorf("another spelling: %s", spelled.Body)
	}
	if _, err := e.meta.WaitAccepted(within(10*time.Second), 2); err != nil {
		t.Fatal(err)
	}
	if d := e.meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	for _, secret := range []string{c.Token, c.Key, e.token, appSecret, "Dhanesh", "918143963821"} {
		if strings.Contains(e.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// Fifty callers tell the same event at once: one lead, one run, one message, one answer.
func TestConcurrentEqualEvents(t *testing.T) {
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201)
	var mu sync.Mutex
	runs, fresh := map[any]int{}, 0
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			a := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"eventId": "same"}))
			mu.Lock()
			defer mu.Unlock()
			if a.Status != 202 {
				t.Errorf("%d %s", a.Status, a.Body)
				return
			}
			runs[a.get("runs.0.runId")]++
			if a.get("duplicate") == false {
				fresh++
			}
		})
	}
	wg.Wait()
	if len(runs) != 1 || fresh != 1 {
		t.Errorf("runs %v, %d answers said not a duplicate", runs, fresh)
	}
	// and different events of one person at once: one lead
	leads := map[any]bool{}
	for i := range 30 {
		wg.Go(func() {
			a := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"phone": "917000000001", "eventId": "e" + string(rune('a'+i))}))
			mu.Lock()
			defer mu.Unlock()
			if a.Status != 202 || a.get("deferred") != false {
				t.Errorf("%d %s", a.Status, a.Body)
				return
			}
			leads[a.get("leadId")] = true
		})
	}
	wg.Wait()
	if len(leads) != 1 {
		t.Errorf("one phone gave %d leads", len(leads))
	}
	// ten to one person go at once, the others wait for the pace of that pair
	if _, err := e.meta.WaitAccepted(within(20*time.Second), 1+chat.PairRate.Burst); err != nil {
		t.Fatal(err)
	}
	if n := len(c.sendJobs("")); n != 31 {
		t.Errorf("%d jobs to send", n)
	}
	if d := e.meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	for id := range leads {
		lead := c.call("GET", "/api/crm/leads/"+id.(string), nil).want(200)
		if lead.get("score") != 600.0 {
			t.Errorf("30 events of 20 points made a score of %v", lead.get("score"))
		}
	}
}

// A send whose answer was lost is unconfirmed, is not made again, and is settled by its status webhook.
func TestLostAnswer(t *testing.T) {
	for name, fault := range map[string]whatsapptest.Fault{
		"reset":     whatsapptest.ResetAfterAccepting(),
		"truncated": whatsapptest.TruncateAfterAccepting(),
		"gateway":   whatsapptest.GatewayAfterAccepting(502),
	} {
		t.Run(name, func(t *testing.T) {
			meta := newMeta(t)
			e := start(t, t.TempDir(), meta)
			c := e.addClient("ACME", 1)
			meta.SetWebhook(c.WABA, "http://127.0.0.1:1/nowhere") // statuses wait
			c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201)
			meta.Next(1, fault)
			run := c.call("POST", "/api/crm/automations/events", confirmEvent(nil)).want(202).get("runs.0.runId").(string)
			eventually(t, "unconfirmed", func() string {
				a := c.call("GET", "/api/crm/automations/runs/"+run, nil).want(200)
				if a.get("steps.0.state") != "unconfirmed" || a.get("state") != "done" {
					return string(a.Body)
				}
				return ""
			})
			cv := c.call("GET", "/api/whatsapp/conversations", nil).want(200).get("items.0.id").(string)
			msgs := c.call("GET", "/api/whatsapp/conversations/"+cv+"/messages", nil).want(200)
			if msgs.get("items.0.status") != "unconfirmed" || msgs.get("items.0.wamid") != nil {
				t.Fatalf("message %s", msgs.Body)
			}
			accepted := meta.Accepted()
			if len(accepted) != 1 {
				t.Fatalf("Meta accepted %d messages", len(accepted))
			}
			e.webhook(whatsapptest.Batch(meta.StatusFor(accepted[0], "delivered"))).want(200)
			eventually(t, "settled by its status", func() string {
				msgs := c.call("GET", "/api/whatsapp/conversations/"+cv+"/messages", nil).want(200)
				if msgs.get("items.0.status") != "delivered" || msgs.get("items.0.wamid") != accepted[0].ID {
					return string(msgs.Body)
				}
				return ""
			})
			if len(meta.Accepted()) != 1 {
				t.Error("the message was sent again")
			}
		})
	}
}

// An inbound message reaches its own client, and only it.
func TestInboundJourney(t *testing.T) {
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	a, b := e.addClient("ACME", 1), e.addClient("BETA", 2)
	leadID := a.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"phone": "+1 202 555 0143"})).want(202).get("leadId")

	first := meta.InboundText(a.Number, "12025550143", "Ana", "Hello, is this the clinic?")
	body := whatsapptest.Batch(first, meta.InboundText(b.Number, "12025550143", "Ana", "Hello, is this the shop?"))
	e.webhook(body).want(200)
	e.webhook(body).want(200) // Meta repeats itself
	for _, c := range []*client{a, b} {
		var cv string
		eventually(t, "stored at "+c.Code, func() string {
			list := c.call("GET", "/api/whatsapp/conversations", nil).want(200)
			cv, _ = list.get("items.0.id").(string)
			if cv == "" || list.get("items.0.unread") != 1.0 {
				return string(list.Body)
			}
			if list.get("items.1") != nil {
				t.Fatalf("%s has two conversations: %s", c.Code, list.Body)
			}
			if c == a && list.get("items.0.leadId") != leadID {
				t.Errorf("the conversation is not linked to the lead: %s", list.Body)
			}
			return ""
		})
		msgs := c.call("GET", "/api/whatsapp/conversations/"+cv+"/messages", nil).want(200)
		want := map[string]string{"ACME": "Hello, is this the clinic?", "BETA": "Hello, is this the shop?"}[c.Code]
		if msgs.get("items.0.text") != want || msgs.get("items.1") != nil || msgs.get("items.0.direction") != "in" {
			t.Errorf("%s sees %s", c.Code, msgs.Body)
		}
		other := map[*client]*client{a: b, b: a}[c]
		other.call("GET", "/api/whatsapp/conversations/"+cv+"/messages", nil).want(404)
	}
	eventually(t, "deliveries settled", func() string {
		d := e.admin("GET", "/api/admin/deliveries?state=settled", nil).want(200)
		if d.get("items.0.state") != "settled" || d.get("items.1.state") != "settled" {
			return string(d.Body)
		}
		return ""
	})
	// a bad signature stores nothing
	e.send("POST", "/api/whatsapp/webhook", body, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign("other", body)}).want(401)
	e.send("POST", "/api/whatsapp/webhook", body, nil).want(401)
	if d := e.admin("GET", "/api/admin/deliveries?state=settled", nil).want(200); d.get("items.2") != nil {
		t.Errorf("an unsigned delivery was stored: %s", d.Body)
	}
}

// A lead that was known by its mailbox alone is written to as soon as its phone is told.
func TestLeadGainsPhone(t *testing.T) {
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	tell := func(who map[string]any) *answer {
		t.Helper()
		ev := hello("")
		delete(ev, "phone")
		for k, v := range who {
			ev[k] = v
		}
		return c.call("POST", "/api/crm/automations/events", ev).want(202)
	}
	first := tell(map[string]any{"email": "D@Example.com"})
	want(t, "run", c.run(first.get("runs.0.runId").(string), "failed"), "error.code", "no_address")
	second := tell(map[string]any{"email": "d@example.com", "phone": "08143963821"})
	if second.get("leadId") != first.get("leadId") || second.get("leadCreated") != false {
		t.Errorf("first %s, then %s", first.Body, second.Body)
	}
	c.run(second.get("runs.0.runId").(string), "done")
	lead := c.call("GET", "/api/crm/leads/"+first.get("leadId").(string), nil).want(200)
	want(t, "lead", lead, "phone", "+918143963821", "email", "d@example.com")
	want(t, "contact", c.call("GET", "/api/crm/contacts/"+lead.get("contactId").(string), nil).want(200), "phone", "+918143963821", "leadId", lead.get("id"))
	e.webhook(whatsapptest.Batch(e.meta.InboundText(c.Number, "918143963821", "Dhanesh", "Thanks"))).want(200)
	e.sorted(t)
	for _, cv := range c.all("/api/whatsapp/conversations") {
		if cv["leadId"] != lead.get("id") {
			t.Errorf("conversation %v is not the lead's", cv)
		}
	}
	if n := len(c.all("/api/whatsapp/conversations")); n != 1 {
		t.Errorf("%d conversations of one person", n)
	}
}

// A client's own Meta app: its secret opens its address, and only what is its own comes in there.
func TestOwnApp(t *testing.T) {
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	const own, path = "acme-app-secret", "/api/whatsapp/webhook/acme"
	e.admin("PUT", "/api/clients/ACME/secrets/whatsapp", map[string]any{"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": c.Token,
		"appSecret": own, "verifyToken": "acme-verify"}).want(200)
	body := whatsapptest.Batch(e.meta.InboundText(c.Number, "12025550143", "Ana", "Hello"), e.meta.InboundText(other.Number, "12025550143", "Ana", "Hello"))
	post := func(path, secret string) *answer {
		t.Helper()
		return e.send("POST", path, body, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(secret, body)})
	}
	post(path, appSecret).problem(401, "")                   // the operator's
	post("/api/whatsapp/webhook", own).problem(401, "")      // its own, elsewhere
	post("/api/whatsapp/webhook/BETA", own).problem(401, "") // and at another's
	post(path, own).want(200)
	if d := e.sorted(t); d.State != "unresolved" || strings.Join(d.Clients, " ") != "ACME" {
		t.Errorf("delivery %s of %v", d.State, d.Clients)
	}
	if n, m := len(c.all("/api/whatsapp/conversations")), len(other.all("/api/whatsapp/conversations")); n != 1 || m != 0 {
		t.Errorf("%d conversations of its own, %d of the other's", n, m)
	}
	list := c.call("GET", "/api/whatsapp/deliveries", nil).want(200)
	if list.get("items.0.state") != "unresolved" || list.get("items.1") != nil {
		t.Errorf("its deliveries: %s", list.Body)
	}
	if l := other.call("GET", "/api/whatsapp/deliveries", nil).want(200); l.get("items.0") != nil {
		t.Errorf("the other's deliveries: %s", l.Body)
	}
	challenge := "?hub.mode=subscribe&hub.challenge=77&hub.verify_token="
	if a := e.send("GET", path+challenge+"acme-verify", nil, nil).want(200); string(a.Body) != "77" {
		t.Errorf("challenge answered with %q", a.Body)
	}
	e.send("GET", path+challenge+"verify-me", nil, nil).problem(403, "")
	e.send("GET", "/api/whatsapp/webhook"+challenge+"acme-verify", nil, nil).problem(403, "")
}
