package storetest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ecodrix/ecod/internal/store"
)

// keeper is what an installation's upkeep needs of a queue, beside store.Queue.
type keeper interface {
	Payloads(ctx context.Context, containing string, after int64) (found []store.Payload, next int64, err error)
	Rewrite(ctx context.Context, p store.Payload, payload json.RawMessage) (bool, error)
	Forget(ctx context.Context, tenant string) (more bool, err error)
}

// A payload is found as it was given, and rewritten only where it is still what was read; a forgotten tenant leaves nothing,
// and others all.
func (q *queueTest) payloadsAndForget() {
	k, ok := q.Queue.(keeper)
	if !ok {
		q.Fatalf("%T finds, rewrites and forgets nothing", q.Queue)
	}
	const each = 520 // more than is forgotten at once
	var jobs []store.NewJob
	for i := range each {
		for _, tenant := range []string{"A", "B"} {
			payload := fmt.Sprintf(`{"v":"mark-%d"}`, i%2)
			if i%3 == 0 {
				payload = fmt.Sprintf(`{"v": "mark-%d"}`, i%2)
			}
			jobs = append(jobs, store.NewJob{Tenant: tenant, Type: "x", Payload: json.RawMessage(payload), UniqueKey: fmt.Sprint(i)})
		}
	}
	q.make(jobs...)
	var found []store.Payload
	for after := int64(0); ; {
		page, next, err := k.Payloads(q.ctx, "mark-1", after)
		found = append(found, must(q.T, page, err)...)
		if after = next; next == 0 {
			break
		}
	}
	if len(found) != each {
		q.Fatalf("%d payloads", len(found))
	}
	for _, p := range []store.Payload{found[0], found[len(found)-1]} {
		for want := range 2 { // the second time it is another
			if did, err := k.Rewrite(q.ctx, p, json.RawMessage(`{"v":"new"}`)); err != nil || did != (want == 0) {
				q.Errorf("%s: %v, %v", p.Payload, did, err)
			}
		}
		if j, err := q.Job(q.ctx, p.JobID); err != nil || string(j.Payload) != `{"v":"new"}` || j.State != store.Ready {
			q.Errorf("%+v, %v", j, err)
		}
	}
	if _, err := k.Rewrite(q.ctx, found[1], json.RawMessage(`{`)); err == nil {
		q.Error("what is no JSON was written")
	}
	rounds := 0
	for more := true; more; rounds++ {
		did, err := k.Forget(q.ctx, "A")
		more = must(q.T, did, err)
	}
	if rounds != 2 {
		q.Errorf("%d rounds", rounds)
	}
	for tenant, want := range map[string]int64{"A": 0, "B": each} {
		if n, err := q.JobCounts(q.ctx, tenant); err != nil || n[store.Ready] != want {
			q.Errorf("%s: %v, %v", tenant, n, err)
		}
	}
	if made := q.make(store.NewJob{Tenant: "A", Type: "y", UniqueKey: "1"}); made[0].Duplicate { // its keys are free
		q.Errorf("%+v", made)
	}
	if _, err := k.Forget(q.ctx, ""); err == nil {
		q.Error("the system's jobs are forgotten")
	}
}
