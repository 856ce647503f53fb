package mongo

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

const (
	handsLeast = 16   // lanes of a class that are read at once, at least
	handsMost  = 256  // and at most
	handJobs   = 4000 // jobs that are read at once
	handPairs  = 256  // jobs that are read at least of a lane of which some may have to be put off
	unionMost  = 25   // lanes that one query reads
	unionsMost = 4    // queries beside each other
	expireRuns = 4    // times that a claim expires what it meets
)

// hand is what was read of a lane: its first jobs that are of the types asked for.
type hand struct {
	jobs    []*candidate // that are not taken yet
	whole   bool         // there are no more
	trial   bool
	running int64 // of a lane on trial
}

// read reads the first jobs of the next lanes that a pass has to look at: the first time of all classes.
func (k *claim) read(ctx context.Context, p turn.Pass) error {
	from, to := p.From, p.To
	if len(k.hands) == 0 {
		if from, to = turn.Interactive, turn.Maintenance; k.Quarantine {
			to = turn.Quarantine
		}
	}
	if err := k.putOff(ctx); err != nil { // else they would be read again
		return err
	}
	names, depth := k.next(from, to)
	if len(names) == 0 {
		return nil
	}
	for range expireRuns {
		late, err := k.deal(ctx, names, depth)
		if err != nil {
			return err
		}
		if !late {
			return k.readPlaces(ctx, names)
		}
		if _, err := k.q.expire(ctx, k.c.now, expireMost); err != nil {
			return err
		}
	}
	for _, name := range names { // for the next claim
		k.hands[name] = &hand{whole: true}
	}
	k.again = true
	return nil
}

// next gives the lanes to read now, and how many jobs of each.
func (k *claim) next(from, to int) (names []string, depth int) {
	b := &k.q.board
	b.mu.Lock()
	defer b.mu.Unlock()
	var of [len(store.Classes)]int
	most := min(max(k.ClaimRequest.Limit, handsLeast), handsMost)
	for _, l := range b.open(from, to, k.types, k.c.now, k.rests) {
		h := k.hands[l.Name]
		if of[l.Class] == most || k.Skips(l.Name) || h != nil && (h.whole || len(h.jobs) > 0) {
			continue
		}
		of[l.Class]++
		names = append(names, l.Name)
	}
	if len(names) == 0 {
		return nil, 0
	}
	return names, min(k.ClaimRequest.Limit, max(4, handJobs/len(names)))
}

// deal reads the first jobs of lanes; late: there are some that are too late to start.
func (k *claim) deal(ctx context.Context, names []string, depth int) (late bool, err error) {
	taken := map[string][]string{}
	for _, c := range k.taken {
		taken[c.lane] = append(taken[c.lane], c.id)
	}
	limit := map[string]int{}
	var pipes []bson.A
	for _, name := range names {
		l := turn.LaneOf(name)
		limit[name] = depth
		if k.Bounds(l.Tenant, l.Resource).Pair.Every > 0 {
			limit[name] = max(depth, handPairs)
		}
		match := bson.D{is("state", string(store.Ready)), is("lane", name), is("type", in(k.Types))}
		if len(taken[name]) > 0 {
			match = append(match, is("_id", bson.D{is("$nin", taken[name])}))
		}
		pipes = append(pipes, bson.A{
			bson.D{is("$match", match)},
			bson.D{is("$sort", bson.D{is("runAt", 1), is(orderField, 1), is("_id", 1)})},
			bson.D{is("$limit", int64(limit[name]))},
			bson.D{is("$project", bson.D{is("lane", 1), is("type", 1), is("pair", 1), is(orderField, 1), is("runAt", 1), is("expiresAt", 1)})},
		})
		k.hands[name] = &hand{}
	}
	var mu sync.Mutex
	err = k.q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		return unions(ctx, c, pipes, func(raw bson.Raw) {
			d := decodeJob(raw)
			x := &candidate{id: d.ID, lane: d.Lane, typ: d.Type, pair: d.Pair, n: d.n, runAt: d.RunAt.UnixMilli()}
			mu.Lock()
			defer mu.Unlock()
			if h := k.hands[d.Lane]; h != nil {
				h.jobs = append(h.jobs, x)
			}
			late = late || !d.ExpiresAt.IsZero() && d.ExpiresAt.UnixMilli() <= k.c.now
		})
	})
	if err != nil || late {
		return late, err
	}
	b := &k.q.board
	b.mu.Lock()
	defer b.mu.Unlock()
	var trials []string
	for _, name := range names {
		h, l := k.hands[name], b.lane(name)
		h.whole = len(h.jobs) < limit[name]
		slices.SortFunc(h.jobs, func(a, b *candidate) int {
			return cmp.Or(cmp.Compare(a.runAt, b.runAt), cmp.Compare(a.n, b.n), cmp.Compare(a.id, b.id))
		})
		if len(h.jobs) == 0 {
			if l.stirred <= k.serial && len(taken[name]) == 0 { // its ready jobs are of other types, or others took them
				k.Barren(name)
			}
			continue
		}
		if h.trial = k.rests.trial(name, l.scopes, k.c.now); h.trial {
			trials = append(trials, name)
		}
	}
	if len(trials) == 0 {
		return false, nil
	}
	return false, k.q.each(ctx, bson.D{is("state", string(store.Running)), is("lane", in(trials))}, options.Find().SetProjection(bson.D{is("lane", 1)}), func(raw bson.Raw) {
		k.hands[textOf(raw.Lookup("lane"))].running++
	})
}

// unions runs pipelines over one collection, many in one query.
func unions(ctx context.Context, c *driver.Collection, pipes []bson.A, f func(raw bson.Raw)) error {
	var all sync.WaitGroup
	places := make(chan struct{}, unionsMost)
	errs := make(chan error, len(pipes))
	for some := range slices.Chunk(pipes, unionMost) {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			whole := slices.Clone(some[0])
			for _, p := range some[1:] {
				whole = append(whole, bson.D{is("$unionWith", bson.D{is("coll", c.Name()), is("pipeline", p)})})
			}
			cur, err := c.Aggregate(ctx, whole, options.Aggregate().SetBatchSize(handJobs))
			errs <- drain(ctx, cur, err, f)
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// readPlaces reads the places in their rates of all keys that jobs of these lanes may take from.
func (k *claim) readPlaces(ctx context.Context, names []string) error {
	want := map[string]bool{}
	for _, name := range names {
		l := turn.LaneOf(name)
		bounds := k.Bounds(l.Tenant, l.Resource)
		for _, key := range turn.Keys(l, bounds) {
			want[key] = true
		}
		if bounds.Pair.Every <= 0 {
			continue
		}
		for _, c := range k.hands[name].jobs {
			if c.pair != "" {
				want[turn.PairKey(l, c.pair)] = true
			}
		}
	}
	var keys []string
	for key := range want {
		if _, known := k.places[key]; !known {
			keys = append(keys, key)
		}
	}
	at, err := k.q.places(ctx, keys)
	for _, key := range keys {
		k.places[key] = at[key]
	}
	return err
}
