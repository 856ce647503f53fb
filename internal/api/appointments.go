package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// appointments is the API of appointments.
type appointments struct {
	api   *API
	diary *meeting.Diary
}

// RegisterAppointments adds the API of appointments.
func RegisterAppointments(a *API, diary *meeting.Diary) {
	s := appointments{a, diary}
	const tag = "Appointments"
	Client(a, Op{Route: "POST /api/appointments", ID: "createAppointment", Tag: tag, Summary: "Book an appointment", Status: http.StatusCreated,
		Description: "For a lead, by leadId or phone; a phone that no lead has makes one. With meet:true a job makes an event with a Meet link in the client's Google " +
			"calendar; meetUrl is null until it is there (see meet.state, and the live event appointment.updated). Each reminder fires the trigger " +
			"appointment_reminder at its moment. Rules hear of the booking itself only where announce is true."}, s.create)
	Client(a, Op{Route: "GET /api/appointments", ID: "listAppointments", Tag: tag, Summary: "List appointments by their time, the earliest first",
		Description: "Filters narrow each other."}, s.list)
	Client(a, Op{Route: "GET /api/appointments/{id}", ID: "getAppointment", Tag: tag, Summary: "Read an appointment"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedAppointment, error) {
			return s.tagged(diary.Appointment(ctx, tn, in.ID))
		})
	Client(a, Op{Route: "PATCH /api/appointments/{id}", ID: "updateAppointment", Tag: tag, Summary: "Reschedule or change an appointment",
		Description: "Members that are left out stay. Another time moves the calendar event and the reminders with it, and fires appointment_rescheduled. " +
			"With If-Match or version, an appointment that was changed meanwhile is refused: 409 version.conflict. A cancelled one: 409 appointment.cancelled."}, s.update)
	Client(a, Op{Route: "DELETE /api/appointments/{id}", ID: "cancelAppointment", Tag: tag, Summary: "Cancel an appointment",
		Description: "Its calendar event and reminders go with it, and appointment_cancelled is fired. It can be read afterwards, with status cancelled."}, s.cancel)
	Stream(a, AccessClient, Op{Route: "GET /api/appointments/{id}/ics", ID: "getAppointmentFile", Tag: tag, Summary: "Download an appointment as a calendar file",
		Description: "iCalendar (RFC 5545); of a cancelled one, its cancellation.",
		Doc: func(op *huma.Operation) {
			op.Responses["200"].Content = map[string]*huma.MediaType{"text/calendar": {Schema: &huma.Schema{Type: huma.TypeString}}}
		}}, s.file)
	a.nullable("MeetView", "error")
}

type taggedAppointment struct {
	ETag string `header:"ETag"`
	Body meeting.AppointmentView
}

func (s appointments) tagged(a *meeting.Appointment, err error) (*taggedAppointment, error) {
	if err != nil {
		return nil, err
	}
	return &taggedAppointment{ETag: etag(a.Version), Body: a.View(a.Version, s.diary.Now())}, nil
}

type appointmentBody struct {
	LeadID          string             `json:"leadId,omitempty" maxLength:"256" doc:"leadId or phone is required."`
	Phone           string             `json:"phone,omitempty" maxLength:"64" doc:"In any spelling. A lead is made where none has it." example:"918143963821"`
	Name            string             `json:"name,omitempty" maxLength:"200" doc:"Of the lead, if one is made."`
	Title           string             `json:"title" minLength:"1" maxLength:"200" example:"Consultation"`
	StartsAt        string             `json:"startsAt" maxLength:"64" doc:"RFC 3339, or a local time in timeZone. A local time that a change of the clocks skips is the moment after it; one that comes twice, its first." example:"2027-03-01T10:00"`
	DurationMinutes int                `json:"durationMinutes,omitempty" minimum:"1" maximum:"1440" default:"30"`
	TimeZone        string             `json:"timeZone,omitempty" maxLength:"64" doc:"IANA; the client's if left out." example:"Asia/Kolkata"`
	Meet            bool               `json:"meet,omitempty" doc:"Asks for a Google Meet link. A client without a Google account: 409 google.not_configured."`
	Attendees       []meeting.Attendee `json:"attendees,omitempty" maxItems:"50" doc:"Google invites them, and tells them of changes. The lead is one only if named here."`
	Reminders       Optional[[]string] `json:"reminders,omitzero" maxItems:"10" doc:"How long before, such as -24h, -30m or -1d; hours elapse, days go by the client's calendar. The client's own if left out, none if empty." example:"[\"-24h\",\"-1h\"]"`
	Variables       map[string]any     `json:"variables,omitempty" doc:"For the rules that the reminders start; at most 32 KiB."`
	Announce        bool               `json:"announce,omitempty" doc:"Fires appointment_confirmed, with the variables; with meet:true once the link is there. For callers that send no such event themselves."`
}

