package storetest

import (
	"fmt"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// crew is a worker with so many slots, which knows what it holds.
type crew struct {
	*queueTest
	slots int
	jobs  []store.Job
}

// fill claims what fits, and gives how many of each class.
func (c *crew) fill() map[store.Class]int {
	c.Helper()
	held := map[string]int{}
	for _, j := range c.jobs {
		held[j.Lane]++
	}
	got := map[store.Class]int{}
	if len(c.jobs) == c.slots {
		return got
	}
	for _, j := range c.doClaim(store.ClaimRequest{Owner: "w1", Limit: c.slots - len(c.jobs), Slots: c.slots, Lease: time.Hour, Types: allTypes, Held: held}) {
		got[j.Class]++
		c.jobs = append(c.jobs, j)
	}
	return got
}

// finish ends the first n that it holds of a class.
func (c *crew) finish(class store.Class, n int) {
	c.Helper()
	left := c.jobs[:0]
	for _, j := range c.jobs {
		if j.Class == class && n > 0 {
			n--
			c.end(j, store.Succeeded)
			continue
		}
		left = append(left, j)
	}
	c.jobs = left
}

func (c *crew) takes(what string, want string) {
	c.Helper()
	if got := fmt.Sprint(c.fill()); got != want {
		c.Errorf("%s: claimed %s, want %s", what, got, want)
	}
}

// Who is waited for comes first, and finds a slot whatever runs; who is patient is never frozen.
func (q *queueTest) classes() {
	for i, class := range []store.Class{store.Maintenance, store.Bulk, "", store.Interactive} {
		q.many(5, store.LaneName(fmt.Sprint("T", i), "", class))
	}
	for _, want := range []store.Class{store.Interactive, store.Normal, store.Bulk, store.Maintenance} {
		for _, j := range q.claim(5) {
			if j.Class != want {
				q.Errorf("%s before %s", j.Class, want)
			}
			q.end(j, store.Succeeded)
		}
	}

	w := &crew{queueTest: q, slots: 16}
	q.many(100, "A/internal/normal")
	w.takes("one class alone", "map[normal:12]")
	w.takes("the rest is for who is waited for", "map[]")
	q.many(3, "B/internal/interactive")
	w.takes("who is waited for", "map[interactive:3]")
	q.many(100, "C/internal/bulk")
	q.many(100, "D/internal/maintenance")
	w.takes("no slot for others", "map[]")
	w.finish(store.Normal, 1)
	w.takes("the first for bulk", "map[bulk:1]")
	w.finish(store.Normal, 1)
	w.takes("the next for maintenance", "map[maintenance:1]")
	w.finish(store.Normal, 3)
	w.takes("and no more", "map[normal:3]")
	w.finish(store.Bulk, 1)
	w.takes("bulk has its slot", "map[bulk:1]")
	w.finish(store.Interactive, 3)
	w.takes("nobody takes the slots that are kept", "map[]")
	q.many(20, "B/internal/interactive")
	w.takes("those kept", "map[interactive:4]")
	w.finish(store.Normal, 10)
	w.takes("and any other", "map[interactive:10]")
	w.finish(store.Interactive, 14)
	w.takes("the last of them, then by class", "map[interactive:6 normal:8]")
	q.doCancel(ids(q.doJobs(store.JobFilter{AllTenants: true, States: []store.State{store.Ready}, Limit: 1000}))...)
	w.finish(store.Normal, 100)
	w.finish(store.Interactive, 100)
	w.finish(store.Bulk, 100)
	w.finish(store.Maintenance, 100)
	q.many(100, "C/internal/bulk")
	w.takes("bulk alone works on, but for the slots kept", "map[bulk:12]")
	w.slots = 40
	q.many(100, "A/internal/normal")
	q.many(100, "D/internal/maintenance")
	w.takes("a tenth of forty", "map[maintenance:4 normal:14]")
}

// A worker with hardly any slots serves every class in turn.
func (q *queueTest) classesFewSlots() {
	for slots := 1; slots <= 3; slots++ {
		w := &crew{queueTest: q, slots: slots}
		for _, class := range []store.Class{store.Normal, store.Bulk, store.Maintenance} {
			q.many(150, store.LaneName("A", "", class))
		}
		n := map[store.Class]int{}
		for range 120 {
			for class, x := range w.fill() {
				n[class] += x
			}
			if len(w.jobs) > 0 {
				w.finish(w.jobs[0].Class, 1)
			}
		}
		for _, class := range []store.Class{store.Normal, store.Bulk, store.Maintenance} {
			if n[class] < 30 {
				q.Errorf("with %d slots: %v", slots, n)
			}
		}
		q.many(1, "B/internal/interactive")
		if got := w.fill(); got[store.Interactive] != 1 && slots > 1 {
			q.Errorf("with %d slots, who is waited for waits: %v", slots, got)
		}
		w.finish(store.Interactive, 1)
		q.doCancel(ids(q.doJobs(store.JobFilter{AllTenants: true, States: []store.State{store.Ready, store.Running}, Limit: 1000}))...)
		for _, j := range w.jobs {
			q.end(j, store.Succeeded)
		}
	}
}

// Patient lanes take longer turns.
func (q *queueTest) classQuanta() {
	for class, want := range map[store.Class]int{store.Normal: 4, store.Bulk: 20} {
		q.many(100, store.LaneName("A", "", class))
		q.many(100, store.LaneName("B", "", class))
		got := map[string]int{}
		for _, j := range q.claim(want) {
			got[j.Tenant]++
		}
		for _, j := range q.claim(want) {
			got[j.Tenant]++
		}
		if got["A"] != want || got["B"] != want {
			q.Errorf("%s: two turns were %v", class, got)
		}
		q.doCancel(ids(q.doJobs(store.JobFilter{AllTenants: true, States: []store.State{store.Ready}, Limit: 1000}))...)
	}
}
