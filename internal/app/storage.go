package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// servicesSchemas are the kinds of the services database; tenantSchemas those of each client's.
var servicesSchemas = []store.Schema{tenant.Accounts.Schema, api.IdempotencyKeys.Schema, auth.Failures.Schema}

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

// Embedded is the embedded storage of a data folder.
type Embedded struct {
	Dir      string
	Services *sqlite.DB
	Queue    *sqlite.Queue
	// OnDrop erases what a client has beside its database, before that; nil: nothing.
	OnDrop func(ctx context.Context, code string) error
}

// OpenEmbedded opens the services database of a data folder, making the folder if need be.
func OpenEmbedded(ctx context.Context, dir string) (*Embedded, error) {
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
	return &Embedded{Dir: dir, Services: db, Queue: q}, nil
}

// Close closes the services database.
func (e *Embedded) Close() error { return e.Services.Close() }

func (e *Embedded) path(code string) string {
	return filepath.Join(e.Dir, "tenants", tenant.DatabaseName(code)+".db")
}

// HasDB tells whether a client has a database by now: it gets one when it is first used.
func (e *Embedded) HasDB(code string) bool {
	_, err := os.Stat(e.path(code))
	return err == nil
}

// OpenDB opens a client's database file.
func (e *Embedded) OpenDB(ctx context.Context, a *tenant.Account) (store.DB, error) {
	if a.DatabaseURL != "" {
		return nil, fmt.Errorf("app: client %s has a databaseUrl, and this build has no MongoDB engine", a.Code)
	}
	return sqlite.Open(ctx, e.path(a.Code), tenantSchemas)
}

// DropDB deletes a client's database file.
func (e *Embedded) DropDB(ctx context.Context, code string) error {
	if e.OnDrop != nil {
		if err := e.OnDrop(ctx, code); err != nil {
			return err
		}
	}
	for _, suffix := range []string{"-wal", "-shm", ""} { // the file itself last: while it stands, the work is not done
		if err := os.Remove(e.path(code) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(filepath.Join(e.Dir, "tenants"))
}

// Registry makes a registry on this storage.
func (e *Embedded) Registry(ring *secret.Ring, log *slog.Logger, onChange func(code, status string)) *tenant.Registry {
	return tenant.NewRegistry(tenant.Config{
		Services: e.Services, Ring: ring, OpenDB: e.OpenDB, DropDB: e.DropDB, OnChange: onChange, Now: time.Now, Log: log,
	})
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
