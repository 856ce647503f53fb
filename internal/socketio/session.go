package socketio

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Reasons of a disconnect, as given to Socket.OnDisconnect. Most are the names the
// JavaScript server uses.
const (
	ReasonTransportClose   = "transport close"             // the client went away
	ReasonTransportError   = "transport error"             // its connection broke, or its requests made no sense
	ReasonPingTimeout      = "ping timeout"                // it stopped answering
	ReasonParseError       = "parse error"                 // it sent a malformed or unsupported packet
	ReasonSlowClient       = "slow client"                 // more than Config.MaxBuffered was waiting for it
	ReasonConnectTimeout   = "connect timeout"             // it was admitted to no namespace in time
	ReasonHandlerPanic     = "handler panic"               // a handler of the application panicked
	ReasonClientDisconnect = "client namespace disconnect" // it left the namespace
	ReasonServerDisconnect = "server namespace disconnect" // Socket.Disconnect(false)
	ReasonForcedClose      = "forced server close"         // Socket.Disconnect(true)
	ReasonServerShutdown   = "server shutting down"        // Server.Close
)

var errSessionOver = errors.New("socketio: session is over")

type state int

const (
	stateOpen     state = iota
	stateDraining       // over for the application; last words are on their way
	stateEnded          // no transport left
)

// farewell is how a session ends towards its client.
type farewell int

const (
	abrupt farewell = iota // drop what waits, cut the connection; a waiting poll hears "close"
	polite                 // deliver what waits, then say goodbye
	agreed                 // the client said goodbye: a waiting poll hears "noop"
)

// session is one Engine.IO session: a client, the transport that reaches it now,
// and what waits to be sent.
//
// Locks: rx serialises everything the client causes, and is held while handlers run.
// mu guards the fields, is held briefly, and is taken after a Namespace's lock, never
// before it. So close, which takes both in turn, is called with neither held.
type session struct {
	srv      *Server
	id       string // a secret of the client's: it is what makes its requests its own
	addr     string // Config.ClientAddr's
	remote   string
	host     string
	header   http.Header
	rawQuery string

	ctx    context.Context
	cancel context.CancelFunc

	rx sync.Mutex

	mu           sync.Mutex
	state        state
	ws           *websocket.Conn // nil while polling
	probing      bool            // a websocket is being opened to take over
	probe        *websocket.Conn // that websocket, once open
	upgrading    bool            // it has been probed: polls are held back
	poll         chan struct{}   // wakes the waiting GET; nil if none waits
	posting      bool            // a POST is being worked on
	queue        []*frame
	flushing     bool
	sockets      map[string]*Socket // by namespace; nil value: has left it
	busySince    time.Time          // since when a handler has been running; zero: none
	timer        *time.Timer        // the heartbeat's; later that of the last words
	awaitingPong bool
	deadline     time.Time   // of the next ping, or of the pong awaited
	connectTimer *time.Timer // nil once admitted to a namespace
	goodbye      int         // the close code that the websocket's reader leaves with; 0: none

	pending atomic.Int64 // bytes queued or being written
}

// start queues the open packet and begins the heartbeat. mu is held.
func (s *session) start(upgradable bool) {
	if s.state != stateOpen { // the server closed meanwhile
		return
	}
	s.srv.stats.opened.Add(1)
	s.enqueue(s.srv.openFrame(s.id, upgradable))
	s.deadline = time.Now().Add(s.srv.cfg.PingInterval)
	s.timer = time.AfterFunc(s.srv.cfg.PingInterval, s.heartbeat)
	if s.srv.recv == nil {
		s.connectTimer = time.AfterFunc(s.srv.cfg.ConnectTimeout, func() { s.close(ReasonConnectTimeout, abrupt) })
	}
}

// send queues a frame for the client.
func (s *session) send(f *frame) {
	s.mu.Lock()
	slow := s.enqueue(f)
	s.mu.Unlock()
	if slow {
		s.close(ReasonSlowClient, abrupt)
	}
}

// enqueue is send for callers that hold mu, and perhaps a namespace's lock. If it
// reports true the caller has to close the session once it holds neither.
func (s *session) enqueue(f *frame) (slow bool) {
	if s.state != stateOpen {
		return false
	}
	s.queue = append(s.queue, f)
	slow = s.pending.Add(int64(f.size())) > int64(s.srv.cfg.MaxBuffered)
	s.wake()
	return slow
}

