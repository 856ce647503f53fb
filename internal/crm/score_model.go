package crm

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Rules of the score ledger that are the engine's own. Points of automations stand under "automation:<rule>": they are
// the client's word, count in full and stay.
const (
	PointsReply       = "reply"       // a message of the customer's
	PointsQuick       = "quick_reply" // within ten minutes of one of ours
	PointsSubstantive = "substantive" // at least five words, or a question
	PointsMedia       = "media"       // a picture, a voice message …
	PointsIntent      = "intent"      // asks for a price, or whether there is room
	PointsOptOut      = "opt_out"
	PointsOptIn       = "opt_in" // takes the opt-out back
)

// PointRule is what interactions of one kind are worth.
type PointRule struct {
	Name     string
	Group    string
	Points   float64
	HalfLife time.Duration // after which half of the points is left; 0: they stay
	Most     float64       // what its rows come to at any time, at most; 0: no bound of its own
	PerDay   int           // how many of a day count, by the client's calendar; 0: all
	PerTen   float64       // more for each power of ten of what was paid
	// Keeps makes the rule give no points of its own, but leave only a part of what there is, by group or by rule.
	Keeps map[string]float64
}

const day = 24 * time.Hour

// groups are how much each group of rules comes to at most, up or down.
var groups = map[string]float64{"conversation": 40, "intent": 35, "commerce": 40, "marketing": 15, "negative": 60}

// pointRules are the rules, by name.
var pointRules = func() map[string]*PointRule {
	m := map[string]*PointRule{}
	for _, r := range []PointRule{
		{Name: PointsReply, Group: "conversation", Points: 6, HalfLife: 14 * day, Most: 30, PerDay: 3},
		{Name: PointsQuick, Group: "conversation", Points: 2, HalfLife: 14 * day, Most: 10, PerDay: 3},
		{Name: PointsSubstantive, Group: "conversation", Points: 3, HalfLife: 14 * day, Most: 15, PerDay: 3},
		{Name: PointsMedia, Group: "conversation", Points: 2, HalfLife: 14 * day, Most: 10, PerDay: 3},
		{Name: PointsIntent, Group: "intent", Points: 10, HalfLife: 21 * day, Most: 30, PerDay: 1},
		{Name: "form_submitted", Group: "intent", Points: 12, HalfLife: 30 * day, Most: 24},
		{Name: "appointment_confirmed", Group: "intent", Points: 20, HalfLife: 30 * day, Most: 35},
		{Name: "custom.attended", Group: "intent", Points: 25, HalfLife: 60 * day, Most: 35},
		{Name: "custom.no_show", Group: "negative", Points: -20, HalfLife: 30 * day, Most: 40},
		{Name: "product_purchased", Group: "commerce", Points: 30, HalfLife: 90 * day, PerTen: 5},
		{Name: "service_enrolled", Group: "commerce", Points: 30, HalfLife: 90 * day},
		{Name: "link_clicked", Group: "marketing", Points: 3, HalfLife: 7 * day, PerDay: 3},
		{Name: PointsOptOut, Group: "negative", Points: -40, Most: 40},
		{Name: PointsOptIn, Keeps: map[string]float64{PointsOptOut: 0}},
		{Name: "deal_lost", PerDay: 1, Keeps: map[string]float64{"conversation": 0.5, "intent": 0, "commerce": 0.5, "marketing": 0.5}},
	} {
		m[r.Name] = &r
	}
	return m
}()

// messageRules are those that a message itself gives points by, and not an event.
var messageRules = []string{PointsReply, PointsQuick, PointsSubstantive, PointsMedia, PointsIntent, PointsOptOut, PointsOptIn}

// ScoredTrigger tells whether an event of this name has points by default.
func ScoredTrigger(trigger string) bool {
	return pointRules[trigger] != nil && !slices.Contains(messageRules, trigger)
}

// worth is what one interaction gives, before any bound. amount is what was paid; 0 if nothing, or unknown.
func (r *PointRule) worth(amount float64) float64 {
	p := r.Points
	if r.PerTen != 0 && amount > 1 && !math.IsInf(amount, 0) {
		p += r.PerTen * math.Log10(amount)
	}
	return thousandths(p)
}

// of tells by which share the rule keeps what another has; false if it leaves that alone.
func (r *PointRule) of(other *PointRule) (share float64, ok bool) {
	if share, ok = r.Keeps[other.Name]; !ok {
		share, ok = r.Keeps[other.Group]
	}
	return share, ok
}

func thousandths(v float64) float64 { return math.Round(v*1000)/1000 + 0 }

// FitRow is one thing that is known of a lead, and what that says of how well it fits.
type FitRow struct {
	Rule   string  `json:"rule"`
	Points float64 `json:"points"`
}

// Fit tells how well a lead is known to fit, 0 to 100. It is no part of the score: who somebody is does not fade, and is
// no interest yet.
func (l *Lead) Fit() (fit float64, rows []FitRow) {
	for _, r := range []struct {
		rule   string
		points float64
		holds  bool
	}{
		{"has_phone", 25, l.Phone != ""}, {"has_email", 20, l.Email != ""}, {"has_name", 15, strings.TrimSpace(l.Name) != ""},
		{"has_source", 10, l.Source != ""}, {"has_value", 30, l.Value > 0},
	} {
		if r.holds {
			rows = append(rows, FitRow{r.rule, r.points})
			fit += r.points
		}
	}
	return fit, rows
}

// The bounds of grades: A to D by fit, 1 to 4 by engagement. A grade is risen to at its bound, and fallen from slack below it.
var (
	letters = []float64{75, 50, 25}
	digits  = []float64{70, 45, 20}
)

const slack = 3

// place is the place of a value among falling bounds, 0 the best. was is the place until now; -1 for none.
func place(v float64, bounds []float64, was int) int {
	for i, b := range bounds {
		if was >= 0 && i >= was {
			b -= slack
		}
		if v >= b {
			return i
		}
	}
	return len(bounds)
}

// Engagement is a total as grades read it.
func Engagement(total float64) float64 { return min(max(total, 0), 100) }

// grade is the grade of a fit and a total, after one before ("" for none).
func grade(fit, total float64, was string) string {
	letter, digit := -1, -1
	if len(was) == 2 {
		letter, digit = int(was[0]-'A'), int(was[1]-'1')
	}
	return string([]byte{byte('A' + place(fit, letters, letter)), byte('1' + place(Engagement(total), digits, digit))})
}
