package sqlite

import (
	"context"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Promote implements store.Queue. It writes nothing if nothing is due, and commits in batches.
func (q *Queue) Promote(ctx context.Context) (ready int, next time.Time, err error) {
	for again := true; ; {
		// Unknown while it is being read: who schedules a job meanwhile cannot find it later than it is.
		q.due.Store(never)
		now := q.now().UnixMilli()
		due, free, expired, lapse := int64(never), int64(never), false, int64(never)
		err := q.f.read(ctx, func(c *conn) error {
			r, err := c.first(ctx, `SELECT
				(SELECT min(runAt) FROM jobs INDEXED BY jobsDue WHERE state = 'scheduled'),
				EXISTS (SELECT 1 FROM jobs INDEXED BY jobsExpiry
					WHERE expiresAt IS NOT NULL AND endedAt IS NULL AND expiresAt <= ? AND state <> 'running'),
				(SELECT min(leaseUntil) FROM jobs INDEXED BY jobsRunning WHERE state = 'running'),
				(SELECT eligibleAt FROM lanes INDEXED BY lanesBlocked WHERE ready > 0 AND eligibleAt > 0 AND eligibleAt > ? ORDER BY eligibleAt LIMIT 1)`, now, now)
			if err != nil {
				return err
			}
			if !r.null(0) {
				due = r.int(0)
			}
			expired = r.int(1) != 0
			if !r.null(2) {
				lapse = r.int(2)
			}
			if !r.null(3) {
				free = r.int(3)
			}
			return nil
		})
		if err != nil {
			return ready, time.Time{}, err
		}
		if due > now && !expired && lapse > now {
			if due = min(due, free); due < never {
				q.sooner(due)
			}
			if first := min(due, lapse); first < never {
				next = msTime(first)
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
		if moved == 0 { // the clock was set, and the leases with it, or another process was faster: it looks once more
			if again {
				again = false
				continue
			}
			if due = min(due, free); due < never {
				next = msTime(due)
			}
			return ready, next, nil
		}
	}
}

// expire ends jobs that can no longer start in time; how many.
func (c *change) expire(limit int) (int, error) {
	type job struct {
		n                int64
		lane, state, typ string
	}
	var late []job
	for r, err := range c.rows(`SELECT n, lane, state, _id, type FROM jobs INDEXED BY jobsExpiry
		WHERE expiresAt IS NOT NULL AND endedAt IS NULL AND expiresAt <= ? AND state <> 'running' LIMIT ?`, c.now, limit) {
		if err != nil {
			return 0, err
		}
		late = append(late, job{r.int(0), r.text(1), r.text(2), r.text(4)})
		c.swept = append(c.swept, r.text(3))
	}
	for _, j := range late {
		if _, err := c.exec(`UPDATE jobs SET state = 'expired', endedAt = ? WHERE n = ?`, c.now, j.n); err != nil {
			return 0, err
		}
		if err := c.owe(j.n); err != nil {
			return 0, err
		}
		c.move(j.lane, j.typ, store.State(j.state), store.Expired)
	}
	return len(late), nil
}

// takeBack ends the executions whose lease ran out, and puts those of the jobs that may run again into quarantine; how many jobs are ready again, and how many there were.
func (c *change) takeBack(limit int) (ready, all int, err error) {
	type job struct {
		n           int64
		lane, typ   string
		attempt     int
		asked, late bool
		crashes     int64
		errors      string
	}
	var lost []job
	for r, err := range c.rows(`SELECT n, lane, attempt, cancelRequested, crashes, errors, expiresAt, _id, type FROM jobs INDEXED BY jobsRunning
		WHERE state = 'running' AND leaseUntil <= ? LIMIT ?`, c.now, limit) {
		if err != nil {
			return 0, 0, err
		}
		lost = append(lost, job{r.int(0), r.text(1), r.text(8), int(r.int(2)), r.int(3) != 0,
			!r.null(6) && r.int(6) <= c.now, r.int(4) + 1, r.text(5)})
		c.swept = append(c.swept, r.text(7))
	}
	c.crash += len(lost)
	for _, j := range lost {
		to, endedAt, lane := store.Ready, any(c.now), j.lane
		switch {
		case j.asked:
			to = store.Cancelled
		case j.crashes >= store.MaxCrashes:
			to = store.Dead
			j.errors = withError(j.errors, store.JobError{
				At: msTime(c.now), Attempt: j.attempt, Code: "poison", Message: "its lease ran out three times: the process died or hung while this job ran",
			})
		case j.late:
			to = store.Expired
		default:
			endedAt = nil
			ready++
			tenant, resource, _ := store.SplitLane(j.lane)
			lane = store.LaneName(tenant, resource, store.Quarantine)
		}
		_, err := c.exec(`UPDATE jobs SET state = ?1, crashes = ?2, errors = ?3, endedAt = ?4, owner = NULL, leaseUntil = NULL,
			home = CASE WHEN lane <> ?5 THEN lane ELSE home END, lane = ?5 WHERE n = ?6`,
			string(to), j.crashes, orNull(j.errors), endedAt, lane, j.n)
		if err != nil {
			return 0, 0, err
		}
		c.move(j.lane, j.typ, store.Running, "")
		c.move(lane, j.typ, "", to)
		if to == store.Dead || to == store.Expired { // of a cancelled one, who asked for it knows
			if err := c.owe(j.n); err != nil {
				return 0, 0, err
			}
		}
	}
	return ready, len(lost), nil
}
