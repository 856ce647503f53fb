package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
)

func TestHealth(t *testing.T) {
	h := newHouse(t)
	if r := h.do("GET", "/healthz", ""); r.StatusCode != 200 || strings.TrimSpace(string(r.body)) != `{"status":"ok"}` {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	if r := h.do("GET", "/readyz", ""); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	err := errors.New("no worker at 10.0.0.7")
	h.ready.Store(&err)
	r := h.do("GET", "/readyz", "")
	if p := h.problem(r, 503, "not_ready"); fmt.Sprint(p["failing"]) != "[workers]" || strings.Contains(string(r.body), "10.0.0.7") {
		t.Fatalf("%s", r.body)
	}
	h.ready.Store(nil)
	h.api.Drain()
	if p := h.problem(h.do("GET", "/readyz", ""), 503, "not_ready"); fmt.Sprint(p["failing"]) != "[draining]" {
		t.Fatalf("%v", p)
	}
	if r := h.do("GET", "/healthz", ""); r.StatusCode != 200 {
		t.Fatalf("draining is not dying: %d", r.StatusCode)
	}
}

func TestReadyDoesNotHang(t *testing.T) {
	h := newHouse(t, func(c *api.Config) {
		c.Ready = []api.Check{{Name: "stuck", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}}
	})
	p := h.problem(h.do("GET", "/readyz", ""), 503, "not_ready")
	if fmt.Sprint(p["failing"]) != "[stuck]" {
		t.Fatalf("%v", p)
	}
}

func TestMetrics(t *testing.T) {
	h := newHouse(t)
	h.do("GET", "/api/things/thg_1", "")
	h.do("GET", "/api/things/thg_2", "")
	h.do("GET", "/api/nothing-"+strings.Repeat("x", 20), "")
	h.do("BREW", "/api/things", "")
	r := h.do("GET", "/metrics", "")
	for _, want := range []string{
		`ecod_http_requests_total{method="GET",route="/api/things/{id}",status="200"} 1`,
		`ecod_http_requests_total{method="GET",route="/api/things/{id}",status="404"} 1`,
		`ecod_http_requests_total{method="GET",route="none",status="404"} 1`,
		`ecod_http_requests_total{method="other",route="none",status="405"} 1`,
		`ecod_http_request_duration_seconds_count{method="GET",route="/api/things/{id}"} 2`,
		`ecod_http_requests_in_flight 1`,
	} {
		if !strings.Contains(string(r.body), want) {
			t.Errorf("no %s", want)
		}
	}
	h.problem(h.do("GET", "/metrics", "", "X-Forwarded-For", "203.0.113.9"), 401, "auth.missing")
	h.problem(h.do("GET", "/metrics", "", "X-Forwarded-For", "203.0.113.9", "Authorization", "Bearer no"), 401, "auth.invalid")
	if r := h.do("GET", "/metrics", "", "X-Forwarded-For", "203.0.113.9", "Authorization", "Bearer "+adminToken); r.StatusCode != 200 {
		t.Errorf("%d", r.StatusCode)
	}
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.RemoteAddr = "203.0.113.9:1234"
	w := httptest.NewRecorder()
	if h.api.ServeHTTP(w, req); w.Code != 401 {
		t.Errorf("open to the world: %d", w.Code)
	}
}

func TestDashboardBehindTheRoutes(t *testing.T) {
	h := newHouse(t, func(c *api.Config) {
		c.Web = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "page "+r.URL.Path) })
	})
	for _, path := range []string{"/", "/leads/7", "/apiary"} {
		if r := h.do("GET", path, ""); string(r.body) != "page "+path {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
	h.problem(h.do("GET", "/api/nothing", ""), 404, "not_found")
	h.problem(h.do("GET", "/api", ""), 404, "not_found")
	h.problem(h.do("PUT", "/api/things", ""), 405, "method_not_allowed")
	h.problem(h.do("POST", "/healthz", ""), 405, "method_not_allowed")
}

var otherHost = regexp.MustCompile(`(?i)(https?:)?//[a-z]`)

func TestDocsAreOffline(t *testing.T) {
	h := newHouse(t)
	page := h.do("GET", "/docs", "")
	if page.StatusCode != 200 || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d %v", page.StatusCode, page.Header)
	}
	csp := page.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "script-src 'self';") || !strings.Contains(csp, "default-src 'none'") || otherHost.MatchString(csp) {
		t.Errorf("policy %q", csp)
	}
	if m := otherHost.FindString(string(page.body)); m != "" || regexp.MustCompile(`<script>|\son\w+=|<style`).Match(page.body) {
		t.Errorf("another host, or something inline: %q in %s", m, page.body)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(string(page.body), -1) {
		r := h.do("GET", "/"+m[1], "", "Accept-Encoding", "identity")
		if r.StatusCode != 200 || len(r.body) < 100 || r.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %d, %d bytes, %v", m[1], r.StatusCode, len(r.body), r.Header)
		}
		packed := h.do("GET", "/"+m[1], "", "Accept-Encoding", "gzip")
		if len(packed.body) > len(r.body) || packed.StatusCode != 200 {
			t.Errorf("%s packed: %d bytes", m[1], len(packed.body))
		}
	}
	if r := h.do("GET", "/docs/init.js", ""); otherHost.Match(r.body) || !strings.Contains(string(r.body), "openapi.json") {
		t.Errorf("%s", r.body)
	}
	if r := h.do("GET", "/docs/", ""); r.StatusCode != 301 || r.Header.Get("Location") != "/docs" {
		t.Errorf("%d %q", r.StatusCode, r.Header.Get("Location"))
	}
}

