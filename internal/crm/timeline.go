package crm

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Entry is one thing in a lead's timeline. Data is it as the API shows it.
type Entry struct {
	ID   string
	At   time.Time
	Type string // change, note, score, message, run, …
	Data any
}

// Subject is whom a timeline is about: a lead, with those that were merged into it, and its contacts.
type Subject struct {
	Leads, Contacts []string
}

// Source gives the newest entries of one kind before a place, the newest first, of equal times the greater id first.
type Source func(ctx context.Context, tn *tenant.Tenant, s Subject, before *store.Cursor, limit int) ([]Entry, error)

// Subject finds whom the timeline of a lead is about; fault.NotFound.
func (b *Book) Subject(ctx context.Context, tn *tenant.Tenant, leadID string) (Subject, error) {
	l, err := b.Lead(ctx, tn, leadID)
	if err != nil {
		return Subject{}, err
	}
	s := Subject{Contacts: []string{l.ContactID}}
	if s.Leads, err = idsOf(ctx, tn, l.ID); err != nil {
		return s, err
	}
	cs, err := Contacts.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, l.ID)}, Limit: window})
	for _, c := range cs {
		if !slices.Contains(s.Contacts, c.ID) {
			s.Contacts = append(s.Contacts, c.ID)
		}
	}
	return s, err
}

// Timeline gives the newest entries of a lead's timeline before a place. Each source is asked for as many as are wanted:
// more of one kind cannot be among them.
func (b *Book) Timeline(ctx context.Context, tn *tenant.Tenant, leadID string, before *store.Cursor, limit int) ([]Entry, error) {
	s, err := b.Subject(ctx, tn, leadID)
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, source := range append([]Source{changes, notes, points}, b.Sources...) {
		es, err := source(ctx, tn, s, before, limit)
		if err != nil {
			return nil, err
		}
		all = append(all, es...)
	}
	slices.SortFunc(all, func(x, y Entry) int {
		return cmp.Or(cmp.Compare(y.At.UnixMilli(), x.At.UnixMilli()), cmp.Compare(y.ID, x.ID))
	})
	return all[:min(len(all), limit)], nil
}

// Latest is a source's query: the records of a kind that name one of some things, by a time.
func Latest[T any](ctx context.Context, tn *tenant.Tenant, kind store.Kind[T], field string, values []string, at string, before *store.Cursor, limit int) ([]*T, error) {
	if len(values) == 0 {
		return nil, nil
	}
	term := store.Where(field, store.Eq, values[0])
	if len(values) > 1 {
		in := make([]any, len(values))
		for i, v := range values {
			in[i] = v
		}
		term = store.Where(field, store.In, in...)
	}
	return kind.Find(ctx, tn.DB, store.Query{Where: []store.Term{term}, Order: at, Desc: true, After: before, Limit: limit})
}

func changes(ctx context.Context, tn *tenant.Tenant, s Subject, before *store.Cursor, limit int) ([]Entry, error) {
	cs, err := Latest(ctx, tn, Changes, "leadId", s.Leads, "at", before, limit)
	var out []Entry
	for _, c := range cs {
		out = append(out, Entry{c.ID, c.At, "change", c.View()})
	}
	return out, err
}

func notes(ctx context.Context, tn *tenant.Tenant, s Subject, before *store.Cursor, limit int) ([]Entry, error) {
	ns, err := Latest(ctx, tn, Notes, "leadId", s.Leads, "at", before, limit)
	var out []Entry
	for _, n := range ns {
		out = append(out, Entry{n.ID, n.CreatedAt, "note", n.View()})
	}
	return out, err
}

// PointsView is a row of the score ledger as the timeline shows it.
type PointsView struct {
	ID     string  `json:"id"`
	Rule   string  `json:"rule"`
	Points float64 `json:"points"`
	Ref    *string `json:"ref"`
	At     *string `json:"at"`
}

// points are rows of the score ledger; those of a message are told by the message.
func points(ctx context.Context, tn *tenant.Tenant, s Subject, before *store.Cursor, limit int) ([]Entry, error) {
	es, err := Latest(ctx, tn, ScoreEvents, "listed", s.Leads, "at", before, limit)
	var out []Entry
	for _, e := range es {
		out = append(out, Entry{e.ID, e.At, "score", PointsView{e.ID, e.Rule, e.Points, optional(e.Ref), news.Stamp(e.At)}})
	}
	return out, err
}
