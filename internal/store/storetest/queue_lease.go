package storetest

import (
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func (q *queueTest) beat() {
	a, b := q.one("A"), q.one("B")
	q.claimAs("w1", 1)
	q.claimAs("w2", 1)
	q.clock.add(10 * time.Second)
	if held := q.doBeat("w1", 15*time.Second); len(held) != 1 || held[0] != (store.Held{ID: a, Token: 1}) {
		q.Errorf("w1 holds %v", held)
	}
	if j := q.job(a); !j.LeaseUntil.Equal(q.clock.Now().Add(15 * time.Second)) {
		q.Errorf("lease until %v", j.LeaseUntil)
	}
	q.clock.add(5 * time.Second)
	q.promoted(1)
	q.state(a, store.Running)
	q.state(b, store.Ready)
	if held := q.doBeat("w2", 15*time.Second); len(held) != 0 {
		q.Errorf("w2 still holds %v", held)
	}
	q.same("asked", q.doCancel(a), []string{a})
	if held := q.doBeat("w1", 15*time.Second); len(held) != 1 || held[0] != (store.Held{ID: a, Token: 1, Cancel: true}) {
		q.Errorf("w1 holds %v, asked to cancel", held)
	}
}

func (q *queueTest) leaseRunsOut() {
	id, asked := q.one("A"), q.one("A")
	q.claim(10)
	q.doCancel(asked)
	q.clock.add(15*time.Second - time.Millisecond)
	q.promoted(0)
	q.state(id, store.Running)
	q.clock.add(time.Millisecond)
	q.promoted(1)
	j := q.state(id, store.Ready)
	if j.Crashes != 1 || j.Attempt != 0 || j.Token != 1 {
		q.Errorf("taken back: %+v", j)
	}
	q.state(asked, store.Cancelled)
	q.counts("A", store.JobCounts{store.Ready: 1, store.Cancelled: 1})
	if j := q.claimOne(); j.Token != 2 || j.Starts != 2 {
		q.Errorf("claimed again: %+v", j)
	}
}

func (q *queueTest) poison() {
	id := q.one("A")
	for range 3 {
		q.claimOne()
		q.clock.add(16 * time.Second)
		q.doPromote()
	}
	j := q.state(id, store.Dead)
	if j.Crashes != 3 || j.Starts != 3 || len(j.Errors) != 1 || j.Errors[0].Code != "poison" || !j.Errors[0].At.Equal(q.clock.Now()) {
		q.Errorf("poison: %+v", j)
	}
	if got := q.claim(10); len(got) != 0 {
		q.Errorf("poison was claimed: %v", ids(got))
	}
	q.counts("A", store.JobCounts{store.Dead: 1})
	q.doRetry(id)
	q.claimOne()
	q.clock.add(16 * time.Second)
	q.promoted(1) // by hand sent back: three more chances
	q.state(id, store.Ready)
}

func (q *queueTest) promote() {
	now := q.clock.Now()
	if next := q.promoted(0); !next.IsZero() {
		q.Errorf("next due %v with none scheduled", next)
	}
	var jobs []store.NewJob
	for i := range 1200 {
		jobs = append(jobs, store.NewJob{Tenant: "A", Type: "a", RunAt: now.Add(time.Duration(i+1) * time.Millisecond)})
	}
	q.make(jobs...)
	last := q.make(store.NewJob{Tenant: "A", Type: "a", RunAt: now.Add(time.Hour)})[0].Job
	if got := q.claim(10); len(got) != 0 {
		q.Errorf("claimed before they were due: %v", ids(got))
	}
	q.clock.add(1200 * time.Millisecond)
	if next := q.promoted(1200); !next.Equal(last.RunAt) {
		q.Errorf("next due %v, want %v", next, last.RunAt)
	}
	q.counts("A", store.JobCounts{store.Ready: 1200, store.Scheduled: 1})
	q.clock.add(time.Hour)
	if next := q.promoted(1); !next.IsZero() {
		q.Errorf("next due %v with none scheduled", next)
	}
}

func (q *queueTest) expire() {
	now := q.clock.Now()
	soon, late := now.Add(time.Minute), now.Add(time.Hour)
	ready := q.make(store.NewJob{Tenant: "A", Type: "a", ExpiresAt: soon})[0].Job.ID
	scheduled := q.make(store.NewJob{Tenant: "A", Type: "a", RunAt: now.Add(30 * time.Minute), ExpiresAt: soon})[0].Job.ID
	both := q.make(store.NewJob{Tenant: "A", Type: "a", RunAt: soon, ExpiresAt: soon})[0].Job.ID
	running := q.make(store.NewJob{Tenant: "B", Type: "a", ExpiresAt: soon, ClaimFor: "w"})[0].Job.ID
	good := q.make(store.NewJob{Tenant: "A", Type: "a", ExpiresAt: late})[0].Job.ID
	q.clock.add(time.Minute)
	q.doBeat("w", 2*time.Hour)
	q.same("a claim passes over what is too late", ids(q.claim(10)), []string{good})
	q.state(ready, store.Expired)
	q.promoted(0)
	q.state(scheduled, store.Expired)
	q.state(both, store.Expired)
	q.state(running, store.Running)
	q.counts("A", store.JobCounts{store.Expired: 3, store.Running: 1})

	q.make(store.NewJob{Tenant: "B", Type: "a", ExpiresAt: late})
	q.clock.add(time.Hour)
	q.promoted(0)
	q.counts("B", store.JobCounts{store.Expired: 1, store.Running: 1})
	if j := q.state(good, store.Expired); j.Crashes != 1 { // its lease ran out, and it is too late for another start
		q.Errorf("taken back too late: %+v", j)
	}
	q.doRetry(good)
	q.same("an expired job sent back by hand", ids(q.claim(10)), []string{good})

	many := make([]store.NewJob, 2500)
	for i := range many {
		many[i] = store.NewJob{Tenant: "C", Type: "a", ExpiresAt: q.clock.Now().Add(time.Second)}
	}
	q.make(many...)
	last := q.one("C")
	q.clock.add(time.Second)
	q.same("behind very many that are too late", ids(q.claim(100)), []string{last})
	q.promoted(0)
	q.counts("C", store.JobCounts{store.Expired: 2500, store.Running: 1})
}

func (q *queueTest) release() {
	a, b, asked := q.one("A"), q.one("B"), q.one("C")
	for range 3 {
		q.claimAs("w1", 1)
	}
	other := q.one("A")
	q.claimAs("w2", 1)
	q.doCancel(asked)
	if n := q.doRelease("w1"); n != 3 {
		q.Errorf("released %d, want 3", n)
	}
	for _, id := range []string{a, b} {
		if j := q.state(id, store.Ready); j.Attempt != 0 || j.Crashes != 0 || j.Token != 1 {
			q.Errorf("released: %+v", j)
		}
	}
	q.state(asked, store.Cancelled)
	q.state(other, store.Running)
	if q.finish(store.Outcome{ID: a, Token: 1, State: store.Succeeded})[0] {
		q.Error("a released job was finished")
	}
	q.counts("", store.JobCounts{store.Ready: 2, store.Running: 1, store.Cancelled: 1})
}
