package crm

import (
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// ScoreEvent is one row of a lead's score ledger. Its id is derived from rule and source, so each source counts once.
type ScoreEvent struct {
	store.Meta
	ID     string    `json:"id"`
	LeadID string    `json:"leadId"`
	Rule   string    `json:"rule"`
	Points float64   `json:"points"`
	Ref    string    `json:"ref"` // what caused it
	At     time.Time `json:"at"`
}

// ScoreEvents is the kind.
var ScoreEvents = store.Kind[ScoreEvent]{
	Schema: store.Schema{
		Kind:   "scoreEvents",
		Fields: []store.Field{{Name: "leadId", Type: store.Text}, {Name: "at", Type: store.Int}},
		Orders: [][]string{{"leadId", "at"}},
	},
	Key:   func(s *ScoreEvent) string { return s.ID },
	Index: func(s *ScoreEvent) store.Fields { return store.Fields{"leadId": s.LeadID, "at": s.At.UnixMilli()} },
	Meta:  func(s *ScoreEvent) *store.Meta { return &s.Meta },
}
