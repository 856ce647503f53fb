package googletest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ana = "ana@clinic.example"

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddGrant(Grant{User: ana, ClientID: "id", ClientSecret: "secret", RefreshToken: "refresh"})
	return s
}

// ask makes a plain request: nothing of the client's code stands between.
func ask(t *testing.T, method, address, token, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if strings.Contains(address, "/token") {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return -resp.StatusCode, nil
	}
	var m map[string]any
	_ = json.Unmarshal(b, &m)
	return resp.StatusCode, m
}

func refresh(client, secret, token string) string {
	return url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "client_secret": {secret}, "refresh_token": {token}}.Encode()
}

func login(t *testing.T, s *Server) string {
	t.Helper()
	status, m := ask(t, "POST", s.URL+"/token", "", refresh("id", "secret", "refresh"))
	token, _ := m["access_token"].(string)
	if status != 200 || token == "" || m["token_type"] != "Bearer" || m["expires_in"] != 3600.0 || m["scope"] != ScopeEvents {
		t.Fatalf("%d %v", status, m)
	}
	return token
}

func reason(m map[string]any) string {
	if code, ok := m["error"].(string); ok {
		return code
	}
	e, _ := m["error"].(map[string]any)
	list, _ := e["errors"].([]any)
	if len(list) == 0 {
		return ""
	}
	r, _ := list[0].(map[string]any)["reason"].(string)
	return r
}

func TestRefreshTokens(t *testing.T) {
	now := time.Date(2027, 3, 1, 9, 0, 0, 0, time.UTC)
	s := start(t, Config{Now: func() time.Time { return now }})
	s.AddGrant(Grant{User: ana, ClientID: "id", ClientSecret: "secret", RefreshToken: "week", ValidUntil: now.Add(-time.Second)})
	s.AddGrant(Grant{User: ana, ClientID: "id", ClientSecret: "secret", RefreshToken: "gone"})
	s.Revoke("gone")
	for name, tc := range map[string]struct {
		form   string
		status int
		code   string
	}{
		"good":               {refresh("id", "secret", "refresh"), 200, ""},
		"unknown token":      {refresh("id", "secret", "other"), 400, "invalid_grant"},
		"revoked":            {refresh("id", "secret", "gone"), 400, "invalid_grant"},
		"expired":            {refresh("id", "secret", "week"), 400, "invalid_grant"},
		"wrong secret":       {refresh("id", "guess", "refresh"), 401, "invalid_client"},
		"unknown client":     {refresh("other", "secret", "refresh"), 401, "invalid_client"},
		"no client":          {"grant_type=refresh_token&refresh_token=refresh", 400, "invalid_request"},
		"another grant type": {"grant_type=password", 400, "unsupported_grant_type"},
	} {
		if status, m := ask(t, "POST", s.URL+"/token", "", tc.form); status != tc.status || reason(m) != tc.code {
			t.Errorf("%s: %d %v", name, status, m)
		}
	}
	if status, _ := ask(t, "GET", s.URL+"/token?"+refresh("id", "secret", "refresh"), "", ""); status != 400 {
		t.Errorf("GET: %d", status)
	}
	events := s.URL + "/calendar/v3/calendars/primary/events"
	token := login(t, s)
	if status, _ := ask(t, "GET", events, token, ""); status != 200 {
		t.Errorf("fresh: %d", status)
	}
	now = now.Add(time.Hour)
	if status, m := ask(t, "GET", events, token, ""); status != 401 || reason(m) != "authError" {
		t.Errorf("an hour later: %d %v", status, m)
	}
	token = login(t, s)
	s.Revoke("refresh")
	if status, _ := ask(t, "GET", events, token, ""); status != 401 {
		t.Errorf("revoked: %d", status)
	}
	if status, m := ask(t, "GET", events, "", ""); status != 401 || reason(m) != "required" {
		t.Errorf("no token: %d %v", status, m)
	}
}

