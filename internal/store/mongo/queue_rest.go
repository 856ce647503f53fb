package mongo

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

const (
	restsFresh = 900 * time.Millisecond // what is remembered of pauses is believed for so long: others know of one within a second
	// trialKept is how long after a pause its lanes are on trial at most: who had nothing to do for so long makes no rush.
	trialKept = time.Hour
)

// rests remembers the pauses of all tenants, those over included for as long as a lane may be on trial after one, and what
// ended trials: few at any time.
type rests struct {
	reading sync.Mutex // held by who reads them; the others wait for it

	mu      sync.Mutex
	epoch   int // of our own changes
	now     *restsNow
	dropped bool // now is not to be believed any more
}

// restsNow is what was read.
type restsNow struct {
	at     time.Time
	pauses map[string][]pauseDoc // by scope
	marks  map[string]mark       // by lane, or scope
}

// pauseDoc is a pause as its document has it. Times are Unix ms.
type pauseDoc struct {
	scope, detail string
	reason        store.PauseReason
	turn.Rest
	over   bool  // it is remembered for trials alone: a new one is no continuation
	change int64 // +1 with each
}

// mark is what ends trials: an execution of a lane that ended without a pause and began then; or a word that resumed a
// scope. Unix ms.
type mark struct{ proven, resumed int64 }

// drop forgets what was read: it was changed here.
func (r *rests) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	r.dropped = true
}

func (r *rests) known() (now *restsNow, epoch int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || r.dropped || time.Since(r.now.at) > restsFresh {
		return nil, r.epoch
	}
	return r.now, r.epoch
}

// read gives the pauses as they were within the last second, with all that was changed here.
func (r *rests) read(ctx context.Context, q *Queue) (*restsNow, error) {
	if now, _ := r.known(); now != nil {
		return now, nil
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	for {
		now, epoch := r.known()
		if now != nil {
			return now, nil
		}
		now = &restsNow{at: time.Now(), pauses: map[string][]pauseDoc{}, marks: map[string]mark{}}
		if err := q.readPauses(ctx, bson.D{}, func(p pauseDoc) { now.pauses[p.scope] = append(now.pauses[p.scope], p) }); err != nil {
			return nil, err
		}
		if len(now.pauses) > 0 { // else there is nothing to end
			err := q.aggregate(ctx, lanes, bson.A{bson.D{is("$match", bson.D{})}}, func(raw bson.Raw) {
				now.marks[textOf(raw.Lookup("_id"))] = mark{millisOf(raw.Lookup("proven")), millisOf(raw.Lookup("resumed"))}
			})
			if err != nil {
				return nil, err
			}
		}
		r.mu.Lock()
		if epoch == r.epoch {
			r.now, r.dropped = now, false
		}
		r.mu.Unlock()
	}
}

// until tells how long pauses keep a lane from running: Unix ms, never for until somebody resumes it; 0: not at all.
func (s *restsNow) until(l *lane, now int64) (until int64) {
	if len(s.pauses) == 0 {
		return 0
	}
	for _, scope := range l.scopes {
		for _, p := range s.pauses[scope] {
			if p.Until > now {
				until = max(until, p.Until)
			}
		}
	}
	return until
}

// trial tells whether a lane is on trial: a pause of it ended by itself, and since then neither an execution that began
// after it ended well, nor was the lane resumed.
func (s *restsNow) trial(name string, scopes []string, now int64) bool {
	if len(s.pauses) == 0 {
		return false
	}
	ended, since := int64(0), s.marks[name].proven
	for _, scope := range scopes {
		since = max(since, s.marks[scope].resumed)
		for _, p := range s.pauses[scope] {
			if p.Until <= now {
				ended = max(ended, p.Until)
			}
		}
	}
	return ended > since
}

// covering gives the pause that lasts longest of those that cover a lane; nil: none does.
func (s *restsNow) covering(name string, now time.Time) *store.Pause {
	if len(s.pauses) == 0 {
		return nil
	}
	var ps []store.Pause
	for _, scope := range store.Scopes(name) {
		for _, p := range s.pauses[scope] {
			ps = append(ps, p.pause())
		}
	}
	return turn.Longest(ps, name, now)
}

func (p pauseDoc) pause() store.Pause {
	return store.Pause{Scope: p.scope, Reason: p.reason, Until: turn.Time(p.Until), Detail: p.detail, Since: msTime(p.Since)}
}

func millisOf(v bson.RawValue) int64 {
	if t := timeOf(v); !t.IsZero() {
		return t.UnixMilli()
	}
	return 0
}

// pauseID is the id of a pause's document.
func pauseID(scope string, reason store.PauseReason) string { return scope + " " + string(reason) }

// readPauses reads pauses, those that are over included.
func (q *Queue) readPauses(ctx context.Context, filter bson.D, f func(p pauseDoc)) error {
	return q.on(ctx, pauses, func(ctx context.Context, c *driver.Collection) error {
		cur, err := c.Find(ctx, filter)
		return drain(ctx, cur, err, func(raw bson.Raw) {
			p := pauseDoc{scope: textOf(raw.Lookup("scope")), reason: store.PauseReason(textOf(raw.Lookup("reason"))), detail: textOf(raw.Lookup("detail"))}
			p.Since, p.Until = millisOf(raw.Lookup("since")), millisOf(raw.Lookup("until"))
			if p.Until == 0 {
				p.Until = never
			}
			p.Times, p.Length, p.change = intOf(raw.Lookup("times")), intOf(raw.Lookup("length")), intOf(raw.Lookup("_change"))
			p.over = boolOf(raw.Lookup("over"))
			f(p)
		})
	})
}

// prove notes that an execution of a lane that began then ended without a pause. Nothing is written but for a lane on
// trial.
func (q *Queue) prove(ctx context.Context, name string, startedAt int64) error {
	s, err := q.rests.read(ctx, q)
	if err != nil || !s.trial(name, store.Scopes(name), startedAt) {
		return err
	}
	err = q.mark(ctx, name, "proven", startedAt)
	q.rests.drop()
	return err
}

func (q *Queue) mark(ctx context.Context, id, what string, at int64) error {
	return q.on(ctx, lanes, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.UpdateOne(ctx, bson.D{is("_id", id)}, bson.D{is("$max", bson.D{is(what, date(msTime(at)))})}, options.UpdateOne().SetUpsert(true))
		if isDuplicate(err) { // another made it this very moment
			_, err = c.UpdateOne(ctx, bson.D{is("_id", id)}, bson.D{is("$max", bson.D{is(what, date(msTime(at)))})})
		}
		return err
	})
}

