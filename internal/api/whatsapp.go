package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// whatsApp is the API of conversations, messages, templates and the account at Meta.
type whatsApp struct {
	desk   *chat.Desk
	runner *job.Runner
}

const whatsAppTag = "WhatsApp"

// RegisterWhatsApp adds the API of WhatsApp, but for webhooks and the raw inbox.
func RegisterWhatsApp(a *API, desk *chat.Desk, runner *job.Runner) {
	s := whatsApp{desk, runner}
	s.conversations(a)
	s.messages(a)
	s.templates(a)
	s.account(a)
}

func (s whatsApp) conversations(a *API) {
	Client(a, Op{Route: "GET /api/whatsapp/conversations", ID: "listConversations", Tag: whatsAppTag, Summary: "List conversations, the last active first",
		Description: "Filters narrow each other."}, listConversations)
	Client(a, Op{Route: "GET /api/whatsapp/conversations/{id}", ID: "getConversation", Tag: whatsAppTag, Summary: "Read a conversation"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[chat.ConversationView], error) {
			return conversationAnswer(s.desk.ReadConversation(ctx, tn, in.ID))
		})
	Client(a, Op{Route: "GET /api/whatsapp/conversations/{id}/messages", ID: "listMessages", Tag: whatsAppTag, Summary: "List a conversation's messages, newest first"}, s.listMessages)
	Client(a, Op{Route: "POST /api/whatsapp/conversations/{id}/read", ID: "readConversation", Tag: whatsAppTag, Summary: "Mark a conversation as read",
		Description: "It counts as read at once; a job lets the customer see it."},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[chat.ConversationView], error) {
			return conversationAnswer(s.desk.MarkRead(ctx, tn, in.ID, s.runner.Enqueue))
		})
	Client(a, Op{Route: "POST /api/whatsapp/conversations/{id}/typing", ID: "showTyping", Tag: whatsAppTag, Summary: "Show the customer that an answer is being written",
		Status: http.StatusAccepted, Description: "For at most 25 seconds, or until the answer. It marks the customer's last message as read at Meta. " +
			"The job is for now or never; with the customer service window closed: 409 whatsapp.window_closed."}, s.typing)
	Client(a, Op{Route: "POST /api/whatsapp/conversations/{id}/assign", ID: "assignConversation", Tag: whatsAppTag, Summary: "Give a conversation to a user, or to nobody"}, s.assign)
}

func conversationAnswer(cv *chat.Conversation, err error) (*Answer[chat.ConversationView], error) {
	if err != nil {
		return nil, err
	}
	return OK(cv.View())
}

type conversationsInput struct {
	Page
	AssigneeID string      `query:"assigneeId" maxLength:"100"`
	ContactID  string      `query:"contactId" maxLength:"100"`
	Unread     Maybe[bool] `query:"unread" doc:"true: only those with something unread."`
	Q          string      `query:"q" maxLength:"200" doc:"Words of the name, or digits of the phone number, each from its beginning; any case."`
}

func listConversations(ctx context.Context, tn *tenant.Tenant, in *conversationsInput) (*Answer[List[chat.ConversationView]], error) {
	at, err := in.afterIn("conversations", chat.Conversations.Schema, "lastMessageAt")
	if err != nil {
		return nil, err
	}
	q := store.Query{Order: "lastMessageAt", Desc: true, After: at, Limit: in.Limit + 1}
	for _, f := range []struct{ field, value string }{{"assigneeId", in.AssigneeID}, {"contactId", in.ContactID}} {
		if f.value != "" {
			q.Where = append(q.Where, store.Where(f.field, store.Eq, f.value))
		}
	}
	if in.Unread.Value {
		q.Where = append(q.Where, store.Where("unread", store.Eq, "yes"))
	}
	for i, w := range crm.Words(in.Q) {
		if i == 8 {
			return nil, fault.Bad("query.q", "Expected at most 8 words.")
		}
		q.Where = append(q.Where, store.Where("word", store.Prefix, w))
	}
	rows, err := chat.Conversations.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "conversations", func(c *chat.Conversation) store.Cursor {
		return store.Cursor{Value: c.LastMessageAt.UnixMilli(), ID: c.ID}
	}, (*chat.Conversation).View), nil
}

type messagesInput struct {
	ByID
	Page
}

func (s whatsApp) listMessages(ctx context.Context, tn *tenant.Tenant, in *messagesInput) (*Answer[List[chat.MessageView]], error) {
	at, err := in.afterIn("messages:"+in.ID, chat.Messages.Schema, "at")
	if err != nil {
		return nil, err
	}
	if _, err := s.desk.ReadConversation(ctx, tn, in.ID); err != nil {
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

// QueuedJob names the job that does what was asked for.
type QueuedJob struct {
	JobID string `json:"jobId" doc:"See /api/jobs/{id}."`
}

func (s whatsApp) typing(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[QueuedJob], error) {
	n, err := s.desk.Typing(ctx, tn, in.ID)
	if err != nil {
		return nil, err
	}
	return s.queued(ctx, n)
}

func (s whatsApp) queued(ctx context.Context, n store.NewJob) (*Answer[QueuedJob], error) {
	made, err := s.runner.Offer(ctx, n)
	if err != nil {
		return nil, err
	}
	return OK(QueuedJob{made[0].Job.ID})
}

type assignInput struct {
	ByID
	Body struct {
		UserID *string `json:"userId" maxLength:"100" nullable:"true" doc:"null: nobody."`
	}
}

func (s whatsApp) assign(ctx context.Context, tn *tenant.Tenant, in *assignInput) (*Answer[chat.ConversationView], error) {
	user := ""
	if in.Body.UserID != nil {
		user = *in.Body.UserID
	}
	return conversationAnswer(s.desk.Assign(ctx, tn, in.ID, user))
}

func message(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[chat.MessageView], error) {
	m, err := chat.Messages.Get(ctx, tn.DB, in.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("message")
	}
	if err != nil {
		return nil, err
	}
	return OK(m.View())
}
