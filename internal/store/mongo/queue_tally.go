package mongo

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	tallyEvery = 500 * time.Millisecond // what was counted is written so often at most
	roomFresh  = time.Second            // what was read of a tenant's numbers is believed for so long
	roomsMost  = 4096                   // tenants whose numbers are remembered
)

// tally counts the jobs of a lane and type by state. It is in memory what is not written yet: each process adds what it
// did to jobCounts, many changes at once, so that counting costs a job no write of its own. Nothing but numbers for
// people, and the bound of Room, hangs on it. What a process that died did not write is found by recount.
type tally struct {
	mu      sync.Mutex
	pending moves
	waiting bool // a write is to come
	rooms   map[string]*room

	unsure bool // something may be counted wrong

	writing sync.Mutex // held by who writes

	counting sync.Mutex // held by who counts anew
	looked   time.Time  // when that was last
	differs  moves      // what was found then
}

// ofType names the jobs of a type in a lane.
type ofType struct{ lane, typ string }

// moves are changes of numbers, by state as in store.States.
type moves map[ofType]*[len(store.States)]int64

func (m moves) add(lane, typ string, s store.State, n int64) {
	i := slices.Index(store.States[:], s)
	if i < 0 {
		return
	}
	key := ofType{lane, typ}
	if m[key] == nil {
		m[key] = new([len(store.States)]int64)
	}
	m[key][i] += n
}

// room is how many unfinished jobs a tenant has, by lane.
type room struct {
	at    time.Time
	all   int64
	lanes map[string]int64
}

// unfinished is the part of numbers by state that is of unfinished jobs.
func unfinished(n *[len(store.States)]int64) int64 { return n[0] + n[1] + n[2] + n[3] }

// add counts; what is unsure is counted anew before long.
func (t *tally) add(ms moves, unsure bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unsure = t.unsure || unsure
	for key, n := range ms {
		if t.pending == nil {
			t.pending = moves{}
		}
		if t.pending[key] == nil {
			t.pending[key] = new([len(store.States)]int64)
		}
		for i := range n {
			t.pending[key][i] += n[i]
		}
		tenant, _, _ := store.SplitLane(key.lane)
		if r := t.rooms[tenant]; r != nil {
			r.all += unfinished(n)
			r.lanes[key.lane] += unfinished(n)
		}
	}
}

// later has what was counted written soon.
func (q *Queue) later() {
	t := &q.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting || len(t.pending) == 0 {
		return
	}
	t.waiting = true
	time.AfterFunc(tallyEvery, func() {
		t.mu.Lock()
		t.waiting = false
		t.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = q.count(ctx)
	})
}

// count writes what was counted here. Of what could not be written it is not known whether it was: it is counted anew.
func (q *Queue) count(ctx context.Context) error {
	q.tally.writing.Lock()
	defer q.tally.writing.Unlock()
	t := &q.tally
	t.mu.Lock()
	ms := t.pending
	t.pending = nil
	t.mu.Unlock()
	err := q.addCounts(ctx, ms)
	if err != nil {
		t.mu.Lock()
		t.unsure = true
		t.mu.Unlock()
	}
	return err
}

func (q *Queue) addCounts(ctx context.Context, ms moves) error {
	var models []driver.WriteModel
	for key, n := range ms {
		tenant, _, _ := store.SplitLane(key.lane)
		var inc bson.D
		for i, s := range store.States {
			if n[i] != 0 {
				inc = append(inc, is(string(s), n[i]))
			}
		}
		if len(inc) == 0 {
			continue
		}
		models = append(models, driver.NewUpdateOneModel().SetUpsert(true).SetFilter(bson.D{is("_id", key.lane+"#"+key.typ)}).
			SetUpdate(bson.D{is("$inc", inc), is("$setOnInsert", bson.D{is("tenant", tenant), is("lane", key.lane), is("type", key.typ)})}))
	}
	if len(models) == 0 {
		return nil
	}
	return q.on(ctx, jobCounts, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
		return err
	})
}

// sums adds up the numbers of a tenant's jobs ("" is all tenants), by a member of theirs.
func (q *Queue) sums(ctx context.Context, tenant, by string, f func(of string, n [len(store.States)]int64)) error {
	if err := q.count(ctx); err != nil {
		return err
	}
	match := bson.D{is("lane", there)}
	if tenant != "" {
		match = bson.D{is("tenant", tenant)}
	}
	group := bson.D{is("_id", "$"+by)}
	for _, s := range store.States {
		group = append(group, is(string(s), bson.D{is("$sum", "$"+string(s))}))
	}
	return q.aggregate(ctx, jobCounts, bson.A{bson.D{is("$match", match)}, bson.D{is("$group", group)}}, func(raw bson.Raw) {
		var n [len(store.States)]int64
		for i, s := range store.States {
			n[i] = max(0, intOf(raw.Lookup(string(s))))
		}
		f(textOf(raw.Lookup("_id")), n)
	})
}

// JobCounts implements store.Queue; every state is in it.
func (q *Queue) JobCounts(ctx context.Context, tenant string) (store.JobCounts, error) {
	counts := store.JobCounts{}
	for _, s := range store.States {
		counts[s] = 0
	}
	err := q.sums(ctx, tenant, "type", func(_ string, n [len(store.States)]int64) {
		for i, s := range store.States {
			counts[s] += n[i]
		}
	})
	return counts, err
}

// TypeCounts implements store.Queue.
func (q *Queue) TypeCounts(ctx context.Context, tenant string) (map[string]store.JobCounts, error) {
	counts := map[string]store.JobCounts{}
	err := q.sums(ctx, tenant, "type", func(typ string, n [len(store.States)]int64) {
		of, all := store.JobCounts{}, int64(0)
		for i, s := range store.States {
			of[s] = n[i]
			all += n[i]
		}
		if all > 0 {
			counts[typ] = of
		}
	})
	return counts, err
}

// roomOf gives how many unfinished jobs a tenant has, and a lane of it.
func (q *Queue) roomOf(ctx context.Context, tenant, lane string) (ofTenant, ofLane int64, err error) {
	t := &q.tally
	t.mu.Lock()
	r := t.rooms[tenant]
	if r != nil && time.Since(r.at) < roomFresh {
		defer t.mu.Unlock()
		return r.all, r.lanes[lane], nil
	}
	t.mu.Unlock()
	if tenant == "" { // sums would add up all
		return q.laneRoom(ctx, lane)
	}
	r = &room{at: time.Now(), lanes: map[string]int64{}}
	err = q.sums(ctx, tenant, "lane", func(lane string, n [len(store.States)]int64) {
		r.lanes[lane] = unfinished(&n)
		r.all += unfinished(&n)
	})
	if err != nil {
		return 0, 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rooms == nil || len(t.rooms) >= roomsMost {
		t.rooms = map[string]*room{}
	}
	t.rooms[tenant] = r
	return r.all, r.lanes[lane], nil
}

// laneRoom is roomOf for the system's own jobs.
func (q *Queue) laneRoom(ctx context.Context, lane string) (all, ofLane int64, err error) {
	err = q.sums(ctx, "", "lane", func(name string, n [len(store.States)]int64) {
		if tenant, _, _ := store.SplitLane(name); tenant == "" {
			all += unfinished(&n)
		}
		if name == lane {
			ofLane = unfinished(&n)
		}
	})
	return all, ofLane, err
}

// forget forgets a tenant's numbers.
func (t *tally) forget(tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.rooms, tenant)
}
