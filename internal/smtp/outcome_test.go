package smtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

// TestOutcomesAreTrue makes every step fail in every way, on a new connection
// and on a kept one, and holds what the client says against what the server took:
// no error means once, Ambiguous at most once, and any other error never.
func TestOutcomesAreTrue(t *testing.T) {
	for name, server := range map[string]smtptest.Config{"commands in a row": {}, "one by one": {NoPipelining: true}} {
		t.Run(name, func(t *testing.T) { outcomesAreTrue(t, server) })
	}
}

func outcomesAreTrue(t *testing.T, server smtptest.Config) {
	steps := []struct{ verb, op string }{
		{"greeting", "greeting"}, {"EHLO", "starttls"}, // go-mail tries HELO then, and that offers no STARTTLS
		{"STARTTLS", "starttls"}, {"AUTH", "auth"}, {"MAIL", "mail"}, {"RCPT", "rcpt"}, {"DATA", "data"}, {"content", "content"}, {".", "content"},
	}
	const liar = "a lie"
	lie := smtptest.Raw("299\r\n") // a yes, if an odd one
	lie.Name = liar
	faults := []smtptest.Fault{
		smtptest.Reset(), smtptest.Drop(), smtptest.Shutdown(), smtptest.Hang(), smtptest.Endless(),
		smtptest.Raw("what?\r\n"), lie, smtptest.Raw("150 so\r\n"), smtptest.Raw("399 so\r\n"), smtptest.Raw("600 x\r\n"),
		smtptest.Closing(smtptest.Raw("25")), smtptest.Closing(smtptest.Raw("250-half")),
		smtptest.Reply(450, "", "busy"), smtptest.Reply(554, "", "no"), smtptest.Closing(smtptest.Reply(550, "5.7.1", "no\nand\nno")),
		smtptest.Accepting(smtptest.Reset()), smtptest.Accepting(smtptest.Drop()), smtptest.Accepting(smtptest.Hang()), smtptest.Accepting(smtptest.Closing(smtptest.Raw("2"))),
	}
	s, _, acc := post(t, server, smtp.Config{})
	cases, ambiguous := 0, 0
	for _, step := range steps {
		for fi, f := range faults {
			if step.verb == "content" && !slices.Contains([]string{"reset", "drop", "shutdown"}, f.Name) {
				continue
			}
			for _, kept := range []bool{false, true} {
				if kept && slices.Contains([]string{"greeting", "EHLO", "STARTTLS", "AUTH"}, step.verb) {
					continue
				}
				cfg := smtp.Config{AllowPrivate: true, RootCAs: s.RootCAs()}
				if strings.HasPrefix(f.Name, "hang") {
					cfg.CommandTimeout, cfg.DataTimeout = 50*time.Millisecond, 50*time.Millisecond
					if slices.Contains([]string{"greeting", "EHLO", "STARTTLS", "AUTH"}, step.verb) {
						cfg.DialTimeout = 50 * time.Millisecond
					}
				}
				cases++
				name := fmt.Sprintf("fault %d (%s) at %s, kept %v", fi, f.Name, step.verb, kept)
				s.Behave()
				c := smtp.New(cfg)
				if kept {
					if err := c.Send(t.Context(), acc, mail(0)); err != nil {
						t.Fatal(name, err)
					}
				}
				before := len(s.Accepted())
				s.Next(1, step.verb, f)
				err := c.Send(t.Context(), acc, mail(cases))
				c.Close()
				took := len(s.Accepted()) - before
				if err == nil {
					// Only where a kept connection was gone, and the second attempt on a new one came through.
					switch again := kept && step.verb != "."; {
					case again && took == 1, faults[fi].Name == liar && step.verb == "." && took == 0:
					default:
						t.Errorf("%s: no error, and the server took %d", name, took)
					}
					continue
				}
				e := smtpError(t, err)
				switch {
				case e.Op == step.op, step.verb == "EHLO" && e.Op == "hello", step.verb == "greeting" && e.Op == "connect":
				default:
					t.Errorf("%s: the error is of %s: %v", name, e.Op, e)
				}
				if kept && step.verb != "." && step.verb != "content" && slices.Contains([]string{"reset", "drop", "shutdown"}, f.Name) {
					t.Errorf("%s: it was not tried again on a new connection: %v", name, e)
				}
				switch {
				case e.Outcome == smtp.Ambiguous:
					ambiguous++
					// "content" too: all of a small mail is written before its first line is read
					if step.op != "content" || e.Scope != smtp.ScopeMessage || !e.Temporary() || e.Code != 0 {
						t.Errorf("%s: %v", name, e)
					}
				case took != 0:
					t.Errorf("%s: %v (%s), and the server took it", name, e, e.Outcome)
				case e.Code/100 == 4 && e.Outcome != smtp.Limited, e.Code/100 == 5 && e.Outcome != smtp.Rejected, e.Code == 0 && e.Err == nil,
					e.Code == 0 && e.Outcome != smtp.NotSent && e.Op != "starttls" && e.Op != "auth":
					t.Errorf("%s: %v is %s", name, e, e.Outcome)
				}
				if e.HardBounce() {
					t.Errorf("%s: a hard bounce", name)
				}
			}
		}
	}
	if ambiguous < 20 {
		t.Errorf("%d ambiguous failures", ambiguous)
	}
	t.Logf("%d cases, %d ambiguous", cases, ambiguous)
}

