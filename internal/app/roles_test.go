package app_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// leastRoles says who may call what: the least role of a dashboard user, "admin" for the operator alone, "public" for what
// asks for no credentials or brings its own proof. Every route stands here: a new one is decided about here first.
var leastRoles = table(`
	public  POST /api/sessions
	public  GET,POST /api/whatsapp/webhook  GET,POST /api/whatsapp/webhook/{clientCode}  GET,POST /u/{token}
	viewer  GET,DELETE /api/sessions/current  POST /api/sessions/current/password  POST /api/realtime/tokens
	owner   GET,POST /api/users  GET,PATCH,DELETE /api/users/{id}

	agent   POST /api/crm/automations/events
	viewer  GET /api/crm/automations/events/{id}  GET /api/crm/imports/{id}/errors
	viewer  GET /api/crm/automations/rules  GET /api/crm/automations/rules/{id}  POST /api/crm/automations/rules/{id}/simulate
	agent   POST /api/crm/automations/rules  PATCH,DELETE /api/crm/automations/rules/{id}
	agent   POST /api/crm/automations/rules/{id}/publish  POST /api/crm/automations/rules/{id}/pause  POST /api/crm/automations/rules/{id}/resume
	viewer  GET /api/crm/automations/runs  GET /api/crm/automations/runs/{id}
	agent   PATCH /api/crm/automations/runs/{id}  POST /api/crm/automations/runs/{id}/cancel

	viewer  GET /api/crm/automations/schedules  GET /api/crm/automations/schedules/{id}
	agent   POST /api/crm/automations/schedules  PATCH,DELETE /api/crm/automations/schedules/{id}

	viewer  GET /api/crm/leads  GET /api/crm/leads/{id}  GET /api/crm/leads/{id}/timeline  GET /api/crm/leads/{id}/score  GET /api/crm/leads/{id}/notes
	viewer  GET /api/crm/leads/export
	agent   POST /api/crm/leads  PATCH,DELETE /api/crm/leads/{id}  POST /api/crm/leads/{id}/stage  POST,DELETE /api/crm/leads/{id}/tags
	agent   POST /api/crm/leads/{id}/notes  POST /api/crm/leads/merge  POST /api/crm/leads/import
	viewer  GET /api/crm/contacts  GET /api/crm/contacts/{id}
	agent   POST /api/crm/contacts  PATCH,DELETE /api/crm/contacts/{id}
	viewer  GET /api/crm/pipelines  GET /api/crm/pipelines/{id}  GET /api/crm/tags  GET /api/crm/tags/{id}
	agent   POST /api/crm/pipelines  PATCH,DELETE /api/crm/pipelines/{id}  POST /api/crm/tags  PATCH,DELETE /api/crm/tags/{id}

	viewer  GET /api/whatsapp/conversations  GET /api/whatsapp/conversations/{id}  GET /api/whatsapp/conversations/{id}/messages
	agent   POST /api/whatsapp/conversations/{id}/read  POST /api/whatsapp/conversations/{id}/assign  POST /api/whatsapp/conversations/{id}/typing
	agent   POST /api/whatsapp/messages
	viewer  GET /api/whatsapp/messages/{id}
	viewer  GET /api/whatsapp/templates  GET /api/whatsapp/numbers  GET /api/whatsapp/profile
	agent   POST /api/whatsapp/templates  POST /api/whatsapp/templates/sync  DELETE /api/whatsapp/templates/{name}  PUT /api/whatsapp/profile
	viewer  GET /api/whatsapp/deliveries
	agent   POST /api/whatsapp/deliveries/replay
	agent   POST /api/media  DELETE /api/media/{id}
	viewer  GET /api/media/{id}  GET /api/media/{id}/content  GET /api/media/{id}/thumbnail

	viewer  GET /api/campaigns  GET /api/campaigns/{id}  GET /api/campaigns/{id}/stats  GET /api/campaigns/{id}/recipients  POST /api/campaigns/{id}/preflight
	agent   POST /api/campaigns  PATCH,DELETE /api/campaigns/{id}  POST /api/campaigns/{id}/test  POST /api/campaigns/{id}/start
	agent   POST /api/campaigns/{id}/pause  POST /api/campaigns/{id}/resume  POST /api/campaigns/{id}/cancel
	viewer  GET /api/suppressions
	agent   POST /api/suppressions  DELETE /api/suppressions/{id}
	viewer  GET /api/appointments  GET /api/appointments/{id}  GET /api/appointments/{id}/ics
	agent   POST /api/appointments  PATCH,DELETE /api/appointments/{id}
	viewer  GET /api/jobs  GET /api/jobs/counts  GET /api/jobs/{id}
	agent   POST /api/jobs/retry  POST /api/jobs/cancel  POST /api/jobs/{id}/retry  POST /api/jobs/{id}/cancel
`)

