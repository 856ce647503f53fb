package app

import (
	"context"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// messagesOf are the messages of a timeline: those of its contacts' conversations.
func messagesOf(ctx context.Context, tn *tenant.Tenant, s crm.Subject, before *store.Cursor, limit int) ([]crm.Entry, error) {
	var conversations []string
	for _, contactID := range s.Contacts {
		cs, err := chat.Conversations.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("contactId", store.Eq, contactID)}, Limit: 50})
		if err != nil {
			return nil, err
		}
		for _, c := range cs {
			conversations = append(conversations, c.ID)
		}
	}
	var out []crm.Entry
	for _, c := range conversations { // one by one: each is a stretch of the index
		ms, err := crm.Latest(ctx, tn, chat.Messages, "conversationId", []string{c}, "at", before, limit)
		if err != nil {
			return nil, err
		}
		for _, m := range ms {
			out = append(out, crm.Entry{ID: m.ID, At: m.CreatedAt, Type: "message", Data: m.View()})
		}
	}
	return out, nil
}

// runsOf are the runs of automations of a timeline.
func runsOf(ctx context.Context, tn *tenant.Tenant, s crm.Subject, before *store.Cursor, limit int) ([]crm.Entry, error) {
	rs, err := crm.Latest(ctx, tn, rule.Runs, "leadId", s.Leads, "startedAt", before, limit)
	var out []crm.Entry
	for _, r := range rs {
		out = append(out, crm.Entry{ID: r.ID, At: r.StartedAt, Type: "run", Data: r.View()})
	}
	return out, err
}
