package crm

import (
	"context"
	"regexp"
	"strings"
	"unicode"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ourUser is the form of the ids of our own users. Owners may be named by another system's ids too.
var ourUser = regexp.MustCompile(`^usr_[0-9a-f]{32}$`)

// CheckOwner refuses an owner that cannot be one: text that does not print, and an id of ours that is no user of this
// client's. "" is nobody.
func (b *Book) CheckOwner(ctx context.Context, tn *tenant.Tenant, pointer, ownerID string) error {
	if len(ownerID) > 100 || strings.ContainsFunc(ownerID, unicode.IsControl) {
		return fault.Bad(pointer, "The owner has at most 100 bytes, and no control characters.")
	}
	if b.UserExists == nil || !ourUser.MatchString(ownerID) {
		return nil
	}
	if ok, err := b.UserExists(ctx, tn, ownerID); err != nil || ok {
		return err
	}
	return fault.Bad(pointer, "There is no such user.")
}

// owner is whom a mutation makes the owner.
func (m *Mutation) owner() string {
	switch {
	case m.Create != nil:
		return m.Create.OwnerID
	case m.Fill != nil:
		return m.Fill.OwnerID
	case m.Set != nil && m.Set.OwnerID != nil:
		return *m.Set.OwnerID
	}
	return ""
}
