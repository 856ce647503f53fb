package storetest

import (
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Jobs whose lease ran out run one by one, each when the worker asks for one, and go home when they end in order.
func (q *queueTest) quarantine() {
	var made []string
	for i := range 20 {
		made = append(made, q.in(store.LaneName(string("AB"[i%2]), "wa:1", []store.Class{store.Normal, store.Bulk}[i/10])))
	}
	for _, j := range q.claimAs("gone", 100) {
		if j.ID == made[0] {
			q.doCancel(j.ID)
		}
	}
	q.clock.add(15 * time.Second)
	q.promoted(19)
	q.state(made[0], store.Cancelled)
	ls, err := q.Lanes(q.ctx, "", 10)
	if must(q.T, 0, err); len(ls) != 2 || ls[0].Lane != "A/wa:1/quarantine" || ls[0].Class != store.Quarantine || ls[0].Ready != 9 || ls[1].Ready != 10 {
		q.Errorf("lanes %+v", ls)
	}
	r := store.ClaimRequest{Owner: "w1", Limit: 10, Lease: time.Minute, Types: allTypes}
	if got := q.doClaim(r); len(got) != 0 {
		q.Errorf("not asked for: %v", ids(got))
	}
	innocent := q.in("A/wa:1/normal")
	r.Quarantine = true
	got := q.doClaim(r)
	if len(got) != 2 || got[0].Crashes != 1 || got[1].ID != innocent {
		q.Fatalf("one of them, and any other: %+v", got)
	}
	first := got[0]
	if tenant, _, class := store.SplitLane(first.Lane); class != store.Quarantine || first.Class == store.Quarantine || tenant != first.Tenant {
		q.Errorf("it is in %s, of class %s", first.Lane, first.Class)
	}
	seen := map[string]bool{first.ID: true}
	var others []store.Job
	for range 18 {
		got := q.doClaim(r)
		if len(got) != 1 || got[0].Crashes != 1 || seen[got[0].ID] {
			q.Fatalf("the next: %+v", got)
		}
		seen[got[0].ID] = true
		others = append(others, got[0])
	}
	if got := q.doClaim(r); len(got) != 0 {
		q.Errorf("more than there were: %v", ids(got))
	}

	q.finish(store.Outcome{ID: others[0].ID, Token: others[0].Token, State: store.Succeeded}, store.Outcome{ID: others[1].ID, Token: others[1].Token, State: store.Succeeded})
	for _, j := range others[:2] {
		if now := q.state(j.ID, store.Succeeded); now.Class != j.Class || now.Lane != store.LaneName(j.Tenant, "wa:1", j.Class) {
			q.Errorf("it succeeded: %+v", now)
		}
	}

	// How each end is: home, but for who is given back untried.
	home := first.Lane[:len("A/wa:1/")] + string(first.Class)
	q.finish(store.Outcome{ID: first.ID, Token: first.Token, State: store.Ready})
	if j := q.state(first.ID, store.Ready); j.Lane != first.Lane || j.Class != first.Class {
		q.Errorf("given back: %+v", j)
	}
	if got := q.doClaim(r); len(got) != 1 || got[0].ID != first.ID {
		q.Fatalf("given back: %+v", got)
	}
	q.finish(store.Outcome{ID: first.ID, Token: first.Token + 1, State: store.Scheduled, RunAt: q.clock.Now().Add(time.Second), CountFailed: true})
	if j := q.state(first.ID, store.Scheduled); j.Lane != home || j.Crashes != 1 {
		q.Errorf("a failure in order: %+v", j)
	}
	q.clock.add(time.Second)
	q.promoted(1)
	r.Quarantine = false
	if got := q.doClaim(r); len(got) != 1 || got[0].ID != first.ID {
		q.Fatalf("at home: %+v", got)
	}
	r.Quarantine = true

	// A second crash, a third; by hand it begins anew, at home.
	for range 2 {
		q.clock.add(time.Minute)
		q.doPromote()
		for range 40 {
			q.doClaim(r)
		}
	}
	j := q.state(first.ID, store.Dead)
	if j.Crashes != 3 {
		q.Errorf("%+v", j)
	}
	q.doRetry(first.ID)
	if j := q.state(first.ID, store.Ready); j.Lane != home || j.Crashes != 0 {
		q.Errorf("by hand: %+v", j)
	}
	if lanes := q.lanesWithWork(); !slices.Contains(lanes, home) {
		q.Errorf("its lane is not among %v", lanes)
	}
}

// lanesWithWork gives the lanes that hold work.
func (q *queueTest) lanesWithWork() (names []string) {
	ls, err := q.Lanes(q.ctx, "", 100)
	must(q.T, 0, err)
	for _, l := range ls {
		names = append(names, l.Lane)
	}
	return names
}