func TestOpenAPI(t *testing.T) {
	h := newHouse(t)
	r := h.do("GET", "/openapi.json", "", "X-Api-Key", "")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	if strings.Contains(string(r.body), "example.com") || strings.Contains(string(r.body), "$schema") {
		t.Error("the document names a host that is not ours, or $schema")
	}
	var doc struct {
		OpenAPI string
		Info    struct{ Version string }
		Servers []struct{ URL string }
		Paths   map[string]map[string]struct {
			OperationID string
			Summary     string
			Tags        []string
			Security    []map[string][]string
			Parameters  []struct{ Name, In string }
			RequestBody *struct {
				Content map[string]struct{ Schema map[string]any }
			}
			Responses map[string]struct {
				Content map[string]struct{ Schema map[string]any }
				Headers map[string]any
			}
		}
		Components struct {
			Schemas         map[string]any
			SecuritySchemes map[string]any
		}
	}
	if err := json.Unmarshal(r.body, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || doc.Info.Version != "1.2.3" || len(doc.Servers) != 1 || doc.Servers[0].URL != "https://ecod.example.test" {
		t.Errorf("%s %+v %+v", doc.OpenAPI, doc.Info, doc.Servers)
	}
	seen := map[string]bool{}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			name := method + " " + path
			if op.OperationID == "" || seen[op.OperationID] || op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s: id %q, summary %q, tags %v", name, op.OperationID, op.Summary, op.Tags)
			}
			seen[op.OperationID] = true
			if len(op.Security) == 0 {
				t.Errorf("%s does not say who may call", name)
			}
			for _, alt := range op.Security {
				for scheme := range alt {
					if doc.Components.SecuritySchemes[scheme] == nil {
						t.Errorf("%s: no scheme %s", name, scheme)
					}
				}
			}
			good := false
			for status, res := range op.Responses {
				good = good || status[0] == '2'
				if res.Headers["x-request-id"] == nil {
					t.Errorf("%s %s: x-request-id is not told", name, status)
				}
				if status[0] >= '4' && res.Content["application/problem+json"].Schema["$ref"] != "#/components/schemas/Problem" {
					t.Errorf("%s %s: not a problem: %v", name, status, res.Content)
				}
			}
			if !good {
				t.Errorf("%s: no success", name)
			}
			for _, p := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
				found := false
				for _, q := range op.Parameters {
					found = found || (q.In == "path" && q.Name == p[1])
				}
				if !found {
					t.Errorf("%s: no parameter %s", name, p[1])
				}
			}
			key := false
			for _, q := range op.Parameters {
				key = key || q.Name == "Idempotency-Key"
			}
			if key != (method == "post") {
				t.Errorf("%s: Idempotency-Key %v", name, key)
			}
		}
	}
	for _, id := range []string{"createThing", "upload", "thingContent", "rotateKey", "ping"} {
		if !seen[id] {
			t.Errorf("no operation %s", id)
		}
	}
	for _, m := range regexp.MustCompile(`"\$ref":"#/components/schemas/(\w+)"`).FindAllStringSubmatch(string(r.body), -1) {
		if doc.Components.Schemas[m[1]] == nil {
			t.Errorf("no schema %s", m[1])
		}
	}
}

