package app_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/google/googletest"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// secretOf gives what is told of one of a client's accounts.
func (c *client) secretOf(name string) map[string]any {
	c.e.t.Helper()
	for _, s := range c.e.admin("GET", "/api/clients/"+c.Code+"/secrets", nil).want(200).get("items").([]any) {
		if v := s.(map[string]any); v["name"] == name {
			return v
		}
	}
	return nil
}

// Each account is checked by a live call that sends nothing; what was found is told, also after a new start; what is set
// anew was not checked yet; a removed one is gone.
func TestAccountsAreChecked(t *testing.T) {
	t.Parallel()
	mails, g, bucket, meta, dir := newMailServer(t), newGoogle(t, googletest.Config{}), newBucket(t, "acme"), newMeta(t), t.TempDir()
	e := start(t, dir, meta, private, withGoogle(g))
	c := e.addClient("ACME", 1)
	c.mailAccount(mails, nil)
	c.googleAccount("refresh-1")
	e.admin("PUT", "/api/clients/ACME/secrets/storage",
		map[string]any{"url": "s3://acme?region=auto&endpoint=" + bucket.URL, "accessKeyId": awsKeyID, "secretAccessKey": awsSecret}).want(200)
	check := func(name string) *answer {
		t.Helper()
		return e.admin("POST", "/api/clients/acme/secrets/"+name+"/check", nil).want(200)
	}
	for _, name := range []string{"whatsapp", "smtp", "google", "storage"} {
		if s := c.secretOf(name); s["lastCheck"] != nil || s["attention"] != nil || s["keyId"] == nil {
			t.Errorf("%s before: %v", name, s)
		}
		a := check(name)
		if a.get("ok") != true || a.get("detail") != nil || a.get("at") == nil {
			t.Errorf("%s: %s", name, a.Body)
		}
		if s := c.secretOf(name); s["lastCheck"] == nil || s["lastCheck"].(map[string]any)["ok"] != true {
			t.Errorf("%s after: %v", name, s)
		}
	}
	if n := len(mails.Accepted()); n > 0 {
		t.Errorf("a check sent %d mails", n)
	}

	// all wrong now
	c.mailAccount(mails, map[string]any{"password": "wrong-password-1"})
	c.googleAccount("refresh-unknown")
	e.admin("PUT", "/api/clients/ACME/secrets/storage",
		map[string]any{"url": "s3://acme?region=auto&endpoint=" + bucket.URL, "accessKeyId": awsKeyID, "secretAccessKey": "wrong-password-2"}).want(200)
	e.admin("PUT", "/api/clients/ACME/secrets/whatsapp", map[string]any{"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": "wrong-password-3"}).want(200)
	for _, name := range []string{"whatsapp", "smtp", "google", "storage"} {
		if s := c.secretOf(name); s["lastCheck"] != nil {
			t.Errorf("%s set anew: %v", name, s)
		}
		a := check(name)
		if a.get("ok") != false || a.get("detail") == nil {
			t.Errorf("%s: %s", name, a.Body)
		}
		s := c.secretOf(name)
		if s["lastCheck"].(map[string]any)["ok"] != false || s["attention"] == nil {
			t.Errorf("%s after: %v", name, s)
		}
		if strings.Contains(string(a.Body)+fmt.Sprint(s), "wrong-password") {
			t.Errorf("%s tells its secret", name)
		}
	}
	e.admin("PUT", "/api/clients/ACME/secrets/whatsapp", map[string]any{"wabaId": c.WABA, "phoneNumberIds": []string{c.Number, "777"}, "accessToken": c.Token}).want(200)
	if a := check("whatsapp"); a.get("ok") != false || !strings.Contains(a.get("detail").(string), "777") {
		t.Errorf("a number of another account: %s", a.Body)
	}
	if strings.Contains(e.log.String(), "wrong-password") {
		t.Error("a secret is in the log")
	}
	e.stop()
	e = start(t, dir, meta, private, withGoogle(g))
	c.e = e
	if s := c.secretOf("smtp"); s["lastCheck"].(map[string]any)["ok"] != false {
		t.Errorf("after a start: %v", s)
	}

	// the doctor says the same, with a mend, and what it finds is told, too
	env := []string{"ECOD_DATA_DIR=" + dir, "ECOD_META_URL=" + meta.URL, "ECOD_GOOGLE_URL=" + g.URL, "ECOD_ALLOW_PRIVATE_NETWORKS=true"}
	out, errs, code := runEcod(t, env, "doctor", "--client", "acme")
	for _, name := range []string{"whatsapp", "smtp", "google", "storage"} {
		if !strings.Contains(out, "FAIL  client ACME "+name) {
			t.Errorf("the doctor does not see %s:\n%s", name, out)
		}
	}
	if code != 1 || strings.Count(out, "->") != 4 || strings.Contains(out+errs, "wrong-password") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	c.mailAccount(mails, nil)
	if out, _, _ := runEcod(t, env, "doctor"); !strings.Contains(out, "ok    client ACME smtp") || c.secretOf("smtp")["lastCheck"].(map[string]any)["ok"] != true {
		t.Errorf("the doctor's check is not kept:\n%s", out)
	}
	zone := func(name string) (out string) {
		if _, err := e.app.Tenants.Change(t.Context(), "ACME", func(a *tenant.Account) error { a.TimeZone = name; return nil }); err != nil {
			t.Fatal(err)
		}
		out, _, _ = runEcod(t, env, "doctor", "--client", "ACME")
		return out
	}
	if out := zone("Asia/Calcuta"); !strings.Contains(out, "FAIL  client ACME timeZone      timeZone is not an IANA zone  -> ") || !strings.Contains(out, "ok    client ACME smtp") {
		t.Errorf("the doctor does not see the time zone:\n%s", out)
	}
	if out := zone("Asia/Kolkata"); strings.Contains(out, "timeZone") {
		t.Errorf("a time zone that is one:\n%s", out)
	}

	e.admin("DELETE", "/api/clients/ACME/secrets/smtp", nil).want(204)
	if s := c.secretOf("smtp"); s != nil {
		t.Errorf("removed: %v", s)
	}
	e.admin("DELETE", "/api/clients/ACME/secrets/smtp", nil).problem(404, "")
	e.admin("POST", "/api/clients/ACME/secrets/smtp/check", nil).problem(404, "")
	e.admin("POST", "/api/clients/NONE/secrets/smtp/check", nil).problem(404, "")
	e.admin("POST", "/api/clients/ACME/secrets/linkKey/check", nil).problem(422, "")
	c.call("POST", "/api/clients/ACME/secrets/smtp/check", nil).problem(401, "")
}

