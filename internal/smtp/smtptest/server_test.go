package smtptest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	client "github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg smtptest.Config) *smtptest.Server {
	t.Helper()
	s, err := smtptest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func letter(id string) string {
	return "From: a@acme.test\r\nTo: b@example.com\r\nDate: Sun, 22 Nov 2026 09:30:00 +0000\r\nSubject: s\r\nMessage-ID: <" + id +
		"@acme.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n.dot\r\nbody\r\n"
}

// TestAClientOfAnotherHand goes through all that a client needs.
func TestAClientOfAnotherHand(t *testing.T) {
	users := map[string]string{"user": "pass"}
	for _, cfg := range []smtptest.Config{{Security: "none"}, {Security: "tls"}, {}, {SMTPUTF8: true, Mechanisms: []string{"LOGIN"}}, {Size: 1000, NoEnhanced: true}} {
		cfg.Users = users
		s := start(t, cfg)
		trust := &tls.Config{RootCAs: s.RootCAs(), ServerName: "localhost"}
		var c *client.Client
		var err error
		switch cfg.Security {
		case "none":
			c, err = client.Dial(s.Addr)
		case "tls":
			c, err = client.DialTLS(s.Addr, trust)
		default:
			c, err = client.DialStartTLS(s.Addr, trust)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Mail("a@acme.test", nil); err == nil {
			t.Error("MAIL without a sign-in")
		}
		var refused *client.SMTPError
		if err := c.Auth(sasl.NewPlainClient("", "user", "wrong")); !errors.As(err, &refused) {
			t.Error("a wrong password:", err)
		}
		auth := sasl.NewPlainClient("", "user", "pass")
		if cfg.Mechanisms != nil {
			auth = sasl.NewLoginClient("user", "pass")
		}
		if err := c.Auth(auth); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if err := c.SendMail("a@acme.test", []string{"b@example.com", "c@example.com"}, strings.NewReader(letter(fmt.Sprint(i)))); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Noop(); err != nil {
			t.Error(err)
		}
		if err := c.Reset(); err != nil {
			t.Error(err)
		}
		if cfg.Size > 0 {
			if err := c.SendMail("a@acme.test", []string{"b@example.com"}, strings.NewReader(letter("9")+strings.Repeat("large\r\n", 200))); !errors.As(err, &refused) || refused.Code != 552 {
				t.Error("a large one:", err)
			}
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		got, err := s.WaitAccepted(t.Context(), 2)
		if err != nil || len(got) != 2 || string(got[0].Data) != letter("0") || got[0].User != "user" || got[0].TLS != (cfg.Security != "none") ||
			got[0].MessageID() != "<0@acme.test>" || !slices.Equal(got[1].To, []string{"b@example.com", "c@example.com"}) || len(s.Duplicates()) != 0 {
			t.Errorf("%+v: %+v, %v", cfg, got, err)
		}
		for _, cmd := range s.Commands() {
			if strings.Contains(cmd.Arg, "cGFzcw") || cmd.Verb == "AUTH" && cmd.Arg != "[secret]" {
				t.Errorf("the journal holds a password: %+v", cmd)
			}
		}
	}
}

// talk writes lines and gives the code of each answer.
func talk(t *testing.T, s *smtptest.Server, lines ...string) (codes []string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return []string{err.Error()}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	r := bufio.NewReader(conn)
	read := func() string {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return "gone"
			}
			if len(line) < 4 || line[3] == ' ' {
				return line[:min(3, len(line))]
			}
		}
	}
	if c := read(); c != "220" {
		return []string{c}
	}
	for _, l := range lines {
		if _, err := io.WriteString(conn, l); err != nil {
			return append(codes, "gone")
		}
		codes = append(codes, read())
	}
	return codes
}

