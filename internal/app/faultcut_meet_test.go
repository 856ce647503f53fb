package app_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/google/googletest"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// meetings gives a world a diary.
func (w *world) meetings(reg *tenant.Registry, book *crm.Book, clock func() time.Time) {
	log := slog.New(slog.DiscardHandler)
	w.diary = &meeting.Diary{
		Book: book, Calendar: google.New(google.Config{BaseURL: w.google.URL}, nil), Now: clock, Log: log, Raise: w.engine.Raise, Settled: w.engine.MeetSettled,
		MayBegin: w.engine.MeetMayBegin, Follow: w.engine.AppointmentChanged,
		Runner: job.NewRunner(job.Config{Queue: w.queue, Tenants: reg, Now: clock, Log: log}),
	}
	w.engine.Diary, w.engine.Doers[rule.CreateMeet] = w.diary, rule.Meetings{Diary: w.diary}
}

// bookingJob books an appointment of the lead that made("m1") makes, ten days from now.
func (w *world) bookingJob(change func(*meeting.Booking)) store.Job {
	b := &meeting.Booking{
		LeadID: w.leadID("m1"), Title: "Consultation", StartsAt: w.now.Add(240 * time.Hour), DurationMinutes: 30, TimeZone: "Asia/Kolkata", Meet: true,
		Attendees: []meeting.Attendee{{Email: "guest@example.com"}}, Variables: map[string]any{"doctor": "Arjun"},
	}
	if change != nil {
		change(b)
	}
	return w.mutationJob(meeting.Mutation{ID: "b1", Book: b})
}

func (w *world) mutationJob(m meeting.Mutation) store.Job {
	m.At = w.now
	if m.AppointmentID == "" {
		m.AppointmentID = w.appointmentID()
	}
	b, err := json.Marshal(m)
	w.must(err)
	sealed, err := w.tn.Seal("appointment", string(b))
	w.must(err)
	return store.Job{ID: "job_a", Type: meeting.ChangeJob, Tenant: "ACME", Token: 1, MaxAttempts: 8,
		Payload: payload(map[string]string{"appointmentId": m.AppointmentID, "sealed": sealed})}
}

func (w *world) appointmentID() string { return id.Derived("apt", "ACME", "b1") }

func (w *world) appointment() *meeting.Appointment {
	w.t.Helper()
	a, err := meeting.Appointments.Get(context.Background(), w.db, w.appointmentID())
	w.must(err)
	return a
}

// booked makes the lead and its appointment; linked its event, too.
func (w *world) booked(change func(*meeting.Booking)) {
	w.t.Helper()
	w.made("m1")
	_, err := w.diary.HandleChange(context.Background(), w.tn, w.bookingJob(change))
	w.must(err)
}

func (w *world) linked(change func(*meeting.Booking)) {
	w.t.Helper()
	w.booked(change)
	_, err := w.diary.HandleCalendar(context.Background(), w.tn, w.calendarJob(meeting.CreateJob))
	w.must(err)
}

func (w *world) calendarJob(typ string) store.Job {
	return store.Job{ID: "job_m", Type: typ, Tenant: "ACME", Token: 1, MaxAttempts: 8, Payload: payload(map[string]string{"appointmentId": w.appointmentID()})}
}

// moved puts the appointment off by a day.
func (w *world) moved() {
	w.t.Helper()
	_, err := w.diary.HandleChange(context.Background(), w.tn, w.moveJob())
	w.must(err)
}

func (w *world) moveJob() store.Job {
	at := w.now.Add(264 * time.Hour)
	return w.mutationJob(meeting.Mutation{ID: "b2", Edit: &meeting.Edit{StartsAt: &at}})
}

// remindAbout publishes rules on what happens to appointments.
func (w *world) hearAppointments() {
	for i, trigger := range []string{"appointment_confirmed", "appointment_reminder", "appointment_rescheduled", "appointment_cancelled"} {
		w.publish(`{"trigger":"`+trigger+`","reenrol":"every_event","actions":[{"type":"lead.score","points":1}]}`, "rul_apt"+string(rune('0'+i)))
	}
}

