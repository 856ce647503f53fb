package rule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// EventJob is the type of the job that works an event off.
const EventJob = "automation.event"

// maxDepthOfEvents is how many events may cause each other.
const maxDepthOfEvents = 5

// Engine is the automation of every client; the tenant says whose.
type Engine struct {
	Book *crm.Book
	// Doers do the external actions, by their types; a rule with an action that has none cannot be made.
	Doers map[string]Doer
	Now   func() time.Time
	Log   *slog.Logger
	// PrivateNetworks lets rules name addresses in the operator's own networks, also without TLS.
	PrivateNetworks bool
	// IsPublic tells an address of the open internet from others: rules name no others; nil: all are.
	IsPublic func(netip.Addr) bool
	// Replied tells whether a contact wrote after some moment (chat.Desk.WroteSince); nil: nobody does.
	Replied func(ctx context.Context, tn *tenant.Tenant, contactID string, since time.Time) (bool, error)
	// CancelCaused gives up what was to be done for something that is over (job.Runner.CancelCaused). nil: it stays, and
	// finds that out itself.
	CancelCaused func(ctx context.Context, client string, cause store.Causation) (int, error)
	// Cancel gives up jobs that nobody needs any more (store.Queue.Cancel); they would do nothing. nil: they stay.
	Cancel func(ctx context.Context, ids ...string) ([]string, error)

	// Diary tells of the appointments that runs are about; nil where there are none.
	Diary *meeting.Diary

	// Release lets a client's held jobs go on (store.Queue.ReleaseParked): its rule does. nil: they wait for another occasion.
	Release func(ctx context.Context, client string) (int, error)

	locks  locks
	spoilt spoilt
}

// eventPayload is the payload of EventJob. The event itself is sealed: it is a customer's data, in the central database.
type eventPayload struct {
	EventRef string `json:"eventRef"`
	Sealed   string `json:"sealed"`
}

// eventJob makes the job that works an event off.
func (e *Engine) eventJob(seal func(field, value string) (string, error), code string, ev *Event) (store.NewJob, error) {
	// as short as the limits of what is told are measured: a job has no room for < written in six characters
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(ev); err != nil {
		return store.NewJob{}, err
	}
	sealed, err := seal("event", b.String())
	if err != nil {
		return store.NewJob{}, err
	}
	n := job.New(code, EventJob, eventPayload{ev.ID, sealed})
	n.UniqueKey, n.KeyHash = "event:"+ev.ID, ev.Hash
	n.Causation = store.Causation{EventID: ev.EventID, LeadID: ev.LeadID}
	return n, nil
}

// HandleEvent is the handler of EventJob: it makes one event's whole effect in one commit, and gives the jobs that do
// the rest outside.
func (e *Engine) HandleEvent(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[eventPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	for range 20 {
		next, err := e.handleEvent(ctx, tn, p)
		switch {
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrDuplicate):
			if ctx.Err() != nil {
				return job.Result{}, ctx.Err()
			}
			continue // another event or a person changed the same lead: look again
		case errors.Is(err, store.ErrTooLarge): // and will be at every attempt
			return job.Result{}, e.giveUp(ctx, tn, p, err)
		case err != nil:
			return job.Result{}, err
		}
		return job.Result{Next: next}, nil
	}
	return job.Result{}, job.Retry(0, "contention", errors.New("the lead is being changed by others all the time"))
}

