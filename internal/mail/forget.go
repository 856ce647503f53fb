package mail

import (
	"context"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Forget deletes the letters to a lead that was deleted.
func (o *Office) Forget(ctx context.Context, tn *tenant.Tenant, leadID string) error {
	for {
		rs, err := tn.DB.Find(ctx, store.Query{Kind: Letters.Schema.Kind, Where: []store.Term{store.Where("leadId", store.Eq, leadID)}, Limit: 200})
		if err != nil || len(rs) == 0 {
			return err
		}
		writes := make([]store.Write, len(rs))
		for i, r := range rs {
			writes[i] = store.Write{Action: store.Delete, Kind: Letters.Schema.Kind, ID: r.ID}
		}
		if err := tn.DB.Commit(ctx, writes...); err != nil {
			return err
		}
	}
}