func TestLists(t *testing.T) {
	h := newHouse(t)
	var got []string
	path := "/api/things?limit=2"
	for range 5 {
		m := h.do("GET", path, "").json(t)
		for _, i := range m["items"].([]any) {
			got = append(got, i.(map[string]any)["id"].(string))
		}
		next, ok := m["nextCursor"].(string)
		if !ok {
			break
		}
		path = "/api/things?limit=2&cursor=" + next
	}
	if fmt.Sprint(got) != "[thg_1 thg_2 thg_3 thg_4 thg_5]" {
		t.Errorf("%v", got)
	}
	if r := h.do("GET", "/api/things", ""); !strings.HasSuffix(strings.TrimSpace(string(r.body)), `"nextCursor":null}`) {
		t.Errorf("%s", r.body)
	}
	far := api.ListOf([]int{9, 9}, api.Page{Limit: 1}, "things:id", placeOf, viewOf)
	r := h.do("GET", "/api/things?cursor="+*far.Body.NextCursor, "")
	if strings.TrimSpace(string(r.body)) != `{"items":[],"nextCursor":null}` {
		t.Errorf("items are never null: %s", r.body)
	}
	foreign := api.ListOf([]int{9, 9}, api.Page{Limit: 1}, "others:id", placeOf, viewOf)
	h.problem(h.do("GET", "/api/things?cursor="+*foreign.Body.NextCursor, ""), 422, "invalid")
}

func TestServe(t *testing.T) {
	h := newHouse(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + ln.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	told := make(chan struct{})
	h.api.OnDrain(func() { close(told) })
	served := make(chan error, 1)
	go func() { served <- h.api.Serve(ctx, ln) }()
	slow := make(chan reply, 1)
	go func() { slow <- h.do("POST", "/api/things", `{"name":"slow"}`) }()
	<-h.entered
	stop()
	<-told
	if w := httptest.NewRecorder(); true {
		h.api.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		if w.Code != 503 {
			t.Errorf("ready while draining: %d", w.Code)
		}
	}
	close(h.leave)
	if r := <-slow; r.StatusCode != 201 {
		t.Errorf("a request under way was lost: %d", r.StatusCode)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("still listening")
	}
}

// A process that stops says so while it still takes requests.
func TestServeLameDuck(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.LameDuck = 700 * time.Millisecond })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + ln.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.api.Serve(ctx, ln) }()
	if r := h.do("GET", "/readyz", ""); r.StatusCode != 200 || r.Close {
		t.Fatalf("not ready: %d, closes %t", r.StatusCode, r.Close)
	}
	stop()
	for r := h.do("GET", "/readyz", ""); r.StatusCode != 503; r = h.do("GET", "/readyz", "") {
		time.Sleep(time.Millisecond)
	}
	if r := h.do("GET", "/healthz", ""); r.StatusCode != 200 || !r.Close {
		t.Errorf("a request is not taken any more, or its connection kept: %d, %t", r.StatusCode, r.Close)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestServeCutsOff(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.DrainTimeout = 50 * time.Millisecond })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + ln.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.api.Serve(ctx, ln) }()
	gone := make(chan error, 1)
	go func() {
		res, err := http.DefaultTransport.RoundTrip(h.request("POST", "/api/things", strings.NewReader(`{"name":"slow"}`)))
		if err == nil {
			_ = res.Body.Close()
		}
		gone <- err
	}()
	<-h.entered
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if <-gone == nil {
		t.Error("a request outlived the drain timeout")
	}
	h.log.line(t, "cut off")
}

func TestHeadersTooLarge(t *testing.T) {
	h := newHouse(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + ln.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.api.Serve(ctx, ln) }()
	r := h.raw(t, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("a", 80<<10)+"\r\n\r\n", nil)
	if r.StatusCode != 431 {
		t.Errorf("%d", r.StatusCode)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
