package storetest

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func (q *queueTest) fence() {
	id := q.one("A")
	if q.finish(store.Outcome{ID: id, State: store.Succeeded})[0] {
		q.Error("a job that nobody claimed was finished")
	}
	old := q.claimOne()
	q.clock.add(16 * time.Second)
	q.promoted(1)
	next := store.NewJob{Tenant: "A", Type: "b"}
	if q.finish(store.Outcome{ID: id, Token: old.Token, State: store.Succeeded, Next: []store.NewJob{next}})[0] {
		q.Error("a job was finished by who had lost it, while it was ready")
	}
	j := q.claimOne()
	if j.Token != old.Token+1 {
		q.Errorf("token %d after %d", j.Token, old.Token)
	}
	held := q.finish(
		store.Outcome{ID: id, Token: old.Token, State: store.Dead, Next: []store.NewJob{next}},
		store.Outcome{ID: "job_none", Token: 1, State: store.Succeeded, Next: []store.NewJob{next}},
		store.Outcome{ID: id, Token: j.Token + 1, State: store.Dead, Next: []store.NewJob{next}},
		store.Outcome{ID: id, Token: j.Token, State: store.Succeeded},
		store.Outcome{ID: id, Token: j.Token, State: store.Dead, Next: []store.NewJob{next}},
	)
	if !slices.Equal(held, []bool{false, false, false, true, false}) {
		q.Errorf("held: %v", held)
	}
	q.state(id, store.Succeeded)
	q.counts("", store.JobCounts{store.Succeeded: 1})

	dead := q.one("A")
	first := q.claimOne()
	q.end(first, store.Dead)
	q.same("retried", q.doRetry(dead), []string{dead})
	second := q.claimOne()
	if second.Token <= first.Token {
		q.Errorf("token %d was used again after a retry", second.Token)
	}
	if q.finish(store.Outcome{ID: dead, Token: first.Token, State: store.Succeeded})[0] {
		q.Error("the token from before the retry still held")
	}
}

// finishMany ends many executions at once, some of which are over, another's by now, or told twice.
func (q *queueTest) finishMany() {
	var ids []string
	for range 6 {
		ids = append(ids, q.one("A"))
	}
	jobs := q.claim(6)
	if len(jobs) != 6 {
		q.Fatalf("%d jobs claimed", len(jobs))
	}
	token := jobs[0].Token
	q.end(jobs[5], store.Succeeded)
	done := func(i int, token int64) store.Outcome {
		return store.Outcome{ID: ids[i], Token: token, State: store.Succeeded}
	}
	held := q.finish(done(0, token), done(1, token+1), done(2, token), done(0, token), done(5, token),
		store.Outcome{ID: "job_none", Token: 1, State: store.Succeeded},
		store.Outcome{ID: ids[3], Token: token, State: store.Succeeded, Result: json.RawMessage(`{"n":3}`)},
		done(3, token), done(4, token))
	if want := []bool{true, false, true, false, false, false, true, false, true}; !slices.Equal(held, want) {
		q.Errorf("held: %v, want %v", held, want)
	}
	q.counts("", store.JobCounts{store.Succeeded: 5, store.Running: 1})
	for i, id := range ids {
		want := store.Succeeded
		if i == 1 {
			want = store.Running
		}
		j := q.state(id, want)
		if ended := !j.EndedAt.IsZero(); ended != (want == store.Succeeded) || (j.Owner == "") != ended {
			q.Errorf("job %d: ended at %v, owner %q", i, j.EndedAt, j.Owner)
		}
	}
}

