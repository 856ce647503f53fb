package chat

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func of(number string, n int) store.Delivery {
	return store.Delivery{ID: fmt.Sprintf("dlv_%s_%04d", number, n), Body: []byte(`{"x":{"phone_number_id":"` + number + `"}}`), ReceivedAt: time.Now()}
}

func (l *lanes) mustOffer(t *testing.T, want room, ds ...store.Delivery) {
	t.Helper()
	for _, d := range ds {
		if got := l.offer(d, time.Now()); got != want {
			t.Fatalf("offer of %s: %v, want %v", d.ID, got, want)
		}
	}
}

func (l *lanes) next(t *testing.T) *lane {
	t.Helper()
	select {
	case la := <-l.ready:
		return la
	default:
		t.Fatal("no lane is ready")
		return nil
	}
}

func (l *lanes) none(t *testing.T) {
	t.Helper()
	select {
	case la := <-l.ready:
		t.Fatalf("lane %q is ready", la.key)
	default:
	}
}

func TestLanes(t *testing.T) {
	l := newLanes(handsMost)
	l.mustOffer(t, taken, of("1", 1), of("1", 2), of("2", 1), of("1", 3))
	a := l.next(t)
	got := l.take(a, 2)
	if len(got) != 2 || got[0].ID != of("1", 1).ID || got[1].ID != of("1", 2).ID {
		t.Fatalf("took %v", got)
	}
	b := l.next(t)
	if b.key != "2" || len(l.take(b, 2)) != 1 {
		t.Fatalf("the second lane is %q", b.key)
	}
	l.mustOffer(t, taken, of("1", 4), of("1", 1)) // the second is in hand
	l.none(t)                                     // both lanes are somebody's
	l.leave(b)
	l.none(t) // nothing waits in it
	l.leave(a)
	if got := l.take(l.next(t), 10); len(got) != 2 || got[0].ID != of("1", 3).ID || got[1].ID != of("1", 4).ID {
		t.Fatalf("took %v", got)
	}
	if l.len() != 5 {
		t.Fatalf("%d in hand", l.len())
	}
	l.drop([]store.Settlement{{ID: of("2", 1).ID}, {ID: of("1", 1).ID}, {ID: of("1", 1).ID}})
	if l.len() != 3 {
		t.Fatalf("%d in hand", l.len())
	}
}

func TestLanesPutOff(t *testing.T) {
	l := newLanes(handsMost)
	d := of("1", 1)
	l.putOff(d.ID, time.Now().Add(time.Minute))
	l.mustOffer(t, taken, d) // as good as taken: the sweep has nothing to wait for
	l.none(t)
	if l.offer(d, time.Now().Add(2*time.Minute)) != taken || l.len() != 1 {
		t.Fatal("it is not taken after its time")
	}
	e := of("2", 1)
	l.putOff(e.ID, time.Now().Add(time.Minute))
	l.putOff(e.ID, time.Time{})
	l.mustOffer(t, taken, e)
	if l.len() != 2 {
		t.Fatal("a lifted delay holds")
	}
}

func TestLanesFull(t *testing.T) {
	const laneMost = handsMost / laneShare
	l := newLanes(handsMost)
	for n := range laneMost {
		l.mustOffer(t, taken, of("1", n))
	}
	l.mustOffer(t, laneFull, of("1", laneMost))
	l.mustOffer(t, taken, of("2", 0)) // another client has room
	for n := range handsMost - laneMost - 1 {
		l.mustOffer(t, taken, of(fmt.Sprint(3+n%8), n))
	}
	l.mustOffer(t, full, of("99", 0))
	l.drop([]store.Settlement{{ID: of("1", 0).ID}})
	l.mustOffer(t, taken, of("99", 0))

	l = newLanes(handsMost)
	large := func(n int) store.Delivery {
		d := of(fmt.Sprint(n), n)
		d.Body = append(d.Body, make([]byte, handBytes/2)...)
		return d
	}
	l.mustOffer(t, taken, large(1))
	l.mustOffer(t, full, large(2))
	l.drop([]store.Settlement{{ID: large(1).ID}})
	l.mustOffer(t, taken, large(2))
}

func TestLaneOf(t *testing.T) {
	for body, want := range map[string]string{
		`{"metadata":{"display_phone_number":"1","phone_number_id":"123"}}, "phone_number_id":"9"`: "123",
		`{}`:                       "",
		`"phone_number_id":"12`:    "",
		`"phone_number_id":12`:     "",
		`"phone_number_id":"`:      "",
		`"phone_number_id":""`:     "",
		`"phone_number_id": "123"`: "", // Meta writes no space; it would be sorted as well, but alone
	} {
		if got := laneOf([]byte(body)); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// In a peak a worker gives way, but not for ever; and to no stream that sorting keeps up with.
func TestPeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := NewIntake(IntakeConfig{Now: time.Now})
		took := func(receivedAt time.Time) (bool, time.Duration) {
			began := time.Now()
			return in.peak(t.Context(), receivedAt), time.Since(began)
		}
		var crowded atomic.Bool
		crowded.Store(true)
		stop := make(chan struct{})
		go func() { // acknowledgements under way, or not
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					if crowded.Load() {
						in.crowdedAt.Store(time.Now().UnixNano())
					}
				}
			}
		}()
		defer close(stop)
		time.Sleep(2 * time.Millisecond)
		if peak, d := took(time.Now()); peak || d > 0 {
			t.Errorf("with nothing in hand: %v after %s", peak, d)
		}
		for n := range peakHand {
			in.lanes.mustOffer(t, taken, of(fmt.Sprint(n%10), n))
		}
		if peak, d := took(time.Now()); !peak || d < giveWay || d > 2*giveWay {
			t.Errorf("in a peak: %v after %s", peak, d)
		}
		if peak, d := took(time.Now().Add(-2 * peakFor)); peak || d > 0 {
			t.Errorf("what was received long ago: %v after %s", peak, d)
		}
		time.AfterFunc(giveWay/5, func() { crowded.Store(false) })
		if peak, d := took(time.Now()); peak || d >= giveWay {
			t.Errorf("when the peak ends: %v after %s", peak, d)
		}
	})
}
