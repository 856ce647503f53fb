package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// model is what the contract of store.Queue says the queue must hold now.
type model struct {
	jobs map[string]simJob
	keys map[string]simKey // by tenant and key
	rest map[string]bool   // scopes that an operator paused
}

// simJob is a job as the model has it. Times are Unix milliseconds, 0 for none.
type simJob struct {
	id, tenant, typ, lane, owner string
	state                        store.State
	runAt, expiresAt, endedAt    int64
	attempt, starts, crashes     int
	token                        int64
	key, hash                    string
	home                         string        // where it came from, in quarantine
	holds                        bool          // its key is its own
	asked                        bool          // to cancel
	owed                         bool          // it ended by itself, and its domain is not told
	lease                        time.Duration // its end by the monotonic clock
}

// simKey is a unique key that is known.
type simKey struct {
	id, hash string
	until    int64 // how long, once its job is pruned
}

// The contract's numbers.
const (
	simLease      = 15 * time.Second
	keysKept      = 72 * time.Hour
	poisonCrashes = 3
)

var endsKept = map[store.State]time.Duration{
	store.Succeeded: 24 * time.Hour, store.Cancelled: 7 * 24 * time.Hour, store.Expired: 7 * 24 * time.Hour, store.Dead: 30 * 24 * time.Hour,
}

func newModel() *model { return &model{map[string]simJob{}, map[string]simKey{}, map[string]bool{}} }

func (m *model) clone() *model {
	return &model{maps.Clone(m.jobs), maps.Clone(m.keys), maps.Clone(m.rest)}
}

// differs tells the first thing in which the queue is not as the model.
func (m *model) differs(seen map[string]store.Job) string {
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		want := m.jobs[id]
		got, ok := seen[id]
		if !ok {
			return fmt.Sprintf("%s is lost; it was %s", id, want)
		}
		if is := shown(got); is != want.shown() {
			return fmt.Sprintf("%s is\n\t%s, should be\n\t%s", id, is, want)
		}
	}
	for id, j := range seen {
		if _, ok := m.jobs[id]; !ok {
			return fmt.Sprintf("%s is there and should not be: %s", id, shown(j))
		}
	}
	return ""
}

// shown is what the queue shows too.
func (j simJob) shown() simJob {
	j.hash, j.holds, j.asked, j.owed, j.lease = "", false, false, false, 0
	return j
}

func (j simJob) String() string {
	return fmt.Sprintf("%s of %q in %q, %s, at %d, expires %d, attempt %d, starts %d, crashes %d, token %d, owner %q, ended %d, key %q",
		j.typ, j.tenant, j.lane, j.state, j.runAt, j.expiresAt, j.attempt, j.starts, j.crashes, j.token, j.owner, j.endedAt, j.key)
}

func shown(j store.Job) simJob {
	home := ""
	if tenant, resource, class := store.SplitLane(j.Lane); class == store.Quarantine {
		home = store.LaneName(tenant, resource, j.Class)
	}
	return simJob{
		home: home,
		id:   j.ID, typ: j.Type, tenant: j.Tenant, lane: j.Lane, state: j.State, runAt: ms(j.RunAt), expiresAt: ms(j.ExpiresAt), attempt: j.Attempt,
		starts: j.Starts, crashes: j.Crashes, token: j.Token, owner: j.Owner, endedAt: ms(j.EndedAt), key: j.UniqueKey,
	}
}

func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// end puts a job into a state that it stays in.
func (j *simJob) end(s store.State, now int64) {
	j.state, j.endedAt, j.owner, j.lease = s, now, "", 0
}

// back takes a job from its owner, into a state that is not the end.
func (j *simJob) back(s store.State) { j.state, j.owner, j.lease = s, "", 0 }

// wish is what a new job is asked to be; lane is where the queue should put it.
type wish struct {
	store.NewJob
	lane, hash string
}

func keyName(tenant, key string) string { return tenant + "\x00" + key }

// known is the job of a wish's key.
func (m *model) known(w wish) (simKey, bool) {
	if w.UniqueKey == "" {
		return simKey{}, false
	}
	k, ok := m.keys[keyName(w.Tenant, w.UniqueKey)]
	return k, ok
}

// made is what becomes of a wish.
type made string

const (
	fresh    made = "made"
	known    made = "known"
	replaced made = "replaced"
	reused   made = "reused" // a key for something else: refused
)

