package storetest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// What jobs are about. "send" calls a service, at most once whatever happens; "work" ends in every way there is.
const (
	simSend = "send"
	simWork = "work"
)

var simTypes = []string{simSend, simWork}

// step is one thing that happens.
func (w *world) step() {
	switch w.rnd.IntN(39) {
	case 0, 1, 2, 3:
		w.enqueue()
	case 4, 5, 6, 7, 8:
		w.claim(w.any(), 1+w.rnd.IntN(6))
	case 9, 10, 11, 12, 13, 14, 15, 16, 17:
		w.any().act(w)
	case 18, 19:
		w.any().beat(w)
	case 20, 21, 22:
		w.promote()
	case 23:
		w.crash()
	case 24:
		k := w.any()
		k.stalled = !k.stalled
		w.tell("%s stalls: %v", k.owner, k.stalled)
	case 25, 26, 27:
		w.pass(draw(w, 3*time.Millisecond, time.Second, time.Second, 4*time.Second, 9*time.Second, 16*time.Second, time.Minute))
	case 28:
		w.jump(draw(w, time.Hour, -time.Hour))
	case 29:
		w.cancel()
	case 30:
		w.retry()
	case 31:
		w.release()
	case 32:
		w.restart()
	case 33:
		w.powerCut()
	case 34:
		if w.chance(3) {
			w.pass(draw(w, 25*time.Hour, 73*time.Hour, 8*24*time.Hour))
		}
		w.prune()
	case 35:
		w.counts()
	case 36, 37:
		w.rest()
	case 38:
		w.tellOwed()
	}
}

// any is a worker that is awake.
func (w *world) any() *worker {
	for range 5 {
		if k := draw(w, w.workers...); !k.stalled {
			return k
		}
	}
	w.workers[0].stalled = false
	return w.workers[0]
}

// wish draws a new job.
func (w *world) wish() wish {
	w.serial++
	n := wish{NewJob: store.NewJob{
		ID: fmt.Sprintf("job_%04d", w.serial), Tenant: draw(w, "", "A", "B", "C"), Type: draw(w, simTypes...),
		Payload:  fmt.Appendf(nil, `{"n": %d}`, w.rnd.IntN(2)),
		Resource: draw(w, "", "", "slow"),
		Class:    draw(w, "", "", store.Interactive, store.Bulk, store.Maintenance),
	}}
	n.lane = store.LaneName(n.Tenant, n.Resource, n.Class)
	n.hash = n.Type + string(n.Payload)
	now := w.now().Round(0)
	if w.chance(3) {
		n.RunAt = now.Add(time.Duration(w.rnd.IntN(40)-5) * time.Second)
	}
	if w.chance(5) {
		n.ExpiresAt = now.Add(time.Duration(w.rnd.IntN(60)) * time.Second)
	}
	if w.chance(3) {
		n.UniqueKey = fmt.Sprint("k", w.rnd.IntN(12))
		n.OnTaken = draw(w, store.Keep, store.Keep, store.Replace, store.ReplaceKeepTime)
	}
	n.Causation = store.Causation{LeadID: fmt.Sprint("lead_", w.rnd.IntN(4)), Step: n.ID}
	return n
}

// enqueue makes some jobs in one call, of which a worker may do one itself.
func (w *world) enqueue() {
	wishes := make([]wish, 1+w.rnd.IntN(3))
	for i := range wishes {
		wishes[i] = w.wish()
	}
	by := w.any()
	if len(wishes) == 1 && w.chance(4) {
		wishes[0].ClaimFor, wishes[0].OnTaken = by.owner, store.Keep
	}
	before := w.m.clone()
	refused := false
	jobs := make([]store.NewJob, len(wishes))
	became := make([]made, len(wishes))
	for i, n := range wishes {
		jobs[i] = n.NewJob
		became[i] = w.m.insert(n, n.ID, w.wms(), w.mono)
		refused = refused || became[i] == reused
	}
	answers, err := w.q().Enqueue(w.ctx, jobs...)
	for i, j := range jobs {
		w.tell("enqueue %s %s in %s key %q (%v) for %q, due %d, expires %d: %s, %v", j.ID, j.Type, wishes[i].lane, j.UniqueKey, j.OnTaken, j.ClaimFor, ms(j.RunAt), ms(j.ExpiresAt), became[i], err)
	}
	if refused {
		if w.m = before; !errors.Is(err, store.ErrKeyReuse) {
			w.fail("a key was used for another job, and the answer is %v, %v", answers, err)
		}
		w.checked(false)
		return
	}
	w.must(err)
	for i, n := range wishes {
		e := answers[i]
		if e.Duplicate != (became[i] != fresh) || e.Replaced != (became[i] == replaced) || became[i] == fresh && e.Job.ID != n.ID {
			w.fail("%s was %s, and the answer is %+v", n.ID, became[i], e)
		}
		if k, ok := w.m.known(n); became[i] != fresh && ok && e.Job.ID != k.id && i == len(wishes)-1 {
			w.fail("key %q is of %s, and the answer names %s", n.UniqueKey, k.id, e.Job.ID)
		}
		if !e.Duplicate && n.ClaimFor != "" {
			by.take(e.Job)
		}
	}
	w.checked(false)
}

