package crm

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ContactFilter selects contacts; zero members do not filter.
type ContactFilter struct {
	Q, Phone, Email, Sort string
}

// ContactSorts are the orders that contacts can be listed in.
var ContactSorts = []string{"createdAt", "updatedAt", "name"}

// ContactQuery turns a filter into a query of those who are people to the client.
func ContactQuery(f ContactFilter, country string) (store.Query, error) {
	q := store.Query{Where: []store.Term{store.Where("listed", store.Eq, "1")}}
	if f.Phone != "" {
		p, ok := Phone(f.Phone, country)
		if !ok {
			return q, fault.Bad("/phone", "is not a phone number")
		}
		q.Where = append(q.Where, store.Where("identity", store.Eq, Tel(p)))
	}
	if e := strings.ToLower(strings.TrimSpace(f.Email)); e != "" {
		q.Where = append(q.Where, store.Where("email", store.Eq, e))
	}
	if err := wordTerms(&q, f.Q); err != nil {
		return q, err
	}
	return q, orderBy(&q, f.Sort, ContactSorts)
}

// contactExists is the fault for a contact that would be the second of one person.
func contactExists(other *Contact) error {
	f := fault.New(fault.Conflict, "contact.exists", "There is a contact with this phone or e-mail.")
	f.Extra = map[string]any{"id": other.ID, "contactId": other.ID}
	return f
}

// ContactByID reads a contact that is one of the client's people; one that turned out to be another is that one.
// fault.NotFound.
func (b *Book) ContactByID(ctx context.Context, tn *tenant.Tenant, contactID string) (*Contact, error) {
	c, err := b.Person(ctx, tn, contactID)
	if errors.Is(err, store.ErrNotFound) || (err == nil && c.DeletedAt != nil) {
		return nil, fault.Missing("contact")
	}
	return c, err
}

// AddContact makes a contact; once per key. fault.Conflict where somebody has its phone or e-mail.
func (b *Book) AddContact(ctx context.Context, tn *tenant.Tenant, key string, w Who) (c *Contact, err error) {
	err = conflictFree(ctx, func() error {
		if c, err = Contacts.Get(ctx, tn.DB, id.Derived("con", tn.Code, key)); err == nil || !errors.Is(err, store.ErrNotFound) {
			return err
		}
		for _, identity := range w.identities() {
			other, err := b.holder(ctx, tn, identity)
			if err != nil {
				return err
			}
			if other != nil && other.DeletedAt == nil {
				return contactExists(other)
			}
		}
		var moves []store.Write
		if c, moves, _, err = b.Contact(ctx, tn, w, key); err != nil {
			return err
		}
		if err := tn.DB.Commit(ctx, append(moves, Contacts.Update(c))...); err != nil {
			return err
		}
		c.Version++
		return nil
	})
	return c, err
}

// ContactPatch changes members of a contact; those that are nil stay as they are.
type ContactPatch struct {
	IfVersion          int64
	Name, Phone, Email *string
}

// EditContact changes a contact.
func (b *Book) EditContact(ctx context.Context, tn *tenant.Tenant, contactID string, p ContactPatch) (c *Contact, err error) {
	err = conflictFree(ctx, func() error {
		if c, err = b.ContactByID(ctx, tn, contactID); err != nil {
			return err
		}
		if p.IfVersion != 0 && p.IfVersion != c.Version {
			return changedMeanwhile("contact", c.Version)
		}
		if p.Name != nil {
			c.Name = *p.Name
		}
		if p.Email != nil && *p.Email != c.Email {
			c.lose(Mail(c.Email))
			c.Email = *p.Email
		}
		if p.Phone != nil && *p.Phone != c.Phone {
			c.lose(Tel(c.Phone))
			if c.Phone = *p.Phone; c.Phone != "" {
				c.add(Tel(c.Phone))
			}
		}
		if c.Email != "" && !slices.ContainsFunc(c.Identities, func(s string) bool { return !strings.HasPrefix(s, "mail:") }) {
			c.add(Mail(c.Email)) // nothing better names it
		}
		if len(c.Identities) == 0 {
			return fault.Bad("/phone", "A contact needs a phone or an e-mail.")
		}
		for _, identity := range c.Identities {
			other, err := b.holder(ctx, tn, identity)
			if err != nil {
				return err
			}
			if other != nil && other.ID != c.ID {
				return contactExists(other)
			}
		}
		c.UpdatedAt = b.Now().UTC()
		if err := tn.DB.Commit(ctx, Contacts.Update(c)); err != nil {
			return err
		}
		c.Version++
		return nil
	})
	return c, err
}

// DeleteContact deletes a contact that no lead needs. Of one who wrote on WhatsApp, or asked for no messages, the ids
// stay: their conversations go on being theirs, and a word against messages outlives the wish to forget a name.
func (b *Book) DeleteContact(ctx context.Context, tn *tenant.Tenant, contactID string, ifVersion int64) error {
	return conflictFree(ctx, func() error {
		c, err := b.ContactByID(ctx, tn, contactID)
		if err != nil {
			return err
		}
		if ifVersion != 0 && ifVersion != c.Version {
			return changedMeanwhile("contact", c.Version)
		}
		switch l, err := Leads.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("contactId", store.Eq, c.ID)}}); {
		case err == nil:
			f := fault.New(fault.Conflict, "contact.has_lead", "A lead has this contact. Delete the lead first.")
			f.Extra = map[string]any{"leadId": l.ID}
			return f
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if c.UserID == "" && c.WaID == "" && c.OptedOutAt == nil {
			return tn.DB.Commit(ctx, Contacts.Remove(c))
		}
		now := b.Now().UTC()
		c.Name, c.Email, c.Username, c.LeadID, c.DeletedAt, c.UpdatedAt = "", "", "", "", &now, now
		return tn.DB.Commit(ctx, Contacts.Update(c))
	})
}
