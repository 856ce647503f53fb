package sqlite

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// A payload is rewritten only where it is still what was read; a forgotten tenant leaves nothing, and others all.
func TestPayloadsAndForget(t *testing.T) {
	ctx := t.Context()
	db, err := Open(ctx, filepath.Join(t.TempDir(), "q.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	q, err := OpenQueue(ctx, db, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	const each = promoteBatch + 20
	var jobs []store.NewJob
	for i := range each {
		for _, tenant := range []string{"A", "B"} {
			jobs = append(jobs, store.NewJob{Tenant: tenant, Type: "x", Payload: json.RawMessage(fmt.Sprintf(`{"v":"mark-%d"}`, i%2)), UniqueKey: fmt.Sprint(i)})
		}
	}
	if _, err := q.Enqueue(ctx, jobs...); err != nil {
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
	for want := range 2 { // the second time it is another
		if did, err := q.Rewrite(ctx, found[0], json.RawMessage(`{"v":"new"}`)); err != nil || did != (want == 0) {
			t.Errorf("%v, %v", did, err)
		}
	}
	if j, err := q.Job(ctx, found[0].JobID); err != nil || string(j.Payload) != `{"v":"new"}` || j.State != store.Ready {
		t.Errorf("%+v, %v", j, err)
	}
	rounds := 0
	for more := true; more; rounds++ {
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
