package whatsapp

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// Meta writes the same id as a string here and as a number there, and times as
// either. The types below take both, and take anything else for absence: one odd
// key must not cost the message that carries it.

// text is a string, or a number by its digits; anything else is "".
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	*t = ""
	switch {
	case len(b) == 0:
	case b[0] == '"':
		var s string
		if json.Unmarshal(b, &s) == nil {
			*t = text(s)
		}
	case b[0] == '-' || b[0] >= '0' && b[0] <= '9':
		*t = text(b)
	}
	return nil
}

// unix is a time in seconds since 1970, as a number or a string; anything else is the zero time.
type unix struct{ time.Time }

func (u *unix) UnmarshalJSON(b []byte) error {
	u.Time = time.Time{}
	if f, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64); err == nil && f > 0 && f < 253402300800 { // the end of year 9999
		sec, frac := math.Modf(f)
		u.Time = time.Unix(int64(sec), int64(frac*1e9)).UTC()
	}
	return nil
}

// integer is a number, or a string of one; anything else is 0.
type integer int64

func (i *integer) UnmarshalJSON(b []byte) error {
	*i = 0
	s := strings.Trim(string(b), `"`)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		*i = integer(n)
	} else if f, err := strconv.ParseFloat(s, 64); err == nil && f >= math.MinInt32 && f <= math.MaxInt32 {
		*i = integer(f)
	}
	return nil
}

// boolean is a bool, or a string of one; anything else is false.
type boolean bool

func (v *boolean) UnmarshalJSON(b []byte) error {
	*v = boolean(strings.Trim(string(b), `"`) == "true")
	return nil
}

// object decodes raw into v if raw is a JSON object; a single key of the wrong
// type leaves that key zero and the others filled.
func object(raw []byte, v any) bool {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 || raw[0] != '{' {
		return false
	}
	_ = json.Unmarshal(raw, v)
	return true
}

// list splits raw if it is a JSON array.
func list(raw []byte) ([]json.RawMessage, bool) {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	var out []json.RawMessage
	return out, json.Unmarshal(raw, &out) == nil
}

// absent tells whether a key was missing or null.
func absent(raw []byte) bool { return len(raw) == 0 || string(raw) == "null" }