// wake sets to work whatever carries the queue to the client. mu is held.
func (s *session) wake() {
	switch {
	case s.ws != nil:
		if !s.flushing && (len(s.queue) > 0 || s.state == stateDraining) {
			s.flushing = true
			s.srv.wg.Go(s.flush)
		}
	case s.poll != nil:
		select {
		case s.poll <- struct{}{}:
		default:
		}
	}
}

// behind reports whether the client has so much waiting that a volatile packet is
// better dropped.
func (s *session) behind() bool { return s.pending.Load() > volatileBacklog }

// heartbeat runs when deadline has come. Deadlines follow from each other, not from
// when the timer happened to fire.
func (s *session) heartbeat() {
	s.mu.Lock()
	now := time.Now()
	switch {
	case s.state != stateOpen:
	case now.Before(s.deadline): // a pong moved it
		s.timer.Reset(s.deadline.Sub(now))
	case !s.awaitingPong:
		s.awaitingPong = true
		s.deadline = s.deadline.Add(s.srv.cfg.PingTimeout)
		// If this process was held up, its clients are not to blame.
		if least := now.Add(s.srv.cfg.PingTimeout / 2); s.deadline.Before(least) {
			s.deadline = least
		}
		s.enqueue(pingFrame)
		s.timer.Reset(s.deadline.Sub(now))
	case !s.busySince.IsZero() && now.Sub(s.busySince) < handlerGrace:
		// The pong may be waiting behind our own handler.
		s.deadline = now.Add(s.srv.cfg.PingTimeout)
		s.timer.Reset(s.srv.cfg.PingTimeout)
	default:
		s.mu.Unlock()
		s.close(ReasonPingTimeout, abrupt)
		return
	}
	s.mu.Unlock()
}

// overdue reports whether the pong's deadline has passed, whether or not the timer
// has noticed. mu is held.
func (s *session) overdue(now time.Time) bool {
	if s.state != stateOpen || s.timer == nil || !s.busySince.IsZero() {
		return false
	}
	d := s.deadline
	if !s.awaitingPong {
		d = d.Add(s.srv.cfg.PingTimeout)
	}
	return !now.Before(d)
}

func (s *session) pong() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateOpen && s.awaitingPong {
		s.awaitingPong = false
		s.deadline = time.Now().Add(s.srv.cfg.PingInterval)
		s.timer.Reset(s.srv.cfg.PingInterval)
	}
}

// receive acts on one Engine.IO packet; rx is held. errSessionOver tells that there is
// no use in further ones; any other error that this one was malformed, and has closed
// the session.
func (s *session) receive(data []byte, binary bool) error {
	s.mu.Lock()
	open := s.state == stateOpen
	s.mu.Unlock()
	if !open {
		return errSessionOver
	}
	s.srv.stats.framesIn.Add(1)
	s.srv.stats.bytesIn.Add(uint64(len(data)))
	var err error
	switch {
	case binary:
		err = s.message(data, true)
	case len(data) == 0:
		err = errMalformed
	case data[0] == eioMessage:
		err = s.message(data[1:], false)
	case data[0] == eioPong:
		s.pong()
	case data[0] == eioUpgrade, data[0] == eioNoop:
	case data[0] == eioClose:
		s.close(ReasonTransportClose, agreed)
		return errSessionOver
	default: // "open" and "ping" are the server's to send
		err = errMalformed
	}
	if err != nil {
		s.close(ReasonParseError, abrupt)
	}
	return err
}

// message hands a message to the layer above, and guards the process from it.
func (s *session) message(data []byte, binary bool) (err error) {
	s.setBusy(time.Now())
	defer s.setBusy(time.Time{})
	defer s.recovered(func() { s.close(ReasonHandlerPanic, abrupt) })
	if s.srv.recv != nil {
		return s.srv.recv(s, data, binary)
	}
	if binary {
		return errBinary
	}
	return s.dispatch(data)
}

func (s *session) setBusy(t time.Time) {
	s.mu.Lock()
	s.busySince = t
	s.mu.Unlock()
}

