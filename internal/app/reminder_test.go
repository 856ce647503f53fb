package app_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/google/googletest"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
)

const reminded = "918143963821"

// surgery is a client whose customer may be written to, with rules on reminders and changes.
func surgery(t *testing.T, dir string) *client {
	t.Helper()
	c := start(t, dir, newMeta(t)).addClient("ACME", 1)
	c.say("hello")
	c.hears("appointment_reminder", "{{doctor}} {{reminder}} {{appointment.startsAt}}")
	return c
}

// soon is a moment some seconds ahead, to the second.
func soon(s int) time.Time {
	return time.Now().Add(time.Duration(s) * time.Second).UTC().Truncate(time.Second)
}

func (c *client) reminders(id string) string {
	c.e.t.Helper()
	var out []string
	a := c.appointment(id)
	for i := 0; a.get(fmt.Sprintf("reminderPlan.%d", i)) != nil; i++ {
		p := fmt.Sprintf("reminderPlan.%d.", i)
		out = append(out, fmt.Sprint(a.get(p+"offset"), " ", a.get(p+"state"), " ", a.get(p+"reason")))
	}
	return strings.Join(out, ", ")
}

// TestReminders: one whose moment has passed is none; the other is given once, at its moment.
func TestReminders(t *testing.T) {
	t.Parallel()
	c := surgery(t, t.TempDir())
	at := soon(5)
	id := c.book(map[string]any{"startsAt": at, "reminders": []string{"-24h", "-2s"}, "variables": map[string]any{"doctor": "Arjun"}})
	if got := c.reminders(id); got != "-24h skipped too_late, -2s planned <nil>" {
		t.Errorf("planned %s", got)
	}
	eventually(t, "the reminder", func() string { return unless(len(c.texts(reminded)) == 1, c.reminders(id)) })
	m := c.e.meta.Accepted()[0]
	if want := "Arjun -2s " + at.Format(time.RFC3339); m.Text != want || m.At.Before(at.Add(-2*time.Second)) || m.At.After(at) {
		t.Errorf("sent %q at %s, want %q", m.Text, m.At, want)
	}
	if got := c.reminders(id); got != "-24h skipped too_late, -2s fired <nil>" {
		t.Errorf("then %s", got)
	}
	pass(t, at)
	if got := c.texts(reminded); len(got) != 1 {
		t.Errorf("sent %q", got)
	}
}

func unless(ok bool, why string) string {
	if ok {
		return ""
	}
	return why
}

// TestRemindersFollowTheAppointment: moved right before its reminder, it has one, for the new time; cancelled, none.
func TestRemindersFollowTheAppointment(t *testing.T) {
	t.Parallel()
	c := surgery(t, t.TempDir())
	old, at := soon(5), soon(10)
	id := c.book(map[string]any{"startsAt": old, "reminders": []string{"-3s"}, "variables": map[string]any{"doctor": "Arjun"}})
	gone := c.book(map[string]any{"startsAt": at, "reminders": []string{"-3s"}, "variables": map[string]any{"doctor": "Nobody"}})
	jobs := c.call("GET", "/api/jobs?type=appointment.reminder", nil).want(200)
	c.call("PATCH", "/api/appointments/"+id, map[string]any{"startsAt": at}).want(200)
	c.call("DELETE", "/api/appointments/"+gone, nil).want(204)
	eventually(t, "the old reminders' jobs are given up", func() string {
		n := 0
		for i := range 2 {
			if c.call("GET", "/api/jobs/"+jobs.get(fmt.Sprintf("items.%d.id", i)).(string), nil).want(200).get("state") == "cancelled" {
				n++
			}
		}
		return unless(n == 2, fmt.Sprint(n))
	})
	pass(t, at)
	if got, want := c.texts(reminded), "Arjun -3s "+at.Format(time.RFC3339); len(got) != 1 || got[0] != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	if got := c.reminders(gone); got != "-3s skipped cancelled" {
		t.Errorf("cancelled: %s", got)
	}
}

