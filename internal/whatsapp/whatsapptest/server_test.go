package whatsapptest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	waba   = "200000000000001"
	number = "300000000000001"
	token  = "EAAGtoken"
	appKey = "app-secret"
)

func start(t *testing.T, cfg whatsapptest.Config) *whatsapptest.Server {
	t.Helper()
	cfg.AppSecret = appKey
	s, err := whatsapptest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddAccount(whatsapptest.Account{WABAID: waba, Token: token, Numbers: []whatsapptest.Number{{ID: number, Display: "12025550170"}},
		Templates: []whatsapptest.Template{{Name: "hello", Body: "Hi {{1}} of {{2}}"}, {Name: "named", Body: "Hi {{name}}", Header: "For {{1}}"}}})
	return s
}

type got struct {
	status int
	body   string
	err    error
	Error  struct {
		Code    int `json:"code"`
		Subcode int `json:"error_subcode"`
	} `json:"error"`
	Messages []struct {
		ID string `json:"id"`
	} `json:"messages"`
}

func call(t *testing.T, method, url, bearer, kind, body string) (g got) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	req.Header.Set("Content-Type", kind)
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return got{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	g.status, g.body, g.err = resp.StatusCode, string(b), err
	_ = json.Unmarshal(b, &g)
	return g
}

func send(t *testing.T, s *whatsapptest.Server, body string) got {
	return call(t, "POST", s.URL+"/v25.0/"+number+"/messages", token, "application/json", body)
}

func message(rest string) string {
	return `{"messaging_product":"whatsapp","to":"12025550143",` + rest + `}`
}

