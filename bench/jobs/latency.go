package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// latency measures the way from the call that makes a job to its start by a worker, where nothing else is to do.
func (b *bench) latency(ctx context.Context) error {
	const blocks = 5
	per := b.scaled(200)
	started := make(chan time.Time, 1)
	do := func(work) { started <- time.Now() }

	o, err := openOurs(ctx, filepath.Join(b.dir, "latency"))
	if err != nil {
		return err
	}
	defer o.discard()
	if err := o.register(ctx, 1); err != nil {
		return err
	}
	var took [2][]time.Duration
	for range blocks {
		r, err := b.newRival(ctx, drainWorkers, do)
		if err != nil {
			return err
		}
		if err := r.client.Start(ctx); err != nil {
			return err
		}
		theirs, err := oneByOne(ctx, per, r.insert, started)
		if err := errors.Join(err, r.halt()); err != nil {
			return err
		}
		stop := o.start(ctx, 16, false, do, func() {})
		mine, err := oneByOne(ctx, per, o.insert, started)
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
		took[0], took[1] = append(took[0], theirs...), append(took[1], mine...)
	}
	b.note(figure{
		what: "idle: enqueue to start", ours: spread(took[1]), river: spread(took[0]),
		bar: "p99 ≤ 5 ms", ok: quantile(took[1], 0.99) <= 5*time.Millisecond,
	})
	return nil
}

// oneByOne makes jobs with pauses between them, after some that do not count.
func oneByOne(ctx context.Context, n int, insert func(context.Context, work) error, started <-chan time.Time) ([]time.Duration, error) {
	const warm = 20
	var took []time.Duration
	for i := range warm + n {
		if err := pause(ctx, 15*time.Millisecond); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := insert(ctx, work{int64(i), client(0), pad}); err != nil {
			return nil, err
		}
		select {
		case at := <-started:
			if i >= warm {
				took = append(took, at.Sub(began))
			}
		case <-time.After(10 * time.Second):
			return nil, errors.New("a job does not start")
		}
	}
	return took, nil
}
