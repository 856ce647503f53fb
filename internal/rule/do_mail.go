package rule

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Mails is the Doer of e-mails; a ref is a letter's id. What a rule sends answers something that the person did, and is
// no marketing: it goes to those who unsubscribed too, but to no address that is dead.
type Mails struct{ Office *mail.Office }

// Plan implements Doer.
func (d Mails) Plan(ctx context.Context, tn *tenant.Tenant, t Task) (string, []store.Write, error) {
	var in EmailInput
	if err := json.Unmarshal(t.Input, &in); err != nil {
		return "", nil, err
	}
	to, err := t.email(ctx, tn)
	if err != nil {
		return "", nil, err
	}
	l, writes, err := d.Office.Plan(ctx, tn, mail.Outgoing{
		Contact: t.Contact, LeadID: t.LeadID, To: to, Subject: in.Subject, HTML: in.HTML, Text: in.Text, Resend: in.Resend,
		Origin: mail.Origin{RunID: t.RunID, Step: t.Step}, Seed: t.Seed,
	})
	var r *mail.Refusal
	if errors.As(err, &r) {
		return "", nil, &chat.Refusal{Code: r.Code, Detail: r.Detail}
	}
	if err != nil {
		return "", nil, err
	}
	return l.ID, writes, nil
}

// email is the lead's address; "" where the lead is not stored yet, or has none: the contact's may do.
func (t Task) email(ctx context.Context, tn *tenant.Tenant) (string, error) {
	lead, err := crm.Leads.Get(ctx, tn.DB, t.LeadID)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return lead.Email, nil
}

// Job implements Doer.
func (d Mails) Job(tn *tenant.Tenant, ref string, cause store.Causation) store.NewJob {
	return d.Office.SendOf(tn, &mail.Letter{ID: ref}, cause)
}

// Outcome implements Doer.
func (d Mails) Outcome(ctx context.Context, tn *tenant.Tenant, ref string) (Ended, error) {
	l, err := mail.Letters.Get(ctx, tn.DB, ref)
	if err != nil {
		return Ended{}, err
	}
	out := raw(map[string]string{"letterId": l.ID})
	switch l.Send.State {
	case mail.Accepted:
		return Ended{State: StepDone, Output: out}, nil
	case mail.Unconfirmed:
		return Ended{State: StepUnconfirmed, Output: out}, nil
	case mail.Rejected:
		se := &StepError{"failed", "The mail was not accepted."}
		if l.Error != nil {
			se = &StepError{l.Error.Code, l.Error.Title}
		}
		if NotBegun(se.Code) {
			return Ended{State: StepSkipped, Error: se}, nil
		}
		return Ended{State: StepFailed, Error: se}, nil
	}
	return Ended{}, nil
}

// MailSettled gives the job that takes a run further once a letter of it was sent, refused, or lost its answer. It is
// the Settled of mail.Office.
func (e *Engine) MailSettled(tn *tenant.Tenant, l *mail.Letter) []store.NewJob {
	if l.Origin.RunID == "" {
		return nil
	}
	n := e.Advance(tn, l.Origin.RunID, l.Origin.Step, l.ID)
	n.Causation.Message = l.ID
	return []store.NewJob{n}
}

// MailMayBegin is MayBegin for letters. It is the MayBegin of mail.Office.
func (e *Engine) MailMayBegin(ctx context.Context, tn *tenant.Tenant, runID, step string) error {
	err := e.MayBegin(ctx, tn, runID, step)
	var r *chat.Refusal
	if errors.As(err, &r) {
		return &mail.Refusal{Code: r.Code, Detail: r.Detail}
	}
	return err
}
