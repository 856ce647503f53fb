package app_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// build compiles the real binary, once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ecod-bin-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "ecod")
	out, err := exec.Command("go", "build", "-o", bin, "github.com/ecodrix/ecod/cmd/ecod").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

// TestMain removes the binary.
func TestMain(m *testing.M) {
	flag.Parse()
	// Scenarios wait more than they work: on few processors more of them fit side by side than the default lets.
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given && runtime.GOMAXPROCS(0) < 6 {
		most := "6"
		if raced {
			most = "3"
		}
		_ = flag.Set("test.parallel", most)
	}
	code := m.Run()
	if bin, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// process is the real binary at work.
type process struct {
	*engine
	cmd    *exec.Cmd
	exited chan error
}

// environ is this process's environment without settings of ours.
func environ(extra ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ECOD_") && !strings.HasPrefix(kv, "PORT=") {
			env = append(env, kv)
		}
	}
	return append(env, extra...)
}

// serve starts `ecod serve` on a folder and waits until it listens.
func serve(t *testing.T, dir string, meta *whatsapptest.Server, extra ...string) *process {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return serveBy(t, exec.Command(bin, "serve"), dir, meta, extra...)
}

// serveBy starts `ecod serve` by a command.
func serveBy(t *testing.T, cmd *exec.Cmd, dir string, meta *whatsapptest.Server, extra ...string) *process {
	t.Helper()
	p := &process{engine: &engine{t: t, meta: meta, log: &logBuffer{}}, exited: make(chan error, 1), cmd: cmd}
	p.cmd.Env = environ(append([]string{
		"ECOD_ADDR=127.0.0.1:0", "ECOD_DATA_DIR=" + dir, "ECOD_META_URL=" + meta.URL, "ECOD_META_APP_SECRET=" + appSecret,
		"ECOD_META_VERIFY_TOKEN=verify-me", "ECOD_LOG_FORMAT=json",
	}, extra...)...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			_, _ = p.log.Write(append(lines.Bytes(), '\n'))
			var l struct{ Msg, Addr string }
			if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "ecod is ready" {
				addr <- l.Addr
			}
		}
		p.exited <- p.cmd.Wait()
	}()
	select {
	case a := <-addr:
		p.url = "http://" + a
	case err := <-p.exited:
		t.Fatalf("ecod serve ended: %v\n%s", err, p.log)
	case <-time.After(30 * time.Second):
		t.Fatalf("ecod serve does not get ready\n%s", p.log)
	}
	for _, setting := range extra {
		if token, ok := strings.CutPrefix(setting, "ECOD_ADMIN_TOKEN="); ok {
			p.token = token
		}
	}
	if p.token == "" {
		token, err := os.ReadFile(filepath.Join(dir, "admin-token"))
		if err != nil {
			t.Fatal(err)
		}
		p.token = strings.TrimSpace(string(token))
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("engine log (its end):\n%s", tail(p.log.String(), 6000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// kill ends the process as a power cut would, as far as one process can.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.exited
	p.exited <- nil
}

// try sends a request that may fail because the process is being killed; status 0 then.
func try(method, url string, body []byte, header map[string]string) (int, []byte) {
	req, err := http.NewRequest(method, url, strings.NewReader(string(body)))
	if err != nil {
		return 0, nil
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil // no whole answer: not acknowledged
	}
	return res.StatusCode, b
}

func rounds(t *testing.T, byDefault int) int {
	if s := os.Getenv("ECOD_TEST_CRASH_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("ECOD_TEST_CRASH_ROUNDS: %v", err)
		}
		return n
	}
	return byDefault
}

// load is a stream of webhooks and events of two clients, and what of it was acknowledged.
type load struct {
	t        *testing.T
	meta     *whatsapptest.Server
	clients  []*client
	serial   atomic.Int64
	mu       sync.Mutex
	messages map[string]int // wamid of an acknowledged inbound message -> client
	events   map[string]int // id of an acknowledged event -> client
}

// newLoad registers two clients with a rule each.
func newLoad(p *process, meta *whatsapptest.Server) *load {
	l := &load{t: p.t, meta: meta, clients: []*client{p.addClient("ACME", 1), p.addClient("BETA", 2)}, messages: map[string]int{}, events: map[string]int{}}
	for _, c := range l.clients {
		c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201)
	}
	return l
}

// meet makes a process the one that is spoken to.
func (l *load) meet(p *process) {
	for _, c := range l.clients {
		c.e = p.engine
		l.meta.SetWebhook(c.WABA, p.url+"/api/whatsapp/webhook")
	}
}

