// Package store is the storage contract: records of declared kinds, found by
// declared fields, written by atomic commits. It knows no domain.
//
// The engines (store/sqlite) implement DB, Queue and Inbox and nothing else;
// storetest holds the contract as a test suite that every engine passes. Domains
// declare a Kind each and use it; they never see an engine.
//
// Searchable fields are computed in Go by the domain (lower-cased, normalised,
// times as int64 milliseconds): an engine compares bytes and int64 and nothing
// else, so that no collation, null or date rule of an engine can leak.
package store

import (
	"context"
	"errors"
	"fmt"
)

// Limits of the contract; exceeding one is ErrTooLarge.
const (
	MaxDoc    = 4 << 20 // bytes of one document
	MaxField  = 1024    // bytes of one text field value
	MaxMulti  = 256     // values of one multi field
	MaxID     = 256     // bytes of an id
	MaxWrites = 2000    // writes of one commit
	MaxLimit  = 10_000  // records of one Find
)

// Errors of the contract. Engines wrap them; compare with errors.Is.
var (
	// ErrConflict: a write's IfVersion did not hold, or what it updates is not there.
	ErrConflict = errors.New("store: conflict")
	// ErrDuplicate: an Insert found its id or a unique value taken.
	ErrDuplicate = errors.New("store: duplicate")
	// ErrTooLarge: a limit of the contract is exceeded.
	ErrTooLarge = errors.New("store: too large")
	// ErrUnavailable: the engine cannot read or write now (disk full, I/O error, server away). Nothing of the commit is there.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrQuery: the engine understands the query and can never run it: it is too large, or not as the engine was built.
	ErrQuery = errors.New("store: impossible query")
	// ErrClosed: the handle was closed.
	ErrClosed = errors.New("store: closed")
	// ErrNotFound: Kind.Get found no record.
	ErrNotFound = errors.New("store: not found")
)

// Record is one stored document.
type Record struct {
	ID      string
	Version int64  // 1 when inserted, +1 with every change
	Seq     int64  // place in its kind's order of commits; only of sequenced kinds
	Doc     []byte // JSON
}

// Type is what a field's values are.
type Type int

// The two types. Text compares by bytes, Int as int64.
const (
	Text Type = iota
	Int
)

// Field is a searchable field of a kind.
type Field struct {
	Name   string // camelCase; the engines use it in their own schema
	Type   Type
	Multi  bool // several values ([]string); Eq and Prefix then mean "one of them"
	Unique bool // no two records share a value; records without the field do not count
	// Still says that updates seldom change it. It is a hint to the engine, and never needs to be true.
	Still bool `json:"-"`
}

// Schema declares a kind.
type Schema struct {
	Kind   string // camelCase plural; the table or collection
	Fields []Field
	// Orders lists compound indexes: equality fields first, the ordering field last (id breaks ties).
	Orders [][]string
	// Sequenced kinds give every inserted record the next number of the database, in the order of commits.
	Sequenced bool
	// Watched kinds tell through Changes what was written, by us or by an operator's hand.
	Watched bool
}

// Fields are the searchable values of one record: string, int64 or []string (multi). An absent field is not found by any term.
type Fields map[string]any

// Op compares a field with values.
type Op int

// The operators. In takes any number of values, the others one.
const (
	Eq Op = iota
	In
	Lt
	Le
	Gt
	Ge
	Prefix // Text only
)

// Term is one condition; Values are string or int64 as the field's type. Field "" is the id (Eq, In, Gt, Lt).
type Term struct {
	Field  string
	Op     Op
	Values []any
}

// Where makes a term.
func Where(field string, op Op, values ...any) Term { return Term{field, op, values} }

// Query finds records that satisfy every term.
type Query struct {
	Kind  string
	Where []Term
	// Order is a single-valued field, "seq" (sequenced kinds) or "" (by id). Records without the field come
	// before all others (after them when Desc). Ties are broken by id in the same direction.
	Order string
	Desc  bool
	After *Cursor // only what comes after this place in the order
	Limit int     // 1 to MaxLimit; 0 means 100
}

// Cursor is a place in an order: the ordering field's value (string, int64, or nil where absent) and the id.
type Cursor struct {
	Value any
	ID    string
}

// Action is what a write does.
type Action int

// The actions.
const (
	Insert Action = iota // ErrDuplicate if the id or a unique value is there
	Ensure               // insert if the id is not there, else leave all as it is; a taken unique value is still ErrDuplicate
	Put                  // replace; with IfVersion 0 insert or replace; with IfVersion n only version n, else ErrConflict
	Delete               // with IfVersion n only version n, else ErrConflict; with 0 an absent record is no error
	Check                // change nothing; ErrConflict unless the record stands at IfVersion (0: is absent)
)

