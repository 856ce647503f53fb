package sqlite

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// maxBatch bounds the writes that share a commit, and so how long the first of them waits for the last.
const maxBatch = 256

// write runs fn in a transaction and returns when it is durable.
//
// Concurrent callers share the transaction, its COMMIT and its fsync: their fns run one after another, in the
// order of the calls. An fn's error undoes that fn and is given to its caller alone. What SQLite itself cannot
// do (disk full, I/O error, a failed COMMIT) is store.ErrUnavailable to everybody in the transaction, and
// nothing of it is there. A panic of fn undoes it and goes on in the caller. Once fn has begun, write waits
// for its end even if ctx is done.
func (f *file) write(ctx context.Context, fn func(tx *wtx) error) error {
	return f.enqueue(ctx, &request{fn: fn})
}

// writeOne is write for an fn that changes something by at most one statement, its last: such a statement
// undoes itself when it fails, so no savepoint is set.
func (f *file) writeOne(ctx context.Context, fn func(tx *wtx) error) error {
	return f.enqueue(ctx, &request{fn: fn, one: true})
}

// writeSure is write for an fn that only what SQLite itself cannot do makes fail: no savepoint is set. Should it fail
// otherwise after it wrote, the whole transaction does.
func (f *file) writeSure(ctx context.Context, fn func(tx *wtx) error) error {
	return f.enqueue(ctx, &request{fn: fn, sure: true})
}

// writeRedoable is write for a change that is made again if a power cut undoes it: where it shares its transaction with
// no other kind, COMMIT does not wait for the disk. The end of the process undoes nothing.
func (f *file) writeRedoable(ctx context.Context, fn func(tx *wtx) error) error {
	return f.enqueue(ctx, &request{fn: fn, redo: true})
}

// writeJoint is write for one of many small changes of a kind: those that wait for the same transaction are done by one
// call of joint, which is given all their steps, so that what each would pay alone is paid once. If that fails, it is
// undone, and each is done by a call of its own: a step must be able to be done again.
func (f *file) writeJoint(ctx context.Context, joint func(tx *wtx, steps []jointStep) error, step jointStep) error {
	return f.enqueue(ctx, &request{fn: func(tx *wtx) error { return joint(tx, []jointStep{step}) }, joint: joint, step: step})
}

// jointStep is what one caller of writeJoint wants done; its transaction knows what of.
type jointStep func(c *change) error

type request struct {
	fn    func(tx *wtx) error
	joint func(tx *wtx, steps []jointStep) error // writeJoint's; all of a file are one
	step  jointStep
	one   bool
	sure  bool
	redo  bool
	taken atomic.Bool // by the writer, to run it, or by its caller, to withdraw it
	done  chan struct{}
	err   error
	panic any
}

func (f *file) enqueue(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.done = make(chan struct{})
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return store.ErrClosed
	}
	f.queue = append(f.queue, r)
	if !f.writing { // no goroutine stays behind for an idle file
		f.writing = true
		f.calls.Add(1)
		go f.drain()
	}
	f.calls.Add(1)
	f.mu.Unlock()
	defer f.calls.Done()

	select {
	case <-r.done:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-r.done
	}
	if r.panic != nil {
		panic(r.panic)
	}
	return unavailable(r.err)
}

// drain commits what is queued until nothing is. One runs at a time; it alone touches f.w.
func (f *file) drain() {
	defer f.calls.Done()
	batch := make([]*request, 0, maxBatch)
	for {
		f.mu.Lock()
		n := min(len(f.queue), maxBatch)
		if n == 0 {
			f.queue, f.writing, f.wrote = nil, false, time.Now()
			f.sweepLater()
			f.mu.Unlock()
			return
		}
		batch = append(batch[:0], f.queue[:n]...)
		f.queue = f.queue[n:]
		f.mu.Unlock()

		batch = f.commit(batch)
		for _, r := range batch {
			close(r.done)
		}
		clear(batch)
		runtime.Gosched() // those just answered may have more: let it share the next commit
	}
}

