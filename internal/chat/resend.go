package chat

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ResendJob is the type of the job that decides about a second try of an unconfirmed message that asked for one.
const ResendJob = "whatsapp.resend"

// How long an unconfirmed message waits for its status webhook before a second try is considered, and how long for
// evidence that webhooks arrive at all.
const (
	resendAfter  = 120 * time.Second
	resendGiveUp = 15 * time.Minute
)

// HandleResend is the handler of ResendJob: one more try for a message that is still unconfirmed, if the number's
// webhooks are known to arrive and ours did not.
func (d *Desk) HandleResend(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[sendPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	var next []store.NewJob
	resent := false
	err = retry(ctx, func() error {
		m, err := Messages.Get(ctx, tn.DB, p.MessageID)
		if err != nil {
			return err
		}
		if m.Send.Resent && m.Send.State == planned { // written, but its job may be missing
			next = []store.NewJob{d.secondSend(tn, m)}
			return nil
		}
		if m.Send.State != unconfirmed || m.Send.Resent {
			return nil
		}
		_, err = Messages.First(ctx, tn.DB, store.Query{Where: []store.Term{
			store.Where("provenNumber", store.Eq, m.PhoneNumberID), store.Where("sentAt", store.Ge, m.Send.At.UnixMilli()),
		}})
		if errors.Is(err, store.ErrNotFound) {
			if d.Now().Sub(m.Send.At) > resendGiveUp {
				return nil // nothing proves anything: people decide
			}
			return job.Snooze(time.Minute, "no_evidence", nil)
		}
		if err != nil {
			return err
		}
		m.Send.State, m.Send.Resent, m.Status = planned, true, Queued
		// the mark of the first call stays: an answer to it that comes at last still spares the second
		next = []store.NewJob{d.secondSend(tn, m)}
		err = tn.DB.Commit(ctx, news.Write(d.Now(), news.MessageStatus, m.ID+"|resend", "message", m.View()), Messages.Update(m))
		resent = err == nil
		return err
	})
	if resent {
		d.doubt("resent")
	}
	return job.Result{Next: next}, err
}

func (d *Desk) secondSend(tn *tenant.Tenant, m *Message) store.NewJob {
	n := d.SendOf(tn, m, store.Causation{RunID: m.Origin.RunID, Step: m.Origin.Step})
	n.UniqueKey += ":again"
	return n
}
