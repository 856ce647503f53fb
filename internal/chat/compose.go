package chat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ComposeJob is the type of the job that puts a message, which a person or a program asked for, into its conversation and
// leaves the job that sends it. Until it has, its payload is all there is of the message.
const ComposeJob = "whatsapp.compose"

// composePayload is the payload of ComposeJob. The draft is sealed: it is a customer's data, in the central database.
type composePayload struct {
	Seed   string `json:"seed"`
	Sealed string `json:"sealed"`
}

// Composed is a message that will be sent.
type Composed struct {
	MessageID      string `json:"messageId"`
	ConversationID string `json:"conversationId"`
}

// Compose checks a draft against what is known now, and gives the message it will become and the job that makes it; the
// job leaves a Composed. Nothing is written. seed names the message: the same seed gives the same message.
func (d *Desk) Compose(ctx context.Context, tn *tenant.Tenant, seed string, dr Draft) (store.NewJob, Composed, error) {
	dr.PrivateLinks = d.PrivateLinks
	if err := dr.Check(); err != nil {
		return store.NewJob{}, Composed{}, err
	}
	out, _, err := d.outgoing(ctx, tn, seed, dr)
	if err != nil {
		return store.NewJob{}, Composed{}, err
	}
	m, _, err := d.Plan(ctx, tn, *out)
	if err != nil {
		return store.NewJob{}, Composed{}, refused(err, dr.Type)
	}
	plain, err := json.Marshal(dr)
	if err != nil {
		return store.NewJob{}, Composed{}, err
	}
	sealed, err := tn.Seal("draft", string(plain))
	if err != nil {
		return store.NewJob{}, Composed{}, err
	}
	n := job.New(tn.Code, ComposeJob, composePayload{seed, sealed})
	sum := sha256.Sum256(plain)
	n.UniqueKey, n.KeyHash = "compose:"+m.ID, hex.EncodeToString(sum[:])
	n.Causation = store.Causation{Message: m.ID, LeadID: out.LeadID}
	return n, Composed{m.ID, m.ConversationID}, nil
}

