package rule

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/crm"
)

// TestTextsAreBounded: a short rule and a long variable are no bomb. What comes to too much is not built, and says so.
func TestTextsAreBounded(t *testing.T) {
	vars := map[string]any{"s": strings.Repeat("x", 32<<10), "amp": strings.Repeat("&", 32<<10), "ok": strings.Repeat("ä", 10)}
	bomb := strings.Repeat("{{s}}", 800)
	var as []Action
	for range 30 {
		as = append(as,
			Action{Type: SendText, Text: bomb},
			Action{Type: SendTemplate, Template: "t", Language: "en", Parameters: []string{bomb, bomb, bomb}},
			Action{Type: SendEmail, Subject: bomb[:500], HTML: strings.Repeat("{{amp}}", 5000), Text: strings.Repeat("{{s}}", 5000)},
			Action{Type: LeadSet, Fields: map[string]any{"a": bomb}},
		)
	}
	as = append(as, Action{Type: LeadSet, Fields: map[string]any{"b": "{{ok}}"}}, Action{Type: SendText, Text: strings.Repeat("{{ok}}", 409) + "123456"}, Action{Type: SendText, Text: strings.Repeat("{{ok}}", 410)})
	l := &crm.Lead{}
	w := &walk{scope: testScope(vars, l), lead: l}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.actions("", as)
	runtime.ReadMemStats(&after)
	if mem := after.TotalAlloc - before.TotalAlloc; mem > 64<<20*slower {
		t.Errorf("it took %d MiB", mem>>20)
	}
	if len(w.steps) != len(as) {
		t.Fatalf("%d steps, missing %v", len(w.steps), w.missing)
	}
	for i, s := range w.steps[:120] {
		if s.Error == nil || s.Error.Code != "too_long" || s.Input != nil || s.Output != nil {
			t.Errorf("step %d: %s %+v %.80s%.80s", i, s.Type, s.Error, s.Input, s.Output)
		}
	}
	if l.Fields["a"] != nil || l.Fields["b"] != vars["ok"] {
		t.Errorf("fields %.80v", l.Fields)
	}
	if s := w.steps[121]; s.Error != nil || len(s.Input) == 0 {
		t.Errorf("a text of 4,096 characters: %+v", s.Error)
	}
	if s := w.steps[122]; s.Error == nil {
		t.Error("a text of 4,100 characters went through")
	}
}

// TestTextsOfARunAndAnEventAreBounded: many texts that are each short enough are no bomb either.
func TestTextsOfARunAndAnEventAreBounded(t *testing.T) {
	ev := &Event{Variables: Values{"s": strings.Repeat("x", 32<<10)}}
	mail := Action{Type: SendEmail, Subject: "s", Text: "{{s}}{{s}}"}
	total := 0
	for range 20 { // rules
		l := &crm.Lead{}
		w := &walk{scope: newScope(ev, l, nil, nil, testNow), lead: l}
		for range 100 {
			w.actions("", []Action{mail})
		}
		run := 0
		for _, s := range w.steps {
			run += len(s.Input)
		}
		if run > maxRunTexts+100<<10 || len(w.steps) != 100 || w.steps[99].Error == nil || w.steps[99].Error.Code != "too_long" {
			t.Fatalf("a run of %d bytes, %d steps, the last %+v", run, len(w.steps), w.steps[99].Error)
		}
		total += run
	}
	if total > maxEventTexts+1<<20 {
		t.Errorf("an event of %d bytes", total)
	}
}

