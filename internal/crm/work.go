package crm

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// effect is what a mutation does, worked out from what stands in the database now; nothing of it is written yet.
type effect struct {
	change *Change
	lead   *Lead // as it will be
	writes []store.Write
}

// work works a mutation out. What it may not do is a fault. The writes stand in an order in which any first part of
// them, worked out again, comes to the same end: the record of the change, then the lead, which remembers the mutation.
func (b *Book) work(ctx context.Context, tn *tenant.Tenant, m *Mutation, stages Stages, recorded store.Meta) (*effect, error) {
	c := &Change{Meta: recorded, ID: ChangeID(tn.Code, m.ID), At: m.At, By: m.By, Cause: m.Cause, Ref: m.Ref, Quiet: m.Quiet}
	if err := b.CheckOwner(ctx, tn, "/ownerId", m.owner()); err != nil {
		return nil, err
	}
	if m.Create != nil {
		return b.create(ctx, tn, m, c, stages)
	}
	l, err := b.Lead(ctx, tn, m.LeadID)
	if err != nil {
		return nil, err
	}
	if m.IfVersion != 0 && m.IfVersion != l.Version {
		return nil, changedMeanwhile("lead", l.Version)
	}
	c.LeadID = l.ID
	if m.Delete {
		c.Deleted = true
		return &effect{c, l, []store.Write{
			news.Write(m.At, news.LeadDeleted, l.ID+"|"+m.ID, "lead", l.View(l.Version)), Changes.Update(c), Leads.Remove(l),
		}}, nil
	}
	before := l.clone()
	if err := m.apply(l, stages); err != nil {
		return nil, err
	}
	if err := b.unique(ctx, tn, before, l); err != nil {
		return nil, err
	}
	c.compare(before, l, m)
	if c.Idle {
		return &effect{c, l, []store.Write{Changes.Update(c)}}, nil
	}
	return b.complete(ctx, tn, m, c, l, l.Phone != before.Phone || l.Email != before.Email)
}

// create works out the making of a lead.
func (b *Book) create(ctx context.Context, tn *tenant.Tenant, m *Mutation, c *Change, stages Stages) (*effect, error) {
	n := m.Create
	l := b.NewLead(tn, m.ID, n.Phone, n.Email, n.LeadData)
	l.CreatedAt, l.UpdatedAt, l.LastActivityAt = m.At, m.At, m.At
	if n.Pipeline != "" {
		l.Pipeline = n.Pipeline
	}
	p := stages.Pipeline(l.Pipeline)
	if p == nil {
		return nil, fault.Bad("/pipeline", "There is no such pipeline.")
	}
	stages.Place(l)
	if n.Stage != "" {
		st, ok := p.Stage(n.Stage)
		if !ok {
			return nil, fault.Bad("/stage", "The pipeline has no such stage.")
		}
		l.Stage, l.Status = st.ID, st.Kind
	}
	if err := l.bounds(&Lead{}); err != nil {
		return nil, err
	}
	if err := b.unique(ctx, tn, &Lead{}, l); err != nil {
		return nil, err
	}
	c.LeadID, c.Created, c.Added = l.ID, true, l.Tags
	c.Stage = &StageChange{Pipeline: l.Pipeline, To: l.Stage, FromStatus: Open, Status: l.Status}
	return b.complete(ctx, tn, m, c, l, true)
}

// complete adds all writes of a changed lead.
func (b *Book) complete(ctx context.Context, tn *tenant.Tenant, m *Mutation, c *Change, l *Lead, attach bool) (*effect, error) {
	e := &effect{change: c, lead: l}
	if attach {
		var err error
		if e.writes, err = b.attach(ctx, tn, l, m.ID); err != nil {
			return nil, err
		}
	}
	event := news.LeadUpdated
	if c.Created {
		event = news.LeadCreated
	}
	l.Mark(m.ID)
	l.refit()
	e.writes = append(e.writes, KnowTags(tn, m.At, c.Added...)...)
	e.writes = append(e.writes, news.Write(m.At, event, l.ID+"|"+m.ID, "lead", l.View(l.Version+1)), Changes.Update(c), Leads.Update(l))
	return e, nil
}

// attach finds or makes the lead's contact, and gives the writes of it.
func (b *Book) attach(ctx context.Context, tn *tenant.Tenant, l *Lead, seed string) ([]store.Write, error) {
	c, writes, changed, err := b.ContactOf(ctx, tn, l.ContactID, Who{Phone: l.Phone, Email: l.Email, Name: l.Name}, seed)
	if err != nil {
		return nil, err
	}
	if c.LeadID == "" {
		c.LeadID, changed = l.ID, true
	}
	l.ContactID = c.ID
	if changed {
		writes = append(writes, Contacts.Update(c))
	}
	return writes, nil
}

// unique refuses a lead that would be the second with its phone, or without a phone the second with its e-mail.
func (b *Book) unique(ctx context.Context, tn *tenant.Tenant, before, l *Lead) error {
	if l.Phone == "" && l.Email == "" {
		return fault.Bad("/phone", "A lead needs a phone or an e-mail.")
	}
	var other *Lead
	var err error
	switch {
	case l.Phone != "" && (before.Phone == "" || PhoneKey(l.Phone) != PhoneKey(before.Phone)):
		other, err = b.leadByPhone(ctx, tn, l.Phone)
	case l.Phone == "" && before.ID == "": // nothing else tells it from those with this e-mail
		other, err = b.FindLead(ctx, tn, "", l.Email)
	case l.Phone == "" && (before.Phone != "" || l.Email != before.Email):
		other, err = Leads.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("mailbox", store.Eq, l.Email)}})
	default:
		return nil
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case other.ID == l.ID:
		return nil
	}
	return leadExists(other)
}

