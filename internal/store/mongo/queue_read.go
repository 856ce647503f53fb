package mongo

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// Job implements store.Queue.
func (q *Queue) Job(ctx context.Context, id string) (store.Job, error) {
	ds, err := q.find(ctx, bson.D{is("_id", id)}, options.Find())
	if err != nil {
		return store.Job{}, err
	}
	if len(ds) == 0 || ds[0].pruned {
		return store.Job{}, fmt.Errorf("%w: job", store.ErrNotFound)
	}
	return ds[0].Job, nil
}

// JobOf implements store.Queue.
func (q *Queue) JobOf(ctx context.Context, tenant, uniqueKey string) (store.Job, error) {
	ds, err := q.find(ctx, bson.D{is("_key", keyOf(tenant, uniqueKey))}, options.Find())
	if err != nil {
		return store.Job{}, err
	}
	if len(ds) == 0 {
		return store.Job{}, fmt.Errorf("%w: job", store.ErrNotFound)
	}
	return ds[0].Job, nil
}

// Jobs implements store.Queue; newest is made last. Without Tenant and AllTenants it is an error.
//
// Each state has its own index to be read in order, and what they give is merged.
func (q *Queue) Jobs(ctx context.Context, f store.JobFilter) ([]store.Job, error) {
	if f.Tenant == "" && !f.AllTenants {
		return nil, store.Refusal("a list of jobs of no tenant")
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	var after *jobDoc
	if f.After != "" {
		// Ids are in order of time: in place of one that is gone the one before it will do.
		ds, err := q.find(ctx, bson.D{is("_id", bson.D{is("$lte", f.After)})}, options.Find().SetSort(bson.D{is("_id", -1)}).SetLimit(1).SetProjection(bson.D{is(orderField, 1)}))
		if err != nil || len(ds) == 0 {
			return []store.Job{}, err
		}
		after = &ds[0]
	}
	filters, err := q.filters(ctx, f)
	if err != nil {
		return nil, err
	}
	var found []jobDoc
	for _, filter := range filters {
		if after != nil {
			filter = append(filter, is("$or", bson.A{
				bson.D{is(orderField, bson.D{is("$lt", after.n)})}, bson.D{is(orderField, after.n), is("_id", bson.D{is(notBeyond(after.ID, f.After), after.ID)})},
			}))
		}
		ds, err := q.find(ctx, filter, options.Find().SetSort(bson.D{is(orderField, -1), is("_id", -1)}).SetLimit(int64(limit)))
		if err != nil {
			return nil, err
		}
		found = append(found, ds...)
	}
	slices.SortFunc(found, func(a, b jobDoc) int { return -cmp.Or(cmp.Compare(a.n, b.n), strings.Compare(a.ID, b.ID)) })
	found = slices.CompactFunc(found, func(a, b jobDoc) bool { return a.ID == b.ID })
	out := make([]store.Job, 0, min(limit, len(found)))
	for _, d := range found[:min(limit, len(found))] {
		out = append(out, d.Job)
	}
	return out, nil
}

// notBeyond is how an id must compare with the one that a page begins at: that one is left out if it is the last one seen.
func notBeyond(id, seen string) string {
	if id == seen {
		return "$lt"
	}
	return "$lte"
}

// filters gives queries, each of which an index serves in order, that together select what is asked for.
func (q *Queue) filters(ctx context.Context, f store.JobFilter) (filters []bson.D, err error) {
	var of bson.D // what each of them has
	types := slices.Compact(slices.Sorted(slices.Values(f.Types)))
	asked := slices.Compact(slices.Sorted(slices.Values(f.States)))
	if f.Tenant != "" {
		of = append(of, is("tenant", f.Tenant))
	}
	caused := false
	for _, c := range causes {
		if v := c.of(f.Cause); v != "" {
			of = append(of, is("causation."+c.name, v))
			caused = true
		}
	}
	with := func(d bson.D, more ...bson.E) bson.D { return append(d[:len(d):len(d)], more...) }
	if len(types) > 0 {
		of = with(of, is("type", in(types)))
	} else if f.Tenant != "" && !caused { // the index of a tenant's jobs is by type
		if types, err = q.typesOf(ctx, f.Tenant); err != nil {
			return nil, err
		}
	}
	if caused {
		states := store.States[:]
		if len(asked) > 0 {
			states = asked
		}
		return []bson.D{with(of, is("state", in(states)))}, nil
	}
	if len(asked) == 0 {
		if f.Tenant != "" && len(f.Types) == 0 {
			of = with(of, is("type", in(types)))
		}
		return []bson.D{with(of, is("state", bson.D{is("$ne", string(pruned))}))}, nil
	}
	for _, s := range asked {
		switch {
		case !slices.Contains(store.States[:], s):
		case s == store.Succeeded && f.Tenant != "" && len(f.Types) == 0:
			filters = append(filters, with(of, is("type", in(types)), is("state", string(s))))
		default:
			filters = append(filters, with(of, is("state", string(s))))
		}
	}
	return filters, nil
}

// typesOf gives the types of a tenant's jobs: a look into the index for each.
func (q *Queue) typesOf(ctx context.Context, tenant string) (types []string, err error) {
	var all []any
	err = q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		return c.Distinct(ctx, "type", bson.D{is("tenant", tenant)}).Decode(&all)
	})
	for _, t := range all {
		if t, ok := t.(string); ok { // a stub has none
			types = append(types, t)
		}
	}
	return types, err
}

