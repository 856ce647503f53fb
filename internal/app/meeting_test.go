package app_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/google/googletest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const calendarUser = "ana@clinic.example"

// newGoogle starts a Google that knows one user, whose grant newClient's clients may hold.
func newGoogle(t *testing.T, cfg googletest.Config) *googletest.Server {
	t.Helper()
	s, err := googletest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddGrant(googletest.Grant{User: calendarUser, ClientID: "cid", ClientSecret: "client-secret-1", RefreshToken: "refresh-1"})
	return s
}

func withGoogle(s *googletest.Server) func(*app.Config) {
	return func(c *app.Config) { c.GoogleURL = s.URL }
}

func (c *client) googleAccount(refresh string) {
	c.e.t.Helper()
	c.e.admin("PUT", "/api/clients/"+c.Code+"/secrets/google", map[string]any{"clientId": "cid", "clientSecret": "client-secret-1", "refreshToken": refresh}).want(200)
}

// clinic is an engine with a Google and one client that has an account there.
func clinic(t *testing.T, cfg googletest.Config) (*client, *googletest.Server) {
	t.Helper()
	g := newGoogle(t, cfg)
	e := start(t, t.TempDir(), newMeta(t), withGoogle(g))
	c := e.addClient("ACME", 1)
	c.googleAccount("refresh-1")
	return c, g
}

// book books an appointment and gives its id.
func (c *client) book(body map[string]any) string {
	c.e.t.Helper()
	all := map[string]any{"phone": "918143963821", "name": "Dhanesh", "title": "Consultation", "durationMinutes": 30, "reminders": []string{},
		"startsAt": time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339)}
	for k, v := range body {
		all[k] = v
	}
	id, _ := c.call("POST", "/api/appointments", all).want(201).get("id").(string)
	return id
}

func (c *client) appointment(id string) *answer {
	c.e.t.Helper()
	return c.call("GET", "/api/appointments/"+id, nil).want(200)
}

// linkOf waits for an appointment's link.
func (c *client) linkOf(id string) string {
	c.e.t.Helper()
	var url string
	eventuallyIn(c.e.t, takeover, "the link", func() string {
		a := c.appointment(id)
		url, _ = a.get("meetUrl").(string)
		if url == "" || a.get("meet.state") != "ready" {
			return string(a.Body)
		}
		return ""
	})
	return url
}

// texts are what the fake Meta took of texts, in order.
func (e *engine) texts() []string {
	var out []string
	for _, a := range e.meta.Accepted() {
		s := string(a.Body)
		if i := strings.Index(s, `"body":"`); i >= 0 {
			s = s[i+8:]
			out = append(out, s[:strings.IndexByte(s, '"')])
		}
	}
	return out
}

// hears makes a rule that answers a trigger with a text. The customer wrote before, so that texts may be sent.
func (c *client) hears(trigger, text string) {
	c.e.t.Helper()
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": trigger, "trigger": trigger, "enabled": true, "reenrol": "every_event",
		"actions": []map[string]any{{"type": "whatsapp.text", "text": text}}}).want(201)
}

func (c *client) wants(texts ...string) {
	c.e.t.Helper()
	eventually(c.e.t, "the texts", func() string {
		if got := c.e.texts(); fmt.Sprint(got) != fmt.Sprint(texts) {
			return fmt.Sprintf("%q, want %q", got, texts)
		}
		return ""
	})
}

// Many links asked for at once are made at the pace that the calendar allows, and none is left out.
func TestMeetKeepsTheCalendarsPace(t *testing.T) {
	t.Parallel()
	c, g := clinic(t, googletest.Config{})
	const n = 25
	for i := range n {
		c.book(map[string]any{"phone": fmt.Sprintf("9181439638%02d", i), "meet": true})
	}
	writes, err := g.WaitWrites(within(takeover), n)
	if err != nil {
		t.Fatalf("%d of %d: %v", len(writes), n, err)
	}
	// Ten at once, then five a second; what one claim gave may be late by a moment.
	if took := writes[n-1].At.Sub(writes[0].At); took < 2*time.Second {
		t.Errorf("%d links took %v", n, took)
	}
	if len(g.Events(calendarUser)) != n {
		t.Errorf("%d events", len(g.Events(calendarUser)))
	}
}

