package turn

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Stride is what a lane's virtual time grows by for one job.
const Stride = 1000

// PairsMost is how many jobs one claim puts off because their pairs are at their rate; who is left brings the next about.
const PairsMost = 1000

// barrenFor is how long a barren lane is passed over.
const barrenFor = 5 * time.Second

// The classes' places, as in store.Classes.
const (
	Interactive = iota
	Normal
	Bulk
	Maintenance
	Quarantine
)

// Memory is what is remembered between claims. Nothing but fairness hangs on it. It is not safe for concurrent use.
type Memory struct {
	Floor [len(store.Classes)]int64 // by class, the virtual time of the lane served last

	barren map[string]barren // lanes whose ready jobs are of types that a claim did not know
	booked bookings
	paces  map[string]time.Duration // how long lanes' jobs take of late
	few    int                      // turns of workers that have too few slots to keep one for every class
}

// barren says that a lane held no ready job of these types; it is forgotten when a job of the lane becomes
// ready, and after a while, because what it was learnt from may have been undone.
type barren struct {
	types string
	until time.Time
}

// NewMemory is one without memories.
func NewMemory() *Memory {
	return &Memory{barren: map[string]barren{}, booked: bookings{}, paces: map[string]time.Duration{}}
}

// Stirred notes that a job of a lane became ready.
func (m *Memory) Stirred(lane string) { delete(m.barren, lane) }

// pacesMost is of how many lanes it is remembered how long their jobs take.
const pacesMost = 8192

// Pace notes how long a job of a lane took.
func (m *Memory) Pace(lane string, took time.Duration) {
	took = min(max(0, took), time.Minute) // the clock may have been set meanwhile
	if old, known := m.paces[lane]; known {
		took = took/4 + old*3/4
	} else if len(m.paces) >= pacesMost {
		clear(m.paces)
	}
	m.paces[lane] = took
}

// Claim is one claim under way: engines ask it, pass by pass and turn by turn, how many jobs of which lanes to take, and
// tell it what they found.
type Claim struct {
	store.ClaimRequest
	m     *Memory
	now   int64 // Unix ns
	types string
	got   int             // jobs, so far
	done  map[string]bool // lanes that have no more to give
	left  *allowance

	held    [len(store.Classes)]int64 // what the worker works on already
	serving map[party]int64           // slots that tenants hold, by class
	others  int64                     // slots that those may have who are not Interactive

	waiting []waiting // of this turn
	put     int       // jobs put off for their pairs
}

// Begin begins a claim at a time (Unix ns). place reads a key's place in its rate; it is asked once for each.
func (m *Memory) Begin(r store.ClaimRequest, now int64, place func(key string, r store.Rate) (*Limit, error)) *Claim {
	types := slices.Clone(r.Types)
	slices.Sort(types)
	k := &Claim{
		ClaimRequest: r, m: m, now: now, types: strings.Join(types, "\x00"),
		done: map[string]bool{}, left: newAllowance(r, now, place), serving: map[party]int64{}, others: math.MaxInt64,
	}
	for name, n := range r.Held {
		tenant, _, class := store.SplitLane(name)
		k.serving[party{tenant, class.Patience()}] += int64(n)
		k.held[class.Patience()] += int64(n)
	}
	if r.Slots > 0 {
		k.others = others(r.Slots)
		for _, n := range k.held[Normal:] {
			k.others -= n
		}
	}
	return k
}

// Pass is a range of classes, and how many jobs of them are claimed at most.
type Pass struct {
	From, To int
	Most     int64
}

// Passes gives the order in which this claim looks at the classes: first those that would be frozen, then by urgency.
func (k *Claim) Passes() (ps []Pass) {
	if k.Quarantine { // one has waited for a lease to end, and goes through no other's door
		ps = append(ps, Pass{Quarantine, Quarantine, 1})
	}
	all := Pass{Interactive, Maintenance, math.MaxInt64}
	switch {
	case k.Slots <= 0 || k.others <= 0:
	case others(k.Slots) >= enough:
		for class := Bulk; class <= Maintenance; class++ {
			if left := max(1, int64(k.Slots)/10) - k.held[class]; left > 0 {
				ps = append(ps, Pass{class, class, left})
			}
		}
	default: // not a slot for each: they have it in turn
		if class := Bulk + k.m.few%enough; class <= Maintenance {
			ps = append(ps, Pass{class, class, 1})
		}
		k.m.few++
	}
	return append(ps, all)
}

