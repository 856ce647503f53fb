package rule

import (
	"context"
	"errors"
	"hash/fnv"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Door is where events come in from outside.
type Door struct {
	Engine  *Engine
	Tenants *tenant.Registry
	Runner  *job.Runner
	Queue   store.Queue
	Ring    *secret.Ring
}

// Input is an event as a caller tells it. Hash is that of its body as canonical JSON.
type Input struct {
	EventID    string
	Hash       string
	Trigger    string
	Phone      string
	Email      string
	OccurredAt time.Time
	Variables  Values
	CreateLead bool
	Lead       LeadData
}

// Answer is what the caller is told.
type Answer struct {
	EventID   string
	Duplicate bool
	// Deferred: the event is durable, but its work follows.
	Deferred bool
	Outcome  Outcome
}

// duplicateWait is how long a repeated event waits for the first to be done.
const duplicateWait = 5 * time.Second

// Submit takes an event in. When it returns without error the event is durable; its internal actions are done unless
// the answer says deferred.
func (d *Door) Submit(ctx context.Context, code string, in Input) (Answer, error) {
	if !KnownTrigger(in.Trigger) {
		return Answer{}, UnknownTrigger("/trigger")
	}
	tn, release, err := d.Tenants.Use(ctx, code)
	if err != nil {
		if fault.Of(err) != fault.Unavailable {
			return Answer{}, err
		}
		return d.submitLater(ctx, code, in)
	}
	defer release()
	ev, err := d.event(in, code, tn.Account().DefaultCountry)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{EventID: ev.EventID}
	if a, found, err := d.known(ctx, tn, ev); err != nil || found {
		return a, err
	}
	if err := d.Engine.Book.CheckOwner(ctx, tn, "/leadData/ownerId", ev.Lead.OwnerID); err != nil {
		return Answer{}, err
	}
	nj, err := d.Engine.eventJob(tn.Seal, tn.Code, ev)
	if err != nil {
		return Answer{}, err
	}
	made, _, err := d.Runner.Do(ctx, nj)
	switch {
	case errors.Is(err, store.ErrKeyReuse):
		return Answer{}, mismatch()
	case err != nil && made.Job.ID == "": // not even the job could be stored
		return Answer{}, err
	case err != nil: // the job stands, and is tried again
		d.Engine.Log.Warn("an event's work was put off", "client", code, "job", made.Job.ID, "error", err)
		answer.Deferred = true
		return answer, nil
	case made.Duplicate:
		return d.await(ctx, tn, ev)
	}
	a, found, err := d.known(ctx, tn, ev)
	if fault.Of(err) == fault.Invalid { // it failed for good
		return Answer{}, err
	}
	if err != nil || !found {
		answer.Deferred = true
		return answer, nil
	}
	a.Duplicate = false
	return a, nil
}

// submitLater takes an event in for a client whose database cannot be reached now.
func (d *Door) submitLater(ctx context.Context, code string, in Input) (Answer, error) {
	a, err := d.Tenants.Account(ctx, code)
	if err != nil {
		return Answer{}, err
	}
	ev, err := d.event(in, code, a.DefaultCountry)
	if err != nil {
		return Answer{}, err
	}
	nj, err := d.Engine.eventJob(func(field, v string) (string, error) { return d.Ring.Seal(code, field, v) }, code, ev)
	if err != nil {
		return Answer{}, err
	}
	made, err := d.Runner.Offer(ctx, nj)
	if errors.Is(err, store.ErrKeyReuse) {
		return Answer{}, mismatch()
	}
	if err != nil {
		return Answer{}, err
	}
	return Answer{EventID: ev.EventID, Deferred: true, Duplicate: made[0].Duplicate}, nil
}

func mismatch() error {
	return fault.New(fault.Conflict, "event.mismatch", "An event with this id but another body was received before.")
}

// event checks an input and makes the record of it.
func (d *Door) event(in Input, code, country string) (*Event, error) {
	var bad []fault.Field
	phone, email := "", ""
	var ok bool
	if in.Phone != "" {
		if phone, ok = crm.Phone(in.Phone, country); !ok {
			bad = append(bad, fault.Field{Pointer: "/phone", Detail: "is not a phone number"})
		}
	}
	if in.Email != "" {
		if email, ok = crm.Email(in.Email); !ok {
			bad = append(bad, fault.Field{Pointer: "/email", Detail: "is not an e-mail address"})
		}
	}
	if in.Phone == "" && in.Email == "" {
		bad = append(bad, fault.Field{Pointer: "/phone", Detail: "phone or email is required"})
	}
	if err := fault.BadFields(bad); err != nil {
		return nil, err
	}
	now := d.Engine.Now().UTC()
	if in.EventID == "" {
		in.EventID = id.New("evk")
	}
	if in.OccurredAt.IsZero() {
		in.OccurredAt = now
	}
	return &Event{
		ID: EventRecordID(code, in.EventID), EventID: in.EventID, Hash: in.Hash, Trigger: in.Trigger, Phone: phone, Email: email,
		OccurredAt: in.OccurredAt.UTC(), ReceivedAt: now, Variables: in.Variables, CreateLead: in.CreateLead, Lead: in.Lead,
	}, nil
}

// known answers an event that was worked off before.
func (d *Door) known(ctx context.Context, tn *tenant.Tenant, ev *Event) (a Answer, found bool, err error) {
	old, err := Events.Get(ctx, tn.DB, ev.ID)
	if errors.Is(err, store.ErrNotFound) {
		return a, false, nil
	}
	if err != nil {
		return a, false, err
	}
	if old.Hash != ev.Hash {
		return a, false, mismatch()
	}
	if old.Outcome == nil {
		return a, false, nil
	}
	if e := old.Outcome.Error; e != nil {
		return a, false, fault.New(fault.Invalid, e.Code, "%s", e.Detail)
	}
	return Answer{EventID: old.EventID, Duplicate: true, Outcome: *old.Outcome}, true, nil
}

// await waits for the first of several equal events to be done.
func (d *Door) await(ctx context.Context, tn *tenant.Tenant, ev *Event) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, duplicateWait)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		a, found, err := d.known(ctx, tn, ev)
		if found || (err != nil && ctx.Err() == nil) {
			return a, err
		}
		select {
		case <-ctx.Done():
			return Answer{EventID: ev.EventID, Duplicate: true, Deferred: true}, nil
		case <-tick.C:
		}
	}
}

// locks let the events of one client's lead wait for each other instead of conflicting; across processes the versions do.
type locks [256]sync.Mutex

func (l *locks) lock(parts ...string) (unlock func()) {
	h := fnv.New32a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
	}
	m := &l[h.Sum32()%uint32(len(l))]
	m.Lock()
	return m.Unlock
}
