package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a shell with sample operations behind a real server.
type house struct {
	t        *testing.T
	api      *api.API
	url      string
	services store.DB
	ring     *secret.Ring
	log      *journal
	calls    atomic.Int64  // handlers run
	released atomic.Int64  // tenants given back
	opened   atomic.Int64  // tenants opened
	entered  chan struct{} // a slow handler has begun
	leave    chan struct{} // closed: slow handlers go on
	now      atomic.Int64  // offset of the clock, ns
	ready    atomic.Pointer[error]
}

// journal keeps what was logged.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// line waits for a log line with all the given pieces: the log is written after the answer.
func (j *journal) line(t *testing.T, pieces ...string) string {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		for l := range strings.Lines(j.text()) {
			if !slices.ContainsFunc(pieces, func(p string) bool { return !strings.Contains(l, p) }) {
				return l
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no log line with %q in:\n%s", pieces, j.text())
		}
		time.Sleep(time.Millisecond)
	}
}

const (
	goodKey    = "ek_good"
	adminToken = "admin-token-1"
	sessionTok = "session-"
)

type options func(*api.Config)

func newHouse(t *testing.T, opts ...options) *house {
	t.Helper()
	h := &house{t: t, log: &journal{}, entered: make(chan struct{}, 8), leave: make(chan struct{})}
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "services.db"), []store.Schema{api.IdempotencyKeys.Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	h.services = db
	if h.ring, err = secret.ParseRing(secret.Generate("k1")); err != nil {
		t.Fatal(err)
	}
	cfg := api.Config{
		PublicURL: "https://ecod.example.test", Version: "1.2.3",
		Log:         slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		VerifyKey:   verifyKey,
		VerifyAdmin: func(token string) bool { return token == adminToken },
		VerifySession: func(_ context.Context, token string) (api.Caller, error) {
			role, ok := strings.CutPrefix(token, sessionTok)
			if !ok {
				return api.Caller{}, fault.New(fault.Unauthenticated, "auth.invalid", "The session is over.")
			}
			return api.Caller{Client: "ACME", Kind: api.KindSession, KeyID: "ses_1", UserID: "usr_1", Role: role}, nil
		},
		Open: h.openTenant,
		OriginAllowed: func(client, origin string) bool {
			return origin == "https://shop.example" && (client == "" || client == "ACME")
		},
		Services: db, Ring: h.ring, Metrics: prometheus.NewRegistry(),
		Ready: []api.Check{
			{Name: "storage", Run: func(context.Context) error { return nil }},
			{Name: "workers", Run: func(context.Context) error {
				if e := h.ready.Load(); e != nil {
					return *e
				}
				return nil
			}},
		},
		Now: func() time.Time { return time.Now().Add(time.Duration(h.now.Load())) },
	}
	for _, o := range opts {
		o(&cfg)
	}
	h.api = api.New(cfg)
	h.sample()
	srv := httptest.NewServer(h.api)
	t.Cleanup(srv.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	h.url = srv.URL
	return h
}

func (h *house) openTenant(_ context.Context, code string) (*tenant.Tenant, func(), error) {
	h.opened.Add(1)
	return &tenant.Tenant{Code: code}, func() { h.released.Add(1) }, nil
}

func verifyKey(_ context.Context, code, key string) (api.Caller, error) {
	code = strings.ToUpper(code)
	switch {
	case key != goodKey || (code != "ACME" && code != "BETA" && code != "GONE"):
		return api.Caller{}, fault.New(fault.Unauthenticated, "auth.invalid", "The key is not right.")
	case code == "GONE":
		return api.Caller{}, fault.New(fault.Forbidden, "client.suspended", "The client is suspended.")
	}
	return api.Caller{Client: code, Kind: api.KindKey, KeyID: "key_1"}, nil
}

type (
	action struct {
		Type   string   `json:"type" enum:"wait,send"`
		Points int32    `json:"points,omitempty"`
		Then   []action `json:"then,omitempty"`
	}
	thing struct {
		Name      string            `json:"name" minLength:"1" maxLength:"20"`
		Count     int64             `json:"count,omitempty" minimum:"0"`
		Email     string            `json:"email,omitempty" format:"email"`
		Site      string            `json:"site,omitempty" format:"uri"`
		When      *api.Time         `json:"when,omitempty"`
		Tags      []string          `json:"tags,omitempty"`
		Actions   []action          `json:"actions,omitempty"`
		Labels    map[string]string `json:"labels,omitempty"`
		Variables map[string]any    `json:"variables,omitempty"`
		Secret    string            `json:"secret,omitempty" maxLength:"5"`
		Odd       *odd              `json:"odd,omitempty"`
	}
	thingView struct {
		ID        string    `json:"id"`
		Name      string    `json:"name"`
		CreatedAt api.Time  `json:"createdAt"`
		EndedAt   *api.Time `json:"endedAt" nullable:"true"`
	}
	thingInput struct{ Body thing }
	IDInput    struct {
		ID string `path:"id" maxLength:"30"`
	}
	createdThing struct {
		Location string `header:"Location"`
		Body     thingView
	}
)

// odd decodes itself and has its own rule.
type odd struct{ N int }

func (*odd) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: huma.TypeInteger} }

