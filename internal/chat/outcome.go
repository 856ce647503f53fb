package chat

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

func (d *Desk) settled(tn *tenant.Tenant, m *Message) []store.NewJob {
	next := d.failed(tn, m)
	if d.Settled == nil {
		return next
	}
	return append(next, d.Settled(tn, m)...)
}

// failed gives the jobs that follow from a message's failure; none while it has not failed.
func (d *Desk) failed(tn *tenant.Tenant, m *Message) []store.NewJob {
	if d.Failed == nil || m.Status != FailedSend || m.Direction != Out {
		return nil
	}
	return d.Failed(tn, m)
}

// done ends a send that needs nothing more but what follows from it.
func (d *Desk) done(tn *tenant.Tenant, m *Message) job.Result {
	next := d.settled(tn, m)
	if m.Send.State == unconfirmed && m.Send.Resend && !m.Send.Resent {
		n := job.New(tn.Code, ResendJob, sendPayload{m.ID})
		n.UniqueKey, n.RunAt = "resend:"+m.ID, m.Send.At.Add(resendAfter)
		n.Causation = store.Causation{Message: m.ID, RunID: m.Origin.RunID, Step: m.Origin.Step}
		next = append(next, n)
	}
	return job.Result{Next: next, Result: map[string]string{"messageId": m.ID, "wamid": m.WAMID, "send": m.Send.State}}
}

// templateOut are Meta's refusals of a template whoever it goes to: it is not there or not approved, paused, disabled.
var templateOut = []int{132001, 132015, 132016}

func codeOf(e *whatsapp.APIError) string {
	if e.Code != 0 {
		return itoa(e.Code)
	}
	if e.HTTP != 0 {
		return fmt.Sprintf("http_%d", e.HTTP)
	}
	return "network"
}

// edit changes the message that this execution put in flight, looking again as often as others come between. change
// gives the writes that do it, with the message's own; none when there is nothing left to do.
func (d *Desk) edit(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, change func(*Message) ([]store.Write, error)) (*Message, error) {
	first := true
	err := retry(ctx, func() error {
		if !first {
			again, err := Messages.Get(ctx, tn.DB, m.ID)
			if err != nil {
				return err
			}
			m = again
		}
		first = false
		if m.Send.past(j) {
			return job.ErrLeaseLost // another execution has taken over: it knows better
		}
		writes, err := change(m)
		if err != nil || len(writes) == 0 {
			return err
		}
		return tn.DB.Commit(ctx, writes...)
	})
	return m, err
}

// accept records Meta's answer. It stands also where another execution, which could not know it, has called the message
// unconfirmed meanwhile, or wants to send it once more: it is what really happened, and it owes nothing that the other has
// not left. Of all that a call can end with, this alone is recorded late.
func (d *Desk) accept(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, res whatsapp.SendResult) (job.Result, error) {
	defer d.turns.lock(tn.Code, m.PhoneNumberID, res.ID)()
	m, err := d.edit(ctx, tn, j, m, func(m *Message) ([]store.Write, error) {
		if !m.Send.by(j) || m.Send.State == rejected {
			return nil, job.ErrLeaseLost
		}
		now := d.Now().UTC()
		m.Send.State, m.WAMID = accepted, res.ID
		m.StatusAt["accepted"] = now
		if next, higher := whatsapp.NextStatus(m.Status, Sent); higher {
			m.Status = next
		}
		waiting, err := d.takeWaiting(ctx, tn, m)
		if err != nil {
			return nil, err
		}
		writes, err := d.reacted(ctx, tn, m, now)
		if err != nil {
			return nil, err
		}
		told, err := d.tracked(ctx, tn, m)
		if err != nil {
			return nil, err
		}
		writes = append(writes, told...)
		writes = append(writes, news.Write(now, news.MessageStatus, m.ID+"|accepted", "message", m.View()), Messages.Update(m))
		return append(writes, waiting...), nil
	})
	if err != nil {
		return job.Result{}, err
	}
	return d.done(tn, m), nil
}

