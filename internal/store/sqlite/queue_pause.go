package sqlite

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// pausesFresh is how long what is remembered of a tenant's pauses is believed.
const pausesFresh = time.Second

// rest is what keeps a lane from running.
type rest struct {
	until int64 // Unix ms; 0: nothing; never: until somebody resumes it
	trial int64 // the latest end that comes by itself: the lane is on trial from then on; 0: none does
}

// rest looks up what keeps a lane from running.
func (c *change) rest(lane string) (r rest, err error) {
	scopes := store.Scopes(lane)
	for row, err := range c.rows(`SELECT until FROM pauses WHERE scope IN (`+marks(len(scopes))+`) AND until > ?`, append(anys(scopes), c.now)...) {
		if err != nil {
			return r, err
		}
		until := row.int(0)
		if r.until = max(r.until, until); until < never {
			r.trial = max(r.trial, until)
		}
	}
	return r, nil
}

// restings remembers the pauses of tenants.
type restings struct {
	mu    sync.Mutex
	of    map[string]resting
	epoch int // raised when any of it may be wrong
}

type resting struct {
	at     time.Time
	pauses []store.Pause
}

// restingsMost is for how many tenants pauses are remembered.
const restingsMost = 4096

func (r *restings) get(tenant string, now time.Time) (ps []store.Pause, known bool, epoch int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.of[tenant]
	return s.pauses, known && now.Sub(s.at).Abs() < pausesFresh, r.epoch
}

// put remembers what was read in an epoch.
func (r *restings) put(tenant string, s resting, epoch int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch != epoch {
		return
	}
	if r.of == nil || len(r.of) >= restingsMost {
		r.of = map[string]resting{}
	}
	r.of[tenant] = s
}

func (r *restings) forget(tenant string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	delete(r.of, tenant)
}

// Pause implements store.Queue.
func (q *Queue) Pause(ctx context.Context, r store.PauseRequest) (fresh bool, err error) {
	if err := r.Check(); err != nil {
		return false, err
	}
	err = q.change(ctx, func(c *change) (err error) {
		fresh, err = c.pause(r)
		return err
	})
	return fresh && err == nil, err
}

func (c *change) pause(r store.PauseRequest) (fresh bool, err error) {
	row, err := c.first(`SELECT since, until, times, length FROM pauses WHERE scope = ? AND reason = ?`, r.Scope, string(r.Reason))
	if err != nil {
		return false, err
	}
	var before *turn.Rest
	if row != nil {
		before = &turn.Rest{Since: row.int(0), Until: row.int(1), Times: row.int(2), Length: row.int(3)}
	}
	after, fresh := before.Again(r, c.now)
	_, err = c.exec(`INSERT INTO pauses (scope, reason, since, until, detail, times, length) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (scope, reason) DO UPDATE SET since = excluded.since, until = excluded.until, detail = excluded.detail,
			times = excluded.times, length = excluded.length`, r.Scope, string(r.Reason), after.Since, after.Until, r.Detail, after.Times, after.Length)
	if err != nil {
		return false, err
	}
	if fresh {
		c.rests = append(c.rests, store.Pause{Scope: r.Scope, Reason: r.Reason, Until: turn.Time(after.Until), Detail: r.Detail, Since: msTime(after.Since)})
	}
	return fresh, c.restLanes(r.Scope, false)
}

// Resume implements store.Queue.
func (q *Queue) Resume(ctx context.Context, scope string, reason store.PauseReason) (did bool, err error) {
	err = q.change(ctx, func(c *change) error {
		did = false
		for r, err := range c.rows(`DELETE FROM pauses WHERE scope = ?1 AND (?2 = '' OR reason = ?2) RETURNING until`, scope, string(reason)) {
			if err != nil {
				return err
			}
			did = did || r.int(0) > c.now
		}
		c.ready = did
		return c.restLanes(scope, did)
	})
	return did && err == nil, err
}

// restLanes brings the lanes that a scope covers in step with the pauses. A trial that began goes on, unless somebody
// resumed the lane.
func (c *change) restLanes(scope string, resumed bool) error {
	if err := c.flush(); err != nil { // it may have made one
		return err
	}
	tenant, _, _ := strings.Cut(scope, "/")
	c.onCommit(func() { c.q.resting.forget(tenant) })
	type paused struct {
		lane                string
		until, limit, trial int64
	}
	var lanes []paused
	for r, err := range c.rows(`SELECT lane, pausedUntil, limitedUntil, trial FROM lanes INDEXED BY lanesTenant WHERE tenant = ?`, tenant) {
		if err != nil {
			return err
		}
		if slices.Contains(store.Scopes(r.text(0)), scope) {
			lanes = append(lanes, paused{r.text(0), r.int(1), r.int(2), r.int(3)})
		}
	}
	for _, l := range lanes {
		rest, err := c.rest(l.lane)
		if err != nil {
			return err
		}
		trial := l.trial
		if rest.trial > 0 || trial > c.now || resumed {
			trial = rest.trial
		}
		if rest.until == l.until && trial == l.trial {
			continue
		}
		_, err = c.exec(`UPDATE lanes SET pausedUntil = ?1, eligibleAt = max(?1, limitedUntil), trial = ?2 WHERE lane = ?3`, rest.until, trial, l.lane)
		if err != nil {
			return err
		}
		if rest.until > 0 {
			c.due = min(c.due, rest.until)
		}
	}
	return nil
}

// Pauses implements store.Queue.
func (q *Queue) Pauses(ctx context.Context, tenant string) ([]store.Pause, error) {
	var out []store.Pause
	err := q.f.read(ctx, func(c *conn) (err error) {
		out, err = pausesOf(ctx, c, tenant, q.now().UnixMilli())
		return err
	})
	return out, err
}

func pausesOf(ctx context.Context, c *conn, tenant string, now int64) (out []store.Pause, err error) {
	for r, err := range c.rows(ctx, `SELECT scope, reason, since, until, detail FROM pauses
			WHERE scope >= ?1 AND scope < ?1 || '0' AND (scope = ?1 OR scope >= ?1 || '/') AND until > ?2 ORDER BY scope, reason`, tenant, now) {
		if err != nil {
			return nil, err
		}
		out = append(out, store.Pause{Scope: r.text(0), Reason: store.PauseReason(r.text(1)), Since: msTime(r.int(2)), Until: turn.Time(r.int(3)), Detail: r.text(4)})
	}
	return out, nil
}

// Paused implements store.Queue.
func (q *Queue) Paused(ctx context.Context, lane string) (*store.Pause, error) {
	tenant, _, _ := store.SplitLane(lane)
	now := q.now()
	ps, known, epoch := q.resting.get(tenant, now)
	if !known {
		var err error
		if ps, err = q.Pauses(ctx, tenant); err != nil {
			return nil, err
		}
		q.resting.put(tenant, resting{now, ps}, epoch)
	}
	return turn.Longest(ps, lane, now), nil
}

// prunePauses forgets pauses after which a new one would not be their continuation.
func (c *change) prunePauses(limit int) (int, error) {
	n, err := c.exec(`DELETE FROM pauses WHERE (scope, reason) IN (SELECT scope, reason FROM pauses INDEXED BY pausesEnd
		WHERE until <= ?1 - ?2 AND until <= ?1 - length ORDER BY until LIMIT ?3)`, c.now, turn.SameTrouble.Milliseconds(), limit)
	return int(n), err
}
