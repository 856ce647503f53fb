package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

// Problem is the body of every error answer (RFC 9457, application/problem+json). It is an error, so that the shell's
// own refusals travel like any other; domains return *fault.Error instead.
type Problem struct {
	Type     string         `json:"type" doc:"A stable URN, urn:ecod:problem:<code>. It identifies; it leads nowhere." example:"urn:ecod:problem:invalid"`
	Title    string         `json:"title" doc:"The status in words." example:"Unprocessable Entity"`
	Status   int            `json:"status" doc:"The HTTP status." example:"422"`
	Detail   string         `json:"detail" doc:"A sentence for the developer."`
	Code     string         `json:"code" doc:"Stable and dotted: what a program compares." example:"invalid"`
	Instance string         `json:"instance" doc:"The request id, as in x-request-id and in the operator's log."`
	Errors   []ProblemError `json:"errors,omitempty" doc:"What is wrong with the input, place by place."`

	Extra      map[string]any `json:"-"` // further members
	retryAfter time.Duration
	header     http.Header
}

// ProblemError is one bad place of the input.
type ProblemError struct {
	Pointer string `json:"pointer" doc:"A JSON pointer into the body, or query.name, path.name, header.name." example:"/actions/0/type"`
	Detail  string `json:"detail" doc:"What is expected there. It never repeats the value."`
}

// problemType is the prefix of Problem.Type.
const problemType = "urn:ecod:problem:"

func newProblem(status int, code, detail string) *Problem {
	return &Problem{Type: problemType + code, Title: statusText(status), Status: status, Detail: detail, Code: code}
}

func statusText(status int) string {
	if status == statusClosed {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// statusClosed is what the log says of a request whose caller went away; nobody reads the answer.
const statusClosed = 499

// Error makes a Problem an error; it is for logs.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus tells huma the status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType tells huma the media type.
func (p *Problem) ContentType(string) string { return problemContentType }

const problemContentType = "application/problem+json"

// GetHeaders tells huma the headers of the answer.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	maps.Copy(h, p.header)
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable || p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(retrySeconds(p.Status, p.retryAfter)))
	}
	if p.Status == http.StatusRequestTimeout || p.Status == http.StatusRequestEntityTooLarge {
		h.Set("Connection", "close") // the rest of the body is not wanted
	}
	return h
}

// retrySeconds rounds up, so that nobody comes back too early; a wait nobody knows is a guess.
func retrySeconds(status int, d time.Duration) int {
	switch {
	case d > 0:
		return int(math.Ceil(d.Seconds()))
	case status == http.StatusServiceUnavailable:
		return 5
	}
	return 1
}

// MarshalJSON merges the further members; they never hide the standard ones.
func (p *Problem) MarshalJSON() ([]byte, error) {
	type plain Problem
	if len(p.Extra) == 0 {
		return json.Marshal((*plain)(p))
	}
	m := maps.Clone(p.Extra)
	m["type"], m["title"], m["status"], m["detail"], m["code"], m["instance"] = p.Type, p.Title, p.Status, p.Detail, p.Code, p.Instance
	delete(m, "errors")
	if len(p.Errors) > 0 {
		m["errors"] = p.Errors
	}
	return json.Marshal(m)
}

// TransformSchema lets the documented problem have further members.
func (p *Problem) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.AdditionalProperties = true
	return s
}

// kinds is the one place that knows the status of a fault, and the code of one that has none.
var kinds = map[fault.Kind]struct {
	status int
	code   string
}{
	fault.Malformed:       {http.StatusBadRequest, "malformed"},
	fault.Unauthenticated: {http.StatusUnauthorized, "auth.invalid"},
	fault.Forbidden:       {http.StatusForbidden, "forbidden"},
	fault.NotFound:        {http.StatusNotFound, "not_found"},
	fault.Conflict:        {http.StatusConflict, "conflict"},
	fault.TooLarge:        {http.StatusRequestEntityTooLarge, "too_large"},
	fault.Unsupported:     {http.StatusUnsupportedMediaType, "unsupported"},
	fault.Invalid:         {http.StatusUnprocessableEntity, "invalid"},
	fault.Limited:         {http.StatusTooManyRequests, "limited"},
	fault.Unavailable:     {http.StatusServiceUnavailable, "unavailable"},
}

// toProblem turns any error into the answer its caller may see. Only this function decides: a fault as its kind says,
// a store out of reach 503, a caller that went away 499, everything else 500 with a fixed text.
func toProblem(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var f *fault.Error
	if errors.As(err, &f) {
		if k, ok := kinds[f.Kind]; ok {
			return faultProblem(f, k.status, k.code)
		}
	}
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		return newProblem(http.StatusServiceUnavailable, "store.unavailable", "The storage cannot be reached now. Try again.")
	case errors.As(err, &large):
		return tooLarge(large.Limit)
	case errors.Is(err, context.Canceled):
		return newProblem(statusClosed, "request.cancelled", "The request was given up.")
	case errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusServiceUnavailable, "timeout", "The request took too long. Try again.")
	}
	return newProblem(http.StatusInternalServerError, "internal", "Something failed on our side. The instance names it in our log.")
}

func faultProblem(f *fault.Error, status int, code string) *Problem {
	if f.Code != "" {
		code = f.Code
	}
	p := newProblem(status, code, f.Detail)
	p.Extra, p.retryAfter = f.Extra, f.RetryAfter
	for _, e := range f.Fields {
		p.Errors = append(p.Errors, ProblemError(e))
	}
	return p
}

func tooLarge(limit int64) *Problem {
	return newProblem(http.StatusRequestEntityTooLarge, "body.too_large", "The body is larger than "+strconv.FormatInt(limit, 10)+" bytes.")
}

// problemFor is toProblem for one request: it gives the problem its instance and logs what the caller must not see.
func problemFor(ctx context.Context, err error) *Problem {
	p := *toProblem(err) // a copy: an error value may be shared between requests
	q := requestOf(ctx)
	p.Instance = q.id
	q.code = p.Code
	switch {
	case p.Status >= 500:
		level := slog.LevelError
		if p.Status != http.StatusInternalServerError {
			level = slog.LevelWarn
		}
		q.log.Log(ctx, level, "request failed", q.attrs("status", p.Status, "code", p.Code, "error", err)...)
	case errors.Unwrap(err) != nil: // a fault with a cause: the caller's doing, but the operator may wonder
		q.log.Debug("request refused", q.attrs("status", p.Status, "code", p.Code, "error", err)...)
	}
	return &p
}

// WriteError answers a request with the problem of err. For handlers that write their own answers: nothing may have
// been written yet.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	p := problemFor(r.Context(), err)
	body, mErr := json.Marshal(p)
	if mErr != nil { // an Extra that does not marshal: a fault of the code that made it
		p.Extra = nil
		body, _ = json.Marshal(p)
	}
	h := w.Header()
	maps.Copy(h, p.GetHeaders())
	h.Del("Content-Encoding")
	h.Set("Content-Type", problemContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
