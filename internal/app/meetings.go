package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// diary makes the diary with its line to Google.
func diary(cfg Config, book *crm.Book, q store.Queue, log *slog.Logger) *meeting.Diary {
	return &meeting.Diary{
		Book: book, Now: time.Now, Log: log, Drop: q.Cancel,
		Calendar: google.New(google.Config{BaseURL: cfg.GoogleURL}, &http.Client{Transport: transport(), Timeout: 30 * time.Second}),
	}
}

// meetings joins the diary to the rules and the jobs, which must be there by now.
func (a *App) meetings(book *crm.Book) {
	d := a.Diary
	book.Sources = append(book.Sources, appointmentsOf)
	forget := book.Forget
	book.Forget = func(ctx context.Context, tn *tenant.Tenant, leadID string) error {
		if err := errors.Join(forget(ctx, tn, leadID), d.Forget(ctx, tn, leadID)); err != nil {
			return err
		}
		// last: what a job stood for has been ended, and whoever is told of the job finds it so
		_, err := a.Runner.CancelCaused(ctx, tn.Code, store.Causation{LeadID: leadID})
		return err
	}
	d.Raise, d.Settled, d.Runner = a.Engine.Raise, a.Engine.MeetSettled, a.Runner
	d.MayBegin, d.Follow, a.Engine.Diary = a.Engine.MeetMayBegin, a.Engine.AppointmentChanged, d
	a.Runner.Know(job.Type{Name: rule.AboutJob, Handle: a.Engine.HandleAbout, Base: time.Second, Cap: time.Minute, MaxAttempts: 20})
	a.Runner.Know(job.Type{Name: meeting.ChangeJob, Handle: d.HandleChange, Base: time.Second, Cap: time.Minute, MaxAttempts: 10},
		job.Type{Name: meeting.GiveUpJob, Handle: d.HandleGiveUp, MaxAttempts: 20},
		job.Type{Name: meeting.ReminderJob, Tied: true, Handle: d.HandleReminder, Base: time.Second, Cap: time.Minute, MaxAttempts: 20})
	for _, name := range meeting.CalendarJobs {
		a.Runner.Know(job.Type{Name: name, Resource: meeting.Resource, Handle: d.HandleCalendar, Timeout: 2 * time.Minute, Cap: 15 * time.Minute, MaxAttempts: 10, Abandoned: d.Abandoned})
	}
}

// appointmentsOf are the appointments of a timeline, from when they were booked.
func appointmentsOf(ctx context.Context, tn *tenant.Tenant, s crm.Subject, before *store.Cursor, limit int) ([]crm.Entry, error) {
	as, err := crm.Latest(ctx, tn, meeting.Appointments, "leadId", s.Leads, "createdAt", before, limit)
	now := time.Now()
	var out []crm.Entry
	for _, a := range as {
		out = append(out, crm.Entry{ID: a.ID, At: a.CreatedAt, Type: "appointment", Data: a.View(a.Version, now)})
	}
	return out, err
}
