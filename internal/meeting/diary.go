package meeting

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Diary is the appointments of every client; the tenant says whose.
type Diary struct {
	Book     *crm.Book
	Calendar *google.Client
	Now      func() time.Time
	Log      *slog.Logger
	// Raise gives the jobs that tell the client's rules of occurrences.
	Raise func(ctx context.Context, tn *tenant.Tenant, occurrences ...crm.Occurrence) ([]store.NewJob, error)
	// Settled gives the jobs that follow when the link of an appointment with an origin was made, or will never be.
	Settled func(tn *tenant.Tenant, a *Appointment) []store.NewJob
	// MayBegin is asked before an event is made for a step of a run; false: the run does not want it any more.
	MayBegin func(ctx context.Context, tn *tenant.Tenant, runID, step string) (ok bool, code string, err error)
	// Follow gives the jobs that take along what waits for an appointment that was moved or cancelled.
	Follow func(ctx context.Context, tn *tenant.Tenant, a *Appointment) ([]store.NewJob, error)
	// Drop gives up jobs that nobody needs any more (store.Queue.Cancel); they would do nothing. nil: they stay.
	Drop func(ctx context.Context, ids ...string) ([]string, error)
	// Runner runs the jobs in which changes are made.
	Runner *job.Runner
}

// DefaultReminders are those of clients that have not set their own.
var DefaultReminders = []string{"-24h", "-1h"}

// Limits of an appointment.
const (
	MaxTitle     = 200
	MaxMinutes   = 24 * 60
	MaxReminders = 10
	MaxAttendees = 50
)

// Booking asks for an appointment.
type Booking struct {
	LeadID          string         `json:"leadId"`
	Title           string         `json:"title"`
	StartsAt        time.Time      `json:"startsAt"`
	DurationMinutes int            `json:"durationMinutes"`
	TimeZone        string         `json:"timeZone"`
	Meet            bool           `json:"meet,omitempty"`
	Attendees       []Attendee     `json:"attendees,omitempty"`
	Reminders       []string       `json:"reminders"` // offsets; nil: the client's
	Variables       map[string]any `json:"variables,omitempty"`
	Announce        bool           `json:"announce,omitempty"`
	Origin          Origin         `json:"origin,omitzero"`
}

// NoGoogle is the fault for a link that nobody can make.
func NoGoogle() error {
	return fault.New(fault.Conflict, "google.not_configured", "The client has no Google account yet, so that no Meet link can be made.")
}

// Appointment reads an appointment; fault.NotFound.
func (d *Diary) Appointment(ctx context.Context, tn *tenant.Tenant, appointmentID string) (*Appointment, error) {
	a, err := Appointments.Get(ctx, tn.DB, appointmentID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("appointment")
	}
	return a, err
}

// New works out the appointment that a booking asks for, with an id derived from the mutation that makes it. It is not
// stored. What may not be is a fault.
func (d *Diary) New(tn *tenant.Tenant, mutation string, lead *crm.Lead, b Booking, now time.Time) (*Appointment, error) {
	now = now.UTC().Truncate(time.Millisecond)
	a := &Appointment{
		ID: id.Derived("apt", tn.Code, mutation), LeadID: lead.ID, ContactID: lead.ContactID, Phone: lead.Phone, Title: strings.TrimSpace(b.Title),
		StartsAt: b.StartsAt.UTC().Truncate(time.Second), DurationMinutes: b.DurationMinutes, TimeZone: b.TimeZone, Status: Confirmed,
		Meet: Meet{State: NoLink}, Attendees: b.Attendees, Variables: b.Variables, Revision: 1, Origin: b.Origin, Announce: b.Announce, CreatedAt: now,
	}
	if a.TimeZone == "" {
		a.TimeZone = tn.Account().Zone().String()
	}
	if b.Reminders == nil {
		b.Reminders = Defaults(tn)
	}
	if err := a.check(now); err != nil {
		return nil, err
	}
	if b.Meet {
		if tn.Account().Google == nil {
			return nil, NoGoogle()
		}
		a.ask(tn)
	}
	if err := a.plan(tn, b.Reminders, now); err != nil {
		return nil, err
	}
	a.note(Change{Mutation: mutation, Kind: booked, At: now, Calendar: b.Meet})
	return a, nil
}

