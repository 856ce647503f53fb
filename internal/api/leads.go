package api

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// RegisterLeads adds the API of leads.
func RegisterLeads(a *API, book *crm.Book) {
	const tag = "CRM"
	registerLeadChanges(a, book)
	Client(a, Op{Route: "GET /api/crm/leads", ID: "listLeads", Tag: tag, Summary: "List and search leads",
		Description: "Filters narrow each other. Scores are as stored."}, listLeads)
	Client(a, Op{Route: "GET /api/crm/leads/{id}/score", ID: "getLeadScore", Tag: tag, Summary: "Explain a lead's score",
		Description: "Exact at this moment, where a lead shows its score as it was last stored: what the engine counts by itself follows in seconds, fading at least daily. Each interaction counts once; most fade by half-lives, " +
			"and rules and groups of rules are bounded. An event has points by default only where no live rule of its trigger has a lead.score action."},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[crm.ScoreView], error) {
			v, err := book.Score(ctx, tn, in.ID)
			if err != nil {
				return nil, err
			}
			return OK(*v)
		})
	Client(a, Op{Route: "GET /api/crm/leads/{id}", ID: "getLead", Tag: tag, Summary: "Read a lead"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedLead, error) {
			l, err := book.Lead(ctx, tn, in.ID)
			if err != nil {
				return nil, err
			}
			return &taggedLead{ETag: etag(l.Version), Body: l.View(l.Version)}, nil
		})
	a.nullable("ScoreView", "next")
}

type taggedLead struct {
	ETag string `header:"ETag"`
	Body crm.LeadView
}

// Maybe is a parameter that may be left out where its zero value means something.
type Maybe[T any] struct {
	Value T
	Set   bool
}

// Schema documents the parameter as its value.
func (Maybe[T]) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[T](), true, "")
	return &s
}

// Receiver is where huma puts the value.
func (m *Maybe[T]) Receiver() reflect.Value { return reflect.ValueOf(m).Elem().Field(0) }

// OnParamSet notes whether there is one.
func (m *Maybe[T]) OnParamSet(set bool, _ any) { m.Set = set }

func (m *Maybe[T]) pointer() *T {
	if !m.Set {
		return nil
	}
	return &m.Value
}

type leadsInput struct {
	Page
	Q             string         `query:"q" maxLength:"200" doc:"Words of name, e-mail or phone, each from its beginning; any case."`
	Phone         string         `query:"phone" maxLength:"64" doc:"In any spelling."`
	Email         string         `query:"email" maxLength:"254"`
	Tag           []string       `query:"tag,explode" maxItems:"10" doc:"Repeated: all of them."`
	Pipeline      string         `query:"pipeline" maxLength:"100"`
	Stage         string         `query:"stage" maxLength:"100"`
	Status        string         `query:"status" enum:"open,won,lost"`
	Source        string         `query:"source" maxLength:"100"`
	OwnerID       string         `query:"ownerId" maxLength:"100"`
	ScoreMin      Maybe[float64] `query:"scoreMin" minimum:"-1000000000" maximum:"1000000000"`
	ScoreMax      Maybe[float64] `query:"scoreMax" minimum:"-1000000000" maximum:"1000000000"`
	CreatedAfter  Time           `query:"createdAfter" doc:"Later than this."`
	CreatedBefore Time           `query:"createdBefore" doc:"Earlier than this."`
	Sort          string         `query:"sort" maxLength:"32" doc:"createdAt, updatedAt, lastActivityAt, score or name, with - before it for descending; -createdAt if left out."`
}

func listLeads(ctx context.Context, tn *tenant.Tenant, in *leadsInput) (*Answer[List[crm.LeadView]], error) {
	for name, score := range map[string]float64{"query.scoreMin": in.ScoreMin.Value, "query.scoreMax": in.ScoreMax.Value} {
		if math.IsNaN(score) { // it passes every comparison
			return nil, fault.Bad(name, "Expected a number.")
		}
	}
	q, err := crm.LeadQuery(crm.LeadFilter{
		Q: in.Q, Phone: in.Phone, Email: in.Email, Pipeline: in.Pipeline, Stage: in.Stage, Status: in.Status, Source: in.Source, OwnerID: in.OwnerID, Tags: in.Tag,
		ScoreMin: in.ScoreMin.pointer(), ScoreMax: in.ScoreMax.pointer(), CreatedAfter: in.CreatedAfter.Time, CreatedBefore: in.CreatedBefore.Time,
		Sort: in.Sort,
	}, tn.Account().DefaultCountry)
	if err != nil {
		return nil, inQuery(err)
	}
	name := "leads:" + or(in.Sort, "-createdAt")
	if q.After, err = in.afterIn(name, crm.Leads.Schema, q.Order); err != nil {
		return nil, err
	}
	q.Limit = in.Limit + 1
	rows, err := crm.Leads.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, name, func(l *crm.Lead) store.Cursor {
		return store.Cursor{Value: crm.Leads.Index(l)[q.Order], ID: l.ID}
	}, func(l *crm.Lead) crm.LeadView { return l.View(l.Version) }), nil
}

// inQuery makes the pointers of a fault about parameters what they are: domains speak of members.
func inQuery(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	moved := *f
	moved.Fields = nil
	for _, e := range f.Fields {
		if name, ok := strings.CutPrefix(e.Pointer, "/"); ok {
			e.Pointer = "query." + name
		}
		moved.Fields = append(moved.Fields, e)
	}
	return &moved
}
