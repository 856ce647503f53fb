package job_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// wall is a clock that can be set.
type wall struct{ off atomic.Int64 }

func (w *wall) now() time.Time        { return time.Now().Add(time.Duration(w.off.Load())) }
func (w *wall) leap(by time.Duration) { w.off.Add(int64(by)) }

// safeLog keeps what is logged.
type safeLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *safeLog) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// board is a yard with a timetable's surroundings. Its runner runs nothing: the jobs that were made are looked at.
type board struct {
	*yard
	clock  *wall
	runner *worker
	log    *safeLog
}

// at runs a test in a bubble whose clock shows a moment.
func at(t *testing.T, moment string, test func(b *board)) {
	t.Helper()
	bubble(t, func(y *yard) {
		b := &board{yard: y, clock: &wall{}, log: &safeLog{}}
		b.runner = y.runner(job.Config{},
			job.Type{Name: "tick", System: true, Handle: fine, Schedulable: func(json.RawMessage) error { return nil }},
			job.Type{Name: "greet", Handle: fine, Schedulable: func(p json.RawMessage) error {
				if string(p) != `{"leadId":"led_1"}` {
					return fault.Bad("/payload/leadId", "Expected a lead.")
				}
				return nil
			}},
			job.Type{Name: "secret", System: true, Handle: fine})
		b.sleepTo(moment)
		test(b)
	})
}

func (b *board) sleepTo(moment string) {
	b.Helper()
	to, err := time.Parse(time.RFC3339, moment)
	b.must(err)
	time.Sleep(to.Sub(b.clock.now()))
	synctest.Wait()
}

func (b *board) timetable(edit ...func(*job.TimetableConfig)) *job.Timetable {
	cfg := job.TimetableConfig{Services: b.services, Runner: b.runner.Runner, Now: b.clock.now, Log: slog.New(slog.NewTextHandler(b.log, nil))}
	for _, f := range edit {
		f(&cfg)
	}
	return job.NewTimetable(cfg)
}

// run runs a timetable until the test ends, or stop is called.
func (b *board) run(tt *job.Timetable) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = tt.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	b.Cleanup(stop)
	return stop
}

func (b *board) schedule(tt *job.Timetable, expr, zone string, edit ...func(*job.Schedule)) *job.Schedule {
	b.Helper()
	s := job.Schedule{Name: expr, Expr: expr, Zone: zone, Type: "tick", Enabled: true}
	for _, f := range edit {
		f(&s)
	}
	made, err := tt.Create(b.Context(), s)
	b.must(err)
	return made
}

func (b *board) read(s *job.Schedule) *job.Schedule {
	b.Helper()
	s, err := job.Schedules.Get(context.Background(), b.services, s.ID)
	b.must(err)
	return s
}

// fired gives the moments that a schedule made jobs for, in order, and fails if one was made before its moment, or twice.
func (b *board) fired(s *job.Schedule) []string {
	b.Helper()
	var out []string
	js, err := b.queue.Jobs(context.Background(), store.JobFilter{AllTenants: true, Limit: 1000})
	b.must(err)
	for _, j := range js {
		if strings.HasPrefix(j.UniqueKey, "cron:"+s.ID+":") {
			out = append(out, j.RunAt.UTC().Format(time.RFC3339))
		}
	}
	slices.Sort(out)
	if once := slices.Compact(slices.Clone(out)); len(once) != len(out) {
		b.Errorf("%s made a job twice: %v", s.Expr, out)
	}
	return out
}

func (b *board) want(s *job.Schedule, want ...string) {
	b.Helper()
	synctest.Wait()
	if got := b.fired(s); !slices.Equal(got, want) {
		b.Errorf("%s in %s made jobs for\n %v, want\n %v", s.Expr, s.Zone, got, want)
	}
}

func catchUp(d time.Duration) func(*job.Schedule) { return func(s *job.Schedule) { s.CatchUp = d } }

