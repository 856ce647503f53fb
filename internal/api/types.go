package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// timeForm is RFC 3339 with exactly milliseconds, in UTC.
const timeForm = "2006-01-02T15:04:05.000Z"

// Time is a time in a body or a parameter. It reads any RFC 3339 and writes UTC with milliseconds; the zero Time is
// null. An optional one is *Time with the tag nullable:"true".
type Time struct{ time.Time }

// At gives a pointer for an optional field: nil for the zero time.
func At(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{t}
}

// Or gives the time of an optional field, the zero time for nil.
func (t *Time) Or() time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

// MarshalJSON writes the time.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + t.UTC().Format(timeForm) + `"`), nil
}

// MarshalText writes the time; the zero time is empty.
func (t Time) MarshalText() ([]byte, error) {
	if t.IsZero() {
		return nil, nil
	}
	return []byte(t.UTC().Format(timeForm)), nil
}

// String writes the time as in JSON.
func (t Time) String() string {
	b, _ := t.MarshalText() // never fails
	return string(b)
}

// UnmarshalJSON reads RFC 3339; null is the zero time.
func (t *Time) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*t = Time{}
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	return t.UnmarshalText([]byte(s))
}

// UnmarshalText reads RFC 3339.
func (t *Time) UnmarshalText(b []byte) error {
	v, err := time.Parse(time.RFC3339, string(b)) // reads fractions too
	if err != nil || v.Year() < 1 || v.UTC().Year() > 9999 {
		return errors.New("expected RFC 3339 date-time")
	}
	t.Time = v.UTC()
	return nil
}

// Schema documents the time.
func (Time) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Examples: []any{"2026-11-22T10:00:00.000Z"}}
}

// Optional is a member of a PATCH body, which may be absent, null or a value. Give it the tag json:"name,omitzero".
type Optional[T any] struct {
	Set   bool // the member is there
	Null  bool // and is null
	Value T
}

// Apply puts the value, or the zero value for null, where it belongs, if the member is there.
func (o Optional[T]) Apply(to *T) {
	if o.Set {
		*to = o.Value
	}
}

// UnmarshalJSON notes that the member is there.
func (o *Optional[T]) UnmarshalJSON(b []byte) error {
	o.Set = true
	if bytes.Equal(b, []byte("null")) {
		o.Null = true
		return nil
	}
	return json.Unmarshal(b, &o.Value)
}

// MarshalJSON writes the value, or null.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if !o.Set || o.Null {
		return []byte("null"), nil
	}
	return json.Marshal(o.Value)
}

// Schema documents the member as its value, or null.
func (o Optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := r.Schema(reflect.TypeFor[T](), true, "")
	if s.Ref == "" {
		c := *s
		c.Nullable = true
		return &c
	}
	return s
}
