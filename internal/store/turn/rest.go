package turn

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	// Never is "no time known", and the end of a pause that only a word ends, in Unix ms.
	Never = math.MaxInt64
	// SameTrouble is how shortly after another a pause is its continuation, at least.
	SameTrouble = time.Minute
)

// Rest is a pause of one scope for one reason, with what tells how long the next one is to be. Times are Unix ms.
type Rest struct {
	Since, Until int64
	Times        int64 // that it came back so soon that it is the same trouble
	Length       int64 // the last one's
}

// OwnPause is the pause that a job of a lane asks for at its end: of its own resource where it names no scope, and of no
// other tenant's lanes.
func OwnPause(lane string, r store.PauseRequest) (store.PauseRequest, error) {
	tenant, resource, _ := store.SplitLane(lane)
	if r.Scope == "" {
		r.Scope = tenant + "/" + resource
	}
	if of, _, _ := strings.Cut(r.Scope, "/"); of != tenant {
		return r, store.Refusal("a pause of another tenant's lanes")
	}
	return r, r.Check()
}

// Again is the rest that a request makes of the one before (nil: there is none). fresh: it is the first of its trouble.
func (before *Rest) Again(r store.PauseRequest, now int64) (after Rest, fresh bool) {
	after = Rest{Since: now, Length: r.For.Milliseconds()}
	fresh = true
	earlier := int64(0) // the end it has already
	if before != nil {
		switch {
		case before.Until > now:
			fresh, after.Since, after.Times, earlier = false, before.Since, before.Times, before.Until
		case !before.Over(now):
			fresh, after.Times = false, before.Times+1
			for range after.Times {
				after.Length = max(after.Length, min(2*after.Length, r.Most.Milliseconds()))
			}
		}
	}
	after.Until = max(earlier, now+after.Length)
	if r.For == 0 {
		after.Until = Never
	}
	if earlier > 0 {
		after.Length = max(after.Length, before.Length)
	}
	return after, fresh
}

// Over tells whether a new pause would not be the continuation of this one.
func (before *Rest) Over(now int64) bool {
	return before.Until <= now && now-before.Until > max(SameTrouble.Milliseconds(), before.Length)
}

// Time is the time of Unix milliseconds; zero for Never, as the end of a pause has it.
func Time(ms int64) time.Time {
	if ms == Never {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Longest gives the pause that lasts longest of those that cover a lane; nil: none does.
func Longest(ps []store.Pause, lane string, now time.Time) *store.Pause {
	if len(ps) == 0 {
		return nil
	}
	var last *store.Pause
	scopes := store.Scopes(lane)
	for i, p := range ps {
		if !slices.Contains(scopes, p.Scope) || !p.Until.IsZero() && !p.Until.After(now) {
			continue
		}
		if last == nil || !last.Until.IsZero() && (p.Until.IsZero() || p.Until.After(last.Until)) {
			last = &ps[i]
		}
	}
	if last != nil {
		p := *last
		return &p
	}
	return nil
}
