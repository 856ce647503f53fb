package google

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestReadingEvents holds what people and time make of events.
func TestReadingEvents(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UTC()
	}
	for name, tc := range map[string]struct {
		in   string
		want Event
	}{
		"times with an offset": {`{"start":{"dateTime":"2027-03-01T15:00:00+05:30","timeZone":"Asia/Kolkata"},"end":{"dateTime":"2027-03-01T15:30:00+05:30"}}`,
			Event{Start: at("2027-03-01T09:30:00Z"), End: at("2027-03-01T10:00:00Z"), TimeZone: "Asia/Kolkata"}},
		"whole days":          {`{"start":{"date":"2027-03-01","timeZone":"Asia/Kolkata"},"end":{"date":"2027-03-02"}}`, Event{Start: at("2027-02-28T18:30:00Z"), End: at("2027-03-02T00:00:00Z"), TimeZone: "Asia/Kolkata"}},
		"an unknown zone":     {`{"start":{"date":"2027-03-01","timeZone":"../../etc/passwd"}}`, Event{Start: at("2027-03-01T00:00:00Z"), TimeZone: "../../etc/passwd"}},
		"odd times":           {`{"start":{"dateTime":"soon"},"end":{}}`, Event{}},
		"only the id":         {`{"status":"cancelled"}`, Event{Status: "cancelled"}},
		"a link made by hand": {`{"hangoutLink":"https://meet.google.com/abc-defg-hij"}`, Event{MeetURL: "https://meet.google.com/abc-defg-hij", ConferenceStatus: "success"}},
		"the link among others": {`{"conferenceData":{"createRequest":{"requestId":"r","status":{"statusCode":"success"}},"entryPoints":[{"entryPointType":"phone","uri":"tel:+1"},{"entryPointType":"video","uri":"https://meet.google.com/a"}]}}`,
			Event{RequestID: "r", MeetURL: "https://meet.google.com/a", ConferenceStatus: "success"}},
		"success before its link": {`{"conferenceData":{"createRequest":{"requestId":"r","status":{"statusCode":"success"}}}}`, Event{RequestID: "r", ConferenceStatus: "pending"}},
		"no web address":          {`{"hangoutLink":"javascript:alert(1)","conferenceData":{"entryPoints":[{"entryPointType":"video","uri":"http://meet.google.com/a"}]}}`, Event{}},
		"attendees":               {`{"attendees":[{"email":"a@b.example","displayName":"A","responseStatus":"accepted","optional":true}]}`, Event{Attendees: []Attendee{{"a@b.example", "A"}}}},
	} {
		var w wireEvent
		if err := json.Unmarshal([]byte(tc.in), &w); err != nil {
			t.Fatal(err)
		}
		if got := w.event(); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		"Token has been expired or revoked.":                                                                 "Token has been expired or revoked.",
		"sent s3cr+t and s3cr%2Bt":                                                                           "sent [secret] and [secret]",
		"Authorization: Bearer ya29.a0Af_x-y!":                                                               "Authorization: Bearer [secret]!",
		"refresh 1//0gAbc-_9 of GOCSPX-abc_d":                                                                "refresh [secret] of [secret]",
		"assertion=eyJhbGciOiJS.eyJpc3MiOi.c2ln&x":                                                           "assertion=[secret]&x",
		"-----BEGIN PRIVATE KEY-----\nMIIEv\n-----END":                                                       "[secret]-----END",
		"-----BEGIN PRIVATE KEY-----\nMIIEv\n-----END PRIVATE KEY-----\n.":                                   "[secret]\n.",
		"see https://console.developers.google.com/apis/api/calendar-json.googleapis.com/overview?project=1": "see https://console.developers.google.com/apis/api/calendar-json.googleapis.com/overview?project=1",
	} {
		if got := scrub(in, "s3cr+t", ""); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := scrub(strings.Repeat("é", 5000)); len(got) > 510 {
		t.Errorf("%d bytes", len(got))
	}
	for in, want := range map[string]string{"quotaExceeded": "quotaExceeded", "invalid_grant": "invalid_grant", "": "", "a b": "", "ya29.x": "", "<b>": "", strings.Repeat("a", 65): ""} {
		if got := word(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for in, want := range map[string]time.Duration{"0": 0, "7": 7 * time.Second, "-5": 0, "99999999999": 24 * time.Hour, "Mon, 02 Jan 2006 15:04:05 GMT": 0} {
		if got, ok := retryAfter(in); !ok || got != want {
			t.Errorf("%q: %v %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "soon", "1.5"} {
		if _, ok := retryAfter(in); ok {
			t.Errorf("%q is taken", in)
		}
	}
	in := time.Now().Add(time.Minute).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	if got, ok := retryAfter(in); !ok || got < 50*time.Second || got > time.Minute {
		t.Errorf("%q: %v %v", in, got, ok)
	}
}

// TestGooglesOwnAddresses is what no test can call.
func TestGooglesOwnAddresses(t *testing.T) {
	for _, base := range []string{"", " ", "/"} {
		if c := New(Config{BaseURL: base}, nil); c.tokenURL != "https://oauth2.googleapis.com/token" || c.calendar != "https://www.googleapis.com/calendar/v3" || !c.usable || c.http.Timeout <= 0 {
			t.Errorf("%q: %q %q", base, c.tokenURL, c.calendar)
		}
	}
}