// recovered, deferred, turns a panic of the application into a log line.
func (s *session) recovered(then func()) {
	if v := recover(); v != nil {
		s.srv.panicked(v)
		if then != nil {
			then()
		}
	}
}

// close ends the session. The application hears of it at once; the client according
// to how. Only the first call counts, but an abrupt one also cuts short a polite one.
// Neither mu nor a namespace's lock may be held.
func (s *session) close(reason string, how farewell) {
	s.mu.Lock()
	s.closeHeld(reason, how)
}

// closeHeld is close where mu is held already; it is not any more afterwards.
func (s *session) closeHeld(reason string, how farewell) {
	if s.state != stateOpen {
		var e ending
		if s.state == stateDraining && how == abrupt {
			e = s.cut()
		}
		s.mu.Unlock()
		s.bury(e)
		return
	}
	s.state = stateDraining
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.connectTimer != nil {
		s.connectTimer.Stop()
	}
	backlog := s.pending.Load()
	sockets, probe := s.sockets, s.probe
	s.sockets = nil
	e := s.lastWords(reason, how)
	s.mu.Unlock()

	s.cancel()
	if probe != nil {
		go func() { _ = probe.Close() }()
	}
	s.bury(e)
	s.srv.noteClose(reason, backlog)
	var gone []*Socket
	for _, sock := range sockets {
		if sock != nil && sock.ns.remove(sock) {
			gone = append(gone, sock)
		}
	}
	// The disconnect callbacks wait for the handler that may be running, which may
	// be the very caller.
	go func() {
		defer s.srv.wg.Done()
		s.rx.Lock()
		defer s.rx.Unlock()
		for _, sock := range gone {
			sock.finish(reason)
		}
	}()
}

// ending is what is left to do for a closed session once mu is not held any more.
type ending struct {
	forget bool            // no transport is left
	conn   *websocket.Conn // to be closed; its reader then ends the session
}

func (s *session) bury(e ending) {
	if e.conn != nil {
		go func() { _ = e.conn.Close() }() // over TLS it may block
	}
	if e.forget {
		s.srv.forget(s)
	}
}

// lastWords arranges for what the client still gets. mu is held; state is draining.
func (s *session) lastWords(reason string, how farewell) ending {
	if s.ws != nil {
		switch {
		case how == polite:
			s.wake()
			s.timer = time.AfterFunc(closeTimeout, func() { s.close("", abrupt) })
		case how == agreed:
			s.leave(websocket.CloseNormalClosure)
		case reason == ReasonParseError:
			s.leave(websocket.CloseProtocolError)
		default:
			return s.cut()
		}
		return ending{}
	}
	var linger time.Duration
	switch how {
	case polite:
		s.queue = append(s.queue, closeFrame)
		if !s.srv.closing.Load() {
			linger = closeTimeout
		}
	case agreed:
		s.queue = []*frame{noopFrame}
		linger = overtakenPollTTL
	default:
		s.queue = []*frame{closeFrame}
	}
	switch {
	case s.poll != nil: // it delivers the queue, then ends the session
		s.wake()
		s.timer = time.AfterFunc(closeTimeout, s.end)
	case linger > 0:
		s.timer = time.AfterFunc(linger, s.end)
	default:
		return s.cut()
	}
	return ending{}
}

// leave makes the websocket's reader say goodbye and go. mu is held.
func (s *session) leave(code int) {
	s.queue = nil
	s.goodbye = code
	_ = s.ws.SetReadDeadline(time.Unix(1, 0))
}

// cut ends a draining session's last words. mu is held.
func (s *session) cut() ending {
	s.queue = nil
	switch {
	case s.ws != nil:
		return ending{conn: s.ws}
	case s.poll != nil:
		s.wake()
		return ending{}
	default:
		s.state = stateEnded
		return ending{forget: true}
	}
}

// end marks that no transport is left.
func (s *session) end() {
	s.mu.Lock()
	ended := s.state == stateEnded
	s.state = stateEnded
	s.queue = nil
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	if !ended {
		s.srv.forget(s)
	}
}

func (srv *Server) panicked(v any) {
	srv.stats.panics.Add(1)
	srv.cfg.Logger.Error("socketio: handler panicked", "panic", v, "stack", string(debug.Stack()))
}