// rest is an operator who pauses a client's lanes, or some of them, or lets them go on.
func (w *world) rest() {
	scope := draw(w, "A", "B", "A/slow", "B/internal", "C/internal/bulk", "C/slow/normal")
	if w.m.rest[scope] || w.chance(3) {
		did, err := w.q().Resume(w.ctx, scope, draw(w, "", store.Operator))
		w.must(err)
		w.tell("%s goes on: %v", scope, did)
		if did != w.m.rest[scope] {
			w.fail("%s was paused: %v", scope, w.m.rest[scope])
		}
		delete(w.m.rest, scope)
	} else {
		_, err := w.q().Pause(w.ctx, store.PauseRequest{Scope: scope, Reason: store.Operator})
		w.must(err)
		w.tell("%s rests", scope)
		w.m.rest[scope] = true
	}
	w.checked(false)
}

// tellOwed tells domains of the jobs that ended by themselves.
func (w *world) tellOwed() {
	owed, err := w.q().Owed(w.ctx, simTypes, 1000)
	w.must(err)
	var ids []string
	for _, j := range owed {
		ids = append(ids, j.ID)
	}
	slices.Sort(ids)
	if want := w.m.ids(func(j simJob) bool { return j.owed }); !slices.Equal(ids, want) {
		w.fail("owed are %v, should be %v", ids, want)
	}
	var told []store.Told
	for _, id := range ids {
		if w.chance(3) {
			continue
		}
		j := w.m.jobs[id]
		n := w.follow(store.Job{ID: id, Tenant: j.tenant})
		told = append(told, store.Told{ID: id, Next: []store.NewJob{n.NewJob}})
		w.m.insert(n, n.ID, w.wms(), w.mono)
		j.owed = false
		w.m.jobs[id] = j
	}
	w.must(w.q().Told(w.ctx, told...))
	w.tell("of %v, domains are told of %d", ids, len(told))
	w.checked(false)
}

func (w *world) claim(k *worker, most int) {
	jobs, err := w.q().Claim(w.ctx, store.ClaimRequest{Owner: k.owner, Limit: most, Lease: simLease, Types: simTypes, Quarantine: true})
	w.must(err)
	var ids []string
	for _, j := range jobs {
		ids = append(ids, fmt.Sprint(j.ID, "/", j.Token))
	}
	w.tell("%s claims %d: %v", k.owner, most, ids)
	if len(jobs) > most {
		w.fail("%d claimed of at most %d", len(jobs), most)
	}
	claimable := w.m.ids(func(j simJob) bool {
		return j.state == store.Ready && !j.late(w.wms()) && !w.m.resting(j.lane) && j.home == ""
	})
	confined := w.m.ids(func(j simJob) bool {
		return j.state == store.Ready && !j.late(w.wms()) && !w.m.resting(j.lane) && j.home != ""
	})
	claimable = append(claimable, confined[:min(1, len(confined))]...) // one of them at a time
	if len(jobs) < min(most, len(claimable)) {
		w.fail("%d claimed, %v were ready", len(jobs), claimable)
	}
	switch {
	case w.remote:
		seen := w.seen()
		w.m.expire(w.wms(), func(id string) bool { return seen[id].State == store.Expired })
	case len(w.m.ids(func(j simJob) bool { return j.state == store.Ready && !w.m.resting(j.lane) })) > 0: // else it looks no further
		w.m.expire(w.wms(), everyJob)
	}
	for _, j := range jobs {
		if why := w.m.claim(j.ID, k.owner, w.wms(), w.mono, simLease); why != "" {
			w.fail("%s was claimed, but %s", j.ID, why)
		}
		if j.Token != w.m.jobs[j.ID].token {
			w.fail("%s was claimed with token %d, should be %d", j.ID, j.Token, w.m.jobs[j.ID].token)
		}
	}
	if w.chance(15) {
		w.tell("the answer is lost")
	} else {
		for _, j := range jobs {
			k.take(j)
		}
	}
	w.checked(true)
}

