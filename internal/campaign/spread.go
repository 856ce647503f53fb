package campaign

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

const (
	spreadSpan   = 2 * time.Second        // a window plans messages for so long ahead
	spreadMost   = 200                    // and so many at most
	queuedMost   = 500                    // messages of one campaign that wait to be sent
	soundings    = 5                      // the first messages, before it is known how they fare
	soundPause   = 500 * time.Millisecond // until they are looked at again
	alikeMost    = 5                      // refusals in a row for what all messages have in common, that stop a campaign
	paceInPlace  = 50 * time.Millisecond  // a wait for the pace that is not worth another claim
	brokenPause  = time.Second            // of messages that come while a campaign is being stopped
	badTemplates = "whatsapp."            // refusals of ours that concern every message alike
)

// spread plans a window of a WhatsApp campaign: messages for the next moments, each with a job of its own, evenly apart.
// Package chat sends them, and asks Cleared before each.
func (b *Bureau) spread(ctx context.Context, tn *tenant.Tenant, c *Campaign, g *going, p windowPayload) (worked, error) {
	g.mu.Lock()
	alike, why := g.refusals, g.why
	g.mu.Unlock()
	if alike >= alikeMost {
		return worked{}, b.stop(ctx, tn, c, g, why, "Meta refuses one message after the other for a reason that they have in common.")
	}
	waiting, err := Recipients.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("tally", store.Eq, tally(c.ID, Queued))}, Order: "due", Limit: takeMost})
	if err != nil {
		return worked{}, err
	}
	patience := unheldAfter
	if p.Sound {
		patience = unheldPause // the whole campaign waits for these few
	}
	if err := b.unhold(ctx, tn, g, waiting, patience); err != nil {
		return worked{}, err
	}
	w := worked{}
	for _, r := range waiting { // of an execution that could not leave them; any other job of theirs is known by its key
		w.next = append(w.next, b.sendOf(tn, r, c.Content.From, time.Time{}))
	}
	if p.Sound && len(waiting) > 0 {
		w.sound, w.wait = true, soundPause
		return w, nil
	}
	rate := c.rate(tn)
	n := min(max(1, int(rate*spreadSpan.Seconds())), spreadMost, queuedMost-len(waiting))
	if p.N == 1 {
		n, w.sound = min(n, soundings), true
	}
	if n <= 0 {
		w.wait = spreadSpan
		return w, nil
	}
	due, err := Recipients.Find(ctx, tn.DB, store.Query{
		Where: []store.Term{store.Where("tally", store.Eq, tally(c.ID, Planned)), store.Where("due", store.Le, b.Now().UnixMilli())},
		Order: "due", Limit: n,
	})
	if err != nil {
		return worked{}, err
	}
	rd := &round{b: b, tn: tn, c: c, g: g}
	if due, err = rd.guard(ctx, due); err != nil {
		return worked{}, err
	}
	at := b.Now()
	for _, r := range due {
		if !b.open(ctx, tn, c, g) {
			break
		}
		planned, refusal, err := b.message(ctx, tn, c, r)
		switch {
		case err != nil:
			return worked{}, err
		case refusal != nil && strings.HasPrefix(refusal.Code, badTemplates):
			return worked{}, b.stop(ctx, tn, c, g, refusal.Code, refusal.Detail)
		case planned:
			w.next = append(w.next, b.sendOf(tn, r, c.Content.From, at))
			at = at.Add(time.Duration(float64(time.Second) / rate))
		}
		w.took++
	}
	w.wait = max(at.Sub(b.Now()), soundPause)
	return w, nil
}

// Messages that a pause holds are let go by the turn that ends it. One that saw the pause just before that, and was held
// just after, is let go by a later look.
const (
	unheldPause = 5 * time.Second
	unheldAfter = time.Minute
)

// unhold lets go of messages that wait for longer than patience.
func (b *Bureau) unhold(ctx context.Context, tn *tenant.Tenant, g *going, waiting []*Recipient, patience time.Duration) error {
	now := b.Now()
	if len(waiting) == 0 || now.Sub(waiting[0].Due) < patience {
		return nil
	}
	g.mu.Lock()
	due := now.Sub(g.unheld) >= patience
	if due {
		g.unheld = now
	}
	g.mu.Unlock()
	if !due {
		return nil
	}
	_, err := b.Queue.ReleaseParked(ctx, tn.Code)
	return err
}

