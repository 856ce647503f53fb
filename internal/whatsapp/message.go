package whatsapp

import (
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Message is a message as Meta tells it. Which content pointer is set follows
// from Type; Content always holds the object as received, so that a type nobody
// has seen yet loses nothing.
type Message struct {
	ID           string // "wamid…"; unique within a phone number
	From         string // phone digits; "" if the user hides their phone. Of an echo: the business
	FromUserID   string // business-scoped user id; "" before April 2026 and in system messages
	ParentUserID string // of the sender, for managed businesses
	To           string // of an echo or a history message: the user
	ToUserID     string
	ToParentID   string
	GroupID      string
	Timestamp    time.Time // second resolution; zero if absent or odd
	Type         string    // "text", "image", …; as received, also if unknown

	Text        *Text
	Media       *Media // image, video, audio, document, sticker
	Location    *Location
	Cards       []Card // type "contacts"
	Reaction    *Reaction
	Button      *Button
	Interactive *Interactive
	Order       *Order
	System      *System
	Edit        *Edit
	Revoke      *Revoke
	Unsupported *Unsupported // types "unsupported" and "unknown"; see also Errors

	Context       *Context
	Referral      *Referral // the message came from an ad or post
	Identity      *Identity // type "system", identity changes
	Errors        []ProviderError
	HistoryStatus string // of a history message: "READ", "DELIVERED", …

	Content    json.RawMessage // the object named after Type; nil if there is none
	ContentErr error           // Content has not the shape its type must have: no pointer is set
}

// Subtype refines Type: the kind of interactive reply, of system message, of
// unsupported content, of what an edit leaves; "" otherwise.
func (m *Message) Subtype() string {
	switch {
	case m.Interactive != nil:
		return m.Interactive.Type
	case m.System != nil:
		return m.System.Type
	case m.Unsupported != nil:
		return m.Unsupported.Type
	case m.Edit != nil && m.Edit.New != nil:
		return m.Edit.New.Type
	}
	return ""
}

// ReplyTo is the id of the message that this one answers; "" if it answers none.
// A forwarded message is not an answer.
func (m *Message) ReplyTo() string {
	if m.Context == nil {
		return ""
	}
	return m.Context.ID
}

// Text is a message's text.
type Text struct {
	Body string `json:"body"`
}

// Media is a file: fetch it by ID within 7 days. URL, where present, lives 5
// minutes. SHA256 is base64 or hex, as Meta sent it: see HexSHA256.
type Media struct {
	ID       string `json:"id"`
	MIME     string `json:"mime_type"` // may carry a parameter: "audio/ogg; codecs=opus"
	SHA256   string `json:"sha256"`
	URL      string `json:"url"`
	Caption  string `json:"caption"`
	Filename string `json:"filename"`
	Voice    bool   `json:"voice"`    // audio: recorded in the chat
	Animated bool   `json:"animated"` // sticker
}

// Location is a place; 0 is a coordinate like any other.
type Location struct {
	Latitude, Longitude float64
	Name, Address, URL  string
}

// Card is one shared contact. Origin "contact_request" says that the user
// shares their own number on request; it links the phone to the user id.
type Card struct {
	Name      CardName      `json:"name"`
	Phones    []CardPhone   `json:"phones"`
	Emails    []CardEmail   `json:"emails"`
	Addresses []CardAddress `json:"addresses"`
	URLs      []CardURL     `json:"urls"`
	Org       CardOrg       `json:"org"`
	Birthday  string        `json:"birthday"`
	Origin    string        `json:"origin"`
	VCard     string        `json:"vcard"`
}

// The parts of a Card.
type (
	CardName struct {
		Formatted string `json:"formatted_name"`
		First     string `json:"first_name"`
		Middle    string `json:"middle_name"`
		Last      string `json:"last_name"`
		Prefix    string `json:"prefix"`
		Suffix    string `json:"suffix"`
	}
	CardPhone struct {
		Phone  string `json:"phone"`
		WAID   string `json:"wa_id"`
		UserID string `json:"user_id"`
		Type   string `json:"type"`
	}
	CardEmail struct {
		Email string `json:"email"`
		Type  string `json:"type"`
	}
	CardAddress struct {
		Street      string `json:"street"`
		City        string `json:"city"`
		State       string `json:"state"`
		Zip         string `json:"zip"`
		Country     string `json:"country"`
		CountryCode string `json:"country_code"`
		Type        string `json:"type"`
	}
	CardURL struct {
		URL  string `json:"url"`
		Type string `json:"type"`
	}
	CardOrg struct {
		Company    string `json:"company"`
		Department string `json:"department"`
		Title      string `json:"title"`
	}
)

// Reaction is an emoji put on a message, or taken from it.
type Reaction struct {
	MessageID string `json:"message_id"`
	Emoji     string `json:"emoji"`
}

// Removed tells that the user took the reaction back: the emoji is absent or "".
func (r *Reaction) Removed() bool { return r.Emoji == "" }

// Button is a tap on a template's quick reply.
type Button struct {
	Payload string `json:"payload"`
	Text    string `json:"text"`
}

// Interactive is an answer to an interactive message; Type names the pointer
// that is set. Other types keep their object in the message's Content.
type Interactive struct {
	Type           string          `json:"type"`
	Button         *Reply          `json:"button_reply"`
	List           *Reply          `json:"list_reply"`
	Flow           *FlowReply      `json:"nfm_reply"`
	CallPermission *CallPermission `json:"call_permission_reply"`
}

// Reply is the button or list row that the user chose.
type Reply struct {
	ID          string `json:"id"`
	Title       string `json:"title"`
	Description string `json:"description"` // list rows; may be absent
}

// FlowReply is a completed flow or address form. ResponseJSON is JSON in a
// string, written by the form: it is not parsed here.
type FlowReply struct {
	Name         string `json:"name"` // "flow", "address_message", …
	Body         string `json:"body"`
	ResponseJSON string `json:"response_json"`
}

// CallPermission is the user's word on being called.
type CallPermission struct {
	Response  string // "accept" or "reject"
	Permanent bool
	Expires   time.Time // zero if it does not
	Source    string
}

// Order is a cart sent by the user.
type Order struct {
	CatalogID string      `json:"catalog_id"`
	Text      string      `json:"text"`
	Items     []OrderItem `json:"product_items"`
}

// OrderItem is one line of an Order; Price is per piece, in Currency's major unit.
type OrderItem struct {
	ProductID string  `json:"product_retailer_id"`
	Quantity  float64 `json:"quantity"`
	Price     float64 `json:"item_price"`
	Currency  string  `json:"currency"`
}

// System is a note of the chat itself: nobody wrote it.
type System struct {
	Type string // "user_changed_number", "user_changed_user_id", "customer_identity_changed"
	Body string

	WAID                 string // the new phone digits, also of the older shapes
	UserID               string // the new user id
	ParentUserID         string
	PreviousUserID       string
	PreviousParentUserID string
}

// Identity tells that the user's encryption key changed.
type Identity struct {
	Acknowledged bool
	Created      time.Time
	Hash         string
}

// Edit replaces an earlier message; New has Type and content, no id and no sender.
type Edit struct {
	OriginalID string
	New        *Message
}

// Revoke deletes an earlier message.
type Revoke struct {
	OriginalID string `json:"original_message_id"`
}

// Unsupported is content that Meta does not pass on; Type may name it ("poll").
type Unsupported struct {
	Type string `json:"type"`
}

// Context tells what a message refers to. ID is set for an answer or a tap only.
type Context struct {
	ID                  string
	From                string
	FromUserID          string
	Forwarded           bool
	FrequentlyForwarded bool
	CatalogID           string // a question about a product
	ProductID           string
}

// Referral is the ad or post that led the user here.
type Referral struct {
	SourceURL    string `json:"source_url"`
	SourceID     string `json:"source_id"`
	SourceType   string `json:"source_type"` // "ad" or "post"
	Headline     string `json:"headline"`
	Body         string `json:"body"`
	MediaType    string `json:"media_type"`
	ImageURL     string `json:"image_url"`
	VideoURL     string `json:"video_url"`
	ThumbnailURL string `json:"thumbnail_url"`
	ClickID      string `json:"ctwa_clid"`
	Welcome      struct {
		Text string `json:"text"`
	} `json:"welcome_message"`
}

// ProviderError is an error that Meta reports in a webhook; [Classify] tells what it means.
type ProviderError struct {
	Code    int
	Title   string
	Details string
}

func readMessage(kind Kind) func(*parser, *Item, []Contact) error {
	return func(_ *parser, it *Item, people []Contact) error {
		m, err := parseMessage(it.Raw)
		if err != nil {
			return err
		}
		it.Kind, it.Message = kind, m
		if kind == KindEcho {
			it.Contact = match(people, m.ToUserID, m.To)
		} else {
			it.Contact = match(people, m.FromUserID, m.From)
		}
		return nil
	}
}

var errNoID = errors.New("it has no id")

func parseMessage(raw json.RawMessage) (*Message, error) {
	m, ok := messageOf(raw, true)
	if !ok {
		return nil, errors.New("a message is not an object")
	}
	if m.ID == "" {
		return nil, errNoID
	}
	return m, nil
}

func messageOf(raw json.RawMessage, outer bool) (*Message, bool) {
	var w struct {
		ID           text            `json:"id"`
		From         text            `json:"from"`
		FromUserID   text            `json:"from_user_id"`
		FromParentID text            `json:"from_parent_user_id"`
		To           text            `json:"to"`
		ToUserID     text            `json:"to_user_id"`
		ToParentID   text            `json:"to_parent_user_id"`
		GroupID      text            `json:"group_id"`
		Timestamp    unix            `json:"timestamp"`
		Type         text            `json:"type"`
		Context      json.RawMessage `json:"context"`
		Referral     json.RawMessage `json:"referral"`
		Identity     json.RawMessage `json:"identity"`
		Errors       json.RawMessage `json:"errors"`
		Origin       text            `json:"origin"`
		History      struct {
			Status text `json:"status"`
		} `json:"history_context"`
	}
	if !object(raw, &w) {
		return nil, false
	}
	m := &Message{
		ID: string(w.ID), From: string(w.From), FromUserID: string(w.FromUserID), ParentUserID: string(w.FromParentID),
		To: string(w.To), ToUserID: string(w.ToUserID), ToParentID: string(w.ToParentID), GroupID: string(w.GroupID),
		Timestamp: w.Timestamp.Time, Type: string(w.Type),
		Context: contextOf(w.Context), Identity: identityOf(w.Identity), Errors: errorsOf(w.Errors), HistoryStatus: string(w.History.Status),
	}
	var r Referral
	if object(w.Referral, &r) {
		m.Referral = &r
	}
	if m.Type != "" {
		var all map[string]json.RawMessage
		_ = json.Unmarshal(raw, &all)
		if c := all[m.Type]; !absent(c) {
			m.Content = c
		}
		m.ContentErr = m.content(outer)
	}
	for i := range m.Cards {
		if m.Cards[i].Origin == "" { // an earlier edition has it on the message
			m.Cards[i].Origin = string(w.Origin)
		}
	}
	return m, true
}

// content sets the pointer of the message's type.
func (m *Message) content(outer bool) error {
	into := func(v any) error {
		if m.Content == nil {
			return errors.New("whatsapp: a " + m.Type + " message without its object")
		}
		if err := json.Unmarshal(m.Content, v); err != nil {
			return errors.New("whatsapp: the object of a " + m.Type + " message has another shape") // the decoder's words may quote values
		}
		return nil
	}
	var err error
	switch m.Type {
	case "text":
		m.Text, err = filled[Text](into)
	case "image", "video", "audio", "document", "sticker":
		m.Media, err = filled[Media](into)
	case "location":
		var w struct {
			Latitude  *float64 `json:"latitude"`
			Longitude *float64 `json:"longitude"`
			Name      text     `json:"name"`
			Address   text     `json:"address"`
			URL       text     `json:"url"`
		}
		if err = into(&w); err == nil && (w.Latitude == nil || w.Longitude == nil) {
			err = errors.New("whatsapp: a location without coordinates")
		}
		if err == nil {
			m.Location = &Location{*w.Latitude, *w.Longitude, string(w.Name), string(w.Address), string(w.URL)}
		}
	case "contacts":
		if err = into(&m.Cards); err != nil {
			m.Cards = nil
		}
	case "reaction":
		m.Reaction, err = filled[Reaction](into)
	case "button":
		m.Button, err = filled[Button](into)
	case "interactive":
		m.Interactive, err = filled[Interactive](into)
	case "order":
		m.Order, err = filled[Order](into)
	case "system":
		m.System, err = filled[System](into)
	case "revoke":
		m.Revoke, err = filled[Revoke](into)
	case "edit":
		var w struct {
			Original text            `json:"original_message_id"`
			Message  json.RawMessage `json:"message"`
		}
		if err = into(&w); err != nil {
			break
		}
		m.Edit = &Edit{OriginalID: string(w.Original)}
		if outer { // an edit of an edit is not unfolded: depth costs nothing
			m.Edit.New, _ = messageOf(w.Message, false)
		}
	case "unsupported", "unknown":
		if m.Unsupported = new(Unsupported); m.Content != nil {
			err = into(m.Unsupported)
		}
	}
	return err
}

func filled[T any](into func(any) error) (*T, error) {
	v := new(T)
	if err := into(v); err != nil {
		return nil, err
	}
	return v, nil
}

// UnmarshalJSON reads the 2026 shape and the older ones.
func (s *System) UnmarshalJSON(b []byte) error {
	var w struct {
		Type           text `json:"type"`
		Body           text `json:"body"`
		WAID           text `json:"wa_id"`
		NewWAID        text `json:"new_wa_id"`
		UserID         text `json:"user_id"`
		ParentUserID   text `json:"parent_user_id"`
		PreviousUserID text `json:"previous_user_id"`
		PreviousParent text `json:"previous_parent_user_id"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if w.WAID == "" {
		w.WAID = w.NewWAID
	}
	*s = System{string(w.Type), string(w.Body), string(w.WAID), string(w.UserID), string(w.ParentUserID), string(w.PreviousUserID), string(w.PreviousParent)}
	return nil
}

// UnmarshalJSON takes the expiry as a number or a string.
func (c *CallPermission) UnmarshalJSON(b []byte) error {
	var w struct {
		Response  text    `json:"response"`
		Permanent boolean `json:"is_permanent"`
		Expires   unix    `json:"expiration_timestamp"`
		Source    text    `json:"response_source"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*c = CallPermission{string(w.Response), bool(w.Permanent), w.Expires.Time, string(w.Source)}
	return nil
}

func contextOf(raw json.RawMessage) *Context {
	var w struct {
		ID         text    `json:"id"`
		From       text    `json:"from"`
		FromUserID text    `json:"from_user_id"`
		Forwarded  boolean `json:"forwarded"`
		Frequently boolean `json:"frequently_forwarded"`
		Product    struct {
			CatalogID text `json:"catalog_id"`
			ProductID text `json:"product_retailer_id"`
		} `json:"referred_product"`
	}
	if !object(raw, &w) {
		return nil
	}
	return &Context{string(w.ID), string(w.From), string(w.FromUserID), bool(w.Forwarded), bool(w.Frequently),
		string(w.Product.CatalogID), string(w.Product.ProductID)}
}

func identityOf(raw json.RawMessage) *Identity {
	var w struct {
		Acknowledged boolean `json:"acknowledged"`
		Created      unix    `json:"created_timestamp"`
		Hash         text    `json:"hash"`
	}
	if !object(raw, &w) {
		return nil
	}
	return &Identity{bool(w.Acknowledged), w.Created.Time, string(w.Hash)}
}

func errorsOf(raw json.RawMessage) []ProviderError {
	elements, _ := list(raw)
	var out []ProviderError
	for _, e := range elements {
		if pe, ok := errorOf(e); ok {
			out = append(out, pe)
		}
	}
	return out
}

func errorOf(raw json.RawMessage) (ProviderError, bool) {
	var w struct {
		Code    integer         `json:"code"`
		Title   text            `json:"title"`
		Message text            `json:"message"`
		Data    json.RawMessage `json:"error_data"`
	}
	if !object(raw, &w) {
		return ProviderError{}, false
	}
	if w.Title == "" {
		w.Title = w.Message
	}
	return ProviderError{int(w.Code), string(w.Title), details(w.Data)}, true
}

// details reads error_data, which is an object or a plain string.
func details(raw json.RawMessage) string {
	var w struct {
		Details text `json:"details"`
	}
	if object(raw, &w) {
		return string(w.Details)
	}
	var s string
	_ = json.Unmarshal(raw, &s)
	return strings.TrimSpace(s)
}
