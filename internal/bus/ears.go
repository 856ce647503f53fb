package bus

import (
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// ears are the subscriptions of one wire.
type ears struct {
	log            *slog.Logger
	heard, unheard atomic.Uint64

	mu       sync.Mutex
	closed   bool
	channels map[string][]*ear
	prefixes map[string][]*ear
	wg       sync.WaitGroup
}

// ear is one subscription.
type ear struct {
	line *line
	hear func(channel string, data []byte)
}

func newEars(log *slog.Logger) *ears {
	return &ears{log: log, channels: map[string][]*ear{}, prefixes: map[string][]*ear{}}
}

// add begins a subscription.
func (e *ears) add(channels, prefixes []string, hear func(string, []byte)) (remove func()) {
	one := &ear{line: newLine(), hear: hear}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return func() {}
	}
	for _, c := range channels {
		e.channels[c] = append(e.channels[c], one)
	}
	for _, p := range prefixes {
		e.prefixes[p] = append(e.prefixes[p], one)
	}
	e.wg.Go(func() { e.listen(one) })
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, c := range channels {
			without(e.channels, c, one)
		}
		for _, p := range prefixes {
			without(e.prefixes, p, one)
		}
		one.line.close()
	})
}

func without(m map[string][]*ear, name string, one *ear) {
	rest := slices.DeleteFunc(slices.Clone(m[name]), func(x *ear) bool { return x == one })
	if len(rest) == 0 {
		delete(m, name)
	} else {
		m[name] = rest
	}
}

// tell hands a message to those who subscribed to its channel, or to a prefix where it came by one.
func (e *ears) tell(prefix string, m message) {
	e.mu.Lock()
	list := e.channels[m.channel]
	if prefix != "" {
		list = e.prefixes[prefix]
	}
	e.mu.Unlock()
	for _, one := range list {
		if one.line.put(m) {
			e.heard.Add(1)
		} else {
			e.unheard.Add(1)
		}
	}
}

func (e *ears) listen(one *ear) {
	for {
		<-one.line.some
		all, more := one.line.take()
		if !more {
			return
		}
		for _, m := range all {
			e.call(one, m)
		}
	}
}

// call keeps a subscriber's panic from ending the process: what comes over the wire is anybody's.
func (e *ears) call(one *ear, m message) {
	defer func() {
		if p := recover(); p != nil {
			e.log.Error("panic in who hears a bus", "channel", m.channel, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	one.hear(m.channel, m.data)
}

// names gives what is subscribed to.
func (e *ears) names() (channels, prefixes map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	channels, prefixes = map[string]bool{}, map[string]bool{}
	for c := range e.channels {
		channels[c] = true
	}
	for p := range e.prefixes {
		prefixes[p] = true
	}
	return channels, prefixes
}

// close ends every subscription, and waits for the calls under way.
func (e *ears) close() {
	e.mu.Lock()
	e.closed = true
	for _, m := range []map[string][]*ear{e.channels, e.prefixes} {
		for _, list := range m {
			for _, one := range list {
				one.line.close()
			}
		}
		clear(m)
	}
	e.mu.Unlock()
	e.wg.Wait()
}