// Two processes on one store, each started anew every 37 minutes, through the night in which an hour comes twice.
func TestEveryOccurrenceOnce(t *testing.T) {
	at(t, "2027-10-30T22:00:30Z", func(b *board) {
		end := b.clock.now().Add(24 * time.Hour)
		makes := b.timetable()
		var all []*job.Schedule
		for _, expr := range []string{"*/7 * * * *", "@hourly", "30 2 * * *", "0 9 * * *", "*/20 2,3 * * *"} {
			all = append(all, b.schedule(makes, expr, "Europe/Madrid"))
		}
		all = append(all, b.schedule(makes, "0 9 * * *", "America/Sao_Paulo"), b.schedule(makes, "15 10 * * *", "Europe/Madrid", func(s *job.Schedule) {
			s.Tenant, s.Type, s.Payload = "ACME", "greet", json.RawMessage(`{"leadId":"led_1"}`)
		}))
		var nodes sync.WaitGroup
		for n := range 2 {
			nodes.Go(func() {
				time.Sleep(time.Duration(n) * 11 * time.Minute)
				for b.clock.now().Before(end) {
					stop := b.run(b.timetable(func(c *job.TimetableConfig) { c.Poll = time.Minute })) // it hardly decides when
					time.Sleep(min(37*time.Minute, end.Sub(b.clock.now())))
					stop()
					time.Sleep(20 * time.Second)
				}
			})
		}
		nodes.Wait()
		for _, s := range all {
			var want []string
			c, err := clock.ParseCron(s.Expr)
			b.must(err)
			zone, err := time.LoadLocation(s.Zone)
			b.must(err)
			for o, _ := c.Next(s.CreatedAt, zone); o.At.Before(end); o, _ = c.Next(o.At, zone) {
				want = append(want, o.At.Format(time.RFC3339))
			}
			b.want(s, want...)
			if got := b.read(s); got.Missed != 0 || got.LastFiredFor.Format(time.RFC3339) != want[len(want)-1] {
				t.Errorf("%s: missed %d, fired last for %s", s.Expr, got.Missed, got.LastFiredFor)
			}
		}
		b.want(all[2], "2027-10-31T00:30:00Z") // once, the first time
		b.want(all[4], "2027-10-31T00:00:00Z", "2027-10-31T00:20:00Z", "2027-10-31T00:40:00Z", "2027-10-31T02:00:00Z", "2027-10-31T02:20:00Z", "2027-10-31T02:40:00Z")
		if n := len(b.fired(all[1])); n != 24 {
			t.Errorf("an hourly one fired %d times in 24 hours", n)
		}
	})
}

// At its very moment, also where the clocks skip it.
func TestOnTime(t *testing.T) {
	at(t, "2027-03-27T20:00:00Z", func(b *board) {
		tt := b.timetable()
		b.run(tt)
		synctest.Wait()
		s := b.schedule(tt, "30 2 * * *", "Europe/Madrid")
		b.sleepTo("2027-03-28T00:59:59Z")
		b.want(s)
		b.sleepTo("2027-03-28T01:00:00Z")
		b.want(s, "2027-03-28T01:00:00Z")
		if j := b.job(mustOne(b, s)); !j.CreatedAt.Equal(b.clock.now()) || j.UniqueKey != "cron:"+s.ID+":2027-03-28T02:30" || j.State != store.Ready {
			t.Errorf("%+v", j)
		}
		if next := b.read(s).Next.Format(time.RFC3339); next != "2027-03-29T00:30:00Z" {
			t.Errorf("next is %s", next)
		}
	})
}

func mustOne(b *board, s *job.Schedule) string {
	b.Helper()
	j, err := b.queue.JobOf(context.Background(), s.Tenant, "cron:"+s.ID+":2027-03-28T02:30")
	b.must(err)
	return j.ID
}

// What another process stores is seen within the poll.
func TestAnotherProcessSchedules(t *testing.T) {
	at(t, "2027-03-01T08:59:50Z", func(b *board) {
		b.run(b.timetable())
		time.Sleep(time.Second)
		s := b.schedule(b.timetable(), "0 9 * * *", "UTC")
		b.sleepTo("2027-03-01T09:00:05Z")
		b.want(s, "2027-03-01T09:00:00Z")
	})
}

// frail is a store whose commits can be made to fail.
type frail struct {
	store.DB
	broken atomic.Bool
}

func (f *frail) Commit(ctx context.Context, w ...store.Write) error {
	if f.broken.Load() {
		return store.ErrUnavailable
	}
	return f.DB.Commit(ctx, w...)
}

