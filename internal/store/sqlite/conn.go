package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"path/filepath"
	"sync"
	"unsafe"

	sqlite3 "modernc.org/sqlite"

	"github.com/ecodrix/ecod/internal/store"
)

// SQLite's primary result codes (sqlite.org/rescode.html) that decide something here.
const (
	codeError      = 1
	codeBusy       = 5
	codeFull       = 13
	codeTooBig     = 18
	codeConstraint = 19
	codeMismatch   = 20
	codeRange      = 25
)

// maxStmts bounds the prepared statements of one connection; each costs some kilobytes.
const maxStmts = 64

// conn is one connection with its prepared statements. It is the driver's own connection, not
// database/sql's, through which such small statements take nearly twice as long. One goroutine at a time.
type conn struct {
	dc    driver.Conn
	stmts map[string]*stmt
	tick  int64
	args  []driver.NamedValue // reused by every call
}

type stmt struct {
	driver.Stmt
	used int64 // tick of the last use
	busy bool  // its rows are being read
}

// ofdLocks asks for locks that belong to the open file, where the system has them: with POSIX locks, any
// other code of this process that opens and closes the file (to copy it, say) would drop SQLite's own.
var ofdLocks = sync.OnceFunc(func() { _, _ = sqlite3.OFDLocking(true) })

func openConn(ctx context.Context, path string, pragmas string) (*conn, error) {
	ofdLocks()
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	connector, err := sqlite3.NewConnector((&url.URL{Scheme: "file", Path: abs}).String())
	if err != nil {
		return nil, err
	}
	dc, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{dc: dc, stmts: map[string]*stmt{}}
	if err := c.script(pragmas); err != nil {
		_ = c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) close() error {
	for _, s := range c.stmts {
		_ = s.Close()
	}
	clear(c.stmts)
	return c.dc.Close()
}

// script runs statements that take no arguments, without keeping them prepared.
func (c *conn) script(sql string) error {
	_, err := c.dc.(driver.ExecerContext).ExecContext(context.Background(), sql, nil)
	return err
}

// prepared gives the statement of a text; done gives it back.
func (c *conn) prepared(sql string) (s *stmt, done func(), err error) {
	c.tick++
	if s = c.stmts[sql]; s != nil && !s.busy {
		s.used, s.busy = c.tick, true
		return s, func() { s.busy = false }, nil
	}
	ds, err := c.dc.Prepare(sql)
	if err != nil {
		return nil, nil, err
	}
	fresh := &stmt{Stmt: ds, used: c.tick, busy: true}
	if s != nil { // the kept one is being read further up the stack
		return fresh, func() { _ = fresh.Close() }, nil
	}
	if len(c.stmts) >= maxStmts {
		c.evict()
	}
	c.stmts[sql] = fresh
	return fresh, func() { fresh.busy = false }, nil
}

func (c *conn) evict() {
	var oldest string
	for sql, s := range c.stmts {
		if !s.busy && (oldest == "" || s.used < c.stmts[oldest].used) {
			oldest = sql
		}
	}
	if oldest != "" {
		_ = c.stmts[oldest].Close()
		delete(c.stmts, oldest)
	}
}

func (c *conn) bind(args []any) ([]driver.NamedValue, error) {
	c.args = c.args[:0]
	for i, a := range args {
		v := driver.NamedValue{Ordinal: i + 1}
		switch x := a.(type) {
		case nil, int64, string, []byte:
			v.Value = a
		case int:
			v.Value = int64(x)
		case bool:
			v.Value = int64(0)
			if x {
				v.Value = int64(1)
			}
		default:
			return nil, fmt.Errorf("store/sqlite: argument %d of type %T", i+1, a)
		}
		c.args = append(c.args, v)
	}
	return c.args, nil
}

// exec runs one INSERT, UPDATE or DELETE and tells how many rows it changed. Arguments are nil, string,
// int64, int, bool or []byte (stored as a BLOB, which no text equals: see text).
func (c *conn) exec(ctx context.Context, sql string, args ...any) (int64, error) {
	s, done, err := c.prepared(sql)
	if err != nil {
		return 0, err
	}
	defer done()
	vs, err := c.bind(args)
	if err != nil {
		return 0, err
	}
	res, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, vs)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row is one row of a result; it is valid until the next one is read, its texts for ever.
type row []driver.Value

func (r row) null(i int) bool { return r[i] == nil }

// text reads a TEXT (or a BLOB, as an operator's hand may have written it); "" for NULL.
func (r row) text(i int) string {
	switch x := r[i].(type) {
	case string:
		return x
	case []byte:
		return string(x)
	case int64:
		return fmt.Sprint(x)
	}
	return ""
}

// bytes reads a TEXT or BLOB; nil for NULL.
func (r row) bytes(i int) []byte {
	switch x := r[i].(type) {
	case []byte:
		return x
	case nil:
		return nil
	}
	return []byte(r.text(i))
}

// int reads an INTEGER; 0 for anything else.
func (r row) int(i int) int64 {
	n, _ := r[i].(int64)
	return n
}

// rows runs a query: for r, err := range c.rows(...). An error is the last thing it gives.
func (c *conn) rows(ctx context.Context, sql string, args ...any) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		s, done, err := c.prepared(sql)
		if err != nil {
			yield(nil, err)
			return
		}
		defer done()
		vs, err := c.bind(args)
		if err != nil {
			yield(nil, err)
			return
		}
		rs, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, vs)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = rs.Close() }() // resets the statement; its errors are those Next gave
		r := make(row, len(rs.Columns()))
		for {
			if err := rs.Next(r); err != nil {
				if !errors.Is(err, io.EOF) {
					yield(nil, err)
				}
				return
			}
			if !yield(r, nil) {
				return
			}
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// first gives the first row of a query; nil if there is none.
func (c *conn) first(ctx context.Context, sql string, args ...any) (row, error) {
	for r, err := range c.rows(ctx, sql, args...) {
		return r, err
	}
	return nil, nil
}

// text lends bytes to an argument as a TEXT without copying them: the driver copies them once, into SQLite's memory.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// code gives SQLite's extended result code of an error; 0 if it is not SQLite's.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite3.Error](err); ok {
		return e.Code()
	}
	return 0
}

// ends tells whether an error leaves the transaction unusable (SQLite may have rolled it back itself), not
// only its statement undone.
func ends(err error) bool {
	switch code(err) & 0xff {
	case 0, codeError, codeTooBig, codeConstraint, codeMismatch, codeRange:
		return false
	}
	return true
}

// impossible makes what SQLite says of the very statement of a query, which waiting does not mend, the contract's.
func impossible(err error) error {
	switch code(err) & 0xff {
	case codeError, codeTooBig, codeMismatch, codeRange:
		return fmt.Errorf("%w: %w", store.ErrQuery, err)
	}
	return err
}

// unavailable wraps an engine's error as the contract has it; the contract's own and the context's pass.
func unavailable(err error) error {
	if err == nil || isContract(err) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

func isContract(err error) bool {
	for _, e := range []error{
		store.ErrUnavailable, store.ErrConflict, store.ErrDuplicate, store.ErrTooLarge, store.ErrClosed,
		store.ErrNotFound, store.ErrKeyReuse, store.ErrQuery, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var r store.Refusal
	return errors.As(err, &r)
}
