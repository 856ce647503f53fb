package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store/mongo"
	"github.com/ecodrix/ecod/internal/tenant"
)

// A backup of MongoDB holds each collection as a file of documents one behind the other, as mongodump's are: those of the
// services database first, since who the clients are stands there.
const (
	mongoEngine   = "mongodb"
	mongoServices = "mongodb/services/"
	mongoClients  = "mongodb/clients/"
)

// backupShared writes what stands on MongoDB, the databases at clients' own addresses included. It is of one moment because
// nobody writes: no node serves (ADR 4).
func backupShared(ctx context.Context, cfg Config, w *archive, work string, m *Manifest, keys Keys) error {
	s, err := OpenStorage(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := nobodyServes(ctx, s); err != nil {
		return err
	}
	m.Engine, m.At = mongoEngine, time.Now().UTC()
	put := func(folder string) func(string, func(io.Writer) error) error {
		return func(collection string, write func(io.Writer) error) error {
			return w.through(filepath.Join(work, "collection"), folder+collection+".bson", write)
		}
	}
	if err := s.clusters.Archive(ctx, s.url, mongoName(s.url, "services"), put(mongoServices)); err != nil {
		return err
	}
	r := s.Registry(keys.Ring, slog.New(slog.DiscardHandler), nil, nil)
	err = eachAccount(ctx, r, func(a *tenant.Account) error {
		url, err := s.at(a)
		if err == nil {
			_, err = s.owned(ctx, url.Reveal(), a.Code)
		}
		if f := (*mongo.ForeignError)(nil); errors.As(err, &f) { // the client has none, and what stands there is in its owner's backup
			return nil
		}
		if err == nil {
			err = s.clusters.Archive(ctx, url.Reveal(), mongoClient(url.Reveal(), a.Code), put(mongoClients+a.Code+"/"))
		}
		m.Clients++
		return err
	})
	if err != nil {
		return err
	}
	return nobodyServes(ctx, s) // nobody came meanwhile
}

// nobodyServes refuses while a node serves from a storage.
func nobodyServes(ctx context.Context, s *Storage) error {
	nodes, err := present(ctx, s.Services, time.Now())
	if err != nil || len(nodes) == 0 {
		return err
	}
	var who []string
	for _, n := range nodes {
		who = append(who, fmt.Sprintf("%s (%s)", n.Host, n.Addr))
	}
	return fmt.Errorf("nodes serve from this database: %s. A copy of MongoDB is of one moment only while nobody writes: stop them first "+
		"(one that was killed is forgotten after a minute), or take snapshots of the deployment itself", strings.Join(who, ", "))
}

// eachAccount gives every account that can be read; one that cannot is an error.
func eachAccount(ctx context.Context, r *tenant.Registry, fn func(*tenant.Account) error) error {
	const page = 500
	for after := ""; ; {
		accounts, err := r.List(ctx, after, page)
		if err != nil {
			return err
		}
		for _, a := range accounts {
			after = a.Code
			if a.Status == tenant.Unreadable {
				return fmt.Errorf("the document of client %s in ClientSecrets cannot be read; mend it first", a.Code)
			}
			if err := fn(a); err != nil {
				return fmt.Errorf("client %s: %w", a.Code, err)
			}
		}
		if len(accounts) < page {
			return nil
		}
	}
}

// through adds a file that is written on the disk first: a tar names the size before the bytes.
func (a *archive) through(tmp, name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(f, 1<<18)
	err = write(buf)
	if err == nil {
		err = buf.Flush()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return errors.Join(a.file(name, tmp), os.Remove(tmp))
}

// ownDatabases lists the clients of a data folder whose databases are elsewhere, so that a backup of the folder does not
// hold them.
func ownDatabases(ctx context.Context, dir string, keys Keys) (codes []string, err error) {
	s, err := OpenEmbedded(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r := s.Registry(keys.Ring, slog.New(slog.DiscardHandler), nil, nil)
	codes = []string{}
	for after := ""; ; {
		accounts, err := r.List(ctx, after, 500)
		if err != nil {
			return nil, err
		}
		for _, a := range accounts {
			if after = a.Code; a.DatabaseURL != "" {
				codes = append(codes, a.Code)
			}
		}
		if len(accounts) < 500 {
			return codes, nil
		}
	}
}

// restoreShared puts a backup of MongoDB into the empty database that is configured. The clients' databases come where their
// accounts say, which must hold nothing either. Cut short, it is to be run again: until then no engine starts.
// Nothing was touched unless it had begun.
func restoreShared(ctx context.Context, cfg Config, file string) (begun bool, err error) {
	keys, err := cfg.LoadKeys()
	if err != nil {
		return false, err
	}
	clusters := mongo.NewClusters(mongo.Config{Home: cfg.DatabaseURL, AllowPrivate: cfg.AllowPrivate})
	defer func() { err = errors.Join(err, clusters.Close(context.WithoutCancel(ctx))) }()
	url, services := cfg.DatabaseURL, mongoName(cfg.DatabaseURL, "services")
	if err := vacant(ctx, clusters, url, services); err != nil {
		return false, err
	}
	accounts := map[string]*tenant.Account{}
	var s *Storage
	defer func() {
		if s != nil {
			err = errors.Join(err, s.Services.Close())
		}
	}()
	type place struct{ url, database string }
	places := map[string]place{}
	err = each(ctx, file, func(name string, _ int64, r io.Reader) error {
		if rest, ok := strings.CutPrefix(name, mongoServices); ok {
			_, err := clusters.Unarchive(ctx, url, services, strings.TrimSuffix(rest, ".bson"), r)
			return err
		}
		rest, ok := strings.CutPrefix(name, mongoClients)
		if !ok {
			return restoreBeside(cfg, name, r)
		}
		code, collection := path.Split(rest)
		code = strings.TrimSuffix(code, "/")
		if s == nil { // the services database is whole
			db, err := clusters.OpenOwned(ctx, url, services, servicesSchemas, mongo.Owner{})
			if err != nil {
				return err
			}
			s = &Storage{dir: cfg.DataDir, url: url, clusters: clusters, Services: db}
			reg := s.Registry(keys.Ring, slog.New(slog.DiscardHandler), nil, nil)
			if err := eachAccount(ctx, reg, func(a *tenant.Account) error { accounts[a.Code] = a; return nil }); err != nil {
				return err
			}
		}
		a := accounts[code]
		if a == nil {
			return fmt.Errorf("it holds a database of %s, who is no client", code)
		}
		at, err := s.at(a)
		if err != nil {
			return fmt.Errorf("client %s: %w", code, err)
		}
		database := mongoClient(at.Reveal(), code)
		if _, ok := places[code]; !ok {
			if _, err := s.owned(ctx, at.Reveal(), code); err != nil { // before anything in it is emptied
				return fmt.Errorf("client %s: %w", code, err)
			}
			if err := vacant(ctx, clusters, at.Reveal(), database); err != nil {
				return fmt.Errorf("client %s: %w", code, err)
			}
			places[code] = place{at.Reveal(), database}
		}
		_, err = clusters.Unarchive(ctx, at.Reveal(), database, strings.TrimSuffix(collection, ".bson"), r)
		return err
	})
	if err != nil {
		return true, err
	}
	for _, p := range places { // before the services': a mark that is left over would cost a database its data
		if err := clusters.SetRestoring(ctx, p.url, p.database, false); err != nil {
			return true, err
		}
	}
	return true, clusters.SetRestoring(ctx, url, services, false)
}

// vacant takes a database for a restore: it refuses one that holds something, and empties one that a restore before left
// half done.
func vacant(ctx context.Context, clusters *mongo.Clusters, url, database string) error {
	again, err := clusters.Restoring(ctx, url, database)
	if err == nil && again {
		err = clusters.Drop(ctx, url, database)
	}
	if err != nil {
		return err
	}
	holds, err := clusters.Holds(ctx, url, database)
	if err == nil && len(holds) == 0 {
		return clusters.SetRestoring(ctx, url, database, true)
	}
	if err == nil {
		err = fmt.Errorf("the database %s on %s holds data already (%s); a backup is restored into an empty one", database, servers(url), strings.Join(holds, ", "))
	}
	return err
}

// restoreBeside puts a file of the data folder back: media, and the keys if they are in the backup.
func restoreBeside(cfg Config, name string, r io.Reader) error {
	to := filepath.Join(cfg.DataDir, filepath.FromSlash(name))
	if rest, ok := strings.CutPrefix(name, "media/"); ok {
		dir, local := mediaFolder(cfg.MediaURL)
		if !local {
			return nil
		}
		to = filepath.Join(dir, filepath.FromSlash(rest))
	}
	if name == manifestName {
		return nil
	}
	if _, err := os.Stat(to); err == nil {
		return nil // blobs are named by their content, and keys that are there stay
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to+".restoring", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, r); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(to+".restoring", to)
}
