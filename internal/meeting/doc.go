// Package meeting keeps the diary: appointments of leads, their Google Meet links
// and their reminders.
//
// An appointment is changed inside jobs (Diary.Change), so that what the change
// owes (a calendar event, reminders, what rules hear) is never lost. The calendar
// is made to show what the diary says (calendar.go): each calendar job reads the
// appointment as it is then, so that an old job does no harm, and a repeated one
// nothing. A reminder is a job for its moment (reminder.go); what it finds changed,
// or late, it lets be.
//
// It knows no rules: occurrences leave through Raise, which package app sets. The
// API books, reschedules and cancels through it; package rule plans appointments
// for the action meet.create.
package meeting
