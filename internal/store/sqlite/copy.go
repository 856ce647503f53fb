package sqlite

import (
	"context"
	"fmt"

	"github.com/ecodrix/ecod/internal/store"
)

var _ store.Copier = (*DB)(nil)

// Dump is store.Copier's. The records of a page are of one moment.
func (db *DB) Dump(ctx context.Context, kind, after string, limit int) ([]store.Raw, error) {
	t, err := db.table(kind)
	if err != nil {
		return nil, err
	}
	sql := "SELECT " + t.columns
	for _, f := range t.single {
		sql += ", t." + quote(f.Name)
	}
	sql += " FROM " + quote(kind) + " t WHERE t._id > ? ORDER BY t._id LIMIT ?"
	var out []store.Raw
	err = db.f.snapshot(ctx, func(c *conn) error {
		size := 0
		for r, err := range c.rows(ctx, sql, after, limit) {
			if err != nil {
				return err
			}
			raw := store.Raw{Record: record(r), Fields: store.Fields{}}
			if size += len(raw.Doc); size > store.CopyBytes && len(out) > 0 {
				break
			}
			for i, f := range t.single {
				switch at := 4 + i; {
				case r.null(at):
				case f.Type == store.Int:
					raw.Fields[f.Name] = r.int(at)
				default:
					raw.Fields[f.Name] = r.text(at)
				}
			}
			out = append(out, raw)
		}
		for i := range out {
			for _, f := range t.multi {
				var values []string
				for r, err := range c.rows(ctx, t.values[f.Name]+" ORDER BY value", out[i].ID) {
					if err != nil {
						return err
					}
					values = append(values, r.text(0))
				}
				if len(values) > 0 {
					out[i].Fields[f.Name] = values
				}
			}
		}
		return nil
	})
	return out, err
}

// Fill is store.Copier's: all or nothing.
func (db *DB) Fill(ctx context.Context, kind string, rs ...store.Raw) error {
	t, err := db.table(kind)
	if err != nil {
		return err
	}
	if len(rs) > store.MaxWrites {
		return fmt.Errorf("%w: %d records at a time", store.ErrTooLarge, len(rs))
	}
	for _, r := range rs {
		if err := r.Check(db.schemas, kind); err != nil {
			return err
		}
	}
	return db.f.write(ctx, func(tx *wtx) error {
		highest := int64(0)
		for _, r := range rs {
			w := store.Write{Action: store.Insert, Kind: kind, ID: r.ID, Doc: r.Doc, Fields: r.Fields}
			s := &step{Write: &w, t: t, row: t.row(&w)}
			if there, err := tx.first(t.version, r.ID); err != nil {
				return err
			} else if there != nil {
				continue
			}
			args := []any{r.ID, s.row[0], r.Version}
			if t.Sequenced {
				args = append(args, r.Seq)
				highest = max(highest, r.Seq)
			}
			if _, err := tx.exec(t.fill, append(args, s.row[1:]...)...); err != nil {
				return s.taken(tx, err)
			}
			for _, f := range t.multi {
				if err := s.addValues(tx, f, distinct(r.Fields[f.Name])); err != nil {
					return err
				}
			}
		}
		return db.skip(tx, highest)
	})
}

// LastSeq is store.Copier's.
func (db *DB) LastSeq(ctx context.Context) (n int64, err error) {
	err = db.f.read(ctx, func(c *conn) error {
		r, err := c.first(ctx, db.seqText)
		if err == nil {
			n = r.int(0)
		}
		return err
	})
	return n, err
}

// SkipSeq is store.Copier's.
func (db *DB) SkipSeq(ctx context.Context, n int64) error {
	return db.f.write(ctx, func(tx *wtx) error { return db.skip(tx, n) })
}

func (db *DB) skip(tx *wtx, n int64) error {
	_, err := tx.exec("UPDATE _seq SET n = ? WHERE n < ?", n, n)
	tx.seq = 0 // to be read anew
	return err
}
