package s3

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
)

// ErrNotFound is wrapped by the error of a call for an object that is not there.
var ErrNotFound = errors.New("no such object")

// Error is every error of a [Client] but the context's. Its text names the call,
// the status and the store's code, and nothing that the store wrote besides.
type Error struct {
	Op        string // "put", "get", "stat", "delete", "list", "sign"
	HTTP      int    // 0: no answer came
	Code      string // the store's: "SlowDown", "AccessDenied", …
	RequestID string // the store's, for its support
	Err       error  // ErrNotFound, or the cause if no answer came
}

// Error names the call and what went wrong.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("s3: " + e.Op + ":")
	if e.HTTP != 0 {
		b.WriteString(" HTTP " + strconv.Itoa(e.HTTP))
	}
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	}
	if e.RequestID != "" {
		b.WriteString(" (request " + e.RequestID + ")")
	}
	if e.Err != nil {
		b.WriteString(" " + e.Err.Error())
	}
	return b.String()
}

// Unwrap gives ErrNotFound or the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary tells whether the same call may work later with nothing mended.
func (e *Error) Temporary() bool {
	switch e.Code {
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted":
		return true
	}
	switch {
	case e.HTTP == http.StatusRequestTimeout, e.HTTP == http.StatusTooManyRequests:
		return true
	case e.HTTP >= 500:
		return e.HTTP != http.StatusNotImplemented
	case e.HTTP == 0 || e.HTTP < 300: // no answer, or one that was cut
		var n net.Error
		return errors.Is(e.Err, io.ErrUnexpectedEOF) || errors.As(e.Err, &n)
	}
	return false
}

// failed types an error of the library; nil stays nil.
func failed(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		e := &Error{Op: op, HTTP: answer.StatusCode, Code: word(answer.Code), RequestID: word(answer.RequestID)}
		switch {
		case answer.Code == "NoSuchKey":
			e.Err = ErrNotFound
		case answer.StatusCode == 0 && e.Code == "": // made up by the library, before a call
			e.Err = errors.New("refused before it was sent")
		}
		return e
	}
	return &Error{Op: op, Err: cause(err)}
}

// cause strips what repeats the address of the object.
func cause(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "closed by foreign host") {
		return io.ErrUnexpectedEOF
	}
	return err
}

// word gives s if it is a plain word, as codes and request ids are: what a store
// writes goes into logs.
func word(s string) string {
	if len(s) > 64 {
		return ""
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' && c != '.' {
			return ""
		}
	}
	return s
}
