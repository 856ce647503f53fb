package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// problem checks that an answer is a problem of this status and code ("" for any), as every error is.
func (a *answer) problem(status int, code string) *answer {
	a.t.Helper()
	a.want(status)
	if ct := a.Header.Get("Content-Type"); ct != "application/problem+json" {
		a.t.Errorf("%s: %d is told as %q: %s", a.what, status, ct, a.Body)
		return a
	}
	var p struct {
		Type, Title, Detail, Code, Instance string
		Status                              int
	}
	a.into(&p)
	if p.Status != status || p.Type == "" || p.Title == "" || p.Detail == "" || p.Code == "" || p.Instance == "" || p.Instance != a.Header.Get("X-Request-Id") {
		a.t.Errorf("%s: %s with x-request-id %q", a.what, a.Body, a.Header.Get("X-Request-Id"))
	}
	if code != "" && p.Code != code {
		a.t.Errorf("%s: code %q, want %q: %s", a.what, p.Code, code, a.Body)
	}
	return a
}

// pointers are the places that a problem names.
func (a *answer) pointers() string {
	var p struct{ Errors []struct{ Pointer string } }
	a.into(&p)
	var out []string
	for _, e := range p.Errors {
		out = append(out, e.Pointer)
	}
	return strings.Join(out, " ")
}

// stream hides its length, so that the body is sent in chunks.
type stream struct{ io.Reader }

