package mongo

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	insertMost = 1000    // jobs in one command
	insertSize = 8 << 20 // bytes of payloads in one command
	putTries   = 50      // how often a key may be lost to somebody else between a look and a write
)

// Enqueue implements store.Queue. A given id that is taken is store.ErrDuplicate.
//
// What would be refused is refused before anything is made. Then jobs are made in their order; cut in between, the first
// of them are there, and who asks again under the same keys finds them.
func (q *Queue) Enqueue(ctx context.Context, news ...store.NewJob) ([]store.Enqueued, error) {
	ws, err := store.WantAll(news, newJobID)
	if err != nil || len(news) == 0 {
		return nil, err
	}
	c := q.begin()
	defer c.end()
	p := &putting{change: c, ws: ws}
	if err := p.run(ctx); err != nil {
		return nil, err
	}
	return p.out, nil
}

// errOver says that somebody else makes what follows.
var errOver = errors.New("store/mongo: made by another")

// putting makes jobs, or does what is asked for where their keys are known.
type putting struct {
	*change
	ws  []store.Wanted
	out []store.Enqueued
	// follow: another job leaves them. What is there already is not made, and nothing is refused. They may have been made
	// before, under the same ids, by who was cut while it made them.
	follow bool
	alive  func(ctx context.Context) (bool, error) // of follow: whether they are still to be made

	keys map[string]jobDoc // the jobs that hold their keys, by _key
	ids  map[string]bool   // those of their ids that are taken
	pile []int             // jobs to be made in one command
}

