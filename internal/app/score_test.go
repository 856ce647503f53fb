package app_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// scoreOf reads a lead's score, and checks that its rows sum to the total.
func (c *client) scoreOf(lead string) *answer {
	c.e.t.Helper()
	a := c.call("GET", leadsPath+"/"+lead+"/score", nil).want(200)
	sum := 0.0
	for _, r := range a.get("rows").([]any) {
		sum += r.(map[string]any)["decayedTo"].(float64)
	}
	if total := a.get("total").(float64); math.Abs(sum-total) > 0.01 {
		c.e.t.Errorf("the rows sum to %v: %s", sum, a.Body)
	}
	return a
}

// pointsBy are the points of the rows of a rule.
func pointsBy(a *answer, rule string) (points []float64) {
	for _, r := range a.get("rows").([]any) {
		if row := r.(map[string]any); row["rule"] == rule {
			points = append(points, row["points"].(float64))
		}
	}
	return points
}

func (c *client) wantTotal(lead string, total float64) *answer {
	c.e.t.Helper()
	a := c.scoreOf(lead)
	if got := a.get("total").(float64); math.Abs(got-total) > 0.01 {
		c.e.t.Errorf("total %v, want %v: %s", got, total, a.Body)
	}
	return a
}

func (c *client) happens(trigger, eventID, phone string, vars map[string]any) *answer {
	c.e.t.Helper()
	return c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": trigger, "phone": phone, "eventId": eventID, "createLeadIfMissing": true, "variables": vars}).want(202)
}

// Each interaction counts once, however often it is told; what the client's rules give is in the lead at once, what the
// engine counts by itself soon.
func TestScoreLedger(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201)
	lead := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"eventId": "bk-1"})).want(202).get("leadId").(string)
	c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"eventId": "bk-1"})).want(202)
	members(t, c.call("GET", leadsPath+"/"+lead, nil).want(200), "score", 20, "grade", "B3") // and no points of the engine's for the appointment
	a := c.wantTotal(lead, 20)
	members(t, a, "engagement", 20, "grade", "B3", "fit", 50)
	if got := pointsBy(a, "appointment_confirmed"); len(got) != 0 {
		t.Errorf("the appointment gave %v beside the client's own points", got)
	}
	other.call("GET", leadsPath+"/"+lead+"/score", nil).problem(404, "lead.not_found")
	c.call("GET", leadsPath+"/none/score", nil).problem(404, "lead.not_found")

	// the same message, delivered three times, and four others
	for _, id := range []string{"wamid.1", "wamid.1", "wamid.2", "wamid.3", "wamid.4", "wamid.1", "wamid.5"} {
		e.webhook(e.inbound(c, "918143963821", "Dhanesh", "ok", id)).want(200)
	}
	conversation := ""
	eventually(t, "all five messages are there", func() string {
		list := c.call("GET", "/api/whatsapp/conversations", nil).want(200)
		if conversation, _ = list.get("items.0.id").(string); conversation == "" || list.get("items.0.unread") != 5.0 {
			return string(list.Body)
		}
		return ""
	})
	a = c.scoreOf(lead)
	quick := 2 * float64(len(pointsBy(a, "quick_reply"))) // the template may have gone out between
	if got := pointsBy(a, "reply"); fmt.Sprint(got) != "[6 6 6]" {
		t.Errorf("replies gave %v", got)
	}
	c.wantTotal(lead, 38+quick)

	// events: each once, by what was paid
	for range 2 {
		c.happens("form_submitted", "f-1", "918143963821", nil)
		c.happens("product_purchased", "p-1", "918143963821", map[string]any{"amount": "1,000"})
	}
	a = c.wantTotal(lead, min(18+quick, 40)+20+12+40) // commerce is bounded
	if got := pointsBy(a, "product_purchased"); fmt.Sprint(got) != "[45]" {
		t.Errorf("a purchase of 1,000 gave %v", got)
	}
	eventuallyIn(t, takeover, "the lead shows it", func() string {
		l := c.call("GET", leadsPath+"/"+lead, nil).want(200)
		if math.Abs(l.get("score").(float64)-a.get("total").(float64)) > 0.01 || l.get("grade") != "B1" {
			return string(l.Body)
		}
		return ""
	})
	if got := c.call("GET", leadsPath+"?scoreMin=80", nil).want(200); got.get("items.0.id") != lead {
		t.Errorf("leads with a score of 80: %s", got.Body)
	}

	// an opt-out, and a lost deal
	before := a.get("total").(float64)
	e.webhook(e.inbound(c, "918143963821", "Dhanesh", "STOP", "wamid.6")).want(200)
	eventually(t, "the opt-out counts", func() string {
		a := c.scoreOf(lead)
		if math.Abs(a.get("total").(float64)-(before-40)) > 0.01 {
			return string(a.Body)
		}
		return ""
	})
	c.call("POST", leadsPath+"/"+lead+"/stage", map[string]any{"stage": "lost"}).want(200)
	eventually(t, "the lost deal counts", func() string {
		a := c.scoreOf(lead)
		if got := a.get("total").(float64); math.Abs(got-((18+quick)/2+20+20-40)) > 0.01 {
			return string(a.Body)
		}
		return ""
	})
	e.webhook(e.inbound(c, "918143963821", "Dhanesh", "START", "wamid.7")).want(200)
	eventually(t, "opting in takes the opt-out back", func() string {
		a := c.scoreOf(lead)
		if got := a.get("total").(float64); math.Abs(got-((18+quick)/2+20+20)) > 0.01 {
			return string(a.Body)
		}
		return ""
	})
}

