// Package fault holds the one error type that crosses package borders.
//
// A fault says three things to three readers: Kind tells the HTTP layer which
// status fits, Code is a stable dotted name for the caller's program, Detail is
// a sentence for the caller's developer. Err is for the operator's log and never
// leaves the process. Everything that is not a fault is an internal error.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind is the class of a fault. Only package api turns it into a status code.
type Kind int

// The kinds, with the status that the HTTP layer gives them.
const (
	Internal        Kind = iota // 500: ours; the caller sees a fixed text
	Malformed                   // 400: cannot be parsed
	Unauthenticated             // 401
	Forbidden                   // 403
	NotFound                    // 404
	Conflict                    // 409
	TooLarge                    // 413
	Unsupported                 // 415: wrong media type
	Invalid                     // 422: parsed, but not acceptable
	Limited                     // 429
	Unavailable                 // 503: try again
)

// Field points at one bad value of the input, as a JSON pointer. Detail never
// repeats the value: it may be a secret.
type Field struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Error is a fault. The zero Kind is Internal.
type Error struct {
	Kind       Kind
	Code       string         // stable, dotted: "whatsapp.window_closed"
	Detail     string         // for the caller; no values, no secrets
	Fields     []Field        // for Invalid
	RetryAfter time.Duration  // for Limited and Unavailable; 0: unknown
	Extra      map[string]any // further members of the problem document, such as the id of what is in the way
	Err        error          // for the log only
}

// Error gives code, detail and cause; it is for logs, not for callers.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Detail, e.Err)
	}
	return e.Code + ": " + e.Detail
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes a fault of a kind with a code and a formatted detail.
func New(k Kind, code, format string, args ...any) *Error {
	return &Error{Kind: k, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Wrap is New with a cause for the log.
func Wrap(err error, k Kind, code, format string, args ...any) *Error {
	return &Error{Kind: k, Code: code, Detail: fmt.Sprintf(format, args...), Err: err}
}

// Missing is the fault for a thing that is not there, or is not the caller's: the two look the same.
func Missing(what string) *Error {
	return New(NotFound, what+".not_found", "There is no such %s.", what)
}

// Bad is the fault for one invalid value.
func Bad(pointer, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Code: "invalid", Detail: "The input is not valid.",
		Fields: []Field{{Pointer: pointer, Detail: fmt.Sprintf(format, args...)}}}
}

// BadFields is the fault for several invalid values; nil when there are none.
func BadFields(fields []Field) error {
	if len(fields) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Code: "invalid", Detail: "The input is not valid.", Fields: fields}
}

// Of gives the kind of err: its own if it is a fault, else Internal.
func Of(err error) Kind {
	var f *Error
	if errors.As(err, &f) {
		return f.Kind
	}
	return Internal
}
