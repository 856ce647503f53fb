// Package whatsapp speaks Meta's WhatsApp Cloud API: it splits and types the
// bodies that Meta posts, and it calls the Graph API for an account given as a
// value.
//
// It knows the protocol and nothing of what a message means to us: no clients,
// contacts, conversations, windows or retries. It imports nothing of ours but
// secret. Package chat calls it to ingest and to send, media to fetch files,
// app to check an account; whatsapptest is the Graph server that tests and the
// demo put in front of it.
//
// # Webhooks
//
// Verify first ([VerifySignature], over the bytes received), keep the bytes,
// then split them ([ParseWebhook]). One body can carry several accounts and a
// thousand updates, so nothing in it is trusted to be well formed: each item
// stands alone, and the trouble of one never hides its neighbour.
//
// # Sending
//
// The Cloud API has no idempotency key, so the one thing that matters about a
// failed send is whether the message may have gone out. Every error of a
// [Client] is an [*APIError], whose [Outcome] says so; [Classify] is the one
// table behind it, for refused calls and for failed statuses alike. A client
// never repeats a call by itself.
package whatsapp
