package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

// newMailServer starts a mail server on loopback that asks for a sign-in.
func newMailServer(t *testing.T, tweak ...func(*smtptest.Config)) *smtptest.Server {
	t.Helper()
	cfg := smtptest.Config{Security: "none", Users: map[string]string{"acme": "mail-password"}}
	for _, f := range tweak {
		f(&cfg)
	}
	s, err := smtptest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// private lets clients name mail servers on this machine.
func private(c *app.Config) { c.AllowPrivate = true }

// mailAccount gives a client an account at the server.
func (c *client) mailAccount(s *smtptest.Server, extra map[string]any) {
	c.e.t.Helper()
	host, port := s.HostPort()
	body := map[string]any{"host": host, "port": port, "security": "none", "username": "acme", "password": "mail-password",
		"from": "hello@acme.example", "fromName": "Acme"}
	for k, v := range extra {
		body[k] = v
	}
	c.e.admin("PUT", "/api/clients/"+c.Code+"/secrets/smtp", body).want(200)
}

// mailText is a mail as people see it: its subject and its parts by type.
func mailText(t *testing.T, a smtptest.Accepted) (subject string, parts map[string]string) {
	t.Helper()
	m, err := a.Message()
	if err != nil {
		t.Fatal(err)
	}
	subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		t.Fatal(err)
	}
	parts = map[string]string{}
	typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(typ, "multipart/") {
		r := m.Body
		if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			r = quotedprintable.NewReader(r)
		}
		b, _ := io.ReadAll(r)
		parts[typ] = strings.TrimSpace(string(b))
		return subject, parts
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; { // it decodes quoted-printable by itself
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return subject, parts
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		typ, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		parts[typ] = strings.TrimSpace(string(b))
	}
}

// mailRule sends an e-mail and then adds a tag.
func mailRule(extra map[string]any) map[string]any {
	send := map[string]any{"type": "email.send", "subject": "For {{patientName}}", "html": "<p>Hi {{patientName}}</p>", "text": "Hi {{patientName}}"}
	for k, v := range extra {
		send[k] = v
	}
	return map[string]any{"name": "Mail", "trigger": "form_submitted", "enabled": true, "reenrol": "every_event", "actions": []any{send}}
}

func mailEvent(i int, extra map[string]any) map[string]any {
	ev := map[string]any{"trigger": "form_submitted", "eventId": fmt.Sprint("f", i), "email": fmt.Sprintf("person%d@example.com", i), "createLeadIfMissing": true,
		"variables": map[string]any{"patientName": "Dhanesh"}}
	for k, v := range extra {
		ev[k] = v
	}
	return ev
}

// run waits until the only run of an event ended and gives it.
func (c *client) runEnded(eventAnswer *answer) *answer {
	c.e.t.Helper()
	id, _ := eventAnswer.get("runs.0.runId").(string)
	if id == "" {
		c.e.t.Fatalf("no run in %s", eventAnswer.Body)
	}
	var run *answer
	eventually(c.e.t, "the run ends", func() string {
		run = c.call("GET", "/api/crm/automations/runs/"+id, nil).want(200)
		if s := run.get("state"); s == "active" || s == "waiting" {
			return string(run.Body)
		}
		return ""
	})
	return run
}

