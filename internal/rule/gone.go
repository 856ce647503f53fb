package rule

import (
	"context"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// LeadGone ends the runs of a lead that was deleted. It is the Forget of crm.Book.
func (e *Engine) LeadGone(ctx context.Context, tn *tenant.Tenant, leadID string) error {
	for _, state := range []string{RunActive, RunWaiting, RunHeld} {
		err := conflictFree(ctx, func() error {
			for {
				runs, err := Runs.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, leadID), store.Where("state", store.Eq, state)}, Limit: 200})
				if err != nil || len(runs) == 0 {
					return err
				}
				now := e.Now().UTC()
				var writes []store.Write
				for _, r := range runs {
					r.exit("lead_gone", now)
					writes = append(writes, news.Write(now, news.AutomationRun, r.ID+"|gone", "run", r.View()), Runs.Update(r))
				}
				if err := tn.DB.Commit(ctx, writes...); err != nil {
					return err
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
