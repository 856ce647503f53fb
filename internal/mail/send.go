package mail

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	patience      = 48 * time.Hour         // how long a letter may be put off before it fails
	resendAfter   = time.Minute            // how long a lost answer rests before the one second try that was asked for
	paceInPlace   = 2 * time.Second        // a wait for the pace that is not worth another claim
	handWait      = 500 * time.Millisecond // for one of the client's hands to become free
	recordTimeout = 10 * time.Second       // bounds the writing down of an answer; a stop of the engine does not cut it short
)

// ladder is how long a recipient that is refused for now rests (greylisting), by the number of refusals before.
var ladder = []time.Duration{5 * time.Minute, 15 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour}

// After is the pause after a refusal for now, the tries before it counted; false: it was the last.
func After(tries int, since time.Duration) (time.Duration, bool) {
	wait := ladder[min(tries, len(ladder)-1)]
	return wait, since+wait <= patience
}

// HandleSend is the handler of SendJob. The letter is its own ledger: planned is safe to send; in_flight is written
// before the call, so that whoever finds it there knows that the call may have been made.
func (o *Office) HandleSend(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[sendPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	l, err := Letters.Get(ctx, tn.DB, p.LetterID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, job.Dead("letter_gone", err)
	}
	if err != nil {
		return job.Result{}, err
	}
	switch l.Send.State {
	case Accepted, Unconfirmed:
		return o.done(tn, l), nil
	case Rejected:
		return job.Result{}, refused(l.failure(), errors.New("the letter was refused"), o.settled(tn, l)...)
	case InFlight:
		if l.Send.past(j) {
			return job.Result{}, job.ErrLeaseLost
		}
		return o.unanswered(ctx, tn, j, l, errors.New("the process ended during the call"))
	}
	if refusal, err := o.guard(ctx, tn, l); err != nil {
		return job.Result{}, err
	} else if refusal != nil {
		return o.refuse(ctx, tn, j, l, refusal, false, errors.New("it may not be sent any more"))
	}
	acc, err := o.Account(tn)
	if err != nil {
		return job.Result{}, job.Park("smtp.credential", err)
	}
	release, err := o.turn(ctx, tn, j)
	if err != nil {
		return job.Result{}, err
	}
	defer release()
	l, err = o.edit(ctx, tn, j, l, func(l *Letter) ([]store.Write, error) {
		if l.Send.State != Planned {
			return nil, nil
		}
		now := o.Now().UTC()
		l.Send.State, l.Send.Job, l.Send.Token, l.Send.At, l.StatusAt[InFlight] = InFlight, j.ID, j.Token, now, now
		return []store.Write{Letters.Update(l)}, nil
	})
	switch {
	case err != nil:
		return job.Result{}, err
	case l.Send.State != InFlight:
		return o.done(tn, l), nil
	}
	l.Version++
	if err := job.Leased(ctx); err != nil { // no call was made, and another execution may be about to find that out
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		defer cancel()
		return o.putBack(rctx, tn, j, l, 0, err)
	}
	hctx, handed := job.Calling(ctx)
	defer handed()
	a := o.Hand(hctx, tn, acc, smtp.Message{ID: l.ID, To: l.To, ToName: l.ToName, Subject: l.Subject, Text: l.Text, HTML: l.HTML, ListUnsubscribe: l.Unsubscribe})
	return o.record(ctx, tn, j, l, a)
}

// turn waits for the client's pace and for one of its hands, and puts the job off where that would take long.
func (o *Office) turn(ctx context.Context, tn *tenant.Tenant, j store.Job) (release func(), err error) {
	if rest, _ := o.Rest(ctx, tn); rest > 0 {
		if slices.Contains(store.Scopes(j.Lane), tn.Code+"/"+Resource) {
			return nil, job.Return("smtp.resting")
		}
		return nil, job.Snooze(rest, "smtp.resting", nil)
	}
	for began := o.Now(); ; {
		p, err := o.Pace(ctx, tn)
		if err != nil {
			return nil, err
		}
		if p.Wait > paceInPlace || !p.Kept && o.Now().Add(p.Wait).Sub(began) > paceInPlace {
			p.Back()
			return nil, job.Snooze(p.Wait, "smtp.pace", nil)
		}
		if p.Wait > 0 {
			select {
			case <-time.After(p.Wait):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if p.Kept {
			break
		}
	}
	hctx, stop := context.WithTimeout(ctx, handWait)
	defer stop()
	release, ok := o.Grab(hctx, tn)
	if !ok {
		return nil, job.Snooze(time.Second, "smtp.busy", ctx.Err())
	}
	return release, nil
}

func (l *Letter) failure() string {
	if l.Error != nil {
		return l.Error.Code
	}
	return Rejected
}

func (o *Office) settled(tn *tenant.Tenant, l *Letter) []store.NewJob {
	if o.Settled == nil {
		return nil
	}
	return o.Settled(tn, l)
}

func (o *Office) done(tn *tenant.Tenant, l *Letter) job.Result {
	return job.Result{Next: o.settled(tn, l), Result: map[string]string{"letterId": l.ID, "send": l.Send.State}}
}

// guard looks once more, right before the call, at what may have changed since the letter was planned.
func (o *Office) guard(ctx context.Context, tn *tenant.Tenant, l *Letter) (*Error, error) {
	if !l.ExpiresAt.IsZero() && o.Now().After(l.ExpiresAt) {
		return &Error{"expired", "It was not sent before its time was over."}, nil
	}
	if l.Origin.RunID != "" && o.MayBegin != nil {
		var r *Refusal
		if err := o.MayBegin(ctx, tn, l.Origin.RunID, l.Origin.Step); errors.As(err, &r) {
			return &Error{r.Code, r.Detail}, nil
		} else if err != nil {
			return nil, err
		}
	}
	sup, err := o.Book.Suppressed(ctx, tn, crm.ChannelEmail, l.To)
	if err != nil {
		return nil, err
	}
	if sup[l.To].Blocks(l.Marketing) {
		return &Error{"suppressed", "The address is not to be written to."}, nil
	}
	if l.ContactID == "" || (!l.Marketing && l.Origin.RunID == "") {
		return nil, nil
	}
	c, err := o.Book.Person(ctx, tn, l.ContactID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &Error{"contact_gone", "The contact was deleted."}, nil
	case err != nil:
		return nil, err
	case l.Marketing && c.OptedOutAt != nil:
		return &Error{"opted_out", "The contact asked for no more messages."}, nil
	}
	return nil, nil
}

// record writes down how a call ended, and says what is to become of the job.
func (o *Office) record(ctx context.Context, tn *tenant.Tenant, j store.Job, l *Letter, a Answer) (job.Result, error) {
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	late := o.Now().Sub(l.CreatedAt) > patience
	switch {
	case a.Fate == Taken:
		return o.accept(rctx, tn, j, l)
	case a.Fate == Lost:
		return o.unanswered(rctx, tn, j, l, a.Err)
	case a.Fate == Broken:
		// not this letter's fault: it waits until the account is mended
		return o.putBack(rctx, tn, j, l, 0, job.ParkLane(tn.Code+"/"+Resource, "smtp.credential", a.Err))
	case a.Fate == Later && a.Shared && !late:
		return o.putBack(rctx, tn, j, l, 0, o.put(j, tn, max(a.Wait, firstRest), a.Err))
	case a.Fate == Later && !late:
		if wait, ok := After(l.Send.Tries, o.Now().Sub(l.CreatedAt)); ok {
			return o.putBack(rctx, tn, j, l, 1, job.Snooze(wait, a.Code, a.Err))
		}
	}
	return o.refuse(rctx, tn, j, l, &Error{a.Code, a.Title}, a.Bounce == smtp.BounceHard, a.Err)
}

// put is what becomes of a job whose server rests: it waits with the others, and shows why.
func (o *Office) put(j store.Job, tn *tenant.Tenant, rest time.Duration, cause error) error {
	if scope := tn.Code + "/" + Resource; slices.Contains(store.Scopes(j.Lane), scope) {
		return job.PauseLane(scope, store.RateLimited, rest, max(rest, maxRest), "smtp.unavailable", cause)
	}
	return job.Snooze(rest, "smtp.unavailable", cause)
}

// edit changes the letter that this execution works on, looking again as often as others come between. change gives the
// writes that do it; none when there is nothing left to do.
func (o *Office) edit(ctx context.Context, tn *tenant.Tenant, j store.Job, l *Letter, change func(*Letter) ([]store.Write, error)) (*Letter, error) {
	first := true
	err := retry(ctx, func() error {
		if !first {
			again, err := Letters.Get(ctx, tn.DB, l.ID)
			if err != nil {
				return err
			}
			l = again
		}
		first = false
		if l.Send.past(j) {
			return job.ErrLeaseLost // another execution has taken over: it knows better
		}
		writes, err := change(l)
		if err != nil || len(writes) == 0 {
			return err
		}
		return tn.DB.Commit(ctx, writes...)
	})
	return l, err
}

// accept records that the server has the letter. It stands also where another execution, which could not know it, has called
// it unconfirmed meanwhile, or wants to send it once more: it is what really happened. Of all that a call can end with, this
// alone is recorded late.
func (o *Office) accept(ctx context.Context, tn *tenant.Tenant, j store.Job, l *Letter) (job.Result, error) {
	l, err := o.edit(ctx, tn, j, l, func(l *Letter) ([]store.Write, error) {
		if !l.Send.by(j) || l.Send.State == Rejected {
			return nil, job.ErrLeaseLost
		}
		l.Send.State, l.StatusAt[Accepted] = Accepted, o.Now().UTC()
		return []store.Write{Letters.Update(l)}, nil
	})
	if err != nil {
		return job.Result{}, err
	}
	return o.done(tn, l), nil
}

// unanswered records a send whose answer was lost. Nothing ever tells what became of it, so it stays so, but for the
// second try that was asked for: most receivers know a mail they have by its Message-ID.
func (o *Office) unanswered(ctx context.Context, tn *tenant.Tenant, j store.Job, l *Letter, cause error) (job.Result, error) {
	o.Log.Warn("a mail's answer was lost", "client", tn.Code, "job", j.ID, "letter", l.ID, "error", cause)
	call, lost := l.Send, false
	l, err := o.edit(ctx, tn, j, l, func(l *Letter) ([]store.Write, error) {
		lost = false
		if l.Send.State != InFlight || l.Send.Job != call.Job || l.Send.Token != call.Token {
			return nil, nil
		}
		l.Send.State, l.StatusAt[Unconfirmed] = Unconfirmed, o.Now().UTC()
		if l.Send.Resend && !l.Send.Resent {
			l.Send.State, l.Send.Resent = Planned, true
		}
		lost = true
		return []store.Write{Letters.Update(l)}, nil
	})
	if err != nil {
		return job.Result{}, err
	}
	if lost && o.Doubt != nil {
		if o.Doubt(""); l.Send.State == Planned {
			o.Doubt("resent")
		}
	}
	if l.Send.State == Planned {
		return job.Result{}, job.Snooze(resendAfter, "unconfirmed", cause)
	}
	return o.done(tn, l), nil
}

// putBack records that a call had no effect: the letter is as before it.
func (o *Office) putBack(ctx context.Context, tn *tenant.Tenant, j store.Job, l *Letter, tries int, verdict error) (job.Result, error) {
	_, err := o.edit(ctx, tn, j, l, func(l *Letter) ([]store.Write, error) {
		switch {
		case !l.Send.by(j):
			return nil, job.ErrLeaseLost
		case l.Send.State != InFlight:
			return nil, nil
		}
		l.Send.State = Planned
		l.Send.Tries += tries
		return []store.Write{Letters.Update(l)}, nil
	})
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{}, verdict
}

// Bounced gives the writes that suppress an address at which there is nobody. ref names what came back.
func (o *Office) Bounced(ctx context.Context, tn *tenant.Tenant, address, ref string) ([]store.Write, error) {
	_, writes, err := o.Book.Suppress(ctx, tn, crm.Suppression{Channel: crm.ChannelEmail, Address: address, Reason: crm.HardBounce, Dead: true, Ref: ref})
	return writes, err
}

// unwanted are the codes of letters that nobody wants any more, because what they were for is over.
var unwanted = []string{"run_over", "too_late", "cancelled", "contact_gone"}

// refused ends the job of a letter that was refused: it is cancelled where nobody wants the letter any more, else dead.
func refused(code string, cause error, next ...store.NewJob) error {
	if slices.Contains(unwanted, code) {
		return job.Cancel(code, cause, next...)
	}
	return job.Dead(code, cause, next...)
}

// refuse ends a letter that will never be sent. dead: nobody is at its address.
func (o *Office) refuse(ctx context.Context, tn *tenant.Tenant, j store.Job, l *Letter, e *Error, dead bool, cause error) (job.Result, error) {
	from := l.Send.State
	l, err := o.edit(ctx, tn, j, l, func(l *Letter) ([]store.Write, error) {
		switch {
		case from == InFlight && !l.Send.by(j):
			return nil, job.ErrLeaseLost
		case l.Send.State != from:
			return nil, nil // it has gone, or another execution has said how it stands
		}
		var writes []store.Write
		var err error
		if dead {
			if writes, err = o.Bounced(ctx, tn, l.To, l.ID); err != nil {
				return nil, err
			}
		}
		l.Send.State, l.Error, l.StatusAt[Rejected] = Rejected, e, o.Now().UTC()
		return append(writes, Letters.Update(l)), nil
	})
	switch {
	case err != nil:
		return job.Result{}, err
	case l.Send.State != Rejected:
		return o.done(tn, l), nil
	}
	return job.Result{}, refused(e.Code, cause, o.settled(tn, l)...)
}