// raw sends exactly this.
func (e *engine) raw(method, path string, body io.Reader, header map[string]string) *answer {
	e.t.Helper()
	req, err := http.NewRequest(method, e.url+path, body)
	if err != nil {
		e.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	return &answer{t: e.t, what: method + " " + path, Status: res.StatusCode, Header: res.Header, Body: b}
}

func (c *client) headers(more ...string) map[string]string {
	h := map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, "Content-Type": "application/json"}
	for i := 0; i+1 < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

// What is wrong is refused with a status that says so, a problem that says where, and nothing done.
func TestBadInput(t *testing.T) {
	e := start(t, t.TempDir(), newMeta(t))
	a, b := e.addClient("ACME", 1), e.addClient("BETA", 2)
	const rules, events = "/api/crm/automations/rules", "/api/crm/automations/events"

	t.Run("malformed", func(t *testing.T) {
		for _, body := range []string{`{`, `{"a":1,}`, `nope`, `{"trigger":"x"} extra`, "\xff\xfe", `{"a":"` + "\xc3" + `"}`, `{"trigger":"a","trigger":"b"}`,
			strings.Repeat("[", 100_000)} {
			a.call("POST", events, body).problem(400, "")
		}
		a.e.raw("POST", events, nil, a.headers()).problem(400, "json.missing")
	})
	t.Run("wrong", func(t *testing.T) {
		for _, c := range []struct{ path, body, pointer string }{
			{events, `{"trigger":5,"phone":"918143963821"}`, "/trigger"},
			{events, `{"trigger":"form_submitted","phone":"918143963821","colour":"red"}`, "/colour"},
			{events, `{"trigger":"tea_time","phone":"918143963821"}`, "/trigger"},
			{events, `{"trigger":"form_submitted"}`, "/phone"},
			{events, `{"trigger":"form_submitted","phone":"123"}`, "/phone"},
			{events, `{"trigger":"form_submitted","phone":"918143963821","email":"nobody"}`, "/email"},
			{events, `{"trigger":"form_submitted","phone":"918143963821","occurredAt":"yesterday"}`, "/occurredAt"},
			{events, `{"trigger":"form_submitted","phone":"918143963821","leadData":{"value":"much"}}`, "/leadData/value"},
			{events, `{"trigger":"form_submitted","phone":null}`, "/phone"},
			{events, `[]`, ""},
			{events, `null`, ""},
			{rules, `{"name":"x","trigger":"form_submitted","actions":[{"type":"lead.score","points":"ten"}]}`, "/actions/0/points"},
			{rules, `{"name":"x","trigger":"form_submitted","actions":[{"type":"lead.score","points":1},{"type":"tea"}]}`, "/actions/1/type"},
			{rules, `{"name":"x","trigger":"form_submitted","condition":"lead.score >","actions":[{"type":"lead.score","points":1}]}`, "/condition"},
			{rules, `{"name":"x","trigger":"form_submitted","reenrol":"sometimes","actions":[{"type":"lead.score","points":1}]}`, "/reenrol"},
			{rules, `{"name":"x","trigger":"form_submitted","actions":[]}`, "/actions"},
		} {
			r := a.call("POST", c.path, c.body).problem(422, "")
			if !strings.Contains(" "+r.pointers()+" ", " "+c.pointer+" ") {
				t.Errorf("%s: the places are %q, want %q: %s", c.body, r.pointers(), c.pointer, r.Body)
			}
			if strings.Contains(string(r.Body), "tea_time") || strings.Contains(string(r.Body), "nobody") {
				t.Errorf("the value is repeated: %s", r.Body)
			}
		}
		r := a.call("POST", events, `{"trigger":"tea_time","phone":"918143963821"}`).problem(422, "")
		for _, known := range []string{"appointment_confirmed", "deal_won", "custom.*"} {
			if !strings.Contains(string(r.Body), known) {
				t.Errorf("an unknown trigger is not told of %s: %s", known, r.Body)
			}
		}
		a.call("GET", "/api/crm/leads?limit=5000", nil).problem(422, "")
		a.call("GET", "/api/crm/leads?cursor=nonsense", nil).problem(422, "")
		a.call("GET", "/api/crm/leads?scoreMin=many", nil).problem(422, "")
		a.call("GET", "/api/nothing/here", nil).problem(404, "")
		a.call("PUT", "/api/crm/leads", map[string]any{}).problem(405, "")
	})
	t.Run("too large", func(t *testing.T) {
		big := `{"trigger":"form_submitted","phone":"918143963821","variables":{"x":"` + strings.Repeat("x", 1<<20) + `"}}`
		a.call("POST", events, big).problem(413, "")
		e.raw("POST", events, stream{strings.NewReader(big)}, a.headers()).problem(413, "")
		hook := bytes.Repeat([]byte(" "), 4<<20+1)
		sign := map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(appSecret, hook)}
		e.raw("POST", "/api/whatsapp/webhook", bytes.NewReader(hook), sign).problem(413, "")
		e.raw("POST", "/api/whatsapp/webhook", stream{bytes.NewReader(hook)}, sign).problem(413, "")
		whole := append([]byte("{}"), hook[:4<<20-2]...) // the most that is taken
		e.raw("POST", "/api/whatsapp/webhook", stream{bytes.NewReader(whole)}, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(appSecret, whole)}).want(200)
		if d := e.sorted(t); !bytes.Equal(d.Body, whole) {
			t.Errorf("%d bytes are kept of %d", len(d.Body), len(whole))
		}
		// within the limit of bodies, beyond that of what an event keeps
		a.call("POST", events, `{"trigger":"form_submitted","phone":"918143963821","variables":{"x":"`+strings.Repeat("x", 40<<10)+`"}}`).problem(422, "")
	})
	t.Run("media type", func(t *testing.T) {
		for _, ct := range []string{"text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "nonsense"} {
			e.raw("POST", events, strings.NewReader(`{}`), a.headers("Content-Type", ct)).problem(415, "")
		}
	})
	t.Run("callers", func(t *testing.T) {
		e.send("GET", "/api/crm/leads", nil, nil).problem(401, "")
		e.send("GET", "/api/crm/leads", nil, map[string]string{"x-api-key": a.Key}).problem(401, "")
		e.send("GET", "/api/crm/leads", nil, map[string]string{"x-api-key": a.Key, "x-client-code": b.Code}).problem(401, "")
		e.send("GET", "/api/crm/leads", nil, map[string]string{"x-api-key": a.Key + "x", "x-client-code": a.Code}).problem(401, "")
		e.send("GET", "/api/crm/leads", nil, map[string]string{"x-api-key": "", "x-client-code": a.Code}).problem(401, "")
		e.send("GET", "/api/clients", nil, a.headers()).problem(401, "")
		e.send("GET", "/api/clients", nil, map[string]string{"Authorization": "Bearer nonsense"}).problem(401, "")
		e.send("GET", "/api/crm/leads", nil, map[string]string{"Authorization": "Bearer " + e.token}).problem(401, "")
	})
	t.Run("signatures", func(t *testing.T) {
		body := whatsapptest.Batch(e.meta.InboundText(a.Number, "12025550143", "Ana", "Hello"))
		before := e.admin("GET", "/api/admin/deliveries?state=settled", nil).want(200).Body
		for _, sig := range []string{"", "sha256=", "nonsense", whatsapptest.Sign("other", body), strings.ToUpper(whatsapptest.Sign(appSecret, body)),
			whatsapptest.Sign(appSecret, body)[:40], "sha1=" + whatsapptest.Sign(appSecret, body)[7:]} {
			h := map[string]string{}
			if sig != "" {
				h["X-Hub-Signature-256"] = sig
			}
			e.send("POST", "/api/whatsapp/webhook", body, h).problem(401, "")
		}
		spaced := append([]byte(" "), body...)
		e.send("POST", "/api/whatsapp/webhook", spaced, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(appSecret, body)}).problem(401, "")
		// a client without an app of its own has nothing to sign with
		e.send("POST", "/api/whatsapp/webhook/ACME", body, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign("", body)}).problem(401, "")
		e.send("POST", "/api/whatsapp/webhook/NOBODY", body, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(appSecret, body)}).problem(401, "")
		e.send("GET", "/api/whatsapp/webhook/ACME?hub.mode=subscribe&hub.verify_token=&hub.challenge=1", nil, nil).problem(403, "")
		e.send("GET", "/api/whatsapp/webhook?hub.mode=subscribe&hub.verify_token=wrong&hub.challenge=1", nil, nil).problem(403, "")
		ok := e.send("GET", "/api/whatsapp/webhook?hub.mode=subscribe&hub.verify_token=verify-me&hub.challenge=1158201444", nil, nil).want(200)
		if string(ok.Body) != "1158201444" {
			t.Errorf("challenge answered with %q", ok.Body)
		}
		for _, state := range []string{"received", "failed", "unresolved"} {
			if d := e.admin("GET", "/api/admin/deliveries?state="+state, nil).want(200); d.get("items.0") != nil {
				t.Errorf("something is %s: %s", state, d.Body)
			}
		}
		if after := e.admin("GET", "/api/admin/deliveries?state=settled", nil).want(200).Body; !bytes.Equal(before, after) {
			t.Errorf("an unsigned delivery is stored: %s", after)
		}
	})
	t.Run("keys", func(t *testing.T) {
		rule := func(name string) string {
			return `{"name":"` + name + `","trigger":"form_submitted","actions":[{"type":"lead.score","points":1}]}`
		}
		twice := func(path, body, other string, header map[string]string) {
			t.Helper()
			header["Idempotency-Key"] = "k-1"
			first := e.send("POST", path, body, header).want(201)
			again := e.send("POST", path, body, header).want(201)
			if !bytes.Equal(first.Body, again.Body) || again.Header.Get("Idempotency-Replayed") != "true" || first.Header.Get("Idempotency-Replayed") != "" {
				t.Errorf("%s again: %v %s, first %s", path, again.Header, again.Body, first.Body)
			}
			e.send("POST", path, other, header).problem(409, "idempotency.mismatch")
		}
		twice(rules, rule("One"), rule("Two"), a.headers())
		twice(rules, rule("Two"), rule("One"), b.headers()) // the key is each caller's own
		if n := len(a.all(rules)); n != 1 {
			t.Errorf("%d rules after one key", n)
		}
		admin := map[string]string{"Authorization": "Bearer " + e.token}
		twice("/api/clients", `{"clientCode":"GAMMA","name":"Gamma"}`, `{"clientCode":"DELTA","name":"Delta"}`, admin)
		var kept struct{ APIKey string }
		e.send("POST", "/api/clients", `{"clientCode":"GAMMA","name":"Gamma"}`, admin).want(201).into(&kept)
		e.send("GET", "/api/crm/leads", nil, map[string]string{"x-api-key": kept.APIKey, "x-client-code": "GAMMA"}).want(200)
		e.admin("POST", "/api/clients", `{"clientCode":"gamma","name":"Gamma"}`).problem(409, "client.exists")
		if log := e.log.String(); strings.Contains(log, kept.APIKey) {
			t.Error("an API key is in the log")
		}
		// an event's key names the event
		ev := `{"trigger":"form_submitted","phone":"918143963821","createLeadIfMissing":true}`
		first := e.send("POST", events, ev, a.headers("Idempotency-Key", "ev-1")).want(202)
		again := e.send("POST", events, ev, a.headers("Idempotency-Key", "ev-1")).want(202)
		if again.get("duplicate") != true || again.get("leadId") != first.get("leadId") || first.get("eventId") != "ev-1" {
			t.Errorf("first %s, again %s", first.Body, again.Body)
		}
		e.send("POST", events, strings.Replace(ev, "21", "22", 1), a.headers("Idempotency-Key", "ev-1")).problem(409, "event.mismatch")
	})
}

