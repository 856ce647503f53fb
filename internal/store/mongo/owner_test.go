package mongo

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

// Of many who open a database that is nobody's one gets it; another finds nothing made in it. One from before is the first's.
func TestOpenOwned(t *testing.T) {
	c, url, prefix := testClusters(t, Config{})
	schemas := []store.Schema{{Kind: "things"}}
	name := prefix + "_raced"
	var mu sync.Mutex
	won := map[string]int{}
	var wg sync.WaitGroup
	for i := range 8 {
		who := []string{"A", "B"}[i%2]
		wg.Go(func() {
			db, err := c.OpenOwned(t.Context(), url, name, schemas, Owner{"i", who})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won[who]++
				_ = db.Close()
			} else if f := (*ForeignError)(nil); !errors.As(err, &f) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 || won["A"]+won["B"] != 4 {
		t.Errorf("%v", won)
	}

	before := prefix + "_before"
	db, err := c.Open(t.Context(), url, before, schemas)
	if err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	if is, err := c.Owned(t.Context(), url, before, Owner{"i", "A"}); is || err != nil {
		t.Errorf("%v %v", is, err)
	}
	for _, try := range []struct {
		by Owner
		ok bool
	}{{Owner{"i", "A"}, true}, {Owner{"j", "A"}, false}, {Owner{"i", "B"}, false}, {Owner{}, false}, {Owner{"i", "A"}, true}} {
		db, err := c.OpenOwned(t.Context(), url, before, append(schemas, store.Schema{Kind: "more" + try.by.Client + try.by.Installation}), try.by)
		if f := (*ForeignError)(nil); (err == nil) != try.ok || (err != nil && !errors.As(err, &f)) {
			t.Errorf("%v: %v", try, err)
		}
		if err == nil {
			_ = db.Close()
		}
	}
}

// dropper is a connection on which somebody else drops the database between the owner's mark and the look at it.
type dropper struct {
	net.Conn
	marked bool
	drop   *sync.Once
	by     func()
}

func (d *dropper) Write(b []byte) (int, error) {
	switch {
	case bytes.Contains(b, []byte("update\x00")) && bytes.Contains(b, []byte(ownColl)):
		d.marked = true
	case d.marked && bytes.Contains(b, []byte("find\x00")):
		d.drop.Do(d.by)
	}
	return d.Conn.Write(b)
}

// A database that somebody drops while it is opened is made anew, with its owner's mark.
func TestDroppedWhileOpened(t *testing.T) {
	others, url, prefix := testClusters(t, Config{})
	name, dropped := prefix+"_dropped", 0
	var once sync.Once
	c, _, _ := testClusters(t, Config{Home: url, Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &dropper{Conn: c, drop: &once, by: func() {
			dropped++
			if err := others.Drop(context.WithoutCancel(t.Context()), url, name); err != nil {
				t.Error(err)
			}
		}}, err
	}})
	db, err := c.OpenOwned(t.Context(), url, name, []store.Schema{{Kind: "things"}}, Owner{"i", "A"})
	if err != nil || dropped != 1 {
		t.Fatalf("dropped %d times: %v", dropped, err)
	}
	if is, err := others.Owned(t.Context(), url, name, Owner{"i", "A"}); !is || err != nil {
		t.Errorf("it has no owner's mark: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
