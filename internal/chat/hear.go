package chat

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// quickReply is within which time of our message an answer is a quick one.
const quickReply = 10 * time.Minute

// hear gives the writes by which a customer's new message counts for the lead of its author. They stand in the message's
// own commit, before it: told again, it counts no more. cv is the conversation as it was before it.
func (d *Desk) hear(ctx context.Context, tn *tenant.Tenant, m *whatsapp.Message, msg *Message, c *crm.Contact, cv *Conversation) ([]store.Write, error) {
	if c.LeadID == "" || msg.Effect != nil || m.System != nil || m.GroupID != "" {
		return nil, nil
	}
	h := crm.Heard{LeadID: c.LeadID, Source: msg.ID, At: msg.CreatedAt, Media: msg.Media != nil}
	h.Word, _ = optWord(m, tn.Account().Settings)
	if msg.Text != nil {
		h.Text = *msg.Text
	}
	if since := msg.CreatedAt.Sub(cv.LastMessageAt); since > 0 && since <= quickReply {
		last, err := Messages.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("conversationId", store.Eq, cv.ID)}, Order: "at", Desc: true})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		h.Quick = err == nil && last.Direction == Out
	}
	return d.Book.Hear(ctx, tn, h)
}
