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

const defaultLimit = 100

// Find is store.DB's.
func (db *DB) Find(ctx context.Context, q store.Query) ([]store.Record, error) {
	k, err := db.kind(q.Kind)
	if err != nil {
		return nil, err
	}
	filter, none, err := k.filter(q.Where)
	if err != nil {
		return nil, err
	}
	switch {
	case q.Limit < 0:
		return nil, fmt.Errorf("store: limit %d", q.Limit)
	case q.Limit > store.MaxLimit:
		return nil, fmt.Errorf("%w: limit %d", store.ErrTooLarge, q.Limit)
	case q.Limit == 0:
		q.Limit = defaultLimit
	}
	parts, sort, err := k.parts(q)
	if err != nil {
		return nil, err
	}
	var out []store.Record
	err = db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		if none {
			return nil
		}
		if q.Order == "seq" {
			last, err := db.numbers.settled(ctx, db, d)
			if err != nil {
				return err
			}
			filter = append(filter, bson.E{Key: seqKey, Value: bson.D{{Key: "$lte", Value: last}}})
		}
		for _, p := range parts {
			part := append(append(bson.D{}, filter...), p...)
			left := q.Limit - len(out)
			err := each(ctx, d.Collection(k.Kind), and(part), options.Find().SetSort(sort).SetLimit(int64(left)).SetBatchSize(int32(left)), func(raw bson.Raw) error {
				r, err := record(raw)
				out = append(out, r)
				return err
			})
			if err != nil {
				return err
			}
			if len(out) == q.Limit {
				break
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Count is store.DB's.
func (db *DB) Count(ctx context.Context, q store.Query) (n int64, err error) {
	k, err := db.kind(q.Kind)
	if err != nil {
		return 0, err
	}
	filter, none, err := k.filter(q.Where)
	if err != nil {
		return 0, err
	}
	err = db.call(ctx, func(ctx context.Context, d *driver.Database) (err error) {
		if none {
			return nil
		}
		n, err = d.Collection(k.Kind).CountDocuments(ctx, and(filter))
		return err
	})
	return n, err
}

// and makes one filter of conditions, of which several may be about the same field.
func and(conditions bson.D) bson.D {
	seen := map[string]bool{}
	for _, c := range conditions {
		if seen[c.Key] {
			var all bson.A
			for _, c := range conditions {
				all = append(all, bson.D{c})
			}
			return bson.D{{Key: "$and", Value: all}}
		}
		seen[c.Key] = true
	}
	if conditions == nil {
		return bson.D{}
	}
	return conditions
}

// filter makes the conditions of terms; none where nothing can satisfy them.
func (k *kind) filter(terms []store.Term) (out bson.D, none bool, err error) {
	for _, t := range terms {
		f, err := k.FieldOf(t)
		if err != nil {
			return nil, false, fmt.Errorf("store: %s: %w", k.Kind, err)
		}
		c, err := condition(f, t)
		if err != nil {
			return nil, false, fmt.Errorf("store: %s: %w", k.Kind, err)
		}
		none = none || t.Op == store.In && len(t.Values) == 0
		out = append(out, bson.E{Key: place(t.Field), Value: c})
	}
	return out, none, nil
}

func condition(f store.Field, t store.Term) (any, error) {
	switch t.Op {
	case store.Eq:
		return bson.D{{Key: "$eq", Value: t.Values[0]}}, nil
	case store.In:
		return bson.D{{Key: "$in", Value: bson.A(t.Values)}}, nil
	case store.Lt, store.Le, store.Gt, store.Ge:
		if f.Multi {
			return nil, fmt.Errorf("%s has several values and no order", f.Name)
		}
		return bson.D{{Key: [...]string{store.Lt: "$lt", store.Le: "$lte", store.Gt: "$gt", store.Ge: "$gte"}[t.Op], Value: t.Values[0]}}, nil
	case store.Prefix:
		if f.Type != store.Text {
			return nil, fmt.Errorf("a prefix of %s, which is no text", f.Name)
		}
		from := t.Values[0].(string)
		stretch := bson.D{{Key: "$gte", Value: from}}
		if to := store.Successor(from); to != "" {
			stretch = append(stretch, bson.E{Key: "$lt", Value: to})
		}
		if f.Multi { // one and the same value lies between both
			return bson.D{{Key: "$elemMatch", Value: stretch}}, nil
		}
		return stretch, nil
	}
	return nil, fmt.Errorf("unknown operator %d", t.Op)
}

// parts gives the conditions of the cursor, one for each stretch of the order that is one stretch of an index, and the order.
// Records without the ordering field stand apart: an absent value sorts before all others, as the contract has it.
func (k *kind) parts(q store.Query) (parts []bson.D, sort bson.D, err error) {
	dir, beyond := 1, "$gt"
	if q.Desc {
		dir, beyond = -1, "$lt"
	}
	is := func(key string, v any) bson.E { return bson.E{Key: key, Value: bson.D{{Key: "$eq", Value: v}}} }
	past := func(key string, v any) bson.E { return bson.E{Key: key, Value: bson.D{{Key: beyond, Value: v}}} }
	all := []bson.D{nil}
	a := q.After
	switch {
	case q.Order == "":
		if a != nil {
			all = []bson.D{{past(idKey, a.ID)}}
		}
		return all, bson.D{{Key: idKey, Value: dir}}, nil
	case q.Order == "seq" && k.Sequenced:
		if a != nil {
			n, ok := a.Value.(int64)
			if !ok {
				return nil, nil, fmt.Errorf("store: %s: a cursor of type %T for seq", q.Kind, a.Value)
			}
			all = []bson.D{{past(seqKey, n)}}
		}
		return all, bson.D{{Key: seqKey, Value: dir}}, nil
	}
	f, ok := k.Field(q.Order)
	if !ok || f.Multi {
		return nil, nil, fmt.Errorf("store: %s: no order by %q", q.Kind, q.Order)
	}
	key := place(f.Name)
	sort = bson.D{{Key: key, Value: dir}, {Key: idKey, Value: dir}}
	if a == nil {
		return all, sort, nil
	}
	present := bson.E{Key: key, Value: bson.D{{Key: "$ne", Value: nil}}}
	switch v := a.Value.(type) {
	case nil:
		absent := bson.D{is(key, nil), past(idKey, a.ID)}
		if q.Desc {
			return []bson.D{absent}, sort, nil
		}
		return []bson.D{absent, {present}}, sort, nil
	case string, int64:
		if _, isText := v.(string); isText != (f.Type == store.Text) {
			return nil, nil, fmt.Errorf("store: %s: a cursor of type %T for %s", q.Kind, v, q.Order)
		}
		same := bson.D{is(key, v), past(idKey, a.ID)}
		if q.Desc {
			return []bson.D{same, {past(key, v)}, {is(key, nil)}}, sort, nil
		}
		return []bson.D{same, {past(key, v)}}, sort, nil
	}
	return nil, nil, errors.New("store: a cursor of another type than text or integer")
}
