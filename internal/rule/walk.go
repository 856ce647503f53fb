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
	zone   *time.Location // in which days are counted: the lead's
	home   *time.Location // in which times without a zone are read: the client's
	leg    int
	cursor string // the action to begin at; "" the first
	steps  []Step
	scores []score
	// missing are the names without a value: the walk is void if there are any.
	missing []string
	stop    string          // the action that the walk stopped at; "" it came to the end
	until   time.Time       // when the wait is over that it stopped at
	over    map[string]bool // waits that are
	pending bool            // an external step is planned
	open    map[string]bool // roots of results that are not there yet
	late    bool            // the moment has passed for which the last wait was: nothing external is done
	latest  time.Time       // until when that is so no longer; zero: ever
	post    postSubject     // what webhooks tell
	through bool            // does not stop: what hangs on a result that is not there is left alone
	looking bool            // only for what is missing: goes through, and records nothing
}

// newWalk makes the walk of a run's next leg.
func newWalk(tn *tenant.Tenant, run *Run, c *course, lead *crm.Lead, now time.Time) *walk {
	home := tn.Account().Zone()
	w := &walk{
		scope: newScope(c.ev, lead, c.contact, run.Extra, now), lead: lead, now: now, zone: lead.Zone(home), home: home, leg: run.Leg,
		cursor: run.Cursor, open: map[string]bool{}, over: map[string]bool{}, post: postSubject{c.ev, run},
	}
	for i := range run.Steps {
		if s := &run.Steps[i]; s.Type == Wait && s.State != StepWaiting {
			w.over[s.ID] = true
			if s.ID == run.Cursor {
				w.late, w.latest = s.State == StepSkipped, s.due().Latest
			}
		}
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
		w.plan(at, a.Type, WebhookInput{URL: a.URL, Body: w.postBody(at)})
	case Wait:
		w.wait(at, a)
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

// meet plans a meeting.
func (w *walk) meet(at string, a Action) {
	in := MeetInput{Title: oneLine(w.fill(a.Title)), DurationMinutes: a.DurationMinutes, TimeZone: w.zone.String()}
	zone := w.home
	if name := w.fill(a.TimeZone); name != "" && !strings.Contains(name, "{{") {
		z, err := crm.LoadZone(name)
		if err != nil {
			for _, m := range placeholder.FindAllStringSubmatch(a.TimeZone, -1) {
				w.miss(m[1])
			}
		} else {
			zone, in.TimeZone = z, name
		}
	}
	in.StartsAt, _ = w.moment(a.StartsAt, zone)
	for _, p := range a.Attendees {
		in.Attendees = append(in.Attendees, Attendee{Email: w.fill(p.Email), Name: oneLine(w.fill(p.Name))})
	}
	w.plan(at, a.Type, in)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (w *walk) fill(text string) string { return w.fillWith(text, nil) }

// fillWith fills a text's placeholders, each value escaped.
func (w *walk) fillWith(text string, escape func(string) string) string {
	out, missing := w.scope.render(text, escape)
	for _, m := range missing {
		w.miss(m)
	}
	return out
}

func (w *walk) miss(name string) {
	if head, _, _ := strings.Cut(name, "."); !w.open[head] && !slices.Contains(w.missing, name) {
		w.missing = append(w.missing, name)
	}
}

func (w *walk) step(s Step) {
	if w.looking {
		return
	}
	s.At, s.Leg = w.now, w.leg
	if s.State != StepPlanned && s.State != StepWaiting {
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

// plan records an external step.
func (w *walk) plan(at, typ string, input any) {
	s := Step{ID: at, Type: typ, State: StepPlanned, Input: raw(input)}
	if len(s.Input) > maxInput {
		s.Input = nil // fails when its turn comes
	}
	if w.late {
		s.State, s.Error = StepSkipped, errTooLate()
		w.step(s)
		return
	}
	if !w.latest.IsZero() {
		latest := w.latest
		s.Latest = &latest
	}
	w.step(s)
	w.pending = true
	if root := external[typ]; root != "" {
		w.open[root] = true
	}
	if typ == CreateMeet {
		w.open["appointment"] = true
	}
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
