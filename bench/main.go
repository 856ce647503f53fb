// Command bench measures what ecod promises of its speed: the real binary in its own process, real files, real sockets.
// README.md has the figures and their bars.
//
//	go run ./bench [-only a,b,c,d,e,f,g,h] [-seconds 30]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// figure is one line of the table.
type figure struct {
	what, measured, bar string
	ok                  bool
}

// bench is one run.
type bench struct {
	dir     string // temporary, gone at the end
	bin     string // ecod
	seconds time.Duration
	figures []figure
}

// note adds a line; bar "" is a figure without a promise.
func (b *bench) note(what string, ok bool, bar, measured string, args ...any) {
	f := figure{what, fmt.Sprintf(measured, args...), bar, ok || bar == ""}
	b.figures = append(b.figures, f)
	fmt.Fprintf(os.Stderr, "    %s: %s\n", f.what, f.measured)
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == bareRole {
		bareMain(os.Args[2])
		return
	}
	only := flag.String("only", "a,b,c,d,e,f,g,h", "what to measure: a webhooks, b event to call, c queue, d idle, e import, f lists of leads, g images, h e-mails")
	seconds := flag.Int("seconds", 30, "length of the webhook peak; the other loads scale with it")
	bin := flag.String("binary", "", "an ecod binary to measure instead of one built from this tree")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, strings.Split(*only, ","), time.Duration(*seconds)*time.Second, *bin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(3)
	}
}

func run(ctx context.Context, only []string, seconds time.Duration, bin string) (ok bool, err error) {
	dir, err := os.MkdirTemp("", "ecod-bench-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, bin: bin, seconds: seconds}
	if b.bin == "" {
		b.bin = filepath.Join(dir, "ecod")
		if err := build(ctx, b.bin); err != nil {
			return false, err
		}
	}
	for _, part := range []struct {
		letter, name string
		run          func(context.Context) error
	}{
		{"a", "webhooks", b.webhooks}, {"b", "event to call", b.eventToCall}, {"c", "queue", b.queue}, {"d", "idle", b.idle},
		{"e", "import", b.importing}, {"f", "lists of leads", b.listing}, {"g", "images", b.images}, {"h", "e-mails", b.mailing},
	} {
		if !slices.Contains(only, part.letter) {
			continue
		}
		fmt.Fprintf(os.Stderr, "(%s) %s\n", part.letter, part.name)
		if err := part.run(ctx); err != nil {
			return false, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	ok = true
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tmeasured\tbar\t")
	for _, f := range b.figures {
		verdict := ""
		if !f.ok {
			verdict, ok = "MISSED", false
		} else if f.bar != "" {
			verdict = "ok"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.what, f.measured, f.bar, verdict)
	}
	return ok, w.Flush()
}

// quantile of sorted durations.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
