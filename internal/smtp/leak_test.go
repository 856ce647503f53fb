package smtp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

// TestNoErrorLeaks makes every step fail with an answer that repeats the
// password, the addresses and the text, and looks for them wherever an error can end up.
func TestNoErrorLeaks(t *testing.T) {
	both := "\x00user@acme.test\x00" + password
	secrets := []string{password, url.QueryEscape(password), base64.StdEncoding.EncodeToString([]byte(password)), base64.StdEncoding.EncodeToString([]byte(both)),
		base64.RawStdEncoding.EncodeToString([]byte(both))}
	private := []string{"lead1@example.com", "hello@acme.test", "front.desk", "user@acme.test", "what the user wrote", "Your visit", "Dena", "127.0.0.1", "localhost"}
	echo := "AUTH PLAIN " + strings.Join(secrets, " ") + " <lead1@example.com> hello@acme.test user@acme.test what the user wrote Your visit Dena 127.0.0.1 localhost"
	faults := map[string]smtptest.Fault{
		"550": smtptest.Reply(550, "5.1.1", echo), "535": smtptest.Reply(535, "5.7.8", echo), "421": smtptest.Reply(421, "", echo), "450": smtptest.Reply(450, "", echo+"\n"+echo),
		"as the code": smtptest.Closing(smtptest.Raw(echo + "\r\n")), "as the enhanced code": smtptest.Reply(550, echo, ""), "a yes": smtptest.Raw("299 " + echo + "\r\n"),
		"334": smtptest.Closing(smtptest.Raw("334 " + echo + "\r\n")), "a challenge": smtptest.Closing(smtptest.Raw("334 " + base64.StdEncoding.EncodeToString([]byte(echo)) + "\r\n")),
		"reset": smtptest.Reset(), "hang": smtptest.Hang(),
	}
	s, _, acc := post(t, smtptest.Config{Mechanisms: []string{"LOGIN"}}, smtp.Config{})
	looked := 0
	look := func(what string, err error) {
		t.Helper()
		if err == nil {
			return
		}
		looked++
		e := smtpError(t, err)
		var log bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Error("mail failed", "err", err, "e", e, "account", acc, "message", mail(1))
		}
		public := log.String() + fmt.Sprintf("%v %+v %s %q %v %+v", err, e, struct{ E error }{err}, err, acc, mail(1))
		for u := error(e); u != nil; u = errors.Unwrap(u) {
			public += u.Error() + fmt.Sprintf("%T", u)
		}
		public = strings.ReplaceAll(public, acc.String(), "") // which server it is may be told where it was asked for
		all := public + fmt.Sprintf("%#v %+v %#v", *e, *e, acc)
		if b, err := json.Marshal(e); err == nil {
			all += string(b)
		}
		for _, bad := range secrets {
			if strings.Contains(all, bad) || strings.Contains(all, bad[:len(bad)-2]) {
				t.Errorf("%s leaks the password: %s", what, all)
			}
		}
		for _, bad := range private {
			if strings.Contains(public, bad) {
				t.Errorf("%s leaks %q: %s", what, bad, public)
			}
		}
	}
	for _, step := range []string{"greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "."} {
		for name, f := range faults {
			c := smtp.New(smtp.Config{AllowPrivate: true, RootCAs: s.RootCAs()})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if name == "hang" {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
			}
			s.Behave()
			s.Next(-1, step, f)
			look(step+" "+name, c.Send(ctx, acc, mail(1)))
			cancel()
			c.Close()
		}
	}
	s.Behave()
	c := smtp.New(smtp.Config{AllowPrivate: true})
	defer c.Close()
	look("certificate", c.Send(t.Context(), acc, mail(1)))
	for name, change := range map[string]func(*smtp.Account, *smtp.Message){
		"to": func(_ *smtp.Account, m *smtp.Message) { m.To = "lead1@example.com what the user wrote" }, "from": func(a *smtp.Account, _ *smtp.Message) { a.From += " what the user wrote" },
		"host": func(a *smtp.Account, _ *smtp.Message) { a.Host = "localhost what the user wrote" }, "id": func(_ *smtp.Account, m *smtp.Message) { m.ID = "lead1@example.com" },
		"nobody": func(a *smtp.Account, _ *smtp.Message) { a.Port = 1 }, "no host": func(a *smtp.Account, _ *smtp.Message) { a.Host = "localhost.lead1.invalid" },
	} {
		a, m := acc, mail(1)
		change(&a, &m)
		look(name, c.Send(t.Context(), a, m))
	}
	quoting := smtp.New(smtp.Config{AllowPrivate: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New(echo) }})
	defer quoting.Close()
	look("dialer", quoting.Send(t.Context(), acc, mail(1)))
	if looked < 80 {
		t.Errorf("%d errors looked at", looked)
	}
}

// TestTheReplyIsKept for the operator, without the password.
func TestTheReplyIsKept(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
	s.Next(1, "AUTH", smtptest.Reply(534, "5.7.9", "Application-specific password required\nyou gave "+password+" \x00\x1b[31m"+strings.Repeat("é", 1000)))
	e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
	if !strings.HasPrefix(e.Reply, "5.7.9 Application-specific password required 5.7.9 you gave [password] [31mé") || len(e.Reply) > 510 {
		t.Errorf("%q", e.Reply)
	}
}

// outside is a connection that seems to lead to the open internet.
type outside struct{ net.Conn }

func (outside) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(8, 8, 8, 8), Port: 25} }

// TestNoPasswordInTheClear over a public network, not even where the account asks for it.
func TestNoPasswordInTheClear(t *testing.T) {
	abroad := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return outside{conn}, err
	}
	s, c, acc := post(t, smtptest.Config{Security: "none"}, smtp.Config{DialContext: abroad})
	e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
	for _, cmd := range s.Commands() {
		if cmd.Verb == "AUTH" {
			t.Error("it was written")
		}
	}
	if !errors.Is(e, smtp.ErrAuth) || e.Scope != smtp.ScopeAccount || e.Outcome != smtp.Rejected {
		t.Error(e)
	}
	able, c2, acc2 := post(t, smtptest.Config{Security: "none", Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5"}}, smtp.Config{DialContext: abroad})
	if err := c2.Send(t.Context(), acc2, mail(1)); err != nil || len(able.Accepted()) != 1 {
		t.Error("by challenge and response:", err)
	}
	near, c3, acc3 := post(t, smtptest.Config{Security: "none"}, smtp.Config{})
	if err := c3.Send(t.Context(), acc3, mail(1)); err != nil || len(near.Accepted()) != 1 {
		t.Error("on this machine:", err)
	}
}