// insert makes a job of a wish under an id, unless its key is known; then what the wish says is to become of that.
func (m *model) insert(w wish, id string, now int64, mono time.Duration) made {
	if k, ok := m.known(w); ok {
		old, there := m.jobs[k.id]
		switch {
		case w.OnTaken == store.Keep && k.hash != w.hash, w.OnTaken != store.Keep && there && !old.state.Terminal() && old.typ != w.Type:
			return reused
		case w.OnTaken == store.Keep:
			return known
		case there && !old.state.Terminal() && old.state != store.Running:
			m.rewrite(old, w, now)
			return replaced
		case there:
			old.holds = false
			m.jobs[k.id] = old
		}
	}
	m.make(w, id, now, mono)
	return fresh
}

// rewrite makes a job that does not run yet what a wish says.
func (m *model) rewrite(j simJob, w wish, now int64) {
	j.lane, j.home, j.expiresAt, j.hash, j.attempt, j.holds = w.lane, "", ms(w.ExpiresAt), w.hash, 0, true
	if w.OnTaken == store.Replace {
		if j.runAt = now; !w.RunAt.IsZero() {
			j.runAt = ms(w.RunAt)
		}
		switch {
		case j.state == store.Parked:
		case j.runAt > now:
			j.state = store.Scheduled
		default:
			j.state = store.Ready
		}
	}
	m.jobs[j.id] = j
	m.keys[keyName(j.tenant, j.key)] = simKey{id: j.id, hash: w.hash}
}

func (m *model) make(w wish, id string, now int64, mono time.Duration) {
	j := simJob{id: id, tenant: w.Tenant, typ: w.Type, lane: w.lane, state: store.Ready, runAt: now, expiresAt: ms(w.ExpiresAt),
		key: w.UniqueKey, hash: w.hash, holds: w.UniqueKey != ""}
	switch {
	case w.ClaimFor != "":
		j.state, j.owner, j.token, j.starts, j.lease = store.Running, w.ClaimFor, 1, 1, mono+simLease
	case !w.RunAt.IsZero():
		if j.runAt = ms(w.RunAt); j.runAt > now {
			j.state = store.Scheduled
		}
	}
	m.jobs[id] = j
	if j.holds {
		m.keys[keyName(j.tenant, j.key)] = simKey{id: id, hash: w.hash}
	}
}

// claim is what a claim must have done with a job it gave; why not, if it must not have.
func (m *model) claim(id, owner string, now int64, mono, lease time.Duration) string {
	j, ok := m.jobs[id]
	switch {
	case !ok:
		return "nobody made it"
	case j.state != store.Ready:
		return "it was " + string(j.state)
	case j.late(now):
		return "it was too late"
	case m.resting(j.lane):
		return "its lane was paused"
	}
	j.state, j.owner, j.token, j.starts, j.lease = store.Running, owner, j.token+1, j.starts+1, mono+lease
	m.jobs[id] = j
	return ""
}

// resting tells whether a lane is paused.
func (m *model) resting(lane string) bool {
	return slices.ContainsFunc(store.Scopes(lane), func(s string) bool { return m.rest[s] })
}

func (j simJob) late(now int64) bool { return j.expiresAt != 0 && j.expiresAt <= now }

// everyJob is all of them.
func everyJob(string) bool { return true }

// expire ends what can no longer begin in time, of some jobs. Claims do that for what they find, promotions for all.
func (m *model) expire(now int64, of func(id string) bool) {
	for id, j := range m.jobs {
		if of(id) && !j.state.Terminal() && j.state != store.Running && j.late(now) {
			j.end(store.Expired, now)
			j.owed = true
			m.jobs[id] = j
		}
	}
}

// takeBack ends the executions whose lease is over.
func (m *model) takeBack(now int64, mono time.Duration) {
	for id, j := range m.jobs {
		if j.state != store.Running || j.lease > mono {
			continue
		}
		j.crashes++
		switch {
		case j.asked:
			j.end(store.Cancelled, now)
		case j.crashes >= poisonCrashes:
			j.end(store.Dead, now)
			j.owed = true
		case j.late(now):
			j.end(store.Expired, now)
			j.owed = true
		default:
			j.back(store.Ready)
			if j.home == "" {
				j.home = j.lane
			}
			_, resource, _ := store.SplitLane(j.home)
			j.lane = store.LaneName(j.tenant, resource, store.Quarantine)
		}
		m.jobs[id] = j
	}
}

// goHome takes a job out of quarantine.
func (j *simJob) goHome() {
	if j.home != "" {
		j.lane, j.home = j.home, ""
	}
}

// due makes ready what is due.
func (m *model) due(now int64) {
	for id, j := range m.jobs {
		if j.state == store.Scheduled && j.runAt <= now {
			j.state = store.Ready
			m.jobs[id] = j
		}
	}
}

