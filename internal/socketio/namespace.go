package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync"
)

// Handshake is what a client brings when it connects to a namespace.
type Handshake struct {
	// Auth is the client's auth option: a JSON object, or nil. It may hold secrets.
	Auth json.RawMessage
	// Header and Query are those of the request that opened the session. Treat them
	// as read-only.
	Header http.Header
	Query  url.Values
	Host   string
	// Origin is the Origin header; it has passed Config.AllowOrigin.
	Origin string
	// RemoteAddr is the peer's address and port; Addr is what Config.ClientAddr made
	// of the request.
	RemoteAddr string
	Addr       string
}

// ConnectError is what a middleware returns to tell a client why it is refused. The
// client's connect_error event carries it as err.message and err.data.
type ConnectError struct {
	Message string `json:"message"`
	Data    any    `json:"data,omitempty"`
}

func (e *ConnectError) Error() string { return "socketio: connection refused: " + e.Message }

// Middleware admits a client to a namespace or refuses it by an error. What it returns
// becomes Socket.Data, unless nil or replaced by a later middleware's. Of an error that
// is not a *ConnectError the client learns nothing but "Internal error". ctx ends with
// the client's session.
type Middleware func(ctx context.Context, hs *Handshake) (any, error)

// Namespace is a set of sockets, and the rooms they are in.
type Namespace struct {
	srv  *Server
	name string

	mu         sync.RWMutex
	middleware []Middleware
	onConnect  []func(*Socket)
	onServer   map[string]ServerHandler
	sockets    map[string]*Socket
	rooms      map[string]map[*Socket]struct{}
}

// Name returns the namespace's name, "/" for the main one.
func (ns *Namespace) Name() string { return ns.name }

// Use adds a middleware. They run in order, for each client that wants to connect.
func (ns *Namespace) Use(m Middleware) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	ns.middleware = append(ns.middleware[:len(ns.middleware):len(ns.middleware)], m)
}

// OnConnect adds a function that runs for each new socket, after the client's CONNECT
// was answered and before its next packet is read. It is the place for Socket.On and
// Socket.Join.
func (ns *Namespace) OnConnect(f func(*Socket)) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	ns.onConnect = append(ns.onConnect[:len(ns.onConnect):len(ns.onConnect)], f)
}

// Len returns the number of connected sockets.
func (ns *Namespace) Len() int {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return len(ns.sockets)
}

// Socket returns the connected socket of that id, or nil.
func (ns *Namespace) Socket(id string) *Socket {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return ns.sockets[id]
}

// All addresses every socket of the namespace.
func (ns *Namespace) All() Target { return Target{ns: ns, all: true} }

// To addresses the sockets that are in at least one of the rooms. Without rooms it
// addresses nobody. A socket's id is a room with that one socket in it.
func (ns *Namespace) To(rooms ...string) Target { return Target{ns: ns, rooms: rooms} }

// Emit sends an event to every socket of the namespace. See Target.Emit.
func (ns *Namespace) Emit(event string, args ...any) error { return ns.All().Emit(event, args...) }

// Target is a choice of sockets to send to, also of those that other servers have
// (Config.Adapter). Its methods that return a Target leave the original as it is.
type Target struct {
	ns       *Namespace
	all      bool
	local    bool // of this server only
	rooms    []string
	except   []string
	volatile bool
}

// Except leaves out the sockets that are in any of the rooms, or have one of the ids.
func (t Target) Except(rooms ...string) Target {
	t.except = append(t.except[:len(t.except):len(t.except)], rooms...)
	return t
}

// Volatile makes the sends droppable: see Socket.EmitVolatile.
func (t Target) Volatile() Target {
	t.volatile = true
	return t
}

// Emit sends an event, encoded once, to every socket of the target. It does not wait
// for delivery. The error is of the encoding; then nobody gets anything.
func (t Target) Emit(event string, args ...any) error {
	f, err := encodeEvent(t.ns.name, -1, event, args)
	if err != nil {
		return err
	}
	return t.send(f)
}

// Raw is Emit for an event that is JSON already: an array that begins with the event's
// name. It is checked, then sent as it is.
func (t Target) Raw(event []byte) error {
	f, err := encodeRaw(t.ns.name, event)
	if err != nil {
		return err
	}
	return t.send(f)
}

// Sockets returns the sockets of the target that this server has, in no order.
func (t Target) Sockets() []*Socket {
	var list []*Socket
	t.ns.mu.RLock()
	defer t.ns.mu.RUnlock()
	t.each(func(s *Socket) { list = append(list, s) })
	return list
}