// TestRefusalsOverTheWire takes some rows of the table through a real conversation, and goes on after each.
func TestRefusalsOverTheWire(t *testing.T) {
	for name, server := range map[string]smtptest.Config{"commands in a row": {}, "one by one": {NoPipelining: true}} {
		t.Run(name, func(t *testing.T) { refusalsOverTheWire(t, server) })
	}
}

func refusalsOverTheWire(t *testing.T, server smtptest.Config) {
	s, c, acc := post(t, server, smtp.Config{})
	for i, tc := range []struct {
		verb    string
		fault   smtptest.Fault
		outcome smtp.Outcome
		scope   smtp.Scope
		bounce  smtp.Bounce
		text    string
	}{
		{"RCPT", smtptest.Reply(550, "5.1.1", "<lead0@example.com>: no such user"), smtp.Rejected, smtp.ScopeRecipient, smtp.BounceHard, "smtp: rcpt: 550 5.1.1, refused (recipient)"},
		{"RCPT", smtptest.Reply(551, "", "moved"), smtp.Rejected, smtp.ScopeRecipient, smtp.BounceHard, "smtp: rcpt: 551, refused (recipient)"},
		{"RCPT", smtptest.Reply(552, "5.2.2", "full"), smtp.Rejected, smtp.ScopeRecipient, smtp.BounceSoft, "smtp: rcpt: 552 5.2.2, refused (recipient)"},
		{"RCPT", smtptest.Reply(451, "4.7.1", "greylisted\ncome back"), smtp.Limited, smtp.ScopeRecipient, smtp.BounceNone, "smtp: rcpt: 451 4.7.1, refused for now (recipient)"},
		{"RCPT", smtptest.Reply(550, "", "Client host 5.12.33.44 blocked"), smtp.Rejected, smtp.ScopeRecipient, smtp.BounceHard, "smtp: rcpt: 550, refused (recipient)"},
		{"DATA", smtptest.Reply(451, "4.3.0", "later"), smtp.Limited, smtp.ScopeAccount, smtp.BounceNone, "smtp: data: 451 4.3.0, refused for now (account)"},
		{".", smtptest.Reply(554, "5.7.1", "spam"), smtp.Rejected, smtp.ScopeMessage, smtp.BouncePolicy, "smtp: content: 554 5.7.1, refused (message)"},
		{".", smtptest.Reply(550, "5.4.5", "Daily limit"), smtp.Limited, smtp.ScopeAccount, smtp.BounceNone, "smtp: content: 550 5.4.5, refused for now (account)"},
		{"MAIL", smtptest.Reply(553, "5.1.8", "who are you"), smtp.Rejected, smtp.ScopeAccount, smtp.BounceNone, "smtp: mail: 553 5.1.8, refused (account)"},
	} {
		s.Next(1, tc.verb, tc.fault)
		e := smtpError(t, c.Send(t.Context(), acc, mail(i)))
		if e.Outcome != tc.outcome || e.Scope != tc.scope || e.Bounce != tc.bounce || e.Error() != tc.text || e.Reply == "" || e.Temporary() != (tc.outcome == smtp.Limited) {
			t.Errorf("%d: %+v\n%v", i, *e, e)
		}
		if err := c.Send(t.Context(), acc, mail(100+i)); err != nil {
			t.Errorf("%d: after it: %v", i, err)
		}
	}
	if opened, _, _ := s.Connections(); opened != 1 {
		t.Errorf("%d connections: a refusal is no reason to leave", opened)
	}
}