func (w *world) reminderJob(offset string) store.Job {
	return store.Job{ID: "job_r", Type: meeting.ReminderJob, Tenant: "ACME", Token: 1, MaxAttempts: 8,
		Payload: payload(map[string]any{"appointmentId": w.appointmentID(), "revision": w.appointment().Revision, "offset": offset})}
}

// meetCuts are the cases of TestFaultCut about appointments.
func meetCuts() []faultCase {
	ctx := context.Background()
	link := []string{"url", "meetUrl", "news"} // Google's link is random
	announced := func(b *meeting.Booking) { b.Meet, b.Announce, b.Attendees = false, true, nil }
	return []faultCase{
		{
			name:    "appointment.change that books",
			prepare: func(w *world) { w.hearAppointments(); w.made("m1") },
			do:      func(w *world) step { return run(w.diary.HandleChange, w.bookingJob(announced)) },
			expect: func(w *world) {
				if a := w.appointment(); a.Status != meeting.Confirmed || len(a.Reminders) != 2 || a.Reminders[0].State != meeting.Planned {
					w.t.Errorf("%+v", a)
				}
			},
		},
		{
			name:    "appointment.change that moves",
			prepare: func(w *world) { w.hearAppointments(); w.linked(nil) },
			do:      func(w *world) step { return run(w.diary.HandleChange, w.moveJob()) },
			ignore:  link,
		},
		{
			name:    "appointment.change that cancels",
			prepare: func(w *world) { w.hearAppointments(); w.linked(nil) },
			do: func(w *world) step {
				return run(w.diary.HandleChange, w.mutationJob(meeting.Mutation{ID: "b3", Cancel: true}))
			},
			ignore: link,
		},
		{
			name:    "meet.create",
			prepare: func(w *world) { w.hearAppointments(); w.booked(func(b *meeting.Booking) { b.Announce = true }) },
			do:      func(w *world) step { return run(w.diary.HandleCalendar, w.calendarJob(meeting.CreateJob)) },
			ignore:  link,
			expect: func(w *world) {
				if ws := w.google.Writes(); len(ws) != 1 || w.appointment().Meet.State != meeting.Ready {
					w.t.Errorf("%+v", ws)
				}
			},
		},
		{
			name:    "meet.create whose grant was revoked",
			prepare: func(w *world) { w.booked(nil); w.google.Revoke("refresh-1") },
			do:      func(w *world) step { return run(w.diary.HandleCalendar, w.calendarJob(meeting.CreateJob)) },
		},
		{
			name: "meet.create that is refused",
			prepare: func(w *world) {
				w.booked(nil)
				w.google.On("insert", -1, googletest.APIError(400, "invalid", "Invalid"))
			},
			do: func(w *world) step { return run(w.diary.HandleCalendar, w.calendarJob(meeting.CreateJob)) },
			expect: func(w *world) {
				if m := w.appointment().Meet; m.State != meeting.Failed || m.Error.Code != "google.rejected" {
					w.t.Errorf("%+v", m)
				}
			},
		},
		{
			name: "meet.create of an event that somebody deleted",
			prepare: func(w *world) {
				w.linked(nil)
				w.google.Edit(calendarUser, w.appointment().Meet.EventID, func(e *googletest.Event) { e.Status = "cancelled" })
			},
			do:     func(w *world) step { return run(w.diary.HandleCalendar, w.calendarJob(meeting.MoveJob)) },
			ignore: link,
		},
		{
			name: "meet.cancel",
			prepare: func(w *world) {
				w.linked(nil)
				_, err := w.diary.HandleChange(ctx, w.tn, w.mutationJob(meeting.Mutation{ID: "b3", Cancel: true}))
				w.must(err)
			},
			do:     func(w *world) step { return run(w.diary.HandleCalendar, w.calendarJob(meeting.CancelJob)) },
			ignore: link,
			expect: func(w *world) {
				if ev := w.google.Events(calendarUser); len(ev) != 0 {
					w.t.Errorf("%+v", ev)
				}
			},
		},
		{
			name:    "meet.give_up",
			prepare: func(w *world) { w.hearAppointments(); w.booked(func(b *meeting.Booking) { b.Announce = true }) },
			do:      func(w *world) step { return run(w.diary.HandleGiveUp, w.calendarJob(meeting.GiveUpJob)) },
		},
		{
			name: "appointment.reminder",
			prepare: func(w *world) {
				w.hearAppointments()
				w.booked(announced)
				w.now = w.appointment().StartsAt.Add(-24 * time.Hour)
			},
			do: func(w *world) step { return run(w.diary.HandleReminder, w.reminderJob("-24h")) },
			expect: func(w *world) {
				if r := w.appointment().Reminders[0]; r.State != meeting.Fired {
					w.t.Errorf("%+v", r)
				}
			},
		},
		{
			name:    "a lead's appointments are forgotten",
			prepare: func(w *world) { w.linked(nil) },
			do: func(w *world) step {
				return func(w *world) ([]string, error) { return nil, w.diary.Forget(ctx, w.tn, w.leadID("m1")) }
			},
			ignore: link,
			expect: func(w *world) {
				if a := w.appointment(); a.Title != "" || a.LeadID != "" || a.Status != meeting.Cancelled {
					w.t.Errorf("%+v", a)
				}
			},
		},
		{
			name:    "automation.appointment",
			prepare: func(w *world) { w.waitingRun(); w.moved() },
			do:      func(w *world) step { return run(w.engine.HandleAbout, w.aboutJob()) },
			expect: func(w *world) {
				if r := w.onlyRun(); !r.WaitUntil.Equal(w.appointment().StartsAt.Add(-time.Hour)) {
					w.t.Errorf("it waits until %s", r.WaitUntil)
				}
			},
		},
		{
			name: "automation.appointment that was cancelled",
			prepare: func(w *world) {
				w.waitingRun()
				_, err := w.diary.HandleChange(ctx, w.tn, w.mutationJob(meeting.Mutation{ID: "b3", Cancel: true}))
				w.must(err)
			},
			do: func(w *world) step { return run(w.engine.HandleAbout, w.aboutJob()) },
			expect: func(w *world) {
				if r := w.onlyRun(); r.ExitReason != "appointment_cancelled" {
					w.t.Errorf("%+v", r)
				}
			},
		},
	}
}

