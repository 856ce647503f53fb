package servertest

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMongoIsTheTestsOwn(t *testing.T) {
	var prefix string
	t.Run("one", func(t *testing.T) {
		u, err := url.Parse(Mongo(t))
		if err != nil {
			t.Fatal(err)
		}
		prefix = strings.TrimPrefix(u.Path, "/")
		c, err := mongo.Connect(options.Client().ApplyURI(u.String()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Disconnect(context.Background()) }()
		for _, name := range []string{prefix, prefix + "_services", prefix + "x_services"} {
			if _, err := c.Database(name).Collection("c").InsertOne(t.Context(), bson.D{{Key: "_id", Value: "1"}}); err != nil {
				t.Fatal(err)
			}
		}
	})
	if prefix == "" {
		t.Skip("SKIP: no server")
	}
	u, err := url.Parse(Mongo(t))
	if err != nil {
		t.Fatal(err)
	}
	if u.Path == "/"+prefix {
		t.Fatal("two tests were given one prefix")
	}
	c, err := mongo.Connect(options.Client().ApplyURI(u.String()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Disconnect(context.Background()) }()
	names, err := c.ListDatabaseNames(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			left = append(left, name)
		}
	}
	if len(left) != 1 || left[0] != prefix+"x_services" {
		t.Fatalf("left: %v", left)
	}
	if err := c.Database(left[0]).Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRedisIsTheTestsOwn(t *testing.T) {
	a, b := Redis(t), Redis(t)
	if a == b {
		t.Fatalf("both were given %s", a)
	}
	one, two := connect(t, a), connect(t, b)
	defer func() { _, _ = one.Close(), two.Close() }()
	if err := one.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := two.Exists(t.Context(), "k").Result(); err != nil || n != 0 {
		t.Fatalf("%d, %v", n, err)
	}
}
