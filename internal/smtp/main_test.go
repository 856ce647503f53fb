package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "pässword+secret/42"

// post starts a server and a client that trusts it, and gives the account to send with.
func post(t testing.TB, sc smtptest.Config, cc smtp.Config) (*smtptest.Server, *smtp.Client, smtp.Account) {
	t.Helper()
	if sc.Users == nil {
		sc.Users = map[string]string{"user@acme.test": password}
	}
	s, err := smtptest.Start(sc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	cc.AllowPrivate = true
	if cc.RootCAs == nil {
		cc.RootCAs = s.RootCAs()
	}
	cc.HelloName = "ecod.test"
	c := smtp.New(cc)
	t.Cleanup(c.Close)
	return s, c, account(s, sc.Security)
}

func account(s *smtptest.Server, security string) smtp.Account {
	host, port := s.HostPort()
	if security == "" {
		security = "starttls"
	}
	return smtp.Account{Host: host, Port: port, Security: smtp.Security(security), Username: "user@acme.test", Password: secret.Text(password),
		From: "hello@acme.test", FromName: "Acme Clinic", ReplyTo: "front.desk@acme.test"}
}

func mail(i int) smtp.Message {
	return smtp.Message{ID: fmt.Sprintf("msg_%d", i), To: fmt.Sprintf("lead%d@example.com", i), ToName: "Dena", Subject: "Your visit",
		Text: "what the user wrote", HTML: "<p>what the user wrote</p>"}
}

// smtpError is err as what it has to be.
func smtpError(t testing.TB, err error) *smtp.Error {
	t.Helper()
	var e *smtp.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is not an *Error", err, err)
	}
	return e
}

// soon bounds a wait.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}
