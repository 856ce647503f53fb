package sqlite

import (
	"context"
	"crypto/rand"
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
