// Package campaign is one message to many people, by e-mail or WhatsApp: audiences
// frozen at the start, a steady pace, pause and cancel at once, and a report that
// is counted from what happened.
//
// Bureau is the work for every client. A Campaign moves by turns (turn.go): each is
// a job, so that what it owes is not lost. HandleFreeze (freeze.go) writes down who
// is in the audience (audience.go), page by page, a Recipient each. HandleWindow
// (window.go) then works off a short window of them and leaves the next one: by
// e-mail it hands them over itself (post.go), each recipient being the ledger of its
// mail, a clerk (clerk.go) marking some and settling others in one commit, and
// leaves behind what the server does not answer (hung.go); by WhatsApp it plans
// messages, which package chat sends (spread.go). No job holds a whole campaign,
// and none holds a worker for long.
//
// link.go makes and reads the links by which people unsubscribe. Package api asks
// for turns, app registers the job types.
package campaign
