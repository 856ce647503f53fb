package google

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/ecodrix/ecod/internal/secret"
)

// CalendarScope is the permission that an account's grant has to hold, and the one that a
// service account asks for.
const CalendarScope = "https://www.googleapis.com/auth/calendar.events"

// wide are the other permissions under which events can be written.
var wide = []string{CalendarScope, "https://www.googleapis.com/auth/calendar", "https://www.googleapis.com/auth/calendar.events.owned"}

// Account is whose calendar it is: an OAuth grant (ClientID, ClientSecret,
// RefreshToken), or a service account that acts for a user of its domain
// (ServiceAccount, Subject). A value, so that no client of ours is kept here.
type Account struct {
	ClientID     string
	ClientSecret secret.Text
	RefreshToken secret.Text

	ServiceAccount secret.Text // Google's key file, JSON; its token_uri is not used
	Subject        string      // the user's e-mail address: alone, a service account can neither invite nor make Meet links

	CalendarID string // "" is the user's own
}

func (a Account) calendar() string {
	if a.CalendarID == "" {
		return "primary"
	}
	return a.CalendarID
}

// incomplete tells what the account lacks; "" if nothing.
func (a Account) incomplete() string {
	switch {
	case a.ServiceAccount != "" && a.RefreshToken != "":
		return "the account has both a grant and a service account"
	case a.ServiceAccount != "" && a.Subject == "":
		return "the service account has no subject to act for"
	case a.ServiceAccount != "":
		return ""
	case a.ClientID == "" || a.ClientSecret == "" || a.RefreshToken == "":
		return "the account has no client id, client secret or refresh token"
	}
	return ""
}

// key names the credentials: two accounts of one key may share an access token.
func (a Account) key() string {
	h := sha256.New()
	for _, s := range []string{a.ClientID, a.ClientSecret.Reveal(), a.RefreshToken.Reveal(), a.ServiceAccount.Reveal(), a.Subject} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	return string(h.Sum(nil))
}

// serviceKey is what is read of a key file. Its addresses are not: whoever wrote
// the file could lead us anywhere by them.
type serviceKey struct {
	Type  string `json:"type"`
	Email string `json:"client_email"`
	ID    string `json:"private_key_id"`
	Key   string `json:"private_key"`
}

func (a Account) serviceKey() (k serviceKey, why string) {
	switch err := json.Unmarshal([]byte(a.ServiceAccount.Reveal()), &k); { // err may quote the file
	case err != nil:
		return k, "the service account's key file is not JSON"
	case k.Type != "service_account":
		return k, "the key file is not a service account's"
	case k.Email == "":
		return k, "the service account's key file has no client_email"
	}
	block, _ := pem.Decode([]byte(k.Key))
	if block == nil {
		return k, "the service account's private_key is not PEM"
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return k, "the service account's private_key cannot be read"
		}
	}
	return k, ""
}

// token gives the account's access token: the one kept, or a new one. Callers
// that want the same one wait for one fetch, each as long as its ctx allows; the
// fetch itself is nobody's, so that no caller's end fails the others.
func (c *Client) token(ctx context.Context, acc Account, op string) (*oauth2.Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, unanswered(op, NotSent, err)
	}
	key := acc.key()
	if t, ok := c.tokens.Get(key); ok && t.Valid() {
		return t, nil
	}
	fetched := c.fetching.DoChan(key, func() (any, error) {
		if t, ok := c.tokens.Get(key); ok && t.Valid() {
			return t, nil
		}
		t, e := c.fetch(acc)
		if e != nil {
			return nil, e
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tokens.Add(key, t)
		return t, nil
	})
	select {
	case <-ctx.Done():
		return nil, unanswered(op, NotSent, ctx.Err())
	case r := <-fetched:
		var e *Error
		if errors.As(r.Err, &e) {
			own := *e // it is shared with the others that waited
			own.Op = op
			return nil, &own
		}
		return r.Val.(*oauth2.Token), nil
	}
}

// forget drops a token that was refused, unless another took its place.
func (c *Client) forget(acc Account, t *oauth2.Token) {
	key := acc.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, ok := c.tokens.Peek(key); ok && kept.AccessToken == t.AccessToken {
		c.tokens.Remove(key)
	}
}

// fetch asks the token endpoint, once.
func (c *Client) fetch(acc Account) (*oauth2.Token, *Error) {
	seen := &observer{next: c.http.Transport}
	// A background context, since a token source keeps its own; the client's time-out bounds the call.
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: seen, Timeout: c.http.Timeout})
	var source oauth2.TokenSource
	if acc.ServiceAccount != "" {
		k, why := acc.serviceKey()
		if why != "" {
			return nil, incomplete("", ScopeAccount, why)
		}
		conf := jwt.Config{Email: k.Email, PrivateKey: []byte(k.Key), PrivateKeyID: k.ID, Subject: acc.Subject, Scopes: []string{CalendarScope}, TokenURL: c.tokenURL}
		source = conf.TokenSource(ctx)
	} else {
		conf := oauth2.Config{ClientID: acc.ClientID, ClientSecret: acc.ClientSecret.Reveal(),
			Endpoint: oauth2.Endpoint{TokenURL: c.tokenURL, AuthStyle: oauth2.AuthStyleInParams}} // else it tries two ways, and asks twice
		source = conf.TokenSource(ctx, &oauth2.Token{RefreshToken: acc.RefreshToken.Reveal()})
	}
	t, err := source.Token()
	// From here on err itself is not passed on: it holds the whole answer.
	var answer *oauth2.RetrieveError
	switch {
	case err == nil && t.AccessToken != "": // the JWT flow does not look
		return t, nil
	case errors.As(err, &answer):
		var w struct {
			Code        string `json:"error"`
			Description string `json:"error_description"`
		}
		_ = json.Unmarshal(answer.Body, &w) // a gateway's HTML leaves it empty, and the HTTP status counts
		return nil, unGranted(answer.Response.StatusCode, word(acc.scrub(w.Code)), acc.scrub(w.Description), answer.Response.Header)
	case seen.err != nil:
		return nil, noToken(seen.err)
	}
	return nil, noToken(errors.New("the answer of the token endpoint is cut or cannot be read"))
}

func noToken(err error) *Error {
	e := unanswered("", NotSent, err)
	e.meaning = "no access token"
	return e
}

// scrub takes the account's secrets out of Google's words.
func (a Account) scrub(s string, more ...string) string {
	return scrub(s, append(more, a.ClientSecret.Reveal(), a.RefreshToken.Reveal(), a.ServiceAccount.Reveal())...)
}

// lacksScope tells that the token was given with permissions of which none lets
// it write events: on Google's page, users may untick what they were asked for.
func lacksScope(t *oauth2.Token) bool {
	given, _ := t.Extra("scope").(string)
	return given != "" && !slices.ContainsFunc(strings.Fields(given), func(s string) bool { return slices.Contains(wide, s) })
}

// observer keeps the error that x/oauth2 turns into words, and bounds the answer.
type observer struct {
	next http.RoundTripper
	err  error
}

func (o *observer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(r)
	if err != nil {
		o.err = err
		return nil, err
	}
	resp.Body = bounded{io.LimitReader(resp.Body, 64<<10), resp.Body}
	return resp, nil
}

type bounded struct {
	io.Reader
	io.Closer
}
