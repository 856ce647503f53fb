package crm

import "time"

// Occurrence is something that happened to a person or a lead, for the rules that listen. A domain that makes a change
// inside a job gives its occurrences to package rule (through a Raise function set by package app) and leaves the jobs
// that it gets back to the job that made the change.
type Occurrence struct {
	// Key names the occurrence for good: the same one, raised again after a crash, is one event.
	Key       string
	Trigger   string
	LeadID    string // "" where only a phone or an e-mail is known
	Phone     string // E.164
	Email     string
	Variables map[string]any
	// Inherited are the variables of the event that led to it; Variables win.
	Inherited map[string]any
	// Appointment is what conditions and placeholders see as appointment.*, of what is about one.
	Appointment map[string]any
	At          time.Time
	Depth       int      // 0: a person or the world outside did it; an event's depth and one where a rule did
	Chain       []string // the rules that led here; none of them is entered again
	Budget      int      // of depth 1 and more: how many events its cause may still lead to, this one and its siblings included
}
