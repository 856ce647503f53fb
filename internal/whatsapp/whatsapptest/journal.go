package whatsapptest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Request is one request as it came in.
type Request struct {
	Seq     int // from 1
	At      time.Time
	Kind    string // "send", "read", "media", "media.upload", "media.download", "templates", "other"
	Method  string
	Path    string
	Query   string
	Body    []byte // nil for uploads and for what was reset before it was read
	TokenOK bool
	Token   string // the first 12 hex digits of its SHA-256; "" if there was none
	InQuery bool   // the token stood in the address, where it gets logged
	Fault   string // the name of the misbehaviour that met it
	Status  int    // as answered; 0 if it was not
}

// Accepted is a message that the server took: what Meta would deliver.
type Accepted struct {
	Seq           int // from 1, over all that was accepted
	At            time.Time
	ID            string // wamid
	WABAID        string
	PhoneNumberID string
	To, Recipient string // as sent
	WAID, UserID  string // as Meta knows the recipient
	Type          string
	Text          string // of a text, or a template's body filled
	Template      string // name
	ReplyTo       string
	BizOpaque     string
	Body          json.RawMessage // the request
}

// Read is a read mark.
type Read struct {
	At            time.Time
	PhoneNumberID string
	MessageID     string
	Typing        bool
}

// Delivery is one attempt at posting a webhook.
type Delivery struct {
	At     time.Time
	URL    string
	Body   []byte
	Status int // 0: no answer
	Err    string
}

type journal struct {
	requests   []*Request
	accepted   []Accepted
	reads      []Read
	deliveries []Delivery
	nRequests  int
	nAccepted  int
	changed    chan struct{} // closed at every change
}

func (s *Server) change(f func(j *journal)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.journal)
	j := &s.journal
	if n := s.cfg.JournalLimit; n > 0 {
		j.requests, j.accepted, j.reads, j.deliveries = last(j.requests, n), last(j.accepted, n), last(j.reads, n), last(j.deliveries, n)
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

// note writes a request down; from then on it is in the journal.
func (s *Server) note(r *Request, f *Fault) {
	if f != nil {
		r.Fault = f.Name
	}
	s.change(func(j *journal) {
		j.nRequests++
		r.Seq = j.nRequests
		j.requests = append(j.requests, r)
	})
}

func (s *Server) answered(r *Request, status int) {
	s.change(func(*journal) { r.Status = status })
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

// Accepted gives every message accepted so far, in order.
func (s *Server) Accepted() []Accepted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal.accepted)
}

// Reads gives every read mark so far.
func (s *Server) Reads() []Read {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal.reads)
}

// Deliveries gives every webhook posted so far, repeats included.
func (s *Server) Deliveries() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal.deliveries)
}

// Duplicates counts, for each biz_opaque_callback_data that was accepted more
// than once, how many times it was.
func (s *Server) Duplicates() map[string]int {
	n := map[string]int{}
	for _, a := range s.Accepted() {
		if a.BizOpaque != "" {
			n[a.BizOpaque]++
		}
	}
	maps.DeleteFunc(n, func(_ string, n int) bool { return n < 2 })
	return n
}

// WaitAccepted waits until n messages were accepted and gives all that were.
func (s *Server) WaitAccepted(ctx context.Context, n int) ([]Accepted, error) {
	err := s.Wait(ctx, func() bool { return s.countAccepted() >= n })
	got := s.Accepted()
	if err != nil {
		return got, fmt.Errorf("%d messages accepted, waited for %d: %w", s.countAccepted(), n, err)
	}
	return got, nil
}

func (s *Server) countAccepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.nAccepted
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

// read takes down what a request's head tells.
func (s *Server) read(r *http.Request) (*Request, string) {
	req := &Request{At: s.cfg.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Kind: kindOf(r, nil)}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = ""
	}
	if q := r.URL.Query().Get("access_token"); q != "" {
		req.InQuery = true
	}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		req.Token = hex.EncodeToString(sum[:])[:12]
	}
	req.TokenOK = s.knows(token)
	return req, token
}

func kindOf(r *http.Request, body []byte) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch edge := parts[len(parts)-1]; {
	case strings.HasPrefix(r.URL.Path, linkPath):
		return "media.download"
	case edge == "messages" && r.Method == http.MethodPost:
		var w struct {
			Status string `json:"status"`
		}
		if json.Unmarshal(body, &w) == nil && w.Status != "" {
			return "read"
		}
		return "send"
	case edge == "media" && r.Method == http.MethodPost:
		return "media.upload"
	case edge == "message_templates":
		return "templates"
	case len(parts) == 2 && r.Method == http.MethodGet:
		return "media"
	}
	return "other"
}

// readBody takes a JSON body whole and leaves an upload to its handler.
func readBody(r *http.Request) ([]byte, error) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20+1))
	if len(b) > 1<<20 {
		return nil, fmt.Errorf("too large")
	}
	return bytes.Clone(b), err
}

// newID gives n random letters and digits.
func newID(n int) string {
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz234567"
	b := make([]byte, n)
	_, _ = rand.Read(b)
	for i := range b {
		b[i] = set[int(b[i])%len(set)]
	}
	return string(b)
}
