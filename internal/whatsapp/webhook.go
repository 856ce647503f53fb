package whatsapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kind says what an [Item] is, and so which of its pointers is set.
type Kind string

// The kinds, by what they hold.
const (
	KindMessage      Kind = "message"       // Message: a user wrote, tapped, reacted; or a system message of the chat
	KindStatus       Kind = "status"        // Status: of a message we sent (or of a payment or call: see Status.OfMessage)
	KindEcho         Kind = "echo"          // Message: sent by the business from its phone app; outbound
	KindHistoryChunk Kind = "history_chunk" // History: messages from before the account joined; to be imported silently
	KindHistoryMedia Kind = "history_media" // Message: the media of an earlier placeholder; not a new message
	KindContactSync  Kind = "contact_sync"  // ContactSync: the address book of the business's phone app
	KindPreference   Kind = "preference"    // Preference: a user stopped or resumed marketing messages
	KindIdentity     Kind = "identity"      // Identity: a user's id changed
	KindUserAction   Kind = "user_action"   // UserAction
	KindCall         Kind = "call"          // Call
	KindGroup        Kind = "group"         // Group
	KindValueError   Kind = "value_error"   // Error: trouble of the number, with no message of its own

	KindTemplateStatus     Kind = "template_status"     // Template
	KindTemplateQuality    Kind = "template_quality"    // Template
	KindTemplateCategory   Kind = "template_category"   // Template
	KindTemplateComponents Kind = "template_components" // Template
	KindPhoneQuality       Kind = "phone_quality"       // Number
	KindPhoneName          Kind = "phone_name"          // Number
	KindCapability         Kind = "capability"          // Capability
	KindFlow               Kind = "flow"                // Flow
	KindAccountUpdate      Kind = "account_update"      // Account
	KindAccountEvent       Kind = "account_event"       // Account: any other field of an account, and every field of another object than ours

	KindUnknown Kind = "unknown" // a well-formed value in which nothing known stands; Raw is the value
	KindInvalid Kind = "invalid" // what stands here has not the shape it must have; Err says how, Raw is it
)

// Batch is one webhook body, split.
type Batch struct {
	Object string   // "whatsapp_business_account", or the body is not ours
	Entry  []string // the ids of its entries, in order; usually WABA ids
	Items  []Item   // in the order of the body
}

// Item is one update of a body.
type Item struct {
	Kind  Kind
	At    string // where in the body: "entry[0].changes[0]"
	Field string // Meta's name of the change's field
	Index int    // which of its kind within At

	EntryID   string    // entry.id as it stands
	EntryTime time.Time // entry.time; zero where absent (message-like fields have none)

	// WABAID is the account that the item concerns: entry.id, but for partner
	// events, whose entry.id is the partner's business and whose account is
	// value.waba_info.waba_id.
	WABAID        string
	PhoneNumberID string // value.metadata; "" for fields that concern the account
	DisplayPhone  string

	// Event is what happened where the item names it: APPROVED,
	// ACCOUNT_RESTRICTION, connect, stop; "" otherwise.
	Event string

	Raw json.RawMessage // the item as received
	Err error           // set for KindInvalid, and only there

	// Contact is the entry of value.contacts with the item's user id or WhatsApp
	// id; nil if there is none. It is never taken by its position.
	Contact *Contact

	Message     *Message
	Status      *Status
	Preference  *Preference
	Identity    *IdentityChange
	UserAction  *UserAction
	Call        *Call
	Group       *GroupEvent
	History     *HistoryChunk
	ContactSync *ContactSync
	Error       *ProviderError
	Template    *TemplateEvent
	Number      *NumberEvent
	Capability  *Capability
	Flow        *FlowEvent
	Account     *AccountEvent
}

// Contact is what a body tells of a person. With a username a person may hide
// their phone: WAID is "" then, and UserID is the only identity.
type Contact struct {
	WAID            string // phone digits; may be absent
	UserID          string // business-scoped user id; absent before April 2026
	ParentUserID    string
	Name            string // as the person wrote it; may be absent
	Username        string // may change; not an identity
	IdentityKeyHash string
}

// ours is the object of a body that WhatsApp sent.
const ours = "whatsapp_business_account"

// maxItems bounds what one body may split into. Meta promises at most 1,000
// updates; the bound keeps a body of 4 MiB of "{}" from becoming a gigabyte.
const maxItems = 20_000

// The errors of ParseWebhook.
var (
	ErrNotJSON      = errors.New("whatsapp: the body is not JSON")
	ErrTooManyItems = fmt.Errorf("whatsapp: the body holds more than %d items", maxItems)
)

