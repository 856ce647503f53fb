package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// Standing implements store.Queue. What is at its rate is so as this process knows.
func (q *Queue) Standing(ctx context.Context) (store.Standing, error) {
	s := store.Standing{OldestReady: map[store.Class]time.Time{}, Paused: map[store.PauseReason]int64{}}
	var err error
	if s.States, err = q.JobCounts(ctx, ""); err != nil {
		return s, err
	}
	if err := q.survey(ctx); err != nil {
		return s, err
	}
	rests, err := q.rests.read(ctx, q)
	if err != nil {
		return s, err
	}
	now := q.millis()
	for _, ps := range rests.pauses {
		for _, p := range ps {
			if p.Until > now {
				s.Paused[p.reason]++
			}
		}
	}
	b := &q.board
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lanes {
		if !l.ready || !l.listed || l.limited > now || rests.until(l, now) > now {
			continue
		}
		class, at := store.Classes[l.Class], msTime(l.oldest)
		if oldest, ok := s.OldestReady[class]; !ok || at.Before(oldest) {
			s.OldestReady[class] = at
		}
	}
	return s, nil
}

// Lanes implements store.Queue.
func (q *Queue) Lanes(ctx context.Context, after string, limit int) ([]store.Lane, error) {
	if limit <= 0 {
		return nil, nil
	}
	out, err := q.lanesAfter(ctx, after, limit)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	rests, err := q.rests.read(ctx, q)
	if err != nil {
		return nil, err
	}
	var waiting []string
	for _, l := range out {
		if l.Ready > 0 {
			waiting = append(waiting, l.Lane)
		}
	}
	oldest := map[string]time.Time{}
	if len(waiting) > 0 {
		err := q.aggregate(ctx, jobs, bson.A{
			bson.D{is("$match", bson.D{is("state", string(store.Ready)), is("lane", in(waiting))})},
			bson.D{is("$sort", bson.D{is("state", 1), is("lane", 1), is("runAt", 1), is(orderField, 1)})},
			bson.D{is("$group", bson.D{is("_id", "$lane"), is("runAt", bson.D{is("$first", "$runAt")})})},
		}, func(raw bson.Raw) { oldest[textOf(raw.Lookup("_id"))] = timeOf(raw.Lookup("runAt")) })
		if err != nil {
			return nil, err
		}
	}
	now := q.now()
	for i := range out {
		l := &out[i]
		l.OldestReady = oldest[l.Lane]
		l.Pause = rests.covering(l.Lane, now)
		l.Trial = rests.trial(l.Lane, store.Scopes(l.Lane), now.UnixMilli())
		if at := q.limitedUntil(l.Lane); at > now.UnixMilli() {
			l.LimitedUntil = msTime(at)
		}
		if l.Parked > 0 {
			if l.ParkedFor, err = q.parkedFor(ctx, l.Tenant, l.Lane); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// lanesAfter gives the numbers of lanes that hold work.
func (q *Queue) lanesAfter(ctx context.Context, after string, limit int) (out []store.Lane, err error) {
	if err := q.count(ctx); err != nil {
		return nil, err
	}
	sum := func(s store.State) bson.E { return is(string(s), bson.D{is("$sum", "$"+string(s))}) }
	some := func(s store.State) bson.D { return bson.D{is(string(s), bson.D{is("$gt", 0)})} }
	err = q.aggregate(ctx, jobCounts, bson.A{
		bson.D{is("$match", bson.D{is("lane", bson.D{is("$gt", after)})})},
		bson.D{is("$group", bson.D{is("_id", "$lane"), sum(store.Scheduled), sum(store.Ready), sum(store.Running), sum(store.Parked)})},
		bson.D{is("$match", bson.D{is("$or", bson.A{some(store.Scheduled), some(store.Ready), some(store.Running), some(store.Parked)})})},
		bson.D{is("$sort", bson.D{is("_id", 1)})},
		bson.D{is("$limit", int64(limit))},
	}, func(raw bson.Raw) {
		n := func(s store.State) int64 { return max(0, intOf(raw.Lookup(string(s)))) }
		l := store.Lane{
			Lane: textOf(raw.Lookup("_id")), Scheduled: n(store.Scheduled), Ready: n(store.Ready), Running: n(store.Running), Parked: n(store.Parked),
		}
		l.Tenant, l.Resource, l.Class = store.SplitLane(l.Lane)
		out = append(out, l)
	})
	return out, err
}

// limitedUntil is until when a lane's rate keeps it from more, as this process knows; Unix ms.
func (q *Queue) limitedUntil(name string) int64 {
	q.board.mu.Lock()
	defer q.board.mu.Unlock()
	if l := q.board.lanes[name]; l != nil {
		return l.limited
	}
	return 0
}

// parkedFor is the code of the error for which the newest of a lane's parked jobs is held.
func (q *Queue) parkedFor(ctx context.Context, tenant, name string) (code string, err error) {
	err = q.each(ctx, bson.D{is("state", string(store.Parked)), is("tenant", tenant), is("lane", name)},
		options.Find().SetSort(bson.D{is(orderField, -1)}).SetLimit(1).SetProjection(bson.D{is("errors", 1)}), func(raw bson.Raw) {
			if es := errorsOf(raw.Lookup("errors")); len(es) > 0 {
				code = es[len(es)-1].Code
			}
		})
	return code, err
}
