package crm

import (
	"context"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// EraseJob is the type of the job that deletes what was kept about a deleted lead.
const EraseJob = "crm.erase"

type erasePayload struct {
	LeadID string `json:"leadId"`
}

func eraseJob(tn *tenant.Tenant, leadID string) store.NewJob {
	n := job.New(tn.Code, EraseJob, erasePayload{leadID})
	n.UniqueKey, n.Causation = "erase:"+leadID, store.Causation{LeadID: leadID}
	return n
}

// window is how many records one commit of a long job changes.
const window = 200

// HandleErase is the handler of EraseJob: notes, history, score ledger and merged leads go, a little in each commit. The
// record that the lead was deleted stays.
func (b *Book) HandleErase(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[erasePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	ids, err := idsOf(ctx, tn, p.LeadID)
	if err != nil {
		return job.Result{}, err
	}
	for _, leadID := range ids {
		if b.Forget != nil {
			if err := b.Forget(ctx, tn, leadID); err != nil {
				return job.Result{}, err
			}
		}
		if err := b.release(ctx, tn, leadID, ""); err != nil {
			return job.Result{}, err
		}
		for _, kind := range []string{Notes.Schema.Kind, ScoreEvents.Schema.Kind, Changes.Schema.Kind} {
			if err := drop(ctx, tn, kind, leadID); err != nil {
				return job.Result{}, err
			}
		}
	}
	as, err := Aliases.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("into", store.Eq, p.LeadID)}, Limit: maxAliases + 1})
	if err != nil {
		return job.Result{}, err
	}
	var writes []store.Write
	for _, a := range as {
		writes = append(writes, Aliases.Remove(a))
	}
	if len(writes) == 0 {
		return job.Result{}, nil
	}
	return job.Result{}, tn.DB.Commit(ctx, writes...)
}

// drop deletes what a kind holds about a lead, but for the record of its deletion.
func drop(ctx context.Context, tn *tenant.Tenant, kind, leadID string) error {
	for {
		rs, err := tn.DB.Find(ctx, store.Query{Kind: kind, Where: []store.Term{store.Where("leadId", store.Eq, leadID)}, Order: "at", Limit: window})
		if err != nil {
			return err
		}
		var writes []store.Write
		for _, r := range rs {
			if kind == Changes.Schema.Kind {
				if c, err := Changes.Decode(r); err != nil || c.Deleted {
					continue
				}
			}
			writes = append(writes, store.Write{Action: store.Delete, Kind: kind, ID: r.ID})
		}
		if len(writes) > 0 {
			if err := tn.DB.Commit(ctx, writes...); err != nil {
				return err
			}
		}
		if len(rs) < window {
			return nil
		}
	}
}

// release makes the contacts of a lead those of another ("": of none).
func (b *Book) release(ctx context.Context, tn *tenant.Tenant, leadID, into string) error {
	return conflictFree(ctx, func() error {
		for {
			cs, err := Contacts.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, leadID)}, Limit: window})
			if err != nil || len(cs) == 0 {
				return err
			}
			var writes []store.Write
			for _, c := range cs {
				c.LeadID = into
				writes = append(writes, Contacts.Update(c))
			}
			if err := tn.DB.Commit(ctx, writes...); err != nil {
				return err
			}
		}
	})
}
