package rule

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/ecodrix/ecod/internal/crm"
)

// TestBudgetBoundsAllThatFollows: however wide each event's causes are, all that follows from one is bounded.
func TestBudgetBoundsAllThatFollows(t *testing.T) {
	for _, width := range []int{1, 2, 3, 7, 50, 199, 200, 201, 5000} {
		total := 0
		var follow func(ev *Event)
		follow = func(ev *Event) {
			if ev.Depth >= maxDepthOfEvents {
				return
			}
			os := make([]crm.Occurrence, width)
			for i := range os {
				os[i] = crm.Occurrence{Key: fmt.Sprint(i), LeadID: "led", Depth: ev.Depth + 1, Budget: ev.atOnce(nil)}
			}
			kept, dropped := share(os)
			if len(kept)+dropped != width {
				t.Fatalf("%d kept, %d dropped of %d", len(kept), dropped, width)
			}
			again, _ := share(os)
			if !reflect.DeepEqual(kept, again) {
				t.Fatal("shared in another way the second time")
			}
			for _, o := range kept {
				if total++; total > maxDescendants {
					t.Fatalf("width %d: more than %d", width, maxDescendants)
				}
				follow(&Event{Depth: o.Depth, Budget: o.Budget})
			}
		}
		follow(&Event{})
		if want := min(width, maxDescendants); total < want {
			t.Errorf("width %d: %d followed, want at least %d", width, total, want)
		}
	}
}

// TestWhatNoRuleCausedIsNeverDropped: a person who sets many tags at once is heard for each, and what follows is shared.
func TestWhatNoRuleCausedIsNeverDropped(t *testing.T) {
	var os []crm.Occurrence
	for i := range 250 {
		os = append(os, crm.Occurrence{Key: fmt.Sprint(i), LeadID: "led"})
	}
	os = append(os, crm.Occurrence{Key: "other", LeadID: "other"})
	kept, dropped := share(os)
	if len(kept) != 251 || dropped != 0 || kept[0].Budget != 1 || kept[250].Budget != maxDescendants {
		t.Errorf("%d kept, %d dropped, budgets %d and %d", len(kept), dropped, kept[0].Budget, kept[250].Budget)
	}
}

// TestLaterLegsShareToo: runs that go on later leave something for that, and each leg has one event at least.
func TestLaterLegsShareToo(t *testing.T) {
	ev := &Event{Outcome: &Outcome{Runs: []Enrol{{}, {}}}}
	if got := ev.atOnce([]*Run{{}, {Cursor: "2"}}); got != maxDescendants/2 {
		t.Errorf("at once %d", got)
	}
	d := &Definition{Actions: []Action{{Type: Wait}, {Type: TagAdd}, {Type: Branch, Then: []Action{{Type: SendText}, {Type: CreateMeet}}}, {Type: Wait}}}
	if got := ev.later(d); got != maxDescendants/2/2/5 && got != maxDescendants/2/2/4 {
		t.Errorf("later %d", got)
	}
	if got := (&Event{Depth: 2, Budget: 3}).later(d); got != 1 {
		t.Errorf("later of little: %d", got)
	}
	if got := (&Event{Depth: 2}).later(d); got != 0 {
		t.Errorf("later of nothing: %d", got)
	}
}

// TestTagsAreNetted: what an event's runs did and undid to a tag is no event.
func TestTagsAreNetted(t *testing.T) {
	l := &crm.Lead{Tags: []string{"a", "b", "c"}}
	ev := &Event{ID: "evt", Outcome: &Outcome{LeadID: "led", Runs: []Enrol{{RunID: "r1"}, {RunID: "r2"}}}}
	walked := func(id string, as ...Action) *Run {
		w := &walk{scope: testScope(nil, l), lead: l}
		w.actions("", as)
		return &Run{ID: id, RuleID: "rule of " + id, Steps: w.steps}
	}
	r1 := walked("r1", Action{Type: TagRemove, Tags: []string{"a", "b"}}, Action{Type: TagAdd, Tags: []string{"a", "x", "y"}}, Action{Type: TagRemove, Tags: []string{"x"}})
	r2 := walked("r2", Action{Type: TagRemove, Tags: []string{"y", "c"}}, Action{Type: TagAdd, Tags: []string{"x", "z", "c"}})
	want := []string{"tag_removed b r1", "tag_added x r2", "tag_added z r2"}
	for _, runs := range [][]*Run{{r1, r2}, {r2, r1}} { // as the database may give them after a crash
		var got []string
		for _, o := range caused(ev, runs) {
			got = append(got, fmt.Sprintf("%s %s %s", o.Trigger, o.Variables["tag"], o.Chain[0][len("rule of "):]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