// TestNoReminderLate: what a stopped engine slept through is not made up for.
func TestNoReminderLate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := surgery(t, dir)
	at := soon(5)
	id := c.book(map[string]any{"startsAt": at, "reminders": []string{"-3s", "-1s"}, "variables": map[string]any{"doctor": "Arjun"}})
	half := c.book(map[string]any{"startsAt": at.Add(3 * time.Second), "reminders": []string{"-6s"}, "variables": map[string]any{"doctor": "Half"}})
	c.e.stop()
	pass(t, at)
	c.e = start(t, dir, c.e.meta)
	eventually(t, "the jobs expire", func() string {
		jobs := c.call("GET", "/api/jobs?type=appointment.reminder&state=expired", nil).want(200)
		return unless(jobs.get("items.1") != nil, string(jobs.Body))
	})
	if got := c.reminders(id); got != "-3s missed <nil>, -1s missed <nil>" {
		t.Errorf("%s", got)
	}
	eventually(t, "half of the way is over", func() string { return unless(c.reminders(half) == "-6s skipped late", c.reminders(half)) })
	if got := c.texts(reminded); len(got) != 0 {
		t.Errorf("sent %q", got)
	}
}

// TestCancelledWhileTheReminderIsOnItsWay: nothing leaves once the appointment is cancelled, moved, or has begun.
func TestCancelledWhileTheReminderIsOnItsWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(w *world)
		exit string
	}{
		"cancelled": {func(w *world) {
			_, err := w.diary.HandleChange(context.Background(), w.tn, w.mutationJob(meeting.Mutation{ID: "b3", Cancel: true}))
			w.must(err)
		}, "appointment_cancelled"},
		"moved":     {func(w *world) { w.moved() }, "appointment_rescheduled"},
		"begun":     {func(w *world) { w.now = w.appointment().StartsAt }, ""},
		"unchanged": {func(*world) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.rule(`{"trigger":"appointment_reminder","actions":[{"type":"whatsapp.template","template":"hello","language":"en","parameters":["{{doctor}}"]}]}`)
			w.booked(func(b *meeting.Booking) { b.Meet, b.Attendees = false, nil })
			w.now = w.appointment().StartsAt.Add(-time.Hour)
			if n := w.follow(w.diary.HandleReminder, w.reminderJob("-1h"), rule.EventJob, w.engine.HandleEvent); n != 1 {
				t.Fatalf("%d events", n)
			}
			c.do(w)
			_, err := w.desk.HandleSend(context.Background(), w.tn, w.sendJob(1))
			w.must(ignoreVerdict(err))
			m := w.firstMessage()
			if name == "unchanged" {
				if len(w.meta.Accepted()) != 1 {
					t.Error("nothing was sent")
				}
				return
			}
			if len(w.meta.Accepted()) != 0 || m.Status != chat.FailedSend {
				t.Errorf("message %s, %d sent", m.Status, len(w.meta.Accepted()))
			}
			if got := w.onlyRun().ExitReason; got != c.exit {
				t.Errorf("left because of %q", got)
			}
		})
	}
}

