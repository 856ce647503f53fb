package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// enqueue measures jobs made one by one, each durable when the call returns, by so many producers as suit either side
// best. The best of River stands beside the median of our best.
func (b *bench) enqueue(ctx context.Context) error {
	o, err := openOurs(ctx, filepath.Join(b.dir, "enqueue"))
	if err != nil {
		return err
	}
	defer o.discard()
	r, err := b.newRival(ctx, 0, nil)
	if err != nil {
		return err
	}
	const rounds = 3
	d := 3 * time.Second
	if b.short {
		d /= 10
	}
	var best, rivals float64
	for _, producers := range []int{1, 8, 64, 256} {
		var rates [2][]float64
		for range rounds {
			for side, insert := range []func(context.Context, work) error{r.insert, o.insert} {
				rate, err := producing(ctx, producers, d, insert)
				if err != nil {
					return err
				}
				rates[side] = append(rates[side], rate)
			}
		}
		theirs, mine := median(rates[0]), median(rates[1])
		b.note(figure{what: fmt.Sprintf("single enqueue, %d producers", producers), ours: perSecond(mine), river: perSecond(theirs)})
		for _, rate := range rates[0] {
			rivals = max(rivals, rate)
		}
		best = max(best, mine)
	}
	b.note(figure{
		what: "durable single enqueue, the best of each", ours: fmt.Sprintf("%s: %.1f ×", perSecond(best), best/rivals), river: perSecond(rivals),
		bar: "≥ 5 × River's", ok: best >= 5*rivals,
	})
	return r.empty(ctx)
}

// producing has producers insert jobs of 50 clients for a while.
func producing(ctx context.Context, producers int, d time.Duration, insert func(context.Context, work) error) (perSecond float64, err error) {
	var n atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	for range producers {
		wg.Go(func() {
			for time.Since(began) < d && failed.Load() == nil {
				seq := n.Add(1)
				if err := insert(ctx, work{seq, client(int(seq % 50)), pad}); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(n.Load()) / time.Since(began).Seconds(), nil
}

func perSecond(rate float64) string { return fmt.Sprintf("%.0f/s", rate) }
