package rule

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

// Statuses of a rule.
const (
	Draft  = "draft"
	Live   = "live"
	Paused = "paused"
)

// Rule is an automation. Draft is what its author edits; Live is what runs, frozen at publication.
type Rule struct {
	store.Meta
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Status      string      `json:"status"`
	Draft       Definition  `json:"draft"`
	Live        *Definition `json:"live,omitempty"`
	LiveVersion int         `json:"liveVersion,omitempty"`
	CreatedAt   time.Time   `json:"createdAt"`
	UpdatedAt   time.Time   `json:"updatedAt"`
	PublishedAt *time.Time  `json:"publishedAt,omitempty"`
	// PausedFor is why the engine paused the rule by itself: too_many_runs, or spoiltFor and Meta's code.
	PausedFor string `json:"pausedFor,omitempty"`

	// What its author is warned of, as far as that was looked for: the circle of rules that it would close, and where it
	// names a stage that is not there.
	cycle       []string
	strayStages []string
}

// Rules is the kind.
var Rules = store.Kind[Rule]{
	Schema: store.Schema{
		Kind:   "automationRules",
		Fields: []store.Field{{Name: "liveTrigger", Type: store.Text}, {Name: "createdAt", Type: store.Int}},
		Orders: [][]string{{"liveTrigger", "createdAt"}, {"createdAt"}},
	},
	Key: func(r *Rule) string { return r.ID },
	Index: func(r *Rule) store.Fields {
		f := store.Fields{"createdAt": r.CreatedAt.UnixMilli()}
		if r.Live != nil {
			f["liveTrigger"] = r.Live.Trigger // also while paused: events then tell that it was skipped
		}
		return f
	},
	Meta: func(r *Rule) *store.Meta { return &r.Meta },
}

// Event is something that happened at the client's, as it was told to us, with what came of it.
type Event struct {
	store.Meta
	ID         string    `json:"id"`
	EventID    string    `json:"eventId"` // as the caller knows it
	Hash       string    `json:"hash"`    // of the body as canonical JSON
	Trigger    string    `json:"trigger"`
	Phone      string    `json:"phone,omitempty"` // E.164
	Email      string    `json:"email,omitempty"`
	LeadID     string    `json:"leadId,omitempty"` // of events about a known lead
	OccurredAt time.Time `json:"occurredAt"`
	ReceivedAt time.Time `json:"receivedAt"`
	Variables  Values    `json:"variables,omitempty"`
	CreateLead bool      `json:"createLead,omitempty"`
	Lead       LeadData  `json:"leadData,omitzero"`
	Depth      int       `json:"depth,omitempty"` // 0: from outside; each event caused by a rule is one deeper
	Chain      []string  `json:"chain,omitempty"` // the rules that led here; none of them is entered again
	// Budget is how many events may follow from this one; 0 of an event from outside: maxDescendants.
	Budget int `json:"budget,omitempty"`
	// Appointment is what the event is about, as it was then.
	Appointment map[string]any `json:"appointment,omitempty"`
	Outcome     *Outcome       `json:"outcome,omitempty"`

	spent *purse // what its conditions may still cost; made when it is first asked for
}

// purse is what all conditions of this event share, of however many rules.
func (ev *Event) purse() *purse {
	if ev.spent == nil {
		ev.spent = newPurse()
	}
	return ev.spent
}

// LeadData is what an event says of the lead.
type LeadData struct {
	Name     string         `json:"name,omitempty"`
	Source   string         `json:"source,omitempty"`
	Currency string         `json:"currency,omitempty"`
	OwnerID  string         `json:"ownerId,omitempty"`
	Value    float64        `json:"value,omitempty"`
	Tags     []string       `json:"tags,omitempty"`
	Fields   map[string]any `json:"fields,omitempty"`
}

// Outcome is what came of an event.
type Outcome struct {
	LeadID      string        `json:"leadId,omitempty"`
	LeadCreated bool          `json:"leadCreated"`
	Runs        []Enrol       `json:"runs"`
	Skipped     []Skip        `json:"skipped"`
	Warnings    []EventNotice `json:"warnings,omitempty"`
	// Rescored: the event changed its lead's score so that something follows from that.
	Rescored bool `json:"rescored,omitempty"`
	// Error is why nothing came of the event, and never will.
	Error *StepError `json:"error,omitempty"`
}