// A check that succeeds again lets go on what waited for the account.
func TestCheckLetsGoOn(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	right := c.Token
	c.account("another-token") // revoked at Meta, and made good there again
	run := c.tell("918143963821")
	c.jobOf(run, "parked")
	if a := e.admin("POST", "/api/clients/ACME/secrets/whatsapp/check", nil).want(200); a.get("ok") != false {
		t.Fatal(string(a.Body))
	}
	c.account(right)
	if a := e.admin("POST", "/api/clients/ACME/secrets/whatsapp/check", nil).want(200); a.get("ok") != true {
		t.Fatal(string(a.Body))
	}
	c.run(run, "done")
	if s := c.secretOf("whatsapp"); s["attention"] != nil {
		t.Errorf("%v", s)
	}
}

// So does a check of the mail or calendar account, whose server refused it for a while: nothing waits for an account that is
// known to work.
func TestCheckLetsMailAndMeetingsGoOn(t *testing.T) {
	t.Parallel()
	box, g := newMailServer(t), newGoogle(t, googletest.Config{})
	e := start(t, t.TempDir(), newMeta(t), private, withGoogle(g))
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	c.googleAccount("refresh-1")
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	box.Next(-1, "AUTH", smtptest.Reply(535, "5.7.8", "bad credentials"))
	g.On("token", -1, googletest.OAuthError(400, "invalid_grant", "revoked"))
	ev := c.call("POST", "/api/crm/automations/events", mailEvent(1, nil)).want(202)
	meeting := c.book(map[string]any{"meet": true})
	eventually(t, "both rest", func() string {
		jobs := e.admin("GET", "/api/admin/jobs?state=parked", nil).want(200)
		pauses := e.admin("GET", "/api/admin/lanes/pauses?client=ACME", nil).want(200)
		return unless(len(jobs.get("items").([]any)) == 2 && len(pauses.get("items").([]any)) == 2, string(jobs.Body)+string(pauses.Body))
	})
	box.Behave()
	g.Behave()
	for _, name := range []string{"smtp", "google"} {
		if a := e.admin("POST", "/api/clients/ACME/secrets/"+name+"/check", nil).want(200); a.get("ok") != true {
			t.Fatal(string(a.Body))
		}
	}
	if run := c.runEnded(ev); run.get("state") != "done" {
		t.Errorf("%s", run.Body)
	}
	c.linkOf(meeting)
}