func (o *odd) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &o.N); err != nil {
		return err
	}
	if o.N%2 == 0 {
		return fault.Bad("/odd", "Expected an odd number.")
	}
	return nil
}

var madeAt = time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.FixedZone("", 3600))

func (h *house) sample() {
	a := h.api
	api.Client(a, api.Op{Route: "POST /api/things", ID: "createThing", Tag: "Things", Summary: "Create a thing", Status: 201},
		func(ctx context.Context, tn *tenant.Tenant, in *thingInput) (*createdThing, error) {
			n := h.calls.Add(1)
			switch in.Body.Name {
			case "taken":
				f := fault.New(fault.Conflict, "thing.exists", "There is such a thing.")
				f.Extra = map[string]any{"id": "thg_1", "status": 1}
				return nil, f
			case "broken":
				return nil, errors.New("the pump hit hunter2")
			case "busy":
				f := fault.New(fault.Limited, "thing.busy", "Slow down.")
				f.RetryAfter = 1500 * time.Millisecond
				return nil, f
			case "panics":
				panic("boom hunter3")
			case "slow":
				h.entered <- struct{}{}
				select {
				case <-h.leave:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			id := fmt.Sprintf("thg_%d", n)
			return &createdThing{Location: "/api/things/" + id, Body: thingView{ID: id, Name: tn.Code + " " + in.Body.Name, CreatedAt: api.Time{Time: madeAt}}}, nil
		})
	type listInput struct {
		api.Page
		Tag   []string `query:"tag,explode"`
		After api.Time `query:"after"`
	}
	api.Client(a, api.Op{Route: "GET /api/things", ID: "listThings", Tag: "Things", Summary: "List things"},
		func(_ context.Context, _ *tenant.Tenant, in *listInput) (*api.Answer[api.List[thingView]], error) {
			at, err := in.Page.After("things:id")
			if err != nil {
				return nil, err
			}
			from := 0
			if at != nil {
				_, _ = fmt.Sscanf(at.ID, "thg_%d", &from)
			}
			var rows []int
			for i := from + 1; i <= 5 && len(rows) <= in.Limit; i++ {
				rows = append(rows, i)
			}
			return api.ListOf(rows, in.Page, "things:id",
				func(i int) store.Cursor { return store.Cursor{ID: fmt.Sprintf("thg_%d", i)} },
				func(i int) thingView { return thingView{ID: fmt.Sprintf("thg_%d", i)} }), nil
		})
	api.Client(a, api.Op{Route: "GET /api/things/{id}", ID: "getThing", Tag: "Things", Summary: "Read a thing"},
		func(ctx context.Context, _ *tenant.Tenant, in *IDInput) (*api.Answer[thingView], error) {
			switch in.ID {
			case "offline":
				return nil, fmt.Errorf("read thing: %w", fmt.Errorf("sqlite: %w", store.ErrUnavailable))
			case "inner":
				return nil, fault.Wrap(fmt.Errorf("x: %w", store.ErrUnavailable), fault.Internal, "x", "x")
			case "cancelled":
				return nil, context.Canceled
			case "late":
				return nil, fmt.Errorf("x: %w", context.DeadlineExceeded)
			case "wrapped":
				return nil, fmt.Errorf("x: %w", fault.Missing("thing"))
			case "waits":
				<-ctx.Done()
				return nil, ctx.Err()
			case "thg_1":
				return api.OK(thingView{ID: in.ID, Name: "<b>", CreatedAt: api.Time{Time: madeAt}})
			}
			return nil, fault.Missing("thing")
		})
	type patchInput struct {
		IDInput
		Body struct {
			Name  api.Optional[string]   `json:"name,omitzero" maxLength:"5"`
			Note  api.Optional[string]   `json:"note,omitzero"`
			Inner api.Optional[action]   `json:"inner,omitzero"`
			At    api.Optional[api.Time] `json:"at,omitzero"`
		}
	}
	api.Client(a, api.Op{Route: "PATCH /api/things/{id}", ID: "patchThing", Tag: "Things", Summary: "Change a thing"},
		func(_ context.Context, _ *tenant.Tenant, in *patchInput) (*api.Answer[map[string]any], error) {
			name, note := "old", "old"
			in.Body.Name.Apply(&name)
			in.Body.Note.Apply(&note)
			return api.OK(map[string]any{"name": name, "note": note, "inner": in.Body.Inner.Set, "at": in.Body.At.Value.String()})
		})
	api.Client(a, api.Op{Route: "DELETE /api/things/{id}", ID: "deleteThing", Tag: "Things", Summary: "Delete a thing", Role: api.RoleOwner},
		func(context.Context, *tenant.Tenant, *IDInput) (*struct{}, error) { return nil, nil })
	api.ClientCall(a, api.Op{Route: "POST /api/things/{id}/publish", ID: "publishThing", Tag: "Things", Summary: "Publish a thing"},
		func(ctx context.Context, c api.Caller, in *IDInput) (*api.Answer[map[string]string], error) {
			h.calls.Add(1)
			return api.OK(map[string]string{"client": c.Client, "once": api.Once(ctx)})
		})
	api.Client(a, api.Op{Route: "GET /api/bad", ID: "badThing", Tag: "Things", Summary: "Cannot be marshalled"},
		func(context.Context, *tenant.Tenant, *struct{}) (*api.Answer[map[string]any], error) {
			return api.OK(map[string]any{"n": math.NaN()})
		})
	api.Admin(a, api.Op{Route: "POST /api/clients/{id}/keys", ID: "rotateKey", Tag: "Clients", Summary: "New key", Status: 201},
		func(context.Context, *IDInput) (*api.Answer[map[string]string], error) {
			return api.OK(map[string]string{"apiKey": fmt.Sprintf("ek_topsecret_%d", h.calls.Add(1))})
		})
	api.Public(a, api.Op{Route: "GET /api/ping", ID: "ping", Tag: "Standing", Summary: "Ping"},
		func(context.Context, *struct{}) (*api.Answer[map[string]bool], error) {
			return api.OK(map[string]bool{"ok": true})
		})
	api.Stream(a, api.AccessClient, api.Op{Route: "POST /api/uploads", ID: "upload", Tag: "Media", Summary: "Upload", Status: 201, MaxBody: 3 << 20},
		func(w http.ResponseWriter, r *http.Request) error {
			n := h.calls.Add(1)
			var size int64
			if mr, err := r.MultipartReader(); err == nil {
				p, err := mr.NextPart()
				if err != nil {
					return fault.Wrap(err, fault.Malformed, "multipart.malformed", "This is not a form.")
				}
				if size, err = io.Copy(io.Discard, p); err != nil {
					return err
				}
			} else if size, err = io.Copy(io.Discard, r.Body); err != nil {
				return err
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_, err := fmt.Fprintf(w, `{"n":%d,"size":%d}`, n, size)
			return err
		})
	api.Stream(a, api.AccessClient, api.Op{Route: "GET /api/things/{id}/content", ID: "thingContent", Tag: "Things", Summary: "Bytes"},
		func(w http.ResponseWriter, r *http.Request) error {
			switch r.PathValue("id") {
			case "missing":
				return fault.Missing("thing")
			case "cut":
				_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
				return errors.New("disk")
			}
			_, err := io.WriteString(w, "bytes of "+api.CallerOf(r.Context()).Client)
			return err
		})
	a.HandleFunc("POST /plain", func(http.ResponseWriter, *http.Request) error { return fault.New(fault.Forbidden, "plain.no", "No.") })
	a.Handle("GET /panics", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic("plain boom") }))
}

// reply is what came back.
type reply struct {
	*http.Response
	body []byte
}

func (r reply) json(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Fatalf("%d: not JSON: %v: %.200s", r.StatusCode, err, r.body)
	}
	return m
}

