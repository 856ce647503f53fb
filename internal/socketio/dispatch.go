package socketio

import (
	"encoding/json"
	"net/url"
	"sync/atomic"
)

// dispatch acts on one Socket.IO packet. rx is held. An error means that no conforming
// client would have sent it.
func (s *session) dispatch(data []byte) error {
	p, err := parsePacket(data, packetLimits{s.srv.cfg.MaxNamespace, s.srv.cfg.MaxDepth})
	if err != nil {
		return err
	}
	s.mu.Lock()
	sock, known := s.sockets[p.namespace]
	s.mu.Unlock()
	connected := sock != nil && sock.Connected()

	switch {
	case p.typ == sioConnect:
		if connected {
			return errMalformed
		}
		s.connect(p.namespace, p.auth)
	case !known:
		return errMalformed
	case !connected: // its packets may have crossed with our DISCONNECT
	case p.typ == sioDisconnect:
		if sock.ns.remove(sock) {
			sock.finish(ReasonClientDisconnect)
		}
	case p.typ == sioEvent:
		sock.event(p)
	case p.typ == sioAck:
		if a := sock.takeAck(int64(p.id)); a != nil {
			a.done(p.args, nil)
		}
	}
	return nil
}

// connect lets the client into a namespace, or tells it why not.
func (s *session) connect(name string, auth json.RawMessage) {
	ns := s.srv.namespace(name)
	if ns == nil {
		s.reject(name, &ConnectError{Message: "Invalid namespace"})
		return
	}
	data, refused := ns.admit(s.ctx, s.handshake(auth))
	if refused != nil {
		s.reject(name, refused)
		return
	}
	sock := &Socket{id: newID(), sess: s, ns: ns, data: data}
	if !ns.add(sock) {
		return
	}
	ns.mu.RLock()
	onConnect := ns.onConnect
	ns.mu.RUnlock()
	for _, f := range onConnect {
		f(sock)
	}
}

func (s *session) reject(namespace string, reason *ConnectError) {
	s.srv.stats.connectErrors.Add(1)
	f, err := encodePacket(sioConnectError, namespace, -1, reason)
	if err != nil {
		s.srv.cfg.Logger.Error("socketio: connect error cannot be encoded", "error", err)
		f, _ = encodePacket(sioConnectError, namespace, -1, &ConnectError{Message: reason.Message})
	}
	s.send(f)
}

func (s *session) handshake(auth json.RawMessage) *Handshake {
	query, _ := url.ParseQuery(s.rawQuery)
	return &Handshake{
		Auth:       auth,
		Header:     s.header,
		Query:      query,
		Host:       s.host,
		Origin:     s.header.Get("Origin"),
		RemoteAddr: s.remote,
		Addr:       s.addr,
	}
}

// disconnect tells the client that all its sockets are disconnected, and closes.
func (s *session) disconnect() {
	s.mu.Lock()
	slow := false
	for name, sock := range s.sockets {
		if sock != nil && sock.Connected() {
			slow = s.enqueue(disconnectFrame(name)) || slow
		}
	}
	// Before mu is given up: a client that hears this at once may be the first to close.
	if slow {
		s.closeHeld(ReasonSlowClient, abrupt)
		return
	}
	s.closeHeld(ReasonForcedClose, polite)
}

// later runs f in a goroutine of its own, as soon as no handler of the client runs.
func (s *session) later(f func()) {
	s.mu.Lock()
	tracked := s.state == stateOpen // else Server.Close may have stopped waiting
	if tracked {
		s.srv.wg.Add(1)
	}
	s.mu.Unlock()
	go func() {
		if tracked {
			defer s.srv.wg.Done()
		}
		s.rx.Lock()
		defer s.rx.Unlock()
		f()
	}()
}

// event hands an event to its handler.
func (s *Socket) event(p packet) {
	s.mu.Lock()
	h := s.handlers[p.event]
	s.mu.Unlock()
	if h != nil {
		h(s.sess.ctx, p.args, s.acker(p))
	}
}

// acker returns the function that acknowledges the event, once.
func (s *Socket) acker(p packet) func(args ...any) {
	if !p.hasID {
		return func(...any) {}
	}
	var used atomic.Bool
	return func(args ...any) {
		if used.Swap(true) || !s.Connected() {
			return
		}
		if args == nil {
			args = []any{}
		}
		f, err := encodePacket(sioAck, s.ns.name, int64(p.id), args)
		if err == nil && f.size() > s.ns.srv.cfg.MaxBuffered {
			err = ErrTooLarge
		}
		if err != nil {
			s.ns.srv.cfg.Logger.Error("socketio: acknowledgement cannot be encoded", "error", err)
			return
		}
		s.sess.send(f)
	}
}
