package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Annex stands in for the clusters of clients: whatever their addresses, their databases are files in a folder.
type Annex struct {
	Dir  string
	Wrap func(store.Copier) store.Copier // nil: as it is
}

// UseAnnex has an engine keep databases at addresses there.
func (a *App) UseAnnex(x *Annex) { a.storage.elsewhere = x }

// File is where a client's database is.
func (x *Annex) File(code string) string { return filepath.Join(x.Dir, code+".db") }

func (x *Annex) openAt(ctx context.Context, a *tenant.Account) (store.DB, error) {
	db, err := sqlite.Open(ctx, x.File(a.Code), tenantSchemas)
	if err != nil || x.Wrap == nil {
		return db, err
	}
	return x.Wrap(db), nil
}

func (x *Annex) dropAt(_ context.Context, a *tenant.Account) error {
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Remove(x.File(a.Code) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