// unanswered records a send whose answer was lost. Only a status webhook can tell what became of it.
func (d *Desk) unanswered(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, cause error) (job.Result, error) {
	d.Log.Warn("a send's answer was lost; it waits for its status", "client", tn.Code, "job", j.ID, "message", m.ID, "error", cause)
	call, lost := m.Send.mark(), false
	m, err := d.edit(ctx, tn, j, m, func(m *Message) ([]store.Write, error) {
		lost = false
		if m.Send.State != inFlight || m.Send.mark() != call {
			return nil, nil // a status came meanwhile, or its own execution has recorded the answer
		}
		m.Send.State, m.Status = unconfirmed, Unconfirmed
		now := d.Now().UTC()
		m.StatusAt[Unconfirmed] = now
		writes, err := d.tracked(ctx, tn, m)
		if err != nil {
			return nil, err
		}
		lost = true
		return append(writes, news.Write(now, news.MessageStatus, m.ID+"|unconfirmed|"+itoa(int(m.Send.Token)), "message", m.View()), Messages.Update(m)), nil
	})
	if err != nil {
		return job.Result{}, err
	}
	if lost {
		d.doubt("")
	}
	return d.done(tn, m), nil
}

func (d *Desk) doubt(how string) {
	if d.Doubt != nil {
		d.Doubt(how)
	}
}

// putBack records that a call had no effect: the message is as before it.
func (d *Desk) putBack(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, verdict error) (job.Result, error) {
	return d.putBackAfter(ctx, tn, j, m, func(*Message) {}, verdict)
}

// putBackAfter is putBack with a note about the call.
func (d *Desk) putBackAfter(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, note func(*Message), verdict error) (job.Result, error) {
	_, err := d.edit(ctx, tn, j, m, func(m *Message) ([]store.Write, error) {
		switch {
		case !m.Send.by(j):
			return nil, job.ErrLeaseLost
		case m.Send.State != inFlight:
			return nil, nil
		}
		m.Send.State, m.Status = planned, Queued
		note(m)
		return []store.Write{Messages.Update(m)}, nil
	})
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{}, verdict
}

// refuse ends a message that will never be sent.
func (d *Desk) refuse(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, e *Error, cause error) (job.Result, error) {
	from := m.Send.State
	m, err := d.edit(ctx, tn, j, m, func(m *Message) ([]store.Write, error) {
		switch {
		case from == inFlight && !m.Send.by(j):
			return nil, job.ErrLeaseLost
		case m.Send.State != from:
			return nil, nil // it has gone, or another execution has said how it stands
		}
		now := d.Now().UTC()
		m.Send.State, m.Status, m.Error = rejected, FailedSend, e
		m.StatusAt[FailedSend] = now
		writes, err := d.refusedBy(ctx, tn, m, now)
		if err != nil {
			return nil, err
		}
		told, err := d.tracked(ctx, tn, m)
		if err != nil {
			return nil, err
		}
		writes = append(writes, told...)
		return append(writes, news.Write(now, news.MessageStatus, m.ID+"|refused", "message", m.View()), Messages.Update(m)), nil
	})
	switch {
	case err != nil:
		return job.Result{}, err
	case m.Send.State != rejected:
		return d.done(tn, m), nil
	}
	return job.Result{}, Refused(e.Code, cause, d.settled(tn, m)...)
}

// refusedBy gives the writes that opt out the recipient of a message that Meta refused for that reason.
func (d *Desk) refusedBy(ctx context.Context, tn *tenant.Tenant, m *Message, now time.Time) ([]store.Write, error) {
	if m.Error.Code != itoa(userOptedOut) {
		return nil, nil
	}
	c, err := d.Book.Person(ctx, tn, m.ContactID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil || !c.OptOut("provider", now) {
		return nil, err
	}
	return []store.Write{crm.Contacts.Update(c)}, nil
}
