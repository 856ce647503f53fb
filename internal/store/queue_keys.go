package store

import "fmt"

// OnTaken says what becomes of a job whose unique key is known.
type OnTaken string

// What may become of it. The key's job is compared with what is asked for only where the first one stays.
const (
	// Keep leaves the earlier job as it is, however it ended, and makes none.
	Keep OnTaken = ""
	// Replace gives an earlier job that does not run yet the new payload, due time and cause, its failed attempts
	// forgotten: who asks again puts it off (debounce). One that runs or has ended loses its key to a new job.
	Replace OnTaken = "replace"
	// ReplaceKeepTime is Replace, but a job that does not run yet stays due when it was: who asks again does not put it
	// off (throttle).
	ReplaceKeepTime OnTaken = "replace_keep_time"
)

// Room is how many unfinished jobs there may be with the one that is asked for; 0 is any number. Who can be told to come
// back later asks with it. What follows from a job that was taken in does not: it would be lost.
type Room struct {
	Tenant int64 // of its tenant
	Lane   int64 // in its lane
}

// FullError says that there was no room for a job: nothing was made.
type FullError struct {
	Tenant string
	Lane   string // "": it is the tenant that has too many
	Jobs   int64  // unfinished now
	Limit  int64
}

func (e *FullError) Error() string {
	if e.Lane != "" {
		return fmt.Sprintf("store: lane %s holds %d unfinished jobs of at most %d", e.Lane, e.Jobs, e.Limit)
	}
	return fmt.Sprintf("store: tenant %s has %d unfinished jobs of at most %d", e.Tenant, e.Jobs, e.Limit)
}
