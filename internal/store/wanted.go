package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// What every engine's queue keeps to.
const (
	MaxPayload  = 64 << 10         // bytes of a payload or a result
	MaxErrors   = 10               // kept of a job
	MaxCrashes  = 3                // poison
	KeyKept     = 72 * time.Hour   // a unique key is known so long after its job's end
	CallerLease = 15 * time.Second // of a job made with ClaimFor
	attempts    = 8                // of a job that says nothing about it
)

// JobsKept is how long ended jobs are kept, those that are kept for the shortest time first.
var JobsKept = [...]struct {
	State State
	Kept  time.Duration
}{
	{Succeeded, 24 * time.Hour},
	{Cancelled, 7 * 24 * time.Hour},
	{Expired, 7 * 24 * time.Hour},
	{Dead, 30 * 24 * time.Hour},
}

// States are all states.
var States = [...]State{Scheduled, Ready, Running, Parked, Succeeded, Dead, Cancelled, Expired}

// Refusal is the answer to what nobody may ask a queue for; trying again does not mend it.
type Refusal string

func (r Refusal) Error() string { return "store: " + string(r) }

func refuse(format string, args ...any) error { return Refusal(fmt.Sprintf(format, args...)) }

// Wanted is a NewJob that was checked, with what it left open filled in.
type Wanted struct {
	NewJob
	GivenID bool   // its ID is the caller's
	Hash    string // of what a second job of its key must equal; "" without a key
}

// Want checks a NewJob. Where it has no id, newID makes one.
func Want(j NewJob, newID func() string) (Wanted, error) {
	w := Wanted{NewJob: j, GivenID: j.ID != ""}
	if !w.GivenID {
		w.ID = newID()
	}
	if w.Payload == nil {
		w.Payload = json.RawMessage("{}")
	}
	if w.MaxAttempts == 0 {
		w.MaxAttempts = attempts
	}
	switch {
	case w.Type == "":
		return w, refuse("a job without a type")
	case len(w.Payload) > MaxPayload:
		return w, fmt.Errorf("%w: payload of %d bytes", ErrTooLarge, len(w.Payload))
	case len(w.ID) > MaxID, len(w.Tenant) > MaxID, len(w.Type) > MaxID, len(w.Resource) > MaxID, len(w.Pair) > MaxID, len(w.UniqueKey) > MaxField:
		return w, fmt.Errorf("%w: id, tenant, type, resource, pair or unique key", ErrTooLarge)
	case strings.Contains(w.Tenant, "/"), strings.Contains(w.Resource, "/"):
		return w, refuse("a tenant or a resource with a slash")
	case w.Class != "" && (w.Class == Quarantine || !slices.Contains(Classes[:], w.Class)):
		return w, refuse("no class of a job: %q", string(w.Class))
	case !json.Valid(w.Payload):
		return w, refuse("a payload that is not JSON")
	case w.OnTaken != Keep && w.OnTaken != Replace && w.OnTaken != ReplaceKeepTime:
		return w, refuse("a key taken: %q", string(w.OnTaken))
	case w.OnTaken != Keep && (w.UniqueKey == "" || w.ClaimFor != ""):
		return w, refuse("a job that replaces another without a key, or for its caller")
	}
	c := w.Causation
	for _, v := range []string{c.RunID, c.AppointmentID, c.EventID, c.LeadID, c.CampaignID} {
		if len(v) > MaxField {
			return w, fmt.Errorf("%w: cause", ErrTooLarge)
		}
	}
	if w.UniqueKey == "" {
		return w, nil
	}
	var err error
	w.Hash, err = keyHash(w.NewJob)
	return w, err
}

// WantAll checks many.
func WantAll(jobs []NewJob, newID func() string) ([]Wanted, error) {
	out := make([]Wanted, len(jobs))
	for i, j := range jobs {
		w, err := Want(j, newID)
		if err != nil {
			return nil, fmt.Errorf("job %d of type %s: %w", i, j.Type, err)
		}
		out[i] = w
	}
	return out, nil
}

// keyHash is over the type and the payload as canonical JSON (sorted members, no space), or the caller's own hash.
func keyHash(j NewJob) (string, error) {
	h := sha256.New()
	_, _ = io.WriteString(h, j.Type)
	if j.KeyHash != "" {
		_, _ = io.WriteString(h, "\x00own\x00"+j.KeyHash)
	} else {
		d := json.NewDecoder(bytes.NewReader(j.Payload))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return "", refuse("a payload that is not JSON")
		}
		b, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		_, _ = io.WriteString(h, "\x00json\x00")
		_, _ = h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// Made is the job that a NewJob becomes at a time, to the millisecond.
func (w Wanted) Made(now time.Time) Job {
	j := Job{
		ID: w.ID, Tenant: w.Tenant, Type: w.Type, Lane: LaneName(w.Tenant, w.Resource, w.Class), Pair: w.Pair, Payload: w.Payload, State: Ready,
		RunAt: now, ExpiresAt: milli(w.ExpiresAt), MaxAttempts: w.MaxAttempts, UniqueKey: w.UniqueKey, Causation: w.Causation, CreatedAt: now,
	}
	_, _, j.Class = SplitLane(j.Lane)
	switch {
	case w.ClaimFor != "":
		j.State, j.Owner, j.Token, j.Starts = Running, w.ClaimFor, 1, 1
		j.StartedAt, j.LeaseUntil = now, now.Add(CallerLease)
	case !w.RunAt.IsZero():
		if j.RunAt = milli(w.RunAt); j.RunAt.After(now) {
			j.State = Scheduled
		}
	}
	return j
}

func milli(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// Check tells whether an outcome is one.
func (o Outcome) Check() error {
	switch {
	case o.State == Running || !slices.Contains(States[:], o.State):
		return refuse("no outcome: %q", string(o.State))
	case o.State == Scheduled && o.RunAt.IsZero():
		return refuse("scheduled for no time")
	case len(o.Result) > MaxPayload:
		return fmt.Errorf("%w: result of %d bytes", ErrTooLarge, len(o.Result))
	case len(o.Result) > 0 && !json.Valid(o.Result):
		return refuse("a result that is not JSON")
	case o.Pause != nil:
		p := *o.Pause
		if p.Scope == "" {
			p.Scope = "its own"
		}
		return p.Check()
	}
	return nil
}

// Check tells whether a pause may be asked for.
func (r PauseRequest) Check() error {
	_, of, _ := strings.Cut(r.Scope, "/")
	switch {
	case r.Scope == "" || len(r.Scope) > MaxID || strings.Count(of, "/") > 1:
		return refuse("no scope of a pause: %q", r.Scope)
	case r.Reason == "" || len(r.Reason) > MaxID || len(r.Detail) > MaxField:
		return refuse("a pause without a reason, or with too long a one")
	case r.For < 0 || r.Most < 0:
		return refuse("a pause of less than no time")
	}
	return nil
}
