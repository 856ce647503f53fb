package store

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

const deliveryPrefix = "dlv_"

// DeliveryIDs makes the ids of an inbox, which grow: dlv_ and a UUIDv7 (RFC 9562) whose time is the inbox's clock, so that an
// id tells its day, and whose next twelve bits count within the millisecond.
type DeliveryIDs struct {
	Now func() time.Time

	mu   sync.Mutex
	last int64
	seq  uint16
}

// Next gives an id and its time, in Unix milliseconds.
func (g *DeliveryIDs) Next() (id string, ms int64) {
	g.mu.Lock()
	ms = g.Now().UnixMilli()
	switch {
	case ms > g.last || ms < g.last-1000: // a clock that was set back far is believed
		g.last, g.seq = ms, 0
	case g.seq < 0xfff:
		g.seq++
	default:
		g.last, g.seq = g.last+1, 0
	}
	ms = g.last
	seq := g.seq
	g.mu.Unlock()

	var u [16]byte
	binary.BigEndian.PutUint64(u[:], uint64(ms)<<16|0x7000|uint64(seq))
	binary.BigEndian.PutUint64(u[8:], rand.Uint64()>>2|1<<63)
	return deliveryPrefix + hex.EncodeToString(u[:]), ms
}

// DeliveryTime reads the time out of an id.
func DeliveryTime(id string) (ms int64, ok bool) {
	s, ok := strings.CutPrefix(id, deliveryPrefix)
	if !ok || len(s) != 32 {
		return 0, false
	}
	var u [8]byte
	if _, err := hex.Decode(u[2:], []byte(s[:12])); err != nil {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(u[:])), true
}

// FirstDeliveryID is less than every id made at a time, and greater than those made before.
func FirstDeliveryID(ms int64) string {
	var u [8]byte
	binary.BigEndian.PutUint64(u[:], uint64(max(ms, 0))<<16)
	return deliveryPrefix + hex.EncodeToString(u[:6])
}
