package mongo

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

const (
	claimTries = 4    // times that a claim looks for more whose jobs others took
	expireMost = 2000 // jobs that one claim may expire at once
)

// Claim implements store.Queue.
//
// Whose turn it is, is decided in memory, over the first jobs of the lanes that have a turn; then what was decided is
// written: first what is taken from rates, then the jobs. A job is taken by an update that finds it ready, so that of many
// nodes one gets it. In all that is one reading of jobs and one of rates, one write of rates and one of jobs, and a last
// reading of what was got, for however many jobs. Who is killed in between leaves, at most, a rate that was taken from and
// not used; jobs that it took are taken back when its lease ends.
func (q *Queue) Claim(ctx context.Context, r store.ClaimRequest) (jobs []store.Job, err error) {
	if r.Owner == "" || r.Lease <= 0 {
		return nil, store.Refusal("a claim without owner or lease")
	}
	if r.Limit <= 0 || len(r.Types) == 0 {
		return nil, nil
	}
	b := &q.board
	b.claiming.Lock()
	defer b.claiming.Unlock()
	defer func() {
		if len(jobs) > 0 { // they are the caller's, whatever happened then
			err = nil
		}
	}()
	r.Bounds = remembered(r.Bounds)
	if b.due() {
		if err := q.survey(ctx); err != nil {
			return nil, err
		}
	}
	for range claimTries {
		got, missed, err := q.claimOnce(ctx, r)
		if err != nil {
			return jobs, err
		}
		r.Held = maps.Clone(r.Held)
		if r.Held == nil {
			r.Held = map[string]int{}
		}
		for _, j := range got {
			r.Held[j.Lane]++
			if turn.LaneOf(j.Lane).Class == turn.Quarantine {
				r.Quarantine = false
			}
		}
		jobs = append(jobs, got...)
		if r.Limit -= len(got); r.Limit <= 0 || !missed {
			break
		}
	}
	return jobs, nil
}

// remembered asks for the bounds of each resource once.
func remembered(bounds func(tenant, resource string) store.Bounds) func(tenant, resource string) store.Bounds {
	if bounds == nil {
		return func(string, string) store.Bounds { return store.Bounds{} }
	}
	known := map[string]store.Bounds{}
	return func(tenant, resource string) store.Bounds {
		of := tenant + "/" + resource
		b, ok := known[of]
		if !ok {
			b = bounds(tenant, resource)
			known[of] = b
		}
		return b
	}
}

// claim is one claim under way.
type claim struct {
	*turn.Claim
	q      *Queue
	c      *change
	rests  *restsNow
	nanos  int64
	types  string           // those asked for
	serial int64            // of the board, when it began
	hands  map[string]*hand // lanes that were read
	unread bool             // the last turn came to one that was not, or not far enough
	places map[string]int64 // of keys, as they were read
	rates  map[string]store.Rate
	taken  []*candidate
	put    []*candidate // off, for their pairs
	again  bool         // there is more than this claim may do
}

// candidate is a job that may be claimed.
type candidate struct {
	id, lane, typ, pair string
	n, runAt            int64
	at                  int64    // when it may start, put off
	keys                []string // of rates that it takes from
}

// claimOnce claims once; missed: others were faster with some, so that another try may find more.
func (q *Queue) claimOnce(ctx context.Context, r store.ClaimRequest) (got []store.Job, missed bool, err error) {
	k := &claim{q: q, c: q.begin(), types: strings.Join(slices.Sorted(slices.Values(r.Types)), "\x00"), hands: map[string]*hand{}, places: map[string]int64{}, rates: map[string]store.Rate{}, unread: true}
	defer func() {
		k.c.end()
		if k.again {
			q.listeners.Ready()
		}
	}()
	if k.rests, err = q.rests.read(ctx, q); err != nil {
		return nil, false, err
	}
	now := q.now()
	k.c.now, k.nanos = now.UnixMilli(), now.UnixNano()
	q.board.mu.Lock()
	k.serial = q.board.serial
	k.Claim = q.board.memory().Begin(r, k.nanos, k.place)
	q.board.mu.Unlock()
	for _, p := range k.Passes() {
		for more := true; more && k.Wants(p); {
			if more, err = k.serve(ctx, &p); err != nil {
				return nil, false, err
			}
		}
	}
	return k.commit(ctx)
}

// place is a key's place in its rate, which was read with the lanes.
func (k *claim) place(key string, r store.Rate) (*turn.Limit, error) {
	k.rates[key] = r
	return turn.NewLimit(r, k.places[key], k.nanos), nil
}