// TestStrictness holds the judgement of sends: what Meta refuses is refused, with its code.
func TestStrictness(t *testing.T) {
	s := start(t, whatsapptest.Config{})
	text := `"type":"text","text":{"body":"x"}`
	tmpl := func(name, params string) string {
		return message(`"type":"template","template":{"name":"` + name + `","language":{"code":"en"},"components":[` + params + `]}`)
	}
	body := func(p string) string { return `{"type":"body","parameters":[` + p + `]}` }
	one := func(v string) string { return `{"type":"text","text":"` + v + `"}` }
	for name, tc := range map[string]struct {
		body string
		code int // 0: accepted
	}{
		"text":                     {message(text), 0},
		"text by default":          {message(`"text":{"body":"x"}`), 0},
		"4096":                     {message(`"type":"text","text":{"body":"` + strings.Repeat("é", 4096) + `"}`), 0},
		"4097":                     {message(`"type":"text","text":{"body":"` + strings.Repeat("é", 4097) + `"}`), 100},
		"512 of callback":          {message(text + `,"biz_opaque_callback_data":"` + strings.Repeat("x", 512) + `"`), 0},
		"513 of callback":          {message(text + `,"biz_opaque_callback_data":"` + strings.Repeat("x", 513) + `"`), 100},
		"no JSON":                  {`{"messaging_product":`, 100},
		"a list":                   {`[]`, 100},
		"no product":               {`{"to":"12025550143",` + text + `}`, 131008},
		"another product":          {`{"messaging_product":"telegram","to":"12025550143",` + text + `}`, 100},
		"to nobody":                {`{"messaging_product":"whatsapp",` + text + `}`, 131008},
		"to a number":              {`{"messaging_product":"whatsapp","to":12025550143,` + text + `}`, 100},
		"to letters":               {`{"messaging_product":"whatsapp","to":"abc",` + text + `}`, 131009},
		"to itself":                {`{"messaging_product":"whatsapp","to":"12025550170",` + text + `}`, 131021},
		"to a user id":             {`{"messaging_product":"whatsapp","recipient":"US.9021",` + text + `}`, 0},
		"to a group":               {`{"messaging_product":"whatsapp","recipient_type":"group","to":"Y2FwaQ",` + text + `}`, 0},
		"unknown type":             {message(`"type":"hologram","hologram":{}`), 100},
		"unknown key":              {message(text + `,"extra":1`), 100},
		"the object of another":    {message(`"type":"text","image":{"link":"https://x.example"}`), 100},
		"an empty body":            {message(`"type":"text","text":{"body":""}`), 131008},
		"a body that is a number":  {message(`"type":"text","text":{"body":5}`), 100},
		"a reply to nothing":       {message(text + `,"context":{}`), 131008},
		"a link":                   {message(`"type":"image","image":{"link":"https://x.example/a.jpg","caption":"x"}`), 0},
		"no link nor id":           {message(`"type":"image","image":{"caption":"x"}`), 131008},
		"both":                     {message(`"type":"image","image":{"link":"https://x.example","id":"1"}`), 131008},
		"no link at all":           {message(`"type":"image","image":{"link":"x"}`), 131009},
		"an audio's caption":       {message(`"type":"audio","audio":{"link":"https://x.example","caption":"x"}`), 100},
		"location zero":            {message(`"type":"location","location":{"latitude":0,"longitude":0}`), 0},
		"location of strings":      {message(`"type":"location","location":{"latitude":"0","longitude":"0"}`), 100},
		"half a location":          {message(`"type":"location","location":{"latitude":0}`), 131008},
		"a nameless card":          {message(`"type":"contacts","contacts":[{"phones":[]}]`), 131008},
		"a reaction taken back":    {message(`"type":"reaction","reaction":{"message_id":"x","emoji":""}`), 0},
		"a reaction to nothing":    {message(`"type":"reaction","reaction":{"emoji":"x"}`), 131008},
		"an interactive":           {message(`"type":"interactive","interactive":{"type":"button","body":{"text":"x"},"action":{}}`), 0},
		"an interactive, no act":   {message(`"type":"interactive","interactive":{"type":"button","body":{"text":"x"}}`), 131008},
		"template":                 {tmpl("hello", body(one("a")+","+one("b"))), 0},
		"template, one missing":    {tmpl("hello", body(one("a"))), 132000},
		"template, none":           {tmpl("hello", ""), 132000},
		"template, too many":       {tmpl("hello", body(one("a")+","+one("b")+","+one("c"))), 132000},
		"template, an empty value": {tmpl("hello", body(one("a")+","+one(""))), 131008},
		"template, a line break":   {tmpl("hello", body(one("a")+","+one(`b\nc`))), 132018},
		"template, a tab":          {tmpl("hello", body(one("a")+","+one(`b\tc`))), 132018},
		"template, four spaces":    {tmpl("hello", body(one("a")+","+one(`b    c`))), 132018},
		"template, unknown":        {tmpl("none", ""), 132001},
		"template, named":          {tmpl("named", `{"type":"header","parameters":[`+one("a")+`]},`+body(`{"type":"text","parameter_name":"name","text":"x"}`)), 0},
		"template, misnamed":       {tmpl("named", `{"type":"header","parameters":[`+one("a")+`]},`+body(one("x"))), 100},
		"template, headless":       {tmpl("named", body(`{"type":"text","parameter_name":"name","text":"x"}`)), 132000},
		"template, a button":       {tmpl("hello", body(one("a")+","+one("b"))+`,{"type":"button","sub_type":"url","index":"0","parameters":[`+one("x")+`]}`), 0},
		"template, no index":       {tmpl("hello", body(one("a")+","+one("b"))+`,{"type":"button","sub_type":"url","parameters":[]}`), 131008},
	} {
		before := len(s.Accepted())
		g := send(t, s, tc.body)
		accepted := len(s.Accepted()) - before
		if tc.code == 0 && (g.status != 200 || len(g.Messages) != 1 || accepted != 1) || tc.code != 0 && (g.status < 400 || g.Error.Code != tc.code || accepted != 0) {
			t.Errorf("%s: %d %s, %d accepted", name, g.status, g.body, accepted)
		}
	}
}

