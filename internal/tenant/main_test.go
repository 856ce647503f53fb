package tenant_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// note is what a client's database holds in these tests.
var notes = store.Schema{Kind: "notes"}

// town is a registry on real files.
type town struct {
	*tenant.Registry
	t        *testing.T
	dir      string
	services *sqlite.DB
	ring     *secret.Ring
	clock    *clock
	log      *journal

	opens    atomic.Int64
	wrap     func(code string, db store.DB) store.DB      // what is opened; nil: nothing
	onOpen   func(ctx context.Context, code string) error // may be nil
	onDrop   func(code string) error                      // may be nil
	mu       sync.Mutex
	changes  []string
	settings tenant.Config
}

// clock is a clock that stands until it is moved; nil: time.Now.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// journal is a log that can be searched.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func ring(t *testing.T) *secret.Ring {
	t.Helper()
	r, err := secret.ParseRing(secret.Generate("k1"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newTown opens a services database in a new folder, and a registry on it. It closes both at the end.
func newTown(t *testing.T, adjust ...func(*town)) *town {
	t.Helper()
	w := &town{t: t, dir: t.TempDir(), ring: ring(t), clock: &clock{now: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}}
	for _, f := range adjust {
		f(w)
	}
	w.open()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := w.services.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return w
}

// neighbour is a second registry on the same files, as another process would have it.
func (w *town) neighbour() *town {
	w.t.Helper()
	return newTown(w.t, func(n *town) { n.dir, n.ring, n.clock = w.dir, w.ring, w.clock })
}

func (w *town) open() {
	w.t.Helper()
	var err error
	if w.services, err = sqlite.Open(w.t.Context(), w.servicesFile(), []store.Schema{tenant.Accounts.Schema}); err != nil {
		w.t.Fatal(err)
	}
	w.log = &journal{}
	cfg := w.settings
	cfg.Services, cfg.Ring, cfg.Now = w.services, w.ring, w.clock.Now
	cfg.Log = slog.New(slog.NewJSONHandler(w.log, nil))
	cfg.OpenDB = func(ctx context.Context, a *tenant.Account) (store.DB, error) {
		w.opens.Add(1)
		if w.onOpen != nil {
			if err := w.onOpen(ctx, a.Code); err != nil {
				return nil, err
			}
		}
		db, err := sqlite.Open(ctx, w.file(a.Code), []store.Schema{notes})
		if err != nil || w.wrap == nil {
			return db, err
		}
		return w.wrap(a.Code, db), nil
	}
	cfg.DropDB = func(_ context.Context, a *tenant.Account) error {
		if w.onDrop != nil {
			if err := w.onDrop(a.Code); err != nil {
				return err
			}
		}
		for _, end := range []string{"-wal", "-shm", ""} {
			if err := os.Remove(w.file(a.Code) + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	cfg.OnChange = func(code, status string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changes = append(w.changes, code+":"+status)
	}
	w.Registry = tenant.NewRegistry(cfg)
	w.load()
}

func (w *town) servicesFile() string { return filepath.Join(w.dir, "ecod_services.db") }

func (w *town) file(code string) string {
	return filepath.Join(w.dir, "tenants", tenant.DatabaseName(code)+".db")
}

func (w *town) load() {
	w.t.Helper()
	if err := w.Load(w.t.Context()); err != nil {
		w.t.Fatalf("Load: %v", err)
	}
}

// told gives what OnChange heard since it was asked last.
func (w *town) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.changes
	w.changes = nil
	return out
}

// create makes a client and gives its key.
func (w *town) create(code string) string {
	w.t.Helper()
	_, key, err := w.Create(w.t.Context(), tenant.NewClient{Code: code, Name: "Client " + code})
	if err != nil {
		w.t.Fatalf("Create %s: %v", code, err)
	}
	return key
}

func (w *town) use(code string) (*tenant.Tenant, func()) {
	w.t.Helper()
	tn, release, err := w.Use(w.t.Context(), code)
	if err != nil {
		w.t.Fatalf("Use %s: %v", code, err)
	}
	return tn, release
}

// account reads what stands in the database.
func (w *town) account(code string) *tenant.Account {
	w.t.Helper()
	a, err := w.Account(w.t.Context(), code)
	if err != nil {
		w.t.Fatalf("Account %s: %v", code, err)
	}
	return a
}

// key asserts how a pair of code and key is answered: "" is in, else the fault's code.
func (w *town) key(code, key, want string) {
	w.t.Helper()
	got, err := w.Authenticate(code, key)
	if want == "" {
		if err != nil {
			w.t.Errorf("Authenticate %s: %v", code, err)
		} else if stored, _ := tenant.Code(code); got != stored {
			w.t.Errorf("Authenticate %s gives %q", code, got)
		}
		return
	}
	w.fails(err, want)
}

func (w *town) fails(err error, want string) {
	w.t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != want {
		w.t.Errorf("got %v, want fault %s", err, want)
	}
}

// hand is an operator's own connection to the services database, as the sqlite3 shell would have it.
func (w *town) hand() *sql.DB {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.servicesFile()+"?_pragma=busy_timeout(5000)")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = db.Close() })
	return db
}

func (w *town) exec(db *sql.DB, query string, args ...any) {
	w.t.Helper()
	r, err := db.ExecContext(w.t.Context(), query, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	if n, _ := r.RowsAffected(); n == 0 {
		w.t.Fatalf("%s: no row", query)
	}
}
