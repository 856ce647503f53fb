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

// Run is on loopback, in a temporary folder, with random keys and a simulated world, whatever the environment says.
func (c *demoCmd) Run(ctx context.Context, m mistakes) error {
	if len(m) > 0 {
		return app.BadConfig(m)
	}
	if c.Pause < 10*time.Millisecond {
		return app.BadConfig{"--pause must be at least 10ms."}
	}
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
		MetaVerifyToken: sandbox.VerifyToken, GoogleURL: world.Google.URL, AllowPrivate: true, // for the simulated mail server
		WorkerConcurrency: 16, WorkerPollInterval: app.Duration(5 * time.Second),
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
	go func() {
		ended <- a.Run(ctx)
		stop() // an engine that ends by itself ends the demo
	}()
	if err := world.Populate(ctx, a.URL(), a.Keys.AdminToken.Reveal()); err != nil {
		if ctx.Err() != nil { // stopped meanwhile: that is no failure
			err = nil
		}
		stop()
		return errors.Join(err, <-ended)
	}
	c.welcome(world, a)
	world.Run(ctx, c.Pause, func(err error) { fmt.Fprintln(os.Stderr, "demo:", err) })
	return <-ended
}

// welcome says where to look and what opens it.
func (c *demoCmd) welcome(world *sandbox.World, a *app.App) {
	fmt.Printf("\n  ecod demo is live. The dashboard:  %s\n\n  Sign in as\n", a.URL())
	for _, cl := range world.Clients {
		fmt.Printf("    %-15s client code %-7s e-mail %-21s password %s\n", cl.Name, cl.Code, cl.User.Email, cl.User.Password)
	}
	fmt.Printf("\n  API  %s/docs\n", a.URL())
	for _, cl := range world.Clients {
		fmt.Printf("    %-15s x-client-code: %-7s x-api-key: %s\n", cl.Name, cl.Code, cl.Key)
	}
	cl := world.Clients[0]
	fmt.Printf("    %-15s Authorization: Bearer %s\n\n  Try\n    curl -s %s/api/crm/leads -H 'x-client-code: %s' -H 'x-api-key: %s'\n\n"+
		"  Everybody around is simulated: Meta, the mail server, Google, and the customers, who answer what you send them.\n"+
		"  What goes wrong is told here. Ctrl-C ends it; nothing is kept.\n\n",
		"Operator", a.Keys.AdminToken.Reveal(), a.URL(), cl.Code, cl.Key)
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
