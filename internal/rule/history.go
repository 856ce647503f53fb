package rule

import (
	"encoding/json"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// history are the writes by which a lead's timeline tells what the steps of a run changed, and the client knows the tags
// that they gave. What the steps trigger is derived from the run itself.
func history(tn *tenant.Tenant, run *Run, leadID string, steps []Step, now time.Time) []store.Write {
	var writes []store.Write
	for _, s := range steps {
		if s.State != StepDone || len(s.Output) == 0 {
			continue
		}
		c := &crm.Change{ID: crm.ChangeID(tn.Code, run.ID+"|"+s.ID), LeadID: leadID, At: now, Cause: crm.ByAutomation, Ref: run.ID, Quiet: true}
		switch s.Type {
		case TagAdd, TagRemove:
			var t tagChange
			if json.Unmarshal(s.Output, &t) == nil {
				c.Added, c.Removed = t.Added, t.Removed
			}
		case LeadStage:
			var st stageChange
			if json.Unmarshal(s.Output, &st) == nil && st.moved() {
				c.Stage = &crm.StageChange{Pipeline: st.Pipeline, From: st.From, To: st.To, FromPipeline: st.FromPipeline, FromStatus: st.FromStatus, Status: st.Status}
			}
		}
		if c.Stage == nil && len(c.Added) == 0 && len(c.Removed) == 0 {
			continue
		}
		writes = append(writes, crm.KnowTags(tn, now, c.Added...)...)
		writes = append(writes, crm.Changes.Ensure(c))
	}
	return writes
}

// beginning are the same for a lead that an event made.
func beginning(tn *tenant.Tenant, ev *Event, l *crm.Lead, stage string) []store.Write {
	tags := (&crm.Lead{}).AddTags(ev.Lead.Tags...)
	return append(crm.KnowTags(tn, ev.ReceivedAt, tags...), crm.Changes.Ensure(&crm.Change{
		ID: crm.ChangeID(tn.Code, ev.ID), LeadID: l.ID, At: ev.ReceivedAt.UTC(), Cause: crm.ByEvent, Ref: ev.EventID, Quiet: true, Created: true, Added: tags,
		Stage: &crm.StageChange{Pipeline: l.Pipeline, To: stage, FromStatus: crm.Open, Status: crm.Open},
	}))
}
