package mongo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// scene is a queue at work: a process that is cut, and another that goes on.
type scene struct {
	*testing.T
	ctx  context.Context
	url  string
	at   time.Time
	cut  *Queue // of the process with the fault
	f    *fault
	good *Queue
	jobs map[string]store.Job // by name
}

func newScene(t *testing.T, url string) *scene {
	s := &scene{T: t, ctx: t.Context(), url: url, at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), jobs: map[string]store.Job{}}
	db := freshDatabase(url)
	cs := NewClusters(Config{Home: url})
	t.Cleanup(func() { _ = cs.Close(context.WithoutCancel(t.Context())) })
	s.good = openTestQueue(t, cs, url, db, s.now)
	s.cut, s.f = faulty(t, url, db, s.now)
	return s
}

func (s *scene) now() time.Time { return s.at }

func (s *scene) make(name string, j store.NewJob) store.Job {
	s.Helper()
	j.Tenant = "A"
	if j.Type == "" {
		j.Type = "a"
	}
	es, err := s.good.Enqueue(s.ctx, j)
	if err != nil {
		s.Fatal(err)
	}
	s.jobs[name] = es[0].Job
	return es[0].Job
}

func (s *scene) finish(q *Queue, name string, o store.Outcome) (bool, error) {
	o.ID, o.Token = s.jobs[name].ID, s.jobs[name].Token
	held, err := q.Finish(s.ctx, o)
	return len(held) > 0 && held[0], err
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// print says what there is: every job, by what it is to do and how it stands, and what is still owed.
func (s *scene) print() string {
	s.Helper()
	ds, err := s.good.find(s.ctx, bson.D{}, options.Find())
	s.must(err)
	var lines []string
	for _, d := range ds {
		lines = append(lines, fmt.Sprintf("%s %s %s key=%q/%v %s attempt %d token %d crashes %d errors %d ended %v lease %v owed %v ending %v run %s",
			d.Type, d.State, d.Lane, d.UniqueKey, d.holds, d.Payload, d.Attempt, d.Token, d.Crashes, len(d.Errors), !d.EndedAt.IsZero(), !d.LeaseUntil.IsZero(), d.owed, d.ending != nil, d.RunAt.Sub(s.at)))
	}
	slices.Sort(lines)
	pauses, err := s.good.Pauses(s.ctx, "A")
	s.must(err)
	for _, p := range pauses {
		lines = append(lines, fmt.Sprintf("%s rests for %s", p.Scope, p.Reason))
	}
	return strings.Join(lines, "\n")
}

// nothingHidden: whatever is ready is found by another process before long, once what rests goes on.
func (s *scene) nothingHidden() {
	s.Helper()
	for _, scope := range []string{"A", "A/internal"} {
		_, err := s.good.Resume(s.ctx, scope, "")
		s.must(err)
	}
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		_, err := s.good.Claim(s.ctx, store.ClaimRequest{Owner: "w9", Limit: 100, Lease: time.Hour, Types: []string{"a", "b", "c", "d", "o", "r", "t", "holds", "freed", "taken", "other"}, Quarantine: true})
		s.must(err)
		ds, err := s.good.find(s.ctx, bson.D{is("state", string(store.Ready))}, options.Find())
		s.must(err)
		if len(ds) == 0 {
			return
		}
		if time.Since(begun) > 5*time.Second {
			s.Fatalf("%d jobs are ready, and not found", len(ds))
		}
	}
}

// counted: numbers that a cut left wrong are right after they were counted anew, twice.
func (s *scene) counted() {
	s.Helper()
	for range 2 {
		s.good.tally.counting.Lock()
		err := s.good.recount(s.ctx)
		s.good.tally.counting.Unlock()
		s.must(err)
	}
	got, err := s.good.JobCounts(s.ctx, "")
	s.must(err)
	ds, err := s.good.find(s.ctx, bson.D{}, options.Find())
	s.must(err)
	for _, d := range ds {
		if !d.pruned {
			got[d.State]--
		}
	}
	for state, n := range got {
		if n != 0 {
			s.Errorf("%d %s jobs too many are counted", n, state)
		}
	}
}

// scenario is something that takes more than one write.
type scenario struct {
	name string
	set  func(s *scene)
	act  func(s *scene, q *Queue) error
	// heal is what happens after a cut, besides that the call is made again: nil, nothing.
	heal func(s *scene)
	// once: nobody makes the call again. It may then be as if it had never been made, which undone tells; heal follows.
	once   bool
	undone func(end string) bool
}

