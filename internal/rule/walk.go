package rule

import (
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/tenant"
)

// walk goes through a rule's actions for one lead: what is internal is done to the lead at once, what is external
// becomes a planned step with frozen, rendered input. It stops at what must be waited for: the result of an external step
// that has not ended. It changes nothing but what it is given, and asks nobody.
type walk struct {
	scope  *scope
	lead   *crm.Lead
	now    time.Time
	zone   *time.Location
	leg    int
	cursor string // the action to begin at; "" the first
	steps  []Step
	scores []score
	// missing are the names without a value: the walk is void if there are any.
	missing []string
	stop    string          // the action that the walk stopped at; "" it came to the end
	open    map[string]bool // roots of results that are not there yet
	through bool            // does not stop: what hangs on a result that is not there is left alone
	looking bool            // only for what is missing: goes through, and records nothing
}

// newWalk makes the walk of a run's next leg.
func newWalk(tn *tenant.Tenant, run *Run, c *course, lead *crm.Lead, now time.Time) *walk {
	w := &walk{
		scope: newScope(c.ev, lead, c.contact, run.Extra, now), lead: lead, now: now, zone: lead.Zone(tn.Account().Zone()), leg: run.Leg,
		cursor: run.Cursor, open: map[string]bool{},
	}
	w.scope.setResults(run.Results)
	w.scope.open, w.scope.stages = w.open, c.stages
	return w
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

// actions walks through a list of actions, from the cursor if that is in it.
func (w *walk) actions(prefix string, as []Action) {
	i := 0
	if rest, ok := strings.CutPrefix(w.cursor, prefix); ok && rest != "" {
		head, inner, deeper := strings.Cut(rest, ".")
		n, err := strconv.Atoi(head)
		if err != nil || n >= len(as) {
			w.cursor = ""
			return
		}
		i = n
		if deeper {
			arm, _, _ := strings.Cut(inner, ".")
			w.arm(prefix+head, as[i], arm)
			i++
		} else {
			w.cursor = ""
		}
	}
	for ; i < len(as) && w.stop == ""; i++ {
		w.action(fmt.Sprintf("%s%d", prefix, i), as[i])
	}
}

func (w *walk) arm(at string, a Action, arm string) {
	as := a.Else
	if arm == "then" {
		as = a.Then
	}
	w.actions(at+"."+arm+".", as)
}

// waits tells whether an action must wait for a result.
func (w *walk) waits(a Action) bool {
	for root := range w.open {
		if a.uses(root) {
			return true
		}
	}
	return false
}

func (w *walk) action(at string, a Action) {
	if w.waits(a) {
		switch {
		case !w.through:
			w.stop = at
			return
		case !w.looking:
			w.leg++
		}
		if a.Type == Branch { // which arm is taken is not known yet
			w.step(Step{ID: at, Type: a.Type, State: StepSkipped, Error: &StepError{dependsOnResult, "Which way is taken depends on an earlier step."}})
			return
		}
	}
	switch a.Type {
	case SendTemplate:
		in := TemplateInput{Template: a.Template, Language: a.Language, Parameters: []string{}, From: a.From, Resend: a.OnUnconfirmed == "resend"}
		for _, p := range a.Parameters {
			in.Parameters = append(in.Parameters, w.fill(p))
		}
		w.plan(at, a.Type, in)
	case SendText:
		w.plan(at, a.Type, TextInput{Text: w.fill(a.Text), From: a.From, Resend: a.OnUnconfirmed == "resend"})
	case SendEmail:
		w.plan(at, a.Type, EmailInput{
			Subject: oneLine(w.fill(a.Subject)), HTML: w.fillWith(a.HTML, html.EscapeString), Text: w.fill(a.Text), Resend: a.OnUnconfirmed == "resend",
		})
	case CreateMeet:
		w.meet(at, a)
	case PostWebhook:
		w.plan(at, a.Type, WebhookInput{URL: a.URL})
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
		if !w.looking {
			w.scores = append(w.scores, score{at, *a.Points})
		}
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
			if s, ok := v.(string); ok && w.through && strings.Contains(s, "{{") {
				w.lead.Fields[k] = "…" // of a result that is still to come
			}
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
		w.arm(at, a, taken)
	}
}

// meet plans a meeting. One whose time cannot be read is planned without an input, and fails when its turn comes.
func (w *walk) meet(at string, a Action) {
	in := MeetInput{Title: oneLine(w.fill(a.Title)), DurationMinutes: a.DurationMinutes, TimeZone: w.zone.String()}
	zone := w.zone
	bad := false
	if name := w.fill(a.TimeZone); name != "" {
		z, err := crm.LoadZone(name)
		if bad = err != nil; !bad {
			zone, in.TimeZone = z, name
		}
	}
	var err error
	if in.StartsAt, err = clock.Parse(w.fill(a.StartsAt), zone); err != nil {
		bad = true
	}
	for _, p := range a.Attendees {
		in.Attendees = append(in.Attendees, Attendee{Email: w.fill(p.Email), Name: oneLine(w.fill(p.Name))})
	}
	s := Step{ID: at, Type: a.Type, State: StepPlanned, Input: raw(in)}
	if bad {
		s.Error = &StepError{"invalid_time", "startsAt is no time, or timeZone no time zone, once the placeholders are filled."}
	}
	w.step(s)
	w.open["meet"] = true
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (w *walk) fill(text string) string { return w.fillWith(text, nil) }

// fillWith fills a text's placeholders, each value escaped.
func (w *walk) fillWith(text string, escape func(string) string) string {
	out, missing := w.scope.render(text, escape)
	for _, m := range missing {
		if !slices.Contains(w.missing, m) {
			w.missing = append(w.missing, m)
		}
	}
	return out
}

func (w *walk) step(s Step) {
	if w.looking {
		return
	}
	s.At, s.Leg = w.now, w.leg
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

// maxInput bounds what a step becomes once its placeholders are filled.
const maxInput = 512 << 10

func (w *walk) plan(at, typ string, input any) {
	in := raw(input)
	if len(in) > maxInput {
		in = nil // fails when its turn comes
	}
	w.step(Step{ID: at, Type: typ, State: StepPlanned, Input: in})
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