// begin loads a process until stop is called.
func (l *load) begin(p *process) (stop func()) {
	l.meet(p)
	done := make(chan struct{})
	var workers sync.WaitGroup
	for worker := range 8 {
		workers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				n := l.serial.Add(1)
				ci := int(n) % 2
				c := l.clients[ci]
				if worker%2 == 0 {
					wamid := fmt.Sprintf("wamid.in.%d", n)
					body := whatsapptest.Batch(l.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: c.Number,
						From: fmt.Sprintf("1202555%04d", n%50), Name: "Ana", Type: "text", Object: map[string]string{"body": "hi"}, ID: wamid}))
					status, _ := try("POST", p.url+"/api/whatsapp/webhook", body, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(appSecret, body)})
					if status == 200 {
						l.mu.Lock()
						l.messages[wamid] = ci
						l.mu.Unlock()
					}
					continue
				}
				id := fmt.Sprintf("ev-%d", n)
				body, _ := json.Marshal(confirmEvent(map[string]any{"eventId": id, "phone": fmt.Sprintf("9181439%05d", n%200)}))
				status, _ := try("POST", p.url+"/api/crm/automations/events", body, map[string]string{"x-api-key": c.Key, "x-client-code": c.Code})
				if status == 202 {
					l.mu.Lock()
					l.events[id] = ci
					l.mu.Unlock()
				}
			}
		})
	}
	return func() { close(done); workers.Wait() }
}

// check waits until a process has done all work, and compares what was acknowledged with what is there: nothing lost, no
// message sent twice, every send accounted for.
func (l *load) check(p *process) {
	t := l.t
	t.Helper()
	l.meet(p)
	if len(l.messages) == 0 || len(l.events) == 0 {
		t.Fatal("nothing was acknowledged: the load did not work")
	}
	// every job ends; a job that was running when the process died is taken over when its lease ends
	ended := func() {
		t.Helper()
		eventuallyIn(t, 90*time.Second, "all work is done", func() string {
			left := 0
			for _, state := range unended {
				left += len(p.admin("GET", "/api/admin/jobs?limit=200&state="+state, nil).want(200).get("items").([]any))
			}
			pending := len(p.admin("GET", "/api/admin/deliveries?limit=200&state=received", nil).want(200).get("items").([]any))
			if left == 0 && pending == 0 {
				return ""
			}
			time.Sleep(50 * time.Millisecond) // asking costs it the time it works in
			return fmt.Sprintf("%d jobs and %d deliveries do not end", left, pending)
		})
	}
	ended()

	// What was killed three times while it ran is dead as poison, as an innocent can be by so many kills: the operator has it
	// tried again.
	if n := p.admin("POST", "/api/admin/jobs/retry", map[string]any{}).want(200); n.get("count") != 0.0 {
		t.Logf("tried again: %s", n.Body)
		ended()
	}

	// what the clients' databases hold, through the API
	var sent []map[string]any
	for ci, c := range l.clients {
		have := map[string]int{}
		for _, cv := range c.all("/api/whatsapp/conversations") {
			for _, m := range c.all("/api/whatsapp/conversations/" + cv["id"].(string) + "/messages") {
				if m["direction"] == "in" {
					have[m["wamid"].(string)]++
				} else {
					sent = append(sent, m)
				}
			}
		}
		for wamid, owner := range l.messages {
			if n := have[wamid]; owner == ci && n != 1 {
				t.Errorf("%s: acknowledged message %s is there %d times", c.Code, wamid, n)
			} else if owner != ci && n != 0 {
				t.Errorf("%s holds message %s of the other client", c.Code, wamid)
			}
		}
		for id, owner := range l.events {
			if owner != ci {
				continue
			}
			ev := c.call("GET", "/api/crm/automations/events/"+id, nil)
			if ev.Status != 200 || ev.get("runs.0.runId") == nil {
				t.Errorf("%s: acknowledged event %s: %d %s", c.Code, id, ev.Status, ev.Body)
			}
		}
	}
	// every send: accepted, rejected or unconfirmed; and Meta has none twice
	if d := l.meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	accepted := map[string]string{}
	for _, a := range l.meta.Accepted() {
		accepted[a.BizOpaque] = a.ID
	}
	counts := map[string]int{}
	for _, m := range sent {
		status := m["status"].(string)
		counts[status]++
		wamid, known := accepted[m["id"].(string)]
		delete(accepted, m["id"].(string))
		switch status {
		case "sent", "delivered", "read":
			if !known || m["wamid"] != wamid {
				t.Errorf("message %v is %s under %v, Meta knows %q", m["id"], status, m["wamid"], wamid)
			}
		case "unconfirmed":
		case "failed":
			if known {
				t.Errorf("message %v failed, but Meta accepted it", m["id"])
			}
		default:
			t.Errorf("message %v is left %s", m["id"], status)
		}
	}
	if len(accepted) > 0 {
		t.Errorf("Meta accepted %d messages that no client has", len(accepted))
	}
	t.Logf("%d messages, %d events acknowledged; sends %v", len(l.messages), len(l.events), counts)
}

