package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/tenant"
)

type clientCmd struct {
	Add       clientAddCmd    `cmd:"" help:"Register a client and print its first API key."`
	List      clientListCmd   `cmd:"" help:"List clients."`
	Suspend   clientStatusCmd `cmd:"" help:"Refuse a client's calls; its webhooks are still stored."`
	Resume    clientResumeCmd `cmd:"" help:"Serve a suspended client again."`
	RotateKey clientKeyCmd    `cmd:"" help:"Make a new API key; the one before is valid for 24 hours more."`
	Export    clientExportCmd `cmd:"" help:"Write everything of a client into an archive of JSON lines and media, without secrets."`
	Erase     clientEraseCmd  `cmd:"" help:"Delete a client for good: its database, media and secrets. A job does it."`
	Move      clientMoveCmd   `cmd:"" help:"Move a client to another database. A job does it; the client is out of service meanwhile."`
}

// withRegistry opens the services database beside a running serve, which notices changes by itself. Only what may be the
// first thing done with a data folder makes it.
func withRegistry(ctx context.Context, m mistakes, c *app.Config, first bool, f func(*app.Storage, *tenant.Registry) error) error {
	if err := m.resolve(c); err != nil {
		return err
	}
	if !first {
		if err := app.HasStorage(*c); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	keys, err := c.LoadKeys()
	if err != nil {
		return err
	}
	e, err := app.OpenStorage(ctx, *c)
	if err != nil {
		return err
	}
	defer e.Close()
	return f(e, e.Registry(keys.Ring, slog.New(slog.DiscardHandler), nil, nil))
}

type clientAddCmd struct {
	app.Config
	Code    string `arg:"" help:"Client code: letters, digits, - and _, 2 to 40."`
	Name    string `help:"Name for people. Default: the code."`
	Zone    string `name:"time-zone" help:"IANA time zone."`
	Country string `name:"default-country" help:"ISO country for phones written without one."`
}

func (c *clientAddCmd) Run(ctx context.Context, m mistakes) error {
	return withRegistry(ctx, m, &c.Config, true, func(_ *app.Storage, r *tenant.Registry) error {
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

func (c *clientListCmd) Run(ctx context.Context, m mistakes) error {
	return withRegistry(ctx, m, &c.Config, false, func(_ *app.Storage, r *tenant.Registry) error {
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

func (c *clientStatusCmd) Run(ctx context.Context, m mistakes) error {
	return setStatus(ctx, m, &c.Config, c.Code, tenant.Suspended)
}

type clientResumeCmd struct {
	app.Config
	Code string `arg:""`
}

func (c *clientResumeCmd) Run(ctx context.Context, m mistakes) error {
	return setStatus(ctx, m, &c.Config, c.Code, tenant.Active)
}

func setStatus(ctx context.Context, m mistakes, c *app.Config, code, status string) error {
	return withRegistry(ctx, m, c, false, func(_ *app.Storage, r *tenant.Registry) error {
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

func (c *clientKeyCmd) Run(ctx context.Context, m mistakes) error {
	return withRegistry(ctx, m, &c.Config, false, func(_ *app.Storage, r *tenant.Registry) error {
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

func (c *clientEraseCmd) Run(ctx context.Context, m mistakes) error {
	code, ok := tenant.Code(c.Code)
	if confirm, same := tenant.Code(c.Confirm); !ok || !same || confirm != code {
		return app.BadConfig{"--confirm must repeat the client's code."}
	}
	return withRegistry(ctx, m, &c.Config, false, func(e *app.Storage, r *tenant.Registry) error {
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
		fmt.Printf("job %s erases client %s: database, media, secrets, jobs and kept answers\n"+
			"the bytes of its webhooks age out of the inbox by themselves, and backups keep what they hold\n", made[0].Job.ID, code)
		return nil
	})
}

type clientExportCmd struct {
	app.Config
	Code string `arg:""`
	Out  string `required:"" type:"path" help:"The archive to write: a tar, gzipped if its name ends in gz."`
}

func (c *clientExportCmd) Run(ctx context.Context, m mistakes) error {
	if err := m.resolve(&c.Config); err != nil {
		return err
	}
	x, err := app.ExportClient(ctx, c.Config, c.Code, c.Out, version)
	if err != nil {
		return err
	}
	fmt.Printf("client %s as of %s: %d records and %d media files in %s\n", x.Client, x.At.Format(time.RFC3339), x.Records, x.Media, c.Out)
	fmt.Println("no secret and no password is in it; webhooks' raw bytes are not either, as one may hold items of several clients")
	if len(x.Lost) > 0 {
		fmt.Fprintf(os.Stderr, "ecod: the bytes of %d media files cannot be had; the manifest names them\n", len(x.Lost))
		return errFailed
	}
	return nil
}

type clientMoveCmd struct {
	app.Config
	Code    string `arg:""`
	To      string `help:"mongodb:// or mongodb+srv:// of a database of the client's own, - to read it from stdin, or sqlite: the engine's own storage, which is that of ECOD_DATABASE_URL where that is set."`
	DropOld bool   `help:"Delete the old copy that the client's last move left."`
}

func (c *clientMoveCmd) Run(ctx context.Context, m mistakes) error {
	if err := m.resolve(&c.Config); err != nil {
		return err
	}
	switch {
	case c.DropOld && c.To != "":
		return app.BadConfig{"--to and --drop-old are two things: drop the old copy first."}
	case c.DropOld:
		dropped, err := app.DropOldCopy(ctx, c.Config, c.Code)
		if err == nil {
			fmt.Printf("dropped %s\n", dropped)
		}
		return err
	case c.To == "":
		return app.BadConfig{"--to must say where: mongodb://..., or sqlite for the engine's own storage."}
	case c.To == "-": // a password on a command line is seen by everybody on the machine
		b, err := io.ReadAll(io.LimitReader(os.Stdin, 4096))
		if err != nil {
			return err
		}
		c.To = strings.TrimSpace(string(b))
	}
	to := secret.Text(c.To)
	if c.To == "sqlite" || c.To == "default" {
		to = ""
	}
	last := ""
	moved, err := app.MoveClient(ctx, c.Config, c.Code, to, func(p tenant.Progress) {
		if say := fmt.Sprintf("%s: %d of %d records", p.Step, p.Done, p.Total); say != last {
			fmt.Fprintln(os.Stderr, say)
			last = say
		}
	})
	if err != nil {
		return err
	}
	fmt.Printf("client %s is in %s now: %d records\n", moved.ClientCode, moved.Database, moved.Records)
	if moved.OldCopy != "" {
		fmt.Printf("the old copy is kept in %s; drop it with: ecod client move %s --drop-old\n", moved.OldCopy, moved.ClientCode)
	}
	return nil
}
