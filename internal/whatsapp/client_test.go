package whatsapp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const token = "EAAGtest+token/with=signs"

var acc = whatsapp.Account{PhoneNumberID: "300000000000001", WABAID: "200000000000001", Token: token}

// graph starts a server with one account and a client before it.
func graph(t *testing.T, cfg whatsapptest.Config) (*whatsapptest.Server, *whatsapp.Client) {
	t.Helper()
	s, err := whatsapptest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddAccount(whatsapptest.Account{
		WABAID: acc.WABAID, Token: token,
		Numbers: []whatsapptest.Number{{ID: acc.PhoneNumberID, Display: "12025550170", VerifiedName: "Example Shop"}},
		Templates: []whatsapptest.Template{
			{Name: "appointment_confirmed", Body: "Hi {{1}}, Dr {{2}} expects you {{3}}."}, {Name: "plain", Language: "en_US", Body: "Hello"},
			{Name: "paused", Status: "PAUSED", Body: "Hi"}, {Name: "waiting", Status: "PENDING", Body: "Hi"}},
	})
	return s, whatsapp.New(whatsapp.Config{BaseURL: s.URL + "/"}, plain(t))
}

// plain is an http.Client whose connections end with the test.
func plain(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func text(t *testing.T, body, opaque string) []byte {
	t.Helper()
	o, err := whatsapp.TextObject(body, false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := whatsapp.BuildSend(whatsapp.SendRequest{To: "+12025550143", Type: "text", Object: o, BizOpaque: opaque})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func apiError(t *testing.T, err error) *whatsapp.APIError {
	t.Helper()
	var e *whatsapp.APIError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no APIError", err, err)
	}
	return e
}

func TestSend(t *testing.T) {
	s, c := graph(t, whatsapptest.Config{})
	ctx := t.Context()
	o, _ := whatsapp.TextObject("Hello <b> & é", true)
	r, err := c.Send(ctx, acc, whatsapp.SendRequest{To: "+12025550143", Type: "text", Object: o, ReplyTo: "wamid.X", BizOpaque: "t:1"})
	if err != nil || !strings.HasPrefix(r.ID, "wamid.") || r.WAID != "12025550143" || r.Status != "" {
		t.Fatalf("%+v %v", r, err)
	}
	params, err := whatsapp.BodyParameters([]string{"Dhanesh", " Arjun\nK ", "Monday\t\t10AM"})
	if err != nil {
		t.Fatal(err)
	}
	o, err = whatsapp.TemplateObject("appointment_confirmed", "en", params)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = c.Send(ctx, acc, whatsapp.SendRequest{Recipient: "GB.902144770900123", Type: "template", Object: o}); err != nil || r.Status != "accepted" || r.UserID != "GB.902144770900123" || r.WAID != "" {
		t.Fatalf("%+v %v", r, err)
	}
	got := s.Accepted()
	if len(got) != 2 || got[0].Text != "Hello <b> & é" || got[0].ReplyTo != "wamid.X" || got[0].BizOpaque != "t:1" || got[1].Text != "Hi Dhanesh, Dr Arjun K expects you Monday 10AM." {
		t.Fatalf("accepted %+v", got)
	}
	for typ, object := range map[string]string{
		"image": `{"link":"https://example.com/a.jpg","caption":"x"}`, "document": `{"link":"https://example.com/a.pdf","filename":"a.pdf"}`,
		"location": `{"latitude":0,"longitude":-1.5}`, "contacts": `[{"name":{"formatted_name":"A B","first_name":"A"}}]`,
		"reaction": `{"message_id":"wamid.X","emoji":""}`, "sticker": `{"link":"https://example.com/a.webp"}`,
		"interactive": `{"type":"button","body":{"text":"x"},"action":{"buttons":[{"type":"reply","reply":{"id":"a","title":"A"}}]}}`,
	} {
		if _, err := c.Send(ctx, acc, whatsapp.SendRequest{To: "12025550143", Type: typ, Object: json.RawMessage(object)}); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if err := c.MarkRead(ctx, acc, "wamid.in", true); err != nil {
		t.Fatal(err)
	}
	if reads := s.Reads(); len(reads) != 1 || reads[0].MessageID != "wamid.in" || !reads[0].Typing {
		t.Fatalf("%+v", reads)
	}
}

func TestBuildSendIsFrozenAndChecked(t *testing.T) {
	r := whatsapp.SendRequest{To: "12025550143", Type: "text", Object: json.RawMessage(" { \"body\" : \"a  b\" } "), ReplyTo: "wamid.X", BizOpaque: "k"}
	a, err := whatsapp.BuildSend(r)
	b, _ := whatsapp.BuildSend(r)
	want := `{"messaging_product":"whatsapp","recipient_type":"individual","to":"12025550143","type":"text","context":{"message_id":"wamid.X"},"biz_opaque_callback_data":"k","text":{"body":"a  b"}}`
	if err != nil || string(a) != want || !bytes.Equal(a, b) {
		t.Fatalf("%s %v", a, err)
	}
	ok := func(f func(*whatsapp.SendRequest)) whatsapp.SendRequest { c := r; f(&c); return c }
	for name, bad := range map[string]whatsapp.SendRequest{
		"to nobody":          ok(func(r *whatsapp.SendRequest) { r.To = "" }),
		"to both":            ok(func(r *whatsapp.SendRequest) { r.Recipient = "US.1" }),
		"no type":            ok(func(r *whatsapp.SendRequest) { r.Type = "" }),
		"another key's name": ok(func(r *whatsapp.SendRequest) { r.Type = "to" }),
		"a type with quotes": ok(func(r *whatsapp.SendRequest) { r.Type = `text":{},"x` }),
		"no object":          ok(func(r *whatsapp.SendRequest) { r.Object = nil }),
		"a string":           ok(func(r *whatsapp.SendRequest) { r.Object = json.RawMessage(`"x"`) }),
		"broken":             ok(func(r *whatsapp.SendRequest) { r.Object = json.RawMessage(`{"body":"x"`) }),
		"two values":         ok(func(r *whatsapp.SendRequest) { r.Object = json.RawMessage(`{},"to":{}`) }),
		"a card alone":       ok(func(r *whatsapp.SendRequest) { r.Type, r.Object = "contacts", json.RawMessage(`{}`) }),
		"callback too long":  ok(func(r *whatsapp.SendRequest) { r.BizOpaque = strings.Repeat("é", 513) }),
	} {
		if b, err := whatsapp.BuildSend(bad); !errors.Is(err, whatsapp.ErrRequest) || apiError(t, err).Outcome != whatsapp.Rejected {
			t.Errorf("%s: %s %v", name, b, err)
		}
	}
	if _, err := whatsapp.BuildSend(ok(func(r *whatsapp.SendRequest) { r.BizOpaque = strings.Repeat("é", 512) })); err != nil {
		t.Error(err)
	}
	for n, want := range map[int]bool{0: false, 1: true, 4096: true, 4097: false} {
		if _, err := whatsapp.TextObject(strings.Repeat("é", n), false); (err == nil) != want {
			t.Errorf("a text of %d: %v", n, err)
		}
	}
}

func TestBodyParameters(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", " a ": "a", "a\nb": "a b", "a\r\n\r\nb": "a b", "a\tb": "a b", "a   b": "a   b", "a    b": "a b", "a \n b": "a b",
		"a\u2028b": "a b", "a\u00a0b": "a\u00a0b", "\n\t ": "", "": "", "é\n": "é", "a\vb\fc": "a b c", "a  \u00a0\u00a0b": "a b",
	} {
		if got := whatsapp.CleanParameter(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if c, err := whatsapp.BodyParameters(nil); c != nil || err != nil {
		t.Error(c, err)
	}
	_, err := whatsapp.BodyParameters([]string{"secret value", " \n "})
	if !errors.Is(err, whatsapp.ErrRequest) || !strings.Contains(err.Error(), "parameter 2") || strings.Contains(err.Error(), "secret value") {
		t.Error(err)
	}
}

// TestOutcomeOfASend meets a send with every misbehaviour and holds the verdict
// against what the server accepted.
func TestOutcomeOfASend(t *testing.T) {
	s, c := graph(t, whatsapptest.Config{})
	for name, tc := range map[string]struct {
		fault    whatsapptest.Fault
		timeout  time.Duration
		outcome  whatsapp.Outcome
		scope    whatsapp.Scope
		http     int
		wait     time.Duration
		accepted int
	}{
		"429 with Retry-After":        {whatsapptest.RateLimited(7 * time.Second), 0, whatsapp.Limited, whatsapp.ScopeNumber, 429, 7 * time.Second, 0},
		"429 without":                 {whatsapptest.RateLimited(0), 0, whatsapp.Limited, whatsapp.ScopeNumber, 429, time.Second, 0},
		"400 130429":                  {whatsapptest.GraphError(400, 130429, "x"), 0, whatsapp.Limited, whatsapp.ScopeNumber, 400, time.Second, 0},
		"pair limit":                  {whatsapptest.GraphError(400, 131056, "x"), 0, whatsapp.Limited, whatsapp.ScopePair, 400, time.Second, 0},
		"window closed":               {whatsapptest.GraphError(400, 131047, "x"), 0, whatsapp.Rejected, whatsapp.ScopeMessage, 400, 0, 0},
		"marketing cap":               {whatsapptest.GraphError(400, 131049, "x"), 0, whatsapp.Rejected, whatsapp.ScopeRecipient, 400, 24 * time.Hour, 0},
		"131016":                      {whatsapptest.Unavailable(), 0, whatsapp.NotSent, whatsapp.ScopeMessage, 500, 0, 0},
		"131057":                      {whatsapptest.GraphError(500, 131057, "x"), 0, whatsapp.Limited, whatsapp.ScopeNumber, 500, time.Minute, 0},
		"500 JSON":                    {whatsapptest.ServerError(), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 500, 0, 0},
		"502 HTML":                    {whatsapptest.GatewayHTML(502), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 502, 0, 0},
		"503 HTML":                    {whatsapptest.GatewayHTML(503), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 503, 0, 0},
		"429 HTML":                    {whatsapptest.GatewayHTML(429), 0, whatsapp.Limited, whatsapp.ScopeNumber, 429, time.Second, 0},
		"400 HTML":                    {whatsapptest.GatewayHTML(400), 0, whatsapp.Rejected, whatsapp.ScopeMessage, 400, 0, 0},
		"302":                         {whatsapptest.Answer(302, "text/html", "moved"), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 302, 0, 0},
		"502 after accepting":         {whatsapptest.GatewayAfterAccepting(502), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 502, 0, 1},
		"200 of HTML":                 {whatsapptest.Answer(200, "text/html", "<html>"), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 200, 0, 0},
		"200 without an id":           {whatsapptest.Answer(200, "application/json", `{"messages":[]}`), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 200, 0, 0},
		"200 with an error":           {whatsapptest.Answer(200, "application/json", `{"error":{"code":131026}}`), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 200, 0, 0},
		"200 without end":             {whatsapptest.Answer(200, "application/json", `{"messages":[{"id":"x"}],"x":"`+strings.Repeat("x", 1<<17)+`"}`), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 200, 0, 0},
		"reset before reading":        {whatsapptest.ResetBeforeReading(), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 0, 0, 0},
		"reset after accepting":       {whatsapptest.ResetAfterAccepting(), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 0, 0, 1},
		"truncated after accepting":   {whatsapptest.TruncateAfterAccepting(), 0, whatsapp.Ambiguous, whatsapp.ScopeMessage, 200, 0, 1},
		"time-out":                    {whatsapptest.Hang(), 100 * time.Millisecond, whatsapp.Ambiguous, whatsapp.ScopeMessage, 0, 0, 0},
		"time-out after accepting":    {whatsapptest.HangAfterAccepting(), 100 * time.Millisecond, whatsapp.Ambiguous, whatsapp.ScopeMessage, 0, 0, 1},
		"unknown code, Meta says try": {whatsapptest.Answer(400, "application/json", `{"error":{"code":999999,"is_transient":true}}`), 0, whatsapp.Rejected, whatsapp.ScopeMessage, 400, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s.Behave()
			before := len(s.Accepted())
			requests := len(s.Requests())
			s.Next(1, tc.fault)
			ctx := t.Context()
			if tc.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tc.timeout)
				defer cancel()
			}
			r, err := c.SendRaw(ctx, acc, text(t, "hi", name))
			if err == nil {
				t.Fatalf("accepted: %+v", r)
			}
			e := apiError(t, err)
			if e.Outcome != tc.outcome || e.Scope() != tc.scope || e.HTTP != tc.http || e.RetryAfter() != tc.wait {
				t.Errorf("%+v: outcome %s, scope %s, HTTP %d, wait %v", e, e.Outcome, e.Scope(), e.HTTP, e.RetryAfter())
			}
			if e.Ambiguous() != (tc.outcome == whatsapp.Ambiguous) {
				t.Error("Ambiguous")
			}
			wantTemporary := tc.outcome != whatsapp.Rejected || strings.Contains(name, "try")
			if e.Temporary() != wantTemporary {
				t.Error("Temporary", e.Temporary())
			}
			if tc.timeout > 0 && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no DeadlineExceeded", err)
			}
			if n := len(s.Accepted()) - before; n != tc.accepted {
				t.Errorf("%d accepted, want %d", n, tc.accepted)
			}
			if n := len(s.Requests()) - requests; n != 1 {
				t.Errorf("%d requests for one send", n)
			}
		})
	}
}

