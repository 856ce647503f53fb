package mongo

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// Prune implements store.Queue. Every job becomes a stub first, which counts it out exactly once, whoever else prunes;
// one whose key nobody need know is deleted at once, the others when their keys have been known for long enough.
func (q *Queue) Prune(ctx context.Context, limit int) (int, error) {
	n := 0
	c := q.begin()
	defer c.end()
	left := limit
	for _, k := range store.JobsKept {
		if left <= 0 {
			break
		}
		d, err := c.pruneJobs(ctx, k.State, c.now-k.Kept.Milliseconds(), left)
		if n, left = n+d, left-d; err != nil {
			return n, err
		}
	}
	for _, prune := range []func(context.Context, int) (int, error){c.pruneStubs, c.freeKeys, q.pruneLimits, q.prunePauses} {
		d, err := prune(ctx, limit)
		if n += d; err != nil {
			return n, err
		}
	}
	return n, nil
}

// ofJob is what a stub has no more.
var ofJob = []string{
	"lane", "home", "type", "pair", "payload", "runAt", "expiresAt", "attempt", "maxAttempts", "starts", "crashes", "causation", "cancelRequested",
	"errors", "result", "createdAt", "startedAt", "endedAt", "owed", "_asked",
}

// pruneJobs makes stubs of jobs that ended before a time, and deletes those that hold no key.
func (c *change) pruneJobs(ctx context.Context, state store.State, before int64, limit int) (n int, err error) {
	ended := bson.D{is("state", string(state)), is("endedAt", bson.D{is("$lte", bson.DateTime(before))})}
	ds, err := c.q.find(ctx, ended, options.Find().SetSort(bson.D{is("endedAt", 1)}).SetLimit(int64(limit)).SetProjection(append(where[:len(where):len(where)], is("endedAt", 1), is("_key", 1))))
	if err != nil || len(ds) == 0 {
		return 0, err
	}
	unset := bson.D{}
	for _, name := range ofJob {
		unset = append(unset, is(name, ""))
	}
	steps := make([]step, len(ds))
	for i, d := range ds {
		until := d.EndedAt.Add(store.KeyKept)
		if !d.holds {
			until = msTime(c.now)
		}
		steps[i] = step{
			ids: []string{d.ID}, must: bson.D{is("state", string(state)), is("endedAt", date(d.EndedAt))},
			set: bson.D{is("state", string(pruned)), is("ended", string(state)), is("keepUntil", date(until))}, unset: unset,
		}
	}
	did, err := c.q.apply(ctx, steps...)
	if err != nil {
		c.unsure = true
		return 0, err
	}
	var gone []string
	for _, d := range ds {
		if !did[d.ID] { // sent back to work, or pruned by another
			continue
		}
		n++
		c.move(d.Lane, d.Type, state, "")
		if !d.holds {
			gone = append(gone, d.ID)
		}
	}
	return n, c.q.deleteStubs(ctx, gone)
}

func (q *Queue) deleteStubs(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.DeleteMany(ctx, bson.D{is("_id", in(ids)), is("state", string(pruned))})
		return err
	})
}

// pruneStubs deletes stubs whose keys were known for long enough.
func (c *change) pruneStubs(ctx context.Context, limit int) (n int, err error) {
	ds, err := c.q.find(ctx, bson.D{is("keepUntil", bson.D{is("$lte", bson.DateTime(c.now))})}, options.Find().SetSort(bson.D{is("keepUntil", 1)}).SetLimit(int64(limit)).SetProjection(bson.D{is("_id", 1), is("_key", 1)}))
	if err != nil {
		return 0, err
	}
	var ids []string
	for _, d := range ds {
		ids = append(ids, d.ID)
		if d.holds { // else its job was counted as pruned
			n++
		}
	}
	return n, c.q.deleteStubs(ctx, ids)
}

// freeKeys takes their keys from ended jobs that are kept for longer than these.
func (c *change) freeKeys(ctx context.Context, limit int) (n int, err error) {
	must := bson.D{
		is("state", in([]store.State{store.Dead, store.Cancelled, store.Expired})), is("_key", there),
		is("endedAt", bson.D{is("$lte", bson.DateTime(c.now-store.KeyKept.Milliseconds()))}),
	}
	s := step{must: must, unset: bson.D{is("_key", "")}}
	err = c.q.each(ctx, must, options.Find().SetSort(bson.D{is("endedAt", 1)}).SetLimit(int64(limit)).SetProjection(bson.D{is("_id", 1)}), func(raw bson.Raw) {
		s.ids = append(s.ids, textOf(raw.Lookup("_id")))
	})
	if err != nil {
		return 0, err
	}
	did, err := c.q.apply(ctx, s)
	for _, ok := range did {
		if ok {
			n++
		}
	}
	return n, err
}
