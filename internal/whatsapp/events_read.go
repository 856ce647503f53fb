package whatsapp

import (
	"encoding/json"
	"errors"
	"time"
)

// accountEvent types a change of an account's field; whatever its shape, it is
// one item with the whole value as Raw.
func (p *parser) accountEvent(it Item) {
	switch it.Field {
	case "message_template_status_update", "message_template_quality_update", "template_category_update", "message_template_components_update":
		it.Kind, it.Template = templateEvent(it.Field, it.Raw)
		it.Event = it.Template.Event
	case "phone_number_quality_update", "phone_number_name_update":
		it.Kind = KindPhoneQuality
		if it.Field == "phone_number_name_update" {
			it.Kind = KindPhoneName
		}
		var w struct {
			Display  text `json:"display_phone_number"`
			Event    text `json:"event"`
			Limit    text `json:"max_daily_conversations_per_business"`
			Current  text `json:"current_limit"`
			Decision text `json:"decision"`
			Name     text `json:"requested_verified_name"`
			Reason   text `json:"rejection_reason"`
		}
		object(it.Raw, &w)
		it.DisplayPhone = first(string(w.Display), it.DisplayPhone)
		it.Number = &NumberEvent{string(w.Event), first(string(w.Limit), string(w.Current)), string(w.Decision), string(w.Name), reason(w.Reason)}
		it.Event = first(it.Number.Event, it.Number.Decision)
	case "business_capability_update":
		var w struct {
			PerBusiness     text `json:"max_daily_conversations_per_business"`
			PerPhone        text `json:"max_daily_conversation_per_phone"`
			PhonesPerWABA   text `json:"max_phone_numbers_per_waba"`
			PhonesPerBusine text `json:"max_phone_numbers_per_business"`
		}
		object(it.Raw, &w)
		it.Kind = KindCapability
		it.Capability = &Capability{string(w.PerBusiness), string(w.PerPhone), string(w.PhonesPerWABA), string(w.PhonesPerBusine)}
	case "flows":
		var w struct {
			ID      text `json:"flow_id"`
			Event   text `json:"event"`
			Message text `json:"message"`
			Old     text `json:"old_status"`
			New     text `json:"new_status"`
		}
		object(it.Raw, &w)
		it.Kind, it.Flow = KindFlow, &FlowEvent{string(w.ID), string(w.Event), string(w.Message), string(w.Old), string(w.New)}
		it.Event = it.Flow.Event
	default:
		it.Kind = KindAccountEvent
		if it.Field == "account_update" {
			it.Kind = KindAccountUpdate
		}
		var display text
		it.Account, display = accountEvent(it.Raw)
		it.DisplayPhone = first(it.DisplayPhone, string(display))
		it.Event = first(it.Account.Event, it.Account.Decision)
	}
	p.add(it)
}

func templateEvent(field string, raw json.RawMessage) (Kind, *TemplateEvent) {
	var w struct {
		ID       text `json:"message_template_id"`
		Name     text `json:"message_template_name"`
		Language text `json:"message_template_language"`
		Category text `json:"message_template_category"`
		Event    text `json:"event"`
		Reason   text `json:"reason"`
		PrevQ    text `json:"previous_quality_score"`
		NewQ     text `json:"new_quality_score"`
		PrevC    text `json:"previous_category"`
		NewC     text `json:"new_category"`
		CorrectC text `json:"correct_category"`
		CatAt    unix `json:"category_update_timestamp"`
		Disable  struct {
			Date text `json:"disable_date"`
		} `json:"disable_info"`
		Other struct {
			Title       text `json:"title"`
			Description text `json:"description"`
		} `json:"other_info"`
		Rejection struct {
			Reason         text `json:"reason"`
			Recommendation text `json:"recommendation"`
		} `json:"rejection_info"`
	}
	object(raw, &w)
	t := &TemplateEvent{
		ID: string(w.ID), Name: string(w.Name), Language: Language(string(w.Language)),
		Event: string(w.Event), Reason: reason(w.Reason),
		PreviousQuality: string(w.PrevQ), Quality: string(w.NewQ),
		Category: first(string(w.NewC), string(w.Category)), PreviousCategory: string(w.PrevC), NextCategory: string(w.CorrectC), NextCategoryAt: w.CatAt.Time,
		DisableDate: string(w.Disable.Date),
		Info:        string(w.Other.Title), InfoText: first(string(w.Other.Description), string(w.Rejection.Reason)), Recommendation: string(w.Rejection.Recommendation),
	}
	switch {
	case field == "message_template_components_update":
		return KindTemplateComponents, t
	case field == "template_category_update":
		return KindTemplateCategory, t
	case field == "message_template_quality_update", w.Event == "" && w.NewQ != "": // Meta's example of quality has the field of status
		return KindTemplateQuality, t
	}
	return KindTemplateStatus, t
}