// TestItIsStrict with what a careless client would send.
func TestItIsStrict(t *testing.T) {
	s := start(t, smtptest.Config{Security: "none"})
	const hello, from, to, data = "EHLO x\r\n", "MAIL FROM:<a@acme.test>\r\n", "RCPT TO:<b@example.com>\r\n", "DATA\r\n"
	ok := letter("1")
	for name, tc := range map[string]struct {
		lines []string
		want  string // the last answer
	}{
		"well":                {[]string{hello, from, to, data, ok + ".\r\n"}, "250"},
		"bare LF command":     {[]string{"EHLO x\n"}, "500"},
		"MAIL before EHLO":    {[]string{from}, "503"},
		"RCPT before MAIL":    {[]string{hello, to}, "503"},
		"DATA before RCPT":    {[]string{hello, from, data}, "503"},
		"MAIL twice":          {[]string{hello, from, from}, "503"},
		"no brackets":         {[]string{hello, "MAIL FROM:a@acme.test\r\n"}, "501"},
		"two in brackets":     {[]string{hello, from, "RCPT TO:<b@example.com,c@example.com>\r\n"}, "501"},
		"no domain":           {[]string{hello, from, "RCPT TO:<b>\r\n"}, "501"},
		"UTF-8 not offered":   {[]string{hello, from, "RCPT TO:<ü@example.com>\r\n"}, "553"},
		"SMTPUTF8 unoffered":  {[]string{hello, "MAIL FROM:<a@acme.test> SMTPUTF8\r\n"}, "555"},
		"AUTH not offered":    {[]string{hello, "AUTH PLAIN AHgAeQ==\r\n"}, "504"},
		"STARTTLS unoffered":  {[]string{hello, "STARTTLS\r\n"}, "503"},
		"unknown":             {[]string{hello, "VRFY x\r\n"}, "500"},
		"bare LF in the mail": {[]string{hello, from, to, data, ok + "x\ny\r\n.\r\n"}, "550"},
		"bare CR in the mail": {[]string{hello, from, to, data, ok + "x\ry\r\n.\r\n"}, "550"},
		"a long line":         {[]string{hello, from, to, data, ok + strings.Repeat("x", 999) + "\r\n.\r\n"}, "550"},
		"two Subjects":        {[]string{hello, from, to, data, "Subject: t\r\n" + ok + ".\r\n"}, "550"},
		"no Message-ID":       {[]string{hello, from, to, data, strings.Replace(ok, "Message-ID", "X-ID", 1) + ".\r\n"}, "550"},
		"8-bit header":        {[]string{hello, from, to, data, strings.Replace(ok, "Subject: s", "Subject: é", 1) + ".\r\n"}, "550"},
		"a LF dot is no end":  {[]string{hello, from, to, data, ok + ".\n.\r\n"}, "550"},
	} {
		got := talk(t, s, tc.lines...)
		if got[len(got)-1] != tc.want {
			t.Errorf("%s: %v, want %s", name, got, tc.want)
		}
	}
	if n := len(s.Accepted()); n != 1 {
		t.Errorf("%d mails taken", n)
	}
}

func TestItMisbehavesAsAsked(t *testing.T) {
	s := start(t, smtptest.Config{Security: "none", MaxPerConnection: 1})
	mail := []string{"EHLO x\r\n", "MAIL FROM:<a@acme.test>\r\n", "RCPT TO:<b@example.com>\r\n", "DATA\r\n", letter("1") + ".\r\n", "MAIL FROM:<a@acme.test>\r\n", "NOOP\r\n"}
	for i, tc := range []struct {
		prepare func()
		want    string
		taken   int
	}{
		{func() {}, "250 250 250 354 250 421 gone", 1},
		{func() { s.Next(1, ".", smtptest.Accepting(smtptest.Reset())) }, "250 250 250 354 gone gone", 1},
		{func() { s.Next(1, ".", smtptest.Accepting(smtptest.Drop())) }, "250 250 250 354 gone", 1},
		{func() { s.Next(1, ".", smtptest.Drop()) }, "250 250 250 354 gone", 0},
		{func() { s.Next(1, ".", smtptest.Reply(451, "4.3.0", "a\nb")) }, "250 250 250 354 451 421 gone", 0},
		{func() { s.Next(1, ".", smtptest.Accepting(smtptest.Reply(451, "4.3.0", "x"))) }, "250 250 250 354 451 421 gone", 1},
		{func() { s.Next(1, "content", smtptest.Reset()) }, "250 250 250 354 gone", 0},
		{func() { s.Next(1, "MAIL", smtptest.Shutdown()) }, "250 421 gone", 0},
		{func() { s.Next(1, "MAIL", smtptest.Closing(smtptest.Reply(550, "", "x"))) }, "250 550 gone", 0},
		{func() { s.Next(1, "greeting", smtptest.Reply(554, "", "x")) }, "554", 0},
		{func() { s.Next(1, "RCPT", smtptest.Delay(time.Millisecond)) }, "250 250 250 354 250 421 gone", 1},
		{func() { s.Recipient("B@example.com", smtptest.Reply(550, "5.1.1", "x")) }, "250 250 550 503", 0},
	} {
		s.Behave()
		tc.prepare()
		before := len(s.Accepted())
		got := strings.Join(talk(t, s, mail...), " ")
		if !strings.HasPrefix(got, tc.want) || len(s.Accepted())-before != tc.taken {
			t.Errorf("%d: %s, want %s; %d taken", i, got, tc.want, len(s.Accepted())-before)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx, func() bool { return false }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(s.Duplicates()) != 1 {
		t.Error("the same mail, many times:", s.Duplicates())
	}
	hung := make(chan []string)
	s.Next(1, "EHLO", smtptest.Hang())
	go func() { hung <- talk(t, s, "EHLO x\r\n") }()
	if err := s.Wait(t.Context(), func() bool { c := s.Commands(); return c[len(c)-1].Fault == "hang" }); err != nil {
		t.Error(err)
	}
	s.Close()
	if got := <-hung; got[0] != "gone" {
		t.Error(got)
	}
	if err := s.Wait(t.Context(), func() bool { return false }); !errors.Is(err, smtptest.ErrClosed) {
		t.Error(err)
	}
}
