package mongo

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// nodes are two queues on one database, with memories of their own and one clock that stands still until it is moved.
type nodes struct {
	*testing.T
	q  [2]*Queue
	mu sync.Mutex
	at time.Time
}

func twoNodes(t *testing.T) *nodes {
	t.Helper()
	url := servertest.Mongo(t)
	n := &nodes{T: t, at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	database := freshDatabase(url)
	for i := range n.q {
		cs := NewClusters(Config{Home: url})
		t.Cleanup(func() { _ = cs.Close(context.WithoutCancel(t.Context())) })
		n.q[i] = openTestQueue(t, cs, url, database, n.now)
	}
	return n
}

func (n *nodes) now() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at
}

func (n *nodes) pass(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = n.at.Add(d)
}

// fill makes ready jobs in a lane.
func (n *nodes) fill(q *Queue, many int, lane string) {
	n.Helper()
	tenant, resource, class := store.SplitLane(lane)
	jobs := slices.Repeat([]store.NewJob{{Tenant: tenant, Resource: resource, Class: class, Type: "a"}}, many)
	if _, err := q.Enqueue(n.Context(), jobs...); err != nil {
		n.Fatal(err)
	}
}

func (n *nodes) claim(q *Queue, limit int, bounds store.Bounds) []store.Job {
	n.Helper()
	js, err := q.Claim(n.Context(), store.ClaimRequest{
		Owner: fmt.Sprintf("%p", q), Limit: limit, Lease: time.Minute, Types: []string{"a"}, Quarantine: true,
		Bounds: func(string, string) store.Bounds { return bounds },
	})
	if err != nil {
		n.Error(err)
	}
	return js
}

