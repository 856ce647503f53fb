package meeting

import (
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/store"
)

// Statuses of an appointment.
const (
	Confirmed = "confirmed"
	Cancelled = "cancelled"
)

// States of a Meet link.
const (
	NoLink  = "none"    // not asked for
	Pending = "pending" // asked for; the calendar may have the event already
	Ready   = "ready"
	Failed  = "failed"
)

// States of a reminder.
const (
	Planned = "planned"
	Fired   = "fired"
	Skipped = "skipped"
	Missed  = "missed" // shown only: its moment came while nobody was there
)

// Appointment is a time that a lead and the client agreed on.
type Appointment struct {
	store.Meta
	ID              string         `json:"id"`
	LeadID          string         `json:"leadId"`
	ContactID       string         `json:"contactId,omitempty"`
	Phone           string         `json:"phone,omitempty"` // E.164, of the lead when it was booked
	Title           string         `json:"title"`
	StartsAt        time.Time      `json:"startsAt"`
	DurationMinutes int            `json:"durationMinutes"`
	TimeZone        string         `json:"timeZone"` // IANA; in which people are shown the time
	Status          string         `json:"status"`
	Meet            Meet           `json:"meet"`
	Attendees       []Attendee     `json:"attendees,omitempty"`
	Reminders       []Reminder     `json:"reminders,omitempty"`
	Variables       map[string]any `json:"variables,omitempty"` // for the rules that reminders start
	// Revision counts the times that were agreed on: a reminder belongs to one of them.
	Revision int    `json:"revision"`
	Origin   Origin `json:"origin,omitzero"`
	Announce bool   `json:"announce,omitempty"` // the rules hear of it as appointment_confirmed
	// Changes are the last changes, so that one that is repeated after a crash finds itself, and what it owes.
	Changes     []Change   `json:"changes"`
	CreatedAt   time.Time  `json:"createdAt"`
	UpdatedAt   time.Time  `json:"updatedAt"`
	CancelledAt *time.Time `json:"cancelledAt,omitempty"`
}

// Meet is an appointment's link, and the calendar event that carries it.
type Meet struct {
	State   string `json:"state"`
	URL     string `json:"url,omitempty"`
	EventID string `json:"eventId,omitempty"` // chosen before the first call, so that no call is made for an unknown event
	Event   int    `json:"event,omitempty"`   // which of the events for this appointment: an id is used up when its event was deleted
	Ask     int    `json:"ask,omitempty"`     // how often a link was asked for
	Made    bool   `json:"made,omitempty"`    // the event was seen in the calendar
	// AskedAt is when the calendar first said that the link would come.
	AskedAt *time.Time `json:"askedAt,omitempty"`
	// Invited are the addresses that the calendar was last made to show; guests whom somebody adds there are left alone.
	Invited []string `json:"invited,omitempty"`
	Error   *Error   `json:"error,omitempty"`
}

// Error is what keeps a link from being made, or the calendar from being right.
type Error struct {
	Code   string `json:"code" example:"google.credential"`
	Detail string `json:"detail"`
}

// Attendee is somebody whom Google invites.
type Attendee struct {
	Email string `json:"email" maxLength:"254"`
	Name  string `json:"name,omitempty" maxLength:"200"`
}

// Reminder is one moment before an appointment at which the rules hear of it.
type Reminder struct {
	Offset string    `json:"offset"`
	At     time.Time `json:"at"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
}

// Origin is the step of a run that an appointment was made for.
type Origin struct {
	RunID string `json:"runId,omitempty"`
	Step  string `json:"step,omitempty"`
}

// Change is what one mutation really changed.
type Change struct {
	Mutation string    `json:"mutation"`
	Kind     string    `json:"kind"` // booked, moved, edited, cancelled
	At       time.Time `json:"at"`
	Revision int       `json:"revision"` // afterwards
	From     time.Time `json:"from,omitzero"`
	Calendar bool      `json:"calendar,omitempty"` // the calendar has to follow
}

// Kinds of changes.
const (
	booked    = "booked"
	moved     = "moved"
	edited    = "edited"
	cancelled = "cancelled"
)

// changesKept is how many changes an appointment remembers. A repetition comes long before so many others.
const changesKept = 32

// Appointments is the kind.
var Appointments = store.Kind[Appointment]{
	Schema: store.Schema{
		Kind: "appointments",
		Fields: []store.Field{
			{Name: "leadId", Type: store.Text}, {Name: "status", Type: store.Text}, {Name: "startsAt", Type: store.Int}, {Name: "createdAt", Type: store.Int},
		},
		Orders: [][]string{{"startsAt"}, {"leadId", "startsAt"}, {"leadId", "createdAt"}, {"status", "startsAt"}},
	},
	Key: func(a *Appointment) string { return a.ID },
	Index: func(a *Appointment) store.Fields {
		return store.Fields{"leadId": a.LeadID, "status": a.Status, "startsAt": a.StartsAt.UnixMilli(), "createdAt": a.CreatedAt.UnixMilli()}
	},
	Meta: func(a *Appointment) *store.Meta { return &a.Meta },
}

// Kept is how long appointments are kept after their time.
const Kept = 3 * 365 * 24 * time.Hour

// EndsAt is when the appointment is over.
func (a *Appointment) EndsAt() time.Time {
	return a.StartsAt.Add(time.Duration(a.DurationMinutes) * time.Minute)
}

// change gives what a mutation changed; nil if it was not made.
func (a *Appointment) change(mutation string) *Change {
	if i := slices.IndexFunc(a.Changes, func(c Change) bool { return c.Mutation == mutation }); i >= 0 {
		return &a.Changes[i]
	}
	return nil
}

func (a *Appointment) note(c Change) {
	c.Revision = a.Revision
	a.Changes = append(a.Changes, c)
	if n := len(a.Changes) - changesKept; n > 0 {
		a.Changes = slices.Clone(a.Changes[n:])
	}
	a.UpdatedAt = c.At
}

// zone is the zone in which people are shown the time.
func (a *Appointment) zone() *time.Location {
	if z, err := clock.Zone(a.TimeZone); err == nil {
		return z
	}
	return time.UTC
}
