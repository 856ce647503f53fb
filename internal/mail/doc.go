// Package mail is single e-mails over the client's own SMTP server: it plans
// them, hands them over and records what became of each. It is to e-mail what
// package chat is to WhatsApp.
//
// Office is the work for every client. A Letter is the ledger of its own send:
// planned, in_flight, accepted, rejected or unconfirmed (send.go). Hand (hand.go)
// is one handing over with all that is the client's about it: account, pace,
// connections, and what a refusal means; package campaign, whose recipients are
// their own ledgers, hands over through it too. Fill (fill.go) puts variables into
// texts. Package smtp speaks the protocol; package rule and campaign ask for
// letters; package app registers the job type. It reads no mailbox: bounces that
// come as mails are not seen.
package mail
