package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// Finish implements store.Queue. A job that was asked to cancel does not go back: Ready, Scheduled and Parked
// become Cancelled. Ready without RunAt keeps its place in its lane. Scheduled for a time past is Ready.
func (q *Queue) Finish(ctx context.Context, outcomes ...store.Outcome) ([]bool, error) {
	if len(outcomes) == 0 {
		return nil, nil
	}
	next := make([][]wanted, len(outcomes))
	for i, o := range outcomes {
		err := o.Check()
		if err == nil {
			next[i], err = prepareAll(o.Next)
		}
		if err != nil {
			return nil, fmt.Errorf("outcome of job %s: %w", o.ID, err)
		}
	}
	held := make([]bool, len(outcomes))
	err := q.changeTogether(ctx, func(c *change) (err error) {
		clear(held)
		for i := 0; i < len(outcomes); {
			if n := plain(outcomes[i:]); n > 1 {
				if err := c.succeed(outcomes[i:i+n], held[i:i+n]); err != nil {
					return err
				}
				i += n
				continue
			}
			if held[i], err = c.finish(outcomes[i], next[i]); err != nil {
				return err
			}
			i++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	q.runs.forget(outcomes)
	return held, nil
}

// plain tells how many of the first outcomes say nothing but that their jobs succeeded.
func plain(os []store.Outcome) int {
	for i, o := range os {
		if o.State != store.Succeeded || o.CountFailed || o.Error != nil || len(o.Result) > 0 || len(o.Next) > 0 || o.Pause != nil {
			return i
		}
	}
	return len(os)
}

// succeed does what finish does, for many jobs that succeeded, in a statement or two: each alone would take as long for
// its statements as for its row.
func (c *change) succeed(os []store.Outcome, held []bool) error {
	tokens, all, unknown := c.q.runs.known(os)
	for token, places := range tokens {
		if err := c.succeedKnown(os, held, all, token, places); err != nil {
			return err
		}
	}
	if len(unknown) > 0 {
		return c.succeedUnknown(os, held, unknown)
	}
	return nil
}

// succeedKnown ends executions that have a token in common, and of which it is known what they are.
func (c *change) succeedKnown(os []store.Outcome, held []bool, all []run, token int64, places []int) error {
	ids, place := make([]string, 0, len(places)), make(map[string]int, len(places))
	for _, i := range places {
		if _, twice := place[os[i].ID]; !twice {
			ids, place[os[i].ID] = append(ids, os[i].ID), i
		}
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	for r, err := range c.rows(`UPDATE jobs INDEXED BY jobsId SET state = 'succeeded', endedAt = ?, owner = NULL, leaseUntil = NULL
		WHERE _id IN (SELECT value FROM json_each(?)) AND state = 'running' AND token = ? RETURNING _id`, c.now, text(list), token) {
		if err != nil {
			return err
		}
		i := place[r.text(0)]
		held[i] = true
		x := all[i]
		c.move(x.lane, x.typ, store.Running, store.Succeeded)
		c.q.mem.Pace(x.lane, time.Duration(c.now-x.started.UnixMilli())*time.Millisecond)
		l := c.lane(x.lane)
		l.proven = max(l.proven, x.started.UnixMilli())
	}
	return nil
}

// succeedUnknown ends executions of which it must be read what they are.
func (c *change) succeedUnknown(os []store.Outcome, held []bool, places []int) error {
	ids := make([]string, len(places))
	for k, i := range places {
		ids[k] = os[i].ID
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	found := make([]int64, 0, len(os))
	seen := make(map[int64]bool, len(os))
	var homeless []int64 // in quarantine
	for r, err := range c.rows(`SELECT e.key, j.n, j.lane, j.startedAt, j.token, j.home, j.type FROM json_each(?) e CROSS JOIN jobs j INDEXED BY jobsId ON j._id = e.value
		WHERE j.state = 'running'`, text(list)) {
		if err != nil {
			return err
		}
		i, n := places[r.int(0)], r.int(1)
		if r.int(4) != os[i].Token || seen[n] {
			continue
		}
		found, seen[n], held[i] = append(found, n), true, true
		lane := r.text(2)
		home := lane
		if !r.null(5) {
			home = r.text(5)
			homeless = append(homeless, n)
		}
		c.move(lane, r.text(6), store.Running, "")
		c.move(home, r.text(6), "", store.Succeeded)
		c.q.mem.Pace(lane, time.Duration(c.now-r.int(3))*time.Millisecond)
		l := c.lane(lane)
		l.proven = max(l.proven, r.int(3))
	}
	for _, n := range homeless {
		if err := c.goHome(n); err != nil {
			return err
		}
	}
	if list, err = json.Marshal(found); err != nil {
		return err
	}
	_, err = c.exec(`UPDATE jobs SET state = 'succeeded', endedAt = ?, owner = NULL, leaseUntil = NULL WHERE n IN (SELECT value FROM json_each(?))`,
		c.now, text(list))
	return err
}

func (c *change) finish(o store.Outcome, next []wanted) (bool, error) {
	r, err := c.first(`SELECT n, lane, startedAt, runAt, cancelRequested, errors, result, home, type FROM jobs WHERE _id = ? AND state = 'running' AND token = ?`,
		o.ID, o.Token)
	if err != nil || r == nil {
		return false, err
	}
	n, lane, startedAt, runAt, asked, typ := r.int(0), r.text(1), r.int(2), r.int(3), r.int(4) != 0, r.text(8)
	errs, result := r.text(5), r.text(6)
	home := lane
	if !r.null(7) && (o.State != store.Ready || o.Pause != nil) { // it came to an end, and took nobody down
		home = r.text(7)
	}

	state := o.State
	if state == store.Scheduled || state == store.Ready {
		if !o.RunAt.IsZero() {
			runAt = o.RunAt.UnixMilli()
		}
		if runAt <= c.now {
			state = store.Ready
		} else if o.State == store.Ready { // made for later but claimed for its caller
			runAt = c.now
		}
	}
	if asked && !state.Terminal() {
		state = store.Cancelled
	}
	var endedAt any
	if state.Terminal() {
		endedAt = c.now
	}
	if o.Error != nil {
		errs = withError(errs, *o.Error)
	}
	if len(o.Result) > 0 {
		result = string(o.Result)
	}

	for _, w := range next {
		w.Room = store.Room{} // it would be lost
		if err := c.follow(w); err != nil {
			return false, err
		}
	}
	_, err = c.exec(`UPDATE jobs SET state = ?, runAt = ?, attempt = attempt + ?, endedAt = ?, errors = ?, result = ?, owner = NULL, leaseUntil = NULL
		WHERE n = ?`, string(state), runAt, o.CountFailed, endedAt, orNull(errs), orNull(result), n)
	if err != nil {
		return false, err
	}
	c.move(lane, typ, store.Running, "")
	c.move(home, typ, "", state)
	if home != lane {
		if err := c.goHome(n); err != nil {
			return false, err
		}
	}
	if state == store.Scheduled {
		c.due = min(c.due, runAt)
	}
	c.q.mem.Pace(lane, time.Duration(c.now-startedAt)*time.Millisecond)
	switch {
	case o.Pause != nil:
		return true, c.pauseOwn(lane, *o.Pause)
	case o.State != store.Ready: // given back, it proved nothing
		l := c.lane(lane)
		l.proven = max(l.proven, startedAt)
	}
	return true, nil
}

// goHome takes a job out of quarantine.
func (c *change) goHome(n int64) error {
	_, err := c.exec(`UPDATE jobs SET lane = home, home = NULL WHERE n = ?`, n)
	return err
}

// pauseOwn makes the pause that a job of a lane asks for.
func (c *change) pauseOwn(lane string, p store.PauseRequest) error {
	r, err := turn.OwnPause(lane, p)
	if err == nil {
		_, err = c.pause(r)
	}
	return err
}