// request builds a request of the client ACME; header pairs override ("" removes).
func (h *house) request(method, path string, body io.Reader, header ...string) *http.Request {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", goodKey)
	req.Header.Set("X-Client-Code", "acme")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if req.Header.Del(header[i]); header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	return req
}

func (h *house) send(req *http.Request) reply {
	h.t.Helper()
	res, err := http.DefaultTransport.RoundTrip(req) // no redirects
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return reply{res, b}
}

func (h *house) do(method, path, body string, header ...string) reply {
	h.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	return h.send(h.request(method, path, r, header...))
}

// problem checks that a reply is a whole problem document, and gives it.
func (h *house) problem(r reply, status int, code string) map[string]any {
	h.t.Helper()
	if r.StatusCode != status {
		h.t.Fatalf("status %d, want %d: %.300s", r.StatusCode, status, r.body)
	}
	if mt, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mt != "application/problem+json" {
		h.t.Fatalf("content type %q: %.300s", r.Header.Get("Content-Type"), r.body)
	}
	p := r.json(h.t)
	if p["code"] != code {
		h.t.Fatalf("code %q, want %q: %s", p["code"], code, r.body)
	}
	if p["instance"] == "" || p["instance"] != r.Header.Get("X-Request-Id") {
		h.t.Fatalf("instance %q, x-request-id %q", p["instance"], r.Header.Get("X-Request-Id"))
	}
	if p["type"] != "urn:ecod:problem:"+code || p["status"] != float64(status) || p["title"] == "" || p["detail"] == "" {
		h.t.Fatalf("incomplete: %s", r.body)
	}
	if s := r.Header.Get("Retry-After"); (status == 429 || status == 503) && s == "" {
		h.t.Fatal("no Retry-After")
	}
	return p
}

