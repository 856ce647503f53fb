package chat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// window is how long a customer's message lets the business write freely.
const window = 24 * time.Hour

// errUnusable marks an item that can never be stored; it stays in its delivery.
var errUnusable = errors.New("chat: the item cannot be stored")

// Ingest stores one item of a delivery in a client's database. It may be called again for the same item, and then
// changes nothing, but gives the same jobs: what is to follow, to be made before the delivery is settled. An error that
// wraps errUnusable will not go away by trying again.
func (d *Desk) Ingest(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) (next []store.NewJob, err error) {
	err = retry(ctx, func() error {
		switch it.Kind {
		case whatsapp.KindMessage:
			return d.message(ctx, tn, dl, it, func(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) (err error) {
				next, err = d.incoming(ctx, tn, dl, it)
				return err
			})
		case whatsapp.KindEcho:
			return d.message(ctx, tn, dl, it, func(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) (err error) {
				next, err = d.echo(ctx, tn, dl, it)
				return err
			})
		case whatsapp.KindHistoryChunk:
			next, err = d.history(ctx, tn, dl, it)
			return err
		case whatsapp.KindStatus:
			if it.Status.OfMessage() {
				next, err = d.status(ctx, tn, dl, it)
				return err
			}
		case whatsapp.KindPreference:
			next, err = d.preference(ctx, tn, dl, it)
			return err
		case whatsapp.KindIdentity:
			return d.identity(ctx, tn, dl, it)
		case whatsapp.KindTemplateStatus, whatsapp.KindTemplateQuality, whatsapp.KindTemplateCategory, whatsapp.KindTemplateComponents:
			next, err = d.templateEvent(ctx, tn, dl, it)
			return err
		}
		return d.note(ctx, tn, dl, it)
	})
	return next, err
}

// note keeps an item that no feature reads yet.
func (d *Desk) note(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	return tn.DB.Commit(ctx, Notes.Ensure(noteOf(dl, it)))
}

// noteOf makes the note of an item. Told again, an item has the same note: Meta gives most of them no id, so what they
// say, of whom and when, is their name.
func noteOf(dl *store.Delivery, it whatsapp.Item) *Note {
	when := it.EntryTime
	switch {
	case it.Preference != nil:
		when = it.Preference.At
	case it.Identity != nil:
		when = it.Identity.At
	}
	if when.IsZero() {
		when = dl.ReceivedAt.Truncate(24 * time.Hour)
	}
	said := sha256.Sum256(it.Raw)
	return &Note{
		ID:   id.Derived("not", it.WABAID, it.PhoneNumberID, it.Field, string(it.Kind), when.UTC().Format(time.RFC3339), hex.EncodeToString(said[:])),
		Kind: string(it.Kind), Field: it.Field, WABAID: it.WABAID, DeliveryID: dl.ID, Raw: it.Raw, At: dl.ReceivedAt,
	}
}

// message takes in what a customer, or the business in its phone app, wrote or did to a message: plain stores what is a
// message of its own.
func (d *Desk) message(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item,
	plain func(context.Context, *tenant.Tenant, *store.Delivery, whatsapp.Item) error) error {
	e := effectOf(it.Message)
	if e == nil {
		defer d.turns.lock(tn.Code, it.PhoneNumberID, it.Message.ID)()
		return plain(ctx, tn, dl, it)
	}
	// its target is stored, or waited for, by one at a time: neither can miss the other
	defer d.turns.lock(tn.Code, it.PhoneNumberID, e.Target)()
	t, err := Messages.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("wamid", store.Eq, wamidKey(it.PhoneNumberID, e.Target))}})
	if errors.Is(err, store.ErrNotFound) {
		return plain(ctx, tn, dl, it)
	}
	if err != nil || !t.affect(e) {
		return err
	}
	writes := []store.Write{Messages.Update(t)}
	if it.Kind != whatsapp.KindHistoryChunk {
		writes = []store.Write{news.Write(dl.ReceivedAt, news.MessageStatus, t.ID+"|"+it.Message.ID, "message", t.View()), writes[0]}
	}
	return tn.DB.Commit(ctx, writes...)
}

