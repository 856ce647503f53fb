package campaign

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// States of a campaign.
const (
	Draft     = "draft"
	Scheduled = "scheduled"
	Running   = "running"
	Paused    = "paused"
	Done      = "done"
	Cancelled = "cancelled"
)

// Channels.
const (
	Email    = crm.ChannelEmail
	WhatsApp = crm.ChannelWhatsApp
)

// Campaign is one message to many. Its content does not change once it has started.
type Campaign struct {
	store.Meta
	ID            string     `json:"id"`
	Name          string     `json:"name"`
	Channel       string     `json:"channel"`
	State         string     `json:"state"`
	Filter        *Filter    `json:"filter,omitempty"` // else Named says who, in a record of its own
	Size          int        `json:"size,omitempty"`   // of Named
	Content       Content    `json:"content"`
	Schedule      *time.Time `json:"schedule,omitempty"`
	RatePerSecond float64    `json:"ratePerSecond,omitempty"`
	Gen           int64      `json:"gen,omitempty"`    // +1 with each start, resumption and cancellation: jobs of an earlier one end
	Turns         []string   `json:"turns,omitempty"`  // the last that were taken: one that is repeated after a crash finds itself here
	Frozen        bool       `json:"frozen,omitempty"` // every recipient is written down
	Trouble       *Trouble   `json:"trouble,omitempty"`
	CreatedAt     time.Time  `json:"createdAt"`
	UpdatedAt     time.Time  `json:"updatedAt"`
	StartedAt     time.Time  `json:"startedAt,omitzero"`
	EndedAt       time.Time  `json:"endedAt,omitzero"`
}

// turnsKept is how many turns a campaign remembers.
const turnsKept = 16

func (c *Campaign) took(turn string) bool { return slices.Contains(c.Turns, turn) }

func (c *Campaign) mark(turn string) {
	c.Turns = append(c.Turns, turn)
	if n := len(c.Turns) - turnsKept; n > 0 {
		c.Turns = slices.Clone(c.Turns[n:])
	}
}

// Trouble is why a campaign does not get on, or was paused by itself.
type Trouble struct {
	Code   string    `json:"code"`
	Detail string    `json:"detail"`
	At     time.Time `json:"at"`
}

// Content is what is sent: the first three members by e-mail, the others by WhatsApp.
type Content struct {
	Subject    string   `json:"subject,omitempty"`
	HTML       string   `json:"html,omitempty"`
	Text       string   `json:"text,omitempty"`
	Template   string   `json:"template,omitempty"`
	Language   string   `json:"language,omitempty"`
	Parameters []string `json:"parameters,omitempty"`
	From       string   `json:"from,omitempty"` // phone number id
}

// Campaigns is the kind.
var Campaigns = store.Kind[Campaign]{
	Schema: store.Schema{
		Kind:   "campaigns",
		Fields: []store.Field{{Name: "state", Type: store.Text}, {Name: "createdAt", Type: store.Int}},
		Orders: [][]string{{"createdAt"}, {"state", "createdAt"}},
	},
	Key: func(c *Campaign) string { return c.ID },
	Index: func(c *Campaign) store.Fields {
		return store.Fields{"state": c.State, "createdAt": c.CreatedAt.UnixMilli()}
	},
	Meta: func(c *Campaign) *store.Meta { return &c.Meta },
}

// Named is an audience that is named one by one. It is apart from its campaign, which is read all the time.
type Named struct {
	store.Meta
	ID      string   `json:"id"` // the campaign's
	LeadIDs []string `json:"leadIds,omitempty"`
	List    []Entry  `json:"list,omitempty"`
}

// Entry is somebody who need not be a lead.
type Entry struct {
	Email     string         `json:"email,omitempty"`
	Phone     string         `json:"phone,omitempty"`
	Name      string         `json:"name,omitempty"`
	Variables map[string]any `json:"variables,omitempty"`
}

// Nameds is the kind.
var Nameds = store.Kind[Named]{
	Schema: store.Schema{Kind: "campaignAudiences"},
	Key:    func(n *Named) string { return n.ID },
	Index:  func(*Named) store.Fields { return store.Fields{} },
	Meta:   func(n *Named) *store.Meta { return &n.Meta },
}

