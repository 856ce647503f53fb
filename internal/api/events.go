package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
)

// Limits of what an event carries, as JSON. They keep its job within the queue's limit on payloads.
const (
	maxVariables = 32 << 10
	maxLeadData  = 8 << 10
)

// RegisterEvents adds the door through which events come in.
func RegisterEvents(a *API, door *rule.Door) {
	const tag = "Automation"
	// Without the client's database: an event is taken in also while that cannot be reached.
	ClientCall(a, Op{Route: "POST /api/crm/automations/events", ID: "submitEvent", Tag: tag, Summary: "Tell of an event",
		Status: http.StatusAccepted, OwnIdempotency: true,
		Description: "The event is durable when the answer arrives, and its internal actions are done; sends follow as jobs. " +
			"eventId names the event, else Idempotency-Key does: told again with an equal body, the first outcome is answered with duplicate:true; " +
			"with another body, 409 event.mismatch. deferred:true says that the work follows."},
		func(ctx context.Context, c Caller, in *eventInput) (*Answer[EventAnswer], error) {
			return submit(ctx, door, c, in)
		})
	ClientCall(a, Op{Route: "GET /api/crm/automations/events/{id}", ID: "getEvent", Tag: tag, Summary: "Read what came of an event",
		Description: "The id is the eventId as it was answered. deferred:true says that the work follows; error, that it never will, and why."},
		func(ctx context.Context, c Caller, in *ByID) (*Answer[EventView], error) {
			ev, err := door.Event(ctx, c.Client, in.ID)
			if err != nil {
				return nil, err
			}
			return OK(eventView(ev))
		})
}

type eventInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Names the event where the body has no eventId: 1 to 255 visible ASCII characters."`
	Body           eventBody
}

// eventBody is an event as it is told.
type eventBody struct {
	Trigger      string      `json:"trigger" minLength:"1" maxLength:"100" doc:"A known trigger, or custom.*." example:"appointment_confirmed"`
	Phone        string      `json:"phone,omitempty" maxLength:"64" doc:"In any spelling. phone or email is required." example:"918143963821"`
	Email        string      `json:"email,omitempty" maxLength:"254"`
	EventID      string      `json:"eventId,omitempty" minLength:"1" maxLength:"200" doc:"The caller's name for this event." example:"bk-1"`
	OccurredAt   *Time       `json:"occurredAt,omitempty" doc:"Now if left out."`
	Variables    rule.Values `json:"variables,omitempty" doc:"For conditions and placeholders; at most 32 KiB."`
	CreateLead   bool        `json:"createLeadIfMissing,omitempty"`
	LeadData     *eventLead  `json:"leadData,omitempty" doc:"Of a new lead; completes what a known one lacks."`
	canonicalSHA string      // of the body as canonical JSON
}

type eventLead struct {
	Name     string         `json:"name,omitempty" maxLength:"200"`
	Source   string         `json:"source,omitempty" maxLength:"100" example:"website"`
	Currency string         `json:"currency,omitempty" pattern:"^[A-Za-z]{3}$" patternDescription:"ISO 4217, three letters" example:"INR"`
	OwnerID  string         `json:"ownerId,omitempty" maxLength:"100"`
	Value    float64        `json:"value,omitempty"`
	Tags     []string       `json:"tags,omitempty" maxItems:"50" maxLength:"100"`
	Fields   map[string]any `json:"fields,omitempty" doc:"leadData as a whole: at most 8 KiB."`
}

// UnmarshalJSON decodes the body and keeps the hash by which two bodies are the same.
func (b *eventBody) UnmarshalJSON(raw []byte) error {
	type plain eventBody
	if err := json.Unmarshal(raw, (*plain)(b)); err != nil {
		return err
	}
	b.canonicalSHA = canonicalHash(raw)
	return nil
}

// canonicalHash is the hash of JSON without its white space and with its names sorted; numbers stay as they are written.
func canonicalHash(raw []byte) string {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "" // it was decoded before
	}
	canonical, _ := json.Marshal(v) // of what JSON decodes to, everything marshals
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// EventAnswer is what came of an event.
type EventAnswer struct {
	EventID     string             `json:"eventId"`
	Duplicate   bool               `json:"duplicate" doc:"The event was told before; this is its first outcome."`
	Deferred    bool               `json:"deferred" doc:"The event is durable, and its work follows."`
	LeadID      *string            `json:"leadId"`
	LeadCreated bool               `json:"leadCreated"`
	Runs        []rule.Enrol       `json:"runs"`
	Skipped     []rule.Skip        `json:"skipped"`
	Warnings    []rule.EventNotice `json:"warnings,omitempty" doc:"loop: what rules did would have caused more events than one may lead to. owner_unknown: leadData.ownerId was left out."`
	Error       *EventError        `json:"error,omitempty" doc:"Why nothing came of it, and never will."`
}

