package mongo

import (
	"errors"
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
