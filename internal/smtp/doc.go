// Package smtp hands mail to an SMTP server: one message to one recipient a
// call, over connections that it keeps and reuses for each account.
//
// It knows the protocol and nothing of what a mail means to us: no clients,
// campaigns, suppressions, pace or retries. It imports nothing of ours but
// secret. Package campaign and the jobs of automation call it to send, app to
// check an account; smtptest is the server that tests and the demo put in front
// of it. It logs nothing.
//
// # What a failure means
//
// SMTP has no idempotency key, so what matters about a failed send is whether
// the message may have gone out. Every error of a [Client] is an [*Error], whose
// [Outcome] says so. There is one moment of doubt: after the final dot of the
// message was handed over and before its answer was read. All other failures
// are certain. A client never sends a message twice: it begins anew only if a
// kept connection turns out to be gone before any of the message was written.
//
// # Whose server it is
//
// Host and port come from a tenant, and so does whatever answers there. Only
// public addresses and the ports of mail are dialled (unless
// Config.AllowPrivate), each name is checked after it was resolved, answers are
// bounded in size and time, certificates are verified, STARTTLS is never given
// up, a password is never written in the clear over a public network, and no
// word of the server stands in an error's text.
package smtp
