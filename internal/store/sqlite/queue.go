package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// busyFile tunes the writing connection of a file that takes the traffic of all clients: the index pages that every
// commit touches meet in a larger cache, and in a longer log before they are copied into the file.
const busyFile = "PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 33554432"

// queueFile is busyFile for a file in which each job's row is written several times: the writer waits for the copying and
// its syncs, and what is in the log more than once is copied once. After a crash 64 MB of log are read again, which takes
// a fraction of a second.
const queueFile = "PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 16000; PRAGMA journal_size_limit = 100663296"

const (
	maxClockStep = 2 * time.Second // what a clock may be corrected by without the leases following
	promoteBatch = 500             // jobs moved in one commit
	never        = turn.Never      // "no time known", in milliseconds
)

// states are all states, in the order of the columns of lanes.
var states = [...]store.State{
	store.Scheduled, store.Ready, store.Running, store.Parked,
	store.Succeeded, store.Dead, store.Cancelled, store.Expired,
}

func stateIndex(s store.State) int {
	for i, x := range states {
		if x == s {
			return i
		}
	}
	return -1
}

// Queue is the job queue in the services file. It is a store.Queue.
type Queue struct {
	f    *file
	now  func() time.Time
	due  atomic.Int64 // when the first scheduled job known is due, Unix ms
	busy atomic.Bool  // the last claim found jobs

	swept     atomic.Pointer[func(ids ...string)] // OnSweep's
	listeners store.Listeners
	resting   restings
	runs      runs

	// Of the writer: used inside file.write only, which runs one function at a time. They are hints;
	// what must be right is in the tables.
	read   time.Time // the clock at the last change that is committed
	within *wtx      // the transaction that readIn is of
	readIn time.Time // the clock at the last change in it, which may not be committed
	mem    *turn.Memory
}

// OpenQueue opens the queue in a database's file; its tables are made if they are missing. now is the only
// clock that leases and due times are judged by. The queue is closed with db.
func OpenQueue(ctx context.Context, db *DB, now func() time.Time) (*Queue, error) {
	return openQueue(ctx, db.f, now)
}

