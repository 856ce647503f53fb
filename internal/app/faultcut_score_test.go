package app_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
)

// lead is the first lead of a world.
func (w *world) lead() *crm.Lead {
	w.t.Helper()
	l, err := crm.Leads.First(context.Background(), w.db, store.Query{Order: "createdAt"})
	w.must(err)
	return l
}

// ledger names the rules of all rows, the oldest first.
func (w *world) ledger() string {
	w.t.Helper()
	rows, err := crm.ScoreEvents.Find(context.Background(), w.db, store.Query{})
	w.must(err)
	order := []string{"automation:rul_fixed", "reply", "substantive", "intent", "form_submitted", "opt_out"}
	var names []string
	for _, r := range rows {
		names = append(names, r.Rule)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(slices.Index(order, a), slices.Index(order, b)) })
	return strings.Join(names, " ")
}

// dues are the leads whose stored score is due.
func (w *world) dues() []*crm.ScoreDue {
	w.t.Helper()
	ds, err := crm.ScoresDue.Find(context.Background(), w.db, store.Query{})
	w.must(err)
	return ds
}

// points makes a lead with some points of the client's own.
func (w *world) points(n float64) {
	w.t.Helper()
	w.rule(fmt.Sprintf(`{"trigger":"custom.first","actions":[{"type":"lead.score","points":%g}]}`, n))
	_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJobOf("custom.first", "e0", nil))
	w.must(err)
}

// bought makes a lead that has bought something, and is scored for it.
func (w *world) bought() {
	w.t.Helper()
	_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJobOf("product_purchased", "e1", nil))
	w.must(err)
	_, err = w.engine.Book.HandleRecheck(context.Background(), w.tn, w.recheckJob())
	w.must(err)
}

// recheckJob is the job of the lead that is due.
func (w *world) recheckJob() store.Job {
	w.t.Helper()
	d := w.dues()[0]
	return store.Job{Type: crm.RecheckJob, Tenant: "ACME", Payload: payload(map[string]string{"leadId": d.ID, "cause": fmt.Sprint("due:", d.At.UnixMilli())})}
}

// hears publishes a rule that listens to a trigger and does nothing of weight.
func (w *world) hears(trigger string) {
	w.publish(fmt.Sprintf(`{"trigger":%q,"reenrol":"every_event","actions":[{"type":"lead.tag.add","tags":["heard"]}]}`, trigger), "rul_hears")
}

// scores lets a world's days go by until a moment: the daily look, and what that and others leave for later. It gives when
// the client's rules were told of a crossing.
type scores struct {
	*world
	later   []store.NewJob
	crossed []time.Time
}

func (s *scores) leave(jobs ...store.NewJob) {
	for _, j := range jobs {
		switch j.Type {
		case crm.RecheckJob, crm.RescoresJob:
			if j.RunAt.Before(s.now) {
				j.RunAt = s.now
			}
			if !slices.ContainsFunc(s.later, func(o store.NewJob) bool { return o.UniqueKey == j.UniqueKey }) {
				s.later = append(s.later, j)
			}
		case rule.EventJob:
			s.crossed = append(s.crossed, s.now)
		}
	}
}

func (s *scores) until(end time.Time) {
	s.t.Helper()
	for {
		slices.SortStableFunc(s.later, func(a, b store.NewJob) int { return a.RunAt.Compare(b.RunAt) })
		day := s.now.Truncate(24 * time.Hour).Add(24 * time.Hour)
		if len(s.later) == 0 || s.later[0].RunAt.After(day) {
			if day.After(end) {
				s.now = end
				return
			}
			s.now = day
			s.leave(crm.Rescores("ACME", day))
			continue
		}
		if s.later[0].RunAt.After(end) {
			s.now = end
			return
		}
		j := s.later[0]
		s.later = s.later[1:]
		s.now = j.RunAt
		handle := s.engine.Book.HandleRecheck
		if j.Type == crm.RescoresJob {
			handle = s.engine.Book.HandleRescores
		}
		res, err := handle(context.Background(), s.tn, store.Job{Type: j.Type, Tenant: "ACME", Payload: j.Payload})
		s.must(err)
		s.leave(res.Next...)
	}
}

// asked lets the lead ask for a price, as far as scores know.
func (s *scores) asked(source string) {
	s.t.Helper()
	ctx := context.Background()
	n := crm.PointsOf(s.tn, s.lead().ID, crm.PointsIntent, source, "", 0, s.now)
	for range 2 { // told twice
		_, err := s.engine.Book.HandlePoints(ctx, s.tn, store.Job{Type: n.Type, Tenant: "ACME", Payload: n.Payload})
		s.must(err)
	}
	res, err := s.engine.Book.HandleRecheck(ctx, s.tn, s.recheckJob())
	s.must(err)
	s.leave(res.Next...)
}

// A grade falls at the moment at which the points have faded so far, not before, and once; a new interaction moves it.
func TestGradeFallsWhenItShould(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	days := func(d float64) time.Duration { return time.Duration(d * float64(day)) }
	for _, second := range []float64{0, 10} { // when the lead asks again; 0: never
		w := &scores{world: newWorld(t)}
		w.points(36)
		w.hears("score_crossed")
		begin := w.now
		w.asked("first") // 46, which falls below 42
		if l := w.lead(); l.Score != 46 || l.Grade != "B2" || len(w.crossed) != 1 {
			t.Fatalf("%+v, crossed %v", l, w.crossed)
		}
		w.crossed = nil
		fall := begin.Add(days(21 * math.Log2(10.0/6)))
		if second > 0 {
			w.until(begin.Add(days(second)))
			w.asked("second")
			left := 10 * math.Exp2(-second/21)
			fall = begin.Add(days(second + 21*math.Log2((left+10)/6)))
		}
		w.until(fall.Add(-time.Second))
		if l := w.lead(); len(w.crossed) != 0 || l.Grade != "B2" {
			t.Fatalf("asked again after %v days: crossed at %v before it should, at %v: %+v", second, w.crossed, fall, l)
		}
		w.until(fall.Add(40 * day))
		if len(w.crossed) != 1 || w.crossed[0].Sub(fall).Abs() > time.Second {
			t.Fatalf("asked again after %v days: crossed at %v, want %v", second, w.crossed, fall)
		}
		if l := w.lead(); l.Grade != "B3" || l.Score >= 42 || l.Crossed[len(l.Crossed)-1].From != "B2" || w.now.Sub(l.ScoredAt) > day {
			t.Errorf("%+v", l)
		}
		if len(w.later) != 0 {
			t.Errorf("left over: %+v", w.later)
		}
	}
}
