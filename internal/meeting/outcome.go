package meeting

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// recordTimeout bounds the writing down of an answer; a stop of the engine does not cut it short.
const recordTimeout = 10 * time.Second

// record writes what became known of an appointment's link, if it is news. Whether or not it is, the appointment must
// still be what the calls were made for: store.ErrConflict if it is not.
func (d *Diary) record(ctx context.Context, tn *tenant.Tenant, before, a *Appointment, cause string) (news bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if reflect.DeepEqual(before.Meet, a.Meet) {
		return false, tn.DB.Commit(ctx, Appointments.Unchanged(a))
	}
	now := d.Now().UTC()
	a.UpdatedAt = now
	return true, tn.DB.Commit(ctx, a.Writes("meet|"+cause+"|"+itoa(int(a.Version)), now)...)
}

// end records that the calendar shows what the diary says, and gives what follows.
func (d *Diary) end(ctx context.Context, tn *tenant.Tenant, before, a *Appointment, cause string) (job.Result, error) {
	if _, err := d.record(ctx, tn, before, a, cause); err != nil {
		return job.Result{}, err
	}
	if err := tn.Connected(ctx, Connection, d.Now()); err != nil {
		return job.Result{}, err
	}
	next, err := d.settled(ctx, tn, a)
	return job.Result{Next: next, Result: map[string]string{"appointmentId": a.ID, "eventId": a.Meet.EventID, "meet": a.Meet.State}}, err
}

// settled gives the jobs that follow when it is known what becomes of a link.
func (d *Diary) settled(ctx context.Context, tn *tenant.Tenant, a *Appointment) ([]store.NewJob, error) {
	var next []store.NewJob
	if a.Origin.RunID != "" && d.Settled != nil {
		next = d.Settled(tn, a)
	}
	if !a.Announce || a.Status != Confirmed {
		return next, nil
	}
	raised, err := d.Raise(ctx, tn, *d.announcement(a)) // the rules hear of a booking with its link in hand
	return append(next, raised...), err
}

// failed records that a link will not be made, and ends the job.
func (d *Diary) failed(ctx context.Context, tn *tenant.Tenant, before, a *Appointment, e *Error) (job.Result, error) {
	now := *a
	now.Meet.Error = e
	if now.Meet.URL == "" && now.Status == Confirmed {
		now.Meet.State = Failed
	}
	if _, err := d.record(ctx, tn, before, &now, "failed|"+itoa(now.Meet.Ask)); err != nil {
		return job.Result{}, err
	}
	next, err := d.settled(ctx, tn, &now)
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{}, job.Dead(e.Code, errors.New(e.Detail), next...)
}

// trouble says what is to become of a job whose call failed.
func (d *Diary) trouble(ctx context.Context, tn *tenant.Tenant, j store.Job, a *Appointment, err error) (job.Result, error) {
	var g *google.Error
	if !errors.As(err, &g) {
		return job.Result{}, err // the storage's
	}
	switch {
	case g.Scope == google.ScopeAccount && !g.Temporary():
		reason := g.Reason
		if reason == "" {
			reason = "refused"
		}
		return d.attention(ctx, tn, a, reason, err)
	case g.Scope == google.ScopeQuota && g.Temporary():
		rest := g.RetryAfter()
		if rest == 0 {
			rest = quotaRest
		}
		scope := tn.Code + "/" + Resource
		if !slices.Contains(store.Scopes(j.Lane), scope) { // made by an earlier engine
			return job.Result{}, job.Snooze(rest, "google.limited", err)
		}
		return job.Result{}, job.PauseLane(scope, store.RateLimited, rest, max(rest, quotaRestMost), "google.limited", err)
	case g.Temporary() && (!job.LastAttempt(j) || errors.Is(err, context.Canceled)): // who was interrupted was not given an answer
		return job.Result{}, job.Retry(g.RetryAfter(), "google.unavailable", err)
	case g.Temporary():
		return d.failed(ctx, tn, a, a, &Error{"google.unavailable", "Google did not answer, however often it was asked."})
	default:
		return d.failed(ctx, tn, a, a, &Error{"google.rejected", "Google refused the event: " + orElse(g.Reason, "no reason was given") + "."})
	}
}

// credential is the code of what waits for the client's account to be mended.
const credential = "google.credential"

// Resource is what calendar jobs need.
const Resource = "google"

// Connection is the name of the client's connection to Google.
const Connection = "google"

// attention records that the client's account cannot be used until somebody mends it, and holds the job until then.
func (d *Diary) attention(ctx context.Context, tn *tenant.Tenant, a *Appointment, reason string, cause error) (job.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := tn.NeedsAttention(ctx, Connection, reason, d.Now()); err != nil {
		return job.Result{}, err
	}
	held := *a
	held.Meet.Error = &Error{credential, "The client's Google account needs attention (" + reason + "): connect it anew. What waits for it goes on then."}
	if _, err := d.record(ctx, tn, a, &held, "held"); err != nil {
		return job.Result{}, err
	}
	return job.Result{}, job.ParkLane(tn.Code+"/"+Resource, credential, cause)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// GiveUpJob is the type of the job that says so where a calendar job was cancelled, or given up.
const GiveUpJob = "meet.give_up"

type giveUpPayload struct {
	calendarPayload
	Reason string `json:"reason,omitempty"` // of package job; "": withdrawn
}

// Abandoned gives the job that ends the wait for a link whose own job was cancelled or given up.
func (d *Diary) Abandoned(j store.Job) []store.NewJob {
	p, err := job.Payload[calendarPayload](j)
	if err != nil {
		return nil
	}
	n := job.New(j.Tenant, GiveUpJob, giveUpPayload{p, job.Reason(j)})
	n.UniqueKey, n.KeyHash, n.Causation = "meet:give_up:"+j.ID, j.ID, j.Causation
	return []store.NewJob{n}
}

// HandleGiveUp is the handler of GiveUpJob. A link that is there stays.
func (d *Diary) HandleGiveUp(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[giveUpPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	why := &Error{job.Withdrawn, "The job that was to make the link was cancelled."}
	if p.Reason == job.GivenUp {
		why = &Error{job.GivenUp, "The job that was to make the link failed, and is not tried again."}
	}
	var a *Appointment
	err = conflictFree(ctx, func() error {
		if a, err = Appointments.Get(ctx, tn.DB, p.AppointmentID); err != nil || a.Meet.State != Pending || a.Status != Confirmed {
			return err
		}
		before := *a
		a.Meet.State, a.Meet.Error = Failed, why
		_, err := d.record(ctx, tn, &before, a, "given_up")
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil
	}
	if err != nil || (a.Meet.State == Pending && a.Status == Confirmed) {
		return job.Result{}, err
	}
	next, err := d.settled(ctx, tn, a)
	return job.Result{Next: next}, err
}

// withdraw cancels an appointment that a run planned and does not want any more. Its event was never seen, but may be
// there: the next pass takes it back.
func (d *Diary) withdraw(ctx context.Context, tn *tenant.Tenant, a *Appointment, code string) (job.Result, error) {
	m := &Mutation{ID: "withdrawn", At: d.Now().UTC(), Cancel: true}
	a.cancel(m)
	a.Meet.Error = &Error{code, "The run that planned the appointment was over."}
	if err := tn.DB.Commit(ctx, a.Writes(m.ID, m.At)...); err != nil {
		return job.Result{}, err
	}
	return job.Result{}, store.ErrConflict
}
