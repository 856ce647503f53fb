package job

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// deaf is a queue of which nothing but listening is used.
type deaf struct{ store.Queue }

func (deaf) Listen(store.Listener) {}

// A process that stood still asks the time before it does what cannot be taken back: its timers may be late.
func TestLeasedGoesByTheTime(t *testing.T) {
	t.Parallel()
	r := NewRunner(Config{Queue: deaf{}})
	ctx := r.hold(context.Background(), &store.Job{ID: "job_1", Token: 1})
	if err := Leased(ctx); err != nil {
		t.Errorf("a job that was just claimed: %v", err)
	}
	stale := context.WithValue(context.Background(), leaseKey{}, lease{r, time.Now().Add(-trust - time.Second)})
	if err := Leased(stale); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("without a beat for longer than it is trusted: %v", err)
	}
	now := time.Now()
	r.beaten.Store(&now)
	if err := Leased(stale); err != nil {
		t.Errorf("after a beat: %v", err)
	}
	r.cancelAll(ErrLeaseLost)
	if err := Leased(ctx); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("cancelled: %v", err)
	}
	if err := Leased(context.Background()); err != nil {
		t.Errorf("no execution: %v", err)
	}
}
