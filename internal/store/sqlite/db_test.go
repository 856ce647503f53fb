package sqlite

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

func openFresh(t *testing.T, schemas []store.Schema) store.DB {
	db, err := Open(context.Background(), filepath.Join(t.TempDir(), "folder with ?#%20&", "a.db"), schemas)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestContract(t *testing.T) { storetest.Run(t, openFresh) }

func TestContractAtomic(t *testing.T) { storetest.RunAtomic(t, openFresh) }
