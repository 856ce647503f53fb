package campaign

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// WindowJob is the type of the job that works off a part of a campaign's recipients.
const WindowJob = "campaign.window"

const (
	slice      = 750 * time.Millisecond // a window holds its worker for so long, and then lets others come
	glance     = 250 * time.Millisecond // a pause or a cancellation is seen within this, also one by another process
	progressAt = time.Second            // progress is told this often at most
	takeLeast  = 32                     // recipients read for a window
	takeMost   = 1500
	busyPause  = 250 * time.Millisecond // until a window looks again whether the one before it has ended
	maxPause   = 10 * time.Minute       // until a waiting window looks again
)

type windowPayload struct {
	CampaignID string `json:"campaignId"`
	Gen        int64  `json:"gen"`
	N          int64  `json:"n"`
	Take       int    `json:"take,omitempty"`  // how many recipients to read
	Sound      bool   `json:"sound,omitempty"` // the first few are on their way: nobody else until it is known how they fare
}

func windowJob(code string, p windowPayload, at time.Time) store.NewJob {
	n := job.New(code, WindowJob, p)
	n.UniqueKey = "campaign:" + p.CampaignID + ":window:" + strconv.FormatInt(p.Gen, 10) + ":" + strconv.FormatInt(p.N, 10)
	n.KeyHash = n.UniqueKey
	n.RunAt, n.Causation = at, store.Causation{CampaignID: p.CampaignID}
	return n
}

// worked is what a window did.
type worked struct {
	took  int           // recipients that were worked off
	wait  time.Duration // until the next window is of use
	next  []store.NewJob
	sound bool  // see windowPayload
	stall error // what became of the job, if it is not over
}

// HandleWindow is the handler of WindowJob: it works off what is due for a short while, and leaves the next window. What
// it did not come to is still planned, so no cursor can pass over anybody.
func (b *Bureau) HandleWindow(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[windowPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	g := b.under(p.CampaignID)
	idle := g.busy.TryLock()
	if idle {
		defer g.busy.Unlock()
	}
	c, err := Campaigns.Get(ctx, tn.DB, p.CampaignID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil
	}
	if err != nil {
		return job.Result{}, err
	}
	switch {
	case c.Gen != p.Gen:
		return job.Result{}, nil
	case !idle: // one that is not needed any more still ends; its worker is not held meanwhile
		return job.Result{}, job.Snooze(busyPause, "campaign_busy", nil)
	}
	b.noticedIn(g, c)
	switch {
	case c.State == Cancelled:
		return b.clear(ctx, tn, c, g, j, p)
	case c.State != Running:
		return job.Result{}, nil
	}
	var w worked
	if c.Channel == Email {
		w, err = b.post(ctx, tn, c, g, j, p)
	} else {
		w, err = b.spread(ctx, tn, c, g, p)
	}
	if err == nil {
		err = w.stall
	}
	if err != nil {
		return job.Result{}, err
	}
	return b.onward(ctx, tn, c, g, p, w)
}

func (b *Bureau) noticedIn(g *going, c *Campaign) {
	g.mu.Lock()
	g.state, g.seen = c.State, b.Now()
	g.mu.Unlock()
}

// onward leaves the next window, or ends the campaign when nobody is left.
func (b *Bureau) onward(ctx context.Context, tn *tenant.Tenant, c *Campaign, g *going, p windowPayload, w worked) (job.Result, error) {
	first, err := Recipients.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("tally", store.Eq, tally(c.ID, Planned))}, Order: "due"})
	left := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return job.Result{}, err
	}
	if !left {
		for _, s := range []string{InFlight, Queued} {
			n, err := b.count(ctx, tn, c.ID, s)
			if err != nil {
				return job.Result{}, err
			}
			left = left || n > 0
		}
	}
	if !left {
		return job.Result{}, b.finish(ctx, tn, c)
	}
	if err := b.progress(ctx, tn, c, g, p); err != nil {
		return job.Result{}, err
	}
	now := b.Now()
	wait := w.wait
	if first != nil {
		wait = max(wait, first.Due.Sub(now))
	} else if c.Channel == Email {
		wait = max(wait, time.Second) // somebody is in flight elsewhere
	}
	wait = min(wait, maxPause)
	at := time.Time{}
	if wait > 0 {
		at = now.Add(wait)
	}
	p.N++
	p.Sound = w.sound
	p.Take = min(max(2*w.took, takeLeast), takeMost)
	return job.Result{Next: append(w.next, windowJob(tn.Code, p, at))}, nil
}