// Enrol is a run that an event began. State is the run's when the event was answered.
type Enrol struct {
	RuleID string `json:"ruleId"`
	RunID  string `json:"runId"`
	State  string `json:"state"`
}

// Skip is a rule that listens to an event but did not run.
type Skip struct {
	RuleID string `json:"ruleId"`
	Reason string `json:"reason"`
}

// Reasons of skips.
const (
	NoLead          = "no_lead"
	ConditionFalse  = "condition_false"
	ConditionFailed = "condition_error"
	RulePaused      = "rule_paused"
	AlreadyActive   = "already_active"
	AlreadyEver     = "already_enrolled"
	CoolingDown     = "cooldown"
	InChain         = "loop"
)

// Events is the kind.
var Events = store.Kind[Event]{
	Schema: store.Schema{
		Kind:   "automationEvents",
		Fields: []store.Field{{Name: "receivedAt", Type: store.Int}},
		Orders: [][]string{{"receivedAt"}},
	},
	Key:   func(e *Event) string { return e.ID },
	Index: func(e *Event) store.Fields { return store.Fields{"receivedAt": e.ReceivedAt.UnixMilli()} },
	Meta:  func(e *Event) *store.Meta { return &e.Meta },
}

// EventRecordID is the id of the record of an event that its caller knows as eventID.
func EventRecordID(code, eventID string) string { return id.Derived("evt", code, eventID) }

// States of a run.
const (
	RunActive    = "active"
	RunWaiting   = "waiting"
	RunHeld      = "held"
	RunDone      = "done"
	RunExited    = "exited"
	RunFailed    = "failed"
	RunCancelled = "cancelled"
)

// States of a step.
const (
	StepDone        = "done"
	StepPlanned     = "planned" // waits for the external steps before it
	StepQueued      = "queued"  // has its job
	StepWaiting     = "waiting" // a wait that is not over
	StepFailed      = "failed"
	StepSkipped     = "skipped"
	StepUnconfirmed = "unconfirmed"
)

// Run is one lead's way through one rule for one event.
type Run struct {
	store.Meta
	ID          string         `json:"id"`
	EventID     string         `json:"eventId"` // as the caller knows it
	EventRef    string         `json:"eventRef"`
	RuleID      string         `json:"ruleId"`
	RuleVersion int            `json:"ruleVersion"`
	LeadID      string         `json:"leadId"`
	State       string         `json:"state"`
	Slot        string         `json:"slot,omitempty"` // what the re-enrolment mode allows once
	Steps       []Step         `json:"steps"`
	Held        *Held          `json:"held,omitempty"`
	Extra       Values         `json:"extra,omitempty"`   // variables given while held
	Cursor      string         `json:"cursor,omitempty"`  // the action that the walk goes on at; "" it came to its end
	Leg         int            `json:"leg,omitempty"`     // how many walks there were after the first
	Results     map[string]any `json:"results,omitempty"` // of external steps, by root
	Exits       []string       `json:"exits,omitempty"`   // what makes it pointless, as the rule said when it began
	Told        *Event         `json:"told,omitempty"`    // the event without what came of it, of a run that outlives it
	About       *About         `json:"about,omitempty"`   // an appointment
	WaitUntil   *time.Time     `json:"waitUntil,omitempty"`
	ExitReason  string         `json:"exitReason,omitempty"`
	Error       *StepError     `json:"error,omitempty"`
	StartedAt   time.Time      `json:"startedAt"`
	EndedAt     *time.Time     `json:"endedAt,omitempty"`
}

// Held says why a run does not go on.
type Held struct {
	Reason string   `json:"reason"` // missing_variable
	Names  []string `json:"names"`
}

// Step is one action of a run.
type Step struct {
	ID      string          `json:"id"` // place in the rule: "0", "2.then.1"
	Type    string          `json:"type"`
	State   string          `json:"state"`
	Input   json.RawMessage `json:"input,omitempty"`  // rendered, as it is done
	Output  json.RawMessage `json:"output,omitempty"` // what changed
	Error   *StepError      `json:"error,omitempty"`
	JobID   string          `json:"jobId,omitempty"`  // of the job that does it
	Ref     string          `json:"ref,omitempty"`    // what it made: a message, a mail, a meeting
	Leg     int             `json:"leg,omitempty"`    // of the run
	Latest  *time.Time      `json:"latest,omitempty"` // after which it is of no use any more
	Led     int             `json:"led,omitempty"`    // the leg that came when it ended; 0: none
	At      time.Time       `json:"at"`
	EndedAt *time.Time      `json:"endedAt,omitempty"`
}