// TestMeetLinkInLaterAction: a rule makes a link, and a later template carries it.
func TestMeetLinkInLaterAction(t *testing.T) {
	t.Parallel()
	c, g := clinic(t, googletest.Config{PendingPolls: 1})
	startsAt := time.Now().Add(72 * time.Hour).UTC().Truncate(time.Second)
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "Meet", "trigger": "appointment_confirmed", "enabled": true,
		"actions": []map[string]any{
			{"type": "meet.create", "title": "Consultation with {{patientName}}", "startsAt": "{{startsAt}}", "durationMinutes": 45, "timeZone": "Asia/Kolkata"},
			{"type": "whatsapp.template", "template": "appointment_confirmed", "language": "en", "parameters": []string{"{{patientName}}", "{{meet.url}}", "{{appointment.date}}"}},
			{"type": "lead.set", "fields": map[string]any{"link": "{{appointment.meetUrl}}"}},
		}}).want(201)
	ev := confirmEvent(map[string]any{"eventId": "bk-1", "email": "d@example.com"})
	ev["variables"] = map[string]any{"patientName": "Dhanesh", "startsAt": startsAt.Format(time.RFC3339)}
	res := c.call("POST", "/api/crm/automations/events", ev).want(202)
	eventually(t, "the template", func() string {
		if n := len(c.e.meta.Accepted()); n != 1 {
			return fmt.Sprintf("%d messages; run %s", n, c.call("GET", "/api/crm/automations/runs/"+res.get("runs.0.runId").(string), nil).Body)
		}
		return ""
	})
	events := g.Events(calendarUser)
	if len(events) != 1 || events[0].Summary != "Consultation with Dhanesh" || !events[0].Start.Equal(startsAt) || !events[0].End.Equal(startsAt.Add(45*time.Minute)) ||
		len(events[0].Attendees) != 1 || events[0].Attendees[0].Email != "d@example.com" || events[0].TimeZone != "Asia/Kolkata" {
		t.Fatalf("events %+v", events)
	}
	link := events[0].Conference.URL
	if body := string(c.e.meta.Accepted()[0].Body); !strings.Contains(body, link) || strings.Contains(body, "{{") {
		t.Errorf("sent %s, want the link %s", body, link)
	}
	eventually(t, "the run", func() string {
		r := c.call("GET", "/api/crm/automations/runs/"+res.get("runs.0.runId").(string), nil).want(200)
		if r.get("state") != "done" {
			return string(r.Body)
		}
		return ""
	})
	if l := c.call("GET", "/api/crm/leads/"+res.get("leadId").(string), nil).want(200); l.get("fields.link") != link {
		t.Errorf("lead %s", l.Body)
	}
	list := c.call("GET", "/api/appointments?leadId="+res.get("leadId").(string), nil).want(200)
	if list.get("items.0.meetUrl") != link || list.get("items.1") != nil || list.get("items.0.runId") == nil {
		t.Errorf("appointments %s", list.Body)
	}
	if plan := list.get("items.0.reminders"); fmt.Sprint(plan) != "[-24h -1h]" {
		t.Errorf("reminders %v", plan)
	}
	jobs := c.call("GET", "/api/jobs?type=appointment.reminder&state=scheduled", nil).want(200)
	if jobs.get("items.1") == nil || jobs.get("items.2") != nil {
		t.Errorf("reminder jobs %s", jobs.Body)
	}
}

// TestMeetWithoutGoogle: a step that nobody can do says so; so does the API.
func TestMeetWithoutGoogle(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "Meet", "trigger": "appointment_confirmed", "enabled": true,
		"actions": []map[string]any{{"type": "meet.create", "title": "Consultation", "startsAt": "{{startsAt}}", "durationMinutes": 45}}}).want(201)
	ev := confirmEvent(nil)
	ev["variables"] = map[string]any{"startsAt": time.Now().Add(time.Hour).Format(time.RFC3339)}
	res := c.call("POST", "/api/crm/automations/events", ev).want(202)
	run := c.call("GET", "/api/crm/automations/runs/"+res.get("runs.0.runId").(string), nil).want(200)
	if run.get("state") != "failed" || run.get("steps.0.error.code") != "google.not_configured" {
		t.Errorf("run %s", run.Body)
	}
	c.call("POST", "/api/appointments", map[string]any{"phone": "12025550143", "title": "T", "meet": true,
		"startsAt": time.Now().Add(time.Hour).Format(time.RFC3339)}).problem(409, "google.not_configured")
	if l := c.call("GET", "/api/crm/leads?phone=12025550143", nil).want(200); l.get("items.0") != nil {
		t.Errorf("a refused booking made a lead: %s", l.Body)
	}
}