func (w *world) promote() {
	before := w.m.clone()
	_, next, err := w.q().Promote(w.ctx)
	w.must(err)
	w.tell("promote")
	now := w.wms()
	w.m.expire(now, everyJob)
	w.m.takeBack(now, w.mono)
	w.m.due(now)
	// Where the wall clock was set back and nothing was written since, the queue cannot have seen that leases are over: it does
	// with the first write, and every worker beats.
	for id, was := range before.jobs {
		if was.state != store.Running || was.lease > w.mono {
			continue
		}
		j, err := w.plant.Queue().Job(w.ctx, id)
		w.must(err)
		if j.State == store.Running && j.Token == was.token && ms(j.LeaseUntil) > now {
			w.m.jobs[id] = was
		}
	}
	for _, j := range w.m.jobs {
		switch {
		case j.state == store.Scheduled && (next.IsZero() || ms(next) > j.runAt):
			w.fail("a job is due at %d, and it wants to be asked again at %d", j.runAt, ms(next))
		case j.state == store.Running && next.IsZero():
			w.fail("a lease will end, and it does not want to be asked again")
		}
	}
	w.checked(false)
}

// pass lets time go on.
func (w *world) pass(d time.Duration) {
	w.mono += d
	w.tell("%v pass", d)
}

// jump sets the wall clock; the monotonic one goes on as it was.
func (w *world) jump(d time.Duration) {
	if w.remote {
		return
	}
	w.wall += d
	w.furthest = max(w.furthest, w.wall)
	w.tell("the clock is set by %v", d)
}

func (w *world) some() (ids []string) {
	for _, id := range w.m.ids(func(simJob) bool { return true }) {
		if w.chance(6) {
			ids = append(ids, id)
		}
	}
	return append(ids, "job_none")
}

func (w *world) cancel() {
	ids := w.some()
	did, err := w.q().Cancel(w.ctx, ids...)
	w.must(err)
	w.tell("cancel %v: %v", ids, did)
	w.same("cancelled", did, ids, func(id string) bool { return w.m.cancel(id, w.wms()) })
}

func (w *world) retry() {
	ids := w.some()
	did, err := w.q().Retry(w.ctx, ids...)
	w.must(err)
	w.tell("retry %v: %v", ids, did)
	w.same("retried", did, ids, func(id string) bool { return w.m.retry(id, w.wms()) })
}

// same holds what the queue says it did against what the model does.
func (w *world) same(what string, did, ids []string, do func(id string) bool) {
	var want []string
	for _, id := range ids {
		if do(id) {
			want = append(want, id)
		}
	}
	if !slices.Equal(did, want) {
		w.fail("%s %v, should be %v", what, did, want)
	}
	w.checked(false)
}

// release is a worker that stops in good order, or a client that is let go on.
func (w *world) release() {
	if w.chance(2) {
		k := w.any()
		n, err := w.q().Release(w.ctx, k.owner)
		w.must(err)
		w.tell("%s stops and gives back %d", k.owner, n)
		if want := w.m.release(k.owner, w.wms()); n != want {
			w.fail("%d given back, should be %d", n, want)
		}
		*k = *w.newWorker()
	} else {
		w.releaseParked(draw(w, "", "A", "B", "C"))
	}
	w.checked(false)
}

func (w *world) releaseParked(tenant string) {
	n, err := w.q().ReleaseParked(w.ctx, tenant)
	w.must(err)
	w.tell("%q goes on: %d", tenant, n)
	parked := w.m.ids(func(j simJob) bool { return j.state == store.Parked && j.tenant == tenant })
	if n != len(parked) {
		w.fail("%d let go on, should be %d", n, len(parked))
	}
	for _, id := range parked {
		j := w.m.jobs[id]
		j.state = store.Ready
		w.m.jobs[id] = j
	}
}

func (w *world) prune() {
	n, err := w.q().Prune(w.ctx, 1000)
	w.must(err)
	w.tell("prune: %d", n)
	w.m.prune(w.wms())
	w.checked(false)
}

// counts holds the queue's own counts against a recount.
func (w *world) counts() {
	tenants, lanes := w.m.counted()
	for _, tenant := range []string{"", "A", "B", "C"} {
		if tenant == "" {
			continue // means all
		}
		c, err := w.plant.Queue().JobCounts(w.ctx, tenant)
		w.must(err)
		for _, s := range []store.State{store.Scheduled, store.Ready, store.Running, store.Parked, store.Succeeded, store.Dead, store.Cancelled, store.Expired} {
			if c[s] != tenants[tenant][s] {
				w.fail("%d jobs of %s are %s, it counts %d", tenants[tenant][s], tenant, s, c[s])
			}
		}
	}
	all, err := w.plant.Queue().Lanes(w.ctx, "", 100)
	w.must(err)
	for _, l := range all {
		if got := [3]int64{l.Ready, l.Running, l.Parked}; got != lanes[l.Lane] {
			w.fail("lane %q counts %v, should be %v", l.Lane, got, lanes[l.Lane])
		}
		delete(lanes, l.Lane)
	}
	for name, n := range lanes {
		if name == "" {
			continue
		}
		w.fail("lane %q holds %v and is not listed", name, n)
	}
	w.tell("counts are right")
}
