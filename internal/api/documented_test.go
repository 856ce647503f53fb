package api_test

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

// TestAnswersAreAsDocumented reads everything there is to read in a lived-in town, makes some of it anew, and holds each
// answer against the OpenAPI document.
func TestAnswersAreAsDocumented(t *testing.T) {
	w := newTown(t)
	ids := w.lived()
	w.kill("test.a", 1)
	if r := w.deliver(hook, appSecret, []byte("not json")); r.StatusCode != 200 {
		t.Fatal(r.StatusCode)
	}
	w.until("it is sorted", func() reply { return w.admin("GET", "/api/admin/deliveries", "") }, func(m map[string]any) bool { return len(items(m)) == 1 })
	checked := 0
	check := func(op *huma.Operation, r reply) {
		t.Helper()
		doc := op.Responses[strconv.Itoa(r.StatusCode)]
		if doc == nil {
			t.Errorf("%s answers %d, which is not documented: %s", op.OperationID, r.StatusCode, r.body)
			return
		}
		if len(doc.Content) == 0 {
			if len(r.body) > 0 {
				t.Errorf("%s answers a body, which is not documented", op.OperationID)
			}
			return
		}
		var v any
		if err := json.Unmarshal(r.body, &v); err != nil {
			t.Fatal(err)
		}
		var res huma.ValidateResult
		for _, m := range doc.Content {
			huma.Validate(w.api.OpenAPI().Components.Schemas, m.Schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, v, &res)
		}
		for _, err := range res.Errors {
			t.Errorf("%s answers what is not documented: %v in %s", op.OperationID, err, r.body)
		}
		checked++
	}
	for path, item := range w.api.OpenAPI().Paths {
		if item.Get == nil || !strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, hook) || !answersJSON(item.Get) {
			continue
		}
		at := strings.ReplaceAll(path, "{code}", "ALFA")
		if ofClients(item.Get) {
			check(item.Get, w.asA("GET", concrete(t, at, ids), ""))
			check(item.Get, w.asA("GET", strings.ReplaceAll(at, "{id}", "none"), ""))
		} else {
			check(item.Get, w.admin("GET", concrete(t, at, ids), ""))
		}
	}
	at := func(route string) *huma.Operation {
		method, path, _ := strings.Cut(route, " ")
		item := w.api.OpenAPI().Paths[path]
		op := map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "PUT": item.Put, "DELETE": item.Delete}[method]
		if op == nil {
			t.Fatal(route)
		}
		return op
	}
	check(at("POST /api/clients"), w.admin("POST", "/api/clients", `{"clientCode":"DELTA","name":"D"}`))
	check(at("POST /api/clients"), w.admin("POST", "/api/clients", `{"clientCode":"DELTA","name":"D"}`))
	check(at("POST /api/clients"), w.admin("POST", "/api/clients", `{}`))
	check(at("PATCH /api/clients/{code}"), w.admin("PATCH", "/api/clients/DELTA", `{"name":"E"}`))
	check(at("POST /api/clients/{code}/keys"), w.admin("POST", "/api/clients/DELTA/keys", ""))
	check(at("POST /api/clients/{code}/suspend"), w.admin("POST", "/api/clients/DELTA/suspend", ""))
	check(at("PUT /api/clients/{code}/secrets/whatsapp"), w.admin("PUT", "/api/clients/DELTA/secrets/whatsapp", `{"wabaId":"1","phoneNumberIds":["1"],"accessToken":"t"}`))
	check(at("DELETE /api/clients/{code}"), w.admin("DELETE", "/api/clients/DELTA", ""))
	check(at("DELETE /api/clients/{code}"), w.admin("DELETE", "/api/clients/DELTA?confirm=delta", ""))
	check(at("POST /api/crm/automations/events"), w.asA("POST", events, `{"trigger":"custom.x","email":"nobody@example.com"}`))
	check(at("POST /api/crm/automations/rules"), w.asA("POST", rulesPath, confirmRule))
	check(at("PATCH /api/crm/automations/rules/{id}"), w.asA("PATCH", rulesPath+"/"+ids["rules"], `{"reenrol":{"cooldown":"1h"}}`))
	check(at("POST /api/crm/automations/rules/{id}/simulate"), w.asA("POST", rulesPath+"/"+ids["rules"]+"/simulate", `{"leadId":"`+ids["leads"]+`"}`))
	check(at("PATCH /api/crm/automations/runs/{id}"), w.asA("PATCH", runsPath+"/"+ids["runs"], `{"variables":{"patientName":"D"}}`))
	check(at("POST /api/jobs/{id}/retry"), w.asA("POST", "/api/jobs/"+ids["jobs"]+"/retry", ""))
	check(at("POST /api/jobs/{id}/cancel"), w.asA("POST", "/api/jobs/"+ids["jobs"]+"/cancel", ""))
	check(at("POST /api/jobs/retry"), w.asA("POST", "/api/jobs/retry", "{}"))
	check(at("POST /api/whatsapp/deliveries/replay"), w.asA("POST", "/api/whatsapp/deliveries/replay", `{"ids":["`+ids["deliveries"]+`"]}`))
	check(at("POST /api/whatsapp/deliveries/replay"), w.asB("POST", "/api/whatsapp/deliveries/replay", `{"ids":["`+ids["deliveries"]+`"]}`))
	check(at("POST /api/whatsapp/messages"), w.asA("POST", "/api/whatsapp/messages", `{"conversationId":"`+ids["conversations"]+`","type":"text","text":"Hello"}`))
	check(at("POST /api/whatsapp/messages"), w.asA("POST", "/api/whatsapp/messages", `{"to":"+12025550199","type":"text","text":{"body":"Hello"}}`))
	check(at("POST /api/whatsapp/messages"), w.asA("POST", "/api/whatsapp/messages", `{"to":"+12025550199","type":"image","image":{}}`))
	check(at("POST /api/whatsapp/conversations/{id}/read"), w.asA("POST", "/api/whatsapp/conversations/"+ids["conversations"]+"/read", ""))
	check(at("POST /api/whatsapp/conversations/{id}/typing"), w.asA("POST", "/api/whatsapp/conversations/"+ids["conversations"]+"/typing", ""))
	check(at("POST /api/whatsapp/conversations/{id}/assign"), w.asA("POST", "/api/whatsapp/conversations/"+ids["conversations"]+"/assign", `{"userId":"usr_1"}`))
	check(at("POST /api/whatsapp/templates/sync"), w.asA("POST", "/api/whatsapp/templates/sync", ""))
	check(at("POST /api/whatsapp/templates"), w.asA("POST", "/api/whatsapp/templates", `{"name":"bye","language":"en","category":"UTILITY","components":[{"type":"BODY","text":"Bye"}]}`))
	check(at("GET /api/whatsapp/templates"), w.asA("GET", "/api/whatsapp/templates", ""))
	check(at("DELETE /api/whatsapp/templates/{name}"), w.asA("DELETE", "/api/whatsapp/templates/bye", ""))
	check(at("PUT /api/whatsapp/profile"), w.asA("PUT", "/api/whatsapp/profile", `{"about":"We mend teeth"}`))
	check(at("DELETE /api/crm/automations/rules/{id}"), w.asA("DELETE", rulesPath+"/"+ids["rules"], ""))
	if checked < 45 {
		t.Fatalf("%d answers checked", checked)
	}

	operation := regexp.MustCompile(`^[a-z][A-Za-z]+$`)
	for path, item := range w.api.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil && strings.HasPrefix(path, "/api/") && (!operation.MatchString(op.OperationID) || op.Summary == "" || len(op.Tags) != 1 || len(op.Responses) < 2) {
				t.Errorf("%s %s is poorly documented", op.Method, path)
			}
		}
	}
}