// Disconnect disconnects every socket of the target, as Socket.Disconnect does.
func (t Target) Disconnect(closeSession bool) {
	for _, s := range t.Sockets() {
		s.Disconnect(closeSession)
	}
	if a := t.adapter(); a != nil {
		a.Disconnect(t.ns.name, t.selection(), closeSession)
	}
}

func (t Target) send(f *frame) error {
	if f.size() > t.ns.srv.cfg.MaxBuffered {
		return ErrTooLarge
	}
	if a := t.adapter(); a != nil {
		a.Broadcast(t.ns.name, t.selection(), f.data[len(appendHeader(nil, sioEvent, t.ns.name, -1)):])
	}
	f.shared = true
	var slow []*session
	t.ns.mu.RLock()
	t.each(func(s *Socket) {
		if t.volatile && s.sess.behind() {
			t.ns.srv.stats.volatileDropped.Add(1)
			return
		}
		s.sess.mu.Lock()
		if s.sess.enqueue(f) {
			slow = append(slow, s.sess)
		}
		s.sess.mu.Unlock()
	})
	t.ns.mu.RUnlock()
	for _, sess := range slow {
		sess.close(ReasonSlowClient, abrupt)
	}
	return nil
}

// each calls f once for every socket of the target. The namespace's lock is held.
func (t Target) each(f func(*Socket)) {
	visit := f
	if len(t.except) > 0 {
		visit = func(s *Socket) {
			for _, room := range t.except {
				if s.id == room || s.in(room) {
					return
				}
			}
			f(s)
		}
	}
	if t.all {
		for _, s := range t.ns.sockets {
			visit(s)
		}
		return
	}
	for i, room := range t.rooms {
		for s := range t.ns.rooms[room] {
			if !s.inAny(t.rooms[:i]) { // else visited already
				visit(s)
			}
		}
		if s := t.ns.sockets[room]; s != nil && !s.in(room) && !s.inAny(t.rooms[:i]) {
			visit(s)
		}
	}
}

// admit asks the middleware. It returns the new socket's data.
func (ns *Namespace) admit(ctx context.Context, hs *Handshake) (data any, refused *ConnectError) {
	ns.mu.RLock()
	chain := ns.middleware
	ns.mu.RUnlock()
	for _, m := range chain {
		d, err := m(ctx, hs)
		if err != nil {
			return nil, ns.connectError(err)
		}
		if d != nil {
			data = d
		}
	}
	return data, nil
}

func (ns *Namespace) connectError(err error) *ConnectError {
	var ce *ConnectError
	if errors.As(err, &ce) {
		return ce
	}
	if !errors.Is(err, context.Canceled) {
		ns.srv.cfg.Logger.Error("socketio: middleware failed", "namespace", ns.name, "error", err)
	}
	return &ConnectError{Message: "Internal error"}
}

// add makes a socket visible. Under the namespace's lock its client's CONNECT is
// answered first: no broadcast can overtake that. It reports false if the session is
// over already.
func (ns *Namespace) add(s *Socket) bool {
	f, err := encodePacket(sioConnect, ns.name, -1, map[string]string{"sid": s.id})
	if err != nil {
		return false
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	sess := s.sess
	sess.mu.Lock()
	defer sess.mu.Unlock()
	if sess.state != stateOpen {
		return false
	}
	if sess.connectTimer != nil {
		sess.connectTimer.Stop()
		sess.connectTimer = nil
	}
	sess.enqueue(f) // too slow a client is noticed at the next packet
	if sess.sockets == nil {
		sess.sockets = map[string]*Socket{}
	}
	sess.sockets[ns.name] = s
	ns.sockets[s.id] = s
	ns.srv.stats.sockets.Add(1)
	return true
}

// remove takes a socket out of the namespace and its rooms. It reports false if that
// has been done before.
func (ns *Namespace) remove(s *Socket) bool {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if s.gone.Swap(true) {
		return false
	}
	delete(ns.sockets, s.id)
	for room := range s.rooms {
		ns.drop(s, room)
	}
	s.rooms = nil
	ns.srv.stats.sockets.Add(-1)
	return true
}

// drop takes a socket out of a room. The lock is held.
func (ns *Namespace) drop(s *Socket, room string) {
	members := ns.rooms[room]
	delete(members, s)
	if len(members) == 0 {
		delete(ns.rooms, room)
	}
}
