package app

import (
	"context"
	"time"
)

// settleScores lets the stored scores of leads follow what came into their ledgers, some seconds after it. It asks no
// database where nothing came, but each once when it is first open: a crash may have left something due.
func (a *App) settleScores(ctx context.Context) error {
	seen := map[string]bool{}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due := a.book.Unsettled(time.Now())
		for _, code := range a.Tenants.Opened() {
			if !seen[code] {
				seen[code] = true
				due = append(due, code)
			}
		}
		for _, code := range due {
			if err := a.settleScoresOf(ctx, code); err != nil && ctx.Err() == nil {
				a.log.Error("scores that are due wait for the daily look", "client", code, "error", err)
			}
		}
	}
}

func (a *App) settleScoresOf(ctx context.Context, code string) error {
	tn, release, err := a.Tenants.Use(ctx, code)
	if err != nil {
		return err
	}
	defer release()
	return a.book.Settle(ctx, tn, time.Now())
}