// TestFollowUpsMoveAlong: a run that waits for the appointment waits for its new time, and speaks of it.
func TestFollowUpsMoveAlong(t *testing.T) {
	t.Parallel()
	c := surgery(t, t.TempDir())
	c.rule("appointment_confirmed", nil, obj{"type": "wait", "until": "{{startsAt}}", "offset": "-1s"}, say("soon {{startsAt}}"),
		obj{"type": "wait", "until": "{{appointment.endsAt}}", "offset": "24h"}, say("how was it"))
	at := soon(4)
	id := c.book(map[string]any{"startsAt": soon(600), "announce": true})
	gone := c.book(map[string]any{"startsAt": soon(600), "announce": true, "phone": "12025550143"})
	var runs *answer
	eventually(t, "the runs wait", func() string {
		runs = c.call("GET", "/api/crm/automations/runs?state=waiting", nil).want(200)
		return unless(runs.get("items.1") != nil, string(runs.Body))
	})
	c.call("PATCH", "/api/appointments/"+id, map[string]any{"startsAt": at}).want(200)
	c.call("DELETE", "/api/appointments/"+gone, nil).want(204)
	eventually(t, "the follow-up", func() string { return unless(len(c.texts(reminded)) == 1, fmt.Sprintf("%q", c.texts(reminded))) })
	if m := c.e.meta.Accepted()[0]; m.Text != "soon "+at.Format(time.RFC3339) || m.At.Before(at.Add(-time.Second)) {
		t.Errorf("sent %q at %s", m.Text, m.At)
	}
	states := map[string]int{}
	eventually(t, "the runs", func() string {
		clear(states)
		for i := range 2 {
			r := c.call("GET", "/api/crm/automations/runs/"+runs.get(fmt.Sprintf("items.%d.id", i)).(string), nil).want(200)
			states[fmt.Sprint(r.get("state"), " ", r.get("exitReason"), " ", r.get("waitUntil"))]++
		}
		next := at.Add(24*time.Hour + 30*time.Minute).Format("2006-01-02T15:04:05.000Z")
		return unless(states["exited appointment_cancelled <nil>"] == 1 && states["waiting <nil> "+next] == 1, fmt.Sprint(states))
	})
}

// TestRunCancelledBeforeItsLink: an appointment that a run planned goes with the run.
func TestRunCancelledBeforeItsLink(t *testing.T) {
	t.Parallel()
	c, g := clinic(t, googletest.Config{})
	g.Revoke("refresh-1")
	c.rule("custom.meet", nil, obj{"type": "meet.create", "title": "T", "startsAt": "{{at}}", "durationMinutes": 30}, say("{{meet.url}}"))
	run := runOf(c.happen("custom.meet", reminded, obj{"at": soon(86400)}))
	eventually(t, "the job is held", func() string {
		jobs := c.call("GET", "/api/jobs?type=meet.create", nil).want(200)
		return unless(jobs.get("items.0.state") == "parked", string(jobs.Body))
	})
	c.call("POST", "/api/crm/automations/runs/"+run+"/cancel", nil).want(200)
	g.AddGrant(googletest.Grant{User: calendarUser, ClientID: "cid", ClientSecret: "client-secret-1", RefreshToken: "refresh-2"})
	c.googleAccount("refresh-2")
	eventually(t, "the appointment goes with the run", func() string {
		a := c.call("GET", "/api/appointments", nil).want(200)
		return unless(a.get("items.0.status") == "cancelled", string(a.Body))
	})
	if ev := g.Events(calendarUser); len(ev) != 0 {
		t.Errorf("%+v", ev)
	}
}

// TestAppointmentsAreTheClientsOwn: another client finds none of them.
func TestAppointmentsAreTheClientsOwn(t *testing.T) {
	t.Parallel()
	c := surgery(t, t.TempDir())
	other := c.e.addClient("BETA", 2)
	id := c.book(nil)
	for _, call := range [][2]string{{"GET", ""}, {"PATCH", ""}, {"DELETE", ""}, {"GET", "/ics"}} {
		var body any
		if call[0] == "PATCH" {
			body = obj{"title": "Mine"}
		}
		other.call(call[0], "/api/appointments/"+id+call[1], body).problem(404, "appointment.not_found")
	}
	if l := other.call("GET", "/api/appointments", nil).want(200); l.get("items.0") != nil {
		t.Errorf("%s", l.Body)
	}
	lead, _ := c.appointment(id).get("leadId").(string)
	other.call("POST", "/api/appointments", obj{"leadId": lead, "title": "T", "startsAt": soon(600)}).problem(422, "")
	if a := c.appointment(id); a.get("title") != "Consultation" || a.get("status") != "confirmed" {
		t.Errorf("%s", a.Body)
	}
}