// States of a recipient.
const (
	Planned     = "planned"     // waits for its turn
	InFlight    = "in_flight"   // the call may have been made
	Queued      = "queued"      // has its WhatsApp message
	Sent        = "sent"        // the server, or Meta, took it
	Delivered   = "delivered"   // WhatsApp
	Read        = "read"        // WhatsApp
	Failed      = "failed"      // refused, for no fault of the address
	Bounced     = "bounced"     // the mailbox refused it
	Suppressed  = "suppressed"  // not to be written to
	Unconfirmed = "unconfirmed" // the answer was lost; not sent again
)

// states are all of them, for counting.
var states = []string{Planned, InFlight, Queued, Sent, Delivered, Read, Failed, Bounced, Suppressed, Unconfirmed}

// Recipient is one address in one campaign and, by e-mail, the ledger of the mail to it.
type Recipient struct {
	store.Meta
	ID           string            `json:"id"`
	CampaignID   string            `json:"campaignId"`
	LeadID       string            `json:"leadId,omitempty"`
	ContactID    string            `json:"contactId,omitempty"`
	Address      string            `json:"address"`
	Name         string            `json:"name,omitempty"`
	Values       map[string]string `json:"values,omitempty"` // of the content's placeholders, frozen
	State        string            `json:"state"`
	Reason       string            `json:"reason,omitempty"`
	Due          time.Time         `json:"due"`              // while planned: not before; else since when it is in its state
	Tries        int               `json:"tries,omitempty"`  // how often it was refused for now
	Flight       string            `json:"flight,omitempty"` // the execution that put it in flight
	MessageID    string            `json:"messageId,omitempty"`
	Unsubscribed *time.Time        `json:"unsubscribed,omitempty"` // by the link in the mail of this campaign
	CreatedAt    time.Time         `json:"createdAt"`
}

// Recipients is the kind.
var Recipients = store.Kind[Recipient]{
	Schema: store.Schema{
		Kind: "campaignRecipients",
		Fields: []store.Field{
			{Name: "campaignId", Type: store.Text, Still: true}, {Name: "tally", Type: store.Text}, {Name: "due", Type: store.Int},
			{Name: "unsubscribedFrom", Type: store.Text, Still: true}, {Name: "at", Type: store.Int, Still: true}, {Name: "leadId", Type: store.Text, Still: true},
		},
		Orders: [][]string{{"campaignId"}, {"tally", "due"}, {"unsubscribedFrom"}, {"at"}, {"leadId"}},
	},
	Key: func(r *Recipient) string { return r.ID },
	Index: func(r *Recipient) store.Fields {
		f := store.Fields{"campaignId": r.CampaignID, "tally": tally(r.CampaignID, r.State), "due": r.Due.UnixMilli(), "at": r.CreatedAt.UnixMilli()}
		if r.LeadID != "" {
			f["leadId"] = r.LeadID
		}
		if r.Unsubscribed != nil {
			f["unsubscribedFrom"] = r.CampaignID
		}
		return f
	},
	Meta: func(r *Recipient) *store.Meta { return &r.Meta },
}

func tally(campaignID, state string) string { return campaignID + "|" + state }

// Schemas are the kinds of this package.
var Schemas = []store.Schema{Campaigns.Schema, Nameds.Schema, Recipients.Schema}

// recipientID is the id of an address in a campaign: however often it stands in the audience, it is one recipient.
func recipientID(code, campaignID, address string) string {
	if len(address) > 0 && address[0] == '+' {
		address = crm.PhoneKey(address)
	}
	return id.Derived("rcp", code, campaignID, address)
}

// letterID is the id, and the Message-ID, of the mail to a recipient.
func letterID(code string, r *Recipient) string { return id.Derived("ltr", code, r.CampaignID, r.ID) }

// Campaign reads a campaign; fault.NotFound.
func (b *Bureau) Campaign(ctx context.Context, tn *tenant.Tenant, campaignID string) (*Campaign, error) {
	c, err := Campaigns.Get(ctx, tn.DB, campaignID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("campaign")
	}
	return c, err
}

// retry runs a read-then-commit until no other writer came between.
func retry(ctx context.Context, step func() error) error {
	var err error
	for range 20 {
		if err = step(); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}
