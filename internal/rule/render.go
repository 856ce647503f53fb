package rule

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
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

// maxRendered bounds what the values of one text's placeholders come to; those after are left out, and the text is too
// long for anything then.
const maxRendered = 1 << 20

// render fills a text's placeholders, each value escaped (nil: as it is). missing are the names that have no value:
// nothing is to be sent then.
func (s *scope) render(text string, escape func(string) string) (out string, missing []string) {
	total := 0
	out = placeholder.ReplaceAllStringFunc(text, func(m string) string {
		name := placeholder.FindStringSubmatch(m)[1]
		v, ok := s.text(name)
		if head, _, _ := strings.Cut(name, "."); !ok && s.open[head] {
			return m
		}
		if !ok {
			missing = append(missing, name)
		}
		if escape != nil {
			v = escape(v)
		}
		if total += len(v); total > maxRendered {
			return strings.Repeat(" ", 1<<10)
		}
		return v
	})
	return out, missing
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
		// what a website's own template engine left behind is no value
		if t := strings.TrimSpace(x); t == "" || t == "undefined" || t == "null" || strings.Contains(x, "{{") {
			return "", false
		}
		return x, true
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
