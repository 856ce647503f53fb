package api

import (
	"context"
	"net/http"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// tags is the API of tags.
type tags struct{ book *crm.Book }

// RegisterTags adds the API of tags.
func RegisterTags(a *API, book *crm.Book) {
	s := tags{book}
	const tag = "CRM"
	Client(a, Op{Route: "GET /api/crm/tags", ID: "listTags", Tag: tag, Summary: "List tags by name, with how many leads have each",
		Description: "A tag is known once it was made here or given to a lead."}, s.list)
	Client(a, Op{Route: "POST /api/crm/tags", ID: "createTag", Tag: tag, Summary: "Create a tag", Status: http.StatusCreated}, s.create)
	Client(a, Op{Route: "GET /api/crm/tags/{id}", ID: "getTag", Tag: tag, Summary: "Read a tag"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[crm.TagView], error) {
			t, err := book.TagByID(ctx, tn, in.ID)
			if err != nil {
				return nil, err
			}
			return s.answer(ctx, tn, t)
		})
	Client(a, Op{Route: "PATCH /api/crm/tags/{id}", ID: "renameTag", Tag: tag, Summary: "Rename a tag",
		Description: "Its id changes with it. A job gives the leads the new name; no tag_added or tag_removed is triggered. A name that another tag has: 409 tag.exists."}, s.rename)
	Client(a, Op{Route: "DELETE /api/crm/tags/{id}", ID: "deleteTag", Tag: tag, Summary: "Delete a tag",
		Description: "A job takes it from the leads, and tag_removed is triggered for each."},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*struct{}, error) {
			return nil, book.DeleteTag(ctx, tn, once(ctx), in.ID)
		})
}

func (s tags) view(ctx context.Context, tn *tenant.Tenant, t *crm.Tag) (crm.TagView, error) {
	n, err := s.book.TagLeads(ctx, tn, t)
	return crm.TagView{ID: t.ID, Name: t.Name, Leads: n, CreatedAt: news.Stamp(t.CreatedAt)}, err
}

func (s tags) answer(ctx context.Context, tn *tenant.Tenant, t *crm.Tag) (*Answer[crm.TagView], error) {
	v, err := s.view(ctx, tn, t)
	if err != nil {
		return nil, err
	}
	return OK(v)
}

type tagsInput struct {
	Page
	Q string `query:"q" maxLength:"100" doc:"The beginning of the name, as it is written."`
}

func (s tags) list(ctx context.Context, tn *tenant.Tenant, in *tagsInput) (*Answer[List[crm.TagView]], error) {
	at, err := in.afterIn("tags", crm.Tags.Schema, "name")
	if err != nil {
		return nil, err
	}
	q := store.Query{Order: "name", After: at, Limit: in.Limit + 1}
	if in.Q != "" {
		q.Where = append(q.Where, store.Where("name", store.Prefix, in.Q))
	}
	rows, err := crm.Tags.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	out := ListOf(rows, in.Page, "tags", func(t *crm.Tag) store.Cursor {
		return store.Cursor{Value: crm.Tags.Index(t)["name"], ID: t.ID}
	}, func(t *crm.Tag) crm.TagView {
		v, e := s.view(ctx, tn, t)
		if e != nil {
			err = e
		}
		return v
	})
	return out, err
}

type tagInput struct {
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"100" example:"vip"`
	}
}

func (s tags) create(ctx context.Context, tn *tenant.Tenant, in *tagInput) (*Answer[crm.TagView], error) {
	var bad fields
	names := bad.tags("/name", []string{in.Body.Name})
	if err := bad.fault(); err != nil {
		return nil, err
	}
	t, err := s.book.AddTag(ctx, tn, names[0])
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, tn, t)
}

type tagPatch struct {
	ByID
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"100"`
	}
}

func (s tags) rename(ctx context.Context, tn *tenant.Tenant, in *tagPatch) (*Answer[crm.TagView], error) {
	var bad fields
	names := bad.tags("/name", []string{in.Body.Name})
	if err := bad.fault(); err != nil {
		return nil, err
	}
	t, err := s.book.RenameTag(ctx, tn, once(ctx), in.ID, names[0])
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, tn, t)
}
