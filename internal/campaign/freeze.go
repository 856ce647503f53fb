package campaign

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// FreezeJob is the type of the job that writes down a page of an audience.
const FreezeJob = "campaign.freeze"

type freezePayload struct {
	CampaignID string `json:"campaignId"`
	Gen        int64  `json:"gen"`
	From       place  `json:"from"`
	Page       int    `json:"page"`
}

func freezeJob(code string, p freezePayload) store.NewJob {
	n := job.New(code, FreezeJob, p)
	n.UniqueKey = "campaign:" + p.CampaignID + ":freeze:" + strconv.FormatInt(p.Gen, 10) + ":" + strconv.Itoa(p.Page)
	n.Causation = store.Causation{CampaignID: p.CampaignID}
	return n
}

// Reasons of recipients that are not written to.
const (
	optedOut        = "opted_out"
	suppressed      = "suppressed"
	missingVariable = "missing_variable"
)

// HandleFreeze is the handler of FreezeJob: a page of the audience becomes recipients, with what is said to each. Ids are
// derived from the address, so that a page that is written again, or an address that comes again, is the same recipient.
func (b *Bureau) HandleFreeze(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[freezePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	c, err := Campaigns.Get(ctx, tn.DB, p.CampaignID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil // erased meanwhile
	}
	if err != nil {
		return job.Result{}, err
	}
	if c.Gen != p.Gen || c.State != Running {
		return job.Result{}, nil // whoever paused it: its resumption freezes anew
	}
	people, next, err := b.page(ctx, tn, c, c.StartedAt, p.From)
	if err != nil {
		return job.Result{}, err
	}
	if err := b.write(ctx, tn, c, people); err != nil {
		return job.Result{}, err
	}
	if next != nil {
		return job.Result{Next: []store.NewJob{freezeJob(tn.Code, freezePayload{c.ID, p.Gen, *next, p.Page + 1})}}, nil
	}
	err = b.edit(ctx, tn, c.ID, func(c *Campaign) bool {
		if c.Gen != p.Gen || c.Frozen {
			return false
		}
		c.Frozen = true
		return true
	})
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{Next: []store.NewJob{windowJob(tn.Code, windowPayload{CampaignID: c.ID, Gen: p.Gen, N: 1}, time.Time{})}}, nil
}

// write makes recipients of people.
func (b *Bureau) write(ctx context.Context, tn *tenant.Tenant, c *Campaign, people []person) error {
	addresses := make([]string, 0, len(people))
	for i := range people {
		addresses = append(addresses, people[i].address)
	}
	kept, err := b.Book.Suppressed(ctx, tn, c.Channel, addresses...)
	if err != nil {
		return err
	}
	names := c.Content.names()
	at, due := c.StartedAt.UTC(), b.Now().UTC()
	writes := make([]store.Write, 0, len(people))
	for i := range people {
		p := &people[i]
		if p.address == "" {
			continue
		}
		r := &Recipient{
			ID: recipientID(tn.Code, c.ID, p.address), CampaignID: c.ID, LeadID: p.leadID, ContactID: p.contactID, Address: p.address,
			Name: p.name, State: Planned, Due: due, CreatedAt: at,
		}
		values, missing := p.freeze(names)
		r.Values = values
		switch {
		case kept[p.address] != nil:
			r.State, r.Reason = Suppressed, suppressed
		case p.optedOut:
			r.State, r.Reason = Suppressed, optedOut
		case len(missing) > 0:
			r.State, r.Reason = Failed, missingVariable
		}
		writes = append(writes, Recipients.Ensure(r))
	}
	if len(writes) == 0 {
		return nil
	}
	// They lie in the order in which they will be worked off, by due and id: those that are marked together lie together. Of
	// somebody who is named twice, the first entry counts.
	slices.SortStableFunc(writes, func(a, b store.Write) int { return cmp.Compare(a.ID, b.ID) })
	return tn.DB.Commit(ctx, writes...)
}

// edit changes a campaign, looking again as often as others come between; change tells whether there is anything to write.
func (b *Bureau) edit(ctx context.Context, tn *tenant.Tenant, campaignID string, change func(*Campaign) bool) error {
	return retry(ctx, func() error {
		c, err := Campaigns.Get(ctx, tn.DB, campaignID)
		if err != nil {
			return err
		}
		if !change(c) {
			return nil
		}
		c.UpdatedAt = b.Now().UTC()
		return tn.DB.Commit(ctx, Campaigns.Update(c))
	})
}
