package app

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// A stop does not fail because the jobs of very many clients changed last: what cannot be told in a moment is left for
// the next start.
func TestStopLeavesJobNews(t *testing.T) {
	t.Parallel()
	storage, err := OpenEmbedded(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = storage.Close() })
	ring, err := secret.ParseRing(secret.Generate("k"))
	if err != nil {
		t.Fatal(err)
	}
	clients := tenant.NewRegistry(tenant.Config{
		Services: storage.Services, Ring: ring, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		OpenDB: func(ctx context.Context, _ *tenant.Account) (store.DB, error) { // as a disk that is slow
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	n := newJobNews(storage.Queue, clients, func(string) {}, slog.New(slog.DiscardHandler))
	for i := range 20 {
		code := fmt.Sprintf("C%d", i)
		if _, _, err := clients.Create(t.Context(), tenant.NewClient{Code: code}); err != nil {
			t.Fatal(err)
		}
		made, err := storage.Queue.Enqueue(t.Context(), store.NewJob{Tenant: code, Type: "a"})
		if err != nil {
			t.Fatal(err)
		}
		n.add(made[0].Job.ID)
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	began := time.Now()
	if err := n.close(ctx); err != nil {
		t.Errorf("the stop fails: %v", err)
	}
	if d := time.Since(began); d > closeWithin*2/3 || ctx.Err() != nil {
		t.Errorf("it took %v of the %v that everything has", d, closeWithin)
	}
	if len(n.changed) != 20 {
		t.Errorf("%d are left", len(n.changed))
	}
	clients.Abandon()
	if err := clients.Close(ctx); err != nil {
		t.Error(err)
	}
}
