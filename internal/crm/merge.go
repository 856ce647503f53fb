package crm

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// The jobs of a merging: the first makes the leads one, the second brings together what was kept about each.
const (
	MergeJob  = "crm.merge"
	GatherJob = "crm.gather"
)

// Merging asks for some leads to be made part of another. Its id names it for good, as that of a Mutation.
type Merging struct {
	ID   string    `json:"id"`
	Into string    `json:"into"`
	From []string  `json:"from"`
	By   string    `json:"by,omitempty"`
	At   time.Time `json:"at"`
}

// Merge makes leads part of another, which takes over what it lacks, all their tags and points. They answer as that one
// from then on. It gives that lead.
func (b *Book) Merge(ctx context.Context, tn *tenant.Tenant, m Merging) (*Lead, error) {
	m.At = m.At.UTC().Truncate(time.Millisecond)
	if _, err := Changes.Get(ctx, tn.DB, ChangeID(tn.Code, m.ID)); errors.Is(err, store.ErrNotFound) {
		if _, err := b.merging(ctx, tn, &m, store.Meta{}); err != nil { // refused before it costs a job
			return nil, err
		}
	}
	n := job.New(tn.Code, MergeJob, m)
	n.UniqueKey, n.KeyHash = "change:"+m.ID, m.ID
	n.Causation = store.Causation{LeadID: m.Into}
	return b.do(ctx, tn, n, m.ID, b.Runner.Do)
}

// HandleMerge is the handler of MergeJob.
func (b *Book) HandleMerge(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	m, err := job.Payload[Merging](j)
	if err != nil {
		return job.Result{}, err
	}
	var c *Change
	defer b.locks.lock(tn.Code, m.Into)()
	err = conflictFree(ctx, func() error {
		if c, err = Changes.Get(ctx, tn.DB, ChangeID(tn.Code, m.ID)); err == nil {
			l, err := Leads.Get(ctx, tn.DB, c.LeadID)
			if errors.Is(err, store.ErrNotFound) || c.Refused != nil || c.Idle || (err == nil && l.Did(m.ID)) {
				return nil
			}
			if err != nil {
				return err
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		var recorded store.Meta
		if c != nil {
			recorded = c.Meta
		}
		e, err := b.merging(ctx, tn, &m, recorded)
		if f, refused := refusal(err); refused {
			c = &Change{Meta: recorded, ID: ChangeID(tn.Code, m.ID), LeadID: m.Into, At: m.At, By: m.By, Cause: ByMerge, Refused: refusalOf(f)}
			return tn.DB.Commit(ctx, Changes.Update(c))
		}
		if err != nil {
			return err
		}
		c = e.change
		return tn.DB.Commit(ctx, e.writes...)
	})
	if err != nil {
		return job.Result{}, err
	}
	if c.Refused != nil {
		return job.Result{Result: changeResult{Refused: c.Refused.Code}}, nil
	}
	next, err := b.follow(ctx, tn, c)
	if err != nil {
		return job.Result{}, err
	}
	if into, err := b.LeadByID(ctx, tn, c.LeadID); err == nil {
		scored, err := b.raiseScored(ctx, tn, into, m.ID)
		if err != nil {
			return job.Result{}, err
		}
		next = append(next, scored...)
	} else if !errors.Is(err, store.ErrNotFound) {
		return job.Result{}, err
	}
	if len(c.Merged) > 0 {
		n := job.New(tn.Code, GatherJob, gatherPayload{c.LeadID, c.Merged})
		n.UniqueKey, n.Causation = "gather:"+m.ID, store.Causation{LeadID: c.LeadID}
		next = append(next, n)
	}
	return job.Result{Next: next, Result: changeResult{LeadID: c.LeadID}}, err
}

// merging works a merging out. Its writes stand in an order in which any first part of them, worked out again, comes to
// the same end: each lead is kept as an alias before it goes, and the one they are made part of comes last.
func (b *Book) merging(ctx context.Context, tn *tenant.Tenant, m *Merging, recorded store.Meta) (*effect, error) {
	into, err := b.Lead(ctx, tn, m.Into)
	if err != nil {
		return nil, err
	}
	var from []*Lead
	e := &effect{change: &Change{Meta: recorded, ID: ChangeID(tn.Code, m.ID), LeadID: into.ID, At: m.At, By: m.By, Cause: ByMerge}, lead: into}
	for _, leadID := range m.From {
		l, writes, err := b.mergee(ctx, tn, m, leadID, into.ID)
		if err != nil {
			return nil, err
		}
		if l == nil || slices.ContainsFunc(from, func(o *Lead) bool { return o.ID == l.ID }) {
			continue
		}
		from = append(from, l)
		e.writes = append(e.writes, writes...)
	}
	before := into.clone()
	for _, l := range from {
		into.Fill(l.Phone, l.Email, LeadData{Name: l.Name, Source: l.Source, Currency: l.Currency, OwnerID: l.OwnerID, Value: l.Value, Fields: l.Fields})
		into.AddTags(l.Tags...)
		into.Score += l.Score // a recheck holds it within the bounds of one
		into.Decays = into.Decays || l.Decays
		if l.LastActivityAt.After(into.LastActivityAt) {
			into.LastActivityAt = l.LastActivityAt
		}
		e.change.Merged = append(e.change.Merged, l.ID)
	}
	if err := into.bounds(before); err != nil {
		return nil, fault.Bad("/from", "Together the leads have more tags or fields than one may have.")
	}
	if ids, err := idsOf(ctx, tn, into.ID); err != nil || len(ids)+len(from) > maxAliases {
		if err == nil {
			err = fault.Bad("/from", "At most %d leads can be made one.", maxAliases)
		}
		return nil, err
	}
	e.change.compare(before, into, &Mutation{At: m.At})
	if e.change.Idle = len(from) == 0; e.change.Idle {
		e.writes = append(e.writes, Changes.Update(e.change))
		return e, nil
	}
	if into.Phone != before.Phone || into.Email != before.Email {
		writes, err := b.attach(ctx, tn, into, m.ID)
		if err != nil {
			return nil, err
		}
		e.writes = append(e.writes, writes...)
	}
	into.Mark(m.ID)
	into.UpdatedAt = m.At
	into.regrade(m.ID, before.Score, m.At)
	e.writes = append(e.writes, b.Due(tn, into.ID))
	e.writes = append(e.writes, KnowTags(tn, m.At, e.change.Added...)...)
	e.writes = append(e.writes, news.Write(m.At, news.LeadUpdated, into.ID+"|"+m.ID, "lead", into.View(into.Version+1)), Changes.Update(e.change), Leads.Update(into))
	return e, nil
}

// mergee gives a lead that is to be made part of another, with the writes by which it becomes its alias; nil for one
// that was part of it before.
func (b *Book) mergee(ctx context.Context, tn *tenant.Tenant, m *Merging, leadID, into string) (*Lead, []store.Write, error) {
	l, err := Leads.Get(ctx, tn.DB, leadID)
	if errors.Is(err, store.ErrNotFound) {
		a, aerr := Aliases.Get(ctx, tn.DB, leadID)
		switch {
		case aerr == nil && a.Merging == m.ID: // the merging was cut after this one
			return a.Lead, nil, nil
		case errors.Is(aerr, store.ErrNotFound):
			return nil, nil, fault.Missing("lead")
		case aerr != nil:
			return nil, nil, aerr
		}
		if leadID = a.Into; leadID != into {
			l, err = Leads.Get(ctx, tn.DB, leadID)
		}
	}
	if leadID == into {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	mine, err := Aliases.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("into", store.Eq, l.ID)}, Limit: maxAliases + 1})
	if err != nil {
		return nil, nil, err
	}
	var writes []store.Write
	for _, other := range mine {
		other.Into = into
		writes = append(writes, Aliases.Update(other))
	}
	writes = append(writes, Aliases.Set(&Alias{ID: l.ID, Into: into, Lead: l, Merging: m.ID, At: m.At}),
		news.Write(m.At, news.LeadDeleted, l.ID+"|"+m.ID, "lead", l.View(l.Version)), Leads.Remove(l))
	return l, writes, nil
}

