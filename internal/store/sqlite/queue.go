package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// The queue's tables. Times are Unix milliseconds, NULL where there is none.
//
// Every index but two (id, tenant) is partial, so that a finished job is in none that a claim, a beat or a
// promotion reads: five million of them cost those nothing. n is the order in which jobs were made.
// lanes counts the jobs of every state in the transaction that changes them; nothing ever counts rows.
// jobKeys outlives jobs: state, token and keepUntil are set when the row of its job is pruned.
const queueSchema = `
CREATE TABLE IF NOT EXISTS jobs (
	n INTEGER PRIMARY KEY, _id TEXT NOT NULL, tenant TEXT NOT NULL, type TEXT NOT NULL, lane TEXT NOT NULL,
	payload TEXT NOT NULL, state TEXT NOT NULL, runAt INTEGER NOT NULL, expiresAt INTEGER,
	attempt INTEGER NOT NULL DEFAULT 0, maxAttempts INTEGER NOT NULL, starts INTEGER NOT NULL DEFAULT 0,
	crashes INTEGER NOT NULL DEFAULT 0, token INTEGER NOT NULL DEFAULT 0, owner TEXT, leaseUntil INTEGER,
	uniqueKey TEXT, payloadHash TEXT, holdsKey INTEGER NOT NULL DEFAULT 0, causation TEXT,
	cancelRequested INTEGER NOT NULL DEFAULT 0, errors TEXT, result TEXT,
	createdAt INTEGER NOT NULL, startedAt INTEGER, endedAt INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS jobsId ON jobs (_id);
CREATE INDEX IF NOT EXISTS jobsTenant ON jobs (tenant, type);
CREATE INDEX IF NOT EXISTS jobsReady ON jobs (lane, runAt) WHERE state = 'ready';
CREATE INDEX IF NOT EXISTS jobsRunning ON jobs (owner) WHERE state = 'running';
CREATE INDEX IF NOT EXISTS jobsDue ON jobs (runAt) WHERE state = 'scheduled';
CREATE INDEX IF NOT EXISTS jobsRare ON jobs (state, tenant)
	WHERE state <> 'ready' AND state <> 'running' AND state <> 'succeeded';
CREATE INDEX IF NOT EXISTS jobsExpiry ON jobs (expiresAt) WHERE expiresAt IS NOT NULL AND endedAt IS NULL;
CREATE INDEX IF NOT EXISTS jobsEnded ON jobs (state, holdsKey, endedAt) WHERE endedAt IS NOT NULL;
CREATE TABLE IF NOT EXISTS jobKeys (
	tenant TEXT NOT NULL, uniqueKey TEXT NOT NULL, jobId TEXT NOT NULL, payloadHash TEXT NOT NULL,
	state TEXT, token INTEGER, keepUntil INTEGER, PRIMARY KEY (tenant, uniqueKey)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobKeysPruned ON jobKeys (keepUntil) WHERE keepUntil IS NOT NULL;
CREATE TABLE IF NOT EXISTS lanes (
	lane TEXT NOT NULL PRIMARY KEY, tenant TEXT NOT NULL,
	scheduled INTEGER NOT NULL, ready INTEGER NOT NULL, running INTEGER NOT NULL, parked INTEGER NOT NULL,
	succeeded INTEGER NOT NULL, dead INTEGER NOT NULL, cancelled INTEGER NOT NULL, expired INTEGER NOT NULL,
	vtime INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lanesReady ON lanes (vtime) WHERE ready > 0;
CREATE INDEX IF NOT EXISTS lanesTenant ON lanes (tenant);`

// busyFile tunes the writing connection of a file that takes the traffic of all clients: the index pages that every
// commit touches meet in a larger cache, and in a longer log before they are copied into the file.
const busyFile = "PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 33554432"

