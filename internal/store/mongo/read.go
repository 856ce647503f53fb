package mongo

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

func (db *DB) kind(name string) (*kind, error) {
	k := db.kinds[name]
	if k == nil {
		return nil, fmt.Errorf("store: unknown kind %q", name)
	}
	return k, nil
}

// getBatch is how many ids one read asks for.
const getBatch = 1000

// Get is store.DB's.
func (db *DB) Get(ctx context.Context, kind string, ids ...string) ([]store.Record, error) {
	k, err := db.kind(kind)
	if err != nil {
		return nil, err
	}
	found := make(map[string]store.Record, len(ids))
	err = db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		for at := 0; at < len(ids); at += getBatch {
			part := ids[at:min(at+getBatch, len(ids))]
			filter := bson.D{{Key: idKey, Value: part[0]}}
			if len(part) > 1 {
				filter = bson.D{{Key: idKey, Value: bson.D{{Key: "$in", Value: part}}}}
			}
			err := each(ctx, d.Collection(k.Kind), filter, options.Find().SetBatchSize(int32(len(part))), func(raw bson.Raw) error {
				r, err := record(raw)
				found[r.ID] = r
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []store.Record
	for _, id := range ids {
		if r, ok := found[id]; ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// each gives every document that a filter finds. It is the caller's only until fn returns.
func each(ctx context.Context, c *driver.Collection, filter any, opts *options.FindOptionsBuilder, fn func(raw bson.Raw) error) error {
	cur, err := c.Find(ctx, filter, opts)
	if err != nil {
		return err
	}
	for cur.Next(ctx) {
		if err := fn(cur.Current); err != nil {
			_ = cur.Close(ctx)
			return err
		}
	}
	if err := cur.Err(); err != nil {
		_ = cur.Close(ctx)
		return err
	}
	return cur.Close(ctx)
}