func TestWhoMayCall(t *testing.T) {
	s := start(t, whatsapptest.Config{})
	s.AddAccount(whatsapptest.Account{WABAID: "200000000000009", Token: "other", Numbers: []whatsapptest.Number{{ID: "300000000000009"}}})
	body := message(`"type":"text","text":{"body":"x"}`)
	for name, tc := range map[string]struct {
		path, token   string
		code, subcode int
	}{
		"unknown token":     {"/v25.0/" + number + "/messages", "nobody", 190, 463},
		"no token":          {"/v25.0/" + number + "/messages", "", 190, 463},
		"another's number":  {"/v25.0/" + number + "/messages", "other", 100, 33},
		"an unknown number": {"/v25.0/1/messages", token, 100, 33},
		"no version":        {"/" + number + "/messages", token, 2500, 0},
		"an odd version":    {"/v1.0/" + number + "/messages", token, 2500, 0},
		"an unknown edge":   {"/v25.0/" + number + "/nothing", token, 2500, 0},
		"in the address":    {"/v25.0/" + number + "/messages?access_token=" + token, "", 190, 463},
	} {
		if g := call(t, "POST", s.URL+tc.path, tc.token, "application/json", body); g.Error.Code != tc.code || g.Error.Subcode != tc.subcode {
			t.Errorf("%s: %d %s", name, g.status, g.body)
		}
	}
	in := 0
	for _, r := range s.Requests() {
		if r.InQuery {
			in++
		}
		if r.Token == token || strings.Contains(fmt.Sprint(r), token) && !r.InQuery {
			t.Error("the journal holds a token")
		}
	}
	if in != 1 || len(s.Accepted()) != 0 {
		t.Errorf("%d tokens in addresses, %d accepted", in, len(s.Accepted()))
	}
	s.SetToken(waba, "new")
	if g := send(t, s, body); g.Error.Code != 190 {
		t.Errorf("the old token: %s", g.body)
	}
	if g := call(t, "POST", s.URL+"/v25.0/"+number+"/messages", "new", "application/json", body); g.status != 200 {
		t.Errorf("the new token: %s", g.body)
	}
}

func TestJournal(t *testing.T) {
	s := start(t, whatsapptest.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := s.WaitAccepted(ctx, 5)
		done <- err
	}()
	for i := range 5 {
		send(t, s, message(fmt.Sprintf(`"type":"text","text":{"body":"x"},"biz_opaque_callback_data":"k%d"`, i/2)))
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := s.Duplicates(); len(d) != 2 || d["k0"] != 2 || d["k1"] != 2 {
		t.Errorf("duplicates %v", d)
	}
	ids := map[string]bool{}
	for i, a := range s.Accepted() {
		ids[a.ID] = true
		if a.Seq != i+1 || a.PhoneNumberID != number || a.WABAID != waba || a.WAID != "12025550143" || a.Type != "text" || !json.Valid(a.Body) {
			t.Errorf("%+v", a)
		}
	}
	if len(ids) != 5 {
		t.Error("ids repeat")
	}
	for i, r := range s.Requests() {
		if r.Seq != i+1 || r.Kind != "send" || r.Status != 200 || !r.TokenOK || len(r.Token) != 12 || len(r.Body) == 0 {
			t.Errorf("%+v", r)
		}
	}
	soon, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if _, err := s.WaitAccepted(soon, 6); err == nil || !strings.Contains(err.Error(), "5 messages accepted") {
		t.Error(err)
	}
}

func TestJournalIsBounded(t *testing.T) {
	s := start(t, whatsapptest.Config{JournalLimit: 3})
	for range 20 {
		send(t, s, message(`"type":"text","text":{"body":"x"}`))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if a, err := s.WaitAccepted(ctx, 20); err != nil || len(a) > 6 || a[len(a)-1].Seq != 20 {
		t.Errorf("%d kept, %v", len(a), err)
	}
	if r := s.Requests(); len(r) > 6 || r[len(r)-1].Seq != 20 {
		t.Errorf("%d requests kept", len(r))
	}
}

func TestFaultsAreUsedUpInOrder(t *testing.T) {
	s := start(t, whatsapptest.Config{})
	s.Next(2, whatsapptest.RateLimited(3*time.Second))
	s.Next(1, whatsapptest.ResetBeforeReading())
	s.Next(1, whatsapptest.GatewayHTML(502))
	s.When(-1, func(r whatsapptest.Request) bool { return bytes.Contains(r.Body, []byte("131026")) }, whatsapptest.GraphError(400, 131026, "x"))
	var seen []string
	for range 5 {
		g := send(t, s, message(`"type":"text","text":{"body":"x"}`))
		seen = append(seen, fmt.Sprint(g.status, g.err != nil))
	}
	if want := []string{"429 false", "429 false", "0 true", "502 false", "200 false"}; !slices.Equal(seen, want) {
		t.Errorf("%v, want %v", seen, want)
	}
	for range 2 {
		if g := send(t, s, message(`"type":"text","text":{"body":"131026"}`)); g.Error.Code != 131026 {
			t.Errorf("by predicate: %s", g.body)
		}
	}
	if g := send(t, s, `{"messaging_product":"whatsapp","status":"read","message_id":"m"}`); g.status != 200 {
		t.Errorf("a read mark: %s", g.body)
	}
	var faults []string
	for _, r := range s.Requests() {
		faults = append(faults, r.Kind+"/"+r.Fault)
	}
	if want := []string{"send/error 130429", "send/error 130429", "send/reset before reading", "send/gateway 502", "send/", "send/error 131026", "send/error 131026", "read/"}; !slices.Equal(faults, want) {
		t.Errorf("%v", faults)
	}
	if n := len(s.Accepted()); n != 1 {
		t.Errorf("%d accepted", n)
	}
}

// hook is an engine's webhook: it keeps what it was sent, after some refusals.
type hook struct {
	mu      sync.Mutex
	refuse  atomic.Int64
	bodies  []string
	bad     int
	changed chan struct{}
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	if h.refuse.Add(-1) >= 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Header.Get("X-Hub-Signature-256") != whatsapptest.Sign(appKey, b) {
		h.bad++
	}
	h.bodies = append(h.bodies, string(b))
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *hook) wait(t *testing.T, n int) []string {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		h.mu.Lock()
		got := slices.Clone(h.bodies)
		h.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-h.changed:
		case <-deadline:
			t.Fatalf("%d webhooks, waited for %d", len(got), n)
		}
	}
}

