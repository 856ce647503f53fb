package whatsapp

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

	"github.com/ecodrix/ecod/internal/secret"
)

// The Graph API as of this writing: the version that Meta's WhatsApp reference documents.
const (
	DefaultBaseURL = "https://graph.facebook.com"
	DefaultVersion = "v25.0"
)

// Config is where the Graph API is. Zero fields take the defaults.
type Config struct {
	BaseURL string // with or without a slash at its end
	Version string // "v25.0"
}

// Account is whose call it is: a value, so that no client of ours is kept here.
type Account struct {
	PhoneNumberID string // the sender; needed by Send, MarkRead, Profile, PhoneNumber, UploadMedia
	WABAID        string // needed by templates and PhoneNumbers
	Token         secret.Text
}

// Client calls the Graph API. It holds no account and no state, and may be used
// by many goroutines. Every error it returns is an *APIError. It makes each
// call once and follows no redirect: what to repeat is the caller's affair. (The
// transport may repeat a GET that met a dead connection, and nothing else.)
type Client struct {
	base, version string
	host          *url.URL // of base; nil if base is not a URL
	http          *http.Client
}

// New makes a client on the given http.Client, whose transport and timeout it
// shares; nil takes a timeout of 30 s.
func New(cfg Config, hc *http.Client) *Client {
	if hc == nil {
		hc = &http.Client{Timeout: 30 * time.Second}
	}
	own := *hc
	own.Jar = nil
	own.Transport = noRedirects{hc.Transport}
	c := &Client{
		base:    strings.TrimRight(first(strings.TrimSpace(cfg.BaseURL), DefaultBaseURL), "/"),
		version: strings.Trim(first(cfg.Version, DefaultVersion), "/"),
		http:    &own,
	}
	if u, err := url.Parse(c.base); err == nil && u.Host != "" {
		c.host = u
	}
	return c
}

// noRedirects hides redirects from http.Client, which would follow them with the
// token, or quote them in an error. They stand under movedTo.
type noRedirects struct{ http.RoundTripper }

const movedTo = "X-Moved-To"

func (n noRedirects) RoundTrip(r *http.Request) (*http.Response, error) {
	next := n.RoundTripper
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err == nil {
		resp.Header.Del(movedTo)
		if to := resp.Header.Get("Location"); to != "" {
			resp.Header.Set(movedTo, to)
			resp.Header.Del("Location")
		}
	}
	return resp, err
}

// The most that is read of an answer, in bytes.
const (
	smallAnswer = 64 << 10
	largeAnswer = 8 << 20 // a page of templates with all their components
)

// call is one call of the Graph API.
type call struct {
	op     string
	method string
	path   []string // each part is checked and escaped
	query  url.Values
	body   []byte    // JSON, or
	stream io.Reader // something else, of kind and length
	kind   string
	length int64 // -1: unknown
	limit  int64
	reads  bool // it changes nothing, or nothing that hurts when it happens twice
	out    any
}

// do makes the call once. Its error is an *APIError.
func (c *Client) do(ctx context.Context, acc Account, call call) error {
	req, body, err := c.request(ctx, acc, call)
	if err != nil {
		return err
	}
	var connected atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}))
	resp, err := c.http.Do(req)
	if err != nil {
		e := failure(call.op, err)
		switch {
		case body != nil && body.seal(), body == nil && connected.Load():
			e.Outcome = Ambiguous
		}
		if call.reads {
			e.Outcome = NotSent
		}
		return e
	}
	defer func() { _ = resp.Body.Close() }()
	limit := call.limit
	if limit == 0 {
		limit = smallAnswer
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(answer)) > limit {
		err = fmt.Errorf("an answer of more than %d bytes", limit)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return answered(call, acc, resp, answer, err)
	}
	if err == nil && json.Unmarshal(answer, call.out) != nil {
		err = errors.New("an answer that is not what it should be") // the decoder's words may quote it
	}
	if err != nil {
		e := &APIError{Op: call.op, HTTP: resp.StatusCode, TraceID: trace("", resp.Header), Err: stripURL(err)}
		e.classify(resp.Header, call.reads)
		return e
	}
	return nil
}

