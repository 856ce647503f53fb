package whatsapp

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Outcome says what became of a call that failed; of a send, whether the message may have gone out.
type Outcome string

const (
	// NotSent: the call had no effect, through no fault of its own: no connection,
	// a request not written to its end, an answer that is known to mean so. It may
	// be made again. Every failed GET that is nobody's fault is one.
	NotSent Outcome = "not_sent"

	// Rejected: Meta refused it. It had no effect; the same again will fail the
	// same unless Temporary.
	Rejected Outcome = "rejected"

	// Limited: Meta refused it for now, because of a limit of its Scope. It had no effect.
	Limited Outcome = "limited"

	// Ambiguous: it may have had its effect. The request was written and its
	// answer is lost, cut, unreadable or an HTTP 5xx that proves nothing. Sending
	// again may send twice: wait for the status webhook.
	Ambiguous Outcome = "ambiguous"
)

// Scope says what the trouble belongs to, and so what has to pause.
type Scope string

const (
	ScopeMessage   Scope = "message"   // this message
	ScopeRecipient Scope = "recipient" // any message to this recipient
	ScopePair      Scope = "pair"      // this recipient from this number, for a while; see PairDelay
	ScopeNumber    Scope = "number"    // all that this phone number sends
	ScopeAccount   Scope = "account"   // all that is done with this credential or account
	ScopeTemplate  Scope = "template"  // what the message was made from: the template, its parameters, the fields
	ScopeMedia     Scope = "media"     // the file
	ScopeQuality   Scope = "quality"   // the number's bulk: Meta thinks it is spam, or blocked the account for policy
)

// The errors that an APIError can wrap.
var (
	ErrMediaExpired = errors.New("the link has expired; ask for the media again") // of Download: links live 5 minutes
	ErrMediaTooBig  = errors.New("the file is larger than the limit")             // of Download
	ErrMediaHost    = errors.New("the link leads to a host that gets no token")   // of Download; also by redirect
	ErrRequest      = errors.New("the request is not complete")                   // nothing was called
)

// APIError is every error of a [Client]. Its text names the call, HTTP status,
// code and trace id, and nothing that a user or a client wrote.
type APIError struct {
	Op      string // "send", "templates", …
	HTTP    int    // 0: no answer came
	Code    int    // Meta's; 0: none came
	Subcode int
	Message string // Meta's words, for the operator's eyes: they may quote the request, never the token
	Details string // likewise
	TraceID string // Meta's, for its support

	// Transient is Meta's own word that the same may work later; few errors carry it.
	Transient bool

	Outcome Outcome
	Class   Class
	Err     error // the cause, if it was not Meta's answer

	after time.Duration
}

// Error tells the call, what went wrong and where to look; no text of others.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "whatsapp: %s: ", e.Op)
	switch {
	case e.Code != 0:
		fmt.Fprintf(&b, "%s (code %d", e.Class.Meaning, e.Code)
		if e.Subcode != 0 {
			fmt.Fprintf(&b, "/%d", e.Subcode)
		}
		fmt.Fprintf(&b, ", HTTP %d)", e.HTTP)
	case e.HTTP != 0:
		fmt.Fprintf(&b, "HTTP %d", e.HTTP)
		if e.Err != nil {
			fmt.Fprintf(&b, ": %v", e.Err)
		}
	default:
		fmt.Fprintf(&b, "%v", e.Err)
	}
	if e.Outcome == Ambiguous {
		b.WriteString("; it may have taken effect")
	}
	if e.TraceID != "" {
		fmt.Fprintf(&b, " [trace %s]", e.TraceID)
	}
	return b.String()
}

// Unwrap gives the cause: context errors, network errors, ErrMediaExpired and its like.
func (e *APIError) Unwrap() error { return e.Err }

// Temporary tells that the same call may work later. Look at Ambiguous first:
// such a send must not be repeated although its trouble is temporary.
func (e *APIError) Temporary() bool {
	return e.Outcome == NotSent || e.Outcome == Limited || e.Outcome == Ambiguous || e.Class.Temporary || e.Transient
}

// Ambiguous tells that the call may have had its effect.
func (e *APIError) Ambiguous() bool { return e.Outcome == Ambiguous }

// RetryAfter is how long the Scope should rest: Meta's Retry-After, else what
// the code asks for; 0 if neither says. For a refusal that is not Temporary it
// is the time before which another message of the kind is futile.
func (e *APIError) RetryAfter() time.Duration { return e.after }

// Scope is what the trouble belongs to.
func (e *APIError) Scope() Scope { return e.Class.Scope }

// PairDelay is how long to let a recipient rest after the n-th 131056 in a row
// from the same number, n from 0: 4^n seconds (Meta's advice), at most 256.
func PairDelay(n int) time.Duration {
	return time.Duration(1<<(2*min(max(n, 0), 4))) * time.Second
}

// classify fills Class, Outcome and the wait from what was answered. reads tells
// that the call changes nothing, so that nothing about it is ambiguous.
func (e *APIError) classify(header http.Header, reads bool) {
	e.Class = Classify(e.HTTP, e.Code, e.Subcode)
	e.Outcome = e.Class.Outcome
	if e.Outcome == Ambiguous && reads {
		e.Outcome = NotSent
	}
	e.after = e.Class.Wait
	if d, ok := retryAfter(header.Get("Retry-After")); ok && e.Temporary() {
		e.after = d
	}
}

// maxRetryAfter bounds what a header may ask for.
const maxRetryAfter = 24 * time.Hour

func retryAfter(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second, true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return min(max(time.Until(at), 0), maxRetryAfter), true
}
