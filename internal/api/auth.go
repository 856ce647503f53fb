package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Kinds of callers.
const (
	KindKey     = "apikey"
	KindAdmin   = "admin"
	KindSession = "session"
)

// Roles of dashboard users, the least first (package auth).
const (
	RoleViewer = "viewer"
	RoleAgent  = "agent"
	RoleOwner  = "owner"
)

var roles = auth.Roles

// SessionCookie is the name of the dashboard's cookie.
const SessionCookie = "ecod_session"

// Caller is who is asking; the zero Caller is nobody (public routes).
type Caller struct {
	Client string // the client's code; "" for the admin
	Kind   string // KindKey, KindAdmin, KindSession
	KeyID  string // which key or session, for audit; never the secret
	UserID string // of a session
	Role   string // of a session
}

// CallerOf gives the caller of the request that ctx belongs to.
func CallerOf(ctx context.Context) Caller { return requestOf(ctx).caller }

// scope tells callers apart where their requests must not meet.
func (c Caller) scope() string {
	switch c.Kind {
	case KindKey: // by client, so that a key may be rotated between two tries
		return "client:" + c.Client
	case KindSession:
		return "user:" + c.Client + ":" + c.UserID
	case KindAdmin:
		return "admin"
	}
	return ""
}

// scopeIsOf tells whether a scope is that of one of a client's callers.
func scopeIsOf(scope, code string) bool {
	return scope == "client:"+code || strings.HasPrefix(scope, "user:"+code+":")
}

// Access is who may call an operation.
type Access int

// The accesses.
const (
	AccessPublic  Access = iota // anybody; also what brings its own proof, such as a signature
	AccessClient                // an API key with a client code, or a dashboard session
	AccessAdmin                 // the admin token
	AccessSession               // a dashboard session only: what is about itself
)

// authenticate finds out who calls. Every error is a fault or a Problem.
func (a *API) authenticate(r *http.Request, o *operation) (Caller, error) {
	if o.access != AccessPublic {
		if err := saidOnce(r.Header, "X-Api-Key", "X-Client-Code", "Authorization"); err != nil {
			return Caller{}, err
		}
	}
	switch o.access {
	case AccessAdmin:
		return a.admin(r)
	case AccessClient, AccessSession:
		ask := a.client
		if o.access == AccessSession {
			ask = a.sessionOnly
		}
		c, err := ask(r)
		if err != nil {
			return Caller{}, err
		}
		if c.Kind == KindSession && slices.Index(roles, c.Role) < slices.Index(roles, o.role) {
			return c, fault.New(fault.Forbidden, "role.insufficient", "This needs the role %s.", o.role)
		}
		return c, nil
	}
	return Caller{}, nil
}

// saidOnce refuses a header that comes several times with different values: whoever stands between may have read another
// one of them than we would.
func saidOnce(h http.Header, names ...string) error {
	for _, name := range names {
		if vs := h[name]; len(slices.Compact(slices.Clone(vs))) > 1 {
			f := fault.New(fault.Malformed, "auth.ambiguous", "The header %s came several times with different values.", strings.ToLower(name))
			f.Fields = []fault.Field{{Pointer: "header." + name, Detail: "Expected one value."}}
			return f
		}
	}
	return nil
}

func (a *API) admin(r *http.Request) (Caller, error) {
	token, ok := bearer(r)
	if !ok {
		return Caller{}, unauthenticated("auth.missing", "Send Authorization: Bearer with the admin token.", challengeAdmin)
	}
	if a.cfg.VerifyAdmin == nil || !a.cfg.VerifyAdmin(token) {
		return Caller{}, a.refuse(r, unauthenticated("auth.invalid", "The admin token is not right.", challengeAdmin))
	}
	return Caller{Kind: KindAdmin}, nil
}

func (a *API) client(r *http.Request) (Caller, error) {
	key, code := r.Header.Get("X-Api-Key"), r.Header.Get("X-Client-Code")
	if key == "" {
		if token, cookie := sessionToken(r); token != "" && a.cfg.VerifySession != nil {
			return a.session(r, token, cookie, code)
		}
	}
	if key == "" || code == "" {
		return Caller{}, unauthenticated("auth.missing", "Send the headers x-api-key and x-client-code.", challengeClient)
	}
	if a.cfg.VerifyKey == nil {
		return Caller{}, unauthenticated("auth.invalid", "No keys are accepted here.", challengeClient)
	}
	c, err := a.cfg.VerifyKey(r.Context(), code, key)
	return c, a.challenged(r, err)
}

func (a *API) sessionOnly(r *http.Request) (Caller, error) {
	token, cookie := sessionToken(r)
	if token == "" || a.cfg.VerifySession == nil {
		return Caller{}, unauthenticated("auth.missing", "Send Authorization: Bearer with a session's token.", challengeSession)
	}
	return a.session(r, token, cookie, r.Header.Get("X-Client-Code"))
}

func (a *API) session(r *http.Request, token string, cookie bool, code string) (Caller, error) {
	if cookie {
		if err := a.crossOrigin.Check(r); err != nil {
			return Caller{}, fault.Wrap(err, fault.Forbidden, "origin.refused", "A page of another origin may not do this.")
		}
	}
	c, err := a.cfg.VerifySession(r.Context(), token)
	if err != nil {
		return Caller{}, a.challenged(r, err)
	}
	if code != "" && !strings.EqualFold(code, c.Client) {
		return Caller{}, fault.New(fault.Forbidden, "client.mismatch", "The session is not of this client.")
	}
	return c, nil
}

// sessionToken finds a session's token: a bearer token, else the cookie.
func sessionToken(r *http.Request) (token string, cookie bool) {
	if t, ok := bearer(r); ok {
		return t, false
	}
	if c, err := r.Cookie(SessionCookie); err == nil {
		return c.Value, true
	}
	return "", false
}

func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, ok && token != "" && strings.EqualFold(scheme, "Bearer")
}

const (
	challengeAdmin   = `Bearer realm="ecod admin"`
	challengeSession = `Bearer realm="ecod"`
	challengeClient  = `ApiKey realm="ecod", header="x-api-key"`
)

func unauthenticated(code, detail, challenge string) *Problem {
	p := newProblem(http.StatusUnauthorized, code, detail)
	p.header = http.Header{"Www-Authenticate": {challenge}}
	return p
}

// challenged gives a 401 of the verifier its WWW-Authenticate and counts it; other errors pass.
func (a *API) challenged(r *http.Request, err error) error {
	if err == nil || fault.Of(err) != fault.Unauthenticated {
		return err
	}
	p := toProblem(err)
	p.header = http.Header{"Www-Authenticate": {challengeClient}}
	return a.refuse(r, p)
}

// refuse counts a wrong credential against the caller's address, and answers 429 once there were too many. What is
// right is always let in: whoever shares an address with a broken caller is not locked out by it.
func (a *API) refuse(r *http.Request, p *Problem) error {
	wait := a.failures.take(clientAddr(r), a.cfg.Now(), pace{a.cfg.FailuresPerSecond, a.cfg.FailureBurst})
	if wait <= 0 {
		return p
	}
	return tooMany("auth.too_many_failures", "Too many wrong credentials from this address.", wait)
}

// Open opens the calling client's database. Call release once, when done. For streamed operations; Client's handlers
// get the tenant as an argument.
func (a *API) Open(ctx context.Context) (tn *tenant.Tenant, release func(), err error) {
	code := CallerOf(ctx).Client
	if code == "" {
		return nil, nil, errors.New("api: no client called this")
	}
	return a.cfg.Open(ctx, code)
}
