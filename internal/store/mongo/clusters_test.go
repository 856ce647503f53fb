package mongo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

var plain = []store.Schema{{Kind: "plain"}}

// front is a door to the tests' server with an address of its own: to the engine, another cluster.
type front struct {
	url  string
	open atomic.Int64
}

func newFront(t *testing.T, to string) *front {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := &front{url: "mongodb://" + l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				f.open.Add(1)
				defer f.open.Add(-1)
				defer func() { _ = c.Close() }()
				s, err := net.Dial("tcp", u.Host)
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, s); _ = c.Close() }()
				_, _ = io.Copy(s, c)
				_ = s.Close()
			}()
		}
	}()
	return f
}

// silent accepts connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []net.Conn
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range all {
			_ = c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
		}
	}()
	return "mongodb://" + l.Addr().String()
}

func openPlain(t *testing.T, c *Clusters, url, name string) *DB {
	t.Helper()
	db, err := c.Open(t.Context(), url, name, plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func put(ctx context.Context, db *DB, id string) error {
	return db.Commit(ctx, store.Write{Action: store.Put, Kind: "plain", ID: id, Doc: []byte(`{}`)})
}

func eventually(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !fn(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

// A thousand clients' databases work at once, on as many connections as the budget has.
func TestManyClientsFewConnections(t *testing.T) {
	c, url, prefix := testClusters(t, Config{MaxConnections: 64, PerCluster: 64})
	const tenants, names = 1000, 8
	dbs := make([]*DB, tenants)
	most := atomic.Int64{}
	var wg sync.WaitGroup
	for i := range names {
		dbs[i] = openPlain(t, c, url, fmt.Sprintf("%s_%d", prefix, i))
	}
	for i := names; i < tenants; i++ {
		wg.Go(func() {
			db, err := c.Open(t.Context(), url, fmt.Sprintf("%s_%d", prefix, i%names), plain)
			if err != nil {
				t.Error(err)
				return
			}
			dbs[i] = db
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i, db := range dbs {
		wg.Go(func() {
			id := fmt.Sprint(i)
			if err := put(t.Context(), db, id); err != nil {
				t.Error(err)
				return
			}
			if rs, err := db.Get(t.Context(), "plain", id); err != nil || len(rs) != 1 {
				t.Errorf("%d records, %v", len(rs), err)
			}
			for now := int64(c.Sockets()); ; {
				if old := most.Load(); old >= now || most.CompareAndSwap(old, now) {
					break
				}
			}
		})
	}
	wg.Wait()
	for _, db := range dbs {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := most.Load(); n > 64+3 || n < 4 { // and those of the watch over the server
		t.Errorf("%d connections at once, of a budget of 64", n)
	}
}

// Of clusters that want more connections than there are, the one idle longest is left; its databases go on when they are used
// again. While all are in use, another is told so at once.
func TestIdleClustersAreLeft(t *testing.T) {
	c, url, prefix := testClusters(t, Config{MaxConnections: 12, PerCluster: 4, AllowPrivate: true})
	var fronts []*front
	var dbs []*DB
	for i := range 5 {
		f := newFront(t, url)
		fronts = append(fronts, f)
		dbs = append(dbs, openPlain(t, c, f.url, prefix+"_evict"))
		if err := put(t.Context(), dbs[i], "first"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		eventually(t, "the connections of an idle cluster are closed", func() bool { return fronts[i].open.Load() == 0 })
	}
	for i := 2; i < 5; i++ {
		if fronts[i].open.Load() == 0 {
			t.Errorf("cluster %d was left, which was used after others", i)
		}
	}
	if err := put(t.Context(), dbs[0], "again"); err != nil {
		t.Error("a database on a cluster that was left: ", err)
	}
	eventually(t, "the next in turn is left", func() bool { return fronts[2].open.Load() == 0 })

	// All in use.
	hold := make(chan struct{})
	var held, ended sync.WaitGroup
	for _, i := range []int{0, 3, 4} {
		held.Add(1)
		ended.Go(func() {
			err := dbs[i].call(t.Context(), func(context.Context, *driver.Database) error { held.Done(); <-hold; return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	held.Wait()
	began := time.Now()
	_, err := c.Open(t.Context(), newFront(t, url).url, prefix+"_evict", plain)
	var limit *LimitError
	if !errors.As(err, &limit) || limit.Limit != 12 || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("with no connection left: %v", err)
	}
	if err := put(t.Context(), dbs[1], "x"); !errors.As(err, &limit) {
		t.Errorf("a database on a cluster that was left, with no connection left: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("told so after %v", took)
	}
	if err := put(t.Context(), dbs[4], "y"); err != nil {
		t.Error("a cluster that is in use: ", err)
	}
	close(hold)
	ended.Wait()
	if err := put(t.Context(), dbs[1], "x"); err != nil {
		t.Error("once another is idle: ", err)
	}
}

// A cluster that takes connections and says nothing keeps nobody else waiting.
func TestSilentClusterHoldsNobodyUp(t *testing.T) {
	c, url, prefix := testClusters(t, Config{Timeout: 2 * time.Second, AllowPrivate: true})
	db := openPlain(t, c, url, prefix+"_fine")
	dead := silent(t)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 30 {
		wg.Go(func() {
			began := time.Now()
			_, err := c.Open(t.Context(), dead, "ecod_t_dead", plain)
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("of a silent cluster: %v", err)
			}
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("given up after %v", took)
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	slowest, n := time.Duration(0), 0
	for running := true; running; n++ {
		select {
		case <-done:
			running = false
		default:
		}
		began := time.Now()
		if err := put(t.Context(), db, "a"); err != nil {
			t.Fatal(err)
		}
		if n%20 == 0 { // somebody new, too
			openPlain(t, c, url, prefix+"_fine")
		}
		slowest = max(slowest, time.Since(began))
	}
	if slowest > time.Second || n < 10 {
		t.Errorf("%d calls of another client, the slowest took %v", n, slowest)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Open(ctx, dead, "ecod_t_dead", plain); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with an impatient caller: %v", err)
	}
}

// A client's URL leads to no address of ours, whoever names it, and to no file and no account of this machine.
func TestClientsAddressesArePublic(t *testing.T) {
	home := servertest.Mongo(t)
	u, err := url.Parse(home)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClusters(Config{Home: home, Timeout: 3 * time.Second})
	defer func() { _ = c.Close(context.Background()) }()
	for _, bad := range []string{
		"mongodb://u:p@" + u.Host, "mongodb://localhost:" + u.Port() + "/x", "mongodb://10.0.0.1", "mongodb://169.254.169.254:80", "mongodb://[::1]:27017", "mongodb://[::ffff:127.0.0.1]:27017",
		"mongodb://%2Ftmp%2Fmongodb.sock", "mongodb://8.8.8.8/?tlsCAFile=/etc/passwd", "mongodb://8.8.8.8/?tlsCertificateKeyFile=/etc/passwd",
		"mongodb://8.8.8.8/?authMechanism=MONGODB-AWS", "mongodb://8.8.8.8/?authmechanism=gssapi", "mongodb://a@8.8.8.8/?authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:gcp", "http://8.8.8.8",
		"mongodb://8.8.8.8/?auth%4Dechanism=MONGODB-AWS", "mongodb://8.8.8.8/?appName=x;authMechanism=MONGODB-AWS", "mongodb://u:p?x@8.8.8.8/?authMechanism=MONGODB-AWS",
		"mongodb://8.8.8.8/?tlsCAFil%65=/etc/passwd", "mongodb://8.8.8.8/?appName=a;tlsCAFile=/etc/passwd", "mongodb://8.8.8.8/?appName=%zz",
	} {
		began := time.Now()
		db, err := c.Open(t.Context(), bad, "ecod_t_x", plain)
		if err == nil {
			_ = db.Close()
		}
		if !errors.Is(err, ErrForbidden) || !errors.Is(err, store.ErrUnavailable) || time.Since(began) > 2*time.Second {
			t.Errorf("%s: %v after %v", bad, err, time.Since(began))
		}
	}
	if c.Sockets() != 0 {
		t.Errorf("%d connections", c.Sockets())
	}
	openPlain(t, c, home, strings.Trim(u.Path, "/")+"_home") // the operator's own

	// A member of a set that its server tells of is dialled through the same door.
	d := dialer{cfg: c.cfg, open: &c.open}
	if _, err := d.DialContext(t.Context(), "tcp", u.Host); !errors.Is(err, ErrForbidden) {
		t.Errorf("dialled: %v", err)
	}
	d.cfg.Dialer = (&net.Dialer{}).DialContext
	if _, err := d.DialContext(t.Context(), "tcp", u.Host); !errors.Is(err, ErrForbidden) {
		t.Errorf("dialled by a dialer of the caller's: %v", err)
	}
	d.cfg.IsPublic = func(netip.Addr) bool { return true }
	conn, err := d.DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// Neither what a client's URL holds, nor what a record does, is in an error or in the log.
func TestErrorsTellNoSecrets(t *testing.T) {
	var log bytes.Buffer
	c, home, prefix := testClusters(t, Config{Timeout: time.Second, AllowPrivate: true, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	const user, password = "someUser", "s3cr3t-pass"
	for _, u := range []string{
		"mongodb://" + user + ":" + password + "@127.0.0.1:1/db", "mongodb://" + user + ":" + password + "@127.0.0.1:bad/db", "mongodb://" + user + ":" + password + "@" + strings.TrimPrefix(silent(t), "mongodb://"),
		"mongodb+srv://" + user + ":" + password + "@nowhere.invalid", "mongodb://" + user + ":" + password + "@/?x", "mongodb://" + user + ":" + password + "%zz@127.0.0.1:1",
	} {
		_, err := c.Open(t.Context(), u, "x", plain)
		if err == nil || !errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), password) || strings.Contains(err.Error(), user) {
			t.Errorf("%v", err)
		}
	}
	db, err := c.Open(t.Context(), home, prefix+"_s", []store.Schema{{Kind: "people", Fields: []store.Field{{Name: "email", Unique: true}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for i := range 2 {
		err = db.Commit(t.Context(), store.Write{Action: store.Insert, Kind: "people", ID: fmt.Sprint(i), Doc: []byte(`{}`), Fields: store.Fields{"email": password}})
	}
	if !errors.Is(err, store.ErrDuplicate) || strings.Contains(err.Error(), password) {
		t.Error(err)
	}
	err = db.call(t.Context(), func(ctx context.Context, d *driver.Database) error {
		return d.RunCommand(ctx, bson.D{{Key: "no" + password, Value: 1}}).Err()
	})
	if !errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), password) {
		t.Error(err)
	}
	if strings.Contains(log.String(), password) {
		t.Error(log.String())
	}
}

func TestURLsThatMeanTheSame(t *testing.T) {
	for _, same := range [][]string{
		{"mongodb://B:1,a/ecod?x=1&y=2", "mongodb://a,b:1/other?y=2&x=1", "mongodb://a,b:1?x=1&y=2"},
		{"mongodb://u:p@a/db", "mongodb://u:p@A/db?"},
		{"mongodb://u:p@a/db?authSource=admin", "mongodb://u:p@a/other?authSource=admin"},
	} {
		for _, u := range same {
			if normal(u) != normal(same[0]) {
				t.Errorf("%s and %s: %s, %s", u, same[0], normal(u), normal(same[0]))
			}
		}
	}
	for _, other := range [][2]string{{"mongodb://u:p@a/db", "mongodb://u:q@a/db"}, {"mongodb://u:p@a/db", "mongodb://u:p@a/other"}, {"mongodb://a", "mongodb+srv://a"}, {"mongodb://u:P@a", "mongodb://u:p@a"}} {
		if normal(other[0]) == normal(other[1]) {
			t.Errorf("%s and %s are taken for one", other[0], other[1])
		}
	}
	for u, want := range map[string]string{"mongodb://a": "", "mongodb://a/": "", "mongodb://u:p%2F@a,b/my_db?x=/y": "my_db", "mongodb://a?x": ""} {
		if got := Database(u); got != want {
			t.Errorf("%s names %q", u, got)
		}
	}
}
