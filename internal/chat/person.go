package chat

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Words that opt out, and in again, when they are a whole message or the name of a tapped button. stopButton is how
// Meta names the button that it offers for marketing templates.
var (
	optOutWords = []string{"STOP", "UNSUBSCRIBE", "SAIR", "BAJA", "ARRET"}
	optInWords  = []string{"START"}
)

const stopButton = "STOP PROMOTIONS"

// who tells of the author of a message.
func who(waID, userID string, c *whatsapp.Contact) crm.Who {
	w := crm.Who{UserID: userID, WaID: waID}
	if c != nil {
		w.Name, w.Username = c.Name, c.Username
		if w.UserID == "" {
			w.UserID = c.UserID
		}
		if w.WaID == "" {
			w.WaID = c.WAID
		}
	}
	w.Phone = phoneOf(w.WaID)
	return w
}

// phoneOf reads Meta's digits as a phone number. Meta's word is taken even where no numbering plan knows the number.
func phoneOf(waID string) string {
	if waID == "" {
		return ""
	}
	if p, ok := crm.Phone("+"+waID, ""); ok {
		return p
	}
	return "+" + waID
}

// author gives the contact of a new message with the writes that make it what the message tells of it; nil where the
// message names nobody.
func (d *Desk) author(ctx context.Context, tn *tenant.Tenant, it whatsapp.Item, msgID string) (c *crm.Contact, writes []store.Write, err error) {
	m := it.Message
	person := who(m.From, m.FromUserID, it.Contact)
	if s := m.System; s != nil && (s.UserID != "" || s.WAID != "") { // the person's ids have changed
		now := crm.Who{WaID: s.WAID, Phone: phoneOf(s.WAID), UserID: s.UserID}
		c, writes, err = d.Book.Reidentify(ctx, tn, crm.Who{WaID: m.From, Phone: phoneOf(m.From), UserID: s.PreviousUserID}, now)
		if err != nil || c != nil {
			return c, writes, err
		}
		person = now
	}
	if person.Phone == "" {
		person.WaID, person.Phone = sharedPhone(m, person.UserID)
	}
	if person.Phone == "" && person.UserID == "" {
		return nil, nil, nil
	}
	c, writes, changed, err := d.Book.Contact(ctx, tn, person, msgID)
	if err != nil {
		return nil, nil, err
	}
	switch word, by := optWord(m, tn.Account().Settings); word {
	case "out":
		changed = c.OptOut(by, m.Timestamp) || changed
	case "in":
		changed = c.OptIn(m.Timestamp) || changed
	}
	if c.LeadID == "" && c.Phone != "" {
		switch l, err := d.Book.FindLead(ctx, tn, c.Phone, ""); {
		case err == nil:
			c.LeadID, changed = l.ID, true
		case !errors.Is(err, store.ErrNotFound):
			return nil, nil, err
		}
	}
	if changed {
		writes = append(writes, crm.Contacts.Update(c))
	}
	return c, writes, nil
}

// sharedPhone is the number that a person who hides it gave when asked for it: on a card of their own.
func sharedPhone(m *whatsapp.Message, userID string) (waID, phone string) {
	for _, card := range m.Cards {
		if card.Origin != "contact_request" {
			continue
		}
		for _, p := range card.Phones {
			if p.UserID != "" && p.UserID != userID {
				continue
			}
			if p.WAID != "" {
				return p.WAID, phoneOf(p.WAID)
			}
			if e164, ok := crm.Phone(p.Phone, ""); ok {
				return "", e164
			}
		}
	}
	return "", ""
}

// optWord tells whether a message is a word that opts "out" or "in", the product's words or a client's own, and how it was
// said; "" if neither.
func optWord(m *whatsapp.Message, own *tenant.Settings) (word, by string) {
	out, in := optOutWords, optInWords
	if own != nil && own.OptOutWords != nil {
		out = own.OptOutWords
	}
	if own != nil && own.OptInWords != nil {
		in = own.OptInWords
	}
	is := func(words []string, t string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(strings.TrimSpace(w), t) })
	}
	var texts []string
	switch {
	case m.GroupID != "": // said to others too
		return "", ""
	case m.Text != nil:
		texts, by = []string{m.Text.Body}, "keyword"
	case m.Button != nil:
		texts, by = []string{m.Button.Text, m.Button.Payload}, "button"
	case m.Interactive != nil && m.Interactive.Button != nil:
		texts, by = []string{m.Interactive.Button.Title, m.Interactive.Button.ID}, "button"
	}
	for _, t := range texts {
		t = strings.TrimSpace(t)
		switch {
		case t == "":
		case is(out, t), by == "button" && strings.EqualFold(t, stopButton):
			return "out", by
		case is(in, t):
			return "in", by
		}
	}
	return "", ""
}

// preference records a customer's word to Meta itself. The note of it is the deciding record: told again, it is no news,
// and gives the same jobs.
func (d *Desk) preference(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) ([]store.NewJob, error) {
	p := it.Preference
	person := who(p.WAID, p.UserID, it.Contact)
	note := noteOf(dl, it)
	known, err := noted(ctx, tn, note)
	if err != nil {
		return nil, err
	}
	c, writes, changed, err := d.Book.Contact(ctx, tn, person, note.ID)
	if err != nil {
		return nil, err
	}
	points := ""
	at := at(p.At, dl.ReceivedAt)
	switch p.Value {
	case "stop":
		points, changed = crm.PointsOptOut, c.OptOut("preference", at) || changed
	case "resume", "signup":
		points, changed = crm.PointsOptIn, c.OptIn(at) || changed
	}
	var next []store.NewJob
	if points != "" && c.LeadID != "" {
		next = []store.NewJob{crm.PointsOf(tn, c.LeadID, points, note.ID, note.ID, 0, at)}
	}
	if known {
		return next, nil
	}
	if changed {
		writes = append(writes, crm.Contacts.Update(c))
	}
	return next, tn.DB.Commit(ctx, append(writes, Notes.Ensure(note))...)
}

func noted(ctx context.Context, tn *tenant.Tenant, n *Note) (bool, error) {
	_, err := Notes.Get(ctx, tn.DB, n.ID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// identity moves a contact to the new user id that Meta tells of. The note of it is the deciding record.
func (d *Desk) identity(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	ch := it.Identity
	note := noteOf(dl, it)
	if known, err := noted(ctx, tn, note); err != nil || known {
		return err
	}
	waID, phone := ch.WAID, phoneOf(ch.WAID)
	_, writes, err := d.Book.Reidentify(ctx, tn, crm.Who{WaID: waID, Phone: phone, UserID: ch.PreviousUserID}, crm.Who{WaID: waID, Phone: phone, UserID: ch.UserID})
	if err != nil {
		return err
	}
	return tn.DB.Commit(ctx, append(writes, Notes.Ensure(note))...)
}

// at is a time that Meta may have left out.
func at(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}

// WroteSince tells whether a contact wrote to the client after some moment.
func (d *Desk) WroteSince(ctx context.Context, tn *tenant.Tenant, contactID string, since time.Time) (bool, error) {
	cvs, err := Conversations.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("contactId", store.Eq, contactID)}})
	if err != nil {
		return false, err
	}
	for _, cv := range cvs {
		n, err := tn.DB.Count(ctx, store.Query{Kind: Messages.Schema.Kind, Where: []store.Term{
			store.Where("inbox", store.Eq, cv.ID), store.Where("at", store.Gt, since.UnixMilli()),
		}})
		if err != nil || n > 0 {
			return n > 0, err
		}
	}
	return false, nil
}
