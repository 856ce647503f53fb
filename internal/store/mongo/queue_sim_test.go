package mongo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

// plant is a queue in a database of its own, with two nodes on it that do one thing each in turn.
type plant struct {
	url, database string
	cs            *Clusters
	now           func() time.Time
	nodes         [2]*Queue
	turn          int
}

func openPlant(url string) storetest.OpenPlant {
	return func(now func() time.Time) (storetest.Plant, error) {
		p := &plant{url: url, database: freshDatabase(url), cs: NewClusters(Config{Home: url}), now: now}
		return p, p.open()
	}
}

func (p *plant) open() error {
	ctx := context.Background()
	for i := range p.nodes {
		db, err := p.cs.Open(ctx, p.url, p.database, nil)
		if err != nil {
			return err
		}
		if p.nodes[i], err = OpenQueue(ctx, db, p.now); err != nil {
			return err
		}
	}
	return nil
}

// Queue is the next node. What a second brings to it by itself, it has: no time passes here.
func (p *plant) Queue() store.Queue {
	for _, q := range p.nodes {
		if err := q.count(context.Background()); err != nil {
			panic(err)
		}
	}
	p.turn++
	q := p.nodes[p.turn%len(p.nodes)]
	q.stir()
	q.rests.drop()
	return q
}

// Wrote says yes: every write waits for the disk.
func (p *plant) Wrote() bool { return true }

func (p *plant) Restart() error {
	for _, q := range p.nodes {
		if err := errors.Join(q.count(context.Background()), q.db.Close()); err != nil {
			return err
		}
	}
	return p.open()
}

func (p *plant) PowerCut(*rand.Rand) error { return p.Restart() }

// Sound tells of what a job keeps that only a running one may have.
func (p *plant) Sound() error {
	running := bson.A{}
	for _, member := range []string{"owner", "leaseUntil", "_claim", "_trial", "_ending"} {
		running = append(running, bson.D{is(member, there)})
	}
	var n int64
	err := p.nodes[0].on(context.Background(), jobs, func(ctx context.Context, c *driver.Collection) (err error) {
		n, err = c.CountDocuments(ctx, bson.D{is("state", bson.D{is("$ne", string(store.Running))}), is("$or", running)})
		return err
	})
	if err == nil && n > 0 {
		err = fmt.Errorf("%d jobs that do not run keep what only a running one may have", n)
	}
	return err
}

func (p *plant) Close() error {
	for _, q := range p.nodes {
		_ = q.count(context.Background())
		_ = q.db.Close()
	}
	return errors.Join(p.cs.Drop(context.Background(), p.url, p.database), p.cs.Close(context.Background()))
}

// TestQueueSimulation is the proof of what store.Queue promises, on two nodes.
func TestQueueSimulation(t *testing.T) {
	url := servertest.Mongo(t)
	lives, most := uint64(1000), 20*time.Second
	switch {
	case os.Getenv("ECOD_TEST_LONG") != "":
		lives, most = 1000, 0
	case os.Getenv("ECOD_TEST_ALL") != "":
		most = time.Minute
	}
	storetest.Simulation{Open: openPlant(url), Remote: true}.Run(t, lives, most)
}

// A simulation that finds nothing wrong with a queue that hands out jobs twice proves nothing.
func TestQueueSimulationFinds(t *testing.T) {
	if os.Getenv("ECOD_TEST_LONG") == "" {
		t.Skip("long: set ECOD_TEST_LONG")
	}
	open := openPlant(servertest.Mongo(t))
	storetest.Simulation{Open: open, Remote: true, Queue: func(q store.Queue) store.Queue { return forgetful{q.(*Queue)} }}.Mutant(t, 100)
}

// forgetful does not know of other nodes' pauses.
type forgetful struct{ *Queue }

func (q forgetful) Claim(ctx context.Context, r store.ClaimRequest) ([]store.Job, error) {
	q.rests.mu.Lock()
	q.rests.now, q.rests.dropped = &restsNow{at: time.Now()}, false
	q.rests.mu.Unlock()
	return q.Queue.Claim(ctx, r)
}
