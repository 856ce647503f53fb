package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
)

func TestWhoMayCall(t *testing.T) {
	h := newHouse(t)
	none := []string{"X-Api-Key", "", "X-Client-Code", ""}
	cases := []struct {
		name, method, path string
		header             []string
		status             int
		code               string
	}{
		{"key", "GET", "/api/things", nil, 200, ""},
		{"nothing", "GET", "/api/things", none, 401, "auth.missing"},
		{"no code", "GET", "/api/things", []string{"X-Client-Code", ""}, 401, "auth.missing"},
		{"no key", "GET", "/api/things", []string{"X-Api-Key", ""}, 401, "auth.missing"},
		{"wrong key", "GET", "/api/things", []string{"X-Api-Key", "hunter2"}, 401, "auth.invalid"},
		{"unknown client", "GET", "/api/things", []string{"X-Client-Code", "NOBODY"}, 401, "auth.invalid"},
		{"suspended", "GET", "/api/things", []string{"X-Client-Code", "GONE"}, 403, "client.suspended"},
		{"before the body is looked at", "POST", "/api/things", none, 401, "auth.missing"},
		{"admin token on a client route", "GET", "/api/things", append([]string{"Authorization", "Bearer " + adminToken}, none...), 401, "auth.invalid"},
		{"public", "GET", "/api/ping", none, 200, ""},
		{"admin", "POST", "/api/clients/X/keys", []string{"Authorization", "Bearer " + adminToken}, 201, ""},
		{"admin, other spelling", "POST", "/api/clients/X/keys", []string{"Authorization", "bearer  " + adminToken}, 201, ""},
		{"admin without", "POST", "/api/clients/X/keys", none, 401, "auth.missing"},
		{"admin by key", "POST", "/api/clients/X/keys", nil, 401, "auth.missing"},
		{"admin basic", "POST", "/api/clients/X/keys", []string{"Authorization", "Basic eDp5"}, 401, "auth.missing"},
		{"admin wrong", "POST", "/api/clients/X/keys", []string{"Authorization", "Bearer hunter2"}, 401, "auth.invalid"},
		{"stream without", "GET", "/api/things/x/content", none, 401, "auth.missing"},
		{"viewer reads", "GET", "/api/things", append([]string{"Authorization", "Bearer session-viewer"}, none...), 200, ""},
		{"viewer writes", "POST", "/api/things/x/publish", append([]string{"Authorization", "Bearer session-viewer"}, none...), 403, "role.insufficient"},
		{"agent writes", "POST", "/api/things/x/publish", append([]string{"Authorization", "Bearer session-agent"}, none...), 200, ""},
		{"agent deletes", "DELETE", "/api/things/x", append([]string{"Authorization", "Bearer session-agent"}, none...), 403, "role.insufficient"},
		{"owner deletes", "DELETE", "/api/things/x", append([]string{"Authorization", "Bearer session-owner"}, none...), 204, ""},
		{"unknown role", "GET", "/api/things", append([]string{"Authorization", "Bearer session-king"}, none...), 403, "role.insufficient"},
		{"session over", "GET", "/api/things", append([]string{"Authorization", "Bearer x"}, none...), 401, "auth.invalid"},
		{"session of another client", "GET", "/api/things", []string{"Authorization", "Bearer session-owner", "X-Api-Key", "", "X-Client-Code", "BETA"}, 403, "client.mismatch"},
		{"cookie reads", "GET", "/api/things", append([]string{"Cookie", api.SessionCookie + "=session-viewer"}, none...), 200, ""},
		{"cookie writes from our page", "POST", "/api/things/x/publish", append([]string{"Cookie", api.SessionCookie + "=session-agent", "Sec-Fetch-Site", "same-origin"}, none...), 200, ""},
		{"cookie writes behind a proxy", "POST", "/api/things/x/publish", append([]string{"Cookie", api.SessionCookie + "=session-agent", "Origin", "https://ecod.example.test"}, none...), 200, ""},
		{"cookie writes from another page", "POST", "/api/things/x/publish", append([]string{"Cookie", api.SessionCookie + "=session-agent", "Sec-Fetch-Site", "cross-site"}, none...), 403, "origin.refused"},
		{"cookie writes from another origin", "POST", "/api/things/x/publish", append([]string{"Cookie", api.SessionCookie + "=session-agent", "Origin", "https://evil.example"}, none...), 403, "origin.refused"},
		{"a key writes from another page", "POST", "/api/things/x/publish", []string{"Sec-Fetch-Site", "cross-site"}, 200, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h.t = t
			r := h.do(c.method, c.path, "", c.header...)
			if c.code == "" {
				if r.StatusCode != c.status {
					t.Fatalf("%d %s", r.StatusCode, r.body)
				}
				return
			}
			h.problem(r, c.status, c.code)
			if (c.status == 401) != (r.Header.Get("Www-Authenticate") != "") {
				t.Errorf("WWW-Authenticate %q", r.Header.Get("Www-Authenticate"))
			}
		})
	}
	if strings.Contains(h.log.text(), "hunter2") || strings.Contains(h.log.text(), adminToken) {
		t.Error("the log holds a credential")
	}
}

