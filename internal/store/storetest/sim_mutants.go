package storetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// mutants are queues, clocks and workers that break one promise each. A simulation that finds nothing wrong with one of them
// proves nothing.
var mutants = map[string]Simulation{
	"an end is taken whatever its token":           {Queue: func(q store.Queue) store.Queue { return tokenless{q} }},
	"what a refused end leaves is made":            {Queue: func(q store.Queue) store.Queue { return leaky{q} }},
	"an execution is taken back before its lease":  {Queue: func(q store.Queue) store.Queue { return impatient{q} }},
	"a beat prolongs nothing":                      {Queue: func(q store.Queue) store.Queue { return flatline{q} }},
	"a job is claimed twice":                       {Queue: func(q store.Queue) store.Queue { return &double{Queue: q} }},
	"a key is forgotten":                           {Queue: func(q store.Queue) store.Queue { return keyless{q} }},
	"a cancelled job ends under its worker":        {Queue: func(q store.Queue) store.Queue { return brusque{q} }},
	"every end counts as a failed attempt":         {Queue: func(q store.Queue) store.Queue { return merciless{q} }},
	"leases end by the wall clock":                 {Now: func(t time.Time) time.Time { return t.Round(0) }},
	"a call that may have been made is made again": {Runner: Blind},
	"a call is made before it is written down":     {Runner: Hasty},
}

// RunMutants fails for each mutant that so many lives do not tell from a sound queue.
func RunMutants(t *testing.T, open OpenPlant, lives uint64) {
	for name, s := range mutants {
		t.Run(name, func(t *testing.T) {
			s.Open = open
			s.Mutant(t, lives)
		})
	}
}

// Mutant fails if so many lives find nothing wrong.
func (s Simulation) Mutant(t *testing.T, lives uint64) {
	t.Helper()
	_, seed, trace, err := s.find(lives, func() bool { return false })
	if err == nil {
		t.Fatalf("nothing found wrong in %d lives", lives)
	}
	t.Logf("seed %d, step %d: %v", seed, len(trace), err)
}

type tokenless struct{ store.Queue }

func (q tokenless) Finish(ctx context.Context, outcomes ...store.Outcome) ([]bool, error) {
	for i := range outcomes {
		if j, err := q.Job(ctx, outcomes[i].ID); err == nil {
			outcomes[i].Token = j.Token
		}
	}
	return q.Queue.Finish(ctx, outcomes...)
}

type leaky struct{ store.Queue }

func (q leaky) Finish(ctx context.Context, outcomes ...store.Outcome) ([]bool, error) {
	held, err := q.Queue.Finish(ctx, outcomes...)
	for i := range held {
		if !held[i] && len(outcomes[i].Next) > 0 {
			_, _ = q.Enqueue(ctx, outcomes[i].Next...)
		}
	}
	return held, err
}

type impatient struct{ store.Queue }

func (q impatient) Promote(ctx context.Context) (int, time.Time, error) {
	running, err := q.Jobs(ctx, store.JobFilter{AllTenants: true, States: []store.State{store.Running}})
	if err != nil {
		return 0, time.Time{}, err
	}
	for _, j := range running {
		if _, err := q.Release(ctx, j.Owner); err != nil {
			return 0, time.Time{}, err
		}
	}
	return q.Queue.Promote(ctx)
}

type flatline struct{ store.Queue }

func (q flatline) Beat(ctx context.Context, owner string, _ time.Duration) ([]store.Held, error) {
	return q.Queue.Beat(ctx, owner, time.Millisecond)
}

// double hands out again what it handed out before.
type double struct {
	store.Queue
	last []store.Job
}

func (q *double) Claim(ctx context.Context, r store.ClaimRequest) ([]store.Job, error) {
	jobs, err := q.Queue.Claim(ctx, r)
	if len(q.last) > 0 && len(jobs) < r.Limit {
		jobs = append(jobs, q.last[0])
	}
	q.last = slices.Clone(jobs)
	return jobs, err
}

type keyless struct{ store.Queue }

func (q keyless) Enqueue(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		jobs[i].UniqueKey, jobs[i].OnTaken = "", store.Keep
	}
	return q.Queue.Enqueue(ctx, jobs...)
}

type brusque struct{ store.Queue }

func (q brusque) Cancel(ctx context.Context, ids ...string) ([]string, error) {
	did, err := q.Queue.Cancel(ctx, ids...)
	for _, id := range did {
		if j, e := q.Job(ctx, id); e == nil && j.State == store.Running {
			_, err = q.Finish(ctx, store.Outcome{ID: id, Token: j.Token, State: store.Cancelled})
		}
	}
	return did, err
}

// merciless counts an attempt against what ends well, or goes back.
type merciless struct{ store.Queue }

func (q merciless) Finish(ctx context.Context, outcomes ...store.Outcome) ([]bool, error) {
	for i := range outcomes {
		outcomes[i].CountFailed = true
	}
	return q.Queue.Finish(ctx, outcomes...)
}
