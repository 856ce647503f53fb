package socketio

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

func newUpgrader(srv *Server) *websocket.Upgrader {
	return &websocket.Upgrader{
		HandshakeTimeout: srv.cfg.UpgradeTimeout,
		// A small reader of its own lets the HTTP server's larger one go; write buffers
		// are held only while writing.
		ReadBufferSize:  1024,
		WriteBufferSize: 4096,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(*http.Request) bool { return true }, // ServeHTTP has
		Error: func(w http.ResponseWriter, _ *http.Request, _ int, _ error) {
			srv.refuse(w, errBadRequest)
		},
	}
}

// openWebsocket answers the websocket handshake; if it cannot, the request is answered
// with an error.
func (srv *Server) openWebsocket(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	conn, err := srv.upgrader.Upgrade(hijacker{w}, r, nil)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(int64(srv.cfg.MaxPayload))
	return conn, nil
}

// hijacker finds the connection beneath response writers that wrap each other.
type hijacker struct{ http.ResponseWriter }

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

// serveWebsocket opens a session over a websocket. Its reader is a goroutine of its
// own, so that the HTTP server's one, with its larger stack and the request, can go.
func (srv *Server) serveWebsocket(w http.ResponseWriter, r *http.Request) {
	s, problem := srv.newSession(r)
	if problem != nil {
		srv.refuse(w, *problem)
		return
	}
	conn, err := srv.openWebsocket(w, r)
	if err != nil {
		s.close(ReasonTransportError, abrupt)
		return
	}
	s.mu.Lock()
	if s.state != stateOpen { // the server closed meanwhile
		s.mu.Unlock()
		_ = conn.Close()
		return
	}
	s.ws = conn
	srv.stats.websockets.Add(1)
	s.start(false)
	srv.wg.Go(func() { s.read(conn) })
	s.mu.Unlock()
}

// read is the one goroutine of a session over a websocket.
func (s *session) read(conn *websocket.Conn) {
	for {
		typ, data, err := conn.ReadMessage()
		if err != nil {
			s.readEnded(conn, err)
			break
		}
		s.rx.Lock()
		_ = s.receive(data, typ == websocket.BinaryMessage) // a closed session is read from until the connection ends
		s.rx.Unlock()
	}
	_ = conn.Close()
	s.srv.stats.websockets.Add(-1)
	s.end()
}

// readEnded closes the session for the reader's error, unless that is the way by which
// the reader was told to leave.
func (s *session) readEnded(conn *websocket.Conn, err error) {
	s.mu.Lock()
	code := s.goodbye
	s.mu.Unlock()
	if code != 0 {
		writeClose(conn, code)
		return
	}
	reason := ReasonTransportError
	if closed := new(websocket.CloseError); errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure {
		reason = ReasonTransportClose
	}
	s.close(reason, abrupt)
}

func writeClose(conn *websocket.Conn, code int) {
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(250*time.Millisecond))
}

// flush writes the queue to the websocket. It runs only while there is something to
// write, once at a time.
func (s *session) flush() {
	s.mu.Lock()
	for len(s.queue) > 0 {
		batch, conn := s.queue, s.ws
		s.queue = nil
		s.mu.Unlock()
		for i, f := range batch {
			if err := f.writeTo(conn); err != nil {
				s.close(ReasonTransportError, abrupt)
				return // still flushing, as far as others know: nothing can be written any more
			}
			s.sent(batch[i : i+1])
		}
		s.mu.Lock()
	}
	s.flushing = false
	conn, draining := s.ws, s.state == stateDraining && s.goodbye == 0
	s.mu.Unlock()
	if draining {
		code := websocket.CloseNormalClosure
		if s.srv.closing.Load() {
			code = websocket.CloseGoingAway
		}
		writeClose(conn, code) // the reader hears the client's answer
	}
}

// serveUpgrade opens a websocket that may take over a polling session. One that comes
// too late, or second, is accepted and closed.
func (s *session) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	wanted := s.state == stateOpen && s.ws == nil && !s.probing
	if wanted {
		s.probing = true
	}
	s.mu.Unlock()
	conn, err := s.srv.openWebsocket(w, r)
	if !wanted {
		if err == nil {
			writeClose(conn, websocket.ClosePolicyViolation)
			_ = conn.Close()
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || s.state != stateOpen {
		s.probing = false
		if err == nil {
			_ = conn.Close()
		}
		return
	}
	s.probe = conn
	s.srv.wg.Go(func() {
		if s.upgrade(conn) {
			s.read(conn)
		}
	})
}

// upgrade carries out the probe and reports whether conn has taken over the session.
func (s *session) upgrade(conn *websocket.Conn) bool {
	heard := func(want string) bool {
		typ, data, err := conn.ReadMessage()
		return err == nil && typ == websocket.TextMessage && string(data) == want
	}
	_ = conn.SetReadDeadline(time.Now().Add(s.srv.cfg.UpgradeTimeout))
	ok := heard("2probe")
	if ok {
		s.mu.Lock()
		s.upgrading = true // holds back polls, so that the client's ends
		s.wake()
		s.mu.Unlock()
		ok = conn.WriteMessage(websocket.TextMessage, []byte("3probe")) == nil && heard("5")
	}
	_ = conn.SetReadDeadline(time.Time{})

	s.mu.Lock()
	s.probing, s.upgrading, s.probe = false, false, nil
	ok = ok && s.state == stateOpen
	if ok {
		s.wake() // a poll that should not be there: it gets its answer
		s.ws = conn
		s.srv.stats.websockets.Add(1)
		s.srv.stats.upgrades.Add(1)
		s.wake()
	}
	s.mu.Unlock()
	if !ok {
		_ = conn.Close()
	}
	return ok
}
