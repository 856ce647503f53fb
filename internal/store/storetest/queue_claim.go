package storetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// mainLane is the lane of a tenant's jobs that say nothing about theirs.
func mainLane(tenant string) string { return store.LaneName(tenant, "", "") }

func (q *queueTest) claimOrder() {
	now := q.clock.Now()
	var want []string
	for i := range 5 {
		want = append(want, q.make(store.NewJob{Tenant: "A", Type: "a", RunAt: now.Add(-time.Hour + time.Duration(i)*time.Minute)})[0].Job.ID)
	}
	for range 5 { // of the same time: in the order they were made
		want = append(want, q.one("A"))
	}
	early := q.make(store.NewJob{Tenant: "A", Type: "a", RunAt: now.Add(-2 * time.Hour)})[0].Job.ID
	want = append([]string{early}, want...)

	got := q.claim(4)
	q.same("first four", ids(got), want[:4])
	for _, j := range got {
		if j.State != store.Running || j.Token != 1 || j.Starts != 1 || j.Owner != "w1" || !j.LeaseUntil.Equal(now.Add(15*time.Second)) || !j.StartedAt.Equal(now) {
			q.Errorf("claimed: %+v", j)
		}
		if s := q.job(j.ID); fmt.Sprintf("%+v", s) != fmt.Sprintf("%+v", j) {
			q.Errorf("claimed %+v, stored %+v", j, s)
		}
	}
	q.same("the rest", ids(q.claim(100)), want[4:])
	if got := q.claim(10); len(got) != 0 {
		q.Errorf("claimed twice: %v", ids(got))
	}
	q.counts("A", store.JobCounts{store.Running: int64(len(want))})
}

func (q *queueTest) claimTypes() {
	for range 50 {
		q.make(store.NewJob{Tenant: "A", Type: "unknown"})
	}
	q.make(store.NewJob{Tenant: "A", Type: "b"})
	q.make(store.NewJob{Tenant: "B", Type: "unknown"})
	q.make(store.NewJob{Tenant: "C", Type: "a"})
	request := store.ClaimRequest{Owner: "w", Limit: 10, Lease: time.Second}
	if got := q.doClaim(request); len(got) != 0 {
		q.Errorf("a worker that knows no type got %v", ids(got))
	}
	if got := q.claim(10); len(got) != 2 {
		q.Errorf("claimed %d, want the b behind the unknown ones and the a", len(got))
	}
	if got := q.claim(10); len(got) != 0 {
		q.Errorf("claimed %v", ids(got))
	}
	q.counts("", store.JobCounts{store.Running: 2, store.Ready: 51})
	id := q.one("B") // its lane is known to hold nothing for us
	q.same("a new job behind unknown ones", ids(q.claim(10)), []string{id})
	request.Types, request.Limit = []string{"unknown"}, 100
	if got := q.doClaim(request); len(got) != 51 {
		q.Errorf("who knows the type claimed %d of 51", len(got))
	}
}

func (q *queueTest) lanesInTurn() {
	backlog := make([]store.NewJob, 500)
	for i := range backlog {
		backlog[i] = store.NewJob{Tenant: "A", Type: "a"}
	}
	q.make(backlog...)
	// A alone may take every slot.
	if got := q.claim(64); len(got) != 64 {
		q.Fatalf("claimed %d of 64 with one lane", len(got))
	}
	for _, tenant := range []string{"B", "C"} {
		q.one(tenant)
	}
	lanes := map[string]int{}
	for _, j := range q.claim(8) {
		lanes[j.Tenant]++
	}
	if lanes["B"] != 1 || lanes["C"] != 1 || lanes["A"] != 6 {
		q.Errorf("eight slots went to %v; want all of B and C, and the rest to A", lanes)
	}
	// Two backlogs share.
	for i := range backlog {
		backlog[i].Tenant = "B"
	}
	q.make(backlog...)
	clear(lanes)
	for range 25 {
		for _, j := range q.claim(8) {
			lanes[j.Tenant]++
		}
	}
	if lanes["A"] < 90 || lanes["B"] < 90 {
		q.Errorf("200 slots went to %v, want halves", lanes)
	}
	// With more lanes than slots, each gets its turn.
	clear(lanes)
	for i := range 40 {
		q.one(fmt.Sprintf("T%02d", i))
	}
	for range 10 {
		for _, j := range q.claim(8) {
			lanes[j.Tenant]++
		}
	}
	for i := range 40 {
		if lanes[fmt.Sprintf("T%02d", i)] != 1 {
			q.Errorf("after 80 slots: %v", lanes)
			break
		}
	}
}

