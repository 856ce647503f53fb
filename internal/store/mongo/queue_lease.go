package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

func ofOwner(owner string) bson.D {
	return bson.D{is("state", string(store.Running)), is("owner", owner)}
}

// Beat implements store.Queue. The lease of a job whose outcome stands is not prolonged: should its worker not get on
// with it, another does. Nothing is prolonged before the server has answered: who hears nothing of it any more, though it
// is heard, would keep its jobs from others, and not trust their leases itself.
func (q *Queue) Beat(ctx context.Context, owner string, lease time.Duration) ([]store.Held, error) {
	if owner == "" || lease <= 0 {
		return nil, store.Refusal("a beat without owner or lease")
	}
	var held []store.Held
	err := q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		mine, err := heldBy(ctx, c, owner, &held)
		if err != nil || len(mine) == 0 {
			return err
		}
		r, err := c.UpdateMany(ctx, append(ofOwner(owner), is("_id", in(mine)), is("_ending", absent)),
			bson.D{is("$set", bson.D{is("leaseUntil", bson.DateTime(q.millis()+lease.Milliseconds()))})})
		if err == nil && r.MatchedCount < int64(len(mine)) { // some ended between the two, or were taken: which?
			_, err = heldBy(ctx, c, owner, &held)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return held, nil
}

// heldBy reads what an owner holds; ids are those of it whose outcomes do not stand.
func heldBy(ctx context.Context, c *driver.Collection, owner string, held *[]store.Held) (ids []string, err error) {
	*held = nil
	cur, err := c.Find(ctx, ofOwner(owner), options.Find().SetProjection(bson.D{is("token", 1), is("cancelRequested", 1), is("_ending", 1)}))
	err = drain(ctx, cur, err, func(raw bson.Raw) {
		d := decodeJob(raw)
		*held = append(*held, store.Held{ID: d.ID, Token: d.Token, Cancel: d.cancel})
		if d.ending == nil {
			ids = append(ids, d.ID)
		}
	})
	return ids, err
}

// Release implements store.Queue. A job that was asked to cancel is cancelled.
func (q *Queue) Release(ctx context.Context, owner string) (n int, err error) {
	c := q.begin()
	defer func() { c.end() }()
	for range 3 { // a job may be asked to cancel between the look and the write
		ds, err := q.find(ctx, ofOwner(owner), options.Find().SetProjection(bson.D{is("payload", 0)}))
		if err != nil || len(ds) == 0 {
			return n, err
		}
		var over, back, asked []jobDoc
		for _, d := range ds {
			switch {
			case d.ending != nil:
				over = append(over, d)
			case d.cancel:
				asked = append(asked, d)
			default:
				back = append(back, d)
			}
		}
		must := append(ofOwner(owner), is("_ending", absent))
		k, err := c.moveAll(ctx, asked, step{
			must: must, set: bson.D{is("state", string(store.Cancelled)), is("endedAt", bson.DateTime(c.now))}, unset: leaveRunning,
		}, store.Cancelled)
		if n += k; err != nil {
			return n, err
		}
		k, err = c.moveAll(ctx, back, step{
			must: append(must, is("cancelRequested", bson.D{is("$ne", true)})), set: bson.D{is("state", string(store.Ready))}, unset: leaveRunning,
		}, store.Ready)
		if n += k; err != nil {
			return n, err
		}
		if err := c.complete(ctx, over); err != nil {
			return n, err
		}
		if n += len(over); k == len(back) {
			break
		}
	}
	c.end()
	c = q.begin()
	_ = q.count(ctx) // it may be the last that this process does; what is not written is counted anew
	return n, nil
}

// Asked implements store.Queue.
func (q *Queue) Asked(ctx context.Context, owner string) (ids []string, err error) {
	err = q.each(ctx, append(ofOwner(owner), is("cancelRequested", true)), options.Find().SetProjection(bson.D{is("_id", 1)}).SetSort(bson.D{is(orderField, 1)}), func(raw bson.Raw) {
		ids = append(ids, textOf(raw.Lookup("_id")))
	})
	return ids, err
}
