package api

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

func (s whatsApp) templates(a *API) {
	Client(a, Op{Route: "GET /api/whatsapp/templates", ID: "listTemplates", Tag: whatsAppTag, Summary: "List message templates, by name and language",
		Description: "As Meta told of them last: by the list, which is read daily and on POST …/sync, or by a webhook since."}, listTemplates)
	Client(a, Op{Route: "POST /api/whatsapp/templates/sync", ID: "syncTemplates", Tag: whatsAppTag, Summary: "Read the list of templates from Meta", Status: http.StatusAccepted,
		Description: "A job; its result counts the templates, and those that changed."},
		func(ctx context.Context, tn *tenant.Tenant, _ *struct{}) (*Answer[QueuedJob], error) {
			if err := s.desk.Configured(tn); err != nil {
				return nil, err
			}
			return s.queued(ctx, s.desk.TemplateSync(tn, or(Once(ctx), id.New("req")), time.Time{}))
		})
	Client(a, Op{Route: "POST /api/whatsapp/templates", ID: "createTemplate", Tag: whatsAppTag, Summary: "Hand a template in at Meta, for review", Status: http.StatusCreated,
		Description: "Meta is asked at once. Should its answer be lost (503 whatsapp.unconfirmed), the list is read again and tells."}, s.createTemplate)
	Client(a, Op{Route: "DELETE /api/whatsapp/templates/{name}", ID: "deleteTemplate", Tag: whatsAppTag, Summary: "Delete a template at Meta",
		Description: "In all languages, or in one."}, s.deleteTemplate)
}

type templatesInput struct {
	Page
	Name     string `query:"name" maxLength:"512"`
	Status   string `query:"status" maxLength:"50" example:"APPROVED"`
	Language string `query:"language" maxLength:"20" example:"en_US"`
}

func listTemplates(ctx context.Context, tn *tenant.Tenant, in *templatesInput) (*Answer[List[chat.TemplateView]], error) {
	at, err := in.afterIn("templates", chat.Templates.Schema, "key")
	if err != nil {
		return nil, err
	}
	q := store.Query{Order: "key", After: at, Limit: in.Limit + 1}
	for _, f := range []struct{ field, value string }{{"name", in.Name}, {"status", in.Status}, {"language", whatsapp.Language(in.Language)}} {
		if f.value != "" {
			q.Where = append(q.Where, store.Where(f.field, store.Eq, f.value))
		}
	}
	rows, err := chat.Templates.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "templates", func(t *chat.Template) store.Cursor {
		return store.Cursor{Value: chat.Templates.Index(t)["key"], ID: t.ID}
	}, (*chat.Template).View), nil
}

var templateLanguage = regexp.MustCompile(`^[a-z]{2,3}(_[A-Z]{2,4})?$`)

type createTemplateInput struct {
	Body struct {
		Name            string           `json:"name" minLength:"1" maxLength:"512" pattern:"^[a-z0-9_]+$" patternDescription:"lower-case letters, digits and _" example:"order_shipped"`
		Language        string           `json:"language" minLength:"2" maxLength:"20" example:"en_US"`
		Category        string           `json:"category" enum:"UTILITY,MARKETING,AUTHENTICATION"`
		ParameterFormat string           `json:"parameterFormat,omitempty" enum:"POSITIONAL,NAMED"`
		Components      []map[string]any `json:"components" minItems:"1" maxItems:"20" doc:"Graph's: HEADER, BODY, FOOTER, BUTTONS."`
	}
}

func (s whatsApp) createTemplate(ctx context.Context, tn *tenant.Tenant, in *createTemplateInput) (*Answer[chat.TemplateView], error) {
	b := in.Body
	var bad fields
	language := whatsapp.Language(b.Language)
	if !templateLanguage.MatchString(language) {
		bad.add("/language", "Expected a language of Meta's such as en_US.")
	}
	bad.size("/components", b.Components, 64<<10)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	components, err := json.Marshal(b.Components)
	if err != nil {
		return nil, err
	}
	t, err := s.desk.CreateTemplate(ctx, tn, or(Once(ctx), id.New("req")), whatsapp.TemplateDraft{
		Name: b.Name, Language: language, Category: b.Category, ParameterFormat: b.ParameterFormat, Components: components,
	}, s.runner.Enqueue)
	if err != nil {
		return nil, err
	}
	return OK(t.View())
}

// DeleteTemplateInput names a template.
type DeleteTemplateInput struct {
	Name     string `path:"name" maxLength:"512"`
	Language string `query:"language" maxLength:"20" doc:"Only in this one."`
}

func (s whatsApp) deleteTemplate(ctx context.Context, tn *tenant.Tenant, in *DeleteTemplateInput) (*struct{}, error) {
	return nil, s.desk.DeleteTemplate(ctx, tn, id.New("req"), in.Name, in.Language, s.runner.Enqueue)
}
