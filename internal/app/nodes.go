package app

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/store"
)

// What nodes tell each other, beside what realtime has: to look at once at what they otherwise look at every few seconds.
const (
	readyTopic    = "ready"    // jobs may be ready
	askedTopic    = "asked"    // running jobs are to be cancelled
	restsTopic    = "rests"    // work was paused or resumed
	accountsTopic = "accounts" // the accounts of these clients were written
)

const accountsMost = 500 // codes of one message

// Bells: what rings meanwhile rings once.
const (
	tellAgain  = 10 * time.Millisecond  // between two tellings of the same
	heedAgain  = 20 * time.Millisecond  // between two looks because of what was told
	heedSeldom = 200 * time.Millisecond // between two that find nothing
)

// openBus joins the bus to other nodes: nil, and nothing to tell, for one that is alone.
func openBus(cfg Config, log *slog.Logger) (bus.Bus, error) {
	if cfg.RedisURL == "" {
		return nil, nil
	}
	return bus.OpenRedis(cfg.RedisURL, log)
}

// worker is a job.Runner, as far as other nodes are of interest to it.
type worker interface {
	Wake()
	Heed()
	Running() int
}

// joinNodes tells other nodes of this one's jobs, and has this one look when they tell. look has clients' accounts looked
// at, above all those that are named. It gives what is to be called when this node wrote one.
func joinNodes(b bus.Bus, queue store.Queue, w worker, look func(codes ...string)) (wrote func(code string)) {
	tell := func(topic string) *bell {
		return newBell(tellAgain, tellAgain, func() bool { b.Publish(topic, nil); return true })
	}
	ready, asked, rests := tell(readyTopic), tell(askedTopic), tell(restsTopic)
	var written, heard names
	accounts := newBell(tellAgain, tellAgain, func() bool {
		for codes := range slices.Chunk(written.take(), accountsMost) {
			b.Publish(accountsTopic, []byte(strings.Join(codes, "\n")))
		}
		return true
	})
	queue.Listen(store.Listener{
		Ready: ready.ring, Asked: func(...string) { asked.ring() }, Paused: func(...store.Pause) { rests.ring() }, Resumed: rests.ring,
	})

	wake := newBell(heedAgain, heedSeldom, func() bool {
		if q, ok := queue.(interface{ Look() }); ok { // else it goes by what it saw a moment ago
			q.Look()
		}
		w.Wake()
		return w.Running() > 0 // else others are quicker: it need not look as often
	})
	heed := func(f func()) *bell { return newBell(heedAgain, heedAgain, func() bool { f(); return true }) }
	cancel, reload := heed(w.Heed), heed(func() { look(heard.take()...) })
	recall := heed(func() {
		if q, ok := queue.(interface{ Recall() }); ok { // it remembers pauses for a second
			q.Recall()
			w.Wake()
		}
	})
	b.Subscribe(readyTopic, func([]byte) { wake.ring() })
	b.Subscribe(askedTopic, func([]byte) { cancel.ring() })
	b.Subscribe(restsTopic, func([]byte) { recall.ring() })
	b.Subscribe(accountsTopic, func(data []byte) {
		heard.add(strings.Fields(string(data))...)
		reload.ring()
	})
	b.OnGap(func() {
		wake.ring()
		cancel.ring()
		recall.ring()
		reload.ring()
	})
	return func(code string) {
		written.add(code)
		accounts.ring()
	}
}

// names are gathered, each once, until they are taken.
type names struct {
	mu  sync.Mutex
	set map[string]bool
}

func (n *names) add(list ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set == nil {
		n.set = map[string]bool{}
	}
	for _, name := range list {
		n.set[name] = true
	}
}

func (n *names) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := slices.Sorted(maps.Keys(n.set))
	n.set = nil
	return list
}

// bell calls a function when it is rung: at once, but not more often than every so often; whoever rings meanwhile is heard
// together. Calls that were of no use grow rarer, up to a limit, until nobody rings for as long.
type bell struct {
	every, seldom time.Duration
	call          func() (useful bool)

	mu sync.Mutex
	resting,
	again bool
	pause time.Duration
}

func newBell(every, seldom time.Duration, call func() bool) *bell {
	return &bell{every: every, seldom: seldom, call: call, pause: every}
}

// ring never blocks for longer than the call.
func (b *bell) ring() {
	b.mu.Lock()
	if b.resting {
		b.again = true
		b.mu.Unlock()
		return
	}
	b.resting, b.pause = true, b.every
	b.mu.Unlock()
	b.now()
}

func (b *bell) now() {
	useful := b.call()
	b.mu.Lock()
	defer b.mu.Unlock()
	time.AfterFunc(b.pause, b.rested)
	if b.pause = min(2*b.pause, b.seldom); useful {
		b.pause = b.every
	}
}

func (b *bell) rested() {
	b.mu.Lock()
	again := b.again
	b.again, b.resting = false, again
	b.mu.Unlock()
	if again {
		b.now()
	}
}

// watchBus adds the numbers of the bus.
func (m *metrics) watchBus(b bus.Bus) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ecod_bus_up",
		Help: "Whether this node hears others at once (1), or finds what is new by looking (0)."}, func() float64 {
		if b.Healthy() == nil {
			return 1
		}
		return 0
	}))
	for name, c := range map[string]struct {
		help string
		read func(bus.Stats) uint64
	}{
		"ecod_bus_published_total": {"Messages published to other nodes.", func(s bus.Stats) uint64 { return s.Published }},
		"ecod_bus_heard_total":     {"Messages heard, once for each subscription.", func(s bus.Stats) uint64 { return s.Heard }},
		"ecod_bus_unsent_total":    {"Messages dropped because they could not be sent.", func(s bus.Stats) uint64 { return s.Unsent }},
		"ecod_bus_unheard_total":   {"Messages dropped because who hears them was behind, or because they made no sense.", func(s bus.Stats) uint64 { return s.Unheard }},
		"ecod_bus_gaps_total":      {"Times that messages may have been missed, after which everything is looked at.", func(s bus.Stats) uint64 { return s.Gaps }},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: c.help}, func() float64 { return float64(c.read(b.Stats())) }))
	}
}