func TestNotSentWhenNothingWasWritten(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	plainHTTP := httptest.NewServer(http.NotFoundHandler()) // speaks no TLS
	defer plainHTTP.Close()
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		base string
		ctx  context.Context
	}{
		"refused":      {"http://" + closed.Addr().String(), t.Context()},
		"no such name": {"http://graph.invalid", t.Context()},
		"no TLS":       {"https://" + strings.TrimPrefix(plainHTTP.URL, "http://"), t.Context()},
		"no time":      {plainHTTP.URL, expired},
	} {
		c := whatsapp.New(whatsapp.Config{BaseURL: tc.base}, plain(t))
		_, err := c.SendRaw(tc.ctx, acc, text(t, "hi", ""))
		if e := apiError(t, err); e.Outcome != whatsapp.NotSent || !e.Temporary() || e.Ambiguous() || e.HTTP != 0 {
			t.Errorf("%s: %v, %s", name, err, e.Outcome)
		}
	}
}

// TestHalfWrittenIsNotSent cuts the connection in the middle of the request's
// body: the other side cannot have it all, and the client knows.
func TestHalfWrittenIsNotSent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(conn, make([]byte, 2000))
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}()
	c := whatsapp.New(whatsapp.Config{BaseURL: "http://" + ln.Addr().String()}, plain(t))
	_, err = c.SendRaw(t.Context(), acc, bytes.Repeat([]byte("x"), 64<<20)) // far more than the socket holds
	if e := apiError(t, err); e.Outcome != whatsapp.NotSent {
		t.Errorf("%v: %s", err, e.Outcome)
	}
}

