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
}

// Abandoned gives the job that ends the message of a send that was cancelled or given up.
func (d *Desk) Abandoned(j store.Job) []store.NewJob {
	p, err := job.Payload[sendPayload](j)
	if err != nil {
		return nil
	}
	n := job.New(j.Tenant, WithdrawJob, withdrawPayload{p.MessageID, j.ID})
	n.UniqueKey, n.Causation = "withdraw:"+j.ID, j.Causation
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
		_, err := d.refuse(ctx, tn, j, m, &Error{Code: "cancelled", Title: "The message was withdrawn before it was sent."}, errors.New("withdrawn"))
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
