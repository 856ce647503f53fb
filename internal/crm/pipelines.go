package crm

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// maxStages is how many stages a pipeline may have.
const maxStages = 50

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// slug makes an id of a name that people read; def where nothing of the name can stand in one.
func slug(name, def string) string {
	s := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")
	if len(s) > 64 {
		s = strings.Trim(s[:64], "-")
	}
	if s == "" {
		return def
	}
	return s
}

// check completes ids and kinds that were left out, and refuses what cannot be a pipeline.
func (p *Pipeline) check() error {
	var bad []fault.Field
	add := func(pointer, detail string) { bad = append(bad, fault.Field{Pointer: pointer, Detail: detail}) }
	if p.ID == "" {
		p.ID = slug(p.Name, "pipeline")
	}
	if !nameForm.MatchString(p.ID) {
		add("/id", "An id has 1 to 64 of a-z, 0-9, - and _.")
	}
	if len(p.Stages) == 0 || len(p.Stages) > maxStages {
		add("/stages", "A pipeline has 1 to "+strconv.Itoa(maxStages)+" stages.")
	}
	seen := map[string]bool{}
	for i := range p.Stages {
		s, at := &p.Stages[i], "/stages/"+strconv.Itoa(i)
		if s.ID == "" {
			s.ID = slug(s.Name, "stage-"+strconv.Itoa(i+1))
		}
		if s.Name == "" {
			s.Name = s.ID
		}
		if s.Kind == "" {
			if s.Kind = Open; s.ID == Won || s.ID == Lost {
				s.Kind = s.ID
			}
		}
		switch {
		case !nameForm.MatchString(s.ID):
			add(at+"/id", "An id has 1 to 64 of a-z, 0-9, - and _.")
		case seen[s.ID]:
			add(at+"/id", "Another stage has this id.")
		}
		seen[s.ID] = true
		if s.Kind != Open && s.Kind != Won && s.Kind != Lost {
			add(at+"/kind", "Expected open, won or lost.")
		}
	}
	if len(p.Stages) > 0 && p.Stages[0].Kind != Open {
		add("/stages/0/kind", "Leads begin in the first stage: it is open.")
	}
	return fault.BadFields(bad)
}

// PipelineByID reads a pipeline; fault.NotFound.
func (b *Book) PipelineByID(ctx context.Context, tn *tenant.Tenant, pipelineID string) (*Pipeline, error) {
	s, err := b.Stages(ctx, tn)
	if err != nil {
		return nil, err
	}
	p := s.Pipeline(pipelineID)
	if p == nil {
		return nil, fault.Missing("pipeline")
	}
	return p, nil
}

// AddPipeline makes a pipeline. fault.Conflict where its id is taken.
func (b *Book) AddPipeline(ctx context.Context, tn *tenant.Tenant, p *Pipeline) error {
	if err := p.check(); err != nil {
		return err
	}
	s, err := b.Stages(ctx, tn)
	if err != nil {
		return err
	}
	if len(s.All()) >= maxPipelines {
		return fault.New(fault.Conflict, "pipeline.too_many", "There are %d pipelines already.", maxPipelines)
	}
	p.CreatedAt = b.Now().UTC()
	p.UpdatedAt = p.CreatedAt
	if p.ID != DefaultPipeline {
		err = tn.DB.Commit(ctx, Pipelines.Insert(p))
	}
	if p.ID == DefaultPipeline || errors.Is(err, store.ErrDuplicate) {
		f := fault.New(fault.Conflict, "pipeline.exists", "There is a pipeline with this id.")
		f.Extra = map[string]any{"id": p.ID}
		return f
	}
	p.Version = 1
	return err
}

// PipelinePatch changes a pipeline; members that are nil stay as they are.
type PipelinePatch struct {
	IfVersion int64
	Name      *string
	Stages    []Stage
}

