package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ecodrix/ecod/internal/fault"
)

// Limits of JSON bodies.
const (
	MaxJSON      = 1 << 20 // bytes
	maxJSONDepth = 32      // arrays and objects inside each other
)

// ReadBody reads a whole body of at most limit bytes, which must arrive within the timeout. For handlers that want the
// exact bytes, such as webhooks. Its errors answer 413, 408 and 400.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, timeout time.Duration) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(timeout)) // not supported by recorders: no deadline then
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	n, err := io.Copy(&buf, io.LimitReader(r.Body, limit+1))
	switch {
	case n > limit:
		return nil, tooLarge(limit)
	case err != nil:
		return nil, bodyProblem(err)
	}
	// The deadline must go: if it passed later, net/http would take the caller for gone and cancel the request. After
	// a failure it stays, so that closing the body does not wait for the rest.
	_ = rc.SetReadDeadline(time.Time{})
	return buf.Bytes(), nil
}

// bodyProblem is the answer to a body that could not be read to its end.
func bodyProblem(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge(large.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return newProblem(http.StatusRequestTimeout, "body.timeout", "The body did not arrive in time.")
	}
	return fault.Wrap(err, fault.Malformed, "body.incomplete", "The body ended before it was whole.")
}

// timeBody gives a body that nobody reads a deadline: net/http reads what is left of it before it answers, and would
// wait for ever. Whoever reads the body sets a deadline of its own; at the end of the body it goes, as in ReadBody.
func (a *API) timeBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.Body == nil {
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(a.cfg.BodyTimeout))
	r.Body = &endingBody{r.Body, rc}
}

type endingBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *endingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// timedBody is a body that may be long but not stuck: at most limit bytes, each read within idle, all within total.
type timedBody struct {
	io.ReadCloser
	rc   *http.ResponseController
	idle time.Duration
	end  time.Time
}

func newTimedBody(w http.ResponseWriter, r *http.Request, limit int64, idle, total time.Duration) io.ReadCloser {
	return &timedBody{
		ReadCloser: http.MaxBytesReader(w, r.Body, limit),
		rc:         http.NewResponseController(w),
		idle:       idle,
		end:        time.Now().Add(total),
	}
}

func (b *timedBody) Read(p []byte) (int, error) {
	d := time.Now().Add(b.idle)
	if d.After(b.end) {
		d = b.end
	}
	_ = b.rc.SetReadDeadline(d)
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = bodyProblem(err)
	}
	return n, err // at the end, the body beneath lets the deadline go
}

// readJSON reads and checks the body of a JSON operation, and gives its bytes. An empty body is nil.
func (a *API) readJSON(w http.ResponseWriter, r *http.Request, o *operation, required bool) ([]byte, error) {
	data, err := ReadBody(w, r, o.maxBody, a.cfg.BodyTimeout)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		if required {
			return nil, fault.New(fault.Malformed, "json.missing", "This call needs a JSON body.")
		}
		return nil, nil
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, fault.New(fault.Unsupported, "body.content_type", "The content type must be application/json.")
	}
	return data, checkJSON(data)
}

// isJSON tells whether a content type is JSON in UTF-8.
func isJSON(contentType string) bool {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || (media != "application/json" && (!strings.HasPrefix(media, "application/") || !strings.HasSuffix(media, "+json"))) {
		return false
	}
	cs, ok := params["charset"]
	return !ok || strings.EqualFold(cs, "utf-8")
}

// checkJSON refuses what two parsers could read differently, and what is too deep to walk safely.
func checkJSON(data []byte) error {
	if at := invalidUTF8(data); at >= 0 {
		return malformed(at, "The body is not valid UTF-8 at byte %d.")
	}
	if tooDeep(data, maxJSONDepth) {
		return fault.New(fault.Malformed, "json.too_deep", "The body nests more than %d levels.", maxJSONDepth)
	}
	if at, ok := syntaxError(data); ok {
		return malformed(at, "The body is not valid JSON at byte %d.")
	}
	if ptr, ok := duplicateName(data); ok {
		f := fault.New(fault.Malformed, "json.duplicate", "An object has the same name twice.")
		f.Fields = []fault.Field{{Pointer: ptr, Detail: "The name stands twice."}}
		return f
	}
	return nil
}

func malformed(at int, format string) error {
	f := fault.New(fault.Malformed, "json.malformed", format, at)
	f.Extra = map[string]any{"offset": at}
	return f
}

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}