// Defaults are the reminders of a client's appointments that say nothing of their own.
func Defaults(tn *tenant.Tenant) []string {
	s := tn.Account().Settings
	if s == nil || s.Reminders == nil {
		return DefaultReminders
	}
	out := []string{}
	for _, o := range s.Reminders {
		if _, err := Offset(o); err == nil && len(out) < MaxReminders { // the account may have been edited by hand
			out = append(out, o)
		}
	}
	return out
}

// ask asks for a link, and chooses the event that is to carry it.
func (a *Appointment) ask(tn *tenant.Tenant) {
	a.Meet.State, a.Meet.Error, a.Meet.AskedAt = Pending, nil, nil
	a.Meet.Ask++
	if a.Meet.EventID == "" {
		a.another(tn)
	}
}

// another chooses a new event for the appointment.
func (a *Appointment) another(tn *tenant.Tenant) {
	a.Meet.Event++
	a.Meet.EventID = google.EventID(id.Derived("gev", tn.Code, a.ID, itoa(a.Meet.Event)))
	a.Meet.Made, a.Meet.URL = false, ""
}

// check refuses what no appointment can be.
func (a *Appointment) check(now time.Time) error {
	var bad []fault.Field
	add := func(pointer, detail string) { bad = append(bad, fault.Field{Pointer: pointer, Detail: detail}) }
	if a.Title == "" || len([]rune(a.Title)) > MaxTitle || strings.ContainsFunc(a.Title, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		add("/title", "Expected 1 to 200 characters, in one line.")
	}
	if a.DurationMinutes < 1 || a.DurationMinutes > MaxMinutes {
		add("/durationMinutes", "Expected 1 minute to a day.")
	}
	if _, err := clock.Zone(a.TimeZone); err != nil {
		add("/timeZone", "Expected an IANA time zone such as Asia/Kolkata.")
	}
	if !a.StartsAt.After(now) {
		add("/startsAt", "Expected a time to come.")
	} else if a.StartsAt.Year() > 9990 {
		add("/startsAt", "Expected a nearer time.")
	}
	if len(a.Attendees) > MaxAttendees {
		add("/attendees", "Expected at most 50.")
	}
	for i, p := range a.Attendees {
		email, ok := crm.Email(p.Email)
		if !ok {
			add("/attendees/"+itoa(i)+"/email", "is not an e-mail address")
			continue
		}
		a.Attendees[i] = Attendee{email, strings.Join(strings.Fields(p.Name), " ")}
	}
	return fault.BadFields(bad)
}

// plan works out the reminders for the appointment's time. One whose moment has passed already is none.
func (a *Appointment) plan(tn *tenant.Tenant, offsets []string, now time.Time) error {
	if len(offsets) > MaxReminders {
		return fault.Bad("/reminders", "Expected at most 10.")
	}
	a.Reminders = []Reminder{}
	seen := map[string]bool{}
	for i, o := range offsets {
		o = strings.TrimSpace(o)
		sp, err := Offset(o)
		if err != nil {
			return fault.Bad("/reminders/"+itoa(i), "%s", err)
		}
		if seen[o] {
			continue
		}
		seen[o] = true
		r := Reminder{Offset: o, At: sp.From(a.StartsAt, tn.Account().Zone()), State: Planned}
		if !r.At.After(now) {
			r.State, r.Reason = Skipped, tooLate
		}
		a.Reminders = append(a.Reminders, r)
	}
	return nil
}

// offsets are the reminders that were asked for.
func (a *Appointment) offsets() []string {
	out := []string{}
	for _, r := range a.Reminders {
		out = append(out, r.Offset)
	}
	return out
}

// Offset reads the distance of a reminder from its appointment: "-24h", "-30m", "-1d".
func Offset(s string) (clock.Span, error) {
	sp, err := clock.ParseSpan(s)
	if err != nil || !sp.Negative() {
		return sp, errors.New(`must be a time before the appointment such as "-24h", "-30m" or "-1d"`)
	}
	return sp, nil
}
