package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/app"
)

type backupCmd struct {
	app.Config
	To       string `arg:"" type:"path" help:"A folder, in which a file named after the time is made, or the file: a tar, gzipped if its name ends in gz."`
	WithKeys bool   `help:"Put the admin token and the keys in as well: whoever has the file can then read every secret."`
}

func (c *backupCmd) Run(ctx context.Context, m mistakes) error {
	if err := m.resolve(&c.Config); err != nil {
		return err
	}
	file, man, err := app.Backup(ctx, c.Config, app.BackupOptions{To: c.To, WithKeys: c.WithKeys, Version: version})
	if err != nil {
		return err
	}
	fmt.Printf("%s holds everything as of %s: %d clients, %d files\n", file, man.At.Format(time.RFC3339), man.Clients, len(man.Files))
	if man.Media != "in" {
		fmt.Printf("media stand in %s and are not in it\n", man.Media)
	}
	if len(man.Later) > 0 {
		fmt.Printf("%d clients that were asleep show a moment up to a minute later\n", len(man.Later))
	}
	if len(man.Elsewhere) > 0 {
		fmt.Fprintf(os.Stderr, "ecod: %s have databases at addresses of their own, which are not in it: back those up where they are\n", strings.Join(man.Elsewhere, ", "))
	}
	if man.Keys {
		fmt.Println("the keys are in it: keep it as you keep them")
	} else {
		fmt.Printf("keys are not in it; keep those named %s elsewhere, without them no secret in it can be read\n", strings.Join(man.KeyIDs, ", "))
	}
	return nil
}

type restoreCmd struct {
	app.Config
	File  string `arg:"" type:"existingfile" help:"What ecod backup wrote."`
	Force bool   `help:"Also into a folder that holds data, which is put aside."`
}

func (c *restoreCmd) Run(ctx context.Context, m mistakes) error {
	if err := m.resolve(&c.Config); err != nil {
		return err
	}
	res, err := app.Restore(ctx, c.Config, c.File, c.Force)
	if err != nil {
		return err
	}
	place := c.DataDir
	if res.Engine != "" {
		place = "the database of ECOD_DATABASE_URL"
	}
	fmt.Printf("%s is as of %s: %d clients, %d files\n", place, res.At.Format(time.RFC3339), res.Clients, len(res.Files))
	if res.Aside != "" {
		fmt.Printf("what was there before is in %s\n", res.Aside)
	}
	if res.Media != "in" {
		fmt.Printf("media are not in it; they stand in %s\n", res.Media)
	}
	if !res.KeysThere {
		fmt.Fprintf(os.Stderr, "ecod: before serve starts, put back the keys named %s (secret-keys or ECOD_SECRET_KEYS)\n", strings.Join(res.Missing, ", "))
	}
	fmt.Println("what waited at that moment goes on when serve starts, unless it is too late for it; what was being sent then is not sent again")
	return nil
}