func (p *putting) run(ctx context.Context) error {
	p.out = make([]store.Enqueued, len(p.ws))
	for i, tries := 0, 0; i < len(p.ws); tries++ {
		if tries == putTries {
			return fmt.Errorf("%w: a unique key does not stand still", store.ErrUnavailable)
		}
		if err := p.look(ctx, p.ws[i:]); err != nil {
			return err
		}
		if tries == 0 && !p.follow {
			if err := p.refuse(ctx); err != nil {
				return err
			}
		}
		if p.follow && p.replaces(p.ws[i:]) {
			on, err := p.alive(ctx)
			if err != nil {
				return err
			}
			if !on {
				return errOver
			}
		}
		var err error
		if i, err = p.from(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (p *putting) replaces(ws []store.Wanted) bool {
	for _, w := range ws {
		if w.OnTaken != store.Keep {
			return true
		}
	}
	return false
}

// look reads which of the keys and ids of jobs are taken.
func (p *putting) look(ctx context.Context, ws []store.Wanted) error {
	p.keys, p.ids = map[string]jobDoc{}, map[string]bool{}
	var keys, ids []string
	for _, w := range ws {
		if w.UniqueKey != "" {
			keys = append(keys, keyOf(w.Tenant, w.UniqueKey))
		}
		if w.GivenID || p.follow {
			ids = append(ids, w.ID)
		}
	}
	if len(keys) > 0 {
		ds, err := p.q.find(ctx, bson.D{is("_key", in(keys))}, options.Find())
		if err != nil {
			return err
		}
		for _, d := range ds {
			p.keys[keyOf(d.Tenant, d.UniqueKey)] = d
		}
	}
	if len(ids) > 0 {
		return p.q.each(ctx, bson.D{is("_id", in(ids))}, options.Find().SetProjection(bson.D{is("_id", 1)}), func(raw bson.Raw) {
			p.ids[textOf(raw.Lookup("_id"))] = true
		})
	}
	return nil
}

// verdict is what is to be done for a NewJob.
type verdict int

const (
	fresh     verdict = iota // it is made
	known                    // it is there
	rewritten                // the job of its key becomes what it is
	succeeds                 // it takes the key from a job that runs or is over
)

// judge tells what is to be done for a job, as things are.
func (p *putting) judge(w store.Wanted) (verdict, jobDoc, error) {
	if p.follow && p.ids[w.ID] {
		return known, jobDoc{}, nil
	}
	d, taken := p.keys[keyOf(w.Tenant, w.UniqueKey)]
	taken = taken && w.UniqueKey != ""
	switch {
	case !taken && p.ids[w.ID]:
		return known, d, fmt.Errorf("%w: job id", store.ErrDuplicate)
	case !taken:
		return fresh, d, nil
	case p.follow && (w.OnTaken == store.Keep || d.asked == w.ID):
		return known, d, nil
	case w.OnTaken == store.Keep:
		if d.hash != w.Hash {
			return known, d, store.ErrKeyReuse
		}
		return known, d, nil
	case d.pruned || d.State.Terminal():
		return succeeds, d, nil
	case d.Type != w.Type && p.follow: // what follows from a job that is over is not refused
		return known, d, nil
	case d.Type != w.Type:
		return known, d, store.ErrKeyReuse
	case d.State == store.Running:
		return succeeds, d, nil
	}
	return rewritten, d, nil
}

// note has what comes after a job in this call see it as done.
func (p *putting) note(w store.Wanted, v verdict, d jobDoc) {
	switch v {
	case fresh, succeeds:
		d = jobDoc{Job: w.Made(msTime(p.now)), hash: w.Hash}
		p.ids[w.ID] = true
	case rewritten:
		d.hash, d.asked = w.Hash, w.ID
	case known:
		return
	}
	if w.UniqueKey != "" {
		p.keys[keyOf(w.Tenant, w.UniqueKey)] = d
	}
}

// refuse refuses what must not be made, before any of it is.
func (p *putting) refuse(ctx context.Context) error {
	keys, ids := p.keys, p.ids
	p.keys, p.ids = cloned(keys), cloned(ids)
	defer func() { p.keys, p.ids = keys, ids }()
	ofTenant, ofLane := map[string]int64{}, map[string]int64{} // with this call
	for i, w := range p.ws {
		v, d, err := p.judge(w)
		if err == nil && (v == fresh || v == succeeds) {
			err = p.room(ctx, w, ofTenant, ofLane)
		}
		if err != nil {
			return fmt.Errorf("job %d of type %s: %w", i, w.Type, err)
		}
		p.note(w, v, d)
	}
	return nil
}

func cloned[V any](m map[string]V) map[string]V {
	c := make(map[string]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// room refuses a job where there are too many already.
func (p *putting) room(ctx context.Context, w store.Wanted, ofTenant, ofLane map[string]int64) error {
	lane := store.LaneName(w.Tenant, w.Resource, w.Class)
	defer func() { ofTenant[w.Tenant]++; ofLane[lane]++ }()
	if w.Room == (store.Room{}) {
		return nil
	}
	all, some, err := p.q.roomOf(ctx, w.Tenant, lane)
	if err != nil {
		return err
	}
	all, some = all+ofTenant[w.Tenant], some+ofLane[lane]
	switch {
	case w.Room.Tenant > 0 && all >= w.Room.Tenant:
		return &store.FullError{Tenant: w.Tenant, Jobs: all, Limit: w.Room.Tenant}
	case w.Room.Lane > 0 && some >= w.Room.Lane:
		return &store.FullError{Tenant: w.Tenant, Lane: lane, Jobs: some, Limit: w.Room.Lane}
	}
	return nil
}

// from makes the jobs from one on; the first that is not done because somebody else was faster, for another look.
func (p *putting) from(ctx context.Context, i int) (int, error) {
	p.pile = p.pile[:0]
	size := 0
	for ; i < len(p.ws); i++ {
		w := p.ws[i]
		v, d, err := p.judge(w)
		if err != nil { // somebody was faster
			if at, done, err := p.make(ctx); err != nil || !done {
				return at, err
			}
			return i, fmt.Errorf("job %d of type %s: %w", i, w.Type, err)
		}
		if v == fresh {
			p.pile = append(p.pile, i)
			size += len(w.Payload)
		}
		if v == rewritten || v == succeeds || v == known || len(p.pile) == insertMost || size >= insertSize {
			if at, done, err := p.make(ctx); err != nil || !done {
				return at, err
			}
			size = 0
		}
		switch v {
		case fresh:
		case known:
			p.out[i] = store.Enqueued{Job: d.Job, Duplicate: true}
		default:
			done, err := p.replace(ctx, i, v, d)
			if err != nil {
				return i, fmt.Errorf("job %d of type %s: %w", i, w.Type, err)
			}
			if !done {
				return i, nil
			}
		}
		p.note(w, v, d)
	}
	at, done, err := p.make(ctx)
	if err != nil || !done {
		return at, err
	}
	return i, nil
}

// make makes the jobs of the pile, in their order; the first that was not because its key or id was taken meanwhile.
func (p *putting) make(ctx context.Context) (at int, done bool, err error) {
	if len(p.pile) == 0 {
		return 0, true, nil
	}
	docs := make([]any, len(p.pile))
	made := make([]store.Job, len(p.pile))
	for k, i := range p.pile {
		made[k], docs[k] = p.q.newDoc(p.ws[i], p.now)
	}
	n, taken := len(docs), false
	err = p.q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.InsertMany(ctx, docs)
		var failed driver.BulkWriteException
		if errors.As(err, &failed) && len(failed.WriteErrors) > 0 {
			n, taken = failed.WriteErrors[0].Index, failed.WriteErrors[0].Code == codeDuplicate
			if taken && failed.WriteConcernError == nil {
				return nil
			}
		} else if err != nil {
			n, p.unsure = 0, true
		}
		return err
	})
	for k := range n {
		p.out[p.pile[k]] = store.Enqueued{Job: made[k]}
		p.create(made[k])
	}
	if err != nil {
		return 0, false, err
	}
	if taken {
		return p.pile[n], false, nil
	}
	p.pile = p.pile[:0]
	return 0, true, nil
}
