package sqlite

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// expireMost is how many jobs one claim may expire.
const expireMost = 2000

// Claim implements store.Queue.
//
// Of a class, those tenants are served first that hold fewest of the worker's slots, and among them lanes by virtual time,
// which grows by what a lane took; what slots are left then are given in further turns. A lane whose ready jobs are all of unknown types is read
// once in a while; one that mixes many unknown jobs before known ones is read through at every claim, which
// is slow (0.1 s for 100,000) but delays nobody else's turn. Without Types nothing is claimed. A lane that has
// all that it may have at once is passed over: what is left of the slots stays free.
func (q *Queue) Claim(ctx context.Context, r store.ClaimRequest) ([]store.Job, error) {
	if r.Owner == "" || r.Lease <= 0 {
		return nil, invalid("a claim without owner or lease")
	}
	if r.Limit <= 0 || len(r.Types) == 0 {
		return nil, nil
	}
	if idle, err := q.idle(ctx, r); err != nil || idle {
		return nil, err
	}
	var k *claim
	err := q.changeRedoable(ctx, func(c *change) (err error) {
		k = newClaim(c, r)
		return k.run()
	})
	if err != nil {
		return nil, err
	}
	q.busy.Store(len(k.picked) > 0)
	return q.leased(ctx, r.Owner, k.picked)
}

// claim is one claim under way.
type claim struct {
	*change
	*turn.Claim
	picked []picked
	begun  int // of what was picked, how many are written
}

func newClaim(c *change, r store.ClaimRequest) *claim {
	return &claim{change: c, Claim: c.q.mem.Begin(r, c.nanos, c.limited), picked: make([]picked, 0, min(r.Limit, 256))}
}

func (k *claim) run() error {
	if found, err := work(k.first(workQuery, patientest(k.ClaimRequest), k.now)); err != nil || !found {
		return err
	}
	if _, err := k.expire(expireMost); err != nil {
		return err
	}
	if err := k.free(); err != nil {
		return err
	}
	for _, p := range k.Passes() {
		for more := true; more && k.Wants(p); {
			var err error
			if more, err = k.serve(&p); err != nil {
				return err
			}
		}
	}
	return k.keep(k.Rates())
}

// serve claims what one turn gives; whether another turn may find more.
func (k *claim) serve(p *turn.Pass) (more bool, err error) {
	if err := k.flush(); err != nil { // what was taken so far counts in this turn
		return false, err
	}
	shares, err := k.Turn(p, k.open(*p))
	if err != nil {
		return false, err
	}
	found, err := k.look(shares)
	if err != nil {
		return false, err
	}
	before := len(k.picked)
	for i, s := range shares {
		n := len(k.picked)
		known, err := k.claimLane(s, found[i])
		if err != nil {
			return false, err
		}
		if k.Took(p, s, int64(len(k.picked)-n), known) {
			more = true
		}
	}
	if err := k.begin(); err != nil {
		return false, err
	}
	left := k.Hold(func(lane string, until int64) {
		l := k.lane(lane)
		l.limited = max(l.limited, until)
	})
	return more || left && len(k.picked) > before, nil
}

// open gives the lanes of some classes that may be claimed from, in the order in which a turn looks at them.
func (c *change) open(p turn.Pass) iter.Seq2[turn.Queue, error] {
	return func(yield func(turn.Queue, error) bool) {
		for r, err := range c.rows(`SELECT lane, tenant, resource, class, ready, vtime, running, trial FROM lanes INDEXED BY lanesReady
				WHERE ready > 0 AND eligibleAt = 0 AND class BETWEEN ? AND ? ORDER BY class, vtime, lane`, p.From, p.To) {
			if err != nil {
				yield(turn.Queue{}, err)
				return
			}
			l := turn.Lane{Name: r.text(0), Tenant: r.text(1), Resource: r.text(2), Class: int(r.int(3))}
			if !yield(turn.Queue{Lane: l, Ready: r.int(4), VTime: r.int(5), Running: r.int(6), Trial: r.int(7) > 0}, nil) {
				return
			}
		}
	}
}

// look gives the first jobs of lanes that are of the types asked for, as many as each may take and in their order; not
// those of lanes that have pairs. A statement for each lane would take as long for itself as for its rows.
func (k *claim) look(shares []turn.Share) ([][]picked, error) {
	found := make([][]picked, len(shares))
	places := map[int64][]int{} // by how many they take
	for i, s := range shares {
		if s.Take > 0 && s.Bounds.Pair.Every <= 0 {
			places[s.Take] = append(places[s.Take], i)
		}
	}
	for take, of := range places {
		names := make([]string, len(of))
		for i, place := range of {
			names[i] = shares[place].Name
		}
		list, err := json.Marshal(names)
		if err != nil {
			return nil, err
		}
		for r, err := range k.rows(`SELECT e.key, j.n, j.token, j.runAt, j.type FROM json_each(?) e CROSS JOIN jobs j ON j.n IN (
				SELECT n FROM jobs INDEXED BY jobsReady WHERE state = 'ready' AND lane = e.value AND (expiresAt IS NULL OR expiresAt > ?)
					AND type IN (`+marks(len(k.Types))+`) ORDER BY runAt, n LIMIT ?)`, append(append([]any{text(list), k.now}, anys(k.Types)...), take)...) {
			if err != nil {
				return nil, err
			}
			i := of[r.int(0)]
			found[i] = append(found[i], picked{r.int(1), r.int(2) + 1, r.int(3), r.text(4)})
		}
	}
	return found, nil
}

