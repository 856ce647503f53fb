package sqlite

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

func testQueue(t testing.TB, path string, now func() time.Time) *Queue {
	t.Helper()
	f, err := openFile(context.Background(), path, 8192)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.close() })
	q, err := openQueue(context.Background(), f, now)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestQueue(t *testing.T) {
	storetest.RunQueue(t, func(t *testing.T, now func() time.Time) store.Queue {
		return testQueue(t, filepath.Join(t.TempDir(), "services.db"), now)
	})
}