func (e *Engine) handleEvent(ctx context.Context, tn *tenant.Tenant, p eventPayload) ([]store.NewJob, error) {
	ev, err := Events.Get(ctx, tn.DB, p.EventRef)
	switch {
	case err == nil && ev.Outcome != nil:
		runs, err := e.runsOf(ctx, tn, ev)
		if err != nil {
			return nil, err
		}
		return e.follow(ctx, tn, ev, runs, nil)
	case err == nil:
	case errors.Is(err, store.ErrNotFound):
		if ev, err = e.unseal(tn, p); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	defer e.locks.lock(tn.Code, ev.LeadID, ev.Phone, ev.Email)()
	eff, err := e.decide(ctx, tn, ev)
	if err != nil {
		return nil, err
	}
	ev.Outcome = eff.outcome
	if _, _, dropped, err := e.heard(ctx, tn, caused(ev, eff.runs)); err != nil {
		return nil, err
	} else if dropped > 0 {
		ev.Outcome.Warnings = append(ev.Outcome.Warnings, tooWide(dropped))
	}
	// the deciding record last: until it stands, a repetition decides again, to the same ids
	if err := tn.DB.Commit(ctx, append(eff.writes, Events.Update(ev))...); err != nil {
		return nil, err
	}
	return e.follow(ctx, tn, ev, eff.runs, eff.lead)
}

func (e *Engine) unseal(tn *tenant.Tenant, p eventPayload) (*Event, error) {
	plain, err := tn.Open("event", p.Sealed)
	if err != nil {
		return nil, job.Park("event_unreadable", err)
	}
	return decodeEvent(plain.Reveal())
}

func decodeEvent(plain string) (*Event, error) {
	ev := &Event{}
	if err := json.Unmarshal([]byte(plain), ev); err != nil {
		return nil, job.Dead("event_unreadable", errors.New("the event does not decode"))
	}
	return ev, nil
}

func (e *Engine) runsOf(ctx context.Context, tn *tenant.Tenant, ev *Event) ([]*Run, error) {
	return Runs.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("eventRef", store.Eq, ev.ID)}, Limit: 1000})
}

// effect is what an event does.
type effect struct {
	outcome *Outcome
	runs    []*Run
	lead    *crm.Lead // as it will be; nil where there is none
	writes  []store.Write
}