// claimLane claims the jobs found in a lane, or the first whose pairs let them start. Of those that are left, known says
// that they are all of other types.
func (k *claim) claimLane(s turn.Share, found []picked) (known bool, err error) {
	if s.Take == 0 {
		return true, nil
	}
	known = true
	if s.Bounds.Pair.Every > 0 {
		var ns []any
		if ns, known, err = k.unpaired(s); err != nil || len(ns) == 0 {
			return known, err
		}
		for r, err := range k.rows(`SELECT n, token, runAt, type FROM jobs WHERE n IN (`+marks(len(ns))+`)`, ns...) {
			if err != nil {
				return false, err
			}
			found = append(found, picked{r.int(0), r.int(1) + 1, r.int(2), r.text(3)})
		}
	}
	// They came by n; a stable sort leaves those of one time so.
	slices.SortStableFunc(found, func(a, b picked) int { return cmp.Compare(a.runAt, b.runAt) })
	for _, p := range found {
		k.move(s.Name, p.typ, store.Ready, store.Running)
	}
	k.picked = append(k.picked, found...)
	if len(found) > 0 {
		k.lane(s.Name).vtime += turn.Stride * int64(len(found))
	}
	return known, nil
}

// begin writes the claims of one turn, of all its lanes in one statement: each of its own would take as long for the
// statement as for its rows.
func (k *claim) begin() error {
	fresh := k.picked[k.begun:]
	if len(fresh) == 0 {
		return nil
	}
	list, err := rowList(fresh)
	if err != nil {
		return err
	}
	k.begun = len(k.picked)
	_, err = k.exec(`UPDATE jobs SET state = 'running', token = token + 1, starts = starts + 1, owner = ?, leaseUntil = ?, startedAt = ?
		WHERE n IN (SELECT value FROM json_each(?))`, k.Owner, k.now+k.Lease.Milliseconds(), k.now, list)
	return err
}

// unpaired gives the numbers of a lane's first jobs whose pairs let them start, and puts off those before them whose do
// not. known: see claimLane.
func (k *claim) unpaired(s turn.Share) (ns []any, known bool, err error) {
	type late struct {
		n, at int64
		typ   string
	}
	var put []late
	known = true
	for r, err := range k.rows(`SELECT n, pair, type FROM jobs INDEXED BY jobsReady WHERE state = 'ready' AND lane = ? AND (expiresAt IS NULL OR expiresAt > ?)
			AND type IN (`+marks(len(k.Types))+`) ORDER BY runAt, n`, append([]any{s.Name, k.now}, anys(k.Types)...)...) {
		if err != nil {
			return nil, false, err
		}
		if int64(len(ns)) == s.Take {
			break
		}
		n, pair := r.int(0), r.text(1)
		if pair == "" {
			ns = append(ns, n)
			continue
		}
		at, full, err := k.Pair(s, pair)
		if err != nil {
			return nil, false, err
		}
		if full {
			known, k.ready = false, true
			break
		}
		if at == 0 {
			ns = append(ns, n)
			continue
		}
		put = append(put, late{n, at, r.text(2)})
	}
	for _, j := range put {
		if _, err := k.exec(`UPDATE jobs SET state = 'scheduled', runAt = ? WHERE n = ?`, j.at, j.n); err != nil {
			return nil, false, err
		}
		k.move(s.Name, j.typ, store.Ready, store.Scheduled)
		k.due = min(k.due, j.at)
	}
	return ns, known, nil
}

// Beat implements store.Queue.
func (q *Queue) Beat(ctx context.Context, owner string, lease time.Duration) ([]store.Held, error) {
	if owner == "" || lease <= 0 {
		return nil, invalid("a beat without owner or lease")
	}
	var held []store.Held
	err := q.changeRedoable(ctx, func(c *change) error {
		held = nil
		for r, err := range c.rows(`UPDATE jobs INDEXED BY jobsRunning SET leaseUntil = ? WHERE state = 'running' AND owner = ?
			RETURNING _id, token, cancelRequested`, c.now+lease.Milliseconds(), owner) {
			if err != nil {
				return err
			}
			held = append(held, store.Held{ID: r.text(0), Token: r.int(1), Cancel: r.int(2) != 0})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return held, nil
}

// Release implements store.Queue. A job that was asked to cancel is cancelled.
func (q *Queue) Release(ctx context.Context, owner string) (int, error) {
	n := 0
	err := q.change(ctx, func(c *change) (err error) {
		n, err = c.moveAll(store.Running, `UPDATE jobs INDEXED BY jobsRunning
			SET state = CASE WHEN cancelRequested THEN 'cancelled' ELSE 'ready' END,
				endedAt = CASE WHEN cancelRequested THEN ? END, owner = NULL, leaseUntil = NULL
			WHERE state = 'running' AND owner = ?`, c.now, owner)
		return err
	})
	return n, err
}

// moveAll runs an UPDATE of jobs that all are in one state, and counts them into the one they come to.
func (c *change) moveAll(from store.State, update string, args ...any) (n int, err error) {
	type moved struct{ lane, typ, to string }
	var all []moved
	for r, err := range c.rows(update+` RETURNING lane, type, state`, args...) {
		if err != nil {
			return 0, err
		}
		all = append(all, moved{r.text(0), r.text(1), r.text(2)})
	}
	for _, m := range all {
		c.move(m.lane, m.typ, from, store.State(m.to))
	}
	return len(all), nil
}
