package chat

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Conversation is the exchange of one contact with one of the client's numbers.
type Conversation struct {
	store.Meta
	ID              string     `json:"id"`
	ContactID       string     `json:"contactId"`
	LeadID          string     `json:"leadId,omitempty"`
	Phone           string     `json:"phone,omitempty"` // E.164
	PhoneNumberID   string     `json:"phoneNumberId"`
	Name            string     `json:"name,omitempty"`
	LastMessageAt   time.Time  `json:"lastMessageAt"`
	WindowExpiresAt *time.Time `json:"windowExpiresAt,omitempty"` // end of the customer service window; nil: never open
	Unread          int64      `json:"unread"`
	ReadAt          time.Time  `json:"readAt,omitzero"`
	AssigneeID      string     `json:"assigneeId,omitempty"`
	CreatedAt       time.Time  `json:"createdAt"`
}

// Conversations is the kind.
var Conversations = store.Kind[Conversation]{
	Schema: store.Schema{
		Kind: "conversations",
		Fields: []store.Field{
			{Name: "contactId", Type: store.Text}, {Name: "lastMessageAt", Type: store.Int}, {Name: "assigneeId", Type: store.Text},
			{Name: "unread", Type: store.Text},            // "yes", where something is
			{Name: "word", Type: store.Text, Multi: true}, // of name and phone number
		},
		Orders: [][]string{{"lastMessageAt"}, {"contactId", "lastMessageAt"}, {"assigneeId", "lastMessageAt"}, {"unread", "lastMessageAt"}},
	},
	Key: func(c *Conversation) string { return c.ID },
	Index: func(c *Conversation) store.Fields {
		f := store.Fields{"contactId": c.ContactID, "lastMessageAt": c.LastMessageAt.UnixMilli()}
		if c.AssigneeID != "" {
			f["assigneeId"] = c.AssigneeID
		}
		if c.Unread > 0 {
			f["unread"] = "yes"
		}
		if ws := conversationWords(c); len(ws) > 0 {
			f["word"] = ws
		}
		return f
	},
	Meta: func(c *Conversation) *store.Meta { return &c.Meta },
}

func conversationWords(c *Conversation) []string {
	ws := crm.Words(c.Name + " " + c.Phone)
	slices.Sort(ws)
	ws = slices.Compact(ws)
	return ws[:min(len(ws), 32)]
}

// conversationID is the id of the conversation of a contact with a number.
func conversationID(code, phoneNumberID, contactID string) string {
	return id.Derived("cnv", code, phoneNumberID, contactID)
}

// Directions.
const (
	In  = "in"
	Out = "out"
)

// Statuses of a message that are ours; those above sending are Meta's (package whatsapp ranks them).
const (
	Queued      = "queued"
	Sending     = "sending"
	Sent        = "sent"
	FailedSend  = "failed"
	Unconfirmed = "unconfirmed"
	Received    = "received"
)

// Message is one message, in or out, and the ledger entry of its send.
type Message struct {
	store.Meta
	ID             string               `json:"id"`
	WAMID          string               `json:"wamid,omitempty"`
	ConversationID string               `json:"conversationId"`
	ContactID      string               `json:"contactId"`
	PhoneNumberID  string               `json:"phoneNumberId"`
	Direction      string               `json:"direction"`
	Type           string               `json:"type"`
	Text           *string              `json:"text"`
	Media          *Media               `json:"media"`
	Content        json.RawMessage      `json:"content,omitempty"`   // Meta's object, for the types that are not text
	ReplyTo        string               `json:"replyTo,omitempty"`   // wamid
	Reactions      map[string]string    `json:"reactions,omitempty"` // by user id, or phone digits
	ReactedAt      map[string]time.Time `json:"reactedAt,omitempty"` // also of those taken back
	Effect         *Effect              `json:"effect,omitempty"`    // of a row whose target is not known yet
	EditedAt       *time.Time           `json:"editedAt,omitempty"`
	RevokedAt      *time.Time           `json:"revokedAt,omitempty"`
	Imported       bool                 `json:"imported,omitempty"` // of the history, or echoed from the phone app: begins nothing
	Status         string               `json:"status"`
	Error          *Error               `json:"error"`
	StatusAt       map[string]time.Time `json:"statusAt"`
	CreatedAt      time.Time            `json:"createdAt"`
	Send           *Send                `json:"send,omitempty"` // nil on incoming ones
	Origin         Origin               `json:"origin,omitzero"`
}

// Media is a message's file.
type Media struct {
	ID       string `json:"id,omitempty"` // ours, once stored
	MetaID   string `json:"metaId,omitempty"`
	MIME     string `json:"mime"`
	SHA256   string `json:"sha256,omitempty"`
	Size     int64  `json:"size,omitempty"`
	Filename string `json:"filename,omitempty"`
	Status   string `json:"status"` // pending, stored, failed
}

