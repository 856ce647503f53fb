package chat

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Effect is what a reaction, an edit or a revocation does to another message. One whose target we do not have yet (Meta
// keeps no order) stands as a row of its own until the target comes.
type Effect struct {
	Target   string    `json:"target"` // wamid
	At       time.Time `json:"at"`
	Reaction bool      `json:"reaction,omitempty"`
	By       string    `json:"by,omitempty"`    // of a reaction: whose
	Emoji    string    `json:"emoji,omitempty"` // of a reaction: "" takes it back
	Edit     *Message  `json:"edit,omitempty"`  // the new content
	Revoke   bool      `json:"revoke,omitempty"`
}

// effectOf tells what a message does to another; nil for a message that is one.
func effectOf(m *whatsapp.Message) *Effect {
	e := &Effect{At: m.Timestamp.UTC(), By: m.From}
	if m.FromUserID != "" {
		e.By = m.FromUserID
	}
	switch {
	case m.Reaction != nil:
		e.Target, e.Reaction, e.Emoji = m.Reaction.MessageID, true, m.Reaction.Emoji
	case m.Edit != nil && m.Edit.New != nil:
		e.Target, e.Edit = m.Edit.OriginalID, &Message{}
		e.Edit.fill(m.Edit.New)
	case m.Revoke != nil:
		e.Target, e.Revoke = m.Revoke.OriginalID, true
	}
	if e.Target == "" {
		return nil
	}
	return e
}

// affect changes a message; false if the effect is in it already, or a later one is.
func (m *Message) affect(e *Effect) bool {
	switch {
	case e.Reaction:
		if last, ok := m.ReactedAt[e.By]; (ok && e.At.Before(last)) || (m.Reactions[e.By] == e.Emoji && ok) {
			return false
		}
		if m.Reactions == nil {
			m.Reactions = map[string]string{}
		}
		if m.ReactedAt == nil {
			m.ReactedAt = map[string]time.Time{}
		}
		m.ReactedAt[e.By] = e.At
		if e.Emoji == "" {
			delete(m.Reactions, e.By)
		} else {
			m.Reactions[e.By] = e.Emoji
		}
	case e.Edit != nil:
		if m.EditedAt != nil && !e.At.After(*m.EditedAt) {
			return false
		}
		m.Type, m.Text, m.Content, m.EditedAt = e.Edit.Type, e.Edit.Text, e.Edit.Content, &e.At
		if e.Edit.Media != nil { // an edited caption does not take the picture away
			m.Media = e.Edit.Media
		}
	case e.Revoke:
		if m.RevokedAt != nil {
			return false
		}
		m.RevokedAt = &e.At
	}
	return true
}

// maxWaiting bounds the effects that one message takes up; more than a few do not wait.
const maxWaiting = 100

// takeWaiting does to a message, which has got its wamid just now, what came for it before it: effects in their order,
// then statuses. It gives the writes that clear those away. The caller has the turn of the wamid.
func (d *Desk) takeWaiting(ctx context.Context, tn *tenant.Tenant, m *Message) ([]store.Write, error) {
	rows, err := Messages.Find(ctx, tn.DB, store.Query{
		Where: []store.Term{store.Where("target", store.Eq, wamidKey(m.PhoneNumberID, m.WAMID))}, Order: "at", Limit: maxWaiting,
	})
	if err != nil {
		return nil, err
	}
	var writes []store.Write
	for _, r := range rows {
		m.affect(r.Effect)
		writes = append(writes, Messages.Remove(r))
	}
	early, err := d.takeEarly(ctx, tn, m)
	if err != nil {
		return nil, err
	}
	if early != nil {
		writes = append(writes, EarlyStatuses.Remove(early))
	}
	return writes, nil
}

// tidy does to a stored message what had waited for it, if a crash came before that was cleared away. The caller has the
// turn of its wamid.
func (d *Desk) tidy(ctx context.Context, tn *tenant.Tenant, m *Message) error {
	waiting, err := d.takeWaiting(ctx, tn, m)
	if err != nil || len(waiting) == 0 {
		return err
	}
	return tn.DB.Commit(ctx, append([]store.Write{Messages.Update(m)}, waiting...)...)
}

// turns let what concerns one message at Meta be taken in by one at a time, within this process. Different messages
// never wait for each other: a client whose database hangs holds nobody else's turn.
type turns struct {
	mu sync.Mutex
	by map[string]*turn
}

type turn struct {
	sync.Mutex
	users int // who have it or wait for it
}

func (t *turns) lock(parts ...string) (unlock func()) {
	key := strings.Join(parts, "\x00")
	t.mu.Lock()
	if t.by == nil {
		t.by = map[string]*turn{}
	}
	mine := t.by[key]
	if mine == nil {
		mine = &turn{}
		t.by[key] = mine
	}
	mine.users++
	t.mu.Unlock()
	mine.Lock()
	return func() {
		mine.Unlock()
		t.mu.Lock()
		if mine.users--; mine.users == 0 {
			delete(t.by, key)
		}
		t.mu.Unlock()
	}
}
