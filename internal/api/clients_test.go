package api_test

import (
	"strings"
	"testing"
)

func TestClients(t *testing.T) {
	w := newTown(t)
	r := w.admin("POST", "/api/clients", `{"clientCode":"acme","name":" Acme Dental ","timeZone":"Asia/Kolkata","locale":"en-IN","defaultCountry":"in"}`)
	made := w.ok(r, 201)
	key := str(made, "apiKey")
	if len(key) < 40 || r.Header.Get("Location") != "/api/clients/ACME" {
		t.Fatalf("%s %v", r.body, r.Header)
	}
	delete(made, "apiKey")
	read := w.ok(w.admin("GET", "/api/clients/Acme", ""), 200)
	if text(made) != text(read) {
		t.Fatalf("made %s, read %s", text(made), text(read))
	}
	delete(read, "createdAt")
	delete(read, "updatedAt")
	if got, want := text(read), `{"allowedOrigins":[],"clientCode":"ACME","database":{"own":false,"state":"ok"},"defaultCountry":"IN","locale":"en-IN","name":"Acme Dental","settings":{},"status":"active","timeZone":"Asia/Kolkata","whatsapp":null}`; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	as := func(method, path, body string) reply {
		return w.call(method, path, body, "X-Client-Code", "acme", "X-Api-Key", key)
	}
	w.ok(as("GET", "/api/crm/leads", ""), 200)
	w.problem(w.admin("POST", "/api/clients", `{"clientCode":"ACME","name":"x"}`), 409, "client.exists")
	w.problem(w.admin("GET", "/api/clients/NONE", ""), 404, "client.not_found")
	w.problem(w.call("GET", "/api/clients", ""), 401, "auth.missing")
	w.problem(as("GET", "/api/clients/ACME", ""), 401, "auth.missing") // a client's key is no admin token

	page := w.ok(w.admin("GET", "/api/clients?limit=2", ""), 200)
	rest := w.ok(w.admin("GET", "/api/clients?limit=2&cursor="+str(page, "nextCursor"), ""), 200)
	if l := append(items(page), items(rest)...); len(l) != 3 || str(l[0], "clientCode") != "ACME" || str(l[2], "clientCode") != "BETA" || rest["nextCursor"] != nil {
		t.Fatalf("%v %v", page, rest)
	}

	patched := w.ok(w.admin("PATCH", "/api/clients/acme", `{"name":"New","timeZone":null,"allowedOrigins":["HTTPS://Shop.Example:443","http://localhost:3000","https://shop.example"]}`), 200)
	if text(patched["allowedOrigins"]) != `["https://shop.example","http://localhost:3000"]` || patched["timeZone"] != "UTC" || patched["locale"] != "en-IN" || patched["name"] != "New" {
		t.Fatal(text(patched))
	}
	w.problem(w.admin("PATCH", "/api/clients/acme", `{"databaseUrl":"mongodb://x"}`), 409, "client.use_move")
	own := w.admin("POST", "/api/clients", `{"clientCode":"OWN","name":"x","databaseUrl":"mongodb://u:p4ssw0rd@cluster.example/"}`)
	if got := w.ok(own, 201); text(got["database"]) != `{"own":true,"state":"ok"}` {
		t.Fatal(text(got))
	}
	for _, r := range []reply{own, w.admin("GET", "/api/clients/OWN", ""), w.admin("GET", "/api/clients/OWN/secrets", "")} {
		if strings.Contains(string(r.body), "cluster.example") || strings.Contains(w.log.text(), "cluster.example") {
			t.Errorf("its address is told: %s", r.body)
		}
	}

	next := w.ok(w.admin("POST", "/api/clients/ACME/keys", ""), 201)
	if str(next, "apiKey") == key || str(next, "previousValidUntil") == "" {
		t.Fatal(text(next))
	}
	w.ok(as("GET", "/api/crm/leads", ""), 200) // the one before goes on
	key = str(next, "apiKey")
	w.ok(as("GET", "/api/crm/leads", ""), 200)

	if got := w.ok(w.admin("POST", "/api/clients/ACME/suspend", ""), 200); got["status"] != "suspended" {
		t.Fatal(text(got))
	}
	w.problem(as("GET", "/api/crm/leads", ""), 403, "client.suspended")
	if got := w.ok(w.admin("POST", "/api/clients/ACME/resume", ""), 200); got["status"] != "active" {
		t.Fatal(text(got))
	}
	w.ok(as("GET", "/api/crm/leads", ""), 200)
}

