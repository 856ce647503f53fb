package socketio

import (
	"encoding/json"
	"errors"
)

// Adapter takes what a namespace says to many to the sockets of other servers, and acts here on what they say. Without
// one (Config.Adapter nil) a server is alone. Its methods must not block: whoever emits does not wait for other servers,
// and what cannot be carried is lost to their sockets. Cluster is one.
type Adapter interface {
	// Attach is called once for each namespace that a server has. detach ends it, when the server is closed.
	Attach(ns *Namespace) (detach func())
	// Broadcast sends an event, a JSON array that begins with its name, to the chosen sockets of all other servers.
	Broadcast(ns string, to Selection, event json.RawMessage)
	// Join and Leave bring them into rooms and out of them; Disconnect disconnects them.
	Join(ns string, who Selection, rooms []string)
	Leave(ns string, who Selection, rooms []string)
	Disconnect(ns string, who Selection, closeSession bool)
	// ServerEmit sends an event to the other servers themselves.
	ServerEmit(ns string, event json.RawMessage)
}

// Selection is a Target as other servers understand it.
type Selection struct {
	Rooms    []string // sockets that are in at least one; none: every socket
	Except   []string // and in none of these
	Volatile bool
}

// Local keeps what is done with the target to the sockets of this server.
func (t Target) Local() Target {
	t.local = true
	return t
}

// Join brings every socket of the target into rooms.
func (t Target) Join(rooms ...string) {
	for _, s := range t.Sockets() {
		s.Join(rooms...)
	}
	if a := t.adapter(); a != nil && len(rooms) > 0 {
		a.Join(t.ns.name, t.selection(), rooms)
	}
}

// Leave takes every socket of the target out of rooms.
func (t Target) Leave(rooms ...string) {
	for _, s := range t.Sockets() {
		s.Leave(rooms...)
	}
	if a := t.adapter(); a != nil && len(rooms) > 0 {
		a.Leave(t.ns.name, t.selection(), rooms)
	}
}

// adapter is what other servers are told by, nil if they are not to be: to rooms that are none, no server has sockets.
func (t Target) adapter() Adapter {
	if t.local || (!t.all && len(t.rooms) == 0) {
		return nil
	}
	return t.ns.srv.cfg.Adapter
}

func (t Target) selection() Selection {
	s := Selection{Except: t.except, Volatile: t.volatile}
	if !t.all {
		s.Rooms = t.rooms
	}
	return s
}

// selected is the Target here of what another server selects.
func (ns *Namespace) selected(s Selection) Target {
	return Target{ns: ns, local: true, all: len(s.Rooms) == 0, rooms: s.Rooms, except: s.Except, volatile: s.Volatile}
}

// hasRoom tells whether any socket here is in a room, or is it.
func (ns *Namespace) hasRoom(room string) bool {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return ns.sockets[room] != nil || len(ns.rooms[room]) > 0
}

// roomNames gives the rooms that sockets here are in, with those that each socket is by itself.
func (ns *Namespace) roomNames() []string {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	list := make([]string, 0, len(ns.rooms)+len(ns.sockets))
	for room := range ns.rooms {
		list = append(list, room)
	}
	for id := range ns.sockets {
		list = append(list, id)
	}
	return list
}

// ServerHandler acts on an event of another server. ack answers where the other waits for that. It must not block.
type ServerHandler func(args []json.RawMessage, ack func(answer any))

// OnServer sets what acts on an event that another server sends by ServerEmit; nil removes it.
func (ns *Namespace) OnServer(event string, h ServerHandler) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.onServer == nil {
		ns.onServer = map[string]ServerHandler{}
	}
	ns.onServer[event] = h
}

// ServerEmit sends an event to the other servers, not to sockets.
func (ns *Namespace) ServerEmit(event string, args ...any) error {
	raw, err := json.Marshal(append([]any{event}, args...))
	if err != nil {
		return err
	}
	if len(raw) > ns.srv.cfg.MaxBuffered {
		return ErrTooLarge
	}
	if a := ns.srv.cfg.Adapter; a != nil {
		a.ServerEmit(ns.name, raw)
	}
	return nil
}

// HearServer acts on an event of another server: a JSON array that begins with the event's name. It is for adapters.
func (ns *Namespace) HearServer(event json.RawMessage, ack func(answer any)) error {
	args, err := parseArray(event)
	var name string
	if err != nil || len(args) == 0 || json.Unmarshal(args[0], &name) != nil {
		return errors.New("socketio: a server's event is not a JSON array that begins with its name")
	}
	ns.mu.RLock()
	h := ns.onServer[name]
	ns.mu.RUnlock()
	if h != nil {
		h(args[1:], ack)
	}
	return nil
}
