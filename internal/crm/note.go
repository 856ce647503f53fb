package crm

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Note is what somebody wrote about a lead.
type Note struct {
	store.Meta
	ID        string    `json:"id"`
	LeadID    string    `json:"leadId"`
	Text      string    `json:"text"`
	By        string    `json:"by,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
}

// Notes is the kind.
var Notes = store.Kind[Note]{
	Schema: store.Schema{
		Kind:   "leadNotes",
		Fields: []store.Field{{Name: "leadId", Type: store.Text}, {Name: "at", Type: store.Int}},
		Orders: [][]string{{"leadId", "at"}},
	},
	Key:   func(n *Note) string { return n.ID },
	Index: func(n *Note) store.Fields { return store.Fields{"leadId": n.LeadID, "at": n.CreatedAt.UnixMilli()} },
	Meta:  func(n *Note) *store.Meta { return &n.Meta },
}

// AddNote writes a note about a lead; once per key. fault.NotFound.
func (b *Book) AddNote(ctx context.Context, tn *tenant.Tenant, leadID, key, by, text string) (*Note, error) {
	l, err := b.Lead(ctx, tn, leadID)
	if err != nil {
		return nil, err
	}
	n := &Note{ID: id.Derived("not", tn.Code, key), LeadID: l.ID, Text: text, By: by, CreatedAt: b.Now().UTC().Truncate(time.Millisecond)}
	err = tn.DB.Commit(ctx, news.Write(n.CreatedAt, news.LeadUpdated, l.ID+"|"+n.ID, "lead", l.View(l.Version)), Notes.Insert(n))
	if errors.Is(err, store.ErrDuplicate) {
		return Notes.Get(ctx, tn.DB, n.ID)
	}
	return n, err
}

// NotesOf reads the notes about a lead, newest first, with those about leads that were merged into it. fault.NotFound.
func (b *Book) NotesOf(ctx context.Context, tn *tenant.Tenant, leadID string, after *store.Cursor, limit int) ([]*Note, error) {
	l, err := b.Lead(ctx, tn, leadID)
	if err != nil {
		return nil, err
	}
	return Notes.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, l.ID)}, Order: "at", Desc: true, After: after, Limit: limit})
}

// NoteView is a note as the API shows it.
type NoteView struct {
	ID        string  `json:"id"`
	LeadID    string  `json:"leadId"`
	Text      string  `json:"text"`
	By        *string `json:"by" doc:"The user who wrote it; null for the API key."`
	CreatedAt *string `json:"createdAt"`
}

// View is the note as the API shows it.
func (n *Note) View() NoteView {
	return NoteView{ID: n.ID, LeadID: n.LeadID, Text: n.Text, By: optional(n.By), CreatedAt: news.Stamp(n.CreatedAt)}
}