// StepError says what went wrong, in terms for the client.
type StepError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// Runs is the kind.
var Runs = store.Kind[Run]{
	Schema: store.Schema{
		Kind: "automationRuns",
		Fields: []store.Field{
			{Name: "slot", Type: store.Text, Unique: true}, {Name: "eventRef", Type: store.Text}, {Name: "ruleId", Type: store.Text},
			{Name: "leadId", Type: store.Text}, {Name: "state", Type: store.Text}, {Name: "startedAt", Type: store.Int},
			{Name: "ruleLead", Type: store.Text},
			{Name: "openLead", Type: store.Text}, // the lead, of runs that something can make pointless
			{Name: "about", Type: store.Text},    // the appointment, of runs that go on
		},
		Orders: [][]string{{"eventRef"}, {"ruleLead", "startedAt"}, {"leadId", "startedAt"}, {"ruleId", "startedAt"}, {"state", "startedAt"}, {"startedAt"}, {"openLead", "startedAt"}, {"about"}},
	},
	Key: func(r *Run) string { return r.ID },
	Index: func(r *Run) store.Fields {
		f := store.Fields{
			"eventRef": r.EventRef, "ruleId": r.RuleID, "leadId": r.LeadID, "state": r.State, "startedAt": r.StartedAt.UnixMilli(),
			"ruleLead": r.RuleID + "|" + r.LeadID,
		}
		if r.Slot != "" {
			f["slot"] = r.Slot
		}
		if len(r.Exits) > 0 && !r.Ended() {
			f["openLead"] = r.LeadID
		}
		if r.About != nil && !r.Ended() {
			f["about"] = r.About.ID
		}
		return f
	},
	Meta: func(r *Run) *store.Meta { return &r.Meta },
}

// Ended tells whether a run is over.
func (r *Run) Ended() bool {
	switch r.State {
	case RunDone, RunExited, RunFailed, RunCancelled:
		return true
	}
	return false
}

// end closes a run and frees its slot, but for the one that holds for ever.
func (r *Run) end(state string, at time.Time, e *StepError) {
	r.State, r.Error, r.Cursor, r.WaitUntil = state, e, "", nil
	at = at.UTC()
	r.EndedAt = &at
	if r.Slot == activeSlot(r.RuleID, r.LeadID) {
		r.Slot = ""
	}
}

// exit ends a run because something made it pointless.
func (r *Run) exit(reason string, at time.Time) {
	r.skip(at, &StepError{reason, "The run was left before this step."})
	r.end(RunExited, at, nil)
	r.ExitReason = reason
}

// skip gives up the external steps that have not begun.
func (r *Run) skip(at time.Time, why *StepError) {
	for i := range r.Steps {
		if s := &r.Steps[i]; s.State == StepPlanned || s.State == StepWaiting {
			s.State, s.EndedAt, s.Error = StepSkipped, &at, why
		}
	}
}

// due is when a wait is over.
func (s *Step) due() (d due) {
	_ = json.Unmarshal(s.Output, &d) // of a step of another type: none
	return d
}

// at is the place of a step; -1 if the run did not come to it.
func (r *Run) at(step string) int {
	return slices.IndexFunc(r.Steps, func(s Step) bool { return s.ID == step })
}

// planned is the place of the first external step that has not begun; -1 for none.
func (r *Run) planned() int {
	return slices.IndexFunc(r.Steps, func(s Step) bool { return s.State == StepPlanned })
}

// legSteps are the steps of a leg.
func (r *Run) legSteps(leg int) []Step {
	var out []Step
	for _, s := range r.Steps {
		if s.Leg == leg {
			out = append(out, s)
		}
	}
	return out
}

// touched tells whether a leg changed the lead.
func (r *Run) touched(leg int) bool {
	return slices.ContainsFunc(r.legSteps(leg), func(s Step) bool {
		switch s.Type {
		case TagAdd, TagRemove, LeadStage, LeadScore, LeadSet:
			return true
		}
		return false
	})
}

func activeSlot(ruleID, leadID string) string { return "active|" + ruleID + "|" + leadID }
func everSlot(ruleID, leadID string) string   { return "ever|" + ruleID + "|" + leadID }
