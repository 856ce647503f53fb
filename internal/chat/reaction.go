package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// reacts tells whether a message is a reaction of ours. Its record is the ledger of its send and nothing to be listed: what
// it says stands on the message that it is about.
func (m *Message) reacts() bool { return m.Direction == Out && m.Type == "reaction" && m.Send != nil }

// reacted gives the writes that put a reaction of ours, which Meta has accepted, on the message that it is about. They stand
// before the write of the reaction itself.
func (d *Desk) reacted(ctx context.Context, tn *tenant.Tenant, m *Message, now time.Time) ([]store.Write, error) {
	var r struct {
		MessageID string `json:"message_id"`
		Emoji     string `json:"emoji"`
	}
	if !m.reacts() {
		return nil, nil
	}
	if err := json.Unmarshal(m.Content, &r); err != nil {
		return nil, fmt.Errorf("chat: the reaction of %s: %w", m.ID, err) // it was written by us
	}
	t, err := Messages.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("wamid", store.Eq, wamidKey(m.PhoneNumberID, r.MessageID))}})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil || !t.affect(&Effect{Target: r.MessageID, At: m.CreatedAt, Reaction: true, By: m.PhoneNumberID, Emoji: r.Emoji}) {
		return nil, err
	}
	return []store.Write{news.Write(now, news.MessageStatus, t.ID+"|"+m.ID, "message", t.View()), Messages.Update(t)}, nil
}
