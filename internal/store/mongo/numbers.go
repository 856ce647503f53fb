package mongo

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The numbers of sequenced kinds are given after the records are there: a record is inserted with a mark instead of a number;
// then the document "numbers" takes the next ones for it and keeps, in the same write, a plan of which record gets which; then
// the records get them; then the plan goes. So a refused insert takes no number, and a plan whose maker died is carried out by
// whoever reads: a number that was taken is never missing for long, and the late maker finds nothing left to do. Readers see
// the numbers before the first open plan, and so none that is followed by a smaller one.
//
// A record whose maker died before the plan has its mark alone. Who reads looks for such now and then and numbers them.

const (
	numbersID  = "numbers"
	planAge    = time.Second     // after which a plan is taken for left behind
	orphanAge  = 5 * time.Second // likewise a record without a number
	orphanLook = 5 * time.Second // how often those are looked for
	planSize   = 500             // records of one plan
)

// unnumbered is a record that is to get a number.
type unnumbered struct {
	Kind string `bson:"k"`
	ID   string `bson:"i"`
	Mark string `bson:"m"`
}

type plan struct {
	From int64        `bson:"from"` // the first record's number
	For  []unnumbered `bson:"for"`
}

// counter is the document "numbers".
type counter struct {
	N     int64           `bson:"n"`
	Plans map[string]plan `bson:"plans"`
}

// numbers gives the numbers of one database. Calls at the same time share a plan.
type numbers struct {
	queue   sync.Mutex
	waiting []*waiting

	mu   sync.Mutex // held while a plan is made and carried out
	last int64      // the last number given, as this handle knows it

	seen    sync.Mutex
	since   map[string]time.Time // when plans and marks were first seen, by this machine's monotonic clock
	orphans time.Time            // the last look for records without a number
}

type waiting struct {
	items []unnumbered
	done  bool
}

// assign numbers records that are there. If it cannot, whoever reads the numbers will: the commit stands all the same.
func (n *numbers) assign(ctx context.Context, db *DB, d *driver.Database, items []unnumbered) {
	if len(items) == 0 {
		return
	}
	w := &waiting{items: items}
	n.queue.Lock()
	n.waiting = append(n.waiting, w)
	n.queue.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if w.done {
		return
	}
	n.queue.Lock()
	batch := n.waiting
	n.waiting = nil
	n.queue.Unlock()
	var all []unnumbered
	for _, w := range batch {
		all = append(all, w.items...)
		w.done = true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.cl.c.cfg.Timeout)
	defer cancel()
	for at := 0; at < len(all); at += planSize {
		if err := n.give(ctx, d, all[at:min(at+planSize, len(all))]); err != nil {
			db.cl.c.cfg.Log.Warn("records have no number yet; the next reader gives it", "error", fail(ctx, err))
			return
		}
	}
}

// give takes numbers for records, and carries the plan out.
func (n *numbers) give(ctx context.Context, d *driver.Database, items []unnumbered) error {
	own := d.Collection(ownColl)
	id := strconv.FormatUint(rand.Uint64(), 36)
	for {
		p := plan{From: n.last + 1, For: items}
		r, err := own.UpdateOne(ctx, bson.D{{Key: idKey, Value: numbersID}, {Key: "n", Value: n.last}},
			bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: n.last + int64(len(items))}, {Key: "plans." + id, Value: p}}}})
		if err != nil {
			return err
		}
		if r.MatchedCount == 1 {
			n.last += int64(len(items))
			return carryOut(ctx, d, id, p)
		}
		// Another node gave some, or none was ever given.
		var c counter
		switch err := own.FindOne(ctx, bson.D{{Key: idKey, Value: numbersID}}).Decode(&c); {
		case errors.Is(err, driver.ErrNoDocuments):
			_, err := own.InsertOne(ctx, bson.D{{Key: idKey, Value: numbersID}, {Key: "n", Value: int64(0)}})
			if err != nil && !isDuplicate(err) {
				return err
			}
			n.last = 0
		case err != nil:
			return err
		default:
			n.last = c.N
		}
	}
}

