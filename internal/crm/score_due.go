package crm

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ScoreDue says of a lead that something came into its ledger which its stored score does not show yet. It stands in the
// commit that brought that: who takes messages in has no more to do with scores, and several messages in a row are one
// change of the lead. What the client's rules give is in the lead at once.
type ScoreDue struct {
	store.Meta
	ID string    `json:"id"` // the lead's
	At time.Time `json:"at"` // since when
}

// ScoresDue is the kind.
var ScoresDue = store.Kind[ScoreDue]{
	Schema: store.Schema{Kind: "scoresDue", Fields: []store.Field{{Name: "at", Type: store.Int}}, Orders: [][]string{{"at"}}},
	Key:    func(d *ScoreDue) string { return d.ID },
	Index:  func(d *ScoreDue) store.Fields { return store.Fields{"at": d.At.UnixMilli()} },
	Meta:   func(d *ScoreDue) *store.Meta { return &d.Meta },
}

// settleAfter is for how long a stored score may wait for more.
const settleAfter = 10 * time.Second

// dueCause begins the cause of rechecks of leads that were due.
const dueCause = "due:"

// Due is the write by which a lead's stored score is due.
func (b *Book) Due(tn *tenant.Tenant, leadID string) store.Write {
	b.unsettled.note(tn.Code, b.Now())
	return ScoresDue.Ensure(&ScoreDue{ID: leadID, At: b.Now().UTC()})
}

// Settle gives each lead whose score was due for long enough its job.
func (b *Book) Settle(ctx context.Context, tn *tenant.Tenant, now time.Time) error {
	const most = 500
	until := now.Add(-settleAfter).UnixMilli()
	var after *store.Cursor
	for {
		ds, err := ScoresDue.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("at", store.Le, until)}, Order: "at", After: after, Limit: most})
		if err != nil {
			b.unsettled.note(tn.Code, now)
			return err
		}
		jobs := make([]store.NewJob, len(ds))
		for i, d := range ds {
			ms := d.At.UnixMilli()
			jobs[i] = recheckJob(tn.Code, d.ID, dueCause+strconv.FormatInt(ms, 10), time.Time{})
			after = &store.Cursor{Value: ms, ID: d.ID}
		}
		if len(jobs) > 0 {
			if _, err := b.Runner.Enqueue(ctx, jobs...); err != nil {
				b.unsettled.note(tn.Code, now)
				return err
			}
		}
		if len(ds) < most {
			break
		}
	}
	later, err := ScoresDue.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("at", store.Gt, until)}, Order: "at", Limit: 1})
	if len(later) > 0 {
		b.unsettled.note(tn.Code, later[0].At)
	}
	return err
}

// Unsettled gives the clients that have leads whose score was due for long enough, as far as this process knows, and
// forgets them: whoever asks lets them Settle. After a crash, the daily look finds what was due.
func (b *Book) Unsettled(now time.Time) []string { return b.unsettled.take(now.Add(-settleAfter)) }

// moments are when something first happened to clients.
type moments struct {
	mu sync.Mutex
	by map[string]time.Time
}

func (m *moments) note(code string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil {
		m.by = map[string]time.Time{}
	}
	if _, ok := m.by[code]; !ok {
		m.by[code] = at
	}
}

func (m *moments) take(until time.Time) (codes []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for code, at := range m.by {
		if !at.After(until) {
			codes = append(codes, code)
			delete(m.by, code)
		}
	}
	return codes
}