func TestGreylisting(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{Greylist: true}, smtp.Config{})
	e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
	if e.Outcome != smtp.Limited || e.Scope != smtp.ScopeRecipient || e.RetryAfter() != 5*time.Minute {
		t.Errorf("%+v", e)
	}
	if err := c.Send(t.Context(), acc, mail(1)); err != nil || len(s.Accepted()) != 1 {
		t.Error(err)
	}
}

// TestTheAccountsTrouble is never a bounce, and no password goes where it should not.
func TestTheAccountsTrouble(t *testing.T) {
	for name, tc := range map[string]struct {
		server  smtptest.Config
		change  func(*smtptest.Server, *smtp.Account, *smtp.Config)
		op      string
		is      error
		outcome smtp.Outcome
	}{
		"wrong password":  {change: func(_ *smtptest.Server, a *smtp.Account, _ *smtp.Config) { a.Password = "wrong" }, op: "auth", outcome: smtp.Rejected},
		"wrong, by LOGIN": {server: smtptest.Config{Mechanisms: []string{"LOGIN"}}, change: func(_ *smtptest.Server, a *smtp.Account, _ *smtp.Config) { a.Password = "wrong" }, op: "auth", outcome: smtp.Rejected},
		"wrong, by CRAM":  {server: smtptest.Config{Mechanisms: []string{"CRAM-MD5"}}, change: func(_ *smtptest.Server, a *smtp.Account, _ *smtp.Config) { a.Password = "wrong" }, op: "auth", outcome: smtp.Rejected},
		"locked for now": {change: func(s *smtptest.Server, _ *smtp.Account, _ *smtp.Config) {
			s.Next(1, "AUTH", smtptest.Reply(454, "4.7.0", "later"))
		}, op: "auth", outcome: smtp.Limited},
		"no way to sign in": {server: smtptest.Config{Mechanisms: []string{"GSSAPI", "NTLM"}}, op: "auth", is: smtp.ErrAuth, outcome: smtp.Rejected},
		"a bad challenge": {server: smtptest.Config{Mechanisms: []string{"CRAM-MD5"}}, change: func(s *smtptest.Server, _ *smtp.Account, _ *smtp.Config) {
			s.Next(1, "AUTH", smtptest.Closing(smtptest.Raw("334 !!!\r\n")))
		}, op: "auth", is: smtp.ErrProtocol, outcome: smtp.Rejected},
		"sign-in needed": {change: func(_ *smtptest.Server, a *smtp.Account, _ *smtp.Config) { a.Username, a.Password = "", "" }, op: "mail", outcome: smtp.Rejected},
		"STARTTLS hidden": {change: func(s *smtptest.Server, _ *smtp.Account, _ *smtp.Config) {
			s.Next(-1, "EHLO", smtptest.Raw("250-x\r\n250 AUTH PLAIN LOGIN\r\n"))
		}, op: "starttls", is: smtp.ErrNoTLS, outcome: smtp.Rejected},
		"STARTTLS refused": {change: func(s *smtptest.Server, _ *smtp.Account, _ *smtp.Config) {
			s.Next(-1, "STARTTLS", smtptest.Reply(502, "5.5.1", "no"))
		}, op: "starttls", outcome: smtp.Rejected},
		"STARTTLS no TLS": {change: func(s *smtptest.Server, _ *smtp.Account, _ *smtp.Config) {
			s.Next(-1, "STARTTLS", smtptest.Closing(smtptest.Raw("220 go\r\n250-ok\r\n250 AUTH PLAIN\r\n")))
		}, op: "starttls"},
		"no EHLO": {change: func(s *smtptest.Server, _ *smtp.Account, _ *smtp.Config) {
			s.Next(-1, "EHLO", smtptest.Reply(500, "", "HELO only"))
		}, op: "starttls", is: smtp.ErrNoTLS, outcome: smtp.Rejected},
		"unknown authority":     {change: func(_ *smtptest.Server, _ *smtp.Account, c *smtp.Config) { c.RootCAs = nil }, op: "starttls", is: smtp.ErrCertificate, outcome: smtp.Rejected},
		"another name":          {server: smtptest.Config{Names: []string{"mail.example"}}, op: "starttls", is: smtp.ErrCertificate, outcome: smtp.Rejected},
		"expired":               {server: smtptest.Config{Expired: true, Security: "tls"}, op: "tls", is: smtp.ErrCertificate, outcome: smtp.Rejected},
		"TLS on a port without": {server: smtptest.Config{Security: "starttls"}, change: func(_ *smtptest.Server, a *smtp.Account, _ *smtp.Config) { a.Security = smtp.TLS }, op: "tls", is: smtp.ErrNotTLS, outcome: smtp.Rejected},
		"turned away": {change: func(s *smtptest.Server, _ *smtp.Account, _ *smtp.Config) {
			s.Next(-1, "greeting", smtptest.Reply(554, "5.7.1", "your address is blocked"))
		}, op: "greeting", outcome: smtp.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, acc := post(t, tc.server, smtp.Config{})
			cfg := smtp.Config{AllowPrivate: true, RootCAs: s.RootCAs()}
			if tc.change != nil {
				tc.change(s, &acc, &cfg)
			}
			c := smtp.New(cfg)
			defer c.Close()
			e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
			scope := smtp.ScopeAccount
			if tc.outcome == "" {
				tc.outcome, scope = smtp.NotSent, e.Scope
			}
			if e.Op != tc.op || e.Outcome != tc.outcome || e.Scope != scope || e.Bounce != smtp.BounceNone || tc.is != nil && !errors.Is(e, tc.is) {
				t.Errorf("%v: %+v", e, *e)
			}
			for _, cmd := range s.Commands() {
				if cmd.Verb == "AUTH" && !cmd.TLS {
					t.Error("AUTH in the clear")
				}
			}
			if len(s.Accepted()) != 0 {
				t.Error("a mail went out")
			}
			if e.Code/100 != 5 || e.Op != "mail" { // after that refusal the connection may be kept
				if err := s.Wait(soon(t), func() bool { _, open, _ := s.Connections(); return open == 0 }); err != nil {
					t.Error("the connection stays open")
				}
			}
		})
	}
}