func TestClientsRefuseBadInput(t *testing.T) {
	w := newTown(t)
	for body, at := range map[string]string{
		`{}`:                                                                     "/clientCode /name",
		`{"clientCode":"A","name":"x"}`:                                          "/clientCode",
		`{"clientCode":"-AB","name":"x"}`:                                        "/clientCode",
		`{"clientCode":"A B","name":"x"}`:                                        "/clientCode",
		`{"clientCode":"ÄB","name":"x"}`:                                         "/clientCode",
		`{"clientCode":"NEW","name":""}`:                                         "/name",
		`{"clientCode":"NEW","name":"  "}`:                                       "/name",
		`{"clientCode":"NEW","name":"a\u0000b"}`:                                 "/name",
		`{"clientCode":"NEW","name":"x","timeZone":"Mars/Olympus"}`:              "/timeZone",
		`{"clientCode":"NEW","name":"x","timeZone":"Local"}`:                     "/timeZone",
		`{"clientCode":"NEW","name":"x","timeZone":"../../etc/passwd"}`:          "/timeZone",
		`{"clientCode":"NEW","name":"x","locale":"en_IN!"}`:                      "/locale",
		`{"clientCode":"NEW","name":"x","defaultCountry":"IND"}`:                 "/defaultCountry",
		`{"clientCode":"NEW","name":"x","databaseUrl":"postgres://x"}`:           "/databaseUrl",
		`{"clientCode":"NEW","name":"x","databaseUrl":"mongodb://u:p4ssw0rd@/"}`: "/databaseUrl",
		`{"clientCode":"NEW","name":"x","apiKey":"mine"}`:                        "/apiKey",
	} {
		r := w.admin("POST", "/api/clients", body)
		w.problem(r, 422, "invalid", strings.Fields(at)...)
		if strings.Contains(string(r.body), "p4ssw0rd") || strings.Contains(w.log.text(), "p4ssw0rd") {
			t.Errorf("%s is told", body)
		}
	}
	w.problem(w.admin("GET", "/api/clients/NEW", ""), 404, "client.not_found")
	for body, at := range map[string]string{
		`{"name":null}`:           "/name",
		`{"name":""}`:             "/name",
		`{"timeZone":7}`:          "/timeZone",
		`{"status":"x"}`:          "/status",
		`{"apiKeys":[]}`:          "/apiKeys",
		`{"timeZone":"x"}`:        "/timeZone",
		`{"defaultCountry":"1N"}`: "/defaultCountry",
		`{"allowedOrigins":["https://a.example/","*","null","ftp://a.example","https://","https://u@a.example","https://a.example:0","https://a.example:","https://a.example?x","https://a b","https://ok.example"]}`: "/allowedOrigins/0 /allowedOrigins/1 /allowedOrigins/2 /allowedOrigins/3 /allowedOrigins/4 /allowedOrigins/5 /allowedOrigins/6 /allowedOrigins/7 /allowedOrigins/8 /allowedOrigins/9",
		`{"allowedOrigins":[` + strings.Repeat(`"https://a.example",`, 20) + `"https://b.example"]}`:                                                                                                                  "/allowedOrigins",
	} {
		w.problem(w.admin("PATCH", "/api/clients/ALFA", body), 422, "invalid", strings.Fields(at)...)
	}
	for body, at := range map[string]string{
		`{}`: "/accessToken /phoneNumberIds /wabaId",
		`{"wabaId":"x","phoneNumberIds":["1"],"accessToken":"t"}`:                 "/wabaId",
		`{"wabaId":"1","phoneNumberIds":[],"accessToken":"t"}`:                    "/phoneNumberIds",
		`{"wabaId":"1","phoneNumberIds":["1","+91 1"],"accessToken":"t"}`:         "/phoneNumberIds/1",
		`{"wabaId":"1","phoneNumberIds":["1"],"accessToken":""}`:                  "/accessToken",
		`{"wabaId":"1","phoneNumberIds":["1"],"accessToken":" \n"}`:               "/accessToken",
		`{"wabaId":"1","phoneNumberIds":["1"],"accessToken":"two words"}`:         "/accessToken",
		`{"wabaId":"1","phoneNumberIds":["1"],"accessToken":"t","appSecret":"é"}`: "/appSecret",
		`{"wabaId":1,"phoneNumberIds":["1"],"accessToken":"hunter2","token":"x"}`: "/token /wabaId",
	} {
		r := w.admin("PUT", "/api/clients/ALFA/secrets/whatsapp", body)
		w.problem(r, 422, "invalid", strings.Fields(at)...)
		if strings.Contains(string(r.body), "hunter2") {
			t.Error("a token is told")
		}
	}
}

