package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// in makes a ready job in a lane and gives its id.
func (q *queueTest) in(lane string) string {
	q.Helper()
	tenant, resource, class := store.SplitLane(lane)
	return q.make(store.NewJob{Tenant: tenant, Resource: resource, Class: class, Type: "a"})[0].Job.ID
}

func (q *queueTest) doPause(r store.PauseRequest) (fresh bool) {
	q.Helper()
	if r.Reason == "" {
		r.Reason = store.RateLimited
	}
	fresh, err := q.Pause(q.ctx, r)
	return must(q.T, fresh, err)
}

func (q *queueTest) doResume(scope string, reason store.PauseReason) bool {
	q.Helper()
	did, err := q.Resume(q.ctx, scope, reason)
	return must(q.T, did, err)
}

func (q *queueTest) pauses(tenant string) (out []string) {
	q.Helper()
	ps, err := q.Pauses(q.ctx, tenant)
	must(q.T, ps, err)
	for _, p := range ps {
		out = append(out, p.Scope+" "+string(p.Reason))
	}
	return out
}

// covering gives the pause of a lane.
func (q *queueTest) covering(lane string) *store.Pause {
	q.Helper()
	p, err := q.Paused(q.ctx, lane)
	must(q.T, p, err)
	return p
}

// claimedLanes claims all there is, ends it, and gives the lanes it was from.
func (q *queueTest) claimedLanes() (lanes []string) {
	q.Helper()
	for _, j := range q.claim(100) {
		lanes = append(lanes, j.Lane)
		q.end(j, store.Succeeded)
	}
	slices.Sort(lanes)
	return lanes
}

// A pause covers what its scope says, now and later, and nothing else.
func (q *queueTest) pauseScopes() {
	names := []string{"/wa:1/normal", "A/internal/normal", "A/wa/bulk", "A/wa/normal", "A/wa:1/bulk", "A/wa:1/normal", "A/wa:2/bulk", "A/wax/normal", "AB/wa:1/normal"}
	for i, c := range []struct {
		scope string
		rests []string
	}{
		{"A", []string{"A/internal/normal", "A/wa/bulk", "A/wa/normal", "A/wa:1/bulk", "A/wa:1/normal", "A/wa:2/bulk", "A/wax/normal"}},
		{"A/wa", []string{"A/wa/bulk", "A/wa/normal", "A/wa:1/bulk", "A/wa:1/normal", "A/wa:2/bulk"}},
		{"A/wa:1", []string{"A/wa:1/bulk", "A/wa:1/normal"}},
		{"A/wa:1/bulk", []string{"A/wa:1/bulk"}},
		{"A/wa/bulk", []string{"A/wa/bulk", "A/wa:1/bulk", "A/wa:2/bulk"}},
		{"/wa:1", []string{"/wa:1/normal"}},
	} {
		for _, early := range []bool{false, true} {
			code := fmt.Sprintf("A%d%v", i, early)
			of := func(ls []string) (out []string) {
				for _, l := range ls {
					out = append(out, strings.Replace(l, "A", code, 1))
				}
				return out
			}
			lanes, scope, rests := of(names), of([]string{c.scope})[0], of(c.rests)
			if early { // before its lanes are there
				q.doPause(store.PauseRequest{Scope: scope})
			}
			for _, l := range lanes {
				q.in(l)
			}
			if !early {
				q.doPause(store.PauseRequest{Scope: scope})
			}
			var others []string
			for _, l := range lanes {
				rest := slices.Contains(rests, l)
				if !rest {
					others = append(others, l)
				}
				if p := q.covering(l); (p != nil) != rest || rest && p.Scope != scope {
					q.Errorf("%s: %s is paused: %+v", scope, l, p)
				}
			}
			q.same(scope+": what runs", q.claimedLanes(), others)
			if !q.doResume(scope, "") || q.doResume(scope, "") {
				q.Errorf("%s was not resumed once", scope)
			}
			q.same(scope+": what runs then", q.claimedLanes(), rests)
		}
	}
	for _, scope := range []string{"", "A/wa:1/bulk/more"} {
		if _, err := q.Pause(q.ctx, store.PauseRequest{Scope: scope, Reason: store.Operator}); err == nil || errors.Is(err, store.ErrUnavailable) {
			q.Errorf("scope %q: %v", scope, err)
		}
	}
}

