package auth

import (
	"context"
	"errors"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Roles are what a user may be, the least first.
var Roles = []string{"viewer", "agent", "owner"}

// MaxUsers is how many users a client may have.
const MaxUsers = 1000

// userForm is the form of a user's id.
var userForm = regexp.MustCompile(`^usr_[0-9a-f]{32}$`)

// User is a person at a client's dashboard.
type User struct {
	store.Meta
	ID           string    `json:"_id"`
	Email        string    `json:"email"` // lower case
	Name         string    `json:"name"`
	Role         string    `json:"role"`
	PasswordHash string    `json:"passwordHash"`
	Disabled     bool      `json:"disabled,omitempty"`
	Epoch        int64     `json:"epoch"` // +1 ends every session made before
	CreatedAt    time.Time `json:"createdAt"`
	UpdatedAt    time.Time `json:"updatedAt"`
	LastLoginAt  time.Time `json:"lastLoginAt,omitzero"`
}

// Users is the kind, in the client's database.
var Users = store.Kind[User]{
	Schema: store.Schema{Kind: "users", Fields: []store.Field{{Name: "email", Type: store.Text, Unique: true}}},
	Key:    func(u *User) string { return u.ID },
	Index:  func(u *User) store.Fields { return store.Fields{"email": u.Email} },
	Meta:   func(u *User) *store.Meta { return &u.Meta },
}

// NewUser is what is said of a new user.
type NewUser struct {
	Email, Name, Role string
	Password          secret.Text
}

// Change is what is to be different of a user; nil members stay.
type Change struct {
	Email, Name, Role *string
	Password          *secret.Text
	Disabled          *bool
}

// Email brings an address to its stored form; false if it is none.
func Email(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	if len(s) < 3 || len(s) > 254 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", false
	}
	a, err := mail.ParseAddress(s)
	return s, err == nil && a.Address == s
}

// problems tells what is wrong with a user, besides its password.
func (u *User) problems() (bad []fault.Field) {
	if _, ok := Email(u.Email); !ok {
		bad = append(bad, fault.Field{Pointer: "/email", Detail: "Expected an e-mail address."})
	}
	if strings.TrimSpace(u.Name) == "" || len(u.Name) > 200 || strings.ContainsFunc(u.Name, unicode.IsControl) {
		bad = append(bad, fault.Field{Pointer: "/name", Detail: "Expected 1 to 200 bytes with visible characters and no control characters."})
	}
	if !slices.Contains(Roles, u.Role) {
		bad = append(bad, fault.Field{Pointer: "/role", Detail: "Expected owner, agent or viewer."})
	}
	return bad
}

func (u *User) setPassword(ctx context.Context, h *hasher, client string, password secret.Text) (err error) {
	if why := weak(password, u.Email, u.Name, client); why != "" {
		return fault.Bad("/password", "%s", why)
	}
	u.PasswordHash, err = h.hash(ctx, password)
	return err
}

func errTaken() error {
	return fault.New(fault.Conflict, "user.exists", "A user with this e-mail address exists.")
}

// AddUser makes a user. once, if not "", names the request, so that a repetition after a crash makes no second one.
func (p *Porter) AddUser(ctx context.Context, tn *tenant.Tenant, n NewUser, once string) (*User, error) {
	now := p.cfg.Now().UTC()
	u := &User{ID: id.New("usr"), Email: strings.ToLower(strings.TrimSpace(n.Email)), Name: strings.TrimSpace(n.Name), Role: n.Role, CreatedAt: now, UpdatedAt: now}
	if once != "" {
		u.ID = id.Derived("usr", once)
	}
	bad := u.problems()
	if why := weak(n.Password, u.Email, u.Name, tn.Code); why != "" {
		bad = append(bad, fault.Field{Pointer: "/password", Detail: why})
	}
	if err := fault.BadFields(bad); err != nil {
		return nil, err
	}
	count, err := tn.DB.Count(ctx, store.Query{Kind: Users.Schema.Kind})
	if err != nil {
		return nil, err
	}
	if count >= MaxUsers {
		return nil, fault.New(fault.Conflict, "user.too_many", "A client has at most %d users.", MaxUsers)
	}
	if u.PasswordHash, err = p.hasher.hash(ctx, n.Password); err != nil {
		return nil, err
	}
	if err := tn.DB.Commit(ctx, Users.Insert(u)); err != nil {
		if !errors.Is(err, store.ErrDuplicate) {
			return nil, err
		}
		if mine, err := Users.Get(ctx, tn.DB, u.ID); once != "" && err == nil {
			return mine, nil
		}
		return nil, errTaken()
	}
	u.Version = 1
	return u, nil
}

