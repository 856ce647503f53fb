package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Filter selects leads, by the filters of their list.
type Filter struct {
	Q             string   `json:"q,omitempty"`
	Phone         string   `json:"phone,omitempty"`
	Email         string   `json:"email,omitempty"`
	Tag           []string `json:"tag,omitempty"`
	Stage         string   `json:"stage,omitempty"`
	Status        string   `json:"status,omitempty"`
	Source        string   `json:"source,omitempty"`
	OwnerID       string   `json:"ownerId,omitempty"`
	ScoreMin      *float64 `json:"scoreMin,omitempty"`
	ScoreMax      *float64 `json:"scoreMax,omitempty"`
	CreatedAfter  string   `json:"createdAfter,omitempty"` // RFC 3339
	CreatedBefore string   `json:"createdBefore,omitempty"`
}

// query is the filter as a query of what stood at a time, oldest first: leads that come later do not move its pages.
func (f *Filter) query(at time.Time, country string) (store.Query, error) {
	lf := crm.LeadFilter{
		Q: f.Q, Phone: f.Phone, Email: f.Email, Stage: f.Stage, Status: f.Status, Source: f.Source, OwnerID: f.OwnerID, Tags: f.Tag,
		ScoreMin: f.ScoreMin, ScoreMax: f.ScoreMax, CreatedBefore: at.Add(time.Millisecond), Sort: "createdAt",
	}
	if f.CreatedAfter != "" {
		t, err := time.Parse(time.RFC3339, f.CreatedAfter)
		if err != nil {
			return store.Query{}, fault.Bad("/createdAfter", "is not a time")
		}
		lf.CreatedAfter = t
	}
	if f.CreatedBefore != "" {
		t, err := time.Parse(time.RFC3339, f.CreatedBefore)
		if err != nil {
			return store.Query{}, fault.Bad("/createdBefore", "is not a time")
		}
		if t.Before(lf.CreatedBefore) {
			lf.CreatedBefore = t
		}
	}
	return crm.LeadQuery(lf, country)
}

// pageSize is how many of an audience are looked at at a time.
const pageSize = 500

// place is how far an audience was read: after a lead of its filter, or of the named ones, how many.
type place struct {
	At int64  `json:"at,omitempty"`
	ID string `json:"id,omitempty"`
	N  int    `json:"n,omitempty"`
}

// person is somebody of an audience. Address "": they cannot be reached by the campaign's channel.
type person struct {
	address, name, leadID, contactID string
	optedOut                         bool
	value                            func(name string) (string, bool)
}

// page reads the next part of a campaign's audience; nil next: there is no more.
func (b *Bureau) page(ctx context.Context, tn *tenant.Tenant, c *Campaign, at time.Time, from place) (people []person, next *place, err error) {
	if c.Filter == nil {
		return b.named(ctx, tn, c, from)
	}
	q, err := c.Filter.query(at, tn.Account().DefaultCountry)
	if err != nil {
		return nil, nil, err
	}
	q.Limit = pageSize
	if from.ID != "" {
		q.After = &store.Cursor{Value: from.At, ID: from.ID}
	}
	leads, err := crm.Leads.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, nil, err
	}
	if len(leads) == pageSize {
		last := leads[len(leads)-1]
		next = &place{At: last.CreatedAt.UnixMilli(), ID: last.ID}
	}
	people, err = b.people(ctx, tn, c, leads)
	return people, next, err
}

