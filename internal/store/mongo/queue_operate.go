package mongo

import (
	"context"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// sendable are the states from which an operator sends a job back.
var sendable = []store.State{store.Dead, store.Cancelled, store.Expired, store.Parked}

// Retry implements store.Queue. Crashes are forgotten too, and an expiry that has passed. A job whose key was
// freed takes it again, unless another job has it by now.
func (q *Queue) Retry(ctx context.Context, ids ...string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	c := q.begin()
	defer c.end()
	ds, err := q.find(ctx, bson.D{is("_id", in(ids)), is("state", in(sendable))}, options.Find().SetProjection(bson.D{is("payload", 0), is("result", 0)}))
	if err != nil {
		return nil, err
	}
	back := map[string]bool{}
	var steps []step
	for _, d := range ds {
		s := c.again(d)
		if d.UniqueKey == "" || d.holds {
			steps = append(steps, s)
			continue
		}
		keyed := s
		keyed.set = append(s.set[:len(s.set):len(s.set)], is("_key", keyOf(d.Tenant, d.UniqueKey)))
		did, err := q.apply(ctx, keyed)
		if errors.Is(err, store.ErrDuplicate) { // another job has it
			did, err = q.apply(ctx, s)
		}
		if err != nil {
			c.unsure = true
			return nil, err
		}
		back[d.ID] = did[d.ID]
	}
	did, err := q.apply(ctx, steps...)
	if err != nil {
		c.unsure = true
		return nil, err
	}
	for id, ok := range did {
		back[id] = ok
	}
	for _, d := range ds {
		if back[d.ID] {
			c.move(d.Lane, d.Type, d.State, "")
			c.move(d.homeLane(), d.Type, "", store.Ready)
		}
	}
	return those(ids, back), nil
}

// again is the step that sends a job back.
func (c *change) again(d jobDoc) step {
	s := step{
		ids: []string{d.ID}, must: bson.D{is("state", string(d.State)), is("lane", d.Lane)},
		set:   bson.D{is("state", string(store.Ready)), is("runAt", bson.DateTime(c.now)), is("attempt", int32(0)), is("crashes", int32(0)), is("lane", d.homeLane())},
		unset: bson.D{is("home", ""), is("endedAt", ""), is("cancelRequested", ""), is("owed", "")}, // it is not over after all
	}
	if !d.ExpiresAt.IsZero() && d.ExpiresAt.UnixMilli() <= c.now {
		s.unset = append(s.unset, is("expiresAt", ""))
	}
	return s
}

// those gives the ids that are in a set, each once, in their order.
func those(ids []string, set map[string]bool) (out []string) {
	for _, id := range ids {
		if set[id] && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// Cancel implements store.Queue.
func (q *Queue) Cancel(ctx context.Context, ids ...string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	c := q.begin()
	defer c.end()
	done := map[string]bool{}
	todo := ids
	for tries := 0; len(todo) > 0 && tries < putTries; tries++ { // a job that runs on meanwhile is looked at again
		ds, err := q.find(ctx, bson.D{is("_id", in(todo)), is("state", in([]store.State{store.Scheduled, store.Ready, store.Parked, store.Running}))}, options.Find().SetProjection(where))
		if err != nil {
			return nil, err
		}
		steps := make([]step, len(ds))
		for i, d := range ds {
			steps[i] = step{ids: []string{d.ID}, must: bson.D{is("state", string(d.State)), is("lane", d.Lane)}}
			if d.State == store.Running {
				steps[i].set = bson.D{is("cancelRequested", true)}
			} else {
				steps[i].set = bson.D{is("state", string(store.Cancelled)), is("endedAt", bson.DateTime(c.now))}
			}
		}
		did, err := q.apply(ctx, steps...)
		if err != nil {
			c.unsure = true
			return nil, err
		}
		todo = nil
		for _, d := range ds {
			switch {
			case !did[d.ID]:
				todo = append(todo, d.ID)
			case d.State == store.Running:
				done[d.ID] = true
			default:
				done[d.ID] = true
				c.move(d.Lane, d.Type, d.State, store.Cancelled)
			}
			if did[d.ID] && d.State == store.Running {
				c.asked = append(c.asked, d.ID)
			}
		}
	}
	c.asked = those(ids, setOf(c.asked))
	return those(ids, done), nil
}

func setOf(ids []string) map[string]bool {
	m := make(map[string]bool, len(ids))
	for _, id := range ids {
		m[id] = true
	}
	return m
}

// ReleaseParked implements store.Queue.
func (q *Queue) ReleaseParked(ctx context.Context, tenant string) (int, error) {
	total := 0
	for { // a suspended client may have left very many
		n, found, err := q.releaseParked(ctx, tenant)
		if total += n; err != nil || found < promoteBatch {
			return total, err
		}
	}
}

func (q *Queue) releaseParked(ctx context.Context, tenant string) (n, found int, err error) {
	c := q.begin()
	defer c.end()
	parked := bson.D{is("state", string(store.Parked)), is("tenant", tenant)}
	ds, err := q.find(ctx, parked, options.Find().SetSort(bson.D{is(orderField, 1)}).SetLimit(promoteBatch).SetProjection(where))
	if err != nil || len(ds) == 0 {
		return 0, 0, err
	}
	n, err = c.moveAll(ctx, ds, step{must: parked, set: bson.D{is("state", string(store.Ready))}}, store.Ready)
	return n, len(ds), err
}
