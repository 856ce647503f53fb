package chat

import (
	"encoding/json"

	"github.com/ecodrix/ecod/internal/news"
)

// MessageView is a message as the API shows it.
type MessageView struct {
	ID             string             `json:"id"`
	WAMID          *string            `json:"wamid"`
	ConversationID string             `json:"conversationId"`
	ContactID      string             `json:"contactId"`
	PhoneNumberID  string             `json:"phoneNumberId"`
	Direction      string             `json:"direction" enum:"in,out"`
	Type           string             `json:"type"`
	Text           *string            `json:"text"`
	Media          *MediaView         `json:"media"`
	Content        json.RawMessage    `json:"content,omitempty"`
	ReplyTo        *string            `json:"replyTo"`
	Reactions      map[string]string  `json:"reactions,omitempty"`
	EditedAt       *string            `json:"editedAt,omitempty"`
	RevokedAt      *string            `json:"revokedAt,omitempty"`
	Status         string             `json:"status"`
	Error          *Error             `json:"error"`
	StatusAt       map[string]*string `json:"statusAt"`
	RunID          string             `json:"runId,omitempty"`
	CreatedAt      *string            `json:"createdAt"`
}

// MediaView is a file as the API shows it.
type MediaView struct {
	ID       *string `json:"id"`
	MIME     string  `json:"mime"`
	SHA256   string  `json:"sha256"`
	Size     int64   `json:"size"`
	Filename *string `json:"filename"`
	Status   string  `json:"status"`
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// View is the message as the API shows it.
func (m *Message) View() MessageView {
	v := MessageView{
		ID: m.ID, WAMID: optional(m.WAMID), ConversationID: m.ConversationID, ContactID: m.ContactID, PhoneNumberID: m.PhoneNumberID,
		Direction: m.Direction, Type: m.Type, Text: m.Text, Content: m.Content, ReplyTo: optional(m.ReplyTo), Reactions: m.Reactions,
		Status: m.Status, Error: m.Error, StatusAt: map[string]*string{}, RunID: m.Origin.RunID, CreatedAt: news.Stamp(m.CreatedAt),
	}
	if m.Media != nil {
		v.Media = &MediaView{ID: optional(m.Media.ID), MIME: m.Media.MIME, SHA256: m.Media.SHA256, Size: m.Media.Size,
			Filename: optional(m.Media.Filename), Status: m.Media.Status}
	}
	for k, t := range m.StatusAt {
		v.StatusAt[k] = news.Stamp(t)
	}
	if m.EditedAt != nil {
		v.EditedAt = news.Stamp(*m.EditedAt)
	}
	if m.RevokedAt != nil {
		v.RevokedAt = news.Stamp(*m.RevokedAt)
	}
	return v
}

// ConversationView is a conversation as the API shows it.
type ConversationView struct {
	ID              string  `json:"id"`
	ContactID       string  `json:"contactId"`
	LeadID          *string `json:"leadId"`
	Phone           *string `json:"phone"`
	PhoneNumberID   string  `json:"phoneNumberId"`
	Name            string  `json:"name"`
	LastMessageAt   *string `json:"lastMessageAt"`
	WindowExpiresAt *string `json:"windowExpiresAt"`
	Unread          int64   `json:"unread"`
	AssigneeID      *string `json:"assigneeId"`
}

// View is the conversation as the API shows it.
func (cv *Conversation) View() ConversationView {
	v := ConversationView{
		ID: cv.ID, ContactID: cv.ContactID, LeadID: optional(cv.LeadID), Phone: optional(cv.Phone), PhoneNumberID: cv.PhoneNumberID,
		Name: cv.Name, LastMessageAt: news.Stamp(cv.LastMessageAt), Unread: cv.Unread, AssigneeID: optional(cv.AssigneeID),
	}
	if cv.WindowExpiresAt != nil {
		v.WindowExpiresAt = news.Stamp(*cv.WindowExpiresAt)
	}
	return v
}