// enough is how many slots a normal, a bulk and a maintenance job need.
const enough = 3

// others is how many of so many slots class Interactive leaves to the others.
func others(slots int) int64 {
	return int64(max(1, slots-max(1, slots/4)))
}

// Wants tells whether a pass may claim more.
func (k *Claim) Wants(p Pass) bool { return p.Most > 0 && k.got < k.Limit }

// Took notes how many jobs of a share were found; whether another turn may find more elsewhere. known: of those that are
// left in the lane, all are of other types.
func (k *Claim) Took(p *Pass, s Share, got int64, known bool) (more bool) {
	k.got += int(got)
	k.serving[k.of(s.Lane)] += got
	if p.Most -= got; s.Class > Interactive {
		k.others -= got
	}
	k.left.take(s.Lane, s.Bounds, s.limits, got)
	if got == s.Take {
		return false
	}
	if k.done[s.Name] = true; known {
		k.Barren(s.Name)
	}
	return true
}

// Barren notes that a lane's ready jobs are all of other types than this claim's.
func (k *Claim) Barren(lane string) { k.m.barren[lane] = barren{k.types, time.Now().Add(barrenFor)} }

// Skips tells whether this claim has no more to do with a lane.
func (k *Claim) Skips(lane string) bool { return k.done[lane] || k.isBarren(lane) }

// Hold tells of the lanes that are at their rate until when (Unix ms) it keeps them from more; whether there is one that is
// not: what was laid by for another lane of the same rate was not taken.
func (k *Claim) Hold(limited func(lane string, until int64)) (left bool) {
	for _, w := range k.waiting {
		until := int64(0)
		for _, l := range w.limits {
			if l.Left(k.now) == 0 {
				until = max(until, milliUp(l.some(w.ready)))
			}
		}
		if until == 0 {
			left = left || !k.done[w.Name]
			continue
		}
		limited(w.Name, until)
		k.done[w.Name] = true
	}
	return left
}

// Pair takes a start from a pair's rate. at is where there is none left: when the job, put off, has a moment of its own
// (Unix ms). full: the claim has put off as many as it may.
func (k *Claim) Pair(s Share, pair string) (at int64, full bool, err error) {
	l, err := k.left.limit(PairKey(s.Lane, pair), s.Bounds.Pair)
	if err != nil {
		return 0, false, err
	}
	if l.Left(k.now) > 0 {
		l.Take(k.now, 1)
		return 0, false, nil
	}
	if k.put++; k.put > PairsMost {
		return 0, true, nil
	}
	return k.m.booked.next(PairKey(s.Lane, pair), milliUp(l.When(1)), s.Bounds.Pair.Every.Milliseconds(), k.now/int64(time.Millisecond)), false, nil
}

// PairKey is the key of a pair's rate.
func PairKey(l Lane, pair string) string { return l.Tenant + "/" + l.Resource + "#" + pair }

// Keys are the keys of the rates that a lane is under, the part for patient classes last.
func Keys(l Lane, b store.Bounds) []string {
	if b.Rate.Every <= 0 {
		return nil
	}
	key := l.Tenant + "/" + l.Resource
	if l.Class < Bulk || l.Class == Quarantine {
		return []string{key}
	}
	return []string{key, key + "/bulk"}
}

// Rates are the keys that were looked at, each as the claim leaves it.
func (k *Claim) Rates() map[string]*Limit { return k.left.rates }

func (k *Claim) isBarren(lane string) bool {
	b, ok := k.m.barren[lane]
	if ok && time.Now().After(b.until) {
		delete(k.m.barren, lane)
		return false
	}
	return ok && b.types == k.types
}
