package api

import (
	"context"
	"errors"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// RegisterConversations adds the reading of conversations and their messages.
func RegisterConversations(a *API) {
	const tag = "WhatsApp"
	Client(a, Op{Route: "GET /api/whatsapp/conversations", ID: "listConversations", Tag: tag, Summary: "List conversations, the last active first"}, listConversations)
	Client(a, Op{Route: "GET /api/whatsapp/conversations/{id}", ID: "getConversation", Tag: tag, Summary: "Read a conversation"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[chat.ConversationView], error) {
			c, err := conversation(ctx, tn, in.ID)
			if err != nil {
				return nil, err
			}
			return OK(c.View())
		})
	Client(a, Op{Route: "GET /api/whatsapp/conversations/{id}/messages", ID: "listMessages", Tag: tag, Summary: "List a conversation's messages, newest first"}, listMessages)
	a.nullable("MessageView", "media", "error")
}

func listConversations(ctx context.Context, tn *tenant.Tenant, in *struct{ Page }) (*Answer[List[chat.ConversationView]], error) {
	at, err := in.afterIn("conversations", chat.Conversations.Schema, "lastMessageAt")
	if err != nil {
		return nil, err
	}
	rows, err := chat.Conversations.Find(ctx, tn.DB, store.Query{Order: "lastMessageAt", Desc: true, After: at, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "conversations", func(c *chat.Conversation) store.Cursor {
		return store.Cursor{Value: c.LastMessageAt.UnixMilli(), ID: c.ID}
	}, (*chat.Conversation).View), nil
}

func conversation(ctx context.Context, tn *tenant.Tenant, id string) (*chat.Conversation, error) {
	c, err := chat.Conversations.Get(ctx, tn.DB, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("conversation")
	}
	return c, err
}

type messagesInput struct {
	ByID
	Page
}

func listMessages(ctx context.Context, tn *tenant.Tenant, in *messagesInput) (*Answer[List[chat.MessageView]], error) {
	at, err := in.afterIn("messages:"+in.ID, chat.Messages.Schema, "at")
	if err != nil {
		return nil, err
	}
	if _, err := conversation(ctx, tn, in.ID); err != nil {
		return nil, err
	}
	rows, err := chat.Messages.Find(ctx, tn.DB, store.Query{
		Where: []store.Term{store.Where("conversationId", store.Eq, in.ID)}, Order: "at", Desc: true, After: at, Limit: in.Limit + 1,
	})
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "messages:"+in.ID, func(m *chat.Message) store.Cursor {
		return store.Cursor{Value: m.CreatedAt.UnixMilli(), ID: m.ID}
	}, (*chat.Message).View), nil
}
