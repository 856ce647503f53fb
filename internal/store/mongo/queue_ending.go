package mongo

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// ending is an outcome that takes more than its job's document. From when it stands in the job (_ending) the execution
// is over, and whoever comes by does what is left: its worker at once, or a promotion when the lease has run out. Each
// part may be done again: what follows has its ids already, and a pause that is made twice is one.
type ending struct {
	state store.State
	set   bson.D // of the job, once all else is done
	home  bool   // the job goes back to its own lane
	next  []store.Wanted
	pause *store.PauseRequest
}

func (e *ending) doc() bson.D {
	d := bson.D{is("set", e.set)}
	if e.home {
		d = append(d, is("home", true))
	}
	next := bson.A{}
	for _, w := range e.next {
		next = append(next, wantedDoc(w))
	}
	if len(next) > 0 {
		d = append(d, is("next", next))
	}
	if p := e.pause; p != nil {
		d = append(d, is("pause", bson.D{is("scope", p.Scope), is("reason", string(p.Reason)), is("for", int64(p.For)), is("most", int64(p.Most)), is("detail", p.Detail)}))
	}
	return d
}

func wantedDoc(w store.Wanted) bson.D {
	d := bson.D{is("id", w.ID), is("tenant", w.Tenant), is("type", w.Type), is("payload", jsonValue(w.Payload)), is("maxAttempts", int64(w.MaxAttempts))}
	d = withTexts(d, "resource", w.Resource, "class", string(w.Class), "pair", w.Pair, "uniqueKey", w.UniqueKey, "hash", w.Hash, "onTaken", string(w.OnTaken), "claimFor", w.ClaimFor)
	d = withDates(d, "runAt", w.RunAt, "expiresAt", w.ExpiresAt)
	if c := causationDoc(w.Causation); len(c) > 0 {
		d = append(d, is("causation", c))
	}
	return d
}

func endingOf(v bson.RawValue) *ending {
	e := &ending{}
	for _, m := range membersOf(v) {
		v := m.Value()
		switch m.Key() {
		case "set":
			for _, s := range membersOf(v) {
				if s.Key() == "state" {
					e.state = store.State(textOf(s.Value()))
				}
				v := s.Value()
				e.set = append(e.set, is(s.Key(), bson.RawValue{Type: v.Type, Value: append([]byte(nil), v.Value...)}))
			}
		case "home":
			e.home = boolOf(v)
		case "next":
			for _, n := range membersOf(v) {
				e.next = append(e.next, wantedOf(n.Value()))
			}
		case "pause":
			e.pause = &store.PauseRequest{}
			for _, p := range membersOf(v) {
				switch v := p.Value(); p.Key() {
				case "scope":
					e.pause.Scope = textOf(v)
				case "reason":
					e.pause.Reason = store.PauseReason(textOf(v))
				case "for":
					e.pause.For = time.Duration(intOf(v))
				case "most":
					e.pause.Most = time.Duration(intOf(v))
				case "detail":
					e.pause.Detail = textOf(v)
				}
			}
		}
	}
	return e
}

func wantedOf(v bson.RawValue) (w store.Wanted) {
	w.Payload = json.RawMessage("{}")
	for _, m := range membersOf(v) {
		v := m.Value()
		switch m.Key() {
		case "id":
			w.ID = textOf(v)
		case "tenant":
			w.Tenant = textOf(v)
		case "type":
			w.Type = textOf(v)
		case "payload":
			w.Payload = jsonOf(v)
		case "maxAttempts":
			w.MaxAttempts = int(intOf(v))
		case "resource":
			w.Resource = textOf(v)
		case "class":
			w.Class = store.Class(textOf(v))
		case "pair":
			w.Pair = textOf(v)
		case "uniqueKey":
			w.UniqueKey = textOf(v)
		case "hash":
			w.Hash = textOf(v)
		case "onTaken":
			w.OnTaken = store.OnTaken(textOf(v))
		case "claimFor":
			w.ClaimFor = textOf(v)
		case "runAt":
			w.RunAt = timeOf(v)
		case "expiresAt":
			w.ExpiresAt = timeOf(v)
		case "causation":
			w.Causation = causationOf(v)
		}
	}
	return w
}

