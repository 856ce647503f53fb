package store

import (
	"strings"
	"testing"
	"time"
)

func TestDeliveryIDs(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	g := DeliveryIDs{Now: func() time.Time { return now }}
	last := ""
	for i := range 10_000 {
		if i == 9_000 {
			now = now.Add(-500 * time.Millisecond) // a small correction of the clock
		}
		id, ms := g.Next()
		if at, ok := DeliveryTime(id); !ok || at != ms || id <= last || len(id) != 36 || id[16] != '7' || !strings.ContainsAny(id[20:21], "89ab") {
			t.Fatalf("%s after %s; time %d, want %d", id, last, at, ms)
		}
		if first := FirstDeliveryID(ms); id < first || FirstDeliveryID(ms+1) < id {
			t.Fatalf("%s is not between %s and the next millisecond", id, first)
		}
		last = id
	}
	now = now.Add(-24 * time.Hour)
	if _, ms := g.Next(); ms != now.UnixMilli() {
		t.Errorf("a clock set back by a day is not believed: %d", ms)
	}
}
