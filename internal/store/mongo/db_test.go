package mongo

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

var databases atomic.Int64

// testClusters gives a way to the test's server and the prefix of its databases.
func testClusters(t testing.TB, cfg Config) (*Clusters, string, string) {
	t.Helper()
	url := servertest.Mongo(t)
	if cfg.Home == "" {
		cfg.Home = url
	}
	c := NewClusters(cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return c, url, Database(url)
}

// opener opens an empty database of its own for each test.
func opener(t *testing.T) func(t *testing.T, schemas []store.Schema) store.DB {
	return openerOf(testClusters(t, Config{}))
}

func openerOf(c *Clusters, url, prefix string) func(t *testing.T, schemas []store.Schema) store.DB {
	return func(t *testing.T, schemas []store.Schema) store.DB {
		name := fmt.Sprintf("%s_%d", prefix, databases.Add(1))
		db, err := c.Open(t.Context(), url, name, schemas)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			if err := c.Drop(context.Background(), url, name); err != nil {
				t.Error(err)
			}
		})
		return db
	}
}

func TestContract(t *testing.T) { storetest.Run(t, opener(t)) }

func TestContractAtomic(t *testing.T) {
	open := opener(t)
	db := open(t, nil).(*DB)
	var can bool
	err := db.call(t.Context(), func(ctx context.Context, d *driver.Database) (err error) {
		can, err = db.cl.transactions(ctx, d)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !can {
		t.Skip("this server takes no transactions back, so the engine uses none: a refused commit may leave a prefix")
	}
	storetest.RunAtomic(t, open)
}
