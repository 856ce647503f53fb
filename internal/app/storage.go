package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/mongo"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// servicesSchemas are the kinds of the services database; tenantSchemas those of each client's.
var servicesSchemas = []store.Schema{tenant.Accounts.Schema, api.IdempotencyKeys.Schema, auth.Failures.Schema, job.Schedules.Schema, tenant.Moves.Schema, Nodes.Schema, KeyChecks.Schema, Installations.Schema}

var tenantSchemas = append([]store.Schema{
	crm.Suppressions.Schema, mail.Letters.Schema,
	media.Files.Schema,
	news.Items.Schema,
	meeting.Appointments.Schema, tenant.Connections.Schema,
}, slices.Concat(campaign.Schemas, chat.Schemas, crm.Schemas, rule.Schemas, auth.Schemas)...)

// TenantSchemas are the kinds of a client's database.
func TenantSchemas() []store.Schema { return slices.Clone(tenantSchemas) }

const servicesFile = "ecod_services.db"

// importsFolder is where uploaded lists of leads wait for their jobs.
const importsFolder = "imports"

// Services is the services database.
type Services interface {
	store.DB
	// OnCommit sets what hears of every commit: how many callers shared it, and how long it took. It must not block.
	OnCommit(f func(group int, took time.Duration))
}

// Queue is the job queue as an engine has it. Besides what everybody uses: what news, rotations and erasures need.
type Queue interface {
	store.Queue
	OnSweep(f func(ids ...string))
	Payloads(ctx context.Context, containing string, after int64) (found []store.Payload, next int64, err error)
	Rewrite(ctx context.Context, p store.Payload, payload json.RawMessage) (bool, error)
	Forget(ctx context.Context, tenant string) (more bool, err error)
}

// Storage is where the services database and the clients' databases are.
type Storage struct {
	Services Services
	Queue    Queue
	// OnDrop erases what a client has beside its database, before that; nil: nothing.
	OnDrop func(ctx context.Context, a *tenant.Account) error

	dir      string          // the data folder
	url      string          // of the services database on MongoDB; "": all that is ours are files of the data folder
	clusters *mongo.Clusters // where databases are that are no files; nil: there are none
	ring     *secret.Ring    // opens the addresses of clients' own

	installation atomic.Pointer[string] // once it is known

	elsewhere elsewhere // in place of clusters, for clients with addresses of their own: tests'; nil: clusters
}

// elsewhere opens and drops databases at addresses.
type elsewhere interface {
	openAt(ctx context.Context, a *tenant.Account) (store.DB, error)
	dropAt(ctx context.Context, a *tenant.Account) error
}

// OpenStorage opens the storage that is configured, making it if need be.
func OpenStorage(ctx context.Context, cfg Config) (*Storage, error) {
	clusters := mongo.NewClusters(mongo.Config{Home: cfg.DatabaseURL, AllowPrivate: cfg.AllowPrivate})
	if cfg.DatabaseURL != "" {
		return openShared(ctx, cfg, clusters)
	}
	s, err := OpenEmbedded(ctx, cfg.DataDir)
	if err == nil {
		s.clusters = clusters // of clients that have their own
	}
	return s, err
}

// OpenEmbedded opens the services database of a data folder, making the folder if need be.
func OpenEmbedded(ctx context.Context, dir string) (*Storage, error) {
	if err := os.MkdirAll(filepath.Join(dir, "tenants"), 0o700); err != nil {
		return nil, err
	}
	db, err := sqlite.Open(ctx, filepath.Join(dir, servicesFile), servicesSchemas)
	if err != nil {
		return nil, err
	}
	q, err := sqlite.OpenQueue(ctx, db, time.Now)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Storage{dir: dir, Services: db, Queue: q}, nil
}

// Close closes the services database, and leaves all clusters.
func (s *Storage) Close() error {
	err := s.Services.Close()
	if s.clusters != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		err = errors.Join(err, s.clusters.Close(ctx))
	}
	return err
}

