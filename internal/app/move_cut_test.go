package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
	"github.com/ecodrix/ecod/internal/tenant"
)

// fuse lets so many steps of a process through; then nothing of it gets anywhere any more, as if it were killed.
type fuse struct {
	left, steps int
	lose        bool // the last step stands, but its answer is lost
}

func (f *fuse) step(do func() error) error {
	if f.left <= 0 {
		return storetest.ErrCut
	}
	f.left--
	f.steps++
	err := do()
	if f.lose && f.left <= 0 {
		return errors.Join(err, storetest.ErrCut)
	}
	return err
}

type fusedServices struct {
	Services
	f *fuse
}

func (s fusedServices) Commit(ctx context.Context, writes ...store.Write) error {
	return s.f.step(func() error { return s.Services.Commit(ctx, writes...) })
}

type fusedQueue struct {
	Queue
	f *fuse
}

func (q fusedQueue) Pause(ctx context.Context, r store.PauseRequest) (fresh bool, err error) {
	err = q.f.step(func() error { fresh, err = q.Queue.Pause(ctx, r); return err })
	return fresh, err
}

func (q fusedQueue) Resume(ctx context.Context, scope string, reason store.PauseReason) (was bool, err error) {
	err = q.f.step(func() error { was, err = q.Queue.Resume(ctx, scope, reason); return err })
	return was, err
}

type fusedCopier struct {
	store.Copier
	f *fuse
}

func (c fusedCopier) Fill(ctx context.Context, kind string, rs ...store.Raw) error {
	return c.f.step(func() error { return c.Copier.Fill(ctx, kind, rs...) })
}

func (c fusedCopier) SkipSeq(ctx context.Context, n int64) error {
	return c.f.step(func() error { return c.Copier.SkipSeq(ctx, n) })
}

