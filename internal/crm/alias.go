package crm

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Alias is a lead that was merged into another: it answers as that one, by its id, its phone and its e-mail.
type Alias struct {
	store.Meta
	ID   string `json:"id"` // of the lead that was
	Into string `json:"into"`
	Lead *Lead  `json:"lead"` // as it was
	// Merging is what made it part of the other: cut and done again, it finds here what it took over.
	Merging string    `json:"merging"`
	At      time.Time `json:"at"`
}

// Aliases is the kind.
var Aliases = store.Kind[Alias]{
	Schema: store.Schema{
		Kind:   "leadAliases",
		Fields: []store.Field{{Name: "into", Type: store.Text}, {Name: "phone", Type: store.Text}, {Name: "email", Type: store.Text}},
		Orders: [][]string{{"into"}, {"phone"}, {"email"}},
	},
	Key: func(a *Alias) string { return a.ID },
	Index: func(a *Alias) store.Fields {
		f := store.Fields{"into": a.Into}
		if a.Lead.Phone != "" {
			f["phone"] = PhoneKey(a.Lead.Phone)
		}
		if a.Lead.Email != "" {
			f["email"] = a.Lead.Email
		}
		return f
	},
	Meta: func(a *Alias) *store.Meta { return &a.Meta },
}

// LeadByID reads a lead; one that was merged into another is that one. store.ErrNotFound.
func (b *Book) LeadByID(ctx context.Context, tn *tenant.Tenant, leadID string) (*Lead, error) {
	l, err := Leads.Get(ctx, tn.DB, leadID)
	if !errors.Is(err, store.ErrNotFound) {
		return l, err
	}
	a, err := Aliases.Get(ctx, tn.DB, leadID)
	if err != nil {
		return nil, err
	}
	return Leads.Get(ctx, tn.DB, a.Into)
}

// leadByAlias finds the lead that one with this phone or e-mail was merged into; store.ErrNotFound.
func leadByAlias(ctx context.Context, tn *tenant.Tenant, field, value string) (*Lead, error) {
	a, err := Aliases.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where(field, store.Eq, value)}})
	if err != nil {
		return nil, err
	}
	return Leads.Get(ctx, tn.DB, a.Into)
}

// maxAliases is how many leads may be part of one.
const maxAliases = 500

// idsOf gives all ids that a lead is known by, its own first.
func idsOf(ctx context.Context, tn *tenant.Tenant, leadID string) ([]string, error) {
	as, err := Aliases.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("into", store.Eq, leadID)}, Limit: maxAliases + 1})
	ids := []string{leadID}
	for _, a := range as {
		ids = append(ids, a.ID)
	}
	return ids, err
}
