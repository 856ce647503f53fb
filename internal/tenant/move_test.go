package tenant_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/tenant"
)

const elsewhere = "mongodb://user:pass@db.example/x"

// A move takes the client out of service, switches its database and serves it again; every step once, in order.
func TestMove(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	key := w.create("ACME")
	_, release := w.use("ACME")
	if _, err := w.AskMove(ctx, "ACME", "job_1", elsewhere); err != nil {
		t.Fatal(err)
	}
	w.key("ACME", key, "") // nothing is done by asking
	if _, err := w.CopyMove(ctx, "ACME", "job_1"); err == nil {
		t.Error("copied before it began")
	}
	if _, err := w.BeginMove(ctx, "ACME", "job_other"); err == nil {
		t.Error("begun by another job")
	}
	a, err := w.BeginMove(ctx, "ACME", "job_1")
	if err != nil {
		t.Fatal(err)
	}
	w.key("ACME", key, "client.moving")
	_, _, err = w.Use(ctx, "ACME")
	w.fails(err, "client.moving")
	if fault.Of(err) != fault.Unavailable {
		t.Errorf("kind %v", fault.Of(err))
	}
	if _, _, ok := w.Borrow("ACME"); ok {
		t.Error("borrowed")
	}
	soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	if err := w.Vacate(soon, "ACME"); err == nil {
		t.Error("vacated under its user")
	}
	cancel()
	release()
	if err := w.Vacate(ctx, "ACME"); err != nil {
		t.Fatal(err)
	}
	w.openNow()
	_, err = w.AskMove(ctx, "ACME", "job_2", "")
	w.fails(err, "client.moving")
	w.fails(w.BeginErase(ctx, "ACME"), "client.moving")
	if _, err := w.FinishMove(ctx, "ACME", "job_1", 5); err == nil {
		t.Error("finished before the copy")
	}
	for range 2 { // again after a crash
		if a, err = w.CopyMove(ctx, "ACME", "job_1"); err != nil {
			t.Fatal(err)
		}
	}
	if to, err := w.Target(a); err != nil {
		t.Fatal(err)
	} else if url, err := w.DatabaseURL(to); err != nil || url != elsewhere {
		t.Errorf("target %s, %v", url, err)
	}
	if _, err := w.SetStatus(ctx, "ACME", tenant.Suspended); err != nil { // what it will be then
		t.Fatal(err)
	}
	w.key("ACME", key, "client.moving")
	if a, err = w.FinishMove(ctx, "ACME", "job_1", 5); err != nil {
		t.Fatal(err)
	}
	if url, err := w.DatabaseURL(a); err != nil || url != elsewhere || a.Status != tenant.Suspended || !a.Move.Kept || a.Move.Phase != tenant.MoveDone {
		t.Errorf("at %s, %v: %+v", url, err, a.Move)
	}
	if old, err := w.Old(a); err != nil {
		t.Fatal(err)
	} else if url, err := w.DatabaseURL(old); err != nil || url != "" {
		t.Errorf("old %s, %v", url, err)
	}
	if a, err = w.FailMove(ctx, "ACME", "job_1", "late"); err != nil || a.Move.Phase != tenant.MoveDone {
		t.Errorf("failed when done: %v", err)
	}
	_, err = w.AskMove(ctx, "ACME", "job_2", "")
	w.fails(err, "client.old_copy")
	if err := w.ForgetOld(ctx, "ACME"); err != nil {
		t.Fatal(err)
	}
	_, err = w.AskMove(ctx, "ACME", "job_2", elsewhere)
	w.fails(err, "client.same_database")
	if _, err = w.AskMove(ctx, "ACME", "job_2", ""); err != nil {
		t.Fatal(err)
	}
}

