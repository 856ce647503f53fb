package storetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func (q *queueTest) retry() {
	ends := map[store.State]string{}
	for _, s := range []store.State{store.Dead, store.Cancelled, store.Expired, store.Parked, store.Succeeded} {
		id := q.make(store.NewJob{Tenant: "A", Type: "a", UniqueKey: string(s)})[0].Job.ID
		j := q.claimOne()
		q.finish(store.Outcome{ID: id, Token: j.Token, State: s, CountFailed: true, Error: &store.JobError{At: q.clock.Now(), Code: "x"}})
		ends[s] = id
	}
	running := q.one("A")
	q.claim(1)
	ready := q.one("B")
	q.clock.add(time.Minute)
	want := []string{ends[store.Dead], ends[store.Cancelled], ends[store.Expired], ends[store.Parked]}
	q.same("retried", q.doRetry(append(want, ends[store.Succeeded], running, ready, "job_none")...), want)
	for _, id := range want {
		if j := q.state(id, store.Ready); j.Attempt != 0 || j.Token != 1 || len(j.Errors) != 1 || !j.RunAt.Equal(q.clock.Now()) {
			q.Errorf("sent back: %+v", j)
		}
	}
	q.counts("A", store.JobCounts{store.Ready: 4, store.Succeeded: 1, store.Running: 1})
	if e := q.make(store.NewJob{Tenant: "A", Type: "a", UniqueKey: "dead"})[0]; !e.Duplicate {
		q.Error("a retried job lost its key")
	}

	// Its key was freed meanwhile: it takes it again, unless another job has it.
	for _, j := range q.claim(10) {
		if j.Tenant == "A" {
			q.end(j, store.Dead)
		}
	}
	q.clock.add(73 * time.Hour)
	q.doPrune(1000)
	taken := q.make(store.NewJob{Tenant: "A", Type: "a", UniqueKey: "expired"})[0]
	if taken.Duplicate {
		q.Fatal("the key was not free")
	}
	q.doRetry(ends[store.Dead], ends[store.Expired])
	if e := q.make(store.NewJob{Tenant: "A", Type: "a", UniqueKey: "dead"})[0]; !e.Duplicate || e.Job.ID != ends[store.Dead] {
		q.Errorf("the key was not taken again: %+v", e)
	}
	if e := q.make(store.NewJob{Tenant: "A", Type: "a", UniqueKey: "expired"})[0]; e.Job.ID != taken.Job.ID {
		q.Errorf("the key was taken from another job: %+v", e)
	}
}

func (q *queueTest) cancel() {
	scheduled := q.make(store.NewJob{Tenant: "A", Type: "a", RunAt: q.clock.Now().Add(time.Hour)})[0].Job.ID
	parked := q.one("A")
	q.end(q.claimOne(), store.Parked)
	running, back := q.one("A"), q.one("A")
	q.claim(2)
	ready, kept := q.one("A"), q.one("A")
	done := q.make(store.NewJob{Tenant: "B", Type: "a", ClaimFor: "x"})[0].Job
	q.end(done, store.Succeeded)
	want := []string{scheduled, parked, running, back, ready}
	q.same("cancelled", q.doCancel(append(want, done.ID, "job_none")...), want)
	for _, id := range []string{scheduled, parked, ready} {
		q.state(id, store.Cancelled)
	}
	q.state(running, store.Running)
	q.state(kept, store.Ready)
	// It had already succeeded, or is not to be tried again.
	q.finish(store.Outcome{ID: running, Token: 1, State: store.Succeeded})
	q.state(running, store.Succeeded)
	q.finish(store.Outcome{ID: back, Token: 1, State: store.Scheduled, RunAt: q.clock.Now().Add(time.Hour), CountFailed: true})
	q.state(back, store.Cancelled)
	q.counts("A", store.JobCounts{store.Cancelled: 4, store.Succeeded: 1, store.Ready: 1})
	q.doRetry(back)
	q.claim(10)
	for _, h := range q.doBeat("w1", time.Second) {
		if h.Cancel {
			q.Errorf("%s was asked to cancel before it was retried", h.ID)
		}
	}
}

