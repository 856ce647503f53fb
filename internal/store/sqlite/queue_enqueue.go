package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

// Enqueue implements store.Queue. A given id that is taken is store.ErrDuplicate.
func (q *Queue) Enqueue(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	wanted, err := prepareAll(jobs)
	if err != nil || len(jobs) == 0 {
		return nil, err
	}
	out := make([]store.Enqueued, len(jobs))
	err = q.changeTogether(ctx, func(c *change) (err error) {
		for i, w := range wanted {
			if out[i], err = c.put(w); err != nil {
				return fmt.Errorf("job %d of type %s: %w", i, w.Type, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// wanted is a NewJob that was checked.
type wanted struct {
	store.Wanted
	causation any
}

func prepareAll(jobs []store.NewJob) ([]wanted, error) {
	ws, err := store.WantAll(jobs, func() string { return id.New("job") })
	if err != nil {
		return nil, err
	}
	out := make([]wanted, len(ws))
	for i, w := range ws {
		out[i].Wanted = w
		if w.Causation != (store.Causation{}) {
			b, err := json.Marshal(w.Causation)
			if err != nil {
				return nil, err
			}
			out[i].causation = string(b)
		}
	}
	return out, nil
}

// put makes a job, or does what is asked for where its key is known.
func (c *change) put(w wanted) (store.Enqueued, error) {
	j, made, err := c.insert(w)
	if err != nil || made {
		return store.Enqueued{Job: j}, err
	}
	if w.OnTaken != store.Keep {
		return c.replace(w)
	}
	j, err = c.known(w)
	return store.Enqueued{Job: j, Duplicate: true}, err
}

// insert makes a job unless its key is known, or its given id.
func (c *change) insert(w wanted) (j store.Job, made bool, err error) {
	if w.GivenID {
		r, err := c.first(`SELECT 1 FROM jobs WHERE _id = ?`, w.ID)
		if err != nil || r != nil {
			return j, false, err
		}
	}
	if w.UniqueKey != "" {
		n, err := c.exec(`INSERT INTO jobKeys (tenant, uniqueKey, jobId, payloadHash) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			w.Tenant, w.UniqueKey, w.ID, w.Hash)
		if err != nil || n == 0 {
			return j, false, err
		}
	}
	if err := c.room(w); err != nil {
		return j, false, err
	}
	j, err = c.make(w)
	return j, err == nil, err
}

// make writes the row of a job.
func (c *change) make(w wanted) (store.Job, error) {
	j := w.Made(msTime(c.now))
	if j.State == store.Scheduled {
		c.due = min(c.due, j.RunAt.UnixMilli())
	}
	args := []any{
		j.ID, j.Tenant, j.Type, j.Lane, text(j.Payload), string(j.State), j.RunAt.UnixMilli(), millis(j.ExpiresAt), j.MaxAttempts,
		orNull(w.UniqueKey), orNull(w.Hash), w.UniqueKey != "", w.causation, c.now, j.Token, j.Starts, orNull(j.Owner),
		millis(j.LeaseUntil), millis(j.StartedAt), orNull(j.Pair),
	}
	insert := insertJob
	if w.causation != nil {
		insert, args = insertCaused, append(args, causeArgs(w.Causation)...)
	}
	if _, err := c.exec(insert, args...); err != nil {
		return j, err
	}
	c.move(j.Lane, j.Type, "", j.State)
	if c.made == nil {
		c.made = map[string]int{}
	}
	c.made[j.Type]++
	return j, nil
}

var (
	insertJob    = insertOf()
	insertCaused = insertOf(causeColumns()...)
)

// insertOf is the statement that makes a job's row; more are columns after the usual ones.
func insertOf(more ...string) string {
	columns := append([]string{"_id", "tenant", "type", "lane", "payload", "state", "runAt", "expiresAt", "maxAttempts", "uniqueKey", "payloadHash",
		"holdsKey", "causation", "createdAt", "token", "starts", "owner", "leaseUntil", "startedAt", "pair"}, more...)
	return "INSERT INTO jobs (" + strings.Join(columns, ", ") + ") VALUES (" + marks(len(columns)) + ")"
}

// known gives the earlier job of a key; ErrKeyReuse if it was another. Without a key it is the id that is taken.
func (c *change) known(w wanted) (store.Job, error) {
	k, err := c.first(`SELECT jobId, payloadHash, state, token FROM jobKeys WHERE tenant = ? AND uniqueKey = ?`, w.Tenant, w.UniqueKey)
	switch {
	case err != nil:
		return store.Job{}, err
	case k == nil:
		return store.Job{}, fmt.Errorf("%w: job id", store.ErrDuplicate)
	case k.text(1) != w.Hash:
		return store.Job{}, store.ErrKeyReuse
	}
	pruned := store.Job{ID: k.text(0), Tenant: w.Tenant, UniqueKey: w.UniqueKey, State: store.State(k.text(2)), Token: k.int(3)}
	r, err := c.first(`SELECT `+jobColumns+` FROM jobs WHERE _id = ?`, pruned.ID)
	if err != nil || r == nil {
		return pruned, err
	}
	return scanJob(r), nil
}
