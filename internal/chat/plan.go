package chat

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// SendJob is the type of the job that sends a message.
const SendJob = "whatsapp.send"

// Desk is the work on conversations, for every client; the tenant says whose.
type Desk struct {
	Book  *crm.Book
	Graph *whatsapp.Client
	Queue store.Queue // where lines to Meta rest
	Now   func() time.Time
	Log   *slog.Logger
	// UserExists tells whether an id is that of a user of the client's, for assignees; nil: they are not looked for.
	UserExists func(ctx context.Context, tn *tenant.Tenant, userID string) (bool, error)
	// Doubt hears that a send's answer was lost (how ""), and how that was resolved: accepted, rejected or resent. nil: nobody.
	Doubt func(how string)
	// Settled gives the jobs that follow when a message with an origin was sent, refused, or lost its answer.
	Settled func(tn *tenant.Tenant, m *Message) []store.NewJob
	// MayBegin is asked right before a message with an origin departs; a *Refusal keeps it back.
	MayBegin func(ctx context.Context, tn *tenant.Tenant, runID, step string) error
	// Failed gives the jobs that follow when a message of ours failed, of whatever origin.
	Failed func(tn *tenant.Tenant, m *Message) []store.NewJob
	// Arrived gives the jobs that follow from a customer's message. It may be asked again for the same message, and must
	// then give the same jobs.
	Arrived func(ctx context.Context, tn *tenant.Tenant, m *Message) ([]store.NewJob, error)
	// Filed is Arrived for messages that were imported, or written in the phone app: they begin nothing, but may carry a file.
	Filed func(ctx context.Context, tn *tenant.Tenant, m *Message) ([]store.NewJob, error)
	// MediaKnown tells of a file of ours, for messages that are to carry it; nil where there is none.
	MediaKnown func(ctx context.Context, tn *tenant.Tenant, mediaID string) (*Media, error)
	// MediaHandle gives the id by which Meta knows a file of ours on a phone number, handing it over if need be. A file that is
	// gone is a *Refusal.
	MediaHandle func(ctx context.Context, tn *tenant.Tenant, mediaID, phoneNumberID string) (metaID string, err error)

	// Cleared is asked right before a message of a campaign goes out: a *Refusal ends it, any other error is what becomes of
	// its job.
	Cleared func(ctx context.Context, tn *tenant.Tenant, m *Message) error
	// Barred is told that a message of a campaign cannot be sent for what all of its messages share, and was not; found is
	// when that was found out. It gives what becomes of the job: the message stays planned.
	Barred func(ctx context.Context, tn *tenant.Tenant, m *Message, r *Refusal, found time.Time) error
	// Tracked gives the writes by which a campaign learns how its message stands; they go into the same commit, before it.
	Tracked func(ctx context.Context, tn *tenant.Tenant, m *Message) ([]store.Write, error)

	// PrivateLinks lets clients name files on private networks.
	PrivateLinks bool

	turns turns
	lines lines
}

// tracked is Tracked for messages that somebody tracks.
func (d *Desk) tracked(ctx context.Context, tn *tenant.Tenant, m *Message) ([]store.Write, error) {
	if d.Tracked == nil || m.Origin.Campaign == "" {
		return nil, nil
	}
	return d.Tracked(ctx, tn, m)
}

// Outgoing asks for a message.
type Outgoing struct {
	Contact *crm.Contact
	LeadID  string
	From    string // phone number id; "" is the client's first
	// ConversationID is where it belongs, if not where the contact's messages belong: the contact was merged since.
	ConversationID string
	Type           string          // "text", "template" …
	Object         json.RawMessage // Graph's object of that type
	Text           string          // what to show of it; of a template, its body is
	Media          *Media          // its file, where it is ours
	ReplyTo        string          // wamid
	Resend         bool            // once more, if the answer is lost and there is evidence that it was not sent
	Origin         Origin
	Seed           string // names the message: the same seed gives the same message
}

// Refusal is why a message cannot be planned, as the client is told.
type Refusal struct{ Code, Detail string }

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

// unwanted are the codes of messages that nobody wants any more, because what they were for is over: of those that said
// so, the job is cancelled, not dead.
var unwanted = []string{"run_over", "too_late", "cancelled", "campaign_gone", "contact_gone"}

// Refused ends the job of something that is not to be done, for the reason that a code names.
func Refused(code string, cause error, next ...store.NewJob) error {
	if slices.Contains(unwanted, code) {
		return job.Cancel(code, cause, next...)
	}
	return job.Dead(code, cause, next...)
}

