package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"strings"
	"syscall"
	"time"
)

// Outcome says what became of a call that failed; of a send, whether the message may have gone out.
type Outcome string

const (
	// NotSent: no server refused it and none took it: no connection, or one that
	// broke before the message was handed over whole. It may be sent again.
	NotSent Outcome = "not_sent"

	// Rejected: refused for good, by the server (5xx) or before anything was called.
	Rejected Outcome = "rejected"

	// Limited: refused for now (4xx, or a quota that fills again). It may be sent
	// again; RetryAfter advises when.
	Limited Outcome = "limited"

	// Ambiguous: it may have been delivered. It was handed over whole and the
	// answer is lost or unreadable. Sending again may send twice.
	Ambiguous Outcome = "ambiguous"
)

// Scope says what the trouble belongs to, and so what has to pause.
type Scope string

const (
	ScopeMessage   Scope = "message"   // this message; of Bounce policy, perhaps all that are like it
	ScopeRecipient Scope = "recipient" // any message to this recipient
	ScopeAccount   Scope = "account"   // all that is sent with this account: its settings, its credential, its limits
	ScopeTransport Scope = "transport" // the way to the server, or the server as a whole
)

// Bounce is what a refusal says of the recipient.
type Bounce string

const (
	BounceNone   Bounce = ""       // nothing
	BounceHard   Bounce = "hard"   // the mailbox does not exist: write to it no more
	BounceSoft   Bounce = "soft"   // full, too large, not reachable: write no more if it repeats over days
	BouncePolicy Bounce = "policy" // nothing: it is the sender or the content that is refused; many of these are an alarm
)

// The errors that an Error can wrap, besides those of context, network and system.
var (
	ErrInvalid     = errors.New("the account or the message is not fit to be sent")
	ErrForbidden   = errors.New("the server's address or port is not allowed: only public addresses and the ports 25, 465, 587 and 2525 are")
	ErrNoHost      = errors.New("the server's name does not exist")
	ErrNoTLS       = errors.New("the server does not offer STARTTLS")
	ErrNotTLS      = errors.New("the server does not speak TLS on this port")
	ErrCertificate = errors.New("the server's certificate is not trusted")
	ErrAuth        = errors.New("the server offers no way to sign in that fits")
	ErrProtocol    = errors.New("the server's answer is not SMTP")
	ErrClosed      = errors.New("the client is closed")
)

// Error is every error of a [Client]. Its text names the step, the codes and
// fixed words, and nothing that a server, a user or a client wrote.
type Error struct {
	// Op is the step that failed: "validate", "wait" (for a free connection),
	// "connect", "tls", "greeting", "hello", "starttls", "auth", "mail", "rcpt",
	// "data", "content" (the message and its final dot) or "noop".
	Op string

	Code     int    // the server's, 400 to 599; 0: none was given
	Enhanced string // the server's RFC 3463 code, "5.1.1"; "" for none

	// Reply is the server's words, for the operator's eyes, at most 500 bytes:
	// they may quote an address, never the password.
	Reply string

	Outcome Outcome
	Scope   Scope
	Bounce  Bounce
	Err     error // the cause, if it was not the server's refusal

	after time.Duration
	retry bool // nothing of the message was written, on a connection that may only have been old
}

// Error tells the step, the codes and what they mean; no words of others.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "smtp: %s: ", e.Op)
	switch {
	case e.Code != 0:
		fmt.Fprintf(&b, "%d", e.Code)
		if e.Enhanced != "" {
			fmt.Fprintf(&b, " %s", e.Enhanced)
		}
		fmt.Fprintf(&b, ", %s (%s)", map[Outcome]string{Limited: "refused for now", Rejected: "refused"}[e.Outcome], e.Scope)
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	}
	if e.Outcome == Ambiguous {
		b.WriteString("; it may have been delivered")
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary tells that the same call may work later. Look at Ambiguous first:
// such a message must not be sent again although its trouble is temporary.
func (e *Error) Temporary() bool { return e.Outcome != Rejected }

// Ambiguous tells that the message may have been delivered.
func (e *Error) Ambiguous() bool { return e.Outcome == Ambiguous }

// HardBounce tells that the recipient does not exist and should be written to no more.
func (e *Error) HardBounce() bool { return e.Bounce == BounceHard }

// RetryAfter advises how long the Scope should rest, 0 for no advice. SMTP
// carries no such time: 5 minutes for a recipient (greylisting), a minute for an
// account, an hour for a spent quota.
func (e *Error) RetryAfter() time.Duration { return e.after }

// failed is the error of a step that got no answer of SMTP's. Only fixed words
// come out of it: those of the network name addresses, and those of the
// protocol quote the server.
func failed(ctx context.Context, op string, err error) *Error {
	e := &Error{Op: op, Outcome: NotSent, Scope: ScopeTransport}
	if ctx.Err() != nil {
		e.Err = ctx.Err()
		return e
	}
	var (
		dns    *net.DNSError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		errno  syscall.Errno
		proto  textproto.ProtocolError
		answer *textproto.Error
		wrong  net.Error
	)
	account := func(err error, o Outcome) { e.Err, e.Scope, e.Outcome = err, ScopeAccount, o }
	switch {
	case errors.Is(err, ErrForbidden):
		account(ErrForbidden, Rejected)
	case errors.As(err, &dns) && dns.IsNotFound:
		account(ErrNoHost, NotSent) // a typing error, or a zone that is being mended
	case errors.As(err, &dns):
		e.Err = errors.New("the server's name could not be looked up")
	case errors.As(err, &cert):
		account(&reason{ErrCertificate, certificate(cert.Err)}, Rejected)
	case errors.As(err, &record):
		account(ErrNotTLS, Rejected)
	case errors.As(err, &wrong) && wrong.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		e.Err = os.ErrDeadlineExceeded
	case errors.As(err, &errno):
		e.Err = errno
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		e.Err = &reason{io.EOF, "the server closed the connection"}
	case errors.Is(err, errTooMuch), errors.As(err, &proto), errors.As(err, &answer):
		e.Err = ErrProtocol
	case op == "tls", op == "starttls":
		e.Err = &reason{ErrProtocol, "TLS could not be agreed on with the server"}
	default:
		e.Err = &reason{ErrProtocol, "the conversation with the server failed"}
	}
	return e
}

// certificate says what is wrong with one, without what stands in it.
func certificate(err error) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		other     x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &authority):
		return "the server's certificate is not signed by a known authority"
	case errors.As(err, &name):
		return "the server's certificate is for another name"
	case errors.As(err, &other) && other.Reason == x509.Expired:
		return "the server's certificate has expired or is not valid yet"
	}
	return ErrCertificate.Error()
}