// A process dies between making the job and marking the schedule. The next makes no second one, and nothing counts as
// missed, whether it comes at once or too late.
func TestCrashBeforeTheMark(t *testing.T) {
	for _, down := range []time.Duration{time.Second, 26 * time.Minute} {
		at(t, "2027-03-01T08:59:50Z", func(b *board) {
			db := &frail{DB: b.services}
			tt := b.timetable(func(c *job.TimetableConfig) { c.Services = db })
			s := b.schedule(tt, "0 9 * * *", "UTC")
			stop := b.run(tt)
			synctest.Wait()
			db.broken.Store(true)
			b.sleepTo("2027-03-01T09:00:01Z")
			stop()
			b.want(s, "2027-03-01T09:00:00Z")
			if got := b.read(s); !got.LastFiredFor.IsZero() {
				t.Fatalf("marked: %+v", got)
			}
			time.Sleep(down)
			b.run(b.timetable())
			b.want(s, "2027-03-01T09:00:00Z")
			if got := b.read(s); got.Missed != 0 || got.LastFiredFor.Format(time.RFC3339) != "2027-03-01T09:00:00Z" || got.Next.Day() != 2 {
				t.Errorf("down for %v: %+v", down, got)
			}
		})
	}
}

// Nothing is marked that was not made: a queue that cannot store lets the occurrence wait.
func TestScheduleWaitsForTheQueue(t *testing.T) {
	at(t, "2027-03-01T08:59:50Z", func(b *board) {
		q := &awayQueue{Queue: b.queue}
		r := b.yard.runner(job.Config{Queue: q}, job.Type{Name: "tick", System: true, Handle: fine, Schedulable: func(json.RawMessage) error { return nil }})
		tt := b.timetable(func(c *job.TimetableConfig) { c.Runner = r.Runner })
		s, other := b.schedule(tt, "0 9 * * *", "UTC"), b.schedule(tt, "0 9 * * *", "UTC")
		q.away.Store(true)
		b.run(tt)
		b.sleepTo("2027-03-01T09:00:30Z")
		b.want(s)
		if got := b.read(s); !got.LastFiredFor.IsZero() || got.Missed != 0 {
			t.Errorf("%+v", got)
		}
		q.away.Store(false)
		time.Sleep(5 * time.Second)
		b.want(s, "2027-03-01T09:00:00Z")
		b.want(other, "2027-03-01T09:00:00Z")
	})
}

type awayQueue struct {
	store.Queue
	away atomic.Bool
}

func (q *awayQueue) Enqueue(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	if q.away.Load() {
		return nil, store.ErrUnavailable
	}
	return q.Queue.Enqueue(ctx, jobs...)
}

// Of what passed while no process ran, the latest occurrence fires, within catchUp; the rest is counted, and told once.
func TestCatchUp(t *testing.T) {
	at(t, "2027-03-01T07:59:00Z", func(b *board) {
		makes := b.timetable()
		none := b.schedule(makes, "0 * * * *", "UTC")
		some := b.schedule(makes, "0 * * * *", "UTC", catchUp(time.Hour))
		daily := b.schedule(makes, "30 8 * * *", "UTC", catchUp(5*time.Hour))
		late := b.schedule(makes, "30 8 * * *", "UTC", catchUp(4*time.Hour))
		busy := b.schedule(makes, "* * * * *", "UTC")
		b.sleepTo("2027-03-01T13:10:30Z")
		b.run(b.timetable())
		b.run(b.timetable())
		b.want(none)
		b.want(some, "2027-03-01T13:00:00Z")
		b.want(daily, "2027-03-01T08:30:00Z")
		b.want(late)
		b.want(busy, "2027-03-01T13:10:00Z") // late, but not too late
		for _, c := range []struct {
			s      *job.Schedule
			missed int64
		}{{none, 6}, {some, 5}, {daily, 0}, {late, 1}, {busy, 310}} {
			if got := b.read(c.s); got.Missed != c.missed {
				t.Errorf("%s with %v: %d missed, want %d", c.s.Expr, c.s.CatchUp, got.Missed, c.missed)
			}
			if told := b.log.count("schedule=" + c.s.ID); told != int(min(c.missed, 1)) {
				t.Errorf("%s with %v was told %d times", c.s.Expr, c.s.CatchUp, told)
			}
		}
		b.sleepTo("2027-03-01T14:00:00Z")
		b.want(none, "2027-03-01T14:00:00Z")
		b.want(some, "2027-03-01T13:00:00Z", "2027-03-01T14:00:00Z")
	})
}

// A year without a process: what is counted ends somewhere, the latest occurrence is still found.
func TestLongAway(t *testing.T) {
	at(t, "2027-03-01T07:59:30Z", func(b *board) {
		s := b.schedule(b.timetable(), "* * * * *", "UTC")
		b.sleepTo("2028-03-01T08:00:10Z")
		b.run(b.timetable())
		b.want(s, "2028-03-01T08:00:00Z")
	})
}

