package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrDisconnected: the socket is not connected any more.
	ErrDisconnected = errors.New("socketio: disconnected")
	// ErrAckTimeout: the client did not acknowledge in time.
	ErrAckTimeout = errors.New("socketio: acknowledgement timed out")
	// ErrTooLarge: the packet alone is larger than Config.MaxBuffered.
	ErrTooLarge = errors.New("socketio: packet too large")
)

// Handler acts on an event. args are the event's arguments, valid JSON each, of which
// there may be none: they are the client's, so check them. ack sends the
// acknowledgement the client asked for; if it asked for none, or has had it, ack does
// nothing. It may be called later, from any goroutine. ctx ends with the client's
// session.
type Handler func(ctx context.Context, args []json.RawMessage, ack func(args ...any))

// Socket is one client's connection to one namespace. Its methods may be called from
// any goroutine.
type Socket struct {
	id   string
	sess *session
	ns   *Namespace
	data any
	gone atomic.Bool // set under the namespace's lock

	rooms map[string]struct{} // guarded by the namespace's lock

	mu           sync.Mutex
	handlers     map[string]Handler
	onDisconnect []func(reason string)
	acks         map[int64]*pendingAck
	lastAck      int64
	reason       string // once finish has run
}

type pendingAck struct {
	done  func(args []json.RawMessage, err error)
	timer *time.Timer
}

// ID returns the socket's id, which the client knows too. It is no secret.
func (s *Socket) ID() string { return s.id }

// Namespace returns the namespace it is connected to.
func (s *Socket) Namespace() *Namespace { return s.ns }

// Data returns what the middleware said of the client.
func (s *Socket) Data() any { return s.data }

// Context ends with the client's session.
func (s *Socket) Context() context.Context { return s.sess.ctx }

// Connected reports whether the socket is still connected.
func (s *Socket) Connected() bool { return !s.gone.Load() }

// Handshake tells how the client came, without its auth.
func (s *Socket) Handshake() *Handshake { return s.sess.handshake(nil) }

// Transport returns "polling" or "websocket": what reaches the client now.
func (s *Socket) Transport() string {
	s.sess.mu.Lock()
	defer s.sess.mu.Unlock()
	if s.sess.ws != nil {
		return "websocket"
	}
	return "polling"
}

// On sets the handler of an event, in place of the one it had; nil removes it. Events
// without a handler are dropped, and their acknowledgements never sent.
func (s *Socket) On(event string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handlers == nil {
		s.handlers = map[string]Handler{}
	}
	s.handlers[event] = h
}

// OnDisconnect adds a function that runs once, when the socket has been disconnected
// and has left its rooms. It never runs at the same time as a handler of the same
// client. If the socket is disconnected already it runs at once.
func (s *Socket) OnDisconnect(f func(reason string)) {
	s.mu.Lock()
	reason := s.reason
	if reason == "" {
		s.onDisconnect = append(s.onDisconnect, f)
	}
	s.mu.Unlock()
	if reason != "" {
		f(reason)
	}
}

// Emit sends an event. It does not wait for delivery: nil means that the event waits
// its turn, and is lost if the connection is.
func (s *Socket) Emit(event string, args ...any) error { return s.emit(-1, event, args) }

// EmitVolatile sends an event unless the client is behind (more than 16 KiB waiting for
// it): then the event is dropped. It is for what is soon out of date anyway.
func (s *Socket) EmitVolatile(event string, args ...any) error {
	if s.sess.behind() {
		s.ns.srv.stats.volatileDropped.Add(1)
		return nil
	}
	return s.emit(-1, event, args)
}

// EmitAck sends an event and waits for its acknowledgement, until ctx is done or the
// socket disconnected. It must not be called from a handler of the same client, which
// would keep the acknowledgement from being read: there, use EmitFunc.
func (s *Socket) EmitAck(ctx context.Context, event string, args ...any) ([]json.RawMessage, error) {
	type answer struct {
		args []json.RawMessage
		err  error
	}
	answered := make(chan answer, 1)
	id, err := s.emitAck(0, func(args []json.RawMessage, err error) { answered <- answer{args, err} }, event, args)
	if err != nil {
		return nil, err
	}
	select {
	case a := <-answered:
		return a.args, a.err
	case <-s.sess.ctx.Done():
		s.takeAck(id)
		return nil, ErrDisconnected
	case <-ctx.Done():
		s.takeAck(id)
		return nil, ctx.Err()
	}
}

// EmitFunc sends an event; done hears of its acknowledgement, once: the client's
// arguments, or ErrAckTimeout, or ErrDisconnected. It runs in the goroutine that reads
// the client's packets, or a timer's, and must not block. If EmitFunc returns an error
// done is not called. timeout has to be positive.
func (s *Socket) EmitFunc(timeout time.Duration, done func(args []json.RawMessage, err error), event string, args ...any) error {
	_, err := s.emitAck(max(timeout, 1), done, event, args)
	return err
}

