package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

// crowd sends n messages from so many goroutines at once and gives the errors.
func crowd(t *testing.T, c *smtp.Client, accounts []smtp.Account, workers, n int) (errs []error) {
	t.Helper()
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if err := c.Send(t.Context(), accounts[i%len(accounts)], mail(i)); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return errs
}

// TestTheServerHasEnough answers 421 after every few messages of a connection: all arrive, once.
func TestTheServerHasEnough(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{MaxPerConnection: 7}, smtp.Config{})
	const n = 200
	if errs := crowd(t, c, []smtp.Account{acc}, 8, n); len(errs) != 0 {
		t.Fatalf("%d errors, the first %v", len(errs), errs[0])
	}
	if got := len(s.Accepted()); got != n || len(s.Duplicates()) != 0 {
		t.Errorf("%d messages taken, %v twice", got, s.Duplicates())
	}
	opened, _, peak := s.Connections()
	if peak > 8 || opened < n/7 || opened > n/7+8 {
		t.Errorf("%d connections, %d at once", opened, peak)
	}
}

// TestWeHaveEnough leaves a connection before the server minds.
func TestWeHaveEnough(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{MaxPerConnection: 10, MaxPerAccount: 2})
	if errs := crowd(t, c, []smtp.Account{acc}, 8, 95); len(errs) != 0 {
		t.Fatal(errs[0])
	}
	c.Close()
	if err := s.Wait(soon(t), func() bool { _, open, _ := s.Connections(); return open == 0 }); err != nil {
		t.Fatal(err)
	}
	per := map[int]int{}
	for _, a := range s.Accepted() {
		per[a.Conn]++
	}
	for conn, n := range per {
		verbs := s.Verbs(conn)
		if n > 10 || verbs[len(verbs)-1] != "QUIT" {
			t.Errorf("%d messages on connection %d, and %s", n, conn, verbs[len(verbs)-1])
		}
	}
	if opened, _, _ := s.Connections(); opened < 10 || opened > 11 {
		t.Errorf("%d connections", opened)
	}
}

// TestNoMoreThanAllowed keeps ten sends waiting for three connections.
func TestNoMoreThanAllowed(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{NoPipelining: true}, smtp.Config{MaxPerAccount: 3})
	s.Next(-1, "DATA", smtptest.Hang())
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	for i := range 10 {
		go func() { errs <- c.Send(ctx, acc, mail(i)) }()
	}
	if err := s.Wait(soon(t), func() bool {
		n := 0
		for _, v := range s.Verbs(0) {
			if v == "DATA" {
				n++
			}
		}
		return n == 3
	}); err != nil {
		t.Error(err)
	}
	cancel()
	ops := map[string]int{}
	for range 10 {
		e := smtpError(t, <-errs)
		if ops[e.Op]++; e.Outcome != smtp.NotSent || !errors.Is(e, context.Canceled) {
			t.Error(e)
		}
	}
	if opened, _, _ := s.Connections(); opened != 3 || ops["data"] != 3 || ops["wait"] != 7 {
		t.Errorf("%d connections, failed at %v", opened, ops)
	}
}

// TestAccountsDoNotShare a connection, nor wait for each other.
func TestAccountsDoNotShare(t *testing.T) {
	users := map[string]string{}
	for i := range 5 {
		users[fmt.Sprintf("user%d", i)] = password
	}
	s, c, acc := post(t, smtptest.Config{Users: users}, smtp.Config{MaxPerAccount: 1})
	var accounts []smtp.Account
	for i := range 5 {
		acc.Username, acc.From = fmt.Sprintf("user%d", i), fmt.Sprintf("hello%d@acme.test", i)
		accounts = append(accounts, acc)
	}
	s.When(1, func(c smtptest.Command) bool { return c.Verb == "MAIL" && strings.Contains(c.Arg, "hello0@") }, smtptest.Hang())
	stuck := make(chan error, 1)
	go func() { stuck <- c.Send(t.Context(), accounts[0], mail(1000)) }()
	if errs := crowd(t, c, accounts[1:], 8, 40); len(errs) != 0 {
		t.Fatal(errs[0])
	}
	s.Disconnect()
	if e := smtpError(t, <-stuck); e.Outcome != smtp.NotSent {
		t.Error(e)
	}
	for _, a := range s.Accepted() {
		if want := strings.Replace(a.User, "user", "hello", 1) + "@acme.test"; a.From != want {
			t.Errorf("%s sent as %s", a.From, a.User)
		}
	}
	// the same server and user with another password is another account
	other := accounts[1]
	other.Password = "wrong"
	if e := smtpError(t, c.Send(t.Context(), other, mail(1))); e.Code != 535 {
		t.Errorf("a kept connection was used with another password: %v", e)
	}
}

