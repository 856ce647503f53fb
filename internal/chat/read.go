package chat

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// The types of the jobs that show customers what people do at a conversation.
const (
	ReadJob   = "whatsapp.read"
	TypingJob = "whatsapp.typing"
)

const (
	markable  = 30 * 24 * time.Hour // Meta takes read marks for so long
	typingFor = 20 * time.Second    // a sign of typing that comes later is none
)

// markPayload is the payload of ReadJob and TypingJob.
type markPayload struct {
	MessageID string `json:"messageId"`
}

// ReadConversation reads a conversation; fault.NotFound.
func (d *Desk) ReadConversation(ctx context.Context, tn *tenant.Tenant, conversationID string) (*Conversation, error) {
	cv, err := Conversations.Get(ctx, tn.DB, conversationID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("conversation")
	}
	return cv, err
}

// newestIn is the newest message of a conversation that a customer wrote; store.ErrNotFound.
func newestIn(ctx context.Context, tn *tenant.Tenant, conversationID string) (*Message, error) {
	return Messages.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("inbox", store.Eq, conversationID)}, Order: "at", Desc: true})
}

// MarkRead counts a conversation as read up to its newest message, and lets the customer see it. The job that tells Meta is
// made first: it does the same to the conversation, should this process end in between.
func (d *Desk) MarkRead(ctx context.Context, tn *tenant.Tenant, conversationID string, enqueue Enqueue) (*Conversation, error) {
	cv, err := d.ReadConversation(ctx, tn, conversationID)
	if err != nil {
		return nil, err
	}
	m, err := newestIn(ctx, tn, cv.ID)
	if errors.Is(err, store.ErrNotFound) {
		return cv, nil
	}
	if err != nil {
		return nil, err
	}
	if cv.Unread == 0 && !cv.ReadAt.Before(m.CreatedAt) {
		return cv, nil
	}
	n := job.New(tn.Code, ReadJob, markPayload{m.ID})
	n.UniqueKey, n.Causation, n.Resource = "read:"+m.ID, store.Causation{Message: m.ID}, resourceOf(m.PhoneNumberID)
	if _, err := enqueue(ctx, n); err != nil {
		return nil, err
	}
	return d.readUpTo(ctx, tn, m)
}

// readUpTo counts what is not newer than a message as read.
func (d *Desk) readUpTo(ctx context.Context, tn *tenant.Tenant, m *Message) (cv *Conversation, err error) {
	err = retry(ctx, func() error {
		if cv, err = Conversations.Get(ctx, tn.DB, m.ConversationID); err != nil {
			return err
		}
		changed := cv.ReadAt.Before(m.CreatedAt)
		if changed {
			cv.ReadAt = m.CreatedAt
		}
		was := cv.Unread
		if cv.Unread, err = d.unread(ctx, tn, cv); err != nil || !changed && cv.Unread == was {
			return err
		}
		key := cv.ID + "|read|" + strconv.FormatInt(cv.ReadAt.UnixMilli(), 10) + "|" + strconv.FormatInt(cv.Unread, 10)
		return tn.DB.Commit(ctx, news.Write(d.Now(), news.ConversationUpdated, key, "conversation", cv.View()), Conversations.Update(cv))
	})
	return cv, err
}

// unread counts the messages that came after the conversation was read last.
func (d *Desk) unread(ctx context.Context, tn *tenant.Tenant, cv *Conversation) (int64, error) {
	return tn.DB.Count(ctx, store.Query{Kind: Messages.Schema.Kind, Where: []store.Term{
		store.Where("inbox", store.Eq, cv.ID), store.Where("at", store.Gt, cv.ReadAt.UnixMilli()),
	}})
}

// HandleRead is the handler of ReadJob. Marking a message twice is no harm.
func (d *Desk) HandleRead(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	return job.Result{}, d.mark(ctx, tn, j, func(m *Message) (typing bool, err error) {
		_, err = d.readUpTo(ctx, tn, m)
		return false, err
	})
}

// HandleTyping is the handler of TypingJob: a sign that an answer is being written, which Meta shows at a message and which
// marks it as read there.
func (d *Desk) HandleTyping(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	if err := d.mark(ctx, tn, j, func(*Message) (bool, error) { return true, nil }); err != nil {
		return job.Result{}, job.Dead("typing", err)
	}
	return job.Result{}, nil
}

