package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func (q *queueTest) enqueue() {
	now := q.clock.Now()
	full := store.NewJob{
		ID: "job_mine", Tenant: "ACME", Type: "whatsapp.send", Payload: json.RawMessage(`{"messageId": "msg_1", "n": 12345678901234567}`),
		RunAt: now.Add(time.Minute), ExpiresAt: now.Add(time.Hour), MaxAttempts: 3, UniqueKey: "send:msg_1",
		Causation: store.Causation{EventID: "evt_1", RunID: "run_1", Step: "s", JobID: "job_0", LeadID: "lea_1", Message: "msg_1"},
	}
	made := q.make(store.NewJob{Type: "a"}, full, store.NewJob{Type: "a", RunAt: now.Add(-time.Hour)})

	for i, e := range made {
		got, err := q.Job(q.ctx, e.Job.ID)
		must(q.T, got, err)
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", e.Job) || e.Duplicate {
			q.Errorf("%d: answered %+v (duplicate %v), stored %+v", i, e.Job, e.Duplicate, got)
		}
	}
	plain := made[0].Job
	if plain.State != store.Ready || string(plain.Payload) != "{}" || plain.MaxAttempts != 8 || !plain.RunAt.Equal(now) ||
		!plain.CreatedAt.Equal(now) || !plain.ExpiresAt.IsZero() || plain.Token != 0 || !strings.HasPrefix(plain.ID, "job_") {
		q.Errorf("plain job: %+v", plain)
	}
	j := made[1].Job
	if j.ID != full.ID || j.Tenant != full.Tenant || j.Type != full.Type || string(j.Payload) != string(full.Payload) || j.State != store.Scheduled ||
		!j.RunAt.Equal(full.RunAt) || !j.ExpiresAt.Equal(full.ExpiresAt) || j.MaxAttempts != 3 || j.UniqueKey != full.UniqueKey || j.Causation != full.Causation {
		q.Errorf("full job: %+v", j)
	}
	if made[2].Job.State != store.Ready {
		q.Errorf("a job for a time past is %s", made[2].Job.State)
	}
	q.counts("ACME", store.JobCounts{store.Scheduled: 1})
	q.counts("", store.JobCounts{store.Scheduled: 1, store.Ready: 2})
	if _, err := q.Job(q.ctx, "job_none"); !errors.Is(err, store.ErrNotFound) {
		q.Errorf("no such job: %v", err)
	}
}

func (q *queueTest) enqueueRefuses() {
	q.make(store.NewJob{ID: "job_taken", Tenant: "A", Type: "a"})
	for name, c := range map[string]struct {
		job  store.NewJob
		want error
	}{
		"payload":  {store.NewJob{Type: "a", Payload: json.RawMessage(`"` + strings.Repeat("x", 64<<10) + `"`)}, store.ErrTooLarge},
		"key":      {store.NewJob{Type: "a", UniqueKey: strings.Repeat("x", store.MaxField+1)}, store.ErrTooLarge},
		"not JSON": {store.NewJob{Type: "a", Payload: json.RawMessage(`{`)}, nil},
		"two JSON": {store.NewJob{Type: "a", UniqueKey: "k", Payload: json.RawMessage(`{}{}`)}, nil},
		"no type":  {store.NewJob{}, nil},
		"taken id": {store.NewJob{ID: "job_taken", Tenant: "A", Type: "a"}, store.ErrDuplicate},
	} {
		_, err := q.Enqueue(q.ctx, store.NewJob{Tenant: "A", Type: "a", UniqueKey: "before"}, c.job)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			q.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if errors.Is(err, store.ErrUnavailable) {
			q.Errorf("%s is the caller's fault, not the store's: %v", name, err)
		}
	}
	q.counts("", store.JobCounts{store.Ready: 1})
	if e := q.make(store.NewJob{Tenant: "A", Type: "a", UniqueKey: "before"})[0]; e.Duplicate {
		q.Error("a refused batch left a key behind")
	}
}