// incoming puts a customer's message into its conversation. What it tells of its author and what the conversation shows
// of it come first; the message is the deciding record: where it stands, all is done.
func (d *Desk) incoming(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) ([]store.NewJob, error) {
	m := it.Message
	msgID := messageID(tn.Code, it.PhoneNumberID, m.ID)
	switch known, err := Messages.Get(ctx, tn.DB, msgID); {
	case err == nil:
		if err := d.tidy(ctx, tn, known); err != nil {
			return nil, err
		}
		return d.arrived(ctx, tn, known)
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	c, writes, err := d.author(ctx, tn, it, msgID)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, d.note(ctx, tn, dl, it) // nobody's, as far as we can see: kept as it came
	}
	msg := &Message{
		ID: msgID, WAMID: m.ID, ContactID: c.ID, PhoneNumberID: it.PhoneNumberID, Direction: In, Status: Received,
		StatusAt: map[string]time.Time{Received: dl.ReceivedAt}, CreatedAt: placeInTime(m.Timestamp, dl.ReceivedAt), Effect: effectOf(m),
	}
	msg.ConversationID = conversationID(tn.Code, it.PhoneNumberID, c.ID)
	if m.GroupID != "" {
		msg.ConversationID = conversationID(tn.Code, it.PhoneNumberID, "group:"+m.GroupID)
	}
	msg.fill(m)
	waiting, err := d.takeWaiting(ctx, tn, msg)
	if err != nil {
		return nil, err
	}
	cv, err := d.conversation(ctx, tn, msg)
	if err != nil {
		return nil, err
	}
	unread, err := tn.DB.Count(ctx, store.Query{Kind: Messages.Schema.Kind, Where: []store.Term{
		store.Where("inbox", store.Eq, cv.ID), store.Where("at", store.Gt, cv.ReadAt.UnixMilli()),
	}})
	if err != nil {
		return nil, err
	}
	if msg.Effect == nil && msg.CreatedAt.After(cv.ReadAt) {
		unread++
	}
	scores, err := d.hear(ctx, tn, m, msg, c, cv)
	if err != nil {
		return nil, err
	}
	writes = append(writes, scores...)
	changed := cv.follow(c, msg.CreatedAt, m.GroupID != "")
	if cv.Unread != unread {
		cv.Unread, changed = unread, true
	}
	// what a person wrote opens the window; a note of the chat itself, or a reaction, does not
	if m.System == nil && msg.Effect == nil && m.GroupID == "" && !m.Timestamp.IsZero() {
		if end := m.Timestamp.Add(window).UTC(); cv.WindowExpiresAt == nil || end.After(*cv.WindowExpiresAt) {
			cv.WindowExpiresAt, changed = &end, true
		}
	}
	if changed {
		writes = append(writes, news.Write(dl.ReceivedAt, news.ConversationUpdated, msg.ID, "conversation", cv.View()), Conversations.Update(cv))
	}
	writes = append(writes, news.Write(dl.ReceivedAt, news.MessageCreated, msg.ID, "message", msg.View()), Messages.Insert(msg))
	if err := tn.DB.Commit(ctx, append(writes, waiting...)...); err != nil {
		return nil, err
	}
	return d.arrived(ctx, tn, msg)
}

// arrived gives the jobs that follow from a customer's message that is stored.
func (d *Desk) arrived(ctx context.Context, tn *tenant.Tenant, m *Message) ([]store.NewJob, error) {
	if d.Arrived == nil {
		return nil, nil
	}
	return d.Arrived(ctx, tn, m)
}

// conversation reads the conversation of a message, or makes it.
func (d *Desk) conversation(ctx context.Context, tn *tenant.Tenant, m *Message) (*Conversation, error) {
	cv, err := Conversations.Get(ctx, tn.DB, m.ConversationID)
	if errors.Is(err, store.ErrNotFound) {
		return &Conversation{ID: m.ConversationID, ContactID: m.ContactID, PhoneNumberID: m.PhoneNumberID, CreatedAt: m.CreatedAt}, nil
	}
	return cv, err
}

// follow brings a conversation up to a message of a contact; true if that changed it. nobody: it is a group's, and
// so nobody's in particular.
func (cv *Conversation) follow(c *crm.Contact, at time.Time, nobody bool) bool {
	changed := cv.Version == 0
	if at.After(cv.LastMessageAt) {
		cv.LastMessageAt, changed = at, true
	}
	if !nobody && (cv.LeadID != c.LeadID || cv.Phone != c.Phone || cv.Name != c.Name) {
		cv.LeadID, cv.Phone, cv.Name, changed = c.LeadID, c.Phone, c.Name, true
	}
	return changed
}

// placeInTime is where a message stands in its conversation. Meta's clock has seconds only, so messages of one second
// would have no order; one that comes at once takes the moment it came, a late one Meta's.
func placeInTime(written, received time.Time) time.Time {
	if written.IsZero() || (received.Sub(written) < time.Minute && received.After(written)) {
		return received.UTC()
	}
	return written.UTC()
}

// fill takes over what a message of Meta's says.
func (m *Message) fill(w *whatsapp.Message) {
	m.Type, m.ReplyTo = w.Type, w.ReplyTo()
	if w.Type == "" {
		m.Type = "unknown"
	}
	switch {
	case w.Text != nil:
		m.Text = &w.Text.Body
	case w.Media != nil:
		m.Media = &Media{MetaID: w.Media.ID, MIME: w.Media.MIME, SHA256: whatsapp.HexSHA256(w.Media.SHA256), Filename: w.Media.Filename, Status: "pending"}
		if w.Media.Caption != "" {
			m.Text = &w.Media.Caption
		}
	case w.Button != nil:
		m.Text = &w.Button.Text
	case w.Interactive != nil && w.Interactive.Button != nil:
		m.Text = &w.Interactive.Button.Title
	case w.Interactive != nil && w.Interactive.List != nil:
		m.Text = &w.Interactive.List.Title
	case w.System != nil:
		m.Text = &w.System.Body
	}
	if w.Text == nil {
		m.Content = w.Content
	}
	if len(w.Errors) > 0 {
		m.Error = errorOf(w.Errors[0])
	}
}

func errorOf(e whatsapp.ProviderError) *Error {
	return &Error{Code: itoa(e.Code), Title: e.Title, Detail: e.Details}
}
