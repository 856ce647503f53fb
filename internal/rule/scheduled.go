package rule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ScheduledJob is the type of the job by which a schedule raises an event about a lead.
const ScheduledJob = "automation.scheduled"

// Scheduled is its payload: an id and a name, since schedules stand in the services database.
type Scheduled struct {
	Trigger string `json:"trigger"`
	LeadID  string `json:"leadId"`
}

// CheckScheduled checks the payload of a schedule. Only custom triggers are raised by the clock: the others tell of
// something that happened.
func CheckScheduled(payload json.RawMessage) error {
	var p Scheduled
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return fault.Bad("/payload", "Expected trigger and leadId.")
	}
	var bad []fault.Field
	if !customTrigger.MatchString(p.Trigger) {
		bad = append(bad, fault.Field{Pointer: "/payload/trigger", Detail: "Expected a trigger custom.*."})
	}
	if p.LeadID == "" || len(p.LeadID) > store.MaxID {
		bad = append(bad, fault.Field{Pointer: "/payload/leadId", Detail: "Expected the id of a lead."})
	}
	return fault.BadFields(bad)
}

// HandleScheduled is the handler of ScheduledJob. The occurrence's own key names the event: however often the job runs,
// there is one. A lead that is gone has none.
func (e *Engine) HandleScheduled(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[Scheduled](j)
	if err != nil {
		return job.Result{}, err
	}
	l, err := e.Book.LeadByID(ctx, tn, p.LeadID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil
	}
	if err != nil {
		return job.Result{}, err
	}
	key := j.UniqueKey
	if key == "" {
		key = j.ID
	}
	next, err := e.Raise(ctx, tn, crm.Occurrence{Key: key, Trigger: p.Trigger, LeadID: l.ID, At: j.CreatedAt})
	return job.Result{Next: next}, err
}