// carryOut gives the records of a plan their numbers, and ends it. Many may do so at the same time.
func carryOut(ctx context.Context, d *driver.Database, id string, p plan) error {
	models := map[string][]driver.WriteModel{}
	for i, it := range p.For {
		models[it.Kind] = append(models[it.Kind], driver.NewUpdateOneModel().
			SetFilter(bson.D{{Key: idKey, Value: it.ID}, {Key: pendingKey, Value: it.Mark}}).
			SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: seqKey, Value: p.From + int64(i)}}}, {Key: "$unset", Value: bson.D{{Key: pendingKey, Value: ""}}}}))
	}
	for kind, ms := range models {
		if _, err := d.Collection(kind).BulkWrite(ctx, ms, options.BulkWrite().SetOrdered(false)); err != nil {
			return err
		}
	}
	_, err := d.Collection(ownColl).UpdateOne(ctx, bson.D{{Key: idKey, Value: numbersID}}, bson.D{{Key: "$unset", Value: bson.D{{Key: "plans." + id, Value: ""}}}})
	return err
}

// settled gives the number up to which every record is there that will ever be.
func (n *numbers) settled(ctx context.Context, db *DB, d *driver.Database) (int64, error) {
	last, err := n.planned(ctx, d) // plans first: what they left behind is no orphan
	if err != nil {
		return 0, err
	}
	if did, err := n.adopt(ctx, db, d); err != nil || !did {
		return last, err
	}
	return n.planned(ctx, d)
}

// planned gives the number before the first open plan, and carries out those that were left behind.
func (n *numbers) planned(ctx context.Context, d *driver.Database) (int64, error) {
	for {
		var c counter
		err := d.Collection(ownColl).FindOne(ctx, bson.D{{Key: idKey, Value: numbersID}}).Decode(&c)
		if errors.Is(err, driver.ErrNoDocuments) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		last, left := c.N, false
		for id, p := range c.Plans {
			if n.age("plan "+id) < planAge {
				last = min(last, p.From-1)
				continue
			}
			if err := carryOut(ctx, d, id, p); err != nil {
				return 0, err
			}
			left = true
		}
		if !left {
			return last, nil
		}
	}
}

// age is how long ago something was first seen by this handle.
func (n *numbers) age(what string) time.Duration {
	n.seen.Lock()
	defer n.seen.Unlock()
	if n.since == nil || len(n.since) > 10_000 {
		n.since = map[string]time.Time{}
	}
	first, ok := n.since[what]
	if !ok {
		n.since[what] = time.Now()
		return 0
	}
	return time.Since(first)
}

// adopt numbers records whose makers died before they had a plan.
func (n *numbers) adopt(ctx context.Context, db *DB, d *driver.Database) (did bool, err error) {
	n.seen.Lock()
	due := time.Since(n.orphans) >= orphanLook
	if due {
		n.orphans = time.Now()
	}
	n.seen.Unlock()
	if !due {
		return false, nil
	}
	var left []unnumbered
	for _, k := range db.kinds {
		if !k.Sequenced {
			continue
		}
		opts := options.Find().SetProjection(bson.D{{Key: pendingKey, Value: 1}}).SetSort(bson.D{{Key: pendingKey, Value: 1}}).SetLimit(planSize)
		err := each(ctx, d.Collection(k.Kind), bson.D{{Key: pendingKey, Value: bson.D{{Key: "$gt", Value: ""}}}}, opts, func(raw bson.Raw) error {
			mark, ok := raw.Lookup(pendingKey).StringValueOK()
			if ok && n.age("mark "+mark) >= orphanAge {
				left = append(left, unnumbered{Kind: k.Kind, ID: idOf(raw.Lookup(idKey)), Mark: mark})
			}
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	n.assign(ctx, db, d, left)
	return len(left) > 0, nil
}
