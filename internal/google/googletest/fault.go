package googletest

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Fault is a way to misbehave; see the functions that make one.
type Fault struct {
	Name string

	early      bool // before the body is read
	accept     bool // the request is treated as usual first; then this
	echo       bool // the body tells what was sent
	delay      time.Duration
	hang       bool
	reset      bool
	truncate   bool
	status     int
	kind       string
	header     http.Header
	body       []byte
	conference func(*Conference)
}

// APIError answers with an error of Calendar's and accepts nothing.
func APIError(status int, reason, message string) Fault {
	f := Answer(status, "application/json; charset=UTF-8", string(refuse(status, reason, message).body))
	f.Name = fmt.Sprintf("error %d %s", status, reason)
	return f
}

// OAuthError answers with an error of the token endpoint's; meant for requests of kind "token".
func OAuthError(status int, code, description string) Fault {
	f := Answer(status, "application/json; charset=utf-8", string(deny(status, code, description).body))
	f.Name = "oauth " + code
	return f
}

// RateLimited answers 403 rateLimitExceeded.
func RateLimited() Fault {
	return APIError(http.StatusForbidden, "rateLimitExceeded", "Rate Limit Exceeded")
}

// TooMany answers 429 and, if it is not 0, a Retry-After in seconds.
func TooMany(after time.Duration) Fault {
	f := APIError(http.StatusTooManyRequests, "rateLimitExceeded", "Rate Limit Exceeded")
	if after > 0 {
		f.header = http.Header{"Retry-After": {strconv.Itoa(int(after.Round(time.Second) / time.Second))}}
	}
	return f
}

// QuotaExceeded answers 403 quotaExceeded: the user has invited too many for a while.
func QuotaExceeded() Fault {
	return APIError(http.StatusForbidden, "quotaExceeded", "Calendar usage limits exceeded.")
}

// Unavailable answers 503 and accepts nothing; the client cannot know that.
func Unavailable() Fault {
	return APIError(http.StatusServiceUnavailable, "backendError", "Backend Error")
}

// UnavailableAfterAccepting accepts, then answers 503.
func UnavailableAfterAccepting() Fault {
	f := Unavailable()
	f.Name, f.accept = f.Name+" after accepting", true
	return f
}

// GatewayHTML answers with a status and a page of HTML, as a gateway before Google would.
func GatewayHTML(status int) Fault {
	f := Answer(status, "text/html", "<html><body>"+http.StatusText(status)+"</body></html>")
	f.Name = fmt.Sprintf("gateway %d", status)
	return f
}

// Redirect answers 307 to another address.
func Redirect(to string) Fault {
	f := Answer(http.StatusTemporaryRedirect, "text/html", "")
	f.Name, f.header = "redirect", http.Header{"Location": {to}}
	return f
}

// Echo answers with an error that repeats all that was sent: token, body, form.
func Echo(status int) Fault { return Fault{Name: "echo", echo: true, status: status} }

// Answer answers with these bytes.
func Answer(status int, contentType, body string) Fault {
	return Fault{Name: "answer", status: status, kind: contentType, body: []byte(body)}
}

// ResetBeforeReading resets the connection as soon as the head of the request was read.
func ResetBeforeReading() Fault { return Fault{Name: "reset before reading", early: true, reset: true} }

// ResetAfterAccepting accepts, then resets the connection instead of answering.
func ResetAfterAccepting() Fault {
	return Fault{Name: "reset after accepting", accept: true, reset: true}
}

// TruncateAfterAccepting accepts, then cuts the answer in the middle.
func TruncateAfterAccepting() Fault {
	return Fault{Name: "truncate after accepting", accept: true, truncate: true}
}

// Hang reads the request and does not answer until the client goes or the server closes.
func Hang() Fault { return Fault{Name: "hang", hang: true} }

// HangAfterAccepting accepts, then does not answer until the client goes or the server closes.
func HangAfterAccepting() Fault { return Fault{Name: "hang after accepting", accept: true, hang: true} }

// Delay waits, then goes on as usual.
func Delay(d time.Duration) Fault { return Fault{Name: "delay", delay: d} }

// ConferencePending accepts; the link of the event is there at the so-many-th reading, n < 0: never.
func ConferencePending(n int) Fault {
	return Fault{Name: "conference pending", accept: true, conference: func(c *Conference) { c.polls = n }}
}

// ConferenceFails accepts; the event gets no link.
func ConferenceFails() Fault {
	return Fault{Name: "conference fails", accept: true, conference: func(c *Conference) { c.Status = "failure" }}
}

type rule struct {
	fault Fault
	match func(Request) bool
	left  int // < 0: no end
}

// Next meets the next n Calendar requests with a fault. Faults are used up in the order they were asked for.
func (s *Server) Next(n int, f Fault) {
	s.When(n, func(r Request) bool { return r.Kind != "token" }, f)
}

// On meets the next n requests of a kind with a fault; n < 0: all of them.
func (s *Server) On(kind string, n int, f Fault) {
	s.When(n, func(r Request) bool { return r.Kind == kind }, f)
}

// When meets the next n requests that match with a fault; n < 0: all of them.
// match runs while a request is being served and must not ask the server for its journal.
func (s *Server) When(n int, match func(Request) bool, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append(s.rules, &rule{f, match, n})
}

// Behave forgets all faults.
func (s *Server) Behave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}

// fault takes the first rule for a request, if it is of the right moment: a
// rule that comes later must not overtake it.
func (s *Server) fault(req *Request, early bool) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.rules {
		if r.left == 0 || !r.match(*req) {
			continue
		}
		if r.fault.early != early {
			return nil
		}
		if r.left > 0 {
			if r.left--; r.left == 0 {
				s.rules = slices.Delete(s.rules, i, i+1)
			}
		}
		f := r.fault
		return &f
	}
	return nil
}

// do misbehaves; false means that the request goes on as usual. accepted is the
// answer that would have been given.
func (f *Fault) do(s *Server, w http.ResponseWriter, r *http.Request, accepted []byte, sent string) bool {
	if f.delay > 0 {
		t := time.NewTimer(f.delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
		case <-s.life.Done():
		}
	}
	switch {
	case f.hang:
		select {
		case <-r.Context().Done():
		case <-s.life.Done():
		}
		cut(w, nil)
	case f.reset:
		cut(w, nil)
	case f.truncate:
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", max(len(accepted), 2))
		cut(w, append([]byte(head), accepted[:len(accepted)/2]...))
	case f.echo:
		words := "You sent " + r.Header.Get("Authorization") + " and " + sent
		a := refuse(f.status, "invalid", words)
		if kindOf(r) == "token" {
			a = deny(f.status, "invalid_request", words)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
	case f.status != 0:
		for k, v := range f.header {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Type", f.kind)
		w.WriteHeader(f.status)
		_, _ = w.Write(f.body)
	default:
		return false
	}
	return true
}

// cut writes what there is to write and ends the connection: with a reset, or
// after some bytes so that these arrive.
func cut(w http.ResponseWriter, bytes []byte) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if bytes != nil {
		_, _ = conn.Write(bytes)
	} else if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
