package clock

import (
	"strings"
	"testing"
	"time"
)

func cron(t *testing.T, expr string) Cron {
	t.Helper()
	c, err := ParseCron(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return c
}

func utc(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestNext: each line is an expression, a zone, a moment, and the occurrences that follow it.
func TestNext(t *testing.T) {
	for _, c := range []struct{ expr, zone, after, want string }{
		// the hour that never was
		{"30 2 * * *", "Europe/Madrid", "2027-03-27T02:00:00Z", "2027-03-28T01:00:00Z 2027-03-29T00:30:00Z"},
		{"0,15,30 2 * * *", "Europe/Madrid", "2027-03-27T02:00:00Z", "2027-03-28T01:00:00Z 2027-03-29T00:00:00Z"},
		{"0 2,3 * * *", "Europe/Madrid", "2027-03-27T03:00:00Z", "2027-03-28T01:00:00Z 2027-03-29T00:00:00Z"},
		{"30 2,3 * * *", "Europe/Madrid", "2027-03-27T03:00:00Z", "2027-03-28T01:00:00Z 2027-03-28T01:30:00Z"},
		{"30 * * * *", "Europe/Madrid", "2027-03-28T00:00:00Z", "2027-03-28T00:30:00Z 2027-03-28T01:00:00Z 2027-03-28T01:30:00Z"},
		{"*/20 * * * *", "Europe/Madrid", "2027-03-28T00:30:00Z", "2027-03-28T00:40:00Z 2027-03-28T01:00:00Z 2027-03-28T01:20:00Z"},
		{"0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z 2018-11-05T02:00:00Z"},
		{"0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2011-12-30T10:00:00Z 2012-12-29T22:00:00Z"},
		// the hour that comes twice
		{"30 2 * * *", "Europe/Madrid", "2027-10-30T02:00:00Z", "2027-10-31T00:30:00Z 2027-11-01T01:30:00Z"},
		{"30 2 * * *", "Europe/Madrid", "2027-10-31T01:15:00Z", "2027-11-01T01:30:00Z"},
		{"*/30 2 * * *", "Europe/Madrid", "2027-10-31T00:30:00Z", "2027-11-01T01:00:00Z"},
		{"0 */2 * * *", "Europe/Madrid", "2027-10-30T22:30:00Z", "2027-10-31T00:00:00Z 2027-10-31T03:00:00Z"},
		{"30 1 * * *", "America/New_York", "2027-11-06T12:00:00Z", "2027-11-07T05:30:00Z 2027-11-08T06:30:00Z"},
		{"15 * * * *", "Europe/Madrid", "2027-10-31T00:00:00Z", "2027-10-31T00:15:00Z 2027-10-31T01:15:00Z 2027-10-31T02:15:00Z"},
		{"0 0-23 * * *", "Europe/Madrid", "2027-10-30T23:30:00Z", "2027-10-31T00:00:00Z 2027-10-31T01:00:00Z 2027-10-31T02:00:00Z"},
		{"*/15 * * * *", "Europe/Madrid", "2027-10-31T00:40:00Z", "2027-10-31T00:45:00Z 2027-10-31T01:00:00Z 2027-10-31T01:15:00Z"},
		{"45 * * * *", "Australia/Lord_Howe", "2027-04-03T14:00:00Z", "2027-04-03T14:45:00Z 2027-04-03T15:15:00Z 2027-04-03T16:15:00Z"},
		// days
		{"0 9 13 * fri", "UTC", "2027-08-01T00:00:00Z", "2027-08-06T09:00:00Z 2027-08-13T09:00:00Z 2027-08-20T09:00:00Z"},
		{"0 9 1 * mon", "UTC", "2027-08-24T00:00:00Z", "2027-08-30T09:00:00Z 2027-09-01T09:00:00Z 2027-09-06T09:00:00Z"},
		{"0 9 * * mon-fri", "UTC", "2027-08-06T10:00:00Z", "2027-08-09T09:00:00Z"},
		{"0 9 */10 * fri", "UTC", "2027-08-01T00:00:00Z", "2027-10-01T09:00:00Z 2027-12-31T09:00:00Z"}, // a star: both must fit
		{"0 0 29 2 *", "UTC", "2027-08-01T00:00:00Z", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
		{"0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"0 0 31 * *", "UTC", "2027-01-31T00:00:00Z", "2027-03-31T00:00:00Z 2027-05-31T00:00:00Z"},
		{"0 0 * * 7", "UTC", "2027-08-01T00:00:00Z", "2027-08-08T00:00:00Z"}, // Sunday
		{"0 0 * * sat-sun", "UTC", "2027-08-01T00:00:00Z", "2027-08-07T00:00:00Z 2027-08-08T00:00:00Z"},
		{"0 0 * * 5-7", "UTC", "2027-08-06T00:00:00Z", "2027-08-07T00:00:00Z 2027-08-08T00:00:00Z 2027-08-13T00:00:00Z"},
		// forms
		{"@hourly", "UTC", "2027-08-01T00:00:00Z", "2027-08-01T01:00:00Z"},
		{"@Daily", "Asia/Kolkata", "2027-08-01T00:00:00Z", "2027-08-01T18:30:00Z"},
		{"@weekly", "UTC", "2027-08-02T00:00:00Z", "2027-08-08T00:00:00Z"},
		{"@monthly", "UTC", "2027-08-02T00:00:00Z", "2027-09-01T00:00:00Z"},
		{"@yearly", "UTC", "2027-08-02T00:00:00Z", "2028-01-01T00:00:00Z"},
		{" 5/20  8 * JAN,jul  * ", "UTC", "2027-06-30T23:59:59Z", "2027-07-01T08:05:00Z 2027-07-01T08:25:00Z 2027-07-01T08:45:00Z 2027-07-02T08:05:00Z"},
		{"59 23 31 12 *", "UTC", "2027-12-31T23:58:59Z", "2027-12-31T23:59:00Z 2028-12-31T23:59:00Z"},
		{"* * * * *", "UTC", "2027-08-01T00:00:59Z", "2027-08-01T00:01:00Z 2027-08-01T00:02:00Z"},
	} {
		z, at := zone(t, c.zone), utc(t, c.after)
		var got []string
		for range strings.Fields(c.want) {
			o, ok := cron(t, c.expr).Next(at, z)
			if !ok {
				t.Fatalf("%s: nothing after %s", c.expr, at)
			}
			at = o.At
			got = append(got, at.Format(time.RFC3339))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s in %s after %s:\n got %s\nwant %s", c.expr, c.zone, c.after, s, c.want)
		}
	}
}

// TestNames: an occurrence keeps its name whatever moment it is, and no two share one.
func TestNames(t *testing.T) {
	madrid := zone(t, "Europe/Madrid")
	for _, c := range []struct{ expr, after, want string }{
		{"30 2 * * *", "2027-03-27T12:00:00Z", "2027-03-28T02:30"},
		{"30 2 * * *", "2027-10-30T12:00:00Z", "2027-10-31T02:30"},
		{"30 * * * *", "2027-10-31T00:00:00Z", "2027-10-31T02:30+02:00"},
		{"30 * * * *", "2027-10-31T01:00:00Z", "2027-10-31T02:30+01:00"},
	} {
		if o, _ := cron(t, c.expr).Next(utc(t, c.after), madrid); o.Local != c.want {
			t.Errorf("%s after %s is named %s", c.expr, c.after, o.Local)
		}
	}
}

// TestNineByCron: nine o'clock in each of these zones for 400 days is what the zone's own table says.
func TestNineByCron(t *testing.T) {
	for _, name := range []string{"America/Sao_Paulo", "America/Mexico_City", "Africa/Casablanca", "Europe/Madrid", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"} {
		z, at := zone(t, name), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		seen := 0
		for end := at.AddDate(0, 0, 400); ; seen++ {
			o, _ := cron(t, "0 9 * * *").Next(at, z)
			// nothing between the two shows nine
			for m := at.Add(time.Minute); m.Before(o.At); m = m.Add(time.Minute) {
				if w := m.In(z); w.Hour() == 9 && w.Minute() == 0 {
					t.Fatalf("%s: %s is left out", name, w)
				}
			}
			if at = o.At; at.After(end) {
				break
			}
			if w := at.In(z); w.Hour() != 9 || w.Minute() != 0 || o.Local != w.Format("2006-01-02T15:04") {
				t.Fatalf("%s: %s named %s", name, w, o.Local)
			}
		}
		if seen < 399 || seen > 401 {
			t.Errorf("%s: nine o'clock on %d of 400 days", name, seen)
		}
	}
}

// TestNextAgreesWithTheClocks: minute by minute through changes of the clocks, an occurrence is where the clocks show a
// time that fits for the first time (for expressions of every hour: each time), and at the end of a gap that skips one.
func TestNextAgreesWithTheClocks(t *testing.T) {
	for _, expr := range []string{"*/7 * * * *", "30 * * * *", "*/10 1,2,3 * * *", "15 2 * * *", "0 0,3 * * *", "45 1-2 * * *"} {
		c := cron(t, expr)
		for _, name := range []string{"Europe/Madrid", "America/New_York", "Africa/Casablanca", "Australia/Lord_Howe"} {
			z := zone(t, name)
			first := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
			next, _ := c.Next(first, z)
			names := map[string]bool{}
			shown := map[time.Time]bool{}
			before := wallOf(first.In(z))
			for at := first.Add(time.Minute); at.Year() == 2027; at = at.Add(time.Minute) {
				if at.Month() == time.May { // no clocks change until autumn
					at = at.AddDate(0, 4, 0)
					before = wallOf(at.Add(-time.Minute).In(z))
					next, _ = c.Next(at.Add(-time.Minute), z)
				}
				w := wallOf(at.In(z))
				fits := c.fits(w) && (c.everyHour() || !shown[w])
				for skipped := before.Add(time.Minute); skipped.Before(w); skipped = skipped.Add(time.Minute) {
					fits = fits || c.fits(skipped)
					shown[skipped] = true
				}
				shown[w], before = true, w
				if fits != at.Equal(next.At) {
					t.Fatalf("%s in %s: at %s (%s) occurs %v, but the next is %s", expr, name, at, w, fits, next.At)
				}
				if fits {
					if names[next.Local] {
						t.Fatalf("%s in %s: %s comes twice", expr, name, next.Local)
					}
					names[next.Local] = true
					next, _ = c.Next(at, z)
				}
			}
		}
	}
}

func TestNoCron(t *testing.T) {
	for _, s := range []string{
		"", " ", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *", "* * * * 8",
		"0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "*/0 * * * *", "*/60 * * * *", "5-1 * * * *", "1,,2 * * * *", ", * * * *", "-1 * * * *", "1- * * * *",
		"a * * * *", "* * * foo *", "* * mon * *", "1.5 * * * *", "+1 * * * *", "@every 5s", "@reboot", "TZ=UTC * * * * *", "TZ=0", "*5 * * * *",
		"1/ * * * *", "/2 * * * *", "1/2/3 * * * *", "001 * * * *", "٣ * * * *", "? * * * *", "0 0 L * *", strings.Repeat("1,", 100) + "1 * * * *",
	} {
		if c, err := ParseCron(s); err == nil {
			t.Errorf("%q is %+v", s, c)
		} else if s != "" && strings.Contains(err.Error(), `"`+s+`"`) {
			t.Errorf("%v repeats %q", err, s)
		}
	}
}

// FuzzCron: whatever is taken has occurrences that come one after the other, at whole minutes.
func FuzzCron(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/5 1-3 1,15 * mon-fri", "0 0 29 2 *", "@daily", "0 0 31 2 *", "5/7 23 * jan sun", "30 2 * * */2"} {
		f.Add(s, int64(1_806_195_600))
	}
	madrid, err := time.LoadLocation("Europe/Madrid")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string, unix int64) {
		c, err := ParseCron(s)
		if err != nil {
			return
		}
		at := time.Unix(unix%4_000_000_000, 0)
		for range 5 {
			o, ok := c.Next(at, madrid)
			if !ok || !o.At.After(at) || o.At.Second() != 0 || o.At.Sub(at) > farthest*366*24*time.Hour {
				t.Fatalf("%q: %+v, %v after %s", s, o, ok, at)
			}
			at = o.At
		}
	})
}

func BenchmarkNext(b *testing.B) {
	madrid, _ := time.LoadLocation("Europe/Madrid")
	c, _ := ParseCron("*/5 * * * *")
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for b.Loop() {
		o, _ := c.Next(at, madrid)
		at = o.At
	}
}
