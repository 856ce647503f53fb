package rule

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/fault"
)

// Triggers are the names of events that the contract knows; "custom.*" is open.
var Triggers = []string{
	"appointment_confirmed", "product_purchased", "service_enrolled", "form_submitted", "appointment_reminder",
	"deal_won", "deal_lost", "tag_added", "tag_removed",
	"lead_created", "stage_changed", "message_received", "message_failed", "link_clicked", "score_crossed",
	"appointment_cancelled", "appointment_rescheduled",
}

var customTrigger = regexp.MustCompile(`^custom\.[A-Za-z0-9_.-]{1,64}$`)

// KnownTrigger tells whether an event may have this name.
func KnownTrigger(t string) bool { return slices.Contains(Triggers, t) || customTrigger.MatchString(t) }

// UnknownTrigger is the fault for another name; it lists the known ones.
func UnknownTrigger(pointer string) error {
	return fault.Bad(pointer, "is not a known trigger; known are %s and custom.*", strings.Join(Triggers, ", "))
}

// Definition is what a rule does, as its author writes it.
type Definition struct {
	Trigger   string   `json:"trigger"`
	Condition string   `json:"condition,omitempty"`
	Reenrol   Reenrol  `json:"reenrol"`
	Actions   []Action `json:"actions"`
}

// Action is one step. Which members a type takes stands in actionForms; others are refused.
type Action struct {
	Type          string         `json:"type"`
	Template      string         `json:"template,omitempty"`
	Language      string         `json:"language,omitempty"`
	Parameters    []string       `json:"parameters,omitempty"`
	From          string         `json:"from,omitempty"` // a phone number id of the client
	OnUnconfirmed string         `json:"onUnconfirmed,omitempty"`
	Text          string         `json:"text,omitempty"`
	Pipeline      string         `json:"pipeline,omitempty"`
	Stage         string         `json:"stage,omitempty"`
	Tags          []string       `json:"tags,omitempty"`
	Points        *float64       `json:"points,omitempty"`
	Fields        map[string]any `json:"fields,omitempty"`
	Condition     string         `json:"condition,omitempty"`
	Then          []Action       `json:"then,omitempty"`
	Else          []Action       `json:"else,omitempty"`
}

// The action types.
const (
	SendTemplate = "whatsapp.template"
	SendText     = "whatsapp.text"
	LeadStage    = "lead.stage"
	TagAdd       = "lead.tag.add"
	TagRemove    = "lead.tag.remove"
	LeadScore    = "lead.score"
	LeadSet      = "lead.set"
	Branch       = "branch"
)

// form is what members an action type takes.
type form struct{ needs, may []string }

var actionForms = map[string]form{
	SendTemplate: {needs: []string{"template", "language"}, may: []string{"parameters", "from", "onUnconfirmed"}},
	SendText:     {needs: []string{"text"}, may: []string{"from", "onUnconfirmed"}},
	LeadStage:    {needs: []string{"stage"}, may: []string{"pipeline"}},
	TagAdd:       {needs: []string{"tags"}},
	TagRemove:    {needs: []string{"tags"}},
	LeadScore:    {needs: []string{"points"}},
	LeadSet:      {needs: []string{"fields"}},
	Branch:       {needs: []string{"condition"}, may: []string{"then", "else"}},
}

// Limits of a definition.
const (
	maxActions = 100 // with those of branches
	maxDepth   = 5   // of branches
	maxText    = 4096
)

// Reenrol says whether a lead that went through a rule may enter it again.
type Reenrol struct {
	Mode     string // once_active, once_ever, every_event, cooldown
	Cooldown string // of mode cooldown: a duration such as "24h" or "7d"
}

// The modes.
const (
	OnceActive = "once_active"
	OnceEver   = "once_ever"
	EveryEvent = "every_event"
	Cooldown   = "cooldown"
)

// MarshalJSON gives "once_active" or {"cooldown":"24h"}.
func (r Reenrol) MarshalJSON() ([]byte, error) {
	if r.Mode == Cooldown {
		return json.Marshal(map[string]string{"cooldown": r.Cooldown})
	}
	if r.Mode == "" {
		return json.Marshal(OnceActive)
	}
	return json.Marshal(r.Mode)
}

