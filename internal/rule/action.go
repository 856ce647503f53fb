package rule

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
)

// Action is one step. Which members a type takes stands in actionForms; others are refused.
type Action struct {
	Type            string         `json:"type"`
	Template        string         `json:"template,omitempty"`
	Language        string         `json:"language,omitempty"`
	Parameters      []string       `json:"parameters,omitempty"`
	From            string         `json:"from,omitempty"` // a phone number id of the client
	OnUnconfirmed   string         `json:"onUnconfirmed,omitempty"`
	Text            string         `json:"text,omitempty"`
	Subject         string         `json:"subject,omitempty"`
	HTML            string         `json:"html,omitempty"`
	Title           string         `json:"title,omitempty"`
	StartsAt        string         `json:"startsAt,omitempty" doc:"RFC 3339, or a local time in timeZone; may be a placeholder." example:"{{startsAt}}"`
	DurationMinutes int            `json:"durationMinutes,omitempty"`
	TimeZone        string         `json:"timeZone,omitempty" doc:"IANA; the lead's if left out."`
	Attendees       []Attendee     `json:"attendees,omitempty" doc:"Besides the lead."`
	URL             string         `json:"url,omitempty"`
	For             string         `json:"for,omitempty" doc:"s, m and h elapse; d and w go by the calendar of the lead's zone." example:"24h"`
	Until           string         `json:"until,omitempty" doc:"RFC 3339, or a local time in the lead's zone; may be a placeholder." example:"{{startsAt}}"`
	Offset          string         `json:"offset,omitempty" doc:"Of until: before it with a minus sign." example:"-24h"`
	Pipeline        string         `json:"pipeline,omitempty"`
	Stage           string         `json:"stage,omitempty"`
	Tags            []string       `json:"tags,omitempty"`
	Points          *float64       `json:"points,omitempty"`
	Fields          map[string]any `json:"fields,omitempty"`
	Condition       string         `json:"condition,omitempty"`
	Then            []Action       `json:"then,omitempty"`
	Else            []Action       `json:"else,omitempty"`
}

// Attendee is somebody who is asked to a meeting.
type Attendee struct {
	Email string `json:"email"`
	Name  string `json:"name,omitempty"`
}

// The action types.
const (
	SendTemplate = "whatsapp.template"
	SendText     = "whatsapp.text"
	SendEmail    = "email.send"
	CreateMeet   = "meet.create"
	PostWebhook  = "webhook.post"
	LeadStage    = "lead.stage"
	TagAdd       = "lead.tag.add"
	TagRemove    = "lead.tag.remove"
	LeadScore    = "lead.score"
	LeadSet      = "lead.set"
	Wait         = "wait"
	Branch       = "branch"
)

// form is what members an action type takes.
type form struct{ needs, may []string }

var actionForms = map[string]form{
	SendTemplate: {needs: []string{"template", "language"}, may: []string{"parameters", "from", "onUnconfirmed"}},
	SendText:     {needs: []string{"text"}, may: []string{"from", "onUnconfirmed"}},
	SendEmail:    {needs: []string{"subject"}, may: []string{"html", "text", "onUnconfirmed"}},
	CreateMeet:   {needs: []string{"title", "startsAt", "durationMinutes"}, may: []string{"timeZone", "attendees"}},
	PostWebhook:  {needs: []string{"url"}},
	LeadStage:    {needs: []string{"stage"}, may: []string{"pipeline"}},
	TagAdd:       {needs: []string{"tags"}},
	TagRemove:    {needs: []string{"tags"}},
	LeadScore:    {needs: []string{"points"}},
	LeadSet:      {needs: []string{"fields"}},
	Wait:         {may: []string{"for", "until", "offset"}},
	Branch:       {needs: []string{"condition"}, may: []string{"then", "else"}},
}

// external are the types that are done outside this process, by a Doer, with the root under which later actions find
// what came of them ("" for those that leave nothing).
var external = map[string]string{SendTemplate: "", SendText: "", SendEmail: "", CreateMeet: "meet", PostWebhook: ""}

// sends tells whether an action type writes to the lead: its ref is then a message's id.
func sends(typ string) bool { return typ == SendTemplate || typ == SendText || typ == SendEmail }

// texts are the members that may hold placeholders, by their pointers.
func (a *Action) texts() map[string]string {
	m := map[string]string{"/text": a.Text, "/subject": a.Subject, "/html": a.HTML, "/title": a.Title, "/startsAt": a.StartsAt, "/timeZone": a.TimeZone, "/until": a.Until}
	for i, p := range a.Parameters {
		m[fmt.Sprintf("/parameters/%d", i)] = p
	}
	for i, at := range a.Attendees {
		m[fmt.Sprintf("/attendees/%d/email", i)], m[fmt.Sprintf("/attendees/%d/name", i)] = at.Email, at.Name
	}
	for k, v := range a.Fields {
		if s, ok := v.(string); ok {
			m["/fields/"+pointerEscape(k)] = s
		}
	}
	return m
}

// uses tells whether an action itself needs the result of an earlier one; the actions of a branch are not looked at.
func (a *Action) uses(root string) bool {
	if a.Type == Branch {
		return namesRoot(a.Condition, root)
	}
	for _, t := range a.texts() {
		for _, m := range placeholder.FindAllStringSubmatch(t, -1) {
			if head, _, _ := strings.Cut(m[1], "."); head == root {
				return true
			}
		}
	}
	return false
}

