package sqlite

import (
	"context"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Promote implements store.Queue. It writes nothing if nothing is due, and commits in batches.
func (q *Queue) Promote(ctx context.Context) (ready int, next time.Time, err error) {
	for {
		// Unknown while it is being read: who schedules a job meanwhile cannot find it later than it is.
		q.due.Store(never)
		now := q.now().UnixMilli()
		due, expired, lapsed := int64(never), false, false
		err := q.f.read(ctx, func(c *conn) error {
			r, err := c.first(ctx, `SELECT
				(SELECT min(runAt) FROM jobs INDEXED BY jobsDue WHERE state = 'scheduled'),
				EXISTS (SELECT 1 FROM jobs INDEXED BY jobsExpiry
					WHERE expiresAt IS NOT NULL AND endedAt IS NULL AND expiresAt <= ? AND state <> 'running'),
				EXISTS (SELECT 1 FROM jobs INDEXED BY jobsRunning WHERE state = 'running' AND leaseUntil <= ?)`, now, now)
			if err != nil {
				return err
			}
			if !r.null(0) {
				due = r.int(0)
			}
			expired, lapsed = r.int(1) != 0, r.int(2) != 0
			return nil
		})
		if err != nil {
			return ready, time.Time{}, err
		}
		if due > now && !expired && !lapsed {
			if due < never {
				q.sooner(due)
				next = msTime(due)
			}
			return ready, next, nil
		}

		moved, made := 0, 0
		err = q.change(ctx, func(c *change) error {
			// Expired first: what is due as well as too late never becomes ready.
			late, err := c.expire(promoteBatch)
			if err != nil {
				return err
			}
			back, all, err := c.takeBack(promoteBatch)
			if err != nil {
				return err
			}
			up := 0
			if late < promoteBatch {
				if up, err = c.moveAll(store.Scheduled, `UPDATE jobs SET state = 'ready' WHERE n IN (
					SELECT n FROM jobs INDEXED BY jobsDue WHERE state = 'scheduled' AND runAt <= ? ORDER BY runAt, n LIMIT ?)`, c.now, promoteBatch); err != nil {
					return err
				}
			}
			moved, made = late+all+up, back+up
			return nil
		})
		if err != nil {
			return ready, time.Time{}, err
		}
		ready += made
		if moved == 0 { // the clock was set back in between, or another process was faster
			if due < never {
				next = msTime(due)
			}
			return ready, next, nil
		}
	}
}

// expire ends jobs that can no longer start in time; how many.
func (c *change) expire(limit int) (int, error) {
	type job struct {
		n                   int64
		lane, tenant, state string
	}
	var late []job
	for r, err := range c.rows(`SELECT n, lane, tenant, state, _id FROM jobs INDEXED BY jobsExpiry
		WHERE expiresAt IS NOT NULL AND endedAt IS NULL AND expiresAt <= ? AND state <> 'running' LIMIT ?`, c.now, limit) {
		if err != nil {
			return 0, err
		}
		late = append(late, job{r.int(0), r.text(1), r.text(2), r.text(3)})
		c.swept = append(c.swept, r.text(4))
	}
	for _, j := range late {
		if _, err := c.exec(`UPDATE jobs SET state = 'expired', endedAt = ? WHERE n = ?`, c.now, j.n); err != nil {
			return 0, err
		}
		c.move(j.lane, j.tenant, store.State(j.state), store.Expired)
	}
	return len(late), nil
}

// takeBack ends the executions whose lease ran out; how many jobs are ready again, and how many there were.
func (c *change) takeBack(limit int) (ready, all int, err error) {
	type job struct {
		n            int64
		lane, tenant string
		attempt      int
		asked, late  bool
		crashes      int64
		errors       string
	}
	var lost []job
	for r, err := range c.rows(`SELECT n, lane, tenant, attempt, cancelRequested, crashes, errors, expiresAt, _id FROM jobs INDEXED BY jobsRunning
		WHERE state = 'running' AND leaseUntil <= ? LIMIT ?`, c.now, limit) {
		if err != nil {
			return 0, 0, err
		}
		lost = append(lost, job{r.int(0), r.text(1), r.text(2), int(r.int(3)), r.int(4) != 0,
			!r.null(7) && r.int(7) <= c.now, r.int(5) + 1, r.text(6)})
		c.swept = append(c.swept, r.text(8))
	}
	for _, j := range lost {
		to, endedAt := store.Ready, any(c.now)
		switch {
		case j.asked:
			to = store.Cancelled
		case j.crashes >= maxCrashes:
			to = store.Dead
			j.errors = withError(j.errors, store.JobError{
				At: msTime(c.now), Attempt: j.attempt, Code: "poison", Message: "its lease ran out three times: the process died or hung while this job ran",
			})
		case j.late:
			to = store.Expired
		default:
			endedAt = nil
			ready++
		}
		_, err := c.exec(`UPDATE jobs SET state = ?, crashes = ?, errors = ?, endedAt = ?, owner = NULL, leaseUntil = NULL WHERE n = ?`,
			string(to), j.crashes, orNull(j.errors), endedAt, j.n)
		if err != nil {
			return 0, 0, err
		}
		c.move(j.lane, j.tenant, store.Running, to)
	}
	return ready, len(lost), nil
}