// A worker that bounds what it does for one tenant at once leaves its other slots to others.
func (q *queueTest) tenantsShare() {
	many := make([]store.NewJob, 200)
	for i := range many {
		many[i] = store.NewJob{Tenant: "A", Type: "a"}
	}
	q.make(many...)
	r := store.ClaimRequest{Owner: "w", Limit: 16, Lease: time.Minute, Types: allTypes, MaxPerTenant: 8}
	if got := q.doClaim(r); len(got) != 8 {
		q.Errorf("claimed %d of 16 slots for one tenant, want 8", len(got))
	}
	r.Limit, r.Held = 8, map[string]int{mainLane("A"): 8}
	if got := q.doClaim(r); len(got) != 0 {
		q.Errorf("claimed %d beyond the bound", len(got))
	}
	b := q.one("B")
	system := q.make(slices.Repeat([]store.NewJob{{Type: "a"}}, 12)...)
	r.Limit = 8
	got := q.doClaim(r)
	if len(got) != 8 || !slices.Contains(ids(got), b) {
		q.Errorf("claimed %v, want %s among eight", ids(got), b)
	}
	r.Limit, r.Held = 20, map[string]int{mainLane("A"): 7, mainLane("B"): 1, mainLane(""): 7}
	n := map[string]int{}
	for _, j := range q.doClaim(r) {
		n[j.Tenant]++
	}
	if n["A"] != 1 || n[""] != len(system)-7 {
		q.Errorf("claimed %v; want one of A, and all of no tenant", n)
	}
	r.MaxPerTenant, r.Held = 0, nil
	if got := q.doClaim(r); len(got) != 20 {
		q.Errorf("claimed %d without a bound", len(got))
	}
}

// What hangs in a tenant's slow lanes leaves workers to its main lane, to its other slow lanes, and to other tenants.
func (q *queueTest) slowLanes() {
	many := func(n int, tenant, resource string) {
		jobs := make([]store.NewJob, n)
		for i := range jobs {
			jobs[i] = store.NewJob{Tenant: tenant, Resource: resource, Type: "a"}
		}
		q.make(jobs...)
	}
	r := store.ClaimRequest{Owner: "w", Limit: 16, Lease: time.Minute, Types: allTypes, MaxPerTenant: 8, Held: map[string]int{}, Bounds: func(tenant, resource string) store.Bounds {
		if resource == store.Internal || tenant == "" {
			return store.Bounds{}
		}
		return store.Bounds{Running: 3, Slow: true}
	}}
	running := map[string][]store.Job{}
	claim := func(what string, want map[string]int) {
		q.Helper()
		got := map[string]int{} // by TENANT/RESOURCE
		for _, j := range q.doClaim(r) {
			if s := q.job(j.ID); s.Lane != j.Lane {
				q.Errorf("claimed in lane %q, stored in %q", j.Lane, s.Lane)
			}
			lane := strings.TrimSuffix(j.Lane, "/normal")
			got[lane]++
			r.Held[j.Lane]++
			running[lane] = append(running[lane], j)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			q.Errorf("%s: claimed %v, want %v", what, got, want)
		}
	}
	many(60, "A", "hook")
	claim("one slow lane", map[string]int{"A/hook": 3})
	many(12, "A", "file")
	claim("another", map[string]int{"A/file": 1})
	many(5, "A", "mail")
	claim("half of the share is taken", map[string]int{})
	many(40, "A", "")
	many(2, "B", "hook")
	many(1, "B", "")
	claim("the main lane and the others", map[string]int{"A/internal": 4, "B/internal": 1, "B/hook": 2})
	end := func(lane string) {
		q.end(running[lane][0], store.Succeeded)
		running[lane] = running[lane][1:]
		r.Held[lane+"/normal"]--
	}
	end("A/internal")
	claim("as much as ended", map[string]int{"A/internal": 1})
	for range 2 { // the slow ones take turns, too
		end("A/hook")
		for _, j := range q.doClaim(r) {
			r.Held[j.Lane]++
		}
	}
	if r.Held["A/hook/normal"] != 1 || r.Held["A/file/normal"] != 2 || r.Held["A/mail/normal"] != 1 {
		q.Errorf("two slots of slow lanes went so that they have %v", r.Held)
	}
	many(9, "", "slow")
	claim("of no tenant", map[string]int{"/slow": 9})
	q.counts("A", store.JobCounts{store.Running: 8, store.Succeeded: 3, store.Ready: 60 + 12 + 5 + 40 - 11})
	r.MaxPerTenant, r.Bounds, r.Limit = 0, nil, 200
	if got := q.doClaim(r); len(got) != 60+12+5+40-11 {
		q.Errorf("claimed %d without a bound", len(got))
	}
}