// clear sees to it that the messages of a cancelled campaign learn of that, and that nobody stays in flight.
func (b *Bureau) clear(ctx context.Context, tn *tenant.Tenant, c *Campaign, g *going, j store.Job, p windowPayload) (job.Result, error) {
	if err := (&round{b: b, tn: tn, c: c, g: g, job: j}).salvage(ctx); err != nil {
		return job.Result{}, err
	}
	under := Queued
	if c.Channel == Email {
		under = InFlight
	}
	n, err := b.count(ctx, tn, c.ID, under)
	if err != nil {
		return job.Result{}, err
	}
	if n == 0 || p.N > 100 {
		b.forget(c.ID)
		return job.Result{}, nil
	}
	if c.Channel == WhatsApp {
		if _, err := b.Queue.ReleaseParked(ctx, tn.Code); err != nil {
			return job.Result{}, err
		}
	}
	p.N++
	return job.Result{Next: []store.NewJob{windowJob(tn.Code, p, b.Now().Add(time.Duration(p.N)*unheldPause))}}, nil
}

func (b *Bureau) sendOf(tn *tenant.Tenant, r *Recipient, from string, at time.Time) store.NewJob {
	n := b.Desk.SendOf(tn, &chat.Message{ID: r.MessageID, ContactID: r.ContactID, PhoneNumberID: from, Origin: chat.Origin{Campaign: r.CampaignID}},
		store.Causation{LeadID: r.LeadID, CampaignID: r.CampaignID})
	n.RunAt = at
	return n
}

// message plans the message to a recipient. One that cannot be written to fails, but for a refusal that all would meet.
func (b *Bureau) message(ctx context.Context, tn *tenant.Tenant, c *Campaign, r *Recipient) (planned bool, refusal *chat.Refusal, err error) {
	err = retry(ctx, func() error {
		planned, refusal = false, nil
		now, err := Recipients.Get(ctx, tn.DB, r.ID)
		if err != nil || now.State != Planned {
			return err
		}
		person, writes, changed, err := b.Book.ContactOf(ctx, tn, now.ContactID, crm.Who{Phone: now.Address, Name: now.Name}, "campaign|"+now.ID)
		if err != nil {
			return err
		}
		if changed {
			writes = append(writes, crm.Contacts.Update(person))
		}
		out, err := c.template(func(name string) (string, bool) { v, ok := now.Values[name]; return v, ok })
		if err == nil {
			out.Contact, out.LeadID, out.Seed = person, now.LeadID, "campaign|"+now.ID
			out.Origin = chat.Origin{Campaign: c.ID, Recipient: now.ID}
			var m *chat.Message
			var plan []store.Write
			if m, plan, err = b.Desk.Plan(ctx, tn, out); err == nil {
				writes = append(writes, plan...)
				now.State, now.MessageID, now.ContactID, now.Due = Queued, m.ID, person.ID, b.Now().UTC()
				planned, r.ContactID = true, person.ID
			}
		}
		switch {
		case errors.As(err, &refusal) && strings.HasPrefix(refusal.Code, badTemplates):
			return nil
		case refusal != nil:
			now.State, now.Reason, now.Due = Failed, refusal.Code, b.Now().UTC()
		case err != nil:
			return err
		}
		r.MessageID = now.MessageID
		return tn.DB.Commit(ctx, append(writes, Recipients.Update(now))...)
	})
	return planned, refusal, err
}

// template fills the content for WhatsApp.
func (c *Campaign) template(value func(string) (string, bool)) (chat.Outgoing, error) {
	params := make([]string, 0, len(c.Content.Parameters))
	for _, p := range c.Content.Parameters {
		v, missing := mail.Fill(p, value)
		if len(missing) > 0 {
			return chat.Outgoing{}, &chat.Refusal{Code: missingVariable, Detail: "A placeholder of the template's parameters has no value."}
		}
		params = append(params, v)
	}
	components, err := whatsapp.BodyParameters(params)
	if err != nil {
		return chat.Outgoing{}, &chat.Refusal{Code: "invalid_parameter", Detail: "A template parameter is empty."}
	}
	o, err := whatsapp.TemplateObject(c.Content.Template, c.Content.Language, components)
	if err != nil {
		return chat.Outgoing{}, &chat.Refusal{Code: "whatsapp.invalid_template", Detail: "The template has no name or language."}
	}
	return chat.Outgoing{From: c.Content.From, Type: "template", Object: o}, nil
}

// templateBlockers tell why a WhatsApp campaign cannot start: what planning any message of it is refused for.
func (b *Bureau) templateBlockers(ctx context.Context, tn *tenant.Tenant, c *Campaign) ([]Remark, error) {
	out, err := c.template(func(string) (string, bool) { return "x", true })
	if err == nil {
		out.Contact, out.Seed = &crm.Contact{ID: "con_preflight", Phone: "+12025550143"}, "preflight|"+c.ID
		_, _, err = b.Desk.Plan(ctx, tn, out) // what it would write is thrown away
	}
	var refusal *chat.Refusal
	if errors.As(err, &refusal) {
		return []Remark{{Code: refusal.Code, Detail: refusal.Detail}}, nil
	}
	return []Remark{}, err
}

