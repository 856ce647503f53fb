package campaign

import (
	"context"
	"errors"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Trial sends a campaign's message to one address, with the values of the first in its audience. It gives the id of the
// letter or the message, and the job that sends it.
func (b *Bureau) Trial(ctx context.Context, tn *tenant.Tenant, campaignID, to string) (messageID string, next store.NewJob, err error) {
	c, err := b.Campaign(ctx, tn, campaignID)
	if err != nil {
		return "", next, err
	}
	r := &Recipient{ID: id.New("rcp"), CampaignID: c.ID, Address: to}
	value := func(string) (string, bool) { return "", false }
	people, _, err := b.page(ctx, tn, c, b.Now(), place{})
	if err != nil {
		return "", next, err
	}
	if len(people) > 0 {
		value = people[0].value
	}
	r.Values = map[string]string{}
	for _, n := range c.Content.names() {
		v, ok := value(n)
		if !ok {
			v = "[" + n + "]"
		}
		r.Values[n] = v
	}
	if c.Channel == WhatsApp {
		return b.trialMessage(ctx, tn, c, r)
	}
	address, ok := crm.Email(to)
	if !ok {
		return "", next, fault.Bad("/to", "is not an e-mail address")
	}
	r.Address = address
	m, _ := read(&c.Content).compose(r, b.PublicURL+"/u/trial") // leads nowhere: nobody unsubscribes by trying
	l, writes, err := b.Office.Plan(ctx, tn, mail.Outgoing{
		To: address, Subject: m.Subject, HTML: m.HTML, Text: m.Text, Origin: mail.Origin{Campaign: c.ID}, Seed: r.ID,
	})
	var refusal *mail.Refusal
	if errors.As(err, &refusal) {
		return "", next, fault.New(fault.Conflict, refusal.Code, "%s", refusal.Detail)
	}
	if err != nil {
		return "", next, err
	}
	return l.ID, b.Office.SendOf(tn, l, store.Causation{}), tn.DB.Commit(ctx, writes...)
}

func (b *Bureau) trialMessage(ctx context.Context, tn *tenant.Tenant, c *Campaign, r *Recipient) (messageID string, next store.NewJob, err error) {
	phone, ok := crm.Phone(r.Address, tn.Account().DefaultCountry)
	if !ok {
		return "", next, fault.Bad("/to", "is not a phone number")
	}
	err = retry(ctx, func() error {
		person, writes, changed, err := b.Book.Contact(ctx, tn, crm.Who{Phone: phone}, "trial|"+r.ID)
		if err != nil {
			return err
		}
		if changed {
			writes = append(writes, crm.Contacts.Update(person))
		}
		out, err := c.template(func(name string) (string, bool) { v, ok := r.Values[name]; return v, ok })
		if err != nil {
			return err
		}
		out.Contact, out.Seed = person, r.ID
		m, plan, err := b.Desk.Plan(ctx, tn, out)
		if err != nil {
			return err
		}
		messageID, next = m.ID, b.Desk.SendOf(tn, m, store.Causation{})
		return tn.DB.Commit(ctx, append(writes, plan...)...)
	})
	var refusal *chat.Refusal
	if errors.As(err, &refusal) {
		return "", next, fault.New(fault.Conflict, refusal.Code, "%s", refusal.Detail)
	}
	return messageID, next, err
}
