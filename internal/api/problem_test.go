package api_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
)

func TestProblems(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.RequestTimeout = 50 * time.Millisecond })
	cases := []struct {
		name, method, path, body string
		header                   []string
		status                   int
		code                     string
	}{
		{"unknown path", "GET", "/api/nothing", "", nil, 404, "not_found"},
		{"unknown path outside", "GET", "/nothing", "", nil, 404, "not_found"},
		{"root without a dashboard", "GET", "/", "", nil, 404, "not_found"},
		{"wrong method", "PUT", "/api/things", "{}", nil, 405, "method_not_allowed"},
		{"wrong method on standing", "DELETE", "/healthz", "", nil, 405, "method_not_allowed"},
		{"made-up method", "BREW", "/api/things", "", nil, 405, "method_not_allowed"},
		{"bytes that are not text in the path", "GET", "/api/things/%ff", "", nil, 400, "request.url"},
		{"nul in the path", "GET", "/api/things/a%00b", "", nil, 400, "request.url"},
		{"bad escape in the query", "GET", "/api/things?cursor=%zz", "", nil, 400, "request.url"},
		{"bytes that are not text in the query", "GET", "/api/things?cursor=%ff", "", nil, 400, "request.url"},
		{"fault", "GET", "/api/things/none", "", nil, 404, "thing.not_found"},
		{"wrapped fault", "GET", "/api/things/wrapped", "", nil, 404, "thing.not_found"},
		{"store away, deep", "GET", "/api/things/offline", "", nil, 503, "store.unavailable"},
		{"store away under an internal fault", "GET", "/api/things/inner", "", nil, 503, "store.unavailable"},
		{"own time-out", "GET", "/api/things/late", "", nil, 503, "timeout"},
		{"operation over its time", "GET", "/api/things/waits", "", nil, 503, "timeout"},
		{"cancelled below", "GET", "/api/things/cancelled", "", nil, 499, "request.cancelled"},
		{"untyped", "POST", "/api/things", `{"name":"broken"}`, nil, 500, "internal"},
		{"panic", "POST", "/api/things", `{"name":"panics"}`, nil, 500, "internal"},
		{"answer that does not marshal", "GET", "/api/bad", "", nil, 500, "internal"},
		{"limited", "POST", "/api/things", `{"name":"busy"}`, nil, 429, "thing.busy"},
		{"stream", "GET", "/api/things/missing/content", "", nil, 404, "thing.not_found"},
		{"plain", "POST", "/plain", "", nil, 403, "plain.no"},
		{"plain panic", "GET", "/panics", "", nil, 500, "internal"},
		{"docs file", "GET", "/docs/../../go.mod", "", nil, 404, "not_found"},
		{"docs unknown", "GET", "/docs/x.js", "", nil, 404, "not_found"},
		{"docs source", "GET", "/docs/embed.go", "", nil, 404, "not_found"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h.t = t
			h.problem(h.do(c.method, c.path, c.body, c.header...), c.status, c.code)
		})
	}
}

func TestProblemDetails(t *testing.T) {
	h := newHouse(t)
	r := h.do("POST", "/api/things", `{"name":"busy"}`)
	if h.problem(r, 429, "thing.busy"); r.Header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q: 1.5 s rounds up", r.Header.Get("Retry-After"))
	}
	p := h.problem(h.do("POST", "/api/things", `{"name":"taken"}`), 409, "thing.exists")
	if p["id"] != "thg_1" {
		t.Errorf("no further member: %v", p)
	}
	r = h.do("PUT", "/api/things", "")
	if h.problem(r, 405, "method_not_allowed"); r.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("Allow %q", r.Header.Get("Allow"))
	}
}

func TestInternalErrorsStayInside(t *testing.T) {
	h := newHouse(t)
	for name, needle := range map[string]string{"broken": "hunter2", "panics": "hunter3"} {
		r := h.do("POST", "/api/things", `{"name":"`+name+`"}`)
		h.problem(r, 500, "internal")
		for _, s := range []string{needle, "pump", "boom", ".go", "goroutine"} {
			if strings.Contains(string(r.body), s) {
				t.Errorf("the answer tells %q: %s", s, r.body)
			}
		}
		l := h.log.line(t, needle, r.Header.Get("X-Request-Id"), "level=ERROR")
		if name == "panics" && !strings.Contains(l, "api_test.go") {
			t.Errorf("no stack in %s", l)
		}
	}
}

func TestCutAnswersAreSeen(t *testing.T) {
	h := newHouse(t)
	res, err := http.DefaultTransport.RoundTrip(h.request("GET", "/api/things/cut/content", nil))
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Fatal("an answer cut short looks whole")
	}
	h.log.line(t, "answer cut short")
}

func TestCallerGone(t *testing.T) {
	h := newHouse(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "POST /api/things HTTP/1.1\r\nHost: x\r\nX-Api-Key: "+goodKey+"\r\nX-Client-Code: ACME\r\n"+
		"X-Request-Id: gone-12345\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"name\":\"slow\"}")
	<-h.entered
	_ = c.Close()
	h.log.line(t, "gone-12345", "status=499", "level=INFO")
	if strings.Contains(h.log.text(), "level=ERROR") {
		t.Error("a caller that went away is logged as an error")
	}
}

func TestProblemIsError(t *testing.T) {
	var p *api.Problem
	err := error(&api.Problem{Code: "x", Detail: "y"})
	if !errors.As(err, &p) || err.Error() != "x: y" {
		t.Fatal(err)
	}
	b, err := json.Marshal(&api.Problem{Code: "x", Extra: map[string]any{"code": "stolen", "errors": 1, "more": true}})
	if err != nil || strings.Contains(string(b), "stolen") || !strings.Contains(string(b), `"more":true`) || strings.Contains(string(b), "errors") {
		t.Fatalf("%s %v", b, err)
	}
}