// Error is why a message failed.
type Error struct {
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

// States of a send.
const (
	planned     = "planned"     // safe to send
	inFlight    = "in_flight"   // the call may have been made
	accepted    = "accepted"    // Meta answered with an id, or a status webhook told of it
	rejected    = "rejected"    // Meta refused it, or we did
	unconfirmed = "unconfirmed" // the answer was lost
)

// Send is how far sending got. Body is frozen: a retry sends the same bytes.
type Send struct {
	State  string          `json:"state"`
	Body   json.RawMessage `json:"body"`
	Job    string          `json:"job,omitempty"`   // that put it in flight,
	Token  int64           `json:"token,omitempty"` // and the fence of its execution: no other may say how the call ended
	At     time.Time       `json:"at,omitzero"`     // when it was put in flight
	Resend bool            `json:"resend,omitempty"`
	Resent bool            `json:"resent,omitempty"`
	Paired int             `json:"paired,omitempty"` // refusals because the recipient got too many at once
	// Proven: a status webhook came for it. That Meta's webhooks for a number arrive is evidence about its other messages.
	Proven bool `json:"proven,omitempty"`
}

// mark names the execution that put a message in flight.
type mark struct {
	job   string
	token int64
}

func (s *Send) mark() mark { return mark{s.Job, s.Token} }

// by tells whether it was this execution that put the message in flight last.
func (s *Send) by(j store.Job) bool { return s.Job == j.ID && s.Token == j.Token }

// past tells whether a later execution of the same job put the message in flight: this one has lost its lease.
func (s *Send) past(j store.Job) bool { return s.Job == j.ID && s.Token > j.Token }

// Origin is what asked for a message; zero for people.
type Origin struct {
	RunID     string `json:"runId,omitempty"`
	Step      string `json:"step,omitempty"`
	Campaign  string `json:"campaign,omitempty"`
	Recipient string `json:"recipient,omitempty"` // of the campaign
}

// Messages is the kind.
var Messages = store.Kind[Message]{
	Schema: store.Schema{
		Kind: "messages",
		Fields: []store.Field{
			{Name: "conversationId", Type: store.Text}, {Name: "at", Type: store.Int},
			{Name: "wamid", Type: store.Text, Unique: true}, // number|wamid
			{Name: "inbox", Type: store.Text},               // the conversation, of messages that count as unread until read
			{Name: "target", Type: store.Text},              // number|wamid that an effect waits for
			{Name: "provenNumber", Type: store.Text}, {Name: "sentAt", Type: store.Int},
		},
		Orders: [][]string{{"conversationId", "at"}, {"inbox", "at"}, {"target", "at"}, {"provenNumber", "sentAt"}},
	},
	Key: func(m *Message) string { return m.ID },
	Index: func(m *Message) store.Fields {
		f := store.Fields{"at": m.CreatedAt.UnixMilli()}
		if !m.reacts() {
			f["conversationId"] = m.ConversationID
		}
		if m.WAMID != "" {
			f["wamid"] = wamidKey(m.PhoneNumberID, m.WAMID)
		}
		if m.Effect != nil {
			f["target"] = wamidKey(m.PhoneNumberID, m.Effect.Target)
		} else if m.Direction == In && !m.Imported {
			f["inbox"] = m.ConversationID
		}
		if m.Send != nil && m.Send.Proven {
			f["provenNumber"], f["sentAt"] = m.PhoneNumberID, m.Send.At.UnixMilli()
		}
		return f
	},
	Meta: func(m *Message) *store.Meta { return &m.Meta },
}

func wamidKey(phoneNumberID, wamid string) string { return phoneNumberID + "|" + wamid }

// messageID is the id of a message that Meta names; our own outgoing ones are named before Meta knows them.
func messageID(code, phoneNumberID, wamid string) string {
	return id.Derived("msg", code, phoneNumberID, wamid)
}

// Early are the statuses of a message that came before we knew it by its wamid: they overtook the answer to our call.
type Early struct {
	store.Meta
	ID    string            `json:"id"`
	Items []whatsapp.Status `json:"items"`
	At    time.Time         `json:"at"`
}

// EarlyStatuses is the kind; the id is derived from number and wamid.
var EarlyStatuses = store.Kind[Early]{
	Schema: store.Schema{Kind: "earlyStatuses", Fields: []store.Field{{Name: "at", Type: store.Int}}, Orders: [][]string{{"at"}}},
	Key:    func(e *Early) string { return e.ID },
	Index:  func(e *Early) store.Fields { return store.Fields{"at": e.At.UnixMilli()} },
	Meta:   func(e *Early) *store.Meta { return &e.Meta },
}

func earlyID(code, phoneNumberID, wamid string) string {
	return id.Derived("ear", code, phoneNumberID, wamid)
}

// Note is a webhook item that is about the account, not about a message: kept as it came, until a feature reads it.
type Note struct {
	store.Meta
	ID         string          `json:"id"`
	Kind       string          `json:"kind"`
	Field      string          `json:"field"`
	WABAID     string          `json:"wabaId,omitempty"`
	DeliveryID string          `json:"deliveryId"`
	Raw        json.RawMessage `json:"raw"`
	At         time.Time       `json:"at"`
}

// Notes is the kind.
var Notes = store.Kind[Note]{
	Schema: store.Schema{
		Kind:   "accountNotes",
		Fields: []store.Field{{Name: "kind", Type: store.Text}, {Name: "at", Type: store.Int}},
		Orders: [][]string{{"kind", "at"}, {"at"}},
	},
	Key:   func(n *Note) string { return n.ID },
	Index: func(n *Note) store.Fields { return store.Fields{"kind": n.Kind, "at": n.At.UnixMilli()} },
	Meta:  func(n *Note) *store.Meta { return &n.Meta },
}

// Schemas are the kinds of this package, all of them in the clients' databases.
var Schemas = []store.Schema{
	Conversations.Schema, Messages.Schema, EarlyStatuses.Schema, Notes.Schema, Templates.Schema, TemplateLists.Schema,
}
