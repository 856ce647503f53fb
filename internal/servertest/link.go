package servertest

import (
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Link is a way to a server that can be cut. What it does to a connection is what a network does: nothing arrives and
// nobody is told. Bytes that were under way arrive once it heals, as TCP has them sent again.
type Link struct {
	Addr string // to dial in the server's place

	t       testing.TB
	to      string
	netns   func(up bool) // of a link between network namespaces: has the cable in or out
	closed  chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed when what follows changes
	requests bool          // pass
	answers  bool          // pass
	delay    time.Duration
	conns    map[*net.TCPConn]struct{}
}

// NewLink makes a link to addr (host:port) that works, until the test ends.
func NewLink(t testing.TB, addr string) *Link {
	t.Helper()
	return newLink(t, addr, "127.0.0.1:0")
}

func newLink(t testing.TB, addr, at string) *Link {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{
		Addr: ln.Addr().String(), t: t, to: addr, closed: make(chan struct{}),
		changed: make(chan struct{}), requests: true, answers: true, conns: map[*net.TCPConn]struct{}{},
	}
	l.running.Go(func() { l.accept(ln) })
	t.Cleanup(func() {
		close(l.closed)
		_ = ln.Close()
		l.reset()
		l.running.Wait()
	})
	return l
}

// Through gives a URL that leads through the link to what it names.
func (l *Link) Through(raw string) string {
	l.t.Helper()
	u, err := url.Parse(raw)
	if err != nil || u.Host != l.to {
		l.t.Fatalf("a link to %s does not lead where the URL does", l.to)
	}
	u.Host = l.Addr
	return u.String()
}

// HostOf is what a URL's link leads to.
func HostOf(t testing.TB, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil || u.Port() == "" || strings.Contains(u.Host, ",") {
		t.Fatal("the server's URL names no single host and port that a link can lead to")
	}
	return u.Host
}

// Cut has nothing pass any more, in either direction. Connections stay, and new ones are taken but lead nowhere.
func (l *Link) Cut() {
	if l.netns != nil {
		l.netns(false)
		return
	}
	l.set(func() { l.requests, l.answers = false, false })
}

// CutAnswers lets what is asked arrive and be done, and holds back what is answered. A link between network namespaces
// cannot.
func (l *Link) CutAnswers() {
	if l.netns != nil {
		l.t.Fatal("a link between network namespaces is cut in both directions")
	}
	l.set(func() { l.answers = false })
}

// Heal undoes a cut and a delay.
func (l *Link) Heal() {
	if l.netns != nil {
		l.netns(true)
	}
	l.set(func() { l.requests, l.answers, l.delay = true, true, 0 })
}

// Delay has all bytes arrive later by d in each direction.
func (l *Link) Delay(d time.Duration) { l.set(func() { l.delay = d }) }

// Reset ends all connections at once, as a server does that dies. New ones are taken.
func (l *Link) Reset() { l.reset() }

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.SetLinger(0) // RST
		_ = c.Close()
	}
	clear(l.conns)
}

func (l *Link) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.serve(c.(*net.TCPConn)) })
	}
}

func (l *Link) serve(near *net.TCPConn) {
	if !l.hold(near) {
		return
	}
	defer l.drop(near)
	if !l.passes(true, time.Now()) { // a call to open a connection is a request
		return
	}
	c, err := net.DialTimeout("tcp", l.to, 10*time.Second)
	if err != nil {
		return
	}
	far := c.(*net.TCPConn)
	if !l.hold(far) {
		return
	}
	defer l.drop(far)
	var both sync.WaitGroup
	both.Go(func() { l.pass(far, near, true) })
	both.Go(func() { l.pass(near, far, false) })
	both.Wait()
}

// hold has a connection end with the link.
func (l *Link) hold(c *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		_ = c.Close()
		return false
	default:
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) drop(c *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = c.Close()
	delete(l.conns, c)
}

// bytesAt are bytes and when they came; none is the end.
type bytesAt struct {
	b  []byte
	at time.Time
}

// pass carries bytes in one direction, each delayed by itself.
func (l *Link) pass(to, from *net.TCPConn, request bool) {
	under := make(chan bytesAt, 256)
	l.running.Go(func() {
		defer close(under)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if n > 0 {
				select {
				case under <- bytesAt{b[:n], time.Now()}:
				case <-l.closed:
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					l.drop(to) // reset, or closed by the link
				}
				return
			}
		}
	})
	failed := false
	for x := range under {
		if failed || !l.passes(request, x.at) {
			failed = true
			continue
		}
		if _, err := to.Write(x.b); err != nil {
			l.drop(from)
			failed = true
		}
	}
	if !failed && l.passes(request, time.Now()) {
		_ = to.CloseWrite()
	}
}

// passes waits until what came at a time may arrive; false: the link is no more.
func (l *Link) passes(request bool, came time.Time) bool {
	for {
		l.mu.Lock()
		open, wait, changed := l.answers, time.Until(came.Add(l.delay)), l.changed
		if request {
			open = l.requests
		}
		l.mu.Unlock()
		if open && wait <= 0 {
			select {
			case <-l.closed:
				return false
			default:
				return true
			}
		}
		var timer <-chan time.Time
		if open {
			timer = time.After(wait)
		}
		select {
		case <-changed:
		case <-timer:
		case <-l.closed:
			return false
		}
	}
}
