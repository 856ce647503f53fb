package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// pipelines is the API of pipelines.
type pipelines struct{ book *crm.Book }

// RegisterPipelines adds the API of pipelines.
func RegisterPipelines(a *API, book *crm.Book) {
	s := pipelines{book}
	const tag = "CRM"
	Client(a, Op{Route: "GET /api/crm/pipelines", ID: "listPipelines", Tag: tag, Summary: "List pipelines, the default one first",
		Description: "The default pipeline is always there."}, s.list)
	Client(a, Op{Route: "POST /api/crm/pipelines", ID: "createPipeline", Tag: tag, Summary: "Create a pipeline", Status: http.StatusCreated,
		Description: "Leads begin in its first stage. A stage's kind decides the status of the leads in it. Ids that are left out are made of the names."}, s.create)
	Client(a, Op{Route: "GET /api/crm/pipelines/{id}", ID: "getPipeline", Tag: tag, Summary: "Read a pipeline"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedPipeline, error) {
			return answerPipeline(book.PipelineByID(ctx, tn, in.ID))
		})
	Client(a, Op{Route: "PATCH /api/crm/pipelines/{id}", ID: "updatePipeline", Tag: tag, Summary: "Change a pipeline",
		Description: "stages are all that it is to have, in their order. A stage in which leads stand cannot go, nor change its kind: 409 pipeline.stage_in_use. " +
			"With If-Match or version, a pipeline that was changed meanwhile is refused: 409 version.conflict."}, s.update)
	Client(a, Op{Route: "DELETE /api/crm/pipelines/{id}", ID: "deletePipeline", Tag: tag, Summary: "Delete a pipeline",
		Description: "One in which leads stand is refused: 409 pipeline.in_use. So is the default one: 409 pipeline.default."},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*struct{}, error) {
			return nil, book.DeletePipeline(ctx, tn, in.ID)
		})
}

type taggedPipeline struct {
	ETag string `header:"ETag"`
	Body crm.PipelineView
}

func answerPipeline(p *crm.Pipeline, err error) (*taggedPipeline, error) {
	if err != nil {
		return nil, err
	}
	v := p.View()
	return &taggedPipeline{ETag: etag(v.Version), Body: v}, nil
}

func (s pipelines) list(ctx context.Context, tn *tenant.Tenant, in *struct{ Page }) (*Answer[List[crm.PipelineView]], error) {
	at, err := in.After("pipelines")
	if err != nil {
		return nil, err
	}
	stages, err := s.book.Stages(ctx, tn)
	if err != nil {
		return nil, err
	}
	all := stages.All() // there are few
	if at != nil {
		for i, p := range all {
			if p.ID == at.ID {
				all = all[i+1:]
				break
			}
		}
	}
	return ListOf(all[:min(len(all), in.Limit+1)], in.Page, "pipelines", func(p *crm.Pipeline) store.Cursor { return store.Cursor{ID: p.ID} }, (*crm.Pipeline).View), nil
}

type stageBody struct {
	ID   string `json:"id,omitempty" maxLength:"64" example:"booked"`
	Name string `json:"name,omitempty" maxLength:"100" example:"Booked"`
	Kind string `json:"kind,omitempty" enum:"open,won,lost" doc:"open if left out, but for the ids won and lost."`
}

func stagesOf(bodies []stageBody, bad *fields) []crm.Stage {
	var out []crm.Stage
	for _, b := range bodies {
		if b.ID == "" {
			bad.text("/stages", b.Name)
		}
		out = append(out, crm.Stage{ID: b.ID, Name: strings.TrimSpace(b.Name), Kind: b.Kind})
	}
	return out
}

type pipelineInput struct {
	Body struct {
		ID     string      `json:"id,omitempty" maxLength:"64" doc:"Made of the name if left out."`
		Name   string      `json:"name" minLength:"1" maxLength:"100" example:"Treatments"`
		Stages []stageBody `json:"stages" minItems:"1" maxItems:"50"`
	}
}

type createdPipeline struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     crm.PipelineView
}

func (s pipelines) create(ctx context.Context, tn *tenant.Tenant, in *pipelineInput) (*createdPipeline, error) {
	var bad fields
	bad.text("/name", in.Body.Name)
	p := &crm.Pipeline{ID: in.Body.ID, Name: strings.TrimSpace(in.Body.Name), Stages: stagesOf(in.Body.Stages, &bad)}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	if err := s.book.AddPipeline(ctx, tn, p); err != nil {
		return nil, err
	}
	v := p.View()
	return &createdPipeline{ETag: etag(v.Version), Location: "/api/crm/pipelines/" + p.ID, Body: v}, nil
}

type pipelinePatch struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that the pipeline was read with."`
	Body    struct {
		Name    *string     `json:"name,omitempty" minLength:"1" maxLength:"100"`
		Stages  []stageBody `json:"stages,omitempty" minItems:"1" maxItems:"50"`
		Version int64       `json:"version,omitempty" minimum:"1" doc:"The version that was read, as If-Match."`
	}
}

func (s pipelines) update(ctx context.Context, tn *tenant.Tenant, in *pipelinePatch) (*taggedPipeline, error) {
	version, err := ifVersion(in.IfMatch, in.Body.Version)
	if err != nil {
		return nil, err
	}
	var bad fields
	p := crm.PipelinePatch{IfVersion: version, Stages: stagesOf(in.Body.Stages, &bad)}
	if in.Body.Name != nil {
		bad.text("/name", *in.Body.Name)
		name := strings.TrimSpace(*in.Body.Name)
		p.Name = &name
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	return answerPipeline(s.book.EditPipeline(ctx, tn, in.ID, p))
}
