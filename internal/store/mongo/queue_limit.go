package mongo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// takeTries is how often a key is tried that others take from at the same moment. Each time one of them got something.
const takeTries = 100

// drawn is what one claim takes from a key. A key's place is one number (tat, Unix ns), and who takes writes it only if it
// is still the one that was read: whatever nodes do in between each other, they all take from one well.
type drawn struct {
	key   string
	rate  store.Rate
	read  int64 // the place that was read, as it is kept; 0: nothing was taken from it yet
	asked int64
	want  int64 // of what is asked, what there still is
	tat   int64 // to write; once written, the key's place as we left it
	got   int64
}

// newDrawn is what was taken from a place in memory.
func newDrawn(key string, r store.Rate, read int64, l *turn.Limit) *drawn {
	return &drawn{key: key, rate: r, read: read, asked: l.Took(), want: l.Took(), tat: l.TAT()}
}

// places reads the places of keys.
func (q *Queue) places(ctx context.Context, keys []string) (map[string]int64, error) {
	at := make(map[string]int64, len(keys))
	if len(keys) == 0 {
		return at, nil
	}
	return at, q.on(ctx, limits, func(ctx context.Context, c *driver.Collection) error {
		cur, err := c.Find(ctx, bson.D{is("_id", in(keys))}, options.Find().SetProjection(bson.D{is("tat", 1)}).SetBatchSize(handJobs))
		return drain(ctx, cur, err, func(raw bson.Raw) { at[textOf(raw.Lookup("_id"))] = intOf(raw.Lookup("tat")) })
	})
}

// draw takes what is wanted, or of a key that others took from meanwhile as much as it has left.
func (q *Queue) draw(ctx context.Context, ds []*drawn, nanos int64) error {
	open := ds
	for range takeTries {
		if len(open) == 0 {
			return nil
		}
		won, err := q.write(ctx, open)
		if err != nil {
			return err
		}
		var lost []*drawn
		var keys []string
		for _, d := range open {
			if won[d.key] {
				d.got = d.want
				continue
			}
			lost, keys = append(lost, d), append(keys, d.key)
		}
		at, err := q.places(ctx, keys)
		if err != nil {
			return err
		}
		open = open[:0:0]
		for _, d := range lost {
			l := turn.NewLimit(d.rate, at[d.key], nanos)
			d.read, d.want = at[d.key], min(d.want, l.Left(nanos))
			if d.want == 0 {
				continue
			}
			l.Take(nanos, d.want)
			d.tat = l.TAT()
			open = append(open, d)
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("%w: too many take from one rate", store.ErrUnavailable)
	}
	return nil
}

// write writes places where they are as they were read; which were.
func (q *Queue) write(ctx context.Context, ds []*drawn) (won map[string]bool, err error) {
	by := rand.Text()
	models := make([]driver.WriteModel, 0, len(ds))
	for _, d := range ds {
		m := driver.NewUpdateOneModel().SetUpdate(bson.D{is("$set", bson.D{is("tat", d.tat), is("by", by)})})
		if d.read == 0 {
			m.SetFilter(bson.D{is("_id", d.key), is("tat", absent)}).SetUpsert(true)
		} else {
			m.SetFilter(bson.D{is("_id", d.key), is("tat", d.read)})
		}
		models = append(models, m)
	}
	won = make(map[string]bool, len(ds))
	var n int64
	err = q.on(ctx, limits, func(ctx context.Context, c *driver.Collection) error {
		res, err := c.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
		if res != nil {
			n = res.MatchedCount + res.UpsertedCount
		}
		if err != nil && !onlyDuplicates(err) {
			return err
		}
		if n == 0 || n == int64(len(ds)) {
			return nil
		}
		cur, err := c.Find(ctx, bson.D{is("_id", in(keysOf(ds))), is("by", by)}, options.Find().SetProjection(bson.D{is("_id", 1)}))
		return drain(ctx, cur, err, func(raw bson.Raw) { won[textOf(raw.Lookup("_id"))] = true })
	})
	if err == nil && n == int64(len(ds)) {
		for _, d := range ds {
			won[d.key] = true
		}
	}
	return won, err
}

func keysOf(ds []*drawn) (keys []string) {
	for _, d := range ds {
		keys = append(keys, d.key)
	}
	return keys
}

// onlyDuplicates tells whether all that went wrong with many writes is that something was there already.
func onlyDuplicates(err error) bool {
	var bulk driver.BulkWriteException
	if !errors.As(err, &bulk) || bulk.WriteConcernError != nil {
		return false
	}
	for _, e := range bulk.WriteErrors {
		if !e.HasErrorCode(codeDuplicate) {
			return false
		}
	}
	return true
}

// giveBack puts back what was taken and not used. Where somebody took after us it is lost: what was free then is not what
// is free now.
func (q *Queue) giveBack(ctx context.Context, d *drawn, unused int64) error {
	if unused = min(unused, d.got); unused <= 0 {
		return nil
	}
	tat := d.tat - unused*int64(d.rate.Every)
	return q.on(ctx, limits, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.UpdateOne(ctx, bson.D{is("_id", d.key), is("tat", d.tat)}, bson.D{is("$set", bson.D{is("tat", tat)})})
		return err
	})
}

// Take implements store.Queue.
func (q *Queue) Take(ctx context.Context, key string, r store.Rate, n int) (granted int, wait time.Duration, err error) {
	if key == "" || n < 0 {
		return 0, 0, store.Refusal("no key, or fewer than none, to take from")
	}
	if r.Every <= 0 || n == 0 {
		return n, 0, nil
	}
	at, err := q.places(ctx, []string{key})
	if err != nil {
		return 0, 0, err
	}
	nanos := q.now().UnixNano()
	l := turn.NewLimit(r, at[key], nanos)
	if left := min(int64(n), l.Left(nanos)); left > 0 {
		l.Take(nanos, left)
	}
	d := newDrawn(key, r, at[key], l)
	if d.want > 0 {
		if err := q.draw(ctx, []*drawn{d}, nanos); err != nil {
			return 0, 0, err
		}
	}
	if granted = int(d.got); granted < n {
		at := d.tat
		if d.got == 0 {
			at = d.read
		}
		wait = time.Duration(turn.NewLimit(r, at, nanos).When(1) - nanos)
	}
	return granted, max(0, wait), nil
}

// pruneLimits forgets keys that are as if nothing had ever been taken from them.
func (q *Queue) pruneLimits(ctx context.Context, limit int) (n int, err error) {
	past := is("tat", bson.D{is("$lte", q.now().UnixNano())})
	err = q.on(ctx, limits, func(ctx context.Context, c *driver.Collection) error {
		var keys []string
		cur, err := c.Find(ctx, bson.D{past}, options.Find().SetSort(bson.D{is("tat", 1)}).SetLimit(int64(limit)).SetProjection(bson.D{is("_id", 1)}))
		if err = drain(ctx, cur, err, func(raw bson.Raw) { keys = append(keys, textOf(raw.Lookup("_id"))) }); err != nil || len(keys) == 0 {
			return err
		}
		res, err := c.DeleteMany(ctx, bson.D{is("_id", in(keys)), past})
		if res != nil {
			n = int(res.DeletedCount)
		}
		return err
	})
	return n, err
}