func table(s string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(s) {
		words := strings.Fields(line)
		for i := 1; i+1 < len(words); i += 2 {
			for method := range strings.SplitSeq(words[i], ",") {
				out[method+" "+words[i+1]] = words[0]
			}
		}
	}
	return out
}

// A dashboard user may call what its role may, and nothing else: asked of every route that the engine documents.
func TestRoles(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	a := e.addClient("ACME", 1)
	roles := []string{"viewer", "agent", "owner"}
	stays := map[string]stay{}
	for _, role := range roles {
		a.addUser(role+"@example.com", role)
		stays[role] = a.login(role + "@example.com")
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Role     string `json:"x-role"`
			Security []map[string][]string
		}
	}
	e.send("GET", "/openapi.json", nil, nil).want(200).into(&doc)
	asked := 0
	for path, ops := range doc.Paths {
		for method, op := range ops {
			route := strings.ToUpper(method) + " " + path
			least, decided := leastRoles[route]
			if strings.HasPrefix(path, "/api/admin/") || strings.HasPrefix(path, "/api/clients") {
				least, decided = "admin", true
			}
			if !strings.HasPrefix(path, "/api/") && !decided {
				continue // standing: health, docs, metrics
			}
			if !decided {
				t.Errorf("%s: which role may call it? Say so in leastRoles", route)
				continue
			}
			if op.Role != strings.TrimPrefix(strings.TrimPrefix(least, "admin"), "public") {
				t.Errorf("%s: documented for %q, decided for %q", route, op.Role, least)
			}
			if least == "public" || route == "DELETE /api/sessions/current" {
				continue
			}
			target := path
			for _, name := range []string{"{id}", "{name}", "{code}"} {
				target = strings.ReplaceAll(target, name, "none")
			}
			for i, role := range roles {
				var body any
				if method != "get" {
					body = map[string]any{}
				}
				r := stays[role].call(strings.ToUpper(method), target, body)
				asked++
				switch {
				case least == "admin":
					if r.Status != 401 {
						t.Errorf("%s by %s: %d", route, role, r.Status)
					}
				case i < slices.Index(roles, least):
					r.problem(403, "role.insufficient")
				case r.Status == 401 || r.Status == 403 || r.Status >= 500:
					t.Errorf("%s by %s: %d %s", route, role, r.Status, r.Body)
				}
			}
		}
	}
	for route := range leastRoles {
		method, path, _ := strings.Cut(route, " ")
		if _, there := doc.Paths[path][strings.ToLower(method)]; !there {
			t.Errorf("%s stands in leastRoles, and is no route", route)
		}
	}
	if asked < 150 {
		t.Errorf("only %d calls were made", asked)
	}
	// a user who may not write has written nothing
	for _, path := range []string{"/api/crm/leads", "/api/crm/automations/rules"} {
		stays["viewer"].call("POST", path, map[string]any{"name": "X", "phone": "918143963821"}).problem(403, "role.insufficient")
	}
	if n := fmt.Sprint(stays["viewer"].call("GET", "/api/crm/leads", nil).want(200).get("items")); n != "[]" {
		t.Errorf("leads: %s", n)
	}
}
