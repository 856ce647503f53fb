package app

import (
	"context"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// retention is how long the records of a tenant's kinds that grow without end are kept, by an indexed time.
var retention = []struct {
	kind, field string
	keep        time.Duration
}{
	{news.Items.Schema.Kind, "at", news.Kept},
	{auth.Sessions.Schema.Kind, "expiresAt", 0},
	{crm.Changes.Schema.Kind, "at", crm.ChangesKept},
	{crm.Imports.Schema.Kind, "at", crm.ImportsKept},
	{crm.RowErrors.Schema.Kind, "at", crm.ImportsKept},
	{crm.ScoreEvents.Schema.Kind, "fadesAt", crm.FadedAfter},
	{chat.EarlyStatuses.Schema.Kind, "at", 30 * 24 * time.Hour},
	{chat.Notes.Schema.Kind, "at", 90 * 24 * time.Hour},
	{rule.Events.Schema.Kind, "receivedAt", 90 * 24 * time.Hour},
	{meeting.Appointments.Schema.Kind, "startsAt", meeting.Kept},
	{mail.Letters.Schema.Kind, "at", 90 * 24 * time.Hour},
	{rule.Posts.Schema.Kind, "at", 30 * 24 * time.Hour},
	{campaign.Recipients.Schema.Kind, "at", 2 * 365 * 24 * time.Hour},
}

// pruneMost bounds one pruning of one kind, so that no writer waits for it.
const pruneMost = 500

// upkeep deletes what is past its time: a little every minute.
func (a *App) upkeep(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		a.pruneServices(ctx)
		for _, code := range a.Tenants.Opened() {
			a.pruneTenant(ctx, code)
			a.syncTemplates(ctx, code)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// syncTemplates lets a client's templates be read from Meta, once a day and when its account is new.
func (a *App) syncTemplates(ctx context.Context, code string) {
	if a.Tenants.Status(code) != tenant.Active {
		return
	}
	tn, release, ok := a.Tenants.Borrow(code)
	if !ok {
		return
	}
	defer release()
	n, due, err := a.Desk.TemplateSyncDue(ctx, tn)
	if err == nil && due {
		_, err = a.Runner.Enqueue(ctx, n)
	}
	if err != nil && ctx.Err() == nil {
		a.log.Error("a client's templates cannot be synced", "client", code, "error", err)
	}
}

func (a *App) pruneServices(ctx context.Context) {
	if _, err := a.Queue.Prune(ctx, 2*pruneMost); err != nil && ctx.Err() == nil {
		a.log.Error("old jobs cannot be deleted", "error", err)
	}
	if _, err := api.PruneIdempotencyKeys(ctx, a.services, time.Now(), pruneMost); err != nil && ctx.Err() == nil {
		a.log.Error("old idempotency keys cannot be deleted", "error", err)
	}
	if err := a.pruneNodes(ctx); err != nil && ctx.Err() == nil {
		a.log.Error("nodes that died cannot be forgotten", "error", err)
	}
	if _, err := auth.PruneFailures(ctx, a.services, time.Now(), pruneMost); err != nil && ctx.Err() == nil {
		a.log.Error("old failed logins cannot be deleted", "error", err)
	}
}

func (a *App) pruneTenant(ctx context.Context, code string) {
	tn, release, ok := a.Tenants.Borrow(code)
	if !ok {
		return
	}
	defer release()
	if err := a.pruneMedia(ctx, tn); err != nil && ctx.Err() == nil {
		a.log.Error("abandoned uploads cannot be removed", "client", code, "error", err)
	}
	for _, r := range retention {
		before := time.Now().Add(-r.keep).UnixMilli()
		recs, err := tn.DB.Find(ctx, store.Query{Kind: r.kind, Where: []store.Term{store.Where(r.field, store.Lt, before)}, Order: r.field, Limit: pruneMost})
		if r.kind == news.Items.Schema.Kind && len(recs) > 0 && len(recs) < pruneMost {
			recs = recs[:len(recs)-1] // the newest item that is old: a client that was quiet can still be told what is new since
		}
		if err == nil && len(recs) > 0 {
			writes := make([]store.Write, len(recs))
			for i, rec := range recs {
				writes[i] = store.Write{Action: store.Delete, Kind: r.kind, ID: rec.ID}
			}
			err = tn.DB.Commit(ctx, writes...)
		}
		if err != nil && ctx.Err() == nil {
			a.log.Error("old records cannot be deleted", "client", code, "kind", r.kind, "error", err)
		}
	}
}
