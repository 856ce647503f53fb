package mongo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// Promote implements store.Queue. It writes nothing if nothing is due. Any number of processes may promote at once: each
// change finds its job as it must be, or does nothing.
func (q *Queue) Promote(ctx context.Context) (ready int, next time.Time, err error) {
	for again := true; ; {
		// Unknown while it is being read: who schedules a job meanwhile cannot find it later than it is.
		q.due.Store(never)
		now := q.millis()
		look, err := q.look(ctx, now)
		if err != nil {
			return ready, time.Time{}, err
		}
		if look.due > now && !look.expired && look.lapse > now {
			free, err := q.freed(ctx, now)
			if err != nil {
				return ready, time.Time{}, err
			}
			if due := min(look.due, free); due < never {
				q.sooner(due)
			}
			if first := min(look.due, look.lapse, free); first < never {
				next = msTime(first)
			}
			q.recountIfDue()
			return ready, next, nil
		}
		moved, made, err := q.promoteBatch(ctx, look)
		ready += made
		if err != nil {
			return ready, time.Time{}, err
		}
		if moved == 0 { // another process was faster: it looks once more
			if again {
				again = false
				continue
			}
			if free, err := q.freed(ctx, now); err == nil && free < never {
				next = msTime(free)
			}
			return ready, next, nil
		}
	}
}

// outlook is what is to come of itself, in Unix ms.
type outlook struct {
	due, lapse int64 // when the first scheduled job is due, and the first lease ends
	expired    bool  // a job can no longer start in time
}

func (q *Queue) look(ctx context.Context, now int64) (o outlook, err error) {
	err = q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) (err error) {
		if o.due, err = firstDate(ctx, c, bson.D{is("state", string(store.Scheduled))}, "runAt"); err != nil {
			return err
		}
		if o.lapse, err = firstDate(ctx, c, bson.D{is("state", string(store.Running))}, "leaseUntil"); err != nil {
			return err
		}
		first, err := firstDate(ctx, c, bson.D{is("state", in(held)), is("expiresAt", bson.D{is("$lte", bson.DateTime(now))})}, "expiresAt")
		o.expired = first < never
		return err
	})
	return o, err
}

// firstDate is the earliest date that a member has; never if none has one.
func firstDate(ctx context.Context, c *driver.Collection, filter bson.D, name string) (int64, error) {
	at := int64(never)
	cur, err := c.Find(ctx, filter, options.Find().SetSort(bson.D{is(name, 1)}).SetLimit(1).SetProjection(bson.D{is(name, 1), is("_id", 0)}))
	err = drain(ctx, cur, err, func(raw bson.Raw) {
		at = 0 // one whose date is broken is due
		if ms, ok := raw.Lookup(name).DateTimeOK(); ok {
			at = ms
		}
	})
	return at, err
}

// promoteBatch moves what is due; how many jobs, and how many of them are ready.
func (q *Queue) promoteBatch(ctx context.Context, look outlook) (moved, ready int, err error) {
	c := q.begin()
	defer c.end()
	late := 0
	if look.expired { // first: what is due as well as too late never becomes ready
		if late, err = c.expire(ctx, promoteBatch); err != nil {
			return late, 0, err
		}
	}
	up := 0
	if look.due <= c.now && late < promoteBatch {
		if up, err = c.moveUp(ctx, promoteBatch); err != nil {
			return late, 0, err
		}
	}
	back, all := 0, 0
	if look.lapse <= c.now { // last: an ending that cannot be completed is in nobody's way
		back, all, err = c.takeBack(ctx, promoteBatch)
	}
	return late + up + all, up + back, err
}

// where are the members by which jobs are counted.
var where = bson.D{is("lane", 1), is("type", 1), is("state", 1)}

// moveUp makes scheduled jobs ready that are due.
func (c *change) moveUp(ctx context.Context, limit int64) (int, error) {
	due := bson.D{is("state", string(store.Scheduled)), is("runAt", bson.D{is("$lte", bson.DateTime(c.now))})}
	ds, err := c.q.find(ctx, due, options.Find().SetSort(bson.D{is("runAt", 1), is(orderField, 1)}).SetLimit(limit).SetProjection(where))
	if err != nil || len(ds) == 0 {
		return 0, err
	}
	return c.moveAll(ctx, ds, step{must: due, set: bson.D{is("state", string(store.Ready))}}, store.Ready)
}

// moveAll does one step with many jobs, that bring all of them to a state.
func (c *change) moveAll(ctx context.Context, ds []jobDoc, s step, to store.State) (n int, err error) {
	for _, d := range ds {
		s.ids = append(s.ids, d.ID)
	}
	did, err := c.q.apply(ctx, s)
	if err != nil {
		c.unsure = true
		return 0, err
	}
	for _, d := range ds {
		if did[d.ID] {
			c.move(d.Lane, d.Type, d.State, to)
			n++
		}
	}
	return n, nil
}

// expire ends jobs that can no longer start in time; how many. A claim that meets such jobs calls it, too.
func (q *Queue) expire(ctx context.Context, _ int64, limit int) (int, error) {
	c := q.begin()
	defer c.end()
	return c.expire(ctx, int64(limit))
}

