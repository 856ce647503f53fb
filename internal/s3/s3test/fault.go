package s3test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
)

// Fault is a way to misbehave; see the functions that make one.
type Fault struct {
	Name string

	accept   bool // the request is treated as usual first; then this
	hang     bool
	reset    bool
	keep     int // bytes of the answer's body that are sent, if truncate
	truncate bool
	etag     string
	refusal  *fail
	page     string // HTML
	status   int
	partial  int
}

// SlowDown answers 503 SlowDown, as a store that is asked too much.
func SlowDown() Fault {
	return Refusal(http.StatusServiceUnavailable, "SlowDown", "Reduce your request rate.")
}

// Refusal answers with an error of the protocol and does nothing.
func Refusal(status int, code, message string) Fault {
	return Fault{Name: code, refusal: refuse(status, code, message)}
}

// GatewayHTML answers with a status and a page of HTML, as a gateway before the store would.
func GatewayHTML(status int) Fault {
	return Fault{Name: fmt.Sprintf("gateway %d", status), status: status, page: "<html><body>" + http.StatusText(status) + "</body></html>"}
}

// Reset reads the request, does nothing and resets the connection.
func Reset() Fault { return Fault{Name: "reset", reset: true} }

// ResetAfterAccepting does as asked, then resets the connection instead of answering.
func ResetAfterAccepting() Fault {
	return Fault{Name: "reset after accepting", accept: true, reset: true}
}

// Truncate promises the whole answer and sends the first keep bytes of its body.
func Truncate(keep int) Fault {
	return Fault{Name: "truncate", accept: true, truncate: true, keep: keep}
}

// WrongETag does as asked and answers with an ETag that is not the object's, as
// stores do that encrypt.
func WrongETag() Fault {
	return Fault{Name: "wrong etag", etag: `"00000000000000000000000000000000"`}
}

// Hang does not answer until the client goes or the server closes.
func Hang() Fault { return Fault{Name: "hang", hang: true} }

// Partly removes all but n of the objects that are to be deleted at once, and says so.
func Partly(n int) Fault { return Fault{Name: "partly", partial: n} }

type rule struct {
	fault Fault
	op    string
	left  int // < 0: no end
}

// Next meets the next n requests of an op (see [Request]; "" is any) with a
// fault; n < 0: all of them. Faults are used up in the order they were asked for.
func (s *Server) Next(n int, op string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append(s.rules, &rule{f, op, n})
}

// Behave forgets all faults.
func (s *Server) Behave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}

// fault takes the first rule for an op; the zero Fault if there is none.
func (s *Server) fault(op string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.rules {
		if r.op != "" && r.op != op {
			continue
		}
		if r.left > 0 {
			if r.left--; r.left == 0 {
				s.rules = slices.Delete(s.rules, i, i+1)
			}
		}
		return r.fault
	}
	return Fault{}
}

// cut ends the connection: with a reset, or after some bytes so that these arrive.
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
