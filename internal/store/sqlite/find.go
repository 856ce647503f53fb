package sqlite

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	defaultLimit = 100
	maxParams    = 256 // values of one term that are bound singly
)

// Find is store.DB's.
func (db *DB) Find(ctx context.Context, q store.Query) ([]store.Record, error) {
	s, err := db.search(q)
	if err != nil {
		return nil, err
	}
	s.prepare(q)
	switch {
	case q.Limit < 0:
		return nil, fmt.Errorf("store: limit %d", q.Limit)
	case q.Limit > store.MaxLimit:
		return nil, fmt.Errorf("%w: limit %d", store.ErrTooLarge, q.Limit)
	case q.Limit == 0:
		q.Limit = defaultLimit
	}
	parts, err := s.parts(q)
	if err != nil {
		return nil, err
	}
	var out []store.Record
	fn := func(c *conn) error {
		if s.none {
			return nil
		}
		if err := s.drive(ctx, c, q); err != nil {
			return err
		}
		parts, err := s.parts(q)
		if err != nil {
			return err
		}
		for _, p := range parts {
			sql, args := s.sql(s.t.columns, p)
			sql += s.order(q)
			args = append(args, q.Limit-len(out))
			for r, err := range c.rows(ctx, sql, args...) {
				if err != nil {
					return err
				}
				out = append(out, record(r))
			}
			if len(out) == q.Limit {
				break
			}
		}
		return nil
	}
	if len(parts) > 1 || s.counts(q) { // several statements
		err = db.f.snapshot(ctx, fn)
	} else {
		err = db.f.read(ctx, fn)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Count is store.DB's.
func (db *DB) Count(ctx context.Context, q store.Query) (n int64, err error) {
	s, err := db.search(q)
	if err != nil {
		return 0, err
	}
	read := db.f.read
	if s.counts(store.Query{}) {
		read = db.f.snapshot
	}
	err = read(ctx, func(c *conn) error {
		if s.none {
			return nil
		}
		if err := s.drive(ctx, c, store.Query{}); err != nil {
			return err
		}
		sql, args := s.sql("count(*)", cond{})
		if len(s.having) == 1 && len(s.terms) == 0 {
			sql, args = "SELECT count(*) FROM "+s.having[0].side+" WHERE value = ?", []any{s.having[0].value}
		}
		r, err := c.first(ctx, sql, args...)
		if err != nil {
			return err
		}
		n = r.int(0)
		return nil
	})
	return n, err
}

// cond is a condition of SQL with its arguments.
type cond struct {
	sql  string
	args []any
}

// search is a query's terms as SQL.
type search struct {
	t      *table
	terms  []condition
	having []having // records must have these values in multi fields
	driver int      // the one of having that the query starts from; -1: none
	leader int      // the one of terms that it starts from instead; -1: none
	maybe  []int    // the terms that it may start from rather than from the index of its order
	chosen bool     // where it starts from is decided, and not left to SQLite
	none   bool     // nothing can satisfy the terms
}

// condition is a term: as an index may seek what satisfies it, and as it sifts what something else found.
type condition struct {
	field      store.Field
	op         store.Op
	seek, sift cond
	found      cond // what there is to find, for counting
}

type having struct {
	side  string
	value any
}

func (db *DB) search(q store.Query) (*search, error) {
	t, err := db.table(q.Kind)
	if err != nil {
		return nil, err
	}
	s := &search{t: t, driver: -1, leader: -1}
	for _, term := range q.Where {
		if err := s.add(term); err != nil {
			return nil, fmt.Errorf("store: %s: %w", q.Kind, err)
		}
	}
	return s, nil
}

func (s *search) add(term store.Term) error {
	f, err := s.t.FieldOf(term)
	if err != nil {
		return err
	}
	if f.Multi && term.Op == store.Eq {
		s.having = append(s.having, having{s.t.side(f.Name), term.Values[0]})
		return nil
	}
	column := "t." + quote(f.Name)
	if f.Multi {
		column = "value"
	}
	seek, err := compare(f, column, term)
	if err != nil {
		return err
	}
	if seek.sql == "" {
		s.none = true
		return nil
	}
	sift, err := compare(f, "+"+column, term) // a column with a sign is in no index
	if err != nil {
		return err
	}
	found := cond{quote(s.t.Kind) + " t WHERE " + seek.sql, seek.args}
	if f.Multi {
		side := s.t.side(f.Name)
		found.sql = side + " WHERE " + seek.sql
		seek.sql = "t._id IN (SELECT _id FROM " + side + " WHERE " + seek.sql + ")"
		sift.sql = "EXISTS (SELECT 1 FROM " + side + " WHERE _id = t._id AND " + sift.sql + ")"
	}
	s.terms = append(s.terms, condition{f, term.Op, seek, sift, found})
	return nil
}

// compare makes the condition of a term on a column; none where nothing can satisfy it.
func compare(f store.Field, column string, term store.Term) (cond, error) {
	c := cond{args: term.Values}
	switch term.Op {
	case store.Eq:
		c.sql = column + " = ?"
	case store.In:
		if len(term.Values) == 0 {
			return cond{}, nil
		}
		c = in(column, f.Type, term.Values)
	case store.Lt, store.Le, store.Gt, store.Ge:
		if f.Multi {
			return c, fmt.Errorf("%s has several values and no order", f.Name)
		}
		c.sql = column + [...]string{store.Lt: " < ?", store.Le: " <= ?", store.Gt: " > ?", store.Ge: " >= ?"}[term.Op]
	case store.Prefix:
		if f.Type != store.Text {
			return c, fmt.Errorf("a prefix of %s, which is no text", f.Name)
		}
		c.sql = column + " >= ?"
		if end := store.Successor(term.Values[0].(string)); end != "" {
			c.sql += " AND " + column + " < ?"
			c.args = []any{term.Values[0], end}
		}
	default:
		return c, fmt.Errorf("unknown operator %d", term.Op)
	}
	return c, nil
}

// in binds some values singly, in a number of lengths small enough to keep the statements prepared, and many as a
// JSON list, texts in hex since they may be any bytes.
func in(column string, typ store.Type, values []any) cond {
	if len(values) <= maxParams {
		n := 1
		for n < len(values) {
			n *= 2
		}
		args := append(make([]any, 0, n), values...)
		for len(args) < n {
			args = append(args, values[0])
		}
		return cond{column + " IN (?" + strings.Repeat(", ?", n-1) + ")", args}
	}
	value := "value"
	list := values
	if typ == store.Text {
		value = "CAST(unhex(value) AS TEXT)"
		list = make([]any, len(values))
		for i, v := range values {
			list[i] = hex.EncodeToString([]byte(v.(string)))
		}
	}
	b, _ := json.Marshal(list) // strings and int64 always marshal
	return cond{column + " IN (SELECT " + value + " FROM json_each(?))", []any{text(b)}}
}

// prepare finds the terms of an ordered query of which it is not known beforehand whether it should start from them or
// walk the index of its order. It is known of a unique value, of the order's own field, and of equal fields that stand
// before the order in an index.
func (s *search) prepare(q store.Query) {
	if _, ok := s.t.Field(q.Order); !ok {
		return
	}
	for _, t := range s.terms {
		if t.field.Name == "_id" || t.field.Unique && t.op == store.Eq {
			return
		}
	}
	walked := s.walked(q.Order)
	for i, t := range s.terms {
		if t.field.Name != q.Order && (t.op != store.Eq || !slices.Contains(walked, t.field.Name)) {
			s.maybe = append(s.maybe, i)
		}
	}
}

// walked gives the fields that stand before the order's in the index that has most of those that must be equal.
func (s *search) walked(order string) []string {
	equal := map[string]bool{}
	for _, t := range s.terms {
		equal[t.field.Name] = equal[t.field.Name] || t.op == store.Eq
	}
	var best []string
	for _, o := range s.t.Orders {
		before := o[:max(0, len(o)-1)]
		if len(o) > 0 && o[len(o)-1] == order && len(before) > len(best) && !slices.ContainsFunc(before, func(f string) bool { return !equal[f] }) {
			best = before
		}
	}
	return best
}

// drive chooses what the query starts from. A value that n of N records have costs n look-ups and a sort if the
// query starts from it, and limit * N / n if the order's index is walked until enough have it: so the rarest of
// the values leads unless n is beyond the root of limit * N. Without an order there is nothing else to walk.
func (s *search) drive(ctx context.Context, c *conn, q store.Query) error {
	if !s.counts(q) {
		if len(s.having) == 1 { // its table has the order already
			s.driver = 0
		}
		return nil
	}
	var least int64
	if q.Order != "" {
		r, err := c.first(ctx, "SELECT max(rowid) FROM "+quote(s.t.Kind)) // N, or a little more
		if err != nil {
			return err
		}
		least = int64(math.Sqrt(float64(q.Limit)*float64(r.int(0)))) + 1
	} else {
		s.driver = 0
		least = 10_000 // of two that are so frequent, either will do
	}
	for i, h := range s.having {
		r, err := c.first(ctx, "SELECT count(*) FROM (SELECT 1 FROM "+h.side+" WHERE value = ? LIMIT ?)", h.value, least)
		if err != nil {
			return err
		}
		if n := r.int(0); n < least {
			s.driver, least = i, n
		}
	}
	for _, i := range s.maybe {
		found, weight := s.terms[i].found, int64(1)
		switch s.terms[i].op {
		case store.Lt, store.Le, store.Gt, store.Ge:
			// A stretch of one order often lies at the far end of another: the oldest are the last in use.
			weight = 4
		}
		r, err := c.first(ctx, "SELECT count(*) FROM (SELECT 1 FROM "+found.sql+" LIMIT ?)", append(slices.Clone(found.args), weight*least)...)
		if err != nil {
			return err
		}
		if n := r.int(0) / weight; n < least {
			s.driver, s.leader, least = -1, i, n
		}
	}
	s.chosen = q.Order != ""
	return nil
}

// counts tells whether drive needs numbers from the database for its choice.
func (s *search) counts(q store.Query) bool {
	return len(s.having) > 1 || len(s.having) == 1 && q.Order != "" || len(s.maybe) > 0
}

// cond gives a term in the form that fits what the query starts from.
func (s *search) cond(i int) cond {
	if s.chosen && i != s.leader && (s.sorts() || slices.Contains(s.maybe, i)) {
		return s.terms[i].sift
	}
	return s.terms[i].seek
}

// sorts tells whether the query starts from something else than the index of its order.
func (s *search) sorts() bool { return s.leader >= 0 || s.driver >= 0 }

// ordered is a column to order by; with a sign, lest its index be walked, where the query starts from something else.
func (s *search) ordered(field string) string {
	if s.leader >= 0 {
		return "+t." + quote(field)
	}
	return "t." + quote(field)
}

// sql makes the statement up to its order.
func (s *search) sql(columns string, place cond) (string, []any) {
	var b strings.Builder
	var args []any
	b.WriteString("SELECT " + columns + " FROM ")
	and := " WHERE "
	add := func(c cond) {
		if c.sql != "" {
			b.WriteString(and + c.sql)
			args = append(args, c.args...)
			and = " AND "
		}
	}
	if s.driver >= 0 { // CROSS: in this order
		h := s.having[s.driver]
		b.WriteString(h.side + " m CROSS JOIN " + quote(s.t.Kind) + " t ON t._id = m._id")
		add(cond{"m.value = ?", []any{h.value}})
	} else {
		b.WriteString(quote(s.t.Kind) + " t")
	}
	for i := range s.terms {
		add(s.cond(i))
	}
	for i, h := range s.having {
		if i != s.driver {
			add(cond{"EXISTS (SELECT 1 FROM " + h.side + " WHERE value = ? AND _id = t._id)", []any{h.value}})
		}
	}
	add(place)
	return b.String(), args
}

// id is the column to order by: of two that are equal, the one that comes in order.
func (s *search) id() string {
	if s.driver >= 0 {
		return "m._id"
	}
	return "t._id"
}

func (s *search) order(q store.Query) string {
	desc := ""
	if q.Desc {
		desc = " DESC"
	}
	by := s.id() + desc
	switch {
	case q.Order == "seq" && s.t.Sequenced:
		by = "t.seq" + desc
	case q.Order != "":
		by = s.ordered(q.Order) + desc + ", t._id" + desc
	}
	return " ORDER BY " + by + " LIMIT ?"
}

// parts gives the conditions of the cursor, one for each stretch of the order that is one stretch of an index:
// records without the ordering field stand apart, first when ascending (SQLite's NULLs, and the contract's).
func (s *search) parts(q store.Query) ([]cond, error) {
	beyond := " > "
	if q.Desc {
		beyond = " < "
	}
	a := q.After
	switch {
	case q.Order == "":
		if a == nil {
			return []cond{{}}, nil
		}
		return []cond{{s.id() + beyond + "?", []any{a.ID}}}, nil
	case q.Order == "seq" && s.t.Sequenced:
		if a == nil {
			return []cond{{}}, nil
		}
		n, ok := a.Value.(int64)
		if !ok {
			return nil, fmt.Errorf("store: %s: a cursor of type %T for seq", q.Kind, a.Value)
		}
		return []cond{{"t.seq" + beyond + "?", []any{n}}}, nil
	}
	f, ok := s.t.Field(q.Order)
	if !ok || f.Multi {
		return nil, fmt.Errorf("store: %s: no order by %q", q.Kind, q.Order)
	}
	if a == nil {
		return []cond{{}}, nil
	}
	col := s.ordered(f.Name)
	switch v := a.Value.(type) {
	case nil:
		absent := cond{col + " IS NULL AND t._id" + beyond + "?", []any{a.ID}}
		if q.Desc {
			return []cond{absent}, nil
		}
		return []cond{absent, {col + " IS NOT NULL", nil}}, nil
	case string, int64:
		if _, isText := v.(string); isText != (f.Type == store.Text) {
			return nil, fmt.Errorf("store: %s: a cursor of type %T for %s", q.Kind, v, q.Order)
		}
		present := cond{"(" + col + ", t._id)" + beyond + "(?, ?)", []any{v, a.ID}}
		if q.Desc {
			return []cond{present, {col + " IS NULL", nil}}, nil
		}
		return []cond{present}, nil
	}
	return nil, errors.New("store: a cursor of another type than text or integer")
}
