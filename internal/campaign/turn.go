package campaign

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// The job types that move a campaign: TurnJob does what somebody asked for, BeginJob what was scheduled.
const (
	TurnJob  = "campaign.turn"
	BeginJob = "campaign.begin"
)

// Turns.
const (
	Start  = "start"
	Pause  = "pause"
	Resume = "resume"
	Cancel = "cancel"
)

// maxLateness is how late a scheduled campaign still begins by itself: after that, somebody has to say so.
const maxLateness = 2 * time.Hour

type turnPayload struct {
	CampaignID string `json:"campaignId"`
	Turn       string `json:"turn"` // its id
	Op         string `json:"op"`
	Code       string `json:"code,omitempty"`   // of a pause by itself
	Detail     string `json:"detail,omitempty"` // of that
}

type beginPayload struct {
	CampaignID string    `json:"campaignId"`
	At         time.Time `json:"at"`
}

// legal is what a turn may be taken from, and the state it leads to.
var legal = map[string]struct {
	from []string
	to   string
}{
	Start:  {[]string{Draft, Scheduled}, Running},
	Pause:  {[]string{Running}, Paused},
	Resume: {[]string{Paused}, Running},
	Cancel: {[]string{Scheduled, Running, Paused}, Cancelled},
}

// Ask gives the job that takes a turn, once it is clear that it may be taken. nil: it is so already.
func (b *Bureau) Ask(ctx context.Context, tn *tenant.Tenant, campaignID, op string) (*store.NewJob, error) {
	c, err := b.Campaign(ctx, tn, campaignID)
	if err != nil {
		return nil, err
	}
	if op != Start && c.State == legal[op].to {
		return nil, nil
	}
	if err := c.may(op); err != nil {
		return nil, err
	}
	if op == Start || op == Resume {
		if err := b.unblocked(ctx, tn, c); err != nil {
			return nil, err
		}
	}
	n := b.turn(tn.Code, turnPayload{CampaignID: c.ID, Turn: id.New("trn"), Op: op})
	return &n, nil
}

func (b *Bureau) turn(code string, p turnPayload) store.NewJob {
	n := job.New(code, TurnJob, p)
	n.UniqueKey = "campaign:" + p.CampaignID + ":turn:" + p.Turn
	n.Causation = store.Causation{CampaignID: p.CampaignID}
	return n
}

func (c *Campaign) may(op string) error {
	for _, s := range legal[op].from {
		if c.State == s {
			return nil
		}
	}
	return fault.New(fault.Conflict, "campaign.state", "This cannot be done to a campaign that is %s.", c.State)
}

