package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

func TestQueue(t *testing.T) {
	storetest.RunQueue(t, func(t *testing.T, now func() time.Time) store.Queue {
		return testQueue(t, filepath.Join(t.TempDir(), "services.db"), now)
	})
}

func testQueue(t testing.TB, path string, now func() time.Time) *Queue {
	t.Helper()
	db, err := Open(context.Background(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	q, err := OpenQueue(context.Background(), db, now)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// sound checks what must hold between the tables, whatever happened.
func (q *Queue) sound(t *testing.T) {
	t.Helper()
	if err := q.unsound(); err != nil {
		t.Error(err)
	}
}

// unsound tells what does not hold.
func (q *Queue) unsound() (wrong error) {
	err := q.f.snapshot(context.Background(), func(c *conn) error {
		for what, sql := range map[string]string{
			"integrity": `SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'`,
			"lanes that count wrong": `WITH counted AS (
					SELECT lane, sum(state = 'scheduled') a, sum(state = 'ready') b, sum(state = 'running') c, sum(state = 'parked') d,
						sum(state = 'succeeded') e, sum(state = 'dead') f, sum(state = 'cancelled') g, sum(state = 'expired') h
					FROM jobs GROUP BY lane)
				SELECT lanes.lane FROM lanes LEFT JOIN counted USING (lane)
				WHERE (scheduled, ready, running, parked, succeeded, dead, cancelled, expired)
					<> (coalesce(a, 0), coalesce(b, 0), coalesce(c, 0), coalesce(d, 0), coalesce(e, 0), coalesce(f, 0), coalesce(g, 0), coalesce(h, 0))`,
			"types that count wrong": `WITH counted AS (
					SELECT tenant, type, sum(state = 'scheduled') a, sum(state = 'ready') b, sum(state = 'running') c, sum(state = 'parked') d,
						sum(state = 'succeeded') e, sum(state = 'dead') f, sum(state = 'cancelled') g, sum(state = 'expired') h
					FROM jobs GROUP BY tenant, type)
				SELECT jobTypes.type FROM jobTypes LEFT JOIN counted USING (tenant, type)
				WHERE (scheduled, ready, running, parked, succeeded, dead, cancelled, expired)
					<> (coalesce(a, 0), coalesce(b, 0), coalesce(c, 0), coalesce(d, 0), coalesce(e, 0), coalesce(f, 0), coalesce(g, 0), coalesce(h, 0))`,
			"jobs without a lane":      `SELECT _id FROM jobs WHERE lane NOT IN (SELECT lane FROM lanes)`,
			"jobs without their key":   `SELECT _id FROM jobs j WHERE holdsKey AND NOT EXISTS (SELECT 1 FROM jobKeys k WHERE k.tenant = j.tenant AND k.uniqueKey = j.uniqueKey AND k.jobId = j._id)`,
			"keys without their job":   `SELECT uniqueKey FROM jobKeys k WHERE keepUntil IS NULL AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j._id = k.jobId AND j.holdsKey)`,
			"running without a lease":  `SELECT _id FROM jobs WHERE (state = 'running') <> (owner IS NOT NULL AND leaseUntil IS NOT NULL)`,
			"ended without an end":     `SELECT _id FROM jobs WHERE (state IN ('succeeded', 'dead', 'cancelled', 'expired')) <> (endedAt IS NOT NULL)`,
			"two jobs of one held key": `SELECT uniqueKey FROM jobs WHERE holdsKey GROUP BY tenant, uniqueKey HAVING count(*) > 1`,
		} {
			switch r, err := c.first(context.Background(), sql); {
			case err != nil:
				return err
			case r != nil:
				wrong = errors.Join(wrong, fmt.Errorf("%s: %v", what, r))
			}
		}
		return nil
	})
	return errors.Join(wrong, err)
}

func TestQueueWake(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	q := testQueue(t, filepath.Join(t.TempDir(), "services.db"), func() time.Time { return now })
	var woken [2]bool // each of the listeners
	for i := range woken {
		q.Listen(store.Listener{Ready: func() { woken[i] = true }})
	}
	expect := func(what string, want bool) {
		t.Helper()
		if woken != [2]bool{want, want} {
			t.Errorf("%s: woke %v, want %v", what, woken, want)
		}
		woken = [2]bool{}
	}
	enqueue := func(j store.NewJob) store.Job {
		t.Helper()
		j.Type = "a"
		made, err := q.Enqueue(ctx, j)
		if err != nil {
			t.Fatal(err)
		}
		return made[0].Job
	}
	promote := func() {
		t.Helper()
		if _, _, err := q.Promote(ctx); err != nil {
			t.Fatal(err)
		}
	}
	finish := func(j store.Job, o store.Outcome) {
		t.Helper()
		o.ID, o.Token = j.ID, j.Token
		if held, err := q.Finish(ctx, o); err != nil || !held[0] {
			t.Fatal(held, err)
		}
	}
	ready := enqueue(store.NewJob{UniqueKey: "k"})
	expect("a ready job", true)
	enqueue(store.NewJob{UniqueKey: "k"})
	expect("a duplicate", false)
	job := enqueue(store.NewJob{ClaimFor: "api"})
	expect("a job its caller does", false)
	enqueue(store.NewJob{RunAt: now.Add(time.Hour)})
	expect("the first scheduled", true)
	enqueue(store.NewJob{RunAt: now.Add(2 * time.Hour)})
	expect("one scheduled later", false)
	promote()
	expect("nothing due", false)
	enqueue(store.NewJob{RunAt: now.Add(2 * time.Hour)})
	expect("later than what a promotion found", false)
	enqueue(store.NewJob{RunAt: now.Add(time.Minute)})
	expect("one scheduled sooner", true)
	finish(job, store.Outcome{State: store.Succeeded})
	expect("an end", false)
	if _, err := q.Cancel(ctx, ready.ID); err != nil {
		t.Fatal(err)
	}
	expect("a cancelled job", false)
	if _, err := q.Retry(ctx, ready.ID); err != nil {
		t.Fatal(err)
	}
	expect("a retried job", true)
	job = enqueue(store.NewJob{ClaimFor: "api"})
	finish(job, store.Outcome{State: store.Scheduled, RunAt: now.Add(time.Second)})
	expect("a retry soon", true)
	job = enqueue(store.NewJob{ClaimFor: "api"})
	finish(job, store.Outcome{State: store.Succeeded, Next: []store.NewJob{{Type: "a"}}})
	expect("an end that causes a job", true)
	enqueue(store.NewJob{ClaimFor: "api"})
	if _, err := q.Release(ctx, "api"); err != nil {
		t.Fatal(err)
	}
	expect("a release", true)
	now = now.Add(time.Minute)
	promote()
	expect("a promotion", true)
	enqueue(store.NewJob{RunAt: now.Add(30 * time.Minute)})
	expect("sooner than what is left after a promotion", true)
	_, err := q.Enqueue(ctx, store.NewJob{Type: "a"}, store.NewJob{Type: "b", UniqueKey: "k"})
	if !errors.Is(err, store.ErrKeyReuse) {
		t.Fatal(err)
	}
	expect("what was refused", false)
	for range 3 {
		enqueue(store.NewJob{})
	}
	expect("three jobs", true)
	expect("three jobs, told once", false)
	q.sound(t)
}

// stepped sets the wall clock of a time without its monotonic reading: time.Time keeps the wall seconds above
// its 30 bits of nanoseconds while it has one.
func stepped(t time.Time, seconds int64) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(seconds) << 30
	return t
}

func TestQueueClockStep(t *testing.T) {
	start := time.Now()
	if got := clockStep(start, stepped(start.Add(time.Second), 60)); got != time.Minute {
		t.Fatalf("a step of a minute is seen as %v", got)
	}
	if got := clockStep(start, start.Add(time.Minute)); got != 0 {
		t.Fatalf("a minute that passed is seen as a step of %v", got)
	}
	ctx := context.Background()
	now := start
	q := testQueue(t, filepath.Join(t.TempDir(), "services.db"), func() time.Time { return now })
	made, err := q.Enqueue(ctx, store.NewJob{Type: "a", ClaimFor: "w"})
	if err != nil {
		t.Fatal(err)
	}
	holds := func(what string, want store.State) {
		t.Helper()
		if _, _, err := q.Promote(ctx); err != nil {
			t.Fatal(err)
		}
		j, err := q.Job(ctx, made[0].Job.ID)
		if err != nil || j.State != want {
			t.Fatalf("%s: %s, want %s (%v)", what, j.State, want, err)
		}
	}
	now = stepped(start.Add(10*time.Second), 3600)
	holds("10 s on, the clock an hour ahead", store.Running)
	now = stepped(start.Add(14*time.Second), 3600)
	holds("14 s on", store.Running)
	// A change that is undone takes what it did for the clock with it; the next one makes up for it.
	_, err = q.Enqueue(ctx, store.NewJob{Type: "a", UniqueKey: "k"}, store.NewJob{Type: "b", UniqueKey: "k"})
	if !errors.Is(err, store.ErrKeyReuse) {
		t.Fatal(err)
	}
	now = stepped(start.Add(14*time.Second), 2*3600)
	if _, err = q.Enqueue(ctx, store.NewJob{Type: "a", UniqueKey: "k"}, store.NewJob{Type: "b", UniqueKey: "k"}); !errors.Is(err, store.ErrKeyReuse) {
		t.Fatal(err)
	}
	holds("14 s on, the clock two hours ahead and only seen by what was refused", store.Running)
	now = stepped(start.Add(14*time.Second), -3600)
	if _, err := q.Enqueue(ctx, store.NewJob{Type: "a"}); err != nil { // any change follows the clock
		t.Fatal(err)
	}
	now = stepped(start.Add(15*time.Second), -3600)
	holds("15 s on, the clock set back by two hours", store.Ready)
}

// Who held a lease before a process began is gone, wherever the clock was set to meanwhile.
func TestQueueClockSetBackWhileStopped(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "services.db")
	now := time.Now()
	clock := func() time.Time { return now }
	made, err := testQueue(t, path, clock).Enqueue(ctx, store.NewJob{Type: "a", ClaimFor: "gone"})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Round(0).Add(-24 * time.Hour)
	q := testQueue(t, path, clock)
	now = now.Add(15 * time.Second)
	if _, _, err := q.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	if j, err := q.Job(ctx, made[0].Job.ID); err != nil || j.State != store.Ready {
		t.Errorf("a lease after it began it is %s (%v)", j.State, err)
	}
}

func TestQueueReopened(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "services.db")
	now := time.Now()
	clock := func() time.Time { return now }
	db, err := Open(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := OpenQueue(ctx, db, clock)
	if err != nil {
		t.Fatal(err)
	}
	made, err := q.Enqueue(ctx, store.NewJob{Tenant: "A", Type: "a", UniqueKey: "k", ClaimFor: "w"}, store.NewJob{Tenant: "A", Type: "a"})
	if err != nil {
		t.Fatal(err)
	}
	// An operator's hand.
	err = q.f.write(ctx, func(tx *wtx) error {
		_, err := tx.exec(`UPDATE lanes SET ready = 0`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Claim(ctx, store.ClaimRequest{Owner: "w", Limit: 1, Lease: time.Second, Types: []string{"a"}}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("claim on a closed database: %v", err)
	}

	q = testQueue(t, path, clock)
	q.sound(t)
	claim := func() []store.Job {
		t.Helper()
		jobs, err := q.Claim(ctx, store.ClaimRequest{Owner: "w2", Limit: 10, Lease: time.Second, Types: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		return jobs
	}
	if jobs := claim(); len(jobs) != 1 || jobs[0].ID != made[1].Job.ID {
		t.Fatalf("claimed %+v", jobs)
	}
	now = now.Add(15 * time.Second)
	if n, _, err := q.Promote(ctx); err != nil || n != 2 {
		t.Fatalf("%d leases ran out: %v", n, err)
	}
	for _, j := range claim() {
		if j.Token != 2 {
			t.Errorf("token %d of %s", j.Token, j.ID)
		}
	}
	again, err := q.Enqueue(ctx, store.NewJob{Tenant: "A", Type: "a", UniqueKey: "k"})
	if err != nil || !again[0].Duplicate || again[0].Job.ID != made[0].Job.ID {
		t.Errorf("the key after a restart: %+v, %v", again, err)
	}
}

func TestQueueDiskFull(t *testing.T) {
	ctx := context.Background()
	q := testQueue(t, filepath.Join(t.TempDir(), "services.db"), time.Now)
	pages := func(n int) {
		t.Helper()
		if err := q.f.w.script(fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
			t.Fatal(err)
		}
	}
	pages(60)
	acked := map[string]string{}
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		key := fmt.Sprint("k", i)
		var made []store.Enqueued
		if made, err = q.Enqueue(ctx, store.NewJob{Tenant: "A", Type: "a", UniqueKey: key}, store.NewJob{Tenant: "B", Type: "a"}); err == nil {
			acked[key] = made[0].Job.ID
		}
	}
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("on a full disk: %v", err)
	}
	q.sound(t)
	counts, err := q.JobCounts(ctx, "")
	if err != nil || counts[store.Ready] != int64(2*len(acked)) {
		t.Errorf("%d ready after %d acknowledged pairs: %v", counts[store.Ready], len(acked), err)
	}
	pages(1 << 30)
	for key, id := range acked {
		made, err := q.Enqueue(ctx, store.NewJob{Tenant: "A", Type: "a", UniqueKey: key})
		if err != nil || !made[0].Duplicate || made[0].Job.ID != id {
			t.Fatalf("%s: %+v, %v", key, made, err)
		}
	}
	if made, err := q.Enqueue(ctx, store.NewJob{Tenant: "A", Type: "a", UniqueKey: fmt.Sprint("k", len(acked))}); err != nil || made[0].Duplicate {
		t.Errorf("what was refused, once there is room: %+v, %v", made, err)
	}
}

// Who knows that it is alone need not wait for the leases of the process before it. What was running has crashed.
func TestLapse(t *testing.T) {
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "services.db")
	q := testQueue(t, path, time.Now)
	_, err := q.Enqueue(ctx, store.NewJob{Tenant: "A", Type: "a"}, store.NewJob{Tenant: "A", Type: "a"}, store.NewJob{Tenant: "A", Type: "a", ClaimFor: "api"})
	if err != nil {
		t.Fatal(err)
	}
	if js, err := q.Claim(ctx, store.ClaimRequest{Owner: "dead", Limit: 1, Lease: time.Hour, Types: []string{"a"}}); err != nil || len(js) != 1 {
		t.Fatal(js, err)
	}
	q = testQueue(t, path, time.Now)
	if n, err := q.Lapse(ctx); err != nil || n != 2 {
		t.Errorf("%d lapsed, %v", n, err)
	}
	if n, _, err := q.Promote(ctx); err != nil || n != 2 {
		t.Errorf("%d taken back, %v", n, err)
	}
	js, err := q.Jobs(ctx, store.JobFilter{Tenant: "A", States: []store.State{store.Ready}})
	if err != nil || len(js) != 3 {
		t.Fatal(js, err)
	}
	crashes := 0
	for _, j := range js {
		crashes += j.Crashes
	}
	if crashes != 2 {
		t.Errorf("%d crashes", crashes)
	}
	if n, err := q.Lapse(ctx); err != nil || n != 0 {
		t.Errorf("%d lapsed again, %v", n, err)
	}
	q.sound(t)
}
