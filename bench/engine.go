package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const appSecret = "bench-app-secret"

// build compiles the real binary.
func build(ctx context.Context, bin string) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/ecodrix/ecod/cmd/ecod").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build ecod: %w: %s", err, out)
	}
	return nil
}

// process is a program that serves HTTP and says where.
type process struct {
	url    string
	cmd    *exec.Cmd
	exited chan error
}

// start runs a program until a line of its output, which goes to a file, tells its address.
func start(cmd *exec.Cmd, logFile string, address func(line []byte) string) (*process, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log // the file itself: nobody here spends time on copying it
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan error, 1)}
	go func() { p.exited <- cmd.Wait() }()
	name := filepath.Base(cmd.Path)
	for patience := time.After(60 * time.Second); ; {
		said, err := os.ReadFile(logFile)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(said) {
			if p.url = address(line); p.url != "" {
				return p, nil
			}
		}
		select {
		case err := <-p.exited:
			return nil, fmt.Errorf("%s ended at once: %w: %s", name, err, said)
		case <-patience:
			_ = cmd.Process.Kill()
			return nil, fmt.Errorf("%s does not get ready: %s", name, said)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop asks a process to end and waits.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-p.exited:
		return err
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		return errors.New("the process does not stop in 30 s")
	}
}

// engine is `ecod serve` in its own process.
type engine struct {
	*process
	dir   string // its data
	token string
}

// serve starts the engine on a data folder, with its default settings and its log in a file.
func (b *bench) serve(dir, metaURL string, extra ...string) (*engine, error) {
	cmd := exec.Command(b.bin, "serve")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ECOD_") && !strings.HasPrefix(kv, "PORT=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "ECOD_ADDR=127.0.0.1:0", "ECOD_DATA_DIR="+dir, "ECOD_META_APP_SECRET="+appSecret, "ECOD_LOG_FORMAT=json")
	cmd.Env = append(cmd.Env, extra...)
	if metaURL != "" {
		cmd.Env = append(cmd.Env, "ECOD_META_URL="+metaURL)
	}
	p, err := start(cmd, dir+".log", func(line []byte) string {
		var l struct{ Msg, Addr string }
		if json.Unmarshal(line, &l) == nil && l.Msg == "ecod is ready" {
			return "http://" + l.Addr
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(filepath.Join(dir, "admin-token"))
	return &engine{process: p, dir: dir, token: strings.TrimSpace(string(token))}, err
}

var httpClient = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// call makes a request with a JSON body and decodes the answer; a status of 400 or more is an error.
func call(method, url string, header map[string]string, body, into any) error {
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 400 {
		return fmt.Errorf("%s %s: %d: %s", method, url, res.StatusCode, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

func (e *engine) admin(method, path string, body, into any) error {
	return call(method, e.url+path, map[string]string{"Authorization": "Bearer " + e.token}, body, into)
}

// client is a registered client with a number.
type client struct{ Code, Key, WABA, Number, Token string }

// register makes client n.
func (e *engine) register(n int) (client, error) {
	c := client{Code: fmt.Sprintf("CLIENT%03d", n), WABA: fmt.Sprintf("2%014d", n), Number: fmt.Sprintf("3%014d", n), Token: fmt.Sprintf("token-%d", n)}
	var made struct {
		APIKey string `json:"apiKey"`
	}
	if err := e.admin("POST", "/api/clients", map[string]any{"clientCode": c.Code, "name": c.Code, "defaultCountry": "IN"}, &made); err != nil {
		return c, err
	}
	c.Key = made.APIKey
	return c, e.admin("PUT", "/api/clients/"+c.Code+"/secrets/whatsapp", map[string]any{
		"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": c.Token,
	}, nil)
}

// metric reads a sample of /metrics by its name, with its labels if it has any; 0 if it is not there.
func (e *engine) metric(name string) (float64, error) {
	res, err := httpClient.Get(e.url + "/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, lines.Err()
}

// memory is what /proc says of a process: resident bytes.
func (p *process) memory() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// cpu is the time a process has used of the processors.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything
	f := strings.Fields(rest)
	var ticks int64
	for _, i := range []int{11, 12} { // utime, stime
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ is 100 on Linux
}
