package turn

import (
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Limit is one key's place in its rate: a job may start while the theoretical arrival time of the next is no further ahead
// than the burst lets it be (GCRA). Times are Unix nanoseconds.
type Limit struct {
	rate store.Rate
	tat  int64
	took int64 // since it was read
}

// NewLimit is the place of a key whose theoretical arrival time was kept as tat; 0 if nothing was taken from it yet.
func NewLimit(r store.Rate, tat, now int64) *Limit {
	r.Burst = max(1, r.Burst)
	return &Limit{rate: r, tat: min(tat, now+int64(r.Burst)*int64(r.Every))} // the clock may have been set back since
}

// TAT is the theoretical arrival time to keep.
func (l *Limit) TAT() int64 { return l.tat }

// Took is how many were taken since it was read.
func (l *Limit) Took() int64 { return l.took }

// Left is how many may start now.
func (l *Limit) Left(now int64) int64 {
	every := int64(l.rate.Every)
	ahead := max(0, l.tat-now)
	return max(0, (int64(l.rate.Burst)*every-ahead)/every)
}

// Take counts n that start now; fewer than none are given back.
func (l *Limit) Take(now, n int64) {
	l.tat = max(l.tat, now) + n*int64(l.rate.Every)
	l.took += n
}

// When is the time at which n may start that may not now, n being no more than the burst.
func (l *Limit) When(n int64) int64 {
	return l.tat - (int64(l.rate.Burst)-n)*int64(l.rate.Every)
}

// soon is how much longer than for the first of them a lane waits at most for some jobs at once.
const soon = int64(50 * time.Millisecond)

// some is when so many may start, or the first few of them: a lane with very many jobs is not looked at for each.
func (l *Limit) some(ready int64) int64 {
	n := min(ready, max(1, int64(l.rate.Burst)/2), 1+soon/int64(l.rate.Every))
	return l.When(n)
}

// patient is what patient classes may take of a rate: four fifths of it, so that there is always some left for who waits.
func patient(r store.Rate) store.Rate {
	return store.Rate{Every: r.Every * 5 / 4, Burst: r.Burst * 4 / 5}
}

func milliUp(nanos int64) int64 {
	return (nanos + int64(time.Millisecond) - 1) / int64(time.Millisecond)
}

// bookings remembers until when jobs are put off for their pairs, so that each of many has a moment of its own. It is a
// hint: who comes back too early is put off again.
type bookings map[string]int64

// bookingsMost is how many pairs are remembered.
const bookingsMost = 10_000

// next gives the first free moment of a pair at or after one, in Unix ms.
func (b bookings) next(key string, from, every, now int64) int64 {
	if last, ok := b[key]; ok && last > now {
		from = max(from, last+every)
	}
	if len(b) >= bookingsMost {
		for k, last := range b {
			if last <= now {
				delete(b, k)
			}
		}
		if len(b) >= bookingsMost {
			clear(b)
		}
	}
	b[key] = from
	return from
}
