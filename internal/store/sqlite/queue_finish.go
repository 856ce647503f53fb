package sqlite

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ecodrix/ecod/internal/store"
)

// Finish implements store.Queue. A job that was asked to cancel does not go back: Ready, Scheduled and Parked
// become Cancelled. Ready without RunAt keeps its place in its lane. Scheduled for a time past is Ready.
func (q *Queue) Finish(ctx context.Context, outcomes ...store.Outcome) ([]bool, error) {
	if len(outcomes) == 0 {
		return nil, nil
	}
	next := make([][]wanted, len(outcomes))
	for i, o := range outcomes {
		err := checkOutcome(o)
		if err == nil {
			next[i], err = prepareAll(o.Next)
		}
		if err != nil {
			return nil, fmt.Errorf("outcome of job %s: %w", o.ID, err)
		}
	}
	held := make([]bool, len(outcomes))
	err := q.change(ctx, func(c *change) (err error) {
		for i, o := range outcomes {
			if held[i], err = c.finish(o, next[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return held, nil
}

func checkOutcome(o store.Outcome) error {
	switch {
	case o.State == store.Running || stateIndex(o.State) < 0:
		return invalid("no outcome: %q", string(o.State))
	case o.State == store.Scheduled && o.RunAt.IsZero():
		return invalid("scheduled for no time")
	case len(o.Result) > maxPayload:
		return fmt.Errorf("%w: result of %d bytes", store.ErrTooLarge, len(o.Result))
	case len(o.Result) > 0 && !json.Valid(o.Result):
		return invalid("a result that is not JSON")
	}
	return nil
}

func (c *change) finish(o store.Outcome, next []wanted) (bool, error) {
	r, err := c.first(`SELECT n, lane, tenant, runAt, cancelRequested, errors, result FROM jobs WHERE _id = ? AND state = 'running' AND token = ?`,
		o.ID, o.Token)
	if err != nil || r == nil {
		return false, err
	}
	n, lane, tenant, runAt, asked := r.int(0), r.text(1), r.text(2), r.int(3), r.int(4) != 0
	errs, result := r.text(5), r.text(6)

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
		if _, _, err := c.insert(w); err != nil {
			return false, err
		}
	}
	_, err = c.exec(`UPDATE jobs SET state = ?, runAt = ?, attempt = attempt + ?, endedAt = ?, errors = ?, result = ?, owner = NULL, leaseUntil = NULL
		WHERE n = ?`, string(state), runAt, o.CountFailed, endedAt, orNull(errs), orNull(result), n)
	if err != nil {
		return false, err
	}
	c.move(lane, tenant, store.Running, state)
	if state == store.Scheduled {
		c.due = min(c.due, runAt)
	}
	return true, nil
}
