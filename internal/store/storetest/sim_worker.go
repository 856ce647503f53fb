package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// worker is a simulated runner: what it believes to hold may be long over.
type worker struct {
	owner   string
	stalled bool // it sleeps, and does not know
	work    []*execution
	strays  map[string]int64 // leased to it at its last beat, and unknown to it
}

// execution is how far a worker got with a job.
type execution struct {
	job  store.Job
	next func(w *world, k *worker, x *execution) // its next step
	out  outcome
}

// outcome is what is recorded at the end.
type outcome struct {
	store.Outcome
	next []wish
}

// entry is a call's record in the client's database; writes to it are conditional on what was read.
type entry struct {
	state string // in_flight, sent, refused, unconfirmed
	token int64
}

// answer is what the service did with a call.
type answer string

const (
	accepted answer = "accepted"
	refused  answer = "refused" // and says so: known not to have happened
	silent   answer = "silent"  // accepted, and the answer was lost
)

func (w *world) newWorker() *worker {
	w.serial++
	return &worker{owner: fmt.Sprint("w", w.hosts, "-", w.serial), strays: map[string]int64{}}
}

func (k *worker) take(j store.Job) {
	k.work = append(k.work, &execution{job: j, next: begin})
}

func (k *worker) drop(x *execution) {
	k.work = slices.DeleteFunc(k.work, func(y *execution) bool { return x == y })
}

// act does the next step of one execution.
func (k *worker) act(w *world) {
	if len(k.work) > 0 {
		x := draw(w, k.work...)
		x.next(w, k, x)
	}
}

// begin reads the ledger and marks the call before it is made.
func begin(w *world, k *worker, x *execution) {
	j := x.job
	if j.Type != simSend {
		x.out = w.ending(j)
		x.next = finish
		return
	}
	x.out.Outcome = store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded}
	x.out.next = []wish{w.follow(j)}
	x.next = finish
	e := w.ledger[j.ID]
	switch {
	case e == nil, e.state == "refused" && e.token <= j.Token, e.state == "in_flight" && w.habit == Blind:
		if w.habit != Hasty {
			w.ledger[j.ID] = &entry{"in_flight", j.Token}
			w.tell("%s marks %s/%d in flight", k.owner, j.ID, j.Token)
		}
		x.next = call
	case e.state == "in_flight": // who marked it may have called: nobody knows
		*e = entry{"unconfirmed", j.Token}
		w.tell("%s finds %s/%d in flight", k.owner, j.ID, j.Token)
	default:
		w.tell("%s finds %s/%d %s", k.owner, j.ID, j.Token, e.state)
	}
}

// call calls the service.
func call(w *world, k *worker, x *execution) {
	j := x.job
	for _, before := range w.called[j.ID] {
		if before != refused {
			w.fail("%s is called for again by token %d, after it was %s", j.ID, j.Token, before)
		}
	}
	a := draw(w, accepted, accepted, refused, silent)
	w.called[j.ID] = append(w.called[j.ID], a)
	w.tell("%s calls for %s/%d: %s", k.owner, j.ID, j.Token, a)
	x.next = func(w *world, k *worker, x *execution) {
		state := map[answer]string{accepted: "sent", refused: "refused", silent: "unconfirmed"}[a]
		e := w.ledger[j.ID]
		if w.habit == Hasty {
			w.ledger[j.ID] = &entry{state, j.Token}
		} else if e.state == "in_flight" && e.token == j.Token { // else somebody else has it by now
			*e = entry{state, j.Token}
		}
		w.tell("%s records %s/%d %s, it is %+v", k.owner, j.ID, j.Token, state, *w.ledger[j.ID])
		if a == refused {
			x.out = outcome{Outcome: store.Outcome{ID: j.ID, Token: j.Token, State: store.Scheduled, RunAt: w.now().Round(0).Add(5 * time.Second), CountFailed: true}}
			if j.Attempt+1 >= j.MaxAttempts {
				x.out.State = store.Dead
			}
		}
		x.next = finish
	}
}

// follow is the one job that a job leaves, however often it runs.
func (w *world) follow(j store.Job) wish {
	w.serial++
	n := wish{NewJob: store.NewJob{ID: fmt.Sprintf("job_%04d", w.serial), Tenant: j.Tenant, Type: simWork, UniqueKey: "after-" + j.ID}}
	n.lane, n.hash = store.LaneName(n.Tenant, "", ""), n.Type+"{}"
	return n
}

// ending draws how a job ends.
func (w *world) ending(j store.Job) outcome {
	o := outcome{Outcome: store.Outcome{ID: j.ID, Token: j.Token, CountFailed: w.chance(2),
		State: draw(w, store.Succeeded, store.Succeeded, store.Succeeded, store.Dead, store.Parked, store.Scheduled, store.Ready, store.Expired, store.Cancelled)}}
	now := w.now().Round(0)
	if o.State == store.Scheduled || o.State == store.Ready && w.chance(2) {
		o.RunAt = now.Add(time.Duration(w.rnd.IntN(40)-5) * time.Second)
	}
	if o.CountFailed {
		o.Error = &store.JobError{At: now, Code: "drawn", Message: "drawn"}
	}
	if w.chance(3) && w.serial < 400 {
		n := w.wish()
		if k, ok := w.m.known(n); ok && w.m.jobs[k.id].typ != n.Type {
			n.OnTaken = store.Keep // else it is refused, and the end with it
		}
		o.next = append(o.next, n)
	}
	return o
}

