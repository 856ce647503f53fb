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
	used    int             // bytes that the run's texts come to so far
	long    bool            // a text of this action is too long
}

// newWalk makes the walk of a run's next leg.
func newWalk(tn *tenant.Tenant, run *Run, c *course, lead *crm.Lead, now time.Time) *walk {
	home := tn.Account().Zone()
	w := &walk{
		scope: newScope(c.ev, lead, c.contact, run.Extra, now), lead: lead, now: now, zone: lead.Zone(home), home: home, leg: run.Leg,
		cursor: run.Cursor, open: map[string]bool{}, over: map[string]bool{}, post: postSubject{c.ev, run},
	}
	for i := range run.Steps {
		w.used += len(run.Steps[i].Input)
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
	w.long = false
	switch a.Type {
	case TagAdd, TagRemove, LeadSet:
		if w.used >= maxRunTexts { // what is done is recorded, and there is no room for it
			w.step(Step{ID: at, Type: a.Type, State: StepFailed, Error: errTooLong()})
			return
		}
	}
	switch a.Type {
	case SendTemplate:
		in := TemplateInput{Template: a.Template, Language: a.Language, Parameters: []string{}, From: a.From, Resend: a.OnUnconfirmed == "resend"}
		for _, p := range a.Parameters {
			in.Parameters = append(in.Parameters, w.fill(p, maxParameter))
		}
		w.plan(at, a.Type, in)
	case SendText:
		w.plan(at, a.Type, TextInput{Text: w.fill(a.Text, maxText), From: a.From, Resend: a.OnUnconfirmed == "resend"})
	case SendEmail:
		w.plan(at, a.Type, EmailInput{
			Subject: oneLine(w.fill(a.Subject, maxLine)), HTML: w.fillWith(a.HTML, maxMail, html.EscapeString), Text: w.fill(a.Text, maxMail), Resend: a.OnUnconfirmed == "resend",
		})
	case CreateMeet:
		w.meet(at, a)
	case PostWebhook:
		in := WebhookInput{URL: a.URL}
		if w.long = w.used >= maxRunTexts; !w.long {
			in.Body = w.postBody(at)
			w.long = !w.spend(len(in.Body))
		}
		w.plan(at, a.Type, in)
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
		before := slices.Clone(w.lead.Tags)
		c := tagChange{Added: w.lead.AddTags(a.Tags...)}
		if len(w.lead.Tags) > mostTags && len(c.Added) > 0 {
			w.lead.Tags = before
			w.step(Step{ID: at, Type: a.Type, State: StepFailed, Error: &StepError{"lead.full", "The lead has as many tags as it may have; it was given none."}})
			break
		}
		w.did(at, a, c)
	case TagRemove:
		w.did(at, a, tagChange{Removed: w.lead.RemoveTags(a.Tags...)})
	case LeadScore:
		w.lead.Score += *a.Points
		if !w.looking {
			w.scores = append(w.scores, score{at, *a.Points})
		}
		w.did(at, a, scoreChange{Points: *a.Points, Score: w.lead.Score})
	case LeadSet:
		w.set(at, a)
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

// mostTags is what automations may bring a lead to: beyond, it could not be found by its tags.
const mostTags = 250

// set sets fields of the lead: all that the action names, or none.
func (w *walk) set(at string, a Action) {
	fields, out := clone(w.lead.Fields), map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(a.Fields)) {
		v := a.Fields[k]
		if s, ok := v.(string); ok {
			v = w.fill(s, maxText)
		}
		fields[k], out[k] = v, v
		if s, ok := v.(string); ok && w.through && strings.Contains(s, "{{") {
			fields[k] = "…" // of a result that is still to come
		}
	}
	switch {
	case w.long:
		w.step(Step{ID: at, Type: a.Type, State: StepFailed, Error: errTooLong()})
	case len(fields) > crm.MaxFields || len(raw(fields)) > crm.MaxFieldsLen:
		w.step(Step{ID: at, Type: a.Type, State: StepFailed, Error: &StepError{"lead.full", "The lead's fields would be more than it may have; none was set."}})
	default:
		w.lead.Fields = fields
		w.did(at, a, out)
	}
}

func errTooLong() *StepError {
	return &StepError{"too_long", "The step is too long once its placeholders are filled."}
}

// meet plans a meeting.
func (w *walk) meet(at string, a Action) {
	in := MeetInput{Title: oneLine(w.fill(a.Title, maxLine)), DurationMinutes: a.DurationMinutes, TimeZone: w.zone.String()}
	zone := w.home
	if name := w.fill(a.TimeZone, maxShort); name != "" && !strings.Contains(name, "{{") {
		z, err := clock.Zone(name)
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
		in.Attendees = append(in.Attendees, Attendee{Email: w.fill(p.Email, maxShort), Name: oneLine(w.fill(p.Name, maxLine))})
	}
	w.plan(at, a.Type, in)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (w *walk) fill(text string, most int) string { return w.fillWith(text, most, nil) }

// fillWith fills a text's placeholders, each value escaped. What comes to more than most characters, or for which the run
// or the event has no room left, is nothing, and makes the action too long.
func (w *walk) fillWith(text string, most int, escape func(string) string) string {
	if text == "" || w.long {
		return ""
	}
	out, missing, ok := "", []string(nil), w.used < maxRunTexts
	if ok {
		out, missing, ok = w.scope.render(text, most, escape)
	}
	for _, m := range missing {
		w.miss(m)
	}
	if w.long = !ok || !w.spend(len(out)); w.long {
		return ""
	}
	return out
}

// spend takes room for n bytes; false if there is not so much left.
func (w *walk) spend(n int) bool {
	if w.used+n > maxRunTexts || !w.scope.purse.write(n) {
		w.used = maxRunTexts
		return false
	}
	w.used += n
	return true
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
	s := Step{ID: at, Type: a.Type, State: StepDone, Output: raw(output)}
	w.spend(len(s.Output)) // it is done: without room, it is the last
	w.step(s)
}

// plan records an external step. One that is too long fails when its turn comes.
func (w *walk) plan(at, typ string, input any) {
	s := Step{ID: at, Type: typ, State: StepPlanned}
	if w.long {
		s.Error = errTooLong()
	} else {
		s.Input = raw(input)
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
