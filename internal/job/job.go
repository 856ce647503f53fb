package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Handler does a job. tn is nil for the types that are the system's own. Its writes in the tenant's database must be
// idempotent: facts with derived ids first, the deciding record last.
type Handler func(ctx context.Context, tn *tenant.Tenant, j store.Job) (Result, error)

// Result is what a handler leaves when it ends without error.
type Result struct {
	Next   []store.NewJob // made, under derived unique keys, in the commit that ends the job
	Result any            // small, shown at /api/jobs; nil for none
}

// Type declares a kind of job.
type Type struct {
	Name        string
	Resource    string      // what its jobs need, unless they say themselves: those of one resource wait for each other alone
	Class       store.Class // how patient they are, unless they say themselves; "": normal
	Handle      Handler
	System      bool          // has no tenant
	Timeout     time.Duration // of one execution; 0: 1 min
	MaxAttempts int           // 0: as the job says
	Base, Cap   time.Duration // of the backoff; 0: 5 s, 30 min
	// Schedulable checks the payload that a schedule is to give each of its jobs; nil: there are no schedules of this type.
	Schedulable func(payload json.RawMessage) error
	// Tied: of no use once what it was made for is over; CancelCaused ends it.
	Tied bool
	// Abandoned gives the jobs that tell the domain of a job that was cancelled, given up or too late, as its State says,
	// and so could not say itself what is to follow. Their keys are derived from its id. nil: nobody waits for it.
	Abandoned func(j store.Job) []store.NewJob
}

func (t Type) withDefaults() Type {
	if t.Timeout == 0 {
		t.Timeout = time.Minute
	}
	if t.Base == 0 {
		t.Base = 5 * time.Second
	}
	if t.Cap == 0 {
		t.Cap = 30 * time.Minute
	}
	return t
}

// abandoned gives what follows from a job's end in a state without its handler's word.
func (t *Type) abandoned(j *store.Job, end store.State) []store.NewJob {
	if t.Abandoned == nil {
		return nil
	}
	ended := *j
	ended.State = end
	return t.Abandoned(ended)
}

// Why a job ended without its handler's word, for the record of what it was to do.
const (
	Withdrawn = "cancelled"
	TooLate   = "expired"
	GivenUp   = "given_up"
)

// Reason says why a job ended without its handler's word, for its type's Abandoned.
func Reason(j store.Job) string {
	switch j.State {
	case store.Expired:
		return TooLate
	case store.Dead:
		return GivenUp
	}
	return Withdrawn
}

// Backoff is the pause before attempt n+1: min(cap, base*2^(n-1)), jittered by half, plus up to 250 ms.
func (t Type) Backoff(n int) time.Duration {
	d := t.Base
	for ; n > 1 && d < t.Cap; n-- {
		d *= 2
	}
	d = min(d, t.Cap)
	return time.Duration(float64(d)*(0.5+rand.Float64()/2)) + rand.N(250*time.Millisecond)
}

// verdict is an error that says what is to become of the job.
type verdict struct {
	state       store.State
	after       time.Duration
	countFailed bool
	final       bool // the handler itself says what follows
	code        string
	next        []store.NewJob
	pause       *store.PauseRequest
	err         error
}

func (v *verdict) Error() string {
	if v.err != nil {
		return v.err.Error()
	}
	return v.code
}

func (v *verdict) Unwrap() error { return v.err }

// told is the error as a job shows it to its client: what a storage engine says is for the log alone.
func (v *verdict) told() string {
	switch {
	case errors.Is(v.err, store.ErrUnavailable), errors.Is(v.err, store.ErrClosed):
		return "The storage could not be reached."
	case errors.Is(v.err, store.ErrQuery):
		return "The storage cannot run a query of this job."
	}
	return v.Error()
}

// Retry asks for another attempt after a pause, which counts; 0 leaves the pause to the type's backoff.
func Retry(after time.Duration, code string, err error) error {
	return &verdict{state: store.Scheduled, after: after, countFailed: true, code: code, err: err}
}

// Snooze asks for another execution after a pause and costs no attempt: nothing was wrong with the job.
func Snooze(after time.Duration, code string, err error) error {
	return &verdict{state: store.Scheduled, after: max(after, time.Millisecond), code: code, err: err}
}

// snoozed tells whether an error is a job's wish to run later, of which nobody need hear: of a pause that begins they do.
func snoozed(err error) bool {
	var v *verdict
	return errors.As(err, &v) && ((v.state == store.Scheduled || v.state == store.Ready) && !v.countFailed && v.err == nil || v.pause != nil)
}

