package app_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/socketio/sockettest"
)

const goodPassword = "tides of march 7"

// addUser makes a dashboard user and gives its id.
func (c *client) addUser(email, role string) string {
	c.e.t.Helper()
	return c.e.admin("POST", "/api/clients/"+c.Code+"/users", map[string]any{
		"email": email, "password": goodPassword, "role": role, "name": "Somebody at " + c.Code,
	}).want(201).get("id").(string)
}

func (e *engine) tryLogin(code, email, password string) *answer {
	e.t.Helper()
	return e.send("POST", "/api/sessions", map[string]string{"clientCode": code, "email": email, "password": password}, nil)
}

// stay is a session; it calls with its bearer token.
type stay struct {
	c     *client
	Token string
}

func (c *client) login(email string) stay {
	c.e.t.Helper()
	return stay{c, c.e.tryLogin(c.Code, email, goodPassword).want(201).get("token").(string)}
}

func (s stay) call(method, path string, body any) *answer {
	s.c.e.t.Helper()
	return s.c.e.send(method, path, body, map[string]string{"Authorization": "Bearer " + s.Token})
}

// gone waits until a socket was sent away.
func (e *ear) wantGone(what string) {
	e.t.Helper()
	select {
	case <-e.gone:
	case <-time.After(5 * time.Second):
		e.t.Errorf("%s: the socket stays", what)
	}
}