// spec is what a caller can know of the API: its own document.
type spec struct {
	Paths map[string]map[string]struct {
		OperationID string
		Parameters  []struct {
			Name, In string
			Schema   map[string]any
		}
		RequestBody struct {
			Content map[string]struct{ Schema map[string]any }
		}
		Security []map[string][]string
	}
	Components struct{ Schemas map[string]map[string]any }
}

func (e *engine) spec() *spec {
	e.t.Helper()
	s := &spec{}
	e.send("GET", "/openapi.json", nil, nil).want(200).into(s)
	return s
}

// Another client's things are not there, whatever is asked of them.
func TestForeignIDs(t *testing.T) {
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	owner, thief := e.addClient("ACME", 1), e.addClient("BETA", 2)
	ids := map[string]string{}
	ids["/api/crm/automations/rules/{id}"] = owner.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201).get("id").(string)
	ev := owner.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"eventId": "bk-1"})).want(202)
	ids["/api/crm/automations/events/{id}"] = "bk-1"
	ids["/api/crm/automations/runs/{id}"] = ev.get("runs.0.runId").(string)
	ids["/api/crm/leads/{id}"] = ev.get("leadId").(string)
	ids["/api/crm/contacts/{id}"] = owner.call("GET", "/api/crm/leads/"+ids["/api/crm/leads/{id}"], nil).want(200).get("contactId").(string)
	ids["/api/whatsapp/conversations/{id}"] = owner.call("GET", "/api/whatsapp/conversations", nil).want(200).get("items.0.id").(string)
	ids["/api/jobs/{id}"] = owner.call("GET", "/api/jobs", nil).want(200).get("items.0.id").(string)
	ids["/api/users/{id}"] = owner.addUser("dana@example.com", "agent")
	ids["/api/whatsapp/messages/{id}"] = owner.call("GET", "/api/whatsapp/conversations/"+ids["/api/whatsapp/conversations/{id}"]+"/messages", nil).want(200).get("items.0.id").(string)
	ids["/api/campaigns/{id}"] = owner.call("POST", "/api/campaigns", mailing(map[string]any{"filter": map[string]any{}}, nil)).want(201).get("id").(string)
	ids["/api/suppressions/{id}"] = owner.call("POST", "/api/suppressions", map[string]any{"email": "no@example.com", "reason": "asked"}).want(201).get("id").(string)
	ids["/api/crm/tags/{id}"] = owner.call("POST", "/api/crm/tags", map[string]any{"name": "acme only"}).want(201).get("id").(string)
	ids["/api/crm/pipelines/{id}"] = owner.call("POST", "/api/crm/pipelines", map[string]any{"name": "Acme deals", "stages": []map[string]any{{"name": "Asked"}}}).want(201).get("id").(string)
	ids["/api/media/{id}"] = owner.upload("file", "a.txt", []byte("of ACME alone")).want(201).get("id").(string)
	ids["/api/appointments/{id}"] = owner.book(nil)
	ids["/api/crm/imports/{id}"] = path.Base(path.Dir(owner.imported(owner.sheet("name,phone\nx,not a phone\n")).get("result.errorsUrl").(string)))
	ids["/api/crm/automations/schedules/{id}"] = owner.call("POST", "/api/crm/automations/schedules", map[string]any{"name": "yearly", "expr": "@yearly",
		"timeZone": "UTC", "trigger": "custom.tick", "leadId": ids["/api/crm/leads/{id}"]}).want(201).get("id").(string)
	tried := 0
	for path, ops := range e.spec().Paths {
		if !strings.Contains(path, "{id}") || strings.HasPrefix(path, "/api/admin/") || strings.HasPrefix(path, "/api/clients/") {
			continue
		}
		id := ids[path[:strings.Index(path, "{id}")+4]]
		if id == "" {
			t.Errorf("no id to try at %s: give this test one", path)
			continue
		}
		for method := range ops {
			var body any
			if method != "get" && method != "delete" {
				body = map[string]any{}
			}
			for _, b := range []any{body, map[string]any{"variables": map[string]any{"x": "y"}}, map[string]any{"name": "Mine", "leadId": ids["/api/crm/leads/{id}"]}} {
				if body == nil && b != nil {
					continue
				}
				target := strings.Replace(path, "{id}", id, 1)
				a := thief.call(strings.ToUpper(method), target, b)
				tried++
				if a.Status == 422 {
					continue // not a body of this call; another of them is
				}
				a.problem(404, "")
			}
		}
	}
	if tried < 20 {
		t.Errorf("only %d calls were tried", tried)
	}
	mine := thief.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201).get("id").(string)
	sim := thief.call("POST", "/api/crm/automations/rules/"+mine+"/simulate", map[string]any{"leadId": ids["/api/crm/leads/{id}"]})
	if sim.Status == 200 && sim.get("matched") != false {
		t.Errorf("a simulation saw a foreign lead: %s", sim.Body)
	}
	for path, ops := range e.spec().Paths {
		if _, ok := ops["get"]; !ok || strings.Contains(path, "{") || !strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/api/admin") ||
			strings.HasPrefix(path, "/api/clients") || strings.HasSuffix(path, "/webhook") || strings.HasPrefix(path, "/api/sessions/") {
			continue
		}
		list := thief.call("GET", path, nil).want(200)
		for kind, id := range ids {
			if strings.Contains(string(list.Body), id) {
				t.Errorf("%s shows the other's %s", path, kind)
			}
		}
	}
	if lead := owner.call("GET", "/api/crm/leads/"+ids["/api/crm/leads/{id}"], nil).want(200); lead.get("stage") != "booked" {
		t.Errorf("the lead was changed: %s", lead.Body)
	}
}

