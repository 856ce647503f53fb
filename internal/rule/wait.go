package rule

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// WakeJob is the type of the job that takes a run further when its wait is over.
const WakeJob = "automation.wake"

// A wait for a stretch of time is never too late. A wait until a moment is there for that moment: what belongs after it,
// up to the next wait, is not sent late. Before an anchor (offset "-24h") half of the offset may pass, so that never
// anything is sent after the anchor itself; at an anchor an hour; after it (offset "2h") as long again as the offset, one
// hour to a day. A wait before an anchor that is reached only after its moment (somebody booked an hour ahead, and the
// reminder is due a day before) is too late at once.
const (
	reachedLate = 5 * time.Minute
	leastGrace  = time.Hour
	mostGrace   = 24 * time.Hour
)

// due is when a wait is over, and the last moment at which what follows is of use; zero: any.
type due struct {
	Until  time.Time `json:"until"`
	Latest time.Time `json:"latest,omitzero"`
	// Revision is that of the appointment for which the wait was begun anew; 0: it was not.
	Revision int `json:"revision,omitempty"`
}

// bound works out the last moment for what follows a wait for an anchor.
func (d *due) bound(anchor time.Time) {
	switch lead := anchor.Sub(d.Until); {
	case lead > 0:
		d.Latest = d.Until.Add(lead / 2)
	default:
		d.Latest = d.Until.Add(min(max(-lead, leastGrace), mostGrace))
	}
}

// waitInput is the input of a wait as it was filled.
type waitInput struct {
	For    string     `json:"for,omitempty"`
	Anchor *time.Time `json:"until,omitempty"`
	Offset string     `json:"offset,omitempty"`
}

// dueOf works out when a wait that is reached now is over. False: its moment is not known; its names are missing then.
func (w *walk) dueOf(a Action) (in waitInput, d due, ok bool) {
	if a.For != "" {
		sp, err := clock.ParseSpan(a.For)
		return waitInput{For: a.For}, due{Until: sp.From(w.now, w.zone)}, err == nil
	}
	anchor, ok := w.moment(a.Until, w.home)
	if !ok {
		return in, d, false
	}
	in = waitInput{Anchor: &anchor, Offset: a.Offset}
	d.Until = anchor
	if a.Offset != "" {
		sp, err := clock.ParseSpan(a.Offset)
		if err != nil {
			return in, d, false
		}
		d.Until = sp.From(anchor, w.zone)
	}
	d.bound(anchor)
	return in, d, true
}

// moment reads a filled time. One that is none holds the run as if its variables were missing: they can be given anew.
func (w *walk) moment(text string, zone *time.Location) (time.Time, bool) {
	filled := w.fill(text, maxShort)
	if strings.Contains(filled, "{{") {
		return time.Time{}, false // of a result that is still to come
	}
	t, err := clock.Parse(filled, zone)
	if err != nil {
		for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
			w.miss(m[1])
		}
		return time.Time{}, false
	}
	return t, true
}

// wait begins a wait, or goes past one that is over. The walk stops at it, unless its moment has come already.
func (w *walk) wait(at string, a Action) {
	if w.over[at] {
		return
	}
	if w.pending && !w.through { // it begins when what is planned before it has ended
		w.stop = at
		return
	}
	in, d, ok := w.dueOf(a)
	if !ok && !w.through {
		return // the walk is void
	}
	w.late, w.latest = false, d.Latest
	s := Step{ID: at, Type: Wait, State: StepWaiting, Input: raw(in), Output: raw(d)}
	tooLate := !d.Latest.IsZero() && w.now.After(d.Latest)
	if in.Anchor != nil && d.Until.Before(*in.Anchor) && w.now.Sub(d.Until) > reachedLate {
		tooLate = true
	}
	switch {
	case !ok: // only looked through, with a moment that an earlier step will tell
		s.State, s.Error = StepSkipped, &StepError{dependsOnResult, "How long depends on an earlier step."}
	case tooLate:
		w.late = true
		s.State, s.Error = StepSkipped, errTooLate()
	case !d.Until.After(w.now):
		s.State = StepDone
	case w.through:
		w.leg++
		w.now, s.State = d.Until, StepDone
		w.scope.env["now"] = w.now
	default:
		w.stop, w.until = at, d.Until
	}
	w.step(s)
}

func errTooLate() *StepError {
	return &StepError{tooLate, "Its moment had passed."}
}

type wakePayload struct {
	RunID string `json:"runId"`
	Step  string `json:"step"`
}

// wakeJob is the job that ends the wait that a run is in; none if it is in none.
func (e *Engine) wakeJob(tn *tenant.Tenant, run *Run) []store.NewJob {
	i := run.at(run.Cursor)
	if run.State != RunWaiting || run.WaitUntil == nil || i < 0 {
		return nil
	}
	n := job.New(tn.Code, WakeJob, wakePayload{run.ID, run.Cursor})
	n.ID, n.UniqueKey, n.RunAt = run.Steps[i].JobID, "wake:"+run.ID+":"+run.Cursor, *run.WaitUntil
	if rev := run.Steps[i].due().Revision; rev != 0 {
		n.UniqueKey += ":" + itoa(rev)
	}
	n.Causation = store.Causation{EventID: run.EventID, RunID: run.ID, Step: run.Cursor, LeadID: run.LeadID, AppointmentID: run.appointment()}
	return []store.NewJob{n}
}

// sleep puts a run that stopped at a wait to sleep.
func (r *Run) sleep(code string, until time.Time) {
	i := r.at(r.Cursor)
	if until.IsZero() || i < 0 || r.Ended() {
		return
	}
	until = until.UTC()
	r.State, r.WaitUntil = RunWaiting, &until
	r.Steps[i].JobID = id.DerivedAt("job", r.Steps[i].At, code, "wake", r.ID, r.Cursor)
}

// HandleWake is the handler of WakeJob.
func (e *Engine) HandleWake(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[wakePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	var next []store.NewJob
	err = conflictFree(ctx, func() error { next, err = e.wake(ctx, tn, p); return err })
	for i := range next {
		if next[i].Type == chat.SendJob && next[i].Class == "" {
			next[i].Class = store.Normal // nobody sits and waits for what was due by the clock
		}
	}
	return job.Result{Next: next}, err
}

func (e *Engine) wake(ctx context.Context, tn *tenant.Tenant, p wakePayload) ([]store.NewJob, error) {
	run, err := Runs.Get(ctx, tn.DB, p.RunID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil // erased meanwhile
	}
	if err != nil {
		return nil, err
	}
	i := run.at(p.Step)
	if i < 0 {
		return nil, nil
	}
	s := &run.Steps[i]
	if s.State != StepWaiting || run.Ended() {
		return e.again(ctx, tn, run, s.Led)
	}
	if run.About != nil && e.Diary != nil { // it may have been moved while nobody knew of this run
		a, err := meeting.Appointments.Get(ctx, tn.DB, run.About.ID)
		if err == nil && (a.Status != meeting.Confirmed || run.outdated(a)) && run.About.Trigger != meeting.CancelledTrigger {
			return e.along(ctx, tn, run)
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	now := e.Now().UTC()
	if run.WaitUntil != nil && now.Before(*run.WaitUntil) {
		return nil, job.Snooze(run.WaitUntil.Sub(now), "early", nil)
	}
	s.State, s.EndedAt = StepDone, &now
	if d := s.due(); !d.Latest.IsZero() && now.After(d.Latest) {
		s.State, s.Error = StepSkipped, errTooLate()
	}
	run.State, run.WaitUntil = RunActive, nil
	return e.onward(ctx, tn, run, s.ID, now)
}
