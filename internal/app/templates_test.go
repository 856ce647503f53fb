package app_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// synced asks for a sync and waits for its job's end.
func (c *client) synced() *answer {
	c.e.t.Helper()
	jobID := c.call("POST", "/api/whatsapp/templates/sync", nil).want(202).get("jobId")
	var a *answer
	eventually(c.e.t, "the templates are synced", func() string {
		if a = c.call("GET", fmt.Sprintf("/api/jobs/%v", jobID), nil).want(200); a.get("state") != "succeeded" {
			return string(a.Body)
		}
		return ""
	})
	return a
}

// templates lists the templates of a client as name/language/status.
func (c *client) templates(query string) string {
	c.e.t.Helper()
	var out []string
	cursor := ""
	for {
		var page struct {
			Items      []struct{ Name, Language, Status string }
			NextCursor *string
		}
		c.call("GET", "/api/whatsapp/templates?limit=2"+query+cursor, nil).want(200).into(&page)
		for _, t := range page.Items {
			out = append(out, t.Name+"/"+t.Language+"/"+t.Status)
		}
		if page.NextCursor == nil {
			return strings.Join(out, " ")
		}
		cursor = "&cursor=" + *page.NextCursor
	}
}

// sends counts the calls that ask Meta to send.
func sends(meta *whatsapptest.Server) int {
	n := 0
	for _, r := range meta.Requests() {
		if r.Kind == "send" {
			n++
		}
	}
	return n
}

// A sync goes through all of Meta's pages by cursor, takes over what changed, and lets go of what is gone.
func TestTemplateSync(t *testing.T) {
	t.Parallel()
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret, PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meta.Close)
	e := start(t, t.TempDir(), meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	ear := c.listen(t, sockettest.Websocket)
	for _, tp := range []whatsapptest.Template{
		{Name: "order_shipped", Body: "Order {{1}} is on its way"}, {Name: "order_shipped", Language: "es_MX", Body: "Va {{1}}", Status: "PENDING"},
		{Name: "promo", Body: "Hi", Category: "MARKETING"}, {Name: "rejected", Body: "Hi", Status: "REJECTED"},
	} {
		meta.SetTemplate(c.WABA, tp)
	}
	if got := c.templates(""); got != "" {
		t.Errorf("before any sync: %s", got)
	}
	job := c.synced()
	want(t, "job", job, "result.templates", 5.0, "result.changed", 5.0, "result.removed", 0.0)
	pages := 0
	for _, r := range meta.Requests() {
		if r.Kind == "templates" {
			if pages++; r.InQuery {
				t.Error("the next page was asked for with a token in the address")
			}
		}
	}
	if pages != 3 {
		t.Errorf("%d pages were read", pages)
	}
	for query, names := range map[string]string{
		"":                       "appointment_confirmed/en/APPROVED order_shipped/en/APPROVED order_shipped/es_MX/PENDING promo/en/APPROVED rejected/en/REJECTED",
		"&name=order_shipped":    "order_shipped/en/APPROVED order_shipped/es_MX/PENDING",
		"&status=APPROVED":       "appointment_confirmed/en/APPROVED order_shipped/en/APPROVED promo/en/APPROVED",
		"&language=es-mx":        "order_shipped/es_MX/PENDING",
		"&name=x":                "",
		"&status=PENDING&name=x": "",
	} {
		if got := c.templates(query); got != names {
			t.Errorf("%s lists %s", query, got)
		}
	}
	one := c.call("GET", "/api/whatsapp/templates?name=promo", nil).want(200)
	if one.get("items.0.category") != "MARKETING" || one.get("items.0.components.0.text") != "Hi" || one.get("items.0.quality") != "GREEN" {
		t.Errorf("template %s", one.Body)
	}
	if got := other.templates(""); got != "" {
		t.Errorf("another client sees %s", got)
	}
	// nothing is new: nothing is told
	want(t, "job", c.synced(), "result.changed", 0.0, "result.removed", 0.0)
	// another at Meta, and an answer that is refused for now
	meta.AddAccount(whatsapptest.Account{WABAID: c.WABA, Token: c.Token, Numbers: []whatsapptest.Number{{ID: c.Number}}, WebhookURL: e.url + "/api/whatsapp/webhook",
		Templates: []whatsapptest.Template{{Name: "order_shipped", Body: "Order {{1}} is on its way, {{2}}"}, {Name: "new_one", Body: "Hi"}, {Name: "promo", Body: "Hi"}}})
	meta.When(1, func(r whatsapptest.Request) bool { return r.Kind == "templates" && strings.Contains(r.Query, "after=") }, whatsapptest.RateLimited(time.Second))
	c.synced()
	if got := c.templates(""); got != "new_one/en/APPROVED order_shipped/en/APPROVED promo/en/APPROVED" {
		t.Errorf("after the second sync: %s", got)
	}
	ear.find("template.updated", "template.name", "new_one")
	ear.find("template.updated", "template.status", "DELETED")
}

