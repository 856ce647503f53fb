package turn

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// quanta are how many jobs of one lane are taken at a turn, by class: many of the patient ones, which are many. Of a lane
// whose jobs are not known to be quick it is one.
var quanta = [len(store.Classes)]int64{4, 4, 20, 20, 1}

// quick jobs hold no slot for long.
const quick = 100 * time.Millisecond

// turnMost bounds how many lanes of a class one turn looks at, where their tenants are few.
const turnMost = 256

// Lane is the name of a lane, taken apart. Class is its place among store.Classes.
type Lane struct {
	Name, Tenant, Resource string
	Class                  int
}

// LaneOf takes a name apart.
func LaneOf(name string) Lane {
	l := Lane{Name: name}
	var class store.Class
	l.Tenant, l.Resource, class = store.SplitLane(name)
	l.Class = class.Patience()
	return l
}

// Queue is a lane that may be claimed from, as a turn looks at it.
type Queue struct {
	Lane
	Ready   int64 // jobs
	VTime   int64
	Running int64 // of a lane on trial
	Trial   bool
}

// Share is what a lane may take.
type Share struct {
	Lane
	Bounds  store.Bounds
	Take    int64
	limits  []*Limit
	ready   int64 // no more than it may have
	quantum int64
}

// waiting is a lane that its rate may keep from more.
type waiting struct {
	Lane
	limits []*Limit
	ready  int64
}

// party is a tenant in a class.
type party struct {
	tenant string
	class  int
}

func (k *Claim) of(l Lane) party { return party{l.Tenant, l.Class} }

// Turn shares free slots among the lanes with ready jobs, which come by class, virtual time and name: class by class, in
// each to those tenants first that hold fewest slots, so that one whose jobs take long does not come to hold more and more
// of them, and of their lanes to those that were served least. It looks at no more of them than it needs.
func (k *Claim) Turn(p *Pass, lanes iter.Seq2[Queue, error]) ([]Share, error) {
	slots := min(p.Most, int64(k.Limit-k.got))
	patient := k.others // of these slots, those that are not for Interactive alone
	k.waiting = k.waiting[:0]
	var shares []Share
	begin := 0        // of this class among the shares
	var certain int64 // slots that tenants fill who hold none in this class yet
	idle := map[party]bool{}
	class, room := p.From, slots
	if class > Interactive && class < Quarantine {
		room = min(slots, patient)
	}
	for l, err := range lanes {
		if err != nil {
			return nil, err
		}
		if l.Class != class {
			given := room - k.deal(shares[begin:], room)
			if slots -= given; class > Interactive {
				patient -= given
			}
			begin, certain, class, room = len(shares), 0, l.Class, min(slots, patient)
		}
		if room <= 0 {
			break
		}
		if k.Skips(l.Name) {
			continue
		}
		bounds := k.left.bounds(l.Tenant, l.Resource)
		limits, err := k.left.limits(l.Lane, bounds)
		if err != nil {
			return nil, err
		}
		ready := min(l.Ready, k.left.of(l.Lane, bounds))
		if l.Trial {
			ready = min(ready, 1-l.Running)
		}
		if allowed := allowed(limits, k.now); allowed < ready {
			ready = allowed
			k.waiting = append(k.waiting, waiting{l.Lane, limits, l.Ready})
		}
		if ready <= 0 {
			continue
		}
		if begin == len(shares) {
			k.m.Floor[class] = max(k.m.Floor[class], l.VTime)
		}
		k.left.take(l.Lane, bounds, limits, ready) // while the others are looked at
		s := Share{Lane: l.Lane, Bounds: bounds, limits: limits, ready: ready, quantum: 1}
		if pace, known := k.m.paces[l.Name]; known && pace < quick {
			s.quantum = quanta[class]
		}
		shares = append(shares, s)
		if t := k.of(l.Lane); k.serving[t] == 0 && !idle[t] {
			idle[t] = true
			certain += min(ready, s.quantum)
		}
		if certain >= room || int64(len(shares)-begin) >= max(room, turnMost) {
			break
		}
	}
	k.deal(shares[begin:], room)
	for _, s := range shares {
		k.left.take(s.Lane, s.Bounds, s.limits, -s.ready)
	}
	return shares, nil
}