// The clock leaps an hour ahead, and comes back: nothing begins early, nothing twice. Then it leaps and stays.
func TestClockLeaps(t *testing.T) {
	at(t, "2027-03-01T08:20:10Z", func(b *board) {
		tt := b.timetable()
		s, caught := b.schedule(tt, "0 9 * * *", "UTC"), b.schedule(tt, "0 9 * * *", "UTC", catchUp(12*time.Hour))
		minutes := b.schedule(tt, "*/15 * * * *", "UTC")
		b.run(tt)
		b.run(b.timetable())
		synctest.Wait()
		b.clock.leap(time.Hour) // 9:20
		time.Sleep(20 * time.Second)
		b.want(s)
		b.want(caught)
		b.want(minutes)
		b.clock.leap(-time.Hour)
		b.sleepTo("2027-03-01T08:59:59Z")
		b.want(s)
		b.want(caught)
		b.want(minutes, "2027-03-01T08:30:00Z", "2027-03-01T08:45:00Z")
		b.sleepTo("2027-03-01T09:00:00Z")
		b.want(s, "2027-03-01T09:00:00Z")
		b.want(caught, "2027-03-01T09:00:00Z")

		b.clock.leap(-time.Hour) // 8:00 again, and 9:00
		b.sleepTo("2027-03-01T09:05:00Z")
		b.want(s, "2027-03-01T09:00:00Z")
		b.want(caught, "2027-03-01T09:00:00Z")
		if n := len(b.fired(minutes)); n != 3 { // 8:30, 8:45, 9:00; not again
			t.Errorf("%v", b.fired(minutes))
		}

		b.clock.leap(23*time.Hour + 55*time.Minute) // 9:00 of the next day, to stay
		b.sleepTo("2027-03-02T09:00:40Z")
		b.want(s, "2027-03-01T09:00:00Z", "2027-03-02T09:00:00Z")
		b.want(caught, "2027-03-01T09:00:00Z", "2027-03-02T09:00:00Z")

		// a leap that was believed, and was wrong: what it passed over comes when it is time
		b.clock.leap(23*time.Hour + 45*time.Minute) // 8:45, rightly
		time.Sleep(time.Minute)
		b.clock.leap(time.Hour)
		time.Sleep(time.Minute)
		if got := b.read(s); got.Missed != 1 || got.Next.Day() != 4 {
			t.Errorf("%+v", got)
		}
		b.clock.leap(-time.Hour)
		b.sleepTo("2027-03-03T09:00:01Z")
		b.want(s, "2027-03-01T09:00:00Z", "2027-03-02T09:00:00Z", "2027-03-03T09:00:00Z")
		b.want(caught, "2027-03-01T09:00:00Z", "2027-03-02T09:00:00Z", "2027-03-03T09:00:00Z")
		if got := b.read(s); got.Next.Day() != 4 {
			t.Errorf("%+v", got)
		}
	})
}

// A clock that was years ahead holds nothing back once it is set right.
func TestClockWasWrong(t *testing.T) {
	at(t, "2027-03-01T08:59:00Z", func(b *board) {
		tt := b.timetable()
		s := b.schedule(tt, "0 9 * * *", "UTC")
		b.sleepTo("2030-03-01T08:59:59Z")
		stop := b.run(tt)
		b.sleepTo("2030-03-01T09:00:05Z")
		b.want(s, "2030-03-01T09:00:00Z")
		stop()
		b.clock.leap(-3 * 365 * 24 * time.Hour) // about
		b.run(b.timetable())
		synctest.Wait()
		day := b.clock.now().UTC().AddDate(0, 0, 1).Format(time.DateOnly)
		b.sleepTo(day + "T09:00:01Z")
		b.want(s, day+"T09:00:00Z", "2030-03-01T09:00:00Z")
	})
}

