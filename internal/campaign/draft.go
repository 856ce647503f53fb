package campaign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Plan is a campaign as its author writes it; in a change of one, what is nil stays.
type Plan struct {
	Name          *string
	Channel       *string
	Audience      *Audience
	Content       *Content
	Schedule      *time.Time // zero: none
	RatePerSecond *float64   // 0: none
	IfVersion     int64
}

// Limits of a campaign.
const (
	maxNamed = 10_000
	maxHTML  = 500 << 10
	minRate  = 0.001 // messages a second: one in a quarter of an hour
)

// Enqueue makes jobs that must be there before what they are for is written.
type Enqueue func(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error)

// Create makes a campaign: a draft, or a scheduled one.
func (b *Bureau) Create(ctx context.Context, tn *tenant.Tenant, p Plan, enqueue Enqueue) (*Campaign, error) {
	now := b.Now().UTC()
	c := &Campaign{ID: id.New("cmp"), State: Draft, CreatedAt: now, UpdatedAt: now}
	if p.Audience == nil {
		return nil, fault.Bad("/audience", "is required")
	}
	if p.Content == nil {
		return nil, fault.Bad("/content", "is required")
	}
	named, err := b.apply(tn, c, p)
	if err != nil {
		return nil, err
	}
	if err := b.put(ctx, tn, c, named, enqueue); err != nil {
		return nil, err
	}
	c.Version = 1
	return c, nil
}

// put writes a draft: first the job that begins it, if it is scheduled, then whom it names, then the campaign.
func (b *Bureau) put(ctx context.Context, tn *tenant.Tenant, c *Campaign, named *Named, enqueue Enqueue) error {
	if c.Schedule != nil {
		if _, err := enqueue(ctx, beginJob(tn.Code, c.ID, *c.Schedule)); err != nil {
			return err
		}
	}
	var writes []store.Write
	if named != nil {
		writes = append(writes, Nameds.Set(named))
	}
	return tn.DB.Commit(ctx, append(writes,
		news.Write(c.UpdatedAt, news.CampaignProgress, c.ID+"|draft|"+fmt.Sprint(c.Version+1), "campaign", c.View()), Campaigns.Update(c))...)
}

// Edit changes a campaign that has not started.
func (b *Bureau) Edit(ctx context.Context, tn *tenant.Tenant, campaignID string, p Plan, enqueue Enqueue) (*Campaign, error) {
	var c *Campaign
	err := retry(ctx, func() error {
		var err error
		if c, err = b.Campaign(ctx, tn, campaignID); err != nil {
			return err
		}
		if p.IfVersion != 0 && p.IfVersion != c.Version {
			return fault.New(fault.Conflict, "version.conflict", "The campaign was changed meanwhile. Read it again.")
		}
		if c.State != Draft && c.State != Scheduled {
			return fault.New(fault.Conflict, "campaign.state", "A campaign that is %s cannot be changed.", c.State)
		}
		named, err := b.apply(tn, c, p)
		if err != nil {
			return err
		}
		c.UpdatedAt = b.Now().UTC()
		return b.put(ctx, tn, c, named, enqueue)
	})
	if err == nil {
		c.Version++
	}
	return c, err
}

// Delete removes a campaign that has not started.
func (b *Bureau) Delete(ctx context.Context, tn *tenant.Tenant, campaignID string) error {
	return retry(ctx, func() error {
		c, err := b.Campaign(ctx, tn, campaignID)
		if err != nil {
			return err
		}
		if c.State != Draft && c.State != Scheduled {
			return fault.New(fault.Conflict, "campaign.state", "A campaign that is %s is a record of what was sent, and is kept.", c.State)
		}
		return tn.DB.Commit(ctx, Campaigns.Remove(c), store.Write{Action: store.Delete, Kind: Nameds.Schema.Kind, ID: c.ID})
	})
}

// Whom gives a campaign's audience whole, with those who are named one by one.
func (b *Bureau) Whom(ctx context.Context, tn *tenant.Tenant, c *Campaign) (Audience, error) {
	a := c.View().Audience
	if c.Filter != nil {
		return a, nil
	}
	n, err := Nameds.Get(ctx, tn.DB, c.ID)
	if errors.Is(err, store.ErrNotFound) {
		return a, nil
	}
	if err == nil {
		a.LeadIDs, a.List = n.LeadIDs, n.List
	}
	return a, err
}

