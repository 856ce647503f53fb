package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/app"
)

type keysCmd struct {
	Rotate keysRotateCmd `cmd:"" help:"Make a new key and seal everything anew under it, online; cut short, it goes on when run again."`
}

type keysRotateCmd struct {
	app.Config
	DropOld bool `help:"Make no new key: remove the old ones that nothing needs any more."`
}

func (c *keysRotateCmd) Run(ctx context.Context, m mistakes) error {
	if err := m.resolve(&c.Config); err != nil {
		return err
	}
	rot, err := app.RotateKeys(ctx, c.Config, c.DropOld)
	if err != nil {
		if rot.Made {
			fmt.Fprintf(os.Stderr, "key %s was made; run this again to go on with it\n", rot.Newest)
		}
		return err
	}
	switch {
	case rot.Made:
		fmt.Printf("key %s is made, and seals from now on\n", rot.Newest)
	case rot.Set:
		fmt.Printf("key %s is the first of ECOD_SECRET_KEYS\n", rot.Newest)
	default:
		fmt.Printf("key %s is the newest\n", rot.Newest)
	}
	fmt.Printf("%d values were sealed anew under it\n", rot.Resealed)
	for kid, n := range rot.InUse {
		if kid != rot.Newest {
			fmt.Printf("key %s is still needed by %d values; run this again\n", kid, n)
		}
	}
	switch {
	case len(rot.Dropped) > 0:
		fmt.Printf("removed: %s; backups from before can be read only with a copy of them\n", strings.Join(rot.Dropped, ", "))
	case rot.Wait > 0:
		fmt.Printf("no longer needed by what is stored: %s; tokens of live sockets may need them for %s more, run this again then\n", strings.Join(rot.Unneeded, ", "), rot.Wait.Round(time.Second))
	case len(rot.Unneeded) > 0 && rot.Set:
		fmt.Printf("no longer needed: %s; in 15 minutes they may go from ECOD_SECRET_KEYS\n", strings.Join(rot.Unneeded, ", "))
	case len(rot.Unneeded) > 0:
		fmt.Printf("no longer needed: %s; ecod keys rotate --drop-old removes them, in 15 minutes or later\n", strings.Join(rot.Unneeded, ", "))
	}
	if len(rot.Unreadable) == 0 {
		return nil
	}
	for _, where := range rot.Unreadable {
		fmt.Fprintf(os.Stderr, "ecod: %s does not open with any key; it stays as it is\n", where)
	}
	return errFailed
}