// Write is one step of a commit.
type Write struct {
	Action    Action
	Kind      string
	ID        string
	IfVersion int64
	Doc       []byte
	Fields    Fields
}

// DB is one database: the services database or one tenant's.
//
// All methods may be called concurrently. Errors other than the contract's and the context's wrap ErrUnavailable.
type DB interface {
	// Get gives the records of a kind with these ids, in the order asked; absent ones are left out.
	Get(ctx context.Context, kind string, ids ...string) ([]Record, error)
	// Find gives the matching records in the query's order.
	Find(ctx context.Context, q Query) ([]Record, error)
	// Count counts the matching records; order, cursor and limit are ignored.
	Count(ctx context.Context, q Query) (int64, error)
	// Commit applies the writes in order and returns when they are durable. An engine with transactions applies
	// all or none; another may leave any prefix standing after a crash or a conflict, so order them: facts with
	// derived ids first, the deciding record last.
	Commit(ctx context.Context, writes ...Write) error
	// Changes gives the ids of a watched kind written since the cursor (0: from the beginning), oldest first, at
	// most 1,000 at a time, and the cursor to go on from. An id may come twice. Deleted ids come too.
	Changes(ctx context.Context, kind string, since int64) (ids []string, next int64, err error)
	// Close releases the database; a call under way finishes first.
	Close() error
}

// Check tells whether the writes keep the contract's limits and name known kinds and fields. Engines call it first.
func (w Write) Check(schemas map[string]Schema) error {
	s, ok := schemas[w.Kind]
	if !ok {
		return fmt.Errorf("store: unknown kind %q", w.Kind)
	}
	if w.ID == "" || len(w.ID) > MaxID {
		return fmt.Errorf("%w: id of %d bytes in %s", ErrTooLarge, len(w.ID), w.Kind)
	}
	if len(w.Doc) > MaxDoc {
		return fmt.Errorf("%w: document of %d bytes in %s", ErrTooLarge, len(w.Doc), w.Kind)
	}
	for name, v := range w.Fields {
		f, ok := s.Field(name)
		if !ok {
			return fmt.Errorf("store: kind %s declares no field %q", w.Kind, name)
		}
		if err := f.check(v); err != nil {
			return fmt.Errorf("%s.%s: %w", w.Kind, name, err)
		}
	}
	return nil
}

// Field finds a declared field.
func (s Schema) Field(name string) (Field, bool) {
	for _, f := range s.Fields {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// FieldOf gives the field that a term is about, "_id" where it names none, once it is known that its values fit.
func (s Schema) FieldOf(t Term) (Field, error) {
	f, ok := Field{Name: "_id"}, true
	if t.Field != "" {
		f, ok = s.Field(t.Field)
	}
	if !ok {
		return f, fmt.Errorf("no field %q", t.Field)
	}
	if t.Op != In && len(t.Values) != 1 {
		return f, fmt.Errorf("%d values for one of %s", len(t.Values), t.Field)
	}
	for _, v := range t.Values {
		fits := false
		switch v.(type) {
		case string:
			fits = f.Type == Text
		case int64:
			fits = f.Type == Int
		}
		if !fits {
			return f, fmt.Errorf("a value of type %T for %s", v, t.Field)
		}
	}
	return f, nil
}

func (f Field) check(v any) error {
	switch x := v.(type) {
	case string:
		if f.Type != Text || f.Multi {
			return errors.New("store: text in a field of another type")
		}
		if len(x) > MaxField {
			return fmt.Errorf("%w: value of %d bytes", ErrTooLarge, len(x))
		}
	case int64:
		if f.Type != Int || f.Multi {
			return errors.New("store: integer in a field of another type")
		}
	case []string:
		if f.Type != Text || !f.Multi {
			return errors.New("store: list in a single field")
		}
		if len(x) > MaxMulti {
			return fmt.Errorf("%w: %d values", ErrTooLarge, len(x))
		}
		for _, e := range x {
			if len(e) > MaxField {
				return fmt.Errorf("%w: value of %d bytes", ErrTooLarge, len(e))
			}
		}
	default:
		return fmt.Errorf("store: value of type %T", v)
	}
	return nil
}

// Successor gives the least text above all that begin with a prefix, for engines; "" if there is none. Texts compare by
// their bytes.
func Successor(prefix string) string {
	b := []byte(prefix)
	for len(b) > 0 {
		if last := len(b) - 1; b[last] < 0xff {
			b[last]++
			return string(b)
		}
		b = b[:len(b)-1]
	}
	return ""
}
