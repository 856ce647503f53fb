package mongo

import (
	"context"
	"fmt"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

// Owed implements store.Queue.
func (q *Queue) Owed(ctx context.Context, types []string, limit int) ([]store.Job, error) {
	if len(types) == 0 || limit <= 0 {
		return nil, nil
	}
	ds, err := q.find(ctx, bson.D{is("owed", true), is("type", in(types))}, options.Find().SetSort(bson.D{is(orderField, 1), is("_id", 1)}).SetLimit(int64(limit)))
	if err != nil {
		return nil, err
	}
	var out []store.Job
	for _, d := range ds {
		out = append(out, d.Job)
	}
	return out, nil
}

// Told implements store.Queue. What follows from a job is made first, under ids derived from that job's end: who is cut
// then is told of it again, and makes nothing twice; nor do two that are told at once.
func (q *Queue) Told(ctx context.Context, told ...store.Told) error {
	ids := make([]string, len(told))
	next := make([][]store.Wanted, len(told))
	for i, t := range told {
		ids[i] = t.ID
		var err error
		if next[i], err = store.WantAll(t.Next, func() string { return "" }); err != nil {
			return fmt.Errorf("what follows from job %s: %w", t.ID, err)
		}
	}
	if len(told) == 0 {
		return nil
	}
	isOwed := bson.D{is("_id", in(ids)), is("owed", true)}
	ds, err := q.find(ctx, isOwed, options.Find().SetProjection(bson.D{is("payload", 0)}))
	if err != nil || len(ds) == 0 {
		return err
	}
	owed := map[string]jobDoc{}
	for _, d := range ds {
		owed[d.ID] = d
	}
	var follow []store.Wanted
	var steps []step
	for i, t := range told {
		d, ok := owed[t.ID]
		if !ok { // another runner was faster, or the job was sent back to work
			continue
		}
		delete(owed, t.ID)
		for k, w := range next[i] {
			if w.ID == "" {
				w.ID = id.DerivedAt("job", d.EndedAt, "told", d.ID, strconv.FormatInt(d.Token, 10), strconv.FormatInt(d.EndedAt.UnixMilli(), 10), strconv.Itoa(k))
			}
			w.OnTaken = store.Keep
			follow = append(follow, w)
		}
		steps = append(steps, step{ids: []string{d.ID}, must: bson.D{is("owed", true), is("endedAt", date(d.EndedAt))}, unset: bson.D{is("owed", "")}})
	}
	c := q.begin()
	defer c.end()
	p := &putting{change: c, ws: follow, follow: true}
	if err := p.run(ctx); err != nil {
		return err
	}
	_, err = q.apply(ctx, steps...)
	return err
}
