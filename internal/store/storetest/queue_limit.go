package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// many makes n ready jobs in a lane.
func (q *queueTest) many(n int, lane string, edit ...func(i int, nj *store.NewJob)) {
	q.Helper()
	tenant, resource, class := store.SplitLane(lane)
	jobs := make([]store.NewJob, n)
	for i := range jobs {
		jobs[i] = store.NewJob{Tenant: tenant, Resource: resource, Class: class, Type: "a"}
		for _, f := range edit {
			f(i, &jobs[i])
		}
	}
	q.make(jobs...)
}

// started is when jobs of a lane were claimed.
type started map[string][]time.Duration

// drive claims and ends for a while, whenever the queue says so and never otherwise, and gives when jobs started.
func (q *queueTest) drive(r store.ClaimRequest, d time.Duration) started {
	q.Helper()
	r.Owner, r.Lease, r.Types = "w1", time.Minute, allTypes
	if r.Limit == 0 {
		r.Limit = 1000
	}
	at := started{}
	began := q.clock.Now()
	for end := began.Add(d); q.clock.Now().Before(end); {
		q.doPromote()
		for _, j := range q.doClaim(r) {
			at[j.Lane] = append(at[j.Lane], q.clock.Now().Sub(began))
			q.end(j, store.Succeeded)
		}
		_, next := q.doPromote()
		if next.IsZero() || next.After(end) {
			next = end
		}
		if !next.After(q.clock.Now()) {
			q.Fatalf("the queue says that something is due at %v, and it is not", next)
		}
		q.clock.add(next.Sub(q.clock.Now()))
	}
	return at
}

// atMost holds starts to a rate: in no span of time are there more than its burst and what the span itself allows.
func (q *queueTest) atMost(what string, at []time.Duration, r store.Rate) {
	q.Helper()
	slices.Sort(at)
	for i := range at {
		for k := i; k < len(at); k++ {
			if n := k - i + 1; time.Duration(n-r.Burst)*r.Every > at[k]-at[i]+time.Millisecond {
				q.Errorf("%s: %d started in %v, of at most one each %v and %d at once", what, n, at[k]-at[i], r.Every, r.Burst)
				return
			}
		}
	}
}

// A resource's rate holds over every span of time, is used up whole, and costs nobody else a thing.
func (q *queueTest) rate() {
	rate := store.Rate{Every: time.Second / 70, Burst: 5}
	r := store.ClaimRequest{Bounds: func(tenant, resource string) store.Bounds {
		if resource == "wa:1" {
			return store.Bounds{Rate: rate}
		}
		return store.Bounds{}
	}}
	q.many(1000, "A/wa:1/normal")
	q.many(1000, "B/wa:1/normal")
	q.many(50, "A/internal/normal")
	at := q.drive(r, 10*time.Second)
	if n := at["A/internal/normal"]; len(n) != 50 || n[49] != 0 {
		q.Errorf("what has no rate started at %v", n)
	}
	for _, lane := range []string{"A/wa:1/normal", "B/wa:1/normal"} {
		q.atMost(lane, at[lane], rate)
		if n := len(at[lane]); n < 700 || n > 705 {
			q.Errorf("%s: %d started in 10 s at 70/s", lane, n)
		}
	}
	// A while of none gives the burst, and no more.
	q.clock.add(time.Hour)
	if n := len(q.drive(r, time.Millisecond)["A/wa:1/normal"]); n != 5 {
		q.Errorf("%d at once after a while of none", n)
	}
	ls, err := q.Lanes(q.ctx, "A/internal", 1)
	if must(q.T, 0, err); len(ls) != 1 || !ls[0].LimitedUntil.After(q.clock.Now()) || ls[0].LimitedUntil.After(q.clock.Now().Add(time.Second)) || ls[0].Pause != nil {
		q.Errorf("lanes %+v", ls)
	}
	// Without the rate it is as if there had been none, once what it holds back is due.
	q.clock.add(time.Second)
	if got := q.claim(1000); len(got) < 500 {
		q.Errorf("claimed %d", len(got))
	}
}

// Lanes of one resource share its rate, and who waits has a fifth of it whatever else there is.
func (q *queueTest) rateShared() {
	rate := store.Rate{Every: 10 * time.Millisecond, Burst: 5}
	r := store.ClaimRequest{Bounds: func(_, resource string) store.Bounds { return store.Bounds{Rate: rate} }}
	lanes := []string{"A/wa:1/normal", "A/wa:1/bulk", "A/wa:1/maintenance"}
	q.many(1000, lanes[1])
	q.many(1000, lanes[2])
	at := q.drive(r, 2*time.Second)
	patient := append(slices.Clone(at[lanes[1]]), at[lanes[2]]...)
	q.atMost("patient ones", patient, store.Rate{Every: rate.Every * 5 / 4, Burst: 4})
	if n := len(patient); n < 155 || n > 164 {
		q.Errorf("%d patient ones of 200 in 2 s, want four fifths", n)
	}
	// While a campaign runs, an answer starts at once.
	for range 10 {
		q.drive(r, 100*time.Millisecond)
		id := q.make(store.NewJob{Tenant: "A", Resource: "wa:1", Class: store.Interactive, Type: "a"})[0].Job.ID
		q.drive(r, 25*time.Millisecond)
		q.state(id, store.Succeeded)
	}
	q.many(1000, lanes[0])
	at = q.drive(r, 2*time.Second)
	q.atMost("all", slices.Concat(at[lanes[0]], at[lanes[1]], at[lanes[2]]), rate)
	if all := len(at[lanes[0]]) + len(at[lanes[1]]) + len(at[lanes[2]]); all < 195 || all > 205 {
		q.Errorf("%d in 2 s at 100/s", all)
	}
}