func openQueue(ctx context.Context, f *file, now func() time.Time) (*Queue, error) {
	q := &Queue{f: f, now: now, mem: turn.NewMemory()}
	q.due.Store(never)
	err := f.write(ctx, func(tx *wtx) error {
		if err := f.tune(tx, queueFile); err != nil {
			return err
		}
		if err := upgradeQueue(tx); err != nil {
			return err
		}
		// What an operator's hand changed in jobs would otherwise never be claimed.
		_, err := tx.exec(`UPDATE lanes SET ready = r.n FROM (
				SELECT l.lane, (SELECT count(*) FROM jobs j INDEXED BY jobsReady WHERE j.state = 'ready' AND j.lane = l.lane) AS n FROM lanes l
			) r WHERE r.lane = lanes.lane AND r.n <> ready`)
		if err != nil {
			return err
		}
		// While no process ran, the clock may have been set back: who held these leases is gone all the same.
		lease := now().UnixMilli() + store.CallerLease.Milliseconds()
		if _, err := tx.exec(`UPDATE jobs INDEXED BY jobsRunning SET leaseUntil = ? WHERE state = 'running' AND leaseUntil > ?`, lease, lease); err != nil {
			return err
		}
		for class := range q.mem.Floor {
			r, err := tx.first(`SELECT coalesce((SELECT min(vtime) FROM lanes WHERE class = ?1 AND ready > 0), (SELECT max(vtime) FROM lanes WHERE class = ?1), 0)`, class)
			if err != nil {
				return err
			}
			q.mem.Floor[class] = r.int(0)
		}
		q.read = now()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return q, nil
}

// OnSweep sets what hears of jobs that changed by themselves, after the commit: that expired, or whose lease ran out. Of
// all other changes the caller of a method knows. f must not block.
func (q *Queue) OnSweep(f func(ids ...string)) { q.swept.Store(&f) }

var _ store.Queue = (*Queue)(nil)

// change is what one transaction does to the queue.
type change struct {
	*wtx
	q     *Queue
	now   int64 // Unix ms
	nanos int64
	lanes map[string]*laneChange
	types map[ofType]*typeChange
	made  map[string]int // jobs, by type
	crash int            // executions that ended with their leases
	ready bool           // a job became ready
	due   int64          // the earliest job scheduled
	swept []string
	asked []string      // running jobs, to cancel
	owing bool          // a job ended by itself
	rests []store.Pause // that began
}

// change runs fn in a transaction, keeps the lanes in step and tells the runner.
func (q *Queue) change(ctx context.Context, fn func(c *change) error) error {
	return q.f.write(ctx, q.changing(fn))
}

// changeTogether is change for what many callers do at once: their steps share a change. A step must be able to be done
// again.
func (q *Queue) changeTogether(ctx context.Context, step jointStep) error {
	return q.f.writeJoint(ctx, q.together, step)
}

func (q *Queue) together(tx *wtx, steps []jointStep) error {
	return q.changing(func(c *change) error {
		for _, step := range steps {
			if err := step(c); err != nil {
				return err
			}
		}
		return nil
	})(tx)
}

// changeRedoable is change for what is made again if a power cut undoes it: a claim, a beat.
func (q *Queue) changeRedoable(ctx context.Context, fn func(c *change) error) error {
	return q.f.writeRedoable(ctx, q.changing(fn))
}

func (q *Queue) changing(fn func(c *change) error) func(tx *wtx) error {
	return func(tx *wtx) error {
		c := &change{wtx: tx, q: q, lanes: map[string]*laneChange{}, types: map[ofType]*typeChange{}, due: never}
		before, sound := q.lastRead(tx), false
		defer func() {
			if !sound { // the leases are where they were
				q.within, q.readIn = tx, before
			}
		}()
		if err := c.readClock(before); err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		if err := c.flushTypes(); err != nil {
			return err
		}
		sound = true
		if f := q.swept.Load(); f != nil && len(c.swept) > 0 {
			tx.onCommit(func() { (*f)(c.swept...) })
		}
		if len(c.asked) > 0 || c.owing || len(c.rests) > 0 || c.made != nil || c.crash > 0 {
			tx.onCommit(func() { c.report() })
		}
		if c.ready || c.due < never {
			tx.onCommit(func() {
				if sooner := q.sooner(c.due); sooner || c.ready {
					q.listeners.Ready()
				}
			})
		}
		return nil
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

// lastRead is the clock that the leases stand by as a transaction has them.
func (q *Queue) lastRead(tx *wtx) time.Time {
	if q.within == tx {
		return q.readIn
	}
	return q.read
}

// readClock sets the change's time. Where the wall clock was stepped, or stood still while the machine slept,
// the leases are moved by as much: their owners had no more and no less time to prolong them.
func (c *change) readClock(last time.Time) error {
	q, now := c.q, c.q.now()
	step := clockStep(last, now)
	q.within, q.readIn, c.now, c.nanos = c.wtx, now, now.UnixMilli(), now.UnixNano()
	c.onCommit(func() { q.read, q.within = now, nil })
	if step.Abs() <= maxClockStep {
		return nil
	}
	_, err := c.exec(`UPDATE jobs INDEXED BY jobsRunning SET leaseUntil = leaseUntil + ? WHERE state = 'running'`, step.Milliseconds())
	if err != nil {
		return err
	}
	_, err = c.exec(`UPDATE lanes SET limitedUntil = 0, eligibleAt = pausedUntil WHERE limitedUntil > 0`)
	return err
}

// clockStep tells by how much more the wall clock went on than the monotonic one; 0 for clocks that have none.
func clockStep(from, to time.Time) time.Duration {
	return to.Round(0).Sub(from.Round(0)) - to.Sub(from)
}

// jobColumns are what scanJob reads.
const jobColumns = `_id, tenant, type, lane, payload, state, runAt, expiresAt, attempt, maxAttempts, starts, crashes,
	token, owner, leaseUntil, uniqueKey, causation, errors, result, createdAt, startedAt, endedAt, pair, home`

// jobColumnCount is how many they are.
const jobColumnCount = 24

func scanJob(r row) store.Job {
	j := store.Job{
		ID: r.text(0), Tenant: r.text(1), Type: r.text(2), Lane: r.text(3),
		Payload: []byte(r.text(4)), State: store.State(r.text(5)),
		RunAt: timeAt(r, 6), ExpiresAt: timeAt(r, 7),
		Attempt: int(r.int(8)), MaxAttempts: int(r.int(9)), Starts: int(r.int(10)), Crashes: int(r.int(11)),
		Token: r.int(12), Owner: r.text(13), LeaseUntil: timeAt(r, 14), UniqueKey: r.text(15),
		CreatedAt: timeAt(r, 19), StartedAt: timeAt(r, 20), EndedAt: timeAt(r, 21), Pair: r.text(22),
	}
	home := j.Lane
	if !r.null(23) {
		home = r.text(23)
	}
	_, _, j.Class = store.SplitLane(home)
	// Both are ours; what an operator's hand broke in them must not keep the job from running.
	if !r.null(16) {
		_ = json.Unmarshal([]byte(r.text(16)), &j.Causation)
	}
	j.Errors = scanErrors(r.text(17))
	if !r.null(18) {
		j.Result = []byte(r.text(18))
	}
	return j
}

func scanErrors(s string) (es []store.JobError) {
	if s != "" {
		_ = json.Unmarshal([]byte(s), &es)
	}
	return es
}

// withError gives the column errors with one more, the last ten.
func withError(column string, e store.JobError) string {
	e.At = e.At.UTC()
	es := append(scanErrors(column), e)
	es = es[max(0, len(es)-store.MaxErrors):]
	b, err := json.Marshal(es)
	if err != nil { // only a year beyond 9999 does not marshal
		return column
	}
	return text(b)
}

// timeAt reads a column of Unix milliseconds.
func timeAt(r row, i int) time.Time {
	if r.null(i) {
		return time.Time{}
	}
	return msTime(r.int(i))
}

func msTime(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// millis is the argument for a time; NULL for none.
func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// orNull is the argument for a text that may be absent.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// marks gives n placeholders.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

func anys[T ~string](ss []T) []any {
	out := make([]any, len(ss))
	for i, s := range ss {
		out[i] = string(s)
	}
	return out
}

func invalid(format string, args ...any) error { return store.Refusal(fmt.Sprintf(format, args...)) }