// commit runs the requests in one transaction and sets their results. Where it is to wait for the disk, those that have
// come meanwhile take part, so that they need not wait for it once more; it gives all that took part.
func (f *file) commit(batch []*request) []*request {
	began := time.Now()
	tx := &wtx{}
	ran := make([]*request, 0, len(batch))
	relaxed := !slices.ContainsFunc(batch, func(r *request) bool { return !r.redo })
	err := f.begin(tx, relaxed)
	for fresh := batch; len(fresh) > 0; {
		from := len(ran)
		for _, r := range fresh {
			if r.taken.CompareAndSwap(false, true) {
				ran = append(ran, r)
			}
		}
		for rest := ran[from:]; len(rest) > 0 && err == nil; {
			n := jointly(rest)
			err = f.runAll(tx, rest[:n])
			rest = rest[n:]
		}
		fresh = nil
		if !relaxed && err == nil && from == 0 {
			fresh = f.late(maxBatch - len(batch))
			batch = append(batch, fresh...)
		}
	}
	if err == nil {
		_, err = f.w.exec(context.Background(), "COMMIT")
	}
	if err != nil {
		f.rollback(err)
		for _, r := range ran {
			if r.err == nil && r.panic == nil || ends(r.err) {
				r.err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
			}
		}
		return batch
	}
	if f := f.observe.Load(); f != nil && len(ran) > 0 {
		(*f)(len(ran), time.Since(began))
	}
	for _, hook := range tx.hooks {
		hook()
	}
	return batch
}

// late takes what has come while a transaction was under way.
func (f *file) late(most int) []*request {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(f.queue), most)
	fresh := slices.Clone(f.queue[:n])
	f.queue = f.queue[n:]
	return fresh
}

// begin starts a transaction, on a new connection if there is none. relaxed: its COMMIT need not reach the disk.
func (f *file) begin(tx *wtx, relaxed bool) (err error) {
	if f.w == nil {
		if f.w, err = f.connect(context.Background(), true); err != nil {
			f.w = nil
			return err
		}
		f.relaxed = false
	}
	tx.c = f.w
	if relaxed != f.relaxed {
		pragma := "PRAGMA synchronous = FULL"
		if relaxed {
			pragma = "PRAGMA synchronous = NORMAL"
		}
		if _, err = f.w.exec(context.Background(), pragma); err != nil {
			return err
		}
		f.relaxed = relaxed
	}
	_, err = f.w.exec(context.Background(), "BEGIN IMMEDIATE")
	return err
}

// rollback ends a transaction that failed, and the connection with it unless the trouble lies outside of both.
func (f *file) rollback(cause error) {
	if f.w == nil {
		return
	}
	_, _ = f.w.exec(context.Background(), "ROLLBACK") // fails if SQLite did it itself
	switch code(cause) & 0xff {
	case codeBusy, codeFull:
		return
	}
	_ = f.w.close()
	f.w = nil
}

// jointly tells how many of the first requests may be run by one call.
func jointly(rs []*request) int {
	n := 1
	if rs[0].joint != nil {
		for n < len(rs) && rs[n].joint != nil {
			n++
		}
	}
	return n
}

// runAll runs requests in the transaction, by one call if they are several. The error it returns is the end of the whole
// transaction.
func (f *file) runAll(tx *wtx, rs []*request) error {
	if len(rs) > 1 {
		steps := make([]jointStep, len(rs))
		for i, r := range rs {
			steps[i] = r.step
		}
		all := &request{fn: func(tx *wtx) error { return rs[0].joint(tx, steps) }}
		if err := f.run(tx, all); err != nil || all.err == nil && all.panic == nil {
			return err
		}
	}
	for _, r := range rs {
		if err := f.run(tx, r); err != nil {
			return err
		}
	}
	return nil
}

