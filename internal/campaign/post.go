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
	// postHands is how many mails of a campaign are dealt with at once. Beside those that are on the wire, some are being
	// written down: so no connection waits for the disk.
	postHands     = 12
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
	if rest := b.Office.Rest(tn); rest > 0 {
		return worked{wait: rest}, nil
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
	return worked{stall: job.Park("smtp.credential", cause)}, rd.b.troubled(ctx, rd.tn, rd.c, t)
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
	feed := make(chan *Recipient)
	defer rd.hire(ctx, min(postHands, len(due)), feed)()
	defer close(feed)
	over := time.NewTimer(slice)
	defer over.Stop()
	until := rd.b.Now().Add(slice)
	for _, r := range due {
		if ctx.Err() != nil || rd.stopped() || !rd.b.open(ctx, rd.tn, rd.c, rd.g) {
			return 0
		}
		if rest := rd.b.Office.Rest(rd.tn); rest > 0 {
			return rest
		}
		w1, back1 := rd.b.Office.Pace(rd.tn)
		w2, back2 := rd.g.pace(rd.c.RatePerSecond, rd.b.Now())
		if w := max(w1, w2); w > 0 {
			if rd.b.Now().Add(w).After(until) {
				back1()
				back2()
				return w
			}
			select {
			case <-time.After(w):
			case <-ctx.Done():
				return 0
			}
		}
		select {
		case feed <- r:
		case <-over.C:
			back1()
			back2()
			return 0
		case <-ctx.Done():
			return 0
		}
	}
	return 0
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

// settlement is what became of a recipient and is not written down yet.
type settlement struct {
	r *Recipient
	a mail.Answer
}

// hand takes recipients from the feed and hands their mails over. What became of one is written together with the mark of
// the next: one commit a mail.
func (rd *round) hand(ctx context.Context, w *crew, feed <-chan *Recipient) {
	var last *settlement
	for {
		var r *Recipient
		var ok bool
		if last != nil {
			select {
			case r, ok = <-feed:
			default: // nobody yet: what is known is not left lying
				rd.settle(ctx, last)
				last = nil
				continue
			}
		} else {
			r, ok = <-feed
		}
		if !ok {
			if last != nil {
				rd.settle(ctx, last)
			}
			return
		}
		msg, missing := rd.compose(r)
		if missing {
			last = rd.settled(ctx, last)
			err := rd.change(ctx, r, func(r *Recipient) ([]store.Write, bool) {
				r.State, r.Reason, r.Due = Failed, missingVariable, rd.b.Now().UTC()
				return nil, true
			})
			if err != nil {
				rd.fail(err)
			}
			continue
		}
		last = rd.send(ctx, w, r, msg, last)
	}
}

// send marks a recipient and hands its mail over. A mark takes the disk's time: beside a fast server it is made while
// another mail has the connection; beside a slow one not before the connection is free, so that a crash leaves no more
// in doubt than there are connections.
func (rd *round) send(ctx context.Context, w *crew, r *Recipient, msg smtp.Message, last *settlement) *settlement {
	grab := func() (func(), bool) { return rd.b.Office.Grab(w.grabs, rd.tn) }
	var release func()
	early, held := rd.g.slow(), false
	if early {
		last = rd.settled(ctx, last)
		if release, held = grab(); !held {
			return nil
		}
		defer release()
	}
	began := time.Now()
	away, err := rd.depart(ctx, r, last)
	if err != nil {
		rd.fail(err)
	}
	if !away {
		return nil
	}
	marked := time.Now()
	a := mail.Answer{Fate: mail.Later, Code: "stopped", Shared: true}
	if !early {
		if release, held = grab(); held {
			defer release()
		}
	}
	if held {
		called := time.Now()
		a = rd.b.Office.Hand(w.calls, rd.tn, rd.acc, msg)
		rd.g.timed(marked.Sub(began), min(time.Since(called), patience))
	}
	rd.learn(a)
	return &settlement{r, a}
}

// settled settles what is open, and gives nothing.
func (rd *round) settled(ctx context.Context, last *settlement) *settlement {
	if last != nil {
		rd.settle(ctx, last)
	}
	return nil
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

// depart marks a recipient as in flight, together with what became of the last one. False: another execution has it.
func (rd *round) depart(ctx context.Context, r *Recipient, last *settlement) (bool, error) {
	mark := func() store.Write {
		r.State, r.Flight, r.Due = InFlight, rd.flight, rd.b.Now().UTC()
		return Recipients.Update(r)
	}
	if last != nil {
		writes, err := rd.outcome(ctx, last.r, last.a)
		if err != nil {
			rd.settle(ctx, last)
		} else if err := rd.tn.DB.Commit(ctx, append(writes, Recipients.Update(last.r), mark())...); err == nil {
			r.Version++
			return true, nil
		} else { // one of the two was changed by another, or nothing can be written: each by itself
			rd.settle(ctx, last)
		}
	}
	switch err := rd.tn.DB.Commit(ctx, mark()); {
	case err == nil:
		r.Version++
		return true, nil
	case errors.Is(err, store.ErrConflict):
		return false, nil
	default:
		return false, err
	}
}

// settle writes down what became of a recipient. Whatever another did to it meanwhile (it may have been given up as
// unconfirmed, or have unsubscribed), what is known of the call of this execution counts.
func (rd *round) settle(ctx context.Context, s *settlement) {
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	r := s.r
	err := retry(rctx, func() error {
		now, err := Recipients.Get(rctx, rd.tn.DB, r.ID)
		if err != nil {
			return err
		}
		if now.Flight != rd.flight || (now.State != InFlight && now.State != Unconfirmed) {
			return nil
		}
		writes, err := rd.outcome(rctx, now, s.a)
		if err != nil {
			return err
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

// compose makes the mail to a recipient; true if a value is missing.
func (rd *round) compose(r *Recipient) (smtp.Message, bool) {
	link := rd.b.PublicURL + "/u/" + rd.seal.token(rd.tn.Code, Email, rd.c.ID, r.Address)
	m, missing := compose(&rd.c.Content, r, link)
	m.ID = letterID(rd.tn.Code, r)
	return m, len(missing) > 0
}

// compose fills a content for a recipient and sees to it that its link stands in every form of it.
func compose(t *Content, r *Recipient, link string) (m smtp.Message, missing []string) {
	value := func(name string) (string, bool) {
		if name == unsubscribeURL {
			return link, true
		}
		v, ok := r.Values[name]
		return v, ok
	}
	subject, m1 := mail.Fill(t.Subject, value)
	html, m2 := mail.FillHTML(t.HTML, value)
	text, m3 := mail.Fill(t.Text, value)
	if link != "" {
		if html != "" && !strings.Contains(html, link) {
			html = appendHTML(html, `<p style="font-size:12px"><a href="`+link+`">Unsubscribe</a></p>`)
		}
		if text != "" && !strings.Contains(text, link) {
			text += "\n\nUnsubscribe: " + link + "\n"
		}
	}
	return smtp.Message{To: r.Address, ToName: r.Name, Subject: subject, HTML: html, Text: text, ListUnsubscribe: link}, append(append(m1, m2...), m3...)
}

// appendHTML puts something at the end of a document's body.
func appendHTML(doc, more string) string {
	if i := strings.LastIndex(strings.ToLower(doc), "</body>"); i >= 0 && i < len(doc) {
		return doc[:i] + more + doc[i:]
	}
	return doc + more
}
