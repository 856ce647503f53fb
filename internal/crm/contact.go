package crm

import (
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Contact is a person, as far as we can tell persons apart: by identities. The phone may be unknown.
type Contact struct {
	store.Meta
	ID         string     `json:"id"`
	Name       string     `json:"name,omitempty"`
	Phone      string     `json:"phone,omitempty"` // E.164
	Email      string     `json:"email,omitempty"`
	WaID       string     `json:"waId,omitempty"`   // as Meta spells it
	UserID     string     `json:"userId,omitempty"` // business-scoped user id
	Username   string     `json:"username,omitempty"`
	Identities []string   `json:"identities"` // "tel:+…", "bsuid:…", "mail:…"; none belongs to two contacts
	LeadID     string     `json:"leadId,omitempty"`
	OptedOutAt *time.Time `json:"optedOutAt,omitempty"`
	OptOutBy   string     `json:"optOutBy,omitempty"`   // keyword, button, preference, provider
	WordAt     *time.Time `json:"wordAt,omitempty"`     // when the person last asked for messages, or for none
	MergedInto string     `json:"mergedInto,omitempty"` // the contact that this one turned out to be
	DeletedAt  *time.Time `json:"deletedAt,omitempty"`  // of one who asked for no messages: that is kept, and nothing else
	CreatedAt  time.Time  `json:"createdAt"`
	UpdatedAt  time.Time  `json:"updatedAt"`
}

// Contacts is the kind.
var Contacts = store.Kind[Contact]{
	Schema: store.Schema{
		Kind: "contacts",
		Fields: []store.Field{
			{Name: "identity", Type: store.Text, Multi: true, Unique: true},
			{Name: "listed", Type: store.Text}, // "1" of those that are people to the client
			{Name: "leadId", Type: store.Text}, {Name: "email", Type: store.Text}, {Name: "name", Type: store.Text},
			{Name: "word", Type: store.Text, Multi: true},
			{Name: "createdAt", Type: store.Int}, {Name: "updatedAt", Type: store.Int},
		},
		Orders: [][]string{{"createdAt"}, {"listed", "createdAt"}, {"listed", "updatedAt"}, {"listed", "name"}, {"leadId"}, {"email"}},
	},
	Key: func(c *Contact) string { return c.ID },
	Index: func(c *Contact) store.Fields {
		f := store.Fields{"identity": c.Identities, "createdAt": c.CreatedAt.UnixMilli(), "updatedAt": c.UpdatedAt.UnixMilli()}
		if c.LeadID != "" {
			f["leadId"] = c.LeadID
		}
		if c.MergedInto == "" && c.DeletedAt == nil {
			f["listed"], f["name"], f["word"] = "1", cut(strings.ToLower(c.Name)), words(c.Name, c.Email, c.Phone, c.Username)
			if c.Email != "" {
				f["email"] = c.Email
			}
		}
		return f
	},
	Meta: func(c *Contact) *store.Meta { return &c.Meta },
}

// Tel is the identity of a phone number (E.164).
func Tel(e164 string) string { return "tel:" + PhoneKey(e164) }

// BSUID is the identity of a WhatsApp business-scoped user id.
func BSUID(userID string) string { return "bsuid:" + userID }

// Mail is the identity of an e-mail address (in the form of Email).
func Mail(addr string) string { return "mail:" + addr }

// Has tells whether an identity is the contact's.
func (c *Contact) Has(identity string) bool { return slices.Contains(c.Identities, identity) }

// revive makes a contact that was deleted one of the client's people again; false if it is.
func (c *Contact) revive() bool {
	gone := c.DeletedAt != nil
	c.DeletedAt = nil
	return gone
}

// add gives a contact an identity; false if it had it.
func (c *Contact) add(identity string) bool {
	if c.Has(identity) {
		return false
	}
	c.Identities = append(c.Identities, identity)
	return true
}

// lose takes an identity away, and with it what it stands for.
func (c *Contact) lose(identity string) {
	c.Identities = slices.DeleteFunc(c.Identities, func(s string) bool { return s == identity })
	switch identity {
	case Tel(c.Phone):
		c.Phone, c.WaID = "", ""
	case BSUID(c.UserID):
		c.UserID = ""
	case Mail(c.Email):
		c.Email = ""
	}
}

// absorb makes c the person that other is too: what other had and c has not goes over, with other's identities.
func (c *Contact) absorb(other *Contact) {
	fill := func(to *string, v string) {
		if *to == "" {
			*to = v
		}
	}
	fill(&c.LeadID, other.LeadID)
	fill(&c.Name, other.Name)
	fill(&c.Email, other.Email)
	fill(&c.Username, other.Username)
	c.heed(other)
}

// heed takes over the last word of another contact on messages, if c has said nothing since.
func (c *Contact) heed(other *Contact) {
	if other.WordAt != nil && (c.WordAt == nil || other.WordAt.After(*c.WordAt)) {
		c.OptedOutAt, c.OptOutBy, c.WordAt = other.OptedOutAt, other.OptOutBy, other.WordAt
	}
}

// OptOut records that the person asked for no more messages; by is keyword, button, preference or provider. A word older
// than the last one changes nothing: then false.
func (c *Contact) OptOut(by string, at time.Time) bool {
	at = at.UTC()
	if c.WordAt != nil && (at.Before(*c.WordAt) || (at.Equal(*c.WordAt) && c.OptedOutAt != nil)) {
		return false
	}
	c.WordAt = &at
	if c.OptedOutAt == nil {
		c.OptedOutAt, c.OptOutBy = &at, by
	}
	return true
}

// OptIn records that the person wants messages again. Of two words of one second, the one against messages counts.
func (c *Contact) OptIn(at time.Time) bool {
	at = at.UTC()
	if c.WordAt != nil && !at.After(*c.WordAt) {
		return false
	}
	c.WordAt, c.OptedOutAt, c.OptOutBy = &at, nil, ""
	return true
}