func (q *queueTest) parked() {
	for range 3 {
		q.one("A")
	}
	q.one("B")
	for _, j := range q.claim(10) {
		q.end(j, store.Parked)
	}
	if got := q.claim(10); len(got) != 0 {
		q.Errorf("parked jobs were claimed: %v", ids(got))
	}
	q.counts("", store.JobCounts{store.Parked: 4})
	if n := q.doReleaseParked("A"); n != 3 {
		q.Errorf("released %d, want 3", n)
	}
	q.counts("", store.JobCounts{store.Parked: 1, store.Ready: 3})
	if got := q.claim(10); len(got) != 3 {
		q.Errorf("claimed %d after the release", len(got))
	}
}

func (q *queueTest) lanes() {
	read := func(after string, limit int) []store.Lane {
		q.Helper()
		ls, err := q.Lanes(q.ctx, after, limit)
		return must(q.T, ls, err)
	}
	for _, tenant := range []string{"C", "B", "B", "B", "A", "D"} {
		q.one(tenant)
	}
	for _, j := range q.claim(10) {
		switch j.Tenant {
		case "D":
			q.end(j, store.Succeeded)
		case "A":
			q.finish(store.Outcome{ID: j.ID, Token: j.Token, State: store.Parked, Error: &store.JobError{At: q.clock.Now(), Code: "x.credential"}})
		}
	}
	since := q.clock.Now()
	q.one("B")
	q.clock.add(time.Second)
	q.one("B")
	q.make(store.NewJob{Tenant: "E", Type: "a", RunAt: q.clock.Now().Add(time.Hour)})
	want := []store.Lane{
		{Tenant: "A", Parked: 1, ParkedFor: "x.credential"}, {Tenant: "B", Ready: 2, Running: 3, OldestReady: since}, {Tenant: "C", Running: 1},
		{Tenant: "E", Scheduled: 1},
	}
	for i, l := range want {
		want[i].Lane, want[i].Resource, want[i].Class = mainLane(l.Tenant), store.Internal, store.Normal
	}
	if got := read("", 10); !slices.Equal(got, want) {
		q.Errorf("lanes %+v, want %+v", got, want)
	}
	if got := read(mainLane("A"), 1); !slices.Equal(got, want[1:2]) {
		q.Errorf("the lane after A: %+v", got)
	}
	if got := read(mainLane("E"), 10); len(got) != 0 {
		q.Errorf("after the last: %+v", got)
	}
}

func (q *queueTest) prune() {
	made := map[store.State]string{}
	for _, s := range []store.State{store.Succeeded, store.Dead, store.Cancelled, store.Expired, store.Parked} {
		made[s] = q.one("A")
		q.end(q.claimOne(), s)
	}
	made[store.Ready] = q.one("A")
	there := func() (left []string) {
		for _, j := range q.doJobs(store.JobFilter{Tenant: "A"}) {
			left = append(left, string(j.State))
		}
		slices.Sort(left)
		return left
	}
	day := 24 * time.Hour
	for _, step := range []struct {
		wait time.Duration
		want int
		left string
	}{
		{day - time.Millisecond, 0, "cancelled dead expired parked ready succeeded"},
		{time.Millisecond, 1, "cancelled dead expired parked ready"},
		{6*day - time.Millisecond, 0, "cancelled dead expired parked ready"},
		{time.Millisecond, 2, "dead parked ready"},
		{23*day - time.Millisecond, 0, "dead parked ready"},
		{time.Millisecond, 1, "parked ready"},
		{365 * day, 0, "parked ready"},
	} {
		q.clock.add(step.wait)
		if n := q.doPrune(1000); n != step.want {
			q.Errorf("pruned %d, want %d", n, step.want)
		}
		if left := strings.Join(there(), " "); left != step.left {
			q.Errorf("left: %s, want %s", left, step.left)
		}
	}
	q.counts("A", store.JobCounts{store.Parked: 1, store.Ready: 1})
	q.doCancel(made[store.Parked], made[store.Ready])
	for range 8 {
		q.one("B")
	}
	for _, j := range q.claim(8) {
		q.end(j, store.Succeeded)
	}
	q.clock.add(365 * day)
	for _, want := range []int{4, 4, 2, 0} {
		if n := q.doPrune(4); n != want {
			q.Errorf("pruned %d of at most 4, want %d", n, want)
		}
	}
	q.counts("", nil)
}