// TestLeadStaysWithinItsLimits: rules that set and tag for ever do not make a lead that cannot be stored.
func TestLeadStaysWithinItsLimits(t *testing.T) {
	l := &crm.Lead{}
	var last []Step
	for i := range 30 {
		w := &walk{scope: testScope(map[string]any{"s": strings.Repeat("x", 4000)}, l), lead: l}
		fields, tags := map[string]any{}, []string{}
		for j := range 10 {
			k := string(rune('a'+i)) + string(rune('a'+j))
			fields[k] = "{{s}}"
			tags = append(tags, k)
		}
		w.actions("", []Action{{Type: LeadSet, Fields: fields}, {Type: TagAdd, Tags: tags}})
		last = w.steps
	}
	if n := len(raw(l.Fields)); n > crm.MaxFieldsLen || n < 40_000 {
		t.Errorf("fields of %d bytes", n)
	}
	if n := len(l.Tags); n != mostTags {
		t.Errorf("%d tags", n)
	}
	for _, s := range last {
		if s.State != StepFailed || s.Error.Code != "lead.full" {
			t.Errorf("%s: %s %+v", s.Type, s.State, s.Error)
		}
	}
}

// TestNumbersAreSentAsWritten, from the event's JSON through its record to the text; conditions see numbers.
func TestNumbersAreSentAsWritten(t *testing.T) {
	told := `{"order":12345678901234567890,"zero":-0.0,"price":1.50,"exp":1e3,"list":[1,{"n":2.50}],"deep":{"n":9007199254740993},"text":"7"}`
	var ev Event
	if err := json.Unmarshal([]byte(`{"trigger":"custom.x","variables":`+told+`}`), &ev); err != nil {
		t.Fatal(err)
	}
	stored := raw(&ev)
	ev = Event{}
	if err := json.Unmarshal(stored, &ev); err != nil {
		t.Fatal(err)
	}
	s := newScope(&ev, &crm.Lead{Score: 3}, nil, nil, testNow)
	const text = "{{order}} {{zero}} {{price}} {{exp}} {{deep.n}} {{event.variables.order}} {{text}}"
	if out, missing, ok := s.render(text, maxText, nil); out != "12345678901234567890 -0.0 1.50 1e3 9007199254740993 12345678901234567890 7" || len(missing) > 0 || !ok {
		t.Errorf("%q, %v, %v", out, missing, ok)
	}
	for src, want := range map[string]bool{
		"event.variables.price == 1.5 && event.variables.exp > 999 && event.variables.zero == 0":           true,
		"event.variables.price + 1 == 2.5 && event.variables.deep.n > 1 && -event.variables.price == -1.5": true,
		"any(event.variables.list, # == 1) && event.variables.list[1].n == 2.5":                            true,
		"event.variables.price in [1.5, 2.5] && event.variables.exp in 1..1000":                            true,
		"event.variables.order > 1.2345e19 && lead.score < event.variables.exp":                            true,
		"max(event.variables.price, 1) == 1.5 && type(event.variables.price) == 'float'":                   true,
		"event.variables.text == '7' && event.variables.price != '1.50'":                                   true,
		"event.variables.price > 2": false,
	} {
		p, err := compile(src)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := s.holds(p); ok != want || err != nil {
			t.Errorf("%s: %v, %v", src, ok, err)
		}
	}
}

// TestWhatIsNoValue: what a website's program leaves behind is missing; what people are called is not.
func TestWhatIsNoValue(t *testing.T) {
	for _, v := range []string{"", " ", "\u200b", "\ufeff", "\u00a0\t", "\u3164", "\x00", "undefined", "Undefined", "UNDEFINED", "\ufeffundefined", " null ", "Null", "NaN", "[object Object]", "\u200e[object Object]\u200f"} {
		if got, ok := format(v); ok {
			t.Errorf("%q is sent as %q", v, got)
		}
	}
	for v, want := range map[string]string{
		"None": "None", "Nan": "Nan", "Nil": "Nil", "null island": "null island", "A\x00B\x1b[31m\x7f\u0085": "AB[31m", "a\r\nb\tc": "a\nb\tc",
		"👩\u200d👧": "👩\u200d👧", "\u200fשלום": "\u200fשלום",
	} {
		if got, ok := format(v); got != want || !ok {
			t.Errorf("%q is sent as %q, %v; want %q", v, got, ok, want)
		}
	}
}