// waitingRun is a run that waits for an hour before the appointment that it was told of.
func (w *world) waitingRun() {
	w.t.Helper()
	w.rule(`{"trigger":"appointment_confirmed","actions":[{"type":"wait","until":"{{startsAt}}","offset":"-1h"},{"type":"lead.set","fields":{"at":"{{startsAt}} {{appointment.time}}"}}]}`)
	w.booked(func(b *meeting.Booking) { b.Meet, b.Announce, b.Attendees = false, true, nil })
	w.follow(w.diary.HandleChange, w.bookingJob(nil), rule.EventJob, w.engine.HandleEvent)
}

// follow runs a handler again, and the jobs of a type that it gives.
func (w *world) follow(h job.Handler, j store.Job, typ string, then job.Handler) (n int) {
	w.t.Helper()
	res, err := h(context.Background(), w.tn, j)
	w.must(ignoreVerdict(err))
	for _, next := range job.Following(res, err) {
		if next.Type == typ {
			n++
			_, err := then(context.Background(), w.tn, store.Job{ID: next.ID, Type: typ, Tenant: "ACME", Token: 1, MaxAttempts: 8, Payload: next.Payload})
			w.must(ignoreVerdict(err))
		}
	}
	return n
}

func (w *world) aboutJob() store.Job {
	return store.Job{Type: rule.AboutJob, Tenant: "ACME", Payload: payload(map[string]any{"appointmentId": w.appointmentID(), "revision": 2})}
}