func TestEdits(t *testing.T) {
	at(t, "2027-03-01T08:00:00Z", func(b *board) {
		tt := b.timetable()
		s := b.schedule(tt, "30 8 * * *", "UTC", catchUp(7*24*time.Hour))
		edit := func(f func(*job.Schedule)) *job.Schedule {
			t.Helper()
			got, err := tt.Edit(b.Context(), s.ID, func(s *job.Schedule) error { f(s); return nil })
			b.must(err)
			return got
		}
		b.sleepTo("2027-03-01T08:45:00Z") // 8:30 passed with no process, and counts for nothing: from now on it is another
		if got := edit(func(s *job.Schedule) { s.Expr = "*/20 8,9 * * *" }); got.Next.Format(time.TimeOnly) != "09:00:00" {
			t.Errorf("next is %s", got.Next)
		}
		b.run(tt)
		synctest.Wait()
		b.sleepTo("2027-03-01T09:01:00Z")
		b.want(s, "2027-03-01T09:00:00Z")
		if got := edit(func(s *job.Schedule) { s.Zone = "Asia/Kolkata" }); got.Next.Format(time.RFC3339) != "2027-03-02T02:30:00Z" {
			t.Errorf("next is %s", got.Next)
		}
		if got := edit(func(s *job.Schedule) { s.Zone, s.Enabled = "UTC", false }); !got.Next.IsZero() {
			t.Errorf("next is %s", got.Next)
		}
		b.sleepTo("2027-03-01T09:21:00Z")
		if got := edit(func(s *job.Schedule) { s.Enabled = true }); got.Next.Format(time.TimeOnly) != "09:40:00" || got.Missed != 0 {
			t.Errorf("%+v", got)
		}
		b.sleepTo("2027-03-01T09:41:00Z")
		b.want(s, "2027-03-01T09:00:00Z", "2027-03-01T09:40:00Z")
		before := b.read(s).Next
		if got := edit(func(s *job.Schedule) { s.Name = "another" }); !got.Next.Equal(before) {
			t.Errorf("a new name moved it to %s", got.Next)
		}
		b.must(tt.Remove(b.Context(), s.ID))
		b.sleepTo("2027-03-02T10:00:00Z")
		if n := len(b.fired(s)); n > 2 { // those of the first day may be forgotten by now
			t.Errorf("removed, and fired: %v", b.fired(s))
		}
		if err := tt.Remove(b.Context(), s.ID); fault.Of(err) != fault.NotFound {
			t.Error(err)
		}
	})
}

// A client that is suspended has no jobs made, and is told of none.
func TestScheduleOfASuspendedClient(t *testing.T) {
	at(t, "2027-03-01T08:00:00Z", func(b *board) {
		tt := b.timetable()
		s := b.schedule(tt, "*/10 * * * *", "UTC", func(s *job.Schedule) {
			s.Tenant, s.Type, s.Payload = "ACME", "greet", json.RawMessage(`{"leadId":"led_1"}`)
		})
		b.run(tt)
		b.sleepTo("2027-03-01T08:11:00Z")
		_, err := b.tenants.SetStatus(b.Context(), "ACME", tenant.Suspended)
		b.must(err)
		b.sleepTo("2027-03-01T08:31:00Z")
		b.want(s, "2027-03-01T08:10:00Z")
		_, err = b.tenants.SetStatus(b.Context(), "ACME", tenant.Active)
		b.must(err)
		b.sleepTo("2027-03-01T08:41:00Z")
		b.want(s, "2027-03-01T08:10:00Z", "2027-03-01T08:40:00Z")
		if got := b.read(s); got.Missed != 2 || b.log.count("missed") != 0 {
			t.Errorf("missed %d, told %d times", got.Missed, b.log.count("missed"))
		}
		b.must(tt.Forget(b.Context(), "ACME"))
		if _, err := tt.Schedule(b.Context(), s.ID); fault.Of(err) != fault.NotFound {
			t.Error(err)
		}
	})
}

func TestRefusedSchedules(t *testing.T) {
	at(t, "2027-03-01T08:00:00Z", func(b *board) {
		tt := b.timetable()
		good := job.Schedule{Name: "x", Expr: "@daily", Zone: "UTC", Type: "tick", Enabled: true}
		for pointer, change := range map[string]func(*job.Schedule){
			"/expr never": func(s *job.Schedule) { s.Expr = "0 0 31 2 *" }, "/expr": func(s *job.Schedule) { s.Expr = "* * *" },
			"/timeZone": func(s *job.Schedule) { s.Zone = "Mars/Olympus" }, "/timeZone none": func(s *job.Schedule) { s.Zone = "" },
			"/timeZone path": func(s *job.Schedule) { s.Zone = "../../etc/passwd" }, "/timeZone machine": func(s *job.Schedule) { s.Zone = "Local" },
			"/type": func(s *job.Schedule) { s.Type = "secret" }, "/type unknown": func(s *job.Schedule) { s.Type = "none" },
			"/type of a client": func(s *job.Schedule) { s.Type = "greet" }, "/type of the system": func(s *job.Schedule) { s.Tenant = "ACME" },
			"/catchUp": func(s *job.Schedule) { s.CatchUp = 8 * 24 * time.Hour }, "/catchUp below": func(s *job.Schedule) { s.CatchUp = -1 },
			"/payload/leadId": func(s *job.Schedule) { s.Tenant, s.Type = "ACME", "greet" },
			"/payload":        func(s *job.Schedule) { s.Payload = json.RawMessage(`"` + strings.Repeat("x", 17<<10) + `"`) },
		} {
			s := good
			change(&s)
			_, err := tt.Create(b.Context(), s)
			var f *fault.Error
			want, _, _ := strings.Cut(pointer, " ")
			if !errors.As(err, &f) || f.Kind != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Pointer != want {
				t.Errorf("%s: %v %+v", pointer, err, f)
			}
		}
		made, err := tt.Create(b.Context(), good)
		b.must(err)
		if _, err := tt.Edit(b.Context(), made.ID, func(s *job.Schedule) error { s.Expr = "0 0 30 2 *"; return nil }); fault.Of(err) != fault.Invalid {
			t.Error(err)
		}
	})
}

