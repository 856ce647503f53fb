package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"
)

const (
	drainWorkers = 100 // of both sides
	drainClients = 50
)

// drain measures how fast jobs that do nothing are worked off: claimed, handed over, their end durable. The best of River
// stands beside our median.
func (b *bench) drain(ctx context.Context) error {
	const rounds = 3
	n := b.scaled(100_000)
	var theirs, mine []float64
	for i := range rounds {
		rate, err := b.drainRiver(ctx, n)
		if err != nil {
			return err
		}
		theirs = append(theirs, rate)
		if rate, err = b.drainOurs(ctx, n, i); err != nil {
			return err
		}
		mine = append(mine, rate)
	}
	m, r := median(mine), slices.Max(theirs)
	b.note(figure{
		what: fmt.Sprintf("%d empty jobs, %d workers", n, drainWorkers), ours: fmt.Sprintf("%s: %.2f ×", perSecond(m), m/r), river: perSecond(r),
		bar: "≥ 1.3 × River's", ok: m >= 1.3*r,
	})
	return nil
}

func (b *bench) drainRiver(ctx context.Context, n int) (rate float64, err error) {
	var ran atomic.Int64
	all := make(chan struct{})
	r, err := b.newRival(ctx, drainWorkers, func(work) {
		if ran.Add(1) == int64(n) {
			close(all)
		}
	})
	if err != nil {
		return 0, err
	}
	if err := r.fill(ctx, n, func(i int) string { return client(i % drainClients) }); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := r.client.Start(ctx); err != nil {
		return 0, err
	}
	select {
	case <-all:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := r.settled(ctx); err != nil {
		return 0, err
	}
	rate = float64(n) / time.Since(began).Seconds()
	if err := r.completed(ctx, n); err != nil {
		return 0, err
	}
	return rate, r.halt()
}

func (b *bench) drainOurs(ctx context.Context, n, round int) (rate float64, err error) {
	o, err := openOurs(ctx, filepath.Join(b.dir, fmt.Sprintf("drain%d", round)))
	if err != nil {
		return 0, err
	}
	defer o.discard()
	if err := o.register(ctx, drainClients); err != nil {
		return 0, err
	}
	if err := o.fill(ctx, n, func(i int) string { return client(i % drainClients) }); err != nil {
		return 0, err
	}
	var ended atomic.Int64
	all := make(chan struct{})
	began := time.Now()
	stop := o.start(ctx, drainWorkers, false, func(work) {}, func() {
		if ended.Add(1) == int64(n) {
			close(all)
		}
	})
	select {
	case <-all:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	rate = float64(n) / time.Since(began).Seconds()
	if err := stop(); err != nil {
		return 0, err
	}
	return rate, o.succeeded(ctx, int64(n))
}