// A rule sends an e-mail over the client's own server: rendered, escaped where it is HTML, under a Message-ID that is the
// letter's.
func TestRuleSendsMail(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	ev := c.call("POST", "/api/crm/automations/events", mailEvent(1, map[string]any{"variables": map[string]any{"patientName": "Ann <b>&</b>\r\nBcc: x@example.com"}})).want(202)
	run := c.runEnded(ev)
	if run.get("state") != "done" || run.get("steps.0.state") != "done" {
		t.Fatalf("run %s", run.Body)
	}
	got := box.Accepted()
	if len(got) != 1 || got[0].From != "hello@acme.example" || strings.Join(got[0].To, ",") != "person1@example.com" || got[0].User != "acme" {
		t.Fatalf("the server took %+v", got)
	}
	subject, parts := mailText(t, got[0])
	if subject != "For Ann <b>&</b> Bcc: x@example.com" || !strings.Contains(parts["text/html"], "<p>Hi Ann &lt;b&gt;&amp;&lt;/b&gt;") ||
		!strings.Contains(parts["text/plain"], "Hi Ann <b>&</b>") {
		t.Errorf("subject %q, parts %q", subject, parts)
	}
	m, _ := got[0].Message()
	letter, _ := run.get("steps.0.output.letterId").(string)
	if want := "<" + letter + "@acme.example>"; letter == "" || m.Header.Get("Message-ID") != want || m.Header.Get("Bcc") != "" || m.Header.Get("List-Unsubscribe") != "" {
		t.Errorf("headers %v, want Message-ID %s", m.Header, want)
	}
	jobs := c.call("GET", "/api/jobs?type=email.send", nil).want(200)
	if jobs.get("items.0.state") != "succeeded" || jobs.get("items.0.causation.messageId") != letter {
		t.Errorf("jobs %s", jobs.Body)
	}
	// nobody to write to
	none := c.runEnded(c.call("POST", "/api/crm/automations/events", mailEvent(2, map[string]any{"email": nil, "phone": "918143963821"})).want(202))
	if none.get("state") != "failed" || none.get("steps.0.error.code") != "no_email" {
		t.Errorf("run %s", none.Body)
	}
	for _, secret := range []string{"mail-password", "person1@example.com", "Ann <b>"} {
		if strings.Contains(e.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// What the server says decides: what was refused for good fails, a mailbox that does not exist is not written to again,
// a lost answer is not sent again unless the action says so.
func TestMailRefusals(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	n := 0
	step := func(prepare func(address string)) *answer {
		t.Helper()
		n++
		prepare(fmt.Sprintf("person%d@example.com", n))
		return c.runEnded(c.call("POST", "/api/crm/automations/events", mailEvent(n, nil)).want(202))
	}
	hard := step(func(a string) { box.Recipient(a, smtptest.Reply(550, "5.1.1", "no such user")) })
	if hard.get("state") != "failed" || hard.get("steps.0.error.code") != "5.1.1" {
		t.Errorf("hard bounce: %s", hard.Body)
	}
	again := c.runEnded(c.call("POST", "/api/crm/automations/events", mailEvent(1, map[string]any{"eventId": "again"})).want(202))
	if again.get("steps.0.error.code") != "suppressed" {
		t.Errorf("written to again: %s", again.Body)
	}
	policy := step(func(a string) { box.Recipient(a, smtptest.Reply(550, "5.7.1", "spam")) })
	if policy.get("steps.0.error.code") != "5.7.1" {
		t.Errorf("policy: %s", policy.Body)
	}
	lost := step(func(string) { box.Next(1, ".", smtptest.Accepting(smtptest.Reset())) })
	if lost.get("state") != "done" || lost.get("steps.0.state") != "unconfirmed" {
		t.Errorf("lost answer: %s", lost.Body)
	}
	if d := box.Duplicates(); len(d) > 0 || len(box.Accepted()) != 1 {
		t.Errorf("the server has %d mails, doubles %v", len(box.Accepted()), d)
	}
}

// A mail server that refuses the sign-in is the account's trouble: the mail waits, and goes when the account is mended.
func TestMailWaitsForTheAccount(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, map[string]any{"password": "wrong"})
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	ev := c.call("POST", "/api/crm/automations/events", mailEvent(1, nil)).want(202)
	eventually(t, "the mail is held", func() string {
		a := c.call("GET", "/api/jobs?type=email.send", nil).want(200)
		if a.get("items.0.state") != "parked" || a.get("items.0.attempt") != 0.0 {
			return string(a.Body)
		}
		return ""
	})
	attention := func() any {
		for _, s := range e.admin("GET", "/api/clients/ACME/secrets", nil).want(200).get("items").([]any) {
			if m := s.(map[string]any); m["name"] == "smtp" {
				return m["attention"]
			}
		}
		return "no smtp"
	}
	if a, _ := attention().(map[string]any); a["reason"] == nil {
		t.Errorf("the account needs attention, and is told as %v", a)
	}
	c.mailAccount(box, nil)
	if a := attention(); a != nil {
		t.Errorf("the account was mended, and is told as %v", a)
	}
	if run := c.runEnded(ev); run.get("state") != "done" || len(box.Accepted()) != 1 {
		t.Errorf("run %s, %d mails", run.Body, len(box.Accepted()))
	}
}

// A private address is refused unless the operator allows it.
func TestMailOnPrivateNetworks(t *testing.T) {
	t.Parallel()
	box, meta, dir := newMailServer(t), newMeta(t), t.TempDir()
	e := start(t, dir, meta, func(c *app.Config) { c.AllowPrivate = true })
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	e.stop()
	e = start(t, dir, meta) // where it is not allowed, an account that is there already is not called either
	c.e = e
	c.call("POST", "/api/crm/automations/events", mailEvent(1, nil)).want(202)
	eventually(t, "the mail is held", func() string {
		if a := c.call("GET", "/api/jobs?type=email.send", nil).want(200); a.get("items.0.state") != "parked" {
			return string(a.Body)
		}
		return ""
	})
	if opened, _, _ := box.Connections(); opened != 0 {
		t.Error("the private server was called")
	}
}

// The process dies while a mail's answer is on its way: it is not sent again.
func TestMailCrash(t *testing.T) {
	t.Parallel()
	box, meta, dir := newMailServer(t), newMeta(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c := p.addClient("ACME", 1)
	c.mailAccount(box, nil)
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	box.Next(1, ".", smtptest.Accepting(smtptest.Hang()))
	ev := c.call("POST", "/api/crm/automations/events", mailEvent(1, nil)).want(202)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := box.WaitAccepted(ctx, 1); err != nil {
		t.Fatal(err)
	}
	p.kill()
	p = serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c.e = p.engine
	eventuallyIn(t, takeover, "the step is unconfirmed", func() string {
		run := c.call("GET", "/api/crm/automations/runs/"+ev.get("runs.0.runId").(string), nil).want(200)
		if run.get("state") != "done" || run.get("steps.0.state") != "unconfirmed" {
			return string(run.Body)
		}
		return ""
	})
	if n := len(box.Accepted()); n != 1 {
		t.Errorf("the server has %d mails", n)
	}
}
