package crm

import (
	"slices"
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
	OptOutBy   string     `json:"optOutBy,omitempty"` // keyword, button, preference, provider
	CreatedAt  time.Time  `json:"createdAt"`
	UpdatedAt  time.Time  `json:"updatedAt"`
}

// Contacts is the kind.
var Contacts = store.Kind[Contact]{
	Schema: store.Schema{
		Kind: "contacts",
		Fields: []store.Field{
			{Name: "identity", Type: store.Text, Multi: true, Unique: true},
			{Name: "createdAt", Type: store.Int},
		},
		Orders: [][]string{{"createdAt"}},
	},
	Key: func(c *Contact) string { return c.ID },
	Index: func(c *Contact) store.Fields {
		return store.Fields{"identity": c.Identities, "createdAt": c.CreatedAt.UnixMilli()}
	},
	Meta: func(c *Contact) *store.Meta { return &c.Meta },
}

// Tel is the identity of a phone number (E.164).
func Tel(e164 string) string { return "tel:" + PhoneKey(e164) }

// BSUID is the identity of a WhatsApp business-scoped user id.
func BSUID(userID string) string { return "bsuid:" + userID }

// Mail is the identity of an e-mail address (in the form of Email).
func Mail(addr string) string { return "mail:" + addr }

// add gives a contact an identity; false if it had it.
func (c *Contact) add(identity string) bool {
	if slices.Contains(c.Identities, identity) {
		return false
	}
	c.Identities = append(c.Identities, identity)
	return true
}

// Drop takes an identity away.
func (c *Contact) Drop(identity string) {
	c.Identities = slices.DeleteFunc(c.Identities, func(s string) bool { return s == identity })
}
