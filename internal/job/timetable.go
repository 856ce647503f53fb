package job

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	// onTime is how late an occurrence without catchUp may begin: the engine may have been restarted.
	onTime = 2 * time.Minute
	// A clock that leaps ahead is believed once it has stayed there for a while: one that comes back has made nothing
	// begin early. A machine that slept is believed too, that little later.
	leap     = 10 * time.Second
	doubtFor = 30 * time.Second
	// farAhead: a mark that is further ahead than this was made by a clock that was wrong, and holds back nothing.
	farAhead = 24 * time.Hour

	countMost    = 10_000 // missed occurrences that are counted at once
	schedulePage = 50
	unreadable   = time.Hour // the pause of a schedule whose zone or expression this build does not know
)

// TimetableConfig is what a Timetable is built from.
type TimetableConfig struct {
	Services store.DB
	Runner   *Runner       // makes the jobs, and knows what may be scheduled
	Poll     time.Duration // how often schedules that other processes changed are looked for; 0: 5 s
	Log      *slog.Logger
	Now      func() time.Time
	Elapsed  func() time.Duration // since whenever, by a clock that nobody sets; nil: the process's own
}

// Timetable makes the jobs of the stored schedules. Every process runs one and none leads: an occurrence is a job under a
// key that names it, so that it is made once, and the mark of the schedule is moved after that by a write that holds only
// against what was read. Between two occurrences it sleeps.
type Timetable struct {
	cfg  TimetableConfig
	wake chan struct{}

	aligned    bool          // what is next was worked out by this process's clock and its table of zones
	seen       time.Time     // the clock at the last look
	ran        time.Duration // and Elapsed then
	doubtUntil time.Duration // by Elapsed
}

// NewTimetable makes a timetable.
func NewTimetable(cfg TimetableConfig) *Timetable {
	if cfg.Poll == 0 {
		cfg.Poll = 5 * time.Second
	}
	if cfg.Elapsed == nil {
		began := time.Now()
		cfg.Elapsed = func() time.Duration { return time.Since(began) }
	}
	return &Timetable{cfg: cfg, wake: make(chan struct{}, 1)}
}

func (tt *Timetable) poke() {
	select {
	case tt.wake <- struct{}{}:
	default:
	}
}

// Run makes the jobs of what is due until ctx ends.
func (tt *Timetable) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tt.wake:
		case <-timer.C:
		}
		timer.Reset(tt.look(ctx))
	}
}

func (tt *Timetable) complain(ctx context.Context, msg string, err error, args ...any) {
	if ctx.Err() == nil {
		tt.cfg.Log.Error(msg, append(args, "error", err)...)
	}
}

// look decides about what is due, and tells how long to wait at most before the next look.
func (tt *Timetable) look(ctx context.Context) time.Duration {
	now := tt.cfg.Now().Round(0).UTC()
	doubt := tt.watchClock(now)
	if !tt.aligned {
		if err := tt.align(ctx, now); err != nil {
			tt.complain(ctx, "schedules cannot be looked through", err)
			return tt.cfg.Poll
		}
		tt.aligned = true
	}
	if doubt > 0 {
		return min(doubt, tt.cfg.Poll)
	}
	wait := tt.cfg.Poll
	err := tt.each(ctx, func(s *Schedule) bool {
		if s.Next.After(now) {
			wait = min(wait, s.Next.Sub(now))
			return false
		}
		if err := tt.settle(ctx, s, now); err != nil {
			tt.complain(ctx, "a schedule waits", err, "schedule", s.ID, "client", s.Tenant)
		}
		return true
	})
	if err != nil {
		tt.complain(ctx, "schedules cannot be read", err)
	}
	return wait
}

// each goes through the schedules that are enabled, the one that is due first first, while f says so.
func (tt *Timetable) each(ctx context.Context, f func(*Schedule) bool) error {
	q := store.Query{Where: []store.Term{store.Where("next", store.Gt, int64(0))}, Order: "next", Limit: 1} // mostly nothing is due
	for ; ; q.Limit = schedulePage {
		found, err := Schedules.Find(ctx, tt.cfg.Services, q)
		if err != nil {
			return err
		}
		for _, s := range found {
			q.After = &store.Cursor{Value: s.Next.UnixMilli(), ID: s.ID}
			if !f(s) {
				return nil
			}
		}
		if len(found) < q.Limit {
			return nil
		}
	}
}