func TestClientSecretsAreNeverTold(t *testing.T) {
	w := newTown(t)
	put := w.ok(w.admin("PUT", "/api/clients/ALFA/secrets/whatsapp", `{"wabaId":"5","phoneNumberIds":["51","52","51"],"accessToken":" hunter2-token\n","appSecret":"hunter3"}`), 200)
	if text(put["fields"]) != `["whatsapp.accessToken","whatsapp.appSecret"]` || put["keyId"] != "k1" || put["updatedAt"] == nil {
		t.Fatal(text(put))
	}
	w.problem(w.admin("PUT", "/api/clients/BETA/secrets/whatsapp", `{"wabaId":"5","phoneNumberIds":["52"],"accessToken":"t"}`), 409, "whatsapp.number_taken")
	secrets := w.ok(w.admin("GET", "/api/clients/ALFA/secrets", ""), 200)
	if l := items(secrets); len(l) != 1 || text(l[0]) != text(put) {
		t.Fatal(text(secrets))
	}
	view := w.ok(w.admin("GET", "/api/clients/ALFA", ""), 200)
	if text(view["whatsapp"]) != `{"phoneNumberIds":["51","52"],"wabaId":"5"}` {
		t.Fatal(text(view))
	}
	acct, err := w.tenants.Account(t.Context(), "ALFA")
	if err != nil {
		t.Fatal(err)
	}
	tn, release, err := w.tenants.Use(t.Context(), "ALFA")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if token, err := tn.Secret("whatsapp.accessToken"); err != nil || token.Reveal() != "hunter2-token" {
		t.Fatalf("%v %q", err, token.Reveal())
	}
	everything := text(put) + text(secrets) + text(view) + text(w.ok(w.admin("GET", "/api/clients", ""), 200)) + w.log.text() + text(acct)
	for _, s := range []string{"hunter2", "hunter3", "sha256", w.keyA} {
		if strings.Contains(strings.ReplaceAll(everything, text(acct), ""), s) {
			t.Errorf("%s is told", s)
		}
	}
	if strings.Contains(text(acct), "hunter") {
		t.Error("a secret is stored as it is")
	}
}

func TestEraseClient(t *testing.T) {
	w := newTown(t)
	w.problem(w.admin("DELETE", "/api/clients/ALFA", ""), 422, "invalid", "query.confirm")
	w.problem(w.admin("DELETE", "/api/clients/ALFA?confirm=BETA", ""), 422, "invalid", "query.confirm")
	w.problem(w.admin("DELETE", "/api/clients/NONE?confirm=NONE", ""), 404, "client.not_found")
	w.ok(w.asA("GET", "/api/crm/leads", ""), 200)
	jobID := str(w.ok(w.admin("DELETE", "/api/clients/alfa?confirm=alfa", ""), 202), "jobId")
	w.problem(w.asA("GET", "/api/crm/leads", ""), 403, "client.suspended")
	j := w.ok(w.admin("GET", "/api/admin/jobs/"+jobID, ""), 200)
	if j["type"] != "client.erase" || j["client"] != nil {
		t.Fatal(text(j))
	}
	// asked again: the same job, tried again if it came to nothing
	w.ok(w.admin("POST", "/api/admin/jobs/"+jobID+"/cancel", ""), 200)
	if again := str(w.ok(w.admin("DELETE", "/api/clients/ALFA?confirm=ALFA", ""), 202), "jobId"); again != jobID {
		t.Fatalf("%s, then %s", jobID, again)
	}
	if j := w.ok(w.admin("GET", "/api/admin/jobs/"+jobID, ""), 200); j["state"] != "ready" {
		t.Fatal(text(j))
	}
	for _, call := range [][2]string{{"PATCH", ""}, {"POST", "/keys"}, {"POST", "/resume"}, {"PUT", "/secrets/whatsapp"}} {
		body := map[string]string{"PATCH": `{"name":"x"}`, "PUT": `{"wabaId":"1","phoneNumberIds":["1"],"accessToken":"t"}`}[call[0]]
		w.problem(w.admin(call[0], "/api/clients/ALFA"+call[1], body), 409, "client.erasing")
	}
	w.ok(w.asB("GET", "/api/crm/leads", ""), 200)
}