// complete does what endings leave to do, and ends their jobs.
func (c *change) complete(ctx context.Context, ds []jobDoc) error {
	if err := c.follow(ctx, &ds); err != nil {
		return err
	}
	for _, d := range ds {
		if d.ending.pause == nil {
			continue
		}
		if _, err := c.q.pause(ctx, *d.ending.pause); err != nil {
			return err
		}
	}
	for tries := 0; len(ds) > 0 && tries < 3; tries++ { // a job may be asked to cancel meanwhile, once
		steps := make([]step, len(ds))
		for i, d := range ds {
			steps[i] = d.last(c.now)
		}
		did, err := c.q.apply(ctx, steps...)
		if err != nil {
			c.unsure = true
			return err
		}
		var left []string
		for _, d := range ds {
			if did[d.ID] {
				c.ended(d)
			} else if !d.endState().Terminal() {
				left = append(left, d.ID)
			}
		}
		ds = nil
		if len(left) > 0 {
			if ds, err = c.q.endings(ctx, left); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow makes the jobs that endings leave. Of those that somebody else completes meanwhile it makes nothing more, and
// takes them out.
func (c *change) follow(ctx context.Context, ds *[]jobDoc) error {
	for len(*ds) > 0 {
		ids := make([]string, len(*ds))
		var next []store.Wanted
		for i, d := range *ds {
			ids[i] = d.ID
			next = append(next, d.ending.next...)
		}
		var left []jobDoc
		p := &putting{change: c, ws: next, follow: true, alive: func(ctx context.Context) (_ bool, err error) {
			left, err = c.q.endings(ctx, ids)
			return len(left) == len(ids), err
		}}
		err := p.run(ctx)
		if !errors.Is(err, errOver) {
			return err
		}
		*ds = left
	}
	return nil
}

// endings reads those of running jobs whose endings still stand.
func (q *Queue) endings(ctx context.Context, ids []string) ([]jobDoc, error) {
	return q.find(ctx, bson.D{is("_id", in(ids)), is("state", string(store.Running)), is("_ending", there)}, options.Find().SetProjection(bson.D{is("payload", 0)}))
}

// endState is the state that an ending brings a job to: one that was asked to cancel does not go back.
func (d *jobDoc) endState() store.State {
	if d.cancel && !d.ending.state.Terminal() {
		return store.Cancelled
	}
	return d.ending.state
}

// last is the step that ends a job.
func (d *jobDoc) last(now int64) step {
	s := step{
		ids: []string{d.ID}, must: bson.D{is("state", string(store.Running)), is("token", d.Token), is("_ending", there)},
		set: d.ending.set, unset: leaveRunning,
	}
	if d.ending.home {
		s.unset = append(s.unset[:len(s.unset):len(s.unset)], is("home", ""))
	}
	if to := d.endState(); to != d.ending.state {
		s.set = bson.D{is("state", string(to)), is("endedAt", bson.DateTime(now))}
		for _, e := range d.ending.set {
			if e.Key != "state" {
				s.set = append(s.set, e)
			}
		}
	} else if !to.Terminal() {
		s.must = append(s.must, is("cancelRequested", bson.D{is("$ne", true)}))
	}
	return s
}

// ended notes that a job was ended.
func (c *change) ended(d jobDoc) {
	lane, to := d.Lane, d.endState()
	if d.ending.home {
		lane = d.homeLane()
	}
	c.move(d.Lane, d.Type, store.Running, "")
	c.move(lane, d.Type, "", to)
	if to == store.Scheduled {
		for _, e := range d.ending.set {
			if v, ok := e.Value.(bson.RawValue); ok && e.Key == "runAt" {
				c.schedule(timeOf(v).UnixMilli())
			} else if at, ok := e.Value.(bson.DateTime); ok && e.Key == "runAt" {
				c.schedule(int64(at))
			}
		}
	}
}
