package storetest

import (
	"context"
	"fmt"
	"sync"

	"github.com/ecodrix/ecod/internal/store"
)

// ErrCut is what a Cutter's commits fail with once it has cut.
var ErrCut = fmt.Errorf("storetest: cut: %w", store.ErrUnavailable)

// Cutter is a store.DB that stops writing at a chosen point, to show that a handler which is run again ends the
// same wherever it was cut:
//
//	for n := 0; ; n++ {
//		c := storetest.Cut(db, n)
//		handle(c)      // perhaps cut
//		if c.Writes() < n {
//			break  // it ended before the cut
//		}
//		c.Heal()
//		handle(c)      // again
//		// compare the state with that of an uncut run
//	}
//
// Until it heals, it commits every write by itself, so that any prefix of a Commit can stand, as the contract
// allows.
type Cutter struct {
	store.DB
	mu         sync.Mutex
	left       int
	writes     int
	healed     bool
	loseAnswer bool
}

// Cut lets the first after writes through and then fails every Commit with ErrCut, until Heal. Reads go through.
func Cut(db store.DB, after int) *Cutter { return &Cutter{DB: db, left: after} }

// LosingAnswer makes the Commit that uses up the last write fail too, although it stands: what a caller sees whose
// answer was lost.
func (c *Cutter) LosingAnswer() *Cutter {
	c.loseAnswer = true
	return c
}

// Heal ends the cut: commits go through whole.
func (c *Cutter) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.healed = true
}

// Writes is the number of writes that were let through so far.
func (c *Cutter) Writes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// Commit is store.DB's. Of concurrent commits, one goes on at a time.
func (c *Cutter) Commit(ctx context.Context, writes ...store.Write) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.healed {
		err := c.DB.Commit(ctx, writes...)
		if err == nil {
			c.writes += len(writes)
		}
		return err
	}
	if len(writes) == 0 {
		return c.DB.Commit(ctx)
	}
	for _, w := range writes {
		if c.left <= 0 {
			return ErrCut
		}
		if err := c.DB.Commit(ctx, w); err != nil {
			return err
		}
		c.left--
		c.writes++
	}
	if c.loseAnswer && c.left <= 0 {
		return ErrCut
	}
	return nil
}