func (q *queueTest) noCredit() {
	many := func(tenant string) []store.NewJob {
		jobs := make([]store.NewJob, 300)
		for i := range jobs {
			jobs[i] = store.NewJob{Tenant: tenant, Type: "a"}
		}
		return jobs
	}
	q.one("B")
	q.claim(1)
	q.make(many("A")...)
	for range 25 {
		q.claim(8)
	}
	q.make(many("B")...) // B was idle while A had 200 turns
	lanes := map[string]int{}
	for range 20 {
		for _, j := range q.claim(4) { // one lane's turn
			lanes[j.Tenant]++
		}
	}
	if lanes["A"] < 30 {
		q.Errorf("80 slots went to %v: who was idle had hoarded its turns", lanes)
	}
}

func (q *queueTest) concurrentKey() {
	var wg sync.WaitGroup
	made := make([]store.Enqueued, 32)
	for i := range made {
		wg.Go(func() {
			es, err := q.Enqueue(q.ctx, store.NewJob{Tenant: "A", Type: "a"}, store.NewJob{Tenant: "A", Type: "a", UniqueKey: "k"})
			if err != nil {
				q.Error(err)
				return
			}
			made[i] = es[1]
		})
	}
	wg.Wait()
	fresh := 0
	for _, e := range made {
		if !e.Duplicate {
			fresh++
		}
		if e.Job.ID != made[0].Job.ID {
			q.Errorf("two jobs of one key: %s, %s", e.Job.ID, made[0].Job.ID)
		}
	}
	if fresh != 1 {
		q.Errorf("%d callers were told that they made it", fresh)
	}
	q.counts("A", store.JobCounts{store.Ready: 33})
}

func (q *queueTest) concurrentWorkers() {
	const jobs = 400
	var mu sync.Mutex
	ran := map[string]int{}
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for i := range jobs / 4 {
				if _, err := q.Enqueue(q.ctx, store.NewJob{Tenant: fmt.Sprintf("T%d", i%7), Type: "a", UniqueKey: fmt.Sprint(p, i)}); err != nil {
					q.Error(err)
				}
			}
		})
	}
	deadline := time.Now().Add(time.Minute)
	for w := range 4 {
		wg.Go(func() {
			for time.Now().Before(deadline) {
				got, err := q.Claim(q.ctx, store.ClaimRequest{Owner: fmt.Sprint(w), Limit: 5, Lease: time.Minute, Types: allTypes})
				if err != nil {
					q.Error(err)
					return
				}
				mu.Lock()
				for _, j := range got {
					ran[j.ID]++
				}
				done := len(ran) == jobs
				mu.Unlock()
				for _, j := range got {
					held, err := q.Finish(q.ctx, store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded})
					if err != nil || !held[0] {
						q.Errorf("finish: %v %v", held, err)
					}
				}
				if done {
					return
				}
			}
		})
	}
	wg.Wait()
	for id, n := range ran {
		if n != 1 {
			q.Errorf("%s ran %d times", id, n)
		}
	}
	q.counts("", store.JobCounts{store.Succeeded: jobs})
}
