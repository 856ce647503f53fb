package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/sandbox"
)

type demoCmd struct {
	Port  int           `default:"8080" help:"Port on loopback; a free one if it is taken."`
	Pause time.Duration `default:"2s" help:"Between two customers."`
}

// Run is on loopback, in a temporary folder, with random keys and a simulated Meta, whatever the environment says.
func (c *demoCmd) Run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "ecod-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	world, err := sandbox.Start()
	if err != nil {
		return err
	}
	defer world.Close()
	cfg := app.Config{
		Addr: c.address(), DataDir: dir, MetaURL: world.Meta.URL, MetaVersion: "v25.0", MetaAppSecret: sandbox.AppSecret,
		MetaVerifyToken: sandbox.VerifyToken, WorkerConcurrency: 16, WorkerPollInterval: app.Duration(5 * time.Second),
		InboxRetention: app.Duration(24 * time.Hour), LogLevel: "warn", LogFormat: "text",
	}
	if err := cfg.Resolve(func(string) string { return "" }); err != nil {
		return err
	}
	a, err := app.New(ctx, cfg, version, logger(&cfg))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	if err := world.Populate(ctx, a.URL(), a.Keys.AdminToken.Reveal()); err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	fmt.Printf("\n  ecod demo is live on %s (sign in with a code and key from below)\n\n  API docs     %s/docs\n  admin token  %s\n", a.URL(), a.URL(), a.Keys.AdminToken.Reveal())
	for _, cl := range world.Clients {
		fmt.Printf("  %-12s x-client-code: %s   x-api-key: %s\n", cl.Name, cl.Code, cl.Key)
	}
	cl := world.Clients[0]
	fmt.Printf("\n  Try:\n    curl -s %s/api/crm/leads -H 'x-client-code: %s' -H 'x-api-key: %s'\n    curl -s %s/api/jobs -H 'x-client-code: %s' -H 'x-api-key: %s'\n\n  Ctrl-C ends it; nothing is kept.\n\n",
		a.URL(), cl.Code, cl.Key, a.URL(), cl.Code, cl.Key)
	world.Traffic(ctx, c.Pause, func(err error) { fmt.Fprintln(os.Stderr, "demo:", err) })
	stop()
	return <-ended
}

// address is the wished port if it is free, else any.
func (c *demoCmd) address() string {
	want := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port))
	ln, err := net.Listen("tcp", want)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = ln.Close()
	return want
}
