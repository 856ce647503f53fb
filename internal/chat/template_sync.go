package chat

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// TemplateSyncJob is the type of the job that lists a client's templates at Meta.
const TemplateSyncJob = "whatsapp.templates.sync"

const (
	syncEvery    = 24 * time.Hour // a list older than this is asked for anew
	syncPage     = 100
	syncPages    = 200
	syncTogether = 200 // templates of one commit
)

// grace is how much younger than a list a webhook may look, whose clock has seconds only, and still be newer.
const grace = 2 * time.Second

// deleted is the status under which a template that is gone is told of.
const deleted = "DELETED"

// TemplateView is a template as the API shows it.
type TemplateView struct {
	ID              string  `json:"id"`
	MetaID          *string `json:"metaId"`
	Name            string  `json:"name"`
	Language        string  `json:"language" example:"en_US"`
	Status          string  `json:"status" example:"APPROVED" doc:"Meta's; only APPROVED ones can be sent."`
	Category        string  `json:"category" example:"UTILITY"`
	NextCategory    *string `json:"nextCategory" doc:"Meta announced that the category will become this."`
	SubCategory     *string `json:"subCategory"`
	ParameterFormat *string `json:"parameterFormat" doc:"POSITIONAL or NAMED."`
	Quality         *string `json:"quality" doc:"GREEN, YELLOW, RED or UNKNOWN."`
	Reason          *string `json:"reason" doc:"Of a rejection or a pause."`
	Components      any     `json:"components" doc:"As Meta lists them."`
	UpdatedAt       *string `json:"updatedAt"`
}

// View is the template as the API shows it.
func (t *Template) View() TemplateView {
	v := TemplateView{
		ID: t.ID, MetaID: optional(t.MetaID), Name: t.Name, Language: t.Language, Status: t.Status, Category: t.Category,
		NextCategory: optional(t.NextCategory), SubCategory: optional(t.SubCategory), ParameterFormat: optional(t.ParameterFormat),
		Quality: optional(t.Quality), Reason: optional(t.Reason), UpdatedAt: news.Stamp(t.UpdatedAt),
	}
	if v.Components = []any{}; len(t.Components) > 0 {
		v.Components = t.Components
	}
	return v
}

// told is the write that tells of a template; key names the change.
func (t *Template) told(key string) store.Write {
	return news.Write(t.UpdatedAt, news.TemplateUpdated, t.ID+"|"+key, "template", t.View())
}

// TemplateSync is the job that lists a client's templates at a time; key names the occasion.
func (d *Desk) TemplateSync(tn *tenant.Tenant, key string, at time.Time) store.NewJob {
	n := job.New(tn.Code, TemplateSyncJob, struct{}{})
	n.UniqueKey, n.RunAt = "templates:"+key, at
	return n
}

// TemplateSyncDue gives the job that lists a client's templates, where that was not done for its account yet, or not for
// a day; false otherwise. It is the same job for a day, however often it is asked for.
func (d *Desk) TemplateSyncDue(ctx context.Context, tn *tenant.Tenant) (store.NewJob, bool, error) {
	w := tn.Account().WhatsApp
	if w == nil || w.WABAID == "" {
		return store.NewJob{}, false, nil
	}
	now := d.Now().UTC()
	l, err := TemplateLists.Get(ctx, tn.DB, w.WABAID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.NewJob{}, false, err
	}
	if err == nil && now.Sub(l.SyncedAt) < syncEvery {
		return store.NewJob{}, false, nil
	}
	key := w.WABAID + "|" + w.UpdatedAt.UTC().Format(time.RFC3339) + "|" + now.Format(time.DateOnly)
	return d.TemplateSync(tn, key, now), true, nil
}

// HandleTemplateSync is the handler of TemplateSyncJob: it reads the whole list and makes ours equal to it. The list's own
// record is the deciding one, and the last.
func (d *Desk) HandleTemplateSync(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	acc, err := d.account(tn)
	if err != nil {
		return job.Result{}, job.Park(codeOfFault(err), err)
	}
	began := d.Now().UTC()
	theirs, err := d.listTemplates(ctx, acc)
	if err != nil {
		return job.Result{}, verdict(err)
	}
	changed, removed := 0, 0
	err = retry(ctx, func() error {
		changed, removed = 0, 0
		stored, err := Templates.Find(ctx, tn.DB, store.Query{Order: "key", Limit: store.MaxLimit})
		if err != nil {
			return err
		}
		ours := map[string]*Template{}
		for _, t := range stored {
			ours[t.ID] = t
		}
		var writes []store.Write
		for _, theirs := range theirs {
			key := templateID(tn.Code, acc.WABAID, theirs.Name, theirs.Language)
			t := ours[key]
			delete(ours, key)
			if t == nil {
				t = &Template{ID: key, WABAID: acc.WABAID, Name: theirs.Name, Language: theirs.Language}
			}
			if !t.follow(theirs, began) {
				continue
			}
			t.UpdatedAt = began
			changed++
			writes = append(writes, t.told(j.ID), Templates.Update(t))
		}
		for _, t := range stored {
			if ours[t.ID] == nil || t.UpdatedAt.After(began) { // made since
				continue
			}
			t.Status = deleted
			removed++
			writes = append(writes, news.Write(began, news.TemplateUpdated, t.ID+"|"+j.ID, "template", t.View()), Templates.Remove(t))
		}
		for some := range slices.Chunk(writes, 2*syncTogether) {
			if err := tn.DB.Commit(ctx, some...); err != nil {
				return err
			}
		}
		return tn.DB.Commit(ctx, TemplateLists.Set(&TemplateList{WABAID: acc.WABAID, Templates: len(theirs), SyncedAt: began}))
	})
	return job.Result{Result: map[string]int{"templates": len(theirs), "changed": changed, "removed": removed}}, err
}

