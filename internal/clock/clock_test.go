package clock

import (
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestAtChangesOfTheClocks: a gap gives the moment after it, an overlap its first occurrence.
func TestAtChangesOfTheClocks(t *testing.T) {
	for _, c := range []struct{ zone, wall, want string }{
		{"Europe/Madrid", "2027-03-28 01:59", "2027-03-28T00:59:00Z"},
		{"Europe/Madrid", "2027-03-28 02:00", "2027-03-28T01:00:00Z"}, // the gap begins
		{"Europe/Madrid", "2027-03-28 02:30", "2027-03-28T01:00:00Z"},
		{"Europe/Madrid", "2027-03-28 03:00", "2027-03-28T01:00:00Z"},
		{"Europe/Madrid", "2027-03-28 03:30", "2027-03-28T01:30:00Z"},
		{"Europe/Madrid", "2027-10-31 01:59", "2027-10-30T23:59:00Z"},
		{"Europe/Madrid", "2027-10-31 02:30", "2027-10-31T00:30:00Z"}, // the first of two
		{"Europe/Madrid", "2027-10-31 03:00", "2027-10-31T02:00:00Z"},
		{"America/New_York", "2027-03-14 02:30", "2027-03-14T07:00:00Z"},
		{"America/New_York", "2027-11-07 01:30", "2027-11-07T05:30:00Z"},
		{"America/New_York", "2027-07-04 09:00", "2027-07-04T13:00:00Z"},
		{"America/Sao_Paulo", "2018-11-04 00:15", "2018-11-04T03:00:00Z"}, // midnight was skipped
		{"America/Sao_Paulo", "2018-02-17 23:30", "2018-02-18T01:30:00Z"},
		{"America/Sao_Paulo", "2027-01-15 09:00", "2027-01-15T12:00:00Z"}, // no summer time any more
		{"Africa/Casablanca", "2026-02-15 02:30", "2026-02-15T01:30:00Z"}, // Ramadan: back to UTC
		{"Africa/Casablanca", "2026-03-22 02:30", "2026-03-22T02:00:00Z"}, // and forward again
		{"America/Mexico_City", "2027-04-04 02:30", "2027-04-04T08:30:00Z"},
		{"Australia/Lord_Howe", "2027-10-03 02:15", "2027-10-02T15:30:00Z"}, // half an hour
		{"Pacific/Apia", "2011-12-30 12:00", "2011-12-30T10:00:00Z"},        // a day that never was
		{"Asia/Kolkata", "2027-01-01 10:00", "2027-01-01T04:30:00Z"},
		{"UTC", "2027-01-01 10:00", "2027-01-01T10:00:00Z"},
	} {
		wall, err := time.Parse("2006-01-02 15:04", c.wall)
		if err != nil {
			t.Fatal(err)
		}
		if got := At(wall, zone(t, c.zone)).UTC().Format(time.RFC3339); got != c.want {
			t.Errorf("%s in %s is %s, want %s", c.wall, c.zone, got, c.want)
		}
	}
}

// TestNineEachDay: nine o'clock stays nine o'clock, whatever the clocks do, for 400 days in each of these zones.
func TestNineEachDay(t *testing.T) {
	for _, name := range []string{"Europe/Madrid", "America/New_York", "America/Sao_Paulo", "Africa/Casablanca", "America/Mexico_City", "Asia/Kolkata", "Australia/Lord_Howe"} {
		z := zone(t, name)
		at := At(time.Date(2026, 1, 1, 9, 0, 0, 0, time.UTC), z)
		for i := range 400 {
			if w := at.In(z); w.Hour() != 9 || w.Minute() != 0 {
				t.Fatalf("%s: day %d is at %s", name, i, w)
			}
			next := Span{Days: 1}.From(at, z)
			if d := next.Sub(at); d < 22*time.Hour || d > 26*time.Hour {
				t.Fatalf("%s: %s after %s", name, next, at)
			}
			at = next
		}
	}
}

// TestAtAgreesWithTheClocks: at every half hour of a year, what the clocks show leads back to that moment, or, where they
// show it twice, to the first.
func TestAtAgreesWithTheClocks(t *testing.T) {
	for _, name := range []string{"Europe/Madrid", "America/New_York", "Africa/Casablanca", "Australia/Lord_Howe"} {
		z := zone(t, name)
		seen := map[string]time.Time{}
		for at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() == 2026; at = at.Add(30 * time.Minute) {
			w := at.In(z)
			shown := w.Format("2006-01-02 15:04")
			if _, twice := seen[shown]; !twice {
				seen[shown] = at
			}
			if got := At(w, z); !got.Equal(seen[shown]) {
				t.Fatalf("%s: %s gives %s, want %s", name, shown, got, seen[shown])
			}
		}
	}
}

func TestSpans(t *testing.T) {
	madrid := zone(t, "Europe/Madrid")
	noon := time.Date(2027, 3, 27, 11, 0, 0, 0, time.UTC) // 12:00, a day before the change
	for s, want := range map[string]string{
		"24h": "2027-03-28T11:00:00Z", "1d": "2027-03-28T10:00:00Z", "-1d": "2027-03-26T11:00:00Z", "1w": "2027-04-03T10:00:00Z",
		"-24h": "2027-03-26T11:00:00Z", "+90s": "2027-03-27T11:01:30Z", "30m": "2027-03-27T11:30:00Z",
	} {
		sp, err := ParseSpan(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if got := sp.From(noon, madrid).Format(time.RFC3339); got != want {
			t.Errorf("%s after noon is %s, want %s", s, got, want)
		}
		if sp.Negative() != (s[0] == '-') {
			t.Errorf("%s: negative is %v", s, sp.Negative())
		}
	}
	// a day after 02:30 the clocks skip 02:30
	if got := (Span{Days: 1}).From(time.Date(2027, 3, 27, 1, 30, 0, 0, time.UTC), madrid).Format(time.RFC3339); got != "2027-03-28T01:00:00Z" {
		t.Errorf("a day before the gap leads to %s", got)
	}
	for _, s := range []string{"", "h", "0s", "1y", "1.5h", "--1h", "24", "9999999h", "367d", "53w", "1h30m"} {
		if _, err := ParseSpan(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestParse(t *testing.T) {
	madrid := zone(t, "Europe/Madrid")
	for s, want := range map[string]string{
		"2027-07-01T10:00:00Z": "2027-07-01T10:00:00Z", "2027-07-01T10:00:00+05:30": "2027-07-01T04:30:00Z", " 2027-07-01T10:00 ": "2027-07-01T08:00:00Z",
		"2027-07-01 10:00": "2027-07-01T08:00:00Z", "2027-07-01T10:00:30": "2027-07-01T08:00:30Z", "2027-03-28T02:30": "2027-03-28T01:00:00Z",
		"2027-07-01T10:00:00.5Z": "2027-07-01T10:00:00.5Z",
	} {
		got, err := Parse(s, madrid)
		if err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("%q is %s (%v), want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"", "Monday 10AM", "10:00", "2027-07-01", "2027-13-01T10:00"} {
		if got, err := Parse(s, madrid); err == nil {
			t.Errorf("%q is %s", s, got)
		}
	}
}
