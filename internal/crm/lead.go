package crm

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ecodrix/ecod/internal/store"
)

// Statuses of a lead.
const (
	Open = "open"
	Won  = "won"
	Lost = "lost"
)

// The pipeline and the stage that a lead starts in.
const (
	DefaultPipeline = "default"
	FirstStage      = "new"
)

// Lead is a person's business with the client.
type Lead struct {
	store.Meta
	ID             string         `json:"id"`
	ContactID      string         `json:"contactId"`
	Name           string         `json:"name"`
	Phone          string         `json:"phone"` // E.164, or ""
	Email          string         `json:"email"`
	Source         string         `json:"source"`
	Pipeline       string         `json:"pipeline"`
	Stage          string         `json:"stage"`
	Status         string         `json:"status"`
	Tags           []string       `json:"tags"`
	Score          float64        `json:"score"`
	Grade          string         `json:"grade"`
	OwnerID        string         `json:"ownerId"`
	Value          float64        `json:"value"`
	Currency       string         `json:"currency"`
	Fields         map[string]any `json:"fields"`
	CreatedAt      time.Time      `json:"createdAt"`
	UpdatedAt      time.Time      `json:"updatedAt"`
	LastActivityAt time.Time      `json:"lastActivityAt"`

	// Score is as of ScoredAt where it was worked out of the ledger; Decays tells that it changes by itself since, and TurnsAt
	// when that next gives the grade another digit, if soon. Crossed are the last times that it did.
	ScoredAt time.Time  `json:"scoredAt,omitzero"`
	Decays   bool       `json:"decays,omitempty"`
	TurnsAt  time.Time  `json:"turnsAt,omitzero"`
	Crossed  []Crossing `json:"crossed,omitempty"`
	// StagedAt is when the lead came into its stage; zero: when it was made.
	StagedAt time.Time `json:"stagedAt,omitzero"`
	// MadeBy is the mutation that created the lead; Applied are the last mutations done to it. A mutation that is
	// repeated after a crash finds itself here and changes nothing.
	MadeBy  string   `json:"madeBy,omitempty"`
	Applied []string `json:"applied,omitempty"`
}

// appliedKept is how many mutations a lead remembers. A repetition comes within seconds to hours of the first try,
// and is refused by its unfinished run long before this many others came between.
const appliedKept = 32

// Leads is the kind.
var Leads = store.Kind[Lead]{
	Schema: store.Schema{
		Kind: "leads",
		Fields: []store.Field{
			{Name: "phone", Type: store.Text, Unique: true}, // PhoneKey
			{Name: "email", Type: store.Text},
			{Name: "mailbox", Type: store.Text, Unique: true}, // the e-mail of a lead without a phone
			{Name: "contactId", Type: store.Text},
			{Name: "tag", Type: store.Text, Multi: true},
			{Name: "word", Type: store.Text, Multi: true},
			{Name: "pipeline", Type: store.Text}, {Name: "stage", Type: store.Text}, {Name: "status", Type: store.Text},
			{Name: "source", Type: store.Text}, {Name: "ownerId", Type: store.Text}, {Name: "name", Type: store.Text},
			{Name: "score", Type: store.Int},     // thousandths
			{Name: "fadesFrom", Type: store.Int}, // when the score was worked out, of one that decays
			{Name: "createdAt", Type: store.Int}, {Name: "updatedAt", Type: store.Int}, {Name: "lastActivityAt", Type: store.Int},
		},
		Orders: [][]string{{"createdAt"}, {"updatedAt"}, {"lastActivityAt"}, {"score"}, {"name"}, {"email"}, {"contactId"}, {"status", "createdAt"}, {"stage", "createdAt"}, {"fadesFrom"}},
	},
	Key: func(l *Lead) string { return l.ID },
	Index: func(l *Lead) store.Fields {
		f := store.Fields{
			"contactId": l.ContactID, "tag": l.Tags, "word": words(l.Name, l.Email, l.Phone), "pipeline": l.Pipeline, "stage": l.Stage,
			"status": l.Status, "source": l.Source, "ownerId": l.OwnerID, "name": cut(strings.ToLower(l.Name)),
			"score": ScoreKey(l.Score), "createdAt": l.CreatedAt.UnixMilli(), "updatedAt": l.UpdatedAt.UnixMilli(),
			"lastActivityAt": l.LastActivityAt.UnixMilli(),
		}
		if l.Decays {
			f["fadesFrom"] = l.ScoredAt.UnixMilli()
		}
		if l.Phone != "" {
			f["phone"] = PhoneKey(l.Phone)
		}
		if l.Email != "" {
			f["email"] = l.Email
			if l.Phone == "" {
				f["mailbox"] = l.Email
			}
		}
		return f
	},
	Meta: func(l *Lead) *store.Meta { return &l.Meta },
}

// ScoreKey is a score as it is searched.
func ScoreKey(score float64) int64 { return int64(math.Round(score * 1000)) }

// words are the lower-cased words of some texts, for searches by prefix.
func words(texts ...string) []string {
	var out []string
	for _, t := range texts {
		for _, w := range Words(t) {
			if !slices.Contains(out, w) && len(out) < 32 {
				out = append(out, w)
			}
		}
	}
	return out
}

// Words splits a text into lower-cased words of letters and digits.
func Words(text string) []string {
	ws := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.IsMark(r) })
	for i := range ws {
		ws[i] = cut(ws[i])
	}
	return ws
}

// cut bounds a searchable text.
func cut(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// Did tells whether a mutation was done to the lead already.
func (l *Lead) Did(mutation string) bool { return slices.Contains(l.Applied, mutation) }

// Mark remembers a mutation as done.
func (l *Lead) Mark(mutation string) {
	l.Applied = append(l.Applied, mutation)
	if n := len(l.Applied) - appliedKept; n > 0 {
		l.Applied = slices.Clone(l.Applied[n:])
	}
}

// AddTags adds tags and gives those that the lead did not have.
func (l *Lead) AddTags(tags ...string) (added []string) {
	for _, t := range tags {
		if t = strings.TrimSpace(t); t != "" && !slices.Contains(l.Tags, t) {
			l.Tags = append(l.Tags, t)
			added = append(added, t)
		}
	}
	return added
}

// RemoveTags removes tags and gives those that the lead had.
func (l *Lead) RemoveTags(tags ...string) (removed []string) {
	for _, t := range tags {
		t = strings.TrimSpace(t)
		if i := slices.Index(l.Tags, t); i >= 0 {
			l.Tags = slices.Delete(l.Tags, i, i+1)
			removed = append(removed, t)
		}
	}
	return removed
}

// MoveTo puts the lead into a stage of a pipeline; status is the stage's kind. False: it stood there.
func (l *Lead) MoveTo(pipeline, stage, status string, at time.Time) bool {
	if l.Pipeline == pipeline && l.Stage == stage {
		return false
	}
	l.Pipeline, l.Stage, l.Status, l.StagedAt = pipeline, stage, status, at
	return true
}