func TestAssertions(t *testing.T) {
	s := start(t, Config{})
	acc, file, err := NewServiceAccount("robot@demo.iam.example", ana)
	if err != nil {
		t.Fatal(err)
	}
	s.AddServiceAccount(acc)
	var f struct {
		Key string `json:"private_key"`
	}
	_ = json.Unmarshal(file, &f)
	block, _ := pem.Decode([]byte(f.Key))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	good := claims{Iss: acc.Email, Sub: ana, Scope: ScopeEvents, Aud: s.URL + "/token", Iat: now, Exp: now + 3600}
	for name, tc := range map[string]struct {
		change func(*claims)
		head   string
		spoil  bool
		code   string
	}{
		"good":              {},
		"for itself":        {change: func(c *claims) { c.Sub = "" }},
		"another's key":     {spoil: true, code: "invalid_grant"},
		"another key id":    {head: `{"alg":"RS256","kid":"x"}`, code: "invalid_grant"},
		"no signature":      {head: `{"alg":"none"}`, code: "invalid_grant"},
		"unknown issuer":    {change: func(c *claims) { c.Iss = "x" }, code: "invalid_grant"},
		"Google's audience": {change: func(c *claims) { c.Aud = "https://oauth2.googleapis.com/token" }, code: "invalid_grant"},
		"expired":           {change: func(c *claims) { c.Iat, c.Exp = now-7200, now-3600 }, code: "invalid_grant"},
		"from tomorrow":     {change: func(c *claims) { c.Iat, c.Exp = now+86400, now+86400+60 }, code: "invalid_grant"},
		"too long":          {change: func(c *claims) { c.Exp++ }, code: "invalid_grant"},
		"no scope":          {change: func(c *claims) { c.Scope = "" }, code: "invalid_scope"},
		"a wider scope":     {change: func(c *claims) { c.Scope = ScopeCalendar }, code: "unauthorized_client"},
		"another user":      {change: func(c *claims) { c.Sub = "eve@other.example" }, code: "unauthorized_client"},
	} {
		c := good
		if tc.change != nil {
			tc.change(&c)
		}
		if tc.head == "" {
			tc.head = `{"alg":"RS256","typ":"JWT","kid":"` + acc.KeyID + `"}`
		}
		b, _ := json.Marshal(c)
		signed := base64.RawURLEncoding.EncodeToString([]byte(tc.head)) + "." + base64.RawURLEncoding.EncodeToString(b)
		sum := sha256.Sum256([]byte(signed))
		sig, err := rsa.SignPKCS1v15(rand.Reader, parsed.(*rsa.PrivateKey), crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		if tc.spoil {
			sig[7] ^= 1
		}
		status, m := ask(t, "POST", s.URL+"/token", "", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"},
			"assertion": {signed + "." + base64.RawURLEncoding.EncodeToString(sig)}}.Encode())
		if reason(m) != tc.code || (status == 200) != (tc.code == "") {
			t.Errorf("%s: %d %v", name, status, m)
		}
		if name != "for itself" {
			continue
		}
		token, _ := m["access_token"].(string)
		events := s.URL + "/calendar/v3/calendars/primary/events?conferenceDataVersion=1"
		if status, m := ask(t, "POST", events, token, body(`,"attendees":[{"email":"a@b.example"}]`)); status != 403 || reason(m) != "forbiddenForServiceAccounts" {
			t.Errorf("attendees of a service account: %d %v", status, m)
		}
		if status, _ := ask(t, "POST", events, token, body(`,"conferenceData":`+meet("r"))); status != 400 {
			t.Errorf("a link of a service account: %d", status)
		}
	}
	for _, junk := range []string{"", "a.b", "a.b.c", "e30.e30.e30"} {
		if status, m := ask(t, "POST", s.URL+"/token", "", "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion="+junk); status != 400 || reason(m) != "invalid_grant" {
			t.Errorf("%q: %d %v", junk, status, m)
		}
	}
}

func body(more string) string {
	return `{"start":{"dateTime":"2027-03-01T10:00:00Z"},"end":{"dateTime":"2027-03-01T10:30:00+00:00"}` + more + `}`
}