func listen(t *testing.T) (*hook, string) {
	h := &hook{changed: make(chan struct{}, 1)}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return h, srv.URL
}

type webhook struct {
	Entry []struct {
		ID      string `json:"id"`
		Changes []struct {
			Field string `json:"field"`
			Value struct {
				Statuses []struct {
					ID     string `json:"id"`
					Status string `json:"status"`
					Opaque string `json:"biz_opaque_callback_data"`
					Errors []struct {
						Code int `json:"code"`
					} `json:"errors"`
				} `json:"statuses"`
				Messages []struct {
					From string `json:"from"`
					User string `json:"from_user_id"`
					Text struct {
						Body string `json:"body"`
					} `json:"text"`
				} `json:"messages"`
			} `json:"value"`
		} `json:"changes"`
	} `json:"entry"`
}

func states(t *testing.T, bodies []string) (out []string) {
	t.Helper()
	for _, b := range bodies {
		var w webhook
		if err := json.Unmarshal([]byte(b), &w); err != nil {
			t.Fatal(err)
		}
		for _, s := range w.Entry[0].Changes[0].Value.Statuses {
			x := s.Opaque + ":" + s.Status
			for _, e := range s.Errors {
				x += fmt.Sprint("/", e.Code)
			}
			out = append(out, x)
		}
	}
	return out
}

