package mongo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/ecodrix/ecod/internal/store"
)

// Clusters are the MongoDB deployments that this process speaks with, one driver's client each, within a budget of
// connections. A cluster gets its share of the budget with its first use: PerCluster, or half of what is left (of Home:
// three quarters) when that is less, so that a late one still gets something. When nothing is left, the cluster that was idle for longest is
// left: its databases stay open, and connect anew with their next use.
type Clusters struct {
	cfg  Config
	home [sha256.Size]byte
	open atomic.Int64 // sockets

	mu      sync.Mutex
	freed   chan struct{} // closed and made anew when connections became free
	closed  bool
	left    int // connections that are nobody's
	leaving int // clusters that are giving theirs back
	known   map[[sha256.Size]byte]*cluster
}

// cluster is one deployment, as one URL names it. Its fields below the line are guarded by Clusters.mu.
type cluster struct {
	c       *Clusters
	url     string
	trusted bool
	able    abilities

	// ---
	client     *driver.Client
	connecting chan struct{} // closed when the attempt that is under way is over
	failed     error         // of the last attempt
	share      int
	calls      int // under way
	handles    int
	usedAt     time.Time
}

// NewClusters makes an empty Clusters; it connects to nothing.
func NewClusters(cfg Config) *Clusters {
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = 256
	}
	if cfg.PerCluster <= 0 {
		cfg.PerCluster = 64
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Clusters{cfg: cfg, freed: make(chan struct{}), left: cfg.MaxConnections, known: map[[sha256.Size]byte]*cluster{}}
	if cfg.Home != "" {
		c.home = sha256.Sum256([]byte(normal(cfg.Home)))
	}
	return c
}

// Sockets is how many connections are open now, those that watch over servers included.
func (c *Clusters) Sockets() int { return int(c.open.Load()) }

// normal brings URLs that mean the same client to the same text. The database in it counts only where it says whose
// accounts the name and password are.
func normal(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return raw
	}
	rest, query, _ := strings.Cut(rest, "?")
	user, place := "", rest
	if i := strings.LastIndex(rest, "@"); i >= 0 {
		user, place = rest[:i], rest[i+1:]
	}
	hosts, database, _ := strings.Cut(place, "/")
	list := strings.Split(strings.ToLower(hosts), ",")
	slices.Sort(list)
	opts := slices.DeleteFunc(strings.Split(query, "&"), func(s string) bool { return s == "" })
	slices.Sort(opts)
	if user == "" || slices.ContainsFunc(opts, func(o string) bool { return strings.HasPrefix(strings.ToLower(o), "authsource=") }) {
		database = ""
	}
	return strings.ToLower(scheme) + "://" + user + "@" + strings.Join(list, ",") + "/" + database + "?" + strings.Join(opts, "&")
}

// Database gives the name of the database in a URL; "" if it names none.
func Database(raw string) string {
	_, rest, _ := strings.Cut(raw, "://")
	rest, _, _ = strings.Cut(rest, "?")
	_, name, _ := strings.Cut(rest[strings.LastIndex(rest, "@")+1:], "/")
	if plain, err := url.PathUnescape(name); err == nil {
		return plain
	}
	return name
}

// cluster gives the deployment of a URL, and counts one more handle on it.
func (c *Clusters) cluster(url string) (*cluster, error) {
	key := sha256.Sum256([]byte(normal(url)))
	trusted := c.cfg.Home != "" && key == c.home
	if !trusted {
		if err := harmless(url); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, store.ErrClosed
	}
	cl := c.known[key]
	if cl == nil {
		cl = &cluster{c: c, url: url, trusted: trusted, usedAt: time.Now()}
		c.known[key] = cl
	}
	cl.handles++
	return cl, nil
}

// release takes a handle back. A cluster that nobody needs is left after a while.
func (cl *cluster) release() {
	c := cl.c
	c.mu.Lock()
	cl.handles--
	cl.usedAt = time.Now()
	last := cl.handles == 0
	c.mu.Unlock()
	if last {
		time.AfterFunc(idleAfter, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if cl.handles == 0 && cl.calls == 0 && time.Since(cl.usedAt) >= idleAfter {
				c.leave(cl)
				for key, known := range c.known {
					if known == cl {
						delete(c.known, key)
					}
				}
			}
		})
	}
}

// begin gives the cluster's client for one call, connected if it was not. end must follow.
func (cl *cluster) begin(ctx context.Context) (*driver.Client, error) {
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.closed {
			return nil, store.ErrClosed
		}
		if cl.client != nil {
			cl.calls++
			cl.usedAt = time.Now()
			return cl.client, nil
		}
		if cl.connecting == nil {
			if err := c.grant(ctx, cl); err != nil {
				return nil, err
			}
			if cl.client != nil || cl.connecting != nil || c.closed { // meanwhile
				continue
			}
			cl.connecting = make(chan struct{})
			go cl.connect() //nolint:gosec // others wait for it, too: it does not end with the call that happens to ask first
		}
		wait := cl.connecting
		c.mu.Unlock()
		late := time.NewTimer(c.cfg.Timeout)
		var err error
		select {
		case <-wait:
		case <-ctx.Done():
			err = ctx.Err()
		case <-late.C:
			err = fmt.Errorf("%w: store/mongo: the cluster's names are not resolved in time", store.ErrUnavailable)
		}
		late.Stop()
		c.mu.Lock()
		if err == nil && cl.client == nil {
			err = cl.failed
		}
		if err != nil {
			return nil, err
		}
	}
}

