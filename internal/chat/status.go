package chat

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// userOptedOut is Meta's code for a customer who stopped marketing messages.
const userOptedOut = 131050

// status takes in news of a message we sent. One that comes before the message is known under its wamid (the answer to
// our call is still on its way) is kept until it is.
func (d *Desk) status(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) ([]store.NewJob, error) {
	st := it.Status
	defer d.turns.lock(tn.Code, it.PhoneNumberID, st.ID)()
	m, err := d.messageOf(ctx, tn, it.PhoneNumberID, st)
	if errors.Is(err, store.ErrNotFound) {
		return nil, d.keepEarly(ctx, tn, dl, it)
	}
	if err != nil {
		return nil, err
	}
	named, doubted := m.WAMID != "", m.Send != nil && m.Send.State == unconfirmed
	if !m.apply(st) {
		return d.failed(tn, m), nil // known before: only what follows may be missing
	}
	var waiting []store.Write
	if !named {
		if waiting, err = d.takeWaiting(ctx, tn, m); err != nil {
			return nil, err
		}
	}
	writes, err := d.refused(ctx, tn, dl, it, m.ContactID)
	if err != nil {
		return nil, err
	}
	if !named && m.Send != nil && m.Send.State == accepted && m.Status != FailedSend {
		on, err := d.reacted(ctx, tn, m, at(st.Timestamp, dl.ReceivedAt))
		if err != nil {
			return nil, err
		}
		writes = append(writes, on...)
	}
	told, err := d.tracked(ctx, tn, m)
	if err != nil {
		return nil, err
	}
	writes = append(writes, told...)
	writes = append(writes, news.Write(at(st.Timestamp, dl.ReceivedAt), news.MessageStatus, m.ID+"|"+st.Status, "message", m.View()), Messages.Update(m))
	if err := tn.DB.Commit(ctx, append(writes, waiting...)...); err != nil {
		return nil, err
	}
	if doubted {
		d.doubt(accepted)
	}
	return d.failed(tn, m), nil
}

// refused gives the writes that opt a customer out whose messages Meta refuses because they asked for none. contactID
// is whom we wrote to; "" where we do not know the message: then the status names them.
func (d *Desk) refused(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item, contactID string) ([]store.Write, error) {
	st := it.Status
	if !slices.ContainsFunc(st.Errors, func(e whatsapp.ProviderError) bool { return e.Code == userOptedOut }) {
		return nil, nil
	}
	var c *crm.Contact
	var writes []store.Write
	var err error
	if contactID != "" {
		if c, err = d.Book.Person(ctx, tn, contactID); errors.Is(err, store.ErrNotFound) {
			return nil, nil
		}
	} else {
		person := who(st.RecipientID, st.RecipientUserID, it.Contact)
		if st.RecipientType == "group" || (person.Phone == "" && person.UserID == "") {
			return nil, nil
		}
		c, writes, _, err = d.Book.Contact(ctx, tn, person, st.ID)
	}
	if err != nil || !c.OptOut("provider", at(st.Timestamp, dl.ReceivedAt)) {
		return nil, err
	}
	return append(writes, crm.Contacts.Update(c)), nil
}

// messageOf finds the message a status speaks of: by our own id, which Meta echoes, or by Meta's.
func (d *Desk) messageOf(ctx context.Context, tn *tenant.Tenant, phoneNumberID string, st *whatsapp.Status) (*Message, error) {
	if strings.HasPrefix(st.BizOpaque, "msg_") {
		m, err := Messages.Get(ctx, tn.DB, st.BizOpaque)
		if err == nil && m.Direction == Out && m.PhoneNumberID == phoneNumberID && (m.WAMID == "" || m.WAMID == st.ID) {
			return m, nil
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	return Messages.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("wamid", store.Eq, wamidKey(phoneNumberID, st.ID))}})
}

// apply brings a message up to a status, in whatever order they come; false if it says nothing new.
func (m *Message) apply(st *whatsapp.Status) bool {
	if m.Direction != Out {
		return false
	}
	changed := false
	if m.Send != nil {
		if m.Send.State != accepted && m.Send.State != rejected {
			m.Send.State, changed = accepted, true // the proof that our call was heard
		}
		if m.WAMID == "" {
			m.WAMID, changed = st.ID, true
		}
		if !m.Send.Proven {
			m.Send.Proven, changed = true, true
		}
	}
	note := func(status string) {
		if _, ok := m.StatusAt[status]; !ok && !st.Timestamp.IsZero() {
			if m.StatusAt == nil {
				m.StatusAt = map[string]time.Time{}
			}
			m.StatusAt[status], changed = st.Timestamp.UTC(), true
		}
	}
	if next, higher := whatsapp.NextStatus(m.Status, st.Status); higher {
		m.Status, changed = next, true
		if next == whatsapp.StatusFailed && len(st.Errors) > 0 {
			m.Error = errorOf(st.Errors[0])
		} else if next != whatsapp.StatusFailed {
			m.Error = nil
		}
	}
	switch st.Status {
	case whatsapp.StatusRead, whatsapp.StatusPlayed:
		note(whatsapp.StatusDelivered) // Meta leaves out what a later state implies
		note(st.Status)
	case whatsapp.StatusSent, whatsapp.StatusDelivered, whatsapp.StatusFailed:
		note(st.Status)
	}
	return changed
}

// maxEarly bounds what is kept for one unknown message; there are five states.
const maxEarly = 10

func (d *Desk) keepEarly(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	key := earlyID(tn.Code, it.PhoneNumberID, it.Status.ID)
	e, err := EarlyStatuses.Get(ctx, tn.DB, key)
	if errors.Is(err, store.ErrNotFound) {
		e, err = &Early{ID: key, At: dl.ReceivedAt.UTC()}, nil
	}
	if err != nil {
		return err
	}
	for _, have := range e.Items {
		if have.Status == it.Status.Status {
			return nil
		}
	}
	if len(e.Items) >= maxEarly {
		return nil
	}
	e.Items = append(e.Items, *it.Status)
	writes, err := d.refused(ctx, tn, dl, it, "")
	if err != nil {
		return err
	}
	return tn.DB.Commit(ctx, append(writes, EarlyStatuses.Update(e))...)
}

// takeEarly applies what came before m was known by its wamid; nil if nothing did.
func (d *Desk) takeEarly(ctx context.Context, tn *tenant.Tenant, m *Message) (*Early, error) {
	e, err := EarlyStatuses.Get(ctx, tn.DB, earlyID(tn.Code, m.PhoneNumberID, m.WAMID))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range e.Items {
		m.apply(&e.Items[i])
	}
	return e, nil
}

func itoa(n int) string { return strconv.Itoa(n) }