// An answer to a call that began before the account was refused does not take back that it needs attention.
func TestLateAnswersDoNotCalm(t *testing.T) {
	t.Parallel()
	box, meta := newMailServer(t), newMeta(t)
	e := start(t, t.TempDir(), meta, private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	needs := func(name string) {
		t.Helper()
		eventually(t, name+" needs attention", func() string { return unless(c.secretOf(name)["attention"] != nil, "it does not") })
	}
	for i := range 3 { // the token is trusted with several calls at once
		c.reaches(c.asks(fmt.Sprintf("9181438%05d", i), "Ana"))
	}
	to := func(phone string) func(whatsapptest.Request) bool {
		return func(r whatsapptest.Request) bool { return r.Kind == "send" && bytes.Contains(r.Body, []byte(phone)) }
	}
	meta.When(1, to("918143900001"), whatsapptest.Delay(2*time.Second))
	meta.When(1, to("918143900002"), whatsapptest.GraphError(401, 190, "expired"))
	slow := c.asks("918143900001", "Ana")
	c.asks("918143900002", "Ana")
	needs("whatsapp")
	c.reaches(slow)

	content := func(i int) func(smtptest.Command) bool {
		return func(k smtptest.Command) bool { return k.Verb == "." && k.To == mailEvent(i, nil)["email"] }
	}
	box.When(1, content(1), smtptest.Delay(2*time.Second))
	first := c.call("POST", "/api/crm/automations/events", mailEvent(1, nil)).want(202)
	eventually(t, "it is under way", func() string { return unless(slices.Contains(box.Verbs(0), "."), "not yet") })
	box.Next(-1, "AUTH", smtptest.Reply(535, "5.7.8", "bad credentials"))
	c.call("POST", "/api/crm/automations/events", mailEvent(2, nil)).want(202)
	needs("smtp")
	if run := c.runEnded(first); run.get("state") != "done" || len(box.Accepted()) != 1 {
		t.Errorf("%s", run.Body)
	}
	eventually(t, "the slow message's job ends", func() string { return unless(len(c.sendJobs("succeeded")) == 4, fmt.Sprint(c.sendJobs(""))) })
	needs("whatsapp")
	for _, name := range []string{"whatsapp", "smtp"} {
		if c.secretOf(name)["attention"] == nil {
			t.Errorf("%s is told to be well, and rests", name)
		}
	}
}

// What could never work is refused at once.
func TestAccountsThatCannotWork(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	smtp := func(host string, port int) *answer {
		return e.admin("PUT", "/api/clients/ACME/secrets/smtp", map[string]any{"host": host, "port": port, "security": "none", "from": "a@acme.example"})
	}
	for _, host := range []string{"127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "::1", "192.168.0.1"} {
		if a := smtp(host, 587).problem(422, ""); a.get("errors.0.pointer") != "/host" {
			t.Errorf("%s: %s", host, a.Body)
		}
	}
	if a := smtp("smtp.example.com", 8080).problem(422, ""); a.get("errors.0.pointer") != "/port" {
		t.Errorf("%s", a.Body)
	}
	for _, url := range []string{"s3://acme?endpoint=http://127.0.0.1:9000", "s3://acme?endpoint=https://10.0.0.1", "s3://a", "s3://acme?endpoint=https://r2.example&x=1", "s3://acme?endpoint=ftp://r2.example",
		"s3://acme?endpoint=file:///tmp", "s3://../x", "s3://a..b", "s3://acme/../x?endpoint=https://r2.example", "s3://acme?endpoint=https://hunter2:pass@r2.example",
		"s3://hunter2:pass@acme", "s3://acme?secretAccessKey=hunter2", "s3://acme?endpoint=https://r2.example/%3FsecretAccessKey=hunter2", "s3://acme#hunter2", "s3://acme?endpoint=https://r2.example%23hunter2"} {
		a := e.admin("PUT", "/api/clients/ACME/secrets/storage", map[string]any{"url": url, "accessKeyId": "k", "secretAccessKey": "s"}).problem(422, "")
		if a.get("errors.0.pointer") != "/url" || strings.Contains(string(a.Body), "hunter2") {
			t.Errorf("%s: %s", url, a.Body)
		}
	}
	for member, address := range map[string]string{"from": "a@[127.0.0.1]", "replyTo": "a..b@acme.example"} {
		set := map[string]any{"host": "mx.unknown.example", "port": 25, "security": "none", "from": "a@acme.example"}
		set[member] = address
		if a := e.admin("PUT", "/api/clients/ACME/secrets/smtp", set).problem(422, ""); a.get("errors.0.pointer") != "/"+member {
			t.Errorf("%s: %s", address, a.Body)
		}
	}
	if c.secretOf("smtp") != nil || c.secretOf("storage") != nil {
		t.Error("a refused account is kept")
	}
	// a server without a sign-in has nothing sealed
	smtp("mx.unknown.example", 25).want(200)
	if s := c.secretOf("smtp"); s["keyId"] != nil {
		t.Errorf("%v", s)
	}
}

// An export holds everything of one client that is no secret, and nothing of another.
func TestClientExport(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	e := start(t, dir, meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for i, x := range []*client{c, other} {
		x.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
		x.run(x.tell(fmt.Sprint("91814396382", i)), "done")
		x.upload("file", "n.txt", []byte("file of "+x.Code)).want(201)
		e.admin("POST", "/api/clients/"+x.Code+"/users", map[string]any{"email": "ana@" + strings.ToLower(x.Code) + ".example", "password": "correct horse 1", "role": "owner", "name": "Ana"}).want(201)
	}
	file := filepath.Join(t.TempDir(), "acme.tar.gz")
	env := []string{"ECOD_DATA_DIR=" + dir}
	if out, errs, code := runEcod(t, env, "client", "export", "acme", "--out", file); code != 0 || !strings.Contains(out, "1 media files") {
		t.Fatalf("%d: %s%s", code, out, errs)
	}
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	files, all := map[string]string{}, ""
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		files[h.Name] = string(b)
		all += string(b)
	}
	for name, has := range map[string]string{
		"client.json": `"clientCode":"ACME"`, "leads.jsonl": "918143963820", "messages.jsonl": `"id":"msg_`, "users.jsonl": "ana@acme.example",
		"jobs.jsonl": "whatsapp.send", "automationRuns.jsonl": `"id":"arn_`, "automationRules.jsonl": "{", "media.jsonl": "n.txt",
	} {
		if !strings.Contains(files[name], has) {
			t.Errorf("%s is %.300q", name, files[name])
		}
		for line := range strings.Lines(files[name]) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s: %q is no JSON", name, line)
			}
		}
	}
	if !strings.Contains(all, "file of ACME") {
		t.Error("the media file is not in it")
	}
	for _, no := range []string{"BETA", "beta.example", "918143963821", "sealed:v1", "argon2", c.Token, c.Key, "passwordHash"} {
		if strings.Contains(all, no) {
			t.Errorf("%q is in it", no)
		}
	}
	if _, errs, code := runEcod(t, env, "client", "export", "acme", "--out", file); code != 1 || !strings.Contains(errs, "is there already") {
		t.Errorf("over a file: %d %s", code, errs)
	}
	if _, errs, code := runEcod(t, env, "client", "export", "NONE", "--out", file+"2"); code != 1 || !strings.Contains(errs, "no such client") {
		t.Errorf("%d %s", code, errs)
	}
}