// TestBadAppointments: what cannot be booked says why.
func TestBadAppointments(t *testing.T) {
	t.Parallel()
	c := surgery(t, t.TempDir())
	good := obj{"phone": "12025550143", "title": "T", "startsAt": soon(600)}
	for _, b := range []struct {
		change   obj
		pointers string
	}{
		{obj{"phone": ""}, "/leadId"}, {obj{"phone": "x"}, "/phone"}, {obj{"leadId": "led_none", "phone": ""}, "/leadId"}, {obj{"title": "a\nb"}, "/title"},
		{obj{"startsAt": "tomorrow"}, "/startsAt"}, {obj{"startsAt": soon(-60)}, "/startsAt"}, {obj{"durationMinutes": 0}, "/durationMinutes"},
		{obj{"timeZone": "Mars/Base"}, "/timeZone"}, {obj{"timeZone": "Local"}, "/timeZone"}, {obj{"reminders": []string{"24h"}}, "/reminders/0"},
		{obj{"reminders": []string{"-1h", "-x"}}, "/reminders/1"}, {obj{"attendees": []obj{{"email": "x"}}}, "/attendees/0/email"},
		{obj{"variables": obj{"x": strings.Repeat("x", 40_000)}}, "/variables"}, {obj{"nonsense": 1}, "/nonsense"},
	} {
		body := obj{}
		for k, v := range good {
			body[k] = v
		}
		for k, v := range b.change {
			body[k] = v
		}
		if got := c.call("POST", "/api/appointments", body).problem(422, "").pointers(); got != b.pointers {
			t.Errorf("%v: %s", b.change, got)
		}
	}
	if l := c.call("GET", "/api/crm/leads?phone=12025550143", nil).want(200); l.get("items.0") != nil {
		t.Errorf("a refused booking made a lead: %s", l.Body)
	}
	id := c.book(nil)
	c.call("PATCH", "/api/appointments/"+id, obj{"startsAt": soon(-60)}).problem(422, "")
	c.call("PATCH", "/api/appointments/"+id, obj{"meet": true}).problem(409, "google.not_configured")
	c.call("PATCH", "/api/appointments/apt_none", obj{"title": "T"}).problem(404, "appointment.not_found")
	key := map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, "Idempotency-Key": "bk-1"}
	first, again := c.e.send("POST", "/api/appointments", good, key).want(201), c.e.send("POST", "/api/appointments", good, key).want(201)
	if first.get("id") != again.get("id") {
		t.Errorf("booked twice: %s %s", first.Body, again.Body)
	}
	if l := c.call("GET", "/api/crm/leads?phone=12025550143", nil).want(200); l.get("items.0.id") != first.get("leadId") || l.get("items.1") != nil {
		t.Errorf("%s", l.Body)
	}
}