func (s appointments) create(ctx context.Context, tn *tenant.Tenant, in *struct{ Body appointmentBody }) (*createdAppointment, error) {
	b := in.Body
	var bad fields
	phone := bad.phone("/phone", b.Phone, tn)
	if b.LeadID == "" && b.Phone == "" {
		bad.add("/leadId", "leadId or phone is required.")
	}
	bad.size("/variables", b.Variables, maxVariables)
	zone := bad.zone("/timeZone", b.TimeZone, tn.Account().Zone())
	booking := meeting.Booking{
		LeadID: b.LeadID, Title: b.Title, StartsAt: bad.moment("/startsAt", b.StartsAt, zone), DurationMinutes: b.DurationMinutes, TimeZone: zone.String(),
		Meet: b.Meet, Attendees: b.Attendees, Variables: b.Variables, Announce: b.Announce,
	}
	if b.Reminders.Set && !b.Reminders.Null {
		booking.Reminders = append([]string{}, b.Reminders.Value...)
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	now, mutation := s.diary.Now(), once(ctx)
	if b.LeadID == "" { // nobody becomes a lead by a booking that is refused
		if _, err := s.diary.New(tn, mutation, &crm.Lead{}, booking, now); err != nil {
			return nil, err
		}
		lead, err := s.lead(ctx, tn, mutation, phone, strings.TrimSpace(b.Name), now)
		if err != nil {
			return nil, err
		}
		booking.LeadID = lead.ID
	}
	a, err := s.tagged(s.diary.Change(ctx, tn, meeting.Mutation{ID: mutation, At: now, Book: &booking}))
	if err != nil {
		return nil, tooLargeFor("/variables", err)
	}
	return &createdAppointment{ETag: a.ETag, Location: "/api/appointments/" + a.Body.ID, Body: a.Body}, nil
}

// lead finds the lead with a phone, or makes it.
func (s appointments) lead(ctx context.Context, tn *tenant.Tenant, mutation, phone, name string, now time.Time) (*crm.Lead, error) {
	for range 3 {
		l, err := s.diary.Book.FindLead(ctx, tn, phone, "")
		if !errors.Is(err, store.ErrNotFound) {
			return l, err
		}
		l, err = s.diary.Book.Change(ctx, tn, crm.Mutation{ID: mutation + "|lead", Cause: crm.ByPerson, By: CallerOf(ctx).UserID, At: now,
			Create: &crm.NewLead{Phone: phone, LeadData: crm.LeadData{Name: name, Source: "appointment"}}})
		if fault.Of(err) != fault.Conflict { // somebody else made it a moment ago
			return l, err
		}
	}
	return nil, fault.New(fault.Unavailable, "lead.contention", "The lead is being changed by others all the time.")
}

type createdAppointment struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     meeting.AppointmentView
}

type appointmentsInput struct {
	Page
	LeadID string `query:"leadId" maxLength:"256"`
	From   Time   `query:"from" doc:"Those that start then or later."`
	To     Time   `query:"to" doc:"Those that start before."`
	Status string `query:"status" enum:"confirmed,cancelled"`
}

func (s appointments) list(ctx context.Context, tn *tenant.Tenant, in *appointmentsInput) (*Answer[List[meeting.AppointmentView]], error) {
	at, err := in.afterIn("appointments", meeting.Appointments.Schema, "startsAt")
	if err != nil {
		return nil, err
	}
	q := store.Query{Order: "startsAt", After: at, Limit: in.Limit + 1}
	if in.LeadID != "" {
		q.Where = append(q.Where, store.Where("leadId", store.Eq, in.LeadID))
	}
	if in.Status != "" {
		q.Where = append(q.Where, store.Where("status", store.Eq, in.Status))
	}
	if !in.From.IsZero() {
		q.Where = append(q.Where, store.Where("startsAt", store.Ge, in.From.UnixMilli()))
	}
	if !in.To.IsZero() {
		q.Where = append(q.Where, store.Where("startsAt", store.Lt, in.To.UnixMilli()))
	}
	rows, err := meeting.Appointments.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	now := s.diary.Now()
	return ListOf(rows, in.Page, "appointments", func(a *meeting.Appointment) store.Cursor {
		return store.Cursor{Value: a.StartsAt.UnixMilli(), ID: a.ID}
	}, func(a *meeting.Appointment) meeting.AppointmentView { return a.View(a.Version, now) }), nil
}

