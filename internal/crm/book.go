package crm

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Book is the CRM of every client; the tenant says whose.
type Book struct{ Now func() time.Time }

// Who is what is known of a person: any of the members, at least one.
type Who struct {
	Phone    string // E.164
	Email    string // as Email gives it
	UserID   string // business-scoped user id
	WaID     string // as Meta spells it
	Name     string
	Username string
}

func (w Who) identities() []string {
	var ids []string
	if w.UserID != "" {
		ids = append(ids, BSUID(w.UserID))
	}
	if w.Phone != "" {
		ids = append(ids, Tel(w.Phone))
	}
	if w.Email != "" && w.Phone == "" && w.UserID == "" { // a family shares a mailbox: it names nobody who has a better name
		ids = append(ids, Mail(w.Email))
	}
	return ids
}

// Contact finds the contact of a person, or makes one with an id derived from seed. changed tells whether it must be
// written. Where the identities belong to two contacts, the one of the business-scoped user id is it, and the phone
// number moves over to it: numbers change hands, user ids do not. Then moved is the other, without that number.
func (b *Book) Contact(ctx context.Context, tn *tenant.Tenant, w Who, seed string) (c, moved *Contact, changed bool, err error) {
	ids := w.identities()
	if len(ids) == 0 {
		return nil, nil, false, errors.New("crm: a contact needs an identity")
	}
	now := b.Now().UTC()
	for _, identity := range ids {
		found, err := Contacts.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("identity", store.Eq, identity)}})
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, false, err
		}
		switch {
		case c == nil:
			c = found
		case c.ID != found.ID:
			found.Drop(identity)
			if w.Phone != "" && identity == Tel(w.Phone) {
				found.Phone, found.WaID = "", ""
			}
			if c.LeadID == "" {
				c.LeadID, changed = found.LeadID, found.LeadID != ""
			}
			found.UpdatedAt = now
			moved = found
		}
	}
	if c == nil {
		c = &Contact{ID: id.Derived("con", tn.Code, seed), CreatedAt: now}
		changed = true
	}
	for _, identity := range ids {
		changed = c.add(identity) || changed
	}
	set := func(to *string, v string) {
		if v != "" && *to != v {
			*to, changed = v, true
		}
	}
	set(&c.Phone, w.Phone)
	set(&c.WaID, w.WaID)
	set(&c.UserID, w.UserID)
	set(&c.Username, w.Username)
	if c.Email == "" {
		set(&c.Email, w.Email)
	}
	if c.Name == "" || w.Username != "" || w.WaID != "" { // a WhatsApp profile tells the current name
		set(&c.Name, w.Name)
	}
	if changed {
		c.UpdatedAt = now
	}
	return c, moved, changed, nil
}

// FindLead finds a lead by phone, else by e-mail; store.ErrNotFound.
func (b *Book) FindLead(ctx context.Context, tn *tenant.Tenant, phone, email string) (*Lead, error) {
	if phone != "" {
		l, err := Leads.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("phone", store.Eq, PhoneKey(phone))}})
		if !errors.Is(err, store.ErrNotFound) {
			return l, err
		}
	}
	if email != "" {
		ls, err := Leads.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("email", store.Eq, email)}, Order: "createdAt", Limit: 20})
		if err != nil {
			return nil, err
		}
		for _, l := range ls {
			// with another phone it is another person of the same mailbox
			if phone == "" || l.Phone == "" {
				return l, nil
			}
		}
	}
	return nil, store.ErrNotFound
}

// LeadData is what a caller says of a lead; empty members say nothing.
type LeadData struct {
	Name     string
	Source   string
	Currency string
	OwnerID  string
	Value    float64
	Tags     []string
	Fields   map[string]any
}

// NewLead makes a lead that is not stored yet, with an id derived from the mutation that makes it.
func (b *Book) NewLead(tn *tenant.Tenant, mutation, phone, email string, d LeadData) *Lead {
	now := b.Now().UTC()
	l := &Lead{
		ID: id.Derived("led", tn.Code, mutation), MadeBy: mutation, Name: d.Name, Phone: phone, Email: email, Source: d.Source,
		Pipeline: DefaultPipeline, Stage: FirstStage, Status: Open, Tags: []string{}, Fields: map[string]any{},
		Currency: d.Currency, OwnerID: d.OwnerID, Value: d.Value, CreatedAt: now, UpdatedAt: now, LastActivityAt: now,
	}
	l.AddTags(d.Tags...)
	maps.Copy(l.Fields, d.Fields)
	return l
}