func next(key string) []store.NewJob {
	return []store.NewJob{
		{Tenant: "A", Type: "b", UniqueKey: key, Payload: json.RawMessage(`{"x":1}`)}, {Tenant: "A", Type: "c"},
		{Tenant: "A", Type: "r", UniqueKey: "put off", OnTaken: store.ReplaceKeepTime, Payload: json.RawMessage(`{"new":true}`)},
		{Tenant: "A", Type: "o", UniqueKey: "over", OnTaken: store.Replace, Payload: json.RawMessage(`{"new":true}`)},
	}
}

// over makes a job of a key and ends it.
func (s *scene) over(name, typ, key string) {
	s.make(name, store.NewJob{Type: typ, UniqueKey: key, ClaimFor: "w0"})
	_, err := s.finish(s.good, name, store.Outcome{State: store.Succeeded})
	s.must(err)
}

func (s *scene) working() {
	s.make("put off", store.NewJob{Type: "r", UniqueKey: "put off", RunAt: s.at.Add(time.Hour)})
	s.over("over", "o", "over")
	s.make("job", store.NewJob{ClaimFor: "w1"})
}

func succeed(s *scene, q *Queue) error {
	_, err := s.finish(q, "job", store.Outcome{State: store.Succeeded, Next: next("n")})
	return err
}

func giveBack(s *scene, q *Queue) error {
	_, err := s.finish(q, "job", store.Outcome{State: store.Scheduled, RunAt: s.at.Add(time.Minute), CountFailed: true, Error: &store.JobError{At: s.at, Code: "x"}, Next: next("n")})
	return err
}

func pause(s *scene, q *Queue) error {
	_, err := s.finish(q, "job", store.Outcome{State: store.Ready, Error: &store.JobError{At: s.at, Code: "x"}, Next: next("n")[:1], Pause: &store.PauseRequest{Reason: store.RateLimited, For: time.Hour}})
	return err
}

// takenBack tells that a job's lease ran out before anything of its outcome stood.
func takenBack(end string) bool {
	return strings.Contains(end, "a ready A/internal/quarantine") && !strings.Contains(end, "b ready") && !strings.Contains(end, "c ready") && !strings.Contains(end, "new")
}

