package mail

import (
	"html"
	"regexp"
	"slices"
	"strings"
)

var placeholder = regexp.MustCompile(`\{\{\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\}\}`)

// Fill puts variables into a text. missing are the names that have no value, each once: such a text is not to be sent.
func Fill(text string, value func(name string) (string, bool)) (out string, missing []string) {
	return fill(text, value, func(s string) string { return s })
}

// FillHTML is Fill for HTML: a value is text there, whatever it holds.
func FillHTML(text string, value func(name string) (string, bool)) (out string, missing []string) {
	return fill(text, value, html.EscapeString)
}

func fill(text string, value func(string) (string, bool), escape func(string) string) (out string, missing []string) {
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	out = placeholder.ReplaceAllStringFunc(text, func(m string) string {
		name := placeholder.FindStringSubmatch(m)[1]
		v, ok := value(name)
		if !ok && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
		return escape(v)
	})
	return out, missing
}

// Names are the names of a text's placeholders, each once. False: it has braces that would be sent as they are.
func Names(text string) (names []string, ok bool) {
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	rest := placeholder.ReplaceAllString(text, "")
	return names, !strings.Contains(rest, "{{") && !strings.Contains(rest, "}}")
}
