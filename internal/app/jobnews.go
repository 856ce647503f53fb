package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	jobNewsEvery  = 200 * time.Millisecond // what changes within is told once, as it is then
	jobNewsBatch  = 500                    // news of one commit
	jobNewsMost   = 100_000                // changes waiting to be told, beyond which they are dropped
	jobNewsWithin = 10 * time.Second       // before the last change known at a start: what may not have been told
)

// jobNews tells clients what became of their jobs. Jobs live in the services database and news in the client's, and to tell
// of every job at once would double the commits of both: so changes are gathered, and each client's are written in one
// commit. What a crash left untold is told at the next start.
type jobNews struct {
	queue   store.Queue
	tenants *tenant.Registry
	poke    func(code string)
	log     *slog.Logger

	mu      sync.Mutex
	changed map[string]bool // job ids
	some    chan struct{}
	writing sync.Mutex
}

func newJobNews(queue store.Queue, tenants *tenant.Registry, poke func(string), log *slog.Logger) *jobNews {
	return &jobNews{queue: queue, tenants: tenants, poke: poke, log: log, changed: map[string]bool{}, some: make(chan struct{}, 1)}
}

// add notes that jobs changed. It never blocks.
func (n *jobNews) add(ids ...string) {
	n.mu.Lock()
	for _, jobID := range ids {
		if jobID != "" && len(n.changed) < jobNewsMost {
			n.changed[jobID] = true
		}
	}
	n.mu.Unlock()
	select {
	case n.some <- struct{}{}:
	default:
	}
}

// run tells until ctx ends; flush tells the rest.
func (n *jobNews) run(ctx context.Context) error {
	n.recall(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.some:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jobNewsEvery):
		}
		if err := n.flush(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("changes of jobs are told later", "error", err)
		}
	}
}

// recall notes the jobs that changed last before the process ended: of some it may not have told.
func (n *jobNews) recall(ctx context.Context) {
	jobs, err := n.queue.Jobs(ctx, store.JobFilter{AllTenants: true, Limit: 1000})
	if err != nil {
		n.log.Warn("it cannot be looked up which changes of jobs were not told", "error", err)
		return
	}
	last := func(j store.Job) time.Time {
		return slices.MaxFunc([]time.Time{j.CreatedAt, j.StartedAt, j.EndedAt}, time.Time.Compare)
	}
	after := time.Now().Add(-news.Kept + time.Hour)
	for _, j := range jobs {
		if t := last(j).Add(-jobNewsWithin); t.After(after) {
			after = t
		}
	}
	for _, j := range jobs {
		if last(j).After(after) {
			n.add(j.ID)
		}
	}
}

// flush tells what changed until now.
func (n *jobNews) flush(ctx context.Context) error {
	n.writing.Lock()
	defer n.writing.Unlock()
	n.mu.Lock()
	changed := n.changed
	n.changed = map[string]bool{}
	n.mu.Unlock()
	writes := map[string][]store.Write{}
	of := map[string][]string{}
	for jobID := range changed {
		j, err := n.queue.Job(ctx, jobID)
		if errors.Is(err, store.ErrNotFound) { // pruned, or a duplicate that was not made
			continue
		}
		if err != nil {
			for jobID := range changed {
				n.add(jobID)
			}
			return err
		}
		if j.Tenant != "" {
			writes[j.Tenant] = append(writes[j.Tenant], jobItem(j))
			of[j.Tenant] = append(of[j.Tenant], jobID)
		}
	}
	var errs []error
	for code, w := range writes {
		err := ctx.Err()
		if err == nil {
			err = n.write(ctx, code, w)
		}
		if err == nil || fault.Of(err) == fault.NotFound { // or erased
			continue
		}
		if len(errs) == 0 || ctx.Err() == nil { // one of thousands whose time is over is told enough
			errs = append(errs, err)
		}
		n.add(of[code]...)
	}
	return errors.Join(errs...)
}

// close tells what it can in a moment. Of the rest the last is told at the next start, as after a crash.
func (n *jobNews) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeWithin/3)
	defer cancel()
	err := n.flush(ctx)
	n.mu.Lock()
	left := len(n.changed)
	n.mu.Unlock()
	if left > 0 {
		n.log.Warn("not all changes of jobs could be told; the last ones are at the next start", "jobs", left, "error", err)
		return nil
	}
	return err
}

func (n *jobNews) write(ctx context.Context, code string, writes []store.Write) error {
	tn, release, err := n.tenants.Use(ctx, code)
	if err != nil {
		return err
	}
	defer release()
	for part := range slices.Chunk(writes, jobNewsBatch) {
		if err := tn.DB.Commit(ctx, part...); err != nil {
			return err
		}
		n.poke(code)
	}
	return nil
}

// jobItem is the news of a job as it stands; the same, of the same state.
func jobItem(j store.Job) store.Write {
	at := func(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 36) }
	key := j.ID + " " + string(j.State) + " " + strconv.FormatInt(j.Token, 10) + " " + at(j.RunAt) + " " + at(j.EndedAt)
	return news.Write(time.Now(), news.JobUpdated, key, "job", api.ViewJob(j))
}

// toldQueue is a queue that tells of what is changed through it. What changes by itself, the engine tells (OnSweep).
type toldQueue struct {
	store.Queue
	news *jobNews
}

// Enqueue implements store.Queue.
func (q toldQueue) Enqueue(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	made, err := q.Queue.Enqueue(ctx, jobs...)
	for _, m := range made {
		if !m.Duplicate || m.Replaced {
			q.news.add(m.Job.ID)
		}
	}
	return made, err
}

// Claim implements store.Queue.
func (q toldQueue) Claim(ctx context.Context, r store.ClaimRequest) ([]store.Job, error) {
	jobs, err := q.Queue.Claim(ctx, r)
	for _, j := range jobs {
		q.news.add(j.ID)
	}
	return jobs, err
}

// Finish implements store.Queue. The jobs that follow get their ids here, to be told of.
func (q toldQueue) Finish(ctx context.Context, outcomes ...store.Outcome) ([]bool, error) {
	for _, o := range outcomes {
		for i := range o.Next {
			if o.Next[i].ID == "" {
				o.Next[i].ID = id.New("job")
			}
		}
	}
	held, err := q.Queue.Finish(ctx, outcomes...)
	for i, ok := range held {
		if !ok {
			continue
		}
		q.news.add(outcomes[i].ID)
		for _, next := range outcomes[i].Next {
			q.news.add(next.ID)
		}
	}
	return held, err
}

// Told implements store.Queue.
func (q toldQueue) Told(ctx context.Context, told ...store.Told) error {
	for _, t := range told {
		for i := range t.Next {
			if t.Next[i].ID == "" {
				t.Next[i].ID = id.New("job")
			}
		}
	}
	err := q.Queue.Told(ctx, told...)
	if err == nil {
		for _, t := range told {
			for _, next := range t.Next {
				q.news.add(next.ID)
			}
		}
	}
	return err
}

// Retry implements store.Queue.
func (q toldQueue) Retry(ctx context.Context, ids ...string) ([]string, error) {
	did, err := q.Queue.Retry(ctx, ids...)
	q.news.add(did...)
	return did, err
}

// Cancel implements store.Queue.
func (q toldQueue) Cancel(ctx context.Context, ids ...string) ([]string, error) {
	did, err := q.Queue.Cancel(ctx, ids...)
	q.news.add(did...)
	return did, err
}
