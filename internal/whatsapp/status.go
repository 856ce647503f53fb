package whatsapp

import (
	"encoding/json"
	"errors"
	"time"
)

// Status is news of a message that we sent.
type Status struct {
	ID        string // wamid
	Status    string // "sent", "delivered", "read", "played", "failed"; see NextStatus
	Timestamp time.Time

	RecipientID           string // phone digits, or the group's id; "" if the user hides their phone
	RecipientUserID       string
	RecipientParentID     string
	RecipientType         string // "group", or ""
	ParticipantID         string // of a group: who
	ParticipantUserID     string
	BizOpaque             string // biz_opaque_callback_data as we sent it
	Type                  string // "" or "message" for messages; "payment", "call"
	Errors                []ProviderError
	ConversationID        string
	ConversationOrigin    string
	ConversationExpiresAt time.Time
	Pricing               *Pricing
}

// Pricing is what the message costs, where the status tells.
type Pricing struct {
	Billable bool
	Model    string // "PMP"
	Type     string // "regular", "free_customer_service", "free_entry_point", …
	Category string // "marketing", "utility", …
}

// OfMessage tells a message's status from that of a payment or a call, which use
// the same shape and other states.
func (s *Status) OfMessage() bool { return s.Type == "" || s.Type == "message" }

// The states of a message at Meta, in their order. StatusFailed is final only if
// nothing above sent was seen: with several devices a message may fail on one and
// arrive on another.
const (
	StatusAccepted  = "accepted"
	StatusSent      = "sent"
	StatusFailed    = "failed"
	StatusDelivered = "delivered"
	StatusRead      = "read"
	StatusPlayed    = "played"
)

var statusRank = map[string]int{
	StatusAccepted: 1, StatusSent: 2, StatusFailed: 3, StatusDelivered: 4, StatusRead: 5, StatusPlayed: 6,
}

// NextStatus gives the state of a message in state current when a status
// arrives, in any order and any number of times: the higher of the two, and
// whether that is a change. Higher states imply the lower ones. A current state
// that is not Meta's ("", or one of the sender's own) is below them all; an
// incoming one that is not changes nothing.
func NextStatus(current, incoming string) (next string, changed bool) {
	if statusRank[incoming] > statusRank[current] {
		return incoming, true
	}
	return current, false
}

func readStatus(_ *parser, it *Item, people []Contact) error {
	var w struct {
		ID                text            `json:"id"`
		Status            text            `json:"status"`
		Timestamp         unix            `json:"timestamp"`
		RecipientID       text            `json:"recipient_id"`
		RecipientUserID   text            `json:"recipient_user_id"`
		RecipientParentID text            `json:"recipient_parent_user_id"`
		RecipientType     text            `json:"recipient_type"`
		ParticipantID     text            `json:"recipient_participant_id"`
		ParticipantUserID text            `json:"recipient_participant_user_id"`
		BizOpaque         text            `json:"biz_opaque_callback_data"`
		Type              text            `json:"type"`
		Errors            json.RawMessage `json:"errors"`
		Conversation      struct {
			ID      text `json:"id"`
			Expires unix `json:"expiration_timestamp"`
			Origin  struct {
				Type text `json:"type"`
			} `json:"origin"`
		} `json:"conversation"`
		Pricing json.RawMessage `json:"pricing"`
	}
	if !object(it.Raw, &w) {
		return errors.New("a status is not an object")
	}
	if w.ID == "" {
		return errNoID
	}
	s := &Status{
		ID: string(w.ID), Status: string(w.Status), Timestamp: w.Timestamp.Time,
		RecipientID: string(w.RecipientID), RecipientUserID: string(w.RecipientUserID), RecipientParentID: string(w.RecipientParentID),
		RecipientType: string(w.RecipientType), ParticipantID: string(w.ParticipantID), ParticipantUserID: string(w.ParticipantUserID),
		BizOpaque: string(w.BizOpaque), Type: string(w.Type), Errors: errorsOf(w.Errors),
		ConversationID: string(w.Conversation.ID), ConversationOrigin: string(w.Conversation.Origin.Type), ConversationExpiresAt: w.Conversation.Expires.Time,
	}
	if s.Type == "" && it.Field == "calls" {
		s.Type = "call"
	}
	var p struct {
		Billable boolean `json:"billable"`
		Model    text    `json:"pricing_model"`
		Type     text    `json:"type"`
		Category text    `json:"category"`
	}
	if object(w.Pricing, &p) {
		s.Pricing = &Pricing{bool(p.Billable), string(p.Model), string(p.Type), string(p.Category)}
	}
	it.Kind, it.Status = KindStatus, s
	if s.RecipientType == "group" {
		it.Contact = match(people, s.ParticipantUserID, s.ParticipantID)
	} else {
		it.Contact = match(people, s.RecipientUserID, s.RecipientID)
	}
	return nil
}
