package campaign

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// A link by which somebody unsubscribes holds all that is needed for that: client, channel, address and campaign. So it
// works for as long as the client does, also when the campaign is long deleted. It is sealed under the client's link key,
// which no rotation of the operator's keys changes; the same mail always has the same link.
const linkVersion = 1

type sealer struct {
	aead  cipher.AEAD
	nonce []byte // the key that nonces are made with
}

func newSealer(key secret.Text) (*sealer, error) {
	raw := []byte(key.Reveal())
	enc, err := hkdf.Key(sha256.New, raw, nil, "ecod/unsubscribe/seal", 32)
	if err != nil {
		return nil, err
	}
	nonce, err := hkdf.Key(sha256.New, raw, nil, "ecod/unsubscribe/nonce", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(enc)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead, nonce}, err
}

// token makes the token of an address in a campaign. The nonce is derived from what is sealed: two different texts have
// two different nonces, and one text one token.
func (s *sealer) token(code, channel, campaignID, address string) string {
	plain := []byte(channel + "\x00" + campaignID + "\x00" + address)
	mac := hmac.New(sha256.New, s.nonce)
	mac.Write(plain)
	nonce := mac.Sum(nil)[:s.aead.NonceSize()]
	out := append([]byte{linkVersion, byte(len(code))}, code...)
	out = append(out, nonce...)
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(out, nonce, plain, []byte(code)))
}

// errLink is the one answer to every token that is not one of ours.
func errLink() error { return fault.New(fault.NotFound, "link.not_found", "This link is not known.") }

// link is what a token says.
type link struct{ code, channel, campaignID, address string }

func (b *Bureau) read(ctx context.Context, token string) (link, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(token) > 2000 || len(raw) < 2 || raw[0] != linkVersion || len(raw) < 2+int(raw[1]) {
		return link{}, errLink()
	}
	code, ok := tenant.Code(string(raw[2 : 2+int(raw[1])]))
	sealed := raw[2+int(raw[1]):]
	if status := b.Tenants.Status(code); !ok || status == "" || status == tenant.Erasing {
		return link{}, errLink()
	}
	key, err := b.Tenants.KnownLinkKey(ctx, code)
	if err != nil {
		return link{}, err
	}
	if key == "" {
		return link{}, errLink()
	}
	s, err := newSealer(key)
	if err != nil {
		return link{}, err
	}
	if len(sealed) < s.aead.NonceSize() {
		return link{}, errLink()
	}
	plain, err := s.aead.Open(nil, sealed[:s.aead.NonceSize()], sealed[s.aead.NonceSize():], []byte(code))
	parts := strings.Split(string(plain), "\x00")
	if err != nil || len(parts) != 3 {
		return link{}, errLink()
	}
	return link{code, parts[0], parts[1], parts[2]}, nil
}

// Sender tells whose mail a link is from, for the page that it opens; fault.NotFound if it is none of ours. It changes
// nothing.
func (b *Bureau) Sender(ctx context.Context, token string) (string, error) {
	l, err := b.read(ctx, token)
	if err != nil {
		return "", err
	}
	a, err := b.Tenants.Account(ctx, l.code)
	if fault.Of(err) == fault.NotFound {
		return "", errLink()
	}
	if err != nil {
		return "", err
	}
	if s := a.SMTP; s != nil && s.FromName != "" {
		return s.FromName, nil
	}
	return a.Name, nil
}

// Unsubscribe does what a link is for, once or again. A suspended client's mails can be unsubscribed from too.
func (b *Bureau) Unsubscribe(ctx context.Context, token string) error {
	l, err := b.read(ctx, token)
	if err != nil {
		return err
	}
	tn, release, err := b.Tenants.Use(ctx, l.code)
	if fault.Of(err) == fault.NotFound {
		return errLink()
	}
	if err != nil {
		return err
	}
	defer release()
	leadID, at := "", b.Now().UTC()
	err = retry(ctx, func() error {
		_, writes, err := b.Book.Suppress(ctx, tn, crm.Suppression{Channel: l.channel, Address: l.address, Reason: crm.Unsubscribed, Ref: l.campaignID})
		if err != nil {
			return err
		}
		r, err := Recipients.Get(ctx, tn.DB, recipientID(tn.Code, l.campaignID, l.address))
		if err == nil {
			leadID = r.LeadID
		}
		if err == nil && r.Unsubscribed == nil {
			r.Unsubscribed = &at
			writes = append(writes, Recipients.Update(r))
		} else if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if len(writes) == 0 {
			return nil
		}
		return tn.DB.Commit(ctx, writes...)
	})
	if err != nil || leadID == "" {
		return err
	}
	_, err = b.Queue.Enqueue(ctx, crm.PointsOf(tn, leadID, crm.PointsOptOut, l.campaignID+"|"+leadID, l.campaignID, 0, at))
	return err
}
