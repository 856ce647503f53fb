package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/mongo"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Installation tells this engine with its nodes from every other one. It goes with the services database: into a backup,
// and where that is restored.
type Installation struct {
	store.Meta
	ID  string `json:"_id"` // installationKey
	Tag string `json:"tag"`
}

// Installations is the kind, in the services database. It has one record.
var Installations = store.Kind[Installation]{
	Schema: store.Schema{Kind: "installation"},
	Key:    func(i *Installation) string { return i.ID },
	Index:  func(*Installation) store.Fields { return store.Fields{} },
	Meta:   func(i *Installation) *store.Meta { return &i.Meta },
}

const installationKey = "installation"

// owner gives whose a client's database is on MongoDB.
func (s *Storage) owner(ctx context.Context, code string) (mongo.Owner, error) {
	if tag := s.installation.Load(); tag != nil {
		return mongo.Owner{Installation: *tag, Client: code}, nil
	}
	i, err := Installations.Get(ctx, s.Services, installationKey)
	if errors.Is(err, store.ErrNotFound) {
		if err = s.Services.Commit(ctx, Installations.Ensure(&Installation{ID: installationKey, Tag: rand.Text()})); err == nil {
			i, err = Installations.Get(ctx, s.Services, installationKey) // another node's, if it was first
		}
	}
	if err != nil {
		return mongo.Owner{}, fmt.Errorf("which installation this is: %w", err)
	}
	s.installation.Store(&i.Tag)
	return mongo.Owner{Installation: i.Tag, Client: code}, nil
}

// foreign makes of a database that is another's what an operator is told of it.
func foreign(err error) error {
	if f := (*mongo.ForeignError)(nil); errors.As(err, &f) {
		return &tenant.Trouble{Detail: f.Error() + ": give this client another databaseUrl", Err: err}
	}
	return err
}

// owned tells whether a client's database is marked as theirs; an error: it is another's.
func (s *Storage) owned(ctx context.Context, url, code string) (bool, error) {
	by, err := s.owner(ctx, code)
	if err != nil {
		return false, err
	}
	return s.clusters.Owned(ctx, url, mongoClient(url, code), by)
}

// dropAt deletes a client's database. One that is another's is left alone: the client never had it.
func (s *Storage) dropAt(ctx context.Context, url, code string) error {
	_, err := s.owned(ctx, url, code)
	if f := (*mongo.ForeignError)(nil); errors.As(err, &f) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.clusters.Drop(ctx, url, mongoClient(url, code))
}

// onMongo gives the address of a client's database on MongoDB; "": it is elsewhere.
func (s *Storage) onMongo(a *tenant.Account) (secret.Text, error) {
	if a.DatabaseURL != "" && s.elsewhere != nil {
		return "", nil
	}
	return s.at(a)
}

// mine refuses a client's database that is another's.
func (s *Storage) mine(ctx context.Context, a *tenant.Account) error {
	url, err := s.onMongo(a)
	if err == nil && url != "" {
		_, err = s.owned(ctx, url.Reveal(), a.Code)
	}
	return foreign(err)
}

// unclaimed refuses to move to a database that holds something and is nobody's: to open it would make it this client's,
// though it may be another's, who has not opened it since databases are marked.
func (s *Storage) unclaimed(ctx context.Context, a *tenant.Account) error {
	url, err := s.onMongo(a)
	if err != nil || url == "" {
		return err
	}
	is, err := s.owned(ctx, url.Reveal(), a.Code)
	if err != nil || is {
		return foreign(err)
	}
	holds, err := s.clusters.Holds(ctx, url.Reveal(), mongoClient(url.Reveal(), a.Code))
	if err == nil && len(holds) > 0 {
		err = &refusedMove{code: "move.target_not_empty", detail: "the new database holds data (" + strings.Join(holds, ", ") + ")"}
	}
	return err
}

// checkDB refuses a client's database on MongoDB for its name.
func (s *Storage) checkDB(code string, own secret.Text) error {
	url, at := own.Reveal(), "/databaseUrl"
	if url == "" {
		url, at = s.url, "/clientCode"
	}
	if url == "" {
		return nil
	}
	name := mongoClient(url, code)
	switch err := mongo.CheckName(name); {
	case len(name) > mongo.MaxName:
		return fault.Bad(at, "The client's database, named by the address's path and the code, would have a name of %d bytes; MongoDB takes %d.", len(name), mongo.MaxName)
	case err != nil:
		return fault.Bad(at, "The address's path and the code make no name of a database.")
	}
	return nil
}
