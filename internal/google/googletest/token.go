package googletest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The permissions that the server knows.
const (
	ScopeEvents   = "https://www.googleapis.com/auth/calendar.events"
	ScopeCalendar = "https://www.googleapis.com/auth/calendar"
	ScopeReadOnly = "https://www.googleapis.com/auth/calendar.events.readonly"
)

// Grant is what a user gave to an OAuth client. It makes the user's own calendar known.
type Grant struct {
	User         string // e-mail address
	ClientID     string
	ClientSecret string
	RefreshToken string
	Scopes       []string  // default ScopeEvents
	ValidUntil   time.Time // zero: for good

	revoked bool
}

// ServiceAccount is one, with the users it may act for. It makes their calendars known.
type ServiceAccount struct {
	Email  string
	KeyID  string
	Key    *rsa.PublicKey
	Users  []string // domain-wide delegation
	Scopes []string // of the delegation; default ScopeEvents
}

// access is what an access token opens.
type access struct {
	user   string
	alone  bool // a service account that acts for nobody
	grant  *Grant
	scopes []string
	until  time.Time
}

func (a *access) may(kind string) bool {
	for _, s := range a.scopes {
		if s == ScopeEvents || s == ScopeCalendar || s == ScopeReadOnly && (kind == "get" || kind == "list") {
			return true
		}
	}
	return false
}

// AddGrant makes a grant known, or replaces it.
func (s *Server) AddGrant(g Grant) {
	if g.Scopes == nil {
		g.Scopes = []string{ScopeEvents}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = slices.DeleteFunc(s.grants, func(o *Grant) bool { return o.RefreshToken == g.RefreshToken })
	s.grants = append(s.grants, &g)
	s.own(g.User)
}

// Revoke ends a grant and its access tokens, as the user can on Google's page.
func (s *Server) Revoke(refreshToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grants {
		if g.RefreshToken == refreshToken {
			g.revoked = true
			maps.DeleteFunc(s.access, func(_ string, a *access) bool { return a.grant == g })
		}
	}
}

// ExpireAccess makes all access tokens given so far stale; grants stay good.
func (s *Server) ExpireAccess() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
}

// AddServiceAccount makes a service account known, or replaces it.
func (s *Server) AddServiceAccount(a ServiceAccount) {
	if a.Scopes == nil {
		a.Scopes = []string{ScopeEvents}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services = slices.DeleteFunc(s.services, func(o *ServiceAccount) bool { return o.Email == a.Email })
	s.services = append(s.services, &a)
	for _, u := range append([]string{a.Email}, a.Users...) {
		s.own(u)
	}
}

// NewServiceAccount makes a service account and its key file, as Google's console would.
func NewServiceAccount(email string, users ...string) (ServiceAccount, []byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return ServiceAccount{}, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return ServiceAccount{}, nil, err
	}
	a := ServiceAccount{Email: email, KeyID: newID(16), Key: &key.PublicKey, Users: users}
	file, err := json.Marshal(map[string]string{ //nolint:gosec // a key made here
		"type": "service_account", "project_id": "demo", "private_key_id": a.KeyID, "client_email": email, "client_id": "100000000000000000001",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"auth_uri":    "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token",
	})
	return a, file, err
}

// token is the token endpoint.
func (s *Server) token(r *http.Request, body []byte) answer {
	form, err := url.ParseQuery(string(body))
	if r.Method != http.MethodPost || err != nil || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return deny(http.StatusBadRequest, "invalid_request", "Bad Request")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch form.Get("grant_type") {
	case "refresh_token":
		return s.refresh(form)
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		return s.assert(form.Get("assertion"))
	}
	return deny(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+form.Get("grant_type"))
}

func (s *Server) refresh(form url.Values) answer {
	client, known, mine := form.Get("client_id"), false, (*Grant)(nil)
	if client == "" { // in the form only: Google does not look at Basic authorization
		return deny(http.StatusBadRequest, "invalid_request", "Could not determine client ID from request.")
	}
	for _, g := range s.grants {
		if g.ClientID != client {
			continue
		}
		if g.ClientSecret != form.Get("client_secret") {
			return deny(http.StatusUnauthorized, "invalid_client", "The provided client secret is invalid.")
		}
		known = true
		if g.RefreshToken == form.Get("refresh_token") {
			mine = g
		}
	}
	switch {
	case !known:
		return deny(http.StatusUnauthorized, "invalid_client", "The OAuth client was not found.")
	case mine == nil:
		return deny(http.StatusBadRequest, "invalid_grant", "Bad Request")
	case mine.revoked, !mine.ValidUntil.IsZero() && !s.cfg.Now().Before(mine.ValidUntil):
		return deny(http.StatusBadRequest, "invalid_grant", "Token has been expired or revoked.")
	}
	return s.give(&access{user: mine.User, grant: mine, scopes: mine.Scopes})
}

func (s *Server) give(a *access) answer {
	a.until = s.cfg.Now().Add(s.cfg.TokenLife)
	token := "ya29." + newID(40)
	s.access[token] = a
	return reply(map[string]any{"access_token": token, "expires_in": int(s.cfg.TokenLife / time.Second), "scope": strings.Join(a.scopes, " "), "token_type": "Bearer"})
}

type claims struct {
	Iss   string `json:"iss"`
	Sub   string `json:"sub"`
	Scope string `json:"scope"`
	Aud   string `json:"aud"`
	Iat   int64  `json:"iat"`
	Exp   int64  `json:"exp"`
}

// assert judges a service account's signed assertion.
func (s *Server) assert(assertion string) answer {
	grant := func(format string, a ...any) answer {
		return deny(http.StatusBadRequest, "invalid_grant", "Invalid JWT: "+fmt.Sprintf(format, a...))
	}
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return grant("it has %d parts.", len(parts))
	}
	var head struct{ Alg, Kid string }
	var c claims
	for i, v := range []any{&head, &c} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(b, v) != nil {
			return grant("part %d cannot be read.", i+1)
		}
	}
	i := slices.IndexFunc(s.services, func(a *ServiceAccount) bool { return a.Email == c.Iss })
	if i < 0 {
		return deny(http.StatusBadRequest, "invalid_grant", "Invalid grant: account not found")
	}
	acc := s.services[i]
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || head.Alg != "RS256" || head.Kid != "" && head.Kid != acc.KeyID || rsa.VerifyPKCS1v15(acc.Key, crypto.SHA256, sum[:], sig) != nil {
		return deny(http.StatusBadRequest, "invalid_grant", "Invalid JWT Signature.")
	}
	now := s.cfg.Now().Unix()
	switch {
	case c.Aud != s.URL+"/token":
		return grant("Failed audience check. The right audience is %s/token", s.URL)
	case c.Exp <= now, c.Iat > now+300, c.Exp-c.Iat > 3600:
		return grant("Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.")
	case c.Scope == "":
		return deny(http.StatusBadRequest, "invalid_scope", "Empty or missing scope not allowed.")
	case c.Sub != "" && !slices.Contains(acc.Users, c.Sub),
		c.Sub != "" && slices.ContainsFunc(strings.Fields(c.Scope), func(x string) bool { return !slices.Contains(acc.Scopes, x) }):
		return deny(http.StatusUnauthorized, "unauthorized_client", "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.")
	}
	a := &access{user: c.Sub, scopes: strings.Fields(c.Scope)}
	if c.Sub == "" {
		a.user, a.alone = c.Iss, true
	}
	return s.give(a)
}
