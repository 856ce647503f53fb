package meeting

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// The types of the jobs that make the calendar show what the diary says. One handler does all of them: it goes by the
// appointment as it is then, not by what was asked when the job was made.
const (
	CreateJob = "meet.create"
	MoveJob   = "meet.move"
	CancelJob = "meet.cancel"
)

// CalendarJobs are those types.
var CalendarJobs = []string{CreateJob, MoveJob, CancelJob}

// linkPatience is how long Google may take to make a link.
const linkPatience = 60 * time.Second

// quotaRest is the pause after a limit of which Google does not say how long it lasts, and what it grows to while it goes on.
const quotaRest, quotaRestMost = 30 * time.Second, 15 * time.Minute

// passes is how often one execution begins anew because the appointment was changed meanwhile.
const passes = 10

type calendarPayload struct {
	AppointmentID string `json:"appointmentId"`
}

func (d *Diary) calendarJob(tn *tenant.Tenant, a *Appointment, c *Change) store.NewJob {
	typ := MoveJob
	switch {
	case c.Kind == cancelled:
		typ = CancelJob
	case c.Kind == booked || !a.Meet.Made:
		typ = CreateJob
	}
	n := job.New(tn.Code, typ, calendarPayload{a.ID})
	n.UniqueKey, n.Causation = "meet:"+a.ID+":"+c.Mutation, store.Causation{LeadID: a.LeadID, AppointmentID: a.ID, RunID: a.Origin.RunID, Step: a.Origin.Step}
	n.KeyHash = n.UniqueKey // by now the event may have been made: another type, the same job
	return n
}

// JobOf is the job that makes the link of an appointment that a run planned.
func (d *Diary) JobOf(tn *tenant.Tenant, appointmentID, seed string, cause store.Causation) store.NewJob {
	n := d.calendarJob(tn, &Appointment{ID: appointmentID}, &Change{Mutation: seed, Kind: booked})
	cause.AppointmentID = appointmentID
	n.Causation = cause
	return n
}

