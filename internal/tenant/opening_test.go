package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

// wayward is a database whose calls take a while and fail, as those of a cluster that is away do.
type wayward struct {
	store.DB
	gone *atomic.Bool
}

func (d wayward) Get(ctx context.Context, kind string, ids ...string) ([]store.Record, error) {
	if d.gone.Load() {
		time.Sleep(10 * time.Second)
		return nil, fmt.Errorf("no server: %w", store.ErrUnavailable)
	}
	return d.DB.Get(ctx, kind, ids...)
}

func (w *town) watchIt(t *testing.T) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Watch(ctx) }()
	return func() { cancel(); <-done }
}

// A client whose cluster does not answer is answered for at once after the first found out, hurts nobody else, and comes
// back by itself.
func TestClusterAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		var back atomic.Int64
		w := newTown(t, func(w *town) {
			w.clock = nil
			w.settings.IdleFor = time.Hour
			w.settings.OnBack = func(string) { back.Add(1) }
			w.settings.Probe = func(ctx context.Context, db store.DB) error { _, err := db.Get(ctx, "notes", "x"); return err }
			w.wrap = func(code string, db store.DB) store.DB {
				if code == "AWAY" {
					return wayward{db, &gone}
				}
				return db
			}
		})
		w.create("AWAY")
		w.create("NEAR")
		defer w.watchIt(t)()
		tn, release := w.use("AWAY")
		gone.Store(true)
		if _, err := tn.DB.Get(t.Context(), "notes", "x"); !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
		release()
		for range 3 {
			began := time.Now()
			_, _, err := w.Use(t.Context(), "AWAY")
			w.fails(err, "client.unavailable")
			var f *fault.Error
			if took := time.Since(began); took > time.Millisecond || !errors.As(err, &f) || f.RetryAfter < time.Second {
				t.Errorf("after %s: %v", took, err)
			}
		}
		if since, detail, yes := w.Ailing("AWAY"); !yes || since.IsZero() || detail != "the database does not answer" {
			t.Errorf("ails: %v %q %v", since, detail, yes)
		}
		near, release := w.use("NEAR")
		if err := put(t.Context(), near, "a"); err != nil {
			t.Error(err)
		}
		release()
		time.Sleep(5 * time.Minute) // it is tried again and again, and stays away
		if _, _, yes := w.Ailing("AWAY"); !yes || back.Load() != 0 {
			t.Error("it is believed to be back")
		}
		gone.Store(false)
		time.Sleep(45 * time.Second) // the pause of the last try, and a look
		synctest.Wait()
		if _, _, yes := w.Ailing("AWAY"); yes || back.Load() != 1 {
			t.Errorf("it did not come back: told %d times", back.Load())
		}
		tn, release = w.use("AWAY")
		if err := put(t.Context(), tn, "a"); err != nil {
			t.Error(err)
		}
		release()
		if n := strings.Count(w.log.String(), "a client's database cannot be had;"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}

// Whose database takes minutes to be opened is answered within seconds, and served when it is.
func TestOpeningTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, func(w *town) {
			w.clock = nil
			w.onOpen = func(ctx context.Context, _ string) error {
				select {
				case <-time.After(3 * time.Minute):
				case <-ctx.Done():
				}
				return ctx.Err()
			}
		})
		w.create("ACME")
		defer w.watchIt(t)()
		for i, most := range []time.Duration{10 * time.Second, 0, 0} {
			began := time.Now()
			_, _, err := w.Use(t.Context(), "ACME")
			w.fails(err, "client.unavailable")
			if took := time.Since(began); took > most {
				t.Errorf("call %d was answered after %s", i, took)
			}
		}
		time.Sleep(time.Minute)
		if _, _, err := w.Use(t.Context(), "ACME"); fault.Of(err) != fault.Unavailable {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		_, release := w.use("ACME")
		release()
		if n := w.opens.Load(); n != 1 {
			t.Errorf("opened %d times", n)
		}
		if _, _, yes := w.Ailing("ACME"); yes {
			t.Error("it still ails")
		}
	})
}

// What OpenDB says itself, such as that the budget of connections is used up, is told as it is, and says nothing of the database.
func TestOpenersOwnFault(t *testing.T) {
	w := newTown(t, func(w *town) {
		w.onOpen = func(context.Context, string) error {
			return &fault.Error{Kind: fault.Unavailable, Code: "client.busy", RetryAfter: time.Second}
		}
	})
	w.create("ACME")
	_, _, err := w.Use(t.Context(), "ACME")
	w.fails(err, "client.busy")
	if _, _, yes := w.Ailing("ACME"); yes {
		t.Error("it ails")
	}
}