type gatherPayload struct {
	Into string   `json:"into"`
	From []string `json:"from"`
}

// HandleGather is the handler of GatherJob: notes, history, score ledger and contacts of merged leads become those of the
// lead that they are part of, a little in each commit.
func (b *Book) HandleGather(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[gatherPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	into := p.Into
	if l, err := b.LeadByID(ctx, tn, into); err == nil {
		into = l.ID // it was merged itself meanwhile
	} else if !errors.Is(err, store.ErrNotFound) {
		return job.Result{}, err
	}
	for _, from := range p.From {
		err := errors.Join(
			b.release(ctx, tn, from, into),
			gather(ctx, tn, Notes, from, func(n *Note) { n.LeadID = into }),
			gather(ctx, tn, ScoreEvents, from, func(s *ScoreEvent) { s.LeadID = into }),
			gather(ctx, tn, Changes, from, func(c *Change) { c.LeadID = into }),
		)
		if err != nil {
			return job.Result{}, err
		}
	}
	return job.Result{}, nil
}

func gather[T any](ctx context.Context, tn *tenant.Tenant, kind store.Kind[T], from string, move func(*T)) error {
	return conflictFree(ctx, func() error {
		for {
			found, err := kind.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, from)}, Order: "at", Limit: window})
			if err != nil || len(found) == 0 {
				return err
			}
			var writes []store.Write
			for _, r := range found {
				move(r)
				writes = append(writes, kind.Update(r))
			}
			if err := tn.DB.Commit(ctx, writes...); err != nil {
				return err
			}
		}
	})
}
