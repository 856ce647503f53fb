package chat

import (
	"testing"
	"time"
)

func TestRests(t *testing.T) {
	var r rests
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	if w := r.wait(now, "n"); w != 0 {
		t.Fatalf("nothing was limited, and it waits %s", w)
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
		if w := r.limited("n", now, 0); w != want {
			t.Fatalf("limited %d times: %s, want %s", i+1, w, want)
		}
	}
	if w := r.limited("n", now, 5*time.Minute); w != 5*time.Minute {
		t.Fatalf("Meta asked for five minutes: %s", w)
	}
	if w := r.wait(now.Add(time.Minute), "n", "other"); w < 4*time.Minute || w > 5*time.Minute+time.Millisecond {
		t.Fatalf("in the rest: %s", w)
	}
	now = now.Add(5 * time.Minute)
	if w := r.wait(now, "n"); w != 0 {
		t.Fatalf("the first after the rest waits %s", w)
	}
	for range 10 {
		if w := r.wait(now, "n"); w < probeLook || w > 2*probeLook {
			t.Fatalf("beside the one that finds out: %s", w)
		}
	}
	r.pass("n") // it could not
	if w := r.wait(now, "n"); w != 0 {
		t.Fatalf("the next one waits %s", w)
	}
	r.over("n")
	for range 3 {
		if w := r.wait(now, "n"); w != 0 {
			t.Fatalf("over, and it waits %s", w)
		}
	}
	if len(r.of) != 0 {
		t.Fatalf("%d are remembered", len(r.of))
	}
}
