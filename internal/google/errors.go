package google

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Outcome says what became of a call that failed.
type Outcome string

const (
	// NotSent: the call had no effect, through no fault of its own: no connection,
	// no access token for the moment. Every failed reading that is nobody's fault is one.
	NotSent Outcome = "not_sent"

	// Rejected: Google refused it. It had no effect; the same again will fail the same unless Temporary.
	Rejected Outcome = "rejected"

	// Limited: Google refused it for now, because of a limit. It had no effect.
	Limited Outcome = "limited"

	// Ambiguous: it may have had its effect; the answer is lost, cut or an HTTP 5xx.
	// Making the same call again is safe.
	Ambiguous Outcome = "ambiguous"
)

// Scope says what the trouble belongs to, and so what has to pause.
type Scope string

const (
	ScopeEvent   Scope = "event"   // this call; others may go on
	ScopeAccount Scope = "account" // all that this account does, until somebody reconnects or mends it
	ScopeQuota   Scope = "quota"   // all that this account does, for a while; see RetryAfter
)

// The errors that an Error can wrap.
var (
	ErrRequest   = errors.New("the request is not complete")                  // nothing was called
	ErrNotFound  = errors.New("no such event")                                // of Get and Patch
	ErrCancelled = errors.New("the event was cancelled, and its id is taken") // of Insert and Patch
)

// Error is every error of a [Client]. Its text names the call, the trouble, Google's
// reason and the HTTP status, and nothing that a user or a client wrote.
type Error struct {
	Op      string // "insert", "get", "patch", "delete", "check"
	HTTP    int    // 0: no answer came
	Reason  string // Google's: "quotaExceeded", "invalid_grant"; "" if none came
	Message string // Google's words, for the operator's eyes: they may quote the request, never a secret
	Outcome Outcome
	Scope   Scope
	Err     error // the cause, if it was not Google's answer

	meaning   string
	temporary bool
	after     time.Duration
}

// Error tells the call, what went wrong and why; no text of others.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "google: %s: ", e.Op)
	switch {
	case e.meaning != "" && e.Err != nil:
		fmt.Fprintf(&b, "%s: %v", e.meaning, e.Err)
	case e.Err != nil:
		fmt.Fprintf(&b, "%v", e.Err)
	case e.meaning != "":
		b.WriteString(e.meaning)
	default:
		b.WriteString("refused")
	}
	switch {
	case e.Reason != "" && e.HTTP != 0:
		fmt.Fprintf(&b, " (%s, HTTP %d)", e.Reason, e.HTTP)
	case e.HTTP != 0:
		fmt.Fprintf(&b, " (HTTP %d)", e.HTTP)
	}
	if e.Outcome == Ambiguous {
		b.WriteString("; it may have taken effect")
	}
	return b.String()
}

// Unwrap gives the cause: context errors, network errors, ErrNotFound and its like.
func (e *Error) Unwrap() error { return e.Err }

// Temporary tells that the same call may work later, and that it is safe to make it again.
func (e *Error) Temporary() bool { return e.temporary }

// RetryAfter is how long the Scope should rest: Google's Retry-After, else an hour for
// limits that are counted by the day; 0 if nobody says, and the caller's own pace counts.
func (e *Error) RetryAfter() time.Duration { return e.after }

// incomplete is the error of a call that was not made.
func incomplete(op string, scope Scope, why string) *Error {
	return &Error{Op: op, Outcome: Rejected, Scope: scope, Err: fmt.Errorf("%w: %s", ErrRequest, why)}
}

// unanswered is the error of a call that got no answer, or none that can be read.
func unanswered(op string, outcome Outcome, err error) *Error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the address
	}
	return &Error{Op: op, Outcome: outcome, Scope: ScopeEvent, Err: err, meaning: "no answer", temporary: true}
}

// dayLimit is the rest after limits that are counted by the day, or by hours that Google does not tell.
const dayLimit = time.Hour

const reconnect = "reconnect needed: "

// reasons is what Calendar's words under HTTP 401, 403 and 429 mean. The rest belongs to the event.
var reasons = map[string]struct {
	scope   Scope
	meaning string
	wait    time.Duration
}{
	"rateLimitExceeded":     {ScopeQuota, "the rate limit is reached", 0},
	"userRateLimitExceeded": {ScopeQuota, "the user's rate limit is reached", 0},
	"RATE_LIMIT_EXCEEDED":   {ScopeQuota, "the rate limit is reached", 0},
	"RESOURCE_EXHAUSTED":    {ScopeQuota, "the rate limit is reached", 0},
	"quotaExceeded":         {ScopeQuota, "the calendar's usage limit is reached", dayLimit},
	"dailyLimitExceeded":    {ScopeQuota, "the project's daily limit is reached", dayLimit},

	"authError":                       {ScopeAccount, reconnect + "the access token is refused", 0},
	"required":                        {ScopeAccount, reconnect + "the access token is refused", 0},
	"insufficientPermissions":         {ScopeAccount, reconnect + "the grant lacks the calendar permission", 0},
	"ACCESS_TOKEN_SCOPE_INSUFFICIENT": {ScopeAccount, reconnect + "the grant lacks the calendar permission", 0},
	"accessNotConfigured":             {ScopeAccount, "the Calendar API is not switched on in the Google project", 0},
	"SERVICE_DISABLED":                {ScopeAccount, "the Calendar API is not switched on in the Google project", 0},
	"requiredAccessLevel":             {ScopeAccount, "the account may not write to the calendar", 0},
	"forbiddenForServiceAccounts":     {ScopeAccount, "the service account does not act for a user", 0},
	"notACalendarUser":                {ScopeAccount, "the user has no Google calendar", 0},
	"domainPolicy":                    {ScopeAccount, "the domain's administrator has switched this off", 0},
}

