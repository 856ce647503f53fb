package app_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
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
