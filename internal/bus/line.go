package bus

import "sync"

// message is one that waits.
type message struct {
	channel string
	data    []byte
}

// line holds messages that wait for one who takes them: so many and no more.
type line struct {
	mu     sync.Mutex
	wait   []message
	bytes  int
	closed bool
	some   chan struct{} // of one: there may be something to take, or the line is closed
}

func newLine() *line { return &line{some: make(chan struct{}, 1)} }

// put adds a message; false if there is no room for it.
func (l *line) put(m message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.wait) >= mostWaiting || l.bytes+len(m.data) > bytesWaiting {
		return false
	}
	l.wait = append(l.wait, m)
	l.bytes += len(m.data)
	l.notify()
	return true
}

func (l *line) notify() {
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// take gives everything that waits; more is false once the line is closed.
func (l *line) take() (all []message, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all = l.wait
	l.wait, l.bytes = nil, 0
	return all, !l.closed
}

// close drops what waits.
func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.wait, l.bytes = true, nil, 0
	l.notify()
}