// TestAppointmentThroughTheCalendar: booked, moved, renamed and cancelled; the calendar follows, once each.
func TestAppointmentThroughTheCalendar(t *testing.T) {
	t.Parallel()
	c, g := clinic(t, googletest.Config{PendingPolls: 1})
	c.say("hello")
	c.hears("appointment_confirmed", "booked {{doctorName}} {{appointment.meetUrl}}")
	c.hears("appointment_rescheduled", "moved {{appointment.date}} {{appointment.time}}")
	c.hears("appointment_cancelled", "cancelled {{doctorName}}")
	id := c.book(map[string]any{"meet": true, "announce": true, "timeZone": "Asia/Kolkata", "startsAt": "2027-03-01T10:00", "variables": map[string]any{"doctorName": "Arjun"},
		"attendees": []map[string]any{{"email": "Guest@Example.com", "name": "Guest"}}})
	a := c.appointment(id)
	if a.get("startsAt") != "2027-03-01T04:30:00.000Z" || a.get("endsAt") != "2027-03-01T05:00:00.000Z" || a.get("meet.requested") != true || a.get("status") != "confirmed" {
		t.Fatalf("%s", a.Body)
	}
	link := c.linkOf(id)
	c.wants("booked Arjun " + link)
	c.call("PATCH", "/api/appointments/"+id, map[string]any{"startsAt": "2027-03-02T16:30"}).want(200)
	c.wants("booked Arjun "+link, "moved 2027-03-02 16:30")
	eventually(t, "the moved event", func() string {
		if ev := g.Events(calendarUser); len(ev) != 1 || !ev[0].Start.Equal(time.Date(2027, 3, 2, 11, 0, 0, 0, time.UTC)) || ev[0].Conference.URL != link {
			return fmt.Sprintf("%+v", ev)
		}
		return ""
	})
	// the same time again is no change, and nobody hears of it
	c.call("PATCH", "/api/appointments/"+id, map[string]any{"startsAt": "2027-03-02T11:00:00Z"}).want(200)
	old := c.appointment(id)
	c.call("PATCH", "/api/appointments/"+id, map[string]any{"title": "Second opinion"}).want(200)
	c.e.send("PATCH", "/api/appointments/"+id, map[string]any{"title": "Late"}, map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, "If-Match": old.Header.Get("ETag")}).problem(409, "version.conflict")
	eventually(t, "the new title", func() string {
		if ev := g.Events(calendarUser); len(ev) != 1 || ev[0].Summary != "Second opinion" {
			return fmt.Sprintf("%+v", ev)
		}
		return ""
	})
	ics := c.call("GET", "/api/appointments/"+id+"/ics", nil).want(200)
	if s := string(ics.Body); !strings.Contains(s, "METHOD:PUBLISH\r\n") || !strings.Contains(s, "DTSTART:20270302T110000Z\r\n") || !strings.Contains(s, "URL:"+link+"\r\n") {
		t.Errorf("%s", s)
	}
	c.call("DELETE", "/api/appointments/"+id, nil).want(204)
	c.call("DELETE", "/api/appointments/"+id, nil).want(204)
	c.wants("booked Arjun "+link, "moved 2027-03-02 16:30", "cancelled Arjun")
	eventually(t, "the cancelled event", func() string {
		if ev := g.Events(calendarUser); len(ev) != 0 {
			return fmt.Sprintf("%+v", ev)
		}
		return ""
	})
	if a := c.appointment(id); a.get("status") != "cancelled" || a.get("cancelledAt") == nil {
		t.Errorf("%s", a.Body)
	}
	c.call("PATCH", "/api/appointments/"+id, map[string]any{"title": "Back"}).problem(409, "appointment.cancelled")
	if s := string(c.call("GET", "/api/appointments/"+id+"/ics", nil).want(200).Body); !strings.Contains(s, "METHOD:CANCEL\r\n") || !strings.Contains(s, "STATUS:CANCELLED\r\n") {
		t.Errorf("%s", s)
	}
	var kinds []string
	for _, w := range g.Writes() {
		kinds = append(kinds, w.Kind)
		if w.SendUpdates != "all" {
			t.Errorf("the guest does not hear of %s", w.Kind)
		}
	}
	if got := strings.Join(kinds, " "); got != "insert patch patch delete" {
		t.Errorf("the calendar was changed by %s", got)
	}
}

// say lets the customer write, so that texts may be sent to them.
func (c *client) say(text string) {
	c.e.t.Helper()
	body := whatsapptest.Batch(c.e.meta.InboundText(c.Number, "918143963821", "Dhanesh", text))
	c.e.webhook(body).want(200)
	eventually(c.e.t, "the inbound message", func() string {
		if c.call("GET", "/api/whatsapp/conversations", nil).want(200).get("items.0") == nil {
			return "not there"
		}
		return ""
	})
}