// finish ends a campaign that has nobody left.
func (b *Bureau) finish(ctx context.Context, tn *tenant.Tenant, c *Campaign) error {
	err := retry(ctx, func() error {
		now, err := Campaigns.Get(ctx, tn.DB, c.ID)
		if err != nil {
			return err
		}
		if now.State != Running || now.Gen != c.Gen {
			return nil
		}
		now.State, now.EndedAt, now.Trouble = Done, b.Now().UTC(), nil
		now.UpdatedAt = now.EndedAt
		return b.tell(ctx, tn, now, "done|"+strconv.FormatInt(c.Gen, 10), Campaigns.Update(now))
	})
	if err == nil {
		b.forget(c.ID)
	}
	return err
}

// progress tells how a campaign gets on, now and then.
func (b *Bureau) progress(ctx context.Context, tn *tenant.Tenant, c *Campaign, g *going, p windowPayload) error {
	now := b.Now()
	g.mu.Lock()
	due := now.Sub(g.told) >= progressAt
	if due {
		g.told = now
	}
	g.mu.Unlock()
	if !due {
		return nil
	}
	return b.tell(ctx, tn, c, "window|"+strconv.FormatInt(p.Gen, 10)+"|"+strconv.FormatInt(p.N, 10))
}

// open tells whether the campaign still runs, by what was read of it a moment ago.
func (b *Bureau) open(ctx context.Context, tn *tenant.Tenant, c *Campaign, g *going) bool {
	now := b.Now()
	g.mu.Lock()
	state, fresh := g.state, now.Sub(g.seen) < glance
	g.mu.Unlock()
	if fresh || state != Running {
		return state == Running
	}
	again, err := Campaigns.Get(ctx, tn.DB, c.ID)
	if err != nil {
		return false
	}
	if again.Gen != c.Gen {
		again.State = Paused // another window has it
	}
	b.noticedIn(g, again)
	return again.State == Running
}

// troubled notes why a campaign does not get on; nil: it does again.
func (b *Bureau) troubled(ctx context.Context, tn *tenant.Tenant, c *Campaign, t *Trouble) error {
	same := func(c *Campaign) bool {
		return (t == nil && c.Trouble == nil) || (t != nil && c.Trouble != nil && c.Trouble.Code == t.Code)
	}
	if same(c) {
		return nil
	}
	return b.edit(ctx, tn, c.ID, func(c *Campaign) bool {
		if c.State != Running || same(c) {
			return false
		}
		c.Trouble = t
		return true
	})
}

// stop pauses a campaign by itself.
func (b *Bureau) stop(ctx context.Context, tn *tenant.Tenant, c *Campaign, g *going, code, detail string) error {
	err := retry(ctx, func() error {
		now, err := Campaigns.Get(ctx, tn.DB, c.ID)
		if err != nil {
			return err
		}
		if now.State != Running || now.Gen != c.Gen {
			return nil
		}
		at := b.Now().UTC()
		now.State, now.Trouble, now.UpdatedAt = Paused, &Trouble{code, detail, at}, at
		return b.tell(ctx, tn, now, "stopped|"+strconv.FormatInt(c.Gen, 10), Campaigns.Update(now))
	})
	g.mu.Lock()
	g.state, g.refusals = Paused, 0
	g.mu.Unlock()
	return err
}

func (b *Bureau) count(ctx context.Context, tn *tenant.Tenant, campaignID, state string) (int64, error) {
	return tn.DB.Count(ctx, store.Query{Kind: Recipients.Schema.Kind, Where: []store.Term{store.Where("tally", store.Eq, tally(campaignID, state))}})
}
