package api

import (
	"context"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// runs is the API of what automation rules did.
type runs struct {
	engine *rule.Engine
	runner *job.Runner
}

// RegisterRuns adds the API of runs. runner lets a held run go on at once.
func RegisterRuns(a *API, engine *rule.Engine, runner *job.Runner) {
	s := runs{engine, runner}
	const tag = "Automation"
	Client(a, Op{Route: "GET /api/crm/automations/runs", ID: "listRuns", Tag: tag, Summary: "List runs, newest first"}, s.list)
	Client(a, Op{Route: "GET /api/crm/automations/runs/{id}", ID: "getRun", Tag: tag, Summary: "Read a run with its steps"}, s.get)
	Client(a, Op{Route: "PATCH /api/crm/automations/runs/{id}", ID: "resumeRun", Tag: tag, Summary: "Give a held run the variables it lacks",
		Description: "The run goes on with them. A run that is not held: 409 run.not_held."}, s.supply)
	Client(a, Op{Route: "POST /api/crm/automations/runs/{id}/cancel", ID: "cancelRun", Tag: tag, Summary: "End a run that goes on",
		Description: "What it has not begun is not done any more. A run that has ended: 409 run.ended."}, s.cancel)
	a.nullable("RunView", "held", "error")
	a.nullable("StepView", "error")
}

type runsInput struct {
	Page
	LeadID string `query:"leadId" maxLength:"256"`
	RuleID string `query:"ruleId" maxLength:"256"`
	State  string `query:"state" enum:"active,waiting,held,done,exited,failed,cancelled"`
}

func (s runs) list(ctx context.Context, tn *tenant.Tenant, in *runsInput) (*Answer[List[rule.RunView]], error) {
	at, err := in.afterIn("runs", rule.Runs.Schema, "startedAt")
	if err != nil {
		return nil, err
	}
	q := store.Query{Order: "startedAt", Desc: true, After: at, Limit: in.Limit + 1}
	for _, t := range []struct{ field, value string }{{"leadId", in.LeadID}, {"ruleId", in.RuleID}, {"state", in.State}} {
		if t.value != "" {
			q.Where = append(q.Where, store.Where(t.field, store.Eq, t.value))
		}
	}
	rows, err := rule.Runs.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "runs", func(r *rule.Run) store.Cursor {
		return store.Cursor{Value: r.StartedAt.UnixMilli(), ID: r.ID}
	}, (*rule.Run).View), nil
}

func (s runs) get(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[rule.RunView], error) {
	r, err := s.engine.Run(ctx, tn, in.ID)
	if err != nil {
		return nil, err
	}
	return OK(r.View())
}

type runPatch struct {
	ByID
	Body struct {
		Variables rule.Values `json:"variables" doc:"They win over those of the event; at most 32 KiB."`
	}
}

func (s runs) supply(ctx context.Context, tn *tenant.Tenant, in *runPatch) (*Answer[rule.RunView], error) {
	var bad fields
	if len(in.Body.Variables) == 0 {
		bad.add("/variables", "Expected at least one.")
	}
	bad.size("/variables", in.Body.Variables, maxVariables)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	next, err := s.engine.Supply(ctx, tn, in.ID, in.Body.Variables)
	if err != nil {
		return nil, err
	}
	made, _, err := s.runner.Do(ctx, next)
	if err != nil && made.Job.ID == "" { // not stored: the run is still held, and the call can be repeated
		return nil, err
	}
	r, err := s.engine.Run(ctx, tn, in.ID) // where the job's first try failed, it is still held, and goes on later
	if err != nil {
		return nil, err
	}
	return OK(r.View())
}

func (s runs) cancel(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[rule.RunView], error) {
	r, err := s.engine.CancelRun(ctx, tn, in.ID)
	if err != nil {
		return nil, err
	}
	return OK(r.View())
}
