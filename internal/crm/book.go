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
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Book is the CRM of every client; the tenant says whose.
type Book struct {
	Now func() time.Time
	// Raise gives the jobs that tell the client's rules of occurrences; nil: nobody listens.
	Raise func(ctx context.Context, tn *tenant.Tenant, occurrences ...Occurrence) ([]store.NewJob, error)
	// OwnPoints tells whether a client's rules give points for what a trigger stands for: then it has no others; nil: no.
	OwnPoints func(ctx context.Context, tn *tenant.Tenant, trigger string) (bool, error)
	// Forget lets other domains delete or stop what they have of a lead that was deleted; nil: there is none. It may be
	// called again.
	Forget func(ctx context.Context, tn *tenant.Tenant, leadID string) error
	// UserExists tells whether an id is that of a user of the client's, for owners; nil: they are not looked for.
	UserExists func(ctx context.Context, tn *tenant.Tenant, userID string) (bool, error)
	// Sources give what other domains have for a lead's timeline.
	Sources []Source
	// Files keeps what is to be imported; PublicURL is the base of links to what could not be.
	Files     Folder
	Depot     Depot // has them, too, where another process may get the job; nil: there is none
	PublicURL string
	// Runner runs the jobs in which changes are made. Reading needs none.
	Runner *job.Runner

	locks     locks
	unsettled moments
}

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
// written; before that, moves must be, in their order.
//
// A business-scoped user id names one person for good; phone numbers change hands. A phone number that belongs to a contact
// with another user id goes over to the person who uses it now. A contact that is known by nothing else is the same
// person, and is merged.
func (b *Book) Contact(ctx context.Context, tn *tenant.Tenant, w Who, seed string) (c *Contact, moves []store.Write, changed bool, err error) {
	ids := w.identities()
	if len(ids) == 0 {
		return nil, nil, false, errors.New("crm: a contact needs an identity")
	}
	now := b.Now().UTC()
	made := func() *Contact { return &Contact{ID: id.Derived("con", tn.Code, seed), CreatedAt: now} }
	for _, identity := range ids {
		found, err := b.holder(ctx, tn, identity)
		switch {
		case err != nil:
			return nil, nil, false, err
		case found == nil || (c != nil && c.ID == found.ID):
		case c == nil && (w.UserID == "" || found.UserID == "" || found.UserID == w.UserID):
			c = found
		default:
			if c == nil {
				c, changed = made(), true
			}
			moves = append(moves, c.take(found, now, identity)...)
			changed = true
		}
	}
	if c == nil {
		c, changed = made(), true
	}
	for _, identity := range ids {
		changed = c.add(identity) || changed
	}
	changed = c.revive() || changed
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
	return c, moves, changed, nil
}

// holder gives the contact that has an identity; nil if nobody does.
func (b *Book) holder(ctx context.Context, tn *tenant.Tenant, identity string) (*Contact, error) {
	c, err := Contacts.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("identity", store.Eq, identity)}})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return c, err
}

// take gives c identities of another contact. One that is left without a user id of its own was the same person, and is
// merged into c. The writes stand in an order in which any first part of them, done again, comes to the same end: c
// has what it takes over before the other lets it go.
func (c *Contact) take(other *Contact, now time.Time, identities ...string) []store.Write {
	for _, identity := range identities {
		other.lose(identity)
	}
	other.UpdatedAt = now
	var writes []store.Write
	if other.UserID == "" {
		c.absorb(other)
		c.UpdatedAt = now
		writes = append(writes, Contacts.Update(c))
		c.Version++
		for _, identity := range other.Identities {
			c.add(identity)
		}
		other.Identities, other.MergedInto = []string{}, c.ID
	} else {
		c.heed(other) // who has the number now hears nothing that its last holder did not want, until they say so
	}
	return append(writes, Contacts.Update(other))
}

// ContactOf gives the contact of a lead. contactID is the one that the lead had until now, "" for none. Who holds the
// lead's phone number is its contact; where nobody does, the one it had is, completed by the number if it had none.
func (b *Book) ContactOf(ctx context.Context, tn *tenant.Tenant, contactID string, w Who, seed string) (c *Contact, moves []store.Write, changed bool, err error) {
	if contactID == "" {
		return b.Contact(ctx, tn, w, seed)
	}
	c, err = b.Person(ctx, tn, contactID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return b.Contact(ctx, tn, w, seed)
	case err != nil || w.Phone == "" || c.Has(Tel(w.Phone)):
		return c, nil, false, err
	}
	holder, err := b.holder(ctx, tn, Tel(w.Phone))
	switch {
	case err != nil:
		return nil, nil, false, err
	case holder != nil:
		return holder, nil, holder.revive(), nil
	case c.Phone == "":
		c.Phone, c.UpdatedAt = w.Phone, b.Now().UTC()
		return c, nil, c.add(Tel(w.Phone)), nil
	}
	return c, nil, false, nil // they have changed their number since
}

// Person reads a contact by id; one that turned out to be another is that one. store.ErrNotFound.
func (b *Book) Person(ctx context.Context, tn *tenant.Tenant, contactID string) (*Contact, error) {
	for range 20 {
		c, err := Contacts.Get(ctx, tn.DB, contactID)
		if err != nil || c.MergedInto == "" {
			return c, err
		}
		contactID = c.MergedInto
	}
	return nil, errors.New("crm: contacts are merged in a circle")
}

