package socketio

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"time"
)

// Wire is what a Cluster speaks over: publish and subscribe by channels, as of a Redis server. Publish must not block, and
// may lose messages; hear is called for one message at a time, also for those of this Cluster.
type Wire interface {
	Publish(channel string, message []byte)
	Subscribe(channels, prefixes []string, hear func(channel string, message []byte)) (stop func())
}

// ClusterConfig is what a Cluster is made from.
type ClusterConfig struct {
	Wire Wire
	// Key begins the channels' names: servers and emitters with the same key are together. Default: "socket.io", that of
	// the JavaScript packages.
	Key string
	// FixedRooms keeps others from bringing sockets into rooms, or out of them: for servers whose rooms decide who may
	// hear what.
	FixedRooms bool
	// MaxMessage is the largest message acted upon. Default: 16 MiB.
	MaxMessage int
}

// Cluster is an Adapter in the format of the JavaScript packages @socket.io/redis-adapter 8 and @socket.io/redis-emitter 5,
// so that their servers and emitters reach sockets here, and this server theirs. Binary arguments are not supported:
// broadcasts with some are dropped.
type Cluster struct {
	cfg ClusterConfig
	uid string

	sent, heard, refused atomic.Uint64
}

// ClusterStats are a Cluster's counters.
type ClusterStats struct {
	Sent    uint64 // messages handed to the wire
	Heard   uint64 // messages of others acted upon
	Refused uint64 // messages that made no sense, were too large, or are not supported
}

// NewCluster makes an Adapter, for one server.
func NewCluster(cfg ClusterConfig) *Cluster {
	if cfg.Key == "" {
		cfg.Key = "socket.io"
	}
	if cfg.MaxMessage <= 0 {
		cfg.MaxMessage = 16 << 20
	}
	return &Cluster{cfg: cfg, uid: newID()}
}

// Stats returns the counters as they are now.
func (c *Cluster) Stats() ClusterStats {
	return ClusterStats{Sent: c.sent.Load(), Heard: c.heard.Load(), Refused: c.refused.Load()}
}

// Types of requests between servers.
const (
	reqSockets              = 0
	reqAllRooms             = 1
	reqJoin                 = 2
	reqLeave                = 3
	reqDisconnect           = 4
	reqFetch                = 5
	reqServerEmit           = 6
	reqBroadcast            = 7 // with acknowledgements
	respBroadcastCount      = 8
	respBroadcastAck        = 9
	mostRequestID           = 128
	ackWithin, ackWithinMax = 5 * time.Second, time.Minute
)

// options are a Selection on the wire.
type options struct {
	Rooms  names     `json:"rooms"`
	Except names     `json:"except"`
	Flags  *optFlags `json:"flags,omitempty"`
}

type optFlags struct {
	Volatile bool    `json:"volatile,omitempty"`
	Timeout  float64 `json:"timeout,omitempty"` // milliseconds
}

func wireOptions(s Selection) options {
	o := options{Rooms: append(names{}, s.Rooms...), Except: append(names{}, s.Except...), Flags: &optFlags{Volatile: s.Volatile}}
	return o
}

func (o options) selection() Selection {
	s := Selection{Rooms: o.Rooms, Except: o.Except}
	if o.Flags != nil {
		s.Volatile = o.Flags.Volatile
	}
	return s
}

// names of rooms. Others may have numbers among them.
type names []string

// UnmarshalJSON reads texts and numbers.
func (n *names) UnmarshalJSON(b []byte) error {
	var list []any
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	*n = (*n)[:0]
	for _, v := range list {
		switch v := v.(type) {
		case string:
			*n = append(*n, v)
		case float64:
			text, err := json.Marshal(v)
			if err != nil {
				return err
			}
			*n = append(*n, string(text))
		default:
			return errPacked
		}
	}
	return nil
}

// clusterPacket is a packet on the wire.
type clusterPacket struct {
	Type int             `json:"type"`
	Data json.RawMessage `json:"data"`
	NSP  *string         `json:"nsp,omitempty"`
}

