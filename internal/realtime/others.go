package realtime

import (
	"bytes"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/bus"
)

// What hubs tell each other. Of news only whose they are: each hub reads them itself.
const (
	pokeTopic  = "poke"
	pokesEvery = 10 * time.Millisecond // what comes within is told at once
	pokesMost  = 500                   // codes of one message
)

// others are the hubs of other nodes.
type others struct {
	hub  *Hub
	bus  bus.Bus
	stop []func()

	mu    sync.Mutex
	codes map[string]bool // clients that have news, untold
	some  chan struct{}

	presence *elsewhere
}

// joinOthers lets a hub hear other nodes' and tell them.
func (h *Hub) joinOthers(b bus.Bus) *others {
	o := &others{hub: h, bus: b, codes: map[string]bool{}, some: make(chan struct{}, 1)}
	o.presence = newElsewhere(h, b)
	o.stop = append(o.stop, b.Subscribe(pokeTopic, o.hearPokes), b.Subscribe(presenceTopic, o.presence.hear))
	b.OnGap(h.pokeAll)
	b.OnGap(o.presence.gap)
	h.wg.Go(o.tellPokes)
	h.wg.Go(o.presence.run)
	return o
}

func (o *others) leave() {
	for _, stop := range o.stop {
		stop()
	}
}

// poke says to other nodes that a client has news, soon.
func (o *others) poke(code string) {
	o.mu.Lock()
	o.codes[code] = true
	o.mu.Unlock()
	select {
	case o.some <- struct{}{}:
	default:
	}
}

func (o *others) tellPokes() {
	for {
		select {
		case <-o.hub.stop.Done():
			return
		case <-o.some:
		}
		o.mu.Lock()
		codes := o.codes
		o.codes = map[string]bool{}
		o.mu.Unlock()
		var msg []byte
		n := 0
		for code := range codes {
			msg = append(append(msg, code...), '\n')
			if n++; n%pokesMost == 0 {
				o.bus.Publish(pokeTopic, msg)
				msg = nil
			}
		}
		if len(msg) > 0 {
			o.bus.Publish(pokeTopic, msg)
		}
		select {
		case <-o.hub.stop.Done():
			return
		case <-time.After(pokesEvery):
		}
	}
}

func (o *others) hearPokes(data []byte) {
	for code := range bytes.SplitSeq(data, []byte{'\n'}) {
		o.hub.poke(string(code))
	}
}

// pokeAll has every client's news looked at: some of what was said is missed.
func (h *Hub) pokeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.tellers {
		t.wake()
	}
}
