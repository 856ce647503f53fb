package crm

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Channels that an address can be suppressed on.
const (
	ChannelEmail    = "email"
	ChannelWhatsApp = "whatsapp"
	ChannelAll      = "all"
)

// Reasons of suppressions that are the engine's own; those of people are free.
const (
	Unsubscribed = "unsubscribed"
	HardBounce   = "hard_bounce"
)

// Suppression keeps an address from being written to. It is about the address and not about a contact: it stands also
// where the contact is deleted, or is imported again.
type Suppression struct {
	store.Meta
	ID        string    `json:"id"`
	Channel   string    `json:"channel"`
	Address   string    `json:"address"` // an e-mail in the form of Email, or E.164
	Reason    string    `json:"reason"`
	Dead      bool      `json:"dead,omitempty"` // nobody reads there: not even what they asked for themselves is sent
	Ref       string    `json:"ref,omitempty"`  // what caused it: a letter, a recipient
	CreatedAt time.Time `json:"createdAt"`
}

// Suppressions is the kind.
var Suppressions = store.Kind[Suppression]{
	Schema: store.Schema{
		Kind:   "suppressions",
		Fields: []store.Field{{Name: "address", Type: store.Text}, {Name: "channel", Type: store.Text}, {Name: "createdAt", Type: store.Int}},
		Orders: [][]string{{"createdAt"}, {"address", "createdAt"}, {"channel", "createdAt"}},
	},
	Key: func(s *Suppression) string { return s.ID },
	Index: func(s *Suppression) store.Fields {
		return store.Fields{"address": addressKey(s.Address), "channel": s.Channel, "createdAt": s.CreatedAt.UnixMilli()}
	},
	Meta: func(s *Suppression) *store.Meta { return &s.Meta },
}

// addressKey is an address in the form in which its spellings are equal.
func addressKey(address string) string {
	if len(address) > 0 && address[0] == '+' {
		return PhoneKey(address)
	}
	return address
}

// SuppressionID is the id of the suppression of an address on a channel.
func SuppressionID(channel, address string) string {
	return id.Derived("sup", channel, addressKey(address))
}

// Blocks tells whether the suppression keeps a message back: marketing always, any other if the address is dead or
// suppressed for everything.
func (s *Suppression) Blocks(marketing bool) bool {
	return s != nil && (marketing || s.Dead || s.Channel == ChannelAll)
}

// Suppress gives the suppression of an address as it then stands, and the write that makes it so; none where nothing
// changes. An address that turns out to be dead stays suppressed for the reason it was, and is dead too.
func (b *Book) Suppress(ctx context.Context, tn *tenant.Tenant, s Suppression) (*Suppression, []store.Write, error) {
	s.ID = SuppressionID(s.Channel, s.Address)
	old, err := Suppressions.Get(ctx, tn.DB, s.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if s.CreatedAt.IsZero() {
			s.CreatedAt = b.Now().UTC()
		}
		return &s, []store.Write{Suppressions.Update(&s)}, nil
	case err != nil:
		return nil, nil, err
	case s.Dead && !old.Dead:
		old.Dead = true
		return old, []store.Write{Suppressions.Update(old)}, nil
	}
	return old, nil, nil
}

// Suppressed finds which of these addresses are suppressed on a channel, or on all of them.
func (b *Book) Suppressed(ctx context.Context, tn *tenant.Tenant, channel string, addresses ...string) (map[string]*Suppression, error) {
	out := map[string]*Suppression{}
	by := make(map[string]string, 2*len(addresses))
	ids := make([]string, 0, 2*len(addresses))
	for _, a := range addresses {
		if a == "" {
			continue
		}
		for _, c := range []string{channel, ChannelAll} {
			sid := SuppressionID(c, a)
			ids = append(ids, sid)
			by[sid] = a
		}
	}
	found, err := Suppressions.GetAll(ctx, tn.DB, ids...)
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		if a := by[s.ID]; out[a] == nil || s.Channel == ChannelAll {
			out[a] = s
		}
	}
	return out, nil
}
