package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// How long sessions last.
const (
	idleFor     = 12 * time.Hour      // unused, a session ends
	longest     = 30 * 24 * time.Hour // used or not
	prolongIn   = 10 * time.Minute    // a session in use is prolonged so often
	believed    = 2 * time.Second     // what was looked up is believed for so long
	maxSessions = 50                  // of one user; the next ends the oldest

	sessionPrefix = "ecs_"
)

// refuseIn is when a refused login is answered, whatever the refusal needed to be found.
const refuseIn = 300 * time.Millisecond

// Session is a user's stay. Its id is the hash of its token.
type Session struct {
	store.Meta
	ID        string    `json:"_id"`
	UserID    string    `json:"userId"`
	Epoch     int64     `json:"epoch"` // the user's, when it was made
	CreatedAt time.Time `json:"createdAt"`
	UsedAt    time.Time `json:"usedAt"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Sessions is the kind, in the client's database.
var Sessions = store.Kind[Session]{
	Schema: store.Schema{
		Kind:   "sessions",
		Fields: []store.Field{{Name: "userId", Type: store.Text}, {Name: "expiresAt", Type: store.Int}},
		Orders: [][]string{{"expiresAt"}, {"userId", "expiresAt"}},
	},
	Key: func(s *Session) string { return s.ID },
	Index: func(s *Session) store.Fields {
		return store.Fields{"userId": s.UserID, "expiresAt": s.ExpiresAt.UnixMilli()}
	},
	Meta: func(s *Session) *store.Meta { return &s.Meta },
}

// Schemas are the kinds of a client's database.
var Schemas = []store.Schema{Users.Schema, Sessions.Schema}

// Config is what a Porter is built from.
type Config struct {
	Tenants  *tenant.Registry
	Services store.DB // counts failed logins; it must know Failures.Schema
	Ring     *secret.Ring
	Now      func() time.Time
	Log      *slog.Logger
}

// Porter lets users, their sessions and their sockets in. Safe for concurrent use.
type Porter struct {
	cfg    Config
	hasher *hasher
	logins queues
	seen   *lru.Cache[string, glance]
}

// glance is what was seen of a session, and until when it is believed.
type glance struct {
	Stay
	until time.Time
}

// Stay is a session with its user.
type Stay struct {
	Client  string
	Session *Session
	User    *User
}

// NewPorter makes a porter.
func NewPorter(cfg Config) *Porter {
	seen, _ := lru.New[string, glance](8192) // fails only for a size below one
	return &Porter{cfg: cfg, hasher: newHasher(), logins: queues{open: map[string]*queue{}}, seen: seen}
}

func errOver() error {
	return fault.New(fault.Unauthenticated, "auth.invalid", "The session is over, or never was.")
}

func errSuspended() error {
	return fault.New(fault.Forbidden, "client.suspended", "This client is suspended.")
}

// newToken makes a session's token; the client's code in it tells where to look.
func newToken(code string) (token secret.Text, sessionID string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails since Go 1.24
	t := sessionPrefix + code + "." + base64.RawURLEncoding.EncodeToString(b)
	return secret.Text(t), idOf(t)
}

func idOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "ses_" + hex.EncodeToString(sum[:])
}

// parse gives what a token of a prefix says of itself; false if it cannot be one.
func parse(prefix, token string) (code, rest string, ok bool) {
	body, ok := strings.CutPrefix(token, prefix)
	if !ok || len(token) > 2048 {
		return "", "", false
	}
	code, rest, ok = strings.Cut(body, ".")
	stored, valid := tenant.Code(code)
	return code, rest, ok && valid && stored == code && rest != ""
}

// Login lets a user in by password and gives the session's token, shown this once. Whatever is wrong, the client, the
// user or the password, the refusal is the same and takes as long; only a locked account is told at once, and that is told
// of accounts that do not exist as well.
func (p *Porter) Login(ctx context.Context, clientCode, email string, password secret.Text) (secret.Text, Stay, error) {
	begun := time.Now()
	code, _ := tenant.Code(clientCode)
	email = strings.ToLower(strings.TrimSpace(email))
	leave, err := p.logins.enter(ctx, code+" "+email)
	if err != nil {
		return "", Stay{}, err
	}
	defer leave()
	counted, err := p.attempt(ctx, code, email)
	if err != nil {
		return "", Stay{}, err
	}
	token, stay, err := p.login(ctx, code, email, password)
	switch fault.Of(err) {
	case fault.Unavailable, fault.Limited: // the password was not looked at
		p.takeBack(context.WithoutCancel(ctx), counted)
		return "", Stay{}, err
	}
	if err == nil || fault.Of(err) == fault.Forbidden {
		p.unlock(context.WithoutCancel(ctx), code, email)
		return token, stay, err
	}
	wait := time.NewTimer(refuseIn - time.Since(begun))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	return "", Stay{}, err
}

func (p *Porter) login(ctx context.Context, code, email string, password secret.Text) (secret.Text, Stay, error) {
	hash := nobody
	var u *User
	tn, release, err := p.cfg.Tenants.Use(ctx, code)
	switch {
	case err == nil:
		defer release()
		if u, err = userByEmail(ctx, tn, email); err != nil {
			return "", Stay{}, err
		}
		if u != nil {
			hash = u.PasswordHash
		}
	case fault.Of(err) != fault.NotFound:
		return "", Stay{}, err
	}
	right, err := p.hasher.check(ctx, password, hash)
	if err != nil {
		return "", Stay{}, err
	}
	if !right || u == nil || u.Disabled {
		return "", Stay{}, fault.New(fault.Unauthenticated, "session.refused", "The client code, the e-mail address or the password is not right.")
	}
	if tn.Account().Status != tenant.Active {
		return "", Stay{}, errSuspended()
	}
	return p.open(ctx, tn, u)
}

func userByEmail(ctx context.Context, tn *tenant.Tenant, email string) (*User, error) {
	if email == "" || len(email) > store.MaxField {
		return nil, nil
	}
	u, err := Users.First(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("email", store.Eq, email)}})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return u, err
}

// open makes a session.
func (p *Porter) open(ctx context.Context, tn *tenant.Tenant, u *User) (secret.Text, Stay, error) {
	now := p.cfg.Now().UTC()
	token, sid := newToken(tn.Code)
	s := &Session{ID: sid, UserID: u.ID, Epoch: u.Epoch, CreatedAt: now, UsedAt: now, ExpiresAt: now.Add(idleFor)}
	others, err := Sessions.Find(ctx, tn.DB, store.Query{
		Where: []store.Term{store.Where("userId", store.Eq, u.ID)}, Order: "expiresAt", Desc: true, Limit: 2 * maxSessions,
	})
	if err != nil {
		return "", Stay{}, err
	}
	writes := []store.Write{Sessions.Insert(s)}
	for i := maxSessions - 1; i < len(others); i++ {
		writes = append(writes, store.Write{Action: store.Delete, Kind: Sessions.Schema.Kind, ID: others[i].ID})
	}
	if err := tn.DB.Commit(ctx, writes...); err != nil {
		return "", Stay{}, err
	}
	u.LastLoginAt = now
	if err := tn.DB.Commit(ctx, Users.Update(u)); err == nil {
		u.Version++
	} else if !errors.Is(err, store.ErrConflict) {
		p.cfg.Log.Warn("a user's last login cannot be noted", "client", tn.Code, "error", err)
	}
	s.Version = 1
	return token, Stay{tn.Code, s, u}, nil
}

// Session tells whose a session's token is. Of a session that is over, or never was: fault.Unauthenticated; of a
// suspended client's: fault.Forbidden. What it tells was true two seconds ago at most.
func (p *Porter) Session(ctx context.Context, token string) (Stay, error) {
	code, rest, ok := parse(sessionPrefix, token)
	if !ok || len(rest) != base64.RawURLEncoding.EncodedLen(32) {
		return Stay{}, errOver()
	}
	status := p.cfg.Tenants.Status(code)
	sid := idOf(token)
	if g, ok := p.seen.Get(sid); ok && status == tenant.Active && p.cfg.Now().Before(g.until) {
		return g.Stay, nil
	}
	stay, err := p.look(ctx, code, sid)
	if err != nil {
		return Stay{}, err
	}
	if status != tenant.Active {
		p.seen.Remove(sid) // resumed, it is over
		return Stay{}, errSuspended()
	}
	p.seen.Add(sid, glance{stay, p.cfg.Now().Add(believed)})
	return stay, nil
}

// look reads a session and its user, and prolongs the session.
func (p *Porter) look(ctx context.Context, code, sid string) (Stay, error) {
	tn, release, err := p.cfg.Tenants.Use(ctx, code)
	if err != nil {
		if fault.Of(err) == fault.NotFound {
			return Stay{}, errOver()
		}
		return Stay{}, err
	}
	defer release()
	s, err := Sessions.Get(ctx, tn.DB, sid)
	if errors.Is(err, store.ErrNotFound) {
		return Stay{}, errOver()
	}
	if err != nil {
		return Stay{}, err
	}
	u, err := Users.Get(ctx, tn.DB, s.UserID)
	if errors.Is(err, store.ErrNotFound) {
		return Stay{}, errOver()
	}
	if err != nil {
		return Stay{}, err
	}
	now := p.cfg.Now().UTC()
	if !holds(tn.Account(), s, u, now) {
		return Stay{}, errOver()
	}
	if now.Sub(s.UsedAt) >= prolongIn {
		s.UsedAt, s.ExpiresAt = now, earlier(now.Add(idleFor), s.End())
		if err := tn.DB.Commit(ctx, Sessions.Update(s)); err == nil {
			s.Version++
		} else if !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			p.cfg.Log.Warn("a session in use cannot be prolonged", "client", code, "error", err)
		}
	}
	return Stay{code, s, u}, nil
}

// End is when a session is over for good.
func (s *Session) End() time.Time { return s.CreatedAt.Add(longest) }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// holds tells whether a session is still one: a password changed and a user disabled since end it, and that the client was
// suspended. While it is, sessions are told so.
func holds(a *tenant.Account, s *Session, u *User, now time.Time) bool {
	return !u.Disabled && s.Epoch == u.Epoch && s.ExpiresAt.After(now) && s.End().After(now) &&
		(s.CreatedAt.After(a.SuspendedAt) || a.Status == tenant.Suspended)
}

// Logout ends a session.
func (p *Porter) Logout(ctx context.Context, tn *tenant.Tenant, sessionID string) error {
	err := tn.DB.Commit(ctx, store.Write{Action: store.Delete, Kind: Sessions.Schema.Kind, ID: sessionID})
	p.seen.Remove(sessionID)
	return err
}

// SetPassword changes the password of a session's own user, who must know the old one, and ends the user's other sessions.
func (p *Porter) SetPassword(ctx context.Context, tn *tenant.Tenant, stay Stay, old, next secret.Text) error {
	leave, err := p.logins.enter(ctx, tn.Code+" "+stay.User.Email)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := p.attempt(ctx, tn.Code, stay.User.Email); err != nil {
		return err
	}
	u, err := p.User(ctx, tn, stay.User.ID)
	if err != nil {
		return err
	}
	right, err := p.hasher.check(ctx, old, u.PasswordHash)
	if err != nil {
		return err
	}
	if !right {
		return fault.Bad("/currentPassword", "Expected the password as it is now.")
	}
	p.unlock(context.WithoutCancel(ctx), tn.Code, u.Email)
	if err := u.setPassword(ctx, p.hasher, tn.Code, next); err != nil {
		var f *fault.Error
		if errors.As(err, &f) && len(f.Fields) > 0 {
			f.Fields[0].Pointer = "/newPassword"
		}
		return err
	}
	s, err := Sessions.Get(ctx, tn.DB, stay.Session.ID)
	if errors.Is(err, store.ErrNotFound) {
		return errOver()
	}
	if err != nil {
		return err
	}
	u.Epoch++
	u.UpdatedAt = p.cfg.Now().UTC()
	s.Epoch = u.Epoch
	// The user last: with the session alone changed nothing is lost but that session.
	err = tn.DB.Commit(ctx, Sessions.Update(s), Users.Update(u))
	p.forgetUser(tn.Code, u.ID)
	if errors.Is(err, store.ErrConflict) {
		return fault.New(fault.Conflict, "user.busy", "The user is being changed by others. Try again.")
	}
	return err
}

// forgetUser makes the next question about a user's sessions be looked up.
func (p *Porter) forgetUser(code, userID string) {
	for _, sid := range p.seen.Keys() {
		if g, ok := p.seen.Peek(sid); ok && g.Client == code && g.User.ID == userID {
			p.seen.Remove(sid)
		}
	}
}