func meet(requestID string) string {
	return `{"createRequest":{"requestId":"` + requestID + `","conferenceSolutionKey":{"type":"hangoutsMeet"}}}`
}

func TestEventsAreJudged(t *testing.T) {
	s := start(t, Config{})
	token := login(t, s)
	events := s.URL + "/calendar/v3/calendars/primary/events"
	for name, tc := range map[string]struct {
		query, body string
		status      int
		reason      string
	}{
		"plain":               {"", body(``), 200, ""},
		"own id":              {"", body(`,"id":"abcv09"`), 200, ""},
		"id too short":        {"", body(`,"id":"abcd"`), 400, "invalid"},
		"id too long":         {"", body(`,"id":"` + strings.Repeat("a", 1025) + `"`), 400, "invalid"},
		"id beyond v":         {"", body(`,"id":"wxyz1"`), 400, "invalid"},
		"id in capitals":      {"", body(`,"id":"ABCDE"`), 400, "invalid"},
		"no start":            {"", `{"end":{"dateTime":"2027-03-01T10:00:00Z"}}`, 400, "required"},
		"no end":              {"", `{"start":{"dateTime":"2027-03-01T10:00:00Z"}}`, 400, "required"},
		"ends first":          {"", `{"start":{"dateTime":"2027-03-01T10:00:00Z"},"end":{"dateTime":"2027-03-01T09:00:00Z"}}`, 400, "timeRangeEmpty"},
		"unknown zone":        {"", `{"start":{"dateTime":"2027-03-01T10:00:00Z","timeZone":"Mars/Olympus"},"end":{"dateTime":"2027-03-01T11:00:00Z"}}`, 400, "invalid"},
		"attendee":            {"", body(`,"attendees":[{"email":"b@c.example","displayName":"B"}]`), 200, ""},
		"attendee of nowhere": {"", body(`,"attendees":[{"email":"b"}]`), 400, "invalid"},
		"unknown field":       {"", body(`,"titel":"x"`), 400, "parseError"},
		"no JSON":             {"", `{`, 400, "parseError"},
		"updates to some":     {"?sendUpdates=some", body(``), 400, "invalidParameter"},
		"link":                {"?conferenceDataVersion=1", body(`,"conferenceData":` + meet("r1")), 200, ""},
		"link of no request":  {"?conferenceDataVersion=1", body(`,"conferenceData":` + meet("")), 400, "required"},
		"link of another":     {"?conferenceDataVersion=1", body(`,"conferenceData":{"createRequest":{"requestId":"r","conferenceSolutionKey":{"type":"zoom"}}}`), 400, "invalid"},
	} {
		if status, m := ask(t, "POST", events+tc.query, token, tc.body); status != tc.status || reason(m) != tc.reason {
			t.Errorf("%s: %d %v", name, status, m)
		}
	}
	for _, path := range []string{"/", "/calendar/v3/calendars/primary", "/calendar/v3/calendars/primary/acl", "/calendar/v3/calendars//events", "/calendar/v3/calendars/primary/events/a/b"} {
		if status, _ := ask(t, "GET", s.URL+path, token, ""); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
	if status, _ := ask(t, "GET", s.URL+"/calendar/v3/calendars/other@x.example/events", token, ""); status != 404 {
		t.Errorf("another's calendar: %d", status)
	}
	s.Share("team@x.example", ana, "reader")
	if status, m := ask(t, "POST", s.URL+"/calendar/v3/calendars/team%40x.example/events", token, body("")); status != 403 || reason(m) != "requiredAccessLevel" {
		t.Errorf("a reader: %d %v", status, m)
	}
	if _, m := ask(t, "GET", s.URL+"/calendar/v3/calendars/team@x.example/events", token, ""); m["accessRole"] != "reader" {
		t.Errorf("%v", m)
	}
	s.AddGrant(Grant{User: "low@x.example", ClientID: "id", ClientSecret: "secret", RefreshToken: "low", Scopes: []string{ScopeReadOnly}})
	_, m := ask(t, "POST", s.URL+"/token", "", refresh("id", "secret", "low"))
	if status, m := ask(t, "POST", events, m["access_token"].(string), body("")); status != 403 || reason(m) != "insufficientPermissions" {
		t.Errorf("read only: %d %v", status, m)
	}
}

func TestLifeOfAnEvent(t *testing.T) {
	s := start(t, Config{PendingPolls: 2})
	token := login(t, s)
	events := s.URL + "/calendar/v3/calendars/primary/events"
	attendees := `,"attendees":[{"email":"b@c.example"}]`
	// conferenceData without the version is dropped, and nobody is told
	_, m := ask(t, "POST", events, token, body(`,"id":"dropped","conferenceData":`+meet("r1")+attendees))
	if m["conferenceData"] != nil || m["id"] != "dropped" || len(s.Mails()) != 0 {
		t.Fatalf("%v %v", m, s.Mails())
	}
	status := func() any {
		_, m := ask(t, "GET", events+"/first", token, "")
		return m["conferenceData"].(map[string]any)["createRequest"].(map[string]any)["status"].(map[string]any)["statusCode"]
	}
	if code, m := ask(t, "POST", events+"?conferenceDataVersion=1&sendUpdates=all", token, body(`,"id":"first","conferenceData":`+meet("r1")+attendees)); code != 200 || m["hangoutLink"] != nil {
		t.Fatalf("%d %v", code, m)
	}
	if a, b := status(), status(); a != "pending" || b != "success" {
		t.Fatalf("%v, then %v", a, b)
	}
	one, _ := s.Event(ana, "first")
	if code, _ := ask(t, "POST", events+"?conferenceDataVersion=1", token, body(`,"id":"second","conferenceData":`+meet("r1"))); code != 200 {
		t.Fatal(code)
	}
	two, _ := s.Event(ana, "second")
	if one.Conference.URL != two.Conference.URL || !strings.HasPrefix(one.Conference.URL, "https://meet.google.com/") {
		t.Fatalf("%+v %+v", one.Conference, two.Conference)
	}
	if _, m := ask(t, "PATCH", events+"/first?sendUpdates=all&conferenceDataVersion=1", token, `{"start":{"dateTime":"2027-03-01T09:00:00Z","date":null},"conferenceData":`+meet("r2")+`}`); m["sequence"] != 1.0 {
		t.Fatalf("%v", m)
	}
	if next, _ := s.Event(ana, "first"); next.Conference.URL == one.Conference.URL || next.Conference.Status != "pending" || len(next.Attendees) != 1 {
		t.Fatalf("%+v", next)
	}
	for i, want := range []int{204, 410} {
		if code, _ := ask(t, "DELETE", events+"/first?sendUpdates=all", token, ""); code != want {
			t.Errorf("delete %d: %d", i, code)
		}
	}
	if code, m := ask(t, "GET", events+"/first", token, ""); code != 200 || m["status"] != "cancelled" {
		t.Errorf("%d %v", code, m)
	}
	if code, m := ask(t, "PATCH", events+"/first", token, `{"summary":"x"}`); code != 200 || m["status"] != "cancelled" {
		t.Errorf("%d %v", code, m)
	}
	if code, m := ask(t, "POST", events, token, body(`,"id":"first"`)); code != 409 || reason(m) != "duplicate" {
		t.Errorf("%d %v", code, m)
	}
	s.Forget(ana, "first")
	if code, _ := ask(t, "GET", events+"/first", token, ""); code != 404 {
		t.Errorf("forgotten: %d", code)
	}
	if code, _ := ask(t, "POST", events, token, body(`,"id":"first"`)); code != 409 {
		t.Errorf("forgotten, and free: %d", code)
	}
	var kinds []string
	for _, m := range s.Mails() {
		kinds = append(kinds, m.Kind+" "+m.To+" "+m.EventID)
	}
	if got := strings.Join(kinds, ", "); got != "invited b@c.example first, updated b@c.example first, cancelled b@c.example first" {
		t.Error(got)
	}
	if got := len(s.Events(ana)); got != 2 {
		t.Errorf("%d events stand", got)
	}
	if w := s.Writes(); len(w) != 5 || w[3].Kind != "patch" || w[3].SendUpdates != "all" || w[4].Kind != "delete" || w[4].User != ana {
		t.Errorf("%+v", w)
	}
}

func TestFaults(t *testing.T) {
	s := start(t, Config{})
	token := login(t, s)
	events := s.URL + "/calendar/v3/calendars/primary/events?conferenceDataVersion=1"
	for i, tc := range []struct {
		f      Fault
		status int
		writes int
	}{
		{RateLimited(), 403, 0}, {TooMany(time.Second), 429, 0}, {QuotaExceeded(), 403, 0}, {Unavailable(), 503, 0},
		{UnavailableAfterAccepting(), 503, 1}, {GatewayHTML(502), 502, 0}, {Redirect("http://elsewhere.example"), 307, 0}, {Echo(400), 400, 0},
		{Answer(200, "text/plain", "x"), 200, 0}, {ResetBeforeReading(), 0, 0}, {ResetAfterAccepting(), 0, 1}, {TruncateAfterAccepting(), -200, 1},
		{Delay(time.Millisecond), 200, 1}, {ConferencePending(3), 200, 1}, {ConferenceFails(), 200, 1},
	} {
		before := len(s.Writes())
		s.On("insert", 1, tc.f)
		status, m := ask(t, "POST", events, token, body(fmt.Sprintf(`,"id":"event%d","conferenceData":%s`, i, meet(fmt.Sprint(i)))))
		if got := len(s.Writes()) - before; status != tc.status || got != tc.writes {
			t.Errorf("%s: %d, %d writes; %v", tc.f.Name, status, got, m)
		}
		if r := s.Requests(); r[len(r)-1].Fault != tc.f.Name {
			t.Errorf("%s: the journal tells %q", tc.f.Name, r[len(r)-1].Fault)
		}
	}
	if status, _ := ask(t, "POST", events, token, body(`,"id":"afterall"`)); status != 200 {
		t.Errorf("a fault stays: %d", status)
	}
	s.On("insert", -1, Hang())
	s.Behave()
	for _, r := range s.Requests() {
		if r.Kind == "token" && r.Body != nil {
			t.Error("the journal keeps the token endpoint's form")
		}
		if bytes.Contains(r.Body, []byte(token)) || r.InQuery {
			t.Error("the journal keeps a token")
		}
	}
	// a fault of one kind leaves the others alone, and close ends who hangs
	s.On("token", -1, Hang())
	if status, _ := ask(t, "GET", events, token, ""); status != 200 {
		t.Errorf("%d", status)
	}
	ended := make(chan int)
	go func() {
		req, _ := http.NewRequest("POST", s.URL+"/token", strings.NewReader(""))
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		if resp, err := tr.RoundTrip(req); err == nil {
			resp.Body.Close()
		}
		close(ended)
	}()
	if err := s.Wait(t.Context(), func() bool { return s.Count("token") == 2 }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	<-ended
	if err := s.Wait(t.Context(), func() bool { return false }); !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestJournalIsBounded(t *testing.T) {
	s := start(t, Config{JournalLimit: 3})
	token := login(t, s)
	for i := range 10 {
		ask(t, "POST", s.URL+"/calendar/v3/calendars/primary/events?sendUpdates=all", token, body(fmt.Sprintf(`,"id":"event%d","attendees":[{"email":"b@c.example"}]`, i)))
	}
	got, err := s.WaitWrites(t.Context(), 10)
	if err != nil || len(got) > 6 || got[len(got)-1].Seq != 10 || len(s.Mails()) > 6 || len(s.Requests()) > 6 {
		t.Errorf("%d kept, %v", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.WaitWrites(ctx, 11); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