func TestUnusedConnectionsAreClosed(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{IdleTimeout: 30 * time.Millisecond, MaxIdle: 2})
	if errs := crowd(t, c, []smtp.Account{acc}, 8, 40); len(errs) != 0 {
		t.Fatal(errs[0])
	}
	if err := s.Wait(soon(t), func() bool { _, open, _ := s.Connections(); return open == 0 }); err != nil {
		t.Fatal(err)
	}
	verbs := s.Verbs(0)
	if verbs[len(verbs)-1] != "QUIT" {
		t.Errorf("no goodbye: %v", verbs[len(verbs)-3:])
	}
	if err := c.Send(t.Context(), acc, mail(1)); err != nil {
		t.Error(err)
	}
}

// TestTheServerLeavesFirst closes kept connections from the other side, in the ways that servers do.
func TestTheServerLeavesFirst(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{IdleTimeout: 20 * time.Millisecond}, smtp.Config{})
	for i := range 3 { // 421 and FIN
		if err := c.Send(t.Context(), acc, mail(i)); err != nil {
			t.Fatal(i, err)
		}
		if err := s.Wait(soon(t), func() bool { _, open, _ := s.Connections(); return open == 0 }); err != nil {
			t.Fatal(err)
		}
	}
	s2, c2, acc2 := post(t, smtptest.Config{}, smtp.Config{MaxPerAccount: 3})
	for i := range 3 { // reset, all kept ones at once
		if errs := crowd(t, c2, []smtp.Account{acc2}, 3, 12); len(errs) != 0 {
			t.Fatal(i, errs[0])
		}
		s2.Disconnect()
		if err := s2.Wait(soon(t), func() bool { _, open, _ := s2.Connections(); return open == 0 }); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(s.Accepted()) + len(s2.Accepted()); got != 3+36 {
		t.Errorf("%d messages taken", got)
	}
	// but a server that turns every connection away is not asked for ever
	s.Next(-1, "MAIL", smtptest.Shutdown())
	before, _, _ := s.Connections()
	e := smtpError(t, c.Send(t.Context(), acc, mail(9)))
	if after, _, _ := s.Connections(); e.Code != 421 || e.Scope != smtp.ScopeTransport || e.Outcome != smtp.Limited || after-before > 1 {
		t.Errorf("%v after %d connections", e, after-before)
	}
}

// TestAnAnswerTooMany is not taken for the answer to the next message.
func TestAnAnswerTooMany(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{Security: "none"}, smtp.Config{})
	s.Next(1, ".", smtptest.Accepting(smtptest.Raw("250 taken\r\n550 5.1.1 on second thoughts\r\n")))
	for i := range 2 {
		if err := c.Send(t.Context(), acc, mail(i)); err != nil {
			t.Fatal(err)
		}
	}
	if opened, _, _ := s.Connections(); opened != 2 || len(s.Accepted()) != 2 {
		t.Errorf("%d connections, %d taken", opened, len(s.Accepted()))
	}
}

// TestALongTalk uses one connection for more answers than one message may get.
func TestALongTalk(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{Security: "none"}, smtp.Config{MaxPerConnection: 1000})
	s.Next(-1, ".", smtptest.Accepting(smtptest.Reply(251, "2.0.0", strings.Repeat("taken ", 500)+"\nthank you"))) // any 2xx is a yes
	for i := range 120 {
		if err := c.Send(t.Context(), acc, mail(i)); err != nil {
			t.Fatal(i, err)
		}
	}
	if opened, _, _ := s.Connections(); opened != 1 {
		t.Errorf("%d connections", opened)
	}
}

// TestAFlood bounds what is read of a server that does not stop.
func TestAFlood(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
	for _, step := range []string{"greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "."} {
		s.Next(2, step, smtptest.Endless()) // EHLO is tried as HELO again, on the same connection
		e := smtpError(t, c.Send(t.Context(), acc, mail(1)))
		if !errors.Is(e, smtp.ErrProtocol) && !errors.Is(e, smtp.ErrNoTLS) {
			t.Errorf("%s: %v", step, e)
		}
		s.Behave()
	}
}

func TestClosed(t *testing.T) {
	s, c, acc := post(t, smtptest.Config{}, smtp.Config{})
	s.Next(1, ".", smtptest.Accepting(smtptest.Delay(50*time.Millisecond)))
	done := make(chan error, 1)
	go func() { done <- c.Send(t.Context(), acc, mail(1)) }()
	if _, err := s.WaitAccepted(soon(t), 1); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Errorf("a send under way: %v", err)
	}
	if err := s.Wait(soon(t), func() bool { _, open, _ := s.Connections(); return open == 0 }); err != nil {
		t.Error("its connection stays open")
	}
	for _, err := range []error{c.Send(t.Context(), acc, mail(2)), c.Check(t.Context(), acc)} {
		if e := smtpError(t, err); !errors.Is(e, smtp.ErrClosed) || e.Outcome != smtp.NotSent {
			t.Error(e)
		}
	}
	c.Close()
}
