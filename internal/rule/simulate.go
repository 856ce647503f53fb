package rule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

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
	Variables Values
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
	dependsOnResult = "depends_on_result"
	tooLate         = "too_late"
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
	w := newWalk(tn, &Run{}, &course{ev: ev, def: &r.Draft, lead: lead, contact: contact, stages: stages}, lead, now)
	w.through = true
	w.actions("", r.Draft.Actions)
	tr := &trace{steps: w.steps, refused: map[string]string{}}
	if len(w.missing) > 0 {
		out.Reason, out.Held = missingVariable, &Held{Reason: missingVariable, Names: w.missing}
		tr.blocked = missingVariable
	} else if err := tr.ask(ctx, e, tn, contact); err != nil {
		return nil, err
	}
	tr.list(out, "", r.Draft.Actions)
	return out, nil
}

// trace is what a walk made of a rule's actions.
type trace struct {
	steps   []Step
	refused map[string]string // why an external step would not be made, by its id
	blocked string            // why none of the steps to come would be done
	leg     int               // in which the step stands that blocks the others
}

// ask finds out which of the external steps would be refused.
func (tr *trace) ask(ctx context.Context, e *Engine, tn *tenant.Tenant, contact *crm.Contact) error {
	for i := range tr.steps {
		st := &tr.steps[i]
		if st.State != StepPlanned {
			continue
		}
		if sends(st.Type) && contact.OptedOutAt != nil {
			tr.refused[st.ID] = optedOut
			continue
		}
		_, _, err := e.planStep(ctx, tn, &Run{ID: "simulation"}, st, contact, st.At, true)
		if se := stepError(err); se != nil {
			tr.refused[st.ID] = se.Code
		} else if err != nil {
			return err
		}
	}
	return nil
}

// subject finds the lead and the contact of a trial, as copies; nil where there is no such lead.
func (e *Engine) subject(ctx context.Context, tn *tenant.Tenant, t Trial) (*crm.Lead, *crm.Contact, error) {
	var lead *crm.Lead
	var err error
	if t.LeadID != "" {
		lead, err = e.Book.LeadByID(ctx, tn, t.LeadID)
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

// list tells of a rule's actions in their order.
func (tr *trace) list(out *Simulation, prefix string, as []Action) {
	for i, a := range as {
		at := fmt.Sprintf("%s%d", prefix, i)
		k := slices.IndexFunc(tr.steps, func(st Step) bool { return st.ID == at })
		if k < 0 {
			out.Steps = append(out.Steps, SimulatedStep{ID: at, Type: a.Type, Rendered: orEmpty(nil), Reason: branchNotTaken})
		} else {
			out.Steps = append(out.Steps, tr.show(tr.steps[k]))
		}
		if a.Type == Branch {
			tr.list(out, at+".then.", a.Then)
			tr.list(out, at+".else.", a.Else)
		}
	}
}

// show tells of one step that the walk came to.
func (tr *trace) show(st Step) SimulatedStep {
	s := SimulatedStep{ID: st.ID, Type: st.Type, Rendered: orEmpty(nil)}
	external := st.State == StepPlanned
	switch {
	case tr.blocked == missingVariable:
		s.Reason = tr.blocked
		return s
	case tr.blocked != "" && (external || st.Leg > tr.leg):
		s.Reason, s.Rendered = tr.blocked, orEmpty(st.Input)
		return s
	case external:
		s.Rendered, s.Reason = orEmpty(st.Input), tr.refused[st.ID]
		if s.WouldRun = s.Reason == ""; !s.WouldRun {
			tr.blocked, tr.leg = previousFailed, st.Leg // the external steps after one that fails are not made
		}
	case st.State == StepSkipped:
		s.Reason = st.Error.Code
	case st.State == StepFailed: // a branch whose condition failed goes on with else
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
	return s
}

func orEmpty(m json.RawMessage) json.RawMessage {
	if len(m) == 0 {
		return json.RawMessage("null")
	}
	return m
}
