package rule

import (
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

var placeholder = regexp.MustCompile(`\{\{\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\}\}`)

// checkPlaceholders refuses texts with braces that would be sent as they are.
func checkPlaceholders(text string) error {
	rest := placeholder.ReplaceAllString(text, "")
	if strings.Contains(rest, "{{") || strings.Contains(rest, "}}") {
		return errors.New("has a placeholder that is not of the form {{name}} or {{lead.name}}")
	}
	return nil
}

// What a text may come to once its placeholders are filled, in characters.
const (
	maxText      = 4096 // of WhatsApp, and of a field of a lead
	maxParameter = 1024
	maxMail      = 256 << 10
	maxLine      = 998 // a subject, a title
	maxShort     = 320 // a time, a zone, an address
)

// What all texts of one run, and of all runs of one event, may come to, in bytes.
const (
	maxRunTexts   = 1 << 20
	maxEventTexts = 8 << 20
)

// render fills a text's placeholders, each value escaped (nil: as it is). missing are the names that have no value:
// nothing is to be sent then. False where the text comes to more than most characters; it is not built any further.
func (s *scope) render(text string, most int, escape func(string) string) (out string, missing []string, ok bool) {
	var b strings.Builder
	for { // one after the other: what comes after the bound is not even looked at
		m := placeholder.FindStringSubmatchIndex(text)
		if m == nil {
			break
		}
		b.WriteString(text[:m[0]])
		name := text[m[2]:m[3]]
		v, known := s.text(name)
		switch head, _, _ := strings.Cut(name, "."); {
		case known && escape != nil:
			v = escape(v)
		case known:
		case s.open[head]:
			v = text[m[0]:m[1]]
		default:
			missing = append(missing, name)
		}
		if b.Len()+len(v) > most*utf8.UTFMax {
			return "", missing, false
		}
		b.WriteString(v)
		text = text[m[1]:]
	}
	b.WriteString(text)
	out = b.String()
	if len(out) > most && utf8.RuneCountInString(out) > most {
		return "", missing, false
	}
	return out, missing, true
}

// text gives the value of a name as it is sent: an earlier step's result, an event's variable, or a path such as
// lead.name. False where there is none, or where it is not a text, a number or a truth value.
func (s *scope) text(name string) (string, bool) {
	if v, ok := dig(s.results, name); ok {
		return format(v)
	}
	if v, ok := dig(s.variables(), name); ok {
		return format(v)
	}
	if v, ok := dig(s.env, name); ok {
		return format(v)
	}
	return "", false
}

// dig follows a dotted path into nested maps; a name that holds dots itself comes first.
func dig(m map[string]any, path string) (any, bool) {
	if v, ok := m[path]; ok {
		return v, true
	}
	head, tail, ok := strings.Cut(path, ".")
	if !ok {
		return nil, false
	}
	next, ok := m[head].(map[string]any)
	if !ok {
		return nil, false
	}
	return dig(next, tail)
}

func format(v any) (string, bool) {
	switch x := v.(type) {
	case string:
		return worth(x)
	case json.Number:
		return string(x), true
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64), true
	case int:
		return strconv.Itoa(x), true
	case int64:
		return strconv.FormatInt(x, 10), true
	case bool:
		return strconv.FormatBool(x), true
	case time.Time:
		return x.Format(time.RFC3339), !x.IsZero()
	}
	return "", false
}
