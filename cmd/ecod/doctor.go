package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ecodrix/ecod/internal/app"
)

type doctorCmd struct {
	app.Config
	Client string `help:"Look at this client only."`
}

// Run prints one line a check, and what to do about each that failed.
func (c *doctorCmd) Run(ctx context.Context, m mistakes) error {
	bad := m.resolve(&c.Config)
	failed, err := app.Examine(ctx, c.Config, bad, c.Client, func(f app.Finding) {
		verdict := "ok  "
		if !f.OK {
			verdict = "FAIL"
		}
		fmt.Printf("%s  %-24s  %s", verdict, f.Name, f.Detail)
		if f.Mend != "" {
			fmt.Printf("  -> %s", f.Mend)
		}
		fmt.Println()
	})
	if err == nil && failed > 0 {
		fmt.Printf("%d failed\n", failed)
		err = errFailed
	}
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return err
}
