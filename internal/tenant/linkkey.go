package tenant

import (
	"context"
	"crypto/rand"
	"encoding/base64"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
)

// linkKeyField is what the sealed key of links is bound to.
const linkKeyField = "linkKey"

// LinkKey gives the key that the client's links in mails are made with, making it at the first call. It lasts as long as
// the client does: keys of the ring come and go, and it is sealed anew under each, but the links that went out stay good.
func (r *Registry) LinkKey(ctx context.Context, code string) (secret.Text, error) {
	key, err := r.secretOf(ctx, code, linkKeyField)
	if err != nil || key != "" {
		return key, err
	}
	_, err = r.Change(ctx, code, func(a *Account) error {
		if a.LinkKey != "" {
			return nil
		}
		b := make([]byte, 32)
		_, _ = rand.Read(b)
		return r.seal(a, map[string]secret.Text{linkKeyField: secret.Text(base64.RawURLEncoding.EncodeToString(b))})
	})
	if fault.Of(err) == fault.NotFound {
		return "", ErrUnknown()
	}
	if err != nil {
		return "", err
	}
	return r.secretOf(ctx, code, linkKeyField)
}

// KnownLinkKey is LinkKey for reading a link: a client that never made one, or is not there, has none.
func (r *Registry) KnownLinkKey(ctx context.Context, code string) (secret.Text, error) {
	return r.secretOf(ctx, code, linkKeyField)
}
