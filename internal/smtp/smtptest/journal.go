package smtptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	netmail "net/mail"
	"slices"
	"time"
)

// Command is one command as it came in.
type Command struct {
	Seq  int // from 1
	At   time.Time
	Conn int // the connection's number, from 1

	// Verb is "greeting" (the connection itself), "EHLO", "HELO", "STARTTLS",
	// "AUTH", "MAIL", "RCPT", "DATA", "content" (only where a fault struck in the
	// middle of a message), "." (its end), "RSET", "NOOP", "QUIT" or what else was sent.
	Verb  string
	Arg   string // "[secret]" of AUTH
	From  string // of the transaction
	To    string // of RCPT; from DATA on, all recipients
	TLS   bool
	Fault string // the name of the misbehaviour that met it
	Code  int    // as answered; 0 if it was not
}

// Accepted is a message that the server took after its final dot.
type Accepted struct {
	Seq  int // from 1
	At   time.Time
	Conn int
	From string // of the envelope, as are the recipients
	To   []string
	User string // signed in as
	TLS  bool
	UTF8 bool   // SMTPUTF8 was asked for
	Data []byte // header and body
}

// Message reads the data.
func (a Accepted) Message() (*netmail.Message, error) {
	return netmail.ReadMessage(bytes.NewReader(a.Data))
}

// MessageID is the header Message-ID; "" if it cannot be read.
func (a Accepted) MessageID() string {
	m, err := a.Message()
	if err != nil {
		return ""
	}
	return m.Header.Get("Message-ID")
}

type journal struct {
	commands           []*Command
	accepted           []Accepted
	nCommands, nTaken  int
	opened, open, peak int           // connections
	changed            chan struct{} // closed at every change
}

// ErrClosed is the error of waiting for a server that closes.
var ErrClosed = errors.New("smtptest: server closed")

func (s *Server) change(f func(j *journal)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.journal)
	j := &s.journal
	if n := s.cfg.JournalLimit; n > 0 {
		j.commands, j.accepted = last(j.commands, n), last(j.accepted, n)
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

func last[T any](s []T, n int) []T {
	if len(s) > 2*n { // not at every step
		return slices.Clone(s[len(s)-n:])
	}
	return s
}

func (s *Server) note(c *Command) {
	s.change(func(j *journal) {
		j.nCommands++
		c.Seq = j.nCommands
		j.commands = append(j.commands, c)
	})
}

func (s *Server) took(a Accepted) (n int) {
	s.change(func(j *journal) {
		j.nTaken++
		a.Seq, n = j.nTaken, j.nTaken
		j.accepted = append(j.accepted, a)
	})
	return n
}

// Commands gives every command so far, in the order of arrival.
func (s *Server) Commands() []Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Command, len(s.journal.commands))
	for i, c := range s.journal.commands {
		out[i] = *c
	}
	return out
}

// Verbs gives the verbs of Commands; conn 0 is every connection.
func (s *Server) Verbs(conn int) (out []string) {
	for _, c := range s.Commands() {
		if conn == 0 || c.Conn == conn {
			out = append(out, c.Verb)
		}
	}
	return out
}

// Accepted gives every message taken so far, in order.
func (s *Server) Accepted() []Accepted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal.accepted)
}

// Taken is how many messages were taken so far.
func (s *Server) Taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.nTaken
}

// Duplicates counts, for each Message-ID that was taken more than once, how many times it was.
func (s *Server) Duplicates() map[string]int {
	n := map[string]int{}
	for _, a := range s.Accepted() {
		n[a.MessageID()]++
	}
	maps.DeleteFunc(n, func(_ string, n int) bool { return n < 2 })
	return n
}

// Connections counts the connections: ever opened, open now, and the most that were open at once.
func (s *Server) Connections() (opened, open, peak int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.opened, s.journal.open, s.journal.peak
}

// WaitAccepted waits until n messages were taken and gives all that were.
func (s *Server) WaitAccepted(ctx context.Context, n int) ([]Accepted, error) {
	taken := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.journal.nTaken
	}
	err := s.Wait(ctx, func() bool { return taken() >= n })
	got := s.Accepted()
	if err != nil {
		return got, fmt.Errorf("%d messages taken, waited for %d: %w", taken(), n, err)
	}
	return got, nil
}

// Wait waits until done, which looks at the journal and is asked again after every change of it.
func (s *Server) Wait(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		changed := s.journal.changed
		s.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.life.Done():
			return ErrClosed
		}
	}
}
