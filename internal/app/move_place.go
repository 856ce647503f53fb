package app

import (
	"context"
	"errors"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/tenant"
)

// same tells whether two addresses of a client's lead to one database: a server has many names.
func (m *Mover) same(ctx context.Context, a, b *tenant.Account) (bool, error) {
	var urls, places [2]string
	for i, acct := range []*tenant.Account{a, b} {
		url, err := m.Tenants.DatabaseURL(acct)
		if err != nil {
			return false, err
		}
		urls[i] = url.Reveal()
	}
	if urls[0] == urls[1] {
		return true, nil
	}
	if !m.Storage.Shared() && (urls[0] == "" || urls[1] == "") { // a file and none
		return false, nil
	}
	for i, acct := range []*tenant.Account{a, b} {
		db, err := m.Storage.OpenDB(ctx, acct)
		if err != nil {
			return false, err
		}
		if p, ok := db.(interface {
			Place(ctx context.Context) (string, error)
		}); ok {
			places[i], err = p.Place(ctx)
		}
		if err = errors.Join(err, db.Close()); err != nil {
			return false, err
		}
	}
	return places[0] != "" && places[0] == places[1], nil
}

// errSame says that what should be an old copy is the client's database: a hand changed its address back.
var errSame = fault.New(fault.Conflict, "client.same_database", "The client is served from there: it is no old copy, and was not dropped.")

// Where tells where a client's database is, without a secret.
func (m *Mover) Where(a *tenant.Account) (string, error) {
	raw, err := m.Tenants.DatabaseURL(a)
	if err != nil {
		return "", err
	}
	return m.Storage.describe(a.Code, raw.Reveal()), nil
}

// OldCopy tells where the old copy of a client's last move is; "": there is none.
func (m *Mover) OldCopy(a *tenant.Account) (string, error) {
	if a.Move == nil || !a.Move.Kept {
		return "", nil
	}
	old, err := m.Tenants.Old(a)
	if err != nil {
		return "", err
	}
	return m.Where(old)
}

// DropOld deletes the old copy of a client's last move.
func (m *Mover) DropOld(ctx context.Context, code string) (dropped string, err error) {
	acct, err := m.Tenants.Account(ctx, code)
	if err != nil {
		return "", err
	}
	if acct.Move == nil || !acct.Move.Kept {
		return "", fault.Missing("old copy")
	}
	old, err := m.Tenants.Old(acct)
	if err != nil {
		return "", err
	}
	if dropped, err = m.Where(old); err != nil {
		return "", err
	}
	same, err := m.same(ctx, acct, old)
	if err == nil && !same {
		err = m.Storage.mine(ctx, old) // where the client is in a file, nothing was opened yet
	}
	trouble := (*tenant.Trouble)(nil)
	switch {
	case errors.As(err, &trouble):
		return "", fault.Wrap(err, fault.Conflict, "client.not_its_database", "One of the two databases is not this client's: nothing was dropped.")
	case err != nil:
		return "", err
	case same:
		if err := m.Tenants.ForgetOld(ctx, acct.Code); err != nil {
			return "", err
		}
		return "", errSame
	}
	if err := m.Storage.RemoveDB(ctx, old); err != nil {
		return "", err
	}
	return dropped, m.Tenants.ForgetOld(ctx, acct.Code)
}

// describe names the place of a client's database: servers and name, never a password.
func (s *Storage) describe(code, raw string) string {
	if raw == "" {
		return s.home(code)
	}
	return "mongodb://" + servers(raw) + "/" + mongoClient(raw, code)
}

// home names the place of a database in the engine's own storage.
func (s *Storage) home(code string) string {
	if !s.Shared() {
		return s.path(code)
	}
	return "the engine's own MongoDB, " + mongoClient(s.url, code)
}