// Jobs of one pair wait for each other alone, in their order, at no cost, each for its own moment.
func (q *queueTest) ratePairs() {
	pair := store.Rate{Every: 6 * time.Second, Burst: 3}
	r := store.ClaimRequest{Bounds: func(_, resource string) store.Bounds {
		if resource == "mail" {
			return store.Bounds{}
		}
		return store.Bounds{Pair: pair}
	}}
	var mine []string
	for range 8 {
		mine = append(mine, q.make(store.NewJob{Tenant: "A", Resource: "wa:1", Pair: "ana", Type: "a"})[0].Job.ID)
	}
	q.many(20, "A/wa:1/normal", func(i int, nj *store.NewJob) { nj.Pair = fmt.Sprint(i) })
	q.many(2, "A/wa:1/normal")
	for _, lane := range []string{"A/wa:2/normal", "B/wa:1/normal", "A/mail/normal"} {
		q.many(5, lane, func(_ int, nj *store.NewJob) { nj.Pair = "ana" })
	}
	r.Owner, r.Limit, r.Lease, r.Types = "w1", 1000, time.Minute, allTypes
	n := map[string]int{}
	for _, j := range q.doClaim(r) {
		if n[j.Lane]++; j.Pair == "" && n[j.Lane] < 23 || j.Attempt != 0 || j.Token != 1 {
			q.Errorf("%+v", j)
		}
		q.end(j, store.Succeeded)
	}
	if fmt.Sprint(n) != "map[A/mail/normal:5 A/wa:1/normal:25 A/wa:2/normal:3 B/wa:1/normal:3]" {
		q.Errorf("started at once: %v", n)
	}
	for i, id := range mine[3:] {
		if j := q.state(id, store.Scheduled); !j.RunAt.Equal(q.clock.Now().Add(time.Duration(i+1)*pair.Every)) || j.Attempt != 0 || j.Starts != 0 || j.Token != 0 {
			q.Errorf("put off: %+v", j)
		}
	}
	q.counts("A", store.JobCounts{store.Scheduled: 7, store.Succeeded: 33})
	began := q.clock.Now()
	at := q.drive(r, 31*time.Second)
	if got := at["A/wa:1/normal"]; fmt.Sprint(got) != "[6s 12s 18s 24s 30s]" {
		q.Errorf("started at %v", got)
	}
	for i, id := range mine[3:] {
		if j := q.job(id); !j.StartedAt.Equal(began.Add(time.Duration(i+1) * pair.Every)) {
			q.Errorf("%d started at %v", i, j.StartedAt)
		}
	}
	// Very many for one hold nobody up.
	q.many(3000, "A/wa:1/normal", func(_ int, nj *store.NewJob) { nj.Pair = "bob" })
	other := q.make(store.NewJob{Tenant: "A", Resource: "wa:1", Pair: "eva", Type: "a"})[0].Job.ID
	for range 4 {
		for _, j := range q.doClaim(r) {
			q.end(j, store.Succeeded)
		}
	}
	q.state(other, store.Succeeded)
	q.counts("A", store.JobCounts{store.Scheduled: 2997, store.Succeeded: 33 + 7 + 1 + 3})
}

// Take draws from the same well as claims, for who sends many in one job.
func (q *queueTest) take() {
	rate := store.Rate{Every: 100 * time.Millisecond, Burst: 10}
	take := func(key string, n, want int, wantWait time.Duration) {
		q.Helper()
		got, wait, err := q.Take(q.ctx, key, rate, n)
		if must(q.T, 0, err); got != want || wait != wantWait {
			q.Errorf("%d of %s: granted %d, wait %v; want %d, %v", n, key, got, wait, want, wantWait)
		}
	}
	take("A/mail", 4, 4, 0)
	take("A/mail", 7, 6, 100*time.Millisecond)
	take("A/mail", 1, 0, 100*time.Millisecond)
	take("B/mail", 20, 10, 100*time.Millisecond)
	take("A/mail", 0, 0, 0)
	q.clock.add(250 * time.Millisecond)
	take("A/mail", 5, 2, 50*time.Millisecond)
	q.many(20, "A/mail/normal")
	r := store.ClaimRequest{Bounds: func(string, string) store.Bounds { return store.Bounds{Rate: rate} }}
	at := q.drive(r, time.Second)["A/mail/normal"]
	if len(at) != 10 || at[0] != 50*time.Millisecond {
		q.Errorf("claimed at %v", at)
	}
	take("A/mail", 1, 0, 50*time.Millisecond)
	q.clock.add(time.Minute)
	take("A/mail", 20, 10, 100*time.Millisecond)
	if got, wait, err := q.Take(q.ctx, "A/mail", store.Rate{}, 1000); err != nil || got != 1000 || wait != 0 {
		q.Errorf("without a limit: %d, %v, %v", got, wait, err)
	}
	for _, n := range []int{-1} {
		if _, _, err := q.Take(q.ctx, "A/mail", rate, n); err == nil {
			q.Errorf("%d were taken", n)
		}
	}
	q.clock.add(999 * time.Millisecond)
	q.doPrune(100)
	take("A/mail", 10, 9, time.Millisecond)
}
