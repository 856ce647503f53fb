// Package chat is conversations over WhatsApp: it takes Meta's deliveries in,
// sorts them into the clients' databases, plans messages, sends them, and
// follows their statuses.
//
// Intake (intake.go) works off the raw inbox; Desk is the work on one client's
// conversations: what comes in (ingest.go, imported.go), from whom (person.go),
// and what it does to other messages (effect.go), what goes out (plan.go,
// send.go) and what became of it (status.go). The message record is
// also the ledger of its send: planned, in_flight, accepted, rejected or
// unconfirmed. Package whatsapp speaks Meta's protocol; package rule and api ask
// for messages to be sent; package app registers the job type.
package chat
