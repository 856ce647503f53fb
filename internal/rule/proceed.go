package rule

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// A run goes through its rule in legs. A leg is one walk: from where the last one stopped to the next thing that must be
// waited for. Each is done to the lead once: it is marked there, and a repetition after a crash finds the run's record of
// the leg, and does to the lead what that says.

// course is what a run is taken further with: the rule's version that it began with, the rest as it is now.
type course struct {
	ev      *Event
	def     *Definition
	lead    *crm.Lead
	contact *crm.Contact
	stages  crm.Stages
	points  []*crm.ScoreEvent // that the leg gave
}

// errLeadGone says that a run's lead is not there any more.
var errLeadGone = errors.New("rule: the lead is gone")

func (e *Engine) course(ctx context.Context, tn *tenant.Tenant, run *Run) (*course, error) {
	s, err := e.subjectOf(ctx, tn, run)
	if err != nil {
		return nil, err
	}
	c := &course{lead: s.lead, contact: s.contact}
	if c.ev, err = Events.Get(ctx, tn.DB, run.EventRef); errors.Is(err, store.ErrNotFound) && run.Told != nil {
		c.ev, err = run.Told, nil // a run may wait for longer than events are kept
	}
	if err != nil {
		return nil, err
	}
	c.ev = run.About.told(c.ev)
	v, err := Versions.Get(ctx, tn.DB, VersionID(run.RuleID, run.RuleVersion))
	if err != nil {
		return nil, err
	}
	c.def = &v.Definition
	c.stages, err = e.Book.Stages(ctx, tn)
	return c, err
}

// subject is whom a run is about.
type subject struct {
	lead    *crm.Lead
	contact *crm.Contact
}

// subjectOf reads the lead and the contact of a run.
func (e *Engine) subjectOf(ctx context.Context, tn *tenant.Tenant, run *Run) (s subject, err error) {
	s.lead, err = e.Book.LeadByID(ctx, tn, run.LeadID)
	if err == nil {
		s.contact, err = e.Book.Person(ctx, tn, s.lead.ContactID)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = errLeadGone
	}
	return s, err
}

// told is an event without what came of it, for a run of a lead that may outlive the event.
func (ev *Event) told(leadID string) *Event {
	c := *ev
	c.LeadID, c.CreateLead, c.Lead, c.Outcome = leadID, false, LeadData{}, &Outcome{LeadID: leadID}
	return &c
}

// leg walks a run on and does to the lead what is internal; the next external step is made ready. It gives the writes
// that belong to it, beside the run itself and the lead. A run that lacks a variable is held, and the leg has done nothing.
func (e *Engine) leg(ctx context.Context, tn *tenant.Tenant, run *Run, c *course, now time.Time) ([]store.Write, error) {
	first := run.Cursor == "" && len(run.Steps) == 0
	trial := copyLead(c.lead)
	w := newWalk(tn, run, c, trial, now)
	w.actions("", c.def.Actions)
	if first && w.stop != "" && len(w.missing) == 0 {
		w.missing = w.ahead(tn, run, c, now)
	}
	if len(w.missing) > 0 {
		run.State, run.Held = RunHeld, &Held{Reason: missingVariable, Names: w.missing}
		return nil, nil
	}
	*c.lead = *trial
	run.State, run.Held, run.Cursor = RunActive, nil, w.stop
	run.Steps = append(run.Steps, w.steps...)
	if first {
		run.Exits = c.def.exits()
	}
	if w.stop != "" && run.Told == nil {
		run.Told = c.ev.told(run.LeadID)
	}
	run.sleep(tn.Code, w.until)
	var writes []store.Write
	for _, s := range w.scores {
		p := &crm.ScoreEvent{ID: id.Derived("sco", run.ID, s.step), LeadID: c.lead.ID, Rule: "automation:" + run.RuleID, Points: s.points, Ref: run.ID, At: now}
		c.points = append(c.points, p)
		writes = append(writes, crm.ScoreEvents.Ensure(p))
	}
	writes = append(writes, history(tn, run, c.lead.ID, w.steps, now)...)
	next, err := e.plan(ctx, tn, run, c.contact, now)
	return append(writes, next...), err
}

