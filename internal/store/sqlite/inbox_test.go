package sqlite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

func testInbox(t testing.TB, dir string, now func() time.Time) *Inbox {
	t.Helper()
	in, err := OpenInbox(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in
}

func TestInbox(t *testing.T) {
	storetest.RunInbox(t, func(t *testing.T, now func() time.Time) store.Inbox { return testInbox(t, t.TempDir(), now) })
}

// BenchmarkReceive64: durable deliveries of 1 KB from 64 callers.
func BenchmarkReceive64(b *testing.B) {
	in := testInbox(b, b.TempDir(), time.Now)
	body := make([]byte, 1024)
	_, _ = rand.Read(body)
	parallel(b, 64, func(int64) {
		if err := in.Receive(context.Background(), &store.Delivery{Body: body}); err != nil {
			b.Error(err)
		}
	})
}

// BenchmarkReceiveSettle64: the same while every delivery is settled, in batches of 64, by one worker.
func BenchmarkReceiveSettle64(b *testing.B) {
	in := testInbox(b, b.TempDir(), time.Now)
	body := make([]byte, 1024)
	_, _ = rand.Read(body)
	ids := make(chan string, 1<<16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var batch []store.Settlement
		for id := range ids {
			if batch = append(batch, store.Settlement{ID: id, State: store.Settled, Clients: []string{"ACME"}}); len(batch) == 64 {
				if err := in.Settle(context.Background(), batch...); err != nil {
					b.Error(err)
				}
				batch = batch[:0]
			}
		}
	}()
	parallel(b, 64, func(int64) {
		d := store.Delivery{Body: body}
		if err := in.Receive(context.Background(), &d); err != nil {
			b.Error(err)
		}
		ids <- d.ID
	})
	close(ids)
	<-done
}

func TestInboxDiskFull(t *testing.T) {
	ctx := context.Background()
	in := testInbox(t, t.TempDir(), time.Now)
	first := store.Delivery{Body: []byte("first")}
	if err := in.Receive(ctx, &first); err != nil {
		t.Fatal(err)
	}
	pages := func(n int) {
		t.Helper()
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, d := range in.days {
			if err := d.f.w.script(fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	pages(100)
	acked := 1
	var err error
	for err == nil && acked < 1000 {
		d := store.Delivery{Body: make([]byte, 5000)}
		if err = in.Receive(ctx, &d); err == nil {
			acked++
		} else if d.ID != "" || !d.ReceivedAt.IsZero() {
			t.Errorf("not stored, but called %s", d.ID)
		}
	}
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("on a full disk: %v", err)
	}
	if ds, err := in.Pending(ctx, time.Now().Add(time.Second), "", 1000); err != nil || len(ds) != acked {
		t.Errorf("%d pending of %d acknowledged: %v", len(ds), acked, err)
	}
	pages(1 << 30)
	if err := in.Receive(ctx, &store.Delivery{Body: make([]byte, 5000)}); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

func TestInboxFolder(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "inbox")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// What a crash in the making of a day, or an operator, may leave behind.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"2026-03-01.db", "notes.txt", "2026-02-30.db", "aaaa-bb-cc.db"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := testInbox(t, dir, func() time.Time { return now })
	for range 3 {
		if err := in.Receive(ctx, &store.Delivery{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		now = now.AddDate(0, 0, 1)
	}
	files := func() (out []string) {
		es, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			if strings.HasSuffix(e.Name(), ".db") {
				out = append(out, strings.TrimSuffix(e.Name(), ".db"))
			}
		}
		return out
	}
	if got := strings.Join(files(), " "); got != "2026-02-30 2026-03-01 2026-03-02 2026-03-03 aaaa-bb-cc" {
		t.Errorf("files: %s", got)
	}
	ds, err := in.Pending(ctx, now, "", 10)
	if err != nil || len(ds) != 3 {
		t.Fatalf("pending: %d, %v", len(ds), err)
	}
	if err := in.Settle(ctx, store.Settlement{ID: ds[0].ID, State: store.Settled}); err != nil {
		t.Fatal(err)
	}

	// A day in use is not pulled from under its reader.
	err = in.use(ctx, "2026-03-01", false, func(*file) error { return in.Drop(ctx, 0, time.Hour*1000) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Delivery(ctx, ds[0].ID); err != nil {
		t.Errorf("dropped while in use: %v", err)
	}
	if err := in.Drop(ctx, 0, time.Hour*1000); err != nil {
		t.Fatal(err)
	}
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if strings.HasPrefix(e.Name(), "2026-03-01") {
			t.Errorf("%s is left of a dropped day", e.Name())
		}
	}

	// Days before today are closed when nobody used them for a while.
	in.mu.Lock()
	for _, d := range in.days {
		d.used = time.Now().Add(-2 * dayIdle)
	}
	in.mu.Unlock()
	now = now.AddDate(0, 0, -1)
	in.closeIdle()
	in.mu.Lock()
	open := len(in.days)
	in.mu.Unlock()
	if open != 1 {
		t.Errorf("%d days are open, want today", open)
	}
	if _, err := in.Delivery(ctx, ds[1].ID); err != nil {
		t.Errorf("a closed day: %v", err)
	}
}