// finish does what an outcome must do, and tells whether it holds.
func (m *model) finish(o store.Outcome, next []wish, now int64, mono time.Duration) bool {
	j, ok := m.jobs[o.ID]
	if !ok || j.state != store.Running || j.token != o.Token {
		return false
	}
	for _, w := range next {
		m.insert(w, w.ID, now, mono)
	}
	if o.State != store.Ready {
		j.goHome()
	}
	state := o.State
	if state == store.Scheduled || state == store.Ready {
		if !o.RunAt.IsZero() {
			j.runAt = ms(o.RunAt)
		}
		if j.runAt <= now {
			state = store.Ready
		} else if o.State == store.Ready {
			j.runAt = now
		}
	}
	if j.asked && !state.Terminal() {
		state = store.Cancelled
	}
	if o.CountFailed {
		j.attempt++
	}
	if state.Terminal() {
		j.end(state, now)
	} else {
		j.back(state)
	}
	m.jobs[o.ID] = j
	return true
}

func (m *model) release(owner string, now int64) (n int) {
	for id, j := range m.jobs {
		if j.state != store.Running || j.owner != owner {
			continue
		}
		if n++; j.asked {
			j.end(store.Cancelled, now)
		} else {
			j.back(store.Ready)
		}
		m.jobs[id] = j
	}
	return n
}

func (m *model) cancel(id string, now int64) bool {
	j, ok := m.jobs[id]
	switch {
	case !ok || j.state.Terminal():
		return false
	case j.state == store.Running:
		j.asked = true
	default:
		j.end(store.Cancelled, now)
	}
	m.jobs[id] = j
	return true
}

func (m *model) retry(id string, now int64) bool {
	j, ok := m.jobs[id]
	if !ok || j.state == store.Succeeded || !j.state.Terminal() && j.state != store.Parked {
		return false
	}
	if j.key != "" && !j.holds { // its key was freed meanwhile
		if _, taken := m.keys[keyName(j.tenant, j.key)]; !taken {
			m.keys[keyName(j.tenant, j.key)] = simKey{id: id, hash: j.hash}
			j.holds = true
		}
	}
	j.goHome()
	j.state, j.runAt, j.attempt, j.crashes, j.asked, j.owed, j.endedAt = store.Ready, now, 0, 0, false, false, 0
	if j.late(now) {
		j.expiresAt = 0
	}
	m.jobs[id] = j
	return true
}

// prune forgets what ended long ago, and keys 72 h after the end.
func (m *model) prune(now int64) {
	for id, j := range m.jobs {
		if !j.state.Terminal() || j.endedAt > now-endsKept[j.state].Milliseconds() {
			continue
		}
		if delete(m.jobs, id); j.holds {
			k := m.keys[keyName(j.tenant, j.key)]
			k.until = j.endedAt + keysKept.Milliseconds()
			m.keys[keyName(j.tenant, j.key)] = k
		}
	}
	for name, k := range m.keys {
		j, there := m.jobs[k.id]
		switch {
		case there && j.holds && j.state.Terminal() && j.endedAt <= now-keysKept.Milliseconds():
			j.holds = false
			m.jobs[k.id] = j
			delete(m.keys, name)
		case !there && k.until <= now:
			delete(m.keys, name)
		}
	}
}

// owned are the running jobs of an owner.
func (m *model) owned(owner string) (ids []string) {
	for id, j := range m.jobs {
		if j.state == store.Running && j.owner == owner {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// ids are the jobs of which something is true, in a fixed order.
func (m *model) ids(of func(simJob) bool) (ids []string) {
	for id, j := range m.jobs {
		if of(j) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// counted is what the queue's own counts of a tenant's jobs, and of its lanes, must be.
func (m *model) counted() (tenants map[string]store.JobCounts, lanes map[string][3]int64) {
	tenants, lanes = map[string]store.JobCounts{}, map[string][3]int64{}
	for _, j := range m.jobs {
		if tenants[j.tenant] == nil {
			tenants[j.tenant] = store.JobCounts{}
		}
		tenants[j.tenant][j.state]++
		l := lanes[j.lane]
		switch j.state {
		case store.Ready:
			l[0]++
		case store.Running:
			l[1]++
		case store.Parked:
			l[2]++
		default:
			continue
		}
		lanes[j.lane] = l
	}
	return tenants, lanes
}

// unfinished shows what has no end yet.
func (m *model) unfinished() string {
	var lines []string
	for _, id := range m.ids(func(j simJob) bool { return !j.state.Terminal() }) {
		lines = append(lines, id+" "+m.jobs[id].String())
	}
	return strings.Join(lines, "\n")
}
