package rule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Trial is what a rule is simulated with. The lead is named by its id or its phone.
type Trial struct {
	LeadID    string
	Phone     string
	Trigger   string // "": the rule's own
	Variables map[string]any
	At        time.Time // zero: now
}

// Simulation is what a rule would do.
type Simulation struct {
	Matched bool            `json:"matched"`
	Reason  string          `json:"reason,omitempty" doc:"Why it does not match, or why it would be held." example:"condition_false"`
	Held    *Held           `json:"held,omitempty" doc:"Names without a value: the run would wait for them and do nothing yet."`
	Steps   []SimulatedStep `json:"steps"`
}

// SimulatedStep is one action of a simulated run, in the order of the rule.
type SimulatedStep struct {
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	WouldRun bool            `json:"wouldRun"`
	At       *string         `json:"at" doc:"When; null if it would not run."`
	Rendered json.RawMessage `json:"rendered" doc:"What would be sent, or would change; null if it would not run."`
	Reason   string          `json:"reason,omitempty" doc:"Why it would not run, or would fail."`
}

// Reasons of a simulation, beside those of skips.
const (
	otherTrigger    = "other_trigger"
	missingVariable = "missing_variable"
	branchNotTaken  = "branch_not_taken"
	previousFailed  = "previous_failed"
	optedOut        = "opted_out"
)

// Simulate tells what a rule's draft would do for a lead. It decides with the same code as an event does, on copies, and
// writes nothing.
func (e *Engine) Simulate(ctx context.Context, tn *tenant.Tenant, ruleID string, t Trial) (*Simulation, error) {
	r, err := e.Rule(ctx, tn, ruleID)
	if err != nil {
		return nil, err
	}
	out := &Simulation{Steps: []SimulatedStep{}}
	switch t.Trigger {
	case "":
		t.Trigger = r.Draft.Trigger
	case r.Draft.Trigger:
	default:
		if !KnownTrigger(t.Trigger) {
			return nil, UnknownTrigger("/event/trigger")
		}
		out.Reason = otherTrigger
		return out, nil
	}
	lead, contact, err := e.subject(ctx, tn, t)
	if err != nil {
		return nil, err
	}
	if lead == nil {
		out.Reason = NoLead
		return out, nil
	}
	now := t.At.UTC()
	if t.At.IsZero() {
		now = e.Now().UTC()
	}
	ev := &Event{ID: id.New("evt"), Trigger: t.Trigger, LeadID: lead.ID, OccurredAt: now, ReceivedAt: now, Variables: t.Variables}
	draft := *r
	draft.Status, draft.Live = Live, &r.Draft
	if _, reason, err := e.admit(ctx, tn, &draft, ev, lead, contact, now); err != nil || reason != "" {
		out.Reason = reason
		return out, err
	}
	out.Matched = true
	stages, err := e.Book.Stages(ctx, tn)
	if err != nil {
		return nil, err
	}
	w := &walk{scope: newScope(ev, lead, contact, nil, now).in(stages), lead: lead, now: now}
	w.actions("", r.Draft.Actions)
	blocked := ""
	if len(w.missing) > 0 {
		out.Reason, out.Held, blocked = missingVariable, &Held{Reason: missingVariable, Names: w.missing}, missingVariable
	}
	var broken error
	out.add(w, "", r.Draft.Actions, blocked, func(st Step) string {
		reason, err := e.refusal(ctx, tn, contact, st)
		broken = errors.Join(broken, err)
		return reason
	})
	return out, broken
}

// subject finds the lead and the contact of a trial, as copies; nil where there is no such lead.
func (e *Engine) subject(ctx context.Context, tn *tenant.Tenant, t Trial) (*crm.Lead, *crm.Contact, error) {
	var lead *crm.Lead
	var err error
	if t.LeadID != "" {
		lead, err = crm.Leads.Get(ctx, tn.DB, t.LeadID)
	} else {
		phone, ok := crm.Phone(t.Phone, tn.Account().DefaultCountry)
		if !ok {
			return nil, nil, fault.Bad("/phone", "is not a phone number")
		}
		lead, err = e.Book.FindLead(ctx, tn, phone, "")
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	contact, err := e.Book.Person(ctx, tn, lead.ContactID)
	if errors.Is(err, store.ErrNotFound) {
		contact, err = &crm.Contact{ID: lead.ContactID, Name: lead.Name, Phone: lead.Phone, Email: lead.Email}, nil
	}
	return lead, contact, err
}

// add lists a rule's actions with what the walk made of them; blocked is why none of them would run,
// refusal tells why a send would not be made.
func (s *Simulation) add(w *walk, prefix string, as []Action, blocked string, refusal func(Step) string) string {
	for i, a := range as {
		at := fmt.Sprintf("%s%d", prefix, i)
		step := SimulatedStep{ID: at, Type: a.Type, Rendered: json.RawMessage("null")}
		k := slices.IndexFunc(w.steps, func(st Step) bool { return st.ID == at })
		switch {
		case k < 0:
			step.Reason = branchNotTaken
		case blocked == missingVariable:
			step.Reason = blocked
		case blocked != "" && w.steps[k].State == StepPlanned:
			step.Reason, step.Rendered = blocked, orEmpty(w.steps[k].Input)
		default:
			step.show(w.steps[k], refusal)
			if w.steps[k].State == StepPlanned && step.Reason != "" {
				blocked = previousFailed // the sends after one that fails are not made
			}
		}
		s.Steps = append(s.Steps, step)
		if a.Type == Branch {
			blocked = s.add(w, at+".then.", a.Then, blocked, refusal)
			blocked = s.add(w, at+".else.", a.Else, blocked, refusal)
		}
	}
	return blocked
}

// show tells of one step that the walk came to.
func (s *SimulatedStep) show(st Step, refusal func(Step) string) {
	switch st.State {
	case StepPlanned:
		s.Rendered = orEmpty(st.Input)
		s.Reason = refusal(st)
		s.WouldRun = s.Reason == ""
	case StepFailed: // a branch whose condition failed goes on with else
		s.WouldRun = st.Type == Branch
		if st.Error != nil {
			s.Reason = st.Error.Code
		}
	default:
		s.WouldRun, s.Rendered = true, orEmpty(st.Output)
	}
	if s.WouldRun {
		s.At = news.Stamp(st.At)
	}
}

// refusal tells why a planned send would not be made; "" if it would.
func (e *Engine) refusal(ctx context.Context, tn *tenant.Tenant, contact *crm.Contact, st Step) (string, error) {
	if contact.OptedOutAt != nil {
		return optedOut, nil
	}
	out, err := outgoing(&st)
	if err == nil {
		out.Contact, out.Seed, out.Origin = contact, "simulation", chat.Origin{RunID: "simulation", Step: st.ID}
		_, _, err = e.Desk.Plan(ctx, tn, out)
		if refused := (*chat.Refusal)(nil); err != nil && !errors.As(err, &refused) {
			return "", err
		}
	}
	if err != nil {
		return stepError(err).Code, nil
	}
	return "", nil
}

func orEmpty(m json.RawMessage) json.RawMessage {
	if len(m) == 0 {
		return json.RawMessage("null")
	}
	return m
}
