package chat

import (
	"context"
	"errors"
	"strings"
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

// words that opt out, and in again, when they are a whole message.
var (
	optOutWords = []string{"STOP", "UNSUBSCRIBE", "SAIR", "BAJA", "ARRET"}
	optInWords  = []string{"START"}
)

// errUnusable marks an item that can never be stored; it stays in its delivery.
var errUnusable = errors.New("chat: the item cannot be stored")

// Ingest stores one item of a delivery in a client's database. It may be called again for the same item, and then
// changes nothing. An error that wraps errUnusable will not go away by trying again.
func (d *Desk) Ingest(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	return retry(ctx, func() error {
		switch it.Kind {
		case whatsapp.KindMessage:
			return d.incoming(ctx, tn, dl, it)
		case whatsapp.KindEcho:
			return d.echo(ctx, tn, dl, it)
		case whatsapp.KindHistoryChunk:
			return d.history(ctx, tn, dl, it)
		case whatsapp.KindStatus:
			if it.Status.OfMessage() {
				return d.status(ctx, tn, it)
			}
			return d.note(ctx, tn, dl, it)
		case whatsapp.KindPreference:
			return d.preference(ctx, tn, dl, it)
		case whatsapp.KindIdentity:
			ch := it.Identity
			return d.identity(ctx, tn, dl, it, change{oldUserID: ch.PreviousUserID, newUserID: ch.UserID, oldWaID: ch.WAID, newWaID: ch.WAID})
		default:
			return d.note(ctx, tn, dl, it)
		}
	})
}

// note keeps an item that no feature reads yet.
func (d *Desk) note(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	return tn.DB.Commit(ctx, Notes.Ensure(&Note{
		ID: id.Derived("not", dl.ID, it.At, string(it.Kind), itoa(it.Index)), Kind: string(it.Kind), Field: it.Field, WABAID: it.WABAID,
		DeliveryID: dl.ID, Raw: it.Raw, At: dl.ReceivedAt,
	}))
}

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

// incoming stores a message of a customer.
func (d *Desk) incoming(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	m := it.Message
	switch {
	case m.Reaction != nil:
		return d.onTarget(ctx, tn, dl, it, m.Reaction.MessageID, func(t *Message) bool { return t.react(actor(m), m.Reaction) })
	case m.Edit != nil:
		return d.onTarget(ctx, tn, dl, it, m.Edit.OriginalID, func(t *Message) bool { return t.edit(m) })
	case m.Revoke != nil:
		return d.onTarget(ctx, tn, dl, it, m.Revoke.OriginalID, func(t *Message) bool { return t.revoke(m.Timestamp) })
	case m.System != nil && (m.System.UserID != "" || m.System.WAID != ""):
		s := m.System
		if err := d.identity(ctx, tn, dl, it, change{oldWaID: m.From, newWaID: s.WAID, oldUserID: s.PreviousUserID, newUserID: s.UserID}); err != nil {
			return err
		}
	}
	return d.storeMessage(ctx, tn, dl, it, m)
}

func actor(m *whatsapp.Message) string {
	if m.FromUserID != "" {
		return m.FromUserID
	}
	return m.From
}

// storeMessage puts a customer's message into its conversation. The message is the fact and comes first; what the
// conversation shows of it is computed from the facts, so that doing it again changes nothing.
func (d *Desk) storeMessage(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item, m *whatsapp.Message) error {
	person := who(m.From, m.FromUserID, it.Contact)
	if m.ID == "" || (person.Phone == "" && person.UserID == "") {
		return d.note(ctx, tn, dl, it) // nobody's, as far as we can see: kept as it came
	}
	msgID := messageID(tn.Code, it.PhoneNumberID, m.ID)
	c, moved, contactChanged, err := d.Book.Contact(ctx, tn, person, msgID)
	if err != nil {
		return err
	}
	at := placeInTime(m.Timestamp, dl.ReceivedAt)
	system := m.System != nil
	if word := optWord(m); word != "" {
		contactChanged = setOptOut(c, word == "out", "keyword", m.Timestamp) || contactChanged
	}
	if c.LeadID == "" {
		switch l, err := d.Book.FindLead(ctx, tn, c.Phone, ""); {
		case err == nil:
			c.LeadID, contactChanged = l.ID, true
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
	}
	who := c.ID
	if m.GroupID != "" {
		who = "group:" + m.GroupID
	}
	cvID := conversationID(tn.Code, it.PhoneNumberID, who)
	cv, err := Conversations.Get(ctx, tn.DB, cvID)
	if errors.Is(err, store.ErrNotFound) {
		cv, err = &Conversation{ID: cvID, ContactID: c.ID, PhoneNumberID: it.PhoneNumberID, CreatedAt: at}, nil
	}
	if err != nil {
		return err
	}
	msg := &Message{
		ID: msgID, WAMID: m.ID, ConversationID: cvID, ContactID: c.ID, PhoneNumberID: it.PhoneNumberID, Direction: In,
		Status: Received, StatusAt: map[string]time.Time{Received: dl.ReceivedAt}, CreatedAt: at,
	}
	msg.fill(m)
	known, err := Messages.Get(ctx, tn.DB, msgID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var writes []store.Write
	if moved != nil {
		writes = append(writes, crm.Contacts.Update(moved))
	}
	if contactChanged {
		writes = append(writes, crm.Contacts.Update(c))
	}
	if known == nil {
		early, err := d.earlyWrites(ctx, tn, msg)
		if err != nil {
			return err
		}
		writes = append(writes, news.Write(dl.ReceivedAt, news.MessageCreated, msg.ID, "message", msg.View()), Messages.Ensure(msg))
		writes = append(writes, early...)
	}
	unread, err := tn.DB.Count(ctx, store.Query{Kind: Messages.Schema.Kind, Where: []store.Term{
		store.Where("inbox", store.Eq, cvID), store.Where("at", store.Gt, cv.ReadAt.UnixMilli()),
	}})
	if err != nil {
		return err
	}
	if known == nil && at.After(cv.ReadAt) {
		unread++
	}
	if cv.follow(c, at, unread, !system && m.GroupID == "", m.Timestamp) || known == nil {
		writes = append(writes, news.Write(dl.ReceivedAt, news.ConversationUpdated, msg.ID, "conversation", cv.View()), Conversations.Update(cv))
	}
	if len(writes) == 0 {
		return nil
	}
	return tn.DB.Commit(ctx, writes...)
}

// follow brings a conversation up to a message; true if that changed it.
func (cv *Conversation) follow(c *crm.Contact, at time.Time, unread int64, opens bool, written time.Time) bool {
	before := *cv
	if at.After(cv.LastMessageAt) {
		cv.LastMessageAt = at
	}
	if opens && !written.IsZero() {
		if end := written.Add(window).UTC(); cv.WindowExpiresAt == nil || end.After(*cv.WindowExpiresAt) {
			cv.WindowExpiresAt = &end
		}
	}
	cv.Unread, cv.LeadID, cv.Phone, cv.Name = unread, c.LeadID, c.Phone, c.Name
	return before.LastMessageAt != cv.LastMessageAt || before.WindowExpiresAt != cv.WindowExpiresAt || before.Unread != cv.Unread ||
		before.LeadID != cv.LeadID || before.Phone != cv.Phone || before.Name != cv.Name
}

// placeInTime is where a message stands in its conversation. Meta's clock has seconds only, so messages of one second
// would have no order; one that comes at once takes the moment it came, a late one Meta's.
func placeInTime(written, received time.Time) time.Time {
	if written.IsZero() || (received.Sub(written) < time.Minute && received.After(written)) {
		return received.UTC()
	}
	return written.UTC()
}

// optWord tells whether a message is a word that opts "out" or "in"; "" if neither.
func optWord(m *whatsapp.Message) string {
	texts := []string{}
	if m.Text != nil {
		texts = append(texts, m.Text.Body)
	}
	if m.Button != nil {
		texts = append(texts, m.Button.Text, m.Button.Payload)
	}
	for _, t := range texts {
		t = strings.ToUpper(strings.TrimSpace(t))
		for _, w := range optOutWords {
			if t == w {
				return "out"
			}
		}
		for _, w := range optInWords {
			if t == w {
				return "in"
			}
		}
	}
	return ""
}

// setOptOut records a customer's word; a word older than the last one changes nothing.
func setOptOut(c *crm.Contact, out bool, by string, at time.Time) bool {
	at = at.UTC()
	if c.OptedOutAt != nil && !at.After(*c.OptedOutAt) {
		return false
	}
	if !out {
		changed := c.OptedOutAt != nil
		c.OptedOutAt, c.OptOutBy = nil, ""
		return changed
	}
	if c.OptedOutAt != nil {
		return false
	}
	c.OptedOutAt, c.OptOutBy = &at, by
	return true
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

// onTarget changes the message that an item speaks of. A message we do not have gets a row of the item's own.
func (d *Desk) onTarget(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item, wamid string, apply func(*Message) bool) error {
	t, err := Messages.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("wamid", store.Eq, wamidKey(it.PhoneNumberID, wamid))}})
	if errors.Is(err, store.ErrNotFound) {
		return d.storeMessage(ctx, tn, dl, it, it.Message)
	}
	if err != nil {
		return err
	}
	if !apply(t) {
		return nil
	}
	return tn.DB.Commit(ctx,
		news.Write(dl.ReceivedAt, news.MessageStatus, t.ID+"|"+it.Message.ID, "message", t.View()), Messages.Update(t))
}

func (m *Message) react(by string, r *whatsapp.Reaction) bool {
	if m.Reactions[by] == r.Emoji {
		return false
	}
	if r.Removed() {
		delete(m.Reactions, by)
		return true
	}
	if m.Reactions == nil {
		m.Reactions = map[string]string{}
	}
	m.Reactions[by] = r.Emoji
	return true
}

func (m *Message) edit(w *whatsapp.Message) bool {
	at := w.Timestamp.UTC()
	if w.Edit.New == nil || (m.EditedAt != nil && !at.After(*m.EditedAt)) {
		return false
	}
	media := m.Media
	m.fill(w.Edit.New)
	if m.Media == nil {
		m.Media = media // an edited caption does not take the picture away
	}
	m.EditedAt = &at
	return true
}

func (m *Message) revoke(at time.Time) bool {
	if m.RevokedAt != nil {
		return false
	}
	at = at.UTC()
	m.RevokedAt = &at
	return true
}

// echo stores a message that the business wrote in its phone app: outgoing, and nothing of ours to follow.
func (d *Desk) echo(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	m := it.Message
	return d.imported(ctx, tn, dl, it, m, who(m.To, m.ToUserID, it.Contact), Out, Sent)
}

// history imports what was written before the account joined: silently, opening no window and beginning nothing.
func (d *Desk) history(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	for _, t := range it.History.Threads {
		for _, h := range t.Messages {
			if h.Message == nil {
				continue
			}
			direction, status := In, Received
			if h.Message.From != t.ID {
				direction, status = Out, historyStatus(h.Message.HistoryStatus)
			}
			err := retry(ctx, func() error { return d.imported(ctx, tn, dl, it, h.Message, who(t.ID, "", nil), direction, status) })
			if err != nil {
				return err
			}
		}
	}
	return d.note(ctx, tn, dl, it)
}

func historyStatus(s string) string {
	switch s = strings.ToLower(s); s {
	case "delivered", "read", "played":
		return s
	case "error":
		return FailedSend
	}
	return Sent
}

func (d *Desk) imported(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item, m *whatsapp.Message, person crm.Who, direction, status string) error {
	if m.ID == "" || (person.Phone == "" && person.UserID == "") {
		return d.note(ctx, tn, dl, it)
	}
	msgID := messageID(tn.Code, it.PhoneNumberID, m.ID)
	switch _, err := Messages.Get(ctx, tn.DB, msgID); {
	case err == nil:
		return nil
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	c, moved, changed, err := d.Book.Contact(ctx, tn, person, msgID)
	if err != nil {
		return err
	}
	at := placeInTime(m.Timestamp, dl.ReceivedAt)
	msg := &Message{
		ID: msgID, WAMID: m.ID, ConversationID: conversationID(tn.Code, it.PhoneNumberID, c.ID), ContactID: c.ID, PhoneNumberID: it.PhoneNumberID,
		Direction: direction, Imported: true, Status: status, StatusAt: map[string]time.Time{status: at}, CreatedAt: at,
	}
	msg.fill(m)
	var writes []store.Write
	if moved != nil {
		writes = append(writes, crm.Contacts.Update(moved))
	}
	if changed {
		writes = append(writes, crm.Contacts.Update(c))
	}
	writes = append(writes, Conversations.Ensure(&Conversation{
		ID: msg.ConversationID, ContactID: c.ID, LeadID: c.LeadID, Phone: c.Phone, PhoneNumberID: it.PhoneNumberID, Name: c.Name,
		LastMessageAt: at, CreatedAt: at,
	}))
	if it.Kind == whatsapp.KindEcho {
		writes = append(writes, news.Write(dl.ReceivedAt, news.MessageCreated, msg.ID, "message", msg.View()))
	}
	return tn.DB.Commit(ctx, append(writes, Messages.Ensure(msg))...)
}

// preference records a customer's word to Meta itself.
func (d *Desk) preference(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) error {
	p := it.Preference
	person := who(p.WAID, p.UserID, it.Contact)
	if person.Phone == "" && person.UserID == "" {
		return d.note(ctx, tn, dl, it)
	}
	c, moved, changed, err := d.Book.Contact(ctx, tn, person, dl.ID+it.At+itoa(it.Index))
	if err != nil {
		return err
	}
	changed = setOptOut(c, p.OptOut(), "preference", p.At) || changed
	var writes []store.Write
	if moved != nil {
		writes = append(writes, crm.Contacts.Update(moved))
	}
	if changed {
		writes = append(writes, crm.Contacts.Update(c))
	}
	if len(writes) == 0 {
		return nil
	}
	return tn.DB.Commit(ctx, writes...)
}

// change is how a person's ids at Meta change.
type change struct{ oldWaID, newWaID, oldUserID, newUserID string }

// identity moves a contact to a person's new ids. Doing it again finds the new ids in place.
func (d *Desk) identity(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item, ch change) error {
	old := crm.Who{WaID: ch.oldWaID, Phone: phoneOf(ch.oldWaID), UserID: ch.oldUserID}
	if old.UserID == "" && old.Phone == "" {
		return d.note(ctx, tn, dl, it)
	}
	writes, err := d.Book.Reidentify(ctx, tn, old, crm.Who{WaID: ch.newWaID, Phone: phoneOf(ch.newWaID), UserID: ch.newUserID})
	if err != nil || len(writes) == 0 {
		return err
	}
	return tn.DB.Commit(ctx, writes...)
}
