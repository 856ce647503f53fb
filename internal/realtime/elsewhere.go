package realtime

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/id"
)

// Who looks at a conversation on other nodes. Each node says of its own when that changes, and again every while; of a node
// that is silent nobody is there any more.
const (
	presenceTopic = "presence"
	sayAgain      = 10 * time.Second
	believe       = 25 * time.Second
	sayMost       = 200     // conversations of one message
	roomsMost     = 50_000  // conversations that other nodes' people are known of
	nameMost      = 512     // bytes of anything that somebody is called
	saidMost      = 1 << 20 // bytes of a message
)

// elsewhere is what is known of other nodes.
type elsewhere struct {
	hub  *Hub
	bus  bus.Bus
	self string
	soon chan struct{} // say all again

	mu    sync.Mutex
	here  map[string]json.RawMessage           // what this node said last, by room
	there map[string]map[string]*seenElsewhere // by room and node
}

// seenElsewhere is who looks at a conversation on another node.
type seenElsewhere struct {
	raw   json.RawMessage
	list  []present
	until time.Time
}

// presenceSaid is what nodes say.
type presenceSaid struct {
	Node  string                     `json:"node"`
	Rooms map[string]json.RawMessage `json:"rooms,omitempty"` // who is in each; all of them that changed
	Hello bool                       `json:"hello,omitempty"` // and let everybody say all again
}

func newElsewhere(h *Hub, b bus.Bus) *elsewhere {
	return &elsewhere{hub: h, bus: b, self: id.New("hub"), soon: make(chan struct{}, 1),
		here: map[string]json.RawMessage{}, there: map[string]map[string]*seenElsewhere{}}
}

func (e *elsewhere) say(s presenceSaid) {
	s.Node = e.self
	if b, err := json.Marshal(s); err == nil {
		e.bus.Publish(presenceTopic, b)
	}
}

// changed says who is in a room now. list is called so that of two changes the later is said later.
func (e *elsewhere) changed(room string, list func() []present) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := list()
	raw, err := json.Marshal(now)
	if err != nil {
		return
	}
	if len(now) == 0 {
		delete(e.here, room)
	} else {
		e.here[room] = raw
	}
	e.say(presenceSaid{Rooms: map[string]json.RawMessage{room: raw}})
}

// in gives who is in a room on other nodes.
func (e *elsewhere) in(room string) (list []present) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.there[room] {
		if time.Now().Before(s.until) {
			list = append(list, s.list...)
		}
	}
	return list
}

// gap lets everybody say all again.
func (e *elsewhere) gap() {
	e.say(presenceSaid{Hello: true})
	e.again()
}

func (e *elsewhere) again() {
	select {
	case e.soon <- struct{}{}:
	default:
	}
}

func (e *elsewhere) run() {
	e.say(presenceSaid{Hello: true})
	tick := time.NewTicker(sayAgain)
	defer tick.Stop()
	expire := time.NewTicker(believe / 10)
	defer expire.Stop()
	for {
		select {
		case <-e.hub.stop.Done():
			return
		case <-expire.C:
			e.forget()
			continue
		case <-e.soon:
			select { // not all nodes at once
			case <-e.hub.stop.Done():
				return
			case <-time.After(rand.N(100 * time.Millisecond)):
			}
		case <-tick.C:
		}
		e.sayAll()
	}
}

func (e *elsewhere) sayAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	part := map[string]json.RawMessage{}
	size := 0
	for room, raw := range e.here {
		part[room] = raw
		if size += len(room) + len(raw); len(part) == sayMost || size > saidMost/4 {
			e.say(presenceSaid{Rooms: part})
			part, size = map[string]json.RawMessage{}, 0
		}
	}
	if len(part) > 0 {
		e.say(presenceSaid{Rooms: part})
	}
}

// hear takes in what another node says, as far as it makes sense.
func (e *elsewhere) hear(data []byte) {
	var s presenceSaid
	if len(data) > saidMost || json.Unmarshal(data, &s) != nil || s.Node == "" || len(s.Node) > nameMost {
		return
	}
	if s.Hello {
		e.again()
	}
	var changed []string
	e.mu.Lock()
	for room, raw := range s.Rooms {
		if e.take(room, s.Node, raw) {
			changed = append(changed, room)
		}
	}
	e.mu.Unlock()
	e.tell(changed)
}

// take notes who is in a room on a node, and whether that is news; mu is held.
func (e *elsewhere) take(room, node string, raw json.RawMessage) (changed bool) {
	old := e.there[room][node]
	if old != nil && bytes.Equal(old.raw, raw) {
		old.until = time.Now().Add(believe)
		return false
	}
	var list []present
	if _, _, ok := strings.Cut(room, "/"); !ok || len(room) > nameMost || json.Unmarshal(raw, &list) != nil || len(list) > maxHere {
		return false
	}
	for _, p := range list {
		if len(p.ID) > nameMost || (p.Name != nil && len(*p.Name) > nameMost) || (p.UserID != nil && len(*p.UserID) > nameMost) {
			return false
		}
	}
	if len(list) == 0 {
		e.drop(room, node)
		return old != nil
	}
	if e.there[room] == nil {
		if len(e.there) >= roomsMost {
			return false
		}
		e.there[room] = map[string]*seenElsewhere{}
	}
	e.there[room][node] = &seenElsewhere{raw: raw, list: list, until: time.Now().Add(believe)}
	return true
}

func (e *elsewhere) drop(room, node string) {
	if delete(e.there[room], node); len(e.there[room]) == 0 {
		delete(e.there, room)
	}
}

// forget gives up those whose nodes are silent.
func (e *elsewhere) forget() {
	changed := map[string]bool{}
	now := time.Now()
	e.mu.Lock()
	for room, nodes := range e.there {
		for node, s := range nodes {
			if now.After(s.until) {
				e.drop(room, node)
				changed[room] = true
			}
		}
	}
	e.mu.Unlock()
	var rooms []string
	for room := range maps.Keys(changed) {
		rooms = append(rooms, room)
	}
	e.tell(rooms)
}

// tell tells the sockets here.
func (e *elsewhere) tell(rooms []string) {
	for _, room := range rooms {
		if code, conversation, ok := strings.Cut(room, "/"); ok && len(e.hub.ns.To(room).Sockets()) > 0 {
			e.hub.emitPresence(code, conversation)
		}
	}
}