// decide works out an event's effect from what stands in the database now. It writes nothing. Deciding again after part
// of the effect was written gives the same records: ids are derived, and the lead knows which events it has seen.
func (e *Engine) decide(ctx context.Context, tn *tenant.Tenant, ev *Event) (*effect, error) {
	rules, err := Rules.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("liveTrigger", store.Eq, ev.Trigger)}, Order: "createdAt", Limit: 1000})
	if err != nil {
		return nil, err
	}
	stages, err := e.Book.Stages(ctx, tn)
	if err != nil {
		return nil, err
	}
	eff := &effect{outcome: &Outcome{Runs: []Enrol{}, Skipped: []Skip{}}}
	if err := e.Book.CheckOwner(ctx, tn, "/leadData/ownerId", ev.Lead.OwnerID); fault.Of(err) == fault.Invalid {
		// Taken in while the users could not be read, or deleted since: it is not lost for that.
		ev.Lead.OwnerID = ""
		eff.outcome.Warnings = append(eff.outcome.Warnings, EventNotice{"owner_unknown", "The owner is no user of this client; the lead was given none."})
	} else if err != nil {
		return nil, err
	}
	lead, err := e.leadOf(ctx, tn, ev)
	if err != nil {
		return nil, err
	}
	if lead == nil {
		for _, r := range rules {
			eff.outcome.Skipped = append(eff.outcome.Skipped, Skip{r.ID, NoLead})
		}
		return eff, nil
	}
	if lead.Version == 0 {
		stages.Place(lead)
	}
	began, had := lead.Stage, lead.Score
	eff.lead = lead
	contact, err := e.contactOf(ctx, tn, ev, lead, eff)
	if err != nil {
		return nil, err
	}
	lead.ContactID = contact.ID
	created := lead.MadeBy == ev.ID
	eff.outcome.LeadID, eff.outcome.LeadCreated = lead.ID, created

	earlier, err := e.runsOf(ctx, tn, ev)
	if err != nil {
		return nil, err
	}
	mine := map[string]*Run{}
	for _, r := range earlier {
		mine[r.RuleID] = r
	}
	now := ev.ReceivedAt.UTC() // the event's own time: deciding again gives the same records
	seen := lead.Did(ev.ID)
	if !seen && !created {
		lead.Fill(ev.Phone, ev.Email, crmData(ev.Lead))
	}

	// every rule is matched before any acts: a rule's effect must not decide about the next rule's turn
	type match struct {
		rule *Rule
		slot string
	}
	var matched []match
	for _, r := range rules {
		if run := mine[r.ID]; run != nil && seen {
			eff.runs = append(eff.runs, run)
			eff.outcome.Runs = append(eff.outcome.Runs, Enrol{r.ID, run.ID, run.State})
			continue
		}
		if mine[r.ID] != nil {
			matched = append(matched, match{r, ""})
			continue
		}
		slot, reason, err := e.admit(ctx, tn, r, ev, lead, contact, now)
		if err != nil {
			return nil, err
		}
		if reason == "" && seen {
			reason = ConditionFalse // it did not match when the lead saw this event
		}
		if reason == "" {
			trips, err := e.breaks(ctx, tn, r, lead, ev, now)
			if err != nil {
				return nil, err
			}
			if trips {
				var pause []store.Write
				reason, pause = r.trips(ev, now)
				eff.writes = append(eff.writes, pause...)
				e.Log.Warn("a lead enters a rule too often", "client", tn.Code, "rule", r.ID, "paused", len(pause) > 0)
			}
		}
		if reason != "" {
			eff.outcome.Skipped = append(eff.outcome.Skipped, Skip{r.ID, reason})
			continue
		}
		matched = append(matched, match{r, slot})
	}
	var facts []store.Write
	var points []*crm.ScoreEvent
	for _, m := range matched {
		if run := mine[m.rule.ID]; run != nil { // written, but the lead was not
			replay(run.legSteps(0), lead)
			eff.runs = append(eff.runs, run)
			eff.outcome.Runs = append(eff.outcome.Runs, Enrol{m.rule.ID, run.ID, run.State})
			continue
		}
		run := &Run{
			ID: runID(tn.Code, ev.ID, m.rule.ID), EventID: ev.EventID, EventRef: ev.ID, RuleID: m.rule.ID, RuleVersion: m.rule.LiveVersion,
			LeadID: lead.ID, State: RunActive, Slot: m.slot, StartedAt: now, Steps: []Step{}, About: about(ev.Trigger, ev.Appointment),
		}
		co := &course{ev: ev, def: m.rule.Live, lead: lead, contact: contact, stages: stages}
		ws, err := e.leg(ctx, tn, run, co, now)
		if err != nil {
			return nil, err
		}
		points = append(points, co.points...)
		// the run last: where it stands, its message, its points and its news do too
		facts = append(facts, ws...)
		facts = append(facts, news.Write(now, news.AutomationRun, run.ID+"|"+run.State, "run", run.View()), Runs.Ensure(run))
		eff.runs = append(eff.runs, run)
		eff.outcome.Runs = append(eff.outcome.Runs, Enrol{m.rule.ID, run.ID, run.State})
	}
	eff.writes = append(eff.writes, facts...)
	if !seen {
		if p := interaction(tn, ev, lead, rules); p != nil {
			eff.writes = append(eff.writes, crm.ScoreEvents.Ensure(p), e.Book.Due(tn, lead.ID))
		}
		if err := e.Book.Rescore(ctx, tn, lead, ev.ID, had, now, points...); err != nil {
			return nil, err
		}
		lead.Mark(ev.ID)
		lead.UpdatedAt, lead.LastActivityAt = now, now
		event := news.LeadUpdated
		if created {
			event, lead.CreatedAt = news.LeadCreated, now
			eff.writes = append(eff.writes, beginning(tn, ev, lead, began)...)
		}
		eff.writes = append(eff.writes,
			news.Write(now, event, lead.ID+"|"+ev.ID, "lead", lead.View(lead.Version+1)), crm.Leads.Update(lead))
	}
	eff.outcome.Rescored = lead.CrossingBy(ev.ID) != nil || !lead.TurnsAt.IsZero()
	return eff, nil
}

func runID(code, eventRef, ruleID string) string { return id.Derived("arn", code, eventRef, ruleID) }

func crmData(d LeadData) crm.LeadData {
	return crm.LeadData{Name: d.Name, Source: d.Source, Currency: d.Currency, OwnerID: d.OwnerID, Value: d.Value, Tags: d.Tags, Fields: d.Fields}
}