// TestNoSendIsWrittenTwice uses kept-alive connections that the server drops
// under the client's next request, where a transport is tempted to try again.
func TestNoSendIsWrittenTwice(t *testing.T) {
	s, c := graph(t, whatsapptest.Config{})
	for i, f := range []whatsapptest.Fault{whatsapptest.ResetAfterAccepting(), whatsapptest.ResetBeforeReading(), whatsapptest.TruncateAfterAccepting()} {
		for j := range 20 {
			if _, err := c.SendRaw(t.Context(), acc, text(t, "warm", fmt.Sprintf("warm-%d-%d", i, j))); err != nil {
				t.Fatal(err)
			}
			before := len(s.Requests())
			s.Next(1, f)
			_, err := c.SendRaw(t.Context(), acc, text(t, "hi", fmt.Sprintf("cut-%d-%d", i, j)))
			if err == nil || !apiError(t, err).Ambiguous() {
				t.Fatalf("%s: %v", f.Name, err)
			}
			if n := len(s.Requests()) - before; n != 1 {
				t.Fatalf("%s: written %d times", f.Name, n)
			}
		}
	}
	if d := s.Duplicates(); len(d) != 0 {
		t.Errorf("accepted twice: %v", d)
	}
	var accepted int // a server that ends every connection once it has accepted
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		accepted++
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, `{"messages":[{"id":"wamid.1"}]}`)
	}))
	defer srv.Close()
	c = whatsapp.New(whatsapp.Config{BaseURL: srv.URL}, plain(t))
	for range 20 {
		if _, err := c.SendRaw(t.Context(), acc, text(t, "hi", "")); err != nil {
			t.Fatal(err)
		}
	}
	if accepted != 20 {
		t.Errorf("%d accepted of 20", accepted)
	}
}