// noise makes values: mostly of a schema's shape, now and then of none.
type noise struct {
	*rand.Rand
	spec *spec
	ids  []string
}

var oddTexts = []string{"", " ", "\x00", "\u202e", "null", "{{x}}", "{{", "}}{{", "'; DROP TABLE leads; --", "../../etc/passwd", "%00%ff", "0", "-1", "1e400",
	"2026-02-30T25:61:61Z", "0000-00-00", "9999999999999999999999", "+", "+++", "918143963821", "true", strings.Repeat("x", 5000), "é\u0301", "👩‍👩‍👧", "\\u0000", "a.b[c]"}

func (n *noise) text() string {
	switch n.IntN(4) {
	case 0:
		return n.ids[n.IntN(len(n.ids))]
	case 1:
		b := make([]rune, n.IntN(12))
		for i := range b {
			b[i] = rune(n.IntN(0x2000))
		}
		return string(b)
	}
	return oddTexts[n.IntN(len(oddTexts))]
}

func (n *noise) any(depth int) any {
	switch k := n.IntN(9); {
	case k == 0:
		return nil
	case k == 1:
		return n.IntN(2) == 0
	case k == 2:
		return []any{0, -1, 1.5, math.MaxInt64, 1e308, -1e308, 1e-320, 4294967296.0}[n.IntN(8)]
	case k < 6 || depth > 4:
		return n.text()
	case k == 6:
		out := make([]any, n.IntN(4))
		for i := range out {
			out[i] = n.any(depth + 1)
		}
		return out
	default:
		out := map[string]any{}
		for range n.IntN(4) {
			out[n.text()] = n.any(depth + 1)
		}
		return out
	}
}

