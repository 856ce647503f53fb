package crm

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// ChangeJob is the type of the job that makes a change of a lead.
const ChangeJob = "crm.change"

// changePayload is the payload of ChangeJob. The mutation is sealed: it is a customer's data, in the central database.
type changePayload struct {
	ChangeID string `json:"changeId"`
	Sealed   string `json:"sealed"`
}

// Change makes a change of a lead and gives the lead as it stands then (nil where it was deleted). A change that may owe
// something to rules is made inside a job that this call claims: when Change returns without error, it is made, and what
// it triggers is durable. A refused change is a fault, and triggers nothing.
func (b *Book) Change(ctx context.Context, tn *tenant.Tenant, m Mutation) (*Lead, error) {
	m.At = m.At.UTC().Truncate(time.Millisecond)
	known, err := Changes.Get(ctx, tn.DB, ChangeID(tn.Code, m.ID))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if known == nil { // most of what is refused is refused here, and costs no job
		stages, err := b.Stages(ctx, tn)
		if err != nil {
			return nil, err
		}
		if _, err := b.work(ctx, tn, &m, stages, store.Meta{}); err != nil {
			return nil, err
		}
	}
	if !m.owes() {
		c, err := b.settle(ctx, tn, &m)
		if err != nil {
			return nil, err
		}
		return b.answer(ctx, tn, c)
	}
	nj, err := changeJob(tn, &m)
	if err != nil {
		return nil, err
	}
	if m.Delete {
		return b.do(ctx, tn, nj, m.ID, b.Runner.DoAnyway)
	}
	return b.do(ctx, tn, nj, m.ID, b.Runner.Do)
}

// do runs the job of a change here and now, and answers the change. Of a job that is known it awaits the end.
func (b *Book) do(ctx context.Context, tn *tenant.Tenant, nj store.NewJob, mutation string,
	run func(context.Context, store.NewJob) (store.Enqueued, job.Result, error),
) (*Lead, error) {
	made, _, err := run(ctx, nj)
	switch {
	case err != nil && made.Job.ID == "": // not even the job could be stored
		return nil, err
	case err != nil:
		return nil, fault.Wrap(err, fault.Unavailable, "change.pending", "The change is kept and will be tried again. Repeat it with the same Idempotency-Key to learn its outcome.")
	}
	return b.await(ctx, tn, ChangeID(tn.Code, mutation))
}

// changeWait is how long a repeated change waits for the first to be made.
const changeWait = 5 * time.Second

// await waits for a change that a job makes, and answers it.
func (b *Book) await(ctx context.Context, tn *tenant.Tenant, changeID string) (*Lead, error) {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := Changes.Get(ctx, tn.DB, changeID)
		switch {
		case err == nil:
			return b.answer(ctx, tn, c)
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, "change.pending", "The change is kept and will be tried again.")
		case <-tick.C:
		}
	}
}

// answer is what the author of a change is told.
func (b *Book) answer(ctx context.Context, tn *tenant.Tenant, c *Change) (*Lead, error) {
	if c.Refused != nil {
		return nil, c.Refused.fault()
	}
	if c.Deleted {
		return nil, nil
	}
	return b.Lead(ctx, tn, c.LeadID)
}

// changeJob makes the job of a mutation.
func changeJob(tn *tenant.Tenant, m *Mutation) (store.NewJob, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return store.NewJob{}, err
	}
	sealed, err := tn.Seal("change", string(raw))
	if err != nil {
		return store.NewJob{}, err
	}
	n := job.New(tn.Code, ChangeJob, changePayload{ChangeID(tn.Code, m.ID), sealed})
	n.UniqueKey, n.KeyHash = "change:"+m.ID, m.ID // sealed twice, it differs
	n.Causation = store.Causation{LeadID: m.LeadID}
	return n, nil
}

// changeResult is what the job of a change shows.
type changeResult struct {
	LeadID  string `json:"leadId,omitempty"`
	Refused string `json:"refused,omitempty"`
}