// score_crossed is told when the grade's digit changes, once, and at no other time.
func TestScoreCrossed(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	crossed := c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "crossed", "trigger": "score_crossed", "enabled": true, "reenrol": "every_event",
		"actions": []map[string]any{{"type": "lead.set", "fields": map[string]any{"last": "{{previousGrade}} {{previousScore}} > {{grade}} {{score}} {{direction}}"}}}}).want(201).get("id").(string)
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "points", "trigger": "custom.points", "enabled": true, "reenrol": "every_event",
		"actions": []map[string]any{{"type": "branch", "condition": "event.variables.up", "then": []map[string]any{{"type": "lead.score", "points": 15}},
			"else": []map[string]any{{"type": "lead.score", "points": -15}}}}}).want(201)
	lead := ""
	for i, up := range []bool{true, true, true, false, true, false, false, true} { // 15 30 45 30 45 30 15 30
		lead = c.happens("custom.points", fmt.Sprint("e", i), "918143963821", map[string]any{"up": up}).get("leadId").(string)
	}
	c.happens("custom.points", "e7", "918143963821", map[string]any{"up": true}) // again
	// up to 30, to 45, down to 30, up to 45, down to 30, down to 15, up to 30
	eventually(t, "seven crossings are told", func() string {
		if n := c.heard(crossed); n != 7 {
			return fmt.Sprint(n)
		}
		return ""
	})
	c.quiet()
	l := c.call("GET", leadsPath+"/"+lead, nil).want(200)
	if n := c.heard(crossed); n != 7 || l.get("fields.last") != "C4 15 > C3 30 up" || l.get("grade") != "C3" {
		t.Errorf("%d crossings, the lead %s", n, l.Body)
	}

	// by what the engine counts
	for i, text := range []string{"How much is it, and is a slot available?", "ok", "fine"} {
		e.webhook(e.inbound(c, "918143963821", "Ana", text, fmt.Sprint("wamid.", i))).want(200)
	}
	eventuallyIn(t, takeover, "replies cross it", func() string {
		l := c.call("GET", leadsPath+"/"+lead, nil).want(200)
		if n := c.heard(crossed); n != 8 || l.get("grade") != "C2" {
			return fmt.Sprint(n, string(l.Body))
		}
		return ""
	})
	c.wantTotal(lead, 30+18+3+10)
}