func (q *queueTest) uniqueKey() {
	k := store.NewJob{Tenant: "A", Type: "a", Payload: json.RawMessage(`{"x":1,"y":{"b":2,"a":[1,"<>"]}}`), UniqueKey: "k"}
	first := q.make(k)[0].Job
	again := k
	again.Payload = json.RawMessage(`{ "y": {"a": [1, "\u003c>"], "b": 2}, "x": 1 }`)
	if e := q.make(again)[0]; !e.Duplicate || e.Job.ID != first.ID || e.Job.State != store.Ready || e.Job.Type != "a" {
		q.Errorf("same payload in another writing: %+v", e)
	}
	other := k
	other.Tenant = "B"
	if e := q.make(other)[0]; e.Duplicate {
		q.Error("a key of one tenant stood in the way of another's")
	}
	both := q.make(store.NewJob{Tenant: "A", Type: "a", UniqueKey: "twice"}, store.NewJob{Tenant: "A", Type: "a", UniqueKey: "twice"})
	if both[0].Duplicate || !both[1].Duplicate || both[0].Job.ID != both[1].Job.ID {
		q.Errorf("twice in one batch: %+v", both)
	}
	given := store.NewJob{ID: "job_given", Tenant: "A", Type: "a", UniqueKey: "given"}
	q.make(given)
	if e := q.make(given)[0]; !e.Duplicate || e.Job.ID != "job_given" {
		q.Errorf("same id and key again: %+v", e)
	}
	sealed := store.NewJob{Tenant: "A", Type: "a", Payload: json.RawMessage(`{"sealed":"1"}`), UniqueKey: "sealed", KeyHash: "h"}
	q.make(sealed)
	sealed.Payload = json.RawMessage(`{"sealed":"2"}`)
	if e := q.make(sealed)[0]; !e.Duplicate {
		q.Error("an equal KeyHash made a second job")
	}
	j := q.claimAs("w", 1)[0]
	q.end(j, store.Succeeded)
	if e := q.make(k)[0]; !e.Duplicate || e.Job.State != store.Succeeded || e.Job.Token != 1 {
		q.Errorf("after its end: %+v", e)
	}
}

func (q *queueTest) keyReuse() {
	k := store.NewJob{Tenant: "A", Type: "a", Payload: json.RawMessage(`{"x":1}`), UniqueKey: "k"}
	q.make(k)
	for name, change := range map[string]func(*store.NewJob){
		"payload": func(j *store.NewJob) { j.Payload = json.RawMessage(`{"x":2}`) },
		"number":  func(j *store.NewJob) { j.Payload = json.RawMessage(`{"x":10000000000000000000001}`) },
		"type":    func(j *store.NewJob) { j.Type = "b" },
		"hash":    func(j *store.NewJob) { j.KeyHash = "h" },
	} {
		j := k
		change(&j)
		_, err := q.Enqueue(q.ctx, store.NewJob{Tenant: "A", Type: "a", UniqueKey: "new"}, j)
		if !errors.Is(err, store.ErrKeyReuse) {
			q.Errorf("another %s: %v", name, err)
		}
	}
	q.counts("", store.JobCounts{store.Ready: 1})
	if e := q.make(store.NewJob{Tenant: "A", Type: "a", UniqueKey: "new"})[0]; e.Duplicate {
		q.Error("a refused batch left a key behind")
	}
	big := store.NewJob{Tenant: "A", Type: "a", UniqueKey: "big", Payload: json.RawMessage(`{"x":10000000000000000000001}`)}
	q.make(big)
	big.Payload = json.RawMessage(`{"x":10000000000000000000002}`)
	if _, err := q.Enqueue(q.ctx, big); !errors.Is(err, store.ErrKeyReuse) {
		q.Errorf("numbers beyond 2^53 are told apart: %v", err)
	}
}

