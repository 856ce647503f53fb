package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/ecodrix/ecod/internal/app"
)

type serveCmd struct {
	app.Config
}

func (c *serveCmd) Run(ctx context.Context, m mistakes) error {
	if err := m.resolve(&c.Config); err != nil {
		return err
	}
	log := logger(&c.Config)
	a, err := app.New(ctx, c.Config, version, log)
	if err != nil {
		return err
	}
	if file := a.Keys.TokenFile; file != "" {
		if terminal(os.Stdout) {
			fmt.Printf("\n  ecod listens on %s\n  admin token: %s\n  (kept in %s)\n\n", a.URL(), a.Keys.AdminToken.Reveal(), file)
		} else {
			fmt.Printf("ecod listens on %s\nadmin token: in %s\n", a.URL(), file)
		}
	}
	go again(a.Runner.Hurry)
	return a.Run(ctx)
}

// again waits for the second signal that asks to stop: who sends it does not want to wait for running jobs.
func again(hurry func()) {
	asked := make(chan os.Signal, 2)
	signal.Notify(asked, os.Interrupt, syscall.SIGTERM)
	<-asked
	<-asked
	hurry()
}

// logger writes to stderr, as text on a terminal and as JSON elsewhere.
func logger(c *app.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.Level()}
	if c.LogFormat == "text" || (c.LogFormat == "" && terminal(os.Stderr)) {
		return slog.New(slog.NewTextHandler(os.Stderr, o))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, o))
}

func terminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
