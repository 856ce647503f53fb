package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// onTaken: what a second job of a key does to the first, wherever that stands.
func (q *queueTest) onTaken() {
	ask := func(how store.OnTaken, payload string, in time.Duration) store.NewJob {
		return store.NewJob{
			Tenant: "A", Type: "a", UniqueKey: "k", OnTaken: how, Payload: json.RawMessage(payload), RunAt: q.clock.Now().Add(in),
			Causation: store.Causation{RunID: "run" + payload},
		}
	}
	one := func(nj store.NewJob) store.Enqueued {
		q.Helper()
		return q.make(nj)[0]
	}
	is := func(what string, e store.Enqueued, id string, state store.State, payload string, at time.Time) {
		q.Helper()
		j := q.job(e.Job.ID)
		if !e.Duplicate || !e.Replaced || e.Job.ID != id || j.State != state || string(j.Payload) != payload || !j.RunAt.Equal(at) || j.Causation.RunID != "run"+payload {
			q.Errorf("%s: answered %+v, stored %+v", what, e, j)
		}
		if got, err := q.JobOf(q.ctx, "A", "k"); err != nil || got.ID != id {
			q.Errorf("%s: the key names %+v, %v", what, got, err)
		}
		if fmt.Sprintf("%+v", j) != fmt.Sprintf("%+v", e.Job) {
			q.Errorf("%s: answered %+v, stored %+v", what, e.Job, j)
		}
	}
	start := q.clock.Now()
	first := one(ask(store.Replace, `1`, time.Hour))
	if first.Duplicate || first.Replaced || first.Job.State != store.Scheduled {
		q.Fatalf("a key nobody had: %+v", first)
	}
	id := first.Job.ID
	is("put off", one(ask(store.Replace, `2`, 2*time.Hour)), id, store.Scheduled, `2`, start.Add(2*time.Hour))
	is("its time kept", one(ask(store.ReplaceKeepTime, `3`, 5*time.Hour)), id, store.Scheduled, `3`, start.Add(2*time.Hour))
	if next := q.promoted(0); !next.Equal(start.Add(2 * time.Hour)) {
		q.Errorf("the next is due at %v", next)
	}
	is("brought forward", one(ask(store.Replace, `4`, time.Minute)), id, store.Scheduled, `4`, start.Add(time.Minute))
	if next := q.promoted(0); !next.Equal(start.Add(time.Minute)) {
		q.Errorf("the next is due at %v", next)
	}
	is("now", one(ask(store.Replace, `5`, 0)), id, store.Ready, `5`, start)
	is("put off again", one(ask(store.Replace, `6`, time.Minute)), id, store.Scheduled, `6`, start.Add(time.Minute))
	if _, err := q.Enqueue(q.ctx, ask(store.Keep, `5`, 0)); !errors.Is(err, store.ErrKeyReuse) {
		q.Errorf("what it was before it was replaced: %v", err)
	}
	if e := one(ask(store.Keep, `6`, 0)); !e.Duplicate || e.Replaced || e.Job.ID != id {
		q.Errorf("what it is now: %+v", e)
	}
	other := ask(store.Replace, `6`, 0)
	other.Type = "b"
	if _, err := q.Enqueue(q.ctx, other); !errors.Is(err, store.ErrKeyReuse) {
		q.Errorf("another type: %v", err)
	}
	q.counts("A", store.JobCounts{store.Scheduled: 1})

	// A retry that waits is begun anew.
	q.clock.add(time.Minute)
	q.promoted(1)
	j := q.claimOne()
	q.finish(store.Outcome{ID: id, Token: j.Token, State: store.Scheduled, RunAt: q.clock.Now().Add(time.Hour), CountFailed: true, Error: &store.JobError{At: q.clock.Now(), Code: "x"}})
	is("a retry", one(ask(store.Replace, `7`, 0)), id, store.Ready, `7`, q.clock.Now())
	if j := q.job(id); j.Attempt != 0 || len(j.Errors) != 1 {
		q.Errorf("its attempts: %+v", j)
	}
	// What holds a parked one does not hang on what it is to do.
	q.end(q.claimOne(), store.Parked)
	is("parked", one(ask(store.Replace, `8`, time.Hour)), id, store.Parked, `8`, q.clock.Now().Add(time.Hour))
	q.doReleaseParked("A")

	// One that runs loses its key, and ends as it ends.
	j = q.claimOne()
	second := one(ask(store.ReplaceKeepTime, `9`, 0))
	if second.Duplicate || second.Job.ID == id || second.Job.State != store.Ready {
		q.Fatalf("while it runs: %+v", second)
	}
	q.end(j, store.Succeeded)
	if got, err := q.JobOf(q.ctx, "A", "k"); err != nil || got.ID != second.Job.ID {
		q.Errorf("the key names %+v, %v", got, err)
	}
	// So does one that is over, and one that is pruned.
	q.end(q.claimOne(), store.Dead)
	third := one(ask(store.Replace, `10`, 0))
	if third.Duplicate || third.Job.ID == second.Job.ID {
		q.Fatalf("after its end: %+v", third)
	}
	q.counts("A", store.JobCounts{store.Ready: 1, store.Succeeded: 1, store.Dead: 1})
	q.end(q.claimOne(), store.Succeeded)
	q.clock.add(31 * 24 * time.Hour)
	q.doPrune(1000)
	if _, err := q.Job(q.ctx, third.Job.ID); !errors.Is(err, store.ErrNotFound) {
		q.Fatalf("not pruned: %v", err)
	}
	fourth := one(ask(store.Replace, `11`, 0))
	if fourth.Duplicate || fourth.Job.ID == third.Job.ID {
		q.Fatalf("after it was pruned: %+v", fourth)
	}
	q.doPrune(1000)
	if e := one(ask(store.Keep, `11`, 0)); !e.Duplicate || e.Job.ID != fourth.Job.ID {
		q.Errorf("the key went with the job that had it before: %+v", e)
	}

	// What follows from a job replaces as well.
	q.end(q.claimOne(), store.Succeeded)
	from := q.one("A")
	q.finish(store.Outcome{ID: from, Token: q.claimOne().Token, State: store.Succeeded, Next: []store.NewJob{ask(store.Replace, `12`, time.Hour), ask(store.Replace, `13`, 2*time.Hour)}})
	if j, err := q.JobOf(q.ctx, "A", "k"); err != nil || string(j.Payload) != `13` || !j.RunAt.Equal(q.clock.Now().Add(2*time.Hour)) {
		q.Errorf("what followed: %+v, %v", j, err)
	}
	for name, nj := range map[string]store.NewJob{
		"no key":         {Tenant: "A", Type: "a", OnTaken: store.Replace},
		"for its caller": {Tenant: "A", Type: "a", OnTaken: store.Replace, UniqueKey: "k", ClaimFor: "x"},
		"no such way":    {Tenant: "A", Type: "a", OnTaken: "maybe", UniqueKey: "k"},
	} {
		if _, err := q.Enqueue(q.ctx, nj); err == nil || errors.Is(err, store.ErrUnavailable) {
			q.Errorf("%s: %v", name, err)
		}
	}
}

