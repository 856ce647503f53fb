package rule

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
)

// Values are what an event says. Numbers stay as they were written, so that they are sent so: an order number of twenty
// digits, an amount of 1.50. Conditions see them as numbers.
type Values map[string]any

// UnmarshalJSON implements json.Unmarshaler.
func (v *Values) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		return err
	}
	*v = m
	return nil
}

// counted gives a value with its numbers as conditions compare them.
func counted(v any) any {
	switch x := v.(type) {
	case json.Number:
		f, _ := strconv.ParseFloat(string(x), 64) // out of range: infinite
		return f
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = counted(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = counted(e)
		}
		return out
	}
	return v
}

// worth gives a text as it is sent; false if it is no value: nothing that can be seen, or what a website's own program
// left behind. A person may be called None or Nan.
func worth(s string) (string, bool) {
	switch seen := strings.TrimFunc(s, invisible); {
	case seen == "", seen == "NaN", seen == "[object Object]", strings.EqualFold(seen, "undefined"), strings.EqualFold(seen, "null"), strings.Contains(s, "{{"):
		return "", false
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\n' && c != '\t' { // Meta refuses some, and nobody sees any
			return -1
		}
		return c
	}, s), true
}

func invisible(c rune) bool {
	switch c {
	case '\u115f', '\u1160', '\u2800', '\u3164', '\uffa0': // blanks that count as letters
		return true
	}
	return unicode.IsSpace(c) || unicode.IsControl(c) || unicode.Is(unicode.Cf, c)
}
