package socketio

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// servePoll answers a GET: with what waits for the client, as soon as something does.
func (s *session) servePoll(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	// The server's timeouts are for ordinary requests. A read deadline that passed
	// would look like a client that went away.
	patience := s.srv.cfg.PingInterval + s.srv.cfg.PingTimeout
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Now().Add(2 * patience))

	s.mu.Lock()
	switch {
	case s.state == stateEnded, s.overdue(time.Now()):
		s.mu.Unlock()
		s.close(ReasonPingTimeout, abrupt)
		s.srv.refuse(w, errUnknownSession)
		return
	case s.ws != nil:
		s.mu.Unlock()
		s.srv.refuse(w, errBadRequest)
		return
	case s.poll != nil:
		s.mu.Unlock()
		s.close(ReasonTransportError, abrupt)
		s.srv.refuse(w, errBadRequest)
		return
	}
	mine := make(chan struct{}, 1)
	s.poll = mine
	batch, problem := s.awaitFrames(r, mine)
	last := s.state == stateDraining && len(s.queue) == 0
	s.mu.Unlock()

	if problem != nil {
		s.srv.refuse(w, *problem)
	} else {
		err := writePayload(w, batch)
		if err == nil {
			// Flushed within this deadline; without one the connection may serve other requests.
			if err = rc.Flush(); errors.Is(err, http.ErrNotSupported) {
				err = nil
			}
			_ = rc.SetWriteDeadline(time.Time{})
		}
		s.sent(batch)
		if err != nil {
			s.close(ReasonTransportError, abrupt)
		}
	}
	if last {
		s.end()
	}
}

// awaitFrames waits until the poll has something to answer: frames, or a problem.
// mu is held, but not while waiting.
func (s *session) awaitFrames(r *http.Request, mine chan struct{}) ([]*frame, *refusal) {
	defer func() { s.poll = nil }()
	var hold *time.Timer
	for {
		switch {
		case s.ws != nil: // upgraded meanwhile
			return nil, &errBadRequest
		case len(s.queue) > 0:
			return s.takeBatch(), nil
		case s.state != stateOpen:
			return nil, &errUnknownSession
		case s.upgrading && hold == nil:
			hold = time.NewTimer(upgradePollHold)
			defer hold.Stop()
		}
		var held <-chan time.Time
		if hold != nil {
			held = hold.C
		}
		s.mu.Unlock()
		gone := false
		select {
		case <-mine:
		case <-held:
			s.mu.Lock()
			if s.upgrading && s.ws == nil && len(s.queue) == 0 && s.state == stateOpen {
				s.pending.Add(int64(noopFrame.size()))
				return []*frame{noopFrame}, nil
			}
			hold = nil
			continue
		case <-r.Context().Done():
			gone = true
		}
		s.mu.Lock()
		if gone && s.ws == nil {
			s.poll = nil
			s.mu.Unlock()
			s.close(ReasonTransportClose, abrupt)
			s.mu.Lock()
			return nil, &errUnknownSession
		}
	}
}

// takeBatch takes from the queue what one answer may hold. A close packet comes alone:
// the official client acts on it before it acts on what came in the same answer. mu is
// held.
func (s *session) takeBatch() []*frame {
	n, bytes := 0, 0
	for n < len(s.queue) && (n == 0 || bytes+s.queue[n].pollLen() < maxPollResponse && s.queue[n] != closeFrame) {
		bytes += s.queue[n].pollLen() + 1
		n++
	}
	batch := s.queue[:n:n]
	s.queue = s.queue[n:]
	if len(s.queue) == 0 {
		s.queue = nil
	}
	return batch
}

// sent settles the account of frames that were written.
func (s *session) sent(batch []*frame) {
	var wire uint64
	for _, f := range batch {
		s.pending.Add(-int64(f.size()))
		wire += uint64(len(f.data))
	}
	s.srv.stats.framesOut.Add(uint64(len(batch)))
	s.srv.stats.bytesOut.Add(wire)
}

func writePayload(w http.ResponseWriter, batch []*frame) error {
	length := len(batch) - 1
	for _, f := range batch {
		length += f.pollLen()
	}
	textHeaders(w, length)
	for i, f := range batch {
		if i > 0 {
			if _, err := w.Write([]byte{recordSeparator}); err != nil {
				return err
			}
		}
		if _, err := w.Write(f.pollBytes()); err != nil {
			return err
		}
	}
	return nil
}

func textHeaders(w http.ResponseWriter, length int) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(length))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// servePost takes packets from the client. It answers once they are handled.
func (s *session) servePost(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(s.srv.cfg.PingInterval + s.srv.cfg.PingTimeout))
	_ = rc.SetWriteDeadline(time.Time{})

	s.mu.Lock()
	usable := s.state == stateOpen && s.ws == nil
	overlap := usable && s.posting
	ended := s.state != stateOpen
	if usable {
		s.posting = true
	}
	s.mu.Unlock()
	switch {
	case ended:
		s.srv.refuse(w, errUnknownSession)
		return
	case !usable:
		s.srv.refuse(w, errBadRequest)
		return
	case overlap:
		s.close(ReasonTransportError, abrupt)
		s.srv.refuse(w, errBadRequest)
		return
	}
	defer func() {
		s.mu.Lock()
		s.posting = false
		s.mu.Unlock()
	}()

	if r.Header.Get("Content-Type") == "application/octet-stream" { // what Engine.IO 3 did
		s.close(ReasonTransportError, abrupt)
		s.srv.refuse(w, errBadRequest)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.srv.cfg.MaxPayload)))
	if err != nil {
		s.close(ReasonTransportError, abrupt)
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			s.srv.refuse(w, errTooLarge)
		} else {
			s.srv.refuse(w, errBadRequest)
		}
		return
	}
	_ = rc.SetReadDeadline(time.Time{})

	s.rx.Lock()
	var bad error
	err = splitPayload(body, func(data []byte, binary bool) bool {
		bad = s.receive(data, binary)
		return bad == nil
	})
	s.rx.Unlock()
	if err != nil {
		s.close(ReasonParseError, abrupt)
	}
	if err != nil || (bad != nil && !errors.Is(bad, errSessionOver)) {
		s.srv.refuse(w, errBadRequest)
		return
	}
	textHeaders(w, len("ok"))
	_, _ = io.WriteString(w, "ok")
}
