package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// ErrKeyReuse says that a unique key was used before with another payload.
var ErrKeyReuse = errors.New("store: unique key reused with another payload")

// State is where a job stands.
type State string

// The states. The last five are ends, but parked and dead can be sent back to ready by an operator.
const (
	Scheduled State = "scheduled" // due later
	Ready     State = "ready"     // waiting for a worker
	Running   State = "running"   // claimed, under a lease
	Parked    State = "parked"    // held until its cause is removed (client suspended, unknown type)
	Succeeded State = "succeeded"
	Dead      State = "dead" // attempts used up, or refused for good
	Cancelled State = "cancelled"
	Expired   State = "expired" // not started before ExpiresAt
)

// Terminal tells whether a job in this state is over.
func (s State) Terminal() bool {
	return s == Succeeded || s == Dead || s == Cancelled || s == Expired
}

// Job is one record of services.jobs. Payloads hold ids, never a customer's text.
type Job struct {
	ID          string          // job_ + UUIDv7
	Tenant      string          // client code; "" for the system's own
	Type        string          // "whatsapp.send", "automation.event" …
	Lane        string          // what is claimed in turn: the tenant, or one of its slow lanes, "TENANT/name"
	Payload     json.RawMessage // at most 64 KiB
	State       State
	RunAt       time.Time // due time while scheduled, order among the ready
	ExpiresAt   time.Time // zero: never
	Attempt     int       // failed executions so far; snoozes and shutdowns do not count
	MaxAttempts int
	Starts      int   // all executions
	Crashes     int   // executions that ended with the lease
	Token       int64 // fence: +1 at every claim, never reused
	Owner       string
	LeaseUntil  time.Time
	UniqueKey   string          // "" for none
	Causation   Causation       // what it was made for
	Errors      []JobError      // the last ten
	Result      json.RawMessage // small
	CreatedAt   time.Time
	StartedAt   time.Time
	EndedAt     time.Time
}

// Causation links a job to what caused it; all members are optional.
type Causation struct {
	EventID string `json:"eventId,omitempty"`
	RunID   string `json:"runId,omitempty"`
	Step    string `json:"step,omitempty"`
	JobID   string `json:"jobId,omitempty"`
	LeadID  string `json:"leadId,omitempty"`
	Message string `json:"messageId,omitempty"`
}

// JobError is one failed execution. Message holds no secret and no customer's text.
type JobError struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Code    string    `json:"code"`
	Message string    `json:"message"`
}

// NewJob asks for a job.
type NewJob struct {
	ID          string // optional; fresh if ""
	Tenant      string
	Type        string
	Lane        string          // name of the slow lane it waits in; "": the tenant's main lane
	Payload     json.RawMessage // nil: {}
	RunAt       time.Time       // zero or past: ready now
	ExpiresAt   time.Time
	MaxAttempts int    // 0: 8
	UniqueKey   string // while known (72 h beyond its end), a second job of this key and tenant is not made
	// KeyHash is what a second job of the same key must equal; "" : the hash of type and payload. For payloads that
	// differ although they mean the same (sealed ones).
	KeyHash   string
	Causation Causation
	// ClaimFor makes the job running at once, leased to this owner: the caller itself does the work, and a worker only if it dies.
	ClaimFor string
}

// Enqueued is the answer to one NewJob. Duplicate: the key was known, Job is the earlier one
// (only ID, State and Token are sure to be set once it is pruned).
type Enqueued struct {
	Job       Job
	Duplicate bool
}

// Outcome ends one execution. It holds only while Token is the job's current one and the job is running.
type Outcome struct {
	ID    string
	Token int64
	// State: Succeeded, Dead, Cancelled, Expired or Parked; Scheduled for a retry or a snooze at RunAt; Ready to go back at once.
	State       State
	RunAt       time.Time
	CountFailed bool      // Attempt+1
	Error       *JobError // appended
	Result      json.RawMessage
	Next        []NewJob // inserted, if absent by UniqueKey, in the same commit, before the state changes
}

// JobFilter selects jobs; zero members do not filter. Newest first.
type JobFilter struct {
	Tenant     string
	AllTenants bool // needed when Tenant is ""
	Types      []string
	States     []State
	After      string // id of the last one seen
	Limit      int    // 1 to 1,000; 0 means 100
}