var scenarios = []scenario{
	{name: "Enqueue", act: func(s *scene, q *Queue) error {
		_, err := q.Enqueue(s.ctx, store.NewJob{Tenant: "A", Type: "a", UniqueKey: "1"}, store.NewJob{Tenant: "A", Type: "b", UniqueKey: "2", RunAt: s.at.Add(time.Hour)},
			store.NewJob{Tenant: "B", Type: "c", UniqueKey: "3", ClaimFor: "w"}, store.NewJob{Tenant: "A", Type: "a", UniqueKey: "1"})
		return err
	}},
	{name: "Replace", set: func(s *scene) {
		s.working()
		s.make("running", store.NewJob{Type: "b", UniqueKey: "running", ClaimFor: "w1"})
	}, act: func(s *scene, q *Queue) error {
		_, err := q.Enqueue(s.ctx, append(next("running")[2:], store.NewJob{Tenant: "A", Type: "b", UniqueKey: "running", OnTaken: store.ReplaceKeepTime})...)
		return err
	}},
	{name: "Finish", set: (*scene).working, act: succeed},
	{name: "FinishBack", set: (*scene).working, act: giveBack},
	{name: "FinishOnce", set: (*scene).working, act: succeed, heal: func(s *scene) {
		s.at = s.at.Add(time.Minute)
		_, _, err := s.good.Promote(s.ctx)
		s.must(err)
	}, once: true, undone: takenBack},
	{name: "FinishReleased", set: (*scene).working, act: succeed, heal: func(s *scene) {
		_, err := s.good.Release(s.ctx, "w1")
		s.must(err)
	}, once: true, undone: func(end string) bool {
		return strings.Contains(end, "a ready A/internal/normal") && !strings.Contains(end, "new")
	}},
	{name: "FinishPause", set: (*scene).working, act: pause},
	{name: "FinishPauseOnce", set: (*scene).working, act: pause, heal: func(s *scene) {
		s.at = s.at.Add(time.Minute)
		_, _, err := s.good.Promote(s.ctx)
		s.must(err)
	}, once: true, undone: takenBack},
	{name: "EnqueueOnce", act: func(s *scene, q *Queue) error {
		_, err := q.Enqueue(s.ctx, store.NewJob{Tenant: "A", Type: "a"}, store.NewJob{Tenant: "B", Type: "b"})
		return err
	}, once: true, undone: func(end string) bool { return end == "" }},
	{name: "FinishMany", set: func(s *scene) {
		s.working()
		s.make("other", store.NewJob{ClaimFor: "w1"})
		s.make("third", store.NewJob{ClaimFor: "w1", Type: "t"})
	}, act: func(s *scene, q *Queue) error {
		_, err := q.Finish(s.ctx, store.Outcome{ID: s.jobs["job"].ID, Token: 1, State: store.Succeeded, Next: next("n")}, store.Outcome{ID: s.jobs["other"].ID, Token: 1, State: store.Dead, Next: next("m")},
			store.Outcome{ID: s.jobs["third"].ID, Token: 1, State: store.Succeeded})
		return err
	}},
	{name: "Promote", set: func(s *scene) {
		s.make("due", store.NewJob{RunAt: s.at.Add(time.Second)})
		s.make("late", store.NewJob{Type: "b", RunAt: s.at.Add(time.Second), ExpiresAt: s.at.Add(2 * time.Second)})
		s.make("lost", store.NewJob{Type: "c", ClaimFor: "gone"})
		s.make("asked", store.NewJob{Type: "d", ClaimFor: "gone"})
		_, err := s.good.Cancel(s.ctx, s.jobs["asked"].ID)
		s.must(err)
		s.at = s.at.Add(time.Minute)
	}, act: func(s *scene, q *Queue) error {
		_, _, err := q.Promote(s.ctx)
		return err
	}},
	{name: "Told", set: func(s *scene) {
		s.make("late", store.NewJob{Type: "b", ExpiresAt: s.at.Add(2 * time.Second)})
		s.at = s.at.Add(time.Minute)
		_, _, err := s.good.Promote(s.ctx)
		s.must(err)
	}, act: func(s *scene, q *Queue) error {
		return q.Told(s.ctx, store.Told{ID: s.jobs["late"].ID, Next: next("n")[:2]})
	}},
	{name: "Retry", set: func(s *scene) {
		for _, name := range []string{"holds", "freed", "taken"} {
			s.make(name, store.NewJob{Type: name, UniqueKey: name, ClaimFor: "w"})
			_, err := s.finish(s.good, name, store.Outcome{State: store.Dead})
			s.must(err)
			if name != "taken" && name != "freed" {
				continue
			}
			s.at = s.at.Add(store.KeyKept)
			_, err = s.good.Prune(s.ctx, 100)
			s.must(err)
		}
		s.make("other", store.NewJob{Type: "other", UniqueKey: "taken"})
	}, act: func(s *scene, q *Queue) error {
		_, err := q.Retry(s.ctx, s.jobs["holds"].ID, s.jobs["freed"].ID, s.jobs["taken"].ID)
		return err
	}},
	{name: "Cancel", set: func(s *scene) {
		s.make("ready", store.NewJob{})
		s.make("running", store.NewJob{Type: "b", ClaimFor: "w"})
	}, act: func(s *scene, q *Queue) error {
		_, err := q.Cancel(s.ctx, s.jobs["ready"].ID, s.jobs["running"].ID)
		return err
	}},
	{name: "Prune", set: func(s *scene) {
		s.over("keyed", "a", "k")
		s.over("plain", "b", "")
		s.at = s.at.Add(25 * time.Hour)
	}, act: func(s *scene, q *Queue) error {
		_, err := q.Prune(s.ctx, 100)
		return err
	}, heal: func(s *scene) { // what is left of a job without a key goes with the next
		_, err := s.good.Prune(s.ctx, 100)
		s.must(err)
	}},
}

// undisturbed gives a way to begin, how many writes the scenario takes, and how it ends.
func (sc scenario) undisturbed(t *testing.T, url string) (begin func(t *testing.T) *scene, writes int, want string) {
	begin = func(t *testing.T) *scene {
		s := newScene(t, url)
		if sc.set != nil {
			sc.set(s)
		}
		return s
	}
	s := begin(t)
	s.f.arm(-1, none)
	s.must(sc.act(s, s.cut))
	if writes = s.f.seen(); writes == 0 {
		t.Fatal("it writes nothing")
	}
	s.must(s.cut.count(s.ctx))
	if sc.heal != nil {
		sc.heal(s)
	}
	return begin, writes, s.print()
}

