// Package google speaks Google's OAuth token endpoint and the Calendar API v3,
// as far as a meeting needs them: an event with a Meet link, made, moved,
// looked at and taken back, for an account given as a value.
//
// It knows the protocol and nothing of appointments, leads, reminders or
// retries, and it neither logs nor stores. It imports nothing of ours but
// secret. Package meeting calls it to book, app to check an account;
// googletest is the server that tests and the demo put in front of it.
//
// # Making an event once
//
// The caller chooses the event's id ([EventID] of what it books for), so that
// the same [Client.Insert] twice makes one event: Google answers the second
// with 409, and Insert reads the event back. Patch and Delete may be repeated
// by nature. So every failed call may be made again as long as its error is
// Temporary, even where its Outcome is [Ambiguous]. An id stays taken after its
// event was cancelled ([ErrCancelled]): booking anew needs a new one.
//
// # Links
//
// Google may make the Meet link later than the event. While
// Event.ConferenceStatus is [ConferencePending], ask again by [Client.Get],
// after 1, 2, 4, 8 s.
//
// # Tokens
//
// A [Client] keeps access tokens in memory, by account, for as long as Google
// says that they live, and fetches each once however many calls want it. A
// call that meets 401 is made a second time with a new token: the first had no
// effect.
package google
