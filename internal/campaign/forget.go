package campaign

import (
	"context"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Forget takes a deleted lead's address, name and values out of campaigns. That somebody was written to, and how that
// ended, still counts.
func (b *Bureau) Forget(ctx context.Context, tn *tenant.Tenant, leadID string) error {
	for {
		rs, err := Recipients.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, leadID)}, Limit: 200})
		if err != nil || len(rs) == 0 {
			return err
		}
		for _, r := range rs {
			err := retry(ctx, func() error {
				now, err := Recipients.Get(ctx, tn.DB, r.ID)
				if err != nil {
					return err
				}
				if now.State == Planned {
					now.State, now.Reason, now.Due = Suppressed, "lead_gone", b.Now().UTC()
				}
				now.LeadID, now.ContactID, now.Address, now.Name, now.Values = "", "", "", "", nil
				return tn.DB.Commit(ctx, Recipients.Update(now))
			})
			if err != nil {
				return err
			}
		}
	}
}