func (s *Socket) emitAck(timeout time.Duration, done func([]json.RawMessage, error), event string, args []any) (int64, error) {
	p := &pendingAck{done: done}
	s.mu.Lock()
	if s.reason != "" {
		s.mu.Unlock()
		return 0, ErrDisconnected
	}
	id := s.lastAck
	s.lastAck++
	if s.acks == nil {
		s.acks = map[int64]*pendingAck{}
	}
	s.acks[id] = p
	if timeout > 0 {
		p.timer = time.AfterFunc(timeout, func() {
			if s.takeAck(id) != nil {
				defer s.sess.recovered(nil)
				done(nil, ErrAckTimeout)
			}
		})
	}
	s.mu.Unlock()
	if err := s.emit(id, event, args); err != nil {
		if s.takeAck(id) == nil { // done has been called
			return id, nil
		}
		return 0, err
	}
	return id, nil
}

// takeAck returns the pending acknowledgement to whoever comes first.
func (s *Socket) takeAck(id int64) *pendingAck {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.acks[id]
	delete(s.acks, id)
	if p != nil && p.timer != nil {
		p.timer.Stop()
	}
	return p
}

func (s *Socket) emit(id int64, event string, args []any) error {
	f, err := encodeEvent(s.ns.name, id, event, args)
	if err != nil {
		return err
	}
	if f.size() > s.ns.srv.cfg.MaxBuffered {
		return ErrTooLarge
	}
	if s.gone.Load() {
		return ErrDisconnected
	}
	s.sess.send(f)
	return nil
}

// To addresses the other sockets of the rooms. See Namespace.To.
func (s *Socket) To(rooms ...string) Target { return s.ns.To(rooms...).Except(s.id) }

// Others addresses all other sockets of the namespace.
func (s *Socket) Others() Target { return s.ns.All().Except(s.id) }

// Join puts the socket into rooms. After it has been disconnected that does nothing.
func (s *Socket) Join(rooms ...string) {
	s.ns.mu.Lock()
	defer s.ns.mu.Unlock()
	if s.gone.Load() {
		return
	}
	for _, room := range rooms {
		if s.rooms == nil {
			s.rooms = map[string]struct{}{}
		}
		s.rooms[room] = struct{}{}
		if s.ns.rooms[room] == nil {
			s.ns.rooms[room] = map[*Socket]struct{}{}
		}
		s.ns.rooms[room][s] = struct{}{}
	}
}

// Leave takes the socket out of rooms. What is sent to them from then on does not reach it.
func (s *Socket) Leave(rooms ...string) {
	s.ns.mu.Lock()
	defer s.ns.mu.Unlock()
	for _, room := range rooms {
		if s.in(room) {
			delete(s.rooms, room)
			s.ns.drop(s, room)
		}
	}
}

// Rooms returns the rooms it is in.
func (s *Socket) Rooms() []string {
	s.ns.mu.RLock()
	defer s.ns.mu.RUnlock()
	list := make([]string, 0, len(s.rooms))
	for room := range s.rooms {
		list = append(list, room)
	}
	return list
}

// in and inAny ask with the namespace's lock held.
func (s *Socket) in(room string) bool {
	_, ok := s.rooms[room]
	return ok
}

func (s *Socket) inAny(rooms []string) bool {
	for _, room := range rooms {
		if s.id == room || s.in(room) {
			return true
		}
	}
	return false
}

// Disconnect disconnects the socket; with closeSession the whole session of the client,
// with its sockets of other namespaces. What was emitted before still reaches the
// client. It does not wait. The official clients do not reconnect after it.
func (s *Socket) Disconnect(closeSession bool) {
	if closeSession {
		s.sess.disconnect()
	} else if s.ns.remove(s) {
		s.sess.send(disconnectFrame(s.ns.name))
		s.sess.later(func() { s.finish(ReasonServerDisconnect) })
	}
}

// finish tells the application that the socket is gone. The session's rx is held, the
// socket removed from its namespace by the caller: so this runs once.
func (s *Socket) finish(reason string) {
	s.mu.Lock()
	s.reason = reason
	acks, callbacks := s.acks, s.onDisconnect
	s.acks, s.onDisconnect, s.handlers = nil, nil, nil
	s.mu.Unlock()
	guarded := func(f func()) {
		defer s.sess.recovered(nil)
		f()
	}
	for _, p := range acks {
		if p.timer != nil {
			p.timer.Stop()
		}
		guarded(func() { p.done(nil, ErrDisconnected) })
	}
	for _, f := range callbacks {
		guarded(func() { f(reason) })
	}
}
