package crm

import (
	"context"
	"math"
	"time"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ScoreView is a lead's score, explained, as the API shows it.
type ScoreView struct {
	Total      float64     `json:"total" doc:"The sum of decayedTo of all rows."`
	Fit        float64     `json:"fit" doc:"0 to 100, by what is known of the lead: fitRows. No part of the total."`
	Engagement float64     `json:"engagement" doc:"The total, held within 0 and 100."`
	Grade      string      `json:"grade" example:"B3" doc:"A to D by fit, from 75, 50 and 25; 1 to 4 by engagement, from 70, 45 and 20. It falls 3 below."`
	At         *string     `json:"at" doc:"When this is exact: now."`
	Rows       []ScoreRow  `json:"rows" doc:"Newest first. Of more than 500, the oldest are one row a rule."`
	FitRows    []FitRow    `json:"fitRows"`
	Next       *ScoreTurns `json:"next" doc:"When the grade turns if nothing happens until then; null if it does not within a year."`
}

// ScoreRow is what one interaction adds to a score.
type ScoreRow struct {
	Rule      string  `json:"rule" example:"reply" doc:"automation:<rule> for a client's own points."`
	Points    float64 `json:"points" doc:"What it gave."`
	DecayedTo float64 `json:"decayedTo" doc:"What it is worth now, within the bounds of a day, its rule and its group."`
	Capped    bool    `json:"capped" doc:"It counts for less than its points because of such a bound."`
	At        *string `json:"at"`
	Ref       *string `json:"ref" doc:"The message, event or run that it was."`
	Count     int     `json:"count" doc:"How many interactions the row stands for."`
}

// ScoreTurns is a turn of a grade that is to come.
type ScoreTurns struct {
	Grade string  `json:"grade"`
	At    *string `json:"at"`
}

// rowsShown is how many rows a score is explained by, one by one.
const rowsShown = 500

// Score explains a lead's score as it is at this moment.
func (b *Book) Score(ctx context.Context, tn *tenant.Tenant, leadID string) (*ScoreView, error) {
	l, err := b.Lead(ctx, tn, leadID)
	if err != nil {
		return nil, err
	}
	rows, err := b.ledger(ctx, tn, l)
	if err != nil {
		return nil, err
	}
	return explain(l, count(rows, tn.Account().Zone()), b.Now().UTC()), nil
}

// explain shows a tally.
func explain(l *Lead, t *tally, now time.Time) *ScoreView {
	fit, fits := l.Fit()
	total := t.total(now)
	v := &ScoreView{
		Total: thousandths(total), Fit: fit, Engagement: thousandths(Engagement(total)), Grade: grade(fit, total, l.Grade), At: news.Stamp(now),
		Rows: []ScoreRow{}, FitRows: append([]FitRow{}, fits...),
	}
	if at := t.turn(now, now.Add(365*day), day/4, v.Grade); !at.IsZero() {
		v.Next = &ScoreTurns{grade(fit, t.total(at), v.Grade), news.Stamp(at)}
	}
	folded := map[string]int{}
	shares := t.shares(now)
	for i := len(t.rows) - 1; i >= 0; i-- {
		r := t.rows[i]
		row := ScoreRow{Rule: r.Rule, Points: r.Points, DecayedTo: fine(shares[i]), Capped: t.capped[i], At: news.Stamp(r.At), Ref: optional(r.Ref), Count: 1}
		if ruleOf(r.Rule).Keeps != nil {
			row.Points = thousandths(t.gave[i])
		}
		if len(v.Rows) < rowsShown {
			v.Rows = append(v.Rows, row)
			continue
		}
		at, known := folded[r.Rule]
		if !known {
			row.Ref = nil
			folded[r.Rule] = len(v.Rows)
			v.Rows = append(v.Rows, row)
			continue
		}
		f := &v.Rows[at]
		f.Points, f.DecayedTo, f.Count, f.Capped = thousandths(f.Points+row.Points), fine(f.DecayedTo+row.DecayedTo), f.Count+1, f.Capped || row.Capped
	}
	return v
}

// fine is a part of a total, so exact that many of them still sum to it.
func fine(v float64) float64 { return math.Round(v*1e6)/1e6 + 0 }