// HandleCalendar is the handler of CalendarJobs. Every call it makes may be made again: events have ids of ours, and
// are changed only where they differ. What was changed while it called, it does anew before it ends.
func (d *Diary) HandleCalendar(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[calendarPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	for range passes {
		a, err := Appointments.Get(ctx, tn.DB, p.AppointmentID)
		if errors.Is(err, store.ErrNotFound) {
			return job.Result{}, nil // erased meanwhile
		}
		if err != nil {
			return job.Result{}, err
		}
		if a.Origin.RunID != "" && j.Type == CreateJob { // the run's step left no job but this
			if _, err := d.Runner.Enqueue(ctx, d.reminderJobs(tn, a)...); err != nil {
				return job.Result{}, err
			}
		}
		res, err := d.pass(ctx, tn, j, a)
		if !errors.Is(err, store.ErrConflict) {
			return res, err
		}
	}
	return job.Result{}, job.Retry(0, "contention", errors.New("the appointment is being changed all the time"))
}

// pass makes the calendar show an appointment as it was read. store.ErrConflict: it was changed meanwhile.
func (d *Diary) pass(ctx context.Context, tn *tenant.Tenant, j store.Job, a *Appointment) (job.Result, error) {
	before := *a
	if a.Meet.EventID == "" {
		return job.Result{}, nil
	}
	acc, err := d.account(tn)
	if err != nil {
		return d.attention(ctx, tn, &before, "no_account", err)
	}
	if a.Status == Cancelled {
		if err := d.Calendar.Delete(ctx, acc, a.Meet.EventID, google.UpdateAll); err != nil {
			return d.trouble(ctx, tn, j, &before, err)
		}
		a.Meet.State, a.Meet.URL, a.Meet.AskedAt = NoLink, "", nil
		if a.Meet.Error != nil && a.Meet.Error.Code == credential {
			a.Meet.Error = nil
		}
		return d.end(ctx, tn, &before, a, "gone")
	}
	now := d.Now().UTC()
	if !a.Meet.Made && !now.Before(a.EndsAt()) {
		return d.failed(ctx, tn, &before, a, &Error{"too_late", "The appointment was over before its link could be made."})
	}
	if a.Origin.RunID != "" && a.Meet.State == Pending && a.Meet.Ask == 1 && !a.Meet.Made && d.MayBegin != nil {
		ok, code, err := d.MayBegin(ctx, tn, a.Origin.RunID, a.Origin.Step)
		if err != nil {
			return job.Result{}, err
		}
		if !ok {
			return d.withdraw(ctx, tn, a, code)
		}
	}
	ev, err := d.show(ctx, tn, acc, a)
	if errors.Is(err, errAnother) {
		return job.Result{}, store.ErrConflict // it was written: begin anew with it
	}
	if err != nil {
		return d.trouble(ctx, tn, j, &before, err)
	}
	a.Meet.Made, a.Meet.Invited = true, a.guests()
	switch {
	case ev.MeetURL != "":
		a.Meet.State, a.Meet.URL, a.Meet.Error = Ready, ev.MeetURL, nil
		return d.end(ctx, tn, &before, a, "ready|"+itoa(a.Meet.Ask)+"|"+itoa(a.Meet.Event))
	case ev.ConferenceStatus == google.ConferencePending:
		if a.Meet.AskedAt == nil {
			a.Meet.AskedAt = &now
		}
		waited := now.Sub(*a.Meet.AskedAt)
		if waited >= linkPatience {
			return d.failed(ctx, tn, &before, a, &Error{"meet.timeout", "Google has not made the link within a minute."})
		}
		a.Meet.Error = nil
		if _, err := d.record(ctx, tn, &before, a, "pending"); err != nil {
			return job.Result{}, err
		}
		return job.Result{}, job.Snooze(min(waited+2*time.Second, linkPatience-waited), "meet.pending", nil)
	default:
		return d.failed(ctx, tn, &before, a, &Error{"meet.refused", "Google could not make the link."})
	}
}

// errAnother says that another event was chosen, since the id of the last one is used up.
var errAnother = errors.New("meeting: another event")

// show makes the event of an appointment, or makes it right, and gives it as it is then.
func (d *Diary) show(ctx context.Context, tn *tenant.Tenant, acc google.Account, a *Appointment) (google.Event, error) {
	want := a.event()
	var ev google.Event
	var err error
	if a.Meet.Made {
		ev, err = d.Calendar.Get(ctx, acc, want.ID)
	} else {
		ev, err = d.Calendar.Insert(ctx, acc, want)
	}
	gone := errors.Is(err, google.ErrCancelled) || errors.Is(err, google.ErrNotFound) || (err == nil && ev.Status == "cancelled")
	if gone { // somebody deleted it in the calendar, where the appointment stands for us
		if a.Meet.State == Ready {
			a.Meet.State, a.Meet.AskedAt = Pending, nil
		}
		a.another(tn)
		if err := tn.DB.Commit(ctx, a.Writes("event|"+itoa(a.Meet.Event), d.Now().UTC())...); err != nil {
			return ev, err
		}
		return ev, errAnother
	}
	if err != nil {
		return ev, err
	}
	if patch, differs := a.differs(ev, want); differs {
		return d.Calendar.Patch(ctx, acc, patch)
	}
	return ev, nil
}

// event is how the calendar is to show an appointment.
func (a *Appointment) event() google.Event {
	ev := google.Event{
		ID: a.Meet.EventID, Summary: a.Title, Start: a.StartsAt, End: a.EndsAt(), TimeZone: a.TimeZone, RequestID: a.Meet.EventID + "-" + itoa(a.Meet.Ask),
		SendUpdates: google.UpdateNone,
	}
	for _, p := range a.Attendees {
		ev.Attendees = append(ev.Attendees, google.Attendee{Email: p.Email, Name: p.Name})
	}
	if len(ev.Attendees) > 0 {
		ev.SendUpdates = google.UpdateAll
	}
	return ev
}

// differs gives the change that makes an event what it is to be; false if it is that.
func (a *Appointment) differs(ev, want google.Event) (google.Event, bool) {
	p := google.Event{ID: want.ID, SendUpdates: want.SendUpdates}
	differs := false
	if ev.Summary != want.Summary {
		p.Summary, differs = want.Summary, true
	}
	if !ev.Start.Equal(want.Start) || !ev.End.Equal(want.End) || (ev.TimeZone != "" && ev.TimeZone != want.TimeZone) {
		p.Start, p.End, p.TimeZone, differs = want.Start, want.End, want.TimeZone, true
	}
	if guests, other := a.invite(ev.Attendees, want.Attendees); other {
		p.Attendees, differs = guests, true
		p.SendUpdates = google.UpdateAll // those who were uninvited hear of it, too
	}
	// the first request went with the event itself
	if ev.MeetURL == "" && ev.ConferenceStatus != google.ConferencePending && a.Meet.State == Pending && (a.Meet.Ask > 1 || ev.ConferenceStatus == "") {
		p.RequestID, differs = want.RequestID, true
	}
	return p, differs
}

// guests are the addresses of those whom the appointment asks to it.
func (a *Appointment) guests() []string {
	var out []string
	for _, p := range a.Attendees {
		out = append(out, p.Email)
	}
	return out
}

// invite gives the guests that an event is to have: those whom we want, and those whom somebody else asked. False: it has
// them.
func (a *Appointment) invite(has, want []google.Attendee) (guests []google.Attendee, differs bool) {
	wanted, here := a.guests(), map[string]bool{}
	guests = []google.Attendee{}
	for _, p := range has {
		email, ok := crm.Email(p.Email)
		if ok && slices.Contains(a.Meet.Invited, email) && !slices.Contains(wanted, email) {
			differs = true
			continue
		}
		here[email] = true
		guests = append(guests, p)
	}
	for _, p := range want {
		if !here[p.Email] {
			guests, differs = append(guests, p), true
		}
	}
	return guests, differs
}

// account is the client's at Google.
func (d *Diary) account(tn *tenant.Tenant) (google.Account, error) {
	g := tn.Account().Google
	if g == nil {
		return google.Account{}, errors.New("the client has no Google account")
	}
	acc := google.Account{ClientID: g.ClientID, Subject: g.Subject, CalendarID: g.CalendarID}
	var err error
	if acc.ClientSecret, err = tn.Secret("google.clientSecret"); err != nil {
		return acc, err
	}
	if acc.RefreshToken, err = tn.Secret("google.refreshToken"); err != nil {
		return acc, err
	}
	acc.ServiceAccount, err = tn.Secret("google.serviceAccount")
	return acc, err
}

// Account is the client's at Google, for whoever checks it.
func (d *Diary) Account(tn *tenant.Tenant) (google.Account, error) { return d.account(tn) }
