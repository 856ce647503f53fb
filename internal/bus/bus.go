package bus

import (
	"crypto/rand"
	"sync"
)

// Bus is one node's place on the bus.
type Bus interface {
	// Publish tells the other nodes. It never blocks; what cannot be carried now is dropped.
	Publish(topic string, data []byte)
	// Subscribe hears what other nodes publish on a topic, one call at a time, each node's in order. Whoever is too far
	// behind misses some. After stop at most the call under way ends.
	Subscribe(topic string, hear func(data []byte)) (stop func())
	// OnGap adds a function that is called when news of others may have been missed: time to look at everything. It must
	// not block.
	OnGap(f func())
	// Wire gives the channels as they are, without prefix and with what this node itself publishes, for protocols that
	// others speak too.
	Wire() Wire
	// Shared tells whether there can be other nodes.
	Shared() bool
	// Healthy tells what keeps news from travelling now.
	Healthy() error
	Stats() Stats
	Close() error
}

// Wire publishes to channels that are known by their whole names.
type Wire interface {
	// Publish is Bus.Publish.
	Publish(channel string, data []byte)
	// Subscribe hears of these channels, and of those that begin with one of the prefixes. See Bus.Subscribe.
	Subscribe(channels, prefixes []string, hear func(channel string, data []byte)) (stop func())
}

// Stats is a snapshot of a bus's counters, of its wire: they count up from its start.
type Stats struct {
	Published uint64 // messages handed over
	Heard     uint64 // messages that came in, once for each subscription
	Unsent    uint64 // dropped on their way out
	Unheard   uint64 // dropped because a subscriber was behind, or made no sense
	Gaps      uint64 // times that news may have been missed
}

// Limits of what waits, for the wire and for each subscriber.
const (
	mostWaiting  = 4096
	bytesWaiting = 32 << 20
	largest      = 16 << 20 // of one message
)

// gapTopic is where a node says that it could not say everything.
const gapTopic = "gap"

const nodeLen = 12 // bytes of a node's id, before each message

// node makes a Bus of a Wire: each message begins with the id of its node, so that a node does not hear itself.
type node struct {
	wire   Wire
	prefix string
	id     [nodeLen]byte
	lost   func() // a message came that is none

	mu   sync.Mutex
	gaps []func()
}

func newNode(wire Wire, prefix string, lost func()) *node {
	n := &node{wire: wire, prefix: prefix + ":", lost: lost}
	_, _ = rand.Read(n.id[:]) // never fails
	return n
}

// Publish implements Bus.
func (n *node) Publish(topic string, data []byte) {
	n.wire.Publish(n.prefix+topic, append(append(make([]byte, 0, nodeLen+len(data)), n.id[:]...), data...))
}

// Subscribe implements Bus.
func (n *node) Subscribe(topic string, hear func(data []byte)) (stop func()) {
	return n.wire.Subscribe([]string{n.prefix + topic}, nil, func(_ string, data []byte) {
		switch {
		case len(data) < nodeLen:
			n.lost()
		case [nodeLen]byte(data[:nodeLen]) != n.id:
			hear(data[nodeLen:])
		}
	})
}

// OnGap implements Bus.
func (n *node) OnGap(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gaps = append(n.gaps, f)
}

// Wire implements Bus.
func (n *node) Wire() Wire { return n.wire }

func (n *node) gap() {
	n.mu.Lock()
	gaps := n.gaps
	n.mu.Unlock()
	for _, f := range gaps {
		f()
	}
}
