// Package servertest finds the real servers that tests run against, gives each test a corner of its own on them, and
// stands between a program and a server where a test wants the network to fail.
//
// A server is named by the environment: ECOD_TEST_MONGODB_URL, ECOD_TEST_REDIS_URL, ECOD_TEST_S3_URL (with the usual
// AWS_* keys). scripts/mongo-test-server, redis-test-server and s3-test-server start them and print what to set. A test
// whose server is not named is skipped; under ECOD_TEST_ALL it fails, so that nothing promised is silently left out.
package servertest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"testing"
)

// server is the address that the environment gives under a name.
func server(t testing.TB, variable, script string) *url.URL {
	t.Helper()
	raw := os.Getenv(variable)
	if raw == "" {
		say := fmt.Sprintf("%s names no server: scripts/%s start prints one", variable, script)
		if os.Getenv("ECOD_TEST_ALL") != "" {
			t.Fatal(say)
		}
		t.Skip("SKIP: " + say)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		t.Fatalf("%s cannot be read as an address", variable)
	}
	ran(t, script)
	return u
}

// ran keeps the names of the tests that had a server in the file that ECOD_TEST_RAN names: who runs everything looks
// there whether the suites that were promised had theirs.
func ran(t testing.TB, script string) {
	name := os.Getenv("ECOD_TEST_RAN")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) // #nosec G304,G703 -- the file of who runs the tests
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintln(f, script, t.Name())
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func fresh() string {
	var b [5]byte
	_, _ = rand.Read(b[:])
	return "ecodtest" + hex.EncodeToString(b[:])
}