// alike are Meta's refusals of what all messages of a campaign have in common: the template and its parameters.
var alike = []string{"132000", "132001", "132005", "132007", "132012", "132015", "132016", "131008", "131009", "100"}

// Cleared is the Cleared of chat.Desk: whether a message of a campaign may go out now.
func (b *Bureau) Cleared(ctx context.Context, tn *tenant.Tenant, m *chat.Message) error {
	c, err := Campaigns.Get(ctx, tn.DB, m.Origin.Campaign)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &chat.Refusal{Code: "campaign_gone", Detail: "The campaign was deleted."}
	case err != nil:
		return err
	case c.State == Cancelled:
		return &chat.Refusal{Code: Cancelled, Detail: "The campaign was cancelled."}
	case c.State == Paused:
		return job.Park("campaign_paused", nil)
	}
	r, err := Recipients.Get(ctx, tn.DB, m.Origin.Recipient)
	if err != nil {
		return err
	}
	sup, err := b.Book.Suppressed(ctx, tn, WhatsApp, r.Address)
	if err != nil {
		return err
	}
	if sup[r.Address] != nil {
		return &chat.Refusal{Code: suppressed, Detail: "The number is not to be written to."}
	}
	g := b.under(c.ID)
	g.mu.Lock()
	stopping := g.refusals >= alikeMost
	g.mu.Unlock()
	if stopping {
		return job.Snooze(brokenPause, "campaign_stopping", nil)
	}
	for began := b.Now(); ; {
		p, err := b.pace(ctx, g, c, tn.Code, c.rate(tn))
		if err != nil {
			return err
		}
		if p.Wait > paceInPlace || !p.Kept && b.Now().Add(p.Wait).Sub(began) > paceInPlace {
			p.Back()
			return job.Snooze(p.Wait, "campaign_pace", nil)
		}
		if p.Wait > 0 {
			time.Sleep(p.Wait)
		}
		if p.Kept {
			return nil
		}
	}
}

// Barred is the Barred of chat.Desk: the template cannot be sent now, so the campaign pauses, and the message waits with
// the others until it goes on. What was found out before the campaign went on says nothing of it any more.
func (b *Bureau) Barred(ctx context.Context, tn *tenant.Tenant, m *chat.Message, r *chat.Refusal, found time.Time) error {
	c, err := Campaigns.Get(ctx, tn.DB, m.Origin.Campaign)
	if err == nil && c.State == Running && !found.Before(c.UpdatedAt) {
		err = b.stop(ctx, tn, c, b.under(c.ID), r.Code, r.Detail)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return job.Snooze(brokenPause, "campaign_stopping", nil) // Cleared then says what becomes of it
}

// Tracked is the Tracked of chat.Desk: a recipient stands where its message does.
func (b *Bureau) Tracked(ctx context.Context, tn *tenant.Tenant, m *chat.Message) ([]store.Write, error) {
	var state, reason string
	switch m.Status {
	case chat.Sent:
		state = Sent
	case whatsapp.StatusDelivered:
		state = Delivered
	case whatsapp.StatusRead, whatsapp.StatusPlayed:
		state = Read
	case chat.Unconfirmed:
		state, reason = Unconfirmed, "no_answer"
	case chat.FailedSend:
		if state = Failed; m.Error != nil {
			reason = m.Error.Code
		}
		if reason == optedOut || reason == suppressed {
			state = Suppressed
		}
	default:
		return nil, nil
	}
	b.learn(m.Origin.Campaign, state, reason)
	r, err := Recipients.Get(ctx, tn.DB, m.Origin.Recipient)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil || (r.State == state && r.Reason == reason) {
		return nil, err
	}
	r.State, r.Reason, r.Due = state, reason, b.Now().UTC()
	return []store.Write{Recipients.Update(r)}, nil
}

// learn counts refusals that all messages of a campaign will meet.
func (b *Bureau) learn(campaignID, state, reason string) {
	b.mu.Lock()
	g := b.going[campaignID]
	b.mu.Unlock()
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case state == Failed && (slices.Contains(alike, reason) || strings.HasPrefix(reason, badTemplates)):
		g.refusals++
		g.why = badTemplates + strings.TrimPrefix(reason, badTemplates)
	case state == Sent || state == Delivered || state == Read:
		g.refusals = 0
	}
}
