package sqlite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

const defaultAttempts = 8

// Enqueue implements store.Queue. A given id that is taken is store.ErrDuplicate.
func (q *Queue) Enqueue(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	wanted, err := prepareAll(jobs)
	if err != nil || len(jobs) == 0 {
		return nil, err
	}
	out := make([]store.Enqueued, len(jobs))
	err = q.change(ctx, func(c *change) error {
		for i, w := range wanted {
			j, made, err := c.insert(w)
			if err == nil && !made {
				j, err = c.known(w)
			}
			if err != nil {
				return fmt.Errorf("job %d of type %s: %w", i, w.Type, err)
			}
			out[i] = store.Enqueued{Job: j, Duplicate: !made}
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
	store.NewJob
	givenID   bool
	hash      string // of what a second job of its key must equal
	causation any
}

func prepareAll(jobs []store.NewJob) ([]wanted, error) {
	out := make([]wanted, len(jobs))
	for i, j := range jobs {
		w, err := prepare(j)
		if err != nil {
			return nil, fmt.Errorf("job %d of type %s: %w", i, j.Type, err)
		}
		out[i] = w
	}
	return out, nil
}

func prepare(j store.NewJob) (wanted, error) {
	w := wanted{NewJob: j, givenID: j.ID != ""}
	if !w.givenID {
		w.ID = id.New("job")
	}
	if w.Payload == nil {
		w.Payload = json.RawMessage("{}")
	}
	if w.MaxAttempts == 0 {
		w.MaxAttempts = defaultAttempts
	}
	switch {
	case w.Type == "":
		return w, invalid("a job without a type")
	case len(w.Payload) > maxPayload:
		return w, fmt.Errorf("%w: payload of %d bytes", store.ErrTooLarge, len(w.Payload))
	case len(w.ID) > store.MaxID, len(w.Tenant) > store.MaxID, len(w.Type) > store.MaxID, len(w.Lane) > store.MaxID, len(w.UniqueKey) > store.MaxField:
		return w, fmt.Errorf("%w: id, tenant, type, lane or unique key", store.ErrTooLarge)
	case !json.Valid(w.Payload):
		return w, invalid("a payload that is not JSON")
	}
	if w.UniqueKey != "" {
		var err error
		if w.hash, err = keyHash(w.NewJob); err != nil {
			return w, err
		}
	}
	if w.Causation != (store.Causation{}) {
		b, err := json.Marshal(w.Causation)
		if err != nil {
			return w, err
		}
		w.causation = string(b)
	}
	return w, nil
}

// keyHash is over the type and the payload as canonical JSON (sorted members, no space), or the caller's own hash.
func keyHash(j store.NewJob) (string, error) {
	h := sha256.New()
	_, _ = io.WriteString(h, j.Type)
	if j.KeyHash != "" {
		_, _ = io.WriteString(h, "\x00own\x00"+j.KeyHash)
	} else {
		d := json.NewDecoder(bytes.NewReader(j.Payload))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return "", invalid("a payload that is not JSON")
		}
		b, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		_, _ = io.WriteString(h, "\x00json\x00")
		_, _ = h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// laneOf is the lane of a job: its tenant's main one, or the slow one of a name.
func laneOf(tenant, name string) string {
	if name == "" {
		return tenant
	}
	return tenant + "/" + name
}

// insert makes a job unless its key is known, or its given id.
func (c *change) insert(w wanted) (j store.Job, made bool, err error) {
	if w.givenID {
		r, err := c.first(`SELECT 1 FROM jobs WHERE _id = ?`, w.ID)
		if err != nil || r != nil {
			return j, false, err
		}
	}
	if w.UniqueKey != "" {
		n, err := c.exec(`INSERT INTO jobKeys (tenant, uniqueKey, jobId, payloadHash) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			w.Tenant, w.UniqueKey, w.ID, w.hash)
		if err != nil || n == 0 {
			return j, false, err
		}
	}
	j = store.Job{
		ID: w.ID, Tenant: w.Tenant, Type: w.Type, Lane: laneOf(w.Tenant, w.Lane), Payload: w.Payload, State: store.Ready,
		RunAt: msTime(c.now), MaxAttempts: w.MaxAttempts, UniqueKey: w.UniqueKey, Causation: w.Causation, CreatedAt: msTime(c.now),
	}
	if !w.ExpiresAt.IsZero() {
		j.ExpiresAt = msTime(w.ExpiresAt.UnixMilli())
	}
	switch {
	case w.ClaimFor != "":
		j.State, j.Owner, j.Token, j.Starts = store.Running, w.ClaimFor, 1, 1
		j.StartedAt, j.LeaseUntil = msTime(c.now), msTime(c.now+callerLease.Milliseconds())
	case !w.RunAt.IsZero():
		runAt := w.RunAt.UnixMilli()
		j.RunAt = msTime(runAt)
		if runAt > c.now {
			j.State, c.due = store.Scheduled, min(c.due, runAt)
		}
	}
	_, err = c.exec(`INSERT INTO jobs (_id, tenant, type, lane, payload, state, runAt, expiresAt, maxAttempts, uniqueKey, payloadHash,
			holdsKey, causation, createdAt, token, starts, owner, leaseUntil, startedAt)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		j.ID, j.Tenant, j.Type, j.Lane, text(j.Payload), string(j.State), j.RunAt.UnixMilli(), millis(j.ExpiresAt), j.MaxAttempts,
		orNull(w.UniqueKey), orNull(w.hash), w.UniqueKey != "", w.causation, c.now, j.Token, j.Starts, orNull(j.Owner),
		millis(j.LeaseUntil), millis(j.StartedAt))
	if err != nil {
		return j, false, err
	}
	c.move(j.Lane, j.Tenant, "", j.State)
	return j, true, nil
}

// known gives the earlier job of a key; ErrKeyReuse if it was another. Without a key it is the id that is taken.
func (c *change) known(w wanted) (store.Job, error) {
	k, err := c.first(`SELECT jobId, payloadHash, state, token FROM jobKeys WHERE tenant = ? AND uniqueKey = ?`, w.Tenant, w.UniqueKey)
	switch {
	case err != nil:
		return store.Job{}, err
	case k == nil:
		return store.Job{}, fmt.Errorf("%w: job id", store.ErrDuplicate)
	case k.text(1) != w.hash:
		return store.Job{}, store.ErrKeyReuse
	}
	pruned := store.Job{ID: k.text(0), Tenant: w.Tenant, UniqueKey: w.UniqueKey, State: store.State(k.text(2)), Token: k.int(3)}
	r, err := c.first(`SELECT `+jobColumns+` FROM jobs WHERE _id = ?`, pruned.ID)
	if err != nil || r == nil {
		return pruned, err
	}
	return scanJob(r), nil
}
