package app_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// run runs the real binary on a data folder and gives what it printed and its exit code.
func runEcod(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = environ(env...), &out, &errs
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestEverySealIsRotated: whoever seals something that is stored must be known to `ecod keys rotate` (sealWalk, and the
// table sealedPayloads), or what it sealed is lost with the old key. Whoever is new here comes into both.
func TestEverySealIsRotated(t *testing.T) {
	known := map[string]int{
		"internal/secret/secret.go": 2, "internal/tenant/tenant.go": 1, // the sealing itself
		"internal/tenant/admin.go": 2, "internal/api/idempotency.go": 2, "cmd/ecod/secret.go": 1, // accounts, kept answers
		"internal/rule/intake.go": 2, "internal/rule/raise.go": 1, "internal/crm/settle.go": 1, "internal/crm/retag.go": 2,
		"internal/chat/compose.go": 1, "internal/meeting/change.go": 1, // payloads of jobs
		"internal/auth/pass.go":     1, // tokens of 15 minutes, which stand nowhere
		"internal/app/node.go":      1, // a check of each key, which goes with its key
		"internal/campaign/link.go": 1, // under the client's own key
	}
	seal := regexp.MustCompile(`\.Seal\b`)
	root := filepath.Join("..", "..")
	for _, top := range []string{"internal", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			src, err := os.ReadFile(path)
			rel, _ := filepath.Rel(root, path)
			if n := len(seal.FindAll(src, -1)); n != known[filepath.ToSlash(rel)] {
				t.Errorf("%s seals at %d places, and %d are known", rel, n, known[filepath.ToSlash(rel)])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sealed is a data folder full of sealed values: accounts, payloads of jobs, kept answers.
func sealed(t *testing.T, dir string, clients, jobs, answers int) {
	t.Helper()
	cfg, ctx := config(dir, "https://graph.example"), t.Context()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := cfg.LoadKeys()
	must(t, err)
	e, err := app.OpenEmbedded(ctx, dir)
	must(t, err)
	defer e.Close()
	r := e.Registry(keys.Ring, nil, nil, nil)
	for i := range clients {
		code := fmt.Sprintf("CLIENT%d", i)
		_, _, err := r.Create(ctx, tenant.NewClient{Code: code, Name: code})
		must(t, err)
		_, err = r.SetWhatsApp(ctx, code, tenant.WhatsAppSecrets{WABAID: "2", PhoneNumberIDs: []string{fmt.Sprint(300 + i)}, AccessToken: "hunter2", AppSecret: "hunter3"})
		must(t, err)
		_, err = r.SetSMTP(ctx, code, tenant.SMTP{Host: "smtp.example.com", Port: 587, Security: "starttls", Username: "u", From: "a@example.com"}, "hunter4")
		must(t, err)
	}
	later := time.Now().Add(24 * time.Hour)
	var made []store.NewJob
	for i := range jobs {
		typ, field, member := rule.EventJob, "event", "sealed"
		if i%2 == 1 {
			typ, field, member = crm.TagJob, "tag", "tag"
		}
		s, err := keys.Ring.Seal("CLIENT0", field, fmt.Sprintf(`{"n":%d}`, i))
		must(t, err)
		b, _ := json.Marshal(map[string]any{member: s, "n": i})
		made = append(made, store.NewJob{Tenant: "CLIENT0", Type: typ, Payload: b, RunAt: later})
	}
	_, err = e.Queue.Enqueue(ctx, made...)
	must(t, err)
	for i := range answers {
		k := &api.IdempotencyKey{ID: fmt.Sprintf("idk_%d", i), Scope: "client:CLIENT0", State: "done", ExpiresAt: later}
		k.Request, err = keys.Ring.Seal(k.Scope, "idempotency.request."+k.ID, "hash")
		must(t, err)
		k.Answer, err = keys.Ring.Seal(k.Scope, "idempotency."+k.ID, "{}")
		must(t, err)
		must(t, e.Services.Commit(ctx, api.IdempotencyKeys.Insert(k)))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A rotation that is killed in the middle goes on with the key it made; in the end every value stands under that, and the
// old key can go.
func TestKeysRotateKilled(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	sealed(t, dir, 20, 300, 60)
	env := []string{"ECOD_DATA_DIR=" + dir}
	first := readFile(t, dir, "secret-keys")
	bin, err := build()
	must(t, err)
	mixed := false
	for delay := 20 * time.Millisecond; delay < 3*time.Second && !mixed; delay += 15 * time.Millisecond {
		cmd := exec.Command(bin, "keys", "rotate")
		cmd.Env = environ(env...)
		must(t, cmd.Start())
		time.Sleep(delay) // the moment of the kill
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		old, _, _ := strings.Cut(first, ":")
		out, _, _ := runEcod(t, env, "doctor", "--client", "NOBODY")
		if !strings.Contains(out, "ok    sealed values") {
			t.Fatalf("after a kill at %s: %s", delay, out)
		}
		line := after(t, out, "values by key: ")
		mixed = strings.Contains(line, ",") && strings.Contains(line, old)
	}
	if !mixed {
		t.Fatal("no kill hit the middle")
	}
	keys := readFile(t, dir, "secret-keys")
	if n := strings.Count(keys, ","); n != 1 || !strings.HasSuffix(keys, first) {
		t.Fatalf("the kills left %d keys, or not the first", n+1)
	}
	newest, _, _ := strings.Cut(keys, ":")
	out, errs, code := runEcod(t, env, "keys", "rotate")
	if code != 0 || !strings.Contains(out, "key "+newest+" is the newest") || !strings.Contains(out, "no longer needed") {
		t.Fatalf("%d: %s%s", code, out, errs)
	}
	if strings.Contains(out+errs, strings.Split(strings.SplitN(keys, ":", 2)[1], ",")[0]) {
		t.Error("a key is told")
	}
	// sockets may hold tokens under the old key for a while
	if out, _, _ := runEcod(t, env, "keys", "rotate", "--drop-old"); !strings.Contains(out, "tokens of live sockets") || readFile(t, dir, "secret-keys") != keys {
		t.Fatalf("dropped at once: %s", out)
	}
	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(filepath.Join(dir, "secret-keys"), long, long))
	if out, _, code := runEcod(t, env, "keys", "rotate", "--drop-old"); code != 0 || !strings.Contains(out, "removed: ") {
		t.Fatalf("%d: %s", code, out)
	}
	if left := readFile(t, dir, "secret-keys"); left != strings.Split(keys, ",")[0] {
		t.Fatal("the newest key is not what is left")
	}
	out, _, _ = runEcod(t, env, "doctor", "--client", "NOBODY")
	if after(t, out, "values by key: ") != fmt.Sprintf("%s: %d", newest, 20*3+300+60*2) {
		t.Fatal(out)
	}
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	return strings.TrimSpace(string(b))
}

// A value that no key opens stays as it is, is named, and keeps the key that sealed it from being dropped.
func TestKeysRotateTellsWhatDoesNotOpen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	sealed(t, dir, 2, 2, 0)
	foreign, err := secret.ParseRing(secret.Generate("lost"))
	must(t, err)
	e, err := app.OpenEmbedded(t.Context(), dir)
	must(t, err)
	keys, err := (&app.Config{DataDir: dir}).LoadKeys()
	must(t, err)
	_, err = e.Registry(keys.Ring, nil, nil, nil).Change(t.Context(), "CLIENT1", func(a *tenant.Account) error {
		a.SMTP.Password, err = foreign.Seal("CLIENT1", "smtp.password", "hunter5")
		return err
	})
	must(t, err)
	must(t, e.Close())
	env := []string{"ECOD_DATA_DIR=" + dir}
	for range 2 {
		if _, errs, code := runEcod(t, env, "keys", "rotate"); code != 1 || strings.TrimSpace(errs) != "ecod: smtp.password of client CLIENT1 does not open with any key; it stays as it is" {
			t.Fatalf("%d: %s", code, errs)
		}
	}
	if out, _, code := runEcod(t, env, "doctor", "--client", "NOBODY"); code != 1 || !strings.Contains(out, "FAIL  sealed values") || !strings.Contains(out, "smtp.password of client CLIENT1") {
		t.Fatalf("%d: %s", code, out)
	}
}

// An engine goes on while its keys are rotated: it sends with old secrets and new, seals with the newest key, and opens
// what was kept before.
func TestKeysRotateBesideServe(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201)
	create := func() *answer {
		return p.send("POST", "/api/clients", map[string]any{"clientCode": "KEPT", "name": "Kept"},
			map[string]string{"Authorization": "Bearer " + p.token, "Idempotency-Key": "once"})
	}
	kept := create().want(201)
	keyID := func() string {
		return p.admin("GET", "/api/clients/ACME/secrets", nil).want(200).get("items.0.keyId").(string)
	}
	first := keyID()
	stop := make(chan struct{})
	done := make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			body, _ := json.Marshal(confirmEvent(map[string]any{"eventId": fmt.Sprint("ev-", n), "phone": fmt.Sprintf("9181439%05d", n%500)}))
			if status, b := try("POST", p.url+"/api/crm/automations/events", body, map[string]string{"x-api-key": c.Key, "x-client-code": c.Code}); status != 202 {
				t.Errorf("event %d: %d %s", n, status, b)
				return
			}
		}
	}()
	for range 3 {
		before := keyID()
		ecod(t, dir, "", "keys", "rotate")
		if now := keyID(); now == before {
			t.Errorf("the account stands under %s still", now)
		}
	}
	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(filepath.Join(dir, "secret-keys"), long, long))
	if out := ecod(t, dir, "", "keys", "rotate", "--drop-old"); !strings.Contains(out, "removed: ") || !strings.Contains(out, first) {
		t.Errorf("old keys stay: %s", out)
	}
	close(stop)
	n := <-done
	if again := create().want(201); string(again.Body) != string(kept.Body) || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the kept answer is %s", again.Body)
	}
	p.admin("PUT", "/api/clients/KEPT/secrets/whatsapp", map[string]any{"wabaId": "9", "phoneNumberIds": []string{"99"}, "accessToken": "x"}).want(200)
	newest, _, _ := strings.Cut(readFile(t, dir, "secret-keys"), ":")
	if got := p.admin("GET", "/api/clients/KEPT/secrets", nil).want(200).get("items.0.keyId"); got != newest {
		t.Errorf("the engine seals with %v, not %s", got, newest)
	}
	eventuallyIn(t, 60*time.Second, "everything is sent", func() string {
		if got := len(meta.Accepted()); got != n {
			return fmt.Sprintf("%d of %d", got, n)
		}
		return ""
	})
	t.Logf("%d events sent meanwhile", n)
	if strings.Contains(p.log.String(), `"level":"ERROR"`) {
		t.Error("the engine had errors")
	}
}

// Keys that are set are taken as they are; an engine that does not know them yet is not left behind.
func TestKeysRotateSet(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	k1, k2 := secret.Generate("k1"), secret.Generate("k2")
	p := serve(t, dir, meta, "ECOD_SECRET_KEYS="+k1)
	p.addClient("ACME", 1)
	both := []string{"ECOD_DATA_DIR=" + dir, "ECOD_SECRET_KEYS=" + k2 + "," + k1}
	if _, errs, code := runEcod(t, both, "keys", "rotate"); code != 2 || !strings.Contains(errs, "restart it with the same ECOD_SECRET_KEYS") {
		t.Fatalf("%d: %s", code, errs)
	}
	p.kill()
	p = serve(t, dir, meta, "ECOD_SECRET_KEYS="+k2+","+k1)
	out, errs, code := runEcod(t, both, "keys", "rotate")
	if code != 0 || !strings.Contains(out, "no longer needed: k1") {
		t.Fatalf("%d: %s%s", code, out, errs)
	}
	if got := p.admin("GET", "/api/clients/ACME/secrets", nil).want(200).get("items.0.keyId"); got != "k2" {
		t.Errorf("the account stands under %v", got)
	}
}
