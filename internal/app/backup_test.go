package app_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// A backup taken under load, restored elsewhere, holds whatever was acknowledged before it began; what was being sent is
// not sent again, and no work is left undone.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret, StatusDelay: 20 * time.Millisecond})
	must(t, err)
	t.Cleanup(meta.Close)
	dir, out := t.TempDir(), t.TempDir()
	p := serve(t, dir, meta)
	l := newLoad(p, meta)
	file := filepath.Join(out, "backup.tar.gz")
	stop := l.begin(p)
	eventually(t, "there is something to back up", func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.events) < 40 || len(l.messages) < 40 {
			return fmt.Sprint(len(l.events), len(l.messages))
		}
		return ""
	})
	l.mu.Lock()
	before := &load{t: t, meta: meta, messages: maps.Clone(l.messages), events: maps.Clone(l.events), clients: l.clients}
	l.mu.Unlock()
	accepted := map[string]bool{}
	for _, a := range meta.Accepted() {
		accepted[a.BizOpaque] = true
	}
	if _, errs, code := runEcod(t, []string{"ECOD_DATA_DIR=" + dir}, "backup", "--with-keys", file); code != 0 {
		t.Fatalf("%d: %s", code, errs)
	}
	stop()
	p.kill()

	other := filepath.Join(t.TempDir(), "other")
	if _, errs, code := runEcod(t, []string{"ECOD_DATA_DIR=" + other}, "restore", file); code != 0 {
		t.Fatalf("%d: %s", code, errs)
	}
	during := meta.Duplicates()
	p = serve(t, other, meta)
	before.meet(p)
	eventuallyIn(t, 90*time.Second, "all work is done", func() string {
		left := 0
		for _, state := range unended {
			left += len(p.admin("GET", "/api/admin/jobs?limit=200&state="+state, nil).want(200).get("items").([]any))
		}
		if left += len(p.admin("GET", "/api/admin/deliveries?limit=200&state=received", nil).want(200).get("items").([]any)); left > 0 {
			time.Sleep(50 * time.Millisecond) // asking costs it the time it works in
			return fmt.Sprint(left, " are left")
		}
		return ""
	})
	for ci, c := range before.clients {
		have := map[string]int{}
		for _, cv := range c.all("/api/whatsapp/conversations") {
			for _, m := range c.all("/api/whatsapp/conversations/" + cv["id"].(string) + "/messages") {
				if m["direction"] == "in" {
					have[m["wamid"].(string)]++
					continue
				}
				switch m["status"] { // no send is forgotten: not one that was only planned when the moment was taken either
				case "sent", "delivered", "read", "unconfirmed":
				default:
					t.Errorf("message %v is left %v", m["id"], m["status"])
				}
			}
		}
		for wamid, owner := range before.messages {
			if n := have[wamid]; owner == ci && n != 1 {
				t.Errorf("%s: message %s is there %d times", c.Code, wamid, n)
			}
		}
		for id, owner := range before.events {
			if ev := c.call("GET", "/api/crm/automations/events/"+id, nil); owner == ci && (ev.Status != 200 || ev.get("runs.0.runId") == nil) {
				t.Errorf("%s: event %s: %d %s", c.Code, id, ev.Status, ev.Body)
			}
		}
		for _, run := range c.all("/api/crm/automations/runs") {
			if run["state"] == "active" {
				t.Errorf("run %v is left active", run["id"])
			}
		}
	}
	// what Meta had taken before the backup began was not sent again; what waited then, and was sent since, was
	for id := range meta.Duplicates() {
		if accepted[id] && during[id] == 0 {
			t.Errorf("sent again: %s", id)
		}
	}
	t.Logf("%d events, %d messages; %d sends before", len(before.events), len(before.messages), len(accepted))
}

// entry is one member of a tar.
type tarEntry struct {
	h    tar.Header
	body []byte
}

func readTar(t *testing.T, file string) (out []tarEntry) {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		out = append(out, tarEntry{*h, b})
	}
}

func writeTar(t *testing.T, file string, entries []tarEntry) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.h.Size = int64(len(e.body))
		must(t, w.WriteHeader(&e.h))
		_, err := w.Write(e.body)
		must(t, err)
	}
	must(t, w.Close())
	must(t, os.WriteFile(file, b.Bytes(), 0o600))
}

