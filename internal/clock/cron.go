package clock

import (
	"errors"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Cron is a standard cron expression: minute, hour, day of the month, month, day of the week. A zero one never occurs;
// ParseCron makes them.
type Cron struct {
	minutes, hours, days, months, weekdays uint64 // a bit for each value
	// anyDay: one of the two day fields begins with a star, and a day must fit both. Else it need fit only one.
	anyDay bool
}

// Occurrence is one moment of a Cron.
type Occurrence struct {
	At time.Time // UTC
	// Local names it by what the clocks show, with their offset where they can show it twice. Of a time that the clocks
	// skip it is that time, not the moment after the gap.
	Local string
}

// cronField is one of the five: what it is called, its least and greatest value, and the names of some.
type cronField struct {
	name        string
	least, most int
	names       []string // from least on
}

var cronFields = [5]cronField{
	{name: "minute", most: 59},
	{name: "hour", most: 23},
	{name: "day of the month", least: 1, most: 31},
	{name: "month", least: 1, most: 12, names: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{name: "day of the week", most: 7, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

var cronNames = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

const (
	maxCron  = 200
	allHours = 1<<24 - 1
	// farthest is within how many years whatever occurs at all does: a leap day on a given day of the week comes each 28
	// years, or 40 across a century that has none.
	farthest = 41
)

// ParseCron reads an expression: values, names, ranges, steps and lists in each of five fields, or @hourly, @daily,
// @weekly, @monthly, @yearly. One that never occurs is refused. The error says what is wrong as the end of a sentence, and
// repeats nothing of the expression.
func ParseCron(s string) (Cron, error) {
	var c Cron
	if len(s) > maxCron {
		return c, errors.New("is too long for a cron expression")
	}
	s = strings.ToLower(strings.TrimSpace(s))
	if full, ok := cronNames[s]; ok {
		s = full
	}
	texts := strings.Fields(s)
	if len(texts) != len(cronFields) {
		return c, errors.New(`must be five fields such as "30 9 * * mon-fri", or one of @hourly, @daily, @weekly, @monthly, @yearly`)
	}
	for i, to := range []*uint64{&c.minutes, &c.hours, &c.days, &c.months, &c.weekdays} {
		var ok bool
		if *to, ok = cronFields[i].parse(texts[i]); !ok {
			return Cron{}, errors.New("has a " + cronFields[i].name + " that is none")
		}
	}
	c.weekdays = (c.weekdays | c.weekdays>>7) & 0x7f // 7 is Sunday too
	c.anyDay = texts[2][0] == '*' || texts[4][0] == '*'
	if _, ok := c.wallAfter(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); !ok {
		return Cron{}, errors.New("never occurs: no such day is in the calendar")
	}
	return c, nil
}

// parse reads a list.
func (f cronField) parse(s string) (set uint64, ok bool) {
	for part := range strings.SplitSeq(s, ",") {
		span, step, stepped := strings.Cut(part, "/")
		by := 1
		if stepped {
			if by, ok = number(step); !ok || by < 1 || by > f.most {
				return 0, false
			}
		}
		from, to := f.least, f.most
		if span != "*" {
			first, last, isRange := strings.Cut(span, "-")
			if from, ok = f.value(first); !ok {
				return 0, false
			}
			switch {
			case isRange:
				if to, ok = f.value(last); !ok {
					return 0, false
				}
				if to == 0 && f.most == 7 { // a week may end on Sunday
					to = 7
				}
			case !stepped: // "5/10" goes on to the end
				to = from
			}
		}
		if from > to {
			return 0, false
		}
		for v := from; v <= to; v += by {
			set |= 1 << v
		}
	}
	return set, true
}

func (f cronField) value(s string) (int, bool) {
	for i, name := range f.names {
		if s == name {
			return f.least + i, true
		}
	}
	v, ok := number(s)
	return v, ok && v >= f.least && v <= f.most
}

// number reads one or two digits.
func number(s string) (int, bool) {
	if s == "" || len(s) > 2 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	v, err := strconv.Atoi(s)
	return v, err == nil
}

// Next gives the first occurrence after a moment; false only for the zero Cron.
//
// The local times that fit are turned into moments as At does: a time that the clocks skip is the moment after the gap,
// together with all others that fall there, and a time that comes twice is the first of the two. Only an expression of
// every hour names no hour of the clock: it goes on through the hour that comes twice.
func (c Cron) Next(after time.Time, zone *time.Location) (Occurrence, bool) {
	for {
		local := after.In(zone)
		_, change := local.ZoneBounds() // of the clocks, after that moment
		_, offset := local.Zone()
		wall := wallOf(local)
		for {
			var ok bool
			if wall, ok = c.wallAfter(wall); !ok {
				return Occurrence{}, false
			}
			at := At(wall, zone).UTC()
			if c.everyHour() && !at.After(after) { // shown before, and again now
				at = wall.Add(-time.Duration(offset) * time.Second)
			}
			if !at.After(after) {
				continue
			}
			if !c.everyHour() {
				return Occurrence{at, wall.Format("2006-01-02T15:04")}, true
			}
			if change.IsZero() || !change.Before(at) {
				return named(at, zone), true
			}
			break // what the clocks show from the change on comes first
		}
		if c.fits(wallOf(change.In(zone))) {
			return named(change, zone), true
		}
		after = change
	}
}

func named(at time.Time, zone *time.Location) Occurrence {
	return Occurrence{at.UTC(), at.In(zone).Format("2006-01-02T15:04Z07:00")}
}

func (c Cron) everyHour() bool { return c.hours == allHours }

// wallOf gives what the clocks show, to the minute, as a time in UTC.
func wallOf(local time.Time) time.Time {
	return time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), 0, 0, time.UTC)
}

// wallAfter gives the first time on the clock after another that fits; false if there is none.
func (c Cron) wallAfter(wall time.Time) (time.Time, bool) {
	t := wall.Add(time.Minute)
	last := t.Year() + farthest
	for t.Year() <= last {
		year, month, day := t.Date()
		if c.months&(1<<month) == 0 {
			t = time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
			continue
		}
		if c.fitsDay(t) {
			h, m := t.Hour(), t.Minute()
			if c.hours&(1<<h) != 0 {
				if m, ok := least(c.minutes, m); ok {
					return time.Date(year, month, day, h, m, 0, 0, time.UTC), true
				}
			}
			if h, ok := least(c.hours, h+1); ok {
				m, ok := least(c.minutes, 0)
				return time.Date(year, month, day, h, m, 0, 0, time.UTC), ok
			}
		}
		t = time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
	}
	return time.Time{}, false
}

// least gives the least member of a set that is at least n.
func least(set uint64, n int) (int, bool) {
	set &^= 1<<n - 1
	return bits.TrailingZeros64(set), set != 0
}

func (c Cron) fitsDay(t time.Time) bool {
	day, weekday := c.days&(1<<t.Day()) != 0, c.weekdays&(1<<t.Weekday()) != 0
	if c.anyDay {
		return day && weekday
	}
	return day || weekday
}

func (c Cron) fits(t time.Time) bool {
	return c.months&(1<<t.Month()) != 0 && c.fitsDay(t) && c.hours&(1<<t.Hour()) != 0 && c.minutes&(1<<t.Minute()) != 0
}