// A template's webhook has its effect at once: a rule's run fails without a call, and goes again when it is approved again.
// Wrong parameters never reach Meta.
func TestTemplateIsChecked(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	meta.SetTemplate(c.WABA, whatsapptest.Template{Name: "hello", Language: "en_US", Body: "Hi {{1}}"})
	rule := func(name, language string, parameters ...string) {
		t.Helper()
		c.call("POST", "/api/crm/automations/rules", map[string]any{"name": name, "trigger": "custom." + name, "enabled": true, "reenrol": "every_event",
			"actions": []map[string]any{{"type": "whatsapp.template", "template": "hello", "language": language, "parameters": parameters}}}).want(201)
	}
	rule("right", "en_US", "{{name}}")
	rule("hyphen", "en-US", "{{name}}")
	rule("short", "en_US")
	rule("foreign", "de", "{{name}}")
	run := func(trigger, state string) *answer {
		t.Helper()
		ev := hello("+12025550143")
		ev["trigger"] = "custom." + trigger
		return c.run(c.call("POST", "/api/crm/automations/events", ev).want(202).get("runs.0.runId").(string), state)
	}
	// a client whose templates were never listed is not judged: Meta is asked, and refuses
	want(t, "never synced", run("short", "failed"), "error.code", "132000")
	if n := sends(meta); n != 1 {
		t.Fatalf("%d calls", n)
	}
	c.synced()
	for trigger, code := range map[string]string{"short": "whatsapp.template_parameters", "foreign": "whatsapp.template_unknown"} {
		want(t, trigger, run(trigger, "failed"), "error.code", code)
	}
	if n := sends(meta); n != 1 {
		t.Fatalf("%d calls: what is known to be refused was tried", n)
	}
	run("right", "done")
	run("hyphen", "done")
	sent, err := meta.WaitAccepted(within(10*time.Second), 2)
	if err != nil {
		t.Fatal(err)
	}
	if m := c.has(sent[0].BizOpaque, "read"); m.get("text") != "Hi Ana" {
		t.Errorf("the message does not show its text: %s", m.Body)
	}
	status := func(event, shown string) {
		t.Helper()
		e.webhook(whatsapptest.Batch(meta.TemplateStatus(c.WABA, "hello", "en_US", event))).want(200)
		eventually(t, "the template is "+shown, func() string { return strings.TrimPrefix(c.templates("&name=hello"), "hello/en_US/"+shown) })
	}
	calls := sends(meta)
	status("PAUSED", "PAUSED")
	failed := run("right", "failed")
	want(t, "paused", failed, "error.code", "whatsapp.template_not_approved")
	if n := sends(meta); n != calls {
		t.Errorf("%d calls after the pause", n-calls)
	}
	api := func(body map[string]any) *answer { return c.call("POST", "/api/whatsapp/messages", body) }
	template := func(language string, parameters ...any) map[string]any {
		return map[string]any{"to": "+12025550143", "type": "template", "template": map[string]any{"name": "hello", "language": map[string]any{"code": language},
			"components": []any{map[string]any{"type": "body", "parameters": parameters}}}}
	}
	api(template("en_US", text("Ana"))).problem(409, "whatsapp.template_not_approved")
	status("APPROVED", "APPROVED")
	run("right", "done")
	unknown := api(template("de", text("Ana"))).problem(422, "whatsapp.template_unknown")
	if unknown.get("errors.0.pointer") != "/template/name" || !strings.Contains(unknown.get("detail").(string), "en_US") {
		t.Errorf("unknown: %s", unknown.Body)
	}
	wrong := api(template("en_US", text("Ana"), text("more"))).problem(422, "whatsapp.template_parameters")
	if wrong.get("errors.0.pointer") != "/template/components" {
		t.Errorf("wrong: %s", wrong.Body)
	}
	a := api(template("en-us", text("Ana"))).want(202)
	if got := c.reaches(a.get("id")); !strings.Contains(string(got.Body), `"code":"en_US"`) {
		t.Errorf("reached Meta as %s", got.Body)
	}
	// paused between the planning and the call
	calls = sends(meta)
	e.webhook(whatsapptest.Batch(meta.TemplateStatus(c.WABA, "hello", "en_US", "DISABLED"))).want(200)
	e.sorted(t)
	api(template("en_US", text("Ana"))).problem(409, "whatsapp.template_not_approved")
	if n := sends(meta); n != calls {
		t.Errorf("%d calls", n-calls)
	}
	// one that Meta approves before we ever heard of it is asked for
	meta.SetTemplate(c.WABA, whatsapptest.Template{Name: "fresh", Body: "Hi", Status: "PENDING"})
	e.webhook(whatsapptest.Batch(meta.TemplateStatus(c.WABA, "fresh", "en", "APPROVED"))).want(200)
	eventually(t, "the new template is known", func() string {
		return strings.TrimPrefix(c.templates("&name=fresh"), "fresh/en/APPROVED")
	})
}