// Credentials that come twice name one caller, or nobody.
func TestCredentialsSentTwice(t *testing.T) {
	h := newHouse(t)
	twice := func(path, name string, values ...string) reply {
		method := "GET"
		if strings.HasSuffix(path, "/keys") {
			method = "POST"
		}
		r := h.request(method, path, nil)
		if name == "Authorization" && path == "/api/things" {
			r.Header.Del("X-Api-Key")
		}
		r.Header[name] = values
		return h.send(r)
	}
	for name, values := range map[string][]string{
		"X-Client-Code": {"ACME", "BETA"}, "X-Api-Key": {goodKey, "wrong"}, "Authorization": {"Bearer session-viewer", "Bearer session-owner"},
	} {
		h.problem(twice("/api/things", name, values...), 400, "auth.ambiguous")
		if r := twice("/api/things", name, values[0], values[0]); r.StatusCode != 200 {
			t.Errorf("%s repeated: %d %s", name, r.StatusCode, r.body)
		}
	}
	h.problem(twice("/api/clients/X/keys", "Authorization", "Bearer "+adminToken, "Bearer x"), 400, "auth.ambiguous")
}

func TestTooManyWrongCredentials(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.FailureBurst, c.FailuresPerSecond = 3, 0.1 })
	wrong := []string{"X-Api-Key", "wrong"}
	for range 3 {
		h.problem(h.do("GET", "/api/things", "", wrong...), 401, "auth.invalid")
	}
	r := h.do("GET", "/api/things", "", wrong...)
	if h.problem(r, 429, "auth.too_many_failures"); r.Header.Get("Retry-After") != "10" {
		t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
	}
	h.problem(h.do("POST", "/api/clients/X/keys", "", "Authorization", "Bearer wrong"), 429, "auth.too_many_failures")
	h.problem(h.do("GET", "/api/things", "", "X-Api-Key", ""), 401, "auth.missing")
	if r := h.do("GET", "/api/things", ""); r.StatusCode != 200 {
		t.Errorf("the right key is shut out by its neighbour: %d", r.StatusCode)
	}
	h.problem(h.do("GET", "/api/things", "", append(wrong, "X-Forwarded-For", "203.0.113.9")...), 401, "auth.invalid")
	h.now.Add(int64(20 * time.Second))
	h.problem(h.do("GET", "/api/things", "", wrong...), 401, "auth.invalid")
}

// Calls have a pace: of each caller, and of each address where no caller is known.
func TestPace(t *testing.T) {
	rates := map[string]float64{"BETA": 2}
	h := newHouse(t, func(c *api.Config) {
		c.RatePerSecond, c.RateOf = 5, func(client string) float64 { return rates[client] }
	})
	burst := func(header ...string) (n int) {
		t.Helper()
		for ; n < 1000; n++ {
			r := h.do("GET", "/api/things", "", header...)
			if r.StatusCode == 200 {
				continue
			}
			if h.problem(r, 429, "rate.limited"); r.Header.Get("Retry-After") != "1" {
				t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
			}
			return n
		}
		return n
	}
	user := []string{"Authorization", "Bearer session-viewer", "X-Api-Key", "", "X-Client-Code", ""}
	for _, c := range []struct {
		name     string
		header   []string
		from, to int
	}{{"a key", nil, 10, 14}, {"a pace of its own", []string{"X-Client-Code", "BETA"}, 4, 6}, {"a user beside its client's key", user, 10, 14}} {
		if n := burst(c.header...); n < c.from || n > c.to {
			t.Errorf("%s: %d calls at once", c.name, n)
		}
	}
	h.now.Add(int64(time.Second))
	if n := burst(); n < 5 || n > 8 {
		t.Errorf("%d calls a second later", n)
	}
	n := 0
	for ; n < 2000; n++ {
		if r := h.do("GET", "/api/ping", "", "X-Forwarded-For", "203.0.113.9"); r.StatusCode != 200 {
			h.problem(r, 429, "rate.limited")
			break
		}
	}
	if n < 500 || n == 2000 {
		t.Errorf("%d calls of an address", n)
	}
	if r := h.do("GET", "/api/ping", "", "X-Forwarded-For", "203.0.113.10"); r.StatusCode != 200 {
		t.Errorf("another address: %d", r.StatusCode)
	}
	for range 20 { // the operator has none
		if r := h.do("POST", "/api/clients/X/keys", "", "Authorization", "Bearer "+adminToken); r.StatusCode != 201 {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
	}
}

func TestCORS(t *testing.T) {
	h := newHouse(t)
	pre := func(origin string) reply {
		return h.do("OPTIONS", "/api/things", "", "Origin", origin, "Access-Control-Request-Method", "POST", "X-Api-Key", "", "X-Client-Code", "")
	}
	r := pre("https://shop.example")
	if r.StatusCode != 204 || r.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" ||
		!strings.Contains(r.Header.Get("Access-Control-Allow-Headers"), "x-api-key") || r.Header.Get("Vary") != "Origin" {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	r = pre("https://evil.example")
	if h.problem(r, 403, "origin.refused"); r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Fatalf("%v", r.Header)
	}
	for _, c := range []struct{ origin, client, want string }{
		{"https://shop.example", "ACME", "https://shop.example"},
		{"https://shop.example", "BETA", ""},
		{"https://evil.example", "ACME", ""},
	} {
		r := h.do("GET", "/api/things", "", "Origin", c.origin, "X-Client-Code", c.client)
		if got := r.Header.Get("Access-Control-Allow-Origin"); got != c.want || r.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%v: %q", c, got)
		}
	}
	h.problem(h.do("OPTIONS", "/api/things", ""), 405, "method_not_allowed")
}

func TestContextOutsideOfARequest(t *testing.T) {
	if c := api.CallerOf(context.Background()); c != (api.Caller{}) || api.RequestID(context.Background()) != "" || api.Once(context.Background()) != "" {
		t.Error(fmt.Sprint(c))
	}
}
