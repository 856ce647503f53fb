package meeting

import (
	"strings"
	"time"
	"unicode/utf8"
)

// icsTime is a moment in UTC, as RFC 5545 writes it.
const icsTime = "20060102T150405Z"

// ICS is the appointment as a calendar file (RFC 5545); of one that was cancelled, its cancellation.
func (a *Appointment) ICS() []byte {
	method, status := "PUBLISH", "CONFIRMED"
	if a.Status == Cancelled {
		method, status = "CANCEL", "CANCELLED"
	}
	lines := []string{
		"BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//ecod//appointments//EN", "CALSCALE:GREGORIAN", "METHOD:" + method,
		"BEGIN:VEVENT", "UID:" + a.ID + "@ecod", "SEQUENCE:" + itoa(a.Revision-1), "DTSTAMP:" + stamp(a.UpdatedAt), "CREATED:" + stamp(a.CreatedAt),
		"LAST-MODIFIED:" + stamp(a.UpdatedAt), "DTSTART:" + stamp(a.StartsAt), "DTEND:" + stamp(a.EndsAt()), "SUMMARY:" + escape(a.Title), "STATUS:" + status,
	}
	if a.Meet.URL != "" {
		lines = append(lines, "LOCATION:"+escape(a.Meet.URL), "URL:"+uri(a.Meet.URL), "DESCRIPTION:"+escape(a.Meet.URL))
	}
	lines = append(lines, "END:VEVENT", "END:VCALENDAR")
	var b strings.Builder
	for _, l := range lines {
		fold(&b, l)
	}
	return []byte(b.String())
}

func stamp(t time.Time) string { return t.UTC().Format(icsTime) }

var escaper = strings.NewReplacer(`\`, `\\`, ";", `\;`, ",", `\,`, "\r\n", `\n`, "\n", `\n`, "\r", `\n`)

// escape writes a text value.
func escape(s string) string { return escaper.Replace(s) }

// uri drops what would end the line of a value that is not escaped.
func uri(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// fold writes a line in pieces of at most 75 bytes, no character torn apart.
func fold(b *strings.Builder, line string) {
	const most = 75
	for room := most; len(line) > room; room = most - 1 { // of later pieces, the space before them counts
		n := room
		for !utf8.RuneStart(line[n]) {
			n--
		}
		b.WriteString(line[:n])
		b.WriteString("\r\n ")
		line = line[n:]
	}
	b.WriteString(line)
	b.WriteString("\r\n")
}
