package rule

import (
	"errors"
	"fmt"
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

// render fills a text's placeholders. missing are the names that have no value: nothing is to be sent then.
func (s *scope) render(text string) (out string, missing []string) {
	out = placeholder.ReplaceAllStringFunc(text, func(m string) string {
		name := placeholder.FindStringSubmatch(m)[1]
		v, ok := s.text(name)
		if !ok {
			missing = append(missing, name)
		}
		return v
	})
	return out, missing
}

// text gives the value of a name as it is sent: an event's variable, or a path such as lead.name. False where there is
// none, or where it is not a text, a number or a truth value.
func (s *scope) text(name string) (string, bool) {
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

var durationForm = regexp.MustCompile(`^([0-9]{1,6})(s|m|h|d|w)$`)

// parseDuration reads "90s", "15m", "24h", "7d", "2w". Days and weeks count 24 h here; where calendar days matter the
// lead's zone decides.
func parseDuration(s string) (time.Duration, error) {
	m := durationForm.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New(`must be a duration such as "30m", "24h" or "7d"`)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || n == 0 {
		return 0, errors.New("must be longer than nothing")
	}
	unit := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}[m[2]]
	d := time.Duration(n) * unit
	if d > 366*24*time.Hour {
		return 0, fmt.Errorf("must be at most a year")
	}
	return d, nil
}