// run runs one request in the transaction. The error it returns is the end of the whole transaction.
func (f *file) run(tx *wtx, r *request) error {
	bg := context.Background()
	// Undoing the first that writes is a ROLLBACK; only those behind it need a savepoint.
	save := tx.kept && !r.one && !r.sure
	if save {
		if _, err := tx.c.exec(bg, "SAVEPOINT one"); err != nil {
			return err
		}
	}
	hooks := len(tx.hooks)
	tx.one, tx.wrote, tx.broken = r.one, 0, nil
	tx.call(r)
	switch {
	case tx.broken != nil: // whatever fn made of it
		return tx.broken
	case r.err == nil && r.panic == nil:
		tx.kept = tx.kept || tx.wrote > 0
		if save {
			_, err := tx.c.exec(bg, "RELEASE one")
			return err
		}
		return nil
	}
	clear(tx.hooks[hooks:])
	tx.hooks, tx.seq = tx.hooks[:hooks], 0
	switch {
	case save:
		if _, err := tx.c.exec(bg, "ROLLBACK TO one"); err != nil {
			return err
		}
		_, err := tx.c.exec(bg, "RELEASE one")
		return err
	case tx.wrote == 0:
		return nil
	case !tx.kept:
		if _, err := tx.c.exec(bg, "ROLLBACK"); err != nil {
			return err
		}
		_, err := tx.c.exec(bg, "BEGIN IMMEDIATE")
		return err
	}
	return fmt.Errorf("a write without a savepoint failed after it was done: %w", r.err)
}

// wtx is the transaction as one fn sees it. It must not be used after fn returned.
type wtx struct {
	c      *conn
	kept   bool  // an fn before this one wrote
	one    bool  // this fn promised one write
	wrote  int   // statements of this fn that changed something
	broken error // what made the transaction unusable
	hooks  []func()
	seq    int64 // the last number given to a record in this transaction; 0: not read yet
}

func (tx *wtx) call(r *request) {
	defer func() {
		if p := recover(); p != nil {
			r.panic = fmt.Sprintf("%v\n\nin the writer:\n%s", p, debug.Stack())
		}
	}()
	r.err = r.fn(tx)
}

func (tx *wtx) write() {
	if tx.wrote++; tx.one && tx.wrote > 1 {
		panic("store/sqlite: a second write in writeOne")
	}
}

func (tx *wtx) failed(err error) error {
	if ends(err) {
		tx.broken = err
	}
	return err
}

// exec runs one INSERT, UPDATE or DELETE and tells how many rows it changed (not counting triggers').
func (tx *wtx) exec(sql string, args ...any) (int64, error) {
	n, err := tx.c.exec(context.Background(), sql, args...)
	if n > 0 {
		tx.write()
	}
	return n, tx.failed(err)
}

// rows runs a query; anything but a SELECT (say UPDATE … RETURNING) counts as a write.
func (tx *wtx) rows(sql string, args ...any) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		if !isSelect(sql) {
			tx.write()
		}
		for r, err := range tx.c.rows(context.Background(), sql, args...) {
			if !yield(r, tx.failed(err)) {
				return
			}
		}
	}
}

func isSelect(sql string) bool {
	sql = strings.TrimSpace(sql)
	return len(sql) > 6 && strings.EqualFold(sql[:6], "SELECT")
}

// first gives the first row of a query; nil if there is none.
func (tx *wtx) first(sql string, args ...any) (row, error) {
	for r, err := range tx.rows(sql, args...) {
		return r, err
	}
	return nil, nil
}

// script runs statements that take no arguments (DDL).
func (tx *wtx) script(sql string) error {
	tx.write()
	return tx.failed(tx.c.script(sql))
}

// onCommit has fn run once the transaction is durable, before any caller is told: keep it short.
func (tx *wtx) onCommit(fn func()) { tx.hooks = append(tx.hooks, fn) }