// PauseLane gives the job back and lets the lanes of a scope rest ("": those of the job's resource): nothing is wrong with
// the job, which costs no attempt and goes on first when the pause is over. duration 0 is until somebody resumes it; most
// lets repeated pauses double up to it (store.PauseRequest).
func PauseLane(scope string, reason store.PauseReason, duration, most time.Duration, code string, err error) error {
	p := &store.PauseRequest{Scope: scope, Reason: reason, For: duration, Most: most, Detail: code}
	return &verdict{state: store.Ready, pause: p, code: code, err: err}
}

// Return gives the job back as it was: it found out that its lane rests before it was let wait there.
func Return(code string) error { return &verdict{state: store.Ready, code: code} }

// Park holds the job until its cause is removed: credentials, a suspended client.
func Park(code string, err error) error { return &verdict{state: store.Parked, code: code, err: err} }

// ParkLane is Park, and lets the lanes of a scope rest for a credential: the others need not find out, too.
func ParkLane(scope, code string, err error) error {
	return &verdict{state: store.Parked, pause: &store.PauseRequest{Scope: scope, Reason: store.Credential, Detail: code}, code: code, err: err}
}

// Dead ends the job for good: it can never succeed. next is what follows from that.
func Dead(code string, err error, next ...store.NewJob) error {
	return &verdict{state: store.Dead, countFailed: true, final: true, code: code, err: err, next: next}
}

// Cancel ends the job for good because nobody wants it any more: what it was made for is over. Nothing was wrong with it.
// next is what follows from that.
func Cancel(code string, err error, next ...store.NewJob) error {
	return &verdict{state: store.Cancelled, final: true, code: code, err: err, next: next}
}

// Ended is nil for the error of an execution that ended its job for good, else err: for handlers that use each other.
func Ended(err error) error {
	var v *verdict
	if errors.As(err, &v) && v.state.Terminal() {
		return nil
	}
	return err
}

// Following gives the jobs that an execution leaves, however it ended.
func Following(res Result, err error) []store.NewJob {
	var v *verdict
	switch {
	case err == nil:
		return res.Next
	case errors.As(err, &v):
		return v.next
	}
	return nil
}

// cut tells whether an execution failed for nothing but that it was told to end.
func cut(err error) bool {
	var v *verdict
	if !errors.As(err, &v) {
		return true
	}
	return v.state == store.Scheduled && v.countFailed && (errors.Is(err, context.Canceled) || errors.Is(err, errStopping))
}

// LastAttempt tells whether a failure of this execution would be the job's last.
func LastAttempt(j store.Job) bool { return j.Attempt+1 >= j.MaxAttempts }

// Payload decodes a job's payload; a payload that does not decode is Dead.
func Payload[T any](j store.Job) (T, error) {
	var p T
	if err := json.Unmarshal(j.Payload, &p); err != nil {
		return p, Dead("payload", fmt.Errorf("payload of %s: %w", j.Type, err))
	}
	return p, nil
}

// New makes the request for a job; payload is marshalled.
func New(tn, typ string, payload any) store.NewJob {
	b, err := json.Marshal(payload)
	if err != nil {
		panic("job: payload does not marshal: " + err.Error())
	}
	return store.NewJob{Tenant: tn, Type: typ, Payload: b}
}

// outcome turns how a handler ended into what the queue records.
func (t *Type) outcome(j *store.Job, res Result, err error, now time.Time) store.Outcome {
	o := store.Outcome{ID: j.ID, Token: j.Token}
	o.Next = Following(res, err)
	if err == nil {
		o.State = store.Succeeded
		if res.Result != nil {
			o.Result, _ = json.Marshal(res.Result)
		}
		return o
	}
	var v *verdict
	switch {
	case errors.As(err, &v):
	case errors.Is(err, store.ErrUnavailable): // nothing was wrong with the job
		v = &verdict{state: store.Scheduled, after: unavailablePause, code: "storage_unavailable", err: err}
	case errors.Is(err, store.ErrQuery): // no pause mends it
		v = &verdict{state: store.Scheduled, countFailed: true, code: "storage_query", err: err}
	default:
		v = &verdict{state: store.Scheduled, countFailed: true, code: "error", err: err}
	}
	o.State, o.CountFailed, o.Pause = v.state, v.countFailed, v.pause
	if v.countFailed && v.state == store.Scheduled && LastAttempt(*j) {
		o.State = store.Dead
	}
	if o.State == store.Scheduled {
		after := v.after
		if after == 0 {
			after = t.Backoff(j.Attempt + 1)
		}
		o.RunAt = now.Add(after)
	}
	msg := v.told()
	if len(msg) > 500 {
		msg = strings.ToValidUTF8(msg[:500], "")
	}
	o.Error = &store.JobError{At: now, Attempt: j.Attempt + 1, Code: v.code, Message: msg}
	if o.State == store.Dead && !v.final {
		o.Next = t.abandoned(j, store.Dead)
	}
	return o
}
