package google

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The values of Event.ConferenceStatus. ConferenceSuccess means that MeetURL is there.
const (
	ConferencePending = "pending"
	ConferenceSuccess = "success"
	ConferenceFailure = "failure"
)

// Updates says to whom Google writes about a change of an event.
type Updates string

const (
	UpdateAll  Updates = "all" // the default
	UpdateNone Updates = "none"
)

// Event is an event of a calendar.
type Event struct {
	ID          string // 5 to 1024 of a-v and 0-9: see EventID
	Summary     string
	Description string
	Start, End  time.Time // as read, UTC; zero where a cancelled event has none
	TimeZone    string    // IANA; how Google shows the times; "" is the calendar's
	Attendees   []Attendee

	// RequestID asks for a Meet link. The same one twice asks once; after a failure, a new one asks anew.
	RequestID string

	SendUpdates Updates // of Insert and Patch; not read back

	// What Google says, not written:

	Status           string // "confirmed", "tentative", "cancelled"
	MeetURL          string // "" until there is one
	ConferenceStatus string // "" if none was asked for
	HTMLLink         string // the event in Google's own calendar
}

// Attendee is somebody invited.
type Attendee struct {
	Email string
	Name  string
}

// EventID makes an event's id from what names it for the caller: the same seed, the same id.
func EventID(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	return "ecod" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}

// validID tells whether Google takes it: base32hex, lower case.
func validID(s string) bool {
	return len(s) >= 5 && len(s) <= 1024 && strings.Trim(s, "0123456789abcdefghijklmnopqrstuv") == ""
}

// Insert makes an event with the caller's id. Doing it again is safe: an event
// that is there already is read back and returned as it stands, whatever ev says.
// If that one was cancelled, it is returned with ErrCancelled, and only another id
// will do.
func (c *Client) Insert(ctx context.Context, acc Account, ev Event) (Event, error) {
	const op = "insert"
	switch {
	case ev.Start.IsZero() || ev.End.IsZero():
		return Event{}, incomplete(op, ScopeEvent, "start and end are needed")
	case !validID(ev.ID):
		return Event{}, incomplete(op, ScopeEvent, "the id is not 5 to 1024 of a-v and 0-9")
	}
	body, err := ev.body(op)
	if err != nil {
		return Event{}, err
	}
	body["id"] = ev.ID
	got, err := c.event(ctx, acc, call{op: op, method: http.MethodPost, path: []string{"events"}, query: ev.SendUpdates.query(), body: body}, ev.ID)
	var e *Error
	if !errors.As(err, &e) || e.HTTP != http.StatusConflict {
		return got, err
	}
	got, err = c.read(ctx, acc, op, ev.ID)
	if errors.As(err, &e) {
		if errors.Is(e, ErrNotFound) { // cancelled long ago, and its remains are gone
			e.Err, e.Scope, e.Reason = ErrCancelled, ScopeEvent, "duplicate"
		}
		if e.Outcome == NotSent {
			e.Outcome = Ambiguous // it stands, by this call's like
		}
	}
	if err == nil && got.Status == "cancelled" {
		err = &Error{Op: op, HTTP: http.StatusConflict, Reason: "duplicate", Outcome: Rejected, Scope: ScopeEvent, Err: ErrCancelled}
	}
	return got, err
}

// Get reads an event. A cancelled one is read, too, for a while: look at Status. ErrNotFound if there is none.
func (c *Client) Get(ctx context.Context, acc Account, id string) (Event, error) {
	return c.read(ctx, acc, "get", id)
}

// Patch changes what ev names of the event ev.ID, and nothing else: Summary and
// Description unless "", Start with End unless zero, TimeZone with them, Attendees
// unless nil (all of them at once: their answers to the invitation are asked anew),
// and RequestID for a new link. It returns the event as it is then; ErrNotFound if
// there is none, ErrCancelled beside it if it was cancelled.
func (c *Client) Patch(ctx context.Context, acc Account, ev Event) (Event, error) {
	const op = "patch"
	switch {
	case !validID(ev.ID):
		return Event{}, incomplete(op, ScopeEvent, "the id is not 5 to 1024 of a-v and 0-9")
	case ev.Start.IsZero() != ev.End.IsZero(), ev.Start.IsZero() && ev.TimeZone != "":
		return Event{}, incomplete(op, ScopeEvent, "start and end go together, and a time zone with them")
	}
	body, err := ev.body(op)
	if err != nil {
		return Event{}, err
	}
	if len(body) == 0 {
		return Event{}, incomplete(op, ScopeEvent, "nothing is to be changed")
	}
	for _, end := range []string{"start", "end"} {
		if at, ok := body[end].(map[string]any); ok {
			at["date"] = nil // somebody may have made it an event of whole days
		}
	}
	got, err := c.event(ctx, acc, call{op: op, method: http.MethodPatch, path: []string{"events", ev.ID}, query: ev.SendUpdates.query(), body: body}, ev.ID)
	if err == nil && got.Status == "cancelled" {
		err = &Error{Op: op, Outcome: Rejected, Scope: ScopeEvent, Err: ErrCancelled}
	}
	return got, err
}

