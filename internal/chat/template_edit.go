package chat

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// reconcileAfter is when the list is asked for after a change of templates at Meta.
const reconcileAfter = 10 * time.Second

// templateExists is Meta's subcode for a template whose name and language are taken.
const templateExists = 2388024

// Enqueue makes jobs (job.Runner.Enqueue).
type Enqueue func(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error)

// CreateTemplate hands a template in at Meta, for review. The job that lists the templates is made before the call: should
// the answer be lost, or this process end, the list tells what became of it. occasion names the request.
func (d *Desk) CreateTemplate(ctx context.Context, tn *tenant.Tenant, occasion string, draft whatsapp.TemplateDraft, enqueue Enqueue) (*Template, error) {
	acc, err := d.account(tn)
	if err != nil {
		return nil, err
	}
	if _, err := enqueue(ctx, d.TemplateSync(tn, occasion, d.Now().Add(reconcileAfter))); err != nil {
		return nil, err
	}
	made, err := d.Graph.CreateTemplate(ctx, acc, draft)
	if err != nil {
		var api *whatsapp.APIError
		if errors.As(err, &api) && api.Subcode == templateExists {
			return nil, fault.Wrap(err, fault.Conflict, "whatsapp.template_exists", "Meta has a template of this name in this language.")
		}
		return nil, refusalOf(err)
	}
	var t *Template
	err = retry(ctx, func() error {
		key := templateID(tn.Code, acc.WABAID, draft.Name, draft.Language)
		if t, err = Templates.Get(ctx, tn.DB, key); errors.Is(err, store.ErrNotFound) {
			t, err = &Template{ID: key, WABAID: acc.WABAID, Name: draft.Name, Language: draft.Language}, nil
		}
		if err != nil {
			return err
		}
		t.MetaID, t.Status, t.Category, t.ParameterFormat, t.Components = made.ID, made.Status, made.Category, draft.ParameterFormat, draft.Components
		t.UpdatedAt = d.Now().UTC()
		return tn.DB.Commit(ctx, t.told(occasion), Templates.Update(t))
	})
	return t, err
}

// DeleteTemplate deletes a template at Meta, in one language or in all of them.
func (d *Desk) DeleteTemplate(ctx context.Context, tn *tenant.Tenant, occasion, name, language string, enqueue Enqueue) error {
	acc, err := d.account(tn)
	if err != nil {
		return err
	}
	where := []store.Term{store.Where("name", store.Eq, name)}
	if language != "" {
		where = append(where, store.Where("language", store.Eq, whatsapp.Language(language)))
	}
	ours, err := Templates.Find(ctx, tn.DB, store.Query{Where: where, Order: "key", Limit: 1000})
	if err != nil {
		return err
	}
	known, err := listed(ctx, tn, acc.WABAID)
	if err != nil {
		return err
	}
	if known && len(ours) == 0 {
		return fault.Missing("template")
	}
	metaID := ""
	if language != "" {
		if len(ours) > 0 {
			metaID = ours[0].MetaID
		}
		if metaID == "" {
			return fault.New(fault.Conflict, "whatsapp.template_unlisted", "Meta's id of the template is not known yet. Sync the templates first.")
		}
	}
	if _, err := enqueue(ctx, d.TemplateSync(tn, occasion, d.Now().Add(reconcileAfter))); err != nil {
		return err
	}
	if err := d.Graph.DeleteTemplate(ctx, acc, name, metaID); err != nil {
		return refusalOf(err)
	}
	return retry(ctx, func() error {
		ours, err := Templates.Find(ctx, tn.DB, store.Query{Where: where, Order: "key", Limit: 1000})
		if err != nil || len(ours) == 0 {
			return err
		}
		var writes []store.Write
		for _, t := range ours {
			t.Status, t.UpdatedAt = deleted, d.Now().UTC()
			writes = append(writes, t.told(occasion), Templates.Remove(t))
		}
		return tn.DB.Commit(ctx, writes...)
	})
}
