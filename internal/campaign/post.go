package campaign

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	postHands = 4 // as many as a client has connections
	// mostOpen is how many recipients are in flight at once, at most: so many mails a crash may leave in doubt. Beside those
	// that are on the wire, some are marked already and others are being written down, so that no connection waits for the disk.
	mostOpen      = 16
	restPause     = 2 * time.Second  // until a window looks again whether the client's mail still rests: somebody may let it go on
	recordTimeout = 10 * time.Second // bounds the writing down of an answer; a stop of the engine does not cut it short
	// refusalsMost is how many refusals in a row of the sender or the content stop a campaign: the others would fare alike.
	refusalsMost = 10
)

// round is one window of an e-mail campaign at work.
type round struct {
	b      *Bureau
	tn     *tenant.Tenant
	c      *Campaign
	g      *going
	job    store.Job
	flight string // names this execution
	acc    smtp.Account
	seal   *sealer
	form   *form

	mu     sync.Mutex
	took   int
	broken error // the account does not work
	err    error // the database does not
}

// post works off a window of an e-mail campaign: the recipients that are due, over the client's connections, each marked
// before its call and settled after it.
func (b *Bureau) post(ctx context.Context, tn *tenant.Tenant, c *Campaign, g *going, j store.Job, p windowPayload) (worked, error) {
	rd := &round{b: b, tn: tn, c: c, g: g, job: j, flight: j.ID + ":" + strconv.FormatInt(j.Token, 10)}
	if err := rd.salvage(ctx); err != nil {
		return worked{}, err
	}
	if rest, refused := b.Office.Rest(ctx, tn); refused {
		return rd.parked(ctx, errors.New("the account was refused a moment ago"))
	} else if rest > 0 {
		return worked{stall: job.Snooze(min(rest, restPause), "smtp.resting", nil)}, nil
	}
	if g.left() >= hungMost {
		return worked{wait: hungPause}, nil
	}
	due, err := Recipients.Find(ctx, tn.DB, store.Query{
		Where: []store.Term{store.Where("tally", store.Eq, tally(c.ID, Planned)), store.Where("due", store.Le, b.Now().UnixMilli())},
		Order: "due", Limit: max(p.Take, takeLeast),
	})
	if err != nil {
		return worked{}, err
	}
	if due, err = rd.guard(ctx, due); err != nil || len(due) == 0 {
		return worked{}, err
	}
	if rd.acc, err = b.Office.Account(tn); err != nil {
		return rd.parked(ctx, err)
	}
	key, err := b.Tenants.LinkKey(ctx, tn.Code)
	if err != nil {
		return worked{}, err
	}
	if rd.seal, err = newSealer(key); err != nil {
		return worked{}, err
	}
	rd.form = read(&c.Content)
	wait := rd.run(ctx, due)
	rd.mu.Lock() // of hands that are left behind
	took, broken, err := rd.took, rd.broken, rd.err
	rd.mu.Unlock()
	switch {
	case err != nil:
		return worked{}, err
	case broken != nil:
		return rd.parked(ctx, broken)
	}
	g.mu.Lock()
	refusals := g.refusals
	g.mu.Unlock()
	if refusals >= refusalsMost {
		return worked{}, b.stop(ctx, tn, c, g, "smtp.policy", "The mail server refuses the sender or the content of one mail after the other.")
	}
	if took > 0 {
		err = b.troubled(ctx, tn, c, nil)
	}
	return worked{took: took, wait: wait}, err
}

// parked holds the campaign until its account is mended.
func (rd *round) parked(ctx context.Context, cause error) (worked, error) {
	t := &Trouble{"smtp.credential", "The mail server does not accept the client's account. The campaign goes on when it is set anew.", rd.b.Now().UTC()}
	return worked{stall: job.ParkLane(rd.tn.Code+"/"+mail.Resource, "smtp.credential", cause)}, rd.b.troubled(ctx, rd.tn, rd.c, t)
}

// salvage settles those that an earlier execution left in flight: their calls may have been made. Hands of this process
// that are not back settle theirs themselves.
func (rd *round) salvage(ctx context.Context) error {
	for {
		left, err := Recipients.Find(ctx, rd.tn.DB, store.Query{Where: []store.Term{store.Where("tally", store.Eq, tally(rd.c.ID, InFlight))}, Limit: takeMost})
		if err != nil || len(left) == 0 {
			return err
		}
		salvaged := false
		for _, r := range left {
			if rd.g.away(r.Flight) {
				continue
			}
			salvaged = true
			if id, token, _ := strings.Cut(r.Flight, ":"); id == rd.job.ID {
				if n, err := strconv.ParseInt(token, 10, 64); err == nil && n > rd.job.Token {
					return job.ErrLeaseLost
				}
			}
			err := rd.change(ctx, r, func(r *Recipient) ([]store.Write, bool) {
				if r.State != InFlight {
					return nil, false
				}
				r.State, r.Reason, r.Due = Unconfirmed, "interrupted", rd.b.Now().UTC()
				return nil, true
			})
			if err != nil {
				return err
			}
		}
		if !salvaged {
			return nil
		}
	}
}

