package mongo

import (
	"context"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// A process that is heard and hears nothing does not prolong its leases: it trusts them no more than others should.
func TestBeatUnheard(t *testing.T) {
	t.Parallel()
	url := servertest.Mongo(t)
	link := servertest.NewLink(t, servertest.HostOf(t, url))
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return at }
	open := func(url, db string) *Queue {
		cs := NewClusters(Config{Home: url, Timeout: 5 * time.Second})
		t.Cleanup(func() { _ = cs.Close(context.WithoutCancel(t.Context())) })
		return openTestQueue(t, cs, url, db, now)
	}
	db := freshDatabase(url)
	hears, deaf := open(url, db), open(link.Through(url), db)
	made, err := deaf.Enqueue(t.Context(), store.NewJob{Tenant: "A", Type: "a"})
	if err != nil {
		t.Fatal(err)
	}
	const lease = 15 * time.Second
	got, err := deaf.Claim(t.Context(), store.ClaimRequest{Owner: "w", Limit: 1, Slots: 1, Lease: lease, Types: []string{"a"}})
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	beat := func() ([]store.Held, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		return deaf.Beat(ctx, "w", lease)
	}
	at = at.Add(5 * time.Second)
	if held, err := beat(); err != nil || len(held) != 1 {
		t.Fatalf("%v, %v", held, err)
	}
	end := at.Add(lease)
	link.CutAnswers()
	at = at.Add(5 * time.Second)
	if held, err := beat(); err == nil {
		t.Fatalf("held %v", held)
	}
	for _, c := range []struct {
		at   time.Time
		want store.State
	}{{end.Add(-time.Millisecond), store.Running}, {end, store.Ready}} {
		at = c.at
		if _, _, err := hears.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		if j, err := hears.Job(t.Context(), made[0].Job.ID); err != nil || j.State != c.want {
			t.Errorf("%v before the end of its lease: %s, %v", end.Sub(at), j.State, err)
		}
	}
	link.Heal()
}
