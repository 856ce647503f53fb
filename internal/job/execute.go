package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// execute runs one claimed job and records its end. Its slot is freed when its handler has ended and its end is about to
// be recorded.
func (r *Runner) execute(ctx context.Context, j *store.Job, free func()) (Result, error) {
	started := r.cfg.Now()
	r.cfg.Began(j)
	defer r.letGo(j)
	t, known := r.typeOf(j.Type)
	if t.MaxAttempts > 0 {
		j.MaxAttempts = t.MaxAttempts
	}
	account := r.cfg.Tenants.Version(j.Tenant)
	var res Result
	var err error
	if !known {
		err = Park("unknown_type", nil)
	} else {
		res, err = r.attend(during(ctx, j.ID), t, j)
	}
	now := r.cfg.Now()
	r.learn(now.Sub(started))
	o := t.outcome(j, res, err, now)
	if err != nil && !r.ended(ctx, t, j, err, &o) {
		r.note(ctx, slog.LevelWarn, "lease lost; another runner has the job", j, "error", err)
		r.cfg.Trouble("lease_lost")
		return res, errors.Join(err, ErrLeaseLost)
	}
	for i := range o.Next {
		o.Next[i] = r.following(j, o.Next[i])
	}
	if s := (*stuck)(nil); errors.As(err, &s) {
		free = nil
	}
	ok, ferr := r.record(&o, free)
	if ferr != nil && !passing(ferr) {
		// The handler left what the queue never takes. Without an end the job would run for ever.
		err = Retry(0, "outcome", ferr)
		o = t.outcome(j, Result{}, err, now)
		ok, ferr = r.record(&o, nil)
	}
	switch {
	case ferr != nil:
		r.note(ctx, slog.LevelError, "a job's end cannot be recorded; it will run again when its lease ends", j, "error", ferr)
		return res, errors.Join(err, ferr)
	case !ok:
		r.note(ctx, slog.LevelWarn, "a job's end was refused: it was taken over by another runner", j)
		r.cfg.Trouble("fence_rejected")
		return res, errors.Join(err, ErrLeaseLost)
	}
	if o.State == store.Parked && r.cfg.Tenants.Version(j.Tenant) != account && r.cfg.Tenants.Status(j.Tenant) == tenant.Active {
		r.unparkLate(ctx, j, o.Pause)
	}
	if err != nil {
		level := slog.LevelDebug
		if o.State == store.Dead {
			level = slog.LevelError
		} else if !snoozed(err) && o.State != store.Cancelled {
			level = slog.LevelWarn
		}
		r.note(ctx, level, "job "+string(o.State), j, "attempt", j.Attempt+1, "error", err)
	} else if r.cfg.Log.Enabled(ctx, slog.LevelDebug) { // of most executions nobody wants to read
		r.note(ctx, slog.LevelDebug, "job "+string(o.State), j, "ms", now.Sub(started).Milliseconds())
	}
	e := Execution{Job: j, State: o.State, Wait: started.Sub(j.RunAt), Run: now.Sub(started)}
	if o.Error != nil {
		e.Code = o.Error.Code
	}
	r.cfg.Observe(e)
	r.cfg.Changed(j.Tenant, j.ID)
	return res, err
}

// note logs something of a job.
func (r *Runner) note(ctx context.Context, level slog.Level, msg string, j *store.Job, args ...any) {
	r.cfg.Log.Log(ctx, level, msg, append([]any{"client", j.Tenant, "job", j.ID, "type", j.Type}, args...)...)
}

// ended makes of a failure's outcome what it is if the job's context ended before; false: another runner has the job.
func (r *Runner) ended(ctx context.Context, t *Type, j *store.Job, err error, o *store.Outcome) bool {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, ErrLeaseLost):
		return false
	case errors.Is(err, ErrLeaseLost): // it found so itself; if it was wrong, the job goes back, and nothing was wrong with it
		*o = store.Outcome{ID: j.ID, Token: j.Token, State: store.Ready}
	case errors.Is(cause, errStopping) && cut(err):
		*o = store.Outcome{ID: j.ID, Token: j.Token, State: store.Ready}
	case errors.Is(cause, errCancelled):
		o.State, o.RunAt, o.Next = store.Cancelled, time.Time{}, t.abandoned(j, store.Cancelled)
		if errors.Is(err, context.Canceled) { // that it stopped when asked to is no failure
			o.CountFailed, o.Error = false, nil
		}
	}
	return true
}

// unparkLate lets a job go on that was held for a cause which was removed while we found it: who released the parked jobs
// did not see this one.
func (r *Runner) unparkLate(ctx context.Context, j *store.Job, pause *store.PauseRequest) {
	ctx = context.WithoutCancel(ctx)
	var err error
	if pause != nil {
		_, err = r.cfg.Queue.Resume(ctx, pause.Scope, pause.Reason)
	}
	if _, rerr := r.cfg.Queue.ReleaseParked(ctx, j.Tenant); err == nil {
		err = rerr
	}
	if err != nil {
		r.note(ctx, slog.LevelError, "a held job cannot be released", j, "error", err)
	}
}

// passing tells whether the queue may take tomorrow what it did not take now.
func passing(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// call gives the handler its tenant, and turns a panic into an error.
func (r *Runner) call(ctx context.Context, t *Type, j *store.Job) (res Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.cfg.Log.Error("panic in a job", "client", j.Tenant, "job", j.ID, "type", j.Type, "panic", p, "stack", string(debug.Stack()))
			err = Retry(0, "panic", fmt.Errorf("panic: %v", p))
		}
	}()
	if t.System {
		return t.Handle(ctx, nil, *j)
	}
	switch r.cfg.Tenants.Status(j.Tenant) {
	case tenant.Active:
	case tenant.Suspended:
		return res, Park("client_suspended", nil)
	case tenant.Moving:
		return res, PauseLane(j.Tenant, store.Moving, movingPause, 0, "client_moving", nil)
	default:
		return res, Park("client_gone", nil)
	}
	tn, release, err := r.cfg.Tenants.Use(ctx, j.Tenant)
	if err != nil {
		if fault.Of(err) == fault.NotFound {
			return res, Park("client_gone", err)
		}
		// all of its work rests: each job would but find the same
		return res, PauseLane(j.Tenant, store.RateLimited, unavailablePause, 0, "client_unavailable", err)
	}
	defer release()
	return t.Handle(ctx, tn, *j)
}
