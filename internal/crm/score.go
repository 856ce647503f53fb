package crm

import (
	"time"

	"github.com/ecodrix/ecod/internal/id"
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
		Kind: "scoreEvents",
		Fields: []store.Field{
			{Name: "leadId", Type: store.Text}, {Name: "at", Type: store.Int},
			{Name: "listed", Type: store.Text}, // the lead, of what its timeline does not show anyway as a message
			{Name: "fadesAt", Type: store.Int}, // at, of points that do not stay
		},
		Orders: [][]string{{"leadId", "at"}, {"listed", "at"}, {"fadesAt"}},
	},
	Key: func(s *ScoreEvent) string { return s.ID },
	Index: func(s *ScoreEvent) store.Fields {
		f := store.Fields{"leadId": s.LeadID, "at": s.At.UnixMilli()}
		if !s.ofMessage() {
			f["listed"] = s.LeadID
		}
		if !ruleOf(s.Rule).stays() {
			f["fadesAt"] = s.At.UnixMilli()
		}
		return f
	},
	Meta: func(s *ScoreEvent) *store.Meta { return &s.Meta },
}

// FadedAfter is when of the longest half-life less than a thousandth is left: rows are kept for so long.
const FadedAfter = 3 * 365 * 24 * time.Hour

// NewPoints makes the row of an interaction that the engine itself gives points for. source names the interaction for good.
func NewPoints(code, leadID, rule, source, ref string, amount float64, at time.Time) *ScoreEvent {
	return &ScoreEvent{
		ID: id.Derived("sco", code, rule, source), LeadID: leadID, Rule: rule, Points: ruleOf(rule).worth(amount), Ref: ref,
		At: at.UTC().Truncate(time.Millisecond),
	}
}

// Crossing is a change of a score by which the lead's engagement came to another digit of its grade. By names what changed
// it: a repetition after a crash finds it here, and owes the same.
type Crossing struct {
	By   string    `json:"by"`
	From string    `json:"from"`
	To   string    `json:"to"`
	Was  float64   `json:"was"`
	Is   float64   `json:"is"`
	At   time.Time `json:"at"`
}

// crossingsKept is how many crossings a lead remembers, for repetitions of what caused them.
const crossingsKept = 8

// CrossingBy gives the crossing that something caused; nil if there was none.
func (l *Lead) CrossingBy(cause string) *Crossing {
	for i := range l.Crossed {
		if l.Crossed[i].By == cause {
			return &l.Crossed[i]
		}
	}
	return nil
}

// regrade brings the grade up to what the lead is and to its score, which was another before. A grade that there was none
// of before is that of a lead without points.
func (l *Lead) regrade(cause string, was float64, at time.Time) {
	fit, _ := l.Fit()
	before := l.Grade
	if before == "" {
		before = grade(fit, 0, "")
	}
	l.Grade = grade(fit, l.Score, before)
	if l.Grade[1] == before[1] || l.CrossingBy(cause) != nil {
		return
	}
	// never in place: what the lead was copied from has the same crossings
	l.Crossed = append(append([]Crossing{}, l.Crossed[max(0, len(l.Crossed)+1-crossingsKept):]...), Crossing{cause, before, l.Grade, thousandths(was), thousandths(l.Score), at})
}

// refit brings the letter of the grade up to what is known of the lead now.
func (l *Lead) refit() {
	fit, _ := l.Fit()
	fresh := grade(fit, l.Score, l.Grade)
	if len(l.Grade) == len(fresh) {
		fresh = fresh[:1] + l.Grade[1:]
	}
	l.Grade = fresh
}

// occurrence is what a crossing means to the client's rules.
func (c *Crossing) occurrence(l *Lead) Occurrence {
	direction := "up"
	if c.To[1] > c.From[1] { // 1 is the best
		direction = "down"
	}
	return Occurrence{Key: id.Derived("crs", l.ID, c.By), Trigger: ScoreCrossed, LeadID: l.ID, At: c.At, Variables: map[string]any{
		"score": c.Is, "previousScore": c.Was, "grade": c.To, "previousGrade": c.From, "direction": direction,
	}}
}

// ScoreCrossed is the trigger of crossings.
const ScoreCrossed = "score_crossed"