// grants is what the token endpoint's error codes mean. Codes that are not here
// belong to the account, too.
var grants = map[string]string{
	"invalid_grant":         reconnect + "the grant was revoked, has expired or is another's",
	"invalid_client":        "the client id or secret is wrong",
	"unauthorized_client":   "the client or service account may not do this (is domain-wide delegation set up for the scope?)",
	"invalid_scope":         "the scope is not allowed",
	"access_denied":         reconnect + "access was denied",
	"deleted_client":        "the OAuth client was deleted",
	"disabled_client":       "the OAuth client is disabled",
	"org_internal":          "the OAuth client is for its own organisation only",
	"admin_policy_enforced": "the domain's administrator does not allow it",
}

// passing are the token endpoint's codes that say nothing about the grant.
var passing = map[string]bool{"server_error": true, "internal_failure": true, "temporarily_unavailable": true}

var slowing = map[string]bool{"rate_limit_exceeded": true, "slow_down": true}

// refused makes the error of Calendar's answer that is not 2xx. reads tells that
// the call changes nothing, so that nothing about it is ambiguous.
func refused(op string, status int, reason, message string, header http.Header, reads bool) *Error {
	e := &Error{Op: op, HTTP: status, Reason: reason, Message: message, Outcome: Rejected, Scope: ScopeEvent}
	known, ok := reasons[reason]
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusForbidden && ok && known.scope == ScopeQuota:
		e.Outcome, e.Scope, e.temporary, e.meaning = Limited, ScopeQuota, true, "the rate limit is reached"
		if known.scope == ScopeQuota {
			e.meaning, e.after = known.meaning, known.wait
		}
	case status == http.StatusUnauthorized:
		e.Scope, e.meaning = ScopeAccount, reconnect+"the access token is refused"
	case status == http.StatusForbidden && ok:
		e.Scope, e.meaning = known.scope, known.meaning
	case status == http.StatusNotFound, status == http.StatusGone:
		e.Err = ErrNotFound
	case status == http.StatusRequestTimeout, status >= 500:
		e.Outcome, e.temporary, e.meaning = Ambiguous, true, "trouble on Google's side"
		if reads {
			e.Outcome = NotSent
		}
	case status == http.StatusConflict: // of Insert it is not told; else another's change at the same moment
		e.temporary, e.meaning = true, "somebody else changed it at the same moment"
	}
	e.rest(header)
	return e
}

// unGranted makes the error of the token endpoint's answer that is no token.
func unGranted(status int, code, message string, header http.Header) *Error {
	e := &Error{HTTP: status, Reason: code, Message: message, Outcome: NotSent, Scope: ScopeEvent, temporary: true, meaning: "no access token"}
	switch {
	case status == http.StatusTooManyRequests, slowing[code]:
		e.Outcome, e.Scope, e.meaning = Limited, ScopeQuota, "the rate limit of the token endpoint is reached"
	case code != "" && status < 500 && !passing[code]:
		e.Outcome, e.Scope, e.temporary, e.meaning = Rejected, ScopeAccount, false, grants[code]
		if e.meaning == "" {
			e.meaning = "the credentials are refused"
		}
	}
	// The rest is a 5xx or an answer that is not OAuth's: a gateway's, which says nothing about the grant.
	e.rest(header)
	return e
}

// rest takes Google's word on how long to wait.
func (e *Error) rest(h http.Header) {
	if d, ok := retryAfter(h.Get("Retry-After")); ok && e.temporary {
		e.after = d
	}
}

// maxRetryAfter bounds what a header may ask for.
const maxRetryAfter = 24 * time.Hour

func retryAfter(s string) (time.Duration, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second, true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return min(max(time.Until(at), 0), maxRetryAfter), true
}

// tokenLike are the forms of Google's tokens and of a signed assertion, whole or cut.
var tokenLike = regexp.MustCompile(`eyJ[\w.=-]{8,}|ya29\.[\w.-]+|1//[\w-]+|GOCSPX-[\w-]+|-----BEGIN[^-]*-----[^-]*(-----END[^-]*-----)?`)

// scrub takes secrets out of Google's words, and bounds them.
func scrub(s string, secrets ...string) string {
	for _, x := range secrets {
		for _, form := range []string{x, url.QueryEscape(x)} {
			if form != "" {
				s = strings.ReplaceAll(s, form, "[secret]")
			}
		}
	}
	s = tokenLike.ReplaceAllString(s, "[secret]")
	const most = 500
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// word passes Google's reasons and codes, which are single words, and nothing else: they stand in error texts.
func word(s string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
	if len(s) > 64 || strings.Trim(s, letters) != "" {
		return ""
	}
	return s
}
