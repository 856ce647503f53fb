package tenant

import (
	"context"
	"errors"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
)

// Reseal lets the sealed fields of a client be sealed anew: seal is given each, and what it gives back takes its place.
// Where it gives all back as they were, nothing is written. Nothing else of the document changes: not when the client was
// changed, nor whether a hand edited it since. seal may be called again for the same field.
func (r *Registry) Reseal(ctx context.Context, code string, seal func(field, sealed string) (string, error)) error {
	for range 10 {
		a, err := r.Account(ctx, code)
		if fault.Of(err) == fault.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		changed := false
		for field, at := range a.sealed() {
			if *at == "" {
				continue
			}
			s, err := seal(field, *at)
			if err != nil {
				return err
			}
			changed = changed || s != *at
			*at = s
		}
		if !changed {
			return nil
		}
		if a.Rev == RevOf(a.Code, a.Version) {
			a.Rev = RevOf(a.Code, a.Version+1)
		}
		switch err := r.cfg.Services.Commit(ctx, Accounts.Update(a)); {
		case err == nil:
			r.written(a.Code)
			a.Version++
			r.remember(a)
			return nil
		case !errors.Is(err, store.ErrConflict):
			return err
		}
	}
	return fault.New(fault.Conflict, "client.busy", "The client is being changed by others. Try again.")
}

// RemoveSecret removes the account that a client has with others under a name ("smtp"), with all that was known of it.
// fault.NotFound where there is none.
func (r *Registry) RemoveSecret(ctx context.Context, code, name string) (*Account, error) {
	return r.Change(ctx, code, func(a *Account) error {
		there := false
		switch name {
		case "whatsapp":
			there, a.WhatsApp = a.WhatsApp != nil, nil
		case "smtp":
			there, a.SMTP = a.SMTP != nil, nil
		case "google":
			there, a.Google = a.Google != nil, nil
		case "storage":
			there, a.Storage = a.Storage != nil, nil
		}
		if !there {
			return fault.Missing("secret")
		}
		return nil
	})
}

// OpenSecret opens one of an account's sealed fields without the client's database; "" where it is not set.
func OpenSecret(ring *secret.Ring, a *Account, field string) (secret.Text, error) {
	return open(ring, a, field)
}