func (q *queueTest) finishStates() {
	now := q.clock.Now()
	for _, s := range []store.State{store.Succeeded, store.Dead, store.Cancelled, store.Expired, store.Parked} {
		id := q.one("A")
		j := q.claimOne()
		at := now.Add(time.Second)
		o := store.Outcome{ID: id, Token: j.Token, State: s, CountFailed: s == store.Dead, Result: json.RawMessage(`{"wamid":"w"}`)}
		if s == store.Dead {
			o.Error = &store.JobError{At: at, Attempt: 1, Code: "no", Message: "never"}
		}
		q.finish(o)
		j = q.state(id, s)
		if string(j.Result) != `{"wamid":"w"}` || j.Attempt != map[bool]int{true: 1}[s == store.Dead] {
			q.Errorf("%s: %+v", s, j)
		}
		if s == store.Dead && (len(j.Errors) != 1 || j.Errors[0] != *o.Error) {
			q.Errorf("errors: %+v", j.Errors)
		}
	}

	id := q.one("A")
	j := q.claimOne()
	retryAt := now.Add(time.Minute)
	q.finish(store.Outcome{ID: id, Token: j.Token, State: store.Scheduled, RunAt: retryAt, CountFailed: true})
	if j = q.state(id, store.Scheduled); !j.RunAt.Equal(retryAt) || j.Attempt != 1 {
		q.Errorf("retry: %+v", j)
	}
	if next := q.promoted(0); !next.Equal(retryAt) {
		q.Errorf("next due %v, want %v", next, retryAt)
	}
	q.clock.add(time.Minute)
	q.promoted(1)
	j = q.claimOne()
	q.finish(store.Outcome{ID: id, Token: j.Token, State: store.Ready})
	j = q.claimOne()
	if j.Attempt != 1 || j.Starts != 3 || j.Token != 3 {
		q.Errorf("given back: %+v", j)
	}
	q.finish(store.Outcome{ID: id, Token: j.Token, State: store.Scheduled, RunAt: now.Add(-time.Hour)})
	q.state(id, store.Ready)
	q.claimOne()
	q.counts("A", store.JobCounts{store.Succeeded: 1, store.Dead: 1, store.Cancelled: 1, store.Expired: 1, store.Parked: 1, store.Running: 1})

	for name, o := range map[string]store.Outcome{
		"running":      {ID: id, Token: 4, State: store.Running},
		"no state":     {ID: id, Token: 4},
		"no time":      {ID: id, Token: 4, State: store.Scheduled},
		"large result": {ID: id, Token: 4, State: store.Succeeded, Result: json.RawMessage(`"` + strings.Repeat("x", 64<<10) + `"`)},
		"bad next":     {ID: id, Token: 4, State: store.Succeeded, Next: []store.NewJob{{}}},
	} {
		if _, err := q.Finish(q.ctx, o); err == nil || errors.Is(err, store.ErrUnavailable) {
			q.Errorf("outcome %s: %v", name, err)
		}
	}
	q.state(id, store.Running)
}

func (q *queueTest) finishNext() {
	q.make(store.NewJob{Tenant: "A", Type: "b", UniqueKey: "known", Payload: json.RawMessage(`{"x":1}`), RunAt: q.clock.Now().Add(time.Hour)})
	q.make(store.NewJob{ID: "job_known", Tenant: "A", Type: "b", RunAt: q.clock.Now().Add(time.Hour)})
	id := q.one("A")
	j := q.claimOne()
	held := q.finish(store.Outcome{ID: id, Token: j.Token, State: store.Succeeded, Next: []store.NewJob{
		{Tenant: "A", Type: "a", UniqueKey: "known", Payload: json.RawMessage(`{"x":2}`)}, // another payload and type: still known
		{Tenant: "A", Type: "b", UniqueKey: "new", Causation: store.Causation{JobID: id}},
		{Tenant: "A", Type: "b", UniqueKey: "new", Payload: json.RawMessage(`{"x":3}`)},
		{ID: "job_known", Tenant: "A", Type: "b"},
		{Tenant: "B", Type: "b"},
	}})
	if !held[0] {
		q.Fatal("refused")
	}
	q.counts("A", store.JobCounts{store.Succeeded: 1, store.Ready: 1, store.Scheduled: 2})
	q.counts("B", store.JobCounts{store.Ready: 1})
	for _, j := range q.claim(10) {
		if j.Tenant == "A" && (j.UniqueKey != "new" || j.Causation.JobID != id || string(j.Payload) != "{}") {
			q.Errorf("caused: %+v", j)
		}
	}
}

func (q *queueTest) lastErrors() {
	id := q.one("A")
	for i := range 12 {
		j := q.claimOne()
		q.finish(store.Outcome{ID: id, Token: j.Token, State: store.Ready, CountFailed: true,
			Error: &store.JobError{At: q.clock.Now(), Attempt: i + 1, Code: "c", Message: "m"}})
	}
	j := q.job(id)
	if len(j.Errors) != 10 || j.Errors[0].Attempt != 3 || j.Errors[9].Attempt != 12 || j.Attempt != 12 {
		q.Errorf("after twelve failures: %+v", j)
	}
}
