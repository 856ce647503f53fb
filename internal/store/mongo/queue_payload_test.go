package mongo

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// A payload is rewritten only where it is still what was read; a forgotten tenant leaves nothing, and others all.
func TestPayloadsAndForget(t *testing.T) {
	t.Parallel()
	s := newScene(t, servertest.Mongo(t))
	q, ctx := s.good, s.ctx
	const each = promoteBatch + 20
	var news []store.NewJob
	for i := range each {
		for _, tenant := range []string{"A", "B"} {
			payload := json.RawMessage(fmt.Sprintf(`{"v":"mark-%d"}`, i%2))
			if i%3 == 0 {
				payload = json.RawMessage(fmt.Sprintf(`{"v": "mark-%d"}`, i%2))
			}
			news = append(news, store.NewJob{Tenant: tenant, Type: "x", Payload: payload, UniqueKey: fmt.Sprint(i)})
		}
	}
	if _, err := q.Enqueue(ctx, news...); err != nil {
		t.Fatal(err)
	}
	var found []store.Payload
	for after := int64(0); ; {
		page, next, err := q.Payloads(ctx, "mark-1", after)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, page...)
		if after = next; next == 0 {
			break
		}
	}
	if len(found) != each {
		t.Fatalf("%d payloads", len(found))
	}
	for _, p := range []store.Payload{found[0], found[len(found)-1]} {
		for want := range 2 { // the second time it is another
			if did, err := q.Rewrite(ctx, p, json.RawMessage(`{"v":"new"}`)); err != nil || did != (want == 0) {
				t.Errorf("%s: %v, %v", p.Payload, did, err)
			}
		}
		if j, err := q.Job(ctx, p.JobID); err != nil || string(j.Payload) != `{"v":"new"}` || j.State != store.Ready {
			t.Errorf("%+v, %v", j, err)
		}
	}
	if _, err := q.Rewrite(ctx, found[1], json.RawMessage(`{`)); err == nil {
		t.Error("what is no JSON was written")
	}
	rounds, more := 0, true
	for ; more; rounds++ {
		var err error
		if more, err = q.Forget(ctx, "A"); err != nil {
			t.Fatal(err)
		}
	}
	if rounds != 2 {
		t.Errorf("%d rounds", rounds)
	}
	for tenant, want := range map[string]int64{"A": 0, "B": each} {
		if n, err := q.JobCounts(ctx, tenant); err != nil || n[store.Ready] != want {
			t.Errorf("%s: %v, %v", tenant, n, err)
		}
	}
	made, err := q.Enqueue(ctx, store.NewJob{Tenant: "A", Type: "y", UniqueKey: "1"}) // its keys are free
	if err != nil || made[0].Duplicate {
		t.Errorf("%+v, %v", made, err)
	}
	if _, err := q.Forget(ctx, ""); err == nil {
		t.Error("the system's jobs are forgotten")
	}
}

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