func accountEvent(raw json.RawMessage) (*AccountEvent, text) {
	var w struct {
		Event    text `json:"event"`
		Decision text `json:"decision"`
		Display  text `json:"display_phone_number"`
		Ban      struct {
			State text `json:"waba_ban_state"`
			Date  text `json:"waba_ban_date"`
		} `json:"ban_info"`
		Violation struct {
			Type text `json:"violation_type"`
		} `json:"violation_info"`
		Restrictions json.RawMessage `json:"restriction_info"`
		Alert        struct {
			Type        text `json:"alert_type"`
			Severity    text `json:"alert_severity"`
			Description text `json:"alert_description"`
		} `json:"alert_info"`
		FlatType        text `json:"alert_type"` // some editions have the alert's keys on the value
		FlatSeverity    text `json:"alert_severity"`
		FlatDescription text `json:"alert_description"`
	}
	object(raw, &w)
	a := &AccountEvent{
		Event: string(w.Event), Decision: string(w.Decision), BanState: string(w.Ban.State), BanDate: string(w.Ban.Date), Violation: string(w.Violation.Type),
		AlertType:   first(string(w.Alert.Type), string(w.FlatType)),
		Severity:    first(string(w.Alert.Severity), string(w.FlatSeverity)),
		Description: first(string(w.Alert.Description), string(w.FlatDescription)),
	}
	restrictions, _ := list(w.Restrictions)
	for _, r := range restrictions {
		var x struct {
			Type    text `json:"restriction_type"`
			Expires unix `json:"expiration"`
		}
		if object(r, &x) {
			a.Restrictions = append(a.Restrictions, Restriction{string(x.Type), x.Expires.Time})
		}
	}
	return a, w.Display
}

func readError(_ *parser, it *Item, _ []Contact) error {
	e, ok := errorOf(it.Raw)
	if !ok {
		return errors.New("an error is not an object")
	}
	it.Kind, it.Error = KindValueError, &e
	return nil
}

func readPreference(_ *parser, it *Item, people []Contact) error {
	var w struct {
		WAID         text `json:"wa_id"`
		UserID       text `json:"user_id"`
		ParentUserID text `json:"parent_user_id"`
		Category     text `json:"category"`
		Value        text `json:"value"`
		Detail       text `json:"detail"`
		At           unix `json:"timestamp"`
	}
	if !object(it.Raw, &w) {
		return errors.New("a preference is not an object")
	}
	if w.WAID == "" && w.UserID == "" {
		return errors.New("a preference of nobody")
	}
	it.Kind, it.Event = KindPreference, string(w.Value)
	it.Preference = &Preference{string(w.WAID), string(w.UserID), string(w.ParentUserID), string(w.Category), string(w.Value), string(w.Detail), w.At.Time}
	it.Contact = match(people, it.Preference.UserID, it.Preference.WAID)
	return nil
}

func readIdentity(_ *parser, it *Item, people []Contact) error {
	type pair struct {
		Previous text `json:"previous"`
		Current  text `json:"current"`
	}
	var w struct {
		WAID   text `json:"wa_id"`
		User   pair `json:"user_id"`
		Parent pair `json:"parent_user_id"`
		At     unix `json:"timestamp"`
	}
	if !object(it.Raw, &w) {
		return errors.New("an id update is not an object")
	}
	if w.User.Previous == "" || w.User.Current == "" {
		return errors.New("an id update without both ids")
	}
	it.Kind = KindIdentity
	it.Identity = &IdentityChange{string(w.WAID), string(w.User.Previous), string(w.User.Current), string(w.Parent.Previous), string(w.Parent.Current), w.At.Time}
	it.Contact = match(people, it.Identity.UserID, it.Identity.WAID)
	return nil
}

func readUserAction(_ *parser, it *Item, _ []Contact) error {
	var w struct {
		Type text `json:"action_type"`
		At   unix `json:"timestamp"`
	}
	if !object(it.Raw, &w) {
		return errors.New("a user action is not an object")
	}
	it.Kind, it.Event, it.UserAction = KindUserAction, string(w.Type), &UserAction{string(w.Type), w.At.Time}
	return nil
}

