package crm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ledger reads all rows of a lead, and of those that are part of it, with some that are still to be written.
func (b *Book) ledger(ctx context.Context, tn *tenant.Tenant, l *Lead, more ...*ScoreEvent) ([]*ScoreEvent, error) {
	ids, err := idsOf(ctx, tn, l.ID)
	if err != nil {
		return nil, err
	}
	var rows []*ScoreEvent
	for _, leadID := range ids {
		var after *store.Cursor
		for {
			found, err := ScoreEvents.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, leadID)}, Order: "at", After: after, Limit: store.MaxLimit})
			if err != nil {
				return nil, err
			}
			rows = append(rows, found...)
			if len(found) < store.MaxLimit {
				break
			}
			last := found[len(found)-1]
			after = &store.Cursor{Value: last.At.UnixMilli(), ID: last.ID}
		}
	}
	return append(rows, more...), nil
}

// turnAhead is how far ahead a lead's next turn is looked for: beyond, the daily look at all scores comes first.
const turnAhead = 26 * time.Hour

// Rescore brings a lead's score and grade up to its ledger, with the rows that are written in the same commit. cause names
// what changed it; was is the score before that. The lead is not written.
//
// A lead that has no points but its client's own was given those by the client's actions already.
func (b *Book) Rescore(ctx context.Context, tn *tenant.Tenant, l *Lead, cause string, was float64, at time.Time, rows ...*ScoreEvent) error {
	own := func(r *ScoreEvent) bool { return pointRules[r.Rule] == nil }
	if !l.Decays && !slices.ContainsFunc(rows, func(r *ScoreEvent) bool { return !own(r) }) {
		l.regrade(cause, was, at)
		return nil
	}
	return b.rescore(ctx, tn, l, cause, was, at, rows...)
}

// rescore is Rescore by the whole ledger.
func (b *Book) rescore(ctx context.Context, tn *tenant.Tenant, l *Lead, cause string, was float64, at time.Time, rows ...*ScoreEvent) error {
	all, err := b.ledger(ctx, tn, l, rows...)
	if err != nil {
		return err
	}
	if l.ScoredAt.After(at) { // told late: the score does not go back in time
		at = l.ScoredAt
	}
	t := count(all, tn.Account().Zone())
	l.Score, l.ScoredAt, l.Decays = t.total(at), at, t.fades(t.from(at))
	l.regrade(cause, was, at) // by the exact score: its turn is computed by that too
	l.Score = thousandths(l.Score)
	l.TurnsAt = t.turn(at, at.Add(turnAhead), time.Hour, l.Grade)
	return nil
}

// Scored gives the occurrence and the job that a lead's new score owes; cause is what changed it. Asked again, it gives
// the same.
func (b *Book) Scored(tn *tenant.Tenant, l *Lead, cause string) (crossings []Occurrence, next []store.NewJob) {
	if c := l.CrossingBy(cause); c != nil {
		crossings = append(crossings, c.occurrence(l))
	}
	if !l.TurnsAt.IsZero() {
		next = append(next, turnJob(tn, l))
	}
	return crossings, next
}

// raiseScored is Scored for what nobody but the score itself caused.
func (b *Book) raiseScored(ctx context.Context, tn *tenant.Tenant, l *Lead, cause string) ([]store.NewJob, error) {
	os, next := b.Scored(tn, l, cause)
	if len(os) == 0 || b.Raise == nil {
		return next, nil
	}
	raised, err := b.Raise(ctx, tn, os...)
	return append(raised, next...), err
}

// Heard is what a score is made of when a person writes.
type Heard struct {
	LeadID string
	Source string // names it for good: a message
	At     time.Time
	Word   string // "out" or "in", of one who asks for no messages, or for messages again; other things are then not looked at
	Text   string
	Media  bool
	Quick  bool // an answer within minutes
}

// Hear gives the rows by which what a person wrote counts for their lead, to stand in the ledger before the record of it.
// They cost the one who takes messages in no more than that: the lead's stored score is due. A client whose
// rules give points for messages does that itself.
func (b *Book) Hear(ctx context.Context, tn *tenant.Tenant, h Heard) ([]store.Write, error) {
	if h.LeadID == "" {
		return nil, nil
	}
	l, err := b.LeadByID(ctx, tn, h.LeadID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := h.rules()
	if h.Word == "" {
		if names, err = b.free(ctx, tn, l, h, names); err != nil || len(names) == 0 {
			return nil, err
		}
		if b.OwnPoints != nil {
			if own, err := b.OwnPoints(ctx, tn, "message_received"); err != nil || own {
				return nil, err
			}
		}
	}
	var writes []store.Write
	for _, name := range names {
		writes = append(writes, ScoreEvents.Ensure(NewPoints(tn.Code, l.ID, name, h.Source, h.Source, 0, h.At)))
	}
	return append(writes, b.Due(tn, l.ID)), nil
}

// rules are those by which what was written counts.
func (h Heard) rules() []string {
	switch h.Word {
	case "out":
		return []string{PointsOptOut}
	case "in":
		return []string{PointsOptIn}
	}
	names := []string{PointsReply}
	ws := Words(h.Text)
	for _, r := range []struct {
		name  string
		holds bool
	}{
		{PointsQuick, h.Quick}, {PointsMedia, h.Media}, {PointsSubstantive, len(ws) >= 5 || strings.Contains(h.Text, "?")}, {PointsIntent, asks(ws)},
	} {
		if r.holds {
			names = append(names, r.name)
		}
	}
	return names
}

// buying are words by which people ask for a price, or for room.
//
//nolint:misspell // not all are English
var buying = strings.Fields(`price prices pricing cost costs fee fees charge charges quote quotation rate rates discount buy purchase order
	available availability book booking appointment slot slots reserve reservation
	precio precios cuesta cuanto cuánto disponible reservar preço preços custa quanto disponível agendar prix combien coûte rendez
	kitna kitne daam`)

func asks(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(buying, w) })
}

// free leaves of some rules those of which the day has room left before a moment. What comes late finds the room that it
// would have had: which rows count is decided when they are counted.
func (b *Book) free(ctx context.Context, tn *tenant.Tenant, l *Lead, h Heard, names []string) ([]string, error) {
	at := h.At.In(tn.Account().Zone())
	midnight := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, at.Location())
	rows, err := ScoreEvents.Find(ctx, tn.DB, store.Query{Where: []store.Term{
		store.Where("leadId", store.Eq, l.ID), store.Where("at", store.Ge, midnight.UnixMilli()), store.Where("at", store.Le, at.UnixMilli()),
	}, Order: "at", Limit: 1000})
	if err != nil {
		return nil, err
	}
	used := map[string]int{}
	for _, r := range rows {
		if r.Ref != h.Source { // its own, of a try that was cut, are not in its way
			used[r.Rule]++
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return used[n] >= pointRules[n].PerDay }), nil
}

// ofMessage tells whether a row stands for something that a timeline shows as a message.
func (s *ScoreEvent) ofMessage() bool {
	return slices.Contains(messageRules, s.Rule) && s.Rule != PointsOptOut && s.Rule != PointsOptIn
}