// HandleChange is the handler of ChangeJob: it makes one change in one commit, and gives the jobs that it owes.
func (b *Book) HandleChange(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[changePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	plain, err := tn.Open("change", p.Sealed)
	if err != nil {
		return job.Result{}, job.Park("change_unreadable", err)
	}
	var m Mutation
	if err := json.Unmarshal([]byte(plain.Reveal()), &m); err != nil {
		return job.Result{}, job.Dead("change_unreadable", errors.New("the change does not decode"))
	}
	c, err := b.settle(ctx, tn, &m)
	if err != nil {
		return job.Result{}, err
	}
	if c.Refused != nil {
		return job.Result{Result: changeResult{Refused: c.Refused.Code}}, nil
	}
	next, err := b.follow(ctx, tn, c)
	return job.Result{Next: next, Result: changeResult{LeadID: c.LeadID}}, err
}

// follow gives the jobs that a change owes. Their keys are derived: asking twice makes them once.
func (b *Book) follow(ctx context.Context, tn *tenant.Tenant, cs ...*Change) ([]store.NewJob, error) {
	var next []store.NewJob
	var os []Occurrence
	for _, c := range cs {
		os = append(os, c.occurrences()...)
		if c.Deleted {
			next = append(next, eraseJob(tn, c.LeadID))
		}
	}
	if len(os) == 0 || b.Raise == nil {
		return next, nil
	}
	raised, err := b.Raise(ctx, tn, os...)
	return append(next, raised...), err
}

// settle makes a mutation's change and records it, or records why it was refused. The same mutation has one outcome.
func (b *Book) settle(ctx context.Context, tn *tenant.Tenant, m *Mutation) (c *Change, err error) {
	who := m.LeadID
	if m.Create != nil {
		who = m.Create.Phone + "|" + m.Create.Email
	}
	defer b.locks.lock(tn.Code, who)()
	err = conflictFree(ctx, func() error { c, err = b.settleOnce(ctx, tn, m); return err })
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrDuplicate) {
		err = job.Retry(0, "contention", errors.New("the lead is being changed by others all the time"))
	}
	return c, err
}

func (b *Book) settleOnce(ctx context.Context, tn *tenant.Tenant, m *Mutation) (*Change, error) {
	c, err := Changes.Get(ctx, tn.DB, ChangeID(tn.Code, m.ID))
	switch {
	case errors.Is(err, store.ErrNotFound):
		c = &Change{}
	case err != nil:
		return nil, err
	default:
		if made, err := b.made(ctx, tn, m, c); err != nil || made {
			return c, err
		}
	}
	stages, err := b.Stages(ctx, tn)
	if err != nil {
		return nil, err
	}
	e, err := b.work(ctx, tn, m, stages, c.Meta)
	if f, refused := refusal(err); refused {
		c = &Change{Meta: c.Meta, ID: ChangeID(tn.Code, m.ID), LeadID: m.LeadID, At: m.At, By: m.By, Cause: m.Cause, Ref: m.Ref, Refused: refusalOf(f)}
		return c, tn.DB.Commit(ctx, Changes.Update(c))
	}
	if err != nil {
		return nil, err
	}
	return e.change, tn.DB.Commit(ctx, e.writes...)
}

// made tells whether a recorded change was made: its record is written just before the lead, and an engine without
// transactions may have been cut between the two.
func (b *Book) made(ctx context.Context, tn *tenant.Tenant, m *Mutation, c *Change) (bool, error) {
	if c.Refused != nil || c.Idle {
		return true, nil
	}
	l, err := Leads.Get(ctx, tn.DB, c.LeadID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if !c.Created {
			return true, nil // deleted by this one, or after it
		}
		as, err := Aliases.GetAll(ctx, tn.DB, c.LeadID)
		if err != nil || len(as) > 0 {
			return true, err
		}
		later, err := Changes.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("leadId", store.Eq, c.LeadID)}, Order: "at", Desc: true, Limit: 1})
		return err == nil && len(later) > 0 && later[0].Deleted, err
	case err != nil:
		return false, err
	case c.Created:
		return true, nil
	}
	return !c.Deleted && l.Did(m.ID), nil
}

// refusal tells whether an error is the answer to a change that may not be, rather than a trouble.
func refusal(err error) (*fault.Error, bool) {
	var f *fault.Error
	if !errors.As(err, &f) {
		return nil, false
	}
	switch f.Kind {
	case fault.NotFound, fault.Conflict, fault.Invalid:
		return f, true
	}
	return nil, false
}

// conflictFree runs a read-then-commit until no other writer came between.
func conflictFree(ctx context.Context, step func() error) error {
	var err error
	for range 20 {
		if err = step(); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}