// both has every node claim at the same moment, some workers each, until none of them gets anything.
func (n *nodes) both(limit int, bounds store.Bounds) (got []store.Job) {
	n.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, q := range slices.Repeat(n.q[:], 2) {
		q.Look()
		all.Go(func() {
			for {
				js := n.claim(q, limit, bounds)
				if len(js) == 0 {
					return
				}
				mu.Lock()
				got = append(got, js...)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return got
}

func (n *nodes) finish(q *Queue, j store.Job, s store.State) {
	n.Helper()
	held, err := q.Finish(n.Context(), store.Outcome{ID: j.ID, Token: j.Token, State: s})
	if err != nil || !held[0] {
		n.Errorf("the end of %s: %v, %v", j.ID, held, err)
	}
}

// within insists that something is so before long.
func (n *nodes) within(d time.Duration, what string, so func() bool) {
	n.Helper()
	for end := time.Now().Add(d); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			n.Fatalf("not within %v: %s", d, what)
		}
	}
}

func TestNodesClaim(t *testing.T) {
	n := twoNodes(t)
	for i, q := range n.q {
		for lane := range 5 {
			n.fill(q, 20, fmt.Sprintf("T%d/wa:%d/normal", lane, i))
		}
	}
	got := n.both(7, store.Bounds{})
	seen := map[string]bool{}
	for _, j := range got {
		if seen[j.ID] || j.Token != 1 {
			t.Errorf("claimed twice: %+v", j)
		}
		seen[j.ID] = true
	}
	if len(seen) != 200 {
		t.Errorf("%d of 200 claimed", len(seen))
	}
	// Who is gone is taken back from by the other.
	n.pass(time.Minute)
	if _, _, err := n.q[1].Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.q[0].Look()
	again := 0
	for range 3 {
		js := n.claim(n.q[0], 10, store.Bounds{})
		again += len(js)
		if len(js) > 1 {
			t.Errorf("%d at once of those that crashed", len(js))
		}
	}
	if again != 3 {
		t.Errorf("%d claimed of those that were taken back", again)
	}
}

// What one node makes, another finds by looking, and at once when it is told.
func TestNodesFind(t *testing.T) {
	n := twoNodes(t)
	if got := n.claim(n.q[1], 10, store.Bounds{}); len(got) != 0 {
		t.Fatalf("%v", got)
	}
	n.fill(n.q[0], 1, "A/internal/normal")
	n.within(surveyMost, "a job of another node", func() bool { return len(n.claim(n.q[1], 10, store.Bounds{})) == 1 })
	n.fill(n.q[0], 1, "A/internal/normal")
	n.q[1].Look()
	if got := n.claim(n.q[1], 10, store.Bounds{}); len(got) != 1 {
		t.Errorf("told of a job, it claimed %v", got)
	}
}

// However nodes come between each other, no more starts than one rate allows them all together. What one took and was too late to use
// may be lost to all for a moment.
func TestNodesRate(t *testing.T) {
	n := twoNodes(t)
	rate := store.Rate{Every: 10 * time.Millisecond, Burst: 12}
	for _, lane := range []string{"A/wa:1/interactive", "A/wa:1/normal", "A/wa:1/bulk"} {
		n.fill(n.q[0], 40, lane)
	}
	total := 0
	for range 6 {
		got := n.both(5, store.Bounds{Rate: rate, Pair: store.Rate{Every: time.Hour, Burst: 1}})
		for _, j := range got {
			n.finish(n.q[0], j, store.Succeeded)
		}
		if total == 0 && len(got) < 4 {
			t.Errorf("%d started at once, of %d that may", len(got), rate.Burst)
		}
		total += len(got)
		if most := rate.Burst + int(n.now().Sub(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))/rate.Every); total > most {
			t.Fatalf("%d started, of at most %d", total, most)
		}
		n.pass(50 * time.Millisecond)
	}
	if total < 16 {
		t.Errorf("%d started in 250 ms, of %d that may", total, rate.Burst+25)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	for i := range 12 {
		all.Go(func() {
			got, wait, err := n.q[i%2].Take(t.Context(), "B/mail", store.Rate{Every: time.Second, Burst: 20}, 3)
			mu.Lock()
			defer mu.Unlock()
			if granted += got; err != nil || got < 3 && wait != time.Second {
				t.Errorf("granted %d, wait %v, %v", got, wait, err)
			}
		})
	}
	all.Wait()
	if granted != 20 {
		t.Errorf("%d taken of 20", granted)
	}
}

func TestNodesPause(t *testing.T) {
	n := twoNodes(t)
	n.fill(n.q[0], 5, "A/wa:1/normal")
	for _, q := range n.q {
		if p, err := q.Paused(t.Context(), "A/wa:1/normal"); p != nil || err != nil {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	heard := 0
	n.q[0].Listen(store.Listener{Paused: func(...store.Pause) { heard++ }})
	n.q[1].Listen(store.Listener{Paused: func(...store.Pause) { heard++ }})
	var all sync.WaitGroup
	for _, q := range n.q { // both find the same trouble
		all.Go(func() {
			if _, err := q.Pause(t.Context(), store.PauseRequest{Scope: "A/wa", Reason: store.Credential}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if heard != 1 {
		t.Errorf("%d were told of one pause", heard)
	}
	n.within(time.Second, "a resume is known to the other", func() bool {
		if _, err := n.q[1].Resume(t.Context(), "A/wa", ""); err != nil {
			t.Fatal(err)
		}
		p, _ := n.q[0].Paused(t.Context(), "A/wa:1/normal")
		return p == nil
	})
	if _, err := n.q[0].Pause(t.Context(), store.PauseRequest{Scope: "A/wa:1", Reason: store.Operator}); err != nil {
		t.Fatal(err)
	}
	n.within(time.Second, "a pause is known to the other", func() bool {
		p, err := n.q[1].Paused(t.Context(), "A/wa:1/normal")
		return err == nil && p != nil && p.Reason == store.Operator
	})
	if got := n.both(10, store.Bounds{}); len(got) != 0 {
		t.Errorf("claimed in a pause: %v", got)
	}
}

// After a pause one job tries the lane, over all nodes together, until one that began since ended well.
func TestNodesTrial(t *testing.T) {
	n := twoNodes(t)
	const lane = "A/wa:1/normal"
	n.fill(n.q[0], 8, lane)
	before := n.claim(n.q[0], 1, store.Bounds{})
	if _, err := n.q[0].Pause(t.Context(), store.PauseRequest{Scope: lane[:len("A/wa:1")], Reason: store.RateLimited, For: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	n.within(time.Second, "the pause is known to the other", func() bool {
		p, err := n.q[1].Paused(t.Context(), lane)
		return err == nil && p != nil
	})
	n.pass(2 * time.Second)
	if got := n.both(5, store.Bounds{}); len(got) != 0 {
		t.Fatalf("%d began beside one that runs", len(got))
	}
	n.finish(n.q[0], before[0], store.Succeeded) // it proves nothing
	for range 3 {
		got := n.both(5, store.Bounds{})
		if len(got) != 1 {
			t.Fatalf("%d at once on trial", len(got))
		}
		if more := n.both(5, store.Bounds{}); len(more) != 0 {
			t.Fatalf("%d began beside the one on trial", len(more))
		}
		n.finish(n.q[1], got[0], store.Ready) // neither does this
	}
	got := n.both(5, store.Bounds{})
	if len(got) != 1 {
		t.Fatalf("%d at once on trial", len(got))
	}
	n.finish(n.q[1], got[0], store.Succeeded)
	rest := 0
	n.within(2*time.Second, "the lane goes on", func() bool {
		rest += len(n.both(5, store.Bounds{}))
		return rest == 6
	})
}
