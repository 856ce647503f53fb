package sqlite

import (
	"github.com/ecodrix/ecod/internal/store"
)

// laneChange is what one transaction does to a lane.
type laneChange struct {
	tenant, resource string
	class            int
	n                [len(states)]int64
	vtime            int64
	proven           int64 // when the latest execution began that ended without a pause, Unix ms
	limited          int64 // until when its rate keeps it from more, Unix ms
}

// ofType names the jobs of a type of a tenant.
type ofType struct{ tenant, typ string }

// typeChange is what one transaction does to the numbers of a type's jobs.
type typeChange [len(states)]int64

// move counts a job of a type that goes from one state to another; "" is none.
func (c *change) move(lane, typ string, from, to store.State) {
	l := c.lane(lane)
	t := c.types[ofType{l.tenant, typ}]
	if t == nil {
		t = &typeChange{}
		c.types[ofType{l.tenant, typ}] = t
	}
	if i := stateIndex(from); i >= 0 {
		l.n[i]--
		t[i]--
	}
	if i := stateIndex(to); i >= 0 {
		l.n[i]++
		t[i]++
	}
	if to == store.Ready {
		c.ready = true
		c.q.mem.Stirred(lane)
	}
}

func (c *change) lane(lane string) *laneChange {
	l := c.lanes[lane]
	if l == nil {
		l = &laneChange{}
		var class store.Class
		l.tenant, l.resource, class = store.SplitLane(lane)
		l.class = class.Patience()
		c.lanes[lane] = l
	}
	return l
}

// onlyEnds tells that nothing changes but the numbers of jobs that run and that succeeded.
func (l *laneChange) onlyEnds() bool {
	n := l.n
	n[stateIndex(store.Running)], n[stateIndex(store.Succeeded)] = 0, 0
	return n == [len(states)]int64{} && l.vtime == 0 && l.limited == 0
}

// flush writes the lanes. One that becomes ready again starts at the floor: being idle earns no credit.
func (c *change) flush() error {
	for lane, l := range c.lanes {
		if l.onlyEnds() { // the index that claims read through is left alone
			known, err := c.exec(`UPDATE lanes SET running = running + ?, succeeded = succeeded + ?, trial = CASE WHEN trial > 0 AND trial <= ? THEN 0 ELSE trial END
				WHERE lane = ?`, l.n[2], l.n[4], l.proven, lane)
			if err != nil {
				return err
			}
			if known > 0 {
				continue
			}
		}
		floor := c.q.mem.Floor[l.class]
		known, err := c.exec(`UPDATE lanes SET scheduled = scheduled + ?, ready = ready + ?, running = running + ?, parked = parked + ?,
			succeeded = succeeded + ?, dead = dead + ?, cancelled = cancelled + ?, expired = expired + ?,
			vtime = CASE WHEN ready <= 0 AND ? > 0 THEN max(vtime, ?) ELSE vtime END + ?,
			trial = CASE WHEN trial > 0 AND trial <= ? THEN 0 ELSE trial END WHERE lane = ?`,
			l.n[0], l.n[1], l.n[2], l.n[3], l.n[4], l.n[5], l.n[6], l.n[7], l.n[1], floor, l.vtime, l.proven, lane)
		if err != nil {
			return err
		}
		if known == 0 {
			rest, err := c.rest(lane)
			if err != nil {
				return err
			}
			_, err = c.exec(`INSERT INTO lanes (lane, tenant, resource, class, scheduled, ready, running, parked, succeeded, dead, cancelled, expired,
				vtime, pausedUntil, eligibleAt, trial) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				lane, l.tenant, l.resource, l.class, l.n[0], l.n[1], l.n[2], l.n[3], l.n[4], l.n[5], l.n[6], l.n[7],
				floor+l.vtime, rest.until, rest.until, rest.trial)
			if err != nil {
				return err
			}
			if rest.until > 0 {
				c.due = min(c.due, rest.until)
			}
		}
		if l.limited > 0 {
			_, err = c.exec(`UPDATE lanes SET limitedUntil = ?1, eligibleAt = max(pausedUntil, ?1) WHERE lane = ?2`, l.limited, lane)
			if err != nil {
				return err
			}
			c.due = min(c.due, l.limited)
		}
	}
	clear(c.lanes)
	return nil
}

// flushTypes writes the numbers by type, once at the end of a change: nothing in it reads them.
func (c *change) flushTypes() error {
	for t, n := range c.types {
		if *n == (typeChange{}) {
			continue
		}
		if n[0]|n[3]|n[5]|n[6]|n[7] == 0 { // as most often
			known, err := c.exec(`UPDATE jobTypes SET ready = ready + ?, running = running + ?, succeeded = succeeded + ? WHERE tenant = ? AND type = ?`,
				n[1], n[2], n[4], t.tenant, t.typ)
			if err != nil {
				return err
			}
			if known > 0 {
				continue
			}
		}
		_, err := c.exec(`INSERT INTO jobTypes (tenant, type, scheduled, ready, running, parked, succeeded, dead, cancelled, expired)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, type) DO UPDATE SET
			scheduled = scheduled + excluded.scheduled, ready = ready + excluded.ready, running = running + excluded.running,
			parked = parked + excluded.parked, succeeded = succeeded + excluded.succeeded, dead = dead + excluded.dead,
			cancelled = cancelled + excluded.cancelled, expired = expired + excluded.expired`,
			t.tenant, t.typ, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7])
		if err != nil {
			return err
		}
	}
	return nil
}

// freeMost bounds how many lanes one claim lets go on; who is left brings the next claim about.
const freeMost = 1000

// free lets the lanes go on whose pause is over, or whose rate allows the next job. Having been held back earns no credit.
func (c *change) free() error {
	n, err := c.exec(`UPDATE lanes SET pausedUntil = CASE WHEN pausedUntil <= ?1 THEN 0 ELSE pausedUntil END,
			limitedUntil = CASE WHEN limitedUntil <= ?1 THEN 0 ELSE limitedUntil END, eligibleAt = 0,
			vtime = max(vtime, CASE class WHEN 0 THEN ?2 WHEN 1 THEN ?3 WHEN 2 THEN ?4 WHEN 3 THEN ?5 ELSE ?6 END)
		WHERE lane IN (SELECT lane FROM lanes INDEXED BY lanesBlocked WHERE ready > 0 AND eligibleAt > 0 AND eligibleAt <= ?1
			ORDER BY eligibleAt LIMIT ?7)`,
		c.now, c.q.mem.Floor[0], c.q.mem.Floor[1], c.q.mem.Floor[2], c.q.mem.Floor[3], c.q.mem.Floor[4], freeMost)
	if n == freeMost {
		c.ready = true
	}
	return err
}