// EditPipeline changes a pipeline. A stage in which leads stand keeps its place and its kind.
func (b *Book) EditPipeline(ctx context.Context, tn *tenant.Tenant, pipelineID string, e PipelinePatch) (p *Pipeline, err error) {
	err = conflictFree(ctx, func() error {
		old, err := b.PipelineByID(ctx, tn, pipelineID)
		if err != nil {
			return err
		}
		if e.IfVersion != 0 && e.IfVersion != old.shown() {
			return changedMeanwhile("pipeline", old.shown())
		}
		c := *old
		p = &c
		if e.Name != nil {
			p.Name = *e.Name
		}
		if e.Stages != nil {
			p.Stages = e.Stages
		}
		if err := p.check(); err != nil {
			return err
		}
		for _, s := range old.Stages {
			if now, ok := p.Stage(s.ID); ok && now.Kind == s.Kind {
				continue
			}
			n, err := b.leadsIn(ctx, tn, old.ID, s.ID)
			if err != nil {
				return err
			}
			if n > 0 {
				f := fault.New(fault.Conflict, "pipeline.stage_in_use", "Leads stand in a stage that would go, or mean something else. Move them first.")
				f.Extra = map[string]any{"stage": s.ID, "leads": n}
				return f
			}
		}
		p.UpdatedAt = b.Now().UTC()
		if p.CreatedAt.IsZero() {
			p.CreatedAt = p.UpdatedAt
		}
		if err := tn.DB.Commit(ctx, Pipelines.Update(p)); err != nil {
			return err
		}
		p.Version++
		return nil
	})
	return p, err
}

// leadsIn counts the leads of a pipeline, or of one of its stages.
func (b *Book) leadsIn(ctx context.Context, tn *tenant.Tenant, pipelineID, stageID string) (int64, error) {
	q := store.Query{Kind: Leads.Schema.Kind, Where: []store.Term{store.Where("pipeline", store.Eq, pipelineID)}}
	if stageID != "" {
		q.Where = append(q.Where, store.Where("stage", store.Eq, stageID))
	}
	return tn.DB.Count(ctx, q)
}

// DeletePipeline deletes a pipeline in which no lead stands.
func (b *Book) DeletePipeline(ctx context.Context, tn *tenant.Tenant, pipelineID string) error {
	p, err := b.PipelineByID(ctx, tn, pipelineID)
	if err != nil {
		return err
	}
	if p.ID == DefaultPipeline {
		return fault.New(fault.Conflict, "pipeline.default", "The default pipeline stays; leads begin there.")
	}
	n, err := b.leadsIn(ctx, tn, p.ID, "")
	if err != nil {
		return err
	}
	if n > 0 {
		f := fault.New(fault.Conflict, "pipeline.in_use", "Leads stand in this pipeline. Move them first.")
		f.Extra = map[string]any{"leads": n}
		return f
	}
	if err = tn.DB.Commit(ctx, Pipelines.Remove(p)); errors.Is(err, store.ErrConflict) {
		return changedMeanwhile("pipeline", p.Version+1)
	}
	return err
}

// shown is the pipeline's version as its callers know it: the default one is there before it is stored.
func (p *Pipeline) shown() int64 {
	if p.ID == DefaultPipeline {
		return p.Version + 1
	}
	return p.Version
}

// PipelineView is a pipeline as the API shows it.
type PipelineView struct {
	ID        string      `json:"id"`
	Name      string      `json:"name"`
	Default   bool        `json:"default" doc:"Leads begin here unless they are told where."`
	Stages    []StageView `json:"stages"`
	Version   int64       `json:"version"`
	CreatedAt *string     `json:"createdAt" doc:"Null for the default pipeline while nobody has changed it."`
	UpdatedAt *string     `json:"updatedAt"`
}

// StageView is a stage as the API shows it.
type StageView struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind" enum:"open,won,lost"`
}

// View is the pipeline as the API shows it.
func (p *Pipeline) View() PipelineView {
	v := PipelineView{ID: p.ID, Name: p.Name, Default: p.ID == DefaultPipeline, Stages: []StageView{}, Version: p.shown(),
		CreatedAt: news.Stamp(p.CreatedAt), UpdatedAt: news.Stamp(p.UpdatedAt)}
	for _, s := range p.Stages {
		v.Stages = append(v.Stages, StageView(s))
	}
	return v
}