// mark tells Meta that a customer's message was seen, after what is to be done here.
func (d *Desk) mark(ctx context.Context, tn *tenant.Tenant, j store.Job, first func(*Message) (typing bool, err error)) error {
	p, err := job.Payload[markPayload](j)
	if err != nil {
		return err
	}
	m, err := Messages.Get(ctx, tn.DB, p.MessageID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Dead("message_gone", err)
	}
	if err != nil {
		return err
	}
	typing, err := first(m)
	if err != nil || m.WAMID == "" || d.Now().Sub(m.CreatedAt) > markable {
		return err
	}
	w := tn.Account().WhatsApp
	token, err := tn.Secret("whatsapp.accessToken")
	sealed := tokenOf(tn)
	if err != nil || token == "" || w == nil {
		return d.refusedToken(ctx, tn, sealed, "no_token", errors.Join(errors.New("no usable access token"), err))
	}
	leave, still, ok := d.lines.enter(ctx, tokenKey(tn.Code, sealed))
	if !ok {
		return d.outside(ctx, tn, j, still)
	}
	taken := false
	defer func() { leave(taken) }()
	if err := d.resting(ctx, tn, j, m); err != nil {
		return err
	}
	err = d.Graph.MarkRead(ctx, whatsapp.Account{PhoneNumberID: m.PhoneNumberID, WABAID: w.WABAID, Token: token}, m.WAMID, typing)
	taken = took(err)
	var api *whatsapp.APIError
	if errors.As(err, &api) {
		if api.Scope() == whatsapp.ScopeAccount && !api.Temporary() {
			return d.refusedToken(ctx, tn, sealed, codeOf(api), err)
		}
		if p := limited(tn, m, api); p != nil {
			return d.rest(ctx, tn, j, *p, err)
		}
	}
	if err != nil {
		return verdict(err)
	}
	return nil
}

// Typing gives the job that shows a customer that an answer is being written. It is for now or never.
func (d *Desk) Typing(ctx context.Context, tn *tenant.Tenant, conversationID string) (store.NewJob, error) {
	cv, err := d.ReadConversation(ctx, tn, conversationID)
	if err != nil {
		return store.NewJob{}, err
	}
	if !cv.Open(d.Now()) {
		return store.NewJob{}, fault.New(fault.Conflict, "whatsapp.window_closed", "The customer has not written in the last 24 hours: there is nothing to answer.")
	}
	m, err := newestIn(ctx, tn, cv.ID)
	if errors.Is(err, store.ErrNotFound) {
		return store.NewJob{}, fault.New(fault.Conflict, "whatsapp.window_closed", "The customer has not written: there is nothing to answer.")
	}
	if err != nil {
		return store.NewJob{}, err
	}
	n := job.New(tn.Code, TypingJob, markPayload{m.ID})
	n.ExpiresAt, n.MaxAttempts, n.Causation, n.Resource = d.Now().Add(typingFor), 1, store.Causation{Message: m.ID}, resourceOf(m.PhoneNumberID)
	return n, nil
}

// Assign gives a conversation to a user of the client's; "" to nobody. It has no triggers and no effect outside.
func (d *Desk) Assign(ctx context.Context, tn *tenant.Tenant, conversationID, userID string) (cv *Conversation, err error) {
	if userID != "" && d.UserExists != nil {
		known, err := d.UserExists(ctx, tn, userID)
		if err != nil {
			return nil, err
		}
		if !known {
			return nil, fault.Bad("/userId", "There is no such user.")
		}
	}
	err = retry(ctx, func() error {
		if cv, err = d.ReadConversation(ctx, tn, conversationID); err != nil || cv.AssigneeID == userID {
			return err
		}
		cv.AssigneeID = userID
		key := cv.ID + "|assigned|" + strconv.FormatInt(cv.Version, 10) + "|" + userID
		return tn.DB.Commit(ctx, news.Write(d.Now(), news.ConversationUpdated, key, "conversation", cv.View()), Conversations.Update(cv))
	})
	return cv, err
}