// watchClock compares the clock with one that nobody sets. It tells how long the clock is still to be doubted; one that was
// set back has everything worked out anew.
func (tt *Timetable) watchClock(now time.Time) (doubt time.Duration) {
	ran := tt.cfg.Elapsed()
	if !tt.seen.IsZero() {
		switch ahead := now.Sub(tt.seen) - (ran - tt.ran); {
		case ahead > leap:
			tt.doubtUntil = ran + doubtFor
			tt.cfg.Log.Warn("the clock leapt ahead; schedules wait until it has stayed there", "by", ahead.Round(time.Second).String())
		case ahead < -leap:
			tt.doubtUntil, tt.aligned = 0, false
			tt.cfg.Log.Warn("the clock was set back; schedules go by it from now", "by", (-ahead).Round(time.Second).String())
		}
	}
	tt.seen, tt.ran = now, ran
	return tt.doubtUntil - ran
}

// align works out anew what is next of the schedules that are not due: this process may know another table of zones, and
// the clock by which it was worked out may have been ahead.
func (tt *Timetable) align(ctx context.Context, now time.Time) error {
	return tt.each(ctx, func(s *Schedule) bool {
		c, zone, err := s.times()
		if err != nil || !s.Next.After(now) {
			return true
		}
		if o, ok := c.Next(s.decided(now), zone); ok && !o.At.Equal(s.Next) {
			s.Next = o.At
			if err := tt.cfg.Services.Commit(ctx, Schedules.Update(s)); err != nil && !errors.Is(err, store.ErrConflict) {
				tt.complain(ctx, "a schedule keeps its old time", err, "schedule", s.ID, "client", s.Tenant)
			}
		}
		return true
	})
}

// decided gives the moment up to which a schedule that is not due was decided about.
func (s *Schedule) decided(now time.Time) time.Time {
	if s.LastFiredFor.After(now) && s.LastFiredFor.Sub(now) < farAhead {
		return s.LastFiredFor
	}
	return now
}

// due gives the first and the latest occurrence that a schedule has not decided about, and how many there are.
func (s *Schedule) due(c clock.Cron, zone *time.Location, now time.Time) (first, last clock.Occurrence, n int64) {
	o, ok := c.Next(s.Next.Add(-time.Nanosecond), zone)
	first = o
	for ; ok && !o.At.After(now); o, ok = c.Next(o.At, zone) {
		if n++; n == countMost { // the latest will do
			if from := now.Add(-max(s.CatchUp, onTime)); from.After(o.At) {
				o.At = from
				continue
			}
		}
		last = o
	}
	return first, last, n
}

// settle decides about the occurrences of a schedule that are due: the latest becomes a job unless it is too late, the
// others are missed.
func (tt *Timetable) settle(ctx context.Context, s *Schedule, now time.Time) error {
	c, zone, err := s.times()
	if err != nil { // it was read when it was made: another build knows what this one does not
		tt.complain(ctx, "a schedule cannot be read", err, "schedule", s.ID, "client", s.Tenant)
		s.Next = now.Add(unreadable)
		_, err = tt.mark(ctx, s)
		return err
	}
	first, last, missed := s.due(c, zone, now)
	status := tt.cfg.Runner.cfg.Tenants.Status(s.Tenant)
	awake := s.Tenant == "" || status == tenant.Active || status == tenant.Moving // then its jobs wait
	if missed > 0 && awake && !last.At.Before(now.Add(-max(s.CatchUp, onTime))) {
		if err := tt.fire(ctx, s, last); err != nil {
			return err
		}
		s.LastFiredFor = last.At
		missed--
	}
	if missed > 0 { // a process that died between making the job and marking it has missed nothing
		switch _, err := tt.cfg.Runner.cfg.Queue.JobOf(ctx, s.Tenant, s.key(first)); {
		case err == nil:
			missed--
			if first.At.After(s.LastFiredFor) {
				s.LastFiredFor = first.At
			}
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
	}
	o, _ := c.Next(s.decided(now), zone)
	s.Next, s.Missed = o.At, s.Missed+missed
	marked, err := tt.mark(ctx, s)
	if marked && missed > 0 && awake {
		tt.cfg.Log.Warn("a schedule missed occurrences", "schedule", s.ID, "client", s.Tenant, "missed", missed, "latest", last.At)
	}
	return err
}

// fire makes the job of an occurrence, unless it is there.
func (tt *Timetable) fire(ctx context.Context, s *Schedule, o clock.Occurrence) error {
	_, err := tt.cfg.Runner.Enqueue(ctx, store.NewJob{
		Tenant: s.Tenant, Type: s.Type, Payload: s.payload(), Class: s.Class, RunAt: o.At, UniqueKey: s.key(o), KeyHash: s.ID,
	})
	if errors.Is(err, store.ErrKeyReuse) { // it is, of the type that the schedule had then
		return nil
	}
	return err
}

// mark stores what was decided; false if the schedule was changed since it was read, by another process that decided the
// same, or by somebody who is right to.
func (tt *Timetable) mark(ctx context.Context, s *Schedule) (bool, error) {
	err := tt.cfg.Services.Commit(ctx, Schedules.Update(s))
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrDuplicate) {
		return false, nil
	}
	return err == nil, err
}
