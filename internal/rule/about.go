package rule

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// AboutJob is the type of the job that takes the open runs about an appointment along when it is moved or cancelled.
const AboutJob = "automation.appointment"

// About is the appointment that a run is about: that of its event, or the last one that it made itself.
type About struct {
	ID      string         `json:"id"`
	Trigger string         `json:"trigger,omitempty"` // of the event; "" where the run made the appointment
	Known   map[string]any `json:"known"`             // the appointment as the run last knew it
}

// appointment is the id of the appointment that the run is about; "" for none.
func (r *Run) appointment() string {
	if r.About == nil {
		return ""
	}
	return r.About.ID
}

// about tells which appointment an event is about; nil for none.
func about(trigger string, snapshot map[string]any) *About {
	appointmentID, _ := snapshot["id"].(string)
	if appointmentID == "" {
		return nil
	}
	return &About{appointmentID, trigger, snapshot}
}

// told is an event as it would be told today, of a run whose appointment was moved since.
func (a *About) told(ev *Event) *Event {
	if a == nil || ev.Appointment == nil || ev.Appointment["id"] != a.ID {
		return ev
	}
	now := *ev
	now.Appointment = a.Known
	if said, ok := ev.Variables["startsAt"].(string); ok && sameMoment(said, ev.Appointment["startsAt"]) {
		now.Variables = clone(ev.Variables)
		now.Variables["startsAt"] = a.Known["startsAt"]
	}
	return &now
}

func moment(v any) (time.Time, bool) {
	s, _ := v.(string)
	t, err := time.Parse(time.RFC3339, s)
	return t, err == nil
}

func sameMoment(a, b any) bool {
	x, okX := moment(a)
	y, okY := moment(b)
	return okX && okY && x.Equal(y)
}

// waited tells whether a run went through a wait: what comes after it is for the moment that the rule's author chose.
func (r *Run) waited() bool {
	for _, s := range r.Steps {
		if s.Type == Wait && s.State == StepDone {
			return true
		}
	}
	return false
}

// unsaid tells why what a run is about does not hold any more; "" if it does.
func (e *Engine) unsaid(ctx context.Context, tn *tenant.Tenant, run *Run) (reason string, err error) {
	if run.About == nil || e.Diary == nil {
		return "", nil
	}
	reason, err = e.Diary.Holds(ctx, tn, run.About.Trigger, run.About.Known)
	if reason == tooLate && run.waited() {
		reason = ""
	}
	return reason, err
}

type aboutPayload struct {
	AppointmentID string `json:"appointmentId"`
	Revision      int    `json:"revision"`
}

// AppointmentChanged gives the job that takes open runs along with an appointment that was moved or cancelled; none
// where no run is about it. It is the Follow of meeting.Diary.
func (e *Engine) AppointmentChanged(ctx context.Context, tn *tenant.Tenant, a *meeting.Appointment) ([]store.NewJob, error) {
	n, err := tn.DB.Count(ctx, runsAbout(a.ID))
	if err != nil || n == 0 {
		return nil, err
	}
	j := job.New(tn.Code, AboutJob, aboutPayload{a.ID, a.Revision})
	j.UniqueKey, j.Causation = "about:"+a.ID+":"+itoa(a.Revision), store.Causation{LeadID: a.LeadID, AppointmentID: a.ID}
	return []store.NewJob{j}, nil
}

func runsAbout(appointmentID string) store.Query {
	return store.Query{Kind: Runs.Schema.Kind, Where: []store.Term{store.Where("about", store.Eq, appointmentID)}, Limit: 1000}
}

// HandleAbout is the handler of AboutJob.
func (e *Engine) HandleAbout(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[aboutPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	runs, err := Runs.Find(ctx, tn.DB, runsAbout(p.AppointmentID))
	if err != nil {
		return job.Result{}, err
	}
	var next []store.NewJob
	for _, r := range runs {
		err := conflictFree(ctx, func() error {
			run, err := Runs.Get(ctx, tn.DB, r.ID)
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			if err != nil || run.Ended() {
				return err
			}
			moved, err := e.along(ctx, tn, run)
			next = append(next, moved...)
			return err
		})
		if err != nil {
			return job.Result{}, err
		}
	}
	return job.Result{Next: next}, nil
}

// along takes a run along with its appointment: it is left if that was cancelled, or if the run spoke of the old time
// alone; else its wait for the old time becomes one for the new.
func (e *Engine) along(ctx context.Context, tn *tenant.Tenant, run *Run) ([]store.NewJob, error) {
	now := e.Now().UTC()
	reason, err := e.unsaid(ctx, tn, run)
	if err != nil {
		return nil, err
	}
	if reason != "" && reason != tooLate {
		run.exit(reason, now)
		return nil, e.commitEnd(ctx, tn, run, now)
	}
	a, err := meeting.Appointments.Get(ctx, tn.DB, run.About.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !run.outdated(a) {
		return e.wakeJob(tn, run), nil // a repetition: only its job may be missing
	}
	s, err := e.subjectOf(ctx, tn, run)
	if err != nil && !errors.Is(err, errLeadGone) {
		return nil, err
	}
	zone := tn.Account().Zone()
	if s.lead != nil {
		zone = s.lead.Zone(zone)
	}
	old := run.About.Known
	run.About.Known = a.Snapshot()
	if run.Results["appointment"] != nil {
		run.Results["appointment"], run.Results["meet"] = run.About.Known, a.Link()
	}
	run.waitAnew(tn.Code, old, a, zone, now)
	cause := run.ID + "|moved|" + itoa(a.Revision)
	if err := tn.DB.Commit(ctx, news.Write(now, news.AutomationRun, cause, "run", run.View()), Runs.Update(run)); err != nil {
		return nil, err
	}
	return e.wakeJob(tn, run), nil
}

// outdated tells whether an appointment was moved since the run last knew it.
func (r *Run) outdated(a *meeting.Appointment) bool {
	switch rev := r.About.Known["revision"].(type) {
	case float64:
		return int(rev) != a.Revision
	case int:
		return rev != a.Revision
	case json.Number:
		return rev.String() != itoa(a.Revision)
	}
	return true
}

// waitAnew makes a wait for a moment of the appointment as it was one for the appointment as it is.
func (r *Run) waitAnew(code string, old map[string]any, a *meeting.Appointment, zone *time.Location, now time.Time) {
	i := r.at(r.Cursor)
	if r.State != RunWaiting || i < 0 {
		return
	}
	s := &r.Steps[i]
	var in waitInput
	if json.Unmarshal(s.Input, &in) != nil || in.Anchor == nil {
		return
	}
	anchor := a.StartsAt
	switch said := in.Anchor.Format(time.RFC3339); {
	case sameMoment(said, old["startsAt"]):
	case sameMoment(said, old["endsAt"]):
		anchor = a.EndsAt()
	default:
		return // for something else
	}
	in.Anchor = &anchor
	d := due{Until: anchor, Revision: a.Revision}
	if in.Offset != "" {
		sp, err := clock.ParseSpan(in.Offset)
		if err != nil {
			return
		}
		d.Until = sp.From(anchor, zone)
	}
	d.bound(anchor)
	if d.Until.Before(anchor) && now.Sub(d.Until) > reachedLate {
		d.Latest = d.Until // as of a wait that is reached only now
	}
	s.Input, s.Output = raw(in), raw(d)
	s.JobID = id.DerivedAt("job", s.At, code, "wake", r.ID, r.Cursor, itoa(a.Revision))
	until := d.Until.UTC()
	r.WaitUntil = &until
}
