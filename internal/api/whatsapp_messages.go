package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

func (s whatsApp) messages(a *API) {
	Client(a, Op{Route: "POST /api/whatsapp/messages", ID: "sendMessage", Tag: whatsAppTag, Summary: "Send a message", Status: http.StatusAccepted,
		Description: "The object under the type is Graph's own. Exactly one of to, recipient and conversationId says to whom. " +
			"Anything but a template needs an open customer service window: else 409 whatsapp.window_closed. " +
			"Templates do not go to a contact who asked for no more messages: 409 contact.opted_out. " +
			"Templates that were synced are checked: whatsapp.template_unknown, whatsapp.template_not_approved, whatsapp.template_parameters. " +
			"The answer is the message's id; what becomes of it is its status."}, s.send)
	Client(a, Op{Route: "GET /api/whatsapp/messages/{id}", ID: "getMessage", Tag: whatsAppTag, Summary: "Read a message"}, message)
	a.nullable("MessageView", "media", "error")
}

// GraphObject is an object of Graph's, passed on as it is.
type GraphObject json.RawMessage

// UnmarshalJSON keeps the bytes.
func (o *GraphObject) UnmarshalJSON(b []byte) error { *o = append((*o)[:0], b...); return nil }

// MarshalJSON writes them.
func (o GraphObject) MarshalJSON() ([]byte, error) {
	if len(o) == 0 {
		return []byte("null"), nil
	}
	return o, nil
}

// Schema documents the object as any; what Meta would refuse, the draft's own check tells.
func (GraphObject) Schema(huma.Registry) *huma.Schema { return &huma.Schema{} }

// SendMessageBody is a message to send.
type SendMessageBody struct {
	To             string `json:"to,omitempty" maxLength:"64" doc:"A phone number, in any spelling." example:"+918143963821"`
	Recipient      string `json:"recipient,omitempty" maxLength:"200" doc:"A business-scoped user id, of somebody who hides their phone number."`
	ConversationID string `json:"conversationId,omitempty" maxLength:"100"`
	Type           string `json:"type" enum:"text,template,image,video,audio,document,sticker,location,contacts,interactive,reaction"`
	ReplyTo        string `json:"replyTo,omitempty" maxLength:"256" doc:"The message that this one answers: a wamid, or its id here."`
	From           string `json:"from,omitempty" maxLength:"64" doc:"A phone number id; the client's first if left out."`

	Text        GraphObject `json:"text,omitzero" doc:"{body, preview_url}, or the text itself; at most 4,096 characters." example:"\"See you on Monday\""`
	Template    GraphObject `json:"template,omitzero" doc:"{name, language:{code}, components}"`
	Image       GraphObject `json:"image,omitzero" doc:"{id or link, caption}; id is that of /api/media."`
	Video       GraphObject `json:"video,omitzero" doc:"{id or link, caption}"`
	Audio       GraphObject `json:"audio,omitzero" doc:"{id or link}"`
	Document    GraphObject `json:"document,omitzero" doc:"{id or link, caption, filename}"`
	Sticker     GraphObject `json:"sticker,omitzero" doc:"{id or link}"`
	Location    GraphObject `json:"location,omitzero" doc:"{latitude, longitude, name, address}"`
	Contacts    GraphObject `json:"contacts,omitzero" doc:"[{name:{formatted_name, first_name}, phones, …}]"`
	Interactive GraphObject `json:"interactive,omitzero" doc:"{type:button|list|cta_url|…, header, body, footer, action}"`
	Reaction    GraphObject `json:"reaction,omitzero" doc:"{message_id, emoji}; message_id is a wamid, or an id here; emoji \"\" takes it back."`
}

func (b *SendMessageBody) draft() (chat.Draft, error) {
	d := chat.Draft{To: b.To, Recipient: b.Recipient, ConversationID: b.ConversationID, Type: b.Type, ReplyTo: b.ReplyTo, From: b.From}
	var bad fields
	for typ, o := range map[string]GraphObject{"text": b.Text, "template": b.Template, "image": b.Image, "video": b.Video, "audio": b.Audio,
		"document": b.Document, "sticker": b.Sticker, "location": b.Location, "contacts": b.Contacts, "interactive": b.Interactive, "reaction": b.Reaction} {
		switch {
		case typ == b.Type:
			d.Object = json.RawMessage(o)
		case len(o) > 0 && string(o) != "null":
			bad.add("/"+typ, "This member does not belong to the type.")
		}
	}
	return d, bad.fault()
}

// QueuedMessage is a message that will be sent.
type QueuedMessage struct {
	ID             string `json:"id"`
	ConversationID string `json:"conversationId"`
	Status         string `json:"status" enum:"queued"`
}

type sendInput struct{ Body SendMessageBody }

// send makes the job that holds the message durable and does its first part, which puts the message into its conversation;
// the sending itself comes after the answer.
func (s whatsApp) send(ctx context.Context, tn *tenant.Tenant, in *sendInput) (*Answer[QueuedMessage], error) {
	draft, err := in.Body.draft()
	if err != nil {
		return nil, err
	}
	n, will, err := s.desk.Compose(ctx, tn, or(Once(ctx), id.New("req")), draft)
	if err != nil {
		return nil, err
	}
	made, res, err := s.runner.Do(ctx, n)
	switch k := fault.Of(err); {
	case errors.Is(err, store.ErrKeyReuse):
		return nil, errMismatch()
	case err != nil && (made.Job.ID == "" || k == fault.Invalid || k == fault.Conflict || k == fault.NotFound):
		return nil, err // not stored, or refused for good: what was true a moment ago is not any more
	}
	if c, ok := res.Result.(chat.Composed); ok {
		will = c
	}
	// where the first part failed, or another process has it, the job stands and goes on by itself
	return OK(QueuedMessage{will.MessageID, will.ConversationID, chat.Queued})
}