func (q *queueTest) list() {
	var all []store.Job
	for i := range 60 {
		j := store.NewJob{Tenant: string("AB"[i%2]), Type: string("ab"[i%3%2])}
		switch i % 10 {
		case 0:
			j.RunAt = q.clock.Now().Add(time.Hour)
		case 1, 2, 3, 4, 5, 6:
			j.ClaimFor = "w"
		}
		made := q.make(j)[0].Job
		if s := map[int]store.State{1: store.Succeeded, 2: store.Dead, 3: store.Cancelled, 4: store.Expired, 5: store.Parked}[i%10]; s != "" {
			q.end(made, s)
			made.State = s
		}
		all = append([]store.Job{made}, all...)
		if i%7 == 0 {
			q.clock.add(time.Millisecond)
		}
	}
	for _, f := range []store.JobFilter{
		{AllTenants: true},
		{Tenant: "A"},
		{Tenant: "B", Types: []string{"a"}},
		{AllTenants: true, Types: []string{"b"}},
		{AllTenants: true, States: []store.State{store.Succeeded}},
		{AllTenants: true, States: []store.State{store.Ready}},
		{AllTenants: true, States: []store.State{store.Running, store.Dead, store.Dead}, Types: []string{"a"}},
		{Tenant: "A", States: []store.State{store.Ready, store.Scheduled}},
		{Tenant: "B", States: []store.State{store.Succeeded}, Types: []string{"a", "b", "c"}},
		{Tenant: "A", States: []store.State{store.Cancelled, store.Expired, store.Parked, store.Succeeded, store.Running}},
		{Tenant: "B", States: []store.State{store.Ready, store.Running}, Types: []string{"b"}},
		{Tenant: "nobody"},
		{Tenant: "A", Types: []string{"none"}},
	} {
		var want []string
		for _, j := range all {
			if (f.Tenant == "" || j.Tenant == f.Tenant) && (f.Types == nil || slices.Contains(f.Types, j.Type)) && (f.States == nil || slices.Contains(f.States, j.State)) {
				want = append(want, j.ID)
			}
		}
		got := q.doJobs(f)
		q.same(fmt.Sprintf("%+v", f), ids(got), append([]string{}, want...))
		for _, j := range got {
			if s := q.job(j.ID); fmt.Sprintf("%+v", s) != fmt.Sprintf("%+v", j) {
				q.Errorf("listed %+v, stored %+v", j, s)
			}
		}
		f.Limit = 4
		var paged []string
		for {
			page := q.doJobs(f)
			paged = append(paged, ids(page)...)
			if len(page) < f.Limit {
				break
			}
			f.After = page[len(page)-1].ID
		}
		q.same(fmt.Sprintf("by pages %+v", f), paged, want)
	}
	// The last one seen is pruned before the next page is asked for.
	q.clock.add(25 * time.Hour)
	gone := slices.IndexFunc(all, func(j store.Job) bool { return j.State == store.Succeeded })
	q.doPrune(1000)
	var want []string
	for _, j := range all[gone:] {
		if j.State != store.Succeeded {
			want = append(want, j.ID)
		}
	}
	q.same("after a pruned one", ids(q.doJobs(store.JobFilter{AllTenants: true, After: all[gone].ID})), want)
	if _, err := q.Jobs(q.ctx, store.JobFilter{}); err == nil {
		q.Error("all tenants' jobs were listed without being asked for")
	}
}

func (q *queueTest) listTypes() {
	var want []string
	for i := range 120 {
		want = append([]string{q.make(store.NewJob{Tenant: "A", Type: fmt.Sprintf("type.%d", i%30)})[0].Job.ID}, want...)
	}
	q.same("by default", ids(q.doJobs(store.JobFilter{Tenant: "A"})), want[:100])
	q.same("all", ids(q.doJobs(store.JobFilter{Tenant: "A", Limit: 1000})), want)
}

