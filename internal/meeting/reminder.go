package meeting

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ReminderJob is the type of the job that waits for the moment of a reminder.
const ReminderJob = "appointment.reminder"

// ReminderTrigger is what rules hear at that moment.
const ReminderTrigger = "appointment_reminder"

// What rules hear of changes.
const (
	ConfirmedTrigger   = "appointment_confirmed"
	RescheduledTrigger = "appointment_rescheduled"
	CancelledTrigger   = "appointment_cancelled"
)

// Reasons of reminders that were skipped, beside "cancelled".
const (
	tooLate = "too_late" // its moment had passed when it was booked
	late    = "late"     // nobody was there at its moment, nor soon after
)

type reminderPayload struct {
	AppointmentID string `json:"appointmentId"`
	Revision      int    `json:"revision"`
	Offset        string `json:"offset"`
}

// reminderJobs gives the jobs of the reminders to come. Those that nobody could run before the appointment begins expire.
func (d *Diary) reminderJobs(tn *tenant.Tenant, a *Appointment) []store.NewJob {
	var next []store.NewJob
	for _, r := range a.Reminders {
		if r.State != Planned || a.Status != Confirmed {
			continue
		}
		n := job.New(tn.Code, ReminderJob, reminderPayload{a.ID, a.Revision, r.Offset})
		n.ID, n.UniqueKey = a.reminderJobID(tn, r.Offset), "rem:"+a.ID+":"+itoa(a.Revision)+":"+r.Offset
		n.RunAt, n.ExpiresAt = r.At, a.StartsAt
		n.Causation = store.Causation{LeadID: a.LeadID, AppointmentID: a.ID}
		next = append(next, n)
	}
	return next
}

func (a *Appointment) reminderJobID(tn *tenant.Tenant, offset string) string {
	return id.DerivedAt("job", a.CreatedAt, tn.Code, "rem", a.ID, itoa(a.Revision), offset)
}

// reminderJobIDs are the jobs of the reminders to come.
func (a *Appointment) reminderJobIDs(tn *tenant.Tenant) []string {
	var ids []string
	for _, r := range a.Reminders {
		if r.State == Planned {
			ids = append(ids, a.reminderJobID(tn, r.Offset))
		}
	}
	return ids
}

type reminderResult struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// HandleReminder is the handler of ReminderJob. It looks at the appointment as it is now: of one that was moved,
// cancelled, or has begun, nobody is reminded.
func (d *Diary) HandleReminder(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[reminderPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	var a *Appointment
	var r *Reminder
	err = conflictFree(ctx, func() error {
		a, r = nil, nil
		found, err := Appointments.Get(ctx, tn.DB, p.AppointmentID)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		a = found
		r = a.reminder(p)
		if r == nil || r.State != Planned {
			return nil
		}
		now := d.Now().UTC()
		if now.Before(r.At) {
			return job.Snooze(r.At.Sub(now), "early", nil)
		}
		r.State = Fired
		if a.tooLateFor(r, now) {
			r.State, r.Reason = Skipped, late
		}
		a.UpdatedAt = now
		return tn.DB.Commit(ctx, a.Writes("rem|"+itoa(p.Revision)+"|"+r.Offset, now)...)
	})
	switch {
	case err != nil:
		return job.Result{}, err
	case r == nil:
		return job.Result{Result: reminderResult{Skipped, "changed"}}, nil
	case r.State != Fired:
		return job.Result{Result: reminderResult{r.State, r.Reason}}, nil
	}
	next, err := d.Raise(ctx, tn, a.reminded(r))
	return job.Result{Next: next, Result: reminderResult{State: Fired}}, err
}

// reminder gives the reminder that a job is for; nil if the appointment is not what it was made for any more.
func (a *Appointment) reminder(p reminderPayload) *Reminder {
	if a.Revision != p.Revision || a.Status != Confirmed {
		return nil
	}
	for i := range a.Reminders {
		if a.Reminders[i].Offset == p.Offset {
			return &a.Reminders[i]
		}
	}
	return nil
}

// tooLateFor tells whether a reminder that is due is better not given any more: half of its way to the appointment is
// over, or the next one is due too.
func (a *Appointment) tooLateFor(r *Reminder, now time.Time) bool {
	if now.After(r.At.Add(a.StartsAt.Sub(r.At) / 2)) {
		return true
	}
	for _, o := range a.Reminders {
		if o.At.After(r.At) && !now.Before(o.At) {
			return true
		}
	}
	return false
}

// reminded is what the client's rules hear at a reminder's moment.
func (a *Appointment) reminded(r *Reminder) crm.Occurrence {
	vars := a.variables()
	vars["reminder"] = r.Offset
	return crm.Occurrence{
		Key: id.Derived("evk", a.ID, "rem", itoa(a.Revision), r.Offset), Trigger: ReminderTrigger, LeadID: a.LeadID, Variables: vars,
		Appointment: a.Snapshot(), At: r.At,
	}
}

// Holds tells whether what rules heard of an appointment still is so, before something is sent because of it: "" or why
// not. trigger and snapshot are those of the occurrence.
func (d *Diary) Holds(ctx context.Context, tn *tenant.Tenant, trigger string, snapshot map[string]any) (reason string, err error) {
	appointmentID, _ := snapshot["id"].(string)
	if appointmentID == "" || trigger == CancelledTrigger {
		return "", nil
	}
	a, err := Appointments.Get(ctx, tn.DB, appointmentID)
	if errors.Is(err, store.ErrNotFound) { // an appointment of somebody else's making
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if a.Status != Confirmed {
		return "appointment_cancelled", nil
	}
	switch trigger {
	case ReminderTrigger:
		if !d.Now().Before(a.StartsAt) {
			return "too_late", nil
		}
	case RescheduledTrigger:
	default:
		return "", nil
	}
	if rev, ok := number(snapshot["revision"]); ok && rev != a.Revision {
		return "appointment_rescheduled", nil
	}
	return "", nil
}

// number reads what may have been JSON meanwhile.
func number(v any) (int, bool) {
	switch x := v.(type) {
	case int:
		return x, true
	case float64:
		return int(x), true
	}
	return 0, false
}