const (
	maxPayload   = 64 << 10         // bytes of a payload or a result
	keyKept      = 72 * time.Hour   // a unique key is known so long after its job's end
	callerLease  = 15 * time.Second // of a job made with ClaimFor
	maxCrashes   = 3                // poison
	maxErrors    = 10               // kept of a job
	maxClockStep = 2 * time.Second  // what a clock may be corrected by without the leases following
	promoteBatch = 500              // jobs moved in one commit
	never        = math.MaxInt64    // "no time known", in milliseconds
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
	wake chan struct{}
	due  atomic.Int64 // when the first scheduled job known is due, Unix ms

	swept atomic.Pointer[func(ids ...string)] // OnSweep's

	// Of the writer: used inside file.write only, which runs one function at a time. They are hints;
	// what must be right is in the tables.
	read   time.Time         // the clock at the last change
	floor  int64             // the vtime of the lane served last
	barren map[string]barren // lanes whose ready jobs are of types that a claim did not know
}

// OpenQueue opens the queue in a database's file; its tables are made if they are missing. now is the only
// clock that leases and due times are judged by. The queue is closed with db.
func OpenQueue(ctx context.Context, db *DB, now func() time.Time) (*Queue, error) {
	return openQueue(ctx, db.f, now)
}

func openQueue(ctx context.Context, f *file, now func() time.Time) (*Queue, error) {
	q := &Queue{f: f, now: now, wake: make(chan struct{}, 1), barren: map[string]barren{}}
	q.due.Store(never)
	err := f.write(ctx, func(tx *wtx) error {
		if err := f.tune(tx, busyFile); err != nil {
			return err
		}
		if err := tx.script(queueSchema); err != nil {
			return err
		}
		// What an operator's hand changed in jobs would otherwise never be claimed.
		_, err := tx.exec(`UPDATE lanes SET ready = r.n FROM (
				SELECT l.lane, (SELECT count(*) FROM jobs j INDEXED BY jobsReady WHERE j.state = 'ready' AND j.lane = l.lane) AS n FROM lanes l
			) r WHERE r.lane = lanes.lane AND r.n <> ready`)
		if err != nil {
			return err
		}
		r, err := tx.first(`SELECT coalesce((SELECT min(vtime) FROM lanes WHERE ready > 0), (SELECT max(vtime) FROM lanes), 0)`)
		if err != nil {
			return err
		}
		q.floor, q.read = r.int(0), now()
		return nil
	})
	if err != nil {
		return nil, err
	}
	q.signal()
	return q, nil
}

// Wake gives a value after commits that made a job ready, or due earlier than was known; several commits may
// be told by one value. It is meant for one receiver in this process.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

// OnSweep sets what hears of jobs that changed by themselves, after the commit: that expired, or whose lease ran out. Of
// all other changes the caller of a method knows. f must not block.
func (q *Queue) OnSweep(f func(ids ...string)) { q.swept.Store(&f) }

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

var _ store.Queue = (*Queue)(nil)

// change is what one transaction does to the queue.
type change struct {
	*wtx
	q     *Queue
	now   int64 // Unix ms
	lanes map[string]*laneChange
	ready bool  // a job became ready
	due   int64 // the earliest job scheduled
	swept []string
}

type laneChange struct {
	tenant string
	n      [len(states)]int64
	vtime  int64
}

// change runs fn in a transaction, keeps the lanes in step and tells the runner.
func (q *Queue) change(ctx context.Context, fn func(c *change) error) error {
	return q.f.write(ctx, q.changing(fn))
}

// changeRedoable is change for what is made again if a power cut undoes it: a claim, a beat.
func (q *Queue) changeRedoable(ctx context.Context, fn func(c *change) error) error {
	return q.f.writeRedoable(ctx, q.changing(fn))
}