// of makes a value of a schema, with a mistake once in a while.
func (n *noise) of(s map[string]any, depth int) any {
	if n.IntN(25) == 0 || depth > 7 || s == nil {
		return n.any(depth)
	}
	if ref, ok := s["$ref"].(string); ok {
		return n.of(n.spec.Components.Schemas[ref[strings.LastIndex(ref, "/")+1:]], depth+1)
	}
	if choices, ok := s["enum"].([]any); ok {
		return choices[n.IntN(len(choices))]
	}
	for _, k := range []string{"oneOf", "anyOf"} {
		if choices, ok := s[k].([]any); ok && len(choices) > 0 {
			c, _ := choices[n.IntN(len(choices))].(map[string]any)
			return n.of(c, depth+1)
		}
	}
	if ex, ok := s["examples"].([]any); ok && len(ex) > 0 && n.IntN(2) == 0 {
		return ex[0]
	}
	typ, _ := s["type"].(string)
	if list, ok := s["type"].([]any); ok && len(list) > 0 {
		typ, _ = list[n.IntN(len(list))].(string)
	}
	switch typ {
	case "object":
		out := map[string]any{}
		required := fmt.Sprint(s["required"])
		props, _ := s["properties"].(map[string]any)
		for name, p := range props {
			if strings.Contains(required, name) || n.IntN(3) == 0 {
				m, _ := p.(map[string]any)
				out[name] = n.of(m, depth+1)
			}
		}
		if add, ok := s["additionalProperties"].(map[string]any); ok || s["additionalProperties"] == true {
			for range n.IntN(3) {
				out[n.text()] = n.of(add, depth+1)
			}
		}
		return out
	case "array":
		items, _ := s["items"].(map[string]any)
		out := make([]any, n.IntN(4))
		for i := range out {
			out[i] = n.of(items, depth+1)
		}
		return out
	case "string":
		return n.text()
	case "integer":
		return n.IntN(300) - 10
	case "number":
		return (n.Float64() - 0.2) * 100
	case "boolean":
		return n.IntN(2) == 0
	case "null":
		return nil
	}
	return n.any(depth)
}