// What was counted before the process was killed is there after it, counts once, and comes into the lead.
func TestScoreSurvivesAKill(t *testing.T) {
	t.Parallel()
	dir, meta := t.TempDir(), newMeta(t)
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	lead := c.happens("form_submitted", "f-1", "918143963821", nil).get("leadId").(string)
	body := p.inbound(c, "918143963821", "Ana", "Hello", "wamid.1")
	p.webhook(body).want(200)
	eventually(t, "the message counts", func() string {
		if a := c.scoreOf(lead); len(pointsBy(a, "reply")) != 1 {
			return string(a.Body)
		}
		return ""
	})
	if l := c.call("GET", leadsPath+"/"+lead, nil).want(200); l.get("score") != 0.0 {
		t.Fatalf("nothing is due any more: %s", l.Body)
	}
	p.kill()
	p2 := serve(t, dir, meta)
	c.e = p2.engine
	p2.webhook(body).want(200)
	c.happens("form_submitted", "f-1", "918143963821", nil)
	eventuallyIn(t, takeover, "the lead shows it", func() string {
		l := c.call("GET", leadsPath+"/"+lead, nil).want(200)
		if math.Abs(l.get("score").(float64)-18) > 0.01 {
			return string(l.Body)
		}
		return ""
	})
	c.wantTotal(lead, 18)
}

// The link of a mail counts as an opt-out, once; leads that are merged have the union of their ledgers, in which an opt-out
// of each counts once; and a deleted lead's ledger goes with it.
func TestScoreOfUnsubscribedAndMerged(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	a := c.call("POST", leadsPath, map[string]any{"phone": "918143963821", "email": "a@example.com", "name": "Ana"}).want(201).get("id").(string)
	b := c.call("POST", leadsPath, map[string]any{"email": "b@example.com", "name": "Ben"}).want(201).get("id").(string)
	path := c.campaign(mailing(map[string]any{"leadIds": []string{a, b}}, nil))
	c.call("POST", path+"/start", nil).want(200)
	c.ended(path)
	if n := len(box.Accepted()); n != 2 {
		t.Fatalf("%d mails", n)
	}
	for _, accepted := range box.Accepted() {
		m, err := accepted.Message()
		if err != nil {
			t.Fatal(err)
		}
		link := strings.TrimPrefix(strings.Trim(m.Header.Get("List-Unsubscribe"), "<>"), e.url)
		for range 2 {
			e.send("POST", link, nil, nil).want(200)
		}
	}
	for range 2 {
		c.happens("form_submitted", "f-a", "918143963821", nil)
		c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "service_enrolled", "eventId": "s-b", "email": "b@example.com"}).want(202)
	}
	total := func(lead string, want float64) {
		t.Helper()
		eventually(t, "the ledger is whole", func() string {
			if s := c.scoreOf(lead); math.Abs(s.get("total").(float64)-want) > 0.01 {
				return string(s.Body)
			}
			return ""
		})
	}
	total(a, 12-40)
	total(b, 30-40)
	c.call("POST", leadsPath+"/merge", map[string]any{"into": a, "from": []string{b}}).want(200)
	total(a, 12+30-40) // at once, whatever was brought together yet
	eventuallyIn(t, takeover, "the lead shows it", func() string {
		l := c.call("GET", leadsPath+"/"+b, nil).want(200) // by its old id
		if l.get("id") != a || math.Abs(l.get("score").(float64)-2) > 0.01 {
			return string(l.Body)
		}
		return ""
	})
	c.quiet()
	total(b, 12+30-40)
	c.call("DELETE", leadsPath+"/"+a, nil).want(204)
	c.quiet()
	c.call("GET", leadsPath+"/"+a+"/score", nil).problem(404, "lead.not_found")
	again := c.call("POST", leadsPath, map[string]any{"phone": "918143963821"}).want(201).get("id").(string)
	if s := c.scoreOf(again); s.get("total") != 0.0 || len(s.get("rows").([]any)) != 0 {
		t.Errorf("a new lead has the score of a deleted one: %s", s.Body)
	}
}
