package sqlite

import (
	"context"
	"fmt"
	"slices"

	"github.com/ecodrix/ecod/internal/store"
)

// Commit is store.DB's: all or nothing.
func (db *DB) Commit(ctx context.Context, writes ...store.Write) error {
	if len(writes) > store.MaxWrites {
		return fmt.Errorf("%w: %d writes in a commit", store.ErrTooLarge, len(writes))
	}
	steps := make([]step, len(writes))
	for i := range writes {
		if err := writes[i].Check(db.schemas); err != nil {
			return err
		}
		t := db.tables[writes[i].Kind]
		steps[i] = step{Write: &writes[i], t: t, row: t.row(&writes[i]), moving: t.moving(&writes[i])}
	}
	fn := func(tx *wtx) error {
		for i := range steps {
			if err := db.apply(tx, &steps[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(steps) == 1 && len(steps[0].t.multi) == 0 && !steps[0].t.Sequenced {
		return db.f.writeOne(ctx, fn)
	}
	return db.f.write(ctx, fn)
}

// step is a write with what can be made ready outside of the writer.
type step struct {
	*store.Write
	t      *table
	row    []any // the document and the single fields, as the statements take them
	moving []any // what updateMoving takes; nil: it is of no use
}

// moving is for an update that SQLite is to make without a look at the indexes of fields that seldom change: it writes
// every index of which a column is set, whether the value is another or not.
func (t *table) moving(w *store.Write) []any {
	if w.Action != store.Put || w.IfVersion == 0 || t.updateMoving == "" {
		return nil
	}
	args := append(make([]any, 0, 3+len(t.single)), text(w.Doc))
	for _, f := range t.single {
		if !f.Still {
			args = append(args, w.Fields[f.Name])
		}
	}
	args = append(args, w.ID, w.IfVersion)
	for _, f := range t.single {
		if f.Still {
			args = append(args, w.Fields[f.Name])
		}
	}
	return args
}

func (t *table) row(w *store.Write) []any {
	if w.Action == store.Delete || w.Action == store.Check {
		return nil
	}
	row := make([]any, 0, 4+len(t.single))
	row = append(row, text(w.Doc))
	for _, f := range t.single {
		row = append(row, w.Fields[f.Name])
	}
	return row
}

func (db *DB) apply(tx *wtx, s *step) error {
	switch s.Action {
	case store.Insert:
		return db.insert(tx, s)
	case store.Ensure:
		if r, err := tx.first(s.t.version, s.ID); err != nil || r != nil {
			return err
		}
		return db.insert(tx, s)
	case store.Put:
		return db.put(tx, s)
	case store.Delete:
		if s.IfVersion == 0 {
			_, err := tx.exec(s.t.remove, s.ID)
			return err
		}
		n, err := tx.exec(s.t.removeIf, s.ID, s.IfVersion)
		return s.held(n == 1, err)
	case store.Check:
		r, err := tx.first(s.t.version, s.ID)
		if s.IfVersion == 0 {
			return s.held(r == nil, err)
		}
		return s.held(r != nil && r.int(0) == s.IfVersion, err)
	}
	return fmt.Errorf("store: unknown action %d", s.Action)
}

func (s *step) held(ok bool, err error) error {
	if err == nil && !ok {
		return fmt.Errorf("%w: %s", store.ErrConflict, s.Kind)
	}
	return err
}

func (db *DB) insert(tx *wtx, s *step) error {
	args := append(make([]any, 0, len(s.row)+2), s.ID, s.row[0])
	if s.t.Sequenced {
		n, err := db.number(tx)
		if err != nil {
			return err
		}
		args = append(args, n)
	}
	args = append(args, s.row[1:]...)
	if _, err := tx.exec(s.t.insert, args...); err != nil {
		return s.taken(tx, err)
	}
	for _, f := range s.t.multi {
		if err := s.addValues(tx, f, distinct(s.Fields[f.Name])); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) put(tx *wtx, s *step) error {
	var n int64
	var err error
	if s.moving != nil {
		n, err = tx.exec(s.t.updateMoving, s.moving...)
	}
	switch {
	case err != nil || n > 0:
	case s.IfVersion == 0:
		n, err = tx.exec(s.t.update, append(s.row, s.ID)...)
	default:
		n, err = tx.exec(s.t.updateIf, append(s.row, s.ID, s.IfVersion)...)
	}
	if err != nil {
		return s.taken(tx, err)
	}
	if n == 0 {
		if s.IfVersion == 0 {
			return db.insert(tx, s)
		}
		return s.held(false, nil)
	}
	for _, f := range s.t.multi {
		if err := s.replace(tx, f); err != nil {
			return err
		}
	}
	return nil
}

// replace makes a multi field's values those of the write; most often they already are.
func (s *step) replace(tx *wtx, f store.Field) error {
	values := distinct(s.Fields[f.Name])
	var gone []string
	for r, err := range tx.rows(s.t.values[f.Name], s.ID) {
		if err != nil {
			return err
		}
		v := r.text(0)
		if i, ok := slices.BinarySearch(values, v); ok {
			values = slices.Delete(values, i, i+1)
		} else {
			gone = append(gone, v)
		}
	}
	for _, v := range gone {
		if _, err := tx.exec(s.t.dropValue[f.Name], v, s.ID); err != nil {
			return err
		}
	}
	return s.addValues(tx, f, values)
}

func distinct(v any) []string {
	values, _ := v.([]string)
	values = slices.Clone(values)
	slices.Sort(values)
	return slices.Compact(values)
}

// number takes the next number of the database. It is written in the same transaction, so one that is undone
// is given again, and the number of a deleted record never is.
func (db *DB) number(tx *wtx) (int64, error) {
	if tx.seq == 0 {
		r, err := tx.first(db.seqText)
		if err != nil {
			return 0, err
		}
		tx.seq = r.int(0)
	}
	tx.seq++
	_, err := tx.exec("UPDATE _seq SET n = ?", tx.seq)
	return tx.seq, err
}

// taken finds out which unique value a refused statement on the kind's table ran into.
func (s *step) taken(tx *wtx, refusal error) error {
	if code(refusal)&0xff != codeConstraint {
		return refusal
	}
	if s.Action != store.Put {
		if r, err := tx.first(s.t.version, s.ID); err != nil || r != nil {
			return s.duplicate("_id", err)
		}
	}
	for _, f := range s.t.single {
		if v := s.Fields[f.Name]; f.Unique && v != nil {
			sql := "SELECT 1 FROM " + quote(s.Kind) + " WHERE " + quote(f.Name) + " = ? AND _id <> ?"
			if r, err := tx.first(sql, v, s.ID); err != nil || r != nil {
				return s.duplicate(f.Name, err)
			}
		}
	}
	return refusal
}

// addValues adds distinct values to a multi field.
func (s *step) addValues(tx *wtx, f store.Field, values []string) error {
	for _, v := range values {
		if _, err := tx.exec(s.t.addValue[f.Name], v, s.ID); err != nil {
			if f.Unique && code(err)&0xff == codeConstraint { // a record does not hold it already: it is another's
				return s.duplicate(f.Name, nil)
			}
			return err
		}
	}
	return nil
}

func (s *step) duplicate(field string, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s.%s", store.ErrDuplicate, s.Kind, field)
}