// listTemplates reads an account's whole list, page by page.
func (d *Desk) listTemplates(ctx context.Context, acc whatsapp.Account) ([]whatsapp.Template, error) {
	var out []whatsapp.Template
	after := ""
	for range syncPages {
		page, err := d.Graph.Templates(ctx, acc, after, syncPage)
		if err != nil {
			return nil, err
		}
		out = append(out, page.Templates...)
		if page.After == "" || page.After == after {
			return out, nil
		}
		after = page.After
	}
	return nil, errors.New("the list of templates has no end")
}

// follow takes over what a list, asked for at a time, says of a template; false if that is nothing new. What a webhook
// told since is newer.
func (t *Template) follow(l whatsapp.Template, asked time.Time) bool {
	was := *t
	asked = asked.Add(-grace)
	t.MetaID, t.SubCategory, t.ParameterFormat = l.ID, l.SubCategory, l.ParameterFormat
	if !t.StatusAt.After(asked) {
		t.Status, t.Reason = l.Status, l.RejectedReason
		if t.Status == was.Status && t.Reason == "" {
			t.Reason = was.Reason // a pause's, which only the webhook tells
		}
	}
	if !t.QualityAt.After(asked) {
		t.Quality = l.Quality
	}
	if !t.CategoryAt.After(asked) {
		t.Category = l.Category
		if t.NextCategory == t.Category {
			t.NextCategory = ""
		}
	}
	if !sameJSON(t.Components, l.Components) {
		t.Components = l.Components
	}
	return t.Version == 0 || t.MetaID != was.MetaID || t.Status != was.Status || t.Reason != was.Reason || t.Category != was.Category ||
		t.NextCategory != was.NextCategory || t.SubCategory != was.SubCategory || t.ParameterFormat != was.ParameterFormat ||
		t.Quality != was.Quality || !sameJSON(t.Components, was.Components)
}

// sameJSON compares as texts without white space: the store keeps JSON inside JSON so.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	return bytes.Equal(compact(a), compact(b))
}

// templateEvent takes in news of a template. The note of it is the deciding record: told again, it is no news. Of a
// template that we do not know, and of new components, which the webhook tells in part only, the list tells.
func (d *Desk) templateEvent(ctx context.Context, tn *tenant.Tenant, dl *store.Delivery, it whatsapp.Item) ([]store.NewJob, error) {
	note := noteOf(dl, it)
	var next []store.NewJob
	ask := func() error {
		known, err := listed(ctx, tn, it.WABAID)
		if known {
			next = []store.NewJob{d.TemplateSync(tn, note.ID, time.Time{})}
		}
		return err
	}
	e := it.Template
	if it.Kind == whatsapp.KindTemplateComponents {
		if err := ask(); err != nil {
			return nil, err
		}
	}
	if known, err := noted(ctx, tn, note); err != nil || known {
		return next, err
	}
	var writes []store.Write
	t, err := Templates.Get(ctx, tn.DB, templateID(tn.Code, it.WABAID, e.Name, e.Language))
	switch {
	case errors.Is(err, store.ErrNotFound):
		if e.Event != deleted {
			err = ask()
		} else {
			err = nil
		}
	case err != nil:
	case it.Kind == whatsapp.KindTemplateStatus && e.Event == deleted:
		t.Status, t.UpdatedAt = deleted, d.Now().UTC()
		writes = []store.Write{t.told(note.ID), Templates.Remove(t)}
	case t.hear(it.Kind, e, at(it.EntryTime, dl.ReceivedAt)):
		t.UpdatedAt = d.Now().UTC()
		writes = []store.Write{t.told(note.ID), Templates.Update(t)}
	}
	if err != nil {
		return nil, err
	}
	return next, tn.DB.Commit(ctx, append(writes, Notes.Ensure(note))...)
}

// hear takes over what a webhook of a time tells of a template; false if that is nothing new.
func (t *Template) hear(kind whatsapp.Kind, e *whatsapp.TemplateEvent, at time.Time) bool {
	was := *t
	if e.ID != "" {
		t.MetaID = e.ID
	}
	at = at.UTC()
	switch {
	case kind == whatsapp.KindTemplateStatus && !at.Before(t.StatusAt) && e.Event != "":
		t.StatusAt = at
		switch e.Event {
		case "FLAGGED": // a warning: it can still be sent
		case "REINSTATED":
			t.Status, t.Reason = approved, ""
		default:
			t.Status, t.Reason = e.Event, e.Reason
			if t.Reason == "" {
				t.Reason = e.Info
			}
		}
	case kind == whatsapp.KindTemplateQuality && !at.Before(t.QualityAt):
		t.QualityAt, t.Quality = at, e.Quality
	case kind == whatsapp.KindTemplateCategory && !at.Before(t.CategoryAt):
		t.CategoryAt, t.NextCategory = at, e.NextCategory
		if e.Category != "" {
			t.Category = e.Category
		}
	}
	return t.MetaID != was.MetaID || t.Status != was.Status || t.Reason != was.Reason || t.Quality != was.Quality || t.Category != was.Category ||
		t.NextCategory != was.NextCategory || !t.StatusAt.Equal(was.StatusAt) || !t.QualityAt.Equal(was.QualityAt) || !t.CategoryAt.Equal(was.CategoryAt)
}