// TestAppointmentLists: by time, filtered, in pages.
func TestAppointmentLists(t *testing.T) {
	t.Parallel()
	c := surgery(t, t.TempDir())
	at := soon(3600)
	var ids []string
	for i := range 5 {
		ids = append(ids, c.book(obj{"startsAt": at.Add(time.Duration(5-i) * time.Hour), "phone": fmt.Sprint("1202555014", i%2)}))
	}
	c.call("DELETE", "/api/appointments/"+ids[0], nil).want(204)
	lead := c.appointment(ids[1]).get("leadId").(string)
	for query, want := range map[string][]int{
		"": {4, 3, 2, 1, 0}, "status=confirmed": {4, 3, 2, 1}, "status=cancelled": {0}, "leadId=" + lead: {3, 1},
		"from=" + at.Add(2*time.Hour).Format(time.RFC3339) + "&to=" + at.Add(4*time.Hour).Format(time.RFC3339): {3, 2},
	} {
		var got []string
		cursor := ""
		for {
			l := c.call("GET", "/api/appointments?limit=2&"+query+cursor, nil).want(200)
			for i := range 2 {
				if id, ok := l.get(fmt.Sprintf("items.%d.id", i)).(string); ok {
					got = append(got, id)
				}
			}
			next, ok := l.get("nextCursor").(string)
			if !ok {
				break
			}
			cursor = "&cursor=" + next
		}
		var expected []string
		for _, i := range want {
			expected = append(expected, ids[i])
		}
		if fmt.Sprint(got) != fmt.Sprint(expected) {
			t.Errorf("%s: %v, want %v", query, got, expected)
		}
	}
	n, err := c.e.app.Queue.Jobs(context.Background(), store.JobFilter{Tenant: "ACME", Types: []string{meeting.ChangeJob}, Limit: 100})
	if err != nil || len(n) != 6 {
		t.Errorf("%d changes, %v", len(n), err)
	}
}

// TestAppointmentsOfALead: they stand in its timeline, and go with it, out of the calendar too.
func TestAppointmentsOfALead(t *testing.T) {
	t.Parallel()
	c, g := clinic(t, googletest.Config{})
	id, plain := c.book(obj{"meet": true}), c.book(nil)
	c.linkOf(id)
	lead := c.appointment(id).get("leadId").(string)
	line := c.call("GET", "/api/crm/leads/"+lead+"/timeline", nil).want(200)
	if s := string(line.Body); !strings.Contains(s, id) || !strings.Contains(s, plain) || !strings.Contains(s, `"appointment"`) {
		t.Errorf("%s", s)
	}
	c.call("DELETE", "/api/crm/leads/"+lead, nil).want(204)
	eventually(t, "the calendar", func() string { return unless(len(g.Events(calendarUser)) == 0, "the event is there") })
	eventually(t, "the appointments", func() string {
		l := c.call("GET", "/api/appointments", nil).want(200)
		return unless(l.get("items.1") == nil && l.get("items.0.title") == "" && l.get("items.0.phone") == nil, string(l.Body))
	})
}

// TestRemindersOverAChangeOfTheClocks: days go by the client's calendar, hours elapse.
func TestRemindersOverAChangeOfTheClocks(t *testing.T) {
	t.Parallel()
	c := surgery(t, t.TempDir())
	c.e.admin("PATCH", "/api/clients/ACME", obj{"timeZone": "Europe/Madrid", "settings": obj{"reminders": []string{"-1d", "-24h"}}}).want(200)
	for _, x := range []struct{ startsAt, starts, day, hours string }{
		{"2027-03-29T02:30", "2027-03-29T00:30:00.000Z", "2027-03-28T01:00:00.000Z", "2027-03-28T00:30:00.000Z"}, // 02:30 is skipped the day before
		{"2027-03-28T10:00", "2027-03-28T08:00:00.000Z", "2027-03-27T09:00:00.000Z", "2027-03-27T08:00:00.000Z"},
		{"2027-11-01T02:30", "2027-11-01T01:30:00.000Z", "2027-10-31T00:30:00.000Z", "2027-10-31T01:30:00.000Z"}, // 02:30 comes twice the day before
		{"2027-10-31T02:30", "2027-10-31T00:30:00.000Z", "2027-10-30T00:30:00.000Z", "2027-10-30T00:30:00.000Z"},
		{"2027-03-28T02:30", "2027-03-28T01:00:00.000Z", "2027-03-27T02:00:00.000Z", "2027-03-27T01:00:00.000Z"},
	} {
		a := c.appointment(c.book(obj{"startsAt": x.startsAt, "reminders": nil}))
		shows(t, x.startsAt, a, "startsAt", x.starts, "timeZone", "Europe/Madrid", "reminderPlan.0.at", x.day, "reminderPlan.1.at", x.hours)
	}
}