// TestIdleConnectionDropped sends on a connection that the server closed while
// it lay idle: the message arrives at most once, and the verdict is never wrong.
func TestIdleConnectionDropped(t *testing.T) {
	var accepted atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		accepted.Add(1)
		_, _ = io.WriteString(w, `{"messages":[{"id":"wamid.1"}]}`)
	}))
	defer srv.Close()
	c := whatsapp.New(whatsapp.Config{BaseURL: srv.URL}, plain(t))
	sent, unclear := int64(0), int64(0)
	for range 100 {
		if _, err := c.SendRaw(t.Context(), acc, text(t, "hi", "")); err == nil {
			sent++
		} else if apiError(t, err).Ambiguous() {
			unclear++
		}
		srv.CloseClientConnections()
	}
	if n := accepted.Load(); n < sent || n > sent+unclear {
		t.Errorf("%d accepted, %d sent, %d unclear", n, sent, unclear)
	}
}

// TestOverHTTP2 is how Graph is spoken to in earnest: a stream that breaks after
// the request was read is one request and an ambiguous one.
func TestOverHTTP2(t *testing.T) {
	var requests atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		requests.Add(1)
		if r.ProtoMajor != 2 {
			t.Errorf("HTTP/%d", r.ProtoMajor)
		}
		if bytes.Contains(b, []byte("break")) {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"messages":[{"id":"wamid.1"}]}`)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c := whatsapp.New(whatsapp.Config{BaseURL: srv.URL}, srv.Client())
	for i := range int64(20) {
		if _, err := c.SendRaw(t.Context(), acc, text(t, "hi", "")); err != nil {
			t.Fatal(err)
		}
		_, err := c.SendRaw(t.Context(), acc, text(t, "break", ""))
		if err == nil || !apiError(t, err).Ambiguous() || requests.Load() != 2*(i+1) {
			t.Fatalf("%v after %d requests", err, requests.Load())
		}
	}
}

func TestRefusalsOfTheServer(t *testing.T) {
	s, c := graph(t, whatsapptest.Config{})
	object := func(name, lang string, params ...string) json.RawMessage {
		p, err := whatsapp.BodyParameters(params)
		if err != nil {
			t.Fatal(err)
		}
		o, err := whatsapp.TemplateObject(name, lang, p)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	foreign, expired := acc, acc
	foreign.PhoneNumberID, expired.Token = "399999999999999", "other"
	tmpl := func(o json.RawMessage) whatsapp.SendRequest {
		return whatsapp.SendRequest{To: "12025550143", Type: "template", Object: o}
	}
	for name, tc := range map[string]struct {
		acc           whatsapp.Account
		req           whatsapp.SendRequest
		code, subcode int
		http          int
		scope         whatsapp.Scope
	}{
		"unknown number":  {foreign, tmpl(object("plain", "en_US")), 100, 33, 400, whatsapp.ScopeNumber},
		"bad token":       {expired, tmpl(object("plain", "en_US")), 190, 463, 401, whatsapp.ScopeAccount},
		"no template":     {acc, tmpl(object("none", "en")), 132001, 0, 404, whatsapp.ScopeTemplate},
		"no language":     {acc, tmpl(object("plain", "fr")), 132001, 0, 404, whatsapp.ScopeTemplate},
		"not approved":    {acc, tmpl(object("waiting", "en")), 132001, 0, 404, whatsapp.ScopeTemplate},
		"paused":          {acc, tmpl(object("paused", "en")), 132015, 0, 400, whatsapp.ScopeTemplate},
		"too few":         {acc, tmpl(object("appointment_confirmed", "en", "a", "b")), 132000, 0, 400, whatsapp.ScopeTemplate},
		"too many":        {acc, tmpl(object("plain", "en_US", "a")), 132000, 0, 400, whatsapp.ScopeTemplate},
		"missing":         {acc, whatsapp.SendRequest{To: "12025550143", Type: "reaction", Object: json.RawMessage(`{"emoji":"x"}`)}, 131008, 0, 400, whatsapp.ScopeTemplate},
		"a wrong type":    {acc, whatsapp.SendRequest{To: "12025550143", Type: "text", Object: json.RawMessage(`{"body":5}`)}, 100, 0, 400, whatsapp.ScopeTemplate},
		"too long":        {acc, whatsapp.SendRequest{To: "12025550143", Type: "text", Object: json.RawMessage(`{"body":"` + strings.Repeat("x", 4097) + `"}`)}, 100, 0, 400, whatsapp.ScopeTemplate},
		"no such phone":   {acc, whatsapp.SendRequest{To: "abc", Type: "text", Object: json.RawMessage(`{"body":"x"}`)}, 131009, 0, 400, whatsapp.ScopeTemplate},
		"no such user id": {acc, whatsapp.SendRequest{Recipient: "abc", Type: "text", Object: json.RawMessage(`{"body":"x"}`)}, 131009, 0, 400, whatsapp.ScopeTemplate},
		"to itself":       {acc, whatsapp.SendRequest{To: "+12025550170", Type: "text", Object: json.RawMessage(`{"body":"x"}`)}, 131021, 0, 400, whatsapp.ScopeRecipient},
		"unknown file":    {acc, whatsapp.SendRequest{To: "12025550143", Type: "image", Object: json.RawMessage(`{"id":"1"}`)}, 131009, 0, 400, whatsapp.ScopeTemplate},
	} {
		_, err := c.Send(t.Context(), tc.acc, tc.req)
		e := apiError(t, err)
		if e.Code != tc.code || e.Subcode != tc.subcode || e.HTTP != tc.http || e.Outcome != whatsapp.Rejected || e.Scope() != tc.scope || e.Temporary() || e.TraceID == "" {
			t.Errorf("%s: %v (%s %s)", name, err, e.Outcome, e.Scope())
		}
		if e.Details == "" && e.Message == "" {
			t.Errorf("%s: no words for the operator", name)
		}
	}
	if n := len(s.Accepted()); n != 0 {
		t.Errorf("%d accepted", n)
	}
	for _, r := range s.Requests() {
		if r.InQuery {
			t.Error("a token stood in an address")
		}
	}
}

func TestIncompleteCallsAreNotMade(t *testing.T) {
	s, c := graph(t, whatsapptest.Config{})
	ctx := t.Context()
	for name, f := range map[string]func() error{
		"no token":  func() error { _, err := c.SendRaw(ctx, whatsapp.Account{PhoneNumberID: "1"}, []byte("{}")); return err },
		"no number": func() error { _, err := c.SendRaw(ctx, whatsapp.Account{Token: token}, []byte("{}")); return err },
		"a path": func() error {
			_, err := c.SendRaw(ctx, whatsapp.Account{Token: token, PhoneNumberID: "1/../2"}, []byte("{}"))
			return err
		},
		"a query":         func() error { _, err := c.Media(ctx, acc, "1?x=2"); return err },
		"dots":            func() error { _, err := c.Media(ctx, acc, ".."); return err },
		"read of nothing": func() error { return c.MarkRead(ctx, acc, "", false) },
		"no name":         func() error { return c.DeleteTemplate(ctx, acc, "", "") },
		"no mime":         func() error { _, err := c.UploadMedia(ctx, acc, "", "x", strings.NewReader("x")); return err },
		"no base": func() error {
			_, err := whatsapp.New(whatsapp.Config{BaseURL: "graph"}, nil).Media(ctx, acc, "1")
			return err
		},
	} {
		if err := f(); !errors.Is(err, whatsapp.ErrRequest) || apiError(t, err).Outcome != whatsapp.Rejected || apiError(t, err).Temporary() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d calls made", n)
	}
}