func (q *Queue) changing(fn func(c *change) error) func(tx *wtx) error {
	return func(tx *wtx) error {
		c := &change{wtx: tx, q: q, lanes: map[string]*laneChange{}, due: never}
		if err := c.readClock(); err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		if f := q.swept.Load(); f != nil && len(c.swept) > 0 {
			tx.onCommit(func() { (*f)(c.swept...) })
		}
		if c.ready || c.due < never {
			tx.onCommit(func() {
				if sooner := q.sooner(c.due); sooner || c.ready {
					q.signal()
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

// readClock sets the change's time. Where the wall clock was stepped, or stood still while the machine slept,
// the leases are moved by as much: their owners had no more and no less time to prolong them.
func (c *change) readClock() error {
	now := c.q.now()
	step := clockStep(c.q.read, now)
	c.q.read, c.now = now, now.UnixMilli()
	if step.Abs() <= maxClockStep {
		return nil
	}
	_, err := c.exec(`UPDATE jobs INDEXED BY jobsRunning SET leaseUntil = leaseUntil + ? WHERE state = 'running'`, step.Milliseconds())
	return err
}

// clockStep tells by how much more the wall clock went on than the monotonic one; 0 for clocks that have none.
func clockStep(from, to time.Time) time.Duration {
	return to.Round(0).Sub(from.Round(0)) - to.Sub(from)
}

// move counts a job that goes from one state to another; "" is none.
func (c *change) move(lane, tenant string, from, to store.State) {
	l := c.lane(lane, tenant)
	if i := stateIndex(from); i >= 0 {
		l.n[i]--
	}
	if i := stateIndex(to); i >= 0 {
		l.n[i]++
	}
	if to == store.Ready {
		c.ready = true
		delete(c.q.barren, lane)
	}
}

func (c *change) lane(lane, tenant string) *laneChange {
	l := c.lanes[lane]
	if l == nil {
		l = &laneChange{tenant: tenant}
		c.lanes[lane] = l
	}
	return l
}

// flush writes the lanes. One that becomes ready again starts at the floor: being idle earns no credit.
func (c *change) flush() error {
	for lane, l := range c.lanes {
		_, err := c.exec(`INSERT INTO lanes (lane, tenant, scheduled, ready, running, parked, succeeded, dead, cancelled, expired, vtime)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (lane) DO UPDATE SET
			scheduled = scheduled + excluded.scheduled, ready = ready + excluded.ready, running = running + excluded.running,
			parked = parked + excluded.parked, succeeded = succeeded + excluded.succeeded, dead = dead + excluded.dead,
			cancelled = cancelled + excluded.cancelled, expired = expired + excluded.expired,
			vtime = CASE WHEN ready <= 0 AND excluded.ready > 0 THEN max(vtime, ?) ELSE vtime END + ?`,
			lane, l.tenant, l.n[0], l.n[1], l.n[2], l.n[3], l.n[4], l.n[5], l.n[6], l.n[7], c.q.floor+l.vtime,
			c.q.floor, l.vtime)
		if err != nil {
			return err
		}
	}
	clear(c.lanes)
	return nil
}

// jobColumns are what scanJob reads.
const jobColumns = `_id, tenant, type, lane, payload, state, runAt, expiresAt, attempt, maxAttempts, starts, crashes,
	token, owner, leaseUntil, uniqueKey, causation, errors, result, createdAt, startedAt, endedAt`

func scanJob(r row) store.Job {
	j := store.Job{
		ID: r.text(0), Tenant: r.text(1), Type: r.text(2), Lane: r.text(3),
		Payload: []byte(r.text(4)), State: store.State(r.text(5)),
		RunAt: timeAt(r, 6), ExpiresAt: timeAt(r, 7),
		Attempt: int(r.int(8)), MaxAttempts: int(r.int(9)), Starts: int(r.int(10)), Crashes: int(r.int(11)),
		Token: r.int(12), Owner: r.text(13), LeaseUntil: timeAt(r, 14), UniqueKey: r.text(15),
		CreatedAt: timeAt(r, 19), StartedAt: timeAt(r, 20), EndedAt: timeAt(r, 21),
	}
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
	es = es[max(0, len(es)-maxErrors):]
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

func invalid(format string, args ...any) error {
	return fmt.Errorf("store: "+format, args...)
}
