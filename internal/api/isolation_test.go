package api_test

import (
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// lived fills the town: client A has one of everything. It gives the ids by what stands for them in routes.
func (w *town) lived() map[string]string {
	w.t.Helper()
	ids := map[string]string{}
	ids["rules"] = str(w.ok(w.asA("POST", rulesPath, confirmRule), 201), "id")
	answer := w.ok(w.asA("POST", events, event("ev-of-a", "+918143963821", "")), 202) // held: it lacks a variable
	ids["users"] = str(w.ok(w.asA("POST", "/api/users", `{"email":"dhanesh@a.example","name":"Dhanesh","role":"agent","password":"tides of march"}`), 201), "id")
	ids["events"], ids["leads"] = "ev-of-a", str(answer, "leadId")
	ids["runs"] = str(answer["runs"].([]any)[0].(map[string]any), "runId")
	ids["pipelines"] = str(w.ok(w.asA("POST", "/api/crm/pipelines", `{"name":"Treatments","stages":[{"name":"First"}]}`), 201), "id")
	ids["tags"] = str(w.ok(w.asA("POST", "/api/crm/tags", `{"name":"vip"}`), 201), "id")
	imported := str(w.ok(w.asA("POST", "/api/crm/leads/import", "phone\n+918143963821\nnone\n", "Content-Type", "text/csv"), 202), "jobId")
	ids["imports"] = str(w.until("the file is imported", func() reply { return w.asA("GET", "/api/jobs/"+imported, "") }, func(m map[string]any) bool { return m["state"] == "succeeded" })["result"].(map[string]any), "importId")
	ids["contacts"] = str(w.ok(w.asA("GET", "/api/crm/leads/"+ids["leads"], ""), 200), "contactId")
	ids["jobs"] = w.enqueue("ALFA", "test.a", 1)[0]
	if r := w.deliver(hook, appSecret, whatsapptest.Batch(w.meta.InboundText(numberOfA, "918143963821", "Dhanesh", "hello"))); r.StatusCode != 200 {
		w.t.Fatal(r.StatusCode)
	}
	m := w.until("the message is sorted", func() reply { return w.asA("GET", "/api/whatsapp/conversations", "") }, func(m map[string]any) bool { return len(items(m)) == 1 })
	ids["conversations"] = str(items(m)[0], "id")
	ids["messages"] = str(items(w.ok(w.asA("GET", "/api/whatsapp/conversations/"+ids["conversations"]+"/messages", ""), 200))[0], "id")
	m = w.until("the delivery is settled", func() reply { return w.asA("GET", "/api/whatsapp/deliveries?state=settled", "") }, func(m map[string]any) bool { return len(items(m)) == 1 })
	ids["deliveries"] = str(items(m)[0], "id")
	return ids
}

// TestClientsDoNotSeeEachOther asks, as B, for every route of the client API with the ids of A's things.
func TestClientsDoNotSeeEachOther(t *testing.T) {
	w := newTown(t)
	ids := w.lived()
	before := map[string]string{}
	reads := func(then func(path string, m map[string]any)) {
		for path, item := range w.api.OpenAPI().Paths {
			if item.Get == nil || !ofClients(item.Get) || !answersJSON(item.Get) {
				continue
			}
			path = concrete(t, path, ids)
			m := w.ok(w.asA("GET", path, ""), 200)
			if item.Get.OperationID == "getLeadScore" { // is of the moment: only that it fades changes it
				delete(m, "at")
				for _, r := range m["rows"].([]any) {
					row := r.(map[string]any)
					row["decayedTo"] = math.Round(row["decayedTo"].(float64))
				}
			}
			then(path, m)
		}
	}
	reads(func(path string, m map[string]any) { before[path] = text(m) })
	lists, things, files := 0, 0, 0
	for path, item := range w.api.OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "PUT": item.Put, "DELETE": item.Delete} {
			if op == nil || !ofClients(op) {
				continue
			}
			at := concrete(t, path, ids)
			switch {
			case at != path:
				things++
				body := map[string]string{"updateRule": `{"name":"stolen"}`, "resumeRun": `{"variables":{"patientName":"x"}}`, "simulateRule": `{"leadId":"x"}`, "assignConversation": `{"userId":"x"}`,
					"updateUser": `{"name":"stolen"}`, "updateLead": `{"name":"stolen"}`, "moveLead": `{"stage":"won"}`, "addLeadTags": `{"tags":["a"]}`, "removeLeadTags": `{"tags":["a"]}`, "addLeadNote": `{"text":"x"}`,
					"updateContact": `{"name":"stolen"}`, "updatePipeline": `{"name":"stolen"}`, "renameTag": `{"name":"stolen"}`,
				}[op.OperationID]
				r := w.asB(method, at, body)
				if r.StatusCode != http.StatusNotFound {
					t.Errorf("%s %s: %d %s", method, at, r.StatusCode, r.body)
				}
				if strings.Contains(string(r.body), "hanesh") || strings.Contains(string(r.body), "8143963821") {
					t.Errorf("%s %s tells of another client's data: %s", method, at, r.body)
				}
			case path == "/api/whatsapp/numbers": // Meta's own list
				if m := w.ok(w.asB(method, at, ""), 200); len(items(m)) != 1 || items(m)[0]["id"] != numberOfB {
					t.Errorf("%s %s lists another client's: %s", method, at, text(m))
				}
			case !answersJSON(op):
				files++
				if r := w.asB(method, at, ""); r.StatusCode != 200 || strings.Contains(string(r.body), "hanesh") {
					t.Errorf("%s %s: %d %s", method, at, r.StatusCode, r.body)
				}
			case method == "GET":
				lists++
				own := 0
				if op.OperationID == "listPipelines" {
					own = 1 // the default one
				}
				if m := w.ok(w.asB(method, at, ""), 200); len(items(m)) != own {
					t.Errorf("%s %s lists another client's: %s", method, at, text(m))
				}
			}
		}
	}
	if things < 14 || lists < 6 || files < 1 {
		t.Fatalf("%d routes of things, %d of lists", things, lists)
	}
	w.problem(w.asB("POST", "/api/whatsapp/deliveries/replay", `{"ids":["`+ids["deliveries"]+`"]}`), 404, "delivery.not_found")
	for _, filter := range []string{"?leadId=" + ids["leads"], "?ruleId=" + ids["rules"]} {
		if l := items(w.ok(w.asB("GET", runsPath+filter, ""), 200)); len(l) != 0 {
			t.Error(text(l))
		}
	}
	// the same event id, of another client, is another event
	if m := w.ok(w.asB("POST", events, `{"trigger":"custom.x","phone":"+918143963821","eventId":"ev-of-a"}`), 202); m["duplicate"] != false || m["leadId"] != nil {
		t.Error(text(m))
	}
	// one client's key with another's code
	w.problem(w.call("GET", "/api/crm/leads", "", "X-Client-Code", "ALFA", "X-Api-Key", w.keyB), 401, "auth.invalid")
	reads(func(path string, m map[string]any) {
		if text(m) != before[path] {
			t.Errorf("%s: was %s, is %s", path, before[path], text(m))
		}
	})
}

