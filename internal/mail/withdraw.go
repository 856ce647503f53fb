package mail

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// WithdrawJob is the type of the job that ends a letter whose job was cancelled or given up.
const WithdrawJob = "email.withdraw"

// withdrawnIn is how long a call of an abandoned job may still be under way.
const withdrawnIn = 6 * time.Minute

type withdrawPayload struct {
	sendPayload
	Reason string `json:"reason,omitempty"` // of package job; "": withdrawn
}

// unsent says why a mail was not sent that will not be any more.
func (p withdrawPayload) unsent() *Error {
	switch p.Reason {
	case job.TooLate:
		return &Error{p.Reason, "The mail's time had passed before it could be sent."}
	case job.GivenUp:
		return &Error{p.Reason, "The mail could not be sent, and is not tried again."}
	}
	return &Error{job.Withdrawn, "The mail was withdrawn before it was sent."}
}

// Abandoned gives the job that ends the letter of a job which cannot do so itself.
func (o *Office) Abandoned(j store.Job) []store.NewJob {
	p, err := job.Payload[sendPayload](j)
	if err != nil {
		return nil
	}
	n := job.New(j.Tenant, WithdrawJob, withdrawPayload{p, job.Reason(j)})
	n.UniqueKey, n.KeyHash, n.Causation = "withdraw:"+j.ID, j.ID, j.Causation
	return []store.NewJob{n}
}

// HandleWithdraw is the handler of WithdrawJob. What was not sent by now never will be; a call under way is waited for.
func (o *Office) HandleWithdraw(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[withdrawPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	l, err := Letters.Get(ctx, tn.DB, p.LetterID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil
	}
	if err != nil {
		return job.Result{}, err
	}
	if l.Send.State == InFlight && o.Now().Sub(l.Send.At) < withdrawnIn {
		return job.Result{}, job.Snooze(5*time.Second, "in_flight", nil)
	}
	why := p.unsent()
	if l.Send.State == Planned && l.Origin.RunID != "" && o.MayBegin != nil {
		var over *Refusal
		if err := o.MayBegin(ctx, tn, l.Origin.RunID, l.Origin.Step); errors.As(err, &over) {
			why = &Error{over.Code, over.Detail}
		} else if err != nil {
			return job.Result{}, err
		}
	}
	l, err = o.edit(ctx, tn, j, l, func(l *Letter) ([]store.Write, error) {
		switch now := o.Now().UTC(); l.Send.State {
		case Planned:
			l.Send.State, l.Error, l.StatusAt[Rejected] = Rejected, why, now
		case InFlight:
			l.Send.State, l.StatusAt[Unconfirmed] = Unconfirmed, now
		default:
			return nil, nil
		}
		return []store.Write{Letters.Update(l)}, nil
	})
	if err != nil {
		return job.Result{}, err
	}
	return o.done(tn, l), nil
}
