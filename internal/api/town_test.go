package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const (
	appSecret   = "operators-app-secret"
	verifyToken = "operators-verify-token"
	numberOfA   = "300000000000001"
	numberOfB   = "300000000000002"
)

// town is every resource on real storage, with a simulated Meta, behind a real server. Clients A and B stand in it.
type town struct {
	t       *testing.T
	url     string
	api     *api.API
	dir     string
	log     *journal
	tenants *tenant.Registry
	queue   *sqlite.Queue
	inbox   *sqlite.Inbox
	runner  *job.Runner
	engine  *rule.Engine
	meta    *whatsapptest.Server
	keyA    string
	keyB    string
	noDB    atomic.Bool // clients' databases cannot be opened
	full    atomic.Bool // the inbox cannot be written
}

// fullInbox is an inbox that can be made to fail.
type fullInbox struct {
	store.Inbox
	full *atomic.Bool
}

func (f fullInbox) Receive(ctx context.Context, d *store.Delivery) error {
	if f.full.Load() {
		return fmt.Errorf("disk full: %w", store.ErrUnavailable)
	}
	return f.Inbox.Receive(ctx, d)
}

func newTown(t *testing.T, opts ...options) *town {
	t.Helper()
	w := &town{t: t, dir: t.TempDir(), log: &journal{}}
	ctx, stop := context.WithCancel(context.Background())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	services, err := sqlite.Open(ctx, filepath.Join(w.dir, "services.db"), []store.Schema{tenant.Accounts.Schema, api.IdempotencyKeys.Schema, auth.Failures.Schema})
	must(err)
	w.queue, err = sqlite.OpenQueue(ctx, services, time.Now)
	must(err)
	w.inbox, err = sqlite.OpenInbox(filepath.Join(w.dir, "inbox"), time.Now)
	must(err)
	ring, err := secret.ParseRing(secret.Generate("k1"))
	must(err)
	kinds := append([]store.Schema{news.Items.Schema, crm.Suppressions.Schema, tenant.Connections.Schema}, slices.Concat(chat.Schemas, crm.Schemas, rule.Schemas, auth.Schemas)...)
	path := func(code string) string { return filepath.Join(w.dir, tenant.DatabaseName(code)+".db") }
	w.tenants = tenant.NewRegistry(tenant.Config{
		Services: services, Ring: ring, Now: time.Now, Log: log,
		OpenDB: func(ctx context.Context, a *tenant.Account) (store.DB, error) {
			if w.noDB.Load() {
				return nil, store.ErrUnavailable
			}
			return sqlite.Open(ctx, path(a.Code), kinds)
		},
		DropDB: func(_ context.Context, a *tenant.Account) error { return os.RemoveAll(path(a.Code)) },
	})
	must(w.tenants.Load(ctx))
	w.meta, err = whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret, Statuses: []string{}})
	must(err)
	graph := &http.Client{Transport: &http.Transport{}}
	book := &crm.Book{Now: time.Now}
	desk := &chat.Desk{Book: book, Graph: whatsapp.New(whatsapp.Config{BaseURL: w.meta.URL}, graph), Queue: w.queue, Now: time.Now, Log: log}
	messages := rule.Messages{Desk: desk}
	w.engine = &rule.Engine{Book: book, Now: time.Now, Log: log, Doers: map[string]rule.Doer{rule.SendTemplate: messages, rule.SendText: messages}}
	desk.Settled = w.engine.Settled
	book.Raise = w.engine.Raise
	w.runner = job.NewRunner(job.Config{
		Queue: w.queue, Tenants: w.tenants, Concurrency: 4, Poll: time.Second, Log: log, Now: time.Now,
	},
		job.Type{Name: rule.EventJob, Handle: w.engine.HandleEvent, Base: 10 * time.Millisecond, Cap: 50 * time.Millisecond},
		job.Type{Name: rule.AdvanceJob, Handle: w.engine.HandleAdvance},
		job.Type{Name: rule.ResumeJob, Handle: w.engine.HandleResume},
		job.Type{Name: chat.SendJob, Handle: desk.HandleSend},
		job.Type{Name: chat.ResendJob, Handle: desk.HandleResend},
		job.Type{Name: crm.ChangeJob, Handle: book.HandleChange},
		job.Type{Name: crm.EraseJob, Handle: book.HandleErase},
		job.Type{Name: crm.TagJob, Handle: book.HandleTag},
		job.Type{Name: crm.MergeJob, Handle: book.HandleMerge},
		job.Type{Name: crm.GatherJob, Handle: book.HandleGather},
		job.Type{Name: crm.ImportJob, Handle: book.HandleImport, Timeout: time.Minute},
		job.Type{Name: chat.ComposeJob, Handle: desk.HandleCompose},
		job.Type{Name: chat.TemplateSyncJob, Handle: desk.HandleTemplateSync},
		job.Type{Name: chat.ReadJob, Handle: desk.HandleRead},
		job.Type{Name: chat.TypingJob, Handle: desk.HandleTyping},
	)
	book.Runner, book.Files, book.PublicURL = w.runner, crm.Folder(filepath.Join(w.dir, "imports")), "https://ecod.example.test"
	intake := chat.NewIntake(chat.IntakeConfig{
		Inbox: fullInbox{w.inbox, &w.full}, Tenants: w.tenants, Desk: desk, Now: time.Now, Log: log, Workers: 2, Changed: func(string) {},
	})
	porter := auth.NewPorter(auth.Config{Tenants: w.tenants, Services: services, Ring: ring, Now: time.Now, Log: log})
	cfg := api.Config{
		VerifySession: api.SessionCaller(porter), RateOf: w.tenants.RatePerSecond,
		PublicURL: "https://ecod.example.test", Version: "1", Log: log, Services: services, Ring: ring, Open: w.tenants.Use,
		VerifyAdmin: func(token string) bool { return token == adminToken },
		VerifyKey: func(_ context.Context, code, key string) (api.Caller, error) {
			code, err := w.tenants.Authenticate(code, key)
			return api.Caller{Client: code, Kind: api.KindKey, KeyID: tenant.KeyID(key)}, err
		},
		FailureBurst: 1 << 20,
	}
	for _, o := range opts {
		o(&cfg)
	}
	w.api = api.New(cfg)
	door := &rule.Door{Engine: w.engine, Tenants: w.tenants, Runner: w.runner, Queue: w.queue, Ring: ring}
	api.RegisterClients(w.api, w.tenants, w.queue)
	api.RegisterSecrets(w.api, w.tenants, api.Lines{})
	api.RegisterUsers(w.api, porter)
	api.RegisterSessions(w.api, porter)
	api.RegisterRealtime(w.api, porter)
	api.RegisterEvents(w.api, door)
	api.RegisterRules(w.api, w.engine)
	api.RegisterRuns(w.api, w.engine, w.runner)
	api.RegisterLeads(w.api, book)
	api.RegisterContacts(w.api, book)
	api.RegisterPipelines(w.api, book)
	api.RegisterTags(w.api, book)
	api.RegisterImports(w.api, book)
	api.RegisterWhatsApp(w.api, desk, w.runner)
	api.RegisterWebhook(w.api, api.MetaApp{AppSecret: appSecret, VerifyToken: verifyToken}, w.tenants, intake)
	api.RegisterDeliveries(w.api, w.inbox)
	api.RegisterJobs(w.api, w.queue, w.runner)

	done := make(chan struct{}, 2)
	go func() { _ = w.runner.Run(ctx); done <- struct{}{} }()
	go func() { _ = intake.Run(ctx); done <- struct{}{} }()
	srv := httptest.NewServer(w.api)
	w.url = srv.URL
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		srv.Close()
		stop()
		<-done
		<-done
		w.meta.Close()
		graph.CloseIdleConnections()
		if err := w.tenants.Close(context.Background()); err != nil {
			t.Error(err)
		}
		_ = w.inbox.Close()
		_ = services.Close()
	})
	w.keyA, w.keyB = w.newClient("ALFA", numberOfA), w.newClient("BETA", numberOfB)
	return w
}

