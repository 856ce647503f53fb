package sqlite

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

const deliveryPrefix = "dlv_"

// deliveryIDs makes ids that grow: dlv_ and a UUIDv7 (RFC 9562) whose time is the inbox's clock, so that an id
// tells its day, and whose next twelve bits count within the millisecond.
type deliveryIDs struct {
	now func() time.Time

	mu   sync.Mutex
	last int64
	seq  uint16
}

// next gives an id and its time.
func (g *deliveryIDs) next() (id string, ms int64) {
	g.mu.Lock()
	ms = g.now().UnixMilli()
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

// deliveryTime reads the time out of an id.
func deliveryTime(id string) (ms int64, ok bool) {
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

// firstIDAt is less than every id made at a time, and greater than those made before.
func firstIDAt(ms int64) string {
	var u [8]byte
	binary.BigEndian.PutUint64(u[:], uint64(max(ms, 0))<<16)
	return deliveryPrefix + hex.EncodeToString(u[:6])
}

// dayOf names the UTC day of a time.
func dayOf(ms int64) string { return msTime(ms).Format(dayLayout) }
