package api

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// syntaxError gives the offset of the first byte that JSON does not allow.
func syntaxError(data []byte) (int, bool) {
	var raw json.RawMessage
	err := json.Unmarshal(data, &raw) // checks the whole text before it stores anything
	var se *json.SyntaxError
	if errors.As(err, &se) {
		return int(se.Offset), true
	}
	return len(data), err != nil
}

// tooDeep tells whether arrays and objects nest deeper than limit. It looks at brackets outside of strings only, so it
// may be asked before the text is known to be JSON.
func tooDeep(data []byte, limit int) bool {
	depth, inside := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inside:
			switch c {
			case '\\':
				i++
			case '"':
				inside = false
			}
		case c == '"':
			inside = true
		case c == '{', c == '[':
			if depth++; depth > limit {
				return true
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return false
}

// scanner walks JSON that is known to be valid and not deep, keeping the path.
type scanner struct {
	data []byte
	pos  int
	path []string

	duplicate bool // path is that of a name that stands twice in its object
	want      int  // an offset to find the pointer of; 0: none
	pointer   string
	found     bool
}

// duplicateName gives the pointer of the first name that an object has twice. Parsers disagree on which of the two counts.
func duplicateName(data []byte) (string, bool) {
	s := &scanner{data: data}
	s.value()
	return pointer(s.path), s.duplicate
}

// pointerAt gives the pointer of the innermost value that a decoder stood in after reading offset bytes.
func pointerAt(data []byte, offset int) string {
	s := &scanner{data: data, want: offset}
	s.value()
	return s.pointer
}

func (s *scanner) value() {
	s.space()
	start := s.pos
	switch s.data[s.pos] {
	case '{':
		s.object()
	case '[':
		s.array()
	case '"':
		s.text()
	default:
		for s.pos < len(s.data) && !strings.ContainsRune(",]} \t\r\n", rune(s.data[s.pos])) {
			s.pos++
		}
	}
	if s.want > 0 && !s.found && start < s.want && s.pos >= s.want {
		s.found, s.pointer = true, pointer(s.path)
	}
}

func (s *scanner) object() {
	names := map[string]struct{}{}
	s.pos++
	for s.space(); s.data[s.pos] != '}'; s.space() {
		name := s.text()
		s.path = append(s.path, name)
		if _, twice := names[name]; twice {
			s.duplicate = true
		}
		if s.duplicate { // the path stays as it is
			s.pos = len(s.data)
			return
		}
		names[name] = struct{}{}
		s.space()
		s.pos++ // colon
		s.value()
		if s.duplicate {
			return
		}
		s.path = s.path[:len(s.path)-1]
		if s.space(); s.data[s.pos] == ',' {
			s.pos++
		}
	}
	s.pos++
}

func (s *scanner) array() {
	s.pos++
	i := 0
	for s.space(); s.data[s.pos] != ']'; s.space() {
		s.path = append(s.path, strconv.Itoa(i))
		s.value()
		if s.duplicate {
			return
		}
		s.path = s.path[:len(s.path)-1]
		if s.space(); s.data[s.pos] == ',' {
			s.pos++
		}
		i++
	}
	s.pos++
}

// text reads a string; a name is compared as what it means, not as how it is escaped.
func (s *scanner) text() string {
	start, escaped := s.pos, false
	for s.pos++; s.data[s.pos] != '"'; s.pos++ {
		if s.data[s.pos] == '\\' {
			escaped = true
			s.pos++
		}
	}
	s.pos++
	raw := s.data[start:s.pos]
	if !escaped {
		return string(raw[1 : len(raw)-1])
	}
	var v string
	_ = json.Unmarshal(raw, &v)
	return v
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// maxSegment is how much of a name a pointer shows: names come from the caller and may be long.
const maxSegment = 100

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is the JSON pointer (RFC 6901) of a path.
func pointer(path []string) string {
	var b strings.Builder
	for _, seg := range path {
		if len(seg) > maxSegment {
			seg = strings.ToValidUTF8(seg[:maxSegment], "") + "…"
		}
		b.WriteByte('/')
		b.WriteString(pointerEscapes.Replace(seg))
	}
	return b.String()
}