// prunePauses forgets pauses after which a new one would not be their continuation, and no lane on trial.
func (q *Queue) prunePauses(ctx context.Context, limit int) (int, error) {
	now := q.millis()
	before := msTime(now - trialKept.Milliseconds())
	var old []string
	err := q.readPauses(ctx, bson.D{is("until", bson.D{is("$lte", date(before))})}, func(p pauseDoc) {
		if p.Over(now) && len(old) < limit {
			old = append(old, pauseID(p.scope, p.reason))
		}
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	n := 0
	err = q.on(ctx, pauses, func(ctx context.Context, c *driver.Collection) error {
		res, err := c.DeleteMany(ctx, bson.D{is("_id", in(old)), is("until", bson.D{is("$lte", date(before))})})
		if res != nil {
			n = int(res.DeletedCount)
		}
		return err
	})
	if err != nil {
		return n, err
	}
	// What ended trials before any pause that is left has nothing to end.
	older := bson.D{is("$not", bson.D{is("$gt", date(before))})}
	err = q.on(ctx, lanes, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.DeleteMany(ctx, bson.D{is("proven", older), is("resumed", older)})
		return err
	})
	q.rests.drop()
	return n, err
}

// forgetRests forgets the limits, the pauses and the lanes of a tenant.
func (q *Queue) forgetRests(ctx context.Context, tenant string) error {
	below := bson.D{is("$gte", tenant+"/"), is("$lt", tenant+"0")}
	for _, x := range []struct {
		of     string
		filter bson.D
	}{
		{limits, bson.D{is("_id", below)}},
		{lanes, bson.D{is("_id", below)}},
		{lanes, bson.D{is("_id", tenant)}},
		{pauses, bson.D{is("scope", below)}},
		{pauses, bson.D{is("scope", tenant)}},
	} {
		err := q.on(ctx, x.of, func(ctx context.Context, c *driver.Collection) error {
			_, err := c.DeleteMany(ctx, x.filter)
			return err
		})
		if err != nil {
			return err
		}
	}
	q.rests.drop()
	q.board.mu.Lock()
	defer q.board.mu.Unlock()
	for name, l := range q.board.lanes {
		if l.Tenant == tenant {
			delete(q.board.lanes, name)
		}
	}
	return nil
}

// sortPauses puts pauses by scope and reason.
func sortPauses(ps []store.Pause) {
	slices.SortFunc(ps, func(a, b store.Pause) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Reason, b.Reason))
	})
}
