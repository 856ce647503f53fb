package campaign

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/store"
)

const (
	// fewReady is how many marked mails may be left beside those on the wire when the next are marked: about as many as go
	// out while that is written.
	fewReady = 3
	linger   = 2 * time.Millisecond // an outcome waits so long for others to share its commit
)

// errand is a recipient that is marked as in flight, with what became of its mail once that is known.
type errand struct {
	r *Recipient
	a mail.Answer
}

// clerk keeps the book of a window: it marks recipients for the hands, each before its call, and writes down what became of
// them. One commit holds the outcomes that came in and the marks of the next, so however many share it, no more are in
// flight at any moment than those marked and not back.
type clerk struct {
	rd *round
	*crew
	ready chan *errand // marked
	back  chan *errand // with their answers

	next  []*Recipient // to be marked
	known []*errand    // to be settled
	away  int          // marked and not back
	until *time.Timer  // when what is known is written at the latest
}

// take works off recipients until they are all marked, the slice is over, or something says stop. It tells how long to
// wait. What it did not mark is still planned.
func (k *clerk) take(ctx context.Context, due []*Recipient) (wait time.Duration) {
	rd, now := k.rd, k.rd.b.Now
	over := time.NewTimer(slice)
	defer over.Stop()
	until := now().Add(slice)
	var turn <-chan time.Time // of due[0], if its pace makes it wait
	mine := false             // and then it may go; else it asks again
	for len(due) > 0 {
		for len(due) > 0 && turn == nil && k.room() > 0 {
			if ctx.Err() != nil || rd.stopped() || !rd.b.open(ctx, rd.tn, rd.c, rd.g) {
				return k.drop(0)
			}
			if rest, _ := rd.b.Office.Rest(ctx, rd.tn); rest > 0 {
				return k.drop(min(rest, restPause))
			}
			r := due[0]
			if !rd.form.fits(r) {
				due = due[1:]
				rd.unfit(ctx, r)
				continue
			}
			p, err := rd.place(ctx)
			if err != nil {
				return k.drop(time.Second)
			}
			switch {
			case p.Wait == 0:
				k.next, due = append(k.next, r), due[1:]
			case now().Add(p.Wait).After(until):
				p.Back()
				return p.Wait
			default:
				turn, mine = time.After(p.Wait), p.Kept
			}
		}
		if k.ripe() {
			k.write(ctx)
			continue
		}
		select {
		case e := <-k.back:
			k.returned(e)
		case <-k.until.C:
			k.write(ctx)
		case <-turn:
			if turn = nil; mine {
				k.next, due = append(k.next, due[0]), due[1:]
			}
		case <-over.C:
			return k.drop(0)
		case <-ctx.Done():
			return k.drop(0)
		}
	}
	return 0
}

// place is the next place in time of both the campaign and the client's account.
func (rd *round) place(ctx context.Context) (mail.Place, error) {
	own, err := rd.b.pace(ctx, rd.g, rd.c, rd.tn.Code, rd.c.RatePerSecond)
	if err != nil || !own.Kept {
		return own, err
	}
	all, err := rd.b.Office.Pace(ctx, rd.tn)
	if err != nil {
		return own, err
	}
	return mail.Place{Wait: max(own.Wait, all.Wait), Kept: all.Kept, Back: func() { own.Back(); all.Back() }}, nil
}

// drop leaves those that are not marked planned.
func (k *clerk) drop(wait time.Duration) time.Duration {
	k.next = nil
	return wait
}

// room is how many more may be marked. Beside a slow server no more are in flight than have a connection.
func (k *clerk) room() int {
	most := mostOpen
	if k.rd.g.slow() {
		most = k.hands
	}
	return most - k.away - len(k.next)
}

// ripe tells whether there is enough to write, or nothing else to wait for.
func (k *clerk) ripe() bool {
	return len(k.next) > 0 && k.away <= k.hands+fewReady || len(k.known) > 0 && k.away == 0
}

func (k *clerk) returned(e *errand) {
	if len(k.known) == 0 {
		k.until.Reset(linger)
	}
	k.known = append(k.known, e)
	k.away--
}

// write settles those that are known and marks the next, in one commit.
func (k *clerk) write(ctx context.Context) {
	rd, known, next := k.rd, k.known, k.next
	k.known, k.next = nil, nil
	k.until.Stop()
	if len(known)+len(next) == 0 {
		return
	}
	defer rd.g.sent(rd.flight, -len(known))
	rd.g.sent(rd.flight, len(next))
	began := time.Now()
	if err := rd.enter(ctx, known, next); err != nil { // one of them was changed by another, or nothing can be written: each by itself
		for _, e := range known {
			rd.settle(ctx, e)
		}
		marked := next[:0]
		for _, r := range next {
			switch err := rd.enter(ctx, nil, []*Recipient{r}); {
			case err == nil:
				marked = append(marked, r)
				continue
			case !errors.Is(err, store.ErrConflict): // else another execution has it
				rd.fail(err)
			}
			rd.g.sent(rd.flight, -1)
		}
		next = marked
	}
	if len(next) > 0 {
		rd.g.marked(time.Since(began))
	}
	for _, r := range next {
		k.ready <- &errand{r: r}
	}
	k.away += len(next)
}

// enter commits what became of some and the marks of others: all or nothing.
func (rd *round) enter(ctx context.Context, known []*errand, next []*Recipient) error {
	writes := make([]store.Write, 0, len(known)+len(next))
	for _, e := range known {
		facts, err := rd.outcome(ctx, e.r, e.a)
		if err != nil {
			return err
		}
		writes = append(append(writes, facts...), Recipients.Update(e.r))
	}
	now := rd.b.Now().UTC()
	for _, r := range next {
		r.State, r.Flight, r.Due = InFlight, rd.flight, now
		writes = append(writes, Recipients.Update(r))
	}
	err := rd.tn.DB.Commit(ctx, writes...)
	if err == nil {
		for _, r := range next {
			r.Version++
		}
	}
	return err
}

// windUp has the hands finish what is marked, and writes that down. When the window's patience is over, those that no hand
// has are planned again.
func (k *clerk) windUp(ctx context.Context) {
	k.write(ctx)
	close(k.ready)
	for shut := k.grabs.Done(); k.away > 0; {
		select {
		case e := <-k.back:
			k.returned(e)
		case <-k.until.C:
			k.write(ctx)
		case <-shut:
			shut = nil
			for e := range k.ready {
				e.a = stopped
				k.returned(e)
			}
		}
	}
	k.write(ctx)
}

// stopped is what becomes of a mail that is not handed over after all.
var stopped = mail.Answer{Fate: mail.Later, Code: "stopped", Shared: true}

// work is what a hand does: it hands over the mails that are marked.
func (k *clerk) work() {
	rd := k.rd
	for e := range k.ready {
		e.a = stopped
		msg := rd.compose(e.r)
		if release, held := rd.b.Office.Grab(k.grabs, rd.tn); held {
			if job.Leased(k.calls) == nil {
				called := time.Now()
				e.a = rd.b.Office.Hand(k.calls, rd.tn, rd.acc, msg)
				rd.g.called(min(time.Since(called), patience))
			}
			release()
		}
		rd.learn(e.a)
		k.back <- e
	}
}
