package crm

import (
	"time"

	"github.com/ecodrix/ecod/internal/fault"
)

// Causes of changes.
const (
	ByPerson     = "person" // through the API
	ByImport     = "import"
	ByMerge      = "merge"
	ByTag        = "tag" // a tag was deleted or renamed
	ByAutomation = "automation"
	ByEvent      = "event" // an event told of a lead that was not there
)

// Mutation asks for a change of one lead. Its id names the change for good: the same mutation, asked for again, is one
// change, and has the outcome of the first.
type Mutation struct {
	ID        string    `json:"id"`
	LeadID    string    `json:"leadId,omitempty"`    // "" where it makes a lead
	IfVersion int64     `json:"ifVersion,omitempty"` // the version that its author saw; 0: any
	By        string    `json:"by,omitempty"`        // who asked for it
	Cause     string    `json:"cause"`
	Ref       string    `json:"ref,omitempty"` // of the cause: an import, a run
	At        time.Time `json:"at"`

	Create *NewLead   `json:"create,omitempty"`
	Fill   *NewLead   `json:"fill,omitempty"` // completes what is empty, and adds tags
	Set    *LeadPatch `json:"set,omitempty"`
	Add    []string   `json:"add,omitempty"`    // tags
	Remove []string   `json:"remove,omitempty"` // tags
	Move   *Move      `json:"move,omitempty"`
	Delete bool       `json:"delete,omitempty"`
	Quiet  bool       `json:"quiet,omitempty"` // triggers nothing: what has changed is a name
}

// NewLead is a lead that is wanted. Phone and Email are in the form of Phone and Email.
type NewLead struct {
	Phone    string `json:"phone,omitempty"`
	Email    string `json:"email,omitempty"`
	Pipeline string `json:"pipeline,omitempty"`
	Stage    string `json:"stage,omitempty"`
	LeadData
}

// LeadPatch changes members of a lead; those that are nil stay as they are.
type LeadPatch struct {
	Name     *string        `json:"name,omitempty"`
	Phone    *string        `json:"phone,omitempty"` // E.164, or "" for none
	Email    *string        `json:"email,omitempty"`
	Source   *string        `json:"source,omitempty"`
	OwnerID  *string        `json:"ownerId,omitempty"`
	Currency *string        `json:"currency,omitempty"`
	Value    *float64       `json:"value,omitempty"`
	Tags     *[]string      `json:"tags,omitempty"`   // all that the lead is to have
	Fields   map[string]any `json:"fields,omitempty"` // nil removes a field
	NoFields bool           `json:"noFields,omitempty"`
}

// Move puts a lead into a stage.
type Move struct {
	Pipeline string `json:"pipeline,omitempty"` // "": the lead's own
	Stage    string `json:"stage"`
	Reason   string `json:"reason,omitempty"`
}

// owes tells whether a change of this kind may owe occurrences or work that follows: then it is made inside a job.
func (m *Mutation) owes() bool {
	return m.Create != nil || m.Delete || m.Move != nil || len(m.Add) > 0 || len(m.Remove) > 0 || (m.Set != nil && m.Set.Tags != nil) ||
		(m.Fill != nil && len(m.Fill.Tags) > 0)
}

// Refusal is a fault as a record keeps it.
type Refusal struct {
	Kind   fault.Kind     `json:"kind"`
	Code   string         `json:"code"`
	Detail string         `json:"detail"`
	Fields []fault.Field  `json:"fields,omitempty"`
	Extra  map[string]any `json:"extra,omitempty"`
}

func refusalOf(f *fault.Error) *Refusal {
	return &Refusal{Kind: f.Kind, Code: f.Code, Detail: f.Detail, Fields: f.Fields, Extra: f.Extra}
}

func (r *Refusal) fault() error {
	return &fault.Error{Kind: r.Kind, Code: r.Code, Detail: r.Detail, Fields: r.Fields, Extra: r.Extra}
}

// leadExists is the fault for a lead that would be the second of one person.
func leadExists(other *Lead) error {
	f := fault.New(fault.Conflict, "lead.exists", "There is a lead with this phone or e-mail.")
	f.Extra = map[string]any{"id": other.ID, "leadId": other.ID}
	return f
}

// changedMeanwhile is the fault for a change of a version that is not the newest.
func changedMeanwhile(what string, version int64) error {
	f := fault.New(fault.Conflict, "version.conflict", "The %s was changed since it was read.", what)
	f.Extra = map[string]any{"version": version}
	return f
}