// UnmarshalJSON reads both forms.
func (r *Reenrol) UnmarshalJSON(b []byte) error {
	var mode string
	if json.Unmarshal(b, &mode) == nil {
		*r = Reenrol{Mode: mode}
		return nil
	}
	var o struct {
		Cooldown *string `json:"cooldown"`
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil || o.Cooldown == nil {
		return fault.Bad("/reenrol", `must be "once_active", "once_ever", "every_event" or {"cooldown":"24h"}`)
	}
	*r = Reenrol{Mode: Cooldown, Cooldown: *o.Cooldown}
	return nil
}

// Validate tells everything that is wrong with a definition, with JSON pointers.
func (d *Definition) Validate() error {
	v := &validation{}
	if !KnownTrigger(d.Trigger) {
		v.add("/trigger", "is not a known trigger; known are %s and custom.*", strings.Join(Triggers, ", "))
	}
	v.condition("/condition", d.Condition)
	switch d.Reenrol.Mode {
	case "", OnceActive, OnceEver, EveryEvent:
	case Cooldown:
		if _, err := parseDuration(d.Reenrol.Cooldown); err != nil {
			v.add("/reenrol/cooldown", "%s", err)
		}
	default:
		v.add("/reenrol", `must be "once_active", "once_ever", "every_event" or {"cooldown":"24h"}`)
	}
	if len(d.Actions) == 0 {
		v.add("/actions", "must hold at least one action")
	}
	v.actions("/actions", d.Actions, 0)
	if v.count > maxActions {
		v.add("/actions", "holds more than %d actions", maxActions)
	}
	return fault.BadFields(v.fields)
}

type validation struct {
	fields []fault.Field
	count  int
}

func (v *validation) add(pointer, format string, args ...any) {
	if len(v.fields) < 20 {
		v.fields = append(v.fields, fault.Field{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
}

func (v *validation) condition(pointer, src string) {
	if src == "" {
		return
	}
	if _, err := compile(src); err != nil {
		v.add(pointer, "%s", err)
	}
}

func (v *validation) placeholders(pointer, text string) {
	if err := checkPlaceholders(text); err != nil {
		v.add(pointer, "%s", err)
	}
}

var stageForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (v *validation) actions(at string, as []Action, depth int) {
	if depth > maxDepth {
		v.add(at, "is nested deeper than %d branches", maxDepth)
		return
	}
	for i := range as {
		v.count++
		if v.count > maxActions {
			return
		}
		v.action(fmt.Sprintf("%s/%d", at, i), &as[i], depth)
	}
}

func (v *validation) action(p string, a *Action, depth int) {
	f, ok := actionForms[a.Type]
	if !ok {
		v.add(p+"/type", "is not a known action type")
		return
	}
	set := a.members()
	for _, m := range f.needs {
		if !slices.Contains(set, m) {
			v.add(p+"/"+m, "is required for %s", a.Type)
		}
	}
	for _, m := range set {
		if !slices.Contains(f.needs, m) && !slices.Contains(f.may, m) {
			v.add(p+"/"+m, "does not belong to %s", a.Type)
		}
	}
	for _, t := range []struct{ name, text string }{{"template", a.Template}, {"language", a.Language}, {"text", a.Text}, {"stage", a.Stage}} {
		if len(t.text) > maxText {
			v.add(p+"/"+t.name, "is longer than %d bytes", maxText)
		}
	}
	v.placeholders(p+"/text", a.Text)
	for i, t := range a.Parameters {
		v.placeholders(fmt.Sprintf("%s/parameters/%d", p, i), t)
		if strings.TrimSpace(t) == "" {
			v.add(fmt.Sprintf("%s/parameters/%d", p, i), "must not be empty: WhatsApp refuses empty parameters")
		}
	}
	for i, t := range a.Tags {
		if t = strings.TrimSpace(t); t == "" || len(t) > 100 {
			v.add(fmt.Sprintf("%s/tags/%d", p, i), "must be 1 to 100 bytes")
		}
	}
	for k, val := range a.Fields {
		if k == "" || len(k) > 100 {
			v.add(p+"/fields", "has a name that is not 1 to 100 bytes")
		}
		if s, ok := val.(string); ok {
			v.placeholders(p+"/fields/"+pointerEscape(k), s)
		}
	}
	if a.Stage != "" && !stageForm.MatchString(a.Stage) {
		v.add(p+"/stage", "must match %s", stageForm)
	}
	if a.Pipeline != "" && !stageForm.MatchString(a.Pipeline) {
		v.add(p+"/pipeline", "must match %s", stageForm)
	}
	if u := a.OnUnconfirmed; u != "" && u != "resend" {
		v.add(p+"/onUnconfirmed", `must be "resend", or be left out`)
	}
	if a.Points != nil && (*a.Points < -1000 || *a.Points > 1000) {
		v.add(p+"/points", "must be -1000 to 1000")
	}
	if a.Type == Branch {
		v.condition(p+"/condition", a.Condition)
		if len(a.Then)+len(a.Else) == 0 {
			v.add(p+"/then", "a branch needs actions")
		}
		v.actions(p+"/then", a.Then, depth+1)
		v.actions(p+"/else", a.Else, depth+1)
	}
}

// members are the names of the members that are set, but the type.
func (a *Action) members() []string {
	b, err := json.Marshal(a)
	if err != nil {
		return nil
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(b, &m) != nil {
		return nil
	}
	delete(m, "type")
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func pointerEscape(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }
