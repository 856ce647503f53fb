package rule

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Messages is the Doer of WhatsApp sends; a ref is a message's id.
type Messages struct{ Desk *chat.Desk }

// Plan implements Doer.
func (d Messages) Plan(ctx context.Context, tn *tenant.Tenant, t Task) (string, []store.Write, error) {
	out, err := outgoing(t)
	if err != nil {
		return "", nil, err
	}
	out.Contact, out.LeadID, out.Origin, out.Seed = t.Contact, t.LeadID, chat.Origin{RunID: t.RunID, Step: t.Step}, t.Seed
	m, writes, err := d.Desk.Plan(ctx, tn, out)
	if err != nil {
		return "", nil, err
	}
	return m.ID, writes, nil
}

// Job implements Doer.
func (d Messages) Job(tn *tenant.Tenant, ref string, cause store.Causation) store.NewJob {
	return d.Desk.SendOf(tn, &chat.Message{ID: ref}, cause)
}

// needs is the resource of a send: the number that its frozen input names.
func (d Messages) needs(tn *tenant.Tenant, input json.RawMessage) string {
	var in struct {
		From string `json:"from"`
	}
	_ = json.Unmarshal(input, &in) // ours; without it, it is the first number
	return d.Desk.Needs(tn, in.From)
}

// Outcome implements Doer.
func (d Messages) Outcome(ctx context.Context, tn *tenant.Tenant, ref string) (Ended, error) {
	m, err := chat.Messages.Get(ctx, tn.DB, ref)
	if err != nil {
		return Ended{}, err
	}
	if m.Status == chat.FailedSend && m.WAMID == "" {
		se := &StepError{"failed", "The message was not accepted."}
		if m.Error != nil {
			se = &StepError{m.Error.Code, m.Error.Title}
		}
		if NotBegun(se.Code) {
			return Ended{State: StepSkipped, Error: se}, nil
		}
		return Ended{State: StepFailed, Error: se}, nil
	}
	end := Ended{State: StepDone, Output: raw(map[string]string{"messageId": m.ID, "wamid": m.WAMID})}
	if m.Status == chat.Unconfirmed {
		end.State = StepUnconfirmed
	}
	return end, nil
}

// outgoing turns a step's frozen input into a message.
func outgoing(t Task) (chat.Outgoing, error) {
	switch t.Type {
	case SendTemplate:
		var in TemplateInput
		if err := json.Unmarshal(t.Input, &in); err != nil {
			return chat.Outgoing{}, err
		}
		components, err := whatsapp.BodyParameters(in.Parameters)
		if err != nil {
			return chat.Outgoing{}, &chat.Refusal{Code: "whatsapp.invalid_template", Detail: "A template parameter is empty."}
		}
		o, err := whatsapp.TemplateObject(in.Template, in.Language, components)
		if err != nil {
			return chat.Outgoing{}, &chat.Refusal{Code: "whatsapp.invalid_template", Detail: "The template has no name or language."}
		}
		return chat.Outgoing{From: in.From, Type: "template", Object: o, Resend: in.Resend}, nil
	case SendText:
		var in TextInput
		if err := json.Unmarshal(t.Input, &in); err != nil {
			return chat.Outgoing{}, err
		}
		o, err := whatsapp.TextObject(in.Text, false)
		if err != nil {
			return chat.Outgoing{}, &chat.Refusal{Code: "whatsapp.invalid_text", Detail: "A text has 1 to 4,096 characters."}
		}
		return chat.Outgoing{From: in.From, Type: "text", Object: o, Text: in.Text, Resend: in.Resend}, nil
	}
	return chat.Outgoing{}, fmt.Errorf("rule: no send of type %s", t.Type)
}

// Settled gives the job that takes a run further once a message of it was sent, refused, or lost its answer. It is the
// Settled of chat.Desk.
func (e *Engine) Settled(tn *tenant.Tenant, m *chat.Message) []store.NewJob {
	if m.Origin.RunID == "" {
		return nil
	}
	if m.Status == chat.FailedSend && m.Error != nil && shared(m.Error.Code) {
		e.spoilt.refused("", spoil{m.Origin.RunID, m.Error.Code, e.Now().UTC()})
	}
	n := e.Advance(tn, m.Origin.RunID, m.Origin.Step, m.ID)
	n.Causation.Message = m.ID
	return []store.NewJob{n}
}
