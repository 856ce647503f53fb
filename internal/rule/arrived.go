package rule

import (
	"context"
	"errors"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// FailedJob is the type of the job that tells the rules of a message that failed.
const FailedJob = "automation.failed"

// Triggers that conversations are.
const (
	messageReceived = "message_received"
	messageFailed   = "message_failed"
)

// Arrived tells the rules of a customer's message, and the runs that it makes pointless. It is the Arrived of chat.Desk.
func (e *Engine) Arrived(ctx context.Context, tn *tenant.Tenant, m *chat.Message) ([]store.NewJob, error) {
	if m.Direction != chat.In || m.Imported || m.Effect != nil || m.Type == "system" {
		return nil, nil
	}
	c, err := e.Book.Person(ctx, tn, m.ContactID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return e.Raise(ctx, tn, told("in", messageReceived, m, c))
}

// told is the occurrence of what happened to a message of a contact.
func told(how, trigger string, m *chat.Message, c *crm.Contact) crm.Occurrence {
	vars := map[string]any{"type": m.Type, "messageId": m.ID, "conversationId": m.ConversationID}
	if m.Text != nil {
		vars["text"] = *m.Text
	}
	if c.Phone != "" {
		vars["from"] = c.Phone
	}
	o := crm.Occurrence{Key: "message|" + how + "|" + m.ID, Trigger: trigger, LeadID: c.LeadID, Variables: vars, At: m.CreatedAt}
	if o.LeadID == "" {
		o.Phone, o.Email = c.Phone, c.Email
	}
	return o
}

type failedPayload struct {
	MessageID string `json:"messageId"`
}

// Failed gives the job that tells the rules of a message of ours that failed. It is the Failed of chat.Desk.
func (e *Engine) Failed(tn *tenant.Tenant, m *chat.Message) []store.NewJob {
	n := job.New(tn.Code, FailedJob, failedPayload{m.ID})
	n.UniqueKey = "failed:" + m.ID
	n.Causation = store.Causation{Message: m.ID, RunID: m.Origin.RunID, Step: m.Origin.Step}
	return []store.NewJob{n}
}

// HandleFailed is the handler of FailedJob.
func (e *Engine) HandleFailed(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[failedPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	m, err := chat.Messages.Get(ctx, tn.DB, p.MessageID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil // erased meanwhile
	}
	if err != nil {
		return job.Result{}, err
	}
	if m.Error != nil && NotBegun(m.Error.Code) {
		return job.Result{}, nil // nobody tried
	}
	c, err := e.Book.Person(ctx, tn, m.ContactID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil
	}
	if err != nil {
		return job.Result{}, err
	}
	o := told("failed", messageFailed, m, c)
	delete(o.Variables, "from")
	if m.Error != nil {
		o.Variables["code"], o.Variables["error"] = m.Error.Code, m.Error.Title
	}
	if m.Origin.RunID != "" {
		run, err := Runs.Get(ctx, tn.DB, m.Origin.RunID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return job.Result{}, err
		}
		if err == nil { // what a rule sent must not make the rule send again
			ev, err := Events.Get(ctx, tn.DB, run.EventRef)
			if errors.Is(err, store.ErrNotFound) {
				ev, err = &Event{}, nil
			}
			if err != nil {
				return job.Result{}, err
			}
			o.Depth, o.Chain, o.Budget = ev.Depth+1, append(append([]string{}, ev.Chain...), run.RuleID), ev.failure()
		}
	}
	next, err := e.Raise(ctx, tn, o)
	return job.Result{Next: next}, err
}
