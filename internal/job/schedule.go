package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

// Schedule makes a job at each moment of a cron expression. Its payload holds ids, as that of every job.
type Schedule struct {
	store.Meta
	ID      string          `json:"_id"`
	Tenant  string          `json:"tenant,omitempty"` // "": the system's own
	Name    string          `json:"name"`
	Expr    string          `json:"expr"`
	Zone    string          `json:"zone"` // whose clocks it goes by
	Type    string          `json:"type"` // of its jobs
	Payload json.RawMessage `json:"payload,omitempty"`
	Class   store.Class     `json:"class,omitempty"`   // of its jobs: how patient they are; "": as the type says
	CatchUp time.Duration   `json:"catchUp,omitempty"` // how late the latest of missed occurrences may still begin
	Enabled bool            `json:"enabled"`
	Engine  bool            `json:"engine,omitempty"` // declared by the engine: nobody changes it

	// LastFiredFor is the occurrence whose job was the last to be made: moved after the job is there, never before.
	LastFiredFor time.Time `json:"lastFiredFor,omitzero"`
	Next         time.Time `json:"next,omitzero"` // the first occurrence that is not decided about; zero while disabled
	Missed       int64     `json:"missed,omitempty"`
	CreatedAt    time.Time `json:"createdAt"`
	UpdatedAt    time.Time `json:"updatedAt"`
}

// Schedules is the kind; the services database must know its Schema.
var Schedules = store.Kind[Schedule]{
	Schema: store.Schema{
		Kind:   "schedules",
		Fields: []store.Field{{Name: "tenant"}, {Name: "type"}, {Name: "next", Type: store.Int}, {Name: "createdAt", Type: store.Int}},
		Orders: [][]string{{"next"}, {"createdAt"}, {"tenant", "createdAt"}, {"tenant", "type", "createdAt"}},
	},
	Key: func(s *Schedule) string { return s.ID },
	Index: func(s *Schedule) store.Fields {
		f := store.Fields{"tenant": s.Tenant, "type": s.Type, "createdAt": s.CreatedAt.UnixMilli()}
		if !s.Next.IsZero() {
			f["next"] = s.Next.UnixMilli()
		}
		return f
	},
	Meta: func(s *Schedule) *store.Meta { return &s.Meta },
}

const (
	maxCatchUp     = 7 * 24 * time.Hour
	maxSchedule    = 16 << 10 // bytes of a payload
	schedulesEach  = 500      // of one client
	schedulePrefix = "sch"
)

// key names an occurrence's job: the same for every process, so that there is one.
func (s *Schedule) key(o clock.Occurrence) string { return "cron:" + s.ID + ":" + o.Local }

// times gives what it goes by.
func (s *Schedule) times() (clock.Cron, *time.Location, error) {
	c, err := clock.ParseCron(s.Expr)
	if err != nil {
		return c, nil, fmt.Errorf("the expression %w", err)
	}
	zone, err := clock.Zone(s.Zone)
	return c, zone, err
}

// Schedulable gives the names of the types that schedules may be of, those of the system or those of clients.
func (r *Runner) Schedulable(system bool) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.types)) {
		if t := r.types[name]; t.Schedulable != nil && t.System == system {
			out = append(out, name)
		}
	}
	return out
}

// check tells what is wrong with a schedule, by the names that the API gives the members.
func (tt *Timetable) check(s *Schedule) error {
	var bad []fault.Field
	add := func(pointer, detail string) { bad = append(bad, fault.Field{Pointer: pointer, Detail: detail}) }
	if _, err := clock.ParseCron(s.Expr); err != nil {
		add("/expr", "This "+err.Error()+".")
	}
	if _, err := clock.Zone(s.Zone); err != nil {
		add("/timeZone", "Expected an IANA time zone such as Asia/Kolkata.")
	}
	if s.CatchUp < 0 || s.CatchUp > maxCatchUp {
		add("/catchUp", "Expected at most 7 days.")
	}
	t, _ := tt.cfg.Runner.typeOf(s.Type)
	switch {
	case t.Schedulable == nil || t.System != (s.Tenant == ""):
		whose := "a client"
		if s.Tenant == "" {
			whose = "no client"
		}
		add("/type", "Expected a type that can be scheduled for "+whose+": "+strings.Join(tt.cfg.Runner.Schedulable(s.Tenant == ""), ", ")+".")
	case len(s.Payload) > maxSchedule:
		add("/payload", "Expected at most 16 KiB.")
	default:
		if err := t.Schedulable(s.payload()); err != nil {
			var f *fault.Error
			if errors.As(err, &f) && len(f.Fields) > 0 {
				bad = append(bad, f.Fields...)
			} else {
				add("/payload", "This is not the payload of such a job.")
			}
		}
	}
	return fault.BadFields(bad)
}

func (s *Schedule) payload() json.RawMessage {
	if len(s.Payload) == 0 {
		return json.RawMessage("{}")
	}
	return s.Payload
}

// begin lets a schedule go by its expression from a moment on.
func (s *Schedule) begin(now time.Time) error {
	s.Next = time.Time{}
	if !s.Enabled {
		return nil
	}
	c, zone, err := s.times()
	if err != nil {
		return err
	}
	o, _ := c.Next(s.decided(now), zone)
	s.Next = o.At
	return nil
}