type appointmentPatch struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that the appointment was read with."`
	Body    struct {
		Title           *string                  `json:"title,omitempty" minLength:"1" maxLength:"200"`
		StartsAt        *string                  `json:"startsAt,omitempty" maxLength:"64" doc:"RFC 3339, or a local time in timeZone." example:"2027-03-01T16:00"`
		DurationMinutes *int                     `json:"durationMinutes,omitempty" minimum:"1" maximum:"1440"`
		TimeZone        *string                  `json:"timeZone,omitempty" maxLength:"64" doc:"IANA. By itself it changes only how the time is shown."`
		Meet            bool                     `json:"meet,omitempty" doc:"Asks for a link, or once more for one that failed."`
		Attendees       *[]meeting.Attendee      `json:"attendees,omitempty" maxItems:"50" doc:"All of them."`
		Reminders       *[]string                `json:"reminders,omitempty" maxItems:"10" doc:"All of them."`
		Variables       Optional[map[string]any] `json:"variables,omitzero" doc:"All of them; at most 32 KiB."`
		Version         int64                    `json:"version,omitempty" minimum:"1" doc:"The version that was read, as If-Match."`
	}
}

func (s appointments) update(ctx context.Context, tn *tenant.Tenant, in *appointmentPatch) (*taggedAppointment, error) {
	b := in.Body
	version, err := ifVersion(in.IfMatch, b.Version)
	if err != nil {
		return nil, err
	}
	a, err := s.diary.Appointment(ctx, tn, in.ID)
	if err != nil {
		return nil, err
	}
	var bad fields
	e := &meeting.Edit{
		Title: b.Title, DurationMinutes: b.DurationMinutes, TimeZone: b.TimeZone, Meet: b.Meet, Attendees: b.Attendees, Reminders: b.Reminders,
	}
	if b.Variables.Set {
		bad.size("/variables", b.Variables.Value, maxVariables)
		e.Variables = &b.Variables.Value
	}
	zone := bad.zone("/timeZone", a.TimeZone, time.UTC)
	if b.TimeZone != nil {
		zone = bad.zone("/timeZone", *b.TimeZone, zone)
	}
	if b.StartsAt != nil {
		at := bad.moment("/startsAt", *b.StartsAt, zone)
		e.StartsAt = &at
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	changed, err := s.tagged(s.diary.Change(ctx, tn, meeting.Mutation{ID: once(ctx), AppointmentID: in.ID, IfVersion: version, At: s.diary.Now(), Edit: e}))
	return changed, tooLargeFor("/variables", err)
}

type appointmentRemoval struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that the appointment was read with."`
}

func (s appointments) cancel(ctx context.Context, tn *tenant.Tenant, in *appointmentRemoval) (*struct{}, error) {
	version, err := ifVersion(in.IfMatch, 0)
	if err != nil {
		return nil, err
	}
	_, err = s.diary.Change(ctx, tn, meeting.Mutation{ID: once(ctx), AppointmentID: in.ID, IfVersion: version, At: s.diary.Now(), Cancel: true})
	return nil, err
}

func (s appointments) file(w http.ResponseWriter, r *http.Request) error {
	tn, release, err := s.api.Open(r.Context())
	if err != nil {
		return err
	}
	defer release()
	a, err := s.diary.Appointment(r.Context(), tn, r.PathValue("id"))
	if err != nil {
		return err
	}
	b := a.ICS()
	w.Header().Set("Content-Type", "text/calendar; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="appointment.ics"`)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, err = w.Write(b)
	return err
}

// tooLargeFor makes what the store cannot hold the caller's affair.
func tooLargeFor(pointer string, err error) error {
	if errors.Is(err, store.ErrTooLarge) {
		return fault.Bad(pointer, "Expected less: it is larger than can be kept.")
	}
	return err
}

// zone reads a time zone; other where none is named.
func (f *fields) zone(pointer, name string, other *time.Location) *time.Location {
	if name == "" {
		return other
	}
	z, err := clock.Zone(name)
	if err != nil {
		f.add(pointer, "Expected an IANA time zone such as Asia/Kolkata.")
		return other
	}
	return z
}

// moment reads a time that may be a local one.
func (f *fields) moment(pointer, text string, zone *time.Location) time.Time {
	t, err := clock.Parse(text, zone)
	if err != nil {
		f.add(pointer, err.Error())
	}
	return t
}
