package app_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// templated is a WhatsApp campaign to n numbers.
func templated(n int, extra map[string]any) map[string]any {
	var list []any
	for i := range n {
		list = append(list, map[string]any{"phone": fmt.Sprintf("+9181439%05d", i), "name": fmt.Sprint("Person ", i), "variables": map[string]any{"doctor": "Dr. Arjun"}})
	}
	m := map[string]any{"name": "Reminder", "channel": "whatsapp", "audience": map[string]any{"list": list},
		"content": map[string]any{"template": "appointment_confirmed", "language": "en", "parameters": []string{"{{name}}", "{{doctor}}", "Monday"}}}
	for k, v := range extra {
		m[k] = v
	}
	return m
}

// A WhatsApp campaign runs on the same machinery: once to everybody, not to those who said stop, paced, and counted by
// what became of the messages.
func TestWhatsAppCampaign(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	if a := e.webhook(whatsapptest.Batch(meta.InboundText(c.Number, "918143900001", "Ana", "STOP"))); a.Status != 200 {
		t.Fatal(a.Status)
	}
	eventually(t, "she is opted out", func() string {
		if l := c.call("GET", "/api/whatsapp/conversations", nil).want(200); l.get("items.0") == nil {
			return string(l.Body)
		}
		return ""
	})
	c.call("POST", "/api/suppressions", map[string]any{"phone": "8143900002", "reason": "asked by phone"}).want(201)
	const n = 30
	path := c.campaign(templated(n, map[string]any{"ratePerSecond": 20}))
	if pre := c.call("POST", path+"/preflight", nil).want(200); pre.get("audience") != float64(n) || len(pre.get("blockers").([]any)) != 0 || pre.get("estimatedSeconds").(float64) > 3 {
		t.Errorf("preflight %s", pre.Body)
	}
	c.call("POST", path+"/start", nil).want(200)
	if k := c.ended(path); k["sent"] > n-2 || k["suppressed"] != 2 {
		t.Errorf("counts %v", k)
	}
	eventually(t, "the statuses are counted", func() string {
		if k := c.counts(path); k["read"] != n-2 || k["delivered"] != n-2 || k["sent"] != n-2 || k["suppressed"] != 2 {
			return fmt.Sprint(k)
		}
		return ""
	})
	if d := meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	sent := meta.Accepted()
	if len(sent) != n-2 || !strings.HasSuffix(sent[0].Text, "Dr. Arjun sees you Monday.") {
		t.Errorf("%d messages, the first %q", len(sent), sent[0].Text)
	}
	for i := range sent {
		in := 0
		for _, o := range sent[i:] {
			if o.At.Sub(sent[i].At) < time.Second {
				in++
			}
		}
		if in > 25 {
			t.Fatalf("%d messages in one second at a rate of 20", in)
		}
	}
	for state, reason := range map[string]any{"suppressed": nil, "read": nil} {
		if r := c.call("GET", path+"/recipients?state="+state, nil).want(200); r.get("items.0.state") != state || (state == "read" && (r.get("items.0.reason") != reason || r.get("items.0.messageId") == nil)) {
			t.Errorf("%s: %s", state, r.Body)
		}
	}
}

// A template that Meta refuses stops the campaign after a few messages, and says why.
func TestWhatsAppCampaignStopsByItself(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	path := c.campaign(templated(60, map[string]any{"content": map[string]any{"template": "no_such", "language": "en", "parameters": []string{"{{name}}"}}}))
	c.call("POST", path+"/start", nil).want(200)
	eventually(t, "it is paused", func() string {
		if a := c.call("GET", path, nil).want(200); a.get("state") != "paused" || a.get("trouble.code") != "whatsapp.132001" {
			return string(a.Body)
		}
		return ""
	})
	if k := c.counts(path); k["failed"] > 10 || k["planned"] != 60-k["failed"] {
		t.Errorf("counts %v", k)
	}
	c.call("POST", path+"/cancel", nil).want(200)
	// once the templates are known, it does not even start
	c.call("POST", "/api/whatsapp/templates/sync", map[string]any{}).want(202)
	again := c.campaign(templated(3, map[string]any{"content": map[string]any{"template": "no_such", "language": "en", "parameters": []string{"{{name}}"}}}))
	eventually(t, "preflight knows", func() string {
		pre := c.call("POST", again+"/preflight", nil).want(200)
		if pre.get("blockers.0.code") != "whatsapp.template_unknown" {
			return string(pre.Body)
		}
		return ""
	})
	if a := c.call("POST", again+"/start", nil).want(409); a.get("code") != "campaign.blocked" {
		t.Errorf("start %s", a.Body)
	}
}

// Paused, nothing more goes out within a second; resumed, all goes on, nothing twice; cancelled, the rest never goes.
func TestWhatsAppCampaignPauseAndCancel(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	const n = 120
	path := c.campaign(templated(n, map[string]any{"ratePerSecond": 40}))
	c.call("POST", path+"/start", nil).want(200)
	if _, err := meta.WaitAccepted(within(15*time.Second), 25); err != nil {
		t.Fatal(err)
	}
	still := func(turn string) int {
		t.Helper()
		c.call("POST", path+"/"+turn, nil).want(200)
		at, last := time.Now(), 0
		for {
			all := meta.Accepted()
			if len(all) == last {
				break
			}
			last = len(all)
			_, _ = meta.WaitAccepted(within(time.Second), last+1)
		}
		if all := meta.Accepted(); all[len(all)-1].At.Sub(at) > time.Second {
			t.Errorf("a message went out %v after %s", all[len(all)-1].At.Sub(at), turn)
		}
		return last
	}
	sent := still("pause")
	if sent >= n {
		t.Fatalf("all %d were sent before the pause", n)
	}
	c.call("POST", path+"/resume", nil).want(200)
	if _, err := meta.WaitAccepted(within(15*time.Second), sent+25); err != nil {
		t.Fatal(err)
	}
	sent = still("cancel")
	eventually(t, "the rest is cancelled", func() string {
		all, states := c.all(path+"/recipients"), map[any]int{}
		for _, r := range all {
			states[r["state"]]++
		}
		if states["cancelled"] != n-sent || len(all) != n {
			return fmt.Sprint(states, " of ", sent)
		}
		return ""
	})
	if d := meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	for _, s := range []string{"parked", "scheduled", "ready"} {
		if a := c.call("GET", "/api/jobs?type=whatsapp.send&state="+s, nil).want(200); a.get("items.0") != nil {
			t.Errorf("%s jobs are left: %s", s, a.Body)
		}
	}
}

// The process is killed in the middle: everybody gets one message, or is told as one whose answer was lost.
func TestWhatsAppCampaignCrash(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	const n = 120
	path := c.campaign(templated(n, map[string]any{"ratePerSecond": 60}))
	c.call("POST", path+"/start", nil).want(200)
	if _, err := meta.WaitAccepted(within(20*time.Second), 50); err != nil {
		t.Fatal(err)
	}
	p.kill()
	p = serve(t, dir, meta)
	c.e = p.engine
	meta.SetWebhook(c.WABA, p.url+"/api/whatsapp/webhook")
	eventuallyIn(t, 2*takeover, "it is done", func() string {
		if a := c.call("GET", path, nil).want(200); a.get("state") != "done" {
			return string(a.Body) + fmt.Sprint(c.counts(path))
		}
		return ""
	})
	k := c.counts(path)
	if k["sent"]+k["unconfirmed"] != n || len(meta.Accepted()) < n-k["unconfirmed"] {
		t.Errorf("%d messages, counts %v", len(meta.Accepted()), k)
	}
	if d := meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	t.Logf("%v", k)
}
