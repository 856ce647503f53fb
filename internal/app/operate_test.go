package app_test

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the operator's hand

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// account makes a client's number known to the fake Meta.
func (c *client) account(token string) {
	c.Token = token
	c.e.meta.AddAccount(whatsapptest.Account{WABAID: c.WABA, Token: token, Numbers: []whatsapptest.Number{{ID: c.Number}}, WebhookURL: c.e.url + "/api/whatsapp/webhook"})
}

// tell sends the event of helloRule and gives the run.
func (c *client) tell(phone string) (run string) {
	c.e.t.Helper()
	return c.call("POST", "/api/crm/automations/events", hello(phone)).want(202).get("runs.0.runId").(string)
}

// run waits until a run has this state.
func (c *client) run(id, state string) *answer {
	c.e.t.Helper()
	var a *answer
	eventuallyIn(c.e.t, takeover, "the run is "+state, func() string {
		if a = c.call("GET", "/api/crm/automations/runs/"+id, nil).want(200); a.get("state") != state {
			return string(a.Body)
		}
		return ""
	})
	return a
}

// jobOf waits until the job of a run's send has this state.
func (c *client) jobOf(run, state string) *answer {
	c.e.t.Helper()
	id := c.call("GET", "/api/crm/automations/runs/"+run, nil).want(200).get("steps.0.jobId").(string)
	var a *answer
	eventuallyIn(c.e.t, takeover, "the job is "+state, func() string {
		if a = c.call("GET", "/api/jobs/"+id, nil); a.Status != 200 || a.get("state") != state {
			return string(a.Body)
		}
		return ""
	})
	return a
}

// ecod runs the real binary on a data folder.
func ecod(t *testing.T, dir, stdin string, args ...string) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	cmd.Env = environ("ECOD_DATA_DIR=" + dir)
	cmd.Stdin = strings.NewReader(stdin)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ecod %v: %v: %s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// after gives what follows a mark on its line.
