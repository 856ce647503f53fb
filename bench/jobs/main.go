// Command jobs measures ecod's job queue beside River on PostgreSQL, in one run on one disk: durable single enqueues, an
// empty drain, the way from enqueue to start, one client's bulk beside another's single jobs; and what five million
// finished jobs and an idle runner cost. It is a module of its own: River is no dependency of the product.
//
//	cd bench/jobs && go run . [-only a,b,c,d,e,f] [-short]
//
// The exit code is 1 if a bar is missed, 2 if something could not be measured. ../README.md has the figures.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// figure is one line of the table.
type figure struct {
	what, ours, river, bar string
	ok                     bool
}

// bench is one run.
type bench struct {
	dir     string // temporary, gone at the end
	pg      *postgres
	short   bool
	figures []figure
}

// note adds a line; bar "" is a figure without a promise, river "" one that only we have.
func (b *bench) note(f figure) {
	b.figures = append(b.figures, f)
	fmt.Fprintf(os.Stderr, "    %s: %s", f.what, f.ours)
	if f.river != "" {
		fmt.Fprintf(os.Stderr, " beside %s", f.river)
	}
	fmt.Fprintln(os.Stderr)
}

// scaled is a number of things, or a tenth of it in a short run.
func (b *bench) scaled(n int) int {
	if b.short {
		return max(1, n/10)
	}
	return n
}

func main() {
	only := flag.String("only", "a,b,c,d,e,f", "what to measure: a enqueue, b drain, c enqueue to start, d starvation, e history, f idle")
	short := flag.Bool("short", false, "a tenth of everything: whether it works, not how fast it is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, strings.Split(*only, ","), *short)
	if err != nil {
		fmt.Fprintln(os.Stderr, "jobs:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, only []string, short bool) (ok bool, err error) {
	dir, err := os.MkdirTemp("", "ecod-bench-jobs-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, short: short}
	for _, part := range []struct {
		letter, name string
		beside       bool // River
		run          func(context.Context) error
	}{
		{"a", "durable single enqueue", true, b.enqueue}, {"b", "empty drain", true, b.drain},
		{"c", "enqueue to start", true, b.latency}, {"d", "starvation", true, b.starvation},
		{"e", "history", false, b.history}, {"f", "idle", false, b.idle},
	} {
		if !slices.Contains(only, part.letter) {
			continue
		}
		if part.beside && b.pg == nil {
			if b.pg, err = startPostgres(ctx, dir); err != nil {
				return false, err
			}
			defer b.pg.stop()
		}
		fmt.Fprintf(os.Stderr, "(%s) %s\n", part.letter, part.name)
		if err := b.settle(ctx); err != nil {
			return false, err
		}
		if err := part.run(ctx); err != nil {
			return false, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return b.table()
}

// settle has written what was left to be written later, so that a measure does not pay for the one before.
func (b *bench) settle(ctx context.Context) error {
	if b.pg != nil {
		for _, do := range []string{"VACUUM", "CHECKPOINT"} {
			if _, err := b.pg.pool.Exec(ctx, do); err != nil {
				return err
			}
		}
	}
	syscall.Sync()
	return pause(ctx, 10*time.Second)
}

func (b *bench) table() (ok bool, err error) {
	ok = true
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tours\tRiver\tbar\t")
	for _, f := range b.figures {
		verdict := ""
		if f.bar != "" {
			verdict = "ok"
			if !f.ok {
				verdict, ok = "MISSED", false
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.what, f.ours, f.river, f.bar, verdict)
	}
	return ok, w.Flush()
}

// quantile of durations, which it sorts.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(int(q*float64(len(ds))), len(ds)-1)]
}

// spread is p50 and p99 for the table.
func spread(ds []time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s", ms(quantile(ds, 0.5)), ms(quantile(ds, 0.99)))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1000) }

// median of rates; the middle one, or the lower of two.
func median(rates []float64) float64 {
	s := slices.Sorted(slices.Values(rates))
	return s[(len(s)-1)/2]
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