// ClaimRequest asks for work.
type ClaimRequest struct {
	Owner string // random per process start
	Limit int
	Lease time.Duration
	Types []string // the types this worker knows; others stay ready
	// MaxPerTenant bounds how many of a tenant's jobs this worker works on at once, those in Held included; 0: it does
	// not. Jobs of no tenant are not bounded.
	// A tenant's slow lanes have at most half of that together, so that what hangs in them leaves workers to its main lane.
	MaxPerTenant int
	MaxPerLane   int            // of one slow lane, where MaxPerTenant is set; 0: no bound but that half
	Held         map[string]int // what the worker works on already, by Job.Lane; no tenant has a slash in its code
}

// Lane is a lane with how much work it holds.
type Lane struct {
	Lane    string
	Tenant  string
	Ready   int64
	Running int64
	Parked  int64
	// ParkedFor is the code of the error for which the newest of its parked jobs is held; "": there is none.
	ParkedFor string
}

// JobCounts are the numbers of jobs by state.
type JobCounts map[State]int64

// Queue is the durable job queue of the services database. Times are the store's own clock: a caller's clock never
// decides about a lease. Every method returns when its change is durable; only Claim and Beat may be undone by a power
// cut (never by the end of a process): the jobs are then ready, or leased for less long, and are claimed again.
type Queue interface {
	// Enqueue makes jobs, all in one commit. ErrKeyReuse (nothing made) if a key is known with another payload or type.
	Enqueue(ctx context.Context, jobs ...NewJob) ([]Enqueued, error)
	// Claim takes ready jobs, lanes in turn: no lane waits behind another's backlog.
	Claim(ctx context.Context, r ClaimRequest) ([]Job, error)
	// Beat prolongs every lease of the owner and gives the ids (with tokens) it still holds, and which of them are asked to cancel.
	Beat(ctx context.Context, owner string, lease time.Duration) ([]Held, error)
	// Finish ends executions in one commit. For each, whether it held (false: the fence refused it; nothing of that outcome was done).
	Finish(ctx context.Context, outcomes ...Outcome) ([]bool, error)
	// Promote moves due scheduled jobs to ready, expires what is too late, and takes back jobs whose lease ran out
	// (Crashes+1; dead with code "poison" at the third). It tells how many became ready, and when the next is due
	// (zero: none scheduled).
	Promote(ctx context.Context) (ready int, next time.Time, err error)
	// Release gives back every job of an owner at once, attempts not counted: the owner is stopping.
	Release(ctx context.Context, owner string) (int, error)
	// Job reads one job; ErrNotFound.
	Job(ctx context.Context, id string) (Job, error)
	// JobOf reads the job that a tenant's unique key names, as Enqueued tells of it; ErrNotFound.
	JobOf(ctx context.Context, tenant, uniqueKey string) (Job, error)
	// Jobs lists jobs, newest first.
	Jobs(ctx context.Context, f JobFilter) ([]Job, error)
	// JobCounts counts a tenant's jobs by state ("" for all tenants).
	JobCounts(ctx context.Context, tenant string) (JobCounts, error)
	// Lanes lists the lanes that hold work, by name, from the one after a name on.
	Lanes(ctx context.Context, after string, limit int) ([]Lane, error)
	// Retry sends dead, cancelled, expired or parked jobs back to ready, Attempt 0; the ids that it did.
	Retry(ctx context.Context, ids ...string) ([]string, error)
	// Cancel ends scheduled, ready and parked jobs, and asks the owner of a running one to stop. The ids that it ended or asked.
	Cancel(ctx context.Context, ids ...string) ([]string, error)
	// ReleaseParked sends a tenant's parked jobs back to ready.
	ReleaseParked(ctx context.Context, tenant string) (int, error)
	// Prune deletes ended jobs (succeeded after 24 h, cancelled and expired after 7 d, dead after 30 d) and unique
	// keys 72 h after their job's end, at most limit of each; how many.
	Prune(ctx context.Context, limit int) (int, error)
}

// Held is one job an owner holds.
type Held struct {
	ID     string
	Token  int64
	Cancel bool
}
