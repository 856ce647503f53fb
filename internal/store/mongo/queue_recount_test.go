package mongo

import (
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// What a process that died had not written is found when jobs are counted anew; of two processes one counts at a time.
func TestRecount(t *testing.T) {
	t.Parallel()
	s := newScene(t, servertest.Mongo(t))
	if _, err := s.cut.Enqueue(s.ctx, store.NewJob{Tenant: "A", Type: "a"}, store.NewJob{Tenant: "A", Type: "b", ClaimFor: "w"}); err != nil {
		t.Fatal(err)
	}
	s.cut.tally.mu.Lock()
	s.cut.tally.pending = nil // it dies
	s.cut.tally.mu.Unlock()
	counted := func(want int64) {
		t.Helper()
		n, err := s.good.JobCounts(s.ctx, "A")
		if err != nil || n[store.Ready] != want || n[store.Running] != want {
			t.Errorf("%v, %v; want %d each", n, err, want)
		}
	}
	for round, want := range []int64{0, 0, 1} {
		counted(want)
		s.at = s.at.Add(recountApart)
		for _, q := range []*Queue{s.good, s.cut} { // the second finds that another counts
			q.tally.counting.Lock()
			q.tally.looked = time.Now().Add(-recountEvery)
			q.tally.counting.Unlock()
			q.recountIfDue()
			q.tally.counting.Lock() // it is done
			_, err := q.JobCounts(s.ctx, "A")
			q.tally.counting.Unlock()
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
	}
	counted(1)
}
