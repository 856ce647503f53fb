package crm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var scoreStart = time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)

// told is a row of a ledger that is written as "rule+days" or "rule=points+days".
func told(t *testing.T, spec string, n int) *ScoreEvent {
	t.Helper()
	var rule string
	var points, days float64
	given := false
	for i, c := range spec {
		switch c {
		case '=', '+':
			if rule == "" {
				rule = spec[:i]
			}
			if c == '=' {
				given = true
				if _, err := fmt.Sscanf(spec[i:], "=%g+%g", &points, &days); err != nil {
					t.Fatalf("%s: %v", spec, err)
				}
			} else if !given {
				if _, err := fmt.Sscanf(spec[i:], "+%g", &days); err != nil {
					t.Fatalf("%s: %v", spec, err)
				}
			}
		}
	}
	at := scoreStart.Add(time.Duration(days * 24 * float64(time.Hour)))
	r := NewPoints("ACME", "led", rule, fmt.Sprint("src", n), "", 0, at)
	if given {
		r.Points = points
	}
	return r
}

func ledgerOf(t *testing.T, specs ...string) (rows []*ScoreEvent) {
	for i, s := range specs {
		rows = append(rows, told(t, s, i))
	}
	return rows
}

func TestScoreTally(t *testing.T) {
	for name, c := range map[string]struct {
		ledger []string
		after  float64 // days
		want   float64
	}{
		"nothing":                        {nil, 0, 0},
		"a reply":                        {[]string{"reply+0"}, 0, 6},
		"a reply, a half-life later":     {[]string{"reply+0"}, 14, 3},
		"two half-lives":                 {[]string{"reply+0"}, 28, 1.5},
		"a client's own points stay":     {[]string{"automation:r=20+0"}, 1000, 20},
		"and have no bound":              {[]string{"automation:r=600+0", "automation:q=-1000+0"}, 1, -400},
		"three replies a day":            {[]string{"reply+0", "reply+0.1", "reply+0.2", "reply+0.3", "reply+0.4"}, 0.4, 6*math.Exp2(-0.4/14) + 6*math.Exp2(-0.3/14) + 6*math.Exp2(-0.2/14)},
		"the next day has room":          {[]string{"link_clicked+0", "link_clicked+0", "link_clicked+0", "link_clicked+0", "link_clicked+1"}, 1, 9*math.Exp2(-1.0/7) + 3},
		"a rule's bound":                 {[]string{"form_submitted+0", "form_submitted+0", "form_submitted+0"}, 0, 24},
		"and room again when it fades":   {[]string{"form_submitted+0", "form_submitted+0", "form_submitted+30"}, 30, 24},
		"no more room than there is":     {[]string{"form_submitted+0", "form_submitted+0", "form_submitted+15"}, 15, 24},
		"a group's bound":                {[]string{"product_purchased+0", "service_enrolled+0"}, 0, 40},
		"a group's bound is of the time": {[]string{"product_purchased+0", "service_enrolled+0"}, 90, 30},
		"what a purchase paid":           {[]string{"product_purchased=40+0"}, 90, 20},
		"an opt-out stays":               {[]string{"reply+0", "opt_out+0"}, 1400, -40},
		"an opt-out counts once":         {[]string{"opt_out+0", "opt_out+5", "opt_out+9"}, 9, -40},
		"opting in takes it back":        {[]string{"opt_out+0", "opt_in+5"}, 9, 0},
		"and out again":                  {[]string{"opt_out+0", "opt_in+5", "opt_out+6"}, 9, -40},
		"told in another order":          {[]string{"opt_in+5", "opt_out+0"}, 9, 0},
		"negatives have a bound":         {[]string{"opt_out+0", "custom.no_show+0", "custom.no_show+0"}, 0, -60},
		"negatives fade":                 {[]string{"custom.no_show+0"}, 30, -10},
		"a lost deal halves":             {[]string{"reply+0", "deal_lost+0.00001"}, 0, 3},
		"which fades as it would have":   {[]string{"reply+0", "deal_lost+1"}, 14, 1.5},
		"a lost deal ends intent":        {[]string{"form_submitted+0", "deal_lost+10"}, 20, 0},
		"and leaves the client's own":    {[]string{"automation:r=20+0", "deal_lost+1"}, 2, 20},
		"what comes after it counts":     {[]string{"form_submitted+0", "deal_lost+10", "form_submitted+10.5"}, 10.5, 12},
		"it halves what is bounded":      {[]string{"product_purchased+0", "service_enrolled+0", "deal_lost+0.0001"}, 0, 20},
		"twice on a day is once":         {[]string{"reply+0", "deal_lost+0.01", "deal_lost+0.1"}, 14, 1.5},
		"a row ahead of the clock":       {[]string{"reply+0.001"}, 0, 6},
	} {
		rows := ledgerOf(t, c.ledger...)
		tl := count(rows, time.UTC)
		at := scoreStart.Add(time.Duration(c.after * 24 * float64(time.Hour)))
		if got := tl.total(at); math.Abs(got-c.want) > 0.001 {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Of any events, in any order and told any number of times, the rows sum to the total, the bounds hold, and the order does
// not matter. Where nothing is bounded the total is the plain sum of what is left of each.
func TestScoreInvariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	names := []string{"automation:a"}
	for n := range pointRules {
		names = append(names, n)
	}
	slices.Sort(names)
	for round := range 300 {
		var rows []*ScoreEvent
		n := 1 + rng.IntN(60)
		spread := []float64{1, 20, 400}[rng.IntN(3)]
		for i := range n {
			rows = append(rows, told(t, fmt.Sprintf("%s+%g", names[rng.IntN(len(names))], rng.Float64()*spread), i))
		}
		for i := range rows {
			if ruleOf(rows[i].Rule).Name == "automation:a" {
				rows[i].Points = float64(rng.IntN(61) - 30)
			}
		}
		at := scoreStart.Add(time.Duration((spread + rng.Float64()*100) * 24 * float64(time.Hour)))
		tl := count(rows, time.UTC)
		total, sum := tl.total(at), 0.0
		byGroup := map[string]float64{}
		for i, s := range tl.shares(at) {
			sum += s
			byGroup[ruleOf(tl.rows[i].Rule).Group] += s
		}
		if math.Abs(total-sum) > 1e-6 {
			t.Fatalf("round %d: the rows sum to %v, the total is %v", round, sum, total)
		}
		v := explain(&Lead{}, tl, at)
		shown := 0.0
		for _, r := range v.Rows {
			shown += r.DecayedTo
		}
		if math.Abs(v.Total-shown) > 0.01 || v.Engagement < 0 || v.Engagement > 100 {
			t.Fatalf("round %d: shown %v, total %v, engagement %v", round, shown, v.Total, v.Engagement)
		}
		again := append(append([]*ScoreEvent{}, rows...), rows...)
		rng.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		if other := count(again, time.UTC).total(at); math.Abs(other-total) > 1e-9 {
			t.Fatalf("round %d: %v in another order, %v in the first", round, other, total)
		}
		plain, bounded := 0.0, false
		for i, r := range tl.rows {
			rule := ruleOf(r.Rule)
			plain += r.Points * rule.left(at.Sub(r.At))
			bounded = bounded || tl.capped[i] || rule.Keeps != nil
		}
		for _, f := range tl.factors(at) {
			bounded = bounded || f != 1
		}
		if !bounded && math.Abs(plain-total) > 1e-6 {
			t.Fatalf("round %d: total %v, the plain sum is %v", round, total, plain)
		}
	}
}

func TestScoreFolded(t *testing.T) {
	var rows []*ScoreEvent
	for i := range 3 * rowsShown {
		rows = append(rows, told(t, fmt.Sprintf("automation:%d=0.333+%d", i%2, i), i))
	}
	v := explain(&Lead{}, count(rows, time.UTC), scoreStart)
	sum, n := 0.0, 0
	for _, r := range v.Rows {
		sum, n = sum+r.DecayedTo, n+r.Count
	}
	if len(v.Rows) != rowsShown+2 || n != len(rows) || math.Abs(sum-v.Total) > 0.01 || math.Abs(v.Total-499.5) > 0.001 {
		t.Errorf("%d rows of %d sum to %v of %v", len(v.Rows), n, sum, v.Total)
	}
}

func TestGrades(t *testing.T) {
	for _, c := range []struct {
		fit, total float64
		was, want  string
	}{
		{0, 0, "", "D4"}, {75, 70, "", "A1"}, {74.9, 69.9, "", "B2"}, {50, 45, "", "B2"}, {25, 20, "", "C3"}, {24, 19, "", "D4"},
		{0, -40, "", "D4"}, {100, 600, "", "A1"},
		{72, 67, "A1", "A1"}, {71.9, 66.9, "A1", "B2"}, // falls 3 below
		{72, 67, "B2", "B2"},                          // but is risen to at the bound
		{10, 42, "D2", "D2"}, {10, 41.99, "D2", "D3"}, // and again from what it fell to
		{10, 43, "D3", "D3"}, {10, 45, "D3", "D2"},
		{10, 0, "A1", "D4"}, {100, 100, "D4", "A1"}, {10, 5, "?", "D4"},
	} {
		if got := grade(c.fit, c.total, c.was); got != c.want {
			t.Errorf("grade(%v, %v, %q) is %s, want %s", c.fit, c.total, c.was, got, c.want)
		}
	}
}

// A grade turns at the computed moment, and not before it.
func TestScoreTurns(t *testing.T) {
	for name, c := range map[string]struct {
		ledger []string
		was    string
		days   float64 // 0: never
	}{
		"nothing fades":       {[]string{"automation:r=46+0"}, "D2", 0},
		"46 falls below 42":   {[]string{"automation:r=36+0", "intent=10+0"}, "D2", 21 * math.Log2(10/6.0)},
		"never so low":        {[]string{"automation:r=44+0", "intent=10+0"}, "D2", 0},
		"rises with a grudge": {[]string{"automation:r=60+0", "custom.no_show=-20+0"}, "D3", 30 * math.Log2(20/15.0)},
	} {
		tl := count(ledgerOf(t, c.ledger...), time.UTC)
		got := tl.turn(scoreStart, scoreStart.Add(365*day), day, c.was)
		if c.days == 0 {
			if !got.IsZero() {
				t.Errorf("%s: turns at %v", name, got)
			}
			continue
		}
		want := scoreStart.Add(time.Duration(c.days * float64(day)))
		if d := got.Sub(want).Abs(); d > 10*time.Millisecond {
			t.Errorf("%s: turns at %v, want %v", name, got, want)
		}
		if before := grade(0, tl.total(got.Add(-2*time.Millisecond)), c.was); before[1] != c.was[1] {
			t.Errorf("%s: had turned before", name)
		}
		if after := grade(0, tl.total(got), c.was); after[1] == c.was[1] {
			t.Errorf("%s: has not turned", name)
		}
		if early := tl.turn(scoreStart, got.Add(-time.Second), time.Hour, c.was); !early.IsZero() {
			t.Errorf("%s: turns at %v already", name, early)
		}
	}
}

func TestWorth(t *testing.T) {
	r := pointRules["product_purchased"]
	for amount, want := range map[float64]float64{0: 30, 1: 30, 0.5: 30, -5: 30, 100: 40, 1000: 45, math.Inf(1): 30} {
		if got := r.worth(amount); got != want {
			t.Errorf("a purchase of %v gives %v, want %v", amount, got, want)
		}
	}
}

func TestHeardRules(t *testing.T) {
	for text, want := range map[string]string{
		"ok": "[reply]", "": "[reply]", "Thank you": "[reply]", "I will be there at noon": "[reply substantive]", "Really?": "[reply substantive]",
		"What is the PRICE": "[reply intent]", "Is a slot available tomorrow?": "[reply substantive intent]", "priceless": "[reply]",
	} {
		if got := fmt.Sprint(Heard{Text: text}.rules()); got != want {
			t.Errorf("%q counts by %s, want %s", text, got, want)
		}
	}
	if got := fmt.Sprint(Heard{Word: "out", Text: "STOP?", Media: true}.rules()); got != "[opt_out]" {
		t.Error(got)
	}
}

func TestCrossings(t *testing.T) {
	l := &Lead{ID: "led_1", Phone: "+1"}
	step := func(cause string, score float64) {
		was := l.Score
		l.Score = score
		l.regrade(cause, was, scoreStart)
	}
	step("a", 10)
	if l.Grade != "C4" || len(l.Crossed) != 0 {
		t.Fatalf("%+v", l)
	}
	step("b", 50)
	step("b", 50) // again, after a crash
	c := l.CrossingBy("b")
	if c == nil || len(l.Crossed) != 1 || c.From != "C4" || c.To != "C2" || c.Was != 10 || c.Is != 50 {
		t.Fatalf("%+v", l.Crossed)
	}
	if o := c.occurrence(l); o.Trigger != "score_crossed" || o.Variables["direction"] != "up" || o.Variables["score"] != 50.0 || o.Variables["previousGrade"] != "C4" {
		t.Errorf("%+v", o)
	}
	l.Email, l.Name = "a@b.c", "Ana" // fits better, which is no crossing
	step("c", 50)
	if l.Grade != "B2" || l.CrossingBy("c") != nil {
		t.Errorf("%+v", l)
	}
	for i := range 20 {
		step(fmt.Sprint("x", i), float64(i%2)*50)
	}
	if len(l.Crossed) != crossingsKept || l.CrossingBy("x19") == nil || l.CrossingBy("x19").occurrence(l).Variables["direction"] != "up" || l.CrossingBy("x18").occurrence(l).Variables["direction"] != "down" {
		t.Errorf("%+v", l.Crossed)
	}
}
