package whatsapp

import (
	"encoding/json"
	"errors"
	"strings"
)

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
