package rule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Version is a published definition. It never changes: runs that began on it end on it.
type Version struct {
	store.Meta
	ID          string     `json:"id"`
	RuleID      string     `json:"ruleId"`
	N           int        `json:"n"`
	Definition  Definition `json:"definition"`
	PublishedAt time.Time  `json:"publishedAt"`
}

// Versions is the kind.
var Versions = store.Kind[Version]{
	Schema: store.Schema{Kind: "automationVersions"},
	Key:    func(v *Version) string { return v.ID },
	Index:  func(*Version) store.Fields { return store.Fields{} },
	Meta:   func(v *Version) *store.Meta { return &v.Meta },
}

// VersionID is the id of the nth version of a rule.
func VersionID(ruleID string, n int) string { return id.Derived("arv", ruleID, fmt.Sprint(n)) }

// Schemas are the kinds of this package.
var Schemas = []store.Schema{Rules.Schema, Versions.Schema, Events.Schema, Runs.Schema, Posts.Schema}

const maxRules = 1000

// Create makes a rule, live at once if enabled.
func (e *Engine) Create(ctx context.Context, tn *tenant.Tenant, name string, enabled bool, d Definition) (*Rule, error) {
	if err := e.check(&d); err != nil {
		return nil, err
	}
	n, err := tn.DB.Count(ctx, store.Query{Kind: Rules.Schema.Kind})
	if err != nil {
		return nil, err
	}
	if n >= maxRules {
		return nil, fault.New(fault.Conflict, "rule.too_many", "A client can have at most %d rules.", maxRules)
	}
	now := e.Now().UTC()
	r := &Rule{ID: id.New("rul"), Name: name, Status: Draft, Draft: d, CreatedAt: now, UpdatedAt: now}
	writes := []store.Write{}
	if enabled {
		writes = append(writes, r.publish(now))
	}
	if err := tn.DB.Commit(ctx, append(writes, Rules.Insert(r))...); err != nil {
		return nil, err
	}
	r.Version = 1
	e.lookOver(ctx, tn, r)
	return r, nil
}

// check tells everything that is wrong with a definition here: also actions that nothing does.
func (e *Engine) check(d *Definition) error {
	return d.validate(&validation{networks: e.networks(), absent: func(typ string) bool {
		_, outside := external[typ]
		return outside && e.Doers[typ] == nil
	}})
}

// publish makes the draft what runs.
func (r *Rule) publish(now time.Time) store.Write {
	r.LiveVersion++
	d := r.Draft
	r.Live, r.Status, r.PublishedAt, r.PausedFor = &d, Live, &now, ""
	// Set, not Insert: an attempt that failed half-way leaves a version that nothing points at
	return Versions.Set(&Version{ID: VersionID(r.ID, r.LiveVersion), RuleID: r.ID, N: r.LiveVersion, Definition: d, PublishedAt: now})
}

// Rule reads a rule; fault.NotFound.
func (e *Engine) Rule(ctx context.Context, tn *tenant.Tenant, ruleID string) (*Rule, error) {
	r, err := Rules.Get(ctx, tn.DB, ruleID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("rule")
	}
	return r, err
}

// Change edits a rule; edit may run more than once.
func (e *Engine) Change(ctx context.Context, tn *tenant.Tenant, ruleID string, edit func(*Rule) error) (r *Rule, err error) {
	err = conflictFree(ctx, func() error {
		if r, err = e.Rule(ctx, tn, ruleID); err != nil {
			return err
		}
		if err := edit(r); err != nil {
			return err
		}
		r.UpdatedAt = e.Now().UTC()
		if err := tn.DB.Commit(ctx, Rules.Update(r)); err != nil {
			return err
		}
		r.Version++
		return nil
	})
	return r, err
}