// finish records the end of an execution.
func finish(w *world, k *worker, x *execution) {
	o := x.out
	for _, n := range o.next {
		o.Outcome.Next = append(o.Outcome.Next, n.NewJob)
	}
	held, err := w.q().Finish(w.ctx, o.Outcome)
	w.must(err)
	w.tell("%s ends %s/%d as %s, then %d: %v", k.owner, o.ID, o.Token, o.State, len(o.next), held)
	want := w.m.finish(o.Outcome, o.next, w.wms(), w.mono)
	if held[0] != want {
		w.fail("the end of %s/%d held: %v, should be %v", o.ID, o.Token, held[0], want)
	}
	if name := fmt.Sprint(o.ID, "/", o.Token); held[0] {
		if w.ended[name] {
			w.fail("two ends of %s held", name)
		}
		w.ended[name] = true
	}
	if w.chance(8) {
		w.tell("the answer is lost") // it will be told again
	} else {
		k.drop(x)
	}
	w.checked(false)
}

// beat prolongs the leases of a worker, which drops what it lost and gives back what it never heard of.
func (k *worker) beat(w *world) {
	held, err := w.q().Beat(w.ctx, k.owner, simLease)
	w.must(err)
	w.tell("%s beats: %d held", k.owner, len(held))
	var ids []string
	for _, h := range held {
		ids = append(ids, h.ID)
		j := w.m.jobs[h.ID]
		if h.Token != j.token || h.Cancel != j.asked {
			w.fail("beat says %+v of %s", h, j)
		}
		j.lease = w.mono + simLease
		w.m.jobs[h.ID] = j
	}
	slices.Sort(ids)
	if want := w.m.owned(k.owner); !slices.Equal(ids, want) {
		w.fail("%s holds %v by its beat, should be %v", k.owner, ids, want)
	}
	w.checked(true)
	strays := map[string]int64{}
	for _, h := range held {
		if !slices.ContainsFunc(k.work, func(x *execution) bool { return x.job.ID == h.ID && x.job.Token == h.Token }) {
			strays[h.ID] = h.Token
		}
	}
	for _, id := range ids { // in a fixed order
		if token, ok := strays[id]; ok && k.strays[id] == token {
			x := &execution{job: store.Job{ID: id, Token: token}}
			x.out.Outcome = store.Outcome{ID: id, Token: token, State: store.Ready}
			finish(w, k, x)
		}
	}
	k.strays = strays
}

// crash ends a worker's process.
func (w *world) crash() {
	k := draw(w, w.workers...)
	w.tell("%s crashes", k.owner)
	*k = *w.newWorker()
}

// reboot ends the process that the queue and all workers are in. Leases are judged by the wall clock from then on, but none
// is longer than a lease.
func (w *world) reboot() {
	w.hosts = fmt.Sprint(len(w.trace))
	for _, k := range w.workers {
		*k = *w.newWorker()
	}
	for id, j := range w.seen() {
		m := w.m.jobs[id]
		if m.state == store.Running {
			m.lease = w.mono + min(simLease, time.Duration(ms(j.LeaseUntil)-w.wms())*time.Millisecond)
			w.m.jobs[id] = m
		}
	}
}

func (w *world) restart() {
	w.tell("the process restarts")
	w.must(w.plant.Restart())
	w.reboot()
	w.checked(false)
}

// powerCut cuts the power: what waited for the disk is there, claims and beats since may not be.
func (w *world) powerCut() {
	w.must(w.plant.PowerCut(w.rnd))
	seen := w.seen()
	var wrong string
	for i := len(w.since) - 1; i >= 0; i-- {
		if wrong = w.since[i].differs(seen); wrong == "" {
			w.tell("the power fails, %d changes are undone", len(w.since)-1-i)
			w.m = w.since[i].clone()
			w.plant.Wrote()
			w.since = []*model{w.m.clone()}
			w.reboot()
			w.checked(false)
			return
		}
	}
	w.tell("the power fails")
	w.fail("after a power cut, of %d states that it may leave: %s", len(w.since), wrong)
}

// recover lets all be well: workers that live, calls that are answered, clients that are active, time that goes on. Every job
// must come to its end.
func (w *world) recover() {
	w.tell("from now on all is well")
	for _, k := range w.workers {
		k.stalled = false
	}
	if w.wall < w.furthest { // else what is due by a clock that was set back since takes hours
		w.jump(w.furthest - w.wall)
	}
	for scope := range w.m.rest {
		_, err := w.q().Resume(w.ctx, scope, "")
		w.must(err)
	}
	clear(w.m.rest)
	w.checked(false)
	w.counts()
	for range 100 {
		if w.m.unfinished() == "" {
			w.promote()
			w.counts()
			return
		}
		w.unseen = true
		for _, id := range w.m.ids(func(j simJob) bool { return j.state == store.Parked }) {
			if j := w.m.jobs[id]; j.state == store.Parked {
				w.releaseParked(j.tenant)
				w.checked(false)
			}
		}
		for _, k := range w.workers {
			k.beat(w)
		}
		w.promote()
		for _, k := range w.workers {
			w.claim(k, 20)
			for len(k.work) > 0 {
				x := k.work[0]
				if x.job.Type == simWork {
					x.out = outcome{Outcome: store.Outcome{ID: x.job.ID, Token: x.job.Token, State: store.Succeeded}}
					x.next = finish
				}
				x.next(w, k, x)
			}
		}
		w.unseen = false
		w.checked(false)
		w.pass(draw(w, 5*time.Second, 9*time.Second))
	}
	w.fail("these never end:\n%s", w.m.unfinished())
}