func readCall(_ *parser, it *Item, people []Contact) error {
	var w struct {
		ID         text    `json:"id"`
		From       text    `json:"from"`
		FromUserID text    `json:"from_user_id"`
		To         text    `json:"to"`
		ToUserID   text    `json:"to_user_id"`
		Event      text    `json:"event"`
		Direction  text    `json:"direction"`
		Status     text    `json:"status"`
		At         unix    `json:"timestamp"`
		Duration   integer `json:"duration"`
	}
	if !object(it.Raw, &w) {
		return errors.New("a call is not an object")
	}
	if w.ID == "" {
		return errNoID
	}
	it.Kind, it.Event = KindCall, string(w.Event)
	it.Call = &Call{string(w.ID), string(w.From), string(w.To), string(w.FromUserID), string(w.ToUserID),
		string(w.Event), string(w.Direction), string(w.Status), w.At.Time, time.Duration(min(max(w.Duration, 0), 1e9)) * time.Second}
	if it.Contact = match(people, it.Call.FromUserID, it.Call.From); it.Contact == nil {
		it.Contact = match(people, it.Call.ToUserID, it.Call.To)
	}
	return nil
}

func readGroup(_ *parser, it *Item, _ []Contact) error {
	var w struct {
		ID        text `json:"group_id"`
		Type      text `json:"type"`
		RequestID text `json:"request_id"`
		At        unix `json:"timestamp"`
	}
	if !object(it.Raw, &w) {
		return errors.New("a group event is not an object")
	}
	it.Kind, it.Event, it.Group = KindGroup, string(w.Type), &GroupEvent{string(w.ID), string(w.Type), string(w.RequestID), w.At.Time}
	return nil
}

func readContactSync(_ *parser, it *Item, _ []Contact) error {
	var w struct {
		Type    text `json:"type"`
		Action  text `json:"action"`
		Contact struct {
			FullName  text `json:"full_name"`
			FirstName text `json:"first_name"`
			Phone     text `json:"phone_number"`
		} `json:"contact"`
		Metadata struct {
			At unix `json:"timestamp"`
		} `json:"metadata"`
	}
	if !object(it.Raw, &w) {
		return errors.New("a contact sync is not an object")
	}
	it.Kind, it.Event = KindContactSync, string(w.Type)
	it.ContactSync = &ContactSync{string(w.Type), string(w.Action), string(w.Contact.FullName), string(w.Contact.FirstName), string(w.Contact.Phone), w.Metadata.At.Time}
	return nil
}

func readHistory(p *parser, it *Item, _ []Contact) error {
	var w struct {
		Metadata struct {
			Phase    integer `json:"phase"`
			Order    integer `json:"chunk_order"`
			Progress integer `json:"progress"`
		} `json:"metadata"`
		Threads json.RawMessage `json:"threads"`
		Errors  json.RawMessage `json:"errors"`
	}
	if !object(it.Raw, &w) {
		return errors.New("a history chunk is not an object")
	}
	h := &HistoryChunk{Phase: int(w.Metadata.Phase), Order: int(w.Metadata.Order), Progress: int(w.Metadata.Progress), Errors: errorsOf(w.Errors)}
	it.Kind, it.History = KindHistoryChunk, h
	threads, ok := list(w.Threads)
	if !ok && !absent(w.Threads) {
		return errors.New("threads is not an array")
	}
	for _, raw := range threads {
		if p.n++; p.n > maxItems {
			return nil
		}
		var t struct {
			ID       text            `json:"id"`
			Messages json.RawMessage `json:"messages"`
		}
		thread, shaped := HistoryThread{}, object(raw, &t)
		messages, ok := list(t.Messages)
		if thread.ID = string(t.ID); !shaped || !ok && !absent(t.Messages) {
			thread.Messages = []HistoryMessage{{Raw: raw, Err: errors.New("whatsapp: a thread has another shape")}}
		}
		for _, m := range messages {
			if p.n++; p.n > maxItems {
				return nil
			}
			msg, err := parseMessage(m)
			thread.Messages = append(thread.Messages, HistoryMessage{Message: msg, Raw: m, Err: err})
		}
		h.Threads = append(h.Threads, thread)
	}
	return nil
}

// reason is a reason given: Meta writes none as null, absence or "NONE".
func reason(t text) string {
	if t == "NONE" {
		return ""
	}
	return string(t)
}

// first gives the first of them that is not "".
func first(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}
