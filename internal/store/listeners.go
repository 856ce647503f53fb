package store

import (
	"slices"
	"sync/atomic"
)

// Listeners are those who listen to a queue, for the engines. The zero value has none; it may be used concurrently.
type Listeners struct {
	all atomic.Pointer[[]Listener]
}

// Add adds one, from now on.
func (ls *Listeners) Add(l Listener) {
	for {
		old := ls.all.Load()
		var all []Listener
		if old != nil {
			all = slices.Clone(*old)
		}
		all = append(all, l)
		if ls.all.CompareAndSwap(old, &all) {
			return
		}
	}
}

// Tell calls f for each.
func (ls *Listeners) Tell(f func(Listener)) {
	if all := ls.all.Load(); all != nil {
		for _, l := range *all {
			f(l)
		}
	}
}

// Ready tells each that a job became ready, or is due earlier than was known.
func (ls *Listeners) Ready() {
	ls.Tell(func(l Listener) {
		if l.Ready != nil {
			l.Ready()
		}
	})
}
