package rule

import (
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/ecodrix/ecod/internal/crm"
)

// TestWaits: when a wait that is reached at noon UTC of 27 March 2027 is over, and what is too late. The client's clocks are
// Madrid's, put forward that night; the lead's are the same unless told.
func TestWaits(t *testing.T) {
	madrid, err := time.LoadLocation("Europe/Madrid")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2027, 3, 27, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		wait   Action
		phone  string
		until  string // "": it is over at once
		latest string
		late   bool
	}{
		"a day elapses":                    {wait: Action{For: "24h"}, until: "2027-03-28T12:00:00Z"},
		"a day by the calendar":            {wait: Action{For: "1d"}, until: "2027-03-28T11:00:00Z"},
		"a day where the lead is":          {wait: Action{For: "1d"}, phone: "+918143963821", until: "2027-03-28T12:00:00Z"},
		"a week":                           {wait: Action{For: "1w"}, until: "2027-04-03T11:00:00Z"},
		"until a local time":               {wait: Action{Until: "2027-04-01T10:00"}, until: "2027-04-01T08:00:00Z", latest: "2027-04-01T09:00:00Z"},
		"local is the client's":            {wait: Action{Until: "2027-04-01T10:00"}, phone: "+918143963821", until: "2027-04-01T08:00:00Z", latest: "2027-04-01T09:00:00Z"},
		"until a time that is skipped":     {wait: Action{Until: "2027-03-28T02:30"}, until: "2027-03-28T01:00:00Z", latest: "2027-03-28T02:00:00Z"},
		"a day before":                     {wait: Action{Until: "2027-04-01T10:00:00Z", Offset: "-24h"}, until: "2027-03-31T10:00:00Z", latest: "2027-03-31T22:00:00Z"},
		"an hour before":                   {wait: Action{Until: "2027-04-01T10:00:00Z", Offset: "-1h"}, until: "2027-04-01T09:00:00Z", latest: "2027-04-01T09:30:00Z"},
		"a calendar day before":            {wait: Action{Until: "2027-03-29T10:00", Offset: "-1d"}, until: "2027-03-28T08:00:00Z", latest: "2027-03-28T20:00:00Z"},
		"a calendar day over the change":   {wait: Action{Until: "2027-03-28T14:00", Offset: "-1d"}, until: "2027-03-27T13:00:00Z", latest: "2027-03-28T00:30:00Z"},
		"two hours after":                  {wait: Action{Until: "2027-04-01T10:00:00Z", Offset: "2h"}, until: "2027-04-01T12:00:00Z", latest: "2027-04-01T14:00:00Z"},
		"ten minutes after":                {wait: Action{Until: "2027-04-01T10:00:00Z", Offset: "10m"}, until: "2027-04-01T10:10:00Z", latest: "2027-04-01T11:10:00Z"},
		"a week after":                     {wait: Action{Until: "2027-04-01T10:00:00Z", Offset: "7d"}, until: "2027-04-08T10:00:00Z", latest: "2027-04-09T10:00:00Z"},
		"booked three hours before":        {wait: Action{Until: "2027-03-27T15:00:00Z", Offset: "-24h"}, late: true},
		"booked two minutes late":          {wait: Action{Until: "2027-03-28T11:58:00Z", Offset: "-24h"}, latest: "2027-03-27T23:58:00Z"},
		"booked six minutes late":          {wait: Action{Until: "2027-03-28T11:54:00Z", Offset: "-24h"}, late: true},
		"four minutes before, of six":      {wait: Action{Until: "2027-03-27T12:02:00Z", Offset: "-6m"}, late: true},
		"half an hour ago":                 {wait: Action{Until: "2027-03-27T11:30:00Z"}, latest: "2027-03-27T12:30:00Z"},
		"long ago":                         {wait: Action{Until: "2020-01-01T00:00:00Z"}, late: true},
		"after what ended an hour ago":     {wait: Action{Until: "2027-03-27T11:00:00Z", Offset: "30m"}, latest: "2027-03-27T12:30:00Z"},
		"after what ended the day before ": {wait: Action{Until: "2027-03-26T10:00:00Z", Offset: "2h"}, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			lead := &crm.Lead{Phone: c.phone}
			w := &walk{scope: testScope(nil, lead), lead: lead, now: now, zone: lead.Zone(madrid), home: madrid, open: map[string]bool{}, over: map[string]bool{}}
			c.wait.Type = Wait
			w.actions("", []Action{c.wait, {Type: SendText, Text: "Hi"}, {Type: TagAdd, Tags: []string{"x"}}})
			d := w.steps[0].due()
			switch {
			case c.late:
				if w.stop != "" || len(w.steps) != 3 || w.steps[0].State != StepSkipped || w.steps[1].State != StepSkipped || w.steps[1].Error.Code != tooLate || w.steps[2].State != StepDone {
					t.Errorf("stopped at %q: %+v", w.stop, w.steps)
				}
				return
			case c.until == "":
				if w.stop != "" || w.steps[0].State != StepDone || w.steps[1].State != StepPlanned || !w.steps[1].Latest.Equal(d.Latest) {
					t.Errorf("stopped at %q: %+v", w.stop, w.steps)
				}
			case w.stop != "0" || w.until.Format(time.RFC3339) != c.until || !d.Until.Equal(w.until) || len(w.steps) != 1:
				t.Errorf("stopped at %q until %s: %+v", w.stop, w.until, w.steps)
			}
			if c.latest == "" && !d.Latest.IsZero() || c.latest != "" && d.Latest.Format(time.RFC3339) != c.latest {
				t.Errorf("latest %s", d.Latest)
			}
		})
	}
}