// end ends a call.
func (cl *cluster) end() {
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.calls--
	cl.usedAt = time.Now()
	if cl.calls == 0 { // somebody may wait for the idle
		c.tell()
	}
}

// tell wakes those that wait for connections.
func (c *Clusters) tell() {
	close(c.freed)
	c.freed = make(chan struct{})
}

// grant gives a cluster its share of the budget. It waits, unlocked, for clusters that are being left, and for no others.
func (c *Clusters) grant(ctx context.Context, cl *cluster) error {
	end := time.Now().Add(limitWait)
	for cl.share == 0 && !c.closed {
		if c.left >= minShare || c.left == c.cfg.MaxConnections {
			part := c.left / 2
			if cl.trusted {
				part = c.left - c.left/4
			}
			cl.share = min(c.cfg.PerCluster, max(part, min(minShare, c.left)))
			c.left -= cl.share
			return nil
		}
		if c.leaving == 0 {
			var oldest *cluster
			for _, k := range c.known {
				if k.client != nil && k.calls == 0 && (oldest == nil || idler(k, oldest)) {
					oldest = k
				}
			}
			if oldest == nil {
				return &LimitError{c.cfg.MaxConnections}
			}
			c.leave(oldest)
		}
		freed := c.freed
		c.mu.Unlock()
		late := time.NewTimer(time.Until(end))
		var err error
		select {
		case <-freed:
		case <-ctx.Done():
			err = ctx.Err()
		case <-late.C:
			err = &LimitError{c.cfg.MaxConnections}
		}
		late.Stop()
		c.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// idler tells which of two idle clusters is left first.
func idler(a, b *cluster) bool {
	if (a.handles == 0) != (b.handles == 0) {
		return a.handles == 0
	}
	return a.usedAt.Before(b.usedAt)
}

// leave closes a cluster's connections beside us; its share is free when that is done.
func (c *Clusters) leave(cl *cluster) {
	client := cl.client
	if client == nil {
		return
	}
	cl.client = nil
	share := cl.share
	cl.share = 0
	c.leaving++
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = client.Disconnect(ctx) // the connections are closed also if the farewell is not heard
		c.mu.Lock()
		defer c.mu.Unlock()
		c.left += share
		c.leaving--
		c.tell()
	}()
}

// connect makes the client. It may have to ask the DNS, which may take its time: nobody's lock is held.
func (cl *cluster) connect() {
	c := cl.c
	opts := cl.options()
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Timeout)
	defer cancel()
	var client *driver.Client
	err := cl.dialer().reachable(ctx, opts.Hosts)
	if err == nil {
		client, err = driver.Connect(opts)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(cl.connecting)
	cl.connecting = nil
	if err != nil {
		// The driver's words may quote the URL.
		cl.failed = fmt.Errorf("%w: store/mongo: the cluster's URL cannot be used", store.ErrUnavailable)
		if errors.Is(err, ErrForbidden) {
			cl.failed = ErrForbidden
		}
		c.left += cl.share
		cl.share = 0
		c.tell()
		return
	}
	cl.client, cl.failed = client, nil
	if c.closed {
		c.leave(cl)
	}
}

func (cl *cluster) dialer() dialer {
	return dialer{cfg: cl.c.cfg, trusted: cl.trusted, open: &cl.c.open}
}

// options are the URL's, but for what must not be left to it. It may turn retries of writes off, for servers that know none.
func (cl *cluster) options() *options.ClientOptions {
	cfg := cl.c.cfg
	durable := writeconcern.Majority()
	journal := true
	durable.Journal = &journal
	return options.Client().ApplyURI(cl.url).
		SetAppName("ecod").
		SetTimeout(cfg.Timeout).
		SetServerSelectionTimeout(cfg.Timeout).
		SetConnectTimeout(cfg.Timeout).
		SetMaxPoolSize(uint64(cl.share)).
		SetMinPoolSize(0).
		SetMaxConnIdleTime(connIdle).
		SetWriteConcern(durable).
		SetReadConcern(readconcern.Local()).
		SetReadPreference(readpref.Primary()).
		SetDialer(cl.dialer())
}

// Drop removes a database; one that is not there is no error.
func (c *Clusters) Drop(ctx context.Context, url, database string) error {
	cl, err := c.cluster(url)
	if err != nil {
		return err
	}
	defer cl.release()
	client, err := cl.begin(ctx)
	if err != nil {
		return err
	}
	defer cl.end()
	return fail(ctx, client.Database(database).Drop(ctx))
}

// Close leaves all clusters. Databases that are still open are of no use afterwards.
func (c *Clusters) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	var clients []*driver.Client
	for _, cl := range c.known {
		if cl.client != nil {
			clients = append(clients, cl.client)
			cl.client = nil
		}
	}
	c.known = map[[sha256.Size]byte]*cluster{}
	c.tell()
	c.mu.Unlock()
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, client := range clients {
		wg.Go(func() { errs[i] = fail(ctx, client.Disconnect(ctx)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
