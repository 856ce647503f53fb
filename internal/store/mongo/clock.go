package mongo

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
)

const (
	clockAge  = 30 * time.Second // after which the server is asked again
	clockBack = 2 * time.Second  // what a server's clock may be behind of what we said before we say so
)

// serverClock says what the time is at the server: what it said last, and what has passed since by this machine's
// monotonic clock. No wall clock of ours is in it, so that all nodes agree, whatever theirs are set to.
type serverClock struct {
	db *DB

	mu     sync.Mutex
	said   time.Time // the server's time
	at     time.Time // ours, for the monotonic reading
	last   time.Time // what we said last
	asking bool
}

// ask asks the server now.
func (c *serverClock) ask(ctx context.Context) error {
	return c.db.call(ctx, c.askIn)
}

// askIn is ask within a call.
func (c *serverClock) askIn(ctx context.Context, d *driver.Database) error {
	before := time.Now()
	var hello struct {
		LocalTime time.Time `bson:"localTime"`
	}
	if err := d.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return err
	}
	after := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said, c.at = hello.LocalTime.UTC().Add(after.Sub(before)/2), after
	return nil
}

// now estimates the server's time. It asks beside the caller when the last answer is old, and goes on with that until it
// has another. ask must have succeeded once.
func (c *serverClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := time.Since(c.at)
	if passed > clockAge && !c.asking {
		c.asking = true
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), c.db.cl.c.cfg.Timeout)
			defer cancel()
			_ = c.ask(ctx) // an older answer serves on
			c.mu.Lock()
			defer c.mu.Unlock()
			c.asking = false
		}()
	}
	t := c.said.Add(passed)
	if t.Before(c.last) && c.last.Sub(t) < clockBack {
		return c.last
	}
	c.last = t
	return t
}
