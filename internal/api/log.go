package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/ecodrix/ecod/internal/id"
)

// request is what the shell knows of one request. It lives in the request's context; only its own goroutine changes it.
type request struct {
	id     string
	log    *slog.Logger
	http   *http.Request // as it came; its body is another's to read
	route  string        // the pattern that matched, "" for none
	caller Caller
	once   string // the idempotency record's id, "" without a key
	code   string // the problem's code, if it was refused
	replay string // the request id whose answer is repeated
}

type requestKey struct{}

// requestOf gives the shell's state of a request; outside of one, an empty one that logs to the default logger.
func requestOf(ctx context.Context) *request {
	if q, ok := ctx.Value(requestKey{}).(*request); ok {
		return q
	}
	return &request{log: slog.Default()}
}

// RequestID is the id of the request that ctx belongs to: x-request-id, and the instance of its problem.
func RequestID(ctx context.Context) string { return requestOf(ctx).id }

func (q *request) attrs(more ...any) []any {
	a := []any{"request", q.id, "route", q.route}
	if q.caller.Client != "" {
		a = append(a, "client", q.caller.Client)
	}
	return append(a, more...)
}

var saneRequestID = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)

// requestID keeps the caller's id if it can stand in a log as it is, so that one id follows a request through proxies.
func requestID(r *http.Request) string {
	if s := r.Header.Get("X-Request-Id"); saneRequestID.MatchString(s) {
		return s
	}
	return id.New("req")
}

// answer counts what goes out, for the log, and knows whether anything did.
type answer struct {
	http.ResponseWriter
	status   int
	bytes    int64
	hijacked bool
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *answer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom keeps sendfile for files.
func (w *answer) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, src)
	w.bytes += n
	return n, err
}

// Hijack is for sockets.
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = w.hijacked || err == nil
	return c, rw, err
}

// Flush is for handlers that stream.
func (w *answer) Flush() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// finish ends a request: it turns a panic into a problem, then writes the access log and the metrics. Deferred.
func (a *API) finish(w *answer, r *http.Request, q *request, started time.Time) {
	v := recover()
	abort := v == http.ErrAbortHandler //nolint:errorlint // the very value that net/http compares
	if v != nil && !abort {
		err := fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		if w.status == 0 && !w.hijacked {
			clear(w.Header())
			a.standardHeaders(w, q)
			WriteError(w, r, err)
		} else {
			q.log.Error("request failed half way", q.attrs("error", err)...)
			abort = true // half an answer is out: the caller must see that it is not whole
		}
	}
	status := w.status
	if status == 0 {
		if status = http.StatusOK; w.hijacked {
			status = http.StatusSwitchingProtocols
		}
	}
	took := a.cfg.Now().Sub(started)
	a.metrics.observe(r.Method, q.route, status, took)
	level := slog.LevelInfo
	switch {
	case status >= 500:
		level = slog.LevelWarn
	case quiet[q.route] && status < 400:
		level = slog.LevelDebug
	}
	if q.log.Enabled(r.Context(), level) {
		more := []any{"method", r.Method, "status", status, "ms", took.Milliseconds(), "bytes", w.bytes}
		if q.code != "" {
			more = append(more, "code", q.code)
		}
		if q.replay != "" {
			more = append(more, "replayOf", q.replay)
		}
		q.log.Log(r.Context(), level, "request", q.attrs(more...)...)
	}
	if abort {
		panic(http.ErrAbortHandler)
	}
}

// quiet are the routes that probes call every few seconds.
var quiet = map[string]bool{
	"GET /healthz": true, "GET /readyz": true, "GET /metrics": true,
	"POST /api/whatsapp/webhook": true, "POST /api/whatsapp/webhook/{clientCode}": true, // thousands a second; the inbox keeps each
}
