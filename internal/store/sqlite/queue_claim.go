package sqlite

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	quantum    = 4               // jobs of one lane at a turn
	stride     = 1000            // of a lane's vtime for one job
	barrenFor  = 5 * time.Second // how long a barren lane is passed over
	expireMost = 2000            // jobs that one claim may expire
)

// barren says that a lane held no ready job of these types; it is forgotten when a job of the lane becomes
// ready, and after a while, because what it was learnt from may have been rolled back.
type barren struct {
	types string
	until time.Time
}

// Claim implements store.Queue.
//
// Lanes are served by virtual time: each takes at most quantum jobs, its vtime grows by what it took, and what
// slots are left then are given in further turns. A lane whose ready jobs are all of unknown types is read
// once in barrenFor; one that mixes many unknown jobs before known ones is read through at every claim, which
// is slow (0.1 s for 100,000) but delays nobody else's turn. Without Types nothing is claimed. A lane that has
// all that MaxPerTenant and MaxPerLane allow is passed over: what is left of the slots stays free.
func (q *Queue) Claim(ctx context.Context, r store.ClaimRequest) ([]store.Job, error) {
	if r.Owner == "" || r.Lease <= 0 {
		return nil, invalid("a claim without owner or lease")
	}
	if r.Limit <= 0 || len(r.Types) == 0 {
		return nil, nil
	}
	work := false // an idle poll does not write
	err := q.f.read(ctx, func(c *conn) error {
		r, err := c.first(ctx, `SELECT 1 FROM lanes INDEXED BY lanesReady WHERE ready > 0`)
		work = r != nil
		return err
	})
	if err != nil || !work {
		return nil, err
	}
	var jobs []store.Job
	err = q.changeRedoable(ctx, func(c *change) error {
		jobs = make([]store.Job, 0, min(r.Limit, 256))
		if _, err := c.expire(expireMost); err != nil {
			return err
		}
		types := slices.Clone(r.Types)
		slices.Sort(types)
		done := map[string]bool{} // lanes that gave less than they were asked for
		left := newAllowance(r)
		for len(jobs) < r.Limit {
			if err := c.flush(); err != nil { // what was taken so far counts in the next turn
				return err
			}
			turn, err := c.turn(int64(r.Limit-len(jobs)), strings.Join(types, "\x00"), done, left)
			if err != nil || len(turn) == 0 {
				return err
			}
			for _, s := range turn {
				n := len(jobs)
				if jobs, err = c.claimLane(jobs, s, r); err != nil {
					return err
				}
				got := int64(len(jobs) - n)
				if left.take(s.lane, s.tenant, got); got < s.take {
					done[s.lane] = true
					q.barren[s.lane] = barren{strings.Join(types, "\x00"), time.Now().Add(barrenFor)}
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return jobs, nil
}

// allowance is what tenants and their lanes may still have at once.
type allowance struct {
	most, ofLane         int64 // 0: any number
	tenants, slow, lanes map[string]int64
}

func newAllowance(r store.ClaimRequest) *allowance {
	a := &allowance{int64(r.MaxPerTenant), int64(r.MaxPerLane), map[string]int64{}, map[string]int64{}, map[string]int64{}}
	for lane, n := range r.Held {
		tenant, _, _ := strings.Cut(lane, "/")
		a.take(lane, tenant, int64(n))
	}
	return a
}

// take counts n jobs that a lane got; fewer than none are given back.
func (a *allowance) take(lane, tenant string, n int64) {
	if a.most <= 0 || tenant == "" {
		return
	}
	a.tenants[tenant] += n
	if lane != tenant {
		a.slow[tenant] += n
		a.lanes[lane] += n
	}
}

func (a *allowance) of(lane, tenant string) int64 {
	if a.most <= 0 || tenant == "" {
		return math.MaxInt64
	}
	left := a.most - a.tenants[tenant]
	if lane != tenant {
		left = min(left, max(1, a.most/2)-a.slow[tenant])
		if a.ofLane > 0 {
			left = min(left, a.ofLane-a.lanes[lane])
		}
	}
	return max(0, left)
}

// share is what a lane may take.
type share struct {
	lane, tenant string
	ready        int64 // no more than it may have
	take         int64
}

// turn shares free slots among the lanes with ready jobs, those served least first.
func (c *change) turn(slots int64, types string, done map[string]bool, left *allowance) ([]share, error) {
	var shares []share
	var certain int64 // slots that one quantum of each lane fills
	for r, err := range c.rows(`SELECT lane, ready, vtime, tenant FROM lanes INDEXED BY lanesReady WHERE ready > 0 ORDER BY vtime, lane`) {
		if err != nil {
			return nil, err
		}
		lane := r.text(0)
		if done[lane] {
			continue
		}
		if b, ok := c.q.barren[lane]; ok {
			if time.Now().After(b.until) {
				delete(c.q.barren, lane)
			} else if b.types == types {
				continue
			}
		}
		tenant := r.text(3)
		ready := min(r.int(1), left.of(lane, tenant))
		if ready <= 0 {
			continue
		}
		if len(shares) == 0 {
			c.q.floor = max(c.q.floor, r.int(2))
		}
		left.take(lane, tenant, ready) // while the others are looked at
		shares = append(shares, share{lane: lane, tenant: tenant, ready: ready})
		if certain += min(ready, quantum); certain >= slots {
			break
		}
	}
	for _, s := range shares {
		left.take(s.lane, s.tenant, -s.ready)
	}
	for more := true; more && slots > 0; {
		more = false
		for i := range shares {
			s := &shares[i]
			n := min(quantum, s.ready-s.take, slots)
			s.take, slots, more = s.take+n, slots-n, more || n > 0
		}
	}
	return shares, nil
}

// claimLane claims the first jobs of a lane that are of the types asked for, and appends them in their order.
func (c *change) claimLane(jobs []store.Job, s share, r store.ClaimRequest) ([]store.Job, error) {
	from := len(jobs)
	args := append([]any{r.Owner, c.now + r.Lease.Milliseconds(), c.now, s.lane, c.now}, anys(r.Types)...)
	for row, err := range c.rows(`UPDATE jobs SET state = 'running', token = token + 1, starts = starts + 1, owner = ?, leaseUntil = ?, startedAt = ?
		WHERE n IN (SELECT n FROM jobs INDEXED BY jobsReady WHERE state = 'ready' AND lane = ? AND (expiresAt IS NULL OR expiresAt > ?)
			AND type IN (`+marks(len(r.Types))+`) ORDER BY runAt, n LIMIT ?)
		RETURNING `+jobColumns, append(args, s.take)...) {
		if err != nil {
			return jobs, err
		}
		jobs = append(jobs, scanJob(row))
	}
	got := jobs[from:]
	// RETURNING gives them by n; a stable sort leaves those of one time so.
	slices.SortStableFunc(got, func(a, b store.Job) int { return a.RunAt.Compare(b.RunAt) })
	for _, j := range got {
		c.move(j.Lane, j.Tenant, store.Ready, store.Running)
	}
	if len(got) > 0 {
		c.lane(s.lane, got[0].Tenant).vtime += stride * int64(len(got))
	}
	return jobs, nil
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
	type moved struct{ lane, tenant, to string }
	var all []moved
	for r, err := range c.rows(update+` RETURNING lane, tenant, state`, args...) {
		if err != nil {
			return 0, err
		}
		all = append(all, moved{r.text(0), r.text(1), r.text(2)})
	}
	for _, m := range all {
		c.move(m.lane, m.tenant, from, store.State(m.to))
	}
	return len(all), nil
}
