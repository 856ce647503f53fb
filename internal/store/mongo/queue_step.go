package mongo

import (
	"context"
	"crypto/rand"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// step is a change of jobs, each on its own, that are found as they must be.
type step struct {
	ids             []string
	must            bson.D // besides the id
	set, unset, inc bson.D
}

// update is what a step writes; tag marks who wrote.
func (s step) update(tag string) bson.D {
	set := s.set[:len(s.set):len(s.set)]
	if tag != "" {
		set = append(set, is("_step", tag))
	}
	u := bson.D{}
	for _, part := range []struct {
		op string
		d  bson.D
	}{{"$set", set}, {"$unset", s.unset}, {"$inc", s.inc}} {
		if len(part.d) > 0 {
			u = append(u, is(part.op, part.d))
		}
	}
	return u
}

// apply does steps in one round trip; which jobs were changed. No job is in two of the steps. Where not all were, it is
// read which: the jobs that were bear the mark of this call.
func (q *Queue) apply(ctx context.Context, steps ...step) (did map[string]bool, err error) {
	var ids []string
	models := make([]driver.WriteModel, 0, len(steps))
	tag := rand.Text()
	for _, s := range steps {
		ids = append(ids, s.ids...)
		switch len(s.ids) {
		case 0:
		case 1:
			models = append(models, driver.NewUpdateOneModel().SetFilter(append(bson.D{is("_id", s.ids[0])}, s.must...)).SetUpdate(s.update(tag)))
		default:
			models = append(models, driver.NewUpdateManyModel().SetFilter(append(bson.D{is("_id", in(s.ids))}, s.must...)).SetUpdate(s.update(tag)))
		}
	}
	did = make(map[string]bool, len(ids))
	if len(ids) == 0 {
		return did, nil
	}
	var matched int64
	err = q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		res, err := c.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
		if res != nil {
			matched = res.MatchedCount
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	all := matched == int64(len(ids))
	if !all && matched > 0 {
		return did, q.each(ctx, bson.D{is("_id", in(ids)), is("_step", tag)}, options.Find().SetProjection(bson.D{is("_id", 1)}), func(raw bson.Raw) {
			did[textOf(raw.Lookup("_id"))] = true
		})
	}
	for _, id := range ids {
		did[id] = all
	}
	return did, nil
}

// each reads jobs.
func (q *Queue) each(ctx context.Context, filter bson.D, o *options.FindOptionsBuilder, f func(raw bson.Raw)) error {
	return q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		cur, err := c.Find(ctx, filter, o)
		return drain(ctx, cur, err, f)
	})
}

// drain reads what a query gives.
func drain(ctx context.Context, cur *driver.Cursor, err error, f func(raw bson.Raw)) error {
	if err != nil {
		return err
	}
	defer func() { _ = cur.Close(ctx) }()
	for cur.Next(ctx) {
		f(cur.Current)
	}
	return cur.Err()
}

// aggregate reads what a pipeline gives.
func (q *Queue) aggregate(ctx context.Context, of string, pipeline bson.A, f func(raw bson.Raw)) error {
	return q.on(ctx, of, func(ctx context.Context, c *driver.Collection) error {
		cur, err := c.Aggregate(ctx, pipeline)
		return drain(ctx, cur, err, f)
	})
}

// find reads jobs whole.
func (q *Queue) find(ctx context.Context, filter bson.D, o *options.FindOptionsBuilder) (ds []jobDoc, err error) {
	err = q.each(ctx, filter, o, func(raw bson.Raw) { ds = append(ds, decodeJob(raw)) })
	return ds, err
}
