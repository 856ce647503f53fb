package whatsapp

import (
	"encoding/json"
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
