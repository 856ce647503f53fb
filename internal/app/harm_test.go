package app_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// A client's own key is no weapon: what its rules ask for too much of fails, and its neighbour is served meanwhile.
func TestNoClientHarmsOthers(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	e := start(t, dir, meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	rule := func(c *client, body map[string]any) { c.call("POST", "/api/crm/automations/rules", body).want(201) }
	text := []map[string]any{}
	for range 100 {
		text = append(text, map[string]any{"type": "whatsapp.text", "text": strings.Repeat("{{s}}", 800)})
	}
	rule(c, map[string]any{"name": "bomb", "trigger": "custom.hello", "enabled": true, "reenrol": "every_event", "actions": text})
	for i, condition := range []string{
		"let a=event.variables.s; let b=a+a+a+a+a+a+a+a; let c=b+b+b+b+b+b+b+b; let d=c+c+c+c+c+c+c+c; len(d+d+d+d+d+d+d+d) > 0",
		"all(1..1000, let x = #; all(1..1000, # + x > 0))",
	} {
		rule(c, map[string]any{"name": fmt.Sprint("costly ", i), "trigger": "custom.hello", "enabled": true, "reenrol": "every_event", "condition": condition,
			"actions": []map[string]any{{"type": "lead.score", "points": 1}}})
	}
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "deep", "trigger": "custom.hello", "condition": "let a = 1..1000; all(a, all(a, all(a, # > 0)))",
		"actions": []map[string]any{{"type": "lead.score", "points": 1}}}).problem(422, "invalid")
	rule(other, map[string]any{"name": "points", "trigger": "custom.hello", "enabled": true, "reenrol": "every_event", "actions": []map[string]any{{"type": "lead.score", "points": 1}}})

	ev := hello("918143963821")
	ev["createLeadIfMissing"], ev["variables"] = true, map[string]any{"s": strings.Repeat("x", 32000)}
	began := time.Now()
	for i := range 5 {
		ev["eventId"] = fmt.Sprint("bomb-", i)
		a := c.call("POST", "/api/crm/automations/events", ev).want(202)
		shows(t, "answer", a, "runs.0.state", "failed", "skipped.0.reason", "condition_error", "skipped.1.reason", "condition_error")
		run := c.call("GET", "/api/crm/automations/runs/"+a.get("runs.0.runId").(string), nil).want(200)
		shows(t, "run", run, "steps.0.error.code", "too_long")
		own := hello("918143963821")
		own["createLeadIfMissing"] = true
		shows(t, "the neighbour's", other.call("POST", "/api/crm/automations/events", own).want(202), "deferred", false, "runs.0.state", "done", "skipped.0", nil)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
}

// What hangs for a client, webhooks, files and mail, holds up neither the messages that it writes nor its neighbour's files.
func TestNoClientWaitsForItsSlowWork(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta, private)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)

	gone := make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-gone:
		}
	}))
	t.Cleanup(site.Close)
	t.Cleanup(func() { close(gone) })
	t.Cleanup(meta.Close)                         // and nothing that hangs is waited for
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes calls, and greets nobody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mute.Close() })
	c.e.admin("PUT", "/api/clients/ACME/secrets/smtp", map[string]any{"host": "127.0.0.1", "port": mute.Addr().(*net.TCPAddr).Port, "security": "none",
		"username": "acme", "password": "mail-password", "from": "hello@acme.example"}).want(200)
	token := sha256.Sum256([]byte(c.Token))
	meta.When(-1, func(r whatsapptest.Request) bool {
		return isDownload(r) && r.Token == hex.EncodeToString(token[:])[:12]
	}, whatsapptest.Hang())

	post := mailRule(nil)
	post["actions"] = []any{map[string]any{"type": "webhook.post", "url": site.URL}}
	c.call("POST", "/api/crm/automations/rules", post).want(201)
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	for i := range 12 {
		c.sends(fmt.Sprint("wamid.slow", i), "image", "image/png", logo(t), nil)
	}
	for i := range 60 {
		c.call("POST", "/api/crm/automations/events", mailEvent(i, nil)).want(202)
	}
	running := func(typ string) int {
		return len(c.call("GET", "/api/jobs?state=running&type="+typ, nil).want(200).get("items").([]any))
	}
	eventually(t, "slow work fills what it may have", func() string {
		n := []int{running("media.fetch"), running("automation.webhook"), running("email.send")}
		if n[0]+n[1]+n[2] != 4 {
			return fmt.Sprint("running: ", n)
		}
		return ""
	})

	began := time.Now()
	c.call("POST", "/api/whatsapp/messages", map[string]any{"to": "12025550143", "type": "text", "text": map[string]any{"body": "At once"}}).want(202)
	eventuallyIn(t, 2*time.Second, "the client's own text goes out", func() string {
		if n := len(meta.Accepted()); n != 1 {
			return fmt.Sprint(n, " sent")
		}
		return ""
	})
	t.Logf("the text went out after %s", time.Since(began))
	began = time.Now()
	other.sends("wamid.file", "image", "image/png", logo(t), nil)
	other.mediaOf("wamid.file", "stored")
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the neighbour's file came after %s", d)
	}
}
