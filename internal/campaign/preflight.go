package campaign

import (
	"context"
	"errors"
	"math"
	"net/url"
	"slices"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Remark is something that preflight found.
type Remark struct {
	Code   string   `json:"code"`
	Detail string   `json:"detail"`
	Count  int64    `json:"count,omitempty" doc:"How many people it concerns."`
	Names  []string `json:"names,omitempty" doc:"Of variables."`
}

// Preflight is what a start would meet.
type Preflight struct {
	Audience         int64    `json:"audience" doc:"Different addresses, with those that will be suppressed."`
	Blockers         []Remark `json:"blockers" doc:"Why it would not start."`
	Warnings         []Remark `json:"warnings"`
	EstimatedSeconds int64    `json:"estimatedSeconds"`
}

// Rates that are reckoned with where none is set.
const (
	guessedEmailRate    = 20
	defaultWhatsAppRate = 50 // messages a second and number; Meta takes 80, and people who write need some
	examineMost         = 20_000
)

// blockers tell why a campaign cannot start, without looking at its audience.
func (b *Bureau) blockers(ctx context.Context, tn *tenant.Tenant, c *Campaign) ([]Remark, error) {
	out := []Remark{}
	add := func(code, detail string) { out = append(out, Remark{Code: code, Detail: detail}) }
	if c.Channel == WhatsApp {
		return b.templateBlockers(ctx, tn, c)
	}
	acc, err := b.Office.Account(tn)
	var none *mail.Refusal
	switch {
	case errors.As(err, &none):
		add(none.Code, none.Detail)
	case err != nil:
		add("secret.unreadable", "The stored password of the mail server cannot be read. Set it again.")
	default:
		if err := b.Office.SMTP.Validate(acc); err != nil {
			add("smtp.invalid", "The mail account is not fit to be used: its host, port or sender.")
		}
	}
	if u, err := url.Parse(b.PublicURL); (err != nil || u.Scheme != "https") && !mail.Loopback(tn.Account().SMTP) {
		add("public_url.not_https", "Unsubscribe links need an https address: set ECOD_PUBLIC_URL.")
	}
	return out, nil
}

// unblocked is nil, or the fault that names why a campaign cannot start.
func (b *Bureau) unblocked(ctx context.Context, tn *tenant.Tenant, c *Campaign) error {
	found, err := b.blockers(ctx, tn, c)
	if err != nil || len(found) == 0 {
		return err
	}
	f := fault.New(fault.Conflict, "campaign.blocked", "%s", found[0].Detail)
	f.Extra = map[string]any{"blockers": found}
	return f
}

// Preflight looks through a campaign as its start would, and writes nothing.
func (b *Bureau) Preflight(ctx context.Context, tn *tenant.Tenant, campaignID string) (*Preflight, error) {
	c, err := b.Campaign(ctx, tn, campaignID)
	if err != nil {
		return nil, err
	}
	out := &Preflight{Warnings: []Remark{}}
	if out.Blockers, err = b.blockers(ctx, tn, c); err != nil {
		return nil, err
	}
	var noAddress, kept, lacking int64
	var lacked []string
	names := c.Content.names()
	seen := map[string]bool{}
	looked := 0
	for from := (&place{}); from != nil; {
		if looked >= examineMost {
			out.Warnings = append(out.Warnings, Remark{Code: "not_examined", Detail: "The audience is large: only its first part was looked through."})
			if c.Filter != nil {
				q, err := c.Filter.query(b.Now(), tn.Account().DefaultCountry)
				if err != nil {
					return nil, err
				}
				n, err := tn.DB.Count(ctx, store.Query{Kind: crm.Leads.Schema.Kind, Where: q.Where})
				if err != nil {
					return nil, err
				}
				out.Audience += n - int64(looked)
			}
			break
		}
		people, next, err := b.page(ctx, tn, c, b.Now(), *from)
		if err != nil {
			return nil, err
		}
		looked += len(people)
		addresses := make([]string, 0, len(people))
		for i := range people {
			addresses = append(addresses, people[i].address)
		}
		sup, err := b.Book.Suppressed(ctx, tn, c.Channel, addresses...)
		if err != nil {
			return nil, err
		}
		for i := range people {
			p := &people[i]
			rid := recipientID(tn.Code, c.ID, p.address)
			switch _, missing := p.freeze(names); {
			case p.address == "":
				noAddress++
				continue
			case seen[rid]:
				continue
			case sup[p.address] != nil || p.optedOut:
				kept++
			case len(missing) > 0:
				lacking++
				for _, m := range missing {
					if !slices.Contains(lacked, m) {
						lacked = append(lacked, m)
					}
				}
			}
			seen[rid] = true
			out.Audience++
		}
		from = next
	}
	if out.Audience == 0 {
		out.Blockers = append(out.Blockers, Remark{Code: "audience.empty", Detail: "Nobody is in the audience."})
	}
	for _, w := range []Remark{
		{Code: "no_address", Detail: "They have no address on this channel, and are left out.", Count: noAddress},
		{Code: "suppressed", Detail: "They are not to be written to, and will not be.", Count: kept},
		{Code: "missing_variable", Detail: "They lack a value for a placeholder, and will fail.", Count: lacking, Names: lacked},
	} {
		if w.Count > 0 {
			out.Warnings = append(out.Warnings, w)
		}
	}
	out.EstimatedSeconds = int64(math.Ceil(float64(max(0, out.Audience-kept-lacking)) / max(c.rate(tn), minRate)))
	return out, nil
}

// rate is how many messages a second a campaign sends, as far as that can be told.
func (c *Campaign) rate(tn *tenant.Tenant) float64 {
	r := c.RatePerSecond
	least := func(v float64) {
		if v > 0 && (r == 0 || v < r) {
			r = v
		}
	}
	if c.Channel == WhatsApp {
		if r == 0 {
			r = defaultWhatsAppRate
		}
		return r
	}
	if s := tn.Account().SMTP; s != nil {
		least(s.RatePerSecond)
	}
	if r == 0 {
		r = guessedEmailRate
	}
	return r
}

// unwanted tells which recipients are not to be written to, and why.
func (b *Bureau) unwanted(ctx context.Context, tn *tenant.Tenant, c *Campaign, rs []*Recipient) (map[string]string, error) {
	if len(rs) == 0 {
		return nil, nil
	}
	addresses, contacts := make([]string, 0, len(rs)), make([]string, 0, len(rs))
	for _, r := range rs {
		addresses = append(addresses, r.Address)
		if r.ContactID != "" {
			contacts = append(contacts, r.ContactID)
		}
	}
	sup, err := b.Book.Suppressed(ctx, tn, c.Channel, addresses...)
	if err != nil {
		return nil, err
	}
	slices.Sort(contacts)
	known, err := crm.Contacts.GetAll(ctx, tn.DB, slices.Compact(contacts)...)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, k := range known {
		who := k
		if k.MergedInto != "" {
			if who, err = b.Book.Person(ctx, tn, k.ID); errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		if who.OptedOutAt != nil {
			out[k.ID] = true
		}
	}
	reasons := map[string]string{}
	for _, r := range rs {
		switch {
		case sup[r.Address] != nil:
			reasons[r.ID] = suppressed
		case out[r.ContactID]:
			reasons[r.ID] = optedOut
		}
	}
	return reasons, nil
}
