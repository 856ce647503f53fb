package storetest

import (
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// listen: every listener is told, and of what matters to it alone.
func (q *queueTest) listen() {
	var told [2]struct {
		ready int
		asked []string
	}
	for i := range told {
		q.Listen(store.Listener{
			Ready: func() { told[i].ready++ },
			Asked: func(ids ...string) { told[i].asked = append(told[i].asked, ids...) },
		})
	}
	q.Listen(store.Listener{}) // wants to hear nothing
	expect := func(what string, ready bool, asked ...string) {
		q.Helper()
		for i := range told {
			if (told[i].ready > 0) != ready {
				q.Errorf("%s: listener %d was told of something ready %d times", what, i, told[i].ready)
			}
			q.same(what+": asked", told[i].asked, asked)
			told[i].ready, told[i].asked = 0, nil
		}
	}
	a, b := q.one("A"), q.one("A")
	expect("made", true)
	q.make(store.NewJob{Tenant: "A", Type: "a", ClaimFor: "caller"})
	expect("made for its caller", false)
	q.claimAs("w1", 2)
	expect("claimed", false)
	waiting := q.one("A")
	expect("another made", true)
	q.doCancel(a, waiting, b)
	expect("cancelled", false, a, b)
	q.doCancel(a)
	q.doRelease("w1")
	expect("asked again", false, a)
	q.doRetry(a)
	expect("retried", true)
}

func (q *queueTest) asked() {
	a, b, c := q.one("A"), q.one("A"), q.one("A")
	q.claimAs("w1", 2)
	q.claimAs("w2", 1)
	asked := func(owner string) []string {
		q.Helper()
		ids, err := q.Asked(q.ctx, owner)
		return must(q.T, ids, err)
	}
	q.same("nobody asked", asked("w1"), nil)
	q.doCancel(b, c)
	q.same("of w1", asked("w1"), []string{b})
	q.same("of w2", asked("w2"), []string{c})
	q.same("of nobody", asked("w3"), nil)
	q.finish(store.Outcome{ID: b, Token: 1, State: store.Ready})
	q.same("it stopped", asked("w1"), nil)
	q.clock.add(time.Minute)
	q.doPromote()
	q.same("it was taken back", asked("w2"), nil)
	q.state(a, store.Ready)
}

// wanted: a promotion tells when a lease ends, so that nobody's poll is waited for.
func (q *queueTest) promotedAtLeaseEnd() {
	id := q.one("A")
	if _, next := q.doPromote(); !next.IsZero() {
		q.Errorf("nothing runs, but it is wanted at %v", next)
	}
	ends := q.claim(1)[0].LeaseUntil
	if _, next := q.doPromote(); !next.Equal(ends) {
		q.Errorf("wanted at %v, the lease ends at %v", next, ends)
	}
	q.make(store.NewJob{Tenant: "A", Type: "a", RunAt: ends.Add(-time.Second)})
	if _, next := q.doPromote(); !next.Equal(ends.Add(-time.Second)) {
		q.Errorf("wanted at %v, a job is due a second before the lease ends, at %v", next, ends)
	}
	q.finish(store.Outcome{ID: id, Token: 1, State: store.Succeeded})
}