// serve takes what one turn gives; whether another turn may find more.
func (k *claim) serve(ctx context.Context, p *turn.Pass) (more bool, err error) {
	if k.unread {
		if err := k.read(ctx, *p); err != nil {
			return false, err
		}
	}
	b := &k.q.board
	b.mu.Lock()
	defer b.mu.Unlock()
	k.unread = false
	shares, err := k.Turn(p, k.open(*p))
	if err != nil {
		return false, err
	}
	before := len(k.taken)
	for _, s := range shares {
		m, err := k.take(p, s)
		if err != nil {
			return false, err
		}
		more = more || m
	}
	left := k.Hold(func(name string, until int64) {
		l := b.lane(name)
		l.limited = max(l.limited, until)
		k.c.schedule(until)
	})
	return more || k.unread || left && len(k.taken) > before, nil
}

// open gives the lanes of some classes that may be claimed from, as a turn looks at them, up to the first that was not
// read far enough. The board is locked.
func (k *claim) open(p turn.Pass) func(yield func(turn.Queue, error) bool) {
	return func(yield func(turn.Queue, error) bool) {
		for _, l := range k.q.board.open(p.From, p.To, k.types, k.c.now, k.rests) {
			if k.Skips(l.Name) {
				continue
			}
			h := k.hands[l.Name]
			if h == nil || len(h.jobs) == 0 && !h.whole {
				k.unread = true
				return
			}
			if len(h.jobs) > 0 && !yield(turn.Queue{Lane: l.Lane, Ready: int64(len(h.jobs)), VTime: l.vtime, Running: h.running, Trial: h.trial}, nil) {
				return
			}
		}
	}
}

// take takes the first jobs of a lane, and puts off those whose pairs do not let them start. The board is locked.
func (k *claim) take(p *turn.Pass, s turn.Share) (more bool, err error) {
	h := k.hands[s.Name]
	keys := turn.Keys(s.Lane, s.Bounds)
	got, full := int64(0), false
	for got < s.Take && len(h.jobs) > 0 {
		c := h.jobs[0]
		c.keys = keys
		if c.pair != "" && s.Bounds.Pair.Every > 0 {
			var at int64
			if at, full, err = k.Pair(s, c.pair); err != nil {
				return false, err
			}
			if full {
				k.again = true
				break
			}
			if at > 0 {
				c.at = at
				k.put, h.jobs = append(k.put, c), h.jobs[1:]
				continue
			}
			c.keys = append(keys[:len(keys):len(keys)], turn.PairKey(s.Lane, c.pair))
		}
		k.taken, h.jobs = append(k.taken, c), h.jobs[1:]
		got++
	}
	h.running += got
	l := k.q.board.lane(s.Name)
	l.vtime += turn.Stride * got
	if len(h.jobs) == 0 && h.whole {
		k.q.board.emptiedOf(l, k.types, k.serial)
	}
	if !full && !h.whole && len(h.jobs) == 0 { // it may have more: that is read before the next turn
		s.Take = got
	}
	return k.Took(p, s, got, false), nil
}

// commit writes what was decided, and gives the jobs that were got.
func (k *claim) commit(ctx context.Context) (got []store.Job, missed bool, err error) {
	if err := k.putOff(ctx); err != nil {
		return nil, false, err
	}
	if len(k.taken) == 0 {
		return nil, false, nil
	}
	var draws []*drawn
	for key, l := range k.Rates() {
		if l.Took() > 0 {
			draws = append(draws, newDrawn(key, k.rates[key], k.places[key], l))
		}
	}
	if err := k.q.draw(ctx, draws, k.nanos); err != nil {
		return nil, false, err
	}
	k.drop(draws)
	if len(k.taken) > 0 {
		if got, err = k.start(ctx); err != nil {
			k.c.unsure = true
			return nil, false, err
		}
	}
	missed = len(got) < len(k.taken)
	used := map[string]int64{}
	byID := map[string]*candidate{}
	for _, c := range k.taken {
		byID[c.id] = c
	}
	for _, j := range got {
		k.c.move(j.Lane, j.Type, store.Ready, store.Running)
		for _, key := range byID[j.ID].keys {
			used[key]++
		}
	}
	for _, d := range draws {
		if err := k.q.giveBack(ctx, d, d.got-used[d.key]); err != nil {
			return got, missed, nil //nolint:nilerr // it is lost, at most
		}
	}
	return got, missed, nil
}

