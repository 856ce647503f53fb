package bus

import (
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// Memory joins nodes of one process.
type Memory struct {
	log *slog.Logger

	mu    sync.Mutex
	nodes map[*memoryNode]bool
}

// NewMemory makes a bus without nodes.
func NewMemory(log *slog.Logger) *Memory { return &Memory{log: log, nodes: map[*memoryNode]bool{}} }

// Node joins the bus.
func (m *Memory) Node() Bus {
	n := &memoryNode{all: m}
	n.ears = newEars(m.log)
	n.node = newNode(memoryWire{n}, "ecod", func() { n.ears.unheard.Add(1) })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[n] = true
	return n
}

type memoryNode struct {
	*node
	all       *Memory
	ears      *ears
	published atomic.Uint64
}

type memoryWire struct{ n *memoryNode }

// Publish implements Wire.
func (w memoryWire) Publish(channel string, data []byte) {
	msg := message{channel, data}
	w.n.all.mu.Lock()
	defer w.n.all.mu.Unlock()
	if len(data) > largest || !w.n.all.nodes[w.n] { // or it has left
		return
	}
	w.n.published.Add(1)
	for n := range w.n.all.nodes {
		n.ears.tell("", msg)
		_, prefixes := n.ears.names()
		for p := range prefixes {
			if strings.HasPrefix(channel, p) {
				n.ears.tell(p, msg)
			}
		}
	}
}

// Subscribe implements Wire.
func (w memoryWire) Subscribe(channels, prefixes []string, hear func(string, []byte)) (stop func()) {
	return w.n.ears.add(channels, prefixes, hear)
}

// Shared implements Bus.
func (n *memoryNode) Shared() bool {
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	return len(n.all.nodes) > 1
}

// Healthy implements Bus.
func (n *memoryNode) Healthy() error { return nil }

// Stats implements Bus.
func (n *memoryNode) Stats() Stats {
	return Stats{Published: n.published.Load(), Heard: n.ears.heard.Load(), Unheard: n.ears.unheard.Load()}
}

// Close implements Bus.
func (n *memoryNode) Close() error {
	n.all.mu.Lock()
	delete(n.all.nodes, n)
	n.all.mu.Unlock()
	n.ears.close()
	return nil
}
