package whatsapp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a send, in characters.
const (
	MaxText      = 4096
	MaxCaption   = 1024
	MaxBizOpaque = 512
)

// SendRequest is a message to send. To or Recipient is needed, and not both.
type SendRequest struct {
	To        string // phone digits, "+" allowed; or a group's id with Group
	Recipient string // business-scoped user id
	Group     bool

	Type   string          // "text", "template", "image", …
	Object json.RawMessage // Graph's object of that type: see TextObject and TemplateObject

	ReplyTo   string // the wamid that it answers
	BizOpaque string // comes back in every status; at most MaxBizOpaque characters
}

// SendResult is Meta's acceptance: the message is not delivered yet.
type SendResult struct {
	ID     string // wamid
	Status string // templates: "accepted", "held_for_quality_assessment", "paused"; else ""
	WAID   string // the recipient as Meta knows it; may differ from To
	UserID string
}

var sendTypes = map[string]bool{"text": true, "image": true, "video": true, "audio": true, "document": true, "sticker": true,
	"location": true, "contacts": true, "reaction": true, "interactive": true, "template": true}

// BuildSend writes the body of a send. The same request gives the same bytes: keep
// them, and let a retry send them by SendRaw. An error wraps ErrRequest and quotes nothing.
func BuildSend(r SendRequest) ([]byte, error) {
	switch {
	case (r.To == "") == (r.Recipient == ""):
		return nil, incomplete("send", "one of to and recipient is needed")
	case !sendTypes[r.Type]:
		return nil, incomplete("send", "the type is not one that can be sent")
	case utf8.RuneCountInString(r.BizOpaque) > MaxBizOpaque:
		return nil, incomplete("send", fmt.Sprintf("the callback data is longer than %d characters", MaxBizOpaque))
	}
	open := byte('{')
	if r.Type == "contacts" {
		open = '['
	}
	if o := bytes.TrimSpace(r.Object); len(o) == 0 || o[0] != open || !json.Valid(o) {
		return nil, incomplete("send", "the object of the type is missing or has another shape")
	}
	envelope := struct {
		Product       string   `json:"messaging_product"`
		RecipientType string   `json:"recipient_type"`
		To            string   `json:"to,omitempty"`
		Recipient     string   `json:"recipient,omitempty"`
		Type          string   `json:"type"`
		Context       *replyTo `json:"context,omitempty"`
		BizOpaque     string   `json:"biz_opaque_callback_data,omitempty"`
	}{"whatsapp", "individual", r.To, r.Recipient, r.Type, nil, r.BizOpaque}
	if r.Group {
		envelope.RecipientType = "group"
	}
	if r.ReplyTo != "" {
		envelope.Context = &replyTo{r.ReplyTo}
	}
	b, err := json.Marshal(envelope)
	if err != nil {
		return nil, incomplete("send", "it cannot be written as JSON")
	}
	out := bytes.NewBuffer(b[:len(b)-1])
	fmt.Fprintf(out, ",%q:", r.Type)
	_ = json.Compact(out, r.Object) // valid, as seen above
	out.WriteByte('}')
	return out.Bytes(), nil
}

type replyTo struct {
	MessageID string `json:"message_id"`
}

// Send builds and sends a message, once.
func (c *Client) Send(ctx context.Context, acc Account, r SendRequest) (SendResult, error) {
	body, err := BuildSend(r)
	if err != nil {
		return SendResult{}, err
	}
	return c.SendRaw(ctx, acc, body)
}

// SendRaw sends a body of BuildSend, once. A nil error means that Meta accepted
// it; else the error's Outcome tells whether it may have.
func (c *Client) SendRaw(ctx context.Context, acc Account, body []byte) (SendResult, error) {
	var w sent
	if err := c.do(ctx, acc, call{op: "send", method: http.MethodPost, path: []string{acc.PhoneNumberID, "messages"}, body: body, out: &w}); err != nil {
		return SendResult{}, err
	}
	r := SendResult{ID: string(w.Messages[0].ID), Status: string(w.Messages[0].Status)}
	if len(w.Contacts) > 0 {
		r.WAID, r.UserID = string(w.Contacts[0].WAID), string(w.Contacts[0].UserID)
	}
	return r, nil
}

// sent is the answer to a send. It is unreadable without the message's id.
type sent sentFields

type sentFields struct {
	Messages []struct {
		ID     text `json:"id"`
		Status text `json:"message_status"`
	} `json:"messages"`
	Contacts []struct {
		WAID   text `json:"wa_id"`
		UserID text `json:"user_id"`
	} `json:"contacts"`
}