// A restore touches nothing unless the whole archive is what was written; and nothing that is served, or that holds data.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	meta, dir, out := newMeta(t), t.TempDir(), t.TempDir()
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	c.call("POST", "/api/crm/leads", map[string]any{"name": "Ana", "phone": "+12025550123"}).want(201)
	file := filepath.Join(out, "b.tar.gz")
	env := []string{"ECOD_DATA_DIR=" + dir}
	if o, errs, code := runEcod(t, env, "backup", file); code != 0 || !strings.Contains(o, "keys are not in it") {
		t.Fatalf("%d: %s%s", code, o, errs)
	}
	if _, errs, code := runEcod(t, env, "backup", file); code != 1 || !strings.Contains(errs, "is there already") {
		t.Errorf("over a file: %d: %s", code, errs)
	}
	raw, err := os.ReadFile(file)
	must(t, err)
	for _, hidden := range []string{strings.SplitN(readFile(t, dir, "secret-keys"), ":", 2)[1], p.token, c.Token} {
		for _, e := range readTar(t, file) {
			if bytes.Contains(e.body, []byte(hidden)) {
				t.Errorf("%s holds a secret", e.h.Name)
			}
		}
	}
	if _, errs, code := runEcod(t, env, "restore", "--force", file); code != 2 || !strings.Contains(errs, "Another ecod serves") {
		t.Errorf("into a folder that is served: %d: %s", code, errs)
	}
	good := readTar(t, file)
	with := func(name string, body []byte, typ byte) []tarEntry {
		return append([]tarEntry{{tar.Header{Name: name, Typeflag: typ, Mode: 0o600, Linkname: "/etc/passwd"}, body}}, good...)
	}
	broken := func(at func([]byte)) []tarEntry {
		es := slices.Clone(good)
		es[0].body = slices.Clone(es[0].body)
		at(es[0].body)
		return es
	}
	bad := filepath.Join(out, "bad.tar")
	for what, write := range map[string]func(){
		"cut":             func() { must(t, os.WriteFile(bad, raw[:len(raw)*2/3], 0o600)) },
		"cut at the end":  func() { must(t, os.WriteFile(bad, raw[:len(raw)-4], 0o600)) },
		"empty":           func() { must(t, os.WriteFile(bad, nil, 0o600)) },
		"something else":  func() { must(t, os.WriteFile(bad, bytes.Repeat([]byte("x"), 5000), 0o600)) },
		"a bit flipped":   func() { writeTar(t, bad, broken(func(b []byte) { b[len(b)/2] ^= 1 })) },
		"no manifest":     func() { writeTar(t, bad, good[:len(good)-1]) },
		"a file missing":  func() { writeTar(t, bad, good[1:]) },
		"twice":           func() { writeTar(t, bad, append(good[:1:1], good...)) },
		"outside":         func() { writeTar(t, bad, with("../evil", []byte("x"), tar.TypeReg)) },
		"outside, media":  func() { writeTar(t, bad, with("media/../../evil", []byte("x"), tar.TypeReg)) },
		"absolute":        func() { writeTar(t, bad, with("/tmp/ecod-evil", []byte("x"), tar.TypeReg)) },
		"a link":          func() { writeTar(t, bad, with("media/link", nil, tar.TypeSymlink)) },
		"a strange name":  func() { writeTar(t, bad, with("authorized_keys", []byte("x"), tar.TypeReg)) },
		"a strange place": func() { writeTar(t, bad, with("tenants/a/b.db", []byte("x"), tar.TypeReg)) },
	} {
		write()
		fresh := filepath.Join(t.TempDir(), "d")
		if o, errs, code := runEcod(t, []string{"ECOD_DATA_DIR=" + fresh}, "restore", bad); code != 1 {
			t.Errorf("%s: exit %d: %s%s", what, code, o, errs)
		}
		if left, _ := os.ReadDir(fresh); len(left) > 0 {
			t.Errorf("%s: %v is touched", what, left)
		}
	}

	p.kill()
	before := dirNames(t, dir)
	if _, errs, code := runEcod(t, env, "restore", file); code != 1 || !strings.Contains(errs, "--force") || !slices.Equal(dirNames(t, dir), before) {
		t.Errorf("over data: %d: %s", code, errs)
	}
	if _, _, code := runEcod(t, env, "restore", "--force", bad); code != 1 || !slices.Equal(dirNames(t, dir), before) {
		t.Error("a bad archive touched data")
	}
	must(t, os.WriteFile(filepath.Join(dir, "tenants", "ecod_t_ACME.db"), []byte("broken"), 0o600))
	o, errs, code := runEcod(t, env, "restore", "--force", file)
	if code != 0 || !strings.Contains(o, "before-restore-") || errs != "" {
		t.Fatalf("%d: %s%s", code, o, errs)
	}
	p = serve(t, dir, meta) // with the keys and the token that stayed
	c.e = p.engine
	if n := len(c.all("/api/crm/leads")); n != 1 {
		t.Errorf("%d leads", n)
	}
	p.kill()

	// cut short between the old data and the new, no engine starts until it was run again
	must(t, os.WriteFile(filepath.Join(dir, ".restoring"), nil, 0o600))
	if _, errs, code := runEcod(t, append(env, "ECOD_ADDR=127.0.0.1:0"), "serve"); code != 2 || !strings.Contains(errs, "run ecod restore again") {
		t.Errorf("%d: %s", code, errs)
	}
	if _, errs, code := runEcod(t, env, "restore", file); code != 0 {
		t.Errorf("%d: %s", code, errs)
	}
	c.e = serve(t, dir, meta).engine
	if n := len(c.all("/api/crm/leads")); n != 1 {
		t.Errorf("%d leads", n)
	}

	// elsewhere, without keys: said, and no engine starts on data whose secrets it could not open
	fresh := filepath.Join(t.TempDir(), "d")
	env = []string{"ECOD_DATA_DIR=" + fresh, "ECOD_ADDR=127.0.0.1:0"}
	if _, errs, code := runEcod(t, env, "restore", file); code != 0 || !strings.Contains(errs, "put back the keys") {
		t.Errorf("%d: %s", code, errs)
	}
	if _, errs, code := runEcod(t, env, "serve"); code != 2 || !strings.Contains(errs, "secret-keys is gone") {
		t.Errorf("%d: %s", code, errs)
	}
}

func dirNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Media come back with the rest, also to a folder of their own, and lists that wait to be imported do.
func TestBackupHoldsMedia(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprint("apart ", apart), func(t *testing.T) {
			t.Parallel()
			setting := func() string {
				if apart {
					return "ECOD_MEDIA_URL=file://" + filepath.Join(t.TempDir(), "blobs")
				}
				return "ECOD_LOG_LEVEL=debug"
			}
			meta, dir, here := newMeta(t), t.TempDir(), setting()
			p := serve(t, dir, meta, here)
			c := p.addClient("ACME", 1)
			up := c.upload("file", "note.txt", []byte("hello, file")).want(201)
			waits := filepath.Join(dir, "imports", "ACME", "imp_1.csv")
			must(t, os.MkdirAll(filepath.Dir(waits), 0o700))
			must(t, os.WriteFile(waits, []byte("name,phone\n"), 0o600))
			file := filepath.Join(t.TempDir(), "b.tar")
			if _, errs, code := runEcod(t, []string{"ECOD_DATA_DIR=" + dir, here}, "backup", "--with-keys", file); code != 0 {
				t.Fatal(errs)
			}
			p.kill()
			other, there := filepath.Join(t.TempDir(), "other"), setting()
			if _, errs, code := runEcod(t, []string{"ECOD_DATA_DIR=" + other, there}, "restore", file); code != 0 {
				t.Fatal(errs)
			}
			if got := readFile(t, other, "imports/ACME/imp_1.csv"); got != "name,phone" {
				t.Errorf("%q", got)
			}
			c.e = serve(t, other, meta, there).engine
			if got := c.call("GET", "/api/media/"+up.get("id").(string)+"/content", nil).want(200); string(got.Body) != "hello, file" {
				t.Errorf("%q", got.Body)
			}
		})
	}
}
