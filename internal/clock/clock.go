package clock

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// around is how far from a wall-clock time, read as UTC, its instant can lie: a day and some for the zone, and as much
// again for a zone that skips a whole day.
const around = 50 * time.Hour

// At gives the instant at which the clocks of a zone show what wall shows (its own zone is not looked at).
func At(wall time.Time, zone *time.Location) time.Time {
	u := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), time.UTC)
	last := u.Add(around)
	for t := u.Add(-around); ; {
		_, offset := t.In(zone).Zone()
		start, end := t.In(zone).ZoneBounds()
		at := u.Add(-time.Duration(offset) * time.Second)
		switch {
		case !start.IsZero() && at.Before(start):
			return start.UTC() // skipped: the clocks were put forward over it
		case end.IsZero() || at.Before(end) || end.After(last):
			return at
		}
		t = end
	}
}

// Span is a stretch of time: calendar days, then elapsed time.
type Span struct {
	Days    int
	Elapsed time.Duration
}

var spanForm = regexp.MustCompile(`^([+-]?)([0-9]{1,6})(s|m|h|d|w)$`)

// maxSpan is the longest one.
const maxSpan = 366 * 24 * time.Hour

// ParseSpan reads "90s", "15m", "24h", "7d", "2w", each with a sign before it or none. Seconds, minutes and hours elapse;
// days and weeks go by the calendar.
func ParseSpan(s string) (Span, error) {
	m := spanForm.FindStringSubmatch(s)
	if m == nil {
		return Span{}, errors.New(`must be a duration such as "30m", "24h" or "7d"`)
	}
	n, err := strconv.Atoi(m[2])
	if err != nil || n == 0 {
		return Span{}, errors.New("must be longer than nothing")
	}
	unit := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}[m[3]]
	d := time.Duration(n) * unit
	if d > maxSpan {
		return Span{}, fmt.Errorf("must be at most a year")
	}
	if m[1] == "-" {
		d = -d
	}
	if m[3] == "d" || m[3] == "w" {
		return Span{Days: int(d / (24 * time.Hour))}, nil
	}
	return Span{Elapsed: d}, nil
}

// Negative tells whether a span goes back in time.
func (s Span) Negative() bool { return s.Days < 0 || s.Elapsed < 0 }

// From gives the instant that lies a span after t. A day later the clocks of the zone show the same time.
func (s Span) From(t time.Time, zone *time.Location) time.Time {
	if s.Days != 0 {
		w := t.In(zone)
		t = At(time.Date(w.Year(), w.Month(), w.Day()+s.Days, w.Hour(), w.Minute(), w.Second(), w.Nanosecond(), time.UTC), zone)
	}
	return t.Add(s.Elapsed).UTC()
}

// The forms of a local time that Parse reads.
var localForms = []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04"}

// Parse reads an RFC 3339 time, or a local one of the zone ("2027-03-28T02:30", with a space for the T if need be).
func Parse(s string, zone *time.Location) (time.Time, error) {
	s = strings.TrimSpace(s)
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), nil
	}
	for _, f := range localForms {
		if t, err := time.Parse(f, s); err == nil {
			return At(t, zone), nil
		}
	}
	return time.Time{}, errors.New("is neither an RFC 3339 time nor a local one such as 2027-03-28T14:30")
}