func (s *sent) UnmarshalJSON(b []byte) error {
	_ = json.Unmarshal(b, (*sentFields)(s)) // it is JSON; a key of another type costs nothing else
	if len(s.Messages) == 0 || s.Messages[0].ID == "" {
		return errors.New("no message id")
	}
	return nil
}

// MarkRead marks a message and those before it as read; typing also shows the
// user that an answer is being written, for 25 s or until it comes.
func (c *Client) MarkRead(ctx context.Context, acc Account, wamid string, typing bool) error {
	type indicator struct {
		Type string `json:"type"`
	}
	body := struct {
		Product   string     `json:"messaging_product"`
		Status    string     `json:"status"`
		MessageID string     `json:"message_id"`
		Typing    *indicator `json:"typing_indicator,omitempty"`
	}{"whatsapp", "read", wamid, nil}
	if typing {
		body.Typing = &indicator{"text"}
	}
	if wamid == "" {
		return incomplete("mark read", "the message's id is missing")
	}
	return c.post(ctx, acc, "mark read", body, &success{}, acc.PhoneNumberID, "messages")
}

// TextObject is the object of a text message.
func TextObject(body string, previewURL bool) (json.RawMessage, error) {
	if n := utf8.RuneCountInString(body); n == 0 || n > MaxText {
		return nil, incomplete("send", fmt.Sprintf("a text has 1 to %d characters", MaxText))
	}
	return json.Marshal(struct {
		Preview bool   `json:"preview_url"`
		Body    string `json:"body"`
	}{previewURL, body})
}

// Component fills a part of a template: "header", "body" or "button" (with
// SubType "quick_reply", "url", … and the Index of the button).
type Component struct {
	Type       string      `json:"type"`
	SubType    string      `json:"sub_type,omitempty"`
	Index      string      `json:"index,omitempty"`
	Parameters []Parameter `json:"parameters,omitempty"`
}

// Parameter is one value. Type names the field that is set.
type Parameter struct {
	Type     string     `json:"type"`                     // "text", "payload", "image", "video", "document"
	Name     string     `json:"parameter_name,omitempty"` // templates with named parameters only
	Text     string     `json:"text,omitempty"`
	Payload  string     `json:"payload,omitempty"`
	Image    *MediaFile `json:"image,omitempty"`
	Video    *MediaFile `json:"video,omitempty"`
	Document *MediaFile `json:"document,omitempty"`
}

// MediaFile names a file by Meta's id or by a public link.
type MediaFile struct {
	ID       string `json:"id,omitempty"`
	Link     string `json:"link,omitempty"`
	Filename string `json:"filename,omitempty"`
}

// BodyParameters fills {{1}}, {{2}}, … of a template's body; none gives no
// component. A value that is empty once cleaned is refused: Meta would refuse it.
// The error names its place, not the value.
func BodyParameters(values []string) ([]Component, error) {
	if len(values) == 0 {
		return nil, nil
	}
	c := Component{Type: "body"}
	for i, v := range values {
		if v = CleanParameter(v); v == "" {
			return nil, incomplete("send", fmt.Sprintf("template parameter %d is empty", i+1))
		}
		c.Parameters = append(c.Parameters, Parameter{Type: "text", Text: v})
	}
	return []Component{c}, nil
}

// CleanParameter makes a template parameter that Meta accepts: no line break, no
// tab, no four spaces in a row. Such a run becomes one space; ends are trimmed.
func CleanParameter(s string) string {
	s = strings.TrimSpace(s)
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexFunc(s, unicode.IsSpace)
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		end := i + strings.IndexFunc(s[i:], func(r rune) bool { return !unicode.IsSpace(r) })
		run := s[i:end] // something follows it: the end was trimmed
		if utf8.RuneCountInString(run) > 3 || strings.ContainsFunc(run, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }) {
			run = " "
		}
		b.WriteString(run)
		s = s[end:]
	}
	return b.String()
}

// TemplateObject is the object of a template message.
func TemplateObject(name, language string, components []Component) (json.RawMessage, error) {
	if name == "" || language == "" {
		return nil, incomplete("send", "a template has a name and a language")
	}
	type code struct {
		Code string `json:"code"`
	}
	return json.Marshal(struct {
		Name       string      `json:"name"`
		Language   code        `json:"language"`
		Components []Component `json:"components,omitempty"`
	}{name, code{language}, components})
}
