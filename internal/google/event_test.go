package google_test

import (
	"bytes"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/google/googletest"
)

func TestEventID(t *testing.T) {
	seen := map[string]bool{}
	for _, seed := range []string{"", "a", "b", "acme|apt_1|1", "ACME|apt_1|1", strings.Repeat("x", 5000), "\xff"} {
		id := google.EventID(seed)
		if seen[id] || id != google.EventID(seed) || len(id) < 5 || len(id) > 1024 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuv") != "" {
			t.Errorf("%q: %q", seed, id)
		}
		seen[id] = true
	}
}

func TestInsert(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	ev := booking("run/step/0")
	got := insert(t, c, ev)
	stands, ok := s.Event(ana, ev.ID)
	if !ok || stands.Summary != ev.Summary || stands.Description != ev.Description || !stands.Start.Equal(ev.Start) || !stands.End.Equal(ev.End) ||
		stands.TimeZone != "Asia/Kolkata" || len(stands.Attendees) != 1 || stands.Attendees[0].Email != patient || stands.Attendees[0].Name != "Pat" {
		t.Fatalf("%+v", stands)
	}
	want := ev
	want.Status, want.ConferenceStatus, want.MeetURL, want.HTMLLink = "confirmed", google.ConferenceSuccess, stands.Conference.URL, got.HTMLLink
	if !reflect.DeepEqual(got, want) || !strings.HasPrefix(got.MeetURL, "https://meet.google.com/") || got.HTMLLink == "" || stands.Conference.RequestID != "run/step/0" {
		t.Fatalf("got\n%+v, want\n%+v", got, want)
	}
	if w := s.Writes(); len(w) != 1 || w[0].SendUpdates != "all" || w[0].User != ana || len(s.Mails()) != 1 || s.Mails()[0].To != patient {
		t.Fatalf("%+v %+v", w, s.Mails())
	}
	r := s.Requests()[1]
	if r.Query != "conferenceDataVersion=1&sendUpdates=all" || r.InQuery || r.Path != "/calendar/v3/calendars/primary/events" {
		t.Fatalf("%+v", r)
	}
	again, err := c.Get(t.Context(), acc, ev.ID)
	if err != nil || !reflect.DeepEqual(again, got) {
		t.Fatalf("%+v %v", again, err)
	}
	quiet := booking("quiet")
	quiet.SendUpdates, quiet.RequestID = google.UpdateNone, ""
	if got = insert(t, c, quiet); got.MeetURL != "" || got.ConferenceStatus != "" || len(s.Mails()) != 1 || s.Writes()[1].SendUpdates != "none" {
		t.Fatalf("%+v %+v", got, s.Mails())
	}
}

// TestInsertTwice loses the answer in every way, asks again, and finds one event and one invitation.
func TestInsertTwice(t *testing.T) {
	for name, f := range map[string]googletest.Fault{
		"reset": googletest.ResetAfterAccepting(), "cut": googletest.TruncateAfterAccepting(), "503": googletest.UnavailableAfterAccepting(), "time-out": googletest.HangAfterAccepting(),
	} {
		t.Run(name, func(t *testing.T) {
			s, c := serve(t, googletest.Config{})
			ev := booking(name)
			s.On("insert", 1, f)
			ctx := t.Context()
			if name == "time-out" {
				ctx = brief(t)
			}
			_, err := c.Insert(ctx, acc, ev)
			if e := asError(t, err); e.Outcome != google.Ambiguous || !e.Temporary() || e.Scope != google.ScopeEvent {
				t.Fatalf("%+v %v", e, err)
			}
			changed := ev
			changed.Summary = "another"
			got := insert(t, c, changed)
			if got.Summary != ev.Summary || got.MeetURL == "" || len(s.Writes()) != 1 || len(s.Mails()) != 1 || len(s.Events(ana)) != 1 {
				t.Fatalf("%+v; %d writes", got, len(s.Writes()))
			}
		})
	}
	t.Run("the answer to reading back", func(t *testing.T) {
		s, c := serve(t, googletest.Config{})
		ev := booking("x")
		insert(t, c, ev)
		s.On("get", 1, googletest.Unavailable())
		_, err := c.Insert(t.Context(), acc, ev)
		if e := asError(t, err); e.Outcome != google.Ambiguous || !e.Temporary() || e.Op != "insert" {
			t.Fatalf("%+v", e)
		}
		insert(t, c, ev)
	})
}

