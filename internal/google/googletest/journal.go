package googletest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Request is one request as it came in.
type Request struct {
	Seq     int // from 1
	At      time.Time
	Kind    string // "token", "insert", "get", "patch", "delete", "list", "other"
	Method  string
	Path    string // escaped
	Query   string
	Body    []byte // nil for the token endpoint and for what was reset before it was read
	User    string // whose access token it was; "" if it opens nothing
	Token   string // the first 12 hex digits of its SHA-256; "" if there was none
	InQuery bool   // a token stood in the address, where it gets logged
	Fault   string // the name of the misbehaviour that met it
	Status  int    // as answered; 0 if it was not
}

// Write is a change that the server took.
type Write struct {
	Seq         int // from 1
	At          time.Time
	Kind        string // "insert", "patch", "delete"
	User        string
	SendUpdates string // as asked; "" means none
	Event       Event  // as it was after it
}

// Mail is what Google writes to an attendee.
type Mail struct {
	At      time.Time
	Kind    string // "invited", "updated", "cancelled"
	To      string
	EventID string
}

type journal struct {
	requests  []*Request
	writes    []Write
	mails     []Mail
	nRequests int
	nWrites   int
	changed   chan struct{} // closed at every change
}

// changed tells those who wait, and keeps the journal short. The server is locked.
func (s *Server) changed() {
	j := &s.journal
	if n := s.cfg.JournalLimit; n > 0 {
		j.requests, j.writes, j.mails = last(j.requests, n), last(j.writes, n), last(j.mails, n)
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

// read takes down what a request's head tells, and finds whose it is.
func (s *Server) read(r *http.Request) (*Request, *access) {
	req := &Request{At: s.cfg.Now(), Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Kind: kindOf(r)}
	q := r.URL.Query()
	req.InQuery = q.Has("access_token") || q.Has("refresh_token") || q.Has("client_secret") || q.Has("assertion")
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return req, nil
	}
	sum := sha256.Sum256([]byte(token))
	req.Token = hex.EncodeToString(sum[:])[:12]
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.access[token]
	if a == nil || !s.cfg.Now().Before(a.until) {
		return req, nil
	}
	req.User = a.user
	return req, a
}

// note writes a request down; from then on it is in the journal.
func (s *Server) note(r *Request, f *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != nil {
		r.Fault = f.Name
	}
	s.journal.nRequests++
	r.Seq = s.journal.nRequests
	s.journal.requests = append(s.journal.requests, r)
	s.changed()
}

func (s *Server) answered(r *Request, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Status = status
	s.changed()
}

// wrote takes down a change, and the mails that it causes. The server is locked.
func (s *Server) wrote(kind, mail string, who *access, c *calendar, e *Event, updates string) {
	j, now := &s.journal, s.cfg.Now()
	j.nWrites++
	j.writes = append(j.writes, Write{Seq: j.nWrites, At: now, Kind: kind, User: who.user, SendUpdates: updates, Event: e.clone()})
	if updates == "all" {
		for _, a := range e.Attendees {
			j.mails = append(j.mails, Mail{At: now, Kind: mail, To: a.Email, EventID: e.ID})
		}
	}
	s.changed()
}

// Requests gives every request so far, in the order of arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.journal.requests))
	for i, r := range s.journal.requests {
		out[i] = *r
	}
	return out
}

// Count tells how many requests of a kind there were among those kept.
func (s *Server) Count(kind string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Kind == kind {
			n++
		}
	}
	return n
}

// Writes gives every change accepted so far, in order.
func (s *Server) Writes() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal.writes)
}

// Mails gives every mail that Google would have written so far.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal.mails)
}

// WaitWrites waits until n changes were accepted and gives all that were.
func (s *Server) WaitWrites(ctx context.Context, n int) ([]Write, error) {
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.journal.nWrites
	}
	err := s.Wait(ctx, func() bool { return count() >= n })
	if err != nil {
		err = fmt.Errorf("%d changes accepted, waited for %d: %w", count(), n, err)
	}
	return s.Writes(), err
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
			return http.ErrServerClosed
		}
	}
}

// newID gives n random letters.
func newID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	for i := range b {
		b[i] = 'a' + b[i]%26
	}
	return string(b)
}