// leadOf finds the lead of an event, or makes it if the event asks for that; nil where there is none.
func (e *Engine) leadOf(ctx context.Context, tn *tenant.Tenant, ev *Event) (*crm.Lead, error) {
	if ev.LeadID != "" {
		l, err := e.Book.LeadByID(ctx, tn, ev.LeadID)
		if errors.Is(err, store.ErrNotFound) {
			return nil, nil
		}
		return l, err
	}
	l, err := e.Book.FindLead(ctx, tn, ev.Phone, ev.Email)
	switch {
	case err == nil:
		return l, nil
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	case !ev.CreateLead:
		return nil, nil
	}
	return e.Book.NewLead(tn, ev.ID, ev.Phone, ev.Email, crmData(ev.Lead)), nil
}

// contactOf finds or makes the lead's contact and adds its writes.
func (e *Engine) contactOf(ctx context.Context, tn *tenant.Tenant, ev *Event, lead *crm.Lead, eff *effect) (*crm.Contact, error) {
	who := crm.Who{Phone: lead.Phone, Email: lead.Email, Name: lead.Name}
	if who.Phone == "" {
		who.Phone = ev.Phone
	}
	if who.Email == "" {
		who.Email = ev.Email
	}
	c, moves, changed, err := e.Book.ContactOf(ctx, tn, lead.ContactID, who, ev.ID)
	if err != nil {
		return nil, err
	}
	if c.LeadID == "" {
		c.LeadID, changed = lead.ID, true
	}
	eff.writes = append(eff.writes, moves...)
	if changed {
		eff.writes = append(eff.writes, crm.Contacts.Update(c))
	}
	return c, nil
}

// admit decides whether a lead enters a rule: "" and the slot it takes, or the reason why not.
func (e *Engine) admit(ctx context.Context, tn *tenant.Tenant, r *Rule, ev *Event, l *crm.Lead, c *crm.Contact, now time.Time) (slot, reason string, err error) {
	if r.Status != Live {
		return "", RulePaused, nil
	}
	if slices.Contains(ev.Chain, r.ID) || ev.Depth > maxDepthOfEvents {
		return "", InChain, nil
	}
	if reason := r.Live.matches(newScope(ev, l, c, nil, now)); reason != "" {
		return "", reason, nil
	}
	taken := func(slot string) (bool, error) {
		run, err := Runs.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("slot", store.Eq, slot)}})
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		return err == nil && run.ID != runID(tn.Code, ev.ID, r.ID), err
	}
	switch r.Live.Reenrol.Mode {
	case EveryEvent:
		return "", "", nil
	case OnceEver:
		slot = everSlot(r.ID, l.ID)
		if yes, err := taken(slot); err != nil || yes {
			return "", AlreadyEver, err
		}
		return slot, "", nil
	case Cooldown:
		pause, err := clock.ParseSpan(r.Live.Reenrol.Cooldown)
		if err != nil {
			return "", "", err // Validate let it pass
		}
		last, err := Runs.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("ruleLead", store.Eq, r.ID+"|"+l.ID)}, Order: "startedAt", Desc: true})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return "", "", err
		}
		if err == nil && last.EventRef != ev.ID && (!last.Ended() || now.Before(pause.From(*last.EndedAt, l.Zone(tn.Account().Zone())))) {
			return "", CoolingDown, nil
		}
	}
	slot = activeSlot(r.ID, l.ID)
	if yes, err := taken(slot); err != nil || yes {
		return "", AlreadyActive, err
	}
	return slot, "", nil
}

// matches evaluates a definition's condition: "" if it holds, else why the rule is skipped.
func (d *Definition) matches(sc *scope) (reason string) {
	if d.Condition == "" {
		return ""
	}
	p, err := compile(d.Condition)
	if err != nil {
		return ConditionFailed
	}
	switch ok, err := sc.holds(p); {
	case err != nil:
		return ConditionFailed
	case !ok:
		return ConditionFalse
	}
	return ""
}

func itoa(n int) string { return strconv.Itoa(n) }
