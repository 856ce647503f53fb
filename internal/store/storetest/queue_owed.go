package storetest

import (
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// owed: what ended by itself is owed to its domain until that was told, in one commit with what follows.
func (q *queueTest) owed() {
	told := 0
	q.Listen(store.Listener{Owed: func() { told++ }})
	owed := func(types ...string) []string {
		q.Helper()
		jobs, err := q.Owed(q.ctx, types, 100)
		return ids(must(q.T, jobs, err))
	}
	tell := func(t ...store.Told) {
		q.Helper()
		if err := q.Told(q.ctx, t...); err != nil {
			q.Fatal(err)
		}
	}
	soon := q.clock.Now().Add(time.Minute)
	poison := q.one("A")
	for range 3 {
		q.claimOne()
		if got := owed(allTypes...); len(got) != 0 || told != 0 {
			q.Errorf("owed before the end: %v, told %d times", got, told)
		}
		q.clock.add(16 * time.Second)
		q.doPromote()
	}
	q.state(poison, store.Dead)
	ready := q.make(store.NewJob{Tenant: "A", Type: "a", ExpiresAt: soon})[0].Job.ID
	scheduled := q.make(store.NewJob{Tenant: "A", Type: "b", RunAt: soon, ExpiresAt: soon})[0].Job.ID
	running := q.make(store.NewJob{Tenant: "A", Type: "a", ExpiresAt: soon, ClaimFor: "gone"})[0].Job.ID
	asked := q.make(store.NewJob{Tenant: "A", Type: "a", ExpiresAt: soon, ClaimFor: "gone"})[0].Job.ID
	q.doCancel(asked)
	said := q.make(store.NewJob{Tenant: "A", Type: "a", ClaimFor: "w"})[0].Job
	q.end(said, store.Dead) // its outcome said what follows
	q.clock.add(time.Minute)
	told = 0
	q.doPromote()
	q.state(asked, store.Cancelled)
	if told == 0 {
		q.Error("nobody was told of what expired")
	}
	q.same("of both types", owed(allTypes...), []string{poison, ready, scheduled, running})
	q.same("of one type", owed("b"), []string{scheduled})
	q.same("of no type", owed(), nil)
	if jobs, err := q.Owed(q.ctx, allTypes, 2); err != nil || len(jobs) != 2 || jobs[0].State != store.Dead || jobs[1].State != store.Expired {
		q.Errorf("two of them: %v, %v", jobs, err)
	}

	tell(store.Told{ID: poison, Next: []store.NewJob{{Tenant: "A", Type: "a", UniqueKey: "k"}}}, store.Told{ID: scheduled})
	q.same("the others", owed(allTypes...), []string{ready, running})
	again := store.NewJob{Tenant: "A", Type: "a", UniqueKey: "k2"}
	tell(store.Told{ID: poison, Next: []store.NewJob{again}}, store.Told{ID: said.ID, Next: []store.NewJob{again}}, store.Told{ID: "job_none", Next: []store.NewJob{again}})
	tell(store.Told{ID: ready, Next: []store.NewJob{{Tenant: "A", Type: "b", UniqueKey: "k"}}}) // what was told already, whatever it was
	q.counts("A", store.JobCounts{store.Dead: 2, store.Expired: 3, store.Cancelled: 1, store.Ready: 1})
	if err := q.Told(q.ctx, store.Told{ID: running, Next: []store.NewJob{{Tenant: "A"}}}); err == nil {
		q.Error("a job without a type was made")
	}
	q.same("what could not be told", owed(allTypes...), []string{running})
	q.doRetry(running)
	q.same("sent back to work", owed(allTypes...), nil)

	q.make(store.NewJob{Tenant: "B", Type: "a", ExpiresAt: q.clock.Now().Add(time.Second)})
	q.clock.add(time.Second)
	q.doPromote()
	q.clock.add(8 * 24 * time.Hour)
	q.doPrune(100)
	q.same("pruned", owed(allTypes...), nil)
}