// change edits a recipient, looking again as often as others come between. facts are written before it.
func (rd *round) change(ctx context.Context, r *Recipient, edit func(*Recipient) (facts []store.Write, changed bool)) error {
	first := true
	return retry(ctx, func() error {
		if !first {
			again, err := Recipients.Get(ctx, rd.tn.DB, r.ID)
			if err != nil {
				return err
			}
			r = again
		}
		first = false
		facts, changed := edit(r)
		if !changed {
			return nil
		}
		return rd.tn.DB.Commit(ctx, append(facts, Recipients.Update(r))...)
	})
}

// guard looks once more, right before they are written to, who is not to be any more, and gives the others.
func (rd *round) guard(ctx context.Context, due []*Recipient) ([]*Recipient, error) {
	kept, err := rd.b.unwanted(ctx, rd.tn, rd.c, due)
	if err != nil || len(kept) == 0 {
		return due, err
	}
	rest := due[:0]
	for _, r := range due {
		reason := kept[r.ID]
		if reason == "" {
			rest = append(rest, r)
			continue
		}
		err := rd.change(ctx, r, func(r *Recipient) ([]store.Write, bool) {
			if r.State != Planned {
				return nil, false
			}
			r.State, r.Reason, r.Due = Suppressed, reason, rd.b.Now().UTC()
			return nil, true
		})
		if err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// run hands the recipients over until they are done, the slice is over, or something says stop. It tells how long to wait.
func (rd *round) run(ctx context.Context, due []*Recipient) (wait time.Duration) {
	k := rd.hire(ctx, min(postHands-rd.g.left(), len(due)))
	defer k.leave(ctx)
	return k.take(ctx, due)
}

func (rd *round) stopped() bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.g.mu.Lock()
	defer rd.g.mu.Unlock()
	return rd.broken != nil || rd.err != nil || rd.g.refusals >= refusalsMost
}

func (rd *round) fail(err error) {
	rd.mu.Lock()
	if rd.err == nil {
		rd.err = err
	}
	rd.mu.Unlock()
}

// learn draws what an answer says of the others.
func (rd *round) learn(a mail.Answer) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if a.Fate == mail.Broken {
		rd.broken = a.Err
		return
	}
	if a.Fate != mail.Later {
		rd.took++
	}
	rd.g.mu.Lock()
	defer rd.g.mu.Unlock()
	switch {
	case a.Fate == mail.Taken:
		rd.g.refusals = 0
	case a.Fate == mail.Refused && a.Bounce == smtp.BouncePolicy:
		rd.g.refusals++
	}
}

// settle writes down what became of a recipient, whatever another did to it meanwhile (it may have unsubscribed). One that
// was given up as unconfirmed stays so, but for what really happened: that its mail was taken.
func (rd *round) settle(ctx context.Context, e *errand) {
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	err := retry(rctx, func() error {
		now, err := Recipients.Get(rctx, rd.tn.DB, e.r.ID)
		if err != nil {
			return err
		}
		if now.Flight != rd.flight || (now.State != InFlight && now.State != Unconfirmed) {
			return nil
		}
		given := now.State == Unconfirmed
		writes, err := rd.outcome(rctx, now, e.a)
		if err != nil {
			return err
		}
		if given && now.State != Sent {
			return nil
		}
		return rd.tn.DB.Commit(rctx, append(writes, Recipients.Update(now))...)
	})
	if err != nil {
		rd.fail(err)
	}
}

// outcome brings a recipient to what became of its mail, and gives the facts that are written before it.
func (rd *round) outcome(ctx context.Context, r *Recipient, a mail.Answer) ([]store.Write, error) {
	now := rd.b.Now().UTC()
	r.Due, r.Reason = now, a.Code
	switch a.Fate {
	case mail.Taken:
		r.State, r.Reason = Sent, ""
	case mail.Lost:
		r.State = Unconfirmed
	case mail.Broken:
		r.State = Planned
	case mail.Later:
		r.State = Planned
		if a.Shared {
			r.Due = now.Add(a.Wait)
			break
		}
		wait, again := mail.After(r.Tries, now.Sub(r.CreatedAt))
		r.Tries++
		if r.Due = now.Add(wait); !again {
			r.State, r.Due = Failed, now
		}
	case mail.Refused:
		switch a.Bounce {
		case smtp.BounceHard:
			if r.State = Bounced; r.Address == "" { // forgotten meanwhile
				return nil, nil
			}
			return rd.b.Office.Bounced(ctx, rd.tn, r.Address, letterID(rd.tn.Code, r))
		case smtp.BounceSoft:
			r.State = Bounced
		default:
			r.State = Failed
		}
	}
	return nil, nil
}
