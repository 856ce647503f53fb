package mongo

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// replace does what Replace and ReplaceKeepTime ask for, where the key is d's; not done: d is not as it was any more.
func (p *putting) replace(ctx context.Context, i int, v verdict, d jobDoc) (done bool, err error) {
	if v == rewritten {
		return p.rewrite(ctx, i, d)
	}
	// The key changes hands in two writes. Cut between them nobody has it, and nothing has begun: who asked asks again.
	w := p.ws[i]
	gone, err := p.q.apply(ctx, step{ids: []string{d.ID}, must: bson.D{is("_key", keyOf(w.Tenant, w.UniqueKey)), is("state", stored(d))}, unset: bson.D{is("_key", "")}})
	if err != nil || !gone[d.ID] {
		return false, err
	}
	p.pile = append(p.pile, i)
	_, done, err = p.make(ctx)
	return done, err
}

// stored is the state that a job's document has.
func stored(d jobDoc) string {
	if d.pruned {
		return string(pruned)
	}
	return string(d.State)
}

// rewrite makes a job that does not run yet what is asked for. A parked one stays parked: what holds it does not hang on
// what it is to do. What it was asked for as is its version: who rewrites it finds it as it was read, or not at all.
func (p *putting) rewrite(ctx context.Context, i int, d jobDoc) (done bool, err error) {
	w := p.ws[i]
	to, runAt := d.State, d.RunAt
	if w.OnTaken == store.Replace {
		if runAt = msTime(p.now); !w.RunAt.IsZero() {
			runAt = msTime(w.RunAt.UnixMilli())
		}
		switch {
		case d.State == store.Parked:
		case runAt.UnixMilli() > p.now:
			to = store.Scheduled
		default:
			to = store.Ready
		}
	}
	lane := store.LaneName(w.Tenant, w.Resource, w.Class)
	set := bson.D{
		is("lane", lane), is("payload", jsonValue(w.Payload)), is("state", string(to)), is("runAt", date(runAt)), is("maxAttempts", int64(w.MaxAttempts)),
		is("payloadHash", w.Hash), is("attempt", int32(0)), is("_asked", w.ID),
	}
	set = withTexts(withDates(set, "expiresAt", w.ExpiresAt), "pair", w.Pair)
	unset := bson.D{is("home", "")}
	if w.ExpiresAt.IsZero() {
		unset = append(unset, is("expiresAt", ""))
	}
	if w.Pair == "" {
		unset = append(unset, is("pair", ""))
	}
	if c := causationDoc(w.Causation); len(c) > 0 {
		set = append(set, is("causation", c))
	} else {
		unset = append(unset, is("causation", ""))
	}
	must := bson.D{is("_id", d.ID), is("_key", keyOf(w.Tenant, w.UniqueKey)), is("state", string(d.State)), is("lane", d.Lane), is("_asked", orAbsent(d.asked))}
	var now jobDoc
	err = p.q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		raw, err := c.FindOneAndUpdate(ctx, must, bson.D{is("$set", set), is("$unset", unset)}, options.FindOneAndUpdate().SetReturnDocument(options.After)).Raw()
		if errors.Is(err, driver.ErrNoDocuments) {
			return nil
		}
		if err == nil {
			now, done = decodeJob(raw), true
		}
		return err
	})
	if err != nil || !done {
		p.unsure = p.unsure || err != nil
		return false, err
	}
	p.move(d.Lane, w.Type, d.State, "")
	p.move(lane, w.Type, "", to)
	if to == store.Scheduled {
		p.schedule(runAt.UnixMilli())
	}
	p.out[i] = store.Enqueued{Job: now.Job, Duplicate: true, Replaced: true}
	return true, nil
}

// orAbsent is the term for a member that is a text, or is not there.
func orAbsent(s string) any {
	if s == "" {
		return absent
	}
	return s
}