func after(t *testing.T, text, mark string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, mark)
	if !ok {
		t.Fatalf("no %q in %q", mark, text)
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// A client that the API, the shell or a hand in the database made is served within 5 s by the engine that runs, and so
// is every change.
func TestClientsAppear(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_WORKER_POLL_INTERVAL=500ms") // jobs of the shell wait for the poll
	served := func(what string, c *client, status int) {
		t.Helper()
		began := time.Now()
		eventually(t, what, func() string {
			if a := c.call("GET", "/api/crm/leads", nil); a.Status != status {
				return fmt.Sprint(a.Status)
			}
			return ""
		})
		d := time.Since(began)
		if d > 5*time.Second {
			t.Errorf("%s after %s", what, d)
		}
		t.Logf("%s after %s", what, d.Round(time.Millisecond))
	}
	works := func(c *client) {
		t.Helper()
		c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
		c.run(c.tell("918143963821"), "done")
	}

	api := p.addClient("BYAPI", 1)
	api.call("GET", "/api/crm/leads", nil).want(200) // at once
	works(api)

	shell := &client{e: p.engine, Code: "BYSHELL", WABA: "200000000000002", Number: "300000000000002"}
	shell.Key = after(t, ecod(t, dir, "", "client", "add", "byshell", "--default-country", "in"), "api key ")

	hand := &client{e: p.engine, Code: "BYHAND", Key: "a key of the operator's own", WABA: "200000000000003", Number: "300000000000003"}
	hand.account("hand-token")
	sum := sha256.Sum256([]byte(hand.Key))
	doc := map[string]any{
		"_id": hand.Code, "name": "By hand", "defaultCountry": "IN", "apiKeys": []any{map[string]any{"sha256": hex.EncodeToString(sum[:])}},
		"whatsapp": map[string]any{"wabaId": hand.WABA, "phoneNumberIds": []string{hand.Number},
			"accessToken": ecod(t, dir, hand.Token+"\n", "secret", "encrypt", "--client", hand.Code, "--field", "whatsapp.accessToken")},
	}
	if sealed := fmt.Sprint(doc["whatsapp"]); strings.Contains(sealed, hand.Token) {
		t.Fatal("the ciphertext shows the token")
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "ecod_services.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	write := func(query string) {
		t.Helper()
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(query, string(raw), hand.Code); err != nil {
			t.Fatal(err)
		}
	}
	write(`INSERT INTO ClientSecrets(doc, _id) VALUES (?, ?)`)
	served("a client of the hand is served", hand, 200)
	served("a client of the shell is served", shell, 200)
	works(hand)
	p.admin("PUT", "/api/clients/BYSHELL/secrets/whatsapp", map[string]any{"wabaId": shell.WABA, "phoneNumberIds": []string{shell.Number}, "accessToken": "shell-token"}).want(200)
	shell.account("shell-token")
	works(shell)
	p.webhook(whatsapptest.Batch(meta.InboundText(hand.Number, "12025550143", "Ana", "Hello"))).want(200)
	eventually(t, "its number is routed to it", func() string {
		for _, cv := range hand.all("/api/whatsapp/conversations") {
			if cv["unread"] == 1.0 {
				return ""
			}
		}
		return "no conversation"
	})

	doc["status"] = "suspended"
	write(`UPDATE ClientSecrets SET doc = ? WHERE _id = ?`)
	second := *shell
	second.Key = after(t, ecod(t, dir, "", "client", "rotate-key", "BYSHELL"), "api key ")
	served("a suspension by hand is heard of", hand, 403)
	served("a new key is good", &second, 200)
	served("the key before it is good", shell, 200)

	doc["status"] = "active"
	write(`UPDATE ClientSecrets SET doc = ? WHERE _id = ?`)
	ecod(t, dir, "", "client", "suspend", "BYSHELL")
	served("a resumption by hand is heard of", hand, 200)
	served("a suspension is heard of", &second, 403)
	ecod(t, dir, "", "client", "resume", "BYSHELL")
	served("a resumption is heard of", &second, 200)
	// a broken document of one is nobody else's trouble
	if _, err := db.Exec(`INSERT INTO ClientSecrets(_id, doc) VALUES ('BROKEN', '{"name":5,"apiKeys":{}}'), ('lower', '{}'), ('LIST', '[]'), ('TWICE', ?)`,
		`{"_id":"TWICE","name":"x","whatsapp":{"wabaId":"1","phoneNumberIds":["`+hand.Number+`"]}}`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`DELETE FROM ClientSecrets WHERE _id = 'BYSHELL'`); err != nil {
		t.Fatal(err)
	}
	served("a client that was deleted by hand is gone", &second, 401)
	hand.call("GET", "/api/crm/leads", nil).want(200)
	for round := range 2 { // and once more, under the same code
		if round == 1 {
			ecod(t, dir, "", "client", "add", "BYAPI")
		}
		ecod(t, dir, "", "client", "erase", "BYAPI", "--confirm", "byapi")
		eventually(t, "a client that the shell erases is gone", func() string {
			if a := p.admin("GET", "/api/clients/BYAPI", nil); a.Status != 404 {
				return string(a.Body)
			}
			return ""
		})
		if _, err := os.Stat(filepath.Join(dir, "tenants", "ecod_t_BYAPI.db")); !os.IsNotExist(err) {
			t.Errorf("its file: %v", err)
		}
	}
	for _, secret := range []string{hand.Token, hand.Key, shell.Key, second.Key} {
		if strings.Contains(p.log.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
}

// A suspended client may do nothing, and loses nothing: what comes in is kept, what was to be sent waits.
func TestSuspend(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for _, x := range []*client{c, other} {
		x.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	}
	meta.When(1, func(r whatsapptest.Request) bool { return r.Kind == "send" && strings.Contains(r.Path, c.Number) }, whatsapptest.RateLimited(3*time.Second))
	run := c.tell("918143963821")
	eventually(t, "Meta wants it later", func() string { // by then the client is suspended
		a := e.admin("GET", "/api/admin/lanes/pauses?client=ACME", nil).want(200)
		return unless(a.get("items.0.reason") == "rate_limited", string(a.Body))
	})
	e.admin("POST", "/api/clients/ACME/suspend", nil).want(200)
	c.call("GET", "/api/crm/leads", nil).problem(403, "client.suspended")
	c.call("POST", "/api/crm/automations/events", hello("918143963822")).problem(403, "client.suspended")
	e.webhook(whatsapptest.Batch(meta.InboundText(c.Number, "12025550143", "Ana", "Are you there?"))).want(200)
	if d := e.sorted(t); d.State != "settled" || len(d.Clients) != 1 {
		t.Errorf("delivery %s of %v", d.State, d.Clients)
	}
	eventually(t, "its job is parked", func() string {
		l := e.admin("GET", "/api/admin/jobs?client=ACME&state=parked", nil).want(200)
		if l.get("items.0.error.code") != "client_suspended" || l.get("items.1") != nil {
			return string(l.Body)
		}
		return ""
	})
	other.run(other.tell("918143963821"), "done") // nobody else's trouble
	e.admin("POST", "/api/clients/ACME/resume", nil).want(200)
	c.run(run, "done")
	for _, cv := range c.all("/api/whatsapp/conversations") {
		if cv["phone"] == "+12025550143" && cv["unread"] != 1.0 {
			t.Errorf("what came meanwhile: %v", cv)
		}
	}
	if n := len(c.all("/api/whatsapp/conversations")); n != 2 {
		t.Errorf("%d conversations", n)
	}
	if n := len(meta.Accepted()); n != 2 {
		t.Errorf("Meta accepted %d messages", n)
	}
}

// Two keys are good at a time; an erased client is gone with its file, and nobody else's.
func TestKeysAndErasure(t *testing.T) {
	dir := t.TempDir()
	e := start(t, dir, newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	keys := []string{c.Key}
	for range 2 {
		keys = append(keys, e.admin("POST", "/api/clients/ACME/keys", nil).want(201).get("apiKey").(string))
	}
	for i, want := range []int{401, 200, 200} { // the newest, and the one before it
		c.Key = keys[i]
		c.call("GET", "/api/crm/leads", nil).want(want)
	}
	for _, x := range []*client{c, other} {
		x.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
		x.run(x.tell("918143963821"), "done")
	}
	file := filepath.Join(dir, "tenants", "ecod_t_ACME.db")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	e.admin("DELETE", "/api/clients/ACME", nil).problem(422, "")
	e.admin("DELETE", "/api/clients/ACME?confirm=BETA", nil).problem(422, "")
	job := e.admin("DELETE", "/api/clients/ACME?confirm=acme", nil).want(202).get("jobId").(string)
	c.call("GET", "/api/crm/leads", nil).want(map[bool]int{true: 401, false: 403}[c.call("GET", "/api/crm/leads", nil).Status == 401])
	eventually(t, "the client is erased", func() string {
		a := e.admin("GET", "/api/admin/jobs/"+job, nil).want(200)
		if a.get("state") != "succeeded" {
			return string(a.Body)
		}
		return ""
	})
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if _, err := os.Stat(file + suffix); !os.IsNotExist(err) {
			t.Errorf("%s: %v", file+suffix, err)
		}
	}
	c.call("GET", "/api/crm/leads", nil).problem(401, "")
	e.admin("GET", "/api/clients/ACME", nil).problem(404, "")
	other.call("GET", "/api/crm/leads", nil).want(200)
	raw, err := os.ReadFile(filepath.Join(dir, "ecod_services.db"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("918143963821")) {
		t.Error("the central database holds a customer's number in the clear")
	}
	// the code is free, its number too, and nothing of the one before is there
	again := e.addClient("ACME", 1)
	if l := again.call("GET", "/api/crm/leads", nil).want(200); l.get("items.0") != nil {
		t.Errorf("a new client has the leads of the erased one: %s", l.Body)
	}
	again.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	again.run(again.tell("918143963821"), "done")
	e.admin("DELETE", "/api/clients/ACME?confirm=ACME", nil).want(202)
	eventually(t, "it can be erased again", func() string {
		if a := e.admin("GET", "/api/clients/ACME", nil); a.Status != 404 {
			return string(a.Body)
		}
		return ""
	})
}

// What Meta refuses: a dead token parks the job until there is a new one, a limit puts it off and costs no attempt, a
// known failure is tried again, and what can never be sent ends the run.
func TestMetaRefuses(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	rule := helloRule()
	rule["actions"] = append(rule["actions"].([]map[string]any), map[string]any{"type": "whatsapp.text", "text": "Bye {{name}}"})
	for _, x := range []*client{c, other} {
		x.call("POST", "/api/crm/automations/rules", rule).want(201)
	}
	message := func(run string) map[string]any {
		t.Helper()
		for _, cv := range c.all("/api/whatsapp/conversations") {
			for _, m := range c.all("/api/whatsapp/conversations/" + cv["id"].(string) + "/messages") {
				if m["runId"] == run && m["text"] == "Hello Ana" {
					return m
				}
			}
		}
		return nil
	}

	t.Run("token", func(t *testing.T) {
		meta.SetToken(c.WABA, "another-token")
		run := c.tell("918143963821")
		job := c.jobOf(run, "parked")
		want(t, "job", job, "error.code", "whatsapp.credential", "attempt", 0.0)
		want(t, "message", message(run), "status", "queued", "wamid", nil)
		other.run(other.tell("918143963821"), "done")
		sent := len(meta.Accepted())
		e.admin("PUT", "/api/clients/ACME/secrets/whatsapp", map[string]any{"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": "another-token"}).want(200)
		c.run(run, "done")
		if n := len(meta.Accepted()) - sent; n != 2 {
			t.Errorf("%d messages after the new token", n)
		}
	})
	t.Run("limit", func(t *testing.T) {
		sent := len(meta.Accepted())
		meta.Next(2, whatsapptest.RateLimited(0))
		run := c.tell("918143963822")
		c.run(run, "done")
		want(t, "job", c.jobOf(run, "succeeded"), "attempt", 0.0)
		if n := len(meta.Accepted()) - sent; n != 2 {
			t.Errorf("%d messages", n)
		}
	})
	t.Run("limit on many", func(t *testing.T) { // the number rests, and one at a time finds out whether it is over
		asked := func() (n int) {
			for _, r := range meta.Requests() {
				if strings.HasSuffix(r.Path, "/messages") {
					n++
				}
			}
			return n
		}
		before := asked()
		meta.Next(3, whatsapptest.RateLimited(0))
		var runs []string
		for i := range 20 {
			runs = append(runs, c.tell(fmt.Sprintf("9181439640%02d", i)))
		}
		for _, run := range runs {
			c.run(run, "done")
		}
		// 40 messages; those that were on their way when the first was refused could not know
		if n := asked() - before; n > 40+16 {
			t.Errorf("%d calls for 40 messages", n)
		}
	})
	t.Run("unavailable", func(t *testing.T) {
		sent := len(meta.Accepted())
		meta.Next(1, whatsapptest.Unavailable())
		run := c.tell("918143963823")
		c.run(run, "done")
		want(t, "job", c.jobOf(run, "succeeded"), "attempt", 1.0)
		if n := len(meta.Accepted()) - sent; n != 2 {
			t.Errorf("%d messages", n)
		}
	})
	t.Run("never", func(t *testing.T) {
		sent := len(meta.Accepted())
		meta.Next(1, whatsapptest.GraphError(400, 131026, "Message undeliverable"))
		run := c.tell("918143963824")
		a := c.run(run, "failed")
		want(t, "run", a, "error.code", "131026")
		if a.get("steps.0.state") != "failed" || a.get("steps.1.state") != "done" || a.get("steps.2.state") != "skipped" || a.get("steps.2.error.code") != "previous_failed" {
			t.Errorf("steps %s", a.Body)
		}
		want(t, "job", c.jobOf(run, "dead"), "error.code", "131026")
		m := message(run)
		want(t, "message", m, "status", "failed", "error.code", "131026", "wamid", nil)
		if dig(m, "statusAt.failed") == nil {
			t.Errorf("message %v", m)
		}
		if n := len(meta.Accepted()) - sent; n != 0 {
			t.Errorf("%d messages", n)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		meta.Next(1, whatsapptest.GraphError(400, 131050, "User has stopped marketing messages"))
		run := c.tell("918143963825")
		c.run(run, "failed")
		again := c.tell("918143963825")
		want(t, "run", c.run(again, "failed"), "error.code", "opted_out")
	})
	t.Run("cancelled", func(t *testing.T) {
		sent := len(meta.Accepted())
		meta.Next(1, whatsapptest.Unavailable())
		run := c.tell("918143963826")
		j := c.jobOf(run, "scheduled")
		c.call("POST", "/api/jobs/"+j.get("id").(string)+"/cancel", nil).want(200)
		want(t, "run", c.run(run, "failed"), "error.code", "cancelled")
		want(t, "message", message(run), "status", "failed", "error.code", "cancelled")
		if n := len(meta.Accepted()) - sent; n != 0 {
			t.Errorf("%d messages", n)
		}
		c.run(c.tell("918143963826"), "done") // the lead can enter the rule again
	})
	if d := meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	for _, r := range meta.Requests() {
		if r.InQuery {
			t.Errorf("a token stood in an address: %s", r.Path)
		}
	}
	for _, secret := range []string{c.Token, "another-token", "918143963821", "Hello Ana"} {
		if strings.Contains(e.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// A run that lacks a variable is held, sends nothing, and goes on when it is given.
func TestHeldRun(t *testing.T) {
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201)
	ev := confirmEvent(nil)
	ev["variables"] = map[string]any{"patientName": "Dhanesh", "doctorName": "{{doctor.name}}", "time": " "}
	a := c.call("POST", "/api/crm/automations/events", ev).want(202)
	want(t, "event", a.get("runs.0"), "state", "held")
	run, lead := a.get("runs.0.runId").(string), a.get("leadId").(string)
	held := c.call("GET", "/api/crm/automations/runs/"+run, nil).want(200)
	want(t, "run", held, "held.reason", "missing_variable")
	if names := fmt.Sprint(held.get("held.names")); names != "[doctorName time]" {
		t.Errorf("it lacks %s", names)
	}
	want(t, "lead", c.call("GET", "/api/crm/leads/"+lead, nil).want(200), "score", 0.0, "stage", "new")
	path := "/api/crm/automations/runs/" + run
	c.call("PATCH", path, map[string]any{"variables": map[string]any{}}).problem(422, "")
	part := c.call("PATCH", path, map[string]any{"variables": map[string]any{"doctorName": "Dr. Arjun"}}).want(200)
	want(t, "run", part, "state", "held")
	if names := fmt.Sprint(part.get("held.names")); names != "[time]" {
		t.Errorf("it lacks %s", names)
	}
	c.call("PATCH", path, map[string]any{"variables": map[string]any{"time": "Monday 10AM"}}).want(200)
	c.run(run, "done")
	want(t, "lead", c.call("GET", "/api/crm/leads/"+lead, nil).want(200), "score", 20.0, "stage", "booked", "fields.doctor", "Dr. Arjun")
	c.call("PATCH", path, map[string]any{"variables": map[string]any{"time": "Tuesday"}}).problem(409, "run.not_held")
	if sent := meta.Accepted(); len(sent) != 1 || sent[0].Text != "Hi Dhanesh, Dr. Arjun sees you Monday 10AM." {
		t.Errorf("Meta accepted %+v", sent)
	}
	for _, r := range meta.Requests() {
		if bytes.Contains(r.Body, []byte("{{")) {
			t.Errorf("a placeholder went out: %s", r.Body)
		}
	}
}

// How often a lead may enter a rule, and rules that set each other off.
func TestReenrolment(t *testing.T) {
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	rules := map[string]string{}
	for name, mode := range map[string]any{"active": "once_active", "default": nil, "ever": "once_ever", "every": "every_event", "cool": map[string]string{"cooldown": "1h"}} {
		r := map[string]any{"name": name, "trigger": "custom.again", "enabled": true, "actions": []map[string]any{{"type": "lead.tag.add", "tags": []string{name}}, {"type": "lead.score", "points": 1}}}
		if mode != nil {
			r["reenrol"] = mode
		}
		rules[c.call("POST", "/api/crm/automations/rules", r).want(201).get("id").(string)] = name
	}
	tell := func(trigger string) (ran, skipped map[string]string) {
		t.Helper()
		ran, skipped = map[string]string{}, map[string]string{}
		var a struct {
			Runs    []struct{ RuleID, State string }
			Skipped []struct{ RuleID, Reason string }
		}
		c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": trigger, "phone": "918143963821", "createLeadIfMissing": true}).want(202).into(&a)
		for _, r := range a.Runs {
			ran[rules[r.RuleID]] = r.State
		}
		for _, s := range a.Skipped {
			skipped[rules[s.RuleID]] = s.Reason
		}
		return ran, skipped
	}
	if ran, skipped := tell("custom.again"); len(ran) != 5 || len(skipped) != 0 {
		t.Errorf("first: %v, skipped %v", ran, skipped)
	}
	ran, skipped := tell("custom.again")
	if fmt.Sprint(ran) != "map[active:done default:done every:done]" || fmt.Sprint(skipped) != "map[cool:cooldown ever:already_enrolled]" {
		t.Errorf("second: %v, skipped %v", ran, skipped)
	}

	// a run that is not over holds its place
	meta.SetToken(c.WABA, "") // sends wait
	for _, mode := range []string{"once_active", "every_event"} {
		id := c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "slow " + mode, "trigger": "custom.slow", "enabled": true, "reenrol": mode,
			"actions": []map[string]any{{"type": "whatsapp.text", "text": "Hello"}}}).want(201).get("id").(string)
		rules[id] = mode
	}
	tell("custom.slow")
	if ran, skipped := tell("custom.slow"); fmt.Sprint(ran) != "map[every_event:active]" || fmt.Sprint(skipped) != "map[once_active:already_active]" {
		t.Errorf("while active: %v, skipped %v", ran, skipped)
	}

	// loops end
	for _, l := range [][3]string{{"tag_added", "ping", "pong"}, {"tag_added", "pong", "ping"}, {"tag_removed", "ping", "ping"}, {"tag_removed", "pong", "pong"}} {
		act := []map[string]any{{"type": "lead.tag.remove", "tags": []string{l[1]}}, {"type": "lead.tag.add", "tags": []string{l[2]}}, {"type": "lead.score", "points": 1}}
		r := c.call("POST", "/api/crm/automations/rules", map[string]any{"name": l[1] + " to " + l[2], "trigger": l[0], "enabled": true, "reenrol": "every_event",
			"condition": `event.variables.tag == "` + l[1] + `"`, "actions": act}).want(201)
		rules[r.get("id").(string)] = l[1]
		if l[1] == "pong" && l[0] == "tag_added" && r.get("warnings.0.code") != "cycle" {
			t.Logf("no warning of a cycle: %s", r.Body)
		}
	}
	start := c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "start", "trigger": "custom.loop", "enabled": true, "actions": []map[string]any{
		{"type": "lead.tag.add", "tags": []string{"ping"}}}}).want(201).get("id").(string)
	rules[start] = "start"
	tell("custom.loop")
	eventually(t, "the loop ends", func() string {
		for _, state := range unended {
			if l := c.call("GET", "/api/jobs?type=automation.event&state="+state, nil).want(200); l.get("items.0") != nil {
				return string(l.Body)
			}
		}
		return ""
	})
	last := len(c.all("/api/crm/automations/runs"))
	if last > 60 {
		t.Errorf("%d runs: the loop ran away", last)
	}
	t.Logf("%d runs in all", last)
}

// An event whose client cannot be reached is taken in all the same, and its work follows.
func TestDeferredEvent(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	e := start(t, dir, meta)
	file := filepath.Join(dir, "tenants", "ecod_t_ACME.db") // in the way before anybody opens it
	if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	ev := hello("918143963821")
	ev["eventId"] = "bk-1"
	a := c.call("POST", "/api/crm/automations/events", ev).want(202)
	want(t, "answer", a, "deferred", true, "duplicate", false, "eventId", "bk-1", "leadId", nil)
	if len(a.get("runs").([]any)) != 0 {
		t.Errorf("answer %s", a.Body)
	}
	want(t, "told again", c.call("POST", "/api/crm/automations/events", ev).want(202), "deferred", true, "duplicate", true, "eventId", "bk-1")
	changed := hello("918143963822")
	changed["eventId"] = "bk-1"
	c.call("POST", "/api/crm/automations/events", changed).problem(409, "event.mismatch")
	c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "custom.hello", "phone": "12"}).problem(422, "")
	c.call("GET", "/api/crm/leads", nil).problem(503, "client.unavailable")
	e.webhook(whatsapptest.Batch(meta.InboundText(c.Number, "12025550143", "Ana", "Hello"), meta.InboundText(other.Number, "12025550143", "Ana", "Hello"))).want(200)
	eventually(t, "the neighbour's message is stored", func() string { return fmt.Sprint(1 - len(other.all("/api/whatsapp/conversations")))[len("0"):] })
	e.send("GET", "/readyz", nil, nil).want(200) // one client's trouble is not the engine's

	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	eventuallyIn(t, takeover, "the event is worked off", func() string {
		if a := c.call("GET", "/api/crm/automations/events/bk-1", nil); a.Status != 200 || a.get("deferred") != false {
			return string(a.Body)
		}
		return ""
	})
	want(t, "told once more", c.call("POST", "/api/crm/automations/events", ev).want(202), "deferred", false, "duplicate", true)
	if l := c.all("/api/crm/leads"); len(l) != 1 {
		t.Errorf("%d leads", len(l))
	}
	eventuallyIn(t, takeover, "the message is stored", func() string {
		if n := len(c.all("/api/whatsapp/conversations")); n != 1 {
			return fmt.Sprint(n, " conversations")
		}
		return ""
	})
}

// What stands whoever asks: health, readiness, metrics, the API's document and its page.
func TestStanding(t *testing.T) {
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	c.run(c.tell("918143963821"), "done")
	want(t, "healthz", e.send("GET", "/healthz", nil, nil).want(200), "status", "ok")
	want(t, "readyz", e.send("GET", "/readyz", nil, nil).want(200), "status", "ready")
	var metrics string
	eventually(t, "the metrics tell of it", func() string {
		metrics = string(e.send("GET", "/metrics", nil, nil).want(200).Body)
		for _, name := range []string{"ecod_job_executions_total", `type="whatsapp.send"`, `ecod_webhook_deliveries_total{state="settled"} 3`, "ecod_clients 1", "ecod_sockets 0", "go_goroutines",
			`ecod_jobs_enqueued_total{type="automation.event"} 1`, `ecod_jobs_started_total{class="normal"}`, `code="",state="succeeded",type="whatsapp.send"} 1`,
			`ecod_job_wait_seconds_count{class="normal"}`, `ecod_job_run_seconds_count{type="whatsapp.send"} 1`, `ecod_jobs{state="dead"} 0`,
			`ecod_job_oldest_ready_seconds{class="interactive"} 0`, `ecod_lanes_paused{reason="operator"} 0`, "ecod_job_lease_lost_total 0",
			"ecod_job_fence_rejected_total 0", "ecod_job_crashes_total 0", `ecod_sends_unconfirmed_total{channel="whatsapp"} 0`, "ecod_services_commit_seconds_count",
			"ecod_services_commit_group_bucket", `ecod_client_job_executions_total{client="ACME"}`} {
			if !strings.Contains(metrics, name) {
				return "no " + name
			}
		}
		return ""
	})
	for line := range strings.Lines(metrics) { // of the busiest few clients, one line each tells how much they do
		if strings.Contains(line, "ACME") && !strings.HasPrefix(line, "ecod_client_job_executions_total{") || strings.Contains(line, "918143963821") {
			t.Error("the metrics name a client, or a customer: ", line)
		}
	}
	e.send("GET", "/metrics", nil, map[string]string{"X-Forwarded-For": "198.51.100.7"}).problem(401, "")
	doc := e.send("GET", "/openapi.json", nil, nil).want(200)
	want(t, "openapi", doc, "openapi", "3.1.0", "info.title", "ecod")
	page := e.send("GET", "/docs", nil, nil).want(200)
	if ct := page.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/html") {
		t.Errorf("/docs is %s", ct)
	}
	if ct := e.send("GET", "/", nil, nil).want(200).Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/html") {
		t.Errorf("/ is %s", ct)
	}
	e.send("GET", "/nothing-here", nil, nil).problem(404, "not_found")
	e.send("GET", "/index.html", nil, nil).problem(404, "not_found")
	e.send("POST", "/", nil, nil).problem(405, "method_not_allowed")
}

