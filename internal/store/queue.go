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
	Lane        string          // LaneName: what is claimed in turn
	Class       Class           // the one it was made in; its lane's, but in quarantine
	Pair        string          // of NewJob
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

	CampaignID    string `json:"campaignId,omitempty"`
	AppointmentID string `json:"appointmentId,omitempty"`
}

// Selects tells whether a job's causation is within this one: the same wherever this one says something of event, run,
// lead, campaign or appointment. Only these five select.
func (c Causation) Selects(of Causation) bool {
	within := func(want, is string) bool { return want == "" || want == is }
	return within(c.EventID, of.EventID) && within(c.RunID, of.RunID) && within(c.LeadID, of.LeadID) &&
		within(c.CampaignID, of.CampaignID) && within(c.AppointmentID, of.AppointmentID)
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
	Resource    string          // what it needs, as in LaneName; "": Internal
	Class       Class           // how patient it is; "": Normal
	Pair        string          // jobs of one resource with the same pair (a recipient) are under Bounds.Pair together; "": none
	Payload     json.RawMessage // nil: {}
	RunAt       time.Time       // zero or past: ready now
	ExpiresAt   time.Time
	MaxAttempts int    // 0: 8
	UniqueKey   string // while known (72 h beyond its end), a second job of this key and tenant is not made
	// KeyHash is what a second job of the same key must equal; "" : the hash of type and payload. For payloads that
	// differ although they mean the same (sealed ones).
	KeyHash   string
	OnTaken   OnTaken // what becomes of the earlier job of the key; not with ClaimFor
	Room      Room
	Causation Causation
	// ClaimFor makes the job running at once, leased to this owner: the caller itself does the work, and a worker only if it dies.
	ClaimFor string
}

// Enqueued is the answer to one NewJob. Duplicate: the key was known, Job is the earlier one
// (only ID, State and Token are sure to be set once it is pruned).
type Enqueued struct {
	Job       Job
	Duplicate bool
	Replaced  bool // and that job is now what was asked for
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
	// Pause is made in the same commit; its scope must be of the job's tenant. Scope "": the job's TENANT/RESOURCE.
	Pause *PauseRequest
}

// JobFilter selects jobs; zero members do not filter. Newest first.
type JobFilter struct {
	Tenant     string
	AllTenants bool // needed when Tenant is ""
	Types      []string
	States     []State
	Cause      Causation // see Causation.Selects
	After      string    // id of the last one seen
	Limit      int       // 1 to 1,000; 0 means 100
}

// ClaimRequest asks for work.
type ClaimRequest struct {
	Owner string // random per process start
	Limit int
	// Slots is how many jobs this worker does at once in all. A quarter of them is kept free for class Interactive; and a
	// class Bulk or Maintenance of which work waits while it holds less than a tenth is served first, so that neither is
	// frozen. At least one each. 0: neither is done, as classes are then served in strict order.
	Slots int
	Lease time.Duration
	Types []string // the types this worker knows; others stay ready
	// Held is what the worker works on already, by Job.Lane.
	Held map[string]int
	// MaxPerTenant bounds how many of a tenant's jobs this worker works on at once, those in Held included; 0: it does
	// not. Jobs of no tenant are not bounded.
	MaxPerTenant int
	// Bounds gives the limits of a tenant's resource; nil: there are none. It is called in the claim's transaction: it
	// answers from memory.
	Bounds func(tenant, resource string) Bounds
	// Quarantine asks for one job that crashed before, if there is one, besides those of other lanes.
	Quarantine bool
}

// JobCounts are the numbers of jobs by state.
type JobCounts map[State]int64

