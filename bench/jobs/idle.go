package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// idle measures what a runner uses of the processors while nothing is to do and 1,000 lanes are known.
func (b *bench) idle(ctx context.Context) error {
	const lanes = 1000
	o, err := openOurs(ctx, filepath.Join(b.dir, "idle"))
	if err != nil {
		return err
	}
	defer o.discard()
	if err := o.fill(ctx, lanes, client); err != nil {
		return err
	}
	var ended atomic.Int64
	all := make(chan struct{})
	stop := o.start(ctx, 16, true, func(work) {}, func() {
		if ended.Add(1) == lanes {
			close(all)
		}
	})
	select {
	case <-all:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), stop())
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return errors.Join(err, stop())
	}
	window := 10 * time.Second
	if b.short {
		window /= 10
	}
	before := used()
	if err := pause(ctx, window); err != nil {
		return errors.Join(err, stop())
	}
	percent := 100 * float64(used()-before) / float64(window)
	b.note(figure{what: fmt.Sprintf("idle runner, %d lanes known", lanes), ours: fmt.Sprintf("%.2f %% of one processor", percent), bar: "< 1 %", ok: percent < 1})
	return stop()
}

// used is the processor time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
