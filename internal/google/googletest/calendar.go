package googletest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Event is an event as it stands.
type Event struct {
	CalendarID  string
	ID          string
	Status      string // "confirmed", "cancelled"
	Summary     string
	Description string
	Start, End  time.Time
	TimeZone    string
	Attendees   []Attendee
	Conference  *Conference // nil: none
	Creator     string      // the user's e-mail address
	Sequence    int         // how often its times changed
}

// Attendee is somebody invited.
type Attendee struct {
	Email  string `json:"email"`
	Name   string `json:"displayName,omitempty"`
	Answer string `json:"responseStatus"` // "needsAction", "accepted", "declined"
}

// Conference is an event's Meet link, made or in the making.
type Conference struct {
	RequestID string
	Status    string // "pending", "success", "failure"
	URL       string

	polls int // readings until it is there
}

func (e *Event) clone() Event {
	c := *e
	c.Attendees = slices.Clone(e.Attendees)
	if e.Conference != nil {
		conf := *e.Conference
		c.Conference = &conf
	}
	return c
}

type calendar struct {
	id, zone string
	roles    map[string]string // by user: "owner", "writer", "reader"
	events   map[string]*Event
}

// own makes a user's own calendar known. The server is locked.
func (s *Server) own(user string) {
	if s.calendars[user] == nil {
		s.calendars[user] = &calendar{id: user, zone: "UTC", roles: map[string]string{user: "owner"}, events: map[string]*Event{}}
	}
}

// Share makes a calendar known and gives a user a role in it: "owner", "writer" or "reader".
func (s *Server) Share(calendarID, user, role string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own(calendarID)
	s.calendars[calendarID].roles[user] = role
}

// Event gives an event as it stands. calendarID is a user's e-mail address for the user's own.
func (s *Server) Event(calendarID, id string) (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calendars[calendarID]
	if c == nil || c.events[id] == nil {
		return Event{}, false
	}
	return c.events[id].clone(), true
}