// newClient registers a client with a number and gives its key.
func (w *town) newClient(code, number string) string {
	w.t.Helper()
	made := w.ok(w.admin("POST", "/api/clients", `{"clientCode":"`+code+`","name":"`+code+`","defaultCountry":"in"}`), 201)
	w.meta.AddAccount(whatsapptest.Account{
		WABAID: "2" + number, Token: "token-of-" + code, Numbers: []whatsapptest.Number{{ID: number}},
		Templates: []whatsapptest.Template{{Name: "hello", Body: "Hi {{1}}"}},
	})
	w.ok(w.admin("PUT", "/api/clients/"+code+"/secrets/whatsapp",
		`{"wabaId":"2`+number+`","phoneNumberIds":["`+number+`"],"accessToken":"token-of-`+code+`","appSecret":"own-`+code+`","verifyToken":"verify-`+code+`"}`), 200)
	return made["apiKey"].(string)
}

func (w *town) call(method, path, body string, header ...string) reply {
	w.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{res, b}
}

func (w *town) admin(method, path, body string, header ...string) reply {
	w.t.Helper()
	return w.call(method, path, body, append([]string{"Authorization", "Bearer " + adminToken}, header...)...)
}

func (w *town) asA(method, path, body string, header ...string) reply {
	w.t.Helper()
	return w.call(method, path, body, append([]string{"X-Client-Code", "alfa", "X-Api-Key", w.keyA}, header...)...)
}

