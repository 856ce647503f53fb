package rule

import (
	"context"
	"errors"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// giveUp records that an event's effect can never be stored. Its caller learns it, and no attempt is wasted on it.
func (e *Engine) giveUp(ctx context.Context, tn *tenant.Tenant, p eventPayload, cause error) error {
	ev, err := Events.Get(ctx, tn.DB, p.EventRef)
	if errors.Is(err, store.ErrNotFound) {
		ev, err = e.unseal(tn, p)
	}
	if err != nil {
		return err
	}
	if ev.Outcome != nil { // its effect stands; what follows from it is too large
		return job.Dead("too_large", cause)
	}
	ev.Outcome = &Outcome{Runs: []Enrol{}, Skipped: []Skip{}, Error: &StepError{"event.too_large", "What the client's rules would do for this event is more than can be stored; nothing of it was done."}}
	switch err := tn.DB.Commit(ctx, Events.Update(ev)); {
	case errors.Is(err, store.ErrTooLarge):
		return job.Dead("too_large", err)
	case err != nil:
		return err
	}
	e.Log.Warn("an event's effect is more than can be stored; it is given up", "client", tn.Code, "event", ev.ID, "error", cause)
	return nil
}

// Event reads an event by the id that its caller knows it by, also one whose work is still to come: that is known by its
// job alone, even while the client's database cannot be reached. fault.NotFound.
func (d *Door) Event(ctx context.Context, code, eventID string) (*Event, error) {
	ref := EventRecordID(code, eventID)
	tn, release, err := d.Tenants.Use(ctx, code)
	switch {
	case err == nil:
		defer release()
		ev, err := Events.Get(ctx, tn.DB, ref)
		if !errors.Is(err, store.ErrNotFound) {
			return ev, err
		}
	case fault.Of(err) != fault.Unavailable:
		return nil, err
	}
	away := err
	j, err := d.Queue.JobOf(ctx, code, "event:"+ref)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if away != nil { // it may be in the database
			return nil, away
		}
		return nil, fault.Missing("event")
	case err != nil:
		return nil, err
	case j.State == store.Succeeded && away != nil:
		return nil, away
	}
	p, err := job.Payload[eventPayload](j)
	if err != nil { // its job was pruned, and its record too
		return nil, fault.Missing("event")
	}
	ev, err := d.unseal(code, p)
	if err != nil {
		return nil, err
	}
	if j.State == store.Dead || j.State == store.Cancelled || j.State == store.Expired {
		ev.Outcome = &Outcome{Runs: []Enrol{}, Skipped: []Skip{}, Error: &StepError{"event.given_up", "The event's job " + j.ID + " ended without working it off; it can be tried again."}}
	}
	return ev, nil
}

func (d *Door) unseal(code string, p eventPayload) (*Event, error) {
	plain, err := d.Ring.Open(code, "event", p.Sealed)
	if err != nil {
		return nil, err
	}
	return decodeEvent(plain.Reveal())
}
