package chat

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp"
)

// How long what Meta limited is left alone: doubling while it goes on, from Meta's own word up.
const (
	restFirst = time.Second
	restMost  = time.Minute
	probeTime = 30 * time.Second // for the one call that finds out whether a rest is over
	probeLook = 500 * time.Millisecond
	deadToken = time.Minute // a refused token is not tried again by the other messages for so long
)

// rests is what Meta told to slow down: a number, an account, a token. All its messages wait, and one at a time finds out
// whether it is over, so that a limit is not answered by a storm. It is this process's memory only: after a restart one
// call learns it anew.
type rests struct {
	mu sync.Mutex
	of map[string]*rest
}

type rest struct {
	until time.Time
	probe time.Time // until then, one call is finding out
	times int       // limited in a row
}

func scopeKey(s whatsapp.Scope, code, phoneNumberID string) string {
	switch s {
	case whatsapp.ScopeNumber:
		return code + "|number|" + phoneNumberID
	case whatsapp.ScopeAccount:
		return code + "|account"
	}
	return ""
}

// limited notes a limit and gives how long to wait.
func (r *rests) limited(key string, now time.Time, asked time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]*rest{}
	}
	e := r.of[key]
	if e == nil {
		e = &rest{}
		r.of[key] = e
	}
	wait := max(asked, min(restFirst<<min(e.times, 10), restMost))
	e.times++
	e.until, e.probe = now.Add(wait), time.Time{}
	return wait
}

// wait tells how long a message of these scopes has to wait; 0: it may go. The first that may go after a rest finds out,
// the others wait for what it finds.
func (r *rests) wait(now time.Time, keys ...string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var longest time.Duration
	for _, k := range keys {
		switch e := r.of[k]; {
		case e == nil:
		case now.Before(e.until):
			longest = max(longest, e.until.Sub(now))
		case now.Before(e.probe):
			longest = max(longest, probeLook)
		}
	}
	if longest > 0 {
		return longest + rand.N(longest/4+time.Millisecond)
	}
	for _, k := range keys {
		if e := r.of[k]; e != nil {
			e.probe = now.Add(probeTime)
		}
	}
	return 0
}

// pass ends the turn of one that was to find out, and could not.
func (r *rests) pass(keys ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range keys {
		if e := r.of[k]; e != nil {
			e.probe = time.Time{}
		}
	}
}

// over notes that Meta takes messages again.
func (r *rests) over(keys ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range keys {
		delete(r.of, k)
	}
}
