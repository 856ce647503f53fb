package realtime

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/ecodrix/ecod/internal/socketio"
)

// What a socket may do.
const (
	eventsPerSecond = 50
	eventsBurst     = 100
	maxSubs         = 50  // conversations that a socket is subscribed to
	maxHere         = 100 // of those present, how many are named
)

// The events of a conversation. They are of the moment: not numbered, not kept, not told by "since".
const (
	presenceEvent = "presence"
	typingEvent   = "typing"
)

// present is somebody who looks at a conversation.
type present struct {
	ID     string  `json:"id"`     // of the socket
	UserID *string `json:"userId"` // null of a socket that is no user's
	Name   *string `json:"name"`
}

func (g *guest) present(s *socketio.Socket) present {
	p := present{ID: s.ID()}
	if g.pass.UserID != "" {
		p.UserID, p.Name = &g.pass.UserID, &g.pass.Name
	}
	return p
}

type presence struct {
	ConversationID string    `json:"conversationId"`
	Here           []present `json:"here"`
}

// reply is what the events of a conversation are acknowledged with.
type reply struct {
	OK    bool      `json:"ok"`
	Error string    `json:"error,omitempty"` // a dotted code
	Here  []present `json:"here,omitempty"`
}

// about is what a socket says of a conversation.
type about struct {
	ConversationID string `json:"conversationId"`
	Typing         *bool  `json:"typing"` // nil: true
}

func readAbout(args []json.RawMessage) (a about, ok bool) {
	if len(args) == 0 || json.Unmarshal(args[0], &a) != nil {
		return a, false
	}
	return a, a.ConversationID != "" && len(a.ConversationID) <= 128
}

// roomOf names the room of a conversation; no code holds a slash.
func roomOf(code, conversation string) string { return code + "/" + conversation }

// subscribe brings a socket into the room of a conversation of its own client.
func (h *Hub) subscribe(ctx context.Context, s *socketio.Socket, g *guest, args []json.RawMessage, ack func(...any)) {
	a, ok := readAbout(args)
	switch {
	case !ok:
		ack(reply{Error: "invalid"})
		return
	case !g.subs[a.ConversationID] && len(g.subs) >= maxSubs:
		ack(reply{Error: "subscriptions.too_many"})
		return
	}
	known, err := h.knows(ctx, g.code, a.ConversationID)
	if err != nil {
		if ctx.Err() == nil {
			h.cfg.Log.Warn("a conversation cannot be looked up", "client", g.code, "error", err)
		}
		ack(reply{Error: "client.unavailable"})
		return
	}
	if !known {
		ack(reply{Error: "conversation.not_found"})
		return
	}
	if g.subs == nil {
		g.subs = map[string]bool{}
	}
	g.subs[a.ConversationID] = true
	s.Join(roomOf(g.code, a.ConversationID))
	ack(reply{OK: true, Here: h.here(g.code, a.ConversationID)})
	h.tellPresence(g.code, a.ConversationID)
}

func (h *Hub) knows(ctx context.Context, code, conversation string) (bool, error) {
	if h.cfg.Conversation == nil {
		return false, nil
	}
	tn, release, err := h.cfg.Tenants.Use(ctx, code)
	if err != nil {
		return false, err
	}
	defer release()
	return h.cfg.Conversation(ctx, tn, conversation)
}

func (h *Hub) unsubscribe(s *socketio.Socket, g *guest, args []json.RawMessage, ack func(...any)) {
	a, ok := readAbout(args)
	if !ok {
		ack(reply{Error: "invalid"})
		return
	}
	if g.subs[a.ConversationID] {
		delete(g.subs, a.ConversationID)
		s.Leave(roomOf(g.code, a.ConversationID))
		h.tellPresence(g.code, a.ConversationID)
	}
	ack(reply{OK: true})
}

// typing tells the others in a conversation's room that somebody types, or has stopped.
func (h *Hub) typing(s *socketio.Socket, g *guest, args []json.RawMessage, ack func(...any)) {
	a, ok := readAbout(args)
	switch {
	case !ok:
		ack(reply{Error: "invalid"})
		return
	case !g.subs[a.ConversationID]:
		ack(reply{Error: "conversation.not_subscribed"})
		return
	}
	on := a.Typing == nil || *a.Typing
	err := s.To(roomOf(g.code, a.ConversationID)).Volatile().Emit(typingEvent, struct {
		ConversationID string  `json:"conversationId"`
		By             present `json:"by"`
		Typing         bool    `json:"typing"`
	}{a.ConversationID, g.present(s), on})
	ack(reply{OK: err == nil})
}

// here are those who look at a conversation, on any node, by name.
func (h *Hub) here(code, conversation string) []present {
	room := roomOf(code, conversation)
	list := h.hereNow(room)
	if h.others != nil {
		list = append(list, h.others.presence.in(room)...)
	}
	return sorted(list)
}

// hereNow are those of this node.
func (h *Hub) hereNow(room string) []present {
	list := []present{}
	for _, s := range h.ns.To(room).Sockets() {
		if g, ok := s.Data().(*guest); ok {
			list = append(list, g.present(s))
		}
	}
	return sorted(list)
}

func sorted(list []present) []present {
	name := func(p present) string {
		if p.Name == nil {
			return "\xff" // last
		}
		return *p.Name
	}
	slices.SortFunc(list, func(a, b present) int { return cmp.Or(cmp.Compare(name(a), name(b)), cmp.Compare(a.ID, b.ID)) })
	return list[:min(len(list), maxHere)]
}

// tellPresence tells a conversation's room who is in it, after that changed here.
func (h *Hub) tellPresence(code, conversation string) {
	if h.others != nil {
		room := roomOf(code, conversation)
		h.others.presence.changed(room, func() []present { return h.hereNow(room) })
	}
	h.emitPresence(code, conversation)
}

// emitPresence says it as it is now; what is said last is as it was last.
func (h *Hub) emitPresence(code, conversation string) {
	h.presenting.Lock()
	defer h.presenting.Unlock()
	err := h.ns.To(roomOf(code, conversation)).Local().Volatile().Emit(presenceEvent, presence{conversation, h.here(code, conversation)})
	if err != nil {
		h.cfg.Log.Warn("presence cannot be told", "client", code, "error", err)
	}
}