// deal gives each time a quantum of slots to a tenant that holds fewest of this worker's in this class, until the slots or the
// jobs are used up; how many slots are left. Of a tenant's lanes it goes to the one that got fewest.
func (k *Claim) deal(shares []Share, slots int64) int64 {
	order := make([]*Share, len(shares))
	level := int64(math.MaxInt64)
	for i := range shares {
		order[i] = &shares[i]
		level = min(level, k.serving[k.of(shares[i].Lane)])
	}
	has := map[party]int64{} // besides what it holds
	for more := true; more && slots > 0; level++ {
		more = false
		for _, s := range order {
			t := k.of(s.Lane)
			if slots == 0 || s.Take == s.ready {
				continue
			}
			if more = true; k.serving[t]+has[t] <= level {
				n := min(s.quantum, s.ready-s.Take, slots)
				s.Take, has[t], slots = s.Take+n, has[t]+n, slots-n
			}
		}
		slices.SortStableFunc(order, func(a, b *Share) int { return cmp.Compare(a.Take, b.Take) })
	}
	return slots
}

// allowance is what tenants and their lanes may still have at once.
type allowance struct {
	now                  int64
	most                 int64 // of a tenant; 0: any number
	bounds               func(tenant, resource string) store.Bounds
	tenants, slow, lanes map[string]int64
	place                func(key string, r store.Rate) (*Limit, error)
	rates                map[string]*Limit // by key
}

func newAllowance(r store.ClaimRequest, now int64, place func(key string, r store.Rate) (*Limit, error)) *allowance {
	a := &allowance{now, int64(r.MaxPerTenant), r.Bounds, map[string]int64{}, map[string]int64{}, map[string]int64{}, place, map[string]*Limit{}}
	if a.bounds == nil {
		a.bounds = func(string, string) store.Bounds { return store.Bounds{} }
	}
	for name, n := range r.Held {
		l := LaneOf(name)
		a.take(l, a.bounds(l.Tenant, l.Resource), nil, int64(n))
	}
	return a
}

// take counts n jobs that a lane got; fewer than none are given back.
func (a *allowance) take(l Lane, b store.Bounds, limits []*Limit, n int64) {
	for _, x := range limits {
		x.Take(a.now, n)
	}
	a.lanes[l.Name] += n
	a.tenants[l.Tenant] += n
	if b.Slow {
		a.slow[l.Tenant] += n
	}
}

// of is how many more jobs of a lane may run, whatever its rate.
func (a *allowance) of(l Lane, b store.Bounds) int64 {
	left := int64(math.MaxInt64)
	if b.Running > 0 {
		left = int64(b.Running) - a.lanes[l.Name]
	}
	if a.most > 0 && l.Tenant != "" {
		left = min(left, a.most-a.tenants[l.Tenant])
		if b.Slow {
			left = min(left, max(1, a.most/2)-a.slow[l.Tenant])
		}
	}
	return max(0, left)
}

// limits gives the rates that a lane is under: its resource's, and the part of that which is for all patient classes
// together.
func (a *allowance) limits(l Lane, b store.Bounds) (limits []*Limit, err error) {
	for i, key := range Keys(l, b) {
		rate := b.Rate
		if i > 0 {
			rate = patient(rate)
		}
		limit, err := a.limit(key, rate)
		if err != nil {
			return nil, err
		}
		limits = append(limits, limit)
	}
	return limits, nil
}

// allowed is how many more may start under all of these.
func allowed(limits []*Limit, now int64) int64 {
	left := int64(math.MaxInt64)
	for _, l := range limits {
		left = min(left, l.Left(now))
	}
	return left
}

// limit gives a key's place in its rate, as this claim leaves it.
func (a *allowance) limit(key string, r store.Rate) (*Limit, error) {
	l := a.rates[key]
	if l == nil {
		var err error
		if l, err = a.place(key, r); err != nil {
			return nil, err
		}
		a.rates[key] = l
	}
	return l, nil
}