// TestInjectedBeforeTLS lets somebody in the middle add answers to the one that begins TLS.
func TestInjectedBeforeTLS(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{CommandTimeout: time.Second, DialTimeout: time.Second})
	s.Next(1, "STARTTLS", smtptest.Accepting(smtptest.Raw("220 go\r\n250-evil\r\n250 AUTH GSSAPI\r\n")))
	if err := c.Send(t.Context(), acc, mail(1)); err != nil {
		if e := smtpError(t, err); e.Outcome != smtp.NotSent || len(s.Accepted()) != 0 {
			t.Errorf("%v: %+v", e, *e)
		}
		return
	}
	if got := s.Accepted(); len(got) != 1 || !got[0].TLS || got[0].User == "" {
		t.Errorf("%+v", got)
	}
}

func TestNobodyIsThere(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
	s.Close()
	e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
	if e.Op != "connect" || e.Outcome != smtp.NotSent || e.Scope != smtp.ScopeTransport || !errors.Is(e, syscall.ECONNREFUSED) || e.Error() != "smtp: connect: connection refused" {
		t.Errorf("%v: %+v", e, *e)
	}
	for found, scope := range map[bool]smtp.Scope{false: smtp.ScopeAccount, true: smtp.ScopeTransport} {
		lost := smtp.New(smtp.Config{AllowPrivate: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "smtp.acme.test", IsNotFound: !found}}
		}})
		e = smtpError(t, lost.Send(t.Context(), acc, mail(1)))
		if e.Op != "connect" || e.Outcome != smtp.NotSent || e.Scope != scope || errors.Is(e, smtp.ErrNoHost) == found || strings.Contains(e.Error(), "acme") {
			t.Errorf("%v: %+v", e, *e)
		}
		lost.Close()
	}
}

