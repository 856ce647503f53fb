package mongo

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// fault stands between a process and its server. It counts the writes, and cuts the process off at one of them.
type fault struct {
	mu     sync.Mutex
	armed  bool
	writes int // seen since it was armed
	at     int // the one at which it acts
	how    cut
	dead   bool

	stalled chan struct{} // closed when the write is held up
	resume  chan struct{} // closed when it may go on
}

type cut int

const (
	none   cut = iota
	before     // the write does not reach the server, and nothing does from then on
	after      // it does, and its answer is lost, as all from then on
	stall      // it is held up, and reaches the server when somebody lets it
)

var errCut = errors.New("cut")

func (f *fault) arm(at int, how cut) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.writes, f.at, f.how = true, 0, at, how
	f.stalled, f.resume = make(chan struct{}), make(chan struct{})
}

func (f *fault) seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

func (f *fault) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: c, f: f}, nil
}

type faultyConn struct {
	net.Conn
	f *fault
}

// Write sees one message, as the driver writes them.
func (c *faultyConn) Write(b []byte) (int, error) {
	f := c.f
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return 0, errCut
	}
	if !f.armed || !isWrite(b) {
		f.mu.Unlock()
		return c.Conn.Write(b)
	}
	n := f.writes
	f.writes++
	if n != f.at {
		f.mu.Unlock()
		return c.Conn.Write(b)
	}
	switch f.how {
	case before:
		f.dead = true
		f.mu.Unlock()
		return 0, errCut
	case after:
		f.dead = true
		f.mu.Unlock()
		if n, err := c.Conn.Write(b); err != nil {
			return n, err
		}
		_, _ = c.Conn.Read(make([]byte, 1<<16)) // the server has done it
		return len(b), nil
	case stall:
		f.mu.Unlock()
		close(f.stalled)
		<-f.resume
	default:
		f.mu.Unlock()
	}
	return c.Conn.Write(b)
}

func (c *faultyConn) Read(b []byte) (int, error) {
	c.f.mu.Lock()
	dead := c.f.dead
	c.f.mu.Unlock()
	if dead {
		return 0, errCut
	}
	return c.Conn.Read(b)
}

// isWrite tells whether a message is a command that changes jobs. (What counts them, and indexes, is not of interest.)
func isWrite(b []byte) bool {
	const opMsg = 2013
	if len(b) < 26 || binary.LittleEndian.Uint32(b[12:]) != opMsg || b[20] != 0 {
		return false
	}
	es, err := bson.Raw(b[21:]).Elements()
	if err != nil || len(es) == 0 {
		var size = int(binary.LittleEndian.Uint32(b[21:]))
		if es, err = bson.Raw(b[21 : 21+size]).Elements(); err != nil || len(es) == 0 {
			return false
		}
	}
	switch es[0].Key() {
	case "insert", "update", "delete", "findAndModify":
		return es[0].Value().StringValue() != jobCounts
	}
	return false
}

// faulty opens the queue of a database as another process would, with a fault between them.
func faulty(t testing.TB, url, database string, now func() time.Time) (*Queue, *fault) {
	t.Helper()
	f := &fault{}
	cs := NewClusters(Config{Home: url, Dialer: f.dial, Timeout: 5 * time.Second})
	t.Cleanup(func() { _ = cs.Close(context.WithoutCancel(t.Context())) })
	return openTestQueue(t, cs, url, database, now), f
}

func openTestQueue(t testing.TB, cs *Clusters, url, database string, now func() time.Time) *Queue {
	t.Helper()
	db, err := cs.Open(t.Context(), url, database, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	q, err := OpenQueue(t.Context(), db, now)
	if err != nil {
		t.Fatal(err)
	}
	return q
}
