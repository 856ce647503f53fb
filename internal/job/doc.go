// Package job runs the durable queue: it claims jobs, gives each its tenant,
// keeps the leases alive, and records how each ended.
//
// A handler is idempotent: it may run again after any crash, and then comes to
// the same state. Retry policy lives here and nowhere else; a handler says what
// happened (Retry, Snooze, Park, Dead), the type says how often and how long.
// The queue itself is store.Queue. Domains register their types in package app.
//
// A Timetable makes jobs by the clock: one for each occurrence of a Schedule, over
// any number of processes.
package job
