package rule

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
)

func points(n float64) *float64 { return &n }

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func anyTag(string) bool { return true }

func testScope(vars map[string]any, l *crm.Lead) *scope {
	return newScope(&Event{Trigger: "form_submitted", Variables: vars}, l, &crm.Contact{Name: "Ana"}, nil, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
}

func TestRender(t *testing.T) {
	l := &crm.Lead{Name: "Dhanesh", Score: 12.5, Fields: map[string]any{"doctor": "Dr. Arjun"}}
	s := testScope(map[string]any{
		"patientName": "Dhanesh", "n": 3.0, "big": 1e21, "frac": 2.5, "yes": true, "empty": "", "blank": "  ", "null": nil,
		"list": []any{"a"}, "nested": map[string]any{"city": "Pune"}, "dotted.name": "D", "undefined": "undefined", "unfilled": "Hi {{name}}", "lead": map[string]any{"name": "not the lead"},
	}, l)
	for text, want := range map[string]string{
		"Hi {{patientName}}":              "Hi Dhanesh",
		"{{ patientName }}!":              "Dhanesh!",
		"{{n}} {{frac}} {{yes}}":          "3 2.5 true",
		"{{big}}":                         "1000000000000000000000",
		"{{nested.city}}":                 "Pune",
		"{{dotted.name}}":                 "D",
		"{{lead.score}}":                  "12.5",
		"{{lead.fields.doctor}}":          "Dr. Arjun",
		"{{contact.name}}":                "Ana",
		"{{event.trigger}}":               "form_submitted",
		"{{event.variables.patientName}}": "Dhanesh",
		"no braces":                       "no braces",
	} {
		got, missing, _ := s.render(text, maxMail, nil)
		if got != want || missing != nil {
			t.Errorf("render(%q) = %q, missing %v; want %q", text, got, missing, want)
		}
	}
	for _, name := range []string{"absent", "empty", "undefined", "unfilled", "blank", "null", "list", "nested", "nested.absent", "lead.absent", "patientName.x"} {
		if got, missing, _ := s.render("x {{"+name+"}}", maxMail, nil); len(missing) != 1 || missing[0] != name || strings.Contains(got, "{{") {
			t.Errorf("{{%s}}: %q, missing %v", name, got, missing)
		}
	}
}

func TestWalkDoesInternalActionsInOrder(t *testing.T) {
	l := &crm.Lead{Pipeline: "default", Stage: "new", Status: crm.Open, Tags: []string{"new"}, Score: 5}
	w := &walk{scope: testScope(map[string]any{"doctorName": "Dr. Arjun"}, l), lead: l, now: time.Unix(0, 0)}
	w.actions("", []Action{
		{Type: SendTemplate, Template: "t", Language: "en", Parameters: []string{"{{doctorName}}"}},
		{Type: TagAdd, Tags: []string{"booked", "new"}},
		{Type: TagRemove, Tags: []string{"new", "absent"}},
		{Type: LeadStage, Stage: "booked"},
		{Type: LeadScore, Points: points(20)},
		{Type: LeadSet, Fields: map[string]any{"doctor": "{{doctorName}}", "n": 3.0}},
		{Type: Branch, Condition: "'booked' in lead.tags && lead.score == 25", Then: []Action{{Type: LeadStage, Stage: "won"}}, Else: []Action{{Type: LeadStage, Stage: "lost"}}},
		{Type: SendText, Text: "{{lead.fields.doctor}} {{lead.stage}}"},
	})
	if len(w.missing) > 0 {
		t.Fatal(w.missing)
	}
	if !reflect.DeepEqual(l.Tags, []string{"booked"}) || l.Stage != "won" || l.Status != crm.Won || l.Score != 25 || l.Fields["doctor"] != "Dr. Arjun" || l.Fields["n"] != 3.0 {
		t.Errorf("lead is %+v", l)
	}
	var got []string
	for _, s := range w.steps {
		got = append(got, s.ID+" "+s.Type+" "+s.State)
	}
	want := []string{"0 whatsapp.template planned", "1 lead.tag.add done", "2 lead.tag.remove done", "3 lead.stage done", "4 lead.score done",
		"5 lead.set done", "6 branch done", "6.then.0 lead.stage done", "7 whatsapp.text planned"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("steps\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if in := string(w.steps[len(w.steps)-1].Input); !strings.Contains(in, "Dr. Arjun won") {
		t.Errorf("text input %s", in)
	}
	// what the steps record is enough to do it again
	again := &crm.Lead{Pipeline: "default", Stage: "new", Status: crm.Open, Tags: []string{"new"}, Score: 5}
	replay(w.steps, again)
	if !reflect.DeepEqual(again, l) {
		t.Errorf("replayed %+v\nwant %+v", again, l)
	}
}

func TestWalkTellsWhatIsMissing(t *testing.T) {
	l := &crm.Lead{}
	w := &walk{scope: testScope(nil, l), lead: l}
	w.actions("", []Action{{Type: SendText, Text: "{{a}} {{b}} {{a}}"}, {Type: LeadSet, Fields: map[string]any{"x": "{{c}}"}}})
	if !reflect.DeepEqual(w.missing, []string{"a", "b", "c"}) {
		t.Errorf("missing %v", w.missing)
	}
}

func TestTransitionsAreRealChangesOnly(t *testing.T) {
	l := &crm.Lead{Pipeline: "default", Stage: "new", Tags: []string{"has"}}
	w := &walk{scope: testScope(nil, l), lead: l}
	w.actions("", []Action{
		{Type: TagAdd, Tags: []string{"has", "gets"}}, {Type: TagRemove, Tags: []string{"absent"}},
		{Type: LeadStage, Stage: "new"}, {Type: LeadStage, Stage: "won"}, {Type: LeadScore, Points: points(1)},
	})
	var got []string
	ev := &Event{ID: "evt", Variables: Values{"v": 1}, Outcome: &Outcome{LeadID: "led"}}
	for _, o := range causedBy(ev, []*Run{{ID: "run", RuleID: "rul", Steps: w.steps}}, 0, 10) {
		got = append(got, o.Trigger)
		if o.Inherited["v"] != 1 {
			t.Error("variables are lost")
		}
	}
	if want := []string{"tag_added", "stage_changed", "deal_won"}; !reflect.DeepEqual(got, want) {
		t.Errorf("transitions %v, want %v", got, want)
	}
}

func TestValidate(t *testing.T) {
	good := `{"trigger":"appointment_confirmed","condition":"lead.score >= 0 && !('vip' in lead.tags)","reenrol":{"cooldown":"24h"},"actions":[
		{"type":"whatsapp.template","template":"t","language":"en","parameters":["{{a}}"],"onUnconfirmed":"resend"},
		{"type":"whatsapp.text","text":"See you {{time}}"},{"type":"lead.stage","pipeline":"default","stage":"booked"},
		{"type":"lead.tag.add","tags":["booked"]},{"type":"lead.tag.remove","tags":["new"]},{"type":"lead.score","points":20},
		{"type":"lead.set","fields":{"doctor":"{{d}}"}},{"type":"branch","condition":"event.variables.x > 3","then":[{"type":"lead.score","points":0}]}]}`
	var d Definition
	if err := json.Unmarshal([]byte(good), &d); err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ body, pointer string }{
		"unknown trigger": {`{"trigger":"nope","actions":[{"type":"lead.score","points":1}]}`, "/trigger"},
		"no actions":      {`{"trigger":"deal_won"}`, "/actions"},
		"unknown action":  {`{"trigger":"deal_won","actions":[{"type":"rm"}]}`, "/actions/0/type"},
		"missing member":  {`{"trigger":"deal_won","actions":[{"type":"lead.score"}]}`, "/actions/0/points"},
		"foreign member":  {`{"trigger":"deal_won","actions":[{"type":"lead.score","points":1,"text":"x"}]}`, "/actions/0/text"},
		"bad condition":   {`{"trigger":"deal_won","condition":"lead.score >","actions":[{"type":"lead.score","points":1}]}`, "/condition"},
		"unknown root":    {`{"trigger":"deal_won","condition":"os.exit()","actions":[{"type":"lead.score","points":1}]}`, "/condition"},
		"not a truth":     {`{"trigger":"deal_won","condition":"1+1","actions":[{"type":"lead.score","points":1}]}`, "/condition"},
		"stray braces":    {`{"trigger":"deal_won","actions":[{"type":"whatsapp.text","text":"Hi {{}}"}]}`, "/actions/0/text"},
		"empty parameter": {`{"trigger":"deal_won","actions":[{"type":"whatsapp.template","template":"t","language":"en","parameters":[" "]}]}`, "/actions/0/parameters/0"},
		"bad reenrol":     {`{"trigger":"deal_won","reenrol":"often","actions":[{"type":"lead.score","points":1}]}`, "/reenrol"},
		"bad cooldown":    {`{"trigger":"deal_won","reenrol":{"cooldown":"soon"},"actions":[{"type":"lead.score","points":1}]}`, "/reenrol/cooldown"},
		"deep":            {`{"trigger":"deal_won","actions":[` + strings.Repeat(`{"type":"branch","condition":"true","then":[`, 8) + `{"type":"lead.score","points":1}` + strings.Repeat(`]}`, 8) + `]}`, "/actions/0/then/0/then/0/then/0/then/0/then/0/then"},
		"mail of nothing": {`{"trigger":"deal_won","actions":[{"type":"email.send","subject":"s"}]}`, "/actions/0/text"},
		"meeting of 25 h": {`{"trigger":"deal_won","actions":[{"type":"meet.create","title":"t","startsAt":"{{x}}","durationMinutes":1500}]}`, "/actions/0/durationMinutes"},
		"no time":         {`{"trigger":"deal_won","actions":[{"type":"meet.create","title":"t","startsAt":"soon","durationMinutes":15}]}`, "/actions/0/startsAt"},
		"no zone":         {`{"trigger":"deal_won","actions":[{"type":"meet.create","title":"t","startsAt":"{{x}}","durationMinutes":15,"timeZone":"Local"}]}`, "/actions/0/timeZone"},
		"plain http":      {`{"trigger":"deal_won","actions":[{"type":"webhook.post","url":"http://example.com/"}]}`, "/actions/0/url"},
		"user in a url":   {`{"trigger":"deal_won","actions":[{"type":"webhook.post","url":"https://u:p@example.com/"}]}`, "/actions/0/url"},
		"no such port":    {`{"trigger":"deal_won","actions":[{"type":"webhook.post","url":"https://example.com:99999/"}]}`, "/actions/0/url"},
		"port 0":          {`{"trigger":"deal_won","actions":[{"type":"webhook.post","url":"https://example.com:0/"}]}`, "/actions/0/url"},
		"long label":      {`{"trigger":"deal_won","actions":[{"type":"webhook.post","url":"https://` + strings.Repeat("a", 64) + `.example/"}]}`, "/actions/0/url"},
		"long host":       {`{"trigger":"deal_won","actions":[{"type":"webhook.post","url":"https://` + strings.Repeat("a.", 127) + `example/"}]}`, "/actions/0/url"},
		"wait for what":   {`{"trigger":"deal_won","actions":[{"type":"wait"}]}`, "/actions/0/for"},
		"wait for both":   {`{"trigger":"deal_won","actions":[{"type":"wait","for":"1h","until":"{{x}}"}]}`, "/actions/0/for"},
		"wait back":       {`{"trigger":"deal_won","actions":[{"type":"wait","for":"-1h"}]}`, "/actions/0/for"},
		"offset of for":   {`{"trigger":"deal_won","actions":[{"type":"wait","for":"1h","offset":"1h"}]}`, "/actions/0/offset"},
		"bad offset":      {`{"trigger":"deal_won","actions":[{"type":"wait","until":"{{x}}","offset":"a day"}]}`, "/actions/0/offset"},
		"in a branch":     {`{"trigger":"deal_won","actions":[{"type":"branch","condition":"true","else":[{"type":"lead.score"}]}]}`, "/actions/0/else/0/points"},
	} {
		var d Definition
		if err := json.Unmarshal([]byte(c.body), &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err := d.Validate()
		var f *fault.Error
		if !errors.As(err, &f) || f.Kind != fault.Invalid {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := false
		for _, x := range f.Fields {
			found = found || x.Pointer == c.pointer
		}
		if !found {
			t.Errorf("%s: no pointer %s in %+v", name, c.pointer, f.Fields)
		}
	}
}

// TestConditionsAreBounded: no condition of a client may take unbounded memory or time.
func TestConditionsAreBounded(t *testing.T) {
	for _, src := range []string{
		"all(1..1000000000, # > 0)",
		"len(map(1..100000, map(1..100000, #))) > 0",
		"len(repeat('x', 1000000000)) > 0",
		"all(1..1000, all(1..1000, all(1..1000, # > 0)))",
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if p, err := compile(src); err == nil {
				if ok, err := testScope(nil, &crm.Lead{}).holds(p); err == nil && ok {
					t.Errorf("%s went through", src)
				}
			}
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s takes unbounded time", src)
		}
	}
	if _, err := compile(strings.Repeat("(", 3000)); err == nil {
		t.Error("a condition of 3,000 bytes compiled")
	}
}

func FuzzRender(f *testing.F) {
	for _, s := range []string{"Hi {{a}}", "{{", "}}{{", "{{a.b.c}}", "{{ a }}{{b}}", "{{{a}}}"} {
		f.Add(s)
	}
	l := &crm.Lead{Name: "x"}
	f.Fuzz(func(t *testing.T, text string) {
		if checkPlaceholders(text) != nil {
			return
		}
		s := testScope(map[string]any{"a": "x", "b": "v"}, l)
		if out, missing, _ := s.render(text, maxMail, nil); len(missing) == 0 && strings.Contains(out, "{{") {
			t.Errorf("%q rendered to %q", text, out)
		}
	})
}

func TestStagesAreThoseOfThePipeline(t *testing.T) {
	l := &crm.Lead{Pipeline: "default", Stage: "new", Status: crm.Open}
	w := &walk{scope: testScope(nil, l), lead: l}
	w.actions("", []Action{{Type: LeadStage, Stage: "elsewhere"}, {Type: LeadStage, Pipeline: "none", Stage: "won"}})
	for _, s := range w.steps {
		if s.State != StepFailed || s.Error.Code != "stage.unknown" || len(transitions(s, anyTag)) > 0 {
			t.Errorf("step %+v", s)
		}
	}
	if l.Stage != "new" || l.Pipeline != "default" || l.Status != crm.Open {
		t.Errorf("lead %+v", l)
	}
	// what is won is told by the stage's kind, and a deal is won once
	for _, c := range []struct {
		change stageChange
		want   []string
	}{
		{stageChange{Pipeline: "b2b", From: "new", To: "signed", FromPipeline: "b2b", FromStatus: crm.Open, Status: crm.Won}, []string{"stage_changed", "deal_won"}},
		{stageChange{Pipeline: "b2b", From: "signed", To: "paid", FromPipeline: "b2b", FromStatus: crm.Won, Status: crm.Won}, []string{"stage_changed"}},
		{stageChange{Pipeline: "b2b", From: "new", To: "won", FromPipeline: "b2b", FromStatus: crm.Open, Status: crm.Open}, []string{"stage_changed"}},
		{stageChange{Pipeline: "b2b", From: "new", To: "new", FromPipeline: "default", FromStatus: crm.Open, Status: crm.Open}, []string{"stage_changed"}},
		{stageChange{Pipeline: "b2b", From: "new", To: "new", FromPipeline: "b2b", FromStatus: crm.Open, Status: crm.Open}, nil},
	} {
		var got []string
		for _, tr := range transitions(Step{Type: LeadStage, State: StepDone, Output: raw(c.change)}, anyTag) {
			got = append(got, tr.trigger)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.change, got, c.want)
		}
	}
}