// SIGTERM under load: what is running is finished or given back, the process ends with 0 in time, and nothing that was
// acknowledged is lost.
func TestStopUnderLoad(t *testing.T) {
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret, StatusDelay: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meta.Close)
	dir := t.TempDir()
	p := serve(t, dir, meta)
	l := newLoad(p, meta)
	meta.When(-1, func(r whatsapptest.Request) bool { return r.Kind == "send" }, whatsapptest.Delay(100*time.Millisecond)) // calls are on their way
	stop := l.begin(p)
	if err := meta.Wait(within(20*time.Second), func() bool { return len(meta.Accepted()) > 5 }); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.end(t)
	took := time.Since(began)
	stop()
	meta.Behave()
	p = serve(t, dir, meta)
	l.check(p)
	t.Logf("stopped in %s", took.Round(time.Millisecond))
	for _, cv := range l.clients[0].all("/api/whatsapp/conversations") {
		for _, m := range l.clients[0].all("/api/whatsapp/conversations/" + cv["id"].(string) + "/messages") {
			if m["status"] == "unconfirmed" {
				t.Errorf("a clean stop lost the answer of %v", m["id"])
			}
		}
	}
}

// end asks the process to stop, and expects that it does, in time and with 0.
func (p *process) end(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		p.exited <- nil
		if err != nil {
			t.Errorf("the process ended with %v", err)
		}
	case <-time.After(25 * time.Second):
		t.Fatal("ecod does not stop in 25 s")
	}
}
