package whatsapptest

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

	early    bool // before the body is read
	accept   bool // the request is treated as usual first; then this
	delay    time.Duration
	hang     bool
	reset    bool
	truncate bool
	status   int
	kind     string
	after    string // Retry-After
	body     []byte
	statuses func([]string) []string
	fail     int // the code of a failed status
}

// GraphError answers with an error of Meta's and accepts nothing.
func GraphError(status, code int, details string) Fault {
	return Fault{Name: fmt.Sprintf("error %d", code), status: status, kind: "application/json", body: reply(errInvalid(status, code, details)).body}
}

// RateLimited answers 429 with code 130429 and, if it is not 0, a Retry-After in seconds.
func RateLimited(after time.Duration) Fault {
	f := GraphError(http.StatusTooManyRequests, 130429, "Rate limit hit")
	if after > 0 {
		f.after = strconv.Itoa(int(after.Round(time.Second) / time.Second))
	}
	return f
}

// ServerError answers 500 with code 131000, and accepts nothing; the client cannot know that.
func ServerError() Fault {
	return GraphError(http.StatusInternalServerError, 131000, "Something went wrong")
}

// Unavailable answers 500 with code 131016: known not to be sent.
func Unavailable() Fault {
	return GraphError(http.StatusInternalServerError, 131016, "Service unavailable")
}

// GatewayHTML answers with a status and a page of HTML, as a gateway before Meta would.
func GatewayHTML(status int) Fault {
	return Fault{Name: fmt.Sprintf("gateway %d", status), status: status, kind: "text/html", body: []byte("<html><body>" + http.StatusText(status) + "</body></html>")}
}

// EchoToken answers 401 and repeats the request's token in the error's text, as
// Meta does with malformed ones.
func EchoToken(token string) Fault {
	e := &graphError{http: 401, code: 190, message: "Malformed access token " + token, details: "token " + token}
	return Fault{Name: "echo token", status: 401, kind: "application/json", body: reply(e).body}
}

// Answer answers with these bytes.
func Answer(status int, contentType, body string) Fault {
	return Fault{Name: "answer", status: status, kind: contentType, body: []byte(body)}
}

// ResetBeforeReading resets the connection as soon as the head of the request
// was read. Predicates see no body, and read marks count as sends.
func ResetBeforeReading() Fault { return Fault{Name: "reset before reading", early: true, reset: true} }

// ResetAfterAccepting accepts, then resets the connection instead of answering.
func ResetAfterAccepting() Fault {
	return Fault{Name: "reset after accepting", accept: true, reset: true}
}

// TruncateAfterAccepting accepts, then cuts the answer in the middle.
func TruncateAfterAccepting() Fault {
	return Fault{Name: "truncate after accepting", accept: true, truncate: true}
}

// GatewayAfterAccepting accepts, then answers as GatewayHTML.
func GatewayAfterAccepting(status int) Fault {
	f := GatewayHTML(status)
	f.Name, f.accept = f.Name+" after accepting", true
	return f
}

// Hang reads the request and does not answer until the client goes or the server closes.
func Hang() Fault { return Fault{Name: "hang", hang: true} }

// HangAfterAccepting accepts, then does not answer until the client goes or the server closes.
func HangAfterAccepting() Fault { return Fault{Name: "hang after accepting", accept: true, hang: true} }

// Delay waits, then goes on as usual.
func Delay(d time.Duration) Fault { return Fault{Name: "delay", delay: d} }

// DuplicateStatuses posts each status of the message n times.
func DuplicateStatuses(n int) Fault {
	return Fault{Name: "duplicate statuses", accept: true, statuses: func(in []string) (out []string) {
		for _, s := range in {
			out = append(out, slices.Repeat([]string{s}, n)...)
		}
		return out
	}}
}

// ShuffleStatuses posts the statuses of the message in the order turned round.
func ShuffleStatuses() Fault {
	return Fault{Name: "shuffle statuses", accept: true, statuses: func(in []string) []string {
		out := slices.Clone(in)
		slices.Reverse(out)
		return out
	}}
}

// NoStatuses accepts and answers, and is never heard of again.
func NoStatuses() Fault {
	return Fault{Name: "no statuses", accept: true, statuses: func([]string) []string { return nil }}
}

// FailedStatus accepts and answers; the only status is failed, with a code.
func FailedStatus(code int) Fault {
	return Fault{Name: fmt.Sprintf("failed status %d", code), accept: true, fail: code}
}

type rule struct {
	fault Fault
	match func(Request) bool
	left  int // < 0: no end
}

// Next meets the next n sends with a fault. Faults are used up in the order they were asked for.
func (s *Server) Next(n int, f Fault) { s.When(n, func(r Request) bool { return r.Kind == "send" }, f) }

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
		if r.fault.early && !early {
			continue
		}
		if !r.match(*req) {
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
func (f *Fault) do(s *Server, w http.ResponseWriter, r *http.Request, accepted []byte) bool {
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
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(accepted))
		cut(w, append([]byte(head), accepted[:len(accepted)/2]...))
	case f.status != 0:
		w.Header().Set("Content-Type", f.kind)
		if f.after != "" {
			w.Header().Set("Retry-After", f.after)
		}
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