func (q *queueTest) keyOutlives() {
	k := store.NewJob{Tenant: "A", Type: "a", UniqueKey: "k"}
	id := q.make(k)[0].Job.ID
	q.end(q.claimOne(), store.Succeeded)
	if j, err := q.JobOf(q.ctx, "A", "k"); err != nil || j.ID != id || j.State != store.Succeeded || j.Type != "a" {
		q.Errorf("the job of the key: %+v, %v", j, err)
	}
	for tenant, key := range map[string]string{"A": "other", "B": "k"} {
		if j, err := q.JobOf(q.ctx, tenant, key); !errors.Is(err, store.ErrNotFound) {
			q.Errorf("the job of %s of %s: %+v, %v", key, tenant, j, err)
		}
	}
	q.clock.add(25 * time.Hour)
	if n := q.doPrune(1000); n != 1 {
		q.Errorf("pruned %d, want the job", n)
	}
	if _, err := q.Job(q.ctx, id); !errors.Is(err, store.ErrNotFound) {
		q.Fatalf("the job is still there: %v", err)
	}
	if e := q.make(k)[0]; !e.Duplicate || e.Job.ID != id || e.Job.State != store.Succeeded || e.Job.Token != 1 {
		q.Errorf("after its job was pruned: %+v", e)
	}
	if j, err := q.JobOf(q.ctx, "A", "k"); err != nil || j.ID != id || j.State != store.Succeeded || j.Token != 1 {
		q.Errorf("the job of the key after it was pruned: %+v, %v", j, err)
	}
	other := k
	other.Payload = json.RawMessage(`{"other":true}`)
	if _, err := q.Enqueue(q.ctx, other); !errors.Is(err, store.ErrKeyReuse) {
		q.Errorf("after its job was pruned, with another payload: %v", err)
	}
	q.clock.add(48 * time.Hour)
	if n := q.doPrune(1000); n != 1 {
		q.Errorf("pruned %d, want the key", n)
	}
	if e := q.make(other)[0]; e.Duplicate {
		q.Error("the key was not free 72 h after its job's end")
	}

	// A dead job is kept for 30 days, its key is not.
	q.end(q.claimOne(), store.Dead)
	q.clock.add(73 * time.Hour)
	if n := q.doPrune(1000); n != 1 {
		q.Errorf("pruned %d, want the key of the dead job", n)
	}
	if e := q.make(k)[0]; e.Duplicate {
		q.Error("the dead job's key was not free after 72 h")
	}
	q.counts("A", store.JobCounts{store.Dead: 1, store.Ready: 1})
	if n := q.doPrune(1000); n != 0 {
		q.Errorf("pruned %d again", n)
	}
}

func (q *queueTest) claimFor() {
	e := q.make(store.NewJob{Tenant: "A", Type: "a", ClaimFor: "api", UniqueKey: "k"})[0]
	j := q.state(e.Job.ID, store.Running)
	if j.Owner != "api" || j.Token != 1 || j.Starts != 1 || !j.LeaseUntil.Equal(q.clock.Now().Add(15*time.Second)) || !j.StartedAt.Equal(q.clock.Now()) {
		q.Errorf("claimed job: %+v", j)
	}
	if got := q.claim(10); len(got) != 0 {
		q.Errorf("a worker got the caller's job: %v", ids(got))
	}
	if e := q.make(store.NewJob{Tenant: "A", Type: "a", ClaimFor: "other", UniqueKey: "k"})[0]; !e.Duplicate || e.Job.Owner != "api" {
		q.Errorf("a duplicate was claimed: %+v", e)
	}
	if held := q.doBeat("api", 15*time.Second); len(held) != 1 || held[0].ID != j.ID {
		q.Errorf("the caller holds %v", held)
	}
	q.clock.add(15 * time.Second)
	q.promoted(1)
	again := q.claimOne()
	if again.ID != j.ID || again.Token != 2 || again.Crashes != 1 {
		q.Errorf("after its caller died: %+v", again)
	}
	if q.finish(store.Outcome{ID: j.ID, Token: 1, State: store.Succeeded})[0] {
		q.Error("the caller's token still held")
	}
	q.end(again, store.Succeeded)
	e = q.make(store.NewJob{Tenant: "A", Type: "a", ClaimFor: "api", RunAt: q.clock.Now().Add(time.Hour)})[0]
	if e.Job.State != store.Running {
		q.Errorf("claimed for its caller, for later: %s", e.Job.State)
	}
	q.counts("A", store.JobCounts{store.Succeeded: 1, store.Running: 1})
}
