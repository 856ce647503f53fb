package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// scheduledEvents is a client's API of events that the clock raises.
type scheduledEvents struct {
	table *job.Timetable
	book  *crm.Book
}

// RegisterScheduledEvents adds a client's API of schedules.
func RegisterScheduledEvents(a *API, table *job.Timetable, book *crm.Book) {
	s := scheduledEvents{table, book}
	const tag, at = "Automation", "/api/crm/automations/schedules"
	ClientCall(a, Op{Route: "GET " + at, ID: "listSchedules", Tag: tag, Summary: "List schedules, newest first"}, s.list)
	Client(a, Op{Route: "POST " + at, ID: "createSchedule", Tag: tag, Summary: "Raise an event about a lead by the clock", Status: http.StatusCreated,
		Description: "Rules of the trigger hear it at each occurrence. " + scheduleRule}, s.create)
	ClientCall(a, Op{Route: "GET " + at + "/{id}", ID: "getSchedule", Tag: tag, Summary: "Read a schedule"}, s.get)
	ClientCall(a, Op{Route: "PATCH " + at + "/{id}", ID: "updateSchedule", Tag: tag, Summary: "Change a schedule",
		Description: "With another expression or zone, or enabled anew, it starts from now."}, s.update)
	ClientCall(a, Op{Route: "DELETE " + at + "/{id}", ID: "deleteSchedule", Tag: tag, Summary: "Delete a schedule"}, s.remove)
}

// ScheduleView is a schedule as its client sees it.
type ScheduleView struct {
	ScheduleTimes
	Trigger string `json:"trigger" example:"custom.monthly_checkup"`
	LeadID  string `json:"leadId"`
}

func scheduleView(s *job.Schedule) ScheduleView {
	var p rule.Scheduled
	_ = json.Unmarshal(s.Payload, &p) // it was checked when it was stored
	return ScheduleView{scheduleTimes(s), p.Trigger, p.LeadID}
}

func (s scheduledEvents) list(ctx context.Context, c Caller, in *struct{ Page }) (*Answer[List[ScheduleView]], error) {
	return listSchedules(ctx, s.table, in.Page, "schedules", scheduleView, store.Where("tenant", store.Eq, c.Client), store.Where("type", store.Eq, rule.ScheduledJob))
}

type scheduleInput struct {
	Body struct {
		Name     string `json:"name" minLength:"1" maxLength:"200" example:"Check-up, each month"`
		Expr     string `json:"expr" minLength:"1" maxLength:"200" doc:"Cron: minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly." example:"0 9 1 * *"`
		TimeZone string `json:"timeZone,omitempty" maxLength:"64" doc:"IANA; the client's if left out." example:"Europe/Madrid"`
		Trigger  string `json:"trigger" minLength:"1" maxLength:"100" doc:"custom.*" example:"custom.monthly_checkup"`
		LeadID   string `json:"leadId" minLength:"1" maxLength:"256"`
		CatchUp  string `json:"catchUp,omitempty" maxLength:"20" doc:"How late the latest of missed occurrences may still begin, up to 7d; if left out, what is missed is left out." example:"6h"`
		Enabled  *bool  `json:"enabled,omitempty" doc:"true if left out."`
	}
}

func (s scheduledEvents) create(ctx context.Context, tn *tenant.Tenant, in *scheduleInput) (*created[ScheduleView], error) {
	b := in.Body
	var bad fields
	bad.text("/name", b.Name)
	payload, err := s.payload(ctx, tn, rule.Scheduled{Trigger: b.Trigger, LeadID: b.LeadID})
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.Invalid {
		bad = append(bad, f.Fields...)
	} else if err != nil {
		return nil, err
	}
	d := job.Schedule{
		Tenant: tn.Code, Name: strings.TrimSpace(b.Name), Expr: b.Expr, Zone: or(b.TimeZone, tn.Account().Zone().String()), Type: rule.ScheduledJob,
		Payload: payload, CatchUp: bad.span("/catchUp", b.CatchUp), Enabled: b.Enabled == nil || *b.Enabled,
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	made, err := s.table.Create(ctx, d)
	if err != nil {
		return nil, err
	}
	return &created[ScheduleView]{"/api/crm/automations/schedules/" + made.ID, scheduleView(made)}, nil
}

// payload makes that of a schedule, with pointers into this API's body where it is wrong.
func (s scheduledEvents) payload(ctx context.Context, tn *tenant.Tenant, p rule.Scheduled) (json.RawMessage, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if err := rule.CheckScheduled(b); err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			for i := range f.Fields {
				f.Fields[i].Pointer = strings.TrimPrefix(f.Fields[i].Pointer, "/payload")
			}
		}
		return nil, err
	}
	_, err = s.book.LeadByID(ctx, tn, p.LeadID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Bad("/leadId", "There is no such lead.")
	}
	return b, err
}

// find reads a schedule of the client's own.
func (s scheduledEvents) find(ctx context.Context, client, scheduleID string) (*job.Schedule, error) {
	got, err := s.table.Schedule(ctx, scheduleID)
	if err == nil && !ownEvent(got, client) {
		return nil, fault.Missing("schedule")
	}
	return got, err
}

// ownEvent tells whether a schedule raises events of a client. What the operator scheduled beside them is the operator's.
func ownEvent(s *job.Schedule, client string) bool {
	return s.Tenant == client && s.Type == rule.ScheduledJob
}

func (s scheduledEvents) get(ctx context.Context, c Caller, in *ByID) (*Answer[ScheduleView], error) {
	got, err := s.find(ctx, c.Client, in.ID)
	if err != nil {
		return nil, err
	}
	return OK(scheduleView(got))
}

type schedulePatch struct {
	ByID
	Body struct {
		Name     *string          `json:"name,omitempty" minLength:"1" maxLength:"200"`
		Expr     *string          `json:"expr,omitempty" minLength:"1" maxLength:"200"`
		TimeZone *string          `json:"timeZone,omitempty" minLength:"1" maxLength:"64"`
		CatchUp  Optional[string] `json:"catchUp,omitzero" maxLength:"20" doc:"null: none."`
		Enabled  *bool            `json:"enabled,omitempty"`
	}
}

func (s scheduledEvents) update(ctx context.Context, c Caller, in *schedulePatch) (*Answer[ScheduleView], error) {
	b := in.Body
	got, err := s.table.Edit(ctx, in.ID, func(d *job.Schedule) error {
		if !ownEvent(d, c.Client) {
			return fault.Missing("schedule")
		}
		return scheduleEdit{b.Name, b.Expr, b.TimeZone, b.CatchUp, b.Enabled}.apply(d)
	})
	if err != nil {
		return nil, err
	}
	return OK(scheduleView(got))
}

func (s scheduledEvents) remove(ctx context.Context, c Caller, in *ByID) (*struct{}, error) {
	if _, err := s.find(ctx, c.Client, in.ID); err != nil {
		return nil, err
	}
	return nil, s.table.Remove(ctx, in.ID)
}