// TestCrash kills the real binary at random moments under load of webhooks and events of two clients, again and again on
// the same data.
func TestCrash(t *testing.T) {
	t.Parallel()
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret, StatusDelay: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meta.Close)
	dir := t.TempDir()
	p := serve(t, dir, meta)
	l := newLoad(p, meta)
	for round := range rounds(t, 3) {
		stop := l.begin(p)
		time.Sleep(time.Duration(100+rand.N(700)) * time.Millisecond) // the random moment
		p.kill()
		stop()
		t.Logf("round %d: %d messages and %d events acknowledged so far", round+1, len(l.messages), len(l.events))
		p = serve(t, dir, meta)
	}
	l.check(p)
}

// all reads a list to its end.
func (c *client) all(path string) []map[string]any {
	c.e.t.Helper()
	var out []map[string]any
	cursor := ""
	for {
		var page struct {
			Items      []map[string]any
			NextCursor *string
		}
		c.call("GET", path+"?limit=200"+cursor, nil).want(200).into(&page)
		out = append(out, page.Items...)
		if page.NextCursor == nil {
			return out
		}
		cursor = "&cursor=" + *page.NextCursor
	}
}

// A second serve on the same folder is refused, a stop is clean, and the keys stay.
func TestServeTwice(t *testing.T) {
	meta, dir := newMeta(t), t.TempDir()
	p := serve(t, dir, meta)
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	second := exec.Command(bin, "serve")
	second.Env = environ("ECOD_ADDR=127.0.0.1:0", "ECOD_DATA_DIR="+dir)
	out, err := second.CombinedOutput()
	if code := second.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "Another ecod") {
		t.Errorf("second serve: exit %d, %v: %s", code, err, out)
	}
	c := p.addClient("ACME", 1)
	token := p.token
	p.end(t)
	for _, f := range []string{"admin-token", "secret-keys"} {
		st, err := os.Stat(filepath.Join(dir, f))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st, err)
		}
	}
	p = serve(t, dir, meta)
	c.e = p.engine
	if p.token != token {
		t.Error("the admin token changed")
	}
	defer func() { // keys that are gone are not replaced by others in silence
		p.end(t)
		if err := os.Remove(filepath.Join(dir, "secret-keys")); err != nil {
			t.Fatal(err)
		}
		again := exec.Command(bin, "serve")
		again.Env = environ("ECOD_ADDR=127.0.0.1:0", "ECOD_DATA_DIR="+dir)
		out, err := again.CombinedOutput()
		if code := again.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "secret-keys is gone") {
			t.Errorf("without keys: exit %d, %v: %s", code, err, out)
		}
	}()
	c.call("GET", "/api/crm/leads", nil).want(200)
	for _, secret := range []string{token, c.Key, c.Token, appSecret} {
		if strings.Contains(p.log.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
}

// Bad configuration exits 2 with one sentence a mistake.
func TestBadConfiguration(t *testing.T) {
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string][]string{
		"ECOD_ADRR is not a setting; did you mean ECOD_ADDR?": {"ECOD_ADRR=x"},
		"ECOD_WORKER_CONCURRENCY":                             {"ECOD_WORKER_CONCURRENCY=0"},
		"ECOD_ADDR must be host:port":                         {"ECOD_ADDR=8080"},
		"ECOD_META_URL must be an https":                      {"ECOD_META_URL=http://example.com"},
		"ECOD_ADMIN_TOKEN must be set":                        {"ECOD_DATABASE_URL=mongodb://localhost/"},
		"ECOD_SECRET_KEYS":                                    {"ECOD_SECRET_KEYS=abc"},
		"not a duration":                                      {"ECOD_INBOX_RETENTION=soon"},
		"ECOD_ADRR is not a setting; did you mean ECOD_ADDR?\n" + // all of them, a sentence each
			"ECOD_ALLOW_PRIVATE_NETWORKS must be true or false.\n" +
			"ECOD_INBOX_RETENTION is not a duration such as 5s, 24h or 7d.\n" +
			"ECOD_WORKER_CONCURRENCY is not a whole number.\n" +
			"ECOD_LOG_LEVEL must be debug, info, warn or error.\n": {"ECOD_WORKER_CONCURRENCY=abc", "ECOD_ADRR=x", "ECOD_LOG_LEVEL=no", "ECOD_INBOX_RETENTION=soon", "ECOD_ALLOW_PRIVATE_NETWORKS=maybe"},
	} {
		cmd := exec.Command(bin, "serve")
		cmd.Env = environ(append([]string{"ECOD_DATA_DIR=" + t.TempDir()}, env...)...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), want) {
			t.Errorf("%v: exit %d: %s", env, code, out)
		}
	}
}
