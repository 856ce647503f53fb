package mongo

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

var _ store.Copier = (*DB)(nil)

// Dump is store.Copier's.
func (db *DB) Dump(ctx context.Context, kind, after string, limit int) ([]store.Raw, error) {
	k, err := db.kind(kind)
	if err != nil {
		return nil, err
	}
	filter := bson.D{{Key: idKey, Value: bson.D{{Key: "$gt", Value: after}}}}
	opts := options.Find().SetSort(bson.D{{Key: idKey, Value: 1}}).SetLimit(int64(limit))
	var out []store.Raw
	err = db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		size := 0
		err := each(ctx, d.Collection(kind), filter, opts, func(raw bson.Raw) error {
			r, err := record(raw)
			if err != nil {
				return err
			}
			if size += len(r.Doc); size > store.CopyBytes && len(out) > 0 {
				return errEnough
			}
			out = append(out, store.Raw{Record: r, Fields: k.fieldsOf(raw)})
			return nil
		})
		if errors.Is(err, errEnough) {
			err = nil
		}
		return err
	})
	return out, err
}

var errEnough = errors.New("store/mongo: enough for one page")

// fieldsOf reads a document's searchable values.
func (k *kind) fieldsOf(raw bson.Raw) store.Fields {
	out := store.Fields{}
	doc, ok := raw.Lookup(fieldsKey).DocumentOK()
	if !ok {
		return out
	}
	for _, f := range k.Fields {
		v := doc.Lookup(f.Name)
		switch {
		case f.Multi:
			list, ok := v.ArrayOK()
			if !ok {
				continue
			}
			values, _ := list.Values() // the driver checked it
			texts := make([]string, 0, len(values))
			for _, e := range values {
				if s, ok := e.StringValueOK(); ok {
					texts = append(texts, s)
				}
			}
			if len(texts) > 0 {
				out[f.Name] = texts
			}
		case f.Type == store.Int:
			if n, ok := v.AsInt64OK(); ok {
				out[f.Name] = n
			}
		default:
			if s, ok := v.StringValueOK(); ok {
				out[f.Name] = s
			}
		}
	}
	return out
}

// Fill is store.Copier's.
func (db *DB) Fill(ctx context.Context, kind string, rs ...store.Raw) error {
	k, err := db.kind(kind)
	if err != nil {
		return err
	}
	if len(rs) > store.MaxWrites {
		return fmt.Errorf("%w: %d records at a time", store.ErrTooLarge, len(rs))
	}
	c := &commit{db: db, steps: make([]writeStep, len(rs)), fill: make([]*store.Raw, len(rs))}
	highest := int64(0)
	for i := range rs {
		r := &rs[i]
		if err := r.Check(db.schemas, kind); err != nil {
			return err
		}
		c.steps[i] = writeStep{kind: k, Write: &store.Write{Action: store.Ensure, Kind: kind, ID: r.ID, Doc: r.Doc, Fields: r.Fields}}
		c.fill[i] = r
		highest = max(highest, r.Seq)
	}
	return db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		defer c.tell()
		if err := skip(ctx, d, highest); err != nil || len(rs) == 0 {
			return err
		}
		return c.run(ctx, d, 0, len(rs))
	})
}

// LastSeq is store.Copier's.
func (db *DB) LastSeq(ctx context.Context) (n int64, err error) {
	err = db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		var c counter
		err := d.Collection(ownColl).FindOne(ctx, bson.D{{Key: idKey, Value: numbersID}}).Decode(&c)
		if errors.Is(err, driver.ErrNoDocuments) {
			return nil
		}
		n = c.N
		return err
	})
	return n, err
}

// SkipSeq is store.Copier's.
func (db *DB) SkipSeq(ctx context.Context, n int64) error {
	return db.call(ctx, func(ctx context.Context, d *driver.Database) error { return skip(ctx, d, n) })
}

func skip(ctx context.Context, d *driver.Database, n int64) error {
	if n == 0 {
		return nil
	}
	for range 2 { // the second time if another made the document
		_, err := d.Collection(ownColl).UpdateOne(ctx, bson.D{{Key: idKey, Value: numbersID}},
			bson.D{{Key: "$max", Value: bson.D{{Key: "n", Value: n}}}}, options.UpdateOne().SetUpsert(true))
		if !isDuplicate(err) {
			return err
		}
	}
	return nil
}