func (w *town) asB(method, path, body string, header ...string) reply {
	w.t.Helper()
	return w.call(method, path, body, append([]string{"X-Client-Code", "BETA", "X-Api-Key", w.keyB}, header...)...)
}

// ok asserts a status and gives the answer.
func (w *town) ok(r reply, status int) map[string]any {
	w.t.Helper()
	if r.StatusCode != status {
		w.t.Fatalf("%s %s: %d, want %d: %.600s", r.Request.Method, r.Request.URL.Path, r.StatusCode, status, r.body)
	}
	if len(r.body) == 0 {
		return nil
	}
	return r.json(w.t)
}

// problem asserts a problem, and that it points to the places.
func (w *town) problem(r reply, status int, code string, at ...string) map[string]any {
	w.t.Helper()
	if r.StatusCode != status {
		w.t.Fatalf("%s %s: %d, want %d: %.600s", r.Request.Method, r.Request.URL.Path, r.StatusCode, status, r.body)
	}
	if mt, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mt != "application/problem+json" {
		w.t.Fatalf("content type %q", mt)
	}
	p := r.json(w.t)
	if p["code"] != code || (len(at) > 0 && fmt.Sprint(pointers(p)) != fmt.Sprint(at)) {
		w.t.Fatalf("%s %s: want %s at %v: %s", r.Request.Method, r.Request.URL.Path, code, at, r.body)
	}
	return p
}

// until asks again until the answer is as wanted.
func (w *town) until(what string, ask func() reply, good func(map[string]any) bool) map[string]any {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		r := ask()
		if r.StatusCode < 300 {
			if m := r.json(w.t); good(m) {
				return m
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s: %d %.900s\n%s", what, r.StatusCode, r.body, w.complaints())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// complaints are the warnings and errors in the log.
func (w *town) complaints() string {
	var b strings.Builder
	for l := range strings.Lines(w.log.text()) {
		if strings.Contains(l, "level=WARN") || strings.Contains(l, "level=ERROR") {
			b.WriteString(l)
		}
	}
	return b.String()
}

// deliver posts a signed webhook.
func (w *town) deliver(path, appSecret string, body []byte) reply {
	w.t.Helper()
	return w.call("POST", path, string(body), whatsapp.SignatureHeader, whatsapptest.Sign(appSecret, body))
}

func items(m map[string]any) []map[string]any {
	list, _ := m["items"].([]any)
	out := make([]map[string]any, len(list))
	for i, v := range list {
		out[i], _ = v.(map[string]any)
	}
	return out
}

func str(m map[string]any, path ...string) string {
	var v any = m
	for _, p := range path {
		obj, _ := v.(map[string]any)
		v = obj[p]
	}
	s, _ := v.(string)
	return s
}

func text(v any) string { b, _ := json.Marshal(v); return string(b) }