// TestAServerThatWouldTakeItForNobody refuses the sender or the recipient and says go on all the same: nothing is written
// to it, and it is left.
func TestAServerThatWouldTakeItForNobody(t *testing.T) {
	for _, step := range []string{"MAIL", "RCPT"} {
		s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
		s.Next(1, step, smtptest.Accepting(smtptest.Reply(550, "5.7.1", "no")))
		e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
		if e.Op != strings.ToLower(step) || e.Code != 550 || e.Outcome != smtp.Rejected {
			t.Errorf("%s: %v: %+v", step, e, *e)
		}
		if err := c.Send(t.Context(), acc, mail(2)); err != nil {
			t.Error(step, err)
		}
		if opened, _, _ := s.Connections(); opened != 2 || len(s.Accepted()) != 1 || slices.Contains(s.Verbs(1), ".") {
			t.Errorf("%s: %d connections, %d taken, %v", step, opened, len(s.Accepted()), s.Verbs(0))
		}
	}
}

// TestTimeOuts are NotSent, except for the answer to the message.
func TestTimeOuts(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{DialTimeout: 100 * time.Millisecond, CommandTimeout: 40 * time.Millisecond, DataTimeout: 40 * time.Millisecond})
	for step, want := range map[string]smtp.Outcome{"greeting": smtp.NotSent, "AUTH": smtp.NotSent, "MAIL": smtp.NotSent, "RCPT": smtp.NotSent, "DATA": smtp.NotSent, ".": smtp.Ambiguous} {
		s.Next(1, step, smtptest.Hang())
		e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
		var timeout interface{ Timeout() bool }
		if e.Outcome != want || !errors.As(e, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v: %+v", step, e, *e)
		}
	}
	// a kept connection that is silent is not worth a second wait
	s2, c2, acc2 := post(t, smtptest.Config{}, smtp.Config{CommandTimeout: 100 * time.Millisecond})
	if err := c2.Send(t.Context(), acc2, mail(1)); err != nil {
		t.Fatal(err)
	}
	s2.Next(1, "MAIL", smtptest.Hang())
	e := smtpError(t, c2.Send(t.Context(), acc2, mail(2)))
	if opened, _, _ := s2.Connections(); e.Outcome != smtp.NotSent || opened != 1 {
		t.Errorf("%v after %d connections", e, opened)
	}
}

// cut is a connection that breaks when the final dot is to be written, halfway through.
type cut struct{ net.Conn }

