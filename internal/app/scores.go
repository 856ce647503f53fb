package app

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
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

// How many clients are looked at without spreading them over the day, and how far apart the others are.
const (
	fewClients  = 16
	rescorePace = 5 * time.Second
)

// rescoreAll lets the scores of every client be looked at once a day, also of those that sleep.
func (a *App) rescoreAll(ctx context.Context) {
	now := time.Now().UTC()
	today := now.Format(time.DateOnly)
	var due []string
	var jobs []store.NewJob
	codes := a.Tenants.Codes(tenant.Active)
	for _, code := range codes {
		if a.rescored[code] == today || !a.storage.HasDB(code) {
			continue
		}
		n := crm.Rescores(code, now)
		if len(codes) > fewClients { // a look opens a database: never many in one moment
			h := fnv.New64a()
			_, _ = h.Write([]byte(code))
			n.RunAt = now.Add(time.Duration(h.Sum64()>>1) % min(23*time.Hour, time.Duration(len(codes))*rescorePace))
		}
		due, jobs = append(due, code), append(jobs, n)
	}
	if len(jobs) == 0 {
		return
	}
	if _, err := a.Runner.Enqueue(ctx, jobs...); err != nil {
		if ctx.Err() == nil {
			a.log.Error("scores cannot be looked at", "error", err)
		}
		return
	}
	for _, code := range due {
		a.rescored[code] = today
	}
}
