package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/tenant"
)

type versionCmd struct{}

func (versionCmd) Run() error {
	rev := commit
	if info, ok := debug.ReadBuildInfo(); ok && rev == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				rev = s.Value
			}
		}
	}
	if rev == "" {
		rev = "unknown"
	}
	fmt.Printf("ecod %s commit %s %s\n", version, rev, runtime.Version())
	return nil
}

type configCmd struct {
	app.Config
}

// Run prints every setting: value, where it is from, what it is for. Secrets are masked.
func (c *configCmd) Run() error {
	given := c.Config
	if err := c.Resolve(os.Getenv); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	v, g := reflect.ValueOf(c.Config), reflect.ValueOf(given)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("env")
		if name == "" {
			continue
		}
		value, source := fmt.Sprint(v.Field(i)), "default"
		switch set, ok := os.LookupEnv(name); {
		case ok && set == fmt.Sprint(g.Field(i)):
			source = "environment"
		case fmt.Sprint(g.Field(i)) != f.Tag.Get("default") && !g.Field(i).IsZero() && !strings.HasPrefix(fmt.Sprint(g.Field(i)), f.Tag.Get("default")):
			source = "flag"
		}
		if _, secret := f.Tag.Lookup("secret"); secret && value != "" {
			value = "***"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, value, source, f.Tag.Get("help"))
	}
	return w.Flush()
}

type secretCmd struct {
	Encrypt secretEncryptCmd `cmd:"" help:"Read a value on stdin, print the ciphertext to put into ClientSecrets by hand."`
}

type secretEncryptCmd struct {
	app.Config
	Client string `required:"" help:"The client's code."`
	Field  string `required:"" help:"Such as whatsapp.accessToken."`
}

// Run seals a value for one client and field. Nothing of it is stored.
func (c *secretEncryptCmd) Run() error {
	if err := c.Resolve(os.Getenv); err != nil {
		return err
	}
	code, ok := tenant.Code(c.Client)
	if !ok {
		return app.BadConfig{"--client is not a client code."}
	}
	if !slices.Contains(tenant.SecretFields, c.Field) {
		return app.BadConfig{"--field must be one of " + strings.Join(tenant.SecretFields, ", ") + "."}
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	keys, err := c.LoadKeys()
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(bufio.NewReader(os.Stdin), 64<<10))
	if err != nil {
		return err
	}
	value := strings.TrimRight(string(b), "\r\n")
	if value == "" {
		return errors.New("no value on stdin")
	}
	sealed, err := keys.Ring.Seal(code, c.Field, value)
	if err != nil {
		return err
	}
	fmt.Println(sealed)
	return nil
}

type clientCmd struct {
	Add       clientAddCmd    `cmd:"" help:"Register a client and print its first API key."`
	List      clientListCmd   `cmd:"" help:"List clients."`
	Suspend   clientStatusCmd `cmd:"" help:"Refuse a client's calls; its webhooks are still stored."`
	Resume    clientResumeCmd `cmd:"" help:"Serve a suspended client again."`
	RotateKey clientKeyCmd    `cmd:"" help:"Make a new API key; the one before is valid for 24 hours more."`
	Erase     clientEraseCmd  `cmd:"" help:"Delete a client for good: its database and its secrets. A job does it."`
}

