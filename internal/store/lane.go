package store

import (
	"strings"
	"time"
)

// Class is how patient a job is: a worker serves the more urgent class first.
type Class string

// The classes. Quarantine is where the queue itself puts jobs whose lease ran out; nobody asks for it.
const (
	Interactive Class = "interactive" // somebody waits for it
	Normal      Class = "normal"
	Bulk        Class = "bulk"        // one of very many: campaigns, imports, and what they cause
	Maintenance Class = "maintenance" // nobody notices when it is late
	Quarantine  Class = "quarantine"
)

// Classes are all classes, the most urgent first. Quarantine, which has a place of its own, is last.
var Classes = [...]Class{Interactive, Normal, Bulk, Maintenance, Quarantine}

// Patience is a class's place among Classes; that of Normal for what is none.
func (c Class) Patience() int {
	for i, x := range Classes {
		if x == c {
			return i
		}
	}
	return 1
}

// Internal is the resource of jobs that need nothing but the engine itself.
const Internal = "internal"

// LaneName names the lane of a tenant's jobs that need one resource and are equally patient: TENANT/RESOURCE/CLASS. A
// resource is a kind, or kind:id ("wa:15550001111"). None of the three has a slash. "" is Internal, or Normal.
func LaneName(tenant, resource string, class Class) string {
	if resource == "" {
		resource = Internal
	}
	if class == "" {
		class = Normal
	}
	return tenant + "/" + resource + "/" + string(class)
}

// SplitLane is the inverse of LaneName.
func SplitLane(lane string) (tenant, resource string, class Class) {
	tenant, rest, _ := strings.Cut(lane, "/")
	resource, c, _ := strings.Cut(rest, "/")
	return tenant, resource, Class(c)
}

// ResourceKind gives the kind of a resource.
func ResourceKind(resource string) string {
	kind, _, _ := strings.Cut(resource, ":")
	return kind
}

// Scopes gives every scope of a pause that covers a lane: the tenant, TENANT/KIND, TENANT/KIND:ID, and both with the
// lane's class, the widest first.
func Scopes(lane string) []string {
	tenant, resource, class := SplitLane(lane)
	kind := ResourceKind(resource)
	scopes := []string{tenant, tenant + "/" + kind}
	if kind != resource {
		scopes = append(scopes, tenant+"/"+resource)
	}
	scopes = append(scopes, tenant+"/"+kind+"/"+string(class))
	if kind != resource {
		scopes = append(scopes, lane)
	}
	return scopes
}

// Rate is how often something may be done. It is kept by GCRA, never by a fixed window: at the edges of windows twice the
// rate passes.
type Rate struct {
	Every time.Duration // the time that one costs; 0: no limit
	Burst int           // how many may come at once after a while of none; below 1 it is 1
}

// Bounds are the limits of a tenant's resource.
type Bounds struct {
	Running int // jobs that one worker works on at once in each of its lanes; 0: any number
	// Slow says that jobs of it may hang: a tenant's slow lanes together have at most half of MaxPerTenant, so that what
	// hangs in them leaves workers to its other work.
	Slow bool
	Rate Rate // of jobs started
	Pair Rate // of jobs started with the same NewJob.Pair
}

// PauseReason says why work is held back.
type PauseReason string

// The reasons.
const (
	RateLimited PauseReason = "rate_limited" // the other side asks for patience
	Credential  PauseReason = "credential"   // an account is refused
	Operator    PauseReason = "operator"     // somebody wanted it
	Quality     PauseReason = "quality"      // the other side calls what is sent spam
	Moving      PauseReason = "moving"       // the client's database is being moved
)

// PauseRequest asks that the lanes which a scope covers rest. Of two requests for one scope and reason, the later one
// only prolongs.
type PauseRequest struct {
	Scope  string // one of Scopes of the lanes meant
	Reason PauseReason
	For    time.Duration // 0: until it is resumed
	// Most lets the pause double, from For up to this, each time the scope has to be paused again for this reason within
	// a minute (or its last length, if that is longer) of the last one's end; 0: every one is as long.
	Most   time.Duration
	Detail string // for people; holds no secret and no customer's text
}

// Pause is a rest of the lanes that its scope covers.
type Pause struct {
	Scope  string
	Reason PauseReason
	Until  time.Time // zero: until it is resumed
	Detail string
	Since  time.Time
}

// Lane is a lane with how much work it holds, and why that does not run.
type Lane struct {
	Lane     string
	Tenant   string
	Resource string
	Class    Class
	// Scheduled are due later, and retries.
	Scheduled int64
	Ready     int64
	Running   int64
	Parked    int64
	// OldestReady is since when the first of its ready jobs waits; zero: none does.
	OldestReady time.Time
	// Pause is the one that lasts longest of those that cover the lane; nil: it is not paused.
	Pause *Pause
	// LimitedUntil is when the lane's rate lets its next job start; zero: it does now.
	LimitedUntil time.Time
	// Trial says that a pause ended, and until one of its jobs ends well only one of them runs at a time.
	Trial bool
	// ParkedFor is the code of the error for which the newest of its parked jobs is held; "": there is none.
	ParkedFor string
}
