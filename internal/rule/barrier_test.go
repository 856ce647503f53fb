package rule

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
)

// legs walks a rule leg by leg, as if every external step of each had ended with these results.
func legs(t *testing.T, as []Action, lead *crm.Lead, vars, results map[string]any) (out []string, steps []Step) {
	t.Helper()
	run := &Run{ID: "arn_1"}
	for range 20 {
		w := &walk{
			scope: testScope(vars, lead), lead: lead, now: time.Unix(0, 0), zone: time.UTC, leg: run.Leg, cursor: run.Cursor, open: map[string]bool{},
		}
		w.scope.open = w.open
		w.scope.setResults(run.Results)
		w.actions("", as)
		var ids []string
		for _, s := range w.steps {
			ids = append(ids, s.ID)
		}
		leg := strings.Join(ids, " ")
		if len(w.missing) > 0 {
			return append(out, leg+" missing "+strings.Join(w.missing, ",")), steps
		}
		out, steps = append(out, leg), append(steps, w.steps...)
		run.Cursor, run.Results = w.stop, results
		if run.Leg++; w.stop == "" {
			return out, steps
		}
	}
	t.Fatal("the walk does not end")
	return nil, nil
}

func TestWalkStopsForResults(t *testing.T) {
	meet := Action{Type: CreateMeet, Title: "Call", StartsAt: "2027-01-01T10:00:00Z", DurationMinutes: 30}
	say := func(text string) Action { return Action{Type: SendText, Text: text} }
	tag := func(tag string) Action { return Action{Type: TagAdd, Tags: []string{tag}} }
	url := map[string]any{"meet": map[string]any{"url": "https://meet.example/x"}}
	for name, c := range map[string]struct {
		actions []Action
		results map[string]any
		want    []string
	}{
		"nothing to wait for":       {[]Action{say("a"), tag("t"), say("b")}, nil, []string{"0 1 2"}},
		"a result":                  {[]Action{meet, say("At {{meet.url}}"), tag("t")}, url, []string{"0", "1 2"}},
		"not before it is needed":   {[]Action{meet, say("Hello"), tag("t"), say("At {{ meet.url }}")}, url, []string{"0 1 2", "3"}},
		"an internal action":        {[]Action{meet, {Type: LeadSet, Fields: map[string]any{"u": "{{meet.url}}"}}}, url, []string{"0", "1"}},
		"a condition":               {[]Action{meet, {Type: Branch, Condition: "meet.url != ''", Then: []Action{tag("a")}, Else: []Action{tag("b")}}, tag("c")}, url, []string{"0", "1 1.then.0 2"}},
		"inside a branch":           {[]Action{{Type: Branch, Condition: "true", Then: []Action{meet, tag("a"), say("{{meet.url}}"), tag("b")}}, tag("c")}, url, []string{"0 0.then.0 0.then.1", "0.then.2 0.then.3 1"}},
		"deep":                      {[]Action{{Type: Branch, Condition: "false", Then: []Action{tag("x")}, Else: []Action{meet, {Type: Branch, Condition: "true", Then: []Action{say("{{meet.url}}")}}, tag("a")}}, tag("b")}, url, []string{"0 0.else.0 0.else.1", "0.else.1.then.0 0.else.2 1"}},
		"twice":                     {[]Action{meet, say("{{meet.url}}"), meet, say("{{meet.url}}")}, url, []string{"0", "1 2", "3"}},
		"a result that never came":  {[]Action{meet, say("{{meet.url}}")}, nil, []string{"0", "1 missing meet.url"}},
		"a lost result, then given": {[]Action{meet, say("{{meet.url}}")}, map[string]any{"meet": map[string]any{"url": ""}}, []string{"0", "1 missing meet.url"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, steps := legs(t, c.actions, &crm.Lead{}, nil, c.results)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("legs %q, want %q", got, c.want)
			}
			for _, s := range steps {
				if strings.Contains(string(s.Input), "{{") {
					t.Errorf("step %s is %s", s.ID, s.Input)
				}
			}
		})
	}
}

// TestLookingAheadFindsWhatIsMissing: before anything is done, also behind a stop; but not what will be known there.
func TestLookingAheadFindsWhatIsMissing(t *testing.T) {
	lead := &crm.Lead{Tags: []string{"has"}}
	as := []Action{
		{Type: CreateMeet, Title: "Call", StartsAt: "2027-01-01T10:00:00Z", DurationMinutes: 30},
		{Type: LeadSet, Fields: map[string]any{"link": "{{meet.url}}", "doctor": "{{doctor}}"}},
		{Type: Branch, Condition: "meet.url == ''", Then: []Action{{Type: SendText, Text: "{{perhaps}}"}}},
		{Type: Branch, Condition: "'has' in lead.tags", Then: []Action{{Type: SendText, Text: "{{lead.fields.link}} {{time}} {{meet.url}}"}}},
	}
	w := &walk{scope: testScope(nil, lead), lead: lead, zone: time.UTC, open: map[string]bool{}}
	w.scope.open = w.open
	w.actions("", as)
	if w.stop != "1" || w.missing != nil {
		t.Fatalf("stopped at %q, missing %v", w.stop, w.missing)
	}
	run := &Run{}
	a := &walk{scope: testScope(nil, lead), lead: copyLead(lead), zone: time.UTC, open: map[string]bool{"meet": true}, cursor: w.stop, through: true, looking: true}
	a.scope.open = a.open
	a.actions("", as)
	if want := []string{"doctor", "time"}; !reflect.DeepEqual(a.missing, want) {
		t.Errorf("missing %v, want %v", a.missing, want)
	}
	if len(a.steps)+len(a.scores)+len(run.Steps) != 0 || len(lead.Fields) != 0 {
		t.Error("looking ahead left something behind")
	}
}

// TestMailsAreEscaped: what a customer calls themselves is no markup, and makes no second line of a subject.
func TestMailsAreEscaped(t *testing.T) {
	w := &walk{scope: testScope(map[string]any{"name": "<b>Ana</b>\r\nBcc: x"}, &crm.Lead{}), lead: &crm.Lead{}, zone: time.UTC, open: map[string]bool{}}
	w.actions("", []Action{{Type: SendEmail, Subject: "For {{name}}", HTML: "<p>{{name}}</p>", Text: "{{name}}"}})
	in := string(w.steps[0].Input)
	if !strings.Contains(in, `"For \u003cb\u003eAna\u003c/b\u003e Bcc: x"`) || !strings.Contains(in, `\u003cp\u003e\u0026lt;b\u0026gt;Ana`) {
		t.Error(in)
	}
}
