package google

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// Google's own addresses.
const (
	googleOAuth    = "https://oauth2.googleapis.com/token"
	googleCalendar = "https://www.googleapis.com/calendar/v3"
)

// Config is where Google is.
type Config struct {
	BaseURL string // "" for Google's own hosts; else of a server with /token and /calendar/v3/…
}

// Client calls Google. It keeps access tokens and nothing else, and may be used by
// many goroutines. Every error it returns is an *Error. It makes each call once (a
// 401 apart) and follows no redirect: what to repeat is the caller's affair.
type Client struct {
	tokenURL, calendar string
	usable             bool // the base address is one
	http               *http.Client
	mu                 sync.Mutex // held where tokens change
	tokens             *lru.Cache[string, *oauth2.Token]
	fetching           singleflight.Group
}

const (
	defaultTimeout = 30 * time.Second
	keptTokens     = 4096 // accounts; the ones used longest ago fetch theirs again
	answerLimit    = 512 << 10
)

// New makes a client on the given http.Client, whose transport and time-out it
// shares; nil is a new one. Without a time-out it takes 30 s.
func New(cfg Config, hc *http.Client) *Client {
	if hc == nil {
		hc = &http.Client{}
	}
	own := *hc
	own.Jar = nil
	own.Transport = noRedirects{hc.Transport}
	if own.Timeout <= 0 {
		own.Timeout = defaultTimeout
	}
	c := &Client{tokenURL: googleOAuth, calendar: googleCalendar, http: &own, usable: true}
	c.tokens, _ = lru.New[string, *oauth2.Token](keptTokens) // fails for sizes below 1 only
	if base := strings.TrimRight(strings.TrimSpace(cfg.BaseURL), "/"); base != "" {
		u, err := url.Parse(base)
		c.usable = err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && u.RawQuery == "" && u.Fragment == ""
		c.tokenURL, c.calendar = base+"/token", base+"/calendar/v3"
	}
	return c
}

// noRedirects hides redirects from http.Client, which would follow them with the
// token, or quote them in an error. What is left is an answer that is not 2xx.
type noRedirects struct{ next http.RoundTripper }

func (n noRedirects) RoundTrip(r *http.Request) (*http.Response, error) {
	next := n.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err == nil {
		resp.Header.Del("Location")
	}
	return resp, err
}

// call is one call of the Calendar API.
type call struct {
	op     string
	method string
	path   []string // below the calendar; each part is escaped
	query  url.Values
	body   any
	reads  bool // it changes nothing
	out    any
}

// do makes the call, with a new access token a second time if the first was
// refused. Its error is an *Error.
func (c *Client) do(ctx context.Context, acc Account, call call) error {
	if !c.usable {
		return incomplete(call.op, ScopeAccount, "the base address of Google is not a URL")
	}
	if why := acc.incomplete(); why != "" {
		return incomplete(call.op, ScopeAccount, why)
	}
	address := c.calendar + "/calendars"
	for _, p := range append([]string{acc.calendar()}, call.path...) {
		if strings.Trim(p, ".") == "" { // nothing, or a step elsewhere
			return incomplete(call.op, ScopeEvent, "an id is missing or is none")
		}
		address += "/" + url.PathEscape(p)
	}
	if len(call.query) > 0 {
		address += "?" + call.query.Encode()
	}
	var body []byte
	if call.body != nil {
		var err error
		if body, err = json.Marshal(call.body); err != nil {
			return incomplete(call.op, ScopeEvent, "it cannot be written as JSON")
		}
	}
	for again := false; ; again = true {
		t, err := c.token(ctx, acc, call.op)
		if err != nil {
			return err
		}
		e := c.once(ctx, acc, t, call, address, body)
		if e == nil {
			return nil
		}
		if e.HTTP != http.StatusUnauthorized {
			return e
		}
		c.forget(acc, t)
		if again {
			return e
		}
	}
}

func (c *Client) once(ctx context.Context, acc Account, t *oauth2.Token, call call, address string, body []byte) *Error {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, call.method, address, bytes.NewReader(body))
	if err != nil {
		return incomplete(call.op, ScopeEvent, "its address is not a URL")
	}
	req.Header.Set("Authorization", "Bearer "+t.AccessToken)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "ecod")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	lost := Ambiguous
	if call.reads {
		lost = NotSent
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if !connected.Load() {
			lost = NotSent
		}
		return unanswered(call.op, lost, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	if err == nil && len(answer) > answerLimit {
		err = fmt.Errorf("an answer of more than %d bytes", answerLimit)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		reason, message := explain(answer)
		return refused(call.op, resp.StatusCode, word(acc.scrub(reason, t.AccessToken)), acc.scrub(message, t.AccessToken), resp.Header, call.reads)
	}
	if err == nil {
		switch {
		case call.out == nil && len(bytes.TrimSpace(answer)) > 0, // a gateway's page is no consent
			call.out != nil && json.Unmarshal(answer, call.out) != nil: // the decoder's words may quote it
			err = errors.New("it is not what it should be")
		}
	}
	if err != nil {
		e := unanswered(call.op, lost, err)
		e.HTTP, e.meaning = resp.StatusCode, "an answer that cannot be read"
		return e
	}
	return nil
}

// explain reads Google's reason and words. A gateway's HTML has none, and the HTTP status counts.
func explain(answer []byte) (reason, message string) {
	var w struct {
		Error struct {
			Message string `json:"message"`
			Status  string `json:"status"`
			Errors  []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
			Details []struct {
				Reason string `json:"reason"`
			} `json:"details"`
		} `json:"error"`
	}
	_ = json.Unmarshal(answer, &w)
	reason = w.Error.Status
	for _, d := range w.Error.Details {
		if d.Reason != "" {
			reason = d.Reason
		}
	}
	for _, e := range w.Error.Errors {
		if e.Reason != "" {
			reason = e.Reason
			break
		}
	}
	return reason, w.Error.Message
}