// request is what a server asks of the others.
type request struct {
	UID       string          `json:"uid,omitempty"`
	RequestID *string         `json:"requestId,omitempty"`
	Type      *int            `json:"type"`
	Opts      *options        `json:"opts,omitempty"`
	Rooms     names           `json:"rooms,omitempty"`
	Close     bool            `json:"close,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Packet    *clusterPacket  `json:"packet,omitempty"`
	SID       string          `json:"sid,omitempty"`
	Room      json.RawMessage `json:"room,omitempty"`
}

func (c *Cluster) channel(ns string) string  { return c.cfg.Key + "#" + ns + "#" }
func (c *Cluster) requests(ns string) string { return c.cfg.Key + "-request#" + ns + "#" }
func (c *Cluster) answers(ns string) string  { return c.cfg.Key + "-response#" + ns + "#" }

// Broadcast implements Adapter.
func (c *Cluster) Broadcast(ns string, to Selection, event json.RawMessage) {
	j, err := json.Marshal([]any{c.uid, clusterPacket{Type: sioEvent - '0', Data: event, NSP: &ns}, wireOptions(to)})
	if err != nil {
		return // its parts were encoded before
	}
	msg, err := pack(j)
	if err != nil {
		return
	}
	channel := c.channel(ns)
	if len(to.Rooms) == 1 {
		channel += to.Rooms[0] + "#"
	}
	c.publish(channel, msg)
}

// Join implements Adapter.
func (c *Cluster) Join(ns string, who Selection, rooms []string) {
	c.ask(ns, reqJoin, request{Rooms: rooms}, who)
}

// Leave implements Adapter.
func (c *Cluster) Leave(ns string, who Selection, rooms []string) {
	c.ask(ns, reqLeave, request{Rooms: rooms}, who)
}

// Disconnect implements Adapter.
func (c *Cluster) Disconnect(ns string, who Selection, closeSession bool) {
	c.ask(ns, reqDisconnect, request{Close: closeSession}, who)
}

// ServerEmit implements Adapter.
func (c *Cluster) ServerEmit(ns string, event json.RawMessage) {
	c.post(ns, reqServerEmit, request{Data: event})
}

func (c *Cluster) ask(ns string, typ int, r request, who Selection) {
	o := wireOptions(who)
	o.Flags = nil
	r.Opts = &o
	c.post(ns, typ, r)
}

func (c *Cluster) post(ns string, typ int, r request) {
	r.UID, r.Type = c.uid, &typ
	if msg, err := json.Marshal(r); err == nil {
		c.publish(c.requests(ns), msg)
	}
}

func (c *Cluster) publish(channel string, msg []byte) {
	c.sent.Add(1)
	c.cfg.Wire.Publish(channel, msg)
}

// Attach implements Adapter.
func (c *Cluster) Attach(ns *Namespace) (detach func()) {
	prefix, requests := c.channel(ns.name), c.requests(ns.name)
	return c.cfg.Wire.Subscribe([]string{requests}, []string{prefix}, func(channel string, msg []byte) {
		if len(msg) > c.cfg.MaxMessage {
			c.refused.Add(1)
			return
		}
		var acted bool
		var err error
		if channel == requests {
			acted, err = c.hearRequest(ns, msg)
		} else {
			acted, err = c.hearBroadcast(ns, strings.TrimSuffix(strings.TrimPrefix(channel, prefix), "#"), msg)
		}
		switch {
		case err != nil:
			c.refused.Add(1)
		case acted:
			c.heard.Add(1)
		}
	})
}

// hearBroadcast sends another server's event, to one room where the channel names it, to the sockets here.
func (c *Cluster) hearBroadcast(ns *Namespace, room string, msg []byte) (acted bool, err error) {
	if room != "" && !ns.hasRoom(room) {
		return false, nil
	}
	j, err := unpack(msg, ns.srv.cfg.MaxDepth+4)
	if err != nil {
		return false, err
	}
	var parts []json.RawMessage
	var uid string
	var p clusterPacket
	var o options
	if json.Unmarshal(j, &parts) != nil || len(parts) < 3 || json.Unmarshal(parts[0], &uid) != nil {
		return false, errPacked
	}
	if uid == c.uid {
		return false, nil
	}
	if json.Unmarshal(parts[1], &p) != nil || json.Unmarshal(parts[2], &o) != nil || p.Type != sioEvent-'0' {
		return false, errPacked
	}
	if nsp := p.NSP; (nsp == nil && ns.name != "/") || (nsp != nil && *nsp != ns.name) {
		return false, nil
	}
	return true, ns.selected(o.selection()).Raw(p.Data)
}
