package mongo

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// Pause implements store.Queue.
func (q *Queue) Pause(ctx context.Context, r store.PauseRequest) (fresh bool, err error) {
	if err := r.Check(); err != nil {
		return false, err
	}
	return q.pause(ctx, r)
}

// ownPause is the pause that a job of a lane asks for at its end.
func ownPause(lane string, p store.PauseRequest) (store.PauseRequest, error) {
	return turn.OwnPause(lane, p)
}

// pause makes or prolongs a pause. Done twice it is a little longer.
func (q *Queue) pause(ctx context.Context, r store.PauseRequest) (fresh bool, err error) {
	id := pauseID(r.Scope, r.Reason)
	for {
		var before *turn.Rest
		there, change := false, int64(0)
		err := q.readPauses(ctx, bson.D{is("_id", id)}, func(p pauseDoc) {
			if there, change = true, p.change; !p.over {
				before = &p.Rest
			}
		})
		if err != nil {
			return false, err
		}
		after, fresh := before.Again(r, q.millis())
		set := bson.D{
			is("scope", r.Scope), is("reason", string(r.Reason)), is("detail", r.Detail), is("since", date(msTime(after.Since))),
			is("times", after.Times), is("length", after.Length), is("_change", change+1),
		}
		update := bson.D{is("$set", set), is("$unset", bson.D{is("until", ""), is("over", "")})}
		if after.Until != never {
			update = bson.D{is("$set", append(set, is("until", date(msTime(after.Until))))), is("$unset", bson.D{is("over", "")})}
		}
		did, err := q.writePause(ctx, id, !there, change, update)
		if err != nil {
			return false, err
		}
		if !did { // another was faster
			continue
		}
		q.rests.drop()
		if fresh {
			q.listeners.Tell(func(l store.Listener) {
				if l.Paused != nil {
					l.Paused(store.Pause{Scope: r.Scope, Reason: r.Reason, Until: turn.Time(after.Until), Detail: r.Detail, Since: msTime(after.Since)})
				}
			})
		}
		if q.sooner(after.Until) {
			q.listeners.Ready()
		}
		return fresh, nil
	}
}

// writePause writes a pause if it stands as it was read.
func (q *Queue) writePause(ctx context.Context, id string, fresh bool, change int64, update bson.D) (did bool, err error) {
	err = q.on(ctx, pauses, func(ctx context.Context, c *driver.Collection) error {
		if fresh {
			d := bson.D{is("_id", id)}
			for _, e := range update {
				if set, ok := e.Value.(bson.D); ok && e.Key == "$set" {
					d = append(d, set...)
				}
			}
			_, err := c.InsertOne(ctx, d)
			did = err == nil
			return err
		}
		res, err := c.UpdateOne(ctx, bson.D{is("_id", id), is("_change", change)}, update)
		did = err == nil && res.MatchedCount > 0
		return err
	})
	if errors.Is(err, store.ErrDuplicate) {
		return false, nil
	}
	return did, err
}

// Resume implements store.Queue.
func (q *Queue) Resume(ctx context.Context, scope string, reason store.PauseReason) (did bool, err error) {
	filter := bson.D{is("scope", scope)}
	if reason != "" {
		filter = append(filter, is("reason", string(reason)))
	}
	now, known, active := q.millis(), false, false
	err = q.readPauses(ctx, filter, func(p pauseDoc) { known, active = true, active || p.Until > now })
	if err != nil || !known {
		return false, err
	}
	if active { // nobody needs to try what somebody mended
		if err := q.mark(ctx, scope, "resumed", now); err != nil {
			return false, err
		}
	}
	err = q.on(ctx, pauses, func(ctx context.Context, c *driver.Collection) error {
		lasting := bson.D{is("$not", bson.D{is("$lte", date(msTime(now)))})}
		if active {
			res, err := c.DeleteMany(ctx, append(filter[:len(filter):len(filter)], is("until", lasting)))
			if err != nil {
				return err
			}
			did = res.DeletedCount > 0
		}
		// Of those that are over it is forgotten that the next one may be their continuation. The trial goes on.
		_, err := c.UpdateMany(ctx, filter, bson.D{is("$set", bson.D{is("over", true)}), is("$inc", bson.D{is("_change", int64(1))})})
		return err
	})
	if err != nil {
		return false, err
	}
	q.rests.drop()
	if did {
		q.listeners.Ready()
		q.listeners.Tell(func(l store.Listener) {
			if l.Resumed != nil {
				l.Resumed()
			}
		})
	}
	return did, nil
}

// Recall has pauses read anew: another process is known to have changed some.
func (q *Queue) Recall() { q.rests.drop() }

// Pauses implements store.Queue.
func (q *Queue) Pauses(ctx context.Context, tenant string) ([]store.Pause, error) {
	now := q.millis()
	var out []store.Pause
	filter := bson.D{is("$or", bson.A{
		bson.D{is("scope", tenant)},
		bson.D{is("scope", bson.D{is("$gte", tenant+"/"), is("$lt", tenant+"0")})},
	})}
	err := q.readPauses(ctx, filter, func(p pauseDoc) {
		if p.Until > now {
			out = append(out, p.pause())
		}
	})
	sortPauses(out)
	return out, err
}

// Paused implements store.Queue.
func (q *Queue) Paused(ctx context.Context, lane string) (*store.Pause, error) {
	s, err := q.rests.read(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.covering(lane, q.now()), nil
}
