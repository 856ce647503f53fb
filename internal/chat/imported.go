package chat

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// echo stores a message that the business wrote in its phone app: outgoing, and nothing of ours to follow but its file.
func (d *Desk) echo(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) ([]store.NewJob, error) {
	return d.imported(ctx, tn, dl, it, who(it.Message.To, it.Message.ToUserID, it.Contact), Out, Sent)
}

// history imports what was written before the account joined: silently, opening no window and beginning nothing
// but the fetching of files.
func (d *Desk) history(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) (next []store.NewJob, err error) {
	for _, t := range it.History.Threads {
		for _, h := range t.Messages {
			if h.Message == nil {
				continue
			}
			direction, status := In, Received
			if h.Message.From != t.ID {
				direction, status = Out, historyStatus(h.Message.HistoryStatus)
			}
			one := it
			one.Message = h.Message
			var jobs []store.NewJob
			err := retry(ctx, func() error {
				return d.message(ctx, tn, dl, one, func(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) (err error) {
					jobs, err = d.imported(ctx, tn, dl, it, who(t.ID, "", nil), direction, status)
					return err
				})
			})
			if err != nil {
				return nil, err
			}
			next = append(next, jobs...)
		}
	}
	return next, d.note(ctx, tn, dl, it)
}

func historyStatus(s string) string {
	switch s = strings.ToLower(s); s {
	case "delivered", "read", "played":
		return s
	case "error":
		return FailedSend
	}
	return Sent
}

func (d *Desk) imported(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item, person crm.Who, direction, status string) ([]store.NewJob, error) {
	m := it.Message
	if person.Phone == "" && person.UserID == "" {
		return nil, d.note(ctx, tn, dl, it)
	}
	msgID := messageID(tn.Code, it.PhoneNumberID, m.ID)
	switch known, err := Messages.Get(ctx, tn.DB, msgID); {
	case err == nil:
		if err := d.tidy(ctx, tn, known); err != nil {
			return nil, err
		}
		return d.filed(ctx, tn, known)
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	c, writes, changed, err := d.Book.Contact(ctx, tn, person, msgID)
	if err != nil {
		return nil, err
	}
	if changed {
		writes = append(writes, crm.Contacts.Update(c))
	}
	at, echo := placeInTime(m.Timestamp, dl.ReceivedAt), it.Kind == whatsapp.KindEcho
	msg := &Message{
		ID: msgID, WAMID: m.ID, ConversationID: conversationID(tn.Code, it.PhoneNumberID, c.ID), ContactID: c.ID, PhoneNumberID: it.PhoneNumberID,
		Direction: direction, Imported: true, Status: status, StatusAt: map[string]time.Time{status: at}, CreatedAt: at, Effect: effectOf(m),
	}
	msg.fill(m)
	waiting, err := d.takeWaiting(ctx, tn, msg)
	if err != nil {
		return nil, err
	}
	cv, err := d.conversation(ctx, tn, msg)
	if err != nil {
		return nil, err
	}
	if cv.follow(c, msg.CreatedAt, false) {
		if echo {
			writes = append(writes, news.Write(dl.ReceivedAt, news.ConversationUpdated, msg.ID, "conversation", cv.View()))
		}
		writes = append(writes, Conversations.Update(cv))
	}
	if echo {
		writes = append(writes, news.Write(dl.ReceivedAt, news.MessageCreated, msg.ID, "message", msg.View()))
	}
	if err := tn.DB.Commit(ctx, append(append(writes, Messages.Insert(msg)), waiting...)...); err != nil {
		return nil, err
	}
	return d.filed(ctx, tn, msg)
}

// filed gives the jobs that follow from a message that begins nothing.
func (d *Desk) filed(ctx context.Context, tn *tenant.Tenant, m *Message) ([]store.NewJob, error) {
	if d.Filed == nil {
		return nil, nil
	}
	return d.Filed(ctx, tn, m)
}
