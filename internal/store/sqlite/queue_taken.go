package sqlite

import (
	"fmt"

	"github.com/ecodrix/ecod/internal/store"
)

// replace does what Replace and ReplaceKeepTime ask for: the key of w is known. A job that does not run yet becomes what w
// is; of one that runs or is over, w takes the key.
func (c *change) replace(w wanted) (store.Enqueued, error) {
	k, err := c.first(`SELECT jobId FROM jobKeys WHERE tenant = ? AND uniqueKey = ?`, w.Tenant, w.UniqueKey)
	if err != nil {
		return store.Enqueued{}, err
	}
	if k == nil { // insert found its given id taken
		return store.Enqueued{}, fmt.Errorf("%w: job id", store.ErrDuplicate)
	}
	old := k.text(0)
	r, err := c.first(`SELECT n, lane, state, runAt, type FROM jobs WHERE _id = ?`, old)
	if err != nil {
		return store.Enqueued{}, err
	}
	if r != nil && !store.State(r.text(2)).Terminal() {
		if r.text(4) != w.Type {
			return store.Enqueued{}, store.ErrKeyReuse
		}
		if store.State(r.text(2)) != store.Running {
			return c.rewrite(w, old, r.int(0), r.text(1), store.State(r.text(2)), r.int(3))
		}
	}
	if err := c.room(w); err != nil {
		return store.Enqueued{}, err
	}
	if r != nil {
		if _, err := c.exec(`UPDATE jobs SET holdsKey = 0 WHERE n = ?`, r.int(0)); err != nil {
			return store.Enqueued{}, err
		}
	}
	_, err = c.exec(`UPDATE jobKeys SET jobId = ?, payloadHash = ?, state = NULL, token = NULL, keepUntil = NULL WHERE tenant = ? AND uniqueKey = ?`,
		w.ID, w.Hash, w.Tenant, w.UniqueKey)
	if err != nil {
		return store.Enqueued{}, err
	}
	j, err := c.make(w)
	return store.Enqueued{Job: j}, err
}

// rewrite makes a job that does not run yet what w is. A parked one stays parked: what holds it does not hang on what it
// is to do.
func (c *change) rewrite(w wanted, id string, n int64, lane string, from store.State, runAt int64) (store.Enqueued, error) {
	to := from
	if w.OnTaken == store.Replace {
		if runAt = c.now; !w.RunAt.IsZero() {
			runAt = w.RunAt.UnixMilli()
		}
		switch {
		case from == store.Parked:
		case runAt > c.now:
			to, c.due = store.Scheduled, min(c.due, runAt)
		default:
			to = store.Ready
		}
	}
	now := store.LaneName(w.Tenant, w.Resource, w.Class)
	args := []any{
		now, orNull(w.Pair), text(w.Payload), string(to), runAt, millis(w.ExpiresAt), w.MaxAttempts, w.Hash, w.causation,
	}
	args = append(append(args, causeArgs(w.Causation)...), n)
	_, err := c.exec(`UPDATE jobs SET lane = ?, home = NULL, pair = ?, payload = ?, state = ?, runAt = ?, expiresAt = ?, maxAttempts = ?, payloadHash = ?, causation = ?,
		`+setCauses+`, attempt = 0, holdsKey = 1 WHERE n = ?`, args...)
	if err != nil {
		return store.Enqueued{}, err
	}
	if _, err := c.exec(`UPDATE jobKeys SET payloadHash = ? WHERE tenant = ? AND uniqueKey = ?`, w.Hash, w.Tenant, w.UniqueKey); err != nil {
		return store.Enqueued{}, err
	}
	c.move(lane, w.Type, from, "")
	c.move(now, w.Type, "", to)
	r, err := c.first(`SELECT `+jobColumns+` FROM jobs WHERE n = ?`, n)
	if err != nil {
		return store.Enqueued{}, err
	}
	return store.Enqueued{Job: scanJob(r), Duplicate: true, Replaced: true}, nil
}

// follow makes a job that another leaves: one whose key is known is not made, whatever it was made from.
func (c *change) follow(w wanted) error {
	_, made, err := c.insert(w)
	if err == nil && !made && w.OnTaken != store.Keep {
		_, err = c.replace(w)
	}
	return err
}

// room refuses a job where there are too many already.
func (c *change) room(w wanted) error {
	if w.Room == (store.Room{}) {
		return nil
	}
	if err := c.flush(); err != nil { // what this change made before it counts
		return err
	}
	const unfinished = `coalesce(sum(scheduled + ready + running + parked), 0)`
	if most := w.Room.Tenant; most > 0 {
		r, err := c.first(`SELECT `+unfinished+` FROM lanes INDEXED BY lanesTenant WHERE tenant = ?`, w.Tenant)
		if err != nil {
			return err
		}
		if r.int(0) >= most {
			return &store.FullError{Tenant: w.Tenant, Jobs: r.int(0), Limit: most}
		}
	}
	if most := w.Room.Lane; most > 0 {
		lane := store.LaneName(w.Tenant, w.Resource, w.Class)
		r, err := c.first(`SELECT `+unfinished+` FROM lanes WHERE lane = ?`, lane)
		if err != nil {
			return err
		}
		if r.int(0) >= most {
			return &store.FullError{Tenant: w.Tenant, Lane: lane, Jobs: r.int(0), Limit: most}
		}
	}
	return nil
}
