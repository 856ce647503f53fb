package chat

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// sendPatience is how long a message may be put off by Meta's limits before it fails.
const sendPatience = 24 * time.Hour

// recordTimeout bounds the writing down of an answer; it is not cut short by a stop of the engine.
const recordTimeout = 10 * time.Second

// HandleSend is the handler of SendJob. The message is its own ledger: planned is safe to send; in_flight is written
// before the call, so that whoever finds it there knows that the call may have been made, and never makes it again.
func (d *Desk) HandleSend(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[sendPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	m, err := Messages.Get(ctx, tn.DB, p.MessageID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return job.Result{}, job.Dead("message_gone", err)
	case err != nil:
		return job.Result{}, err
	case m.Send == nil:
		return job.Result{}, job.Dead("message_gone", errors.New("the message is not one to be sent"))
	}
	switch m.Send.State {
	case accepted:
		defer d.turns.lock(tn.Code, m.PhoneNumberID, m.WAMID)()
		if err := d.tidy(ctx, tn, m); err != nil {
			return job.Result{}, err
		}
		return d.done(tn, m), nil
	case unconfirmed:
		return d.done(tn, m), nil
	case rejected:
		return job.Result{}, Refused(m.failure(), errors.New("the message was refused"), d.settled(tn, m)...)
	case inFlight:
		if m.Send.past(j) {
			return job.Result{}, job.ErrLeaseLost
		}
		return d.unanswered(ctx, tn, j, m, errors.New("the process ended during the call"))
	}
	c, err := d.guard(ctx, tn, m)
	if err != nil {
		var refusal *Refusal
		if errors.As(err, &refusal) {
			return d.refuse(ctx, tn, j, m, &Error{Code: refusal.Code, Title: refusal.Detail}, err)
		}
		return job.Result{}, err
	}
	if err := d.resting(ctx, tn, j, m); err != nil {
		return job.Result{}, err
	}
	w, sealed := tn.Account().WhatsApp, tokenOf(tn)
	token, err := tn.Secret("whatsapp.accessToken")
	if err != nil || token == "" || w == nil {
		return job.Result{}, d.refusedToken(ctx, tn, sealed, "no_token", errors.Join(errors.New("no usable access token"), err))
	}
	if wait := d.lines.resting(pairOf(m), d.Now()); wait > 0 {
		return job.Result{}, job.Snooze(wait, "whatsapp.limited", errors.New("the recipient rests"))
	}
	body, err := d.withFiles(ctx, tn, m)
	if err != nil {
		return d.unready(ctx, tn, j, m, err)
	}
	leave, still, ok := d.lines.enter(ctx, tokenKey(tn.Code, sealed))
	if !ok {
		return job.Result{}, d.outside(ctx, tn, j, still)
	}
	taken := false
	defer func() { leave(taken) }()
	if err := d.resting(ctx, tn, j, m); err != nil { // the call before this one may have found out
		return job.Result{}, err
	}
	m, err = d.depart(ctx, tn, j, m, c)
	switch {
	case err != nil:
		return job.Result{}, err
	case m.Send.State != inFlight:
		return d.done(tn, m), nil
	}
	m.Version++
	err = d.lines.pace(ctx, m.PhoneNumberID, j.Class)
	if err == nil {
		err = job.Leased(ctx)
	}
	if err == nil {
		err = d.resting(ctx, tn, j, m)
	}
	if err != nil { // no call was made, and another execution may be about to find that out
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		defer cancel()
		return d.putBack(rctx, tn, j, m, err)
	}
	cctx, called := job.Calling(ctx)
	defer called()
	res, err := d.Graph.SendRaw(cctx, whatsapp.Account{PhoneNumberID: m.PhoneNumberID, WABAID: w.WABAID, Token: token}, body)
	taken = took(err)
	return d.record(ctx, tn, j, m, sealed, res, err)
}

// took tells whether Meta answered in a way that it only answers those whose token it takes.
func took(err error) bool {
	var api *whatsapp.APIError
	return err == nil || errors.As(err, &api) && api.Outcome == whatsapp.Rejected && api.Code != 0 && api.Scope() != whatsapp.ScopeAccount
}

// pairOf names a recipient of a number's.
func pairOf(m *Message) string { return m.PhoneNumberID + "|" + m.ContactID }

func (m *Message) failure() string {
	if m.Error != nil {
		return m.Error.Code
	}
	return "rejected"
}

// guard looks once more, right before the call, at what may have changed since the message was planned. It gives the
// contact.
func (d *Desk) guard(ctx context.Context, tn *tenant.Tenant, m *Message) (*crm.Contact, error) {
	c, err := d.Book.Person(ctx, tn, m.ContactID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &Refusal{"contact_gone", "The contact was deleted."}
	}
	if err != nil {
		return nil, err
	}
	if m.Origin.RunID != "" && d.MayBegin != nil {
		if err := d.MayBegin(ctx, tn, m.Origin.RunID, m.Origin.Step); err != nil {
			return nil, err
		}
	}
	if m.Origin.Campaign != "" && d.Cleared != nil { // first: a campaign that is paused loses nobody to what paused it
		if err := d.Cleared(ctx, tn, m); err != nil {
			return nil, err
		}
	}
	var t *Template
	if m.Type == "template" {
		asked := d.Now()
		if t, _, err = d.checkTemplate(ctx, tn, m.Content); err != nil {
			var refusal *Refusal
			if m.Origin.Campaign != "" && d.Barred != nil && errors.As(err, &refusal) {
				return nil, d.Barred(ctx, tn, m, refusal, asked)
			}
			return nil, err
		}
	} else if m.Origin.RunID == "" && m.Origin.Campaign == "" {
		return c, nil // a person's answer, to somebody who wrote
	}
	return c, d.wanted(ctx, tn, c, t != nil && t.Category == marketing)
}

// marketing is the category of templates that need not be sent.
const marketing = "MARKETING"

// wanted is a *Refusal for what a contact is not to be sent unasked.
func (d *Desk) wanted(ctx context.Context, tn *tenant.Tenant, c *crm.Contact, marketing bool) error {
	if c.OptedOutAt != nil {
		return &Refusal{"opted_out", "The contact asked for no more messages."}
	}
	if c.Phone == "" {
		return nil
	}
	by, err := d.Book.Suppressed(ctx, tn, crm.ChannelWhatsApp, c.Phone)
	if err == nil && by[c.Phone].Blocks(marketing) {
		return &Refusal{"suppressed", "The number is not to be written to."}
	}
	return err
}

// depart puts a message in flight, and its conversation up to it.
func (d *Desk) depart(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, c *crm.Contact) (*Message, error) {
	return d.edit(ctx, tn, j, m, func(m *Message) ([]store.Write, error) {
		if m.Send.State != planned {
			return nil, nil // a status told meanwhile that it has gone
		}
		cv, err := d.conversation(ctx, tn, m)
		if err != nil {
			return nil, err
		}
		now := d.Now().UTC()
		m.Send.State, m.Send.Job, m.Send.Token, m.Send.At, m.Status = inFlight, j.ID, j.Token, now, Sending
		if m.reacts() {
			return []store.Write{Messages.Update(m)}, nil
		}
		changed := cv.follow(c, m.CreatedAt, false)
		writes := []store.Write{news.Write(now, news.ConversationUpdated, m.ID, "conversation", cv.View())}
		if changed {
			writes = append(writes, Conversations.Update(cv))
		}
		return append(writes, Messages.Update(m)), nil
	})
}

// record writes down how a call ended, and says what is to become of the job. token is the one of the call, sealed.
func (d *Desk) record(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message, token string, res whatsapp.SendResult, err error) (job.Result, error) {
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err == nil {
		d.works(rctx, tn)
		return d.accept(rctx, tn, j, m, res)
	}
	var api *whatsapp.APIError
	if !errors.As(err, &api) {
		api = &whatsapp.APIError{Op: "send", Outcome: whatsapp.NotSent, Err: err}
	}
	failed := &Error{Code: codeOf(api), Title: api.Class.Meaning, Detail: api.Details}
	late := d.Now().Sub(m.CreatedAt) > sendPatience
	pause := limited(tn, m, api)
	switch {
	case api.Ambiguous():
		return d.unanswered(rctx, tn, j, m, err)
	case api.Scope() == whatsapp.ScopeAccount && !api.Temporary():
		// not this message's fault: it waits for a new token. Nobody else calls before it is known that the line rests.
		held := d.refusedToken(rctx, tn, token, codeOf(api), err)
		return d.putBack(rctx, tn, j, m, held)
	case api.Outcome == whatsapp.Limited && api.Scope() == whatsapp.ScopePair && !late:
		wait := max(api.RetryAfter(), whatsapp.PairDelay(m.Send.Paired))
		d.lines.rest(pairOf(m), d.Now(), wait)
		return d.putBackAfter(rctx, tn, j, m, func(m *Message) { m.Send.Paired++ }, job.Snooze(wait, "whatsapp.limited", err))
	case pause != nil && !late:
		if pause.Reason == store.Quality {
			d.attention(rctx, tn, codeOf(api))
		}
		return d.putBack(rctx, tn, j, m, d.rest(rctx, tn, j, *pause, err))
	case api.Outcome == whatsapp.Limited && !late:
		return d.putBack(rctx, tn, j, m, job.Snooze(max(api.RetryAfter(), time.Second), "whatsapp.limited", err))
	case api.Temporary() && !job.LastAttempt(j) && !late:
		return d.putBack(rctx, tn, j, m, job.Retry(api.RetryAfter(), codeOf(api), err))
	case m.Origin.Campaign != "" && d.Barred != nil && slices.Contains(templateOut, api.Code):
		called := m.Send.At
		if _, err := d.putBack(rctx, tn, j, m, nil); err != nil {
			return job.Result{}, err
		}
		return job.Result{}, d.Barred(rctx, tn, m, &Refusal{"whatsapp." + failed.Code, "Meta refuses the template: " + failed.Title + "."}, called)
	default:
		return d.refuse(rctx, tn, j, m, failed, err)
	}
}
