package smtp_test

import (
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

var now = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

func TestTheMailAsItArrives(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{Now: func() time.Time { return now }})
	text := "Olá Dena,\n.\n..\n.dot at the start\r\nनमस्ते " + strings.Repeat("long ", 300) + "\nend"
	html := "<p>Olá &amp; नमस्ते</p>\n.\n<a href=\"https://acme.test/?a=1&b=2\">x</a>"
	acc.FromName = `Dr. "Bob" Müller, Clinic`
	err := c.Send(t.Context(), acc, smtp.Message{
		ID: "msg_0192f0c1-7b7a-7cc2-9d3c-6a0f5d2b1e4f", To: "Dena.O'Neil+x@Bücher.example", ToName: "Dena Ñ", Subject: "Ваш визит — 22/11",
		Text: text, HTML: html, ListUnsubscribe: "https://ecod.example/u/" + strings.Repeat("t0ken", 40), EnvelopeFrom: "b+1.abc@bounce.acme.test",
		Headers: map[string]string{"feedback-id": "c1:acme", "Auto-Submitted": "auto-generated"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := s.Accepted()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	a := got[0]
	if a.From != "b+1.abc@bounce.acme.test" || !slices.Equal(a.To, []string{"Dena.O'Neil+x@xn--bcher-kva.example"}) || !a.TLS || a.UTF8 || a.User != "user@acme.test" {
		t.Errorf("envelope %q %q tls %v utf8 %v as %q", a.From, a.To, a.TLS, a.UTF8, a.User)
	}
	m, err := a.Message()
	if err != nil {
		t.Fatal(err)
	}
	var dec mime.WordDecoder
	for name, want := range map[string]string{
		"Message-Id":            "<msg_0192f0c1-7b7a-7cc2-9d3c-6a0f5d2b1e4f@acme.test>",
		"Date":                  "Sun, 22 Nov 2026 09:30:00 +0000",
		"Subject":               "Ваш визит — 22/11",
		"List-Unsubscribe":      "<https://ecod.example/u/" + strings.Repeat("t0ken", 40) + ">",
		"List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
		"Feedback-Id":           "c1:acme",
		"Auto-Submitted":        "auto-generated",
		"Mime-Version":          "1.0",
		"User-Agent":            "", "X-Mailer": "", "Bcc": "",
	} {
		if got, err := dec.DecodeHeader(m.Header.Get(name)); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string][2]string{
		"From": {`Dr. "Bob" Müller, Clinic`, "hello@acme.test"}, "To": {"Dena Ñ", "Dena.O'Neil+x@xn--bcher-kva.example"}, "Reply-To": {"", "front.desk@acme.test"},
	} {
		list, err := m.Header.AddressList(name)
		if err != nil || len(list) != 1 || list[0].Name != want[0] || list[0].Address != want[1] {
			t.Errorf("%s is %v, %v", name, list, err)
		}
	}
	if strings.Contains(string(a.Data), "Message-ID:\r\n") {
		t.Error("the Message-ID is folded")
	}
	kind, param, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatal(kind, err)
	}
	parts := multipart.NewReader(m.Body, param["boundary"])
	for _, want := range [][2]string{{"text/plain; charset=UTF-8", text}, {"text/html; charset=UTF-8", html}} {
		p, err := parts.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(p))
		body = []byte(strings.ReplaceAll(string(body), "\r\n", "\n"))
		if err != nil || p.Header.Get("Content-Type") != want[0] || string(body) != strings.ReplaceAll(want[1], "\r\n", "\n") {
			t.Errorf("part %q: %q, %v", p.Header.Get("Content-Type"), body, err)
		}
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Error("a third part", err)
	}
}

func TestALongID(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
	for i, id := range []string{"short", strings.Repeat("0123456789", 12)} {
		msg := mail(1)
		msg.ID, msg.Text = id, "\r\nMessage-ID:\r\n <x"
		if err := c.Send(t.Context(), acc, msg); err != nil {
			t.Fatal(err)
		}
		data := string(s.Accepted()[i].Data)
		if !strings.Contains(data, "\r\nMessage-ID: <"+id+"@acme.test>\r\n") || !strings.Contains(data, "\r\nMessage-ID:\r\n <x") {
			t.Error(data)
		}
	}
}

func TestOnePartAlone(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{Security: "tls"}, smtp.Config{})
	for kind, msg := range map[string]smtp.Message{
		"text/plain": {ID: "1", To: "a@b.example", Subject: "s", Text: "hi"},
		"text/html":  {ID: "2", To: "a@b.example", HTML: "<b>hi</b>\xff"},
	} {
		if err := c.Send(t.Context(), acc, msg); err != nil {
			t.Fatal(err)
		}
		got := s.Accepted()
		m, err := got[len(got)-1].Message()
		if err != nil || !strings.HasPrefix(m.Header.Get("Content-Type"), kind) {
			t.Errorf("%s came as %s, %v", kind, m.Header.Get("Content-Type"), err)
		}
	}
}