// namesRoot tells whether a condition may name a root. One that only seems to waits longer than it must.
func namesRoot(condition, root string) bool {
	ok, err := regexp.MatchString(`(^|[^A-Za-z0-9_.])`+root+`\b`, condition)
	return ok || err != nil
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
	if v.absent != nil && v.absent(a.Type) {
		v.add(p+"/type", "is not available")
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
	most := map[string]int{"/subject": maxSubject, "/title": maxSubject, "/html": maxHTML}
	if a.Type == SendEmail {
		most["/text"] = maxHTML
	}
	for _, t := range []struct{ at, text string }{
		{"/template", a.Template}, {"/language", a.Language}, {"/text", a.Text}, {"/stage", a.Stage}, {"/subject", a.Subject}, {"/html", a.HTML},
		{"/title", a.Title}, {"/startsAt", a.StartsAt}, {"/timeZone", a.TimeZone}, {"/until", a.Until}, {"/url", a.URL},
	} {
		limit := most[t.at]
		if limit == 0 {
			limit = maxText
		}
		if len(t.text) > limit {
			v.add(p+t.at, "is longer than %d bytes", limit)
		}
	}
	for at, t := range a.texts() {
		v.placeholders(p+at, t)
	}
	for i, t := range a.Parameters {
		if len(t) > maxText {
			v.add(fmt.Sprintf("%s/parameters/%d", p, i), "is longer than %d bytes", maxText)
		}
		if strings.TrimSpace(t) == "" {
			v.add(fmt.Sprintf("%s/parameters/%d", p, i), "must not be empty: WhatsApp refuses empty parameters")
		}
	}
	for i, t := range a.Tags {
		if t = strings.TrimSpace(t); t == "" || len(t) > 100 {
			v.add(fmt.Sprintf("%s/tags/%d", p, i), "must be 1 to 100 bytes")
		}
	}
	if len(a.Tags) > maxTags {
		v.add(p+"/tags", "must be at most %d", maxTags)
	}
	for k, f := range a.Fields {
		if k == "" || len(k) > 100 {
			v.add(p+"/fields", "has a name that is not 1 to 100 bytes")
		}
		if s, ok := f.(string); ok && len(s) > maxText {
			v.add(p+"/fields/"+pointerEscape(k), "is longer than %d bytes", maxText)
		}
	}
	if len(a.Fields) > 0 && len(raw(a.Fields)) > maxFields {
		v.add(p+"/fields", "is longer than %d bytes", maxFields)
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
	switch a.Type {
	case SendEmail:
		if a.HTML == "" && a.Text == "" {
			v.add(p+"/text", "an e-mail needs html or text")
		}
	case CreateMeet:
		v.meet(p, a)
	case PostWebhook:
		if why := v.networks.refuse(a.URL); a.URL != "" && why != "" {
			v.add(p+"/url", "%s", why)
		}
	case Wait:
		v.wait(p, a)
	case Branch:
		v.condition(p+"/condition", a.Condition)
		if len(a.Then)+len(a.Else) == 0 {
			v.add(p+"/then", "a branch needs actions")
		}
		v.actions(p+"/then", a.Then, depth+1)
		v.actions(p+"/else", a.Else, depth+1)
	}
}

func (v *validation) meet(p string, a *Action) {
	if a.DurationMinutes != 0 && (a.DurationMinutes < 1 || a.DurationMinutes > 24*60) {
		v.add(p+"/durationMinutes", "must be 1 to 1,440")
	}
	v.zone(p+"/timeZone", a.TimeZone)
	v.moment(p+"/startsAt", a.StartsAt)
	if len(a.Attendees) > 50 {
		v.add(p+"/attendees", "must be at most 50")
	}
	for i, at := range a.Attendees {
		if at.Email == "" || len(at.Email) > 254 || len(at.Name) > 200 {
			v.add(fmt.Sprintf("%s/attendees/%d/email", p, i), "must be an e-mail address, or a placeholder")
		}
	}
}

func (v *validation) wait(p string, a *Action) {
	switch {
	case (a.For == "") == (a.Until == ""):
		v.add(p+"/for", "a wait has either for or until")
	case a.For != "":
		if sp, err := clock.ParseSpan(a.For); err != nil || sp.Negative() {
			v.add(p+"/for", `must be a duration such as "30m", "24h" or "7d"`)
		}
		if a.Offset != "" {
			v.add(p+"/offset", "belongs to until")
		}
	default:
		v.moment(p+"/until", a.Until)
		if a.Offset != "" {
			if _, err := clock.ParseSpan(a.Offset); err != nil {
				v.add(p+"/offset", `must be a duration such as "-24h" or "1d"`)
			}
		}
	}
}

// moment checks a time that is written out; one with placeholders is known only when it is filled.
func (v *validation) moment(pointer, text string) {
	if text == "" || strings.Contains(text, "{{") {
		return
	}
	if _, err := clock.Parse(text, time.UTC); err != nil {
		v.add(pointer, "%s", err)
	}
}

func (v *validation) zone(pointer, name string) {
	if name == "" || strings.Contains(name, "{{") {
		return
	}
	if _, err := clock.Zone(name); err != nil {
		v.add(pointer, "is not an IANA time zone")
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
