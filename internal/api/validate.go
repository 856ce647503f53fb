package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/fault"
)

// maxErrors is how many bad places one answer names.
const maxErrors = 50

// requiredMark and decodeMark begin messages that carry more than a sentence through huma, which knows strings only.
const (
	requiredMark = "\x00required:"
	decodeMark   = "\x00decode:"
)

// invalidInput is the 422 for what huma found. It never repeats a value: only places and expectations leave.
func invalidInput(errs []error) *Problem {
	p := newProblem(http.StatusUnprocessableEntity, "invalid", "The input is not valid.")
	for _, err := range errs {
		var f *fault.Error
		var d huma.ErrorDetailer
		switch {
		case errors.As(err, &f): // of a resolver
			for _, e := range f.Fields {
				p.Errors = append(p.Errors, ProblemError(e))
			}
		case errors.As(err, &d):
			p.Errors = append(p.Errors, places(d.ErrorDetail())...)
		}
	}
	slices.SortStableFunc(p.Errors, func(x, y ProblemError) int { return strings.Compare(x.Pointer, y.Pointer) })
	p.Errors = slices.Compact(p.Errors)
	if n := len(p.Errors); n > maxErrors {
		p.Errors = p.Errors[:maxErrors]
		p.Detail = "The input is not valid in " + strconv.Itoa(n) + " places; the first are named."
	}
	return p
}

func places(d *huma.ErrorDetail) []ProblemError {
	if rest, ok := strings.CutPrefix(d.Message, decodeMark); ok {
		var out []ProblemError
		_ = json.Unmarshal([]byte(rest), &out)
		return out
	}
	path, isBody := location(d.Location)
	if !isBody {
		return []ProblemError{{Pointer: d.Location, Detail: sentence(d.Message)}}
	}
	if name, ok := strings.CutPrefix(d.Message, requiredMark); ok {
		return []ProblemError{{Pointer: pointer(append(path, name)), Detail: "This member is required."}}
	}
	return []ProblemError{{Pointer: pointer(path), Detail: sentence(d.Message)}}
}

func sentence(s string) string {
	if s == "" {
		return "This is not valid."
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// huma writes a place as body.actions[0].type and cannot tell a separator from the same character in a name (and loses
// its way after such a name). So before validation, in the copy that huma validates, these characters of names are
// replaced by bytes that no UTF-8 text holds.
var (
	hide = strings.NewReplacer(".", "\xfe", "[", "\xff")
	show = strings.NewReplacer("\xfe", ".", "\xff", "[")
)

func hideSeparators(v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			hideSeparators(member)
			if strings.ContainsAny(name, ".[") {
				delete(v, name)
				v[hide.Replace(name)] = member
			}
		}
	case []any:
		for _, item := range v {
			hideSeparators(item)
		}
	}
}

// location splits huma's place of a value of the body; false for one of a parameter.
func location(s string) ([]string, bool) {
	rest, ok := strings.CutPrefix(s, "body")
	if !ok || (rest != "" && rest[0] != '.' && rest[0] != '[') {
		return nil, false
	}
	var path []string
	for rest != "" {
		if rest[0] == '[' {
			index, after, _ := strings.Cut(rest[1:], "]")
			path, rest = append(path, index), after
			continue
		}
		rest = rest[1:]
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		path, rest = append(path, show.Replace(rest[:end])), rest[end:]
	}
	return path, true
}

// decodeError carries where and why a value could not be decoded, without the value and without the names of Go types.
func decodeError(data []byte, err error) error {
	places := []ProblemError{{Detail: "A value cannot be read."}}
	var f *fault.Error
	var te *json.UnmarshalTypeError
	switch {
	case errors.As(err, &f): // of a type that decodes itself
		places = nil
		for _, e := range f.Fields {
			places = append(places, ProblemError(e))
		}
		if places == nil {
			places = []ProblemError{{Detail: f.Detail}}
		}
	case errors.As(err, &te):
		what := "This value is of the wrong type."
		if strings.HasPrefix(te.Value, "number") {
			what = "This number is out of range, or not an integer."
		}
		places = []ProblemError{{Pointer: typeErrorPointer(data, te), Detail: what}}
	}
	b, _ := json.Marshal(places)
	return errors.New(decodeMark + string(b))
}

// typeErrorPointer finds the place by the offset, which knows the index in an array; but an offset from inside a type
// that decodes itself counts from somewhere else, and then the path of names has to do.
func typeErrorPointer(data []byte, te *json.UnmarshalTypeError) string {
	if te.Field == "" { // into an any: a number; there the decoder counts one byte further
		return pointerAt(data, int(te.Offset)-1)
	}
	at := pointerAt(data, int(te.Offset))
	names := strings.Split(te.Field, ".")
	for _, seg := range slices.Backward(strings.Split(at, "/")) {
		if _, err := strconv.Atoi(seg); err != nil {
			if seg == names[len(names)-1] {
				return at
			}
			break
		}
	}
	return pointer(names)
}