// Fill completes a lead's empty members with what a caller says; true if anything was.
func (l *Lead) Fill(phone, email string, d LeadData) bool {
	changed := false
	fill := func(to *string, v string) {
		if *to == "" && v != "" {
			*to, changed = v, true
		}
	}
	fill(&l.Phone, phone)
	fill(&l.Email, email)
	fill(&l.Name, d.Name)
	fill(&l.Source, d.Source)
	fill(&l.Currency, d.Currency)
	fill(&l.OwnerID, d.OwnerID)
	if l.Value == 0 && d.Value != 0 {
		l.Value, changed = d.Value, true
	}
	for k, v := range d.Fields {
		if _, ok := l.Fields[k]; !ok {
			if l.Fields == nil {
				l.Fields = map[string]any{}
			}
			l.Fields[k], changed = v, true
		}
	}
	return changed
}

// Lead reads a lead; fault.NotFound.
func (b *Book) Lead(ctx context.Context, tn *tenant.Tenant, leadID string) (*Lead, error) {
	l, err := Leads.Get(ctx, tn.DB, leadID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("lead")
	}
	return l, err
}

// LeadFilter selects leads; zero members do not filter.
type LeadFilter struct {
	Q, Phone, Email, Stage, Status, Source, OwnerID string
	Tags                                            []string
	ScoreMin, ScoreMax                              *float64
	CreatedAfter, CreatedBefore                     time.Time
	Sort                                            string // a key of LeadSorts, with "-" for descending; "" is "-createdAt"
}

// LeadSorts are the orders that leads can be listed in.
var LeadSorts = []string{"createdAt", "updatedAt", "lastActivityAt", "score", "name"}

// LeadQuery turns a filter into a query.
func LeadQuery(f LeadFilter, country string) (store.Query, error) {
	var q store.Query
	eq := func(field, v string) {
		if v != "" {
			q.Where = append(q.Where, store.Where(field, store.Eq, v))
		}
	}
	if f.Phone != "" {
		p, ok := Phone(f.Phone, country)
		if !ok {
			return q, fault.Bad("/phone", "is not a phone number")
		}
		eq("phone", PhoneKey(p))
	}
	eq("email", strings.ToLower(strings.TrimSpace(f.Email)))
	eq("stage", f.Stage)
	eq("status", f.Status)
	eq("source", f.Source)
	eq("ownerId", f.OwnerID)
	for _, t := range f.Tags {
		eq("tag", t)
	}
	for i, w := range Words(f.Q) {
		if i == 8 {
			return q, fault.Bad("/q", "has more than 8 words")
		}
		q.Where = append(q.Where, store.Where("word", store.Prefix, w))
	}
	if f.ScoreMin != nil {
		q.Where = append(q.Where, store.Where("score", store.Ge, ScoreKey(*f.ScoreMin)))
	}
	if f.ScoreMax != nil {
		q.Where = append(q.Where, store.Where("score", store.Le, ScoreKey(*f.ScoreMax)))
	}
	if !f.CreatedAfter.IsZero() {
		q.Where = append(q.Where, store.Where("createdAt", store.Gt, f.CreatedAfter.UnixMilli()))
	}
	if !f.CreatedBefore.IsZero() {
		q.Where = append(q.Where, store.Where("createdAt", store.Lt, f.CreatedBefore.UnixMilli()))
	}
	sort := f.Sort
	if sort == "" {
		sort = "-createdAt"
	}
	q.Order, q.Desc = strings.TrimPrefix(sort, "-"), strings.HasPrefix(sort, "-")
	if !slices.Contains(LeadSorts, q.Order) {
		return q, fault.Bad("/sort", "must be one of %s, with - before it for descending", strings.Join(LeadSorts, ", "))
	}
	return q, nil
}

// Reidentify gives the writes that move a contact from a person's old ids to the new ones. A contact that holds a new id
// already is another spelling of the same person: the id goes over. No writes: nobody has the old ids, or all is done.
func (b *Book) Reidentify(ctx context.Context, tn *tenant.Tenant, old, now Who) ([]store.Write, error) {
	var c *Contact
	for _, identity := range old.identities() {
		found, err := Contacts.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("identity", store.Eq, identity)}})
		if err == nil {
			c = found
			break
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	if c == nil {
		return nil, nil
	}
	var writes []store.Write
	changed := false
	for _, identity := range now.identities() {
		if slices.Contains(c.Identities, identity) {
			continue
		}
		other, err := Contacts.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("identity", store.Eq, identity)}})
		switch {
		case err == nil:
			other.Drop(identity)
			writes = append(writes, Contacts.Update(other))
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
		c.add(identity)
		changed = true
	}
	if now.Phone != "" && now.Phone != old.Phone && old.Phone != "" {
		c.Drop(Tel(old.Phone))
		c.Phone, c.WaID, changed = now.Phone, now.WaID, true
	}
	if now.UserID != "" && now.UserID != old.UserID {
		if old.UserID != "" {
			c.Drop(BSUID(old.UserID))
		}
		c.UserID, changed = now.UserID, true
	}
	if !changed {
		return nil, nil
	}
	c.UpdatedAt = b.Now().UTC()
	return append(writes, Contacts.Update(c)), nil
}
