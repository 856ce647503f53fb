package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// schedules is the operator's API of what is done by the clock.
type schedules struct {
	table   *job.Timetable
	tenants *tenant.Registry
}

const scheduleRule = "The local times that fit the expression, in its zone. A time that the clocks skip is the first moment after the gap; " +
	"one that comes twice is the first of the two, and an expression of every hour goes on through both. Each occurrence makes one job, " +
	"over any number of processes and restarts. Of occurrences that were missed the latest is made up for, within catchUp; the rest is counted."

// RegisterSchedules adds the operator's API of schedules.
func RegisterSchedules(a *API, table *job.Timetable, tenants *tenant.Registry) {
	s := schedules{table, tenants}
	const tag, at = "Operation", "/api/admin/schedules"
	Admin(a, Op{Route: "GET " + at, ID: "adminListSchedules", Tag: tag, Summary: "List the schedules of all clients and the engine's own, newest first"}, s.list)
	Admin(a, Op{Route: "POST " + at, ID: "adminCreateSchedule", Tag: tag, Summary: "Have jobs made by the clock", Status: http.StatusCreated, Description: scheduleRule}, s.create)
	Admin(a, Op{Route: "GET " + at + "/{id}", ID: "adminGetSchedule", Tag: tag, Summary: "Read a schedule"}, s.get)
	Admin(a, Op{Route: "PATCH " + at + "/{id}", ID: "adminUpdateSchedule", Tag: tag, Summary: "Change a schedule",
		Description: "With another expression or zone, or enabled anew, it starts from now. The engine's own cannot be changed: 409 schedule.engine."}, s.update)
	Admin(a, Op{Route: "DELETE " + at + "/{id}", ID: "adminDeleteSchedule", Tag: tag, Summary: "Delete a schedule", Description: "Jobs that it made go on."}, s.remove)
}

// ScheduleTimes is what every schedule shows of its times; embed it.
type ScheduleTimes struct {
	ID           string  `json:"id"`
	Name         string  `json:"name"`
	Expr         string  `json:"expr" doc:"Cron: minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly." example:"30 9 * * mon-fri"`
	TimeZone     string  `json:"timeZone" doc:"IANA." example:"Europe/Madrid"`
	CatchUp      *string `json:"catchUp" doc:"How late the latest of missed occurrences may still begin; null: what is missed is left out." example:"6h"`
	Enabled      bool    `json:"enabled"`
	LastFiredFor *Time   `json:"lastFiredFor" nullable:"true" doc:"The occurrence whose job was the last to be made."`
	Next         *Time   `json:"next" nullable:"true" doc:"Null while it is not enabled."`
	Missed       int64   `json:"missed" doc:"Occurrences that were left out: the engine was not running, or the client was suspended."`
	CreatedAt    Time    `json:"createdAt"`
	UpdatedAt    Time    `json:"updatedAt"`
}

func scheduleTimes(s *job.Schedule) ScheduleTimes {
	return ScheduleTimes{
		ID: s.ID, Name: s.Name, Expr: s.Expr, TimeZone: s.Zone, CatchUp: spanText(s.CatchUp), Enabled: s.Enabled,
		LastFiredFor: At(s.LastFiredFor), Next: At(s.Next), Missed: s.Missed, CreatedAt: Time{s.CreatedAt}, UpdatedAt: Time{s.UpdatedAt},
	}
}

// AdminScheduleView is a schedule as the operator sees it.
type AdminScheduleView struct {
	ScheduleTimes
	Client  *string        `json:"client" doc:"The client's code; null for the system's own."`
	Type    string         `json:"type" doc:"Of its jobs." example:"whatsapp.templates.sync"`
	Payload map[string]any `json:"payload"`
	Class   *string        `json:"class" doc:"How patient its jobs are; null: as their type says."`
	Engine  bool           `json:"engine" doc:"Declared by the engine; it cannot be changed."`
}

func adminScheduleView(s *job.Schedule) AdminScheduleView {
	v := AdminScheduleView{ScheduleTimes: scheduleTimes(s), Client: orNull(s.Tenant), Type: s.Type, Payload: map[string]any{}, Class: orNull(string(s.Class)), Engine: s.Engine}
	_ = json.Unmarshal(s.Payload, &v.Payload) // an object, or nothing
	return v
}

// spanText writes a duration as it is read; nil for none.
func spanText(d time.Duration) *string {
	if d == 0 {
		return nil
	}
	unit, name := time.Second, "s"
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Minute, "m"}, {time.Hour, "h"}, {24 * time.Hour, "d"}} {
		if d%u.unit == 0 {
			unit, name = u.unit, u.name
		}
	}
	s := strconv.FormatInt(int64(d/unit), 10) + name
	return &s
}

// span reads a duration; "" is none.
func (f *fields) span(pointer, text string) time.Duration {
	if text == "" {
		return 0
	}
	s, err := clock.ParseSpan(text)
	if err != nil || s.Negative() {
		f.add(pointer, `Expected a duration such as "30m", "6h" or "1d".`)
		return 0
	}
	return s.Elapsed + time.Duration(s.Days)*24*time.Hour
}

// created is the answer to a new schedule.
type created[V any] struct {
	Location string `header:"Location"`
	Body     V
}

type adminSchedulesInput struct {
	Page
	Client string `query:"client" maxLength:"64" doc:"Of one client only."`
}

func (s schedules) list(ctx context.Context, in *adminSchedulesInput) (*Answer[List[AdminScheduleView]], error) {
	var where []store.Term
	if in.Client != "" {
		code, ok := tenant.Code(in.Client)
		if !ok {
			return nil, tenant.ErrUnknown()
		}
		where = append(where, store.Where("tenant", store.Eq, code))
	}
	return listSchedules(ctx, s.table, in.Page, "admin-schedules", adminScheduleView, where...)
}