// A pause ends by itself, a longer one for another reason does not end with it; the queue says when, and then tries the
// lanes with one job each.
func (q *queueTest) pauseEnds() {
	start := q.clock.Now()
	wa, mail := "A/wa:1/normal", "A/mail/normal"
	for range 3 {
		q.in(wa)
		q.in(mail)
	}
	early := q.claim(1)[0] // of whichever: it began before
	if p := q.covering(wa); p != nil {
		q.Fatalf("paused: %+v", p)
	}
	q.doPause(store.PauseRequest{Scope: "A", Reason: store.RateLimited, For: 10 * time.Second, Detail: "slow down"})
	if p := q.covering(wa); p == nil || *p != (store.Pause{Scope: "A", Reason: store.RateLimited, Until: start.Add(10 * time.Second), Detail: "slow down", Since: start}) {
		q.Errorf("paused: %+v", p)
	}
	q.doPause(store.PauseRequest{Scope: "A/mail", Reason: store.Credential, Detail: "refused"})
	q.doPause(store.PauseRequest{Scope: "A/mail", Reason: store.Operator, For: time.Minute})
	q.same("pauses", q.pauses("A"), []string{"A rate_limited", "A/mail credential", "A/mail operator"})
	if p := q.covering(mail); p == nil || p.Reason != store.Credential || !p.Until.IsZero() {
		q.Errorf("mail is paused: %+v", p)
	}
	ls, err := q.Lanes(q.ctx, "", 10)
	if must(q.T, 0, err); len(ls) != 2 || ls[0].Lane != mail || ls[0].Pause == nil || ls[0].Pause.Reason != store.Credential || ls[1].Pause == nil || !ls[1].Pause.Until.Equal(start.Add(10*time.Second)) {
		q.Errorf("lanes %+v", ls)
	}
	if next := q.promoted(0); !next.Equal(start.Add(10 * time.Second)) {
		q.Errorf("the next is free at %v", next)
	}
	q.clock.add(10*time.Second - time.Millisecond)
	q.doBeat("w1", 24*time.Hour)
	if got := q.claim(10); len(got) != 0 {
		q.Errorf("claimed in a pause: %v", ids(got))
	}
	q.clock.add(time.Millisecond)
	q.end(early, store.Succeeded) // it proves nothing: it began before the pause
	first := q.claim(10)
	if len(first) != 1 || first[0].Lane != wa {
		q.Fatalf("on trial: %+v", first)
	}
	if ls, err = q.Lanes(q.ctx, "", 10); err != nil || !ls[1].Trial || ls[1].Pause != nil {
		q.Errorf("lanes %+v, %v", ls, err)
	}
	if got := q.claim(10); len(got) != 0 {
		q.Errorf("a second one on trial: %v", ids(got))
	}
	if !q.finish(store.Outcome{ID: first[0].ID, Token: first[0].Token, State: store.Ready})[0] { // given back
		q.Error("refused")
	}
	if first = q.claim(10); len(first) != 1 || first[0].Attempt != 0 {
		q.Fatalf("still on trial: %+v", first)
	}
	q.in(wa)
	q.end(first[0], store.Succeeded)
	rest := q.claim(10)
	if len(rest) < 2 || rest[0].Lane != wa {
		q.Errorf("after the trial: %+v", rest)
	}

	// Nothing but a word ends the other one; nobody needs to try what somebody mended.
	for _, j := range rest {
		q.end(j, store.Succeeded)
	}
	q.in(wa)
	q.clock.add(365 * 24 * time.Hour)
	if next := q.promoted(0); !next.IsZero() {
		q.Errorf("the next is free at %v", next)
	}
	q.same("what runs after a year", slices.Compact(q.claimedLanes()), []string{wa})
	if q.doResume("A", "") || q.doResume("A/mail", store.RateLimited) {
		q.Error("resumed what was not paused")
	}
	if !q.doResume("A/mail", store.Credential) || q.covering(mail) != nil || q.pauses("A") != nil {
		q.Errorf("paused still: %v", q.pauses("A"))
	}
	if got := q.claim(10); len(got) < 2 {
		q.Errorf("after it was resumed: %v", ids(got))
	}
}

// Each time that a pause was too short the next one is longer; whoever asks while it lasts prolongs it; one is told of.
func (q *queueTest) pauseGrows() {
	var told []store.Pause
	q.Listen(store.Listener{Paused: func(ps ...store.Pause) { told = append(told, ps...) }})
	ask := store.PauseRequest{Scope: "A/wa:1", For: 2 * time.Second, Most: 10 * time.Second}
	until := func() time.Duration {
		q.Helper()
		p := q.covering("A/wa:1/normal")
		if p == nil {
			return 0
		}
		return p.Until.Sub(q.clock.Now())
	}
	for i, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second} {
		if fresh := q.doPause(ask); fresh != (i == 0) {
			q.Errorf("pause %d is fresh: %v", i, fresh)
		}
		if got := until(); got != want {
			q.Errorf("pause %d lasts %v, want %v", i, got, want)
		}
		q.clock.add(time.Second)
		if q.doPause(ask) {
			q.Error("what is paused is paused afresh")
		}
		want = max(want-time.Second, 2*time.Second)
		if got := until(); got != want {
			q.Errorf("prolonged, pause %d has %v left, want %v", i, got, want)
		}
		q.clock.add(want)
		if q.covering("A/wa:1/normal") != nil {
			q.Error("paused still")
		}
		q.doPrune(100) // forgets nothing that matters
		q.clock.add(59 * time.Second)
	}
	q.clock.add(2 * time.Second)
	q.doPrune(100)
	if !q.doPause(ask) || until() != 2*time.Second {
		q.Errorf("after a good while it lasts %v", until())
	}
	if len(told) != 2 || told[1].Scope != "A/wa:1" || told[1].Reason != store.RateLimited || !told[1].Until.Equal(q.clock.Now().Add(2*time.Second)) {
		q.Errorf("told of %+v", told)
	}
	q.doPause(store.PauseRequest{Scope: "A/wa:1"})
	q.doPause(ask)
	if p := q.covering("A/wa:1/normal"); p == nil || !p.Until.IsZero() {
		q.Errorf("a pause without an end got one: %+v", p)
	}
}

