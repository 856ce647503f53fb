package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/mongo"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	startWait  = 20 * time.Second // a start waits so long for its database
	dbPrefix   = "ecod"           // of databases' names, where the URL names none
	busyBudget = 2 * time.Second  // what callers are told whose client finds no connection left
)

// openShared opens the services database on MongoDB. What is wrong with it is a BadConfig that shows nothing of the
// address but its servers.
func openShared(ctx context.Context, cfg Config, clusters *mongo.Clusters) (*Storage, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, BadConfig{fmt.Sprintf("The data folder %s cannot be made: %s.", cfg.DataDir, err)}
	}
	octx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	s := &Storage{dir: cfg.DataDir, url: cfg.DatabaseURL, clusters: clusters}
	if half, err := clusters.Restoring(octx, cfg.DatabaseURL, mongoName(cfg.DatabaseURL, "services")); err == nil && half {
		return nil, BadConfig{"A restore into the database of ECOD_DATABASE_URL was cut short: run ecod restore again."}
	}
	db, err := clusters.OpenOwned(octx, cfg.DatabaseURL, mongoName(cfg.DatabaseURL, "services"), servicesSchemas, mongo.Owner{})
	if err == nil {
		s.Services = db
		var q *mongo.Queue
		if q, err = mongo.OpenQueue(octx, db, nil); err == nil {
			s.Queue = q
			return s, nil
		}
		err = errors.Join(err, db.Close())
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if octx.Err() != nil {
		err = errors.New("no answer in time")
	}
	return nil, BadConfig{fmt.Sprintf("ECOD_DATABASE_URL: the services database at %s cannot be opened: %s.", servers(cfg.DatabaseURL), strings.TrimSuffix(err.Error(), "."))}
}

// refusedStart keeps what is wrong with the configuration apart from all else.
func refusedStart(err error) error {
	if bad := (BadConfig)(nil); errors.As(err, &bad) {
		return bad
	}
	return fmt.Errorf("open the services database: %w", err)
}

// servers gives the servers that an address names, and nothing else of it.
func servers(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	rest = rest[strings.LastIndex(rest, "@")+1:] // first: a password may have a question mark
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	return rest
}

// mongoName names a database on MongoDB: ecod_services, ecod_t_acme, with the database of its address for ecod if that
// names one. MongoDB takes names that differ in case alone for one.
func mongoName(url, of string) string {
	prefix := mongo.Database(url)
	if prefix == "" {
		prefix = dbPrefix
	}
	return prefix + "_" + of
}

func mongoClient(url, code string) string { return mongoName(url, "t_"+strings.ToLower(code)) }

// Shared tells whether other processes may serve from this storage at the same time.
func (s *Storage) Shared() bool { return s.url != "" }

// at gives the address of a client's database; "": it is a file of the data folder.
func (s *Storage) at(a *tenant.Account) (secret.Text, error) {
	if a.DatabaseURL == "" {
		return secret.Text(s.url), nil
	}
	if s.ring == nil {
		return "", errors.New("app: no keys to read a client's databaseUrl with")
	}
	return tenant.OpenSecret(s.ring, a, "databaseUrl")
}

func (s *Storage) openAt(ctx context.Context, url, code string) (store.DB, error) {
	by, err := s.owner(ctx, code)
	if err != nil {
		return nil, err
	}
	db, err := s.clusters.OpenOwned(ctx, url, mongoClient(url, code), tenantSchemas, by)
	if limit := (*mongo.LimitError)(nil); errors.As(err, &limit) {
		f := fault.Wrap(err, fault.Unavailable, "client.no_connection", "All connections to databases are in use. Try again.")
		f.RetryAfter = busyBudget
		return nil, f
	}
	if err != nil { // not a nil pointer in an interface
		return nil, foreign(err)
	}
	return db, nil
}