// FindLead finds a lead by phone, else by e-mail; store.ErrNotFound.
func (b *Book) FindLead(ctx context.Context, tn *tenant.Tenant, phone, email string) (*Lead, error) {
	if phone != "" {
		l, err := b.leadByPhone(ctx, tn, phone)
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
		if phone == "" {
			return leadByAlias(ctx, tn, "email", email)
		}
	}
	return nil, store.ErrNotFound
}

// leadByPhone finds the lead with a phone number, in any spelling of the line; store.ErrNotFound.
func (b *Book) leadByPhone(ctx context.Context, tn *tenant.Tenant, phone string) (*Lead, error) {
	l, err := Leads.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("phone", store.Eq, PhoneKey(phone))}})
	if errors.Is(err, store.ErrNotFound) {
		return leadByAlias(ctx, tn, "phone", PhoneKey(phone))
	}
	return l, err
}

// LeadData is what a caller says of a lead; empty members say nothing.
type LeadData struct {
	Name     string         `json:"name,omitempty"`
	Source   string         `json:"source,omitempty"`
	Currency string         `json:"currency,omitempty"`
	OwnerID  string         `json:"ownerId,omitempty"`
	Value    float64        `json:"value,omitempty"`
	Tags     []string       `json:"tags,omitempty"`
	Fields   map[string]any `json:"fields,omitempty"`
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

// Lead reads a lead; one that was merged into another is that one. fault.NotFound.
func (b *Book) Lead(ctx context.Context, tn *tenant.Tenant, leadID string) (*Lead, error) {
	l, err := b.LeadByID(ctx, tn, leadID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("lead")
	}
	return l, err
}

// LeadFilter selects leads; zero members do not filter.
type LeadFilter struct {
	Q, Phone, Email, Pipeline, Stage, Status, Source, OwnerID string
	Tags                                                      []string
	ScoreMin, ScoreMax                                        *float64
	CreatedAfter, CreatedBefore                               time.Time
	Sort                                                      string // a key of LeadSorts, with "-" for descending; "" is "-createdAt"
}

// LeadSorts are the orders that leads can be listed in.
var LeadSorts = []string{"createdAt", "updatedAt", "lastActivityAt", "score", "name"}

// MaxTagsAsked is how many tags a filter may ask for together.
const MaxTagsAsked = 10

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
	eq("pipeline", f.Pipeline)
	eq("stage", f.Stage)
	eq("status", f.Status)
	eq("source", f.Source)
	eq("ownerId", f.OwnerID)
	if len(f.Tags) > MaxTagsAsked {
		return q, fault.Bad("/tag", "has more than %d tags", MaxTagsAsked)
	}
	for _, t := range f.Tags {
		eq("tag", t)
	}
	if err := wordTerms(&q, f.Q); err != nil {
		return q, err
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
	return q, orderBy(&q, f.Sort, LeadSorts)
}

// wordTerms narrows a query to records with words of these beginnings.
func wordTerms(q *store.Query, text string) error {
	for i, w := range Words(text) {
		if i == 8 {
			return fault.Bad("/q", "has more than 8 words")
		}
		q.Where = append(q.Where, store.Where("word", store.Prefix, w))
	}
	return nil
}

// orderBy orders a query by a field, descending with "-" before it; the newest first if it is not said.
func orderBy(q *store.Query, sort string, known []string) error {
	if sort == "" {
		sort = "-createdAt"
	}
	q.Order, q.Desc = strings.TrimPrefix(sort, "-"), strings.HasPrefix(sort, "-")
	if !slices.Contains(known, q.Order) {
		return fault.Bad("/sort", "must be one of %s, with - before it for descending", strings.Join(known, ", "))
	}
	return nil
}

// Reidentify moves a contact from a person's old ids to the new ones, and gives it with the writes that do so. A contact
// that holds a new id already is the same person under another spelling: it is merged, unless it has a user id of its
// own. nil: nobody has the old ids.
func (b *Book) Reidentify(ctx context.Context, tn *tenant.Tenant, old, now Who) (c *Contact, writes []store.Write, err error) {
	for _, identity := range old.identities() {
		if c, err = b.holder(ctx, tn, identity); err != nil || c != nil {
			break
		}
	}
	if c == nil || err != nil {
		return nil, nil, err
	}
	at, changed, taken := b.Now().UTC(), false, map[string]bool{c.ID: true}
	for _, identity := range now.identities() {
		if c.Has(identity) {
			continue
		}
		other, err := b.holder(ctx, tn, identity)
		if err != nil {
			return nil, nil, err
		}
		if other != nil && !taken[other.ID] {
			taken[other.ID] = true
			writes = append(writes, c.take(other, at, now.identities()...)...)
		}
		c.add(identity)
		changed = true
	}
	if now.Phone != "" && now.Phone != old.Phone && old.Phone != "" {
		c.lose(Tel(old.Phone))
		c.Phone, c.WaID, changed = now.Phone, now.WaID, true
	}
	if now.UserID != "" && now.UserID != old.UserID {
		if old.UserID != "" {
			c.lose(BSUID(old.UserID))
		}
		c.UserID, changed = now.UserID, true
	}
	if !changed {
		return c, nil, nil
	}
	c.UpdatedAt = at
	return c, append(writes, Contacts.Update(c)), nil
}