// listenWith opens a socket with these credentials.
func (e *engine) listenWith(t *testing.T, auth any) *ear {
	t.Helper()
	s, err := sockettest.Dial(within(10*time.Second), e.url, sockettest.Options{Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	return hear(t, s)
}

// A user's life: made, let in, at work with bearer or cookie, a socket with it; and everything that ends that.
func TestUsersComeAndGo(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	a, b := e.addClient("ACME", 1), e.addClient("BETA", 2)
	made := e.admin("POST", "/api/clients/acme/users", map[string]any{"email": "Dana@Example.com", "password": goodPassword, "role": "owner", "name": "Dana"}).want(201)
	want(t, "the user", made, "email", "dana@example.com", "role", "owner", "disabled", false, "lastLoginAt", nil)
	if at := made.Header.Get("Location"); at != "/api/clients/ACME/users/"+made.get("id").(string) {
		t.Errorf("Location %q", at)
	}
	if strings.Contains(string(made.Body), "assword") {
		t.Errorf("a password is told: %s", made.Body)
	}
	for field, bad := range map[string]string{"email": "nobody", "password": "1234567890", "role": "king", "name": " "} {
		u := map[string]any{"email": "x@example.com", "password": goodPassword, "role": "agent", "name": "X"}
		u[field] = bad
		r := e.admin("POST", "/api/clients/ACME/users", u).problem(422, "invalid")
		if r.pointers() != "/"+field || strings.Contains(string(r.Body), bad) && len(bad) > 1 {
			t.Errorf("%s: %s", field, r.Body)
		}
	}
	e.admin("POST", "/api/clients/ACME/users", map[string]any{"email": "dana@example.com", "password": goodPassword, "role": "agent", "name": "D"}).problem(409, "user.exists")
	e.admin("POST", "/api/clients/GHOST/users", map[string]any{"email": "dana@example.com", "password": goodPassword, "role": "agent", "name": "D"}).problem(404, "client.not_found")
	a.addUser("ravi@example.com", "agent")
	b.addUser("dana@example.com", "owner")

	in := e.tryLogin("acme", " DANA@example.com", goodPassword).want(201)
	want(t, "the session", in, "clientCode", "ACME", "user.id", made.get("id"), "user.role", "owner")
	cookie := in.Header.Get("Set-Cookie")
	token := in.get("token").(string)
	for _, part := range []string{"ecod_session=" + token, "; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age="} {
		if !strings.Contains(cookie, part) {
			t.Errorf("cookie without %s: %s", part, cookie)
		}
	}
	if strings.Contains(cookie, "Secure") {
		t.Errorf("over http: %s", cookie)
	}
	if expires, err := time.Parse(time.RFC3339, in.get("expiresAt").(string)); err != nil || time.Until(expires) < 11*time.Hour {
		t.Errorf("expires at %v %v", expires, err)
	}
	owner := stay{a, token}
	want(t, "read", owner.call("GET", "/api/sessions/current", nil).want(200), "user.email", "dana@example.com", "token", nil)
	owner.call("GET", "/api/crm/leads", nil).want(200)
	byCookie := func(method, path string, body any, header ...string) *answer {
		h := map[string]string{"Cookie": "ecod_session=" + token}
		for i := 0; i+1 < len(header); i += 2 {
			h[header[i]] = header[i+1]
		}
		return e.send(method, path, body, h)
	}
	byCookie("GET", "/api/crm/leads", nil).want(200)
	byCookie("POST", "/api/crm/automations/rules", helloRule(), "Sec-Fetch-Site", "same-origin").want(201)
	byCookie("POST", "/api/crm/automations/rules", helloRule(), "Sec-Fetch-Site", "cross-site").problem(403, "origin.refused")
	byCookie("POST", "/api/crm/automations/rules", helloRule(), "Origin", "https://evil.example").problem(403, "origin.refused")
	byCookie("DELETE", "/api/sessions/current", nil, "Sec-Fetch-Site", "cross-site").problem(403, "origin.refused")

	// of one client, and of no other
	e.send("GET", "/api/crm/leads", nil, map[string]string{"Authorization": "Bearer " + token, "x-client-code": "BETA"}).problem(403, "client.mismatch")
	e.send("GET", "/api/crm/leads", nil, map[string]string{"Authorization": "Bearer " + strings.Replace(token, "ACME", "BETA", 1)}).problem(401, "auth.invalid")
	e.send("GET", "/api/clients", nil, map[string]string{"Authorization": "Bearer " + token}).problem(401, "auth.invalid")
	a.call("POST", "/api/crm/automations/events", hello("918143963821")).want(202)
	lead := a.call("GET", "/api/crm/leads", nil).want(200).get("items.0.id").(string)
	b.login("dana@example.com").call("GET", "/api/crm/leads/"+lead, nil).problem(404, "lead.not_found")

	// owners manage the users of their own client
	if n := owner.call("GET", "/api/users?limit=1", nil).want(200); n.get("items.0.email") != "dana@example.com" || n.get("nextCursor") == nil {
		t.Errorf("users: %s", n.Body)
	} else if n = owner.call("GET", "/api/users?limit=1&cursor="+n.get("nextCursor").(string), nil).want(200); n.get("items.0.email") != "ravi@example.com" || n.get("nextCursor") != nil {
		t.Errorf("users: %s", n.Body)
	}
	me := "/api/users/" + made.get("id").(string)
	owner.call("PATCH", me, map[string]any{"role": "viewer"}).problem(409, "user.self")
	owner.call("PATCH", me, map[string]any{"disabled": true}).problem(409, "user.self")
	owner.call("DELETE", me, nil).problem(409, "user.self")
	want(t, "renamed", owner.call("PATCH", me, map[string]any{"name": "Dana Roy"}).want(200), "name", "Dana Roy", "role", "owner")
	viewer := owner.call("POST", "/api/users", map[string]any{"email": "vera@example.com", "password": goodPassword, "role": "viewer", "name": "Vera"}).want(201)

	// what ends sessions ends their sockets too
	socket := func(s stay) *ear { return e.listenWith(t, map[string]string{"token": s.Token}) }
	ravi := a.login("ravi@example.com")
	one, two := socket(ravi), socket(owner)
	ravi.call("GET", "/api/users", nil).problem(403, "role.insufficient")
	out := ravi.call("DELETE", "/api/sessions/current", nil).want(204)
	if c := out.Header.Get("Set-Cookie"); !strings.Contains(c, "ecod_session=;") || !strings.Contains(c, "Max-Age=0") {
		t.Errorf("the cookie stays: %s", c)
	}
	ravi.call("GET", "/api/crm/leads", nil).problem(401, "auth.invalid")
	one.wantGone("logged out")

	vera := a.login("vera@example.com")
	one = socket(vera)
	vera.call("POST", "/api/sessions/current/password", map[string]string{"currentPassword": "wrong password", "newPassword": "harbour lights 9"}).problem(422, "invalid")
	other := a.login("vera@example.com")
	other.call("POST", "/api/sessions/current/password", map[string]string{"currentPassword": goodPassword, "newPassword": "harbour lights 9"}).want(204)
	eventually(t, "another session ends with the password", func() string {
		return strings.TrimPrefix(strconv.Itoa(vera.call("GET", "/api/crm/leads", nil).Status), "401")
	})
	one.wantGone("its password was changed")
	other.call("GET", "/api/crm/leads", nil).want(200)
	one = socket(other)
	e.admin("PATCH", "/api/clients/ACME/users/"+viewer.get("id").(string), map[string]any{"disabled": true}).want(200)
	one.wantGone("disabled")
	other.call("GET", "/api/crm/leads", nil).problem(401, "auth.invalid")
	e.tryLogin("ACME", "vera@example.com", "harbour lights 9").problem(401, "session.refused")
	e.admin("PATCH", "/api/clients/ACME/users/"+viewer.get("id").(string), map[string]any{"disabled": false, "password": goodPassword}).want(200)
	vera = a.login("vera@example.com")
	owner.call("DELETE", "/api/users/"+viewer.get("id").(string), nil).want(204)
	vera.call("GET", "/api/crm/leads", nil).problem(401, "auth.invalid")
	e.tryLogin("ACME", "vera@example.com", goodPassword).problem(401, "session.refused")

	e.admin("POST", "/api/clients/ACME/suspend", nil).want(200)
	two.wantGone("suspended")
	owner.call("GET", "/api/crm/leads", nil).problem(403, "client.suspended")
	e.tryLogin("ACME", "dana@example.com", goodPassword).problem(403, "client.suspended")
	e.tryLogin("ACME", "dana@example.com", "wrong password").problem(401, "session.refused")
	e.admin("POST", "/api/clients/ACME/resume", nil).want(200)
	owner.call("GET", "/api/crm/leads", nil).problem(401, "auth.invalid")
	last := a.login("dana@example.com")
	last.call("GET", "/api/crm/leads", nil).want(200)

	e.stop()
	secrets := []string{goodPassword, "harbour lights 9", "wrong password", token, ravi.Token, last.Token, a.Key}
	for _, s := range secrets {
		if strings.Contains(e.log.String(), s) {
			t.Errorf("the log holds %.12s…", s)
		}
	}
	for _, who := range []string{"dana@example.com", "ravi@example.com"} {
		if strings.Contains(strings.ToLower(e.log.String()), who) {
			t.Errorf("the log holds %s", who)
		}
	}
	err := filepath.Walk(e.app.Config.DataDir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s holds %.12s…", filepath.Base(path), s)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Five failed logins lock an account, whether it exists or not, also over a restart; its neighbours come in.
func TestLoginsAreLocked(t *testing.T) {
	t.Parallel()
	dir, meta := t.TempDir(), newMeta(t)
	e := start(t, dir, meta)
	a := e.addClient("ACME", 1)
	id := a.addUser("dana@example.com", "owner")
	a.addUser("ravi@example.com", "agent")
	var first *answer
	for _, who := range [][2]string{{"ACME", "dana@example.com"}, {"ACME", "ghost@example.com"}, {"GHOST", "dana@example.com"}} {
		for range 5 {
			r := e.tryLogin(who[0], who[1], "wrong password").problem(401, "session.refused")
			if first == nil {
				first = r
			}
			var one, other map[string]any
			first.into(&one)
			r.into(&other)
			delete(one, "instance")
			delete(other, "instance")
			if fmt.Sprint(one) != fmt.Sprint(other) || r.Header.Get("Www-Authenticate") == "" {
				t.Errorf("%v is answered %s, another %s", who, r.Body, first.Body)
			}
		}
	}
	locked := func(what string) {
		t.Helper()
		for _, who := range [][2]string{{"ACME", "dana@example.com"}, {"acme", "GHOST@example.com"}, {"GHOST", "dana@example.com"}} {
			r := e.tryLogin(who[0], who[1], goodPassword).problem(429, "session.locked")
			if s, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || s < 1 || s > 30 {
				t.Errorf("%s, %v: Retry-After %q", what, who, r.Header.Get("Retry-After"))
			}
		}
	}
	locked("locked")
	a.login("ravi@example.com")
	e.stop()
	e = start(t, dir, meta)
	a.e = e
	locked("after a restart")
	e.admin("PATCH", "/api/clients/ACME/users/"+id, map[string]any{"password": goodPassword}).want(200)
	a.login("dana@example.com")
}

// Guesses from one address, at whatever accounts, are answered 429 after a while, and those from others are not.
func TestGuessesFromOneAddress(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	a := e.addClient("ACME", 1)
	a.addUser("dana@example.com", "owner")
	try := func(i int, addr string) *answer {
		return e.send("POST", "/api/sessions", map[string]string{"clientCode": "ACME", "email": fmt.Sprintf("u%d@example.com", i), "password": "wrong password"},
			map[string]string{"X-Forwarded-For": addr})
	}
	done := make(chan int, 60)
	for i := range 60 {
		go func() { done <- try(i, "203.0.113.7").Status }()
	}
	got := map[int]int{}
	for range 60 {
		got[<-done]++
	}
	if got[401] < 45 || got[401]+got[429] != 60 {
		t.Errorf("statuses: %v", got)
	}
	r := try(99, "203.0.113.7")
	for i := range 20 { // on a slow machine one is forgiven every 10 s meanwhile
		if r.Status == 429 {
			break
		}
		r = try(100+i, "203.0.113.7")
	}
	r.problem(429, "session.too_many_failures")
	if s, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || s < 1 {
		t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
	}
	try(99, "203.0.113.8").problem(401, "session.refused")
	a.login("dana@example.com")
}

// A caller beyond its pace is told to wait, alone, and is let on after that.
func TestPace(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	a, b := e.addClient("ACME", 1), e.addClient("BETA", 2)
	a.addUser("dana@example.com", "owner")
	dana := a.login("dana@example.com")
	e.admin("PATCH", "/api/clients/ACME", map[string]any{"settings": map[string]any{"ratePerSecond": 0}}).problem(422, "")
	want(t, "settings", e.admin("PATCH", "/api/clients/ACME", map[string]any{"settings": map[string]any{"ratePerSecond": 1.0}}).want(200), "settings.ratePerSecond", 1.0)
	a.call("GET", "/api/crm/leads", nil).want(200)
	a.call("GET", "/api/crm/leads", nil).want(200)
	r := a.call("GET", "/api/crm/leads", nil).problem(429, "rate.limited")
	if r.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
	}
	b.call("GET", "/api/crm/leads", nil).want(200)
	dana.call("GET", "/api/crm/leads", nil).want(200)
	for range 20 { // webhooks have no pace
		e.webhook([]byte(`{"object":"whatsapp_business_account","entry":[]}`)).want(200)
	}
	eventually(t, "the caller is let on", func() string {
		return strings.TrimPrefix(strconv.Itoa(a.call("GET", "/api/crm/leads", nil).Status), "200")
	})
	e.admin("PATCH", "/api/clients/ACME", map[string]any{"settings": nil}).want(200)
	for range 100 {
		a.call("GET", "/api/crm/leads", nil).want(200)
	}
}

// A page of an origin that the client allows logs in, calls and opens sockets; others do not.
func TestForeignDashboards(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t), func(c *app.Config) { c.PublicURL = "https://ecod.example.test" })
	a, b := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for _, c := range []*client{a, b} {
		c.addUser("dana@example.com", "owner")
	}
	const shop, evil = "https://shop.example", "https://evil.example"
	e.admin("PATCH", "/api/clients/ACME", map[string]any{"allowedOrigins": []string{shop}}).want(200)
	login := func(code, password, origin string) *answer {
		return e.send("POST", "/api/sessions", map[string]string{"clientCode": code, "email": "dana@example.com", "password": password},
			map[string]string{"Origin": origin, "Sec-Fetch-Site": "cross-site"})
	}
	in := login("ACME", goodPassword, shop).want(201)
	if in.Header.Get("Access-Control-Allow-Origin") != shop || in.Header.Get("Set-Cookie") != "" {
		t.Errorf("headers: %v", in.Header)
	}
	if r := login("ACME", "wrong password", shop).problem(401, "session.refused"); r.Header.Get("Access-Control-Allow-Origin") != shop {
		t.Errorf("the page cannot read why it is refused: %v", r.Header)
	}
	if r := login("ACME", goodPassword, evil).problem(403, "origin.refused"); r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers: %v", r.Header)
	}
	login("BETA", goodPassword, shop).problem(403, "origin.refused")
	if c := e.tryLogin("BETA", "dana@example.com", goodPassword).want(201).Header.Get("Set-Cookie"); !strings.Contains(c, "; Secure") {
		t.Errorf("at an https address: %s", c)
	}
	token := in.get("token").(string)
	read := func(auth, origin string) string {
		return e.send("GET", "/api/sessions/current", nil, map[string]string{"Authorization": "Bearer " + auth, "Origin": origin}).want(200).Header.Get("Access-Control-Allow-Origin")
	}
	if got := read(token, shop); got != shop {
		t.Errorf("its own page: %q", got)
	}
	if got := read(token, evil); got != "" {
		t.Errorf("another page: %q", got)
	}
	if got := read(b.login("dana@example.com").Token, shop); got != "" {
		t.Errorf("another client's page: %q", got)
	}
	for _, transport := range []string{sockettest.Websocket, sockettest.Polling} {
		for _, c := range []struct {
			auth   any
			origin string
			in     bool
		}{
			{map[string]string{"token": token}, shop, true}, {map[string]string{"clientCode": "ACME", "apiKey": a.Key}, shop, true},
			{map[string]string{"token": token}, evil, false}, {map[string]string{"clientCode": "BETA", "apiKey": b.Key}, shop, false}, {map[string]string{"token": token}, e.url, true},
		} {
			s, err := sockettest.Dial(within(5*time.Second), e.url, sockettest.Options{Auth: c.auth, Transport: transport, Header: http.Header{"Origin": {c.origin}}})
			if err == nil {
				s.Drop()
			}
			if (err == nil) != c.in {
				t.Errorf("%s from %s with %v: %v", transport, c.origin, c.auth, err)
			}
		}
	}
	// a cookie alone opens no socket, from no page
	_, err := sockettest.Dial(within(5*time.Second), e.url, sockettest.Options{Header: http.Header{"Origin": {e.url}, "Cookie": {"ecod_session=" + token}}})
	if err == nil {
		t.Error("a cookie opened a socket")
	}
}
