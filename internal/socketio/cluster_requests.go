package socketio

import (
	"encoding/json"
	"sync"
	"time"
)

// hearRequest acts on what another server, or an emitter, asks of all servers.
func (c *Cluster) hearRequest(ns *Namespace, msg []byte) (acted bool, err error) {
	depth := ns.srv.cfg.MaxDepth + 4
	if len(msg) == 0 || msg[0] != '{' { // what holds a packet is packed, all else is JSON
		if msg, err = unpack(msg, depth); err != nil {
			return false, err
		}
	} else if !depthWithin(msg, depth) {
		return false, errPacked
	}
	var r request
	if json.Unmarshal(msg, &r) != nil || r.Type == nil || (r.RequestID != nil && len(*r.RequestID) > mostRequestID) {
		return false, errPacked
	}
	if r.UID == c.uid {
		return false, nil
	}
	switch *r.Type {
	case reqJoin, reqLeave:
		if c.cfg.FixedRooms {
			return false, errPacked
		}
		return true, c.moveAsked(ns, r)
	case reqDisconnect:
		if r.Opts == nil {
			return true, c.oneAsked(ns, r, func(s *Socket) { s.Disconnect(r.Close) })
		}
		ns.selected(r.Opts.selection()).Disconnect(r.Close)
	case reqServerEmit:
		return true, ns.HearServer(r.Data, c.serverAck(ns, r))
	case reqBroadcast:
		return true, c.broadcastAsked(ns, r)
	case reqSockets, reqAllRooms, reqFetch:
		return true, c.whoAsked(ns, r)
	default:
		return false, errPacked
	}
	return true, nil
}

func (c *Cluster) answer(ns *Namespace, v any) {
	if msg, err := json.Marshal(v); err == nil {
		c.publish(c.answers(ns.name), msg)
	}
}

func (c *Cluster) moveAsked(ns *Namespace, r request) error {
	move := (*Socket).Join
	if *r.Type == reqLeave {
		move = (*Socket).Leave
	}
	if r.Opts == nil {
		var room names
		if json.Unmarshal(append(append([]byte{'['}, r.Room...), ']'), &room) != nil {
			return errPacked
		}
		return c.oneAsked(ns, r, func(s *Socket) { move(s, room...) })
	}
	for _, s := range ns.selected(r.Opts.selection()).Sockets() {
		move(s, r.Rooms...)
	}
	return nil
}

// oneAsked does what is asked of one socket, by its id; who has it answers.
func (c *Cluster) oneAsked(ns *Namespace, r request, do func(*Socket)) error {
	s := ns.Socket(r.SID)
	if s == nil {
		return nil
	}
	do(s)
	if r.RequestID != nil {
		c.answer(ns, map[string]any{"requestId": *r.RequestID})
	}
	return nil
}

func (c *Cluster) serverAck(ns *Namespace, r request) func(any) {
	if r.RequestID == nil {
		return func(any) {}
	}
	var once sync.Once
	return func(v any) {
		once.Do(func() {
			c.answer(ns, map[string]any{"type": reqServerEmit, "requestId": *r.RequestID, "data": v})
		})
	}
}

// whoAsked answers which sockets or rooms there are. Of a socket others learn its id and its rooms.
func (c *Cluster) whoAsked(ns *Namespace, r request) error {
	if r.RequestID == nil {
		return errPacked
	}
	answer := map[string]any{"requestId": *r.RequestID}
	switch *r.Type {
	case reqAllRooms:
		answer["rooms"] = ns.roomNames()
	case reqSockets:
		ids := []string{}
		for _, s := range ns.selected(Selection{Rooms: r.Rooms}).Sockets() {
			ids = append(ids, s.id)
		}
		answer["sockets"] = ids
	case reqFetch:
		if r.Opts == nil {
			return errPacked
		}
		type socket struct {
			ID        string   `json:"id"`
			Handshake struct{} `json:"handshake"`
			Rooms     []string `json:"rooms"`
			Data      struct{} `json:"data"`
		}
		list := []socket{}
		for _, s := range ns.selected(r.Opts.selection()).Sockets() {
			list = append(list, socket{ID: s.id, Rooms: append(s.Rooms(), s.id)})
		}
		answer["sockets"] = list
	}
	c.answer(ns, answer)
	return nil
}

// broadcastAsked sends an event that its sender wants acknowledged: how many sockets here got it, and each one's answer.
func (c *Cluster) broadcastAsked(ns *Namespace, r request) error {
	if r.RequestID == nil || r.Opts == nil || r.Packet == nil || r.Packet.Type != sioEvent-'0' {
		return errPacked
	}
	args, err := parseArray(r.Packet.Data)
	var event string
	if err != nil || len(args) == 0 || json.Unmarshal(args[0], &event) != nil {
		return errPacked
	}
	within := ackWithin
	if f := r.Opts.Flags; f != nil && f.Timeout > 0 {
		within = time.Duration(min(f.Timeout, float64(ackWithinMax.Milliseconds()))) * time.Millisecond
	}
	rest := make([]any, 0, len(args)-1)
	for _, a := range args[1:] {
		rest = append(rest, a)
	}
	told := 0
	for _, s := range ns.selected(r.Opts.selection()).Sockets() {
		err := s.EmitFunc(within, func(answer []json.RawMessage, err error) {
			if err != nil {
				return
			}
			var first json.RawMessage
			if len(answer) > 0 {
				first = answer[0]
			}
			c.answer(ns, map[string]any{"type": respBroadcastAck, "requestId": *r.RequestID, "packet": first})
		}, event, rest...)
		if err == nil {
			told++
		}
	}
	c.answer(ns, map[string]any{"type": respBroadcastCount, "requestId": *r.RequestID, "clientCount": told})
	return nil
}
