package mongo

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	recountEvery = time.Hour
	recountSoon  = time.Minute      // after something may have been counted wrong
	recountApart = 30 * time.Second // one process's count from another's
	recountMost  = 5 * time.Minute  // that it may take
)

// recountMark is the document by which one process at a time counts.
const recountMark = "recount"

// recountIfDue has the jobs counted anew from time to time, and before long after a write of which it is not known whether
// it was done.
func (q *Queue) recountIfDue() {
	t := &q.tally
	if !t.counting.TryLock() {
		return
	}
	t.mu.Lock()
	every := recountEvery
	if t.unsure || len(t.differs) > 0 {
		every = recountSoon
	}
	t.mu.Unlock()
	if t.looked.IsZero() { // a process begins: one may have ended badly
		t.looked = time.Now().Add(recountSoon - recountEvery)
	}
	if time.Since(t.looked) < every {
		t.counting.Unlock()
		return
	}
	t.looked = time.Now()
	go func() {
		defer t.counting.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), recountMost)
		defer cancel()
		_ = q.recountAlone(ctx) // the next time, then
	}()
}

// recountAlone counts the jobs anew, unless another process does. The caller holds the tally's counting.
func (q *Queue) recountAlone(ctx context.Context) error {
	now := q.now()
	err := q.on(ctx, jobCounts, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.UpdateOne(ctx, bson.D{is("_id", recountMark), is("at", bson.D{is("$not", bson.D{is("$gt", date(now.Add(-recountApart)))})})},
			bson.D{is("$set", bson.D{is("at", date(now))})}, options.UpdateOne().SetUpsert(true))
		return err
	})
	if errors.Is(err, store.ErrDuplicate) { // another does
		return nil
	}
	if err != nil {
		return err
	}
	return q.recount(ctx)
}

// recount counts the jobs, and mends the numbers by what they are wrong by. While jobs come and go that is never quite
// sure; what a number was wrong by twice in a row, it is. The caller holds the tally's counting.
func (q *Queue) recount(ctx context.Context) error {
	t := &q.tally
	t.mu.Lock()
	t.unsure = false
	t.mu.Unlock()
	if err := q.count(ctx); err != nil {
		return err
	}
	found := moves{}
	err := q.aggregate(ctx, jobCounts, bson.A{bson.D{is("$match", bson.D{is("lane", there)})}}, func(raw bson.Raw) {
		lane, typ := textOf(raw.Lookup("lane")), textOf(raw.Lookup("type"))
		for _, s := range store.States {
			if n := intOf(raw.Lookup(string(s))); n != 0 {
				found.add(lane, typ, s, -n)
			}
		}
	})
	if err != nil {
		return err
	}
	err = q.aggregate(ctx, jobs, bson.A{
		bson.D{is("$match", bson.D{is("state", in(store.States[:]))})},
		bson.D{is("$group", bson.D{is("_id", bson.D{is("lane", "$lane"), is("type", "$type"), is("state", "$state")}), is("jobs", bson.D{is("$sum", 1)})})},
	}, func(raw bson.Raw) {
		found.add(textOf(raw.Lookup("_id", "lane")), textOf(raw.Lookup("_id", "type")), store.State(textOf(raw.Lookup("_id", "state"))), intOf(raw.Lookup("jobs")))
	})
	if err != nil {
		return err
	}
	mend, differs := moves{}, moves{}
	for key, n := range found {
		before := t.differs[key]
		for i, s := range store.States {
			switch {
			case n[i] == 0:
			case before != nil && before[i] == n[i]:
				mend.add(key.lane, key.typ, s, n[i])
			default:
				differs.add(key.lane, key.typ, s, n[i])
			}
		}
	}
	t.differs = differs
	if err := q.addCounts(ctx, mend); err != nil {
		t.differs = nil
		return err
	}
	if len(mend) > 0 {
		t.mu.Lock()
		clear(t.rooms)
		t.mu.Unlock()
	}
	return nil
}
