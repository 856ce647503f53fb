package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	socketPrefix = "ert_"
	socketField  = "realtime.token"
	// SocketTokenFor is how long a socket token lets sockets in.
	SocketTokenFor = 15 * time.Minute
)

// Pass is what a socket was let in with.
type Pass struct {
	Client string
	// Proof is the session or the API key that it stands on, by id. With it the pass ends.
	Proof  string
	UserID string // of a session
	Name   string
}

// socketToken is what a socket token says, sealed for its client.
type socketToken struct {
	Proof   string `json:"proof"`
	Made    int64  `json:"made"`    // Unix ms
	Expires int64  `json:"expires"` // Unix ms
	Born    int64  `json:"born"`    // when the client was made: not one that has its code later
}

// SocketToken makes a token that lets sockets in for a while, and does nothing else. proof is the session or the key that
// asks for it; the token does not outlive it.
func (p *Porter) SocketToken(tn *tenant.Tenant, proof string) (token string, expires time.Time, err error) {
	now := p.cfg.Now().UTC()
	expires = now.Add(SocketTokenFor)
	b, err := json.Marshal(socketToken{proof, now.UnixMilli(), expires.UnixMilli(), tn.Account().CreatedAt.UnixMilli()})
	if err != nil {
		return "", time.Time{}, err
	}
	sealed, err := p.cfg.Ring.Seal(tn.Code, socketField, string(b))
	if err != nil {
		return "", time.Time{}, err
	}
	return socketPrefix + tn.Code + "." + base64.RawURLEncoding.EncodeToString([]byte(sealed)), expires, nil
}

// Credentials are what a socket brings: a client's code and key, or a token.
type Credentials struct {
	ClientCode string `json:"clientCode"`
	APIKey     string `json:"apiKey"`
	Token      string `json:"token"`
}

// Admit lets a socket in by an API key, a session's token or a socket token. Wrong: fault.Unauthenticated; right, but of a
// suspended client: fault.Forbidden.
func (p *Porter) Admit(ctx context.Context, c Credentials) (Pass, error) {
	if c.Token == "" {
		code, err := p.cfg.Tenants.Authenticate(c.ClientCode, c.APIKey)
		return Pass{Client: code, Proof: tenant.KeyID(c.APIKey)}, err
	}
	pass, err := p.admitToken(ctx, c.Token)
	if err == nil && c.ClientCode != "" && !strings.EqualFold(c.ClientCode, pass.Client) {
		return Pass{}, errOver()
	}
	return pass, err
}

func (p *Porter) admitToken(ctx context.Context, token string) (Pass, error) {
	if strings.HasPrefix(token, sessionPrefix) {
		stay, err := p.Session(ctx, token)
		if err != nil {
			return Pass{}, err
		}
		return stay.pass(), nil
	}
	code, rest, ok := parse(socketPrefix, token)
	if !ok {
		return Pass{}, errOver()
	}
	raw, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil {
		return Pass{}, errOver()
	}
	text, err := p.cfg.Ring.Open(code, socketField, string(raw))
	if err != nil {
		return Pass{}, errOver()
	}
	var t socketToken
	if err := json.Unmarshal([]byte(text.Reveal()), &t); err != nil || p.cfg.Now().UnixMilli() >= t.Expires {
		return Pass{}, errOver()
	}
	return p.admitFor(ctx, code, t)
}

// admitFor lets in what a socket token speaks for, if that still stands.
func (p *Porter) admitFor(ctx context.Context, code string, t socketToken) (Pass, error) {
	tn, release, err := p.cfg.Tenants.Use(ctx, code)
	if err != nil {
		if fault.Of(err) == fault.NotFound {
			return Pass{}, errOver()
		}
		return Pass{}, err
	}
	defer release()
	a := tn.Account()
	switch {
	case a.CreatedAt.UnixMilli() != t.Born:
		return Pass{}, errOver()
	case p.cfg.Tenants.Status(code) != tenant.Active:
		return Pass{}, errSuspended()
	case t.Made <= a.SuspendedAt.UnixMilli():
		return Pass{}, errOver()
	}
	if tenant.IsKeyID(t.Proof) {
		if !p.cfg.Tenants.KeyHolds(code, t.Proof) {
			return Pass{}, errOver()
		}
		return Pass{Client: code, Proof: t.Proof}, nil
	}
	stay, err := p.look(ctx, code, t.Proof)
	if err != nil {
		return Pass{}, err
	}
	return stay.pass(), nil
}

func (s Stay) pass() Pass {
	return Pass{Client: s.Client, Proof: s.Session.ID, UserID: s.User.ID, Name: s.User.Name}
}

// Ended tells which of a client's proofs no longer stand: keys that were replaced, sessions that are over.
func (p *Porter) Ended(ctx context.Context, code string, proofs []string) (ended []string, err error) {
	var sessions []string
	for _, proof := range proofs {
		switch {
		case !tenant.IsKeyID(proof):
			sessions = append(sessions, proof)
		case !p.cfg.Tenants.KeyHolds(code, proof):
			ended = append(ended, proof)
		}
	}
	if len(sessions) == 0 {
		return ended, nil
	}
	tn, release, err := p.cfg.Tenants.Use(ctx, code)
	if err != nil {
		if fault.Of(err) == fault.NotFound {
			return proofs, nil
		}
		return ended, err
	}
	defer release()
	stand, err := p.standing(ctx, tn, sessions)
	if err != nil {
		return ended, err
	}
	for _, sid := range sessions {
		if !stand[sid] {
			ended = append(ended, sid)
		}
	}
	return ended, nil
}

// standing tells which sessions are not over.
func (p *Porter) standing(ctx context.Context, tn *tenant.Tenant, ids []string) (map[string]bool, error) {
	sessions, err := Sessions.GetAll(ctx, tn.DB, ids...)
	if err != nil {
		return nil, err
	}
	users := map[string]*User{}
	var userIDs []string
	for _, s := range sessions {
		if _, known := users[s.UserID]; !known {
			users[s.UserID] = nil
			userIDs = append(userIDs, s.UserID)
		}
	}
	found, err := Users.GetAll(ctx, tn.DB, userIDs...)
	if err != nil {
		return nil, err
	}
	for _, u := range found {
		users[u.ID] = u
	}
	out := map[string]bool{}
	active := tn.Account().Status == tenant.Active
	for _, s := range sessions {
		if u := users[s.UserID]; u != nil && active && holds(tn.Account(), s, u, p.cfg.Now()) {
			out[s.ID] = true
		}
	}
	return out, nil
}
