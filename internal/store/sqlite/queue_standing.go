package sqlite

import (
	"context"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Standing implements store.Queue. It reads the lanes and the pauses, and one job of each lane that can run.
func (q *Queue) Standing(ctx context.Context) (store.Standing, error) {
	s := store.Standing{OldestReady: map[store.Class]time.Time{}, Paused: map[store.PauseReason]int64{}}
	var err error
	if s.States, err = q.JobCounts(ctx, ""); err != nil {
		return s, err
	}
	err = q.f.snapshot(ctx, func(c *conn) error {
		clear(s.OldestReady)
		clear(s.Paused)
		for r, err := range c.rows(ctx, oldestReady) {
			if err != nil {
				return err
			}
			if !r.null(1) {
				s.OldestReady[store.Classes[r.int(0)]] = timeAt(r, 1)
			}
		}
		for r, err := range c.rows(ctx, pausedScopes, q.now().UnixMilli()) {
			if err != nil {
				return err
			}
			s.Paused[store.PauseReason(r.text(0))] = r.int(1)
		}
		return nil
	})
	return s, err
}

const (
	oldestReady = `SELECT class, min((SELECT min(runAt) FROM jobs INDEXED BY jobsReady WHERE state = 'ready' AND lane = l.lane))
		FROM lanes l INDEXED BY lanesReady WHERE ready > 0 AND eligibleAt = 0 GROUP BY class`
	pausedScopes = `SELECT reason, count(*) FROM pauses INDEXED BY pausesEnd WHERE until > ? GROUP BY reason`
)
