package meeting

import (
	"time"

	"github.com/ecodrix/ecod/internal/news"
)

// AppointmentView is an appointment as the API shows it.
type AppointmentView struct {
	ID              string         `json:"id"`
	LeadID          string         `json:"leadId"`
	ContactID       *string        `json:"contactId"`
	Phone           *string        `json:"phone"`
	Title           string         `json:"title"`
	StartsAt        *string        `json:"startsAt"`
	EndsAt          *string        `json:"endsAt"`
	DurationMinutes int            `json:"durationMinutes"`
	TimeZone        string         `json:"timeZone"`
	Status          string         `json:"status" enum:"confirmed,cancelled"`
	MeetURL         *string        `json:"meetUrl" doc:"Null until there is one: see meet.state."`
	Meet            MeetView       `json:"meet"`
	Attendees       []Attendee     `json:"attendees"`
	Reminders       []string       `json:"reminders" example:"[\"-24h\",\"-1h\"]"`
	ReminderPlan    []ReminderView `json:"reminderPlan" doc:"What becomes, or became, of each reminder."`
	Variables       map[string]any `json:"variables"`
	RunID           *string        `json:"runId" doc:"The run that booked it."`
	Version         int64          `json:"version"`
	CreatedAt       *string        `json:"createdAt"`
	UpdatedAt       *string        `json:"updatedAt"`
	CancelledAt     *string        `json:"cancelledAt"`
}

// MeetView is an appointment's link as the API shows it.
type MeetView struct {
	Requested bool    `json:"requested"`
	State     string  `json:"state" enum:"none,pending,ready,failed"`
	URL       *string `json:"url"`
	EventID   *string `json:"eventId" doc:"Of the event in the client's calendar."`
	Error     *Error  `json:"error" doc:"What keeps the link from being made, or the calendar from being right. google.credential: the client's Google account needs attention."`
}

// ReminderView is a reminder as the API shows it.
type ReminderView struct {
	Offset string  `json:"offset" example:"-24h"`
	At     *string `json:"at"`
	State  string  `json:"state" enum:"planned,fired,skipped,missed"`
	Reason *string `json:"reason" doc:"Why it was skipped: too_late (its moment had passed when it was booked), late, cancelled."`
}

// View is the appointment as the API shows it. version is the one it has, or will have once written.
func (a *Appointment) View(version int64, now time.Time) AppointmentView {
	v := AppointmentView{
		ID: a.ID, LeadID: a.LeadID, ContactID: optional(a.ContactID), Phone: optional(a.Phone), Title: a.Title,
		StartsAt: news.Stamp(a.StartsAt), EndsAt: news.Stamp(a.EndsAt()), DurationMinutes: a.DurationMinutes, TimeZone: a.TimeZone,
		Status: a.Status, MeetURL: optional(a.Meet.URL),
		Meet: MeetView{
			Requested: a.Meet.State != NoLink, State: a.Meet.State, URL: optional(a.Meet.URL), EventID: optional(a.Meet.EventID), Error: a.Meet.Error,
		},
		Attendees: a.Attendees, Reminders: []string{}, ReminderPlan: []ReminderView{}, Variables: a.Variables, RunID: optional(a.Origin.RunID),
		Version: version, CreatedAt: news.Stamp(a.CreatedAt), UpdatedAt: news.Stamp(a.UpdatedAt),
	}
	for _, r := range a.Reminders {
		state := r.State
		if state == Planned && !now.Before(a.StartsAt) {
			state = Missed
		}
		v.Reminders = append(v.Reminders, r.Offset)
		v.ReminderPlan = append(v.ReminderPlan, ReminderView{r.Offset, news.Stamp(r.At), state, optional(r.Reason)})
	}
	if v.Attendees == nil {
		v.Attendees = []Attendee{}
	}
	if v.Variables == nil {
		v.Variables = map[string]any{}
	}
	if a.CancelledAt != nil {
		v.CancelledAt = news.Stamp(*a.CancelledAt)
	}
	return v
}

// Snapshot is what rules see of an appointment as appointment.*.
func (a *Appointment) Snapshot() map[string]any {
	local := a.StartsAt.In(a.zone())
	m := map[string]any{
		"id": a.ID, "title": a.Title, "status": a.Status, "startsAt": a.StartsAt.UTC().Format(time.RFC3339), "endsAt": a.EndsAt().UTC().Format(time.RFC3339),
		"durationMinutes": a.DurationMinutes, "timeZone": a.TimeZone, "date": local.Format("2006-01-02"), "time": local.Format("15:04"),
		"meetUrl": a.Meet.URL, "revision": a.Revision,
	}
	if a.Meet.URL != "" {
		m["meet"] = map[string]any{"url": a.Meet.URL}
	}
	return m
}

// Link is what later actions of a run see as meet.*.
func (a *Appointment) Link() map[string]any {
	m := a.Snapshot()
	delete(m, "meet")
	m["url"], m["appointmentId"] = a.Meet.URL, a.ID
	return m
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
