package campaign

import (
	"context"
	"slices"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Counts are how many of a campaign's recipients are where. Sent counts those delivered too, and delivered those read.
type Counts struct {
	Planned     int64 `json:"planned" doc:"Not written to yet; of a cancelled campaign, never."`
	Sent        int64 `json:"sent" doc:"Taken by the mail server or by Meta, with those delivered and read."`
	Delivered   int64 `json:"delivered" doc:"With those read. WhatsApp only."`
	Read        int64 `json:"read" doc:"WhatsApp only."`
	Opened      int64 `json:"opened" doc:"Not tracked: always 0."`
	Clicked     int64 `json:"clicked" doc:"Not tracked: always 0."`
	Failed      int64 `json:"failed"`
	Bounced     int64 `json:"bounced" doc:"Refused by the mailbox."`
	OptedOut    int64 `json:"opted_out" doc:"Of those sent, who unsubscribed by this campaign's link."`
	Suppressed  int64 `json:"suppressed" doc:"Not written to, because they are not to be."`
	Unconfirmed int64 `json:"unconfirmed" doc:"The answer was lost: it may have arrived. Never sent again by itself."`
}

// Counts counts a campaign's recipients: the numbers are read from the recipients themselves, so they cannot drift. Who goes
// on from one state to the next meanwhile may be missed, but is not counted twice: the later states are read first.
func (b *Bureau) Counts(ctx context.Context, tn *tenant.Tenant, c *Campaign) (Counts, error) {
	n := map[string]int64{}
	for _, s := range slices.Backward(states) {
		var err error
		if n[s], err = b.count(ctx, tn, c.ID, s); err != nil {
			return Counts{}, err
		}
	}
	out, err := tn.DB.Count(ctx, store.Query{Kind: Recipients.Schema.Kind, Where: []store.Term{store.Where("unsubscribedFrom", store.Eq, c.ID)}})
	return Counts{
		Planned: n[Planned] + n[InFlight] + n[Queued], Sent: n[Sent] + n[Delivered] + n[Read], Delivered: n[Delivered] + n[Read], Read: n[Read],
		Failed: n[Failed], Bounced: n[Bounced], Suppressed: n[Suppressed], Unconfirmed: n[Unconfirmed], OptedOut: out,
	}, err
}

// CampaignView is a campaign as the API shows it.
type CampaignView struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Channel       string   `json:"channel" enum:"email,whatsapp"`
	State         string   `json:"state" enum:"draft,scheduled,running,paused,done,cancelled"`
	Audience      Audience `json:"audience"`
	Content       Content  `json:"content"`
	Schedule      *string  `json:"schedule"`
	RatePerSecond *float64 `json:"ratePerSecond"`
	Trouble       *Stall   `json:"trouble" doc:"Why it does not get on, or was paused by itself."`
	Counts        *Counts  `json:"counts,omitempty" doc:"In live news only; else at /stats."`
	Version       int64    `json:"version"`
	CreatedAt     *string  `json:"createdAt"`
	UpdatedAt     *string  `json:"updatedAt"`
	StartedAt     *string  `json:"startedAt"`
	EndedAt       *string  `json:"endedAt"`
}

// Stall is a Trouble as the API shows it.
type Stall struct {
	Code   string  `json:"code"`
	Detail string  `json:"detail"`
	At     *string `json:"at"`
}

// Audience is whom a campaign goes to. Those who are named one by one are shown where one campaign is read.
type Audience struct {
	Filter  *Filter  `json:"filter,omitempty"`
	LeadIDs []string `json:"leadIds,omitempty"`
	List    []Entry  `json:"list,omitempty"`
	Size    int      `json:"size,omitempty" doc:"How many are named."`
}

// View is the campaign as the API shows it.
func (c *Campaign) View() CampaignView {
	v := CampaignView{
		ID: c.ID, Name: c.Name, Channel: c.Channel, State: c.State, Audience: Audience{Filter: c.Filter, Size: c.Size}, Content: c.Content,
		Version: c.Version, CreatedAt: news.Stamp(c.CreatedAt), UpdatedAt: news.Stamp(c.UpdatedAt),
		StartedAt: news.Stamp(c.StartedAt), EndedAt: news.Stamp(c.EndedAt),
	}
	if t := c.Trouble; t != nil {
		v.Trouble = &Stall{t.Code, t.Detail, news.Stamp(t.At)}
	}
	if c.Schedule != nil {
		v.Schedule = news.Stamp(*c.Schedule)
	}
	if c.RatePerSecond > 0 {
		v.RatePerSecond = &c.RatePerSecond
	}
	return v
}

// RecipientView is a recipient as the API shows it.
type RecipientView struct {
	ID        string  `json:"id"`
	LeadID    *string `json:"leadId"`
	Address   string  `json:"address"`
	Name      string  `json:"name"`
	State     string  `json:"state" enum:"planned,sending,sent,delivered,read,failed,bounced,suppressed,unconfirmed,cancelled"`
	Reason    *string `json:"reason" doc:"Why it was not sent, or may not have been: a code of ours, of SMTP or of Meta."`
	OptedOut  bool    `json:"optedOut" doc:"Unsubscribed by the link in this campaign's mail."`
	MessageID *string `json:"messageId" doc:"Of WhatsApp."`
}

// View is the recipient as the API shows it.
func (r *Recipient) View(c *Campaign) RecipientView {
	v := RecipientView{ID: r.ID, Address: r.Address, Name: r.Name, State: r.State, OptedOut: r.Unsubscribed != nil}
	for _, o := range []struct {
		to   **string
		from string
	}{{&v.LeadID, r.LeadID}, {&v.Reason, r.Reason}, {&v.MessageID, r.MessageID}} {
		if o.from != "" {
			*o.to = &o.from
		}
	}
	switch {
	case c.State == Cancelled && (r.State == Planned || r.Reason == Cancelled):
		v.State = Cancelled
	case r.State == InFlight || r.State == Queued:
		v.State = "sending"
	}
	return v
}

// RecipientStates are the states that recipients can be listed by, with those that are kept for each.
var RecipientStates = map[string][]string{
	"planned": {Planned}, "sending": {InFlight, Queued}, "sent": {Sent}, "delivered": {Delivered}, "read": {Read}, "failed": {Failed},
	"bounced": {Bounced}, "suppressed": {Suppressed}, "unconfirmed": {Unconfirmed}, "cancelled": {Planned},
}

// RecipientQuery selects the recipients of a campaign, by id; state "" is any.
func RecipientQuery(c *Campaign, state string) store.Query {
	if state == "" {
		return store.Query{Where: []store.Term{store.Where("campaignId", store.Eq, c.ID)}}
	}
	var in []any
	for _, s := range RecipientStates[state] {
		in = append(in, tally(c.ID, s))
	}
	return store.Query{Where: []store.Term{store.Where("tally", store.In, in...)}}
}
