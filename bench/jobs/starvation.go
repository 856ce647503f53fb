package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

const (
	bulkWorkers = 16
	bulkTakes   = 12500 * time.Microsecond
)

// starvation measures when the jobs of one client start, one a second, behind 100,000 of another that take 12.5 ms each.
func (b *bench) starvation(ctx context.Context) error {
	bulk, single := b.scaled(100_000), 25
	if b.short {
		single = 5
	}
	o, err := openOurs(ctx, filepath.Join(b.dir, "starvation"))
	if err != nil {
		return err
	}
	defer o.discard()
	if err := o.register(ctx, 2); err != nil {
		return err
	}
	if err := o.fill(ctx, bulk, func(int) string { return client(0) }); err != nil {
		return err
	}
	w := &watch{began: map[int64]time.Time{}}
	stop := o.start(ctx, bulkWorkers, false, w.do, func() {})
	err = w.singles(ctx, single, o.insert)
	mine, others := w.waited()
	if err := stop(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if others == 0 {
		return fmt.Errorf("no job of the bulk ran beside the single ones")
	}

	w = &watch{began: map[int64]time.Time{}}
	r, err := b.newRival(ctx, bulkWorkers, w.do)
	if err != nil {
		return err
	}
	if err := r.fill(ctx, bulk, func(int) string { return client(0) }); err != nil {
		return err
	}
	if err := r.client.Start(ctx); err != nil {
		return err
	}
	err = w.singles(ctx, single, r.insert)
	theirs, theirBulk := w.waited()
	if err := r.halt(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	river := fmt.Sprintf("%d of %d started", len(theirs), single)
	if len(theirs) > 0 {
		river += ", " + spread(theirs)
	}
	p99 := quantile(mine, 0.99)
	b.note(figure{
		what: fmt.Sprintf("one job a second of B behind %d of A, %d workers", bulk, bulkWorkers),
		ours: fmt.Sprintf("%d of %d started, %s", len(mine), single, spread(mine)), river: river,
		bar: "all, p99 ≤ 100 ms", ok: len(mine) == single && p99 <= 100*time.Millisecond,
	})
	b.note(figure{what: "  jobs of A worked off meanwhile", ours: fmt.Sprint(others), river: fmt.Sprint(theirBulk)})
	return r.empty(ctx)
}

// watch is what the workers of the starvation tell.
type watch struct {
	mu     sync.Mutex
	began  map[int64]time.Time // when the jobs of B were made
	took   []time.Duration
	others int
}

func (w *watch) do(j work) {
	if j.Client == client(0) {
		time.Sleep(bulkTakes)
		w.mu.Lock()
		w.others++
		w.mu.Unlock()
		return
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took = append(w.took, now.Sub(w.began[j.Seq]))
}

// singles makes the jobs of B and gives the last one its second.
func (w *watch) singles(ctx context.Context, n int, insert func(context.Context, work) error) error {
	for i := range n {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		w.mu.Lock()
		w.began[int64(i)] = time.Now()
		w.mu.Unlock()
		if err := insert(ctx, work{int64(i), client(1), pad}); err != nil {
			return err
		}
	}
	return pause(ctx, time.Second)
}

func (w *watch) waited() (took []time.Duration, others int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.took, w.others
}