// TestMeetInTrouble: a limit and a 503 are waited for; a lost answer makes no second event.
func TestMeetInTrouble(t *testing.T) {
	t.Parallel()
	c, g := clinic(t, googletest.Config{})
	g.On("insert", 1, googletest.TooMany(time.Second))
	g.On("insert", 1, googletest.Unavailable())
	g.On("insert", 1, googletest.ResetAfterAccepting())
	id := c.book(map[string]any{"meet": true})
	link := c.linkOf(id)
	if ws := g.Writes(); len(ws) != 1 || ws[0].Event.Conference.URL != link || ws[0].SendUpdates != "none" {
		t.Errorf("%+v", ws)
	}
	if n := g.Count("insert"); n != 4 {
		t.Errorf("%d inserts", n)
	}
	// what Google refuses for good is told, and can be asked for again
	g.On("insert", 1, googletest.ConferenceFails())
	id = c.book(map[string]any{"meet": true, "phone": "12025550143"})
	eventually(t, "the failure", func() string {
		if a := c.appointment(id); a.get("meet.state") != "failed" || a.get("meet.error.code") != "meet.refused" {
			return string(a.Body)
		}
		return ""
	})
	c.call("PATCH", "/api/appointments/"+id, map[string]any{"meet": true}).want(200)
	c.linkOf(id)
	if len(g.Events(calendarUser)) != 2 {
		t.Errorf("%+v", g.Events(calendarUser))
	}
}

// TestMeetDeletedInTheCalendar: what somebody deleted in Google is made anew when the appointment moves.
func TestMeetDeletedInTheCalendar(t *testing.T) {
	t.Parallel()
	c, g := clinic(t, googletest.Config{})
	id := c.book(map[string]any{"meet": true})
	first := c.linkOf(id)
	event, _ := c.appointment(id).get("meet.eventId").(string)
	g.Edit(calendarUser, event, func(e *googletest.Event) { e.Status = "cancelled" })
	at := time.Now().Add(96 * time.Hour).UTC().Truncate(time.Second)
	c.call("PATCH", "/api/appointments/"+id, map[string]any{"startsAt": at.Format(time.RFC3339)}).want(200)
	eventually(t, "the new event", func() string {
		if ev := g.Events(calendarUser); len(ev) != 1 || !ev[0].Start.Equal(at) {
			return fmt.Sprintf("%+v", ev)
		}
		return ""
	})
	eventually(t, "the new link", func() string {
		if a := c.appointment(id); a.get("meet.state") != "ready" || a.get("meetUrl") == first || a.get("meet.eventId") == event {
			return string(a.Body)
		}
		return ""
	})
}

// TestGoogleNeedsAttention: a revoked grant holds the jobs and says so; a new one lets them go on.
func TestGoogleNeedsAttention(t *testing.T) {
	t.Parallel()
	c, g := clinic(t, googletest.Config{})
	g.Revoke("refresh-1")
	id := c.book(map[string]any{"meet": true})
	eventually(t, "the attention", func() string {
		a := c.appointment(id)
		if a.get("meet.error.code") != "google.credential" || a.get("meet.state") != "pending" || a.get("meetUrl") != nil {
			return string(a.Body)
		}
		return ""
	})
	var jobs *answer
	eventually(t, "the held job", func() string {
		if jobs = c.call("GET", "/api/jobs?type=meet.create", nil).want(200); jobs.get("items.0.state") != "parked" {
			return string(jobs.Body)
		}
		return ""
	})
	secrets := c.e.admin("GET", "/api/clients/ACME/secrets", nil).want(200)
	if !strings.Contains(string(secrets.Body), `"attention":{"reason":"invalid_grant"`) {
		t.Errorf("%s", secrets.Body)
	}
	if n := g.Count("token"); n > 3 {
		t.Errorf("%d calls with a revoked grant", n)
	}
	g.AddGrant(googletest.Grant{User: calendarUser, ClientID: "cid", ClientSecret: "client-secret-1", RefreshToken: "refresh-2"})
	c.googleAccount("refresh-2")
	c.linkOf(id)
	if a := c.appointment(id); a.get("meet.error") != nil {
		t.Errorf("%s", a.Body)
	}
	if secrets = c.e.admin("GET", "/api/clients/ACME/secrets", nil).want(200); strings.Contains(string(secrets.Body), "invalid_grant") {
		t.Errorf("%s", secrets.Body)
	}
	if log := c.e.log.String(); strings.Contains(log, "refresh-1") || strings.Contains(log, "client-secret-1") {
		t.Error("a secret is in the log")
	}
}

// TestMeetCrash: the process is killed while Google has made the event and has not answered; there is one event.
func TestMeetCrash(t *testing.T) {
	t.Parallel()
	g, meta, dir := newGoogle(t, googletest.Config{}), newMeta(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_GOOGLE_URL="+g.URL)
	c := p.addClient("ACME", 1)
	c.googleAccount("refresh-1")
	g.On("insert", 1, googletest.HangAfterAccepting())
	id := c.book(map[string]any{"meet": true})
	if _, err := g.WaitWrites(within(20*time.Second), 1); err != nil {
		t.Fatal(err)
	}
	p.kill()
	c.e = serve(t, dir, meta, "ECOD_GOOGLE_URL="+g.URL).engine
	c.linkOf(id)
	if ws := g.Writes(); len(ws) != 1 {
		t.Errorf("%d writes: %+v", len(ws), ws)
	}
}
