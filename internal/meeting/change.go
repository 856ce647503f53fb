package meeting

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ChangeJob is the type of the job that makes a change of an appointment.
const ChangeJob = "appointment.change"

// Mutation asks for a change of one appointment. Its id names the change for good: asked for again, it is one change.
type Mutation struct {
	ID            string    `json:"id"`
	AppointmentID string    `json:"appointmentId,omitempty"` // "" where it books
	IfVersion     int64     `json:"ifVersion,omitempty"`     // the version that its author saw; 0: any
	At            time.Time `json:"at"`

	Book   *Booking `json:"book,omitempty"`
	Edit   *Edit    `json:"edit,omitempty"`
	Cancel bool     `json:"cancel,omitempty"`

	dropped []string // the jobs of reminders that nobody needs any more
}

// Edit changes members of an appointment; those that are nil stay as they are.
type Edit struct {
	Title           *string         `json:"title,omitempty"`
	StartsAt        *time.Time      `json:"startsAt,omitempty"`
	DurationMinutes *int            `json:"durationMinutes,omitempty"`
	TimeZone        *string         `json:"timeZone,omitempty"`
	Meet            bool            `json:"meet,omitempty"` // asks for a link, or once more for one that failed
	Attendees       *[]Attendee     `json:"attendees,omitempty"`
	Reminders       *[]string       `json:"reminders,omitempty"`
	Variables       *map[string]any `json:"variables,omitempty"`
}

// changePayload is the payload of ChangeJob. The mutation is sealed: it is a customer's data, in the central database.
type changePayload struct {
	AppointmentID string `json:"appointmentId"`
	Sealed        string `json:"sealed"`
}

// Change makes a change and gives the appointment as it stands then. It is made inside a job that this call claims: when
// Change returns without error, it is made, and what it owes is durable. A refused change is a fault, and owes nothing.
func (d *Diary) Change(ctx context.Context, tn *tenant.Tenant, m Mutation) (*Appointment, error) {
	m.At = m.At.UTC().Truncate(time.Millisecond)
	if m.Book != nil {
		m.AppointmentID = id.Derived("apt", tn.Code, m.ID)
	}
	// most of what is refused is refused here, and costs no job
	if a, writes, err := d.work(ctx, tn, &m); err != nil {
		return nil, err
	} else if len(writes) == 0 && a.change(m.ID) == nil { // there is nothing to change
		return a, nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	sealed, err := tn.Seal("appointment", string(b))
	if err != nil {
		return nil, err
	}
	n := job.New(tn.Code, ChangeJob, changePayload{m.AppointmentID, sealed})
	n.UniqueKey, n.KeyHash = "appointment:"+m.ID, m.ID // sealed twice, it differs
	n.Causation = store.Causation{AppointmentID: m.AppointmentID}
	if m.Book != nil {
		n.Causation.LeadID = m.Book.LeadID
	}
	do := d.Runner.Do
	if m.Cancel {
		do = d.Runner.DoAnyway
	}
	made, res, err := do(ctx, n)
	switch {
	case err != nil && made.Job.ID == "": // not even the job could be stored
		return nil, err
	case err != nil:
		return nil, fault.Wrap(err, fault.Unavailable, "change.pending",
			"The change is kept and will be tried again. Repeat it with the same Idempotency-Key to learn its outcome.")
	}
	if r, ok := res.Result.(changeResult); ok && r.refusal != nil {
		return nil, r.refusal
	}
	if !made.Duplicate {
		return d.Appointment(ctx, tn, m.AppointmentID)
	}
	return d.await(ctx, tn, &m)
}

// changeWait is how long a repeated change waits for the first to be made.
const changeWait = 5 * time.Second

// await waits for a change that a job makes.
func (d *Diary) await(ctx context.Context, tn *tenant.Tenant, m *Mutation) (*Appointment, error) {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := Appointments.Get(ctx, tn.DB, m.AppointmentID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if err == nil && a.change(m.ID) != nil {
			return a, nil
		}
		select {
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, "change.pending", "The change is kept and will be tried again.")
		case <-tick.C:
		}
	}
}

// changeResult is what the job of a change shows; refusal is for the caller who waits for it.
type changeResult struct {
	AppointmentID string `json:"appointmentId"`
	Refused       string `json:"refused,omitempty"`
	refusal       *fault.Error
}

