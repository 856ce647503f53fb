package servertest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Redis gives a URL of an empty database of the tests' server, emptied again when the test ends. Publishing knows no
// databases there: who publishes under a name that other tests use hears of them.
func Redis(t testing.TB) string {
	t.Helper()
	u := server(t, "ECOD_TEST_REDIS_URL", "redis-test-server")
	base := *u
	base.Path = "/0"
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	first := connect(t, base.String())
	defer func() { _ = first.Close() }()
	// Tests of several processes take turns through a counter in database 0, so that those that run at once never meet.
	n, err := first.Incr(ctx, "ecodtest").Result()
	if err != nil {
		t.Fatal(err)
	}
	held, err := first.ConfigGet(ctx, "databases").Result()
	if err != nil {
		t.Fatal(err)
	}
	databases, err := strconv.ParseInt(held["databases"], 10, 64)
	if err != nil || databases < 2 {
		t.Fatalf("the Redis server has %q databases; the tests need at least 2", held["databases"])
	}
	u.Path = fmt.Sprintf("/%d", 1+n%(databases-1))
	own := u.String()
	empty := func() error {
		c := connect(t, own)
		defer func() { _ = c.Close() }()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return c.FlushDB(ctx).Err()
	}
	if err := empty(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A test may have ended the server on purpose, if it was its own.
		if err := empty(); err != nil && !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("emptying the test's Redis database: %v", err)
		}
	})
	return own
}

func connect(t testing.TB, raw string) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(raw)
	if err != nil {
		t.Fatalf("the Redis server's address: %v", err)
	}
	return redis.NewClient(o)
}
