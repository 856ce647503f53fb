package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// Job implements store.Queue.
func (q *Queue) Job(ctx context.Context, id string) (store.Job, error) {
	var j store.Job
	err := q.f.read(ctx, func(c *conn) error {
		r, err := c.first(ctx, `SELECT `+jobColumns+` FROM jobs WHERE _id = ?`, id)
		if err != nil {
			return err
		}
		if r == nil {
			return fmt.Errorf("%w: job", store.ErrNotFound)
		}
		j = scanJob(r)
		return nil
	})
	return j, err
}

// JobOf implements store.Queue.
func (q *Queue) JobOf(ctx context.Context, tenant, uniqueKey string) (store.Job, error) {
	var j store.Job
	err := q.f.read(ctx, func(c *conn) error {
		k, err := c.first(ctx, `SELECT jobId, state, token FROM jobKeys WHERE tenant = ? AND uniqueKey = ?`, tenant, uniqueKey)
		if err != nil {
			return err
		}
		if k == nil {
			return fmt.Errorf("%w: job", store.ErrNotFound)
		}
		j = store.Job{ID: k.text(0), Tenant: tenant, UniqueKey: uniqueKey, State: store.State(k.text(1)), Token: k.int(2)}
		r, err := c.first(ctx, `SELECT `+jobColumns+` FROM jobs WHERE _id = ?`, j.ID)
		if err != nil {
			return err
		}
		if r != nil {
			j = scanJob(r)
		}
		return nil
	})
	return j, err
}

// JobCounts implements store.Queue; every state is in it.
func (q *Queue) JobCounts(ctx context.Context, tenant string) (store.JobCounts, error) {
	sums := make([]string, len(states))
	for i, s := range states {
		sums[i] = "coalesce(sum(" + string(s) + "), 0)"
	}
	query, args := "SELECT "+strings.Join(sums, ", ")+" FROM lanes", []any(nil)
	if tenant != "" {
		query, args = query+" INDEXED BY lanesTenant WHERE tenant = ?", []any{tenant}
	}
	counts := store.JobCounts{}
	err := q.f.read(ctx, func(c *conn) error {
		r, err := c.first(ctx, query, args...)
		if err != nil {
			return err
		}
		for i, s := range states {
			counts[s] = r.int(i)
		}
		return nil
	})
	return counts, err
}

// TypeCounts implements store.Queue.
func (q *Queue) TypeCounts(ctx context.Context, tenant string) (map[string]store.JobCounts, error) {
	var sums []string
	for _, s := range states {
		sums = append(sums, "sum("+string(s)+")")
	}
	query, args := "SELECT type, "+strings.Join(sums, ", ")+" FROM jobTypes", []any(nil)
	if tenant != "" {
		query, args = query+" WHERE tenant = ?", []any{tenant}
	}
	counts := map[string]store.JobCounts{}
	err := q.f.snapshot(ctx, func(c *conn) error {
		clear(counts)
		for r, err := range c.rows(ctx, query+" GROUP BY type", args...) {
			if err != nil {
				return err
			}
			of, all := store.JobCounts{}, int64(0)
			for i, s := range states {
				of[s] = r.int(i + 1)
				all += of[s]
			}
			if all > 0 {
				counts[r.text(0)] = of
			}
		}
		return nil
	})
	return counts, err
}

// Lanes implements store.Queue.
func (q *Queue) Lanes(ctx context.Context, after string, limit int) ([]store.Lane, error) {
	var out []store.Lane
	err := q.f.snapshot(ctx, func(c *conn) error {
		out = nil
		now, paused := q.now(), map[string][]store.Pause{}
		for r, err := range c.rows(ctx, `SELECT lane, tenant, resource, class, ready, running, parked, pausedUntil, limitedUntil, trial, scheduled FROM lanes
				WHERE lane > ? AND (ready > 0 OR running > 0 OR parked > 0 OR scheduled > 0) ORDER BY lane LIMIT ?`, after, limit) {
			if err != nil {
				return err
			}
			l := store.Lane{
				Lane: r.text(0), Tenant: r.text(1), Resource: r.text(2), Class: store.Classes[r.int(3)],
				Ready: r.int(4), Running: r.int(5), Parked: r.int(6), Scheduled: r.int(10), Trial: r.int(9) > 0 && r.int(9) <= now.UnixMilli(),
			}
			if at := r.int(8); at > now.UnixMilli() {
				l.LimitedUntil = msTime(at)
			}
			if r.int(7) > now.UnixMilli() {
				paused[l.Tenant] = nil
			}
			out = append(out, l)
		}
		for tenant := range paused {
			ps, err := pausesOf(ctx, c, tenant, now.UnixMilli())
			if err != nil {
				return err
			}
			paused[tenant] = ps
		}
		for i, l := range out {
			out[i].Pause = turn.Longest(paused[l.Tenant], l.Lane, now)
			if l.Ready > 0 {
				r, err := c.first(ctx, `SELECT min(runAt) FROM jobs INDEXED BY jobsReady WHERE state = 'ready' AND lane = ?`, l.Lane)
				if err != nil {
					return err
				}
				out[i].OldestReady = timeAt(r, 0)
			}
			if l.Parked == 0 {
				continue
			}
			r, err := c.first(ctx, `SELECT errors FROM jobs INDEXED BY jobsRare
				WHERE state <> 'ready' AND state <> 'running' AND state <> 'succeeded' AND state = 'parked' AND tenant = ? AND lane = ? ORDER BY n DESC LIMIT 1`, l.Tenant, l.Lane)
			if err != nil {
				return err
			}
			if r == nil {
				continue
			}
			if es := scanErrors(r.text(0)); len(es) > 0 {
				out[i].ParkedFor = es[len(es)-1].Code
			}
		}
		return nil
	})
	return out, err
}

