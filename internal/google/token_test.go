package google_test

import (
	"context"
	"crypto/rsa"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/google/googletest"
)

// TestOneFetch lets many calls of two accounts want a token at once, and again later.
func TestOneFetch(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	other := service(t, nil)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			a := acc
			if i%2 == 1 {
				a = other
			}
			if err := c.Check(t.Context(), a); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.Count("token"); n != 2 {
		t.Errorf("%d fetches", n)
	}
	elsewhere := acc
	elsewhere.CalendarID = ana // the same credentials
	if err := c.Check(t.Context(), elsewhere); err != nil || s.Count("token") != 2 {
		t.Errorf("%v, %d fetches", err, s.Count("token"))
	}
	for _, r := range s.Requests() {
		if r.Kind == "list" && r.User != ana {
			t.Errorf("a call of %q", r.User)
		}
	}
}

// TestCredentialsAreNotMixed moves a letter between two fields, and has no other's token.
func TestCredentialsAreNotMixed(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	s.AddGrant(googletest.Grant{User: ana, ClientID: "ab", ClientSecret: "c", RefreshToken: "d"})
	if err := c.Check(t.Context(), google.Account{ClientID: "ab", ClientSecret: "c", RefreshToken: "d"}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []google.Account{{ClientID: "a", ClientSecret: "bc", RefreshToken: "d"}, {ClientID: "ab", ClientSecret: "cd", RefreshToken: "d"}, {ClientID: "ab", ClientSecret: "c", RefreshToken: "e"}} {
		if err := c.Check(t.Context(), a); err == nil {
			t.Errorf("%s %s %s opens", a.ClientID, a.ClientSecret.Reveal(), a.RefreshToken.Reveal())
		}
	}
}

// TestFetchOutlivesItsCaller ends the call that began a fetch; the one that waits beside it has its token.
func TestFetchOutlivesItsCaller(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	s.On("token", 1, googletest.Delay(150*time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- c.Check(ctx, acc) }()
	if err := s.Wait(t.Context(), func() bool { return s.Count("token") == 1 }); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() { second <- c.Check(t.Context(), acc) }()
	cancel()
	err := <-first
	if e := asError(t, err); !errors.Is(err, context.Canceled) || e.Outcome != google.NotSent {
		t.Errorf("%+v", e)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if err := c.Check(t.Context(), acc); err != nil || s.Count("token") != 1 {
		t.Errorf("%v, %d fetches", err, s.Count("token"))
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if e := asError(t, c.Check(ctx, acc)); e.Outcome != google.NotSent || !errors.Is(e, context.Canceled) {
		t.Errorf("%+v", e)
	}
}

func TestExpiredTokens(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	insert(t, c, booking("a"))
	s.ExpireAccess()
	insert(t, c, booking("b")) // 401, a new token, and the call again
	if s.Count("token") != 2 || s.Count("insert") != 3 || len(s.Writes()) != 2 {
		t.Errorf("%d fetches, %d inserts, %d writes", s.Count("token"), s.Count("insert"), len(s.Writes()))
	}
	s.On("insert", -1, googletest.APIError(401, "authError", "Invalid Credentials"))
	_, err := c.Insert(t.Context(), acc, booking("c"))
	if e := asError(t, err); e.Scope != google.ScopeAccount || e.Temporary() || e.Outcome != google.Rejected || !strings.Contains(err.Error(), "reconnect needed") || s.Count("insert") != 5 {
		t.Errorf("%+v after %d inserts", e, s.Count("insert"))
	}
	s.Behave()
	insert(t, c, booking("c"))
	// many at once after the expiry: each may meet its own 401, none fails
	s.ExpireAccess()
	before := s.Count("token")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.Check(t.Context(), acc); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.Count("token") - before; n != 1 {
		t.Errorf("%d fetches for one expiry", n)
	}
	short, c2 := serve(t, googletest.Config{TokenLife: 5 * time.Second}) // as good as over when it comes
	for range 3 {
		if err := c2.Check(t.Context(), acc); err != nil {
			t.Fatal(err)
		}
	}
	if n := short.Count("token"); n < 3 {
		t.Errorf("%d fetches", n)
	}
}

func TestRevoked(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	insert(t, c, booking("a"))
	s.Revoke(theGrant)
	_, err := c.Insert(t.Context(), acc, booking("b"))
	e := asError(t, err)
	if e.Scope != google.ScopeAccount || e.Temporary() || e.Outcome != google.Rejected || e.Reason != "invalid_grant" || e.HTTP != 400 || e.Op != "insert" {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(err.Error(), "reconnect needed") || e.Message != "Token has been expired or revoked." {
		t.Errorf("%v %q", err, e.Message)
	}
	s.AddGrant(googletest.Grant{User: ana, ClientID: acc.ClientID, ClientSecret: theCode, RefreshToken: theGrant})
	insert(t, c, booking("b"))
}

func TestServiceAccount(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	away, hits := elsewhere(t)
	hostile := service(t, func(m map[string]string) {
		m["token_uri"], m["auth_uri"], m["audience"], m["token_url"], m["universe_domain"] = away, away, away, away, away
	})
	ev := booking("x")
	got, err := c.Insert(t.Context(), hostile, ev)
	if err != nil || got.MeetURL == "" || hits.Load() != 0 {
		t.Fatalf("%+v %v, %d requests elsewhere", got, err, hits.Load())
	}
	if w := s.Writes(); w[0].User != ana || len(s.Mails()) != 1 {
		t.Fatalf("%+v", w)
	}
	refused := func(name, reason string, a google.Account) {
		t.Helper()
		_, err := c.Insert(t.Context(), a, ev)
		// x/oauth2 leaves the code of a failed assertion in the answer's bytes
		if e := asError(t, err); e.Reason != reason || e.Scope != google.ScopeAccount || e.Temporary() || e.Message == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	a := service(t, nil)
	a.Subject = "eve@clinic.example"
	refused("not delegated", "unauthorized_client", a)
	known, _ := keyFile()
	known.Key = &rsa.PublicKey{N: new(big.Int).Add(known.Key.N, big.NewInt(2)), E: known.Key.E}
	s.AddServiceAccount(known)
	refused("another's signature", "invalid_grant", service(t, nil))
}

// TestTimeoutOfTheFetch bounds a token endpoint that never answers by the client's own time-out.
func TestTimeoutOfTheFetch(t *testing.T) {
	s, _ := serve(t, googletest.Config{})
	s.On("token", -1, googletest.Hang())
	hc := plain(t)
	hc.Timeout = 60 * time.Millisecond
	for _, a := range []google.Account{acc, service(t, nil)} {
		e := asError(t, google.New(google.Config{BaseURL: s.URL}, hc).Check(t.Context(), a))
		if !e.Temporary() || e.Outcome != google.NotSent || e.Scope != google.ScopeEvent || !strings.Contains(e.Error(), "no access token") {
			t.Errorf("%+v", e)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	away, hits := elsewhere(t)
	s.On("token", 2, googletest.Redirect(away))
	for _, a := range []google.Account{acc, service(t, nil)} {
		if e := asError(t, c.Check(t.Context(), a)); e.HTTP != http.StatusTemporaryRedirect || e.Outcome != google.NotSent || !e.Temporary() {
			t.Errorf("%+v", e)
		}
	}
	s.Behave()
	s.Next(-1, googletest.Redirect(away))
	_, err := c.Insert(t.Context(), acc, booking("x"))
	if e := asError(t, err); e.HTTP != http.StatusTemporaryRedirect || e.Outcome != google.Rejected || e.Temporary() {
		t.Errorf("%+v", e)
	}
	if err := c.Delete(t.Context(), acc, google.EventID("x"), ""); err == nil {
		t.Error("a redirected delete is done")
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}
