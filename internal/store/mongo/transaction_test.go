package mongo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/ecodrix/ecod/internal/store"
)

// txConn answers the end of a transaction itself, for a server that takes everything but that, and counts.
type txConn struct {
	net.Conn
	seen   *ended
	answer []byte
}

type ended struct{ within, committed, aborted atomic.Int64 }

func (c *txConn) Write(b []byte) (int, error) {
	end := func(what string) bool { return bytes.Contains(b, []byte("\x10"+what+"\x00\x01\x00\x00\x00")) }
	switch {
	case end("commitTransaction"):
		c.seen.committed.Add(1)
	case end("abortTransaction"):
		c.seen.aborted.Add(1)
	default:
		if bytes.Contains(b, []byte("\x08autocommit\x00\x00")) {
			c.seen.within.Add(1)
		}
		return c.Conn.Write(b)
	}
	ok, err := bson.Marshal(bson.D{{Key: "ok", Value: 1.0}})
	if err != nil {
		return 0, err
	}
	const opMsg = 2013
	a := binary.LittleEndian.AppendUint32(nil, uint32(16+5+len(ok))) //nolint:gosec // a few bytes
	a = append(a, 0, 0, 0, 0)
	a = append(a, b[4:8]...) // answers this request
	a = binary.LittleEndian.AppendUint32(a, opMsg)
	c.answer = append(append(a, 0, 0, 0, 0, 0), ok...)
	return len(b), nil
}

func (c *txConn) Read(b []byte) (int, error) {
	if len(c.answer) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

// A commit of several writes is one transaction where the deployment has them: all its commands are within it, then it is
// committed; one whose condition does not hold is aborted. That nothing is left of that only a server with transactions shows
// (TestContractAtomic).
func TestCommitIsATransaction(t *testing.T) {
	var seen ended
	c, url, prefix := testClusters(t, Config{Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &txConn{Conn: c, seen: &seen}, err
	}})
	db := openerOf(c, url, prefix)(t, []store.Schema{{Kind: "plain"}, {Kind: "news", Sequenced: true}}).(*DB)
	able := &db.cl.able
	able.mu.Lock()
	able.known, able.tx = true, true
	able.mu.Unlock()
	w := func(act store.Action, kind, id string, v int64) store.Write {
		return store.Write{Action: act, Kind: kind, ID: id, IfVersion: v, Doc: []byte(`{}`)}
	}
	ctx := t.Context()
	for i, ws := range [][]store.Write{
		{w(store.Insert, "plain", "a", 0), w(store.Insert, "plain", "b", 0), w(store.Insert, "news", "n", 0)},
		{w(store.Check, "plain", "a", 1), w(store.Put, "plain", "b", 1), w(store.Ensure, "plain", "b", 0), w(store.Put, "plain", "c", 0)},
		{w(store.Check, "plain", "absent", 0), w(store.Delete, "plain", "a", 1), w(store.Delete, "plain", "c", 0)},
	} {
		before := seen.within.Load()
		if err := db.Commit(ctx, ws...); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if n := seen.committed.Load(); n != int64(i+1) || seen.aborted.Load() != 0 || seen.within.Load()-before < int64(len(ws)) {
			t.Errorf("%d: %d commands within, %d committed, %d aborted", i, seen.within.Load()-before, n, seen.aborted.Load())
		}
	}
	b, err := db.Get(ctx, "plain", "b")
	if n, cerr := db.Count(ctx, store.Query{Kind: "plain"}); err != nil || len(b) != 1 || b[0].Version != 2 || cerr != nil || n != 1 {
		t.Errorf("%+v, %v; %d records, %v", b, err, n, cerr)
	}
	if last, err := db.LastSeq(ctx); err != nil || last != 1 {
		t.Errorf("numbered up to %d, %v", last, err)
	}
	if err := db.Commit(ctx, w(store.Put, "plain", "b", 7), w(store.Insert, "plain", "d", 0)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a condition that does not hold: %v", err)
	}
	if seen.committed.Load() != 3 || seen.aborted.Load() != 1 {
		t.Errorf("%d committed, %d aborted", seen.committed.Load(), seen.aborted.Load())
	}
	if err := db.Commit(ctx, w(store.Insert, "plain", "b", 0), w(store.Insert, "plain", "d", 0)); !errors.Is(err, store.ErrDuplicate) || seen.aborted.Load() != 2 {
		t.Errorf("an id that is taken: %v, %d aborted", err, seen.aborted.Load())
	}
}