// house is a client with some records, and what moves it.
type house struct {
	t       *testing.T
	dir     string
	ring    *secret.Ring
	storage *Storage
	annex   *Annex
	reg     *tenant.Registry
	fuse    *fuse
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	ring, err := secret.ParseRing(secret.Generate("k"))
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: dir, ring: ring, fuse: &fuse{left: 1 << 30}}
	h.open()
	ctx := t.Context()
	if _, _, err := h.reg.Create(ctx, tenant.NewClient{Code: "ACME"}); err != nil {
		t.Fatal(err)
	}
	tn, release, err := h.reg.Use(ctx, "ACME")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for i := range 12 {
		err := tn.DB.Commit(ctx, tenant.Connections.Set(&tenant.Connection{Name: fmt.Sprint("c", i), State: "ok", At: time.Now()}),
			news.Write(time.Now(), "thing.changed", "k", fmt.Sprint(i), map[string]int{"i": i}))
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// open is what a process does when it starts.
func (h *house) open() {
	h.t.Helper()
	var err error
	if h.storage, err = OpenEmbedded(h.t.Context(), h.dir); err != nil {
		h.t.Fatal(err)
	}
	h.storage.Services = fusedServices{h.storage.Services, h.fuse}
	h.annex = &Annex{Dir: filepath.Join(h.dir, "annex"), Wrap: func(c store.Copier) store.Copier { return fusedCopier{c, h.fuse} }}
	h.storage.elsewhere = h.annex
	h.reg = h.storage.Registry(h.ring, slog.New(slog.DiscardHandler), nil, nil)
	if err := h.reg.Load(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// close is what the system does when a process ends.
func (h *house) close() {
	h.t.Helper()
	if err := errors.Join(h.reg.Close(context.Background()), h.storage.Close()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) mover() *Mover {
	return &Mover{Storage: h.storage, Tenants: h.reg, Queue: fusedQueue{h.storage.Queue, h.fuse}, Yield: func(string) {}, Log: slog.New(slog.DiscardHandler)}
}

func (h *house) account() *tenant.Account {
	h.t.Helper()
	a, err := h.reg.Account(context.Background(), "ACME")
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// sum reads all that a client's database holds.
func (h *house) sum(a *tenant.Account) string {
	h.t.Helper()
	db, err := h.storage.OpenDB(context.Background(), a)
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	all := ""
	for _, kind := range kindsOf(tenantSchemas) {
		d, err := store.DigestKind(context.Background(), db.(store.Copier), kind)
		if err != nil {
			h.t.Fatal(err)
		}
		all += fmt.Sprint(kind, " ", d.Records, " ", d.Sum(), "\n")
	}
	n, err := db.(store.Copier).LastSeq(context.Background())
	return fmt.Sprint(all, n, err)
}

func (h *house) job(id string) store.Job {
	n := job.New("", MoveJob, MovePayload{ClientCode: "ACME"})
	return store.Job{ID: id, Type: MoveJob, Payload: n.Payload, MaxAttempts: moveTries}
}

// A move that is killed at any step, and run again, ends as one that was not.
func TestMoveCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, lose := range []bool{false, true} {
		for n := 1; ; n++ {
			h := newHouse(t)
			before := h.sum(h.account())
			id, err := h.mover().Ask(t.Context(), "ACME", "mongodb://annex/x")
			if err != nil {
				t.Fatal(err)
			}
			h.fuse.left, h.fuse.lose = n, lose
			_, err = h.mover().handle(t.Context(), nil, h.job(id))
			whole := err == nil && h.fuse.left > 0
			h.close()
			*h.fuse = fuse{left: 1 << 30}
			h.open()
			if _, err := h.mover().handle(t.Context(), nil, h.job(id)); err != nil {
				t.Fatalf("cut after %d: run again: %v", n, err)
			}
			a := h.account()
			if a.Status != tenant.Active || a.DatabaseURL == "" || a.Move.Phase != tenant.MoveDone || !a.Move.Kept || a.Moves != 1 {
				t.Fatalf("cut after %d: %+v, %+v", n, a, a.Move)
			}
			if got := h.sum(a); got != before {
				t.Errorf("cut after %d: moved\n%s\nwas\n%s", n, got, before)
			}
			old, err := h.reg.Old(a)
			if err != nil || h.sum(old) != before {
				t.Errorf("cut after %d: the old copy is another: %v", n, err)
			}
			if ps, err := h.storage.Queue.Pauses(t.Context(), "ACME"); err != nil || len(ps) > 0 {
				t.Errorf("cut after %d: still rests: %+v, %v", n, ps, err)
			}
			h.close()
			if whole {
				if n < 10 {
					t.Errorf("a move has but %d steps", n)
				}
				break
			}
		}
	}
}

// A move that is given up at any step leaves the client as it was, and nothing where it was to go.
func TestMoveGivenUpAnywhere(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		h := newHouse(t)
		before := h.sum(h.account())
		id, err := h.mover().Ask(t.Context(), "ACME", "mongodb://annex/x")
		if err != nil {
			t.Fatal(err)
		}
		h.fuse.left = n
		_, err = h.mover().handle(t.Context(), nil, h.job(id))
		whole := err == nil
		h.close()
		*h.fuse = fuse{left: 1 << 30}
		for cut := 1; ; cut++ { // and so is giving it up
			h.open()
			h.fuse.left = cut
			err := h.mover().back(t.Context(), "ACME", id, "move.cancelled")
			*h.fuse = fuse{left: 1 << 30}
			if err == nil {
				break
			}
			h.close()
		}
		a := h.account()
		switched := a.Move.Phase == tenant.MoveDone
		if a.Status != tenant.Active || h.sum(a) != before || (a.DatabaseURL != "") != switched || !switched && a.Move.Phase != tenant.MoveFailed {
			t.Fatalf("given up after %d: %+v, %+v", n, a, a.Move)
		}
		if !switched {
			if id, err = h.mover().Ask(t.Context(), "ACME", "mongodb://annex/x"); err != nil { // it can be tried again
				t.Fatal(err)
			}
			if _, err := h.mover().handle(t.Context(), nil, h.job(id)); err != nil {
				t.Fatalf("given up after %d: moved again: %v", n, err)
			}
		}
		if ps, err := h.storage.Queue.Pauses(t.Context(), "ACME"); err != nil || len(ps) > 0 {
			t.Errorf("given up after %d: still rests: %+v, %v", n, ps, err)
		}
		h.close()
		if whole {
			break
		}
	}
}

// A database that holds something is refused before the client is taken out of service, and left as it is.
func TestMoveRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	defer h.close()
	ctx := t.Context()
	there := &tenant.Account{Code: "ACME", DatabaseURL: "x"}
	db, err := h.annex.openAt(ctx, there)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Commit(ctx, tenant.Connections.Set(&tenant.Connection{Name: "other"})), db.Close()); err != nil {
		t.Fatal(err)
	}
	holds := h.sum(there)
	id, err := h.mover().Ask(ctx, "ACME", "mongodb://annex/x")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.mover().handle(ctx, nil, h.job(id))
	if a := h.account(); err == nil || a.Status != tenant.Active || a.Move.Phase != tenant.MoveFailed || a.Move.Reason != "move.target_not_empty" {
		t.Errorf("%v: %+v", err, a.Move)
	}
	if h.sum(there) != holds {
		t.Error("what was there is gone")
	}
	for _, bad := range []string{"http://x/", "mongodb://", "file:///etc"} {
		if _, err := h.mover().Ask(ctx, "ACME", secret.Text(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if _, err := h.mover().DropOld(ctx, "ACME"); err == nil {
		t.Error("dropped an old copy that is none")
	}
	if _, err := os.Stat(h.storage.path("ACME")); err != nil {
		t.Error(err)
	}
}

// A hand sets a client's address back after a move: what was the old copy is its database, and is not dropped.
func TestOldCopyInUse(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	defer h.close()
	ctx := t.Context()
	id, err := h.mover().Ask(ctx, "ACME", "mongodb://annex/x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.mover().handle(ctx, nil, h.job(id)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.reg.Change(ctx, "ACME", func(a *tenant.Account) error { a.DatabaseURL = ""; return nil }); err != nil {
		t.Fatal(err)
	}
	if dropped, err := h.mover().DropOld(ctx, "ACME"); !errors.Is(err, errSame) {
		t.Errorf("dropped %s: %v", dropped, err)
	}
	if _, err := os.Stat(h.storage.path("ACME")); err != nil {
		t.Error(err)
	}
	if a := h.account(); a.Move.Kept {
		t.Error("it can move no more")
	}
}
