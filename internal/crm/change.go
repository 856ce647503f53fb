package crm

import (
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
)

// Change is the record of one mutation: what it really changed, or why it was refused. What a change triggers is derived
// from it, and a lead's timeline shows it.
type Change struct {
	store.Meta
	ID     string    `json:"id"`
	LeadID string    `json:"leadId"`
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	Cause  string    `json:"cause,omitempty"`
	Ref    string    `json:"ref,omitempty"`

	Refused *Refusal `json:"refused,omitempty"`
	Idle    bool     `json:"idle,omitempty"`  // there was nothing to change
	Quiet   bool     `json:"quiet,omitempty"` // it triggers nothing

	Created bool                   `json:"created,omitempty"`
	Deleted bool                   `json:"deleted,omitempty"`
	Merged  []string               `json:"merged,omitempty"` // the leads that were made part of this one
	Stage   *StageChange           `json:"stage,omitempty"`
	Added   []string               `json:"added,omitempty"`
	Removed []string               `json:"removed,omitempty"`
	Fields  map[string]FieldChange `json:"fields,omitempty"`
}

// StageChange is a lead's way from one stage to another.
type StageChange struct {
	Pipeline     string `json:"pipeline"`
	From         string `json:"from" doc:"Empty where the lead was made in the stage."`
	To           string `json:"to"`
	FromPipeline string `json:"fromPipeline"`
	FromStatus   string `json:"fromStatus"`
	Status       string `json:"status"`
	Reason       string `json:"reason,omitempty"`
	Seconds      int64  `json:"seconds" doc:"How long the lead stood in the stage that it left."`
}

// FieldChange is a member's value before and after.
type FieldChange struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// Changes is the kind. Refusals and idle ones are nobody's history: they have no leadId to be found by.
var Changes = store.Kind[Change]{
	Schema: store.Schema{
		Kind:   "leadChanges",
		Fields: []store.Field{{Name: "leadId", Type: store.Text}, {Name: "at", Type: store.Int}},
		Orders: [][]string{{"leadId", "at"}, {"at"}},
	},
	Key: func(c *Change) string { return c.ID },
	Index: func(c *Change) store.Fields {
		f := store.Fields{"at": c.At.UnixMilli()}
		if c.Refused == nil && !c.Idle {
			f["leadId"] = c.LeadID
		}
		return f
	},
	Meta: func(c *Change) *store.Meta { return &c.Meta },
}

// ChangesKept is how long changes stay in a lead's timeline.
const ChangesKept = 3 * 365 * 24 * time.Hour

// ChangeID is the id of the record of a mutation.
func ChangeID(code, mutation string) string { return id.Derived("chg", code, mutation) }

// occurrences are what a change means to the client's rules. They are made of what was recorded, so that a change that
// changed nothing, or was refused, is none.
func (c *Change) occurrences() []Occurrence {
	if c.Refused != nil || c.Idle || c.Quiet || c.Deleted {
		return nil
	}
	var out []Occurrence
	raise := func(key, trigger string, vars map[string]any) {
		if vars == nil {
			vars = map[string]any{}
		}
		out = append(out, Occurrence{Key: c.ID + "|" + key, Trigger: trigger, LeadID: c.LeadID, Variables: vars, At: c.At})
	}
	if c.Created {
		raise("created", "lead_created", nil)
	}
	if s := c.Stage; s != nil {
		vars := func() map[string]any {
			v := map[string]any{"stage": s.To, "fromStage": s.From, "pipeline": s.Pipeline}
			if s.Reason != "" {
				v["reason"] = s.Reason
			}
			return v
		}
		if s.From != "" {
			raise("stage", "stage_changed", vars())
		}
		switch s.Status {
		case s.FromStatus: // from one won stage to another: no deal was won
		case Won:
			raise("won", "deal_won", vars())
		case Lost:
			raise("lost", "deal_lost", vars())
		}
	}
	for _, t := range c.Added {
		raise("+"+t, "tag_added", map[string]any{"tag": t})
	}
	for _, t := range c.Removed {
		raise("-"+t, "tag_removed", map[string]any{"tag": t})
	}
	return out
}

// ChangeView is a change as the API shows it.
type ChangeView struct {
	ID      string                 `json:"id"`
	At      *string                `json:"at"`
	By      *string                `json:"by"`
	Cause   string                 `json:"cause"`
	Ref     *string                `json:"ref"`
	Created bool                   `json:"created"`
	Merged  []string               `json:"merged,omitempty"`
	Stage   *StageChange           `json:"stage,omitempty"`
	Added   []string               `json:"tagsAdded,omitempty"`
	Removed []string               `json:"tagsRemoved,omitempty"`
	Fields  map[string]FieldChange `json:"fields,omitempty"`
}

// View is the change as the API shows it.
func (c *Change) View() ChangeView {
	return ChangeView{
		ID: c.ID, At: news.Stamp(c.At), By: optional(c.By), Cause: c.Cause, Ref: optional(c.Ref), Created: c.Created, Merged: c.Merged,
		Stage: c.Stage, Added: c.Added, Removed: c.Removed, Fields: c.Fields,
	}
}