// TestTheWire holds the conversation: nothing is asked that need not be, and a connection is used again.
func TestTheWire(t *testing.T) {
	for security, start := range map[string][]string{
		"starttls": {"greeting", "EHLO", "STARTTLS", "EHLO", "AUTH"}, "tls": {"greeting", "EHLO", "AUTH"}, "none": {"greeting", "EHLO", "AUTH"},
	} {
		t.Run(security, func(t *testing.T) {
			s, c, acc := post(t, smtptest.Config{Security: security, SMTPUTF8: true}, smtp.Config{})
			for i := range 3 {
				if err := c.Send(t.Context(), acc, mail(i)); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
			if err := s.Wait(soon(t), func() bool { _, open, _ := s.Connections(); return open == 0 }); err != nil {
				t.Fatal(err)
			}
			one := []string{"MAIL", "RCPT", "DATA", "."}
			want := slices.Concat(start, one, one, one, []string{"QUIT"})
			if got := s.Verbs(0); !slices.Equal(got, want) {
				t.Errorf("the wire:\n got %v\nwant %v", got, want)
			}
			for _, cmd := range s.Commands() {
				if cmd.Verb == "MAIL" && cmd.Arg != "FROM:<hello@acme.test> BODY=8BITMIME" {
					t.Errorf("MAIL %s", cmd.Arg)
				}
				if cmd.Verb == "EHLO" && cmd.Arg != "ecod.test" {
					t.Errorf("EHLO %s", cmd.Arg)
				}
			}
		})
	}
}

func TestAddressesThatAreNotASCII(t *testing.T) {
	plain, c1, acc := post(t, smtptest.Config{}, smtp.Config{})
	msg := mail(1)
	msg.To = "दीना@example.com"
	e := smtpError(t, c1.Send(t.Context(), acc, msg))
	if e.Outcome != smtp.Rejected || e.Scope != smtp.ScopeRecipient || e.HardBounce() || slices.Contains(plain.Verbs(0), "MAIL") {
		t.Errorf("%+v after %v", e, plain.Verbs(0))
	}
	ours := acc
	ours.From = "clínica@acme.test"
	if e := smtpError(t, c1.Send(t.Context(), ours, mail(1))); e.Scope != smtp.ScopeAccount || e.Bounce != smtp.BounceNone {
		t.Errorf("%+v", e)
	}
	able, c2, acc := post(t, smtptest.Config{SMTPUTF8: true}, smtp.Config{})
	if err := c2.Send(t.Context(), acc, msg); err != nil {
		t.Fatal(err)
	}
	if got := able.Accepted(); len(got) != 1 || !got[0].UTF8 || got[0].To[0] != "दीना@example.com" {
		t.Errorf("%+v", got)
	}
	if err := c2.Send(t.Context(), acc, mail(2)); err != nil || able.Accepted()[1].UTF8 {
		t.Errorf("SMTPUTF8 is asked for without need, %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{Size: 4000}, smtp.Config{})
	msg := mail(1)
	msg.Text = strings.Repeat("x", 5000)
	e := smtpError(t, c.Send(t.Context(), acc, msg))
	if e.Outcome != smtp.Rejected || e.Scope != smtp.ScopeMessage || slices.Contains(s.Verbs(0), "MAIL") {
		t.Errorf("%+v after %v", e, s.Verbs(0))
	}
	if err := c.Send(t.Context(), acc, mail(2)); err != nil {
		t.Error(err)
	}
}

// TestNothingIsInjected writes line ends and commands into every field.
func TestNothingIsInjected(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
	const evil = "x\r\nBcc: evil@evil.test\r\nRCPT TO:<evil@evil.test>\r\n\r\nbody\n.\r\n"
	folded := []func(*smtp.Account, *smtp.Message){
		func(_ *smtp.Account, m *smtp.Message) { m.Subject = evil },
		func(_ *smtp.Account, m *smtp.Message) { m.Subject = "é" + evil },
		func(_ *smtp.Account, m *smtp.Message) { m.ToName = evil },
		func(_ *smtp.Account, m *smtp.Message) { m.ToName = `"` + evil + `" <evil@evil.test>, ` },
		func(a *smtp.Account, _ *smtp.Message) { a.FromName = evil },
		func(_ *smtp.Account, m *smtp.Message) { m.Headers = map[string]string{"X-A": evil} },
		func(_ *smtp.Account, m *smtp.Message) { m.Text = evil },
		func(_ *smtp.Account, m *smtp.Message) { m.HTML = "\r\n.\r\nRSET\r\n" + evil },
		func(_ *smtp.Account, m *smtp.Message) { m.Subject = "\u2028\u0085\x00\vBcc: evil@evil.test" },
	}
	for i, f := range folded {
		a, m := acc, mail(i)
		f(&a, &m)
		if err := c.Send(t.Context(), a, m); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	for i, a := range s.Accepted() {
		m, err := a.Message()
		if err != nil || m.Header.Get("Bcc") != "" || len(a.To) != 1 || strings.Contains(a.To[0], "evil") {
			t.Errorf("%d: %v %v to %v", i, err, m.Header, a.To)
		}
		if to, err := m.Header.AddressList("To"); err != nil || len(to) != 1 {
			t.Errorf("%d: to %v, %v", i, to, err)
		}
	}
	if n := len(s.Accepted()); n != len(folded) {
		t.Errorf("%d messages of %d", n, len(folded))
	}

	before := len(s.Commands())
	for i, f := range []func(*smtp.Account, *smtp.Message){
		func(_ *smtp.Account, m *smtp.Message) { m.To = "a@b.example\r\nRCPT TO:<evil@evil.test>" },
		func(_ *smtp.Account, m *smtp.Message) { m.To = "a@b.example>\r\nDATA" },
		func(_ *smtp.Account, m *smtp.Message) { m.To = "a@b.example, evil@evil.test" },
		func(_ *smtp.Account, m *smtp.Message) { m.To = "Evil <evil@evil.test>" },
		func(_ *smtp.Account, m *smtp.Message) { m.To = "" },
		func(_ *smtp.Account, m *smtp.Message) { m.To = `"a b"@b.example` },
		func(_ *smtp.Account, m *smtp.Message) { m.To = "a@[127.0.0.1]" },
		func(_ *smtp.Account, m *smtp.Message) { m.To = "a@127.0.0.1" },
		func(_ *smtp.Account, m *smtp.Message) { m.EnvelopeFrom = "a@b.example> SIZE=1" },
		func(_ *smtp.Account, m *smtp.Message) { m.ID = "a>\r\nBcc: <evil@evil.test" },
		func(_ *smtp.Account, m *smtp.Message) { m.ID = "a@b" },
		func(_ *smtp.Account, m *smtp.Message) { m.ID = "" },
		func(_ *smtp.Account, m *smtp.Message) { m.ListUnsubscribe = "https://a.example/>\r\nBcc: x" },
		func(_ *smtp.Account, m *smtp.Message) { m.ListUnsubscribe = "https://a.example/>,<mailto:x@y.example" },
		func(_ *smtp.Account, m *smtp.Message) { m.ListUnsubscribe = "javascript:alert(1)" },
		func(_ *smtp.Account, m *smtp.Message) {
			m.Headers = map[string]string{"X-A: b\r\nBcc": "evil@evil.test"}
		},
		func(_ *smtp.Account, m *smtp.Message) { m.Headers = map[string]string{"BCC": "evil@evil.test"} },
		func(_ *smtp.Account, m *smtp.Message) { m.Headers = map[string]string{"Content-type": "text/html"} },
		func(_ *smtp.Account, m *smtp.Message) { m.Headers = map[string]string{"message-id": "<a@b>"} },
		func(_ *smtp.Account, m *smtp.Message) { m.Subject = strings.Repeat("x", 1000) },
		func(_ *smtp.Account, m *smtp.Message) { m.Text, m.HTML = "", "" },
		func(a *smtp.Account, _ *smtp.Message) { a.From = "a@b.example\nX: y" },
		func(a *smtp.Account, _ *smtp.Message) { a.ReplyTo = "a@b.example\nX: y" },
		func(a *smtp.Account, _ *smtp.Message) { a.Host = "a.example\r\nX" },
		func(a *smtp.Account, _ *smtp.Message) { a.Host = "" },
		func(a *smtp.Account, _ *smtp.Message) { a.Host = "unix:///run/x" },
		func(a *smtp.Account, _ *smtp.Message) { a.Port = 0 },
		func(a *smtp.Account, _ *smtp.Message) { a.Security = "opportunistic" },
		func(a *smtp.Account, _ *smtp.Message) { a.Username = "" },
	} {
		a, m := acc, mail(i)
		f(&a, &m)
		e := smtpError(t, c.Send(t.Context(), a, m))
		if e.Op != "validate" || e.Outcome != smtp.Rejected || e.Temporary() || strings.ContainsAny(e.Error(), "\r\n") || strings.Contains(e.Error(), "evil") {
			t.Errorf("%d: %v", i, e)
		}
	}
	if n := len(s.Commands()); n != before {
		t.Errorf("%d commands for what had to be refused before", n-before)
	}
}