// room: too many unfinished jobs refuse the next one that may be refused, and no other.
func (q *queueTest) room() {
	ask := func(tenant string, r store.Room) store.NewJob {
		return store.NewJob{Tenant: tenant, Type: "a", Room: r}
	}
	full := func(what string, want store.FullError, jobs ...store.NewJob) {
		q.Helper()
		var got *store.FullError
		if _, err := q.Enqueue(q.ctx, jobs...); !errors.As(err, &got) || *got != want {
			q.Errorf("%s: %v, want %v", what, err, &want)
		}
	}
	three := store.Room{Tenant: 3}
	q.make(ask("A", three), store.NewJob{Tenant: "A", Type: "a", RunAt: q.clock.Now().Add(time.Hour), Room: three})
	full("two in one commit, room for one", store.FullError{Tenant: "A", Jobs: 3, Limit: 3}, ask("A", three), ask("A", three))
	q.counts("A", store.JobCounts{store.Ready: 1, store.Scheduled: 1})
	keyed := ask("A", three)
	keyed.UniqueKey = "k"
	q.make(keyed)
	full("the fourth", store.FullError{Tenant: "A", Jobs: 3, Limit: 3}, ask("A", three))
	if e := q.make(keyed)[0]; !e.Duplicate {
		q.Errorf("one that is there already: %+v", e)
	}
	keyed.OnTaken = store.Replace
	if e := q.make(keyed)[0]; !e.Replaced {
		q.Errorf("in place of one that is there: %+v", e)
	}
	q.make(ask("B", three)) // another's backlog is not ours
	lane := q.job(q.make(ask("A", store.Room{}))[0].Job.ID).Lane
	full("the lane", store.FullError{Tenant: "A", Lane: lane, Jobs: 4, Limit: 2}, ask("A", store.Room{Tenant: 100, Lane: 2}))

	// Whoever runs, or is held, is unfinished; whoever is over is not.
	for _, j := range q.claim(10) {
		if j.Tenant == "A" {
			full("while they run", store.FullError{Tenant: "A", Jobs: 4, Limit: 4}, ask("A", store.Room{Tenant: 4}))
			q.end(j, store.Parked)
		}
	}
	full("while they are held", store.FullError{Tenant: "A", Jobs: 4, Limit: 4}, ask("A", store.Room{Tenant: 4}))
	q.doReleaseParked("A")
	for _, j := range q.claim(10) {
		// What follows from a job is never refused.
		q.finish(store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded, Next: []store.NewJob{ask("A", store.Room{Tenant: 1, Lane: 1})}})
	}
	q.make(ask("A", store.Room{Tenant: 5}))
	q.counts("A", store.JobCounts{store.Ready: 4, store.Scheduled: 1, store.Succeeded: 3})
	if e, err := q.JobOf(q.ctx, "A", "k"); err != nil || e.State != store.Succeeded {
		q.Errorf("%+v, %v", e, err)
	}
}