func (b *Bureau) named(ctx context.Context, tn *tenant.Tenant, c *Campaign, from place) ([]person, *place, error) {
	n, err := Nameds.Get(ctx, tn.DB, c.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	part := func(total int) (int, *place) {
		if end := from.N + pageSize; end < total {
			return end, &place{N: end}
		}
		return total, nil
	}
	if len(n.LeadIDs) > 0 {
		end, next := part(len(n.LeadIDs))
		leads, err := crm.Leads.GetAll(ctx, tn.DB, n.LeadIDs[min(from.N, end):end]...)
		if err != nil {
			return nil, nil, err
		}
		people, err := b.people(ctx, tn, c, leads)
		return people, next, err
	}
	end, next := part(len(n.List))
	people := make([]person, 0, pageSize)
	for _, e := range n.List[min(from.N, end):end] {
		p := person{address: e.Email, name: e.Name}
		if c.Channel == WhatsApp {
			p.address = e.Phone
		}
		p.value = func(name string) (string, bool) {
			if v, ok := dig(e.Variables, name); ok {
				return text(v)
			}
			return text(map[string]any{"name": e.Name, "email": e.Email, "phone": e.Phone}[name])
		}
		people = append(people, p)
	}
	return people, next, nil
}

// people makes persons of leads, with what their contacts said of messages.
func (b *Bureau) people(ctx context.Context, tn *tenant.Tenant, c *Campaign, leads []*crm.Lead) ([]person, error) {
	ids := make([]string, 0, len(leads))
	for _, l := range leads {
		if l.ContactID != "" {
			ids = append(ids, l.ContactID)
		}
	}
	contacts, err := crm.Contacts.GetAll(ctx, tn.DB, ids...)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, k := range contacts {
		now := k
		if k.MergedInto != "" {
			if now, err = b.Book.Person(ctx, tn, k.MergedInto); err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
		}
		if now != nil && now.OptedOutAt != nil {
			out[k.ID] = true
		}
	}
	people := make([]person, 0, len(leads))
	for _, l := range leads {
		p := person{address: l.Email, name: l.Name, leadID: l.ID, contactID: l.ContactID, optedOut: out[l.ContactID]}
		if c.Channel == WhatsApp {
			p.address = l.Phone
		}
		p.value = leadValues(l)
		people = append(people, p)
	}
	return people, nil
}

// leadValues finds a lead's values by name: lead.stage, lead.fields.doctor; name, email and phone, and its own fields, also
// without the path.
func leadValues(l *crm.Lead) func(string) (string, bool) {
	var seen map[string]any
	return func(name string) (string, bool) {
		if seen == nil {
			raw, err := json.Marshal(l.View(l.Version))
			if err != nil || json.Unmarshal(raw, &seen) != nil {
				return "", false
			}
		}
		if rest, ok := strings.CutPrefix(name, "lead."); ok {
			v, _ := dig(seen, rest)
			return text(v)
		}
		if name == "name" || name == "email" || name == "phone" {
			return text(seen[name])
		}
		v, _ := dig(l.Fields, name)
		return text(v)
	}
}

// dig follows a dotted path into nested maps; a name that holds dots itself comes first.
func dig(m map[string]any, path string) (any, bool) {
	if v, ok := m[path]; ok {
		return v, true
	}
	head, tail, ok := strings.Cut(path, ".")
	if !ok {
		return nil, false
	}
	next, ok := m[head].(map[string]any)
	if !ok {
		return nil, false
	}
	return dig(next, tail)
}

// text is a value as it is sent; false where there is nothing to send.
func text(v any) (string, bool) {
	switch x := v.(type) {
	case string:
		if t := strings.TrimSpace(x); t == "" || t == "undefined" || t == "null" || strings.Contains(x, "{{") {
			return "", false
		}
		return x, true
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64), true
	case bool:
		return strconv.FormatBool(x), true
	}
	return "", false
}

// unsubscribeURL is the placeholder that is not frozen: the link is made when the mail is.
const unsubscribeURL = "unsubscribeUrl"

// names are the placeholders of a content, but the link.
func (t *Content) names() []string {
	var out []string
	seen := map[string]bool{unsubscribeURL: true}
	for _, s := range append([]string{t.Subject, t.HTML, t.Text}, t.Parameters...) {
		names, _ := mail.Names(s)
		for _, n := range names {
			if !seen[n] {
				seen[n] = true
				out = append(out, n)
			}
		}
	}
	return out
}

// freeze gives a person's values of the content's placeholders, and the names that have none.
func (p *person) freeze(names []string) (values map[string]string, missing []string) {
	for _, n := range names {
		v, ok := p.value(n)
		if !ok {
			missing = append(missing, n)
			continue
		}
		if values == nil {
			values = map[string]string{}
		}
		values[n] = v
	}
	return values, missing
}