// EventError is why an event failed for good.
type EventError struct {
	Code   string `json:"code" example:"event.too_large"`
	Detail string `json:"detail"`
}

func eventAnswer(eventID string, duplicate, deferred bool, o rule.Outcome) EventAnswer {
	a := EventAnswer{
		EventID: eventID, Duplicate: duplicate, Deferred: deferred, LeadID: orNull(o.LeadID), LeadCreated: o.LeadCreated,
		Runs: append([]rule.Enrol{}, o.Runs...), Skipped: append([]rule.Skip{}, o.Skipped...),
		Warnings: o.Warnings,
	}
	if o.Error != nil {
		a.Error = &EventError{o.Error.Code, o.Error.Detail}
	}
	return a
}

func submit(ctx context.Context, door *rule.Door, c Caller, in *eventInput) (*Answer[EventAnswer], error) {
	b := in.Body
	event := rule.Input{
		EventID: b.EventID, Hash: b.canonicalSHA, Trigger: b.Trigger, Phone: b.Phone, Email: b.Email, OccurredAt: b.OccurredAt.Or(),
		Variables: b.Variables, CreateLead: b.CreateLead,
	}
	if event.EventID == "" {
		event.EventID = in.IdempotencyKey
	}
	if len(in.IdempotencyKey) > 255 || strings.ContainsFunc(in.IdempotencyKey, func(c rune) bool { return c < '!' || c > '~' }) {
		return nil, badIdempotencyKey()
	}
	var bad fields
	bad.eventID("/eventId", event.EventID)
	if l := b.LeadData; l != nil {
		event.Lead = rule.LeadData{Name: strings.TrimSpace(l.Name), Source: l.Source, Currency: strings.ToUpper(l.Currency), OwnerID: l.OwnerID, Value: l.Value, Tags: l.Tags, Fields: l.Fields}
		bad.size("/leadData", l, maxLeadData)
	}
	bad.size("/variables", b.Variables, maxVariables)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	answer, err := door.Submit(ctx, c.Client, event)
	if errors.Is(err, store.ErrTooLarge) {
		return nil, fault.Bad("/variables", "Expected less: the event is larger than can be kept.")
	}
	if err != nil {
		return nil, err
	}
	return OK(eventAnswer(answer.EventID, answer.Duplicate, answer.Deferred, answer.Outcome))
}

// eventID refuses a name by which an event could not be read again: dots are steps of a path, what does not print is lost
// on the way, and half of a character is no character.
func (f *fields) eventID(pointer, id string) {
	if id == "." || id == ".." || strings.ContainsFunc(id, func(c rune) bool { return unicode.IsControl(c) || c == unicode.ReplacementChar }) {
		f.add(pointer, "Expected text that prints, and neither . nor ..")
	}
}

// badIdempotencyKey is what other calls answer to such a key, too.
func badIdempotencyKey() error {
	const expected = "1 to 255 visible ASCII characters."
	f := fault.New(fault.Malformed, "idempotency.bad_key", "Idempotency-Key must be %s", expected)
	f.Fields = []fault.Field{{Pointer: "header.Idempotency-Key", Detail: "Expected " + expected}}
	return f
}

// size refuses a value whose JSON is longer than most bytes.
func (f *fields) size(pointer string, v any, most int) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil || buf.Len() > most+1 { // with the line end
		f.add(pointer, "Expected at most "+strconv.Itoa(most)+" bytes of JSON.")
	}
}

// EventView is an event with what came of it.
type EventView struct {
	EventAnswer
	Trigger    string `json:"trigger"`
	OccurredAt Time   `json:"occurredAt"`
	ReceivedAt Time   `json:"receivedAt"`
}

func eventView(ev *rule.Event) EventView {
	v := EventView{Trigger: ev.Trigger, OccurredAt: Time{ev.OccurredAt}, ReceivedAt: Time{ev.ReceivedAt}}
	if ev.Outcome == nil {
		v.EventAnswer = eventAnswer(ev.EventID, false, true, rule.Outcome{})
	} else {
		v.EventAnswer = eventAnswer(ev.EventID, false, false, *ev.Outcome)
	}
	return v
}
