package smtptest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fault is a way to misbehave; see the functions that make one.
type Fault struct {
	Name string

	accept  bool // the command is done as usual; only the answer is another
	raw     string
	delay   time.Duration
	reset   bool
	drop    bool
	hang    bool
	endless bool
}

// Reply answers so, and does nothing. A text of several lines makes an answer of several lines.
func Reply(code int, enhanced, text string) Fault {
	var b strings.Builder
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		if enhanced != "" {
			l = enhanced + " " + l
		}
		fmt.Fprintf(&b, "%d%s%s\r\n", code, sep, l)
	}
	return Fault{Name: fmt.Sprintf("reply %d", code), raw: b.String()}
}

// Shutdown answers 421 and closes the connection.
func Shutdown() Fault {
	f := Reply(421, "4.3.2", "shutting down")
	f.Name, f.drop = "shutdown", true
	return f
}

// Closing answers as f and closes the connection.
func Closing(f Fault) Fault {
	f.Name, f.drop = f.Name+", closing", true
	return f
}

// Raw answers with these bytes, whatever they are, and does nothing.
func Raw(answer string) Fault { return Fault{Name: "raw", raw: answer} }

// Reset resets the connection instead of answering, and does nothing.
func Reset() Fault { return Fault{Name: "reset", reset: true} }

// Drop closes the connection instead of answering, and does nothing.
func Drop() Fault { return Fault{Name: "drop", drop: true} }

// Hang does not answer until the client goes or the server closes.
func Hang() Fault { return Fault{Name: "hang", hang: true} }

// Endless answers with a line, and another, and does not stop.
func Endless() Fault { return Fault{Name: "endless", endless: true} }

// Delay waits, then goes on as usual.
func Delay(d time.Duration) Fault { return Fault{Name: "delay", delay: d} }

// Accepting does what the command asks for (at "." it takes the message), then
// misbehaves as f where the answer would be. At "STARTTLS" the handshake follows.
func Accepting(f Fault) Fault {
	f.Name, f.accept = f.Name+" after accepting", true
	return f
}

type rule struct {
	fault Fault
	match func(Command) bool
	left  int // < 0: no end
}

// Next meets the next n commands of a verb (see Command) with a fault; n < 0: all
// of them. Faults are used up in the order they were asked for. At "content", Reset
// and Hang act in the middle of the message.
func (s *Server) Next(n int, verb string, f Fault) {
	s.When(n, func(c Command) bool { return c.Verb == verb }, f)
}

// Recipient meets every RCPT of an address with a fault.
func (s *Server) Recipient(address string, f Fault) {
	s.When(-1, func(c Command) bool { return c.Verb == "RCPT" && strings.EqualFold(c.To, address) }, f)
}

// When meets the next n commands that match with a fault; n < 0: all of them.
// match must not ask the server for its journal.
func (s *Server) When(n int, match func(Command) bool, f Fault) {
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

func (s *Server) fault(cmd Command) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.rules {
		if !r.match(cmd) {
			continue
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
