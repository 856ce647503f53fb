package sqlite

import (
	"context"
	"fmt"

	"github.com/ecodrix/ecod/internal/store"
)

// owedSchema keeps the jobs that ended by themselves until their domains are told. Few at any time: a table of its own
// costs the jobs' rows nothing.
const owedSchema = `
CREATE TABLE IF NOT EXISTS jobsOwed (n INTEGER PRIMARY KEY);`

// owe notes that a job ended by itself. It is read after the commit by who listens.
func (c *change) owe(n int64) error {
	_, err := c.exec(`INSERT INTO jobsOwed (n) VALUES (?) ON CONFLICT DO NOTHING`, n)
	c.owing = true
	return err
}

// Owed implements store.Queue.
func (q *Queue) Owed(ctx context.Context, types []string, limit int) ([]store.Job, error) {
	if len(types) == 0 || limit <= 0 {
		return nil, nil
	}
	var jobs []store.Job
	err := q.f.read(ctx, func(c *conn) error {
		jobs = nil
		for r, err := range c.rows(ctx, `SELECT `+jobColumns+` FROM jobsOwed o CROSS JOIN jobs j ON j.n = o.n
			WHERE j.type IN (`+marks(len(types))+`) ORDER BY o.n LIMIT ?`, append(anys(types), limit)...) {
			if err != nil {
				return err
			}
			jobs = append(jobs, scanJob(r))
		}
		return nil
	})
	return jobs, err
}

// Told implements store.Queue.
func (q *Queue) Told(ctx context.Context, told ...store.Told) error {
	if len(told) == 0 {
		return nil
	}
	next := make([][]wanted, len(told))
	for i, t := range told {
		var err error
		if next[i], err = prepareAll(t.Next); err != nil {
			return fmt.Errorf("what follows from job %s: %w", t.ID, err)
		}
	}
	return q.change(ctx, func(c *change) error {
		for i, t := range told {
			n, err := c.exec(`DELETE FROM jobsOwed WHERE n = (SELECT n FROM jobs WHERE _id = ?)`, t.ID)
			if err != nil {
				return err
			}
			if n == 0 { // another runner was faster, or the job was sent back to work
				continue
			}
			for _, w := range next[i] {
				if _, _, err := c.insert(w); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
