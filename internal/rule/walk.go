package rule

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
)

// walk goes through a rule's actions for one lead: what is internal is done to the lead at once, what is external
// becomes a planned step with frozen, rendered input. It changes nothing but what it is given, and asks nobody.
type walk struct {
	scope   *scope
	lead    *crm.Lead
	now     time.Time
	steps   []Step
	scores  []score
	missing []string
}

type score struct {
	step   string
	points float64
}

// tagChange, stageChange and setChange are the outputs of internal steps; triggers are made of them.
type tagChange struct {
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

type stageChange struct {
	Pipeline     string `json:"pipeline"`
	From         string `json:"from"`
	To           string `json:"to"`
	FromPipeline string `json:"fromPipeline"`
	FromStatus   string `json:"fromStatus"`
	Status       string `json:"status"` // the kind of the stage, when the lead came into it
}

// moved tells whether the step moved the lead at all.
func (c stageChange) moved() bool { return c.From != c.To || c.FromPipeline != c.Pipeline }

type scoreChange struct {
	Points float64 `json:"points"`
	Score  float64 `json:"score"` // after
}

// templateInput and textInput are the frozen inputs of sends.
type templateInput struct {
	Template   string   `json:"template"`
	Language   string   `json:"language"`
	Parameters []string `json:"parameters"`
	From       string   `json:"from,omitempty"`
	Resend     bool     `json:"resend,omitempty"`
}

type textInput struct {
	Text   string `json:"text"`
	From   string `json:"from,omitempty"`
	Resend bool   `json:"resend,omitempty"`
}

func (w *walk) actions(prefix string, as []Action) {
	for i, a := range as {
		w.action(fmt.Sprintf("%s%d", prefix, i), a)
	}
}

func (w *walk) action(at string, a Action) {
	switch a.Type {
	case SendTemplate:
		in := templateInput{Template: a.Template, Language: a.Language, Parameters: []string{}, From: a.From, Resend: a.OnUnconfirmed == "resend"}
		for _, p := range a.Parameters {
			in.Parameters = append(in.Parameters, w.fill(p))
		}
		w.plan(at, a.Type, in)
	case SendText:
		w.plan(at, a.Type, textInput{Text: w.fill(a.Text), From: a.From, Resend: a.OnUnconfirmed == "resend"})
	case LeadStage:
		c := stageChange{Pipeline: a.Pipeline, From: w.lead.Stage, To: a.Stage, FromPipeline: w.lead.Pipeline, FromStatus: w.lead.Status}
		if c.Pipeline == "" {
			c.Pipeline = w.lead.Pipeline
		}
		st, known := w.scope.stages.Find(c.Pipeline, c.To)
		if !known { // as through the API: a lead stands in no stage that its pipeline does not have
			w.step(Step{ID: at, Type: a.Type, State: StepFailed, Error: &StepError{"stage.unknown", "The pipeline has no such stage; the lead stays where it is."}})
			break
		}
		c.Status = st.Kind
		if !w.lead.MoveTo(c.Pipeline, c.To, c.Status, w.now) {
			c.Status = c.FromStatus
		}
		w.did(at, a, c)
	case TagAdd:
		w.did(at, a, tagChange{Added: w.lead.AddTags(a.Tags...)})
	case TagRemove:
		w.did(at, a, tagChange{Removed: w.lead.RemoveTags(a.Tags...)})
	case LeadScore:
		w.lead.Score += *a.Points
		w.scores = append(w.scores, score{at, *a.Points})
		w.did(at, a, scoreChange{Points: *a.Points, Score: w.lead.Score})
	case LeadSet:
		if w.lead.Fields == nil {
			w.lead.Fields = map[string]any{}
		}
		out := map[string]any{}
		for _, k := range slices.Sorted(maps.Keys(a.Fields)) {
			v := a.Fields[k]
			if s, ok := v.(string); ok {
				v = w.fill(s)
			}
			w.lead.Fields[k], out[k] = v, v
		}
		w.did(at, a, out)
	case Branch:
		taken := "else"
		p, err := compile(a.Condition)
		ok := false
		if err == nil {
			ok, err = w.scope.holds(p)
		}
		if ok {
			taken = "then"
		}
		if err != nil {
			w.step(Step{ID: at, Type: a.Type, State: StepFailed, Error: &StepError{ConditionFailed, "The condition could not be evaluated; else was taken."}})
		} else {
			w.did(at, a, map[string]string{"taken": taken})
		}
		if taken == "then" {
			w.actions(at+".then.", a.Then)
		} else {
			w.actions(at+".else.", a.Else)
		}
	}
}

func (w *walk) fill(text string) string {
	out, missing := w.scope.render(text)
	for _, m := range missing {
		if !slices.Contains(w.missing, m) {
			w.missing = append(w.missing, m)
		}
	}
	return out
}

func (w *walk) step(s Step) {
	s.At = w.now
	if s.State != StepPlanned {
		at := w.now
		s.EndedAt = &at
	}
	w.steps = append(w.steps, s)
}

// did records an internal action; later conditions and texts see the lead as it is now.
func (w *walk) did(at string, a Action, output any) {
	w.scope.setLead(w.lead)
	w.step(Step{ID: at, Type: a.Type, State: StepDone, Output: raw(output)})
}

func (w *walk) plan(at, typ string, input any) {
	w.step(Step{ID: at, Type: typ, State: StepPlanned, Input: raw(input)})
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("rule: does not marshal: " + err.Error())
	}
	return b
}

// replay does to a lead what a run's steps record as done to it: for a run that was written before a crash came between
// it and the lead.
func replay(steps []Step, l *crm.Lead) {
	for _, s := range steps {
		if s.State != StepDone {
			continue
		}
		switch s.Type {
		case TagAdd, TagRemove:
			var c tagChange
			if json.Unmarshal(s.Output, &c) == nil {
				l.AddTags(c.Added...)
				l.RemoveTags(c.Removed...)
			}
		case LeadStage:
			var c stageChange
			if json.Unmarshal(s.Output, &c) == nil {
				l.MoveTo(c.Pipeline, c.To, c.Status, s.At)
			}
		case LeadScore:
			var c scoreChange
			if json.Unmarshal(s.Output, &c) == nil {
				l.Score += c.Points
			}
		case LeadSet:
			var c map[string]any
			if json.Unmarshal(s.Output, &c) == nil {
				if l.Fields == nil {
					l.Fields = map[string]any{}
				}
				maps.Copy(l.Fields, c)
			}
		}
	}
}
