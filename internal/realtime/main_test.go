package realtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/realtime"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mostSockets = 60 // of one client

const patience = 10 * time.Second // for what ought to happen at once

// hall is a hub over a real server, with real files; ACME and BETA are its clients.
type hall struct {
	*testing.T
	ctx      context.Context
	hub      *realtime.Hub
	porter   *auth.Porter
	tenants  *tenant.Registry
	url      string
	keys     map[string]string
	log      *lockedBuffer
	services *sqlite.DB

	mu   sync.Mutex
	dbs  map[string]*slyDB
	made atomic.Int64
	once sync.Once
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// slyDB is a real database whose reads of news can be watched, delayed and broken.
type slyDB struct {
	store.DB
	before atomic.Pointer[func(ctx context.Context, q store.Query) error]
	after  atomic.Pointer[func(q store.Query, recs []store.Record)]
}

func (d *slyDB) Find(ctx context.Context, q store.Query) ([]store.Record, error) {
	if f := d.before.Load(); f != nil {
		if err := (*f)(ctx, q); err != nil {
			return nil, err
		}
	}
	recs, err := d.DB.Find(ctx, q)
	if f := d.after.Load(); f != nil && err == nil {
		(*f)(q, recs)
	}
	return recs, err
}

// newest tells the query by which a socket that is let in learns where it stands.
func newest(q store.Query) bool { return q.Desc && q.Limit == 1 }

// knows tells that each client has one conversation.
func knows(_ context.Context, tn *tenant.Tenant, id string) (bool, error) {
	return id == "cnv_of_"+tn.Code, nil
}

func newHall(t *testing.T) *hall { return newHallOf(t, realtime.Config{}) }

// newHallOf is newHall with these settings. Without Conversation, each client has one.
func newHallOf(t *testing.T, cfg realtime.Config) *hall {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	h := &hall{T: t, ctx: ctx, keys: map[string]string{}, log: &lockedBuffer{}, dbs: map[string]*slyDB{}}
	dir := t.TempDir()
	services, err := sqlite.Open(ctx, filepath.Join(dir, "services.db"), []store.Schema{tenant.Accounts.Schema, auth.Failures.Schema})
	h.must(err)
	h.services = services
	ring, err := secret.ParseRing(secret.Generate("k"))
	h.must(err)
	log := slog.New(slog.NewTextHandler(h.log, nil))
	h.tenants = tenant.NewRegistry(tenant.Config{
		Services: services, Ring: ring, Now: time.Now, Log: log,
		OpenDB: func(ctx context.Context, a *tenant.Account) (store.DB, error) {
			db, err := sqlite.Open(ctx, filepath.Join(dir, a.Code+".db"), append([]store.Schema{news.Items.Schema}, auth.Schemas...))
			if err != nil {
				return nil, err
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.dbs[a.Code] = &slyDB{DB: db}
			return h.dbs[a.Code], nil
		},
		DropDB: func(context.Context, *tenant.Account) error { return nil },
		OnChange: func(code, status string) { // as the process has it
			if status != tenant.Active {
				h.hub.Drop(code)
			}
		},
	})
	h.porter = auth.NewPorter(auth.Config{Tenants: h.tenants, Services: services, Ring: ring, Now: time.Now, Log: log})
	cfg.Tenants, cfg.Porter, cfg.Log, cfg.MaxSocketsPerClient = h.tenants, h.porter, log, mostSockets
	if cfg.Conversation == nil {
		cfg.Conversation = knows
	}
	h.hub = realtime.New(cfg)
	mux := http.NewServeMux()
	mux.Handle("/socket.io/", h.hub.Handler())
	srv := httptest.NewServer(mux)
	h.url = srv.URL
	for _, code := range []string{"ACME", "BETA"} {
		_, key, err := h.tenants.Create(ctx, tenant.NewClient{Code: code})
		h.must(err)
		h.keys[code] = key
		_, release := h.use(code) // opens the database, so that it can be made sly
		release()
	}
	t.Cleanup(func() {
		defer cancel()
		h.shut()
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
		if n := h.hub.Sockets(); n != 0 {
			t.Errorf("%d sockets left", n)
		}
		if err := h.tenants.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := services.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// shut closes the hub.
func (h *hall) shut() {
	h.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.hub.Close(ctx); err != nil {
			h.Errorf("Close: %v", err)
		}
	})
}

func (h *hall) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *hall) use(code string) (*tenant.Tenant, func()) {
	h.Helper()
	tn, release, err := h.tenants.Use(h.ctx, code)
	h.must(err)
	return tn, release
}

func (h *hall) db(code string) *slyDB {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dbs[code]
}

// resource is what the news of these tests tell of.
type resource struct {
	ID   string `json:"id"`
	Of   string `json:"of"`
	Text string `json:"text,omitempty"`
}

// write makes n items of news in one commit, and tells nobody.
func (h *hall) write(code string, n int, text string) {
	var writes []store.Write
	for range n {
		r := resource{ID: fmt.Sprintf("led_%d", h.made.Add(1)), Of: code, Text: text}
		writes = append(writes, news.Write(time.Now(), news.LeadCreated, r.ID, "lead", r))
	}
	if err := h.db(code).Commit(h.ctx, writes...); err != nil {
		h.Errorf("commit: %v", err)
	}
}

// tell makes news and pokes.
func (h *hall) tell(code string, n int) {
	h.write(code, n, "")
	h.hub.Poke(code)
}

type proof struct {
	ClientCode any `json:"clientCode,omitempty"`
	APIKey     any `json:"apiKey,omitempty"`
}

func (h *hall) auth(code string) proof { return proof{code, h.keys[code]} }

// dial connects a client's socket; it ends with the test.
func (h *hall) dial(code string, edit ...func(*sockettest.Options)) *ear {
	h.Helper()
	opt := sockettest.Options{Auth: h.auth(code)}
	for _, f := range edit {
		f(&opt)
	}
	c, err := sockettest.Dial(h.ctx, h.url, opt)
	h.must(err)
	h.Cleanup(c.Drop)
	return &ear{c, h, code}
}

// refused asserts that a socket is refused with a code.
func (h *hall) refused(opt sockettest.Options, want string) {
	h.Helper()
	c, err := sockettest.Dial(h.ctx, h.url, opt)
	if err == nil {
		c.Drop()
		h.Errorf("let in, want %s", want)
		return
	}
	var refusal *sockettest.ConnectError
	var data struct{ Code string }
	if !errors.As(err, &refusal) || json.Unmarshal(refusal.Data, &data) != nil || data.Code != want {
		h.Errorf("refused with %v, want %s", err, want)
	}
}

// ear is a client's socket.
type ear struct {
	*sockettest.Client
	h    *hall
	code string
}

// said is one event as it is heard.
type said struct {
	ID   string    `json:"id"`
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at"`
	Lead resource  `json:"lead"`
}

// hear gives the next event.
func (e *ear) hear() said {
	e.h.Helper()
	ctx, cancel := context.WithTimeout(e.h.ctx, patience)
	defer cancel()
	ev, err := e.Next(ctx)
	e.h.must(err)
	var s said
	e.h.must(ev.Decode(0, &s))
	e.check(ev.Name, s)
	return s
}

func (e *ear) check(event string, s said) {
	e.h.Helper()
	if event != news.LeadCreated || s.ID == "" || s.At.IsZero() || s.Lead.ID == "" || s.Lead.Of != e.code {
		e.h.Errorf("a socket of %s heard %s %+v", e.code, event, s)
	}
}

// hears asserts that the next events are those numbers.
func (e *ear) hears(from, to int64) {
	e.h.Helper()
	for seq := from; seq <= to; seq++ {
		if s := e.hear(); s.Seq != seq {
			e.h.Fatalf("heard number %d, want %d", s.Seq, seq)
		}
	}
}

// row asserts that an unbroken row is heard up to a number, that begins at another or before it: a room that is
// behind tells a new socket of what was before it too.
func (e *ear) row(from, to int64) {
	e.h.Helper()
	last := e.hear().Seq
	if last > from {
		e.h.Fatalf("heard number %d first, want %d", last, from)
	}
	if last < to {
		e.hears(last+1, to)
	}
}

// silent asserts that nothing is heard: a mark that comes after everything else comes next.
func (e *ear) silent(next int64) {
	e.h.Helper()
	e.h.tell(e.code, 1)
	e.hears(next, next)
}

// ends waits for the end of the connection.
func (e *ear) ends() {
	e.h.Helper()
	select {
	case <-e.Done():
	case <-time.After(patience):
		e.h.Fatal("the socket is still connected")
	}
}

type missed struct {
	Items []struct {
		Event string `json:"event"`
		Data  said   `json:"data"`
	} `json:"items"`
	Seq   *int64 `json:"seq"`
	More  bool   `json:"more"`
	Reset bool   `json:"reset"`
	Error string `json:"error"`
}

// since asks what was missed.
func (e *ear) since(args ...any) missed {
	e.h.Helper()
	answer, err := e.EmitAck(e.h.ctx, "since", args...)
	e.h.must(err)
	var m missed
	if len(answer) != 1 {
		e.h.Fatalf("answered %s", answer)
	}
	e.h.must(json.Unmarshal(answer[0], &m))
	if m.Seq == nil || m.Items == nil {
		e.h.Fatalf("answered %s", answer)
	}
	for _, i := range m.Items {
		e.check(i.Event, i.Data)
	}
	return m
}