// mangle spoils the bytes of a body.
func (n *noise) mangle(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + n.IntN(4) {
		if len(b) == 0 {
			break
		}
		i := n.IntN(len(b))
		switch n.IntN(4) {
		case 0:
			b[i] = byte(n.IntN(256))
		case 1:
			b = append(b[:i], b[min(len(b), i+1+n.IntN(20)):]...)
		case 2:
			j := n.IntN(len(b))
			b = append(b[:i:i], append(bytes.Clone(b[min(i, j):max(i, j)]), b[i:]...)...)
		case 3:
			b = b[:i]
		}
	}
	return b
}

// Thousands of bodies and parameters, right, nearly right and wrong, over every call that the API's document names:
// whatever comes, the answer is never a 500, and every error is a problem.
func TestNeverA500(t *testing.T) {
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	meta.SetWebhook(c.WABA, "http://127.0.0.1:1/nowhere")
	rule := c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201).get("id").(string)
	ev := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"eventId": "bk-1"})).want(202)
	e.admin("POST", "/api/clients", map[string]any{"clientCode": "VICTIM", "name": "Victim"}).want(201)
	doc := e.spec()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	n := &noise{rand.New(rand.NewPCG(seed, 1)), doc, []string{rule, "bk-1", ev.get("leadId").(string), ev.get("runs.0.runId").(string), "VICTIM", "whatsapp"}}

	type op struct {
		method, path string
	}
	var ops []op
	for path, methods := range doc.Paths {
		if strings.Contains(path, "/webhook") {
			continue
		}
		for m := range methods {
			ops = append(ops, op{m, path})
		}
	}
	if len(ops) < 30 {
		t.Fatalf("the document names only %d calls", len(ops))
	}
	admin := map[string]string{"Authorization": "Bearer " + e.token}
	counts := map[int]int{}
	began := time.Now()
	for i := 0; i < 4000 && time.Since(began) < 10*time.Second; i++ {
		o := ops[i%len(ops)]
		def := doc.Paths[o.path][o.method]
		path := o.path
		header := c.headers()
		if strings.HasPrefix(path, "/api/admin") || strings.HasPrefix(path, "/api/clients") {
			header = map[string]string{"Authorization": admin["Authorization"], "Content-Type": "application/json"}
		}
		query := []string{}
		for _, p := range def.Parameters {
			v := strings.ToValidUTF8(fmt.Sprint(n.of(p.Schema, 3)), "")
			switch p.In {
			case "path":
				if n.IntN(2) == 0 {
					v = n.ids[n.IntN(len(n.ids))]
				}
				path = strings.Replace(path, "{"+p.Name+"}", escape(v), 1)
			case "query":
				if n.IntN(2) == 0 {
					query = append(query, escape(p.Name)+"="+escape(v))
				}
			case "header":
				if n.IntN(4) == 0 && !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
					header[p.Name] = v
				}
			}
		}
		if strings.HasPrefix(path, "/api/clients/ACME") { // it must stay to be asked
			continue
		}
		if len(query) > 0 {
			path += "?" + strings.Join(query, "&")
		}
		var body io.Reader
		if s, ok := def.RequestBody.Content["application/json"]; ok {
			raw, err := json.Marshal(n.of(s.Schema, 0))
			if err != nil {
				t.Fatal(err)
			}
			if n.IntN(5) == 0 {
				raw = n.mangle(raw)
			}
			body = bytes.NewReader(raw)
			if n.IntN(10) == 0 {
				body = stream{body}
			}
		}
		a := e.raw(strings.ToUpper(o.method), path, body, header)
		counts[a.Status/100]++
		switch {
		case a.Status >= 500:
			t.Errorf("%s %s: %d %s", o.method, path, a.Status, a.Body)
		case a.Status >= 400:
			a.problem(a.Status, "")
		}
	}
	t.Logf("answers by class: %v in %s", counts, time.Since(began).Round(time.Millisecond))
	if counts[2] == 0 || counts[4] == 0 {
		t.Error("the noise is of one kind only")
	}

	// signed webhooks of any content are taken, and sorted to an end
	g := loadGolden(t)
	began = time.Now()
	sent := 0
	for ; sent < 1500 && time.Since(began) < 8*time.Second; sent++ {
		f := g.Files[sent%len(g.Files)]
		body := n.mangle(bytes.ReplaceAll(g.bodies[f.File], []byte("300000000000009"), []byte(c.Number)))
		e.webhook(body).want(200)
	}
	eventually(t, "every delivery is sorted", func() string {
		return fmt.Sprint(e.admin("GET", "/api/admin/deliveries?state=received", nil).want(200).get("items"))[len("[]"):]
	})
	t.Logf("%d webhooks in %s", sent, time.Since(began).Round(time.Millisecond))
	if log := e.log.String(); strings.Contains(log, "panic") {
		t.Errorf("something panicked: %s", short(log[strings.Index(log, "panic"):]))
	}
	c.call("GET", "/api/crm/leads", nil).want(200)
	e.send("GET", "/readyz", nil, nil).want(200)
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
