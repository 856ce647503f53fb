package sqlite

import (
	"context"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// limited reads a key's place in its rate.
func (c *change) limited(key string, r store.Rate) (*turn.Limit, error) {
	row, err := c.first(`SELECT tat FROM limits WHERE key = ?`, key)
	if err != nil {
		return nil, err
	}
	tat := int64(0)
	if row != nil {
		tat = row.int(0)
	}
	return turn.NewLimit(r, tat, c.nanos), nil
}

// keep writes what was taken from keys.
func (c *change) keep(rates map[string]*turn.Limit) error {
	for key, l := range rates {
		if l.Took() == 0 {
			continue
		}
		_, err := c.exec(`INSERT INTO limits (key, tat) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET tat = excluded.tat`, key, l.TAT())
		if err != nil {
			return err
		}
	}
	return nil
}

// Take implements store.Queue.
func (q *Queue) Take(ctx context.Context, key string, r store.Rate, n int) (granted int, wait time.Duration, err error) {
	if key == "" || n < 0 {
		return 0, 0, invalid("no key, or fewer than none, to take from")
	}
	if r.Every <= 0 || n == 0 {
		return n, 0, nil
	}
	err = q.changeRedoable(ctx, func(c *change) error {
		granted, wait = 0, 0
		l, err := c.limited(key, r)
		if err != nil {
			return err
		}
		got := min(int64(n), l.Left(c.nanos))
		if got > 0 {
			l.Take(c.nanos, got)
		}
		if granted = int(got); granted < n {
			wait = time.Duration(l.When(1) - c.nanos)
		}
		return c.keep(map[string]*turn.Limit{key: l})
	})
	if err != nil {
		return 0, 0, err
	}
	return granted, wait, nil
}

// pruneLimits forgets keys that are as if nothing had ever been taken from them.
func (c *change) pruneLimits(limit int) (int, error) {
	n, err := c.exec(`DELETE FROM limits WHERE key IN (SELECT key FROM limits INDEXED BY limitsPast WHERE tat <= ? ORDER BY tat LIMIT ?)`, c.nanos, limit)
	return int(n), err
}
