package meeting

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/ecodrix/ecod/internal/google"
)

func TestICS(t *testing.T) {
	at := time.Date(2027, 3, 1, 4, 30, 0, 0, time.UTC)
	a := &Appointment{ID: "apt_1", Title: `Zahn; "Prüfung", links\rechts ` + strings.Repeat("ü", 80), StartsAt: at, DurationMinutes: 45, Status: Confirmed, Revision: 3,
		CreatedAt: at, UpdatedAt: at, Meet: Meet{URL: "https://meet.google.com/abc-defg-hij\r\nX-EVIL:1"}}
	file := string(a.ICS())
	for _, l := range strings.SplitAfter(file, "\r\n") {
		if len(l) > 77 || (l != "" && !strings.HasSuffix(l, "\r\n")) || strings.ContainsAny(strings.TrimSuffix(l, "\r\n"), "\r\n") {
			t.Errorf("line %q", l)
		}
		if !strings.Contains(l, ":") && l != "" && l[0] != ' ' {
			t.Errorf("line %q", l)
		}
	}
	unfolded := strings.ReplaceAll(file, "\r\n ", "")
	for _, want := range []string{
		"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n", "METHOD:PUBLISH\r\n", "UID:apt_1@ecod\r\n", "SEQUENCE:2\r\n", "DTSTART:20270301T043000Z\r\n", "DTEND:20270301T051500Z\r\n",
		`SUMMARY:Zahn\; "Prüfung"\, links\\rechts ` + strings.Repeat("ü", 80) + "\r\n", "STATUS:CONFIRMED\r\n", "END:VCALENDAR\r\n",
	} {
		if !strings.Contains(unfolded, want) {
			t.Errorf("no %q in\n%s", want, unfolded)
		}
	}
	if strings.Contains(unfolded, "\nX-EVIL") {
		t.Error("a link makes a line of its own")
	}
	a.Status = Cancelled
	if file = string(a.ICS()); !strings.Contains(file, "METHOD:CANCEL\r\n") || !strings.Contains(file, "STATUS:CANCELLED\r\n") {
		t.Error(file)
	}
}

// TestTooLate: half of the way, or the next reminder's turn, and not a moment before.
func TestTooLate(t *testing.T) {
	start := time.Date(2027, 3, 2, 10, 0, 0, 0, time.UTC)
	day, hour := Reminder{Offset: "-24h", At: start.Add(-24 * time.Hour)}, Reminder{Offset: "-1h", At: start.Add(-time.Hour)}
	for _, c := range []struct {
		r     Reminder
		all   []Reminder
		after time.Duration // of its moment
		late  bool
	}{
		{day, []Reminder{day, hour}, 0, false}, {day, []Reminder{day, hour}, 12 * time.Hour, false}, {day, []Reminder{day, hour}, 12*time.Hour + 1, true},
		{hour, []Reminder{day, hour}, 29 * time.Minute, false}, {hour, []Reminder{day, hour}, 31 * time.Minute, true}, {hour, []Reminder{hour}, time.Hour, true},
		{day, []Reminder{day, {At: start.Add(-20 * time.Hour)}}, 4 * time.Hour, true}, {day, []Reminder{day, {At: start.Add(-20 * time.Hour)}}, 4*time.Hour - 1, false},
	} {
		a := &Appointment{StartsAt: start, Reminders: c.all}
		if got := a.tooLateFor(&c.r, c.r.At.Add(c.after)); got != c.late {
			t.Errorf("%s, %s after: %v", c.r.Offset, c.after, got)
		}
	}
}

func TestOffsets(t *testing.T) {
	for _, good := range []string{"-24h", "-1h", "-30m", "-1d", "-2w", "-90s"} {
		if _, err := Offset(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "24h", "+1h", "-0h", "-1y", "-1", "h", "-400d"} {
		if _, err := Offset(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestInvite: guests whom somebody else added stay, those whom we took back go, and nobody is asked twice.
func TestInvite(t *testing.T) {
	guests := func(emails string) (out []google.Attendee) {
		for _, e := range strings.Fields(emails) {
			out = append(out, google.Attendee{Email: e})
		}
		return out
	}
	for _, c := range []struct{ has, want, invited, then string }{
		{"a@x.io", "a@x.io", "a@x.io", ""},
		{"A@x.io own@x.io", "a@x.io", "a@x.io", ""},
		{"a@x.io own@x.io", "a@x.io b@x.io", "a@x.io", "a@x.io own@x.io b@x.io"},
		{"a@x.io own@x.io", "", "a@x.io", "own@x.io"},
		{"", "", "a@x.io", ""},
		{"b@x.io", "a@x.io", "b@x.io", "a@x.io"},
	} {
		a := &Appointment{Meet: Meet{Invited: strings.Fields(c.invited)}}
		for _, e := range strings.Fields(c.want) {
			a.Attendees = append(a.Attendees, Attendee{Email: e})
		}
		got, differs := a.invite(guests(c.has), guests(c.want))
		var then []string
		for _, p := range got {
			then = append(then, p.Email)
		}
		if differs != (c.then != "" || c.has == "" && c.want != "") || (differs && strings.Join(then, " ") != c.then) {
			t.Errorf("%+v: %v %v", c, differs, then)
		}
	}
}

// TestSnapshotSurvivesJSON: what rules keep of an appointment is what they compare with later.
func TestSnapshotSurvivesJSON(t *testing.T) {
	a := &Appointment{ID: "apt_1", StartsAt: time.Date(2027, 3, 28, 1, 0, 0, 0, time.UTC), DurationMinutes: 30, TimeZone: "Europe/Madrid", Revision: 2, Status: Confirmed}
	b, err := json.Marshal(a.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if rev, ok := number(back["revision"]); !ok || rev != 2 || back["date"] != "2027-03-28" || back["time"] != "03:00" || back["startsAt"] != "2027-03-28T01:00:00Z" {
		t.Errorf("%v", back)
	}
	if fmt.Sprint(back["meetUrl"]) != "" {
		t.Errorf("%v", back["meetUrl"])
	}
}