// OpenInbox opens the raw inbox.
func (s *Storage) OpenInbox(ctx context.Context) (store.Inbox, error) {
	if db, ok := s.Services.(*mongo.DB); ok {
		return mongo.OpenInbox(ctx, db, nil)
	}
	return sqlite.OpenInbox(filepath.Join(s.dir, "inbox"), time.Now)
}

// TakeBack ends the leases that a process before left, where it is sure that no other lives: jobs that it ran; how many.
func (s *Storage) TakeBack(ctx context.Context) (int, error) {
	q, ok := s.Queue.(*sqlite.Queue) // of a folder whose lock is ours
	if !ok {
		return 0, nil
	}
	return q.Lapse(ctx)
}

func (s *Storage) path(code string) string {
	return filepath.Join(s.dir, "tenants", tenant.DatabaseName(code)+".db")
}

// HasDB tells whether a client may have a database by now: it gets one when it is first used.
func (s *Storage) HasDB(code string) bool {
	if s.Shared() {
		return true
	}
	_, err := os.Stat(s.path(code))
	return err == nil
}

// OpenDB opens a client's database.
func (s *Storage) OpenDB(ctx context.Context, a *tenant.Account) (store.DB, error) {
	if a.DatabaseURL != "" && s.elsewhere != nil {
		return s.elsewhere.openAt(ctx, a)
	}
	switch url, err := s.at(a); {
	case err != nil:
		return nil, err
	case url != "":
		return s.openAt(ctx, url.Reveal(), a.Code)
	}
	return sqlite.Open(ctx, s.path(a.Code), tenantSchemas)
}

// DropDB deletes a client's database.
func (s *Storage) DropDB(ctx context.Context, a *tenant.Account) error {
	if s.OnDrop != nil {
		if err := s.OnDrop(ctx, a); err != nil {
			return err
		}
	}
	return s.RemoveDB(ctx, a)
}

// RemoveDB deletes a client's database, and nothing that it has beside it.
func (s *Storage) RemoveDB(ctx context.Context, a *tenant.Account) error {
	if a.DatabaseURL != "" && s.elsewhere != nil {
		return s.elsewhere.dropAt(ctx, a)
	}
	switch url, err := s.at(a); {
	case err != nil:
		return err
	case url != "":
		return s.dropAt(ctx, url.Reveal(), a.Code)
	}
	for _, suffix := range []string{"-wal", "-shm", ""} { // the file itself last: while it stands, the work is not done
		if err := os.Remove(s.path(a.Code) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(filepath.Join(s.dir, "tenants"))
}

// Registry makes a registry on this storage.
func (s *Storage) Registry(ring *secret.Ring, log *slog.Logger, onChange func(code, status string), onBack func(code string)) *tenant.Registry {
	s.ring = ring
	trust := time.Duration(0)
	if s.Shared() {
		trust = heardFor
	}
	return tenant.NewRegistry(tenant.Config{
		Trust: trust, CheckDB: s.checkDB,
		Services: s.Services, Ring: ring, OpenDB: s.OpenDB, DropDB: s.DropDB, OnChange: onChange, OnBack: onBack, Probe: probe, Now: time.Now, Log: log,
	})
}

// probe makes a small call to a client's database.
func probe(ctx context.Context, db store.DB) error {
	_, err := db.Get(ctx, tenant.Connections.Schema.Kind, "google")
	return err
}

// lockDir takes a data folder for one process; BadConfig if another has it.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, BadConfig{fmt.Sprintf("The data folder %s cannot be made: %s.", dir, err)}
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, BadConfig{fmt.Sprintf("The data folder %s cannot be used: %s.", dir, err)}
	}
	for try := 0; ; try++ {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil || try == 5 {
			break
		}
		time.Sleep(30 * time.Millisecond) // somebody may only look whether it is held
	}
	if err != nil {
		_ = f.Close()
		return nil, BadConfig{fmt.Sprintf("Another ecod serves the data folder %s.", dir)}
	}
	return f, nil
}
