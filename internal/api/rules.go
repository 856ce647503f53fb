package api

import (
	"context"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// rules is the API of automation rules.
type rules struct{ engine *rule.Engine }

// RegisterRules adds the API of automation rules.
func RegisterRules(a *API, engine *rule.Engine) {
	s := rules{engine}
	const tag = "Automation"
	Client(a, Op{Route: "POST /api/crm/automations/rules", ID: "createRule", Tag: tag, Summary: "Create a rule", Status: http.StatusCreated,
		Description: "With enabled:true it is live at once. warnings name what its author should look at: code cycle, with the rules that lead to each other. " +
			"A rule that a lead enters more than 10 times in an hour is paused by itself (pausedFor too_many_runs). Waits: what follows a wait until a moment is " +
			"skipped (too_late) where the moment has passed: half of a negative offset after it, else an hour to a day."}, s.create)
	Client(a, Op{Route: "GET /api/crm/automations/rules", ID: "listRules", Tag: tag, Summary: "List rules, newest first"}, s.list)
	Client(a, Op{Route: "GET /api/crm/automations/rules/{id}", ID: "getRule", Tag: tag, Summary: "Read a rule's draft"}, s.get)
	Client(a, Op{Route: "PATCH /api/crm/automations/rules/{id}", ID: "updateRule", Tag: tag, Summary: "Change a rule's draft",
		Description: "What runs is what was published. enabled:true publishes the draft, false pauses the rule. " +
			"With If-Match or version, a rule that was changed meanwhile is refused: 409 version.conflict."}, s.update)
	Client(a, Op{Route: "DELETE /api/crm/automations/rules/{id}", ID: "deleteRule", Tag: tag, Summary: "Delete a rule",
		Description: "Runs that began on it go on to their end."}, s.remove)
	Client(a, Op{Route: "POST /api/crm/automations/rules/{id}/publish", ID: "publishRule", Tag: tag, Summary: "Make a rule's draft live"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedRule, error) {
			return tagged(engine.Publish(ctx, tn, in.ID))
		})
	Client(a, Op{Route: "POST /api/crm/automations/rules/{id}/pause", ID: "pauseRule", Tag: tag, Summary: "Stop a rule from being entered",
		Description: "Runs that began go on."},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedRule, error) {
			return tagged(engine.Pause(ctx, tn, in.ID, true))
		})
	Client(a, Op{Route: "POST /api/crm/automations/rules/{id}/resume", ID: "resumeRule", Tag: tag, Summary: "Let a paused rule be entered again"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedRule, error) {
			return tagged(engine.Pause(ctx, tn, in.ID, false))
		})
	Client(a, Op{Route: "POST /api/crm/automations/rules/{id}/simulate", ID: "simulateRule", Tag: tag, Summary: "See what a rule's draft would do",
		Role: RoleViewer, OwnIdempotency: true, Description: "Decides as an event would, and writes nothing."}, s.simulate)
	a.nullable("Simulation", "held")
}

// taggedRule is a rule with its version as an entity tag, for If-Match.
type taggedRule struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     rule.RuleView
}

func tagged(r *rule.Rule, err error) (*taggedRule, error) {
	if err != nil {
		return nil, err
	}
	return &taggedRule{ETag: etag(r.Version), Body: r.View()}, nil
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// Reenrol is a re-enrolment mode as it is written: a word, or an object.
type Reenrol struct{ rule.Reenrol }

// Schema documents both forms; what else is wrong, the definition's own check tells.
func (Reenrol) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Description: `"once_active" (the default), "once_ever", "every_event", or {"cooldown":"24h"}.`,
		Examples:    []any{"every_event"},
	}
}

type ruleInput struct {
	Body struct {
		Name      string        `json:"name" minLength:"1" maxLength:"200" example:"Confirm appointment"`
		Trigger   string        `json:"trigger" maxLength:"100" example:"appointment_confirmed"`
		Enabled   bool          `json:"enabled,omitempty" doc:"Publish it at once."`
		Condition string        `json:"condition,omitempty" maxLength:"2000" example:"lead.score >= 0 && !('vip' in lead.tags)"`
		Reenrol   Reenrol       `json:"reenrol,omitzero"`
		Exits     []string      `json:"exits,omitempty" maxItems:"20" doc:"What makes a run pointless: reply, opt_out, goal:<condition>, stage:<id>. Of rules with a wait, reply and opt_out if left out."`
		Actions   []rule.Action `json:"actions" minItems:"1" maxItems:"100"`
	}
}

func (s rules) create(ctx context.Context, tn *tenant.Tenant, in *ruleInput) (*taggedRule, error) {
	b := in.Body
	var bad fields
	bad.text("/name", b.Name)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	r, err := s.engine.Create(ctx, tn, strings.TrimSpace(b.Name), b.Enabled, rule.Definition{
		Trigger: b.Trigger, Condition: b.Condition, Reenrol: b.Reenrol.Reenrol, Exits: b.Exits, Actions: b.Actions,
	})
	out, err := tagged(r, err)
	if err == nil {
		out.Location = "/api/crm/automations/rules/" + r.ID
	}
	return out, err
}

