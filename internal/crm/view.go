package crm

import "github.com/ecodrix/ecod/internal/news"

// LeadView is a lead as the API shows it.
type LeadView struct {
	ID             string         `json:"id"`
	ContactID      string         `json:"contactId"`
	Name           string         `json:"name"`
	Phone          *string        `json:"phone"`
	Email          *string        `json:"email"`
	Source         string         `json:"source"`
	Pipeline       string         `json:"pipeline"`
	Stage          string         `json:"stage"`
	Status         string         `json:"status" enum:"open,won,lost"`
	Tags           []string       `json:"tags"`
	Score          float64        `json:"score"`
	Grade          string         `json:"grade"`
	OwnerID        *string        `json:"ownerId"`
	Value          float64        `json:"value"`
	Currency       string         `json:"currency"`
	Fields         map[string]any `json:"fields"`
	Version        int64          `json:"version"`
	CreatedAt      *string        `json:"createdAt"`
	UpdatedAt      *string        `json:"updatedAt"`
	LastActivityAt *string        `json:"lastActivityAt"`
}

// View is the lead as the API shows it. version is the one it has, or will have once written.
func (l *Lead) View(version int64) LeadView {
	v := LeadView{
		ID: l.ID, ContactID: l.ContactID, Name: l.Name, Phone: optional(l.Phone), Email: optional(l.Email), Source: l.Source,
		Pipeline: l.Pipeline, Stage: l.Stage, Status: l.Status, Tags: l.Tags, Score: l.Score, Grade: l.Grade, OwnerID: optional(l.OwnerID),
		Value: l.Value, Currency: l.Currency, Fields: l.Fields, Version: version,
		CreatedAt: news.Stamp(l.CreatedAt), UpdatedAt: news.Stamp(l.UpdatedAt), LastActivityAt: news.Stamp(l.LastActivityAt),
	}
	if v.Tags == nil {
		v.Tags = []string{}
	}
	if v.Fields == nil {
		v.Fields = map[string]any{}
	}
	return v
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
