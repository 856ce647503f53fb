package app

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// EraseJob is the type of the job that erases a client.
const EraseJob = "client.erase"

// ErasePayload is the payload of EraseJob.
type ErasePayload struct {
	ClientCode string `json:"clientCode"`
}

// erase is the handler of EraseJob.
func (a *App) erase(ctx context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[ErasePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	acct, err := a.Tenants.Account(ctx, p.ClientCode)
	if fault.Of(err) == fault.NotFound {
		return job.Result{}, nil // done before
	}
	if err != nil {
		return job.Result{}, err
	}
	if acct.Status == tenant.Moving && acct.Move != nil {
		return job.Result{}, job.Snooze(5*time.Second, "client_moving", nil)
	}
	if acct.Status != tenant.Erasing {
		if err := a.Tenants.BeginErase(ctx, p.ClientCode); err != nil {
			return job.Result{}, err
		}
		acct.UpdatedAt = time.Now()
	}
	if err := cancelAll(ctx, a.Queue, p.ClientCode); err != nil {
		return job.Result{}, err
	}
	if wait, err := a.othersLeave(ctx, acct); err != nil {
		return job.Result{}, err
	} else if wait > 0 {
		return job.Result{}, job.Snooze(wait, "client_in_use", nil)
	}
	if err := a.book.DropFiles(ctx, acct.Code); err != nil {
		return job.Result{}, err
	}
	if _, err := a.mover().DropOld(ctx, acct.Code); err != nil && fault.Of(err) != fault.NotFound && !errors.Is(err, errSame) {
		return job.Result{}, err
	}
	return job.Result{}, a.Tenants.Erase(ctx, p.ClientCode)
}

// leaveMost is how long an erasure waits for jobs of the client's that other processes do not end.
const leaveMost = 2 * time.Minute

// othersLeave tells how long an erasure is to wait until other processes have heard of it and ended the client's jobs: what
// they write after the database is gone would make a new one.
func (a *App) othersLeave(ctx context.Context, acct *tenant.Account) (time.Duration, error) {
	since := time.Since(acct.UpdatedAt)
	if !a.storage.Shared() || since > leaveMost {
		return 0, nil
	}
	if wait := a.storage.hearing() - since; wait > 0 {
		return wait, nil
	}
	n, err := a.Queue.JobCounts(ctx, acct.Code)
	if err != nil || n[store.Running] == 0 {
		return 0, err
	}
	return time.Second, nil
}

// cancelAll cancels every job of a client.
func cancelAll(ctx context.Context, q store.Queue, code string) error {
	after := ""
	for {
		jobs, err := q.Jobs(ctx, store.JobFilter{Tenant: code, After: after, Limit: 500,
			States: []store.State{store.Scheduled, store.Ready, store.Running, store.Parked}})
		if err != nil || len(jobs) == 0 {
			return err
		}
		ids := make([]string, len(jobs))
		for i, j := range jobs {
			ids[i], after = j.ID, j.ID
		}
		if _, err := q.Cancel(ctx, ids...); err != nil {
			return err
		}
	}
}

// eraseMedia removes an erased client's files, while its account can still be read.
func (a *App) eraseMedia(ctx context.Context, acct *tenant.Account) error {
	code := acct.Code
	key, err := a.Tenants.StorageKey(ctx, code)
	if err != nil {
		a.log.Warn("an erased client's own bucket cannot be opened", "client", code, "error", err)
		acct.Storage = nil
	}
	if err := a.Media.Erase(ctx, acct.Code, acct.Storage, key); err != nil {
		return err
	}
	return a.eraseTraces(ctx, acct)
}

// eraseTraces removes what of an erased client stands in the services database: its schedules, jobs, kept answers, and the
// failed logins of its users. The bytes of webhooks stay until they age out: one may hold items of several clients.
func (a *App) eraseTraces(ctx context.Context, acct *tenant.Account) error {
	if err := a.Timetable.Forget(ctx, acct.Code); err != nil { // first: they make jobs
		return err
	}
	if err := api.ForgetAnswers(ctx, a.services, acct.Code); err != nil {
		return err
	}
	if db, err := a.storage.OpenDB(ctx, acct); err != nil { // a damaged one must not outlive its client
		a.log.Warn("an erased client's database does not open; failed logins of its users are forgotten in a day", "client", acct.Code, "error", err)
	} else if err := errors.Join(auth.ForgetFailures(ctx, a.services, acct.Code, db), db.Close()); err != nil {
		return err
	}
	for more := true; more; {
		var err error
		if more, err = a.storage.Queue.Forget(ctx, acct.Code); err != nil {
			return err
		}
	}
	return nil
}
