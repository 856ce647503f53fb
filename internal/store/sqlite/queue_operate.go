package sqlite

import (
	"context"

	"github.com/ecodrix/ecod/internal/store"
)

// Retry implements store.Queue. Crashes are forgotten too, and an expiry that has passed. A job whose key was
// freed takes it again, unless another job has it by now.
func (q *Queue) Retry(ctx context.Context, ids ...string) ([]string, error) {
	var did []string
	err := q.change(ctx, func(c *change) error {
		did = nil
		for _, id := range ids {
			ok, err := c.retry(id)
			if err != nil {
				return err
			}
			if ok {
				did = append(did, id)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return did, nil
}

func (c *change) retry(id string) (bool, error) {
	r, err := c.first(`SELECT n, lane, tenant, state, uniqueKey, payloadHash, holdsKey, coalesce(home, lane), type FROM jobs
		WHERE _id = ? AND state IN ('dead', 'cancelled', 'expired', 'parked')`, id)
	if err != nil || r == nil {
		return false, err
	}
	n, lane, tenant, state, holds := r.int(0), r.text(1), r.text(2), store.State(r.text(3)), r.int(6)
	home, typ := r.text(7), r.text(8)
	if key := r.text(4); key != "" && holds == 0 {
		holds, err = c.exec(`INSERT INTO jobKeys (tenant, uniqueKey, jobId, payloadHash) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			tenant, key, id, r.text(5))
		if err != nil {
			return false, err
		}
	}
	_, err = c.exec(`UPDATE jobs SET state = 'ready', runAt = ?, attempt = 0, crashes = 0, cancelRequested = 0, endedAt = NULL, holdsKey = ?,
		lane = coalesce(home, lane), home = NULL, expiresAt = CASE WHEN expiresAt > ? THEN expiresAt END WHERE n = ?`, c.now, holds, c.now, n)
	if err != nil {
		return false, err
	}
	c.move(lane, typ, state, "")
	c.move(home, typ, "", store.Ready)
	_, err = c.exec(`DELETE FROM jobsOwed WHERE n = ?`, n) // it is not over after all
	return err == nil, err
}

// Cancel implements store.Queue.
func (q *Queue) Cancel(ctx context.Context, ids ...string) ([]string, error) {
	var did []string
	err := q.change(ctx, func(c *change) error {
		did = nil
		for _, id := range ids {
			r, err := c.first(`SELECT n, lane, state, type FROM jobs WHERE _id = ? AND endedAt IS NULL`, id)
			if err != nil {
				return err
			}
			if r == nil {
				continue
			}
			n, lane, state, typ := r.int(0), r.text(1), store.State(r.text(2)), r.text(3)
			if state == store.Running {
				_, err = c.exec(`UPDATE jobs SET cancelRequested = 1 WHERE n = ?`, n)
				c.asked = append(c.asked, id)
			} else {
				_, err = c.exec(`UPDATE jobs SET state = 'cancelled', endedAt = ? WHERE n = ?`, c.now, n)
				c.move(lane, typ, state, store.Cancelled)
			}
			if err != nil {
				return err
			}
			did = append(did, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return did, nil
}

// ReleaseParked implements store.Queue.
func (q *Queue) ReleaseParked(ctx context.Context, tenant string) (int, error) {
	total := 0
	for { // a suspended client may have left very many
		n := 0
		err := q.change(ctx, func(c *change) (err error) {
			n, err = c.moveAll(store.Parked, `UPDATE jobs SET state = 'ready' WHERE n IN (SELECT n FROM jobs INDEXED BY jobsRare
				WHERE state = 'parked' AND state <> 'ready' AND state <> 'running' AND state <> 'succeeded' AND tenant = ? ORDER BY n LIMIT ?)`, tenant, promoteBatch)
			return err
		})
		if total += n; err != nil || n < promoteBatch {
			return total, err
		}
	}
}

// Prune implements store.Queue.
func (q *Queue) Prune(ctx context.Context, limit int) (int, error) {
	n := 0
	err := q.change(ctx, func(c *change) error {
		n = 0
		left := limit
		for _, k := range store.JobsKept {
			for _, holds := range []bool{true, false} {
				d, err := c.pruneJobs(k.State, holds, c.now-k.Kept.Milliseconds(), left)
				if err != nil {
					return err
				}
				n, left = n+d, left-d
			}
		}
		keys, err := c.pruneKeys(limit)
		if n += keys; err != nil {
			return err
		}
		limits, err := c.pruneLimits(limit)
		if n += limits; err != nil {
			return err
		}
		pauses, err := c.prunePauses(limit)
		n += pauses
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// pruneJobs deletes jobs that ended before a time. A key that outlives its job keeps its last state and token.
func (c *change) pruneJobs(state store.State, holdsKey bool, before int64, limit int) (int, error) {
	type job struct {
		lane, tenant, key, typ string
		token, endedAt, n      int64
	}
	var gone []job
	for r, err := range c.rows(`DELETE FROM jobs WHERE n IN (SELECT n FROM jobs INDEXED BY jobsEnded
			WHERE endedAt IS NOT NULL AND state = ? AND holdsKey = ? AND endedAt <= ? ORDER BY endedAt LIMIT ?)
		RETURNING lane, tenant, uniqueKey, token, endedAt, n, type`, string(state), holdsKey, before, limit) {
		if err != nil {
			return 0, err
		}
		gone = append(gone, job{r.text(0), r.text(1), r.text(2), r.text(6), r.int(3), r.int(4), r.int(5)})
	}
	for _, j := range gone {
		c.move(j.lane, j.typ, state, "")
		if state == store.Dead || state == store.Expired { // nobody was left to be told
			if _, err := c.exec(`DELETE FROM jobsOwed WHERE n = ?`, j.n); err != nil {
				return 0, err
			}
		}
		if !holdsKey {
			continue
		}
		_, err := c.exec(`UPDATE jobKeys SET state = ?, token = ?, keepUntil = ? WHERE tenant = ? AND uniqueKey = ?`,
			string(state), j.token, j.endedAt+store.KeyKept.Milliseconds(), j.tenant, j.key)
		if err != nil {
			return 0, err
		}
	}
	return len(gone), nil
}

// pruneKeys frees the keys of pruned jobs, and of ended jobs that are kept for longer than their keys.
func (c *change) pruneKeys(limit int) (int, error) {
	type key struct {
		tenant, key string
		n           int64 // of the job's row; 0 if it is pruned
	}
	var gone []key
	for r, err := range c.rows(`SELECT tenant, uniqueKey FROM jobKeys INDEXED BY jobKeysPruned
		WHERE keepUntil IS NOT NULL AND keepUntil <= ? ORDER BY keepUntil LIMIT ?`, c.now, limit) {
		if err != nil {
			return 0, err
		}
		gone = append(gone, key{r.text(0), r.text(1), 0})
	}
	for _, k := range store.JobsKept[1:] {
		for r, err := range c.rows(`SELECT tenant, uniqueKey, n FROM jobs INDEXED BY jobsEnded
			WHERE endedAt IS NOT NULL AND state = ? AND holdsKey = 1 AND endedAt <= ? ORDER BY endedAt LIMIT ?`,
			string(k.State), c.now-store.KeyKept.Milliseconds(), limit-len(gone)) {
			if err != nil {
				return 0, err
			}
			gone = append(gone, key{r.text(0), r.text(1), r.int(2)})
		}
	}
	for _, k := range gone {
		if _, err := c.exec(`DELETE FROM jobKeys WHERE tenant = ? AND uniqueKey = ?`, k.tenant, k.key); err != nil {
			return 0, err
		}
		if k.n == 0 {
			continue
		}
		if _, err := c.exec(`UPDATE jobs SET holdsKey = 0 WHERE n = ?`, k.n); err != nil {
			return 0, err
		}
	}
	return len(gone), nil
}
