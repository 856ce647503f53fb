package mongo

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

const (
	promoteBatch = 500           // jobs moved in one go
	never        = math.MaxInt64 // "no time known", in milliseconds
)

// Queue is the job queue in the services database. It is a store.Queue.
//
// A job is one document, and each of its changes is one update that says what it must find: who comes second finds
// nothing to change. There is no transaction. What takes several documents writes the deciding one last, and what it
// leaves behind when it is cut is found by whoever promotes next:
//
//   - Finish with jobs that follow writes the whole outcome into its job first (_ending); then makes what follows, under
//     ids that were chosen before; then ends the job. From the first write on the outcome stands.
//   - A unique key is a member of the job that holds it, under a unique index.
//   - A pruned job whose key is to be known for longer stays, as a stub without content.
//
// Which lanes hold ready jobs is not written anywhere: it is read from the jobs (see board). The numbers of jobs by
// state are counted beside them, by what each process did; a crash may lose the last second of that, which is found
// when they are counted anew (see tally).
type Queue struct {
	db  *DB
	now func() time.Time

	number atomic.Int64 // that the last job made here was given
	due    atomic.Int64 // when the first scheduled job known is due, Unix ms

	swept     atomic.Pointer[func(ids ...string)] // OnSweep's
	listeners store.Listeners
	tally     tally
	board     board
	rests     rests
}

var _ store.Queue = (*Queue)(nil)

// OpenQueue opens the queue in a database; its collections and indexes are made if they are missing. now is the only
// clock that leases and due times are judged by; nil is the server's. The queue is closed with db.
func OpenQueue(ctx context.Context, db *DB, now func() time.Time) (*Queue, error) {
	q := &Queue{db: db, now: now}
	if now == nil {
		if err := db.clock.ask(ctx); err != nil {
			return nil, err
		}
		q.now = db.clock.now
	}
	q.due.Store(never)
	if err := q.makeIndexes(ctx); err != nil {
		return nil, err
	}
	return q, nil
}

// OnSweep sets what hears of jobs that changed by themselves: that expired, or whose lease ran out. Of all other changes
// the caller of a method knows. f must not block.
func (q *Queue) OnSweep(f func(ids ...string)) { q.swept.Store(&f) }

// The queue's collections.
const (
	jobs      = "jobs"
	jobCounts = "jobCounts"
	lanes     = "lanes"
	limits    = "limits"
	pauses    = "pauses"
)

// on runs fn with a collection, as one call of the database: fn makes no other.
func (q *Queue) on(ctx context.Context, collection string, fn func(ctx context.Context, c *driver.Collection) error) error {
	return q.db.call(ctx, func(ctx context.Context, d *driver.Database) error { return fn(ctx, d.Collection(collection)) })
}

// millis is the queue's time.
func (q *Queue) millis() int64 { return q.now().UnixMilli() }

// nextNumber gives a job its place in the order in which jobs are made: its time, and then a running number. Two
// processes may give the same one; then the ids decide.
func (q *Queue) nextNumber(now int64) int64 {
	for {
		last := q.number.Load()
		n := max(last+1, now<<20)
		if q.number.CompareAndSwap(last, n) {
			return n
		}
	}
}

func newJobID() string { return id.New("job") }

// change collects what one call did to the queue, for who counts and for who listens.
type change struct {
	q       *Queue
	now     int64 // Unix ms
	moves   moves
	lanes   map[string]bool // in which jobs became ready
	made    map[string]int  // jobs, by type
	crashed int             // executions that ended with their leases
	due     int64           // the earliest job scheduled
	swept   []string
	asked   []string // running jobs, to cancel
	owing   bool     // a job ended by itself
	unsure  bool     // a write may have been done or not
}

func (q *Queue) begin() *change {
	return &change{q: q, now: q.millis(), due: never}
}

// move notes a job of a type that went from one state to another; "" is none.
func (c *change) move(lane, typ string, from, to store.State) {
	if c.moves == nil {
		c.moves = moves{}
	}
	c.moves.add(lane, typ, from, -1)
	c.moves.add(lane, typ, to, 1)
	if to == store.Ready {
		if c.lanes == nil {
			c.lanes = map[string]bool{}
		}
		c.lanes[lane] = true
	}
}

// create notes a job that was made.
func (c *change) create(j store.Job) {
	c.move(j.Lane, j.Type, "", j.State)
	if c.made == nil {
		c.made = map[string]int{}
	}
	c.made[j.Type]++
	if j.State == store.Scheduled {
		c.schedule(j.RunAt.UnixMilli())
	}
}

// schedule notes when a job is due.
func (c *change) schedule(due int64) { c.due = min(c.due, due) }

// end counts and tells what was noted. It is called once the writes are done, those that failed left out.
func (c *change) end() {
	q := c.q
	q.tally.add(c.moves, c.unsure)
	q.later()
	if c.unsure {
		q.stir()
	} else if len(c.lanes) > 0 {
		names := make([]string, 0, len(c.lanes))
		for name := range c.lanes {
			names = append(names, name)
		}
		q.stir(names...)
	}
	if f := q.swept.Load(); f != nil && len(c.swept) > 0 {
		(*f)(c.swept...)
	}
	if len(c.asked) > 0 || c.owing || c.made != nil || c.crashed > 0 {
		q.listeners.Tell(func(l store.Listener) {
			if l.Asked != nil && len(c.asked) > 0 {
				l.Asked(c.asked...)
			}
			if l.Owed != nil && c.owing {
				l.Owed()
			}
			if l.Moved != nil && (c.made != nil || c.crashed > 0) {
				l.Moved(c.made, c.crashed)
			}
		})
	}
	if sooner := q.sooner(c.due); sooner || len(c.lanes) > 0 || c.unsure {
		q.listeners.Ready()
	}
}

// sooner notes that a job is due and tells whether none was known to be due before it.
func (q *Queue) sooner(due int64) bool {
	for {
		known := q.due.Load()
		if due >= known {
			return false
		}
		if q.due.CompareAndSwap(known, due) {
			return true
		}
	}
}

func msTime(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// in is the term of a filter for one of many values.
func in[T any](vs []T) bson.D {
	if vs == nil {
		vs = []T{}
	}
	return bson.D{{Key: "$in", Value: vs}}
}

// is is a term of a filter, or a member that is set.
func is(name string, v any) bson.E { return bson.E{Key: name, Value: v} }

var (
	there  = bson.D{{Key: "$exists", Value: true}}
	absent = bson.D{{Key: "$exists", Value: false}}
)