// Delete cancels an event. One that is cancelled, or was never there, is done already.
func (c *Client) Delete(ctx context.Context, acc Account, id string, u Updates) error {
	const op = "delete"
	switch {
	case !validID(id):
		return incomplete(op, ScopeEvent, "the id is not 5 to 1024 of a-v and 0-9")
	case !u.known():
		return incomplete(op, ScopeEvent, "updates go to all or none")
	}
	query := u.query()
	query.Del("conferenceDataVersion") // it has none
	err := c.do(ctx, acc, call{op: op, method: http.MethodDelete, path: []string{"events", id}, query: query})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Check tells whether events can be written: the credentials are good, the grant
// holds the permission, the calendar is there and the account may write to it. It
// changes nothing.
func (c *Client) Check(ctx context.Context, acc Account) error {
	const op = "check"
	var w struct {
		Kind string `json:"kind"`
		Role string `json:"accessRole"`
	}
	// The list is all that the permission for events lets one read of a calendar.
	query := url.Values{"maxResults": {"1"}, "fields": {"kind,accessRole"}}
	err := c.do(ctx, acc, call{op: op, method: http.MethodGet, path: []string{"events"}, query: query, reads: true, out: &w})
	var e *Error
	switch {
	case errors.As(err, &e):
		if errors.Is(e, ErrNotFound) {
			e.Err, e.meaning, e.Scope = nil, "no such calendar", ScopeAccount
		}
		return e
	case w.Kind != "calendar#events":
		return &Error{Op: op, HTTP: http.StatusOK, Outcome: NotSent, Scope: ScopeEvent, temporary: true, meaning: "what answered is not Google Calendar"}
	case w.Role != "" && w.Role != "owner" && w.Role != "writer":
		return &Error{Op: op, Reason: "requiredAccessLevel", Outcome: Rejected, Scope: ScopeAccount, meaning: reasons["requiredAccessLevel"].meaning}
	}
	t, err := c.token(ctx, acc, op) // kept by the call just made
	if err != nil {
		return err
	}
	if lacksScope(t) {
		return &Error{Op: op, Reason: "insufficientPermissions", Outcome: Rejected, Scope: ScopeAccount, meaning: reasons["insufficientPermissions"].meaning}
	}
	return nil
}

func (c *Client) read(ctx context.Context, acc Account, op, id string) (Event, error) {
	if !validID(id) {
		return Event{}, incomplete(op, ScopeEvent, "the id is not 5 to 1024 of a-v and 0-9")
	}
	return c.event(ctx, acc, call{op: op, method: http.MethodGet, path: []string{"events", id}, reads: true}, id)
}

// event makes a call that answers with the event of that id.
func (c *Client) event(ctx context.Context, acc Account, call call, id string) (Event, error) {
	var w wireEvent
	call.out = &w
	err := c.do(ctx, acc, call)
	var e *Error
	switch {
	case errors.As(err, &e):
		if call.op == "insert" && call.method == http.MethodPost && errors.Is(e, ErrNotFound) {
			e.Err, e.meaning, e.Scope = nil, "no such calendar", ScopeAccount
		}
		return Event{}, e
	case w.ID != id:
		e := unanswered(call.op, Ambiguous, errors.New("it is not about this event"))
		e.HTTP, e.meaning = http.StatusOK, "an answer that cannot be read"
		if call.reads {
			e.Outcome = NotSent
		}
		return Event{}, e
	}
	return w.event(), nil
}

func (u Updates) known() bool { return u == "" || u == UpdateAll || u == UpdateNone }

// query always says both: without them, Google writes to nobody and drops the link in silence.
func (u Updates) query() url.Values {
	if u == "" {
		u = UpdateAll
	}
	return url.Values{"sendUpdates": {string(u)}, "conferenceDataVersion": {"1"}}
}

// body writes what ev names.
func (ev Event) body(op string) (map[string]any, error) {
	switch {
	case !ev.Start.IsZero() && !ev.End.After(ev.Start):
		return nil, incomplete(op, ScopeEvent, "the end is not after the start")
	case !ev.SendUpdates.known():
		return nil, incomplete(op, ScopeEvent, "updates go to all or none")
	case slices.ContainsFunc(ev.Attendees, func(a Attendee) bool { return !strings.Contains(a.Email, "@") }):
		return nil, incomplete(op, ScopeEvent, "an attendee has no e-mail address")
	}
	body := map[string]any{}
	if ev.Summary != "" {
		body["summary"] = ev.Summary
	}
	if ev.Description != "" {
		body["description"] = ev.Description
	}
	if !ev.Start.IsZero() {
		body["start"], body["end"] = moment(ev.Start, ev.TimeZone), moment(ev.End, ev.TimeZone)
	}
	if ev.Attendees != nil {
		list := make([]wireAttendee, len(ev.Attendees))
		for i, a := range ev.Attendees {
			list[i] = wireAttendee(a)
		}
		body["attendees"] = list
	}
	if ev.RequestID != "" {
		body["conferenceData"] = map[string]any{"createRequest": map[string]any{
			"requestId": ev.RequestID, "conferenceSolutionKey": map[string]any{"type": "hangoutsMeet"}}}
	}
	return body, nil
}

func moment(at time.Time, zone string) map[string]any {
	m := map[string]any{"dateTime": at.UTC().Format(time.RFC3339)}
	if zone != "" {
		m["timeZone"] = zone
	}
	return m
}

type wireAttendee struct {
	Email string `json:"email"`
	Name  string `json:"displayName,omitempty"`
}

// wireEvent is what is read of Google's event.
type wireEvent struct {
	ID          string         `json:"id"`
	Status      string         `json:"status"`
	Summary     string         `json:"summary"`
	Description string         `json:"description"`
	HTMLLink    string         `json:"htmlLink"`
	HangoutLink string         `json:"hangoutLink"`
	Start       wireTime       `json:"start"`
	End         wireTime       `json:"end"`
	Attendees   []wireAttendee `json:"attendees"`
	Conference  struct {
		CreateRequest struct {
			RequestID string `json:"requestId"`
			Status    struct {
				Code string `json:"statusCode"`
			} `json:"status"`
		} `json:"createRequest"`
		EntryPoints []struct {
			Type string `json:"entryPointType"`
			URI  string `json:"uri"`
		} `json:"entryPoints"`
	} `json:"conferenceData"`
}

type wireTime struct {
	DateTime string `json:"dateTime"`
	Date     string `json:"date"`
	TimeZone string `json:"timeZone"`
}

func (w *wireEvent) event() Event {
	ev := Event{ID: w.ID, Status: w.Status, Summary: w.Summary, Description: w.Description, HTMLLink: w.HTMLLink,
		Start: w.Start.time(), End: w.End.time(), TimeZone: w.Start.TimeZone,
		RequestID: w.Conference.CreateRequest.RequestID, ConferenceStatus: w.Conference.CreateRequest.Status.Code}
	for _, a := range w.Attendees {
		ev.Attendees = append(ev.Attendees, Attendee(a))
	}
	links := []string{w.HangoutLink}
	for _, p := range w.Conference.EntryPoints {
		if p.Type == "video" {
			links = append(links, p.URI)
		}
	}
	for _, l := range links { // it goes to customers: nothing but a web address
		if u, err := url.Parse(l); err == nil && u.Scheme == "https" && u.Host != "" && ev.MeetURL == "" {
			ev.MeetURL = l
		}
	}
	switch {
	case ev.ConferenceStatus == "" && ev.MeetURL != "": // made by hand, in Google's calendar
		ev.ConferenceStatus = ConferenceSuccess
	case ev.ConferenceStatus == ConferenceSuccess && ev.MeetURL == "": // Google says so a moment before the link is there
		ev.ConferenceStatus = ConferencePending
	}
	return ev
}

// time reads a moment; a whole day begins at midnight of its zone.
func (w wireTime) time() time.Time {
	if at, err := time.Parse(time.RFC3339, w.DateTime); err == nil {
		return at.UTC()
	}
	zone, err := time.LoadLocation(w.TimeZone) // "" is UTC
	if err != nil {
		zone = time.UTC
	}
	at, err := time.ParseInLocation(time.DateOnly, w.Date, zone)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}
