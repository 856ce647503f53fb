package mongo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// openStates are those of deliveries that are not settled.
var openStates = []store.DeliveryState{store.Received, store.Unresolved, store.Failed}

// Pending implements store.Inbox.
func (in *Inbox) Pending(ctx context.Context, before time.Time, after string, limit int) ([]store.Delivery, error) {
	if limit <= 0 {
		limit = 100
	}
	end := before.UnixMilli()
	if before.Nanosecond()%int(time.Millisecond) > 0 {
		end++
	}
	filter := bson.D{{Key: "_open", Value: string(store.Received)}, {Key: idKey, Value: bson.D{{Key: "$gt", Value: after}, {Key: "$lt", Value: store.FirstDeliveryID(end)}}}}
	var out []store.Delivery
	err := in.call(ctx, func(ctx context.Context, c *driver.Collection) (err error) {
		out, err = deliveriesOf(ctx, c, filter, options.Find().SetSort(bson.D{{Key: idKey, Value: 1}}).SetLimit(int64(limit)))
		return err
	})
	return out, err
}

func deliveriesOf(ctx context.Context, c *driver.Collection, filter bson.D, opts *options.FindOptionsBuilder) (out []store.Delivery, err error) {
	err = each(ctx, c, filter, opts, func(raw bson.Raw) error {
		var x delivery
		if err := bson.Unmarshal(raw, &x); err != nil {
			return err
		}
		out = append(out, x.delivery())
		return nil
	})
	return out, err
}

// Delivery implements store.Inbox.
func (in *Inbox) Delivery(ctx context.Context, id string) (store.Delivery, error) {
	var x delivery
	err := in.call(ctx, func(ctx context.Context, c *driver.Collection) error {
		err := c.FindOne(ctx, bson.D{{Key: idKey, Value: id}}).Decode(&x)
		if errors.Is(err, driver.ErrNoDocuments) {
			return fmt.Errorf("%w: delivery", store.ErrNotFound)
		}
		return err
	})
	if err != nil {
		return store.Delivery{}, err
	}
	return x.delivery(), nil
}

// Deliveries implements store.Inbox. Each part of the answer walks an index that ends with the id: what is not settled has one
// of its own, and so have the client of the app and the clients of the items. The parts are then put together.
func (in *Inbox) Deliveries(ctx context.Context, f store.DeliveryFilter) ([]store.Delivery, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	below := "dlv_~" // beyond every id
	if f.After != "" {
		if _, ok := store.DeliveryTime(f.After); !ok {
			return nil, nil
		}
		below = f.After
	}
	parts := []bson.D{{{Key: idKey, Value: bson.D{{Key: "$lt", Value: below}}}}}
	by := func(name string, values ...any) {
		var more []bson.D
		for _, p := range parts {
			for _, v := range values {
				more = append(more, append(bson.D{{Key: name, Value: v}}, p...))
			}
		}
		parts = more
	}
	switch {
	case len(f.States) == 0:
	case slices.Contains(f.States, store.Settled): // most are
		by("state", bson.D{{Key: "$in", Value: f.States}})
	default:
		var states []any
		for _, s := range openStates {
			if slices.Contains(f.States, s) {
				states = append(states, string(s))
			}
		}
		by("_open", states...)
	}
	if f.Client != "" {
		both := parts
		by("client", f.Client)
		own := parts
		parts = both
		by("clients", f.Client)
		parts = append(own, parts...)
	}
	var out []store.Delivery
	err := in.call(ctx, func(ctx context.Context, c *driver.Collection) error {
		for _, p := range parts {
			opts := options.Find().SetSort(bson.D{{Key: idKey, Value: -1}}).SetLimit(int64(limit)).SetProjection(bson.D{{Key: "body", Value: 0}})
			ds, err := deliveriesOf(ctx, c, p, opts)
			if err != nil {
				return err
			}
			out = append(out, ds...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b store.Delivery) int { return cmp.Compare(b.ID, a.ID) })
	out = slices.CompactFunc(out, func(a, b store.Delivery) bool { return a.ID == b.ID })
	return out[:min(limit, len(out))], nil
}

// Drop implements store.Inbox. It goes from the oldest day to the youngest that may go.
func (in *Inbox) Drop(ctx context.Context, settled, unsettled time.Duration) error {
	now := in.ids.Now()
	return in.call(ctx, func(ctx context.Context, c *driver.Collection) error {
		for from := ""; ; {
			at, err := nextDelivery(ctx, c, from)
			if err != nil || at == "" {
				return err
			}
			ms, ok := store.DeliveryTime(at)
			if !ok { // a hand's
				from = at + "\x00"
				continue
			}
			start := time.UnixMilli(ms).UTC().Truncate(24 * time.Hour)
			end := start.AddDate(0, 0, 1)
			age := now.Sub(end) // of its youngest delivery
			if age <= 0 || age < settled && age < unsettled {
				return nil
			}
			day := bson.D{{Key: "$gte", Value: store.FirstDeliveryID(start.UnixMilli())}, {Key: "$lt", Value: store.FirstDeliveryID(end.UnixMilli())}}
			drop := age >= unsettled
			if !drop {
				if drop, err = allSettled(ctx, c, day); err != nil {
					return err
				}
			}
			if drop {
				if err := dropDay(ctx, c, day); err != nil {
					return err
				}
			}
			from = store.FirstDeliveryID(end.UnixMilli())
		}
	})
}

// nextDelivery gives the least id from one on; "" if there is none.
func nextDelivery(ctx context.Context, c *driver.Collection, from string) (string, error) {
	var x delivery
	err := c.FindOne(ctx, bson.D{{Key: idKey, Value: bson.D{{Key: "$gte", Value: from}}}},
		options.FindOne().SetSort(bson.D{{Key: idKey, Value: 1}}).SetProjection(bson.D{{Key: idKey, Value: 1}})).Decode(&x)
	if errors.Is(err, driver.ErrNoDocuments) {
		return "", nil
	}
	return x.ID, err
}

func allSettled(ctx context.Context, c *driver.Collection, day bson.D) (bool, error) {
	for _, s := range openStates {
		err := c.FindOne(ctx, bson.D{{Key: "_open", Value: string(s)}, {Key: idKey, Value: day}}, options.FindOne().SetProjection(bson.D{{Key: idKey, Value: 1}})).Err()
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, driver.ErrNoDocuments) {
			return false, err
		}
	}
	return true, nil
}

// dropDay removes a day's deliveries, so many at a time that no command lasts long.
func dropDay(ctx context.Context, c *driver.Collection, day bson.D) error {
	for {
		last := ""
		opts := options.Find().SetSort(bson.D{{Key: idKey, Value: 1}}).SetProjection(bson.D{{Key: idKey, Value: 1}}).SetLimit(dropBatch).SetBatchSize(dropBatch)
		err := each(ctx, c, bson.D{{Key: idKey, Value: day}}, opts, func(raw bson.Raw) error {
			last = idOf(raw.Lookup(idKey))
			return nil
		})
		if err != nil || last == "" {
			return err
		}
		if _, err := c.DeleteMany(ctx, bson.D{{Key: idKey, Value: bson.D{day[0], {Key: "$lte", Value: last}}}}); err != nil {
			return err
		}
	}
}
