package rule

import (
	"context"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Edit is a change of a rule; members that are nil stay as they are.
type Edit struct {
	IfVersion int64 // the version that the author saw; 0: any
	Name      *string
	Trigger   *string
	Condition *string
	Reenrol   *Reenrol
	Exits     *[]string // to nil: the default
	Actions   []Action
	Enabled   *bool // true makes the draft live, false pauses
}

// Edit changes a rule's draft, and publishes or pauses it in the same commit if asked to. fault.Conflict where the rule
// is not the one that the author saw.
func (e *Engine) Edit(ctx context.Context, tn *tenant.Tenant, ruleID string, ed Edit) (r *Rule, err error) {
	err = conflictFree(ctx, func() error {
		if r, err = e.Rule(ctx, tn, ruleID); err != nil {
			return err
		}
		if ed.IfVersion != 0 && ed.IfVersion != r.Version {
			f := fault.New(fault.Conflict, "version.conflict", "The rule was changed since it was read.")
			f.Extra = map[string]any{"version": r.Version}
			return f
		}
		ed.apply(r)
		if err := e.check(&r.Draft); err != nil {
			return err
		}
		now := e.Now().UTC()
		var writes []store.Write
		switch {
		case ed.Enabled == nil:
		case *ed.Enabled:
			writes = append(writes, r.publish(now))
		case r.Live != nil:
			r.Status, r.PausedFor = Paused, ""
		}
		r.UpdatedAt = now
		if err := tn.DB.Commit(ctx, append(writes, Rules.Update(r))...); err != nil {
			return err
		}
		r.Version++
		return nil
	})
	if err == nil {
		e.lookOver(ctx, tn, r)
		e.letOn(ctx, tn)
	}
	return r, err
}

func (ed Edit) apply(r *Rule) {
	if ed.Name != nil {
		r.Name = *ed.Name
	}
	if ed.Trigger != nil {
		r.Draft.Trigger = *ed.Trigger
	}
	if ed.Condition != nil {
		r.Draft.Condition = *ed.Condition
	}
	if ed.Reenrol != nil {
		r.Draft.Reenrol = *ed.Reenrol
	}
	if ed.Exits != nil {
		r.Draft.Exits = *ed.Exits
	}
	if ed.Actions != nil {
		r.Draft.Actions = ed.Actions
	}
}