// Publish makes a rule's draft live.
func (e *Engine) Publish(ctx context.Context, tn *tenant.Tenant, ruleID string) (r *Rule, err error) {
	err = conflictFree(ctx, func() error {
		if r, err = e.Rule(ctx, tn, ruleID); err != nil {
			return err
		}
		if err := e.check(&r.Draft); err != nil {
			return err
		}
		now := e.Now().UTC()
		r.UpdatedAt = now
		if err := tn.DB.Commit(ctx, r.publish(now), Rules.Update(r)); err != nil {
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

// Pause stops a live rule from being entered, or lets it be entered again.
func (e *Engine) Pause(ctx context.Context, tn *tenant.Tenant, ruleID string, paused bool) (*Rule, error) {
	if !paused {
		defer e.letOn(ctx, tn)
	}
	return e.Change(ctx, tn, ruleID, func(r *Rule) error {
		if r.Live == nil {
			return fault.New(fault.Conflict, "rule.not_published", "The rule was never published.")
		}
		r.Status, r.PausedFor = Live, ""
		if paused {
			r.Status = Paused
		}
		return nil
	})
}

// Delete removes a rule; its runs and versions stay.
func (e *Engine) Delete(ctx context.Context, tn *tenant.Tenant, ruleID string) error {
	defer e.letOn(ctx, tn)
	return conflictFree(ctx, func() error {
		r, err := e.Rule(ctx, tn, ruleID)
		if err != nil {
			return err
		}
		return tn.DB.Commit(ctx, Rules.Remove(r))
	})
}

// Warning is something that an author should look at.
type Warning struct {
	Code string   `json:"code" doc:"cycle, or stage_unknown."`
	Path []string `json:"path" doc:"Of a circle: the rules along it, by id. Of a stage that no pipeline has: where it stands in the rule."`
}

// RuleView is a rule as the API shows it.
type RuleView struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Trigger     string    `json:"trigger"`
	Enabled     bool      `json:"enabled"`
	Status      string    `json:"status" enum:"draft,live,paused"`
	Condition   string    `json:"condition"`
	PausedFor   *string   `json:"pausedFor" doc:"Why the engine paused it by itself: too_many_runs, or whatsapp. and the code by which Meta refused its template five times within a minute." example:"too_many_runs"`
	Reenrol     any       `json:"reenrol"`
	Exits       []string  `json:"exits"`
	Actions     []Action  `json:"actions"`
	LiveVersion int       `json:"liveVersion"`
	Warnings    []Warning `json:"warnings"`
	Version     int64     `json:"version"`
	CreatedAt   *string   `json:"createdAt"`
	UpdatedAt   *string   `json:"updatedAt"`
	PublishedAt *string   `json:"publishedAt"`
}

// View is the rule's draft as the API shows it.
func (r *Rule) View() RuleView {
	v := RuleView{
		ID: r.ID, Name: r.Name, Trigger: r.Draft.Trigger, Enabled: r.Status == Live, Status: r.Status, Condition: r.Draft.Condition,
		Reenrol: r.Draft.Reenrol, Actions: r.Draft.Actions, LiveVersion: r.LiveVersion, Warnings: r.warnings(), Version: r.Version,
		CreatedAt: news.Stamp(r.CreatedAt), UpdatedAt: news.Stamp(r.UpdatedAt),
	}
	if v.Exits = r.Draft.exits(); v.Exits == nil {
		v.Exits = []string{}
	}
	if r.PausedFor != "" {
		v.PausedFor = &r.PausedFor
	}
	if r.PublishedAt != nil {
		v.PublishedAt = news.Stamp(*r.PublishedAt)
	}
	return v
}

// warnings tells of a rule that its own actions may lead back to (it is not entered twice by one cause), and of stages that
// are not there.
func (r *Rule) warnings() []Warning {
	path := r.cycle
	if path == nil {
		path = cycle(r, nil)
	}
	out := []Warning{}
	if path != nil {
		out = append(out, Warning{"cycle", path})
	}
	for _, at := range r.strayStages {
		out = append(out, Warning{"stage_unknown", []string{at}})
	}
	return out
}