func (c *Client) request(ctx context.Context, acc Account, call call) (*http.Request, *onceBody, error) {
	if c.host == nil {
		return nil, nil, incomplete(call.op, "the base address of the Graph API is not a URL")
	}
	if acc.Token == "" {
		e := incomplete(call.op, "the account has no token")
		e.Class.Scope = ScopeAccount
		return nil, nil, e
	}
	address := c.base + "/" + c.version
	for _, p := range call.path {
		if !isID(p) {
			return nil, nil, incomplete(call.op, "an id is missing or is none")
		}
		address += "/" + p
	}
	if len(call.query) > 0 {
		address += "?" + call.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, call.method, address, nil)
	if err != nil {
		return nil, nil, incomplete(call.op, "the base address of the Graph API is not a URL")
	}
	authorize(req, acc)
	req.Header.Set("Accept", "application/json")
	var once *onceBody
	switch {
	case call.stream != nil:
		req.Header.Set("Content-Type", call.kind)
		req.Body, req.ContentLength = io.NopCloser(call.stream), call.length
	case call.body != nil:
		req.Header.Set("Content-Type", "application/json")
		once = &onceBody{data: call.body}
		req.Body, req.ContentLength = once, int64(len(call.body))
	}
	req.GetBody = nil // without it the transport cannot write a body twice
	return req, once, nil
}

func authorize(req *http.Request, acc Account) {
	req.Header.Set("Authorization", "Bearer "+acc.Token.Reveal())
	req.Header.Set("User-Agent", "ecod")
}

// onceBody is a request's body that knows whether all of it was handed over.
// When a call fails, seal settles the question for good: what was not handed
// over by then never will be, so that the other side cannot have the whole request.
type onceBody struct {
	mu     sync.Mutex
	data   []byte
	sealed bool
}

func (b *onceBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sealed {
		return 0, errors.New("the call is over")
	}
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func (b *onceBody) Close() error { return nil }

// seal tells whether the whole body was handed over.
func (b *onceBody) seal() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed = true
	return len(b.data) == 0
}

// answered makes the error of an answer that is not 2xx.
func answered(call call, acc Account, resp *http.Response, answer []byte, readErr error) *APIError {
	var w struct {
		Error struct {
			Message   text            `json:"message"`
			Code      integer         `json:"code"`
			Subcode   integer         `json:"error_subcode"`
			Data      json.RawMessage `json:"error_data"`
			UserMsg   text            `json:"error_user_msg"`
			TraceID   text            `json:"fbtrace_id"`
			Transient boolean         `json:"is_transient"`
		} `json:"error"`
	}
	object(answer, &w) // a gateway's HTML leaves it empty, and the HTTP status counts
	e := &APIError{
		Op: call.op, HTTP: resp.StatusCode, Code: int(w.Error.Code), Subcode: int(w.Error.Subcode),
		Message: acc.scrub(string(w.Error.Message)), Details: acc.scrub(first(details(w.Error.Data), string(w.Error.UserMsg))),
		TraceID: acc.scrub(trace(string(w.Error.TraceID), resp.Header)), Transient: bool(w.Error.Transient),
	}
	if readErr != nil {
		e.Err, e.Transient = stripURL(readErr), true // refused, and we do not know why: the reason may pass
	}
	e.classify(resp.Header, call.reads)
	return e
}

// scrub takes the token out of Meta's words ("Malformed access token …") and bounds them.
func (a Account) scrub(s string) string {
	token := a.Token.Reveal()
	for _, t := range []string{token, url.QueryEscape(token)} {
		if t != "" {
			s = strings.ReplaceAll(s, t, "[token]")
		}
	}
	const most = 1000
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// trace is the id by which Meta's support finds the call.
func trace(told string, h http.Header) string {
	for _, id := range []string{told, h.Get("X-Fb-Trace-Id"), h.Get("X-Fb-Request-Id")} {
		if isID(id) {
			return id
		}
	}
	return ""
}

// failure is the error of a call that got no answer.
func failure(op string, err error) *APIError {
	return &APIError{Op: op, Outcome: NotSent, Class: Class{Meaning: "no answer", Outcome: NotSent, Scope: ScopeMessage, Temporary: true}, Err: stripURL(err)}
}

// incomplete is the error of a call that was not made.
func incomplete(op, why string) *APIError {
	return &APIError{Op: op, Outcome: Rejected, Class: rejected(ScopeMessage, "not called"), Err: fmt.Errorf("%w: %s", ErrRequest, why)}
}

// stripURL takes the address off an error: it may carry a signature.
func stripURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// isID tells a Graph id, which stands in a path, from anything that would lead elsewhere.
func isID(s string) bool {
	return s != "" && len(s) <= 128 && strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-") == ""
}

// success is the answer of calls that have nothing to tell but that.
type success struct{}

func (*success) UnmarshalJSON(b []byte) error {
	var w struct {
		Success *bool `json:"success"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if w.Success != nil && !*w.Success {
		return errors.New("no success")
	}
	return nil
}

func (c *Client) post(ctx context.Context, acc Account, op string, body any, out any, path ...string) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(body); err != nil {
		return incomplete(op, "it cannot be written as JSON")
	}
	return c.do(ctx, acc, call{op: op, method: http.MethodPost, path: path, body: b.Bytes(), out: out})
}