// ParseWebhook splits a body, whose signature was verified, into its items.
//
// It returns an error for two bodies only, and then no items: one that is not
// JSON as a whole (ErrNotJSON: cut short, or nested more than 10,000 deep) and
// one that holds absurdly many items (ErrTooManyItems). Nothing can be routed
// from those; keep them whole.
//
// A body that is JSON but odd is not an error. Whatever has not the shape it
// must have, be it the body, an entry, a change or a single message, becomes an
// item of KindInvalid with its own bytes and reason; a field, type or status that
// is not known keeps its bytes under a kind of its own; unknown keys are
// ignored. The items beside it are what they would be without it.
func ParseWebhook(raw []byte) (Batch, error) {
	if !json.Valid(raw) {
		return Batch{}, ErrNotJSON
	}
	var body struct {
		Object text            `json:"object"`
		Entry  json.RawMessage `json:"entry"`
	}
	p := &parser{}
	if !object(raw, &body) {
		p.invalid(Item{Raw: raw}, "the body is not an object")
		return p.batch, nil
	}
	p.batch.Object = string(body.Object)
	entries, ok := list(body.Entry)
	if !ok && !absent(body.Entry) {
		p.invalid(Item{At: "entry", Raw: body.Entry}, "entry is not an array")
	}
	for i, e := range entries {
		p.entry(fmt.Sprintf("entry[%d]", i), e)
		if p.n > maxItems {
			return Batch{}, ErrTooManyItems
		}
	}
	return p.batch, nil
}

// Ordered gives the items with messages and all else before statuses, each in
// the order of the body: a status finds what it speaks of if it came in the same body.
func (b Batch) Ordered() []Item {
	out := slices.Clone(b.Items)
	slices.SortStableFunc(out, func(a, b Item) int {
		return rankOf(a) - rankOf(b)
	})
	return out
}

func rankOf(it Item) int {
	if it.Kind == KindStatus {
		return 1
	}
	return 0
}

type parser struct {
	batch Batch
	n     int // items, and messages of history chunks
}

func (p *parser) add(it Item) {
	if p.n++; p.n <= maxItems {
		p.batch.Items = append(p.batch.Items, it)
	}
}

func (p *parser) invalid(it Item, why string) {
	it.Kind, it.Err = KindInvalid, errors.New("whatsapp: "+why)
	p.add(it)
}

func (p *parser) entry(at string, raw json.RawMessage) {
	var e struct {
		ID      text            `json:"id"`
		Time    unix            `json:"time"`
		Changes json.RawMessage `json:"changes"`
	}
	if !object(raw, &e) {
		p.invalid(Item{At: at, Raw: raw}, "an entry is not an object")
		return
	}
	p.batch.Entry = append(p.batch.Entry, string(e.ID))
	base := Item{At: at, EntryID: string(e.ID), WABAID: string(e.ID), EntryTime: e.Time.Time}
	changes, ok := list(e.Changes)
	if !ok && !absent(e.Changes) {
		base.Raw = raw
		p.invalid(base, "changes is not an array")
	}
	for i, c := range changes {
		if p.n > maxItems {
			return
		}
		base.At = fmt.Sprintf("%s.changes[%d]", at, i)
		p.change(base, c)
	}
}

// value is the union of what the message-like fields carry.
type value struct {
	Metadata struct {
		DisplayPhone  text `json:"display_phone_number"`
		PhoneNumberID text `json:"phone_number_id"`
	} `json:"metadata"`
	WABAInfo struct {
		WABAID text `json:"waba_id"`
	} `json:"waba_info"`
	Contacts    json.RawMessage `json:"contacts"`
	Messages    json.RawMessage `json:"messages"`
	Statuses    json.RawMessage `json:"statuses"`
	Errors      json.RawMessage `json:"errors"`
	UserActions json.RawMessage `json:"user_actions"`
	Echoes      json.RawMessage `json:"message_echoes"`
	History     json.RawMessage `json:"history"`
	StateSync   json.RawMessage `json:"state_sync"`
	Preferences json.RawMessage `json:"user_preferences"`
	IDUpdates   json.RawMessage `json:"user_id_update"`
	Calls       json.RawMessage `json:"calls"`
	Groups      json.RawMessage `json:"groups"`
}

