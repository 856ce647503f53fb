package rule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Meetings is the Doer of Meet links; a ref is an appointment's id. The appointment stands from the moment that the step
// is planned; the step ends when its link is there.
type Meetings struct{ Diary *meeting.Diary }

// Plan implements Doer.
func (d Meetings) Plan(ctx context.Context, tn *tenant.Tenant, t Task) (string, []store.Write, error) {
	var in MeetInput
	if err := json.Unmarshal(t.Input, &in); err != nil {
		return "", nil, err
	}
	b := meeting.Booking{
		Title: in.Title, StartsAt: in.StartsAt, DurationMinutes: in.DurationMinutes, TimeZone: in.TimeZone, Meet: true,
		Origin: meeting.Origin{RunID: t.RunID, Step: t.Step},
	}
	email, err := t.email(ctx, tn)
	if err != nil {
		return "", nil, err
	}
	if email = cmp.Or(email, t.Contact.Email); email != "" {
		b.Attendees = append(b.Attendees, meeting.Attendee{Email: email, Name: t.Contact.Name})
	}
	for _, p := range in.Attendees {
		if !strings.EqualFold(strings.TrimSpace(p.Email), email) {
			b.Attendees = append(b.Attendees, meeting.Attendee(p))
		}
	}
	lead := &crm.Lead{ID: t.LeadID, ContactID: t.Contact.ID, Phone: t.Contact.Phone}
	a, err := d.Diary.New(tn, t.Seed, lead, b, t.At)
	var f *fault.Error
	if errors.As(err, &f) && len(f.Fields) > 0 {
		return "", nil, &chat.Refusal{Code: "meet.invalid", Detail: "The meeting cannot be booked: " + f.Fields[0].Pointer + ": " + f.Fields[0].Detail}
	}
	if err != nil {
		return "", nil, err
	}
	return a.ID, a.Planned(t.At), nil
}

// Job implements Doer.
func (d Meetings) Job(tn *tenant.Tenant, ref string, cause store.Causation) store.NewJob {
	return d.Diary.JobOf(tn, ref, cause.RunID+"|"+cause.Step, cause)
}

// Outcome implements Doer.
func (d Meetings) Outcome(ctx context.Context, tn *tenant.Tenant, ref string) (Ended, error) {
	a, err := meeting.Appointments.Get(ctx, tn.DB, ref)
	if errors.Is(err, store.ErrNotFound) {
		return Ended{State: StepFailed, Error: &StepError{"appointment_gone", "The appointment was deleted."}}, nil
	}
	if err != nil {
		return Ended{}, err
	}
	output := raw(map[string]string{"appointmentId": a.ID, "meetUrl": a.Meet.URL, "eventId": a.Meet.EventID})
	switch {
	case a.Status != meeting.Confirmed && a.Meet.Error != nil && NotBegun(a.Meet.Error.Code):
		return Ended{State: StepSkipped, Output: output, Error: &StepError{a.Meet.Error.Code, a.Meet.Error.Detail}}, nil
	case a.Status != meeting.Confirmed:
		return Ended{State: StepFailed, Output: output, Error: &StepError{"appointment_cancelled", "The appointment was cancelled before its link was there."}}, nil
	case a.Meet.State == meeting.Ready:
		return Ended{State: StepDone, Output: output, Result: a.Link(), Appointment: a.Snapshot()}, nil
	case a.Meet.State == meeting.Failed && a.Meet.Error != nil:
		return Ended{State: StepFailed, Output: output, Error: &StepError{a.Meet.Error.Code, a.Meet.Error.Detail}}, nil
	}
	return Ended{}, nil
}

// MeetMayBegin is MayBegin for the diary: false, with the code, where a step must not be begun.
func (e *Engine) MeetMayBegin(ctx context.Context, tn *tenant.Tenant, runID, step string) (ok bool, code string, err error) {
	err = e.MayBegin(ctx, tn, runID, step)
	var r *chat.Refusal
	if errors.As(err, &r) {
		return false, r.Code, nil
	}
	return err == nil, "", err
}

// MeetSettled gives the job that takes a run further once a link of it was made, or will never be. It is the Settled of
// meeting.Diary.
func (e *Engine) MeetSettled(tn *tenant.Tenant, a *meeting.Appointment) []store.NewJob {
	return []store.NewJob{e.Advance(tn, a.Origin.RunID, a.Origin.Step, a.ID)}
}
