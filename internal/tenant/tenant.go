package tenant

import (
	"fmt"
	"sync/atomic"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
)

// Tenant is one client at work: its database and its account. Valid until released.
type Tenant struct {
	Code string
	DB   store.DB

	account atomic.Pointer[Account]
	ring    *secret.Ring
}

// Account is the client's account as of now. Read it anew for each use; do not change it.
func (t *Tenant) Account() *Account { return t.account.Load() }

// Seal encrypts a value for this client and field.
func (t *Tenant) Seal(field, value string) (string, error) { return t.ring.Seal(t.Code, field, value) }

// Open decrypts a value sealed for this client and field.
func (t *Tenant) Open(field, sealed string) (secret.Text, error) {
	return t.ring.Open(t.Code, field, sealed)
}

// Secret opens one of the account's sealed fields; "" where it is not set.
// A value that does not open is a fault that names field, client and mend, never the value.
func (t *Tenant) Secret(field string) (secret.Text, error) { return open(t.ring, t.Account(), field) }

func open(ring *secret.Ring, a *Account, field string) (secret.Text, error) {
	at, ok := a.sealed()[field]
	if !ok || *at == "" {
		return "", nil
	}
	v, err := ring.Open(a.Code, field, *at)
	if err != nil {
		return "", fault.Wrap(fmt.Errorf("client %s: %s: %w", a.Code, field, err), fault.Unavailable, "secret.unreadable",
			"The stored %s of this client cannot be read. Set it again.", field)
	}
	return v, nil
}
