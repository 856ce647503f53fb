package mongo

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

const (
	surveyLeast = 250 * time.Millisecond // how old a look may be that a claim goes by
	surveyShare = 20                     // and so many times as old as it took,
	surveyMost  = 2 * time.Second        // up to this
	lanesMost   = 10_000                 // lanes that are remembered although they hold nothing
)

// board is what this process knows of where work waits: the lanes in which jobs were ready when it looked last, or became
// so since by what it did itself. Which lanes there are is written nowhere but in the jobs, so that it cannot be wrong: a
// look is a walk along the index of ready jobs from lane to lane, however many jobs are in them.
//
// Virtual times and what rates hold back are this process's own: each node serves the lanes in turn.
type board struct {
	claiming sync.Mutex // one claim at a time; held while it waits for the server

	mu     sync.Mutex
	mem    *turn.Memory
	lanes  map[string]*lane
	most   int   // of lanes, before those that hold nothing are forgotten
	serial int64 // of stirs
	looked time.Time
	took   time.Duration // the last look
	stale  bool          // something changed, and it is not known where
}

// lane is a lane as this process knows it.
type lane struct {
	turn.Lane
	scopes  []string // that pauses of it may have
	ready   bool     // it may hold ready jobs
	emptied string   // of these types a claim took all
	listed  bool     // since the last look it did
	stirred int64    // serial of the last job that became ready in it
	oldest  int64    // when the first of its jobs became ready, at the last look, Unix ms
	vtime   int64
	limited int64 // until when its rate keeps it from more, Unix ms
	blocked bool  // it was not to be claimed from when a claim came by last
}

// memory gives what is remembered between claims. The board is locked.
func (b *board) memory() *turn.Memory {
	if b.mem == nil {
		b.mem = turn.NewMemory()
	}
	return b.mem
}

// lane gives what is known of a lane; the board is locked.
func (b *board) lane(name string) *lane {
	l := b.lanes[name]
	if l == nil {
		if b.lanes == nil {
			b.lanes = map[string]*lane{}
		}
		if len(b.lanes) >= max(b.most, lanesMost) {
			maps.DeleteFunc(b.lanes, func(_ string, l *lane) bool { return !l.ready })
			b.most = len(b.lanes) + lanesMost
		}
		l = &lane{Lane: turn.LaneOf(name), scopes: store.Scopes(name)}
		b.lanes[name] = l
	}
	return l
}

// wake lets a lane be looked at. One that held nothing starts at the floor: being idle earns no credit.
func (b *board) wake(l *lane) {
	if !l.ready || l.emptied != "" {
		l.ready, l.emptied = true, ""
		l.vtime = max(l.vtime, b.memory().Floor[l.Class])
	}
}

// stir tells that jobs may be ready in lanes; without names, somewhere.
func (q *Queue) stir(names ...string) {
	b := &q.board
	b.mu.Lock()
	defer b.mu.Unlock()
	b.serial++
	if len(names) == 0 {
		b.stale = true
	}
	for _, name := range names {
		l := b.lane(name)
		b.wake(l)
		l.stirred, l.listed = b.serial, false
		b.memory().Stirred(name)
	}
}

// Look has the next claim look for what other processes made ready: one of them is known to have.
func (q *Queue) Look() { q.stir() }

// pace notes how long a job of a lane took.
func (q *Queue) pace(lane string, took time.Duration) {
	q.board.mu.Lock()
	defer q.board.mu.Unlock()
	q.board.memory().Pace(lane, took)
}

// rested notes that a lane was found empty, unless a job became ready in it since.
func (b *board) rested(l *lane, since int64) bool {
	if l.stirred > since {
		return false
	}
	l.ready, l.listed, l.emptied = false, false, ""
	return true
}

// emptiedOf notes that a claim took all jobs of its types from a lane, unless one became ready in it since.
func (b *board) emptiedOf(l *lane, types string, since int64) {
	if l.stirred <= since {
		l.emptied = types
	}
}

// due tells whether the store is to be looked at again.
func (b *board) due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stale || b.looked.IsZero() || time.Since(b.looked) > max(surveyLeast, min(surveyMost, surveyShare*b.took))
}

// survey finds the lanes in which jobs are ready.
func (q *Queue) survey(ctx context.Context) error {
	b := &q.board
	b.mu.Lock()
	since := b.serial
	b.stale = false
	b.mu.Unlock()
	began := time.Now()
	found := map[string]int64{}
	err := q.aggregate(ctx, jobs, bson.A{
		bson.D{is("$match", bson.D{is("state", string(store.Ready))})},
		bson.D{is("$sort", bson.D{is("state", 1), is("lane", 1), is("runAt", 1), is(orderField, 1)})},
		bson.D{is("$group", bson.D{is("_id", "$lane"), is("runAt", bson.D{is("$first", "$runAt")})})},
	}, func(raw bson.Raw) {
		found[textOf(raw.Lookup("_id"))] = timeOf(raw.Lookup("runAt")).UnixMilli()
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.stale = true
		return err
	}
	b.looked, b.took = time.Now(), time.Since(began)
	for name, oldest := range found {
		l := b.lane(name)
		b.wake(l)
		l.listed, l.oldest = true, oldest
	}
	for name, l := range b.lanes {
		if _, there := found[name]; !there && l.ready && b.rested(l, since) {
			b.memory().Stirred(name) // what it was passed over for is gone
		}
	}
	return nil
}

// open gives the lanes of some classes that may be claimed from now, in the order in which a turn looks at them. Those
// whose pause is over, or whose rate allows the next job, come in at the floor: having been held back earns no credit. The
// board is locked.
func (b *board) open(from, to int, types string, now int64, rests *restsNow) (open []*lane) {
	for _, l := range b.lanes {
		if !l.ready || l.emptied == types || l.Class < from || l.Class > to {
			continue
		}
		if l.limited > now || rests.until(l, now) > now {
			l.blocked = true
			continue
		}
		if l.blocked {
			l.blocked = false
			l.vtime = max(l.vtime, b.memory().Floor[l.Class])
		}
		open = append(open, l)
	}
	slices.SortFunc(open, func(a, b *lane) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.vtime, b.vtime), cmp.Compare(a.Name, b.Name))
	})
	return open
}

// freed gives when the next lane with ready jobs is no longer paused or at its rate, Unix ms; never if none is so.
func (q *Queue) freed(ctx context.Context, now int64) (int64, error) {
	if q.board.due() {
		if err := q.survey(ctx); err != nil {
			return never, err
		}
	}
	rests, err := q.rests.read(ctx, q)
	if err != nil {
		return never, err
	}
	b := &q.board
	b.mu.Lock()
	defer b.mu.Unlock()
	next := int64(never)
	for _, l := range b.lanes {
		if !l.ready || l.emptied != "" {
			continue
		}
		if at := max(l.limited, rests.until(l, now)); at > now {
			next = min(next, at)
		}
	}
	return next, nil
}
