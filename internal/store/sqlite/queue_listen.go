package sqlite

import (
	"context"

	"github.com/ecodrix/ecod/internal/store"
)

// Listen implements store.Queue. Its members are called by the writer, after the commit and before its callers are told.
func (q *Queue) Listen(l store.Listener) { q.listeners.Add(l) }

// report tells the listeners what is not told by signal.
func (c *change) report() {
	c.q.listeners.Tell(func(l store.Listener) {
		if l.Asked != nil && len(c.asked) > 0 {
			l.Asked(c.asked...)
		}
		if l.Owed != nil && c.owing {
			l.Owed()
		}
		if l.Paused != nil && len(c.rests) > 0 {
			l.Paused(c.rests...)
		}
		if l.Moved != nil && (c.made != nil || c.crash > 0) {
			l.Moved(c.made, c.crash)
		}
	})
}

// Asked implements store.Queue.
func (q *Queue) Asked(ctx context.Context, owner string) ([]string, error) {
	var ids []string
	err := q.f.read(ctx, func(c *conn) error {
		ids = nil
		for r, err := range c.rows(ctx, `SELECT _id FROM jobs INDEXED BY jobsRunning WHERE state = 'running' AND owner = ? AND cancelRequested`, owner) {
			if err != nil {
				return err
			}
			ids = append(ids, r.text(0))
		}
		return nil
	})
	return ids, err
}

// Lapse ends every lease at once; how many. It is for a process that knows that nobody else works on this file: what
// the last one left running need not be waited for. Promote then takes it back.
func (q *Queue) Lapse(ctx context.Context) (int, error) {
	var n int64
	err := q.change(ctx, func(c *change) (err error) {
		n, err = c.exec(`UPDATE jobs INDEXED BY jobsRunning SET leaseUntil = ? WHERE state = 'running'`, c.now)
		return err
	})
	return int(n), err
}
