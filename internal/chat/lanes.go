package chat

import (
	"bytes"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	handsMost = 1024     // deliveries in memory for the workers; what is beyond comes with the sweep
	handBytes = 64 << 20 // and the bytes of their bodies, but for one
	laneShare = 4        // the part of them that one lane may have, so that no client's trouble fills the hands
)

// lanes hold the deliveries that the workers have or will have. Those that speak of one number stand in one lane, and a
// lane is one worker's at a time: a client whose database hangs holds up no more than that, and deliveries of one
// client are sorted together and share its commits. Lanes with work are served in turn.
type lanes struct {
	most  int        // deliveries in hand
	ready chan *lane // with deliveries waiting, and nobody at work on them

	mu     sync.Mutex
	by     map[string]*lane
	inHand map[string]int       // by id, with the length of the body
	bytes  int                  // the sum of those
	later  map[string]time.Time // failed for now: not before
}

type lane struct {
	key     string
	waiting []store.Delivery
}

// room tells how an offer went.
type room int

const (
	taken    room = iota // or in hand already, or not to be tried yet
	laneFull             // this lane has plenty
	full                 // the workers have plenty
)

func newLanes(most int) *lanes {
	return &lanes{most: most, ready: make(chan *lane, most), by: map[string]*lane{}, inHand: map[string]int{}, later: map[string]time.Time{}}
}

func (l *lanes) offer(d store.Delivery, now time.Time) room {
	key := laneOf(d.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.inHand[d.ID]; ok {
		return taken
	}
	if at, ok := l.later[d.ID]; ok && now.Before(at) {
		return taken
	}
	if len(l.inHand) >= l.most || (l.bytes > 0 && l.bytes+len(d.Body) > handBytes) {
		return full
	}
	la := l.by[key]
	switch {
	case la == nil:
		la = &lane{key: key, waiting: []store.Delivery{d}}
		l.by[key] = la
		l.ready <- la // there are no more lanes than deliveries in hand
	case len(la.waiting) >= l.most/laneShare:
		return laneFull
	default:
		la.waiting = append(la.waiting, d)
	}
	l.inHand[d.ID] = len(d.Body)
	l.bytes += len(d.Body)
	return taken
}

// oldest is when the first delivery of a lane that is one's own was received.
func (l *lanes) oldest(la *lane) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return la.waiting[0].ReceivedAt
}

// take gives the first deliveries of a lane that came from ready.
func (l *lanes) take(la *lane, most int) []store.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(most, len(la.waiting))
	ds := la.waiting[:n:n]
	la.waiting = la.waiting[n:]
	return ds
}

// leave gives a lane back.
func (l *lanes) leave(la *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(la.waiting) == 0 {
		delete(l.by, la.key)
		return
	}
	l.ready <- la
}

// putOff has a delivery not taken again before a time; the zero time lifts that.
func (l *lanes) putOff(id string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.IsZero() {
		delete(l.later, id)
	} else {
		l.later[id] = until
	}
}

// drop lets go of deliveries whose end is recorded.
func (l *lanes) drop(ss []store.Settlement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range ss {
		l.bytes -= l.inHand[s.ID]
		delete(l.inHand, s.ID)
	}
}

func (l *lanes) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inHand)
}

var phoneNumberKey = []byte(`"phone_number_id":"`)

// laneOf is the first phone number id that a body names, found without reading the body as JSON: it decides only which
// deliveries are sorted together.
func laneOf(body []byte) string {
	_, rest, ok := bytes.Cut(body, phoneNumberKey)
	if !ok {
		return ""
	}
	n := bytes.IndexByte(rest, '"')
	if n < 0 || n > 64 {
		return ""
	}
	return string(rest[:n])
}

// hasten lifts all that was put off.
func (l *lanes) hasten() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.later)
}