func ofClients(op *huma.Operation) bool {
	return slices.ContainsFunc(op.Security, func(s map[string][]string) bool { _, ok := s["apiKey"]; return ok })
}

// answersJSON tells whether an operation answers JSON, or nothing, rather than a file.
func answersJSON(op *huma.Operation) bool {
	for status, r := range op.Responses {
		if strings.HasPrefix(status, "2") && len(r.Content) > 0 && r.Content["application/json"] == nil {
			return false
		}
	}
	return true
}

// concrete puts the id of a thing into a route.
func concrete(t *testing.T, path string, ids map[string]string) string {
	t.Helper()
	before, after, ok := strings.Cut(path, "/{id}")
	if !ok {
		return path
	}
	id := ids[before[strings.LastIndexByte(before, '/')+1:]]
	if id == "" {
		t.Fatalf("no id for %s", path)
	}
	return before + "/" + id + after
}

// TestNothingFails throws nonsense at every documented route and wants no 5xx.
func TestNothingFails(t *testing.T) {
	w := newTown(t)
	ids := w.lived()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	names := []string{"id", "", "a.b", "~/", "type", "state", "ids", "variables", "client", "cooldown"}
	for _, s := range w.api.OpenAPI().Components.Schemas.Map() {
		for name := range s.Properties {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	words := []string{`"custom.x"`, `"appointment_confirmed"`, `"+918143963821"`, `"lead.tag.add"`, `"lead.score"`, `"lead.set"`, `"branch"`, `"whatsapp.text"`, `"whatsapp.template"`, `"true"`,
		`"lead.score > 1"`, `"{{a}}"`, `"\u0000"`, `"\ud800"`, `"` + strings.Repeat("x", 3000) + `"`, `"dead"`, `"once_ever"`, `{"cooldown":"1h"}`, `{"cooldown":7}`, `"2026-01-01T00:00:00Z"`,
		`"0001-01-01T00:00:00Z"`, `"9999-12-31T23:59:59.999Z"`, `"Asia/Kolkata"`, `"https://a.example"`, `"ALFA"`, `"en"`, `1`, `0`, `-1`, `1e308`, `1e999`, `123456789012345678901234567890`, `0.1`, `null`, `true`, `false`, `[]`, `{}`, `""`}
	for _, id := range ids {
		words = append(words, `"`+id+`"`)
	}
	var value func(depth int, of []string) string
	value = func(depth int, of []string) string {
		switch n := r.IntN(10); {
		case n < 3 && depth < 4:
			var m []string
			for range r.IntN(4) {
				m = append(m, `"`+pick(of...)+`":`+value(depth+1, names))
			}
			return "{" + strings.Join(m, ",") + "}"
		case n < 4 && depth < 4:
			var m []string
			for range r.IntN(4) {
				m = append(m, value(depth+1, names))
			}
			return "[" + strings.Join(m, ",") + "]"
		}
		return pick(words...)
	}
	// shaped is mostly what a schema wants
	texts := slices.DeleteFunc(slices.Clone(words), func(s string) bool { return s[0] != '"' })
	numbers := []string{"0", "1", "-1", "0.5", "20", "1e9", "1e308", "9007199254740993"}
	var shaped func(s *huma.Schema, depth int) string
	shaped = func(s *huma.Schema, depth int) string {
		if s == nil || r.IntN(12) == 0 || depth > 6 {
			return value(2, names)
		}
		if s.Ref != "" {
			s = w.api.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref)
		}
		switch {
		case len(s.Enum) > 0:
			return fmt.Sprintf("%q", s.Enum[r.IntN(len(s.Enum))])
		case len(s.Examples) > 0 && r.IntN(2) == 0:
			return text(s.Examples[0])
		}
		switch s.Type {
		case "object":
			members := map[string]string{}
			for name, p := range s.Properties {
				if slices.Contains(s.Required, name) || r.IntN(3) == 0 {
					members[name] = shaped(p, depth+1)
				}
			}
			if len(s.Properties) == 0 {
				members[pick(names...)] = value(2, names)
			}
			var m []string
			for name, v := range members {
				m = append(m, fmt.Sprintf("%q:%s", name, v))
			}
			slices.Sort(m)
			return "{" + strings.Join(m, ",") + "}"
		case "array":
			var m []string
			for range 1 + r.IntN(3) {
				m = append(m, shaped(s.Items, depth+1))
			}
			return "[" + strings.Join(m, ",") + "]"
		case "string":
			return pick(texts...)
		case "number", "integer":
			return pick(numbers...)
		case "boolean":
			return pick("true", "false")
		}
		return value(2, names)
	}
	type route struct {
		method, path string
		op           *huma.Operation
	}
	var routes []route
	for path, item := range w.api.OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "PUT": item.Put, "DELETE": item.Delete} {
			if op != nil && (ofClients(op) || strings.HasPrefix(path, "/api/")) {
				routes = append(routes, route{method, path, op})
			}
		}
	}
	slices.SortFunc(routes, func(a, b route) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	tries := 3000
	if testing.Short() {
		tries = 400
	}
	good := 0
	for range tries {
		c := routes[r.IntN(len(routes))]
		path := c.path
		for strings.Contains(path, "{") {
			before, rest, _ := strings.Cut(path, "{")
			_, after, _ := strings.Cut(rest, "}")
			id := pick("none", "%2F", "%F0%9F%92%A5", strings.Repeat("x", 300), "ALFA", "beta", ids["jobs"], ids["rules"], ids["runs"], ids["leads"], ids["conversations"], "..%2F", "'%22;--")
			path = before + id + after
		}
		query := url.Values{}
		for _, p := range c.op.Parameters {
			if p.In == "query" && r.IntN(4) == 0 {
				query.Add(p.Name, strings.Trim(pick(words...), `"`))
				if p.Name == "cursor" && r.IntN(2) == 0 { // of the right form, with values that are not
					query.Set("cursor", base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf(`{"l":%q,"v":%s,"i":%s}`,
						pick("leads:-createdAt", "leads:name", "jobs", "clients", "runs", "rules", "conversations", "deliveries"), pick(words...), pick(words...)))))
				}
				if p.Name == "sort" {
					query.Set("sort", pick("name", "-createdAt", "score"))
				}
			}
		}
		if len(query) > 0 {
			path += "?" + query.Encode()
		}
		body := ""
		if c.method != "GET" {
			body = value(0, names)
			if c.op.RequestBody != nil && c.op.RequestBody.Content["application/json"] != nil {
				body = shaped(c.op.RequestBody.Content["application/json"].Schema, 0)
			}
		}
		header := []string{}
		if r.IntN(4) == 0 {
			header = append(header, "If-Match", pick(`"1"`, "W/\"2\"", "*", "x", `"99999999999999999999"`), "Idempotency-Key", pick("k", "k2", strings.Repeat("k", 300)))
		}
		var res reply
		switch {
		case ofClients(c.op):
			res = w.asA(c.method, path, body, header...)
		case strings.HasPrefix(path, hook) && c.method == "POST":
			res = w.deliver(path, pick(appSecret, "own-ALFA"), []byte(body))
		default:
			if c.method == "DELETE" || strings.HasSuffix(c.path, "/suspend") || strings.HasSuffix(c.path, "/keys") { // the town must go on
				continue
			}
			res = w.admin(c.method, path, body, header...)
		}
		if res.StatusCode >= 500 {
			t.Errorf("%s %s %s: %d %s", c.method, path, body, res.StatusCode, res.body)
		}
		if res.StatusCode < 300 {
			good++
		}
		if strings.Contains(string(res.body), "goroutine") || strings.Contains(string(res.body), "hunter2") {
			t.Errorf("%s %s tells too much: %s", c.method, path, res.body)
		}
	}
	t.Logf("%d of %d calls were good", good, tries)
	if strings.Contains(w.log.text(), "panic") {
		t.Error(w.complaints())
	}
	if r := w.call("GET", "/openapi.json", ""); r.StatusCode != http.StatusOK {
		t.Fatal(r.StatusCode)
	}
}