// Create stores a schedule. Its first occurrence is the first from now on.
func (tt *Timetable) Create(ctx context.Context, s Schedule) (*Schedule, error) {
	if err := tt.check(&s); err != nil {
		return nil, err
	}
	if s.Tenant != "" {
		n, err := tt.cfg.Services.Count(ctx, store.Query{Kind: Schedules.Schema.Kind, Where: []store.Term{store.Where("tenant", store.Eq, s.Tenant)}})
		if err != nil {
			return nil, err
		}
		if n >= schedulesEach {
			return nil, fault.New(fault.Conflict, "schedule.too_many", "A client has at most %d schedules.", schedulesEach)
		}
	}
	now := tt.cfg.Now().UTC()
	s.ID, s.CreatedAt, s.UpdatedAt = id.New(schedulePrefix), now, now
	if err := s.begin(now); err != nil {
		return nil, err
	}
	if err := tt.cfg.Services.Commit(ctx, Schedules.Insert(&s)); err != nil {
		return nil, err
	}
	tt.poke()
	return &s, nil
}

// Edit changes a schedule. One whose expression, zone or being enabled changes starts from now: what it has missed until
// then is no longer looked at.
func (tt *Timetable) Edit(ctx context.Context, scheduleID string, edit func(*Schedule) error) (*Schedule, error) {
	for range 10 {
		s, err := tt.Schedule(ctx, scheduleID)
		if err != nil {
			return nil, err
		}
		old := *s
		if err := edit(s); err != nil {
			return nil, err
		}
		if err := changeable(s); err != nil {
			return nil, err
		}
		if err := tt.check(s); err != nil {
			return nil, err
		}
		s.UpdatedAt = tt.cfg.Now().UTC()
		if s.Expr != old.Expr || s.Zone != old.Zone || s.Enabled != old.Enabled {
			if err := s.begin(s.UpdatedAt); err != nil {
				return nil, err
			}
		}
		switch err := tt.cfg.Services.Commit(ctx, Schedules.Update(s)); {
		case errors.Is(err, store.ErrConflict): // it fired, or somebody else changed it
			continue
		case err != nil:
			return nil, err
		}
		tt.poke()
		return s, nil
	}
	return nil, &fault.Error{Kind: fault.Unavailable, Code: "busy", Detail: "The schedule is being changed by others. Try again.", RetryAfter: time.Second}
}

// changeable refuses changes of what the engine itself declares.
func changeable(s *Schedule) error {
	if s.Engine {
		return fault.New(fault.Conflict, "schedule.engine", "This schedule is the engine's own, and cannot be changed.")
	}
	return nil
}

// Schedule reads one.
func (tt *Timetable) Schedule(ctx context.Context, scheduleID string) (*Schedule, error) {
	s, err := Schedules.Get(ctx, tt.cfg.Services, scheduleID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("schedule")
	}
	return s, err
}

// Find reads the schedules of a query.
func (tt *Timetable) Find(ctx context.Context, q store.Query) ([]*Schedule, error) {
	return Schedules.Find(ctx, tt.cfg.Services, q)
}

// Remove ends a schedule. Jobs that it made go on.
func (tt *Timetable) Remove(ctx context.Context, scheduleID string) error {
	s, err := tt.Schedule(ctx, scheduleID)
	if err != nil {
		return err
	}
	if err := changeable(s); err != nil {
		return err
	}
	return tt.cfg.Services.Commit(ctx, store.Write{Action: store.Delete, Kind: Schedules.Schema.Kind, ID: s.ID})
}

// Forget removes every schedule of a client.
func (tt *Timetable) Forget(ctx context.Context, code string) error {
	for {
		found, err := Schedules.Find(ctx, tt.cfg.Services, store.Query{Where: []store.Term{store.Where("tenant", store.Eq, code)}, Order: "createdAt"})
		if err != nil || len(found) == 0 {
			return err
		}
		writes := make([]store.Write, len(found))
		for i, s := range found {
			writes[i] = store.Write{Action: store.Delete, Kind: Schedules.Schema.Kind, ID: s.ID}
		}
		if err := tt.cfg.Services.Commit(ctx, writes...); err != nil {
			return err
		}
	}
}

// Keep lets there be a schedule that the engine declares, known by its name, as it is declared now.
func (tt *Timetable) Keep(ctx context.Context, s Schedule) error {
	s.Engine, s.Enabled, s.ID = true, true, id.Derived(schedulePrefix, s.Tenant, s.Name)
	if err := tt.check(&s); err != nil {
		return err
	}
	for {
		now := tt.cfg.Now().UTC()
		s.Meta, s.CreatedAt, s.UpdatedAt = store.Meta{}, now, now
		old, err := Schedules.Get(ctx, tt.cfg.Services, s.ID)
		switch {
		case err == nil && old.Expr == s.Expr && old.Zone == s.Zone && old.Type == s.Type && old.CatchUp == s.CatchUp && string(old.payload()) == string(s.payload()):
			return nil
		case err == nil:
			s.Meta, s.CreatedAt, s.LastFiredFor, s.Missed = old.Meta, old.CreatedAt, old.LastFiredFor, old.Missed
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if err := s.begin(now); err != nil {
			return err
		}
		err = tt.cfg.Services.Commit(ctx, Schedules.Update(&s))
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
	}
}