// causes: jobs are found by what they were made for.
func (q *queueTest) causes() {
	pick := func(s string, i int) string { return []string{"", s + "1", s + "2"}[i%3] }
	var all []store.Job
	for i := range 120 {
		c := store.Causation{
			RunID: pick("run", i), LeadID: pick("lea", i/3), EventID: pick("evt", i/9), CampaignID: pick("cmp", i/2),
			AppointmentID: pick("apt", i/5), Step: "s", JobID: "j", Message: "m",
		}
		j := q.make(store.NewJob{Tenant: string("AB"[i%2]), Type: string("ab"[i/2%2]), Causation: c, ClaimFor: []string{"", "w", "w"}[i%3]})[0].Job
		if s := []store.State{store.Ready, store.Succeeded, store.Dead}[i%3]; s != store.Ready {
			q.end(j, s)
			j.State = s
		}
		all = append([]store.Job{j}, all...)
	}
	for _, f := range []store.JobFilter{
		{Tenant: "A", Cause: store.Causation{RunID: "run1"}},
		{Tenant: "B", Cause: store.Causation{LeadID: "lea2"}},
		{AllTenants: true, Cause: store.Causation{EventID: "evt1"}},
		{Tenant: "A", Cause: store.Causation{CampaignID: "cmp1"}, States: []store.State{store.Ready, store.Dead}},
		{Tenant: "A", Cause: store.Causation{AppointmentID: "apt1"}, Types: []string{"b"}},
		{AllTenants: true, Cause: store.Causation{AppointmentID: "apt2", LeadID: "lea1", EventID: "evt2"}},
		{Tenant: "A", Cause: store.Causation{RunID: "none"}},
		{Tenant: "A", Cause: store.Causation{Step: "no such step"}},
	} {
		var want []string
		for _, j := range all {
			if (f.Tenant == "" || j.Tenant == f.Tenant) && (f.Types == nil || slices.Contains(f.Types, j.Type)) &&
				(f.States == nil || slices.Contains(f.States, j.State)) && f.Cause.Selects(j.Causation) {
				want = append(want, j.ID)
			}
		}
		f.Limit = 7
		var got []string
		for {
			page := q.doJobs(f)
			got = append(got, ids(page)...)
			if len(page) < f.Limit {
				break
			}
			f.After = page[len(page)-1].ID
		}
		q.same(fmt.Sprintf("%+v", f), got, want)
	}
}

// standing: how the queue stands, and what moves in it, is told to whoever watches.
func (q *queueTest) standing() {
	made, crashed := map[string]int{}, 0
	q.Listen(store.Listener{Moved: func(m map[string]int, n int) {
		for typ, n := range m {
			made[typ] += n
		}
		crashed += n
	}})
	start := q.clock.Now()
	q.make(store.NewJob{Tenant: "A", Type: "a"}, store.NewJob{Tenant: "B", Type: "b", Class: store.Bulk}, store.NewJob{Tenant: "B", Type: "a", UniqueKey: "k"})
	q.make(store.NewJob{Tenant: "B", Type: "a", UniqueKey: "k"})
	q.clock.add(time.Second)
	q.make(store.NewJob{Tenant: "C", Type: "a"}, store.NewJob{Tenant: "D", Type: "b", Class: store.Interactive, RunAt: q.clock.Now().Add(time.Hour)})
	for _, p := range []store.PauseRequest{{Scope: "A", Reason: store.Operator}, {Scope: "B/internal/normal", Reason: store.Operator}, {Scope: "A", Reason: store.Quality, For: time.Minute}} {
		if _, err := q.Pause(q.ctx, p); err != nil {
			q.Fatal(err)
		}
	}
	is := func(what string, oldest map[store.Class]time.Time, paused map[store.PauseReason]int64, states store.JobCounts) {
		q.Helper()
		s, err := q.Standing(q.ctx)
		must(q.T, s, err)
		if fmt.Sprint(s.OldestReady) != fmt.Sprint(oldest) || fmt.Sprint(s.Paused) != fmt.Sprint(paused) {
			q.Errorf("%s: %v, want %v; %v, want %v", what, s.OldestReady, oldest, s.Paused, paused)
		}
		for state, n := range s.States {
			if states[state] != n {
				q.Errorf("%s: %d are %s, want %d", what, n, state, states[state])
			}
		}
	}
	is("some paused", map[store.Class]time.Time{store.Normal: start.Add(time.Second), store.Bulk: start}, map[store.PauseReason]int64{store.Operator: 2, store.Quality: 1},
		store.JobCounts{store.Ready: 4, store.Scheduled: 1})
	q.clock.add(2 * time.Minute)
	q.claim(10) // C's and B's bulk one
	is("claimed", nil, map[store.PauseReason]int64{store.Operator: 2}, store.JobCounts{store.Ready: 2, store.Running: 2, store.Scheduled: 1})
	q.clock.add(15 * time.Second)
	q.promoted(2)
	if made["a"] != 3 || made["b"] != 2 || crashed != 2 {
		q.Errorf("told of %v made and %d crashed", made, crashed)
	}
}
