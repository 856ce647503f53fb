package crm

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// The jobs of scores.
const (
	PointsJob   = "crm.points"    // counts an interaction that no event of a rule tells of
	RecheckJob  = "score.recheck" // looks at one lead at the moment when its grade turns
	RescoresJob = "score.refresh" // looks at all leads of a client whose points fade, once a day
)

type pointsPayload struct {
	LeadID string    `json:"leadId"`
	Rule   string    `json:"rule"`
	Source string    `json:"source"`
	Ref    string    `json:"ref"`
	Amount float64   `json:"amount,omitempty"`
	At     time.Time `json:"at"`
}

// PointsOf gives the job that counts an interaction with a lead, once however often it is told.
func PointsOf(tn *tenant.Tenant, leadID, rule, source, ref string, amount float64, at time.Time) store.NewJob {
	n := job.New(tn.Code, PointsJob, pointsPayload{leadID, rule, source, ref, amount, at.UTC()})
	n.UniqueKey = "points:" + rule + ":" + source
	n.KeyHash, n.Causation = n.UniqueKey, store.Causation{LeadID: leadID}
	return n
}

// HandlePoints is the handler of PointsJob.
func (b *Book) HandlePoints(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[pointsPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	l, err := b.LeadByID(ctx, tn, p.LeadID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil // deleted meanwhile
	}
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{}, tn.DB.Commit(ctx, ScoreEvents.Ensure(NewPoints(tn.Code, l.ID, p.Rule, p.Source, p.Ref, p.Amount, p.At)), b.Due(tn, l.ID))
}

type recheckPayload struct {
	LeadID string    `json:"leadId"`
	Cause  string    `json:"cause"`
	At     time.Time `json:"at,omitzero"` // no earlier moment is looked at: when the grade turns
}

// turnJob is the job that looks at a lead when its grade turns. A lead whose turn moved has another; the earlier one finds
// nothing to tell.
func turnJob(tn *tenant.Tenant, l *Lead) store.NewJob {
	return recheckJob(tn.Code, l.ID, "turn:"+strconv.FormatInt(l.TurnsAt.UnixMilli(), 10), l.TurnsAt)
}

func recheckJob(code, leadID, cause string, at time.Time) store.NewJob {
	n := job.New(code, RecheckJob, recheckPayload{leadID, cause, at.UTC()})
	n.UniqueKey, n.RunAt, n.Causation = "recheck:"+leadID+":"+cause, at, store.Causation{LeadID: leadID}
	return n
}

// HandleRecheck is the handler of RecheckJob.
func (b *Book) HandleRecheck(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[recheckPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	if strings.HasPrefix(p.Cause, dueCause) { // before the ledger is read: what comes into it later is due again
		if err := tn.DB.Commit(ctx, store.Write{Action: store.Delete, Kind: ScoresDue.Schema.Kind, ID: p.LeadID}); err != nil {
			return job.Result{}, err
		}
	}
	return b.touch(ctx, tn, p.LeadID, p.Cause, p.At)
}

// touch brings a lead's stored score up to its ledger, and gives what that owes. It is looked at no earlier than at a
// moment, if there is one.
func (b *Book) touch(ctx context.Context, tn *tenant.Tenant, leadID, cause string, earliest time.Time) (job.Result, error) {
	defer b.locks.lock(tn.Code, leadID)()
	var l *Lead
	err := conflictFree(ctx, func() (err error) {
		if l, err = b.LeadByID(ctx, tn, leadID); err != nil {
			return err
		}
		at := b.Now().UTC()
		if earliest.After(at) {
			at = earliest
		}
		var writes []store.Write
		before := *l
		if err := b.rescore(ctx, tn, l, cause, l.Score, at); err != nil {
			return err
		}
		if l.Score == before.Score && l.Grade == before.Grade && l.Decays == before.Decays && l.TurnsAt.Equal(before.TurnsAt) {
			return nil
		}
		if l.Score != before.Score || l.Grade != before.Grade {
			writes = append(writes, news.Write(at, news.LeadUpdated, l.ID+"|"+cause, "lead", l.View(l.Version+1)))
		}
		return tn.DB.Commit(ctx, append(writes, Leads.Update(l))...)
	})
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil // deleted meanwhile
	}
	if err != nil {
		return job.Result{}, err
	}
	next, err := b.raiseScored(ctx, tn, l, cause)
	return job.Result{Next: next}, err
}

type rescoresPayload struct {
	Day   string        `json:"day"`
	After *store.Cursor `json:"after,omitempty"`
}

// Rescores gives the job that looks at all scores of a client on the day of a moment. There is one a day.
func Rescores(code string, now time.Time) store.NewJob {
	return rescores(code, now.UTC().Format(time.DateOnly), nil)
}

func rescores(code, day string, after *store.Cursor) store.NewJob {
	n := job.New(code, RescoresJob, rescoresPayload{day, after})
	n.UniqueKey = "rescores:" + day
	if after != nil {
		n.UniqueKey += ":" + after.ID
	}
	n.KeyHash = n.UniqueKey
	return n
}

// rescoresAtOnce is how many leads one of these jobs looks at.
const rescoresAtOnce = 2000

// HandleRescores is the handler of RescoresJob. A lead whose grade turns, or soon will, is left to a job of its own, so
// that what the turn owes hangs on that lead alone.
func (b *Book) HandleRescores(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[rescoresPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	if err := b.Settle(ctx, tn, b.Now()); err != nil {
		return job.Result{}, err
	}
	var res job.Result
	after, before := p.After, b.Now().Add(-time.Hour) // what was scored since needs no look: its next turn is known
	for seen := 0; ; {
		ls, err := Leads.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("fadesFrom", store.Lt, before.UnixMilli())}, Order: "fadesFrom", After: after, Limit: window})
		if err != nil {
			return job.Result{}, err
		}
		for _, l := range ls {
			after = &store.Cursor{Value: l.ScoredAt.UnixMilli(), ID: l.ID}
			next, err := b.refresh(ctx, tn, l, p.Day)
			if err != nil {
				return job.Result{}, err
			}
			res.Next = append(res.Next, next...)
		}
		if len(ls) < window {
			return res, nil
		}
		if seen += len(ls); seen >= rescoresAtOnce {
			res.Next = append(res.Next, rescores(tn.Code, p.Day, after))
			return res, nil
		}
	}
}

// refresh brings one lead's stored score up to date if nothing else comes of that; else it gives the job that does.
func (b *Book) refresh(ctx context.Context, tn *tenant.Tenant, l *Lead, day string) ([]store.NewJob, error) {
	now, cause := b.Now().UTC(), "refresh:"+day
	was := l.Score
	fresh := l.clone()
	if err := b.rescore(ctx, tn, fresh, cause, was, now); err != nil {
		return nil, err
	}
	if fresh.CrossingBy(cause) != nil || !fresh.TurnsAt.IsZero() {
		return []store.NewJob{recheckJob(tn.Code, l.ID, cause, time.Time{})}, nil
	}
	var writes []store.Write
	if fresh.Score != was || fresh.Grade != l.Grade {
		writes = append(writes, news.Write(now, news.LeadUpdated, l.ID+"|"+cause, "lead", fresh.View(l.Version+1)))
	}
	err := tn.DB.Commit(ctx, append(writes, Leads.Update(fresh))...)
	if errors.Is(err, store.ErrConflict) {
		return nil, nil // it was changed just now, and scored with that, or is at the next look
	}
	return nil, err
}