func TestCancelledIDsStayTaken(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	ev := booking("x")
	insert(t, c, ev)
	for range 2 {
		if err := c.Delete(t.Context(), acc, ev.ID, google.UpdateAll); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := c.Get(t.Context(), acc, ev.ID); err != nil || got.Status != "cancelled" || got.ID != ev.ID || !got.Start.IsZero() {
		t.Fatalf("%+v %v", got, err)
	}
	got, err := c.Insert(t.Context(), acc, ev)
	if e := asError(t, err); !errors.Is(err, google.ErrCancelled) || e.Temporary() || e.Outcome != google.Rejected || e.Scope != google.ScopeEvent || got.Status != "cancelled" {
		t.Fatalf("%+v %v", got, err)
	}
	got, err = c.Patch(t.Context(), acc, google.Event{ID: ev.ID, Summary: "new"})
	if e := asError(t, err); !errors.Is(err, google.ErrCancelled) || e.Temporary() || got.Status != "cancelled" {
		t.Fatalf("%+v %v", got, err)
	}
	s.Forget(ana, ev.ID)
	if _, err = c.Insert(t.Context(), acc, ev); !errors.Is(err, google.ErrCancelled) || asError(t, err).Temporary() {
		t.Fatal(err)
	}
	if _, err = c.Get(t.Context(), acc, ev.ID); !errors.Is(err, google.ErrNotFound) {
		t.Fatal(err)
	}
	if err = c.Delete(t.Context(), acc, ev.ID, ""); err != nil {
		t.Fatal(err)
	}
	if w := s.Writes(); len(w) != 2 || w[1].Kind != "delete" || w[1].SendUpdates != "all" {
		t.Fatalf("%+v", w)
	}
}

func TestConference(t *testing.T) {
	s, c := serve(t, googletest.Config{PendingPolls: 2})
	ev := booking("x")
	got := insert(t, c, ev)
	for _, want := range []string{google.ConferencePending, google.ConferencePending, google.ConferenceSuccess} {
		if got.ConferenceStatus != want || (got.MeetURL != "") != (want == google.ConferenceSuccess) {
			t.Fatalf("want %s: %+v", want, got)
		}
		var err error
		if got, err = c.Get(t.Context(), acc, ev.ID); err != nil {
			t.Fatal(err)
		}
	}
	first := got.MeetURL
	same, err := c.Patch(t.Context(), acc, google.Event{ID: ev.ID, RequestID: ev.RequestID})
	if err != nil || same.MeetURL != first {
		t.Fatalf("%+v %v", same, err)
	}
	s.On("patch", 1, googletest.ConferenceFails())
	failed, err := c.Patch(t.Context(), acc, google.Event{ID: ev.ID, RequestID: "again"})
	if err != nil || failed.ConferenceStatus != google.ConferenceFailure || failed.MeetURL != "" {
		t.Fatalf("%+v %v", failed, err)
	}
	s.On("patch", 1, googletest.ConferencePending(1))
	if _, err = c.Patch(t.Context(), acc, google.Event{ID: ev.ID, RequestID: "once more"}); err != nil {
		t.Fatal(err)
	}
	if got, err = c.Get(t.Context(), acc, ev.ID); err != nil || got.MeetURL == "" || got.MeetURL == first {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestPatch(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	ev := booking("x")
	made := insert(t, c, ev)
	s.Edit(ana, ev.ID, func(e *googletest.Event) { e.Attendees[0].Answer = "accepted" })
	later := monday.Add(24 * time.Hour)
	got, err := c.Patch(t.Context(), acc, google.Event{ID: ev.ID, Start: later, End: later.Add(time.Hour)})
	if err != nil || !got.Start.Equal(later) || !got.End.Equal(later.Add(time.Hour)) || got.Summary != made.Summary || got.TimeZone != "Asia/Kolkata" || got.MeetURL != made.MeetURL {
		t.Fatalf("%+v %v", got, err)
	}
	if e, _ := s.Event(ana, ev.ID); e.Attendees[0].Answer != "accepted" || e.Sequence != 1 {
		t.Fatalf("%+v", e)
	}
	requests := s.Requests()
	if b := requests[len(requests)-1].Body; bytes.Count(b, []byte(`"date":null`)) != 2 || bytes.Contains(b, []byte("attendees")) {
		t.Errorf("%s", b)
	}
	got, err = c.Patch(t.Context(), acc, google.Event{ID: ev.ID, Summary: "Moved", Attendees: []google.Attendee{}, SendUpdates: google.UpdateNone})
	if err != nil || got.Summary != "Moved" || got.Attendees != nil || s.Writes()[2].SendUpdates != "none" {
		t.Fatalf("%+v %v", got, err)
	}
	_, err = c.Patch(t.Context(), acc, google.Event{ID: google.EventID("none"), Summary: "x"})
	if e := asError(t, err); !errors.Is(err, google.ErrNotFound) || e.Temporary() || e.Scope != google.ScopeEvent {
		t.Fatalf("%+v", e)
	}
	s.On("patch", 1, googletest.ResetAfterAccepting())
	for i := range 2 {
		if _, err = c.Patch(t.Context(), acc, google.Event{ID: ev.ID, Start: monday, End: monday.Add(time.Hour), TimeZone: "UTC"}); (err == nil) != (i == 1) {
			t.Fatalf("%d: %v", i, err)
		}
	}
}

// TestIncomplete holds what is refused before anything is called.
func TestIncomplete(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	ctx := t.Context()
	with := func(f func(*google.Event)) google.Event {
		ev := booking("x")
		f(&ev)
		return ev
	}
	for name, ev := range map[string]google.Event{
		"no id":           with(func(e *google.Event) { e.ID = "" }),
		"a short id":      with(func(e *google.Event) { e.ID = "abcd" }),
		"a long id":       with(func(e *google.Event) { e.ID = strings.Repeat("a", 1025) }),
		"an odd id":       with(func(e *google.Event) { e.ID = "wxyz12" }),
		"a path":          with(func(e *google.Event) { e.ID = "../../../x" }),
		"no start":        with(func(e *google.Event) { e.Start = time.Time{} }),
		"no end":          with(func(e *google.Event) { e.End = time.Time{} }),
		"an end before":   with(func(e *google.Event) { e.End = e.Start }),
		"odd updates":     with(func(e *google.Event) { e.SendUpdates = "some" }),
		"a nameless one":  with(func(e *google.Event) { e.Attendees[0].Email = "" }),
		"only a zone":     {ID: google.EventID("x"), TimeZone: "UTC"},
		"nothing to do":   {ID: google.EventID("x")},
		"nothing at all ": {},
	} {
		if _, err := c.Insert(ctx, acc, ev); !errors.Is(err, google.ErrRequest) || asError(t, err).Temporary() {
			t.Errorf("insert %s: %v", name, err)
		}
		if _, err := c.Patch(ctx, acc, ev); !errors.Is(err, google.ErrRequest) {
			t.Errorf("patch %s: %v", name, err)
		}
	}
	for _, id := range []string{"", "..", "a/b/c", "abcd"} {
		_, err := c.Get(ctx, acc, id)
		if err2 := c.Delete(ctx, acc, id, ""); !errors.Is(err, google.ErrRequest) || !errors.Is(err2, google.ErrRequest) {
			t.Errorf("%q: %v %v", id, err, err2)
		}
	}
	if err := c.Delete(ctx, acc, google.EventID("x"), "some"); !errors.Is(err, google.ErrRequest) {
		t.Error(err)
	}
	for name, a := range map[string]google.Account{
		"nobody": {}, "no secret": {ClientID: "a", RefreshToken: "b"}, "no grant": {ClientID: "a", ClientSecret: "b"},
		"both": {ServiceAccount: "{}", Subject: ana, RefreshToken: "x"}, "no subject": {ServiceAccount: service(t, nil).ServiceAccount},
		"no JSON": {ServiceAccount: "x", Subject: ana}, "another type": service(t, func(m map[string]string) { m["type"] = "authorized_user" }),
		"no e-mail": service(t, func(m map[string]string) { m["client_email"] = "" }), "no key": service(t, func(m map[string]string) { m["private_key"] = "" }),
		"half a key": service(t, func(m map[string]string) { m["private_key"] = m["private_key"][:200] + "\n-----END PRIVATE KEY-----\n" }),
	} {
		err := c.Check(ctx, a)
		if e := asError(t, err); !errors.Is(err, google.ErrRequest) || e.Scope != google.ScopeAccount || e.Temporary() || e.Op != "check" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	for _, base := range []string{"google", "ftp://x", "http://", ":", "http://x?y=1"} {
		if err := google.New(google.Config{BaseURL: base}, plain(t)).Check(ctx, acc); !errors.Is(err, google.ErrRequest) {
			t.Errorf("%s: %v", base, err)
		}
	}
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestCalendarIDs(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	for _, id := range []string{"team#holiday@group.calendar.example", "a/b", "ü %41?x=y"} {
		s.Share(id, ana, "writer")
		a := acc
		a.CalendarID = id
		ev := booking(id)
		if _, err := c.Insert(t.Context(), a, ev); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Event(id, ev.ID); !ok {
			t.Errorf("%s: the event is elsewhere", id)
		}
	}
	a := acc
	for _, id := range []string{"..", "."} {
		a.CalendarID = id
		if _, err := c.Insert(t.Context(), a, booking("x")); !errors.Is(err, google.ErrRequest) {
			t.Errorf("%s: %v", id, err)
		}
	}
	a.CalendarID = "nobody@x.example"
	_, err := c.Insert(t.Context(), a, booking("x"))
	if e := asError(t, err); e.Scope != google.ScopeAccount || e.Temporary() || e.HTTP != http.StatusNotFound || errors.Is(err, google.ErrNotFound) {
		t.Errorf("%+v", e)
	}
}

func TestCheck(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	ctx := t.Context()
	if err := c.Check(ctx, acc); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(ctx, service(t, nil)); err != nil {
		t.Fatal(err)
	}
	s.Share("team@x.example", ana, "reader")
	s.AddGrant(googletest.Grant{User: ana, ClientID: acc.ClientID, ClientSecret: theCode, RefreshToken: "unticked", Scopes: []string{googletest.ScopeReadOnly}})
	s.AddGrant(googletest.Grant{User: ana, ClientID: acc.ClientID, ClientSecret: theCode, RefreshToken: "nothing", Scopes: []string{"openid"}})
	s.AddGrant(googletest.Grant{User: ana, ClientID: acc.ClientID, ClientSecret: theCode, RefreshToken: "wide", Scopes: []string{"openid", googletest.ScopeCalendar}})
	for name, tc := range map[string]struct {
		change func(*google.Account)
		reason string
	}{
		"may only read":   {func(a *google.Account) { a.CalendarID = "team@x.example" }, "requiredAccessLevel"},
		"no such":         {func(a *google.Account) { a.CalendarID = "none@x.example" }, "notFound"},
		"unticked":        {func(a *google.Account) { a.RefreshToken = "unticked" }, "insufficientPermissions"},
		"nothing ticked":  {func(a *google.Account) { a.RefreshToken = "nothing" }, "insufficientPermissions"},
		"wrong secret":    {func(a *google.Account) { a.ClientSecret = "x" }, "invalid_client"},
		"unknown refresh": {func(a *google.Account) { a.RefreshToken = "x" }, "invalid_grant"},
	} {
		a := acc
		tc.change(&a)
		err := c.Check(ctx, a)
		if e := asError(t, err); e.Reason != tc.reason || e.Scope != google.ScopeAccount || e.Temporary() {
			t.Errorf("%s: %+v", name, e)
		}
	}
	wide := acc
	wide.RefreshToken = "wide"
	if err := c.Check(ctx, wide); err != nil {
		t.Error(err)
	}
	s.On("list", 1, googletest.Answer(200, "application/json", `{}`))
	if e := asError(t, c.Check(ctx, acc)); !e.Temporary() {
		t.Errorf("%+v", e)
	}
	if len(s.Writes()) != 0 {
		t.Error("a check writes")
	}
}