// HandleCompose is the handler of ComposeJob. What was true when the draft was checked may have changed: then it ends.
func (d *Desk) HandleCompose(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[composePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	var m *Message
	err = retry(ctx, func() error {
		if m, err = Messages.Get(ctx, tn.DB, plannedID(tn.Code, p.Seed)); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		dr, err := unsealDraft(tn, p.Sealed)
		if err != nil {
			return err
		}
		out, writes, err := d.outgoing(ctx, tn, p.Seed, dr)
		if err != nil {
			return err
		}
		planned, more, err := d.Plan(ctx, tn, *out)
		if err != nil {
			return refused(err, dr.Type)
		}
		m = planned
		return tn.DB.Commit(ctx, append(writes, more...)...)
	})
	switch fault.Of(err) {
	case fault.Invalid, fault.Conflict, fault.NotFound:
		return job.Result{}, job.Dead(codeOfFault(err), err)
	}
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{
		Next: []store.NewJob{d.SendOf(tn, m, store.Causation{JobID: j.ID})}, Result: Composed{m.ID, m.ConversationID},
	}, nil
}

func unsealDraft(tn *tenant.Tenant, sealed string) (dr Draft, err error) {
	plain, err := tn.Open("draft", sealed)
	if err != nil {
		return dr, job.Park("draft_unreadable", err)
	}
	if json.Unmarshal([]byte(plain.Reveal()), &dr) != nil {
		return dr, job.Dead("draft_unreadable", errors.New("the draft does not decode"))
	}
	return dr, nil
}

// plannedID is the id of the message that a seed gives.
func plannedID(code, seed string) string { return id.Derived("msg", code, "out", seed) }

// outgoing looks up what a draft speaks of: the person, the conversation, the message it answers, its files. It gives the
// writes that make the person known, and a fault for what the engine does not let out: free-form outside of the window, a
// template to somebody who asked for no more messages.
func (d *Desk) outgoing(ctx context.Context, tn *tenant.Tenant, seed string, dr Draft) (*Outgoing, []store.Write, error) {
	out := &Outgoing{From: dr.From, Type: dr.Type, Object: dr.Object, Seed: seed}
	cv, writes, err := d.addressee(ctx, tn, seed, dr, out)
	if err != nil {
		return nil, nil, err
	}
	if dr.Type == "template" {
		if err := d.unasked(ctx, tn, out); err != nil {
			return nil, nil, err
		}
	} else if !cv.Open(d.Now()) {
		return nil, nil, fault.New(fault.Conflict, "whatsapp.window_closed",
			"The customer has not written in the last 24 hours. Only templates can be sent now.")
	}
	if out.ReplyTo, err = d.wamidOf(ctx, tn, out, "/replyTo", dr.ReplyTo); err != nil {
		return nil, nil, err
	}
	if err := d.describe(ctx, tn, out); err != nil {
		return nil, nil, err
	}
	return out, writes, nil
}

// unasked is a fault for a template that is not to be sent to its contact.
func (d *Desk) unasked(ctx context.Context, tn *tenant.Tenant, out *Outgoing) error {
	t, _, err := d.checkTemplate(ctx, tn, normalTemplate(out.Object))
	if err != nil {
		return refused(err, out.Type)
	}
	err = d.wanted(ctx, tn, out.Contact, t != nil && t.Category == marketing)
	var r *Refusal
	if errors.As(err, &r) {
		return fault.Wrap(err, fault.Conflict, "contact."+r.Code, "%s They can be answered while their window is open.", r.Detail)
	}
	return err
}

// Open tells whether the customer service window is open: free-form messages may be sent.
func (cv *Conversation) Open(now time.Time) bool {
	return cv != nil && cv.WindowExpiresAt != nil && now.Before(*cv.WindowExpiresAt)
}

// addressee finds or makes the contact of a draft and finds its conversation, nil where there is none yet.
func (d *Desk) addressee(ctx context.Context, tn *tenant.Tenant, seed string, dr Draft, out *Outgoing) (*Conversation, []store.Write, error) {
	if dr.ConversationID != "" {
		return d.addressed(ctx, tn, dr, out)
	}
	from, err := d.from(tn, dr.From)
	if err != nil {
		return nil, nil, refused(err, dr.Type)
	}
	person := crm.Who{UserID: dr.Recipient}
	if dr.To != "" {
		var ok bool
		if person.Phone, ok = crm.Phone(dr.To, tn.Account().DefaultCountry); !ok {
			return nil, nil, fault.Bad("/to", "Expected a phone number.")
		}
	}
	c, writes, changed, err := d.Book.Contact(ctx, tn, person, seed)
	if err != nil {
		return nil, nil, err
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
	out.Contact, out.LeadID = c, c.LeadID
	cv, err := Conversations.Get(ctx, tn.DB, conversationID(tn.Code, from, c.ID))
	if errors.Is(err, store.ErrNotFound) {
		return nil, writes, nil
	}
	return cv, writes, err
}

// addressed finds the contact of a draft that names its conversation.
func (d *Desk) addressed(ctx context.Context, tn *tenant.Tenant, dr Draft, out *Outgoing) (*Conversation, []store.Write, error) {
	cv, err := Conversations.Get(ctx, tn.DB, dr.ConversationID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, fault.Missing("conversation")
	}
	if err != nil {
		return nil, nil, err
	}
	switch {
	case dr.From != "" && dr.From != cv.PhoneNumberID:
		return nil, nil, fault.Bad("/from", "Expected the number of the conversation, or nothing.")
	case cv.ID != conversationID(tn.Code, cv.PhoneNumberID, cv.ContactID):
		return nil, nil, fault.Bad("/conversationId", "This is the conversation of a group; it cannot be written to.")
	}
	c, err := d.Book.Person(ctx, tn, cv.ContactID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, fault.New(fault.Conflict, "contact.not_found", "The contact of the conversation was deleted.")
	}
	if err != nil {
		return nil, nil, err
	}
	out.From, out.ConversationID, out.Contact, out.LeadID = cv.PhoneNumberID, cv.ID, c, c.LeadID
	return cv, nil, nil
}

// wamidOf gives Meta's id of a message that is named by it or by ours; "" for "".
func (d *Desk) wamidOf(ctx context.Context, tn *tenant.Tenant, out *Outgoing, pointer, name string) (string, error) {
	if !strings.HasPrefix(name, "msg_") {
		return name, nil
	}
	m, err := Messages.Get(ctx, tn.DB, name)
	if errors.Is(err, store.ErrNotFound) {
		return "", fault.Bad(pointer, "There is no such message.")
	}
	if err != nil {
		return "", err
	}
	if m.ContactID != out.Contact.ID && (out.ConversationID == "" || m.ConversationID != out.ConversationID) {
		return "", fault.Bad(pointer, "There is no such message in this conversation.")
	}
	if m.WAMID == "" {
		return "", fault.New(fault.Conflict, "whatsapp.message_unsent", "Meta has no id for this message yet.")
	}
	return m.WAMID, nil
}

// describe fills in what there is to show of a draft, and names its files and the message it reacts to as Meta does.
func (d *Desk) describe(ctx context.Context, tn *tenant.Tenant, out *Outgoing) error {
	var o struct {
		Body      json.RawMessage `json:"body"` // of a text: a string; of an interactive message: an object
		Caption   string          `json:"caption"`
		MessageID string          `json:"message_id"`
	}
	if out.Type != "contacts" {
		if err := json.Unmarshal(out.Object, &o); err != nil {
			return fault.Bad("/"+out.Type, "Expected an object.")
		}
	}
	switch out.Type {
	case "text":
		_ = json.Unmarshal(o.Body, &out.Text) // checked
	case "interactive":
		var body struct {
			Text string `json:"text"`
		}
		if len(o.Body) > 0 && json.Unmarshal(o.Body, &body) == nil {
			out.Text = body.Text
		}
	case "reaction":
		wamid, err := d.wamidOf(ctx, tn, out, "/reaction/message_id", o.MessageID)
		if err != nil {
			return err
		}
		out.Object = withMember(out.Object, "message_id", quoted(wamid))
	}
	out.Text = firstOf(out.Text, o.Caption)
	return d.knowFiles(ctx, tn, out)
}

func firstOf(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}

// withMember is an object with a member set.
func withMember(object json.RawMessage, name string, value json.RawMessage) json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(object, &m) != nil {
		return object
	}
	m[name] = value
	out, err := json.Marshal(m)
	if err != nil {
		return object
	}
	return out
}

// refused is a *Refusal as the caller of the API is told; other errors pass.
func refused(err error, typ string) error {
	var r *Refusal
	if !errors.As(err, &r) {
		return err
	}
	var at string
	switch r.Code {
	case "whatsapp.template_unknown":
		at = "/template/name"
	case "whatsapp.template_parameters":
		at = "/template/components"
	case "whatsapp.unknown_number":
		at = "/from"
	case "whatsapp.invalid_message":
		at = "/" + typ
	default:
		return fault.Wrap(err, fault.Conflict, r.Code, "%s", r.Detail)
	}
	f := fault.Wrap(err, fault.Invalid, r.Code, "%s", r.Detail)
	f.Fields = []fault.Field{{Pointer: at, Detail: r.Detail}}
	return f
}
