package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	registered = 10_000
	settleFor  = 15 * time.Second // after the start
	watchFor   = 10 * time.Second
)

// idle measures what a process that does nothing holds of memory and uses of the processors, with many clients
// registered, each with a WhatsApp number.
func (b *bench) idle(ctx context.Context) error {
	dir := filepath.Join(b.dir, "idle")
	if err := fill(ctx, dir); err != nil {
		return err
	}
	began := time.Now()
	e, err := b.serve(dir, "")
	if err != nil {
		return err
	}
	defer func() { _ = e.cmd.Process.Kill() }()
	ready := time.Since(began)
	known, err := e.metric("ecod_clients")
	if err != nil || int(known) != registered {
		return fmt.Errorf("the engine knows %.0f of %d clients: %w", known, registered, err)
	}
	if err := pause(ctx, settleFor); err != nil {
		return err
	}
	used, err := e.cpu()
	if err != nil {
		return err
	}
	if err := pause(ctx, watchFor); err != nil {
		return err
	}
	used2, err := e.cpu()
	if err != nil {
		return err
	}
	rss, err := e.memory()
	if err != nil {
		return err
	}
	const bar = 100 << 20
	b.note(fmt.Sprintf("memory idle, %d clients", registered), rss <= bar, "≤ 100 MB", "%.1f MB (VmRSS)", float64(rss)/(1<<20))
	b.note("processor idle", true, "", "%.2f %% of one, over %s", 100*float64(used2-used)/float64(watchFor), watchFor)
	b.note("start to ready", true, "", "%.2f s", ready.Seconds())
	return e.stop()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fill registers the clients in a data folder.
func fill(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	keys, err := (&app.Config{DataDir: dir}).LoadKeys()
	if err != nil {
		return err
	}
	s, err := app.OpenEmbedded(ctx, dir)
	if err != nil {
		return err
	}
	defer s.Close()
	clients := s.Registry(keys.Ring, slog.New(slog.DiscardHandler), func(string, string) {}, nil)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(64) // they share commits
	for i := range registered {
		g.Go(func() error {
			code := fmt.Sprintf("CLIENT%05d", i)
			_, _, err := clients.Create(gctx, tenant.NewClient{Code: code, Name: fmt.Sprintf("Client number %d", i), TimeZone: "Asia/Kolkata", DefaultCountry: "IN"})
			if err != nil {
				return err
			}
			_, err = clients.SetWhatsApp(gctx, code, tenant.WhatsAppSecrets{
				WABAID: fmt.Sprintf("2%014d", i), PhoneNumberIDs: []string{fmt.Sprintf("3%014d", i)}, AccessToken: secret.Text(strings.Repeat("t", 200)),
			})
			return err
		})
	}
	return errors.Join(g.Wait(), clients.Close(context.WithoutCancel(ctx)))
}