// Jobs implements store.Queue; newest is made last. Without Tenant and AllTenants it is an error.
//
// Each state and each type has its own index to be read in order, and the pieces are merged. Only a type that
// is rare among very many succeeded jobs of all tenants together is slow to find.
func (q *Queue) Jobs(ctx context.Context, f store.JobFilter) ([]store.Job, error) {
	if f.Tenant == "" && !f.AllTenants {
		return nil, invalid("a list of jobs of no tenant")
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	out := make([]store.Job, 0, min(limit, 100))
	err := q.f.snapshot(ctx, func(c *conn) error {
		out = out[:0]
		below := int64(never)
		if f.After != "" {
			// Ids are in order of time: in place of one that was pruned the one before it will do.
			r, err := c.first(ctx, `SELECT n, _id = ? FROM jobs WHERE _id <= ? ORDER BY _id DESC LIMIT 1`, f.After, f.After)
			if err != nil || r == nil {
				return err
			}
			if below = r.int(0); r.int(1) == 0 {
				below++
			}
		}
		l := list{below: below, limit: limit}
		if err := l.build(ctx, c, f); err != nil || len(l.parts) == 0 {
			return err
		}
		for r, err := range c.rows(ctx, l.query(), append(l.args, limit)...) {
			if err != nil {
				return err
			}
			out = append(out, scanJob(r))
		}
		return nil
	})
	return out, err
}

// list collects the parts of a query: each gives the numbers of the newest jobs below a number, of one kind.
type list struct {
	below int64
	limit int
	parts []string
	args  []any
}

func (l *list) query() string {
	return `SELECT ` + jobColumns + ` FROM jobs WHERE n IN (SELECT n FROM (` + strings.Join(l.parts, " UNION ALL ") + `) ORDER BY n DESC LIMIT ?) ORDER BY n DESC`
}

func (l *list) part(from, where string, args ...any) {
	l.parts = append(l.parts, `SELECT n FROM (SELECT n FROM jobs `+from+` WHERE n < ? AND `+where+` ORDER BY n DESC LIMIT ?)`)
	l.args = append(append(append(l.args, l.below), args...), l.limit)
}

func (l *list) build(ctx context.Context, c *conn, f store.JobFilter) error {
	types := slices.Compact(slices.Sorted(slices.Values(f.Types)))
	ofType, typeArgs := "", anys(types)
	if len(types) > 0 {
		ofType = " AND type IN (" + marks(len(types)) + ")"
	}
	ofTenant, tenantArgs := "", []any(nil)
	if f.Tenant != "" {
		ofTenant, tenantArgs = " AND tenant = ?", []any{f.Tenant}
	}
	args := append(slices.Clone(tenantArgs), typeArgs...)
	asked := slices.Compact(slices.Sorted(slices.Values(f.States)))
	if index, caused, causeArgs := within(f.Cause); index != "" {
		if len(asked) > 0 {
			caused += " AND state IN (" + marks(len(asked)) + ")"
			causeArgs = append(causeArgs, anys(asked)...)
		}
		l.part("INDEXED BY "+index, strings.TrimPrefix(caused, " AND ")+ofTenant+ofType, append(causeArgs, args...)...)
		return nil
	}
	if len(asked) == 0 || slices.Contains(asked, store.Succeeded) {
		ofState := ""
		if len(asked) > 0 {
			ofState = " AND state = 'succeeded'"
		}
		if f.Tenant == "" {
			l.part("", "1"+ofState+ofType, typeArgs...)
		} else {
			if len(types) == 0 {
				var err error
				if types, err = typesOf(ctx, c, f.Tenant); err != nil {
					return err
				}
			}
			for _, t := range types {
				l.part("INDEXED BY jobsTenant", "tenant = ? AND type = ?"+ofState, f.Tenant, t)
			}
		}
	}
	for _, s := range asked {
		switch {
		case s == store.Succeeded || stateIndex(s) < 0:
		case s == store.Ready && f.Tenant != "": // the lanes are few, the ready jobs of others many
			l.part("INDEXED BY jobsReady", "state = 'ready' AND lane IN (SELECT lane FROM lanes INDEXED BY lanesTenant WHERE tenant = ?)"+ofType, args...)
		case s == store.Ready:
			l.part("INDEXED BY jobsReady", "state = 'ready'"+ofType, args...)
		case s == store.Running:
			l.part("INDEXED BY jobsRunning", "state = 'running'"+ofTenant+ofType, args...)
		default:
			l.part("INDEXED BY jobsRare", "state <> 'ready' AND state <> 'running' AND state <> 'succeeded' AND state = ?"+ofTenant+ofType,
				append([]any{string(s)}, args...)...)
		}
	}
	return nil
}

// typesOf gives the types of a tenant's jobs, one look into the index for each.
func typesOf(ctx context.Context, c *conn, tenant string) (types []string, err error) {
	last := ""
	for {
		r, err := c.first(ctx, `SELECT min(type) FROM jobs INDEXED BY jobsTenant WHERE tenant = ? AND type > ?`, tenant, last)
		if err != nil || r.null(0) {
			return types, err
		}
		last = r.text(0)
		types = append(types, last)
	}
}
