package chat

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// WithdrawJob is the type of the job that ends a message whose own job will not: it was cancelled, or given up.
const WithdrawJob = "whatsapp.withdraw"

// withdrawnIn is how long a call may be under way before nobody is left who could record its answer.
const withdrawnIn = 2 * time.Minute

type withdrawPayload struct {
	MessageID string `json:"messageId"`
	JobID     string `json:"jobId"`
	Reason    string `json:"reason,omitempty"` // of package job; "": withdrawn
}

// unsent says why a message was not sent that will not be any more.
func (p withdrawPayload) unsent() *Error {
	switch p.Reason {
	case job.TooLate:
		return &Error{Code: p.Reason, Title: "The message's time had passed before it could be sent."}
	case job.GivenUp:
		return &Error{Code: p.Reason, Title: "The message could not be sent, and is not tried again."}
	}
	return &Error{Code: job.Withdrawn, Title: "The message was withdrawn before it was sent."}
}

// Abandoned gives the job that ends the message of a send that was cancelled or given up.
func (d *Desk) Abandoned(j store.Job) []store.NewJob {
	p, err := job.Payload[sendPayload](j)
	if err != nil {
		return nil
	}
	n := job.New(j.Tenant, WithdrawJob, withdrawPayload{p.MessageID, j.ID, job.Reason(j)})
	n.UniqueKey, n.KeyHash, n.Causation = "withdraw:"+j.ID, j.ID, j.Causation
	return []store.NewJob{n}
}

// HandleWithdraw is the handler of WithdrawJob. What was not sent by now never will be; a call under way is waited for.
func (d *Desk) HandleWithdraw(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[withdrawPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	m, err := Messages.Get(ctx, tn.DB, p.MessageID)
	switch {
	case errors.Is(err, store.ErrNotFound) || (err == nil && m.Send == nil):
		return job.Result{}, nil
	case err != nil:
		return job.Result{}, err
	}
	switch m.Send.State {
	case planned:
		why, err := d.withdrawn(ctx, tn, m, p)
		if err != nil {
			return job.Result{}, err
		}
		_, err = d.refuse(ctx, tn, j, m, why, errors.New("withdrawn"))
		if err = job.Ended(err); err != nil {
			return job.Result{}, err
		}
		if m, err = Messages.Get(ctx, tn.DB, p.MessageID); err != nil {
			return job.Result{}, err
		}
	case inFlight:
		if d.Now().Sub(m.Send.At) < withdrawnIn {
			return job.Result{}, job.Snooze(5*time.Second, "in_flight", nil)
		}
		return d.unanswered(ctx, tn, j, m, errors.New("nobody recorded the call's answer"))
	}
	return d.done(tn, m), nil
}

// withdrawn is why a message that was not sent never will be: what it was for is over, or of its job came nothing.
func (d *Desk) withdrawn(ctx context.Context, tn *tenant.Tenant, m *Message, p withdrawPayload) (*Error, error) {
	if m.Origin.RunID != "" && d.MayBegin != nil {
		err := d.MayBegin(ctx, tn, m.Origin.RunID, m.Origin.Step)
		var over *Refusal
		if errors.As(err, &over) {
			return &Error{Code: over.Code, Title: over.Detail}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return p.unsent(), nil
}
