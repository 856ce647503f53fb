package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// The jobs that the engine's own schedules make.
const (
	CleanJob  = "upkeep.clean"  // deletes files and webhooks that are past their time
	ScoresJob = "upkeep.scores" // has every client's scores looked at
)

// engineSchedules are what the engine does by the clock, once over all processes.
var engineSchedules = []job.Schedule{
	{Name: CleanJob, Expr: "17 * * * *", Zone: "UTC", Type: CleanJob, CatchUp: time.Hour},
	{Name: ScoresJob, Expr: "@daily", Zone: "UTC", Type: ScoresJob, CatchUp: 24 * time.Hour},
}

// noPayload is the check of types that take none.
func noPayload(p json.RawMessage) error {
	if !bytes.Equal(bytes.TrimSpace(p), []byte("{}")) {
		return errors.New("a payload")
	}
	return nil
}

// timetable makes the timetable, with the types of job that are there for schedules, and the engine's own schedules.
func (a *App) timetable(ctx context.Context, log *slog.Logger) error {
	a.Runner.Know(
		job.Type{Name: rule.ScheduledJob, Handle: a.Engine.HandleScheduled, Schedulable: rule.CheckScheduled, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: CleanJob, Class: store.Maintenance, Handle: a.clean, System: true, Schedulable: noPayload, Timeout: 10 * time.Minute, MaxAttempts: 5},
		job.Type{Name: ScoresJob, Class: store.Maintenance, Handle: a.rescoreAll, System: true, Schedulable: noPayload, Timeout: 10 * time.Minute, MaxAttempts: 20},
	)
	a.Timetable = job.NewTimetable(job.TimetableConfig{Services: a.services, Runner: a.Runner, Log: log, Now: time.Now})
	for _, s := range engineSchedules {
		if err := a.Timetable.Keep(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// clean is the handler of CleanJob.
func (a *App) clean(ctx context.Context, _ *tenant.Tenant, _ store.Job) (job.Result, error) {
	return job.Result{}, errors.Join(
		a.Media.Sweep(),
		crm.Folder(filepath.Join(a.Config.DataDir, importsFolder)).Prune(ctx, time.Now().Add(-crm.ImportsKept)),
		a.Inbox.Drop(ctx, time.Duration(a.Config.InboxRetention), 30*24*time.Hour),
	)
}

// How many clients are looked at without spreading them over the day, and how far apart the others are.
const (
	fewClients  = 16
	rescorePace = 5 * time.Second
)

// rescoreAll is the handler of ScoresJob: it lets the scores of every client be looked at, also of those that sleep.
func (a *App) rescoreAll(ctx context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
	codes := a.Tenants.Codes(tenant.Active)
	var jobs []store.NewJob
	for _, code := range codes {
		if !a.storage.HasDB(code) {
			if acct, err := a.Tenants.Account(ctx, code); err != nil || acct.DatabaseURL == "" {
				continue
			}
		}
		n := crm.Rescores(code, j.CreatedAt)
		if len(codes) > fewClients { // a look opens a database: never many in one moment
			h := fnv.New64a()
			_, _ = h.Write([]byte(code))
			n.RunAt = j.CreatedAt.Add(time.Duration(h.Sum64()>>1) % min(23*time.Hour, time.Duration(len(codes))*rescorePace))
		}
		jobs = append(jobs, n)
	}
	for some := range slices.Chunk(jobs, pruneMost) {
		if _, err := a.Runner.Enqueue(ctx, some...); err != nil {
			return job.Result{}, err
		}
	}
	return job.Result{}, nil
}