func (p *parser) change(base Item, raw json.RawMessage) {
	var c struct {
		Field text            `json:"field"`
		Value json.RawMessage `json:"value"`
	}
	if !object(raw, &c) {
		base.Raw = raw
		p.invalid(base, "a change is not an object")
		return
	}
	base.Field, base.Raw = string(c.Field), c.Value
	if p.batch.Object != ours {
		base.Kind, base.Account = KindAccountEvent, &AccountEvent{}
		p.add(base)
		return
	}
	var v value
	if !object(c.Value, &v) {
		base.Raw = raw
		p.invalid(base, "a change's value is not an object")
		return
	}
	base.PhoneNumberID, base.DisplayPhone = string(v.Metadata.PhoneNumberID), string(v.Metadata.DisplayPhone)
	if id := string(v.WABAInfo.WABAID); id != "" {
		base.WABAID = id
	}
	parts, ok := parts[base.Field]
	if !ok {
		p.accountEvent(base)
		return
	}
	people := contacts(v.Contacts)
	before := p.n
	for _, part := range parts {
		p.each(base, part, part.of(&v), people)
	}
	if p.n == before {
		base.Kind = KindUnknown
		p.add(base)
	}
}

// part is one array of a value: where it stands and how one of its elements is read.
type part struct {
	name string
	of   func(*value) json.RawMessage
	read func(p *parser, it *Item, people []Contact) error
}

var (
	statuses = part{"statuses", func(v *value) json.RawMessage { return v.Statuses }, readStatus}
	failures = part{"errors", func(v *value) json.RawMessage { return v.Errors }, readError}
	groups   = part{"groups", func(v *value) json.RawMessage { return v.Groups }, readGroup}
)

// parts lists what each message-like field may carry. A field that is not here
// concerns an account.
var parts = map[string][]part{
	"messages": {
		{"messages", func(v *value) json.RawMessage { return v.Messages }, readMessage(KindMessage)},
		statuses,
		{"user_actions", func(v *value) json.RawMessage { return v.UserActions }, readUserAction},
		failures,
	},
	"smb_message_echoes": {
		{"message_echoes", func(v *value) json.RawMessage { return v.Echoes }, readMessage(KindEcho)},
		failures,
	},
	"history": {
		{"history", func(v *value) json.RawMessage { return v.History }, readHistory},
		{"messages", func(v *value) json.RawMessage { return v.Messages }, readMessage(KindHistoryMedia)},
		failures,
	},
	"smb_app_state_sync": {
		{"state_sync", func(v *value) json.RawMessage { return v.StateSync }, readContactSync},
		failures,
	},
	"user_preferences": {
		{"user_preferences", func(v *value) json.RawMessage { return v.Preferences }, readPreference},
		failures,
	},
	"user_id_update": {
		{"user_id_update", func(v *value) json.RawMessage { return v.IDUpdates }, readIdentity},
		failures,
	},
	"calls": {
		{"calls", func(v *value) json.RawMessage { return v.Calls }, readCall},
		statuses,
		failures,
	},
	"group_lifecycle_update":    {groups, failures},
	"group_settings_update":     {groups, failures},
	"group_participants_update": {groups, failures},
	"group_status_update":       {groups, failures},
}

func (p *parser) each(base Item, part part, raw json.RawMessage, people []Contact) {
	if absent(raw) {
		return
	}
	elements, ok := list(raw)
	if !ok {
		base.Raw = raw
		p.invalid(base, part.name+" is not an array")
		return
	}
	for i, e := range elements {
		if p.n > maxItems {
			return
		}
		it := base
		it.Index, it.Raw = i, e
		if err := part.read(p, &it, people); err != nil {
			p.invalid(Item{At: it.At, Field: it.Field, Index: i, EntryID: it.EntryID, EntryTime: it.EntryTime, WABAID: it.WABAID,
				PhoneNumberID: it.PhoneNumberID, DisplayPhone: it.DisplayPhone, Raw: e}, err.Error())
			continue
		}
		p.add(it)
	}
}

func contacts(raw json.RawMessage) []Contact {
	elements, _ := list(raw)
	var out []Contact
	for _, e := range elements {
		var c struct {
			WAID            text `json:"wa_id"`
			UserID          text `json:"user_id"`
			ParentUserID    text `json:"parent_user_id"`
			IdentityKeyHash text `json:"identity_key_hash"`
			Profile         struct {
				Name     text `json:"name"`
				Username text `json:"username"`
			} `json:"profile"`
		}
		if object(e, &c) {
			out = append(out, Contact{string(c.WAID), string(c.UserID), string(c.ParentUserID),
				string(c.Profile.Name), string(c.Profile.Username), string(c.IdentityKeyHash)})
		}
	}
	return out
}

// match finds a person by user id, else by WhatsApp id.
func match(people []Contact, userID, waID string) *Contact {
	for i := range people {
		if userID != "" && people[i].UserID == userID {
			return &people[i]
		}
	}
	for i := range people {
		c := &people[i]
		if waID != "" && c.WAID == waID && (userID == "" || c.UserID == "") {
			return c
		}
	}
	return nil
}
