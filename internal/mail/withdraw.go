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

// Abandoned gives the job that ends the letter of a job which cannot do so itself.
func (o *Office) Abandoned(j store.Job) []store.NewJob {
	p, err := job.Payload[sendPayload](j)
	if err != nil {
		return nil
	}
	n := job.New(j.Tenant, WithdrawJob, p)
	n.UniqueKey, n.KeyHash, n.Causation = "withdraw:"+j.ID, j.ID, j.Causation
	return []store.NewJob{n}
}

// HandleWithdraw is the handler of WithdrawJob. What was not sent by now never will be; a call under way is waited for.
func (o *Office) HandleWithdraw(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[sendPayload](j)
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
	l, err = o.edit(ctx, tn, j, l, func(l *Letter) ([]store.Write, error) {
		switch now := o.Now().UTC(); l.Send.State {
		case Planned:
			l.Send.State, l.Error, l.StatusAt[Rejected] = Rejected, &Error{"cancelled", "The mail was withdrawn before it was sent."}, now
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