func listSchedules[V any](ctx context.Context, table *job.Timetable, p Page, name string, view func(*job.Schedule) V, where ...store.Term) (*Answer[List[V]], error) {
	at, err := p.afterIn(name, job.Schedules.Schema, "createdAt")
	if err != nil {
		return nil, err
	}
	rows, err := table.Find(ctx, store.Query{Where: where, Order: "createdAt", Desc: true, After: at, Limit: p.Limit + 1})
	if err != nil {
		return nil, err
	}
	return ListOf(rows, p, name, func(s *job.Schedule) store.Cursor { return store.Cursor{Value: s.CreatedAt.UnixMilli(), ID: s.ID} }, view), nil
}

type adminScheduleInput struct {
	Body struct {
		Client   string         `json:"client,omitempty" maxLength:"64" doc:"The client's code; for jobs of no client it is left out."`
		Name     string         `json:"name" minLength:"1" maxLength:"200" example:"Templates, each morning"`
		Expr     string         `json:"expr" minLength:"1" maxLength:"200" doc:"Cron: minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly." example:"30 9 * * mon-fri"`
		TimeZone string         `json:"timeZone,omitempty" maxLength:"64" doc:"IANA; UTC if left out." example:"Europe/Madrid"`
		Type     string         `json:"type" minLength:"1" maxLength:"100" doc:"Of the jobs; those that can be scheduled are named where another is refused." example:"whatsapp.templates.sync"`
		Payload  map[string]any `json:"payload,omitempty" doc:"Of the jobs, as their type wants it."`
		Class    string         `json:"class,omitempty" enum:"normal,bulk,maintenance" doc:"How patient the jobs are; as their type says if left out."`
		CatchUp  string         `json:"catchUp,omitempty" maxLength:"20" doc:"How late the latest of missed occurrences may still begin, up to 7d; if left out, what is missed is left out." example:"6h"`
		Enabled  *bool          `json:"enabled,omitempty" doc:"true if left out."`
	}
}

func (s schedules) create(ctx context.Context, in *adminScheduleInput) (*created[AdminScheduleView], error) {
	b := in.Body
	var bad fields
	bad.text("/name", b.Name)
	d := job.Schedule{
		Name: strings.TrimSpace(b.Name), Expr: b.Expr, Zone: or(b.TimeZone, "UTC"), Type: b.Type, Payload: payloadOf(b.Payload), Class: store.Class(b.Class),
		CatchUp: bad.span("/catchUp", b.CatchUp), Enabled: b.Enabled == nil || *b.Enabled,
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	if b.Client != "" {
		code, ok := tenant.Code(b.Client)
		if st := s.tenants.Status(code); !ok || (st != tenant.Active && st != tenant.Suspended) {
			return nil, fault.Bad("/client", "There is no such client.")
		}
		d.Tenant = code
	}
	made, err := s.table.Create(ctx, d)
	if err != nil {
		return nil, err
	}
	return &created[AdminScheduleView]{"/api/admin/schedules/" + made.ID, adminScheduleView(made)}, nil
}

func payloadOf(p map[string]any) json.RawMessage {
	if len(p) == 0 {
		return nil
	}
	b, _ := json.Marshal(p) // it was read from JSON
	return b
}

func (s schedules) get(ctx context.Context, in *ByID) (*Answer[AdminScheduleView], error) {
	got, err := s.table.Schedule(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return OK(adminScheduleView(got))
}

type adminSchedulePatch struct {
	ByID
	Body struct {
		Name     *string          `json:"name,omitempty" minLength:"1" maxLength:"200"`
		Expr     *string          `json:"expr,omitempty" minLength:"1" maxLength:"200"`
		TimeZone *string          `json:"timeZone,omitempty" minLength:"1" maxLength:"64"`
		Payload  *map[string]any  `json:"payload,omitempty"`
		Class    Optional[string] `json:"class,omitzero" enum:"normal,bulk,maintenance" doc:"null: as their type says."`
		CatchUp  Optional[string] `json:"catchUp,omitzero" maxLength:"20" doc:"null: none."`
		Enabled  *bool            `json:"enabled,omitempty"`
	}
}

func (s schedules) update(ctx context.Context, in *adminSchedulePatch) (*Answer[AdminScheduleView], error) {
	b := in.Body
	got, err := s.table.Edit(ctx, in.ID, func(d *job.Schedule) error {
		if b.Payload != nil {
			d.Payload = payloadOf(*b.Payload)
		}
		if b.Class.Set {
			d.Class = store.Class(b.Class.Value)
		}
		return scheduleEdit{b.Name, b.Expr, b.TimeZone, b.CatchUp, b.Enabled}.apply(d)
	})
	if err != nil {
		return nil, err
	}
	return OK(adminScheduleView(got))
}

// scheduleEdit is what everybody may change of a schedule.
type scheduleEdit struct {
	name, expr, zone *string
	catchUp          Optional[string]
	enabled          *bool
}

func (e scheduleEdit) apply(d *job.Schedule) error {
	var bad fields
	if e.name != nil {
		bad.text("/name", *e.name)
		d.Name = strings.TrimSpace(*e.name)
	}
	if e.expr != nil {
		d.Expr = *e.expr
	}
	if e.zone != nil {
		d.Zone = *e.zone
	}
	if e.catchUp.Set {
		d.CatchUp = bad.span("/catchUp", e.catchUp.Value)
	}
	if e.enabled != nil {
		d.Enabled = *e.enabled
	}
	return bad.fault()
}

func (s schedules) remove(ctx context.Context, in *ByID) (*struct{}, error) {
	return nil, s.table.Remove(ctx, in.ID)
}
