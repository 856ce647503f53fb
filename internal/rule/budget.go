package rule

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ecodrix/ecod/internal/crm"
)

// Depth and chain bound how far an event's causes reach, the budget how wide: whatever a client's rules do, an event from
// outside leads to at most maxDescendants others, together. What an event may lead to is shared out among those that it
// causes, in their order, from what the records say: asked again, it is shared the same way.
const maxDescendants = 200

// budget is how many events may follow from this one.
func (ev *Event) budget() int {
	if ev.Depth == 0 && ev.Budget == 0 {
		return maxDescendants
	}
	return ev.Budget
}

// atOnce is what of its budget an event may spend on what it does itself: all of it, unless runs of it go on later.
func (ev *Event) atOnce(runs []*Run) int {
	if slices.ContainsFunc(runs, func(r *Run) bool { return r.Cursor != "" || r.Held != nil }) {
		return ev.budget() - ev.budget()/2
	}
	return ev.budget()
}

// later is what one later leg of one of an event's runs may spend. Legs are paced by what they wait for: each has one.
func (ev *Event) later(d *Definition) int {
	if ev.budget() == 0 {
		return 0
	}
	runs := 1
	if ev.Outcome != nil {
		runs = max(1, len(ev.Outcome.Runs))
	}
	return max(1, ev.budget()/2/(runs*(1+stops(d.Actions))))
}

// failure is what a failed message of one of an event's runs may spend: a run fails once.
func (ev *Event) failure() int {
	if ev.budget() == 0 {
		return 0
	}
	runs := 1
	if ev.Outcome != nil {
		runs = max(1, len(ev.Outcome.Runs))
	}
	return max(1, ev.budget()/2/runs)
}

// stops counts the actions at which a run may stop.
func stops(as []Action) int {
	n := 0
	for i := range as {
		if as[i].Type == Wait || external[as[i].Type] != "" {
			n++
		}
		n += stops(as[i].Then) + stops(as[i].Else)
	}
	return n
}

// share gives each occurrence what may follow from it, and leaves out those for which nothing is left. All of one cause
// stand together. What a rule did not cause is never left out.
func share(os []crm.Occurrence) (kept []crm.Occurrence, dropped int) {
	type cause struct {
		lead          string
		depth, budget int
	}
	of := func(o crm.Occurrence) cause { return cause{o.LeadID, o.Depth, o.Budget} }
	n, nth := map[cause]int{}, map[cause]int{}
	for _, o := range os {
		n[of(o)]++
	}
	for _, o := range os {
		c := of(o)
		i, all := nth[c], n[c]
		nth[c]++
		left := c.budget - all
		switch {
		case c.depth == 0:
			o.Budget = max(1, maxDescendants/all)
		case i >= c.budget:
			dropped++
			continue
		case left <= 0:
			o.Budget = 0
		default:
			o.Budget = left / all
			if i < left%all {
				o.Budget++
			}
		}
		kept = append(kept, o)
	}
	return kept, dropped
}

// EventNotice is something about an event that its author's rules should be looked at for.
type EventNotice struct {
	Code   string `json:"code"` // loop, owner_unknown
	Detail string `json:"detail"`
}

func tooWide(dropped int) EventNotice {
	return EventNotice{InChain, fmt.Sprintf("What rules did would have caused more than the %d events that one may lead to; %d were dropped.", maxDescendants, dropped)}
}

// tagNet is what several steps together did to one tag.
type tagNet struct {
	first, last bool // whether the tag was added
	run, step   string
}

// netTags works out what the steps of a leg did to the lead's tags in all. A tag that ends as it began caused nothing.
func netTags(runs []*Run, leg int) map[string]tagNet {
	net := map[string]tagNet{}
	for _, r := range runs {
		for i := range r.Steps {
			s := &r.Steps[i]
			if s.Leg != leg || s.State != StepDone || (s.Type != TagAdd && s.Type != TagRemove) {
				continue
			}
			var c tagChange
			if json.Unmarshal(s.Output, &c) != nil {
				continue
			}
			note := func(tag string, added bool) {
				n, known := net[tag]
				if !known {
					n.first = added
				}
				n.last, n.run, n.step = added, r.ID, s.ID
				net[tag] = n
			}
			for _, t := range c.Added {
				note(t, true)
			}
			for _, t := range c.Removed {
				note(t, false)
			}
		}
	}
	return net
}

// inOrder gives an event's runs in the order in which they were done.
func inOrder(ev *Event, runs []*Run) []*Run {
	place := func(r *Run) int {
		return slices.IndexFunc(ev.Outcome.Runs, func(n Enrol) bool { return n.RunID == r.ID })
	}
	at := make(map[string]int, len(runs))
	for _, r := range runs {
		at[r.ID] = place(r)
	}
	out := slices.Clone(runs)
	slices.SortStableFunc(out, func(a, b *Run) int { return at[a.ID] - at[b.ID] })
	return out
}