// apply writes a plan into a campaign and tells everything that is wrong with it. named is the audience that is named one
// by one, if the plan has one.
func (b *Bureau) apply(tn *tenant.Tenant, c *Campaign, p Plan) (named *Named, err error) {
	v := &faults{}
	if p.Name != nil {
		if c.Name = strings.TrimSpace(*p.Name); c.Name == "" {
			v.add("/name", "must not be empty")
		}
	}
	if p.Channel != nil {
		if c.Channel != "" && c.Channel != *p.Channel && (p.Content == nil || p.Audience == nil) {
			v.add("/channel", "can only be changed with content and audience")
		}
		c.Channel = *p.Channel
	}
	if p.Content != nil {
		c.Content = *p.Content
		v.content(c.Channel, &c.Content)
	}
	if p.Audience != nil {
		c.Filter, c.Size = p.Audience.Filter, 0
		named = b.audience(v, tn, c, p.Audience)
	}
	if p.RatePerSecond != nil {
		if r := *p.RatePerSecond; r != 0 && r < minRate || r > 1000 {
			v.add("/ratePerSecond", "must be 0, or %g to 1000", minRate)
		}
		c.RatePerSecond = *p.RatePerSecond
	}
	if p.Schedule != nil {
		c.Schedule, c.State = nil, Draft
		if at := p.Schedule.UTC().Truncate(time.Millisecond); !p.Schedule.IsZero() {
			c.Schedule, c.State = &at, Scheduled
			if at.After(b.Now().AddDate(1, 0, 0)) {
				v.add("/schedule", "must be within a year")
			}
			if at.Before(b.Now().Add(-time.Minute)) {
				v.add("/schedule", "is past")
			}
		}
	}
	return named, fault.BadFields(v.fields)
}

type faults struct{ fields []fault.Field }

func (v *faults) add(pointer, format string, args ...any) {
	if len(v.fields) < 20 {
		v.fields = append(v.fields, fault.Field{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
}

func (v *faults) placeholders(pointer, text string) (names []string) {
	names, ok := mail.Names(text)
	if !ok {
		v.add(pointer, "has a placeholder that is not of the form {{name}} or {{lead.name}}")
	}
	return names
}

func (v *faults) content(channel string, t *Content) {
	ofMail := t.Subject != "" || t.HTML != "" || t.Text != ""
	ofWhatsApp := t.Template != "" || t.Language != "" || len(t.Parameters) > 0 || t.From != ""
	if channel == WhatsApp {
		if ofMail {
			v.add("/content", "of WhatsApp is a template, with its language and parameters")
		}
		if t.Template == "" {
			v.add("/content/template", "is required")
		}
		if t.Language == "" {
			v.add("/content/language", "is required")
		}
		for i, p := range t.Parameters {
			at := fmt.Sprintf("/content/parameters/%d", i)
			if strings.TrimSpace(p) == "" {
				v.add(at, "must not be empty: WhatsApp refuses empty parameters")
			}
			if slices.Contains(v.placeholders(at, p), unsubscribeURL) {
				v.add(at, "cannot hold the link to unsubscribe: people write STOP")
			}
		}
		return
	}
	if ofWhatsApp {
		v.add("/content", "of an e-mail is a subject, with html, text or both")
	}
	if strings.TrimSpace(t.Subject) == "" {
		v.add("/content/subject", "is required")
	}
	if t.HTML == "" && t.Text == "" {
		v.add("/content/html", "html or text is required")
	}
	if len(t.HTML) > maxHTML || len(t.Text) > maxHTML {
		v.add("/content", "is longer than %d KiB", maxHTML>>10)
	}
	if slices.Contains(v.placeholders("/content/subject", t.Subject), unsubscribeURL) {
		v.add("/content/subject", "cannot hold the link to unsubscribe")
	}
	v.placeholders("/content/html", t.HTML)
	v.placeholders("/content/text", t.Text)
}

// audience checks whom a campaign goes to, and gives the record of those who are named one by one; nil for a filter.
func (b *Bureau) audience(v *faults, tn *tenant.Tenant, c *Campaign, a *Audience) *Named {
	given := 0
	for _, is := range []bool{a.Filter != nil, a.LeadIDs != nil, a.List != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		v.add("/audience", "is one of filter, leadIds and list")
		return nil
	}
	country := tn.Account().DefaultCountry
	if a.Filter != nil {
		if _, err := a.Filter.query(b.Now(), country); err != nil {
			var f *fault.Error
			if errors.As(err, &f) {
				for _, e := range f.Fields {
					v.add("/audience/filter"+e.Pointer, "%s", e.Detail)
				}
			} else {
				v.add("/audience/filter", "is not a filter")
			}
		}
		return nil
	}
	n := &Named{ID: c.ID, LeadIDs: a.LeadIDs}
	if len(a.LeadIDs)+len(a.List) > maxNamed {
		v.add("/audience", "names more than %d", maxNamed)
		return nil
	}
	for i, e := range a.List {
		at := fmt.Sprintf("/audience/list/%d", i)
		var ok bool
		if e.Email != "" {
			if e.Email, ok = crm.Email(e.Email); !ok {
				v.add(at+"/email", "is not an e-mail address")
			}
		}
		if e.Phone != "" {
			if e.Phone, ok = crm.Phone(e.Phone, country); !ok {
				v.add(at+"/phone", "is not a phone number")
			}
		}
		if (c.Channel == Email && e.Email == "") || (c.Channel == WhatsApp && e.Phone == "") {
			v.add(at, "needs an address of the campaign's channel")
		}
		n.List = append(n.List, e)
	}
	c.Size = len(n.LeadIDs) + len(n.List)
	return n
}