func (c *change) expire(ctx context.Context, limit int64) (n int, err error) {
	ds, err := c.q.find(ctx, bson.D{is("state", in(held)), is("expiresAt", bson.D{is("$lte", bson.DateTime(c.now))})},
		options.Find().SetSort(bson.D{is("expiresAt", 1)}).SetLimit(limit).SetProjection(where))
	if err != nil {
		return 0, err
	}
	byState := map[store.State][]jobDoc{}
	for _, d := range ds {
		byState[d.State] = append(byState[d.State], d)
	}
	for state, ds := range byState {
		s := step{
			must: bson.D{is("state", string(state)), is("expiresAt", bson.D{is("$lte", bson.DateTime(c.now))})},
			set:  bson.D{is("state", string(store.Expired)), is("endedAt", bson.DateTime(c.now)), is("owed", true)},
		}
		for _, d := range ds {
			s.ids = append(s.ids, d.ID)
		}
		did, err := c.q.apply(ctx, s)
		if err != nil {
			c.unsure = true
			return n, err
		}
		for _, d := range ds {
			if did[d.ID] {
				c.move(d.Lane, d.Type, state, store.Expired)
				c.swept = append(c.swept, d.ID)
				c.owing = true
				n++
			}
		}
	}
	return n, nil
}

// takeBack ends the executions whose lease ran out, and puts those of the jobs that may run again into quarantine. One
// whose outcome stands is completed. How many jobs are ready again, and how many there were.
func (c *change) takeBack(ctx context.Context, limit int64) (ready, all int, err error) {
	ds, err := c.q.find(ctx, bson.D{is("state", string(store.Running)), is("leaseUntil", bson.D{is("$lte", bson.DateTime(c.now))})},
		options.Find().SetSort(bson.D{is("leaseUntil", 1)}).SetLimit(limit).SetProjection(bson.D{is("payload", 0)}))
	if err != nil || len(ds) == 0 {
		return 0, 0, err
	}
	var over, lost []jobDoc
	var steps []step
	to := map[string]lostTo{}
	for _, d := range ds {
		if d.ending != nil {
			over = append(over, d)
			continue
		}
		lost = append(lost, d)
		x, s := c.lost(d)
		to[d.ID] = x
		steps = append(steps, s)
	}
	did, err := c.q.apply(ctx, steps...)
	if err != nil {
		c.unsure = true
		return 0, 0, err
	}
	for _, d := range lost {
		if !did[d.ID] { // prolonged, ended or asked to cancel meanwhile
			continue
		}
		x := to[d.ID]
		c.move(d.Lane, d.Type, store.Running, "")
		c.move(x.lane, d.Type, "", x.state)
		c.swept = append(c.swept, d.ID)
		c.crashed++
		all++
		if x.state == store.Ready {
			ready++
		}
		c.owing = c.owing || x.state == store.Dead || x.state == store.Expired
	}
	if err = c.complete(ctx, over); err == nil {
		return ready, all + len(over), nil
	}
	var failed error
	for _, d := range over { // each that can be
		if err := c.complete(ctx, []jobDoc{d}); err != nil {
			failed = errors.Join(failed, fmt.Errorf("the end of job %s: %w", d.ID, err))
			continue
		}
		all++
	}
	return ready, all, failed
}

// lostTo is where a job comes to whose lease ran out.
type lostTo struct {
	state store.State
	lane  string
}

func (c *change) lost(d jobDoc) (lostTo, step) {
	x := lostTo{store.Ready, d.Lane}
	s := step{
		ids: []string{d.ID},
		must: bson.D{
			is("state", string(store.Running)), is("token", d.Token), is("leaseUntil", bson.D{is("$lte", bson.DateTime(c.now))}), is("_ending", absent),
			is("cancelRequested", bson.D{is("$ne", !d.cancel)}),
		},
		set:   bson.D{is("crashes", int32(d.Crashes+1))},
		unset: leaveRunning,
	}
	switch {
	case d.cancel:
		x.state = store.Cancelled
	case d.Crashes+1 >= store.MaxCrashes:
		x.state = store.Dead
		s.set = append(s.set, is("errors", errorsDoc(d.Errors, &store.JobError{
			At: msTime(c.now), Attempt: d.Attempt, Code: "poison", Message: "its lease ran out three times: the process died or hung while this job ran",
		})))
	case !d.ExpiresAt.IsZero() && d.ExpiresAt.UnixMilli() <= c.now:
		x.state = store.Expired
	default:
		tenant, resource, _ := store.SplitLane(d.Lane)
		if x.lane = store.LaneName(tenant, resource, store.Quarantine); x.lane != d.Lane {
			s.set = append(s.set, is("lane", x.lane), is("home", d.Lane))
		}
	}
	s.set = append(s.set, is("state", string(x.state)))
	if x.state != store.Ready {
		s.set = append(s.set, is("endedAt", bson.DateTime(c.now)))
	}
	if x.state == store.Dead || x.state == store.Expired { // of a cancelled one, who asked for it knows
		s.set = append(s.set, is("owed", true))
	}
	return x, s
}
