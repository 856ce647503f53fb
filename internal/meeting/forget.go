package meeting

import (
	"context"
	"errors"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Forget deletes the appointments of a lead that was deleted. One to come is first taken out of the calendar: until a job
// has done that, its bare record stays. Nobody is reminded, and rules hear of nothing.
func (d *Diary) Forget(ctx context.Context, tn *tenant.Tenant, leadID string) error {
	for {
		as, err := Appointments.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, leadID)}, Order: "startsAt", Limit: 200})
		if err != nil || len(as) == 0 {
			return err
		}
		for _, a := range as {
			err := conflictFree(ctx, func() error { return d.forget(ctx, tn, a.ID) })
			if err != nil {
				return err
			}
		}
	}
}

func (d *Diary) forget(ctx context.Context, tn *tenant.Tenant, appointmentID string) error {
	a, err := Appointments.Get(ctx, tn.DB, appointmentID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now := d.Now().UTC()
	if a.Meet.EventID == "" || !a.EndsAt().After(now) { // what is past stays in the client's own calendar
		return tn.DB.Commit(ctx, Appointments.Remove(a))
	}
	m := &Mutation{ID: id.Derived("mut", a.ID, "forgotten"), At: now, Cancel: true}
	if a.Status == Confirmed {
		a.cancel(m)
		if err := tn.DB.Commit(ctx, a.Writes(m.ID, now)...); err != nil {
			return err
		}
		a.Version++
	}
	// the job before the lead's name goes: who comes here again after a crash finds the appointment still
	if _, err := d.Runner.Enqueue(ctx, d.calendarJob(tn, a, &Change{Mutation: m.ID, Kind: cancelled})); err != nil {
		return err
	}
	a.LeadID, a.ContactID, a.Phone, a.Title, a.Attendees, a.Variables = "", "", "", "", nil, nil
	return tn.DB.Commit(ctx, Appointments.Update(a))
}