// pointers gives the places that a problem names.
func pointers(p map[string]any) []string {
	var out []string
	errs, _ := p["errors"].([]any)
	for _, e := range errs {
		out = append(out, e.(map[string]any)["pointer"].(string))
	}
	return out
}

func TestAnswers(t *testing.T) {
	h := newHouse(t)
	r := h.do("POST", "/api/things", `{"name":"x"}`)
	if r.StatusCode != 201 || r.Header.Get("Location") != "/api/things/thg_1" {
		t.Fatalf("%d %s %v", r.StatusCode, r.body, r.Header)
	}
	if got := string(r.body); got != `{"id":"thg_1","name":"ACME x","createdAt":"2026-11-22T09:00:00.123Z","endedAt":null}`+"\n" {
		t.Fatalf("%s", got)
	}
	if id := r.Header.Get("X-Request-Id"); !strings.HasPrefix(id, "req_") {
		t.Fatalf("request id %q", id)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if r := h.do("DELETE", "/api/things/thg_1", ""); r.StatusCode != 204 || len(r.body) != 0 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	if r := h.do("GET", "/api/things/thg_1", "", "Accept", "text/html, */*;q=0.1"); r.Header.Get("Content-Type") != "application/json" || !strings.Contains(string(r.body), `"<b>"`) {
		t.Fatalf("%s %s", r.Header, r.body)
	}
	if r := h.do("HEAD", "/api/things/thg_1", ""); r.StatusCode != 200 || r.ContentLength <= 0 {
		t.Fatalf("HEAD: %d %d", r.StatusCode, r.ContentLength)
	}
	if o, c := h.opened.Load(), h.released.Load(); o != 4 || c != 4 {
		t.Fatalf("%d databases opened, %d released", o, c)
	}
	if r := h.do("GET", "/api/things/thg_1/content", ""); string(r.body) != "bytes of ACME" {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
}

func TestOptional(t *testing.T) {
	h := newHouse(t)
	for body, want := range map[string]string{
		`{}`:                                 `{"at":"","inner":false,"name":"old","note":"old"}`,
		`{"name":"new","note":null}`:         `{"at":"","inner":false,"name":"new","note":""}`,
		`{"inner":{"type":"wait"}}`:          `{"at":"","inner":true,"name":"old","note":"old"}`,
		`{"at":"2026-01-01T00:00:00+02:00"}`: `{"at":"2025-12-31T22:00:00.000Z","inner":false,"name":"old","note":"old"}`,
	} {
		if r := h.do("PATCH", "/api/things/x", body); r.StatusCode != 200 || strings.TrimSpace(string(r.body)) != want {
			t.Errorf("%s: %d %s", body, r.StatusCode, r.body)
		}
	}
	p := h.problem(h.do("PATCH", "/api/things/x", `{"name":"too long","inner":{"type":"x"}}`), 422, "invalid")
	if got := fmt.Sprint(pointers(p)); got != "[/inner/type /name]" {
		t.Error(got)
	}
}

func TestRequestIDs(t *testing.T) {
	h := newHouse(t)
	for sent, kept := range map[string]bool{
		"abcd-1234_XYZ": true, strings.Repeat("a", 64): true,
		"short": false, strings.Repeat("a", 65): false, "has space1": false, "évil-évil": false, `quote"quote`: false,
	} {
		r := h.do("GET", "/api/things/none", "", "X-Request-Id", sent)
		h.problem(r, 404, "thing.not_found")
		if got := r.Header.Get("X-Request-Id"); (got == sent) != kept {
			t.Errorf("%q became %q", sent, got)
		}
	}
}

func TestAccessLogTellsNoSecret(t *testing.T) {
	h := newHouse(t)
	r := h.do("POST", "/api/things?token=hunter0", `{"name":"hunter1"}`, "X-Request-Id", "trace-12345")
	if r.StatusCode != 201 {
		t.Fatal(string(r.body))
	}
	l := h.log.line(t, "msg=request", "trace-12345")
	for _, want := range []string{"method=POST", `route="POST /api/things"`, "status=201", "ms=", "bytes=", "client=ACME"} {
		if !strings.Contains(l, want) {
			t.Errorf("no %s in %s", want, l)
		}
	}
	h.do("GET", "/api/hunter4?x=hunter5", "", "X-Request-Id", "trace-12346")
	h.log.line(t, "msg=request", "trace-12346", "status=404", `route=""`)
	for _, s := range []string{"hunter0", "hunter1", "hunter4", "hunter5", goodKey} {
		if strings.Contains(h.log.text(), s) {
			t.Errorf("the log holds %s", s)
		}
	}
}
