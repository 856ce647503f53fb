package sqlite

import (
	"context"
	"encoding/json"

	"github.com/ecodrix/ecod/internal/store"
)

// scanJobs is how many rows one look at payloads reads, so that no reading transaction lasts long.
const scanJobs = 5000

// Payloads gives the payloads that contain a text, of jobs that may run yet or again (all but those that succeeded), in
// the order in which the jobs were made: the next few thousand jobs after a place (0: the beginning), and the place to go
// on from; 0 at the end.
func (q *Queue) Payloads(ctx context.Context, containing string, after int64) (found []store.Payload, next int64, err error) {
	err = q.f.read(ctx, func(c *conn) error {
		r, err := c.first(ctx, `SELECT max(n) FROM (SELECT n FROM jobs WHERE n > ? ORDER BY n LIMIT ?)`, after, scanJobs)
		if err != nil || r == nil || r.null(0) {
			return err
		}
		next = r.int(0)
		for r, err := range c.rows(ctx, `SELECT _id, tenant, type, payload FROM jobs
			WHERE n > ? AND n <= ? AND state <> 'succeeded' AND instr(payload, ?) > 0 ORDER BY n`, after, next, containing) {
			if err != nil {
				return err
			}
			found = append(found, store.Payload{JobID: r.text(0), Tenant: r.text(1), Type: r.text(2), Payload: []byte(r.text(3))})
		}
		return nil
	})
	return found, next, err
}

// Rewrite replaces a job's payload by one that means the same, unless it is another by now. What a second job of its key
// is compared with stays as it was.
func (q *Queue) Rewrite(ctx context.Context, p store.Payload, payload json.RawMessage) (bool, error) {
	if len(payload) > store.MaxPayload || !json.Valid(payload) {
		return false, invalid("a payload that is no JSON, or too large")
	}
	did := false
	err := q.f.write(ctx, func(tx *wtx) error {
		n, err := tx.exec(`UPDATE jobs SET payload = ? WHERE _id = ? AND payload = ?`, text(payload), p.JobID, text(p.Payload))
		did = n > 0
		return err
	})
	return did, err
}

// Forget deletes every job of a tenant, and all that is known of its keys, its lanes, their limits and pauses: the tenant is gone. An execution
// under way is refused its finish. It tells whether there is more: call it again.
func (q *Queue) Forget(ctx context.Context, tenant string) (more bool, err error) {
	if tenant == "" {
		return false, invalid("the system's own jobs are not forgotten")
	}
	err = q.change(ctx, func(c *change) error {
		n, err := c.exec(`DELETE FROM jobs WHERE n IN (SELECT n FROM jobs INDEXED BY jobsTenant WHERE tenant = ? LIMIT ?)`, tenant, promoteBatch)
		if err != nil {
			return err
		}
		k, err := c.exec(`DELETE FROM jobKeys WHERE (tenant, uniqueKey) IN (SELECT tenant, uniqueKey FROM jobKeys WHERE tenant = ? LIMIT ?)`, tenant, promoteBatch)
		if err != nil {
			return err
		}
		if more = n == promoteBatch || k == promoteBatch; more {
			return nil
		}
		for _, sql := range []string{
			`DELETE FROM lanes WHERE tenant = ?`,
			`DELETE FROM jobTypes WHERE tenant = ?`,
			`DELETE FROM limits WHERE key >= ?1 || '/' AND key < ?1 || '0'`,
			`DELETE FROM pauses WHERE scope = ?1 OR scope >= ?1 || '/' AND scope < ?1 || '0'`,
		} {
			if _, err := c.exec(sql, tenant); err != nil {
				return err
			}
		}
		c.onCommit(func() { q.resting.forget(tenant) })
		return nil
	})
	return more, err
}