// drop leaves jobs whose rate others used up meanwhile: the last first.
func (k *claim) drop(ds []*drawn) {
	short := map[string]int64{}
	for _, d := range ds {
		if n := d.asked - d.got; n > 0 {
			short[d.key] = n
		}
	}
	if len(short) == 0 {
		return
	}
	k.again = true
	b := &k.q.board
	b.mu.Lock()
	defer b.mu.Unlock()
	var kept []*candidate
	for i := len(k.taken) - 1; i >= 0; i-- {
		c, leave := k.taken[i], false
		for _, key := range c.keys {
			leave = leave || short[key] > 0
		}
		if !leave {
			kept = append(kept, c)
			continue
		}
		for _, key := range c.keys {
			short[key]--
		}
		b.wake(b.lane(c.lane))
	}
	slices.Reverse(kept)
	k.taken = kept
}

// start makes the jobs running, where they are ready still, and gives those that it was in time for, in their order.
func (k *claim) start(ctx context.Context) ([]store.Job, error) {
	tag := rand.Text()
	set := bson.D{
		is("state", string(store.Running)), is("owner", k.Owner), is("startedAt", bson.DateTime(k.c.now)),
		is("leaseUntil", bson.DateTime(k.c.now+k.Lease.Milliseconds())), is("_claim", tag),
	}
	update := func(more ...bson.E) bson.D {
		return bson.D{is("$set", append(set[:len(set):len(set)], more...)), is("$inc", bson.D{is("token", int64(1)), is("starts", int64(1))})}
	}
	var order []string // of lanes
	of := map[string][]string{}
	for _, c := range k.taken {
		if of[c.lane] == nil {
			order = append(order, c.lane)
		}
		of[c.lane] = append(of[c.lane], c.id)
	}
	ready := bson.D{is("state", string(store.Ready))}
	var models []driver.WriteModel
	for _, name := range order {
		ids, filter := of[name], append(ready, is("lane", name))
		if h := k.hands[name]; h.trial { // one over all nodes: it holds the lane's one place
			models = append(models, driver.NewUpdateOneModel().SetFilter(append(filter, is("_id", ids[0]))).SetUpdate(update(is("_trial", name))))
			continue
		}
		models = append(models, driver.NewUpdateManyModel().SetFilter(append(filter, is("_id", in(ids)))).SetUpdate(update()))
	}
	found := map[string]store.Job{}
	take := func(ctx context.Context, c *driver.Collection) error {
		if len(k.taken) == 1 && !k.hands[order[0]].trial {
			raw, err := c.FindOneAndUpdate(ctx, append(ready, is("lane", order[0]), is("_id", k.taken[0].id)), update(),
				options.FindOneAndUpdate().SetReturnDocument(options.After)).Raw()
			if errors.Is(err, driver.ErrNoDocuments) {
				return nil
			}
			if err == nil {
				d := decodeJob(raw)
				found[d.ID] = d.Job
			}
			return err
		}
		if _, err := c.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false)); err != nil && !onlyDuplicates(err) {
			return err
		}
		cur, err := c.Find(ctx, bson.D{is("_claim", tag)}, options.Find().SetBatchSize(int32(min(len(k.taken), handJobs)+1)))
		return drain(ctx, cur, err, func(raw bson.Raw) {
			d := decodeJob(raw)
			found[d.ID] = d.Job
		})
	}
	err := again(ctx, func() error { return k.q.on(ctx, jobs, take) })
	if err != nil {
		return nil, err
	}
	got := make([]store.Job, 0, len(found))
	for _, c := range k.taken {
		if j, ok := found[c.id]; ok {
			got = append(got, j)
		}
	}
	return got, nil
}

// putOff schedules the jobs whose pairs are at their rate.
func (k *claim) putOff(ctx context.Context) error {
	if len(k.put) == 0 {
		return nil
	}
	steps := make([]step, len(k.put))
	for i, c := range k.put {
		steps[i] = step{
			ids:  []string{c.id},
			must: bson.D{is("state", string(store.Ready)), is("lane", c.lane)},
			set:  bson.D{is("state", string(store.Scheduled)), is("runAt", bson.DateTime(c.at))},
		}
	}
	did, err := k.q.apply(ctx, steps...)
	if err != nil {
		k.c.unsure = true
		return err
	}
	for _, c := range k.put {
		if did[c.id] {
			k.c.move(c.lane, c.typ, store.Ready, store.Scheduled)
			k.c.schedule(c.at)
		}
	}
	k.put = nil
	return nil
}
