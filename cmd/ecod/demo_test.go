package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemoCommand runs the command in an environment that says otherwise: it is on loopback, on a free port, in a folder
// that goes with it, and what it prints opens it.
func TestDemoCommand(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "ecod")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	tmp := t.TempDir()
	demo := exec.CommandContext(t.Context(), bin, "demo", "--port", port, "--pause", "100ms")
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "ECOD_") })
	demo.Env = append(env, "TMPDIR="+tmp, "PORT="+port, "ECOD_ADDR=0.0.0.0:"+port, "ECOD_DATABASE_URL=mongodb://nowhere.invalid/x", "ECOD_META_URL=https://nowhere.invalid")
	var stderr bytes.Buffer
	demo.Stderr = &stderr
	out, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	text := make(chan string, 1)
	go func() {
		var said strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "Ctrl-C ends it") {
				text <- said.String()
			}
		}
	}()
	var said string
	select {
	case said = <-text:
	case <-time.After(time.Minute):
		_ = demo.Process.Kill()
		_ = demo.Wait()
		t.Fatalf("it says nothing; on stderr: %s", stderr.String())
	}
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(said)
	if url == "" || strings.HasSuffix(url, ":"+port) {
		t.Errorf("the address is %q", url)
	}
	users := regexp.MustCompile(`client code (\S+) +e-mail (\S+) +password (\S+)`).FindAllStringSubmatch(said, -1)
	keys := regexp.MustCompile(`(?m)x-client-code: (\S+) +x-api-key: (\S+)$`).FindAllStringSubmatch(said, -1)
	if len(users) != 2 || len(keys) != 2 {
		t.Fatalf("it says:\n%s", said)
	}
	ask := func(want int, method, path string, body any, header ...string) {
		t.Helper()
		b, _ := json.Marshal(body)
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s %s: %s", method, path, res.Status)
		}
	}
	ask(200, "GET", "/", nil)
	for i := range users {
		ask(201, "POST", "/api/sessions", map[string]string{"clientCode": users[i][1], "email": users[i][2], "password": users[i][3]})
		ask(200, "GET", "/api/crm/leads", nil, "x-client-code", keys[i][1], "x-api-key", keys[i][2])
	}
	ask(200, "GET", "/api/clients", nil, "Authorization", regexp.MustCompile(`Bearer \S+`).FindString(said))

	if err := demo.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := demo.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "ecod-demo-*")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	if said := stderr.String(); strings.Contains(said, "demo:") || strings.Contains(said, "level=ERROR") {
		t.Errorf("on stderr: %s", said)
	}
}