// What the engine declares is there once, follows its declaration, and belongs to nobody else.
func TestKeep(t *testing.T) {
	at(t, "2027-03-01T08:00:00Z", func(b *board) {
		tt := b.timetable()
		own := job.Schedule{Name: "clean", Expr: "30 * * * *", Zone: "UTC", Type: "tick", CatchUp: time.Hour}
		b.must(tt.Keep(b.Context(), own))
		b.sleepTo("2027-03-01T08:40:00Z")
		b.must(tt.Keep(b.Context(), own)) // a restart moves nothing
		b.run(tt)
		synctest.Wait()
		all, err := job.Schedules.Find(b.Context(), b.services, store.Query{})
		b.must(err)
		if len(all) != 1 || !all[0].Engine {
			t.Fatalf("%+v", all)
		}
		b.want(all[0], "2027-03-01T08:30:00Z")
		own.Expr = "50 * * * *"
		b.must(tt.Keep(b.Context(), own))
		if got := b.read(all[0]); got.Next.Format(time.TimeOnly) != "08:50:00" || got.LastFiredFor.IsZero() {
			t.Errorf("%+v", got)
		}
		if err := tt.Remove(b.Context(), all[0].ID); fault.Of(err) != fault.Conflict {
			t.Error(err)
		}
		if _, err := tt.Edit(b.Context(), all[0].ID, func(*job.Schedule) error { return nil }); fault.Of(err) != fault.Conflict {
			t.Error(err)
		}
	})
}

// What is next is worked out anew by a build that knows another table of zones; a schedule it cannot read waits, and holds
// up nobody.
func TestAnotherTableOfZones(t *testing.T) {
	at(t, "2027-03-01T08:00:00Z", func(b *board) {
		tt := b.timetable()
		s, bad, fine := b.schedule(tt, "0 9 * * *", "UTC"), b.schedule(tt, "0 9 * * *", "UTC"), b.schedule(tt, "0 9 * * *", "UTC")
		s.Next = s.Next.Add(-time.Hour / 2)
		bad.Zone = "Moon/Tranquility"
		bad.Next = bad.Next.Add(-time.Hour / 2)
		s.Version, bad.Version = 0, 0
		b.must(b.services.Commit(b.Context(), job.Schedules.Set(s), job.Schedules.Set(bad)))
		b.run(tt)
		b.sleepTo("2027-03-01T08:59:59Z")
		b.want(s)
		b.sleepTo("2027-03-01T09:00:00Z")
		b.want(s, "2027-03-01T09:00:00Z")
		b.want(fine, "2027-03-01T09:00:00Z")
		b.want(bad)
		if n := b.log.count("schedule=" + bad.ID); n != 1 {
			t.Errorf("told %d times", n)
		}
	})
}

// BenchmarkLook is the poll of an idle process: one query among 10,000 schedules.
func BenchmarkLook(b *testing.B) {
	db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "s.db"), []store.Schema{job.Schedules.Schema})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	later := time.Now().Add(time.Hour)
	for i := range 10 {
		var ws []store.Write
		for k := range 1000 {
			ws = append(ws, job.Schedules.Insert(&job.Schedule{ID: fmt.Sprint("sch_", i, "_", k), Expr: "@daily", Zone: "UTC", Next: later.Add(time.Duration(k) * time.Second)}))
		}
		if err := db.Commit(b.Context(), ws...); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := job.Schedules.Find(b.Context(), db, store.Query{Where: []store.Term{store.Where("next", store.Gt, int64(0))}, Order: "next", Limit: 1}); err != nil {
			b.Fatal(err)
		}
	}
}
