package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/store"
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

// fill writes the clients' documents into a data folder, as the registry would.
func fill(ctx context.Context, dir string) error {
	s, err := app.OpenEmbedded(ctx, dir)
	if err != nil {
		return err
	}
	defer s.Close()
	keys, err := (&app.Config{DataDir: dir}).LoadKeys()
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	var writes []store.Write
	for i := range registered {
		code := fmt.Sprintf("CLIENT%05d", i)
		sealed, err := keys.Ring.Seal(code, "whatsapp.accessToken", strings.Repeat("t", 200))
		if err != nil {
			return err
		}
		writes = append(writes, tenant.Accounts.Insert(&tenant.Account{
			Code: code, Name: fmt.Sprintf("Client number %d", i), Status: tenant.Active, TimeZone: "Asia/Kolkata", DefaultCountry: "IN",
			APIKeys:   []tenant.APIKey{{SHA256: fmt.Sprintf("%064x", i), CreatedAt: now}},
			WhatsApp:  &tenant.WhatsApp{WABAID: fmt.Sprintf("2%014d", i), PhoneNumberIDs: []string{fmt.Sprintf("3%014d", i)}, AccessToken: sealed, UpdatedAt: now},
			CreatedAt: now, UpdatedAt: now, Rev: tenant.RevOf(code, 1),
		}))
		if len(writes) == 500 || i == registered-1 {
			if err := s.Services.Commit(ctx, writes...); err != nil {
				return err
			}
			writes = nil
		}
	}
	return nil
}