func TestStatusesFollow(t *testing.T) {
	for name, tc := range map[string]struct {
		fault  *whatsapptest.Fault
		refuse int64
		want   []string
	}{
		"by themselves":                {nil, 0, []string{"k:sent", "k:delivered", "k:read"}},
		"until they are taken":         {nil, 4, []string{"k:sent", "k:delivered", "k:read"}},
		"twice":                        {new(whatsapptest.DuplicateStatuses(2)), 0, []string{"k:sent", "k:sent", "k:delivered", "k:delivered", "k:read", "k:read"}},
		"turned round":                 {new(whatsapptest.ShuffleStatuses()), 0, []string{"k:read", "k:delivered", "k:sent"}},
		"failed":                       {new(whatsapptest.FailedStatus(131026)), 0, []string{"k:failed/131026"}},
		"although the answer was lost": {new(whatsapptest.ResetAfterAccepting()), 0, []string{"k:sent", "k:delivered", "k:read"}},
	} {
		t.Run(name, func(t *testing.T) {
			h, url := listen(t)
			h.refuse.Store(tc.refuse)
			s := start(t, whatsapptest.Config{WebhookURL: url, RetryEvery: time.Millisecond})
			if tc.fault != nil {
				s.Next(1, *tc.fault)
			}
			send(t, s, message(`"type":"text","text":{"body":"x"},"biz_opaque_callback_data":"k"`))
			if got := states(t, h.wait(t, len(tc.want))); !slices.Equal(got, tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
			if h.bad != 0 {
				t.Errorf("%d bad signatures", h.bad)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			want := int(tc.refuse) + len(tc.want)
			if err := s.Wait(ctx, func() bool { return len(s.Deliveries()) == want }); err != nil {
				t.Errorf("%d deliveries, want %d", len(s.Deliveries()), want)
			}
		})
	}
}

func TestNoStatuses(t *testing.T) {
	h, url := listen(t)
	s := start(t, whatsapptest.Config{WebhookURL: url, Statuses: []string{"sent"}})
	s.Next(1, whatsapptest.NoStatuses())
	send(t, s, message(`"type":"text","text":{"body":"x"},"biz_opaque_callback_data":"a"`))
	send(t, s, message(`"type":"text","text":{"body":"x"},"biz_opaque_callback_data":"b"`))
	if got := states(t, h.wait(t, 1)); !slices.Equal(got, []string{"b:sent"}) {
		t.Errorf("%v", got)
	}
}

func TestWebhooksAreMetas(t *testing.T) {
	h, url := listen(t)
	s := start(t, whatsapptest.Config{WebhookURL: url})
	s.AddAccount(whatsapptest.Account{WABAID: "200000000000009", Token: "o", Numbers: []whatsapptest.Number{{ID: "300000000000009"}}})
	ctx := t.Context()
	if err := s.Receive(ctx, s.InboundText(number, "12025550143", "Cléo", "é 👍 https://x.example/a?b=<1>&c"), s.InboundText("300000000000009", "GB.9021", "", "hi"),
		s.TemplateStatus(waba, "hello", "en", "PAUSED")); err != nil {
		t.Fatal(err)
	}
	raw := h.wait(t, 1)[0]
	for _, want := range []string{`\u00e9 \ud83d\udc4d https:\/\/x.example\/a?b=<1>&c`, `Cl\u00e9o`, `"object":"whatsapp_business_account"`} {
		if !strings.Contains(raw, want) {
			t.Errorf("%q is not in %s", want, raw)
		}
	}
	var w webhook
	if err := json.Unmarshal([]byte(raw), &w); err != nil {
		t.Fatal(err)
	}
	if len(w.Entry) != 3 || w.Entry[0].ID != waba || w.Entry[1].ID != "200000000000009" || w.Entry[2].Changes[0].Field != "message_template_status_update" {
		t.Fatalf("%+v", w)
	}
	first, second := w.Entry[0].Changes[0].Value.Messages[0], w.Entry[1].Changes[0].Value.Messages[0]
	if first.From != "12025550143" || first.User != whatsapptest.UserID("12025550143") || second.From != "" || second.User != "GB.9021" || second.Text.Body != "hi" {
		t.Errorf("%+v %+v", first, second)
	}
	if g := send(t, s, message(`"type":"template","template":{"name":"hello","language":{"code":"en"}}`)); g.Error.Code != 132015 {
		t.Errorf("the paused template: %s", g.body)
	}
	if status, err := s.Deliver(ctx, url, []byte(`{}`)); err != nil || status != 200 {
		t.Error(status, err)
	}
	h.refuse.Store(1)
	if err := s.Receive(ctx, s.InboundText(number, "12025550143", "A", "x")); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a refused webhook: %v", err)
	}
}

func TestUploadsAreJudged(t *testing.T) {
	s := start(t, whatsapptest.Config{})
	form := func(fields map[string]string, mime string) (string, string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for k, v := range fields {
			_ = w.WriteField(k, v)
		}
		if mime != "" {
			p, _ := w.CreatePart(map[string][]string{"Content-Disposition": {`form-data; name="file"; filename="a"`}, "Content-Type": {mime}})
			_, _ = io.WriteString(p, "data")
		}
		_ = w.Close()
		return b.String(), w.FormDataContentType()
	}
	for name, tc := range map[string]struct {
		fields map[string]string
		mime   string
		ok     bool
	}{
		"right":      {map[string]string{"messaging_product": "whatsapp", "type": "image/png"}, "image/png", true},
		"no product": {map[string]string{"type": "image/png"}, "image/png", false},
		"no type":    {map[string]string{"messaging_product": "whatsapp"}, "image/png", false},
		"two types":  {map[string]string{"messaging_product": "whatsapp", "type": "image/jpeg"}, "image/png", false},
		"no file":    {map[string]string{"messaging_product": "whatsapp", "type": "image/png"}, "", false},
	} {
		body, kind := form(tc.fields, tc.mime)
		if g := call(t, "POST", s.URL+"/v25.0/"+number+"/media", token, kind, body); (g.status == 200) != tc.ok {
			t.Errorf("%s: %d %s", name, g.status, g.body)
		}
	}
	id := s.AddMedia(number, "image/png", []byte("data"))
	if g := call(t, "DELETE", s.URL+"/v25.0/"+id, token, "", ""); g.status != 200 {
		t.Error(g.body)
	}
	if g := call(t, "GET", s.URL+"/v25.0/"+id, token, "", ""); g.Error.Subcode != 33 {
		t.Error(g.body)
	}
}

func TestLinksExpire(t *testing.T) {
	var now atomic.Int64
	now.Store(1_800_000_000)
	s := start(t, whatsapptest.Config{Now: func() time.Time { return time.Unix(now.Load(), 0) }})
	id := s.AddMedia(number, "image/png", []byte("data"))
	var info struct{ URL string }
	_ = json.Unmarshal([]byte(call(t, "GET", s.URL+"/v25.0/"+id, token, "", "").body), &info)
	get := func(link string) int { return call(t, "GET", link, token, "", "").status }
	if n := get(info.URL); n != 200 {
		t.Error(n)
	}
	if n := get(strings.Replace(info.URL, "ext=1800000300", "ext=1900000000", 1)); n != 404 {
		t.Error("a changed link", n)
	}
	now.Add(299)
	if n := get(info.URL); n != 200 {
		t.Error("after 299 s", n)
	}
	now.Add(1)
	if n := get(info.URL); n != 404 {
		t.Error("after 300 s", n)
	}
}

func TestCloseEndsWhatHangs(t *testing.T) {
	_, url := listen(t)
	s := start(t, whatsapptest.Config{WebhookURL: url, StatusDelay: time.Hour})
	s.Next(1, whatsapptest.Hang())
	done := make(chan got, 1)
	go func() { done <- send(t, s, message(`"type":"text","text":{"body":"x"}`)) }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Wait(ctx, func() bool { return len(s.Requests()) == 1 }); err != nil {
		t.Fatal(err)
	}
	send(t, s, message(`"type":"text","text":{"body":"x"}`)) // its statuses wait an hour
	s.Close()
	if g := <-done; g.err == nil {
		t.Errorf("%+v", g)
	}
}

func TestConcurrentUse(t *testing.T) {
	h, url := listen(t)
	s := start(t, whatsapptest.Config{WebhookURL: url, Statuses: []string{"sent"}})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				send(t, s, message(fmt.Sprintf(`"type":"text","text":{"body":"x"},"biz_opaque_callback_data":"%d-%d"`, i, j)))
				s.SetTemplate(waba, whatsapptest.Template{Name: fmt.Sprint("t", i), Body: "x"})
				call(t, "GET", s.URL+"/v25.0/"+waba+"/message_templates", token, "", "")
				call(t, "POST", s.URL+"/v25.0/"+number+"/whatsapp_business_profile", token, "application/json", `{"messaging_product":"whatsapp","about":"x"}`)
				s.Requests()
			}
		})
	}
	wg.Wait()
	h.wait(t, 160)
	if n := len(s.Accepted()); n != 160 || len(s.Duplicates()) != 0 {
		t.Errorf("%d accepted", n)
	}
}