// Each is held up at every write, while another process does the same: it is done once.
func TestQueueTwice(t *testing.T) {
	t.Parallel()
	url := servertest.Mongo(t)
	for _, sc := range scenarios {
		if sc.once {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			begin, writes, want := sc.undisturbed(t, url)
			for k := range writes {
				t.Run(fmt.Sprint(k), func(t *testing.T) {
					s := begin(t)
					done := s.held(k, sc.act)
					s.must(sc.act(s, s.good))
					close(s.f.resume)
					s.must(<-done)
					s.must(s.cut.count(s.ctx))
					if sc.heal != nil {
						sc.heal(s)
					}
					if got := s.print(); got != want {
						t.Errorf("it ended as\n%s\nnot as\n%s", got, want)
					}
					s.counted()
				})
			}
		})
	}
}

// held has the process with the fault do something, and gives when it is held up at a write.
func (s *scene) held(k int, act func(*scene, *Queue) error) (done chan error) {
	s.Helper()
	s.f.arm(k, stall)
	done = make(chan error, 1)
	go func() { done <- act(s, s.cut) }()
	select {
	case <-s.f.stalled:
	case err := <-done:
		s.Fatalf("it was not held up: %v", err)
	}
	return done
}

// A worker is held up while it ends a job, until its lease has run out, another has done all that there was to do, and
// somebody asked for something newer under the same keys. Then it goes on, and changes nothing.
func TestQueueZombie(t *testing.T) {
	t.Parallel()
	url := servertest.Mongo(t)
	for name, act := range map[string]func(*scene, *Queue) error{"Succeeded": succeed, "Back": giveBack} {
		t.Run(name, func(t *testing.T) {
			sc := scenario{set: (*scene).working, act: act}
			begin, writes, _ := sc.undisturbed(t, url)
			for k := range writes {
				t.Run(fmt.Sprint(k), func(t *testing.T) {
					s := begin(t)
					done := s.held(k, act)
					for range 3 {
						s.at = s.at.Add(time.Minute)
						_, _, err := s.good.Promote(s.ctx)
						s.must(err)
						got, err := s.good.Claim(s.ctx, store.ClaimRequest{Owner: "w2", Limit: 100, Lease: time.Hour, Types: []string{"a", "b", "c", "o", "r"}, Quarantine: true})
						s.must(err)
						for _, j := range got {
							_, err := s.good.Finish(s.ctx, store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded})
							s.must(err)
						}
					}
					newest := next("newest")[2:]
					for i := range newest {
						newest[i].RunAt, newest[i].Payload = s.at.Add(time.Hour), json.RawMessage(`{"newest":true}`)
					}
					_, err := s.good.Enqueue(s.ctx, newest...)
					s.must(err)
					before := s.print()
					if !strings.Contains(before, "a succeeded") {
						t.Errorf("the job is not done:\n%s", before)
					}
					close(s.f.resume)
					s.must(<-done)
					if after := s.print(); after != before {
						t.Errorf("it made\n%s\nof\n%s", after, before)
					}
				})
			}
		})
	}
}

// Each is cut at every write, before it and after it; what is done then ends as if nothing had been.
func TestQueueCut(t *testing.T) {
	t.Parallel()
	url := servertest.Mongo(t)
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			begin, writes, want := sc.undisturbed(t, url)
			for k := range writes {
				for _, how := range []cut{before, after} {
					t.Run(fmt.Sprint(k, []string{"", "before", "after"}[how]), func(t *testing.T) {
						s := begin(t)
						s.f.arm(k, how)
						if err := sc.act(s, s.cut); err == nil {
							t.Fatal("it was not cut")
						} else if !errors.Is(err, store.ErrUnavailable) {
							t.Errorf("it failed with %v", err)
						}
						if !sc.once {
							s.must(sc.act(s, s.good))
						}
						if sc.heal != nil {
							sc.heal(s)
						}
						if got := s.print(); got != want && (!sc.once || !sc.undone(got)) {
							t.Errorf("it ended as\n%s\nnot as\n%s", got, want)
						}
						s.nothingHidden()
						s.counted()
					})
				}
			}
		})
	}
}
