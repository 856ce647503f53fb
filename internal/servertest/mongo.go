package servertest

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Mongo gives a URL whose path is a prefix of database names that nobody else has. The databases under it are dropped
// when the test ends.
func Mongo(t testing.TB) string {
	t.Helper()
	u := server(t, "ECOD_TEST_MONGODB_URL", "mongo-test-server")
	prefix := fresh()
	base := *u
	base.Path = "/"
	u.Path = "/" + prefix
	t.Cleanup(func() {
		// Not the test's context: it has ended.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c, err := mongo.Connect(options.Client().ApplyURI(base.String()))
		if err != nil {
			t.Errorf("dropping the test's databases: %v", err)
			return
		}
		defer func() { _ = c.Disconnect(ctx) }()
		names, err := c.ListDatabaseNames(ctx, bson.D{}, options.ListDatabases().SetNameOnly(true))
		if err != nil {
			t.Errorf("dropping the test's databases: %v", err)
			return
		}
		for _, name := range names {
			if name != prefix && !strings.HasPrefix(name, prefix+"_") {
				continue
			}
			if err := c.Database(name).Drop(ctx); err != nil {
				t.Errorf("dropping the test's database %s: %v", name, err)
			}
		}
	})
	return u.String()
}

// IsMongod tells whether the tests' server is MongoDB itself. The one that scripts/mongo-test-server starts is not: it
// has no transactions and no change streams, and sizes fit for a mongod would take it hours.
func IsMongod(t testing.TB) bool {
	t.Helper()
	u := server(t, "ECOD_TEST_MONGODB_URL", "mongo-test-server")
	c, err := mongo.Connect(options.Client().ApplyURI(u.String()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Disconnect(context.WithoutCancel(t.Context())) }()
	var info bson.M
	if err := c.Database("admin").RunCommand(t.Context(), bson.D{{Key: "buildInfo", Value: 1}}).Decode(&info); err != nil {
		t.Fatal(err)
	}
	_, other := info["ferretdb"]
	return !other
}