// onward takes a run, of which a step ended, as far as it gets, and commits. done is that step.
func (e *Engine) onward(ctx context.Context, tn *tenant.Tenant, run *Run, done string, now time.Time) ([]store.NewJob, error) {
	var writes []store.Write
	var c *course
	var err error
	switch {
	case run.Ended():
	case run.planned() >= 0:
		var s subject
		if s, err = e.subjectOf(ctx, tn, run); err == nil {
			var reason string
			if reason, err = e.exitNow(ctx, tn, run, s, now); err == nil && reason == "" {
				writes, err = e.plan(ctx, tn, run, s.contact, now)
			}
		}
	case run.Cursor != "":
		var reason string
		if c, err = e.course(ctx, tn, run); err != nil {
			break
		}
		if reason, err = e.exitNow(ctx, tn, run, subject{c.lead, c.contact}, now); err != nil || reason != "" {
			c = nil
			break
		}
		writes, err = e.nextLeg(ctx, tn, run, c, now)
		if run.State != RunHeld {
			run.Steps[run.at(done)].Led = run.Leg
		}
	default:
		run.end(RunDone, now, nil)
	}
	if errors.Is(err, errLeadGone) {
		run.exit("lead_gone", now)
		c, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := e.commitLeg(ctx, tn, run, c, done, writes, now); err != nil {
		return nil, err
	}
	return e.followLeg(ctx, tn, run, c)
}

// nextLeg is a leg after the first. Where it is held, it is not counted.
func (e *Engine) nextLeg(ctx context.Context, tn *tenant.Tenant, run *Run, c *course, now time.Time) ([]store.Write, error) {
	run.Leg++
	writes, err := e.leg(ctx, tn, run, c, now)
	if run.State == RunHeld {
		run.Leg--
	}
	return writes, err
}

// commitLeg writes a run with what belongs to it, and last the lead, if the leg changed it. cause names the change in the
// news.
func (e *Engine) commitLeg(ctx context.Context, tn *tenant.Tenant, run *Run, c *course, cause string, writes []store.Write, now time.Time) error {
	writes = append(writes, news.Write(now, news.AutomationRun, run.ID+"|"+cause+"|"+run.State, "run", run.View()), Runs.Update(run))
	if c != nil && run.State != RunHeld && run.touched(run.Leg) {
		marks, err := e.markLead(ctx, tn, c, run, now)
		if err != nil {
			return err
		}
		writes = append(writes, marks...)
	}
	return tn.DB.Commit(ctx, writes...)
}

func legMark(run *Run) string { return "run:" + run.ID + ":" + strconv.Itoa(run.Leg) }

// markLead gives the writes of a lead to which a leg was done.
func (e *Engine) markLead(ctx context.Context, tn *tenant.Tenant, c *course, run *Run, now time.Time) ([]store.Write, error) {
	lead, mark := c.lead, legMark(run)
	if err := e.Book.Rescore(ctx, tn, lead, mark, lead.Score-given(run.legSteps(run.Leg)), now, c.points...); err != nil {
		return nil, err
	}
	lead.Mark(mark)
	lead.UpdatedAt, lead.LastActivityAt = now, now
	return []store.Write{news.Write(now, news.LeadUpdated, lead.ID+"|"+mark, "lead", lead.View(lead.Version+1)), crm.Leads.Update(lead)}, nil
}

// again is for a repetition of what took a run further: led is the leg that came of it, 0 if none. Only the lead, or the
// jobs that follow, may be missing.
func (e *Engine) again(ctx context.Context, tn *tenant.Tenant, run *Run, led int) ([]store.NewJob, error) {
	if led == 0 || led != run.Leg { // none, or the run went further since
		return e.stepJobs(tn, run), nil
	}
	c, err := e.course(ctx, tn, run)
	if errors.Is(err, errLeadGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if run.touched(led) && !c.lead.Did(legMark(run)) {
		replay(run.legSteps(led), c.lead)
		marks, err := e.markLead(ctx, tn, c, run, e.Now().UTC())
		if err != nil {
			return nil, err
		}
		if err := tn.DB.Commit(ctx, marks...); err != nil {
			return nil, err
		}
	}
	return e.followLeg(ctx, tn, run, c)
}

// followLeg gives the jobs that a leg needs: the next external step, and the events that its actions cause.
func (e *Engine) followLeg(ctx context.Context, tn *tenant.Tenant, run *Run, c *course) ([]store.NewJob, error) {
	next := e.stepJobs(tn, run)
	if c == nil {
		return next, nil
	}
	budget := c.ev.later(c.def)
	occurrences := causedBy(c.ev, []*Run{run}, run.Leg, budget)
	if mark := legMark(run); c.lead.Did(mark) {
		crossings, turns := e.Book.Scored(tn, c.lead, mark)
		for _, o := range crossings {
			occurrences = append(occurrences, c.ev.led(o, budget, run.RuleID))
		}
		next = append(next, turns...)
	}
	raised, err := e.Raise(ctx, tn, occurrences...)
	return append(raised, next...), err
}

// ahead looks past the place where a first leg stops, for variables that will be missing there: better held before
// anything is done than in the middle. What later steps will know, and what hangs on it, is left alone.
func (w *walk) ahead(tn *tenant.Tenant, run *Run, c *course, now time.Time) []string {
	a := newWalk(tn, run, c, copyLead(w.lead), now)
	a.cursor, a.through, a.looking = w.stop, true, true
	a.scope.setLead(a.lead)
	for root := range w.open {
		a.open[root] = true
	}
	a.actions("", c.def.Actions)
	return a.missing
}

func copyLead(l *crm.Lead) *crm.Lead {
	c := *l
	c.Tags, c.Fields = slices.Clone(l.Tags), clone(l.Fields)
	return &c
}

func clone(m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	maps.Copy(out, m)
	return out
}
