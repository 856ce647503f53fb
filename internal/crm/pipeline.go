package crm

import (
	"context"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Stage is one place of a pipeline. Its kind decides the status of the leads that stand in it: open, won or lost.
type Stage struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind"`
}

// Pipeline is a way that leads go, stage by stage. A lead that is made without a stage begins in the first.
type Pipeline struct {
	store.Meta
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Stages    []Stage   `json:"stages"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// Pipelines is the kind. The default pipeline is stored only once somebody has changed it.
var Pipelines = store.Kind[Pipeline]{
	Schema: store.Schema{
		Kind:   "pipelines",
		Fields: []store.Field{{Name: "createdAt", Type: store.Int}},
		Orders: [][]string{{"createdAt"}},
	},
	Key:   func(p *Pipeline) string { return p.ID },
	Index: func(p *Pipeline) store.Fields { return store.Fields{"createdAt": p.CreatedAt.UnixMilli()} },
	Meta:  func(p *Pipeline) *store.Meta { return &p.Meta },
}

// maxPipelines is how many pipelines a client may have: they are read together.
const maxPipelines = 200

// defaultPipeline is the one that every client has from the start.
func defaultPipeline() *Pipeline {
	return &Pipeline{ID: DefaultPipeline, Name: "Default", Stages: []Stage{
		{FirstStage, "New", Open}, {"contacted", "Contacted", Open}, {"qualified", "Qualified", Open}, {"booked", "Booked", Open},
		{Won, "Won", Won}, {Lost, "Lost", Lost},
	}}
}

// Stages are a client's pipelines as they stood when they were read. The zero value knows the default pipeline, unchanged.
type Stages struct{ pipelines []*Pipeline }

// Stages reads a client's pipelines.
func (b *Book) Stages(ctx context.Context, tn *tenant.Tenant) (Stages, error) {
	ps, err := Pipelines.Find(ctx, tn.DB, store.Query{Order: "createdAt", Limit: maxPipelines + 1})
	return Stages{ps}, err
}

// All gives the pipelines, the default one first.
func (s Stages) All() []*Pipeline {
	out := []*Pipeline{s.Pipeline(DefaultPipeline)}
	for _, p := range s.pipelines {
		if p.ID != DefaultPipeline {
			out = append(out, p)
		}
	}
	return out
}

// Pipeline gives a pipeline by id; nil if there is none.
func (s Stages) Pipeline(pipelineID string) *Pipeline {
	for _, p := range s.pipelines {
		if p.ID == pipelineID {
			return p
		}
	}
	if pipelineID == DefaultPipeline {
		return defaultPipeline()
	}
	return nil
}

// Find gives a stage of a pipeline; false if there is none.
func (s Stages) Find(pipelineID, stageID string) (Stage, bool) {
	p := s.Pipeline(pipelineID)
	if p == nil {
		return Stage{}, false
	}
	return p.Stage(stageID)
}

// Stage gives a stage by id; false if the pipeline has none of that id.
func (p *Pipeline) Stage(stageID string) (Stage, bool) {
	i := slices.IndexFunc(p.Stages, func(st Stage) bool { return st.ID == stageID })
	if i < 0 {
		return Stage{}, false
	}
	return p.Stages[i], true
}

// Place puts a new lead where its way begins: into the first stage of its pipeline.
func (s Stages) Place(l *Lead) {
	if p := s.Pipeline(l.Pipeline); p != nil {
		l.Stage, l.Status = p.Stages[0].ID, p.Stages[0].Kind
	}
}