// A move that fails leaves the client as it was; one that a hand ended is over.
func TestMoveFails(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	key := w.create("ACME")
	ask := func(id string) {
		t.Helper()
		if _, err := w.AskMove(ctx, "ACME", id, elsewhere); err != nil {
			t.Fatal(err)
		}
		if _, err := w.BeginMove(ctx, "ACME", id); err != nil {
			t.Fatal(err)
		}
		if _, err := w.CopyMove(ctx, "ACME", id); err != nil {
			t.Fatal(err)
		}
	}
	ask("job_1")
	if a, err := w.StopMove(ctx, "ACME", "job_1", "target.unreachable"); err != nil || a.Status != tenant.Moving {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := w.FinishMove(ctx, "ACME", "job_1", 1); err == nil {
		t.Error("switched when given up")
	}
	for range 2 {
		a, err := w.FailMove(ctx, "ACME", "job_1", "target.unreachable")
		if err != nil || a.Status != tenant.Active || a.Move.Phase != tenant.MoveFailed || a.DatabaseURL != "" {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	w.key("ACME", key, "")
	ask("job_2")
	w.exec(w.hand(), setMember, "$.status", `"active"`, "ACME")
	w.load()
	w.key("ACME", key, "")
	if _, err := w.FinishMove(ctx, "ACME", "job_2", 1); err == nil {
		t.Error("switched under a client that is served")
	}
}

// A process that heard nothing of a move until it was over lets go of the old database.
func TestMoveElsewhere(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	w.create("ACME")
	n := w.neighbour()
	n.load()
	tn, release := n.use("ACME")
	idle, releaseIdle := n.use("ACME")
	releaseIdle()
	for _, step := range []func() error{
		func() error { _, err := w.AskMove(ctx, "ACME", "job_1", elsewhere); return err },
		func() error { _, err := w.BeginMove(ctx, "ACME", "job_1"); return err },
		func() error { _, err := w.CopyMove(ctx, "ACME", "job_1"); return err },
		func() error { _, err := w.FinishMove(ctx, "ACME", "job_1", 0); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	n.load()
	again, releaseAgain := n.use("ACME")
	if again == tn || again == idle {
		t.Error("the old database is used on")
	}
	if n.opens.Load() != 2 {
		t.Errorf("opened %d times", n.opens.Load())
	}
	release()
	releaseAgain()
	if err := n.Vacate(ctx, "ACME"); err != nil {
		t.Fatal(err)
	}
	n.openNow()
}

// Who sets another address by hand has the client served from there; with one that is but sealed anew nothing happens.
func TestAddressByHand(t *testing.T) {
	w := newTown(t)
	w.create("ACME")
	set := func(url string) {
		t.Helper()
		sealed, err := w.ring.Seal("ACME", "databaseUrl", url)
		if err != nil {
			t.Fatal(err)
		}
		w.exec(w.hand(), setMember, "$.databaseUrl", `"`+sealed+`"`, "ACME")
		w.load()
	}
	first, release := w.use("ACME")
	defer release()
	set(elsewhere)
	w.fails(put(t.Context(), first, "a"), "client.moving")
	second, releaseSecond := w.use("ACME")
	defer releaseSecond()
	set(elsewhere)
	third, releaseThird := w.use("ACME")
	defer releaseThird()
	if second == first || third != second {
		t.Error("another database is used than the address names")
	}
	if err := put(t.Context(), second, "b"); err != nil {
		t.Error(err)
	}
}

// A process that was held up, or cut off, while a client moved does not say of a write to the old database that it stands;
// nor does one that heard of the copying.
func TestMoveUnheard(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	w.create("ACME")
	deaf := newTown(t, func(n *town) {
		n.dir, n.ring, n.clock, n.settings.Trust = w.dir, w.ring, w.clock, time.Nanosecond
	})
	near := w.neighbour()
	deaf.load()
	near.load()
	tn, release := deaf.use("ACME")
	defer release()
	other, releaseOther := near.use("ACME")
	defer releaseOther()
	step := func(f func() (*tenant.Account, error)) {
		t.Helper()
		if _, err := f(); err != nil {
			t.Fatal(err)
		}
	}
	step(func() (*tenant.Account, error) { return w.AskMove(ctx, "ACME", "job_1", elsewhere) })
	step(func() (*tenant.Account, error) { return w.BeginMove(ctx, "ACME", "job_1") })
	near.load()
	if err := errors.Join(put(ctx, tn, "a"), put(ctx, other, "b")); err != nil {
		t.Errorf("what runs cannot end: %v", err)
	}
	step(func() (*tenant.Account, error) { return w.CopyMove(ctx, "ACME", "job_1") })
	near.load()
	deaf.fails(put(ctx, tn, "c"), "client.moving")
	near.fails(put(ctx, other, "d"), "client.moving")
	step(func() (*tenant.Account, error) { return w.FinishMove(ctx, "ACME", "job_1", 2) })
	deaf.fails(put(ctx, tn, "e"), "client.moving")
	near.load()
	near.fails(put(ctx, other, "f"), "client.moving")
	if err := deaf.services.Close(); err != nil {
		t.Fatal(err)
	}
	deaf.fails(put(ctx, tn, "g"), "client.unavailable")
}