// Events gives the events of a calendar that stand, in order of start and id.
func (s *Server) Events(calendarID string) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Event
	if c := s.calendars[calendarID]; c != nil {
		for _, e := range c.events {
			if e.Status == "confirmed" {
				out = append(out, e.clone())
			}
		}
	}
	slices.SortFunc(out, func(a, b Event) int {
		if c := a.Start.Compare(b.Start); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// Edit changes an event behind the client's back, as a person in Google Calendar would.
func (s *Server) Edit(calendarID, id string, f func(*Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.calendars[calendarID]; c != nil && c.events[id] != nil {
		f(c.events[id])
	}
}

// Forget removes all that is left of an event, as Google does some time after it was
// cancelled; the id stays taken.
func (s *Server) Forget(calendarID, id string) {
	s.Edit(calendarID, id, func(e *Event) { *e = Event{ID: id, Status: "forgotten"} })
}

// serve answers a Calendar call of somebody who may make it.
func (s *Server) serve(r *http.Request, req *Request, who *access, calendarID, id string, body []byte, f *Fault) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if calendarID == "primary" {
		calendarID = who.user
	}
	c := s.calendars[calendarID]
	if c == nil || c.roles[who.user] == "" {
		return refuse(http.StatusNotFound, "notFound", "Not Found")
	}
	reads := req.Kind == "get" || req.Kind == "list"
	if role := c.roles[who.user]; !reads && role != "owner" && role != "writer" {
		return refuse(http.StatusForbidden, "requiredAccessLevel", "You need to have writer access to this calendar.")
	}
	if req.Kind == "list" {
		return reply(map[string]any{"kind": "calendar#events", "timeZone": c.zone, "accessRole": c.roles[who.user], "items": []any{}})
	}
	e := c.events[id]
	if req.Kind != "insert" && (e == nil || e.Status == "forgotten") {
		return refuse(http.StatusNotFound, "notFound", "Not Found")
	}
	updates := r.URL.Query().Get("sendUpdates")
	if !reads && updates != "" && updates != "all" && updates != "none" && updates != "externalOnly" {
		return refuse(http.StatusBadRequest, "invalidParameter", "Invalid value for: sendUpdates")
	}
	switch req.Kind {
	case "get":
		e.poll()
		return reply(e.wire(c))
	case "delete":
		if e.Status == "cancelled" {
			return refuse(http.StatusGone, "deleted", "Resource has been deleted")
		}
		e.Status = "cancelled"
		s.wrote("delete", "cancelled", who, c, e, updates)
		return answer{status: http.StatusNoContent}
	}
	insert := req.Kind == "insert"
	if !insert && e.Status == "cancelled" {
		return reply(e.wire(c)) // a change does not bring it back
	}
	in, refusal := decode(body, insert)
	if refusal != nil {
		return *refusal
	}
	if insert {
		if in.ID == "" {
			in.ID = strings.Map(func(r rune) rune { return (r-'a')%('w'-'a') + 'a' }, newID(26)) // Google's letters end with v
		}
		if c.events[in.ID] != nil { // cancelled ones, too
			return refuse(http.StatusConflict, "duplicate", "The requested identifier already exists.")
		}
		e = &Event{CalendarID: c.id, ID: in.ID, Status: "confirmed", Creator: who.user}
	}
	next := e.clone()
	if refusal := s.apply(&next, in, who, r.URL.Query().Get("conferenceDataVersion") == "1", insert, f); refusal != nil {
		return *refusal
	}
	*e = next
	kind, mail := "patch", "updated"
	if insert {
		c.events[e.ID] = e
		kind, mail = "insert", "invited"
	}
	s.wrote(kind, mail, who, c, e, updates)
	return reply(e.wire(c))
}

// input is an event as it is written. What the engine does not use is refused, so that a misspelt name is seen.
type input struct {
	ID          string      `json:"id"`
	Summary     *string     `json:"summary"`
	Description *string     `json:"description"`
	Start       *when       `json:"start"`
	End         *when       `json:"end"`
	Attendees   *[]Attendee `json:"attendees"`
	Conference  *struct {
		CreateRequest *struct {
			RequestID string `json:"requestId"`
			Key       struct {
				Type string `json:"type"`
			} `json:"conferenceSolutionKey"`
		} `json:"createRequest"`
	} `json:"conferenceData"`
}

type when struct {
	DateTime string  `json:"dateTime"`
	Date     *string `json:"date,omitempty"`
	TimeZone string  `json:"timeZone,omitempty"`
}

func decode(body []byte, insert bool) (*input, *answer) {
	var in input
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, bad("parseError", "Parse Error: "+err.Error())
	}
	if in.ID != "" && (len(in.ID) < 5 || len(in.ID) > 1024 || strings.Trim(in.ID, "0123456789abcdefghijklmnopqrstuv") != "") {
		return nil, bad("invalid", "Invalid resource id value.")
	}
	if insert && in.Start == nil {
		return nil, bad("required", "Missing start time.")
	}
	if insert && in.End == nil {
		return nil, bad("required", "Missing end time.")
	}
	return &in, nil
}

func bad(reason, message string) *answer {
	a := refuse(http.StatusBadRequest, reason, message)
	return &a
}

// apply writes the input on an event, or tells why not.
func (s *Server) apply(e *Event, in *input, who *access, conferences, insert bool, f *Fault) *answer {
	if in.Summary != nil {
		e.Summary = *in.Summary
	}
	if in.Description != nil {
		e.Description = *in.Description
	}
	start, end := e.Start, e.End
	for _, x := range []struct {
		in   *when
		into *time.Time
		name string
	}{{in.Start, &e.Start, "start"}, {in.End, &e.End, "end"}} {
		if x.in == nil {
			continue
		}
		if _, err := time.LoadLocation(x.in.TimeZone); err != nil {
			return bad("invalid", "Invalid time zone definition for "+x.name+" time.")
		}
		at, err := time.Parse(time.RFC3339, x.in.DateTime)
		if err != nil || x.in.Date != nil {
			return bad("invalid", "Invalid "+x.name+" time.")
		}
		*x.into = at.UTC()
		if x.in.TimeZone != "" {
			e.TimeZone = x.in.TimeZone
		}
	}
	if !e.End.After(e.Start) {
		return bad("timeRangeEmpty", "The specified time range is empty.")
	}
	if !insert && (!e.Start.Equal(start) || !e.End.Equal(end)) {
		e.Sequence++
	}
	if in.Attendees != nil {
		if who.alone && len(*in.Attendees) > 0 {
			a := refuse(http.StatusForbidden, "forbiddenForServiceAccounts", "Service accounts cannot invite attendees without Domain-Wide Delegation of Authority.")
			return &a
		}
		e.Attendees = nil
		for _, a := range *in.Attendees {
			if local, domain, ok := strings.Cut(a.Email, "@"); !ok || local == "" || domain == "" || strings.ContainsAny(a.Email, " \t\r\n") {
				return bad("invalid", "Invalid attendee email.")
			}
			if a.Answer == "" {
				a.Answer = "needsAction"
			}
			e.Attendees = append(e.Attendees, a)
		}
	}
	if in.Conference == nil || !conferences { // dropped in silence, as Google does
		return nil
	}
	ask := in.Conference.CreateRequest
	switch {
	case ask == nil || ask.RequestID == "":
		return bad("required", "Missing conference request id.")
	case ask.Key.Type != "hangoutsMeet" || who.alone:
		return bad("invalid", "Invalid conference type value.")
	case e.Conference != nil && e.Conference.RequestID == ask.RequestID: // the request before: ignored
		return nil
	}
	e.Conference = s.conference(who.user, ask.RequestID, f)
	return nil
}

// conference makes a link; the same request of the same user gives the same one.
func (s *Server) conference(user, requestID string, f *Fault) *Conference {
	key := user + "\x00" + requestID
	if s.links[key] == "" {
		id := strings.ToLower(newID(10))
		s.links[key] = "https://meet.google.com/" + id[:3] + "-" + id[3:7] + "-" + id[7:]
	}
	c := &Conference{RequestID: requestID, Status: "pending", URL: s.links[key], polls: s.cfg.PendingPolls}
	if f != nil && f.conference != nil {
		f.conference(c)
	}
	if c.polls == 0 && c.Status == "pending" {
		c.Status = "success"
	}
	return c
}

// poll is a reading: what is pending gets nearer.
func (e *Event) poll() {
	if c := e.Conference; c != nil && c.Status == "pending" {
		if c.polls--; c.polls == 0 { // below it, it stays so
			c.Status = "success"
		}
	}
}

// wire is the event as Google writes it.
func (e *Event) wire(c *calendar) map[string]any {
	if e.Status == "cancelled" { // no more than this is promised of one
		return map[string]any{"kind": "calendar#event", "id": e.ID, "status": e.Status}
	}
	zone := e.TimeZone
	if zone == "" {
		zone = c.zone
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		loc = time.UTC
	}
	at := func(t time.Time) when { return when{DateTime: t.In(loc).Format(time.RFC3339), TimeZone: zone} }
	m := map[string]any{
		"kind": "calendar#event", "id": e.ID, "status": e.Status, "summary": e.Summary, "description": e.Description, "sequence": e.Sequence,
		"htmlLink": "https://www.google.com/calendar/event?eid=" + e.ID, "iCalUID": e.ID + "@google.com",
		"creator": map[string]any{"email": e.Creator}, "organizer": map[string]any{"email": c.id, "self": true},
		"start": at(e.Start), "end": at(e.End), "reminders": map[string]any{"useDefault": true},
	}
	if len(e.Attendees) > 0 {
		m["attendees"] = e.Attendees
	}
	if k := e.Conference; k != nil {
		solution := map[string]any{"type": "hangoutsMeet"}
		conf := map[string]any{"createRequest": map[string]any{"requestId": k.RequestID, "conferenceSolutionKey": solution, "status": map[string]any{"statusCode": k.Status}}}
		if k.Status == "success" {
			conf["conferenceId"] = strings.TrimPrefix(k.URL, "https://meet.google.com/")
			conf["conferenceSolution"] = map[string]any{"key": solution, "name": "Google Meet"}
			conf["entryPoints"] = []any{
				map[string]any{"entryPointType": "phone", "uri": "tel:+1-202-555-0143", "pin": "123456789"},
				map[string]any{"entryPointType": "video", "uri": k.URL},
			}
			m["hangoutLink"] = k.URL
		}
		m["conferenceData"] = conf
	}
	return m
}
