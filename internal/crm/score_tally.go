package crm

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// tally is a ledger worked out: what each row gave when it was counted, from which what it is worth at any time follows.
// It depends on the rows alone, not on the order in which they were told.
type tally struct {
	rows   []*ScoreEvent // the oldest first
	gave   []float64     // by row: what it gave, within the bounds of its rule; of one that keeps a part: what it took
	capped []bool        // by row: it was given less than it is worth
	sums   []*sum
}

// sum is what the rows of one rule come to.
type sum struct {
	rule  *PointRule
	parts []part
	v     float64   // what they came to
	at    time.Time // then
	day   string
	ofDay int
}

// part is a share of a sum that is some row's doing.
type part struct {
	row    int
	points float64
	at     time.Time
}

// ruleOf is the rule of a row; of a client's own points one that bounds nothing.
func ruleOf(name string) *PointRule {
	if r := pointRules[name]; r != nil {
		return r
	}
	return &PointRule{Name: name}
}

// stays tells whether the points of a row never fade.
func (r *PointRule) stays() bool { return r.HalfLife == 0 && r.Name != "deal_lost" }

// left is the share that is left of points after some time.
func (r *PointRule) left(after time.Duration) float64 {
	if r.HalfLife == 0 || after <= 0 {
		return 1
	}
	return math.Exp2(-after.Seconds() / r.HalfLife.Seconds())
}

func (s *sum) value(t time.Time) float64 { return s.v * s.rule.left(t.Sub(s.at)) }

func (s *sum) add(row int, points float64, t time.Time) {
	s.v, s.at = s.value(t)+points, t
	s.parts = append(s.parts, part{row, points, t})
}

// count works a ledger out. zone is where its days begin. Of rows of one id the first counts.
func count(rows []*ScoreEvent, zone *time.Location) *tally {
	known := make(map[string]bool, len(rows))
	rows = slices.DeleteFunc(slices.Clone(rows), func(r *ScoreEvent) bool {
		again := known[r.ID]
		known[r.ID] = true
		return again
	})
	slices.SortFunc(rows, func(a, b *ScoreEvent) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	t := &tally{rows: rows, gave: make([]float64, len(rows)), capped: make([]bool, len(rows))}
	by := map[string]*sum{}
	for i, row := range rows {
		s := by[row.Rule]
		if s == nil {
			s = &sum{rule: ruleOf(row.Rule), at: row.At}
			by[row.Rule] = s
			t.sums = append(t.sums, s)
		}
		if s.rule.PerDay > 0 {
			if d := row.At.In(zone).Format(time.DateOnly); d != s.day {
				s.day, s.ofDay = d, 0
			}
			if s.ofDay++; s.ofDay > s.rule.PerDay {
				t.capped[i] = true
				continue
			}
		}
		if s.rule.Keeps != nil {
			t.take(i, s.rule, row.At)
			continue
		}
		p, v := row.Points, s.value(row.At)
		if most := s.rule.Most; most > 0 {
			if p > 0 {
				p = min(p, max(0, most-v))
			} else {
				p = max(p, min(0, -most-v))
			}
		}
		t.gave[i], t.capped[i] = p, p != row.Points
		s.add(i, p, row.At)
	}
	return t
}

// take lets a row leave only a part of what some rules have come to. What it takes is its own doing, and fades as that
// would have.
func (t *tally) take(row int, r *PointRule, at time.Time) {
	factors := t.factors(at)
	for _, s := range t.sums {
		share, ok := r.of(s.rule)
		if v := s.value(at); ok && v != 0 {
			taken := v * (1 - share*factors[s.rule.Group])
			s.add(row, -taken, at)
			t.gave[row] -= taken
		}
	}
}

// factors are by how much each group is cut to its bound.
func (t *tally) factors(at time.Time) map[string]float64 {
	sums := map[string]float64{}
	for _, s := range t.sums {
		sums[s.rule.Group] += s.value(at)
	}
	for g, v := range sums {
		sums[g] = 1
		if most := groups[g]; most > 0 && math.Abs(v) > most {
			sums[g] = most / math.Abs(v)
		}
	}
	return sums
}

// from is a time at which all rows have been told: clocks differ, and a row may be some seconds ahead.
func (t *tally) from(at time.Time) time.Time {
	if n := len(t.rows); n > 0 && t.rows[n-1].At.After(at) {
		return t.rows[n-1].At
	}
	return at
}

// total is the score at a time.
func (t *tally) total(at time.Time) float64 {
	at = t.from(at)
	factors, total := t.factors(at), 0.0
	for _, s := range t.sums {
		total += s.value(at) * factors[s.rule.Group]
	}
	return total
}

// shares are what each row is worth at a time, within all bounds. Together they are the total.
func (t *tally) shares(at time.Time) []float64 {
	at = t.from(at)
	factors, out := t.factors(at), make([]float64, len(t.rows))
	for _, s := range t.sums {
		f := factors[s.rule.Group]
		for _, p := range s.parts {
			out[p.row] += p.points * s.rule.left(at.Sub(p.at)) * f
		}
	}
	return out
}

// fades tells whether the total will change by itself, as far as a thousandth shows.
func (t *tally) fades(at time.Time) bool {
	return slices.ContainsFunc(t.sums, func(s *sum) bool { return s.rule.HalfLife > 0 && math.Abs(s.value(at)) >= 0.0005 })
}

// turn is the first moment after one at which the grade's digit is another than it was; zero if there is none before
// until. It looks in steps: between two of them, a digit that changes and changes back is not seen.
func (t *tally) turn(from, until time.Time, step time.Duration, was string) time.Time {
	if !t.fades(from) {
		return time.Time{}
	}
	turned := func(at time.Time) bool { return grade(0, t.total(at), was)[1] != was[1] }
	for a := from; a.Before(until); a = a.Add(step) {
		b := a.Add(step)
		if b.After(until) {
			b = until
		}
		if !turned(b) {
			continue
		}
		for b.Sub(a) > time.Millisecond {
			if mid := a.Add(b.Sub(a) / 2); turned(mid) {
				b = mid
			} else {
				a = mid
			}
		}
		if ms := b.Truncate(time.Millisecond); ms.Before(b) {
			b = ms.Add(time.Millisecond)
		}
		return b
	}
	return time.Time{}
}
