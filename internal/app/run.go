package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// The time that a stop may take: requests and jobs finish side by side, then the closers run.
const (
	httpDrain   = 15 * time.Second
	closeWithin = 3 * time.Second
	hangAfter   = 24 * time.Second // then the process says who hangs, and ends
)

type closer struct {
	name  string
	close func(context.Context) error
}

func (a *App) onClose(name string, f func(context.Context) error) {
	a.closers = append(a.closers, closer{name, f})
}

// Run serves until ctx ends, then stops in order: readiness off, requests and jobs finished side by side, sockets told,
// databases closed. It returns within 25 seconds of the end of ctx.
func (a *App) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	running := &parts{names: map[string]bool{}}
	start := func(name string, run func(context.Context) error) {
		running.add(name)
		g.Go(func() error {
			defer running.remove(name)
			if err := run(gctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	start("clients", a.Tenants.Watch)
	start("keys", a.watchKeys)
	start("node", a.beNode)
	start("intake", a.Intake.Run)
	start("jobs", a.Runner.Run)
	start("schedules", a.Timetable.Run)
	start("job news", a.jobNews.run)
	start("upkeep", a.upkeep)
	start("scores", a.settleScores)
	start("http", func(ctx context.Context) error { return a.API.Serve(ctx, a.ln) })

	stopped := make(chan struct{})
	go func() {
		<-gctx.Done()
		a.log.Info("stopping")
		select {
		case <-stopped:
		case <-time.After(hangAfter):
			a.log.Error("the stop takes too long; ending now", "hanging", running.list())
			os.Exit(1)
		}
	}()
	err := g.Wait()
	err = errors.Join(err, a.close())
	close(stopped)
	a.log.Info("stopped")
	return err
}

// close runs the closers, the last pushed first.
func (a *App) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		if err := a.closers[i].close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", a.closers[i].name, err))
		}
	}
	a.closers = nil
	return errors.Join(errs...)
}

// parts are the names of what runs, for the watchdog.
type parts struct {
	mu    sync.Mutex
	names map[string]bool
}

func (p *parts) add(n string)    { p.mu.Lock(); p.names[n] = true; p.mu.Unlock() }
func (p *parts) remove(n string) { p.mu.Lock(); delete(p.names, n); p.mu.Unlock() }
func (p *parts) list() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for n := range p.names {
		out = append(out, n)
	}
	return strings.Join(out, ", ")
}