func (c cut) Write(p []byte) (int, error) {
	if bytes.HasSuffix(p, []byte("\r\n.\r\n")) {
		n, _ := c.Conn.Write(p[:len(p)/2])
		return n, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

// TestWhatWasNotWritten was not sent: a message that breaks off before its final dot is never in doubt.
func TestWhatWasNotWritten(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{Security: "tls"}, smtp.Config{DataTimeout: 100 * time.Millisecond,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil {
				err = conn.(*net.TCPConn).SetWriteBuffer(64 << 10) // so that a mail does not fit between the two
			}
			return conn, err
		}})
	big := mail(2)
	big.Text = strings.Repeat("0123456789abcdef\n", 1<<17)
	for _, f := range []smtptest.Fault{smtptest.Hang(), smtptest.Reset(), smtptest.Drop()} {
		s.Next(1, "content", f)
		began := time.Now()
		e := smtpError(t, c.Send(t.Context(), acc, big))
		if took := time.Since(began); took > 4*time.Second { // TLS would try to say goodbye for 5 s
			t.Errorf("%s: it took %v", f.Name, took)
		}
		if e.Op != "content" || e.Outcome != smtp.NotSent || f.Name == "hang" && !errors.Is(e, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v: %+v", f.Name, e, *e)
		}
	}
	if n := len(s.Accepted()); n != 0 {
		t.Errorf("%d of them were taken", n)
	}
	s, c, acc = post(t, smtptest.Config{Security: "none"}, smtp.Config{DataTimeout: time.Second,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return cut{conn}, err
		}})
	e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
	if e.Op != "content" || e.Outcome != smtp.NotSent || len(s.Accepted()) != 0 {
		t.Errorf("%v: %+v", e, *e)
	}
}

// TestCancel ends ctx while the server is silent: the call ends at once, the connection too.
func TestCancel(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
	for _, step := range []string{"greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "."} {
		for _, late := range []bool{false, true} {
			cause := context.Canceled
			if late {
				cause = context.DeadlineExceeded
			}
			f := smtptest.Hang()
			if step == "." {
				f = smtptest.Accepting(f)
			}
			s.Behave()
			s.Next(1, step, f)
			before := len(s.Commands())
			ctx, cancel := context.WithCancel(t.Context())
			if late {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			done := make(chan error, 1)
			go func() { done <- c.Send(ctx, acc, mail(1)) }()
			reached := func() bool {
				return slices.ContainsFunc(s.Commands()[before:], func(c smtptest.Command) bool { return c.Verb == step })
			}
			if !late {
				if err := s.Wait(soon(t), reached); err != nil {
					t.Fatal(step, err)
				}
				cancel()
			}
			var err error
			select {
			case err = <-done:
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: it goes on without its context", step)
			}
			cancel()
			want := smtp.NotSent
			if step == "." {
				want = smtp.Ambiguous
			}
			if e := smtpError(t, err); reached() && (e.Outcome != want || !errors.Is(e, cause)) {
				t.Errorf("%s, %v: %v: %+v", step, cause, e, *e)
			}
			if err := s.Wait(soon(t), func() bool { _, open, _ := s.Connections(); return open == 0 }); err != nil {
				t.Errorf("%s: the connection stays open", step)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	opened, _, _ := s.Connections()
	for range 20 {
		e := smtpError(t, c.Send(ctx, acc, mail(1)))
		if after, _, _ := s.Connections(); e.Op != "wait" || e.Outcome != smtp.NotSent || !errors.Is(e, context.Canceled) || after != opened {
			t.Errorf("%v, %d connections more", e, after-opened)
		}
	}
}

func TestCheck(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
	if err := c.Check(t.Context(), acc); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(soon(t), func() bool { _, open, _ := s.Connections(); return open == 0 }); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Verbs(1), []string{"greeting", "EHLO", "STARTTLS", "EHLO", "AUTH", "NOOP", "QUIT"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s.Next(1, "NOOP", smtptest.Drop())
	if e := smtpError(t, c.Check(t.Context(), acc)); e.Op != "noop" || !errors.Is(e, io.EOF) {
		t.Error(e)
	}
	acc.Password = "wrong"
	if e := smtpError(t, c.Check(t.Context(), acc)); e.Code != 535 || e.Scope != smtp.ScopeAccount || e.Temporary() {
		t.Error(e)
	}
	if err := c.Validate(acc); err != nil {
		t.Error(err)
	}
	acc.Port = 70000
	if err := c.Validate(acc); !errors.Is(err, smtp.ErrInvalid) {
		t.Error(err)
	}
}