// Plan gives the message and the writes that put it into its conversation, ready to be sent by the job SendOf. A
// *Refusal if it cannot be addressed, or if Meta is known to refuse it; any other error is the storage's, and says nothing
// about the message.
func (d *Desk) Plan(ctx context.Context, tn *tenant.Tenant, o Outgoing) (*Message, []store.Write, error) {
	from, err := d.from(tn, o.From)
	if err != nil {
		return nil, nil, err
	}
	if o.Type == "template" {
		o.Object = normalTemplate(o.Object)
		_, text, err := d.checkTemplate(ctx, tn, o.Object)
		if err != nil {
			return nil, nil, err
		}
		o.Text = cmp.Or(o.Text, text)
	}
	now := d.Now().UTC()
	m := &Message{
		ID: plannedID(tn.Code, o.Seed), ConversationID: cmp.Or(o.ConversationID, conversationID(tn.Code, from, o.Contact.ID)), ContactID: o.Contact.ID,
		PhoneNumberID: from, Direction: Out, Type: o.Type, Media: o.Media, ReplyTo: o.ReplyTo, Status: Queued,
		StatusAt: map[string]time.Time{Queued: now}, CreatedAt: now, Origin: o.Origin,
	}
	if o.Text != "" {
		m.Text = &o.Text
	}
	if o.Type != "text" {
		m.Content = o.Object
	}
	to, recipient := address(o.Contact)
	if to == "" && recipient == "" {
		return nil, nil, &Refusal{"no_address", "The contact has neither a phone number nor a WhatsApp user id."}
	}
	body, err := whatsapp.BuildSend(whatsapp.SendRequest{
		To: to, Recipient: recipient, Type: o.Type, Object: o.Object, ReplyTo: o.ReplyTo, BizOpaque: m.ID,
	})
	if err != nil {
		return nil, nil, &Refusal{"whatsapp.invalid_message", err.Error()}
	}
	m.Send = &Send{State: planned, Body: body, Resend: o.Resend}
	cv := &Conversation{
		ID: m.ConversationID, ContactID: o.Contact.ID, LeadID: o.LeadID, Phone: o.Contact.Phone, PhoneNumberID: from,
		Name: o.Contact.Name, LastMessageAt: now, CreatedAt: now,
	}
	writes := []store.Write{Conversations.Ensure(cv)}
	if !m.reacts() {
		writes = append(writes, news.Write(now, news.MessageCreated, m.ID, "message", m.View()))
	}
	return m, append(writes, Messages.Ensure(m)), nil
}

// from chooses the number to send from.
func (d *Desk) from(tn *tenant.Tenant, want string) (string, error) {
	w := tn.Account().WhatsApp
	if w == nil || len(w.PhoneNumberIDs) == 0 {
		return "", &Refusal{"whatsapp.not_configured", "The client has no WhatsApp number yet."}
	}
	if want == "" {
		return w.PhoneNumberIDs[0], nil
	}
	if !slices.Contains(w.PhoneNumberIDs, want) {
		return "", &Refusal{"whatsapp.unknown_number", "The number to send from is not one of the client's."}
	}
	return want, nil
}

// address is where Meta reaches a contact: the spelling it used itself comes first.
func address(c *crm.Contact) (to, recipient string) {
	switch {
	case c.WaID != "":
		return c.WaID, ""
	case c.Phone != "":
		return strings.TrimPrefix(c.Phone, "+"), ""
	default:
		return "", c.UserID
	}
}

// sendPayload is the payload of SendJob.
type sendPayload struct {
	MessageID string `json:"messageId"`
}

// SendOf is the job that sends a planned message. It waits for its number alone. What a campaign sends is bulk; who else
// sends has somebody waiting, unless what caused it is bulk itself.
func (d *Desk) SendOf(tn *tenant.Tenant, m *Message, cause store.Causation) store.NewJob {
	n := job.New(tn.Code, SendJob, sendPayload{m.ID})
	n.UniqueKey = "send:" + m.ID
	cause.Message = m.ID
	n.Causation = cause
	n.Resource, n.Pair = d.Needs(tn, m.PhoneNumberID), m.ContactID
	if n.Causation.CampaignID == "" {
		n.Causation.CampaignID = m.Origin.Campaign
	}
	if m.Origin.Campaign != "" {
		n.Class = store.Bulk
	}
	return n
}

// Needs is the resource of what is sent from a number; "" is the client's first.
func (d *Desk) Needs(tn *tenant.Tenant, phoneNumberID string) string {
	if w := tn.Account().WhatsApp; phoneNumberID == "" && w != nil && len(w.PhoneNumberIDs) > 0 {
		phoneNumberID = w.PhoneNumberIDs[0]
	}
	return resourceOf(phoneNumberID)
}

// retry runs a read-then-commit until no other writer came between.
func retry(ctx context.Context, step func() error) error {
	var err error
	for range 20 {
		if err = step(); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}