// scanJobs is how many jobs one look at payloads reads.
const scanJobs = 5000

// Payloads gives the payloads that contain a text, of jobs that may run yet or again (all but those that succeeded), in
// the order in which the jobs were made: the next few thousand jobs after a place (0: the beginning), and the place to go
// on from; 0 at the end.
func (q *Queue) Payloads(ctx context.Context, containing string, after int64) (found []store.Payload, next int64, err error) {
	var ds []jobDoc
	of := bson.D{is("tenant", 1), is("type", 1), is("state", 1), is("payload", 1), is(orderField, 1)}
	o := options.Find().SetSort(bson.D{is(orderField, 1)}).SetProjection(of)
	if ds, err = q.find(ctx, bson.D{is(orderField, bson.D{is("$gt", after)})}, o.SetLimit(scanJobs)); err != nil || len(ds) == 0 {
		return nil, 0, err
	}
	if next = ds[len(ds)-1].n; len(ds) == scanJobs { // other processes may have given the last number, too
		ds = slices.DeleteFunc(ds, func(d jobDoc) bool { return d.n == next })
		last, err := q.find(ctx, bson.D{is(orderField, next)}, options.Find().SetProjection(of))
		if err != nil {
			return nil, 0, err
		}
		ds = append(ds, last...)
	}
	for _, d := range ds {
		if !d.pruned && d.State != store.Succeeded && strings.Contains(string(d.Payload), containing) {
			found = append(found, store.Payload{JobID: d.ID, Tenant: d.Tenant, Type: d.Type, Payload: d.Payload})
		}
	}
	return found, next, nil
}

// Rewrite replaces a job's payload by one that means the same, unless it is another by now. What a second job of its key
// is compared with stays as it was.
func (q *Queue) Rewrite(ctx context.Context, p store.Payload, payload json.RawMessage) (did bool, err error) {
	if len(payload) > store.MaxPayload || !json.Valid(payload) {
		return false, store.Refusal("a payload that is no JSON, or too large")
	}
	err = q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		res, err := c.UpdateOne(ctx, bson.D{is("_id", p.JobID), is("payload", jsonValue(p.Payload))}, bson.D{is("$set", bson.D{is("payload", jsonValue(payload))})})
		did = err == nil && res.MatchedCount > 0
		return err
	})
	return did, err
}

// Forget deletes every job of a tenant, and all that is known of its keys, its lanes, their limits and pauses: the tenant
// is gone. An execution under way is refused its finish. It tells whether there is more: call it again.
func (q *Queue) Forget(ctx context.Context, tenant string) (more bool, err error) {
	if tenant == "" {
		return false, store.Refusal("the system's own jobs are not forgotten")
	}
	var ids []string
	err = q.each(ctx, bson.D{is("tenant", tenant)}, options.Find().SetLimit(promoteBatch).SetProjection(bson.D{is("_id", 1)}), func(raw bson.Raw) {
		ids = append(ids, textOf(raw.Lookup("_id")))
	})
	if err != nil {
		return false, err
	}
	if len(ids) > 0 {
		err = q.on(ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
			_, err := c.DeleteMany(ctx, bson.D{is("_id", in(ids)), is("tenant", tenant)})
			return err
		})
		if err != nil || len(ids) == promoteBatch {
			return true, err
		}
	}
	if err := q.count(ctx); err != nil {
		return false, err
	}
	err = q.on(ctx, jobCounts, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.DeleteMany(ctx, bson.D{is("tenant", tenant)})
		return err
	})
	if err != nil {
		return false, err
	}
	q.tally.forget(tenant)
	return false, q.forgetRests(ctx, tenant)
}