// User reads a user; fault.NotFound.
func (p *Porter) User(ctx context.Context, tn *tenant.Tenant, userID string) (*User, error) {
	u, err := Users.Get(ctx, tn.DB, userID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("user")
	}
	return u, err
}

// HasUser tells whether an id is that of a user of the client's.
func (p *Porter) HasUser(ctx context.Context, tn *tenant.Tenant, userID string) (bool, error) {
	if !userForm.MatchString(userID) {
		return false, nil
	}
	_, err := Users.Get(ctx, tn.DB, userID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// ListUsers reads users by e-mail address.
func (p *Porter) ListUsers(ctx context.Context, tn *tenant.Tenant, after *store.Cursor, limit int) ([]*User, error) {
	return Users.Find(ctx, tn.DB, store.Query{Order: "email", After: after, Limit: limit})
}

// ChangeUser changes a user. A new password, and being disabled, end the user's sessions; a new role holds at once.
func (p *Porter) ChangeUser(ctx context.Context, tn *tenant.Tenant, userID string, c Change) (*User, error) {
	hash := ""
	for range 5 {
		u, err := p.User(ctx, tn, userID)
		if err != nil {
			return nil, err
		}
		put(&u.Email, c.Email)
		u.Email = strings.ToLower(strings.TrimSpace(u.Email))
		put(&u.Name, c.Name)
		u.Name = strings.TrimSpace(u.Name)
		put(&u.Role, c.Role)
		if err := fault.BadFields(u.problems()); err != nil {
			return nil, err
		}
		if c.Disabled != nil {
			if *c.Disabled && !u.Disabled {
				u.Epoch++
			}
			u.Disabled = *c.Disabled
		}
		if c.Password != nil {
			if hash == "" { // once: it costs
				if err := u.setPassword(ctx, p.hasher, tn.Code, *c.Password); err != nil {
					return nil, err
				}
				hash = u.PasswordHash
			}
			u.PasswordHash = hash
			u.Epoch++
		}
		u.UpdatedAt = p.cfg.Now().UTC()
		switch err := tn.DB.Commit(ctx, Users.Update(u)); {
		case err == nil:
			u.Version++
			p.forgetUser(tn.Code, u.ID)
			if c.Password != nil || c.Disabled != nil && !*c.Disabled { // whoever was locked out may come in
				p.unlock(ctx, tn.Code, u.Email)
			}
			return u, nil
		case errors.Is(err, store.ErrDuplicate):
			return nil, errTaken()
		case !errors.Is(err, store.ErrConflict):
			return nil, err
		}
	}
	return nil, fault.New(fault.Conflict, "user.busy", "The user is being changed by others. Try again.")
}

func put[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// RemoveUser deletes a user, and with it what its sessions stand on.
func (p *Porter) RemoveUser(ctx context.Context, tn *tenant.Tenant, userID string) error {
	if _, err := p.User(ctx, tn, userID); err != nil {
		return err
	}
	sessions, err := Sessions.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("userId", store.Eq, userID)}, Limit: 2 * maxSessions})
	if err != nil {
		return err
	}
	var writes []store.Write
	for _, s := range sessions {
		writes = append(writes, store.Write{Action: store.Delete, Kind: Sessions.Schema.Kind, ID: s.ID})
	}
	writes = append(writes, store.Write{Action: store.Delete, Kind: Users.Schema.Kind, ID: userID})
	if err := tn.DB.Commit(ctx, writes...); err != nil {
		return err
	}
	p.forgetUser(tn.Code, userID)
	return nil
}