// TestWaitBeginsWhenSendsHaveEnded: not before, so that it is counted from what the customer got.
func TestWaitBeginsWhenSendsHaveEnded(t *testing.T) {
	w := &walk{scope: testScope(nil, &crm.Lead{}), lead: &crm.Lead{}, zone: time.UTC, home: time.UTC, open: map[string]bool{}, over: map[string]bool{}}
	as := []Action{{Type: SendText, Text: "Hi"}, {Type: TagAdd, Tags: []string{"x"}}, {Type: Wait, For: "1h"}, {Type: SendText, Text: "Ho"}}
	w.actions("", as)
	if w.stop != "2" || len(w.steps) != 2 || !w.until.IsZero() {
		t.Errorf("stopped at %q until %s: %+v", w.stop, w.until, w.steps)
	}
}

func TestExits(t *testing.T) {
	waits := Definition{Actions: []Action{{Type: Branch, Then: []Action{{Type: Wait, For: "1h"}}}}}
	if got := waits.exits(); len(got) != 2 || got[0] != exitReply || got[1] != exitOptOut {
		t.Errorf("exits %v of a rule with a wait", got)
	}
	if waits.Exits = []string{}; len(waits.exits()) != 0 {
		t.Errorf("exits %v of a rule that wants none", waits.exits())
	}
	if got := (&Definition{Actions: []Action{{Type: LeadScore}}}).exits(); got != nil {
		t.Errorf("exits %v of a rule without a wait", got)
	}
	for x, ok := range map[string]bool{
		"reply": true, "opt_out": true, "stage:booked": true, "goal:lead.score > 3": true, "": false, "replies": false, "stage:": false, "stage:a b": false,
		"goal:": false, "goal: ": false, "goal:lead.score >": false, "goal:1+1": false,
	} {
		v := &validation{}
		v.exits([]string{x})
		if (len(v.fields) == 0) != ok {
			t.Errorf("%q: %+v", x, v.fields)
		}
	}
	now := time.Now()
	s := subject{&crm.Lead{Stage: "booked", Score: 5}, &crm.Contact{OptedOutAt: &now}}
	sc := testScope(map[string]any{"goal": 5.0}, s.lead)
	for _, c := range []struct {
		exits   []string
		replied bool
		want    string
	}{
		{[]string{"reply"}, true, "reply"}, {[]string{"reply"}, false, ""}, {[]string{"opt_out"}, false, "opt_out"}, {nil, true, ""},
		{[]string{"stage:booked"}, false, "stage"}, {[]string{"stage:new"}, false, ""}, {[]string{"goal:lead.score >= event.variables.goal"}, false, "goal"},
		{[]string{"goal:lead.score > 5", "reply"}, true, "reply"}, {[]string{"goal:lead.nothing.at.all"}, false, ""},
	} {
		if got := (&Run{Exits: c.exits}).exitReason(sc, s, c.replied); got != c.want {
			t.Errorf("%v: %q, want %q", c.exits, got, c.want)
		}
	}
}