// Of an erased client nothing stands in the central database but the job that erased it.
func TestErasureLeavesNoTrace(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	e := start(t, dir, meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for _, x := range []*client{c, other} {
		x.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
		x.run(x.tell("918143963821"), "done")
		e.send("POST", "/api/crm/leads", map[string]any{"name": "Ana", "phone": "+12025550177"}, map[string]string{"x-api-key": x.Key, "x-client-code": x.Code, "Idempotency-Key": "k"}).want(201)
		e.admin("POST", "/api/clients/"+x.Code+"/users", map[string]any{"email": "ana@x.example", "password": "correct horse 1", "role": "owner", "name": "Ana"}).want(201)
		e.send("POST", "/api/sessions", map[string]any{"clientCode": x.Code, "email": "ana@x.example", "password": "wrong"}, nil).want(401)
		body := whatsapptest.Batch(meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: x.Number, From: "12025550123", Type: "text", Object: map[string]string{"body": "hi"}}))
		e.webhook(body).want(200)
	}
	e.admin("DELETE", "/api/clients/ACME?confirm=ACME", nil).want(202)
	eventually(t, "the client is erased", func() string {
		return map[bool]string{false: "there"}[e.admin("GET", "/api/clients/ACME", nil).Status == 404]
	})
	db, err := sql.Open("sqlite", filepath.Join(dir, "ecod_services.db"))
	must(t, err)
	defer db.Close()
	for query, want := range map[string]int{
		`SELECT count(*) FROM jobs WHERE tenant = 'ACME'`:      0,
		`SELECT count(*) FROM jobKeys WHERE tenant = 'ACME'`:   0,
		`SELECT count(*) FROM lanes WHERE tenant = 'ACME'`:     0,
		`SELECT count(*) > 0 FROM lanes WHERE tenant = 'BETA'`: 1,
		`SELECT count(*) FROM jobs WHERE instr(coalesce(payload, '') || coalesce(result, '') || coalesce(errors, ''), 'ACME') AND type <> 'client.erase'`: 0,
		`SELECT count(*) FROM idempotencyKeys WHERE instr(doc, 'ACME')`:                                                                                   0,
		`SELECT count(*) FROM idempotencyKeys WHERE instr(doc, 'BETA')`:                                                                                   1,
		`SELECT count(*) FROM ClientSecrets WHERE _id = 'ACME'`:                                                                                           0,
		`SELECT count(*) FROM failedLogins`:                                                                                                               1,
	} {
		var n int
		must(t, db.QueryRow(query).Scan(&n))
		if n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	for _, folder := range []string{"media", "imports"} {
		if _, err := os.Stat(filepath.Join(dir, folder, "ACME")); err == nil {
			if left, _ := filepath.Glob(filepath.Join(dir, folder, "ACME", "*", "*")); len(left) > 0 {
				t.Errorf("%v are left", left)
			}
		}
	}
	other.run(other.tell("918143963822"), "done")
}