func (s rules) list(ctx context.Context, tn *tenant.Tenant, in *struct{ Page }) (*Answer[List[rule.RuleView]], error) {
	at, err := in.afterIn("rules", rule.Rules.Schema, "createdAt")
	if err != nil {
		return nil, err
	}
	rows, err := rule.Rules.Find(ctx, tn.DB, store.Query{Order: "createdAt", Desc: true, After: at, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "rules", func(r *rule.Rule) store.Cursor {
		return store.Cursor{Value: r.CreatedAt.UnixMilli(), ID: r.ID}
	}, (*rule.Rule).View), nil
}

func (s rules) get(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedRule, error) {
	return tagged(s.engine.Rule(ctx, tn, in.ID))
}

type rulePatch struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that the rule was read with."`
	Body    struct {
		Name      *string            `json:"name,omitempty" minLength:"1" maxLength:"200"`
		Trigger   *string            `json:"trigger,omitempty" maxLength:"100"`
		Enabled   *bool              `json:"enabled,omitempty" doc:"true publishes the draft, false pauses."`
		Condition Optional[string]   `json:"condition,omitzero" maxLength:"2000" doc:"null removes it."`
		Reenrol   *Reenrol           `json:"reenrol,omitempty"`
		Exits     Optional[[]string] `json:"exits,omitzero" maxItems:"20" doc:"null is the default again."`
		Actions   []rule.Action      `json:"actions,omitempty" minItems:"1" maxItems:"100"`
		Version   int64              `json:"version,omitempty" minimum:"1" doc:"The version that was read, as If-Match."`
	}
}

func (s rules) update(ctx context.Context, tn *tenant.Tenant, in *rulePatch) (*taggedRule, error) {
	b := in.Body
	edit := rule.Edit{Trigger: b.Trigger, Actions: b.Actions, Enabled: b.Enabled}
	var err error
	if edit.IfVersion, err = ifVersion(in.IfMatch, b.Version); err != nil {
		return nil, err
	}
	if b.Name != nil {
		var bad fields
		bad.text("/name", *b.Name)
		if err := bad.fault(); err != nil {
			return nil, err
		}
		name := strings.TrimSpace(*b.Name)
		edit.Name = &name
	}
	if b.Condition.Set {
		edit.Condition = &b.Condition.Value
	}
	if b.Exits.Set {
		edit.Exits = &b.Exits.Value
	}
	if b.Reenrol != nil {
		edit.Reenrol = &b.Reenrol.Reenrol
	}
	return tagged(s.engine.Edit(ctx, tn, in.ID, edit))
}

// ifVersion gives the version that a change asks for, by If-Match or by its body; 0: any.
func ifVersion(ifMatch string, version int64) (int64, error) {
	tag := strings.TrimSpace(ifMatch)
	if tag == "" || tag == "*" {
		return version, nil
	}
	tag = strings.TrimPrefix(tag, "W/")
	n, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
	if err != nil || n < 1 {
		return 0, fault.Bad("header.If-Match", "Expected one ETag, as it was answered.")
	}
	if version != 0 && version != n {
		return 0, fault.Bad("/version", "If-Match asks for another version.")
	}
	return n, nil
}

func (s rules) remove(ctx context.Context, tn *tenant.Tenant, in *ByID) (*struct{}, error) {
	return nil, s.engine.Delete(ctx, tn, in.ID)
}

type simulateInput struct {
	ByID
	Body struct {
		LeadID string `json:"leadId,omitempty" maxLength:"256" doc:"leadId or phone is required."`
		Phone  string `json:"phone,omitempty" maxLength:"64"`
		Event  struct {
			Trigger   string      `json:"trigger,omitempty" maxLength:"100" doc:"The rule's own if left out."`
			Variables rule.Values `json:"variables,omitempty"`
		} `json:"event,omitzero"`
		Variables rule.Values `json:"variables,omitempty" doc:"Those of the event; they win over event.variables."`
		At        *Time       `json:"at,omitempty" doc:"Now if left out."`
	}
}

func (s rules) simulate(ctx context.Context, tn *tenant.Tenant, in *simulateInput) (*Answer[rule.Simulation], error) {
	b := in.Body
	vars := rule.Values{}
	maps.Copy(vars, b.Event.Variables)
	maps.Copy(vars, b.Variables)
	var bad fields
	if b.LeadID == "" && b.Phone == "" {
		bad.add("/leadId", "leadId or phone is required.")
	}
	bad.size("/variables", vars, maxVariables)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	out, err := s.engine.Simulate(ctx, tn, in.ID, rule.Trial{LeadID: b.LeadID, Phone: b.Phone, Trigger: b.Event.Trigger, Variables: vars, At: b.At.Or()})
	if err != nil {
		return nil, err
	}
	return OK(*out)
}