// invariants does random things and checks what must hold after each.
func (q *queueTest) invariants() {
	seed := rand.Uint64()
	q.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	tenants := []string{"", "A", "B", "C"}
	tokens := map[string]int64{} // the highest seen of each job
	var held []store.Job
	pick := func() []string {
		var out []string
		for _, j := range q.doJobs(store.JobFilter{AllTenants: true, Limit: 1000}) {
			if r.IntN(8) == 0 {
				out = append(out, j.ID)
			}
		}
		return out
	}
	for step := range 300 {
		now := q.clock.Now()
		var what string
		switch r.IntN(12) {
		case 0, 1, 2:
			what = "enqueue"
			j := store.NewJob{Tenant: tenants[r.IntN(4)], Type: allTypes[r.IntN(2)]}
			if r.IntN(2) == 0 {
				j.RunAt = now.Add(time.Duration(r.IntN(60)) * time.Second)
			}
			if r.IntN(4) == 0 {
				j.ExpiresAt = now.Add(time.Duration(r.IntN(60)) * time.Second)
			}
			if r.IntN(4) == 0 {
				j.ClaimFor = "api"
			}
			if r.IntN(2) == 0 {
				j.UniqueKey = fmt.Sprint("k", r.IntN(50))
				if j.ClaimFor == "" {
					j.OnTaken = []store.OnTaken{store.Keep, store.Keep, store.Replace, store.ReplaceKeepTime}[r.IntN(4)]
				}
			}
			if _, err := q.Enqueue(q.ctx, j); err != nil && !errors.Is(err, store.ErrKeyReuse) {
				q.Fatal(err)
			}
		case 3, 4:
			what = "claim"
			for _, j := range q.claimAs(fmt.Sprint("w", r.IntN(2)), 1+r.IntN(6)) {
				if j.Token <= tokens[j.ID] {
					q.Fatalf("token %d of %s was used before", j.Token, j.ID)
				}
				held = append(held, j)
			}
		case 5, 6:
			what = "finish"
			if len(held) == 0 {
				break
			}
			i := r.IntN(len(held))
			j := held[i]
			s := []store.State{store.Succeeded, store.Succeeded, store.Dead, store.Parked, store.Scheduled, store.Ready, store.Expired}[r.IntN(7)]
			o := store.Outcome{ID: j.ID, Token: j.Token, State: s, RunAt: now.Add(time.Duration(r.IntN(30)) * time.Second), CountFailed: r.IntN(2) == 0}
			if r.IntN(2) == 0 {
				o.Next = []store.NewJob{{Tenant: j.Tenant, Type: "a", UniqueKey: fmt.Sprint("k", r.IntN(50))}}
			}
			before, err := q.Job(q.ctx, j.ID)
			current := err == nil && before.State == store.Running && before.Token == j.Token
			if got := q.finish(o)[0]; got != current {
				q.Fatalf("finish with token %d held: %v; the job was %+v", j.Token, got, before)
			}
			if r.IntN(3) > 0 { // else it is tried again with the token used up
				held = slices.Delete(held, i, i+1)
			}
		case 7:
			what = "promote"
			q.doPromote()
		case 8:
			what = "retry, cancel"
			q.doRetry(pick()...)
			q.doCancel(pick()...)
		case 9:
			what = "release"
			q.doRelease(fmt.Sprint("w", r.IntN(2)))
			q.doReleaseParked(tenants[r.IntN(4)])
		case 10:
			what = "beat"
			q.doBeat("w0", 15*time.Second)
		case 11:
			what = "time"
			q.clock.add(time.Duration(r.IntN(20)) * time.Second)
			if r.IntN(10) == 0 {
				q.clock.add(25 * time.Hour)
				q.doPrune(10)
			}
		}
		tally, ofB := map[string]store.JobCounts{}, store.JobCounts{}
		for _, t := range tenants {
			tally[t] = store.JobCounts{}
		}
		for _, j := range q.doJobs(store.JobFilter{AllTenants: true, Limit: 1000}) {
			tally[""][j.State]++
			if j.Type == "b" {
				ofB[j.State]++
			}
			if j.Tenant != "" {
				tally[j.Tenant][j.State]++
			}
			if j.Token < tokens[j.ID] {
				q.Errorf("the token of %s went back from %d to %d", j.ID, tokens[j.ID], j.Token)
			}
			tokens[j.ID] = j.Token
			if j.State.Terminal() == j.EndedAt.IsZero() || (j.State == store.Running) == (j.Owner == "") {
				q.Errorf("%+v", j)
			}
		}
		for t, want := range tally {
			q.counts(t, want)
		}
		if byType, err := q.TypeCounts(q.ctx, ""); err != nil || len(byType) > len(allTypes) {
			q.Errorf("by type %v, %v", byType, err)
		} else {
			for s, n := range ofB {
				if byType["b"][s] != n {
					q.Errorf("%d %s jobs of type b, want %d", byType["b"][s], s, n)
				}
			}
		}
		if q.Failed() {
			q.Fatalf("at step %d, %s: %v", step, what, maps.Collect(maps.All(tally[""])))
		}
	}
}
