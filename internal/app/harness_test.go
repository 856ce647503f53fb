package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const appSecret = "test-app-secret"

// The keys of the fake bucket, in the engine's environment.
const awsKeyID, awsSecret = "test-access-key", "test-secret-of-the-bucket"

var awsKeys = map[string]string{"AWS_ACCESS_KEY_ID": awsKeyID, "AWS_SECRET_ACCESS_KEY": awsSecret}

// engine is a running engine with a fake Meta, spoken to over HTTP as everybody does.
type engine struct {
	t     *testing.T
	url   string
	token string // of the admin API
	meta  *whatsapptest.Server
	log   *logBuffer
	own   string   // databaseUrl of the clients that are added; "": none
	app   *app.App // nil where the engine is another process
	stop  func()   // ends the engine and waits
}

// logBuffer keeps what was logged, to search it for secrets.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func config(dir, metaURL string) app.Config {
	return app.Config{
		Addr: "127.0.0.1:0", DataDir: dir, MetaURL: metaURL, MetaVersion: "v25.0", MetaAppSecret: appSecret, MetaVerifyToken: "verify-me",
		WorkerConcurrency: 16, WorkerPollInterval: app.Duration(5 * time.Second), InboxRetention: app.Duration(7 * 24 * time.Hour), LogLevel: "debug",
	}
}

// start runs an engine on a data folder until the test ends, or stop is called.
func start(t *testing.T, dir string, meta *whatsapptest.Server, tweak ...func(*app.Config)) *engine {
	t.Helper()
	e := &engine{t: t, meta: meta, log: &logBuffer{}}
	cfg := config(dir, meta.URL)
	onMongo(t, &cfg)
	for _, f := range tweak {
		f(&cfg)
	}
	if err := cfg.Resolve(func(name string) string { return awsKeys[name] }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a, err := app.New(ctx, cfg, "test", slog.New(slog.NewJSONHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	e.app, e.url, e.token = a, a.URL(), a.Keys.AdminToken.Reveal()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the engine stopped with %v", err)
			}
		case <-time.After(25 * time.Second):
			t.Error("the engine does not stop in 25 s")
		}
	})
	t.Cleanup(func() {
		e.stop()
		if t.Failed() {
			t.Logf("engine log (its end):\n%s", tail(e.log.String(), 3000))
		}
	})
	return e
}

// newMeta starts a fake Meta that posts its webhooks nowhere until told.
func newMeta(t *testing.T) *whatsapptest.Server {
	t.Helper()
	m, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// client is a registered client with a WhatsApp number.
type client struct {
	e                              *engine
	Code, Key, WABA, Number, Token string
}

// addClient registers client n (1, 2, …) with an account at the fake Meta.
func (e *engine) addClient(code string, n int) *client {
	e.t.Helper()
	c := &client{e: e, Code: code, WABA: fmt.Sprintf("2000000000000%02d", n), Number: fmt.Sprintf("3000000000000%02d", n), Token: "token-of-" + code}
	var made struct {
		APIKey string `json:"apiKey"`
	}
	about := map[string]any{"clientCode": code, "name": code, "defaultCountry": "IN"}
	if e.own != "" {
		about["databaseUrl"] = e.own
	}
	e.admin("POST", "/api/clients", about).want(201).into(&made)
	c.Key = made.APIKey
	e.admin("PUT", "/api/clients/"+code+"/secrets/whatsapp", map[string]any{
		"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": c.Token,
	}).want(200)
	e.meta.AddAccount(whatsapptest.Account{
		WABAID: c.WABA, Token: c.Token, Numbers: []whatsapptest.Number{{ID: c.Number}}, WebhookURL: e.url + "/api/whatsapp/webhook",
		Templates: []whatsapptest.Template{{Name: "appointment_confirmed", Language: "en", Body: "Hi {{1}}, {{2}} sees you {{3}}."}},
	})
	return c
}

// answer is an HTTP answer, read whole.
type answer struct {
	t      *testing.T
	what   string
	Status int
	Header http.Header
	Body   []byte
}

func (a *answer) want(status int) *answer {
	a.t.Helper()
	if a.Status != status {
		a.t.Fatalf("%s: %d, want %d: %s", a.what, a.Status, status, a.Body)
	}
	return a
}

func (a *answer) into(v any) *answer {
	a.t.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		a.t.Fatalf("%s: %v in %s", a.what, err, a.Body)
	}
	return a
}

// get digs a value out of the JSON body: "runs.0.state"; nil if it is not there.
func (a *answer) get(path string) any {
	a.t.Helper()
	var v any
	a.into(&v)
	for _, p := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

var httpClient = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}

// send makes a request. body: nil, a string as it is, or a value as JSON.
func (e *engine) send(method, path string, body any, header map[string]string) *answer {
	e.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			e.t.Fatal(err)
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, e.url+path, r)
	if err != nil {
		e.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	return &answer{t: e.t, what: method + " " + path, Status: res.StatusCode, Header: res.Header, Body: b}
}

func (e *engine) admin(method, path string, body any) *answer {
	e.t.Helper()
	return e.send(method, path, body, map[string]string{"Authorization": "Bearer " + e.token})
}

func (c *client) call(method, path string, body any) *answer {
	c.e.t.Helper()
	return c.e.send(method, path, body, map[string]string{"x-api-key": c.Key, "x-client-code": c.Code})
}

// webhook posts a signed body to the operator's webhook.
func (e *engine) webhook(body []byte) *answer {
	e.t.Helper()
	return e.send("POST", "/api/whatsapp/webhook", body, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(appSecret, body)})
}

// eventually waits until check gives "", and fails with what it gave last.
func eventually(t *testing.T, what string, check func() string) {
	t.Helper()
	eventuallyIn(t, 15*time.Second, what, check)
}

// takeover is how long what a killed process had in hand may take to be taken over and done: a lease, and some work.
const takeover = 40 * time.Second

func eventuallyIn(t *testing.T, patience time.Duration, what string, check func() string) {
	t.Helper()
	deadline := time.Now().Add(time.Duration(slowness(t)) * patience)
	for {
		why := check()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", what, why)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// confirmRule is the rule of the main journey.
func confirmRule(extra map[string]any) map[string]any {
	r := map[string]any{
		"name": "Confirm appointment", "trigger": "appointment_confirmed", "enabled": true, "reenrol": "every_event",
		"actions": []map[string]any{
			{"type": "whatsapp.template", "template": "appointment_confirmed", "language": "en", "parameters": []string{"{{patientName}}", "{{doctorName}}", "{{time}}"}},
			{"type": "lead.stage", "pipeline": "default", "stage": "booked"},
			{"type": "lead.tag.add", "tags": []string{"booked"}},
			{"type": "lead.score", "points": 20},
			{"type": "lead.set", "fields": map[string]any{"doctor": "{{doctorName}}"}},
		},
	}
	for k, v := range extra {
		r[k] = v
	}
	return r
}

func confirmEvent(extra map[string]any) map[string]any {
	ev := map[string]any{
		"trigger": "appointment_confirmed", "phone": "918143963821", "createLeadIfMissing": true,
		"variables": map[string]any{"patientName": "Dhanesh", "doctorName": "Dr. Arjun", "time": "Monday 10AM"},
		"leadData":  map[string]any{"source": "website", "name": "Dhanesh"},
	}
	for k, v := range extra {
		ev[k] = v
	}
	return ev
}

func within(d time.Duration) context.Context {
	if os.Getenv("ECOD_TEST_MONGODB_URL") != "" {
		d *= 6 // only who fails waits for so long
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	time.AfterFunc(d, cancel)
	return ctx
}