// Templates are made and deleted at Meta; what a lost answer leaves, the list that follows tells.
func TestTemplateEdit(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	draft := func(name string) map[string]any {
		return map[string]any{"name": name, "language": "en-us", "category": "UTILITY", "components": []any{map[string]any{"type": "BODY", "text": "Hi {{1}}"}}}
	}
	c.synced()
	made := c.call("POST", "/api/whatsapp/templates", draft("order_shipped")).want(201)
	want(t, "made", made, "name", "order_shipped", "language", "en_US", "status", "PENDING", "category", "UTILITY")
	if made.get("metaId") == nil || c.templates("&name=order_shipped") != "order_shipped/en_US/PENDING" {
		t.Errorf("made %s", made.Body)
	}
	c.call("POST", "/api/whatsapp/templates", draft("order_shipped")).problem(409, "whatsapp.template_exists")
	c.call("POST", "/api/whatsapp/templates", draft("Order!")).problem(422, "")
	bad := draft("x")
	bad["components"] = []any{map[string]any{"type": "FOOTER", "text": "no body"}}
	if a := c.call("POST", "/api/whatsapp/templates", bad).problem(422, "whatsapp.rejected"); !strings.Contains(a.get("detail").(string), "BODY") {
		t.Errorf("Meta's reason is not told: %s", a.Body)
	}
	// a lost answer: the list tells
	meta.When(1, func(r whatsapptest.Request) bool { return r.Kind == "templates" && r.Method == "POST" }, whatsapptest.ResetAfterAccepting())
	c.call("POST", "/api/whatsapp/templates", draft("lost")).problem(503, "whatsapp.unconfirmed")
	c.synced()
	if got := c.templates("&name=lost"); got != "lost/en_US/PENDING" {
		t.Errorf("after a lost answer: %q", got)
	}
	other.synced()
	other.call("DELETE", "/api/whatsapp/templates/order_shipped", nil).problem(404, "template.not_found")
	c.call("DELETE", "/api/whatsapp/templates/order_shipped?language=de", nil).problem(404, "template.not_found")
	c.call("DELETE", "/api/whatsapp/templates/order_shipped?language=en_US", nil).want(204)
	c.call("DELETE", "/api/whatsapp/templates/lost", nil).want(204)
	c.call("DELETE", "/api/whatsapp/templates/lost", nil).problem(404, "template.not_found")
	want(t, "sync after", c.synced(), "result.templates", 1.0, "result.changed", 0.0, "result.removed", 0.0)
}

// The list of a new account is due, and of one that was listed a day ago; the same job all day.
func TestTemplateSyncIsDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	due := func(is bool) string {
		t.Helper()
		n, ok, err := w.desk.TemplateSyncDue(ctx, w.tn)
		w.must(err)
		if ok != is {
			t.Errorf("due %v", ok)
		}
		return n.UniqueKey
	}
	if first := due(true); due(true) != first {
		t.Error("asked twice, it is two jobs")
	}
	_, err := w.desk.HandleTemplateSync(ctx, w.tn, syncJob)
	w.must(err)
	due(false)
	w.now = w.now.Add(23 * time.Hour)
	due(false)
	w.now = w.now.Add(2 * time.Hour)
	due(true)
	list, err := chat.TemplateLists.Get(ctx, w.db, "2001")
	w.must(err)
	if list.Templates != 1 {
		t.Errorf("list %+v", list)
	}
}
