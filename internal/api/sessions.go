package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/tenant"
)

// sessions is the API by which dashboard users come and go.
type sessions struct {
	a      *API
	porter *auth.Porter
}

// SessionView is a session as its user sees it.
type SessionView struct {
	ClientCode string   `json:"clientCode"`
	ExpiresAt  Time     `json:"expiresAt" doc:"If it is not used until then. In use it lasts 30 days at most."`
	User       UserView `json:"user"`
}

// NewSession is a session just begun.
type NewSession struct {
	Token string `json:"token" doc:"Shown this once. Send it as Authorization: Bearer, or let the browser send the cookie."`
	SessionView
}

func sessionView(s auth.Stay) SessionView {
	return SessionView{s.Client, Time{s.Session.ExpiresAt}, userView(s.User)}
}

// RegisterSessions adds logging in and out. Config.VerifySession must be SessionCaller of the same porter.
func RegisterSessions(a *API, porter *auth.Porter) {
	s := sessions{a, porter}
	const tag = "Sessions"
	Public(a, Op{Route: "POST /api/sessions", ID: "createSession", Tag: tag, Summary: "Log in", Status: http.StatusCreated, AnyOrigin: true,
		Description: "The answer also sets the cookie " + SessionCookie + ". Whatever is wrong is answered alike: 401 session.refused. " +
			"After five failed logins in a row an account is locked for a while: 429 session.locked."}, s.login)
	SessionCall(a, Op{Route: "GET /api/sessions/current", ID: "getSession", Tag: tag, Summary: "Read the session and its user"}, s.current)
	SessionCall(a, Op{Route: "DELETE /api/sessions/current", ID: "endSession", Tag: tag, Summary: "Log out", Role: RoleViewer,
		Description: "The session's sockets are disconnected within five seconds."}, s.logout)
	SessionCall(a, Op{Route: "POST /api/sessions/current/password", ID: "changePassword", Tag: tag, Summary: "Change one's own password", Status: http.StatusNoContent, Role: RoleViewer,
		Description: "Ends the user's other sessions."}, s.password)
}

// SessionCaller is Config.VerifySession for a porter's sessions.
func SessionCaller(porter *auth.Porter) func(ctx context.Context, token string) (Caller, error) {
	return func(ctx context.Context, token string) (Caller, error) {
		s, err := porter.Session(ctx, token)
		if err != nil {
			return Caller{}, err
		}
		return Caller{Client: s.Client, Kind: KindSession, KeyID: s.Session.ID, UserID: s.User.ID, Role: s.User.Role}, nil
	}
}

type loginInput struct {
	Body struct {
		ClientCode string `json:"clientCode" maxLength:"64" example:"ACME"`
		Email      string `json:"email" maxLength:"254" example:"dana@example.com"`
		Password   string `json:"password" maxLength:"1024"`
	}
}

type startedSession struct {
	SetCookie []string `header:"Set-Cookie"`
	Body      NewSession
}

func (s sessions) login(ctx context.Context, in *loginInput) (*startedSession, error) {
	b := in.Body
	r := requestOf(ctx).http
	addr := clientAddr(r)
	now := s.a.cfg.Now()
	if wait := s.a.logins.look(addr, now, loginPace); wait > 0 {
		return nil, tooMany("session.too_many_failures", "Too many failed logins from this address.", wait)
	}
	token, stay, err := s.porter.Login(ctx, b.ClientCode, b.Email, secret.Text(b.Password))
	if err != nil {
		if fault.Of(err) == fault.Unauthenticated {
			s.a.logins.take(addr, now, loginPace)
			p := toProblem(err)
			p.header = http.Header{"Www-Authenticate": {challengeSession}}
			return nil, p
		}
		return nil, err
	}
	out := &startedSession{Body: NewSession{token.Reveal(), sessionView(stay)}}
	if s.a.crossOrigin.Check(r) == nil {
		out.SetCookie = []string{s.cookie(token.Reveal(), time.Until(stay.Session.End()))}
	} else if s.a.cfg.OriginAllowed == nil || !s.a.cfg.OriginAllowed(stay.Client, r.Header.Get("Origin")) {
		if err := s.drop(ctx, stay); err != nil {
			return nil, err
		}
		return nil, fault.New(fault.Forbidden, "origin.refused", "The client does not allow pages of this origin.")
	}
	return out, nil
}

// drop ends a session that was begun in vain.
func (s sessions) drop(ctx context.Context, stay auth.Stay) error {
	tn, release, err := s.a.cfg.Open(ctx, stay.Client)
	if err != nil {
		return err
	}
	defer release()
	return s.porter.Logout(ctx, tn, stay.Session.ID)
}

// cookie is the session's cookie; an age below zero takes it back. Whether it is for https only tells the public address,
// never a header of the request.
func (s sessions) cookie(value string, age time.Duration) string {
	c := http.Cookie{ //nolint:gosec // without https, a Secure cookie would never come back
		Name: SessionCookie, Value: value, Path: "/", MaxAge: int(age.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: strings.HasPrefix(strings.ToLower(s.a.cfg.PublicURL), "https://"),
	}
	if age < 0 {
		c.MaxAge = -1
	}
	return c.String()
}

// stay looks up the calling session anew.
func (s sessions) stay(ctx context.Context) (auth.Stay, error) {
	token, _ := sessionToken(requestOf(ctx).http)
	return s.porter.Session(ctx, token)
}

func (s sessions) current(ctx context.Context, _ *tenant.Tenant, _ *struct{}) (*Answer[SessionView], error) {
	stay, err := s.stay(ctx)
	if err != nil {
		return nil, err
	}
	return OK(sessionView(stay))
}

type endedSession struct {
	SetCookie []string `header:"Set-Cookie"`
}

func (s sessions) logout(ctx context.Context, tn *tenant.Tenant, _ *struct{}) (*endedSession, error) {
	if err := s.porter.Logout(ctx, tn, CallerOf(ctx).KeyID); err != nil {
		return nil, err
	}
	return &endedSession{[]string{s.cookie("", -1)}}, nil
}

type passwordInput struct {
	Body struct {
		CurrentPassword string `json:"currentPassword" maxLength:"1024"`
		NewPassword     string `json:"newPassword" minLength:"10" maxLength:"256" doc:"At least 10 characters; common ones are refused."`
	}
}

func (s sessions) password(ctx context.Context, tn *tenant.Tenant, in *passwordInput) (*struct{}, error) {
	stay, err := s.stay(ctx)
	if err != nil {
		return nil, err
	}
	return nil, s.porter.SetPassword(ctx, tn, stay, secret.Text(in.Body.CurrentPassword), secret.Text(in.Body.NewPassword))
}