// HandleTurn is the handler of TurnJob. What a turn owes, the job leaves: a second run of it finds the turn taken and
// leaves the same.
func (b *Bureau) HandleTurn(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[turnPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	var next []store.NewJob
	err = retry(ctx, func() error {
		c, err := Campaigns.Get(ctx, tn.DB, p.CampaignID)
		if err != nil {
			return err
		}
		next, err = b.take(ctx, tn, c, p)
		return err
	})
	var refused *fault.Error
	if p.Code == abandoned && errors.As(err, &refused) && refused.Kind == fault.Conflict {
		return job.Result{}, nil // it does not say any more that it runs
	}
	if errors.Is(err, store.ErrNotFound) || (errors.As(err, &refused) && refused.Kind == fault.Conflict) {
		return job.Result{}, job.Dead("refused", err)
	}
	if err == nil && (p.Op == Resume || p.Op == Cancel) {
		_, err = b.Queue.ReleaseParked(ctx, tn.Code) // the messages that the pause held; they look at the campaign again
	}
	if err == nil && p.Op == Cancel && b.CancelCaused != nil {
		_, err = b.CancelCaused(ctx, tn.Code, store.Causation{CampaignID: p.CampaignID})
	}
	return job.Result{Next: next}, err
}

// take takes a turn, if it was not taken yet, and gives the jobs that follow from it.
func (b *Bureau) take(ctx context.Context, tn *tenant.Tenant, c *Campaign, p turnPayload) ([]store.NewJob, error) {
	if !c.took(p.Turn) {
		if err := c.may(p.Op); err != nil {
			return nil, err
		}
		now := b.Now().UTC()
		c.mark(p.Turn)
		c.State, c.UpdatedAt, c.Trouble = legal[p.Op].to, now, nil
		switch p.Op {
		case Start:
			c.Gen++
			c.StartedAt = now
		case Resume:
			c.Gen++
			if c.StartedAt.IsZero() {
				c.StartedAt = now
			}
		case Cancel:
			c.Gen++
			c.EndedAt = now
		case Pause:
			if p.Code != "" {
				c.Trouble = &Trouble{p.Code, p.Detail, now}
			}
		}
		if err := b.tell(ctx, tn, c, p.Turn, Campaigns.Update(c)); err != nil {
			return nil, err
		}
	}
	b.noticed(c)
	return b.follow(tn, c), nil
}

// follow gives the job that a campaign goes on with.
func (b *Bureau) follow(tn *tenant.Tenant, c *Campaign) []store.NewJob {
	switch {
	case c.State == Running && !c.Frozen:
		return []store.NewJob{freezeJob(tn.Code, freezePayload{CampaignID: c.ID, Gen: c.Gen})}
	case c.State == Running:
		return []store.NewJob{windowJob(tn.Code, windowPayload{CampaignID: c.ID, Gen: c.Gen, N: 1}, time.Time{})}
	case c.State == Cancelled:
		return []store.NewJob{windowJob(tn.Code, windowPayload{CampaignID: c.ID, Gen: c.Gen, N: 1}, c.EndedAt.Add(unheldPause))}
	}
	return nil
}

const abandoned = "campaign.abandoned"

// Abandoned gives the turn that pauses a campaign whose job was cancelled or given up: it would stand still and say that
// it runs.
func (b *Bureau) Abandoned(j store.Job) []store.NewJob {
	p, err := job.Payload[struct {
		CampaignID string `json:"campaignId"`
	}](j)
	if err != nil {
		return nil
	}
	return []store.NewJob{b.turn(j.Tenant, turnPayload{CampaignID: p.CampaignID, Turn: "abandoned:" + j.ID, Op: Pause,
		Code: abandoned, Detail: "A job of it was cancelled, or failed for good. Resume it to go on."})}
}

// noticed lets a window of this process know at once what became of its campaign.
func (b *Bureau) noticed(c *Campaign) {
	g := b.under(c.ID)
	g.mu.Lock()
	g.state, g.seen, g.refusals = c.State, b.Now(), 0
	g.mu.Unlock()
}

// beginJob is the job that begins a scheduled campaign. It is made before the campaign says that it is scheduled: one
// that nobody scheduled after all finds nothing to do.
func beginJob(code, campaignID string, at time.Time) store.NewJob {
	n := job.New(code, BeginJob, beginPayload{campaignID, at.UTC()})
	n.UniqueKey = "campaign:" + campaignID + ":begin:" + strconv.FormatInt(at.UnixMilli(), 10)
	n.RunAt, n.Causation = at, store.Causation{CampaignID: campaignID}
	return n
}

// HandleBegin is the handler of BeginJob. What keeps the campaign from beginning pauses it, so that it is seen.
func (b *Bureau) HandleBegin(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[beginPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	c, err := Campaigns.Get(ctx, tn.DB, p.CampaignID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil
	}
	if err != nil {
		return job.Result{}, err
	}
	turn := "begin:" + strconv.FormatInt(p.At.UnixMilli(), 10)
	if c.took(turn) {
		return job.Result{Next: b.follow(tn, c)}, nil
	}
	if c.State != Scheduled || c.Schedule == nil || !c.Schedule.Equal(p.At) {
		return job.Result{}, nil
	}
	trouble := &Trouble{Code: "campaign.late", Detail: "It could not begin in time, and waits for somebody to resume or cancel it.", At: b.Now().UTC()}
	if b.Now().Sub(p.At) <= maxLateness {
		blockers, err := b.blockers(ctx, tn, c)
		if err != nil {
			return job.Result{}, err
		}
		if trouble = nil; len(blockers) > 0 {
			trouble = &Trouble{Code: blockers[0].Code, Detail: blockers[0].Detail, At: b.Now().UTC()}
		}
	}
	if trouble == nil {
		next, err := b.take(ctx, tn, c, turnPayload{CampaignID: c.ID, Turn: turn, Op: Start})
		return job.Result{Next: next}, err
	}
	c.mark(turn)
	c.State, c.Trouble, c.UpdatedAt = Paused, trouble, trouble.At
	if err := b.tell(ctx, tn, c, turn, Campaigns.Update(c)); err != nil {
		return job.Result{}, err
	}
	return job.Result{}, nil
}

// tell commits writes with the news of how the campaign stands. key names the change.
func (b *Bureau) tell(ctx context.Context, tn *tenant.Tenant, c *Campaign, key string, writes ...store.Write) error {
	counts, err := b.Counts(ctx, tn, c)
	if err != nil {
		return err
	}
	v := c.View()
	v.Counts = &counts
	return tn.DB.Commit(ctx, append([]store.Write{news.Write(b.Now(), news.CampaignProgress, c.ID+"|"+key, "campaign", v)}, writes...)...)
}