// HandleChange is the handler of ChangeJob: it makes one change in one commit, and gives the jobs that it owes.
func (d *Diary) HandleChange(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[changePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	plain, err := tn.Open("appointment", p.Sealed)
	if err != nil {
		return job.Result{}, job.Park("change_unreadable", err)
	}
	var m Mutation
	if err := json.Unmarshal([]byte(plain.Reveal()), &m); err != nil {
		return job.Result{}, job.Dead("change_unreadable", errors.New("the change does not decode"))
	}
	var a *Appointment
	err = conflictFree(ctx, func() error {
		var writes []store.Write
		if a, writes, err = d.work(ctx, tn, &m); err != nil || len(writes) == 0 {
			return err
		}
		return tn.DB.Commit(ctx, writes...)
	})
	var f *fault.Error
	if errors.As(err, &f) && (f.Kind == fault.NotFound || f.Kind == fault.Conflict || f.Kind == fault.Invalid) {
		return job.Result{Result: changeResult{m.AppointmentID, f.Code, f}}, nil
	}
	if err != nil {
		return job.Result{}, err
	}
	if d.Drop != nil && len(m.dropped) > 0 {
		if _, err := d.Drop(ctx, m.dropped...); err != nil { // they find the appointment changed, and do nothing
			d.Log.Warn("the jobs of old reminders stay", "client", tn.Code, "appointment", a.ID, "error", err)
		}
	}
	next, err := d.follow(ctx, tn, a, m.ID)
	return job.Result{Next: next, Result: changeResult{AppointmentID: a.ID}}, err
}

// work works a mutation out: the appointment as it will be, and the writes that make it so; none if that was done before,
// or there is nothing to change. What may not be is a fault.
func (d *Diary) work(ctx context.Context, tn *tenant.Tenant, m *Mutation) (*Appointment, []store.Write, error) {
	a, err := Appointments.Get(ctx, tn.DB, m.AppointmentID)
	switch {
	case m.Book != nil && errors.Is(err, store.ErrNotFound):
		lead, err := d.Book.Lead(ctx, tn, m.Book.LeadID)
		if fault.Of(err) == fault.NotFound {
			return nil, nil, fault.Bad("/leadId", "There is no such lead.")
		}
		if err != nil {
			return nil, nil, err
		}
		if a, err = d.New(tn, m.ID, lead, *m.Book, m.At); err != nil {
			return nil, nil, err
		}
		return a, a.Writes(m.ID, m.At), nil
	case errors.Is(err, store.ErrNotFound):
		return nil, nil, fault.Missing("appointment")
	case err != nil:
		return nil, nil, err
	case a.change(m.ID) != nil || m.Book != nil:
		return a, nil, nil
	}
	if m.IfVersion != 0 && m.IfVersion != a.Version {
		f := fault.New(fault.Conflict, "version.conflict", "The appointment was changed since it was read.")
		f.Extra = map[string]any{"version": a.Version}
		return nil, nil, f
	}
	if m.Cancel {
		if a.Status == Cancelled {
			return a, nil, nil
		}
		m.dropped = a.reminderJobIDs(tn)
		a.cancel(m)
		return a, a.Writes(m.ID, m.At), nil
	}
	changed, err := a.edit(tn, m)
	if err != nil || !changed {
		return a, nil, err
	}
	return a, a.Writes(m.ID, m.At), nil
}

// Writes are the writes of a changed appointment, with its news. cause names the change.
func (a *Appointment) Writes(cause string, now time.Time) []store.Write {
	return []store.Write{
		news.Write(now, news.AppointmentUpdated, a.ID+"|"+cause, "appointment", a.View(a.Version+1, now)), Appointments.Update(a),
	}
}

// cancel takes an appointment back.
func (a *Appointment) cancel(m *Mutation) {
	a.Status, a.CancelledAt = Cancelled, &m.At
	a.Revision++
	for i := range a.Reminders {
		if r := &a.Reminders[i]; r.State == Planned {
			r.State, r.Reason = Skipped, "cancelled"
		}
	}
	a.note(Change{Mutation: m.ID, Kind: cancelled, At: m.At, From: a.StartsAt, Calendar: a.Meet.EventID != ""})
}

// edit does to an appointment what a mutation asks for; false: nothing is other than before.
func (a *Appointment) edit(tn *tenant.Tenant, m *Mutation) (bool, error) {
	if a.Status != Confirmed {
		return false, fault.New(fault.Conflict, "appointment.cancelled", "The appointment was cancelled. Book another one.")
	}
	before, e := *a, m.Edit
	set(&a.Title, e.Title)
	set(&a.DurationMinutes, e.DurationMinutes)
	set(&a.TimeZone, e.TimeZone)
	set(&a.Variables, e.Variables)
	set(&a.Attendees, e.Attendees)
	if e.StartsAt != nil {
		a.StartsAt = e.StartsAt.UTC().Truncate(time.Second)
	}
	again := !a.StartsAt.Equal(before.StartsAt) || a.DurationMinutes != before.DurationMinutes
	now := m.At
	if !again && !a.StartsAt.After(now) { // what began may still be renamed
		now = a.StartsAt.Add(-time.Millisecond)
	}
	if err := a.check(now); err != nil {
		return false, err
	}
	asks := e.Meet && (a.Meet.State == NoLink || a.Meet.State == Failed)
	if asks {
		if tn.Account().Google == nil {
			return false, NoGoogle()
		}
		a.ask(tn)
	}
	offsets := before.offsets()
	set(&offsets, e.Reminders)
	if again || e.Reminders != nil {
		if err := a.plan(tn, offsets, m.At); err != nil {
			return false, err
		}
	}
	reminded := !reflect.DeepEqual(a.offsets(), before.offsets())
	shown := again || a.Title != before.Title || a.TimeZone != before.TimeZone || !sameAttendees(a.Attendees, before.Attendees)
	if !again && !reminded {
		a.Reminders = before.Reminders // what became of them stays
	}
	if !again && !reminded && !shown && !asks && reflect.DeepEqual(a.Variables, before.Variables) {
		return false, nil
	}
	c := Change{Mutation: m.ID, Kind: edited, At: m.At, Calendar: (shown || asks) && a.Meet.EventID != ""}
	if again || reminded {
		m.dropped = before.reminderJobIDs(tn)
		a.Revision++
	}
	if again {
		c.Kind, c.From = moved, before.StartsAt
	}
	a.note(c)
	return true, nil
}

func set[T any](to, v *T) {
	if v != nil {
		*to = *v
	}
}

func sameAttendees(a, b []Attendee) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

// follow gives the jobs that a change owes: the calendar's, the reminders', and what rules hear. Their keys are derived:
// asking twice makes them once.
func (d *Diary) follow(ctx context.Context, tn *tenant.Tenant, a *Appointment, mutation string) ([]store.NewJob, error) {
	c := a.change(mutation)
	if c == nil {
		return nil, nil
	}
	var next []store.NewJob
	if c.Calendar {
		next = append(next, d.calendarJob(tn, a, c))
	}
	if c.Revision == a.Revision { // later changes plan their own
		next = append(next, d.reminderJobs(tn, a)...)
	}
	var o *crm.Occurrence
	switch c.Kind {
	case booked:
		if a.Announce && a.Meet.State == NoLink {
			o = d.announcement(a)
		}
	case moved:
		o = d.occurrence(a, c, RescheduledTrigger)
		o.Variables["previousStartsAt"] = c.From.UTC().Format(time.RFC3339)
	case cancelled:
		o = d.occurrence(a, c, CancelledTrigger)
	}
	if c.Kind != booked && d.Follow != nil {
		taken, err := d.Follow(ctx, tn, a)
		if err != nil {
			return nil, err
		}
		next = append(next, taken...)
	}
	if o == nil {
		return next, nil
	}
	raised, err := d.Raise(ctx, tn, *o)
	return append(next, raised...), err
}

// occurrence is what a change means to the client's rules.
func (d *Diary) occurrence(a *Appointment, c *Change, trigger string) *crm.Occurrence {
	vars := a.variables()
	return &crm.Occurrence{
		Key: id.Derived("evk", a.ID, c.Mutation, trigger), Trigger: trigger, LeadID: a.LeadID, Variables: vars, Appointment: a.Snapshot(), At: c.At,
	}
}

// variables are the booking's own, and its moment under the name that rules wait for.
func (a *Appointment) variables() map[string]any {
	vars := map[string]any{"startsAt": a.StartsAt.UTC().Format(time.RFC3339)}
	maps.Copy(vars, a.Variables)
	return vars
}

// announcement is what the rules hear of a booking, by one key however often it is asked for.
func (d *Diary) announcement(a *Appointment) *crm.Occurrence {
	return d.occurrence(a, &Change{Mutation: booked, At: a.CreatedAt}, ConfirmedTrigger)
}

// conflictFree runs a read-then-commit until no other writer came between.
func conflictFree(ctx context.Context, step func() error) error {
	var err error
	for range 20 {
		if err = step(); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

func itoa(n int) string { return strconv.Itoa(n) }

// Planned are the writes of an appointment that New worked out for a step of a run; they change nothing of one that
// stands already.
func (a *Appointment) Planned(now time.Time) []store.Write {
	return []store.Write{
		news.Write(now, news.AppointmentUpdated, a.ID+"|"+booked, "appointment", a.View(1, now)), Appointments.Ensure(a),
	}
}