// withRegistry opens the services database beside a running serve, which notices changes by itself.
func withRegistry(ctx context.Context, c *app.Config, f func(*app.Embedded, *tenant.Registry) error) error {
	if err := c.Resolve(os.Getenv); err != nil {
		return err
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	keys, err := c.LoadKeys()
	if err != nil {
		return err
	}
	e, err := app.OpenEmbedded(ctx, c.DataDir)
	if err != nil {
		return err
	}
	defer e.Close()
	return f(e, e.Registry(keys.Ring, slog.New(slog.DiscardHandler), nil))
}

type clientAddCmd struct {
	app.Config
	Code    string `arg:"" help:"Client code: letters, digits, - and _, 2 to 40."`
	Name    string `help:"Name for people. Default: the code."`
	Zone    string `name:"time-zone" help:"IANA time zone."`
	Country string `name:"default-country" help:"ISO country for phones written without one."`
}

func (c *clientAddCmd) Run(ctx context.Context) error {
	return withRegistry(ctx, &c.Config, func(_ *app.Embedded, r *tenant.Registry) error {
		if c.Name == "" {
			c.Name = c.Code
		}
		a, key, err := r.Create(ctx, tenant.NewClient{Code: c.Code, Name: c.Name, TimeZone: c.Zone, DefaultCountry: strings.ToUpper(c.Country)})
		if err != nil {
			return err
		}
		fmt.Printf("client %s\napi key %s\n", a.Code, key)
		return nil
	})
}

type clientListCmd struct {
	app.Config
}

func (c *clientListCmd) Run(ctx context.Context) error {
	return withRegistry(ctx, &c.Config, func(_ *app.Embedded, r *tenant.Registry) error {
		w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
		for after := ""; ; {
			page, err := r.List(ctx, after, 500)
			if err != nil {
				return err
			}
			for _, a := range page {
				fmt.Fprintf(w, "%s\t%s\t%s\n", a.Code, a.Status, a.Name)
				after = a.Code
			}
			if len(page) < 500 {
				return w.Flush()
			}
		}
	})
}

type clientStatusCmd struct {
	app.Config
	Code string `arg:""`
}

func (c *clientStatusCmd) Run(ctx context.Context) error {
	return setStatus(ctx, &c.Config, c.Code, tenant.Suspended)
}

type clientResumeCmd struct {
	app.Config
	Code string `arg:""`
}

func (c *clientResumeCmd) Run(ctx context.Context) error {
	return setStatus(ctx, &c.Config, c.Code, tenant.Active)
}

func setStatus(ctx context.Context, c *app.Config, code, status string) error {
	return withRegistry(ctx, c, func(_ *app.Embedded, r *tenant.Registry) error {
		a, err := r.SetStatus(ctx, code, status)
		if err == nil {
			fmt.Printf("client %s is %s\n", a.Code, a.Status)
		}
		return err
	})
}

type clientKeyCmd struct {
	app.Config
	Code string `arg:""`
}

func (c *clientKeyCmd) Run(ctx context.Context) error {
	return withRegistry(ctx, &c.Config, func(_ *app.Embedded, r *tenant.Registry) error {
		key, until, err := r.NewKey(ctx, c.Code)
		if err == nil {
			fmt.Printf("api key %s\nthe one before is valid until %s\n", key, until.Format("2006-01-02 15:04 MST"))
		}
		return err
	})
}

type clientEraseCmd struct {
	app.Config
	Code    string `arg:""`
	Confirm string `required:"" help:"The client's code once more."`
}

func (c *clientEraseCmd) Run(ctx context.Context) error {
	code, ok := tenant.Code(c.Code)
	if confirm, same := tenant.Code(c.Confirm); !ok || !same || confirm != code {
		return app.BadConfig{"--confirm must repeat the client's code."}
	}
	return withRegistry(ctx, &c.Config, func(e *app.Embedded, r *tenant.Registry) error {
		a, err := r.Account(ctx, code)
		if err != nil {
			return err
		}
		n := job.New("", app.EraseJob, app.ErasePayload{ClientCode: code})
		n.MaxAttempts = 20
		// as the admin API names it: this client, not one that has its code later
		n.UniqueKey = "erase:" + code + ":" + strconv.FormatInt(a.CreatedAt.UnixMilli(), 10)
		made, err := e.Queue.Enqueue(ctx, n)
		if err != nil {
			return err
		}
		if made[0].Duplicate {
			if _, err := e.Queue.Retry(ctx, made[0].Job.ID); err != nil {
				return err
			}
		}
		if err := r.BeginErase(ctx, code); err != nil {
			return err
		}
		fmt.Printf("job %s erases client %s\n", made[0].Job.ID, code)
		return nil
	})
}