// Queue is the durable job queue of the services database. Times are the store's own clock: a caller's clock never
// decides about a lease. Every method returns when its change is durable; only Claim and Beat may be undone by a power
// cut (never by the end of a process): the jobs are then ready, or leased for less long, and are claimed again.
type Queue interface {
	// Enqueue makes jobs, all in one commit. ErrKeyReuse (nothing made) if a key is known with another payload or type,
	// *FullError (nothing made) if one that is not there yet finds no Room.
	Enqueue(ctx context.Context, jobs ...NewJob) ([]Enqueued, error)
	// Claim takes ready jobs: the most urgent class first, and inside a class lanes in turn, so that no lane waits behind
	// another's backlog. A lane that is paused, or at its rate, costs nothing until it may go on. A job whose pair is at
	// its rate is not claimed but scheduled for when it is not, and its lane goes on.
	Claim(ctx context.Context, r ClaimRequest) ([]Job, error)
	// Beat prolongs every lease of the owner and gives the ids (with tokens) it still holds, and which of them are asked to cancel.
	Beat(ctx context.Context, owner string, lease time.Duration) ([]Held, error)
	// Finish ends executions in one commit. For each, whether it held (false: the fence refused it; nothing of that outcome was done).
	Finish(ctx context.Context, outcomes ...Outcome) ([]bool, error)
	// Promote moves due scheduled jobs to ready, expires what is too late, and takes back jobs whose lease ran out
	// (Crashes+1; dead with code "poison" at the third). It tells how many became ready, and when it is wanted again: the
	// next job is due, the next lease ends, or the next lane with ready jobs is no longer paused or at its rate (zero:
	// nothing of that is to come).
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
	// Take takes up to n from what a key's rate allows now, and tells how long until the next is allowed (0 if all n were
	// granted). A claim takes from the key TENANT/RESOURCE. Like a claim's, what it took may be forgotten in a power cut.
	Take(ctx context.Context, key string, r Rate, n int) (granted int, wait time.Duration, err error)
	// Pause lets the lanes of a scope rest, those made later too; what runs goes on. fresh: the scope was not paused for
	// this reason, nor so shortly before that it is the same trouble. When a pause with an end is over, each of its lanes
	// is on trial: one job at a time until one ended without a pause.
	Pause(ctx context.Context, r PauseRequest) (fresh bool, err error)
	// Resume ends the pause of exactly this scope for a reason ("": all reasons), without a trial; whether there was one.
	Resume(ctx context.Context, scope string, reason PauseReason) (bool, error)
	// Pauses lists the pauses of a tenant and all that is its, by scope and reason.
	Pauses(ctx context.Context, tenant string) ([]Pause, error)
	// Paused gives the pause that lasts longest of those that cover a lane, nil for none. It answers from memory, which
	// knows another process's changes within a second: for who is about to do what a pause should prevent.
	Paused(ctx context.Context, lane string) (*Pause, error)
	// TypeCounts counts a tenant's jobs by type and state ("" for all tenants); types of which there are none are left out.
	TypeCounts(ctx context.Context, tenant string) (map[string]JobCounts, error)
	// Standing tells how the queue stands, all tenants together.
	Standing(ctx context.Context) (Standing, error)
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
	// Listen has a listener told, from now on, of what this process changes in the queue. Each of many is told.
	Listen(l Listener)
	// Asked gives the ids of an owner's running jobs that are asked to cancel, whichever process asked. It is cheap
	// enough for once a second.
	Asked(ctx context.Context, owner string) ([]string, error)
	// Owed gives ended jobs of these types whose domains are not told of it yet: what expired and what died as poison
	// ended by itself, without an Outcome that could have left what follows. Until Told they are given again and again.
	Owed(ctx context.Context, types []string, limit int) ([]Job, error)
	// Told makes what follows from owed jobs, and forgets that they are owed, in one commit. Of a job that is not owed (any
	// more) it does nothing.
	Told(ctx context.Context, told ...Told) error
}

// Told says what follows from the end of an owed job: Next is made if absent by UniqueKey.
type Told struct {
	ID   string
	Next []NewJob
}

// Listener is told of changes once they are committed, by who commits: its members must not block, nor use the queue.
// Those that are nil are left out. Of changes by other processes it is not told: they are found by looking (Promote,
// Claim, Asked, Owed).
type Listener struct {
	Ready func()              // a job became ready, or is due earlier than was known; several commits may be told at once
	Asked func(ids ...string) // running jobs are asked to cancel
	Owed  func()              // jobs ended by themselves
	// Paused hears of fresh pauses, as Pause calls them: once for each trouble.
	Paused func(ps ...Pause)
	// Resumed hears that a pause was ended by Resume, from an engine that several processes share by design.
	Resumed func()
	// Moved hears how many jobs were made, by type, and how many executions ended with their leases.
	Moved func(made map[string]int, crashed int)
}

// Standing is how the queue stands, as somebody who watches it wants to know.
type Standing struct {
	States      JobCounts
	OldestReady map[Class]time.Time   // since when the first job of a class waits that is neither paused nor at its rate
	Paused      map[PauseReason]int64 // scopes that rest
}

// Held is one job an owner holds.
type Held struct {
	ID     string
	Token  int64
	Cancel bool
}

// Payload is what a job was given, as a rotation of keys looks at it.
type Payload struct {
	JobID, Tenant, Type string
	Payload             json.RawMessage
}