// A job can end with a pause of its lanes: it goes back, first in its lane, and nothing is counted against it.
func (q *queueTest) pauseOutcome() {
	lane := "A/wa:1/normal"
	a := q.in(lane)
	b := q.in(lane)
	bulk := q.in("A/wa:1/bulk")
	other := q.in("A/wa:2/normal")
	js := map[string]store.Job{}
	for _, j := range q.claim(10) {
		js[j.ID] = j
	}
	pause := &store.PauseRequest{Reason: store.RateLimited, For: time.Second, Most: time.Minute}
	outcome := func(j store.Job) store.Outcome {
		return store.Outcome{ID: j.ID, Token: j.Token, State: store.Ready, Pause: pause, Error: &store.JobError{At: q.clock.Now(), Code: "slow_down"}}
	}
	stale := outcome(js[a])
	stale.Token--
	if q.finish(stale)[0] || q.covering(lane) != nil {
		q.Error("who was refused paused a lane")
	}
	q.finish(outcome(js[a]), outcome(js[b])) // both at once
	q.end(js[other], store.Succeeded)
	for _, id := range []string{a, b} {
		if j := q.state(id, store.Ready); j.Attempt != 0 || len(j.Errors) != 1 {
			q.Errorf("%+v", j)
		}
	}
	q.same("pauses", q.pauses("A"), []string{"A/wa:1 rate_limited"})
	q.in("A/wa:2/normal")
	q.end(js[bulk], store.Succeeded)
	q.in("A/wa:1/bulk")
	q.same("what runs", q.claimedLanes(), []string{"A/wa:2/normal"})
	for _, length := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		q.clock.add(length - time.Millisecond)
		if got := q.claim(10); len(got) != 0 {
			q.Errorf("claimed before %v were over: %v", length, ids(got))
		}
		q.clock.add(time.Millisecond)
		got := q.claim(10)
		if len(got) != 2 || got[0].ID != a || got[1].Lane != "A/wa:1/bulk" {
			q.Fatalf("after %v: %v", length, got)
		}
		q.finish(outcome(got[0]))
		q.finish(store.Outcome{ID: got[1].ID, Token: got[1].Token, State: store.Ready})
	}
	q.clock.add(8 * time.Second)
	for _, j := range q.claim(10) {
		q.end(j, store.Succeeded)
	}
	q.same("the last", ids(q.claim(10)), []string{b})

	foreign := store.Outcome{ID: b, Token: q.job(b).Token, State: store.Ready, Pause: &store.PauseRequest{Scope: "B", Reason: store.Operator}}
	if _, err := q.Finish(q.ctx, foreign); err == nil || errors.Is(err, store.ErrUnavailable) || q.pauses("B") != nil {
		q.Errorf("a job paused another tenant's lanes: %v", err)
	}
	q.state(b, store.Running)
}

// Very many lanes that rest, or are at their rate, are in nobody's way: a claim does not look at them.
func (q *queueTest) pauseMany() {
	const lanes = 3000
	jobs := make([]store.NewJob, 0, 2*lanes)
	for i := range lanes {
		j := store.NewJob{Tenant: fmt.Sprintf("T%04d", i), Resource: "wa:1", Type: "a"}
		jobs = append(jobs, j, j)
	}
	q.make(jobs...)
	for i := range lanes / 2 {
		q.doPause(store.PauseRequest{Scope: jobs[2*i].Tenant + "/wa", For: time.Hour})
	}
	looked := 0
	r := store.ClaimRequest{Owner: "w1", Limit: 1000, Lease: 48 * time.Hour, Types: allTypes, Bounds: func(string, string) store.Bounds {
		looked++
		return store.Bounds{Rate: store.Rate{Every: 2 * time.Hour}}
	}}
	n := 0
	for range 10 {
		n += len(q.doClaim(r))
	}
	if n != lanes/2 {
		q.Errorf("claimed %d, want one of each lane that does not rest", n)
	}
	id := q.in("Z/wa:1/normal")
	looked = 0
	if got := q.doClaim(r); len(got) != 1 || got[0].ID != id || looked > 3 {
		q.Errorf("claimed %v, and looked at lanes %d times", ids(got), looked)
	}
	if next := q.promoted(0); !next.Equal(q.clock.Now().Add(time.Hour)) {
		q.Errorf("the next is free at %v", next)
	}
	q.clock.add(time.Hour)
	for n = 0; ; {
		got := q.doClaim(r)
		if len(got) == 0 {
			break
		}
		n += len(got)
	}
	if n != lanes/2 {
		q.Errorf("%d of %d went on", n, lanes/2)
	}
}
