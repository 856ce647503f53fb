package mail

import (
	"html"
	"regexp"
	"slices"
	"strings"
)

var placeholder = regexp.MustCompile(`\{\{\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\}\}`)

// Template is a text with placeholders, read once and filled often.
type Template struct {
	pieces []piece
	html   bool
	size   int // of what stands fast
}

// piece is a text and the placeholder behind it; "" at the end.
type piece struct{ text, name string }

// Read reads a text, ReadHTML HTML: a value is text there, whatever it holds.
func Read(text string) *Template     { return read(text, false) }
func ReadHTML(text string) *Template { return read(text, true) }

func read(text string, html bool) *Template {
	t := &Template{html: html}
	if strings.Contains(text, "{{") {
		at := 0
		for _, m := range placeholder.FindAllStringSubmatchIndex(text, -1) {
			t.pieces = append(t.pieces, piece{text[at:m[0]], text[m[2]:m[3]]})
			at = m[1]
		}
		text = text[at:]
	}
	t.pieces = append(t.pieces, piece{text: text})
	for _, p := range t.pieces {
		t.size += len(p.text)
	}
	return t
}

// Fill puts variables into the text. missing are the names that have no value, each once: such a text is not to be sent.
func (t *Template) Fill(value func(name string) (string, bool)) (out string, missing []string) {
	if len(t.pieces) == 1 {
		return t.pieces[0].text, nil
	}
	var b strings.Builder
	b.Grow(t.size + 128*len(t.pieces))
	for _, p := range t.pieces {
		b.WriteString(p.text)
		if p.name == "" {
			break
		}
		v, ok := value(p.name)
		if !ok && !slices.Contains(missing, p.name) {
			missing = append(missing, p.name)
		}
		if t.html {
			v = html.EscapeString(v)
		}
		b.WriteString(v)
	}
	return b.String(), missing
}

// Fill is Read and Fill at once.
func Fill(text string, value func(name string) (string, bool)) (out string, missing []string) {
	return Read(text).Fill(value)
}

// FillHTML is ReadHTML and Fill at once.
func FillHTML(text string, value func(name string) (string, bool)) (out string, missing []string) {
	return ReadHTML(text).Fill(value)
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