// apply does to a lead what the mutation asks for.
func (m *Mutation) apply(l *Lead, stages Stages) error {
	before := l.clone()
	if p := m.Set; p != nil {
		p.apply(l)
	}
	if n := m.Fill; n != nil {
		l.Fill(n.Phone, n.Email, n.LeadData)
		l.AddTags(n.Tags...)
	}
	l.AddTags(m.Add...)
	l.RemoveTags(m.Remove...)
	if m.Move != nil {
		to := *m.Move
		if to.Pipeline == "" {
			to.Pipeline = l.Pipeline
		}
		if to.Stage == "" { // another pipeline, from its beginning
			to.Stage = l.Stage
			if to.Pipeline != l.Pipeline {
				if p := stages.Pipeline(to.Pipeline); p != nil {
					to.Stage = p.Stages[0].ID
				}
			}
		}
		if stages.Pipeline(to.Pipeline) == nil {
			return fault.Bad("/pipeline", "There is no such pipeline.")
		}
		st, ok := stages.Find(to.Pipeline, to.Stage)
		if !ok {
			return fault.Bad("/stage", "The pipeline has no such stage.")
		}
		l.MoveTo(to.Pipeline, st.ID, st.Kind, m.At)
	}
	return l.bounds(before)
}

func (p *LeadPatch) apply(l *Lead) {
	for _, s := range []struct{ to, v *string }{
		{&l.Name, p.Name}, {&l.Phone, p.Phone}, {&l.Email, p.Email}, {&l.Source, p.Source}, {&l.OwnerID, p.OwnerID}, {&l.Currency, p.Currency},
	} {
		if s.v != nil {
			*s.to = *s.v
		}
	}
	if p.Value != nil {
		l.Value = *p.Value
	}
	if p.Tags != nil {
		l.RemoveTags(slices.DeleteFunc(slices.Clone(l.Tags), func(t string) bool { return slices.Contains(*p.Tags, t) })...)
		l.AddTags(*p.Tags...)
	}
	if p.NoFields {
		l.Fields = map[string]any{}
	}
	for k, v := range p.Fields {
		if v == nil {
			delete(l.Fields, k)
			continue
		}
		if l.Fields == nil {
			l.Fields = map[string]any{}
		}
		l.Fields[k] = v
	}
}

// Limits of a lead's own members.
const (
	MaxFields    = 200
	MaxFieldsLen = 64 << 10 // bytes of all of them, as JSON
)

// bounds refuses a change by which a lead grows beyond its limits.
func (l *Lead) bounds(before *Lead) error {
	if len(l.Tags) > MaxTags && len(l.Tags) > len(before.Tags) {
		return fault.Bad("/tags", "A lead has at most %d tags.", MaxTags)
	}
	if reflect.DeepEqual(l.Fields, before.Fields) {
		return nil
	}
	if len(l.Fields) > MaxFields {
		return fault.Bad("/fields", "A lead has at most %d fields.", MaxFields)
	}
	if b, err := json.Marshal(l.Fields); err != nil || len(b) > MaxFieldsLen {
		return fault.Bad("/fields", "A lead's fields have at most %d bytes.", MaxFieldsLen)
	}
	return nil
}

func (l *Lead) clone() *Lead {
	c := *l
	c.Tags, c.Fields, c.Applied = slices.Clone(l.Tags), maps.Clone(l.Fields), slices.Clone(l.Applied)
	return &c
}

// compare records what really changed between two states of a lead.
func (c *Change) compare(before, l *Lead, m *Mutation) {
	c.Fields = map[string]FieldChange{}
	note := func(name string, from, to any) {
		if !reflect.DeepEqual(from, to) {
			c.Fields[name] = FieldChange{from, to}
		}
	}
	note("name", before.Name, l.Name)
	note("phone", before.Phone, l.Phone)
	note("email", before.Email, l.Email)
	note("source", before.Source, l.Source)
	note("ownerId", before.OwnerID, l.OwnerID)
	note("currency", before.Currency, l.Currency)
	note("value", before.Value, l.Value)
	for k := range before.Fields {
		note("fields."+k, before.Fields[k], l.Fields[k])
	}
	for k := range l.Fields {
		note("fields."+k, before.Fields[k], l.Fields[k])
	}
	c.Added = without(l.Tags, before.Tags)
	c.Removed = without(before.Tags, l.Tags)
	if before.Stage != l.Stage || before.Pipeline != l.Pipeline {
		since := before.StagedAt
		if since.IsZero() {
			since = before.CreatedAt
		}
		c.Stage = &StageChange{
			Pipeline: l.Pipeline, From: before.Stage, To: l.Stage, FromPipeline: before.Pipeline, FromStatus: before.Status, Status: l.Status,
			Seconds: max(0, int64(m.At.Sub(since).Seconds())),
		}
		if m.Move != nil {
			c.Stage.Reason = m.Move.Reason
		}
	}
	c.Idle = len(c.Fields) == 0 && len(c.Added) == 0 && len(c.Removed) == 0 && c.Stage == nil
	if !c.Idle {
		if m.At.After(l.UpdatedAt) {
			l.UpdatedAt = m.At
		}
		if m.At.After(l.LastActivityAt) {
			l.LastActivityAt = m.At
		}
	}
}

// without gives the texts of a that are not in b.
func without(a, b []string) []string {
	var out []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// CleanTags trims tags and drops repetitions; false if one cannot be a tag.
func CleanTags(tags []string) ([]string, bool) {
	out := make([]string, 0, len(tags))
	for _, t := range tags {
		t = strings.TrimSpace(t)
		if t == "" || len([]rune(t)) > MaxTag || !Line(t) {
			return nil, false
		}
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out, true
}
