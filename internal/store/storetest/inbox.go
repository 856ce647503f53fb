package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// OpenInbox opens a new, empty inbox whose only clock is now, and closes it when the test ends.
type OpenInbox func(t *testing.T, now func() time.Time) store.Inbox

// RunInbox holds an inbox to the contract of store.Inbox.
func RunInbox(t *testing.T, open OpenInbox) {
	for _, c := range []struct {
		name string
		test func(*inboxTest)
	}{
		{"Receive", (*inboxTest).receiveAll},
		{"Pending", (*inboxTest).pending},
		{"Settle", (*inboxTest).settle},
		{"Clients", (*inboxTest).clients},
		{"List", (*inboxTest).list},
		{"Replay", (*inboxTest).replay},
		{"Drop", (*inboxTest).drop},
		{"Concurrent", (*inboxTest).concurrent},
		{"Closed", (*inboxTest).closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := &inboxTest{T: t, clock: &clock{now: time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC)}, ctx: t.Context()}
			in.Inbox = open(t, in.clock.Now)
			c.test(in)
		})
	}
}

type inboxTest struct {
	*testing.T
	store.Inbox
	clock *clock
	ctx   context.Context
}

// receive stores a delivery a second after the one before.
func (in *inboxTest) receive(client, body string) store.Delivery {
	in.Helper()
	in.clock.add(time.Second)
	d := store.Delivery{Client: client, Body: []byte(body)}
	if err := in.Receive(in.ctx, &d); err != nil {
		in.Fatal(err)
	}
	return d
}

func (in *inboxTest) settled(s ...store.Settlement) {
	in.Helper()
	if err := in.Settle(in.ctx, s...); err != nil {
		in.Fatal(err)
	}
}

func (in *inboxTest) read(id string) store.Delivery {
	in.Helper()
	d, err := in.Delivery(in.ctx, id)
	if err != nil {
		in.Fatal(err)
	}
	return d
}

// waiting compares the bodies of what is pending.
func (in *inboxTest) waiting(before time.Time, after string, limit int, want ...string) {
	in.Helper()
	ds, err := in.Pending(in.ctx, before, after, limit)
	if err != nil {
		in.Fatal(err)
	}
	got := []string{}
	for _, d := range ds {
		got = append(got, string(d.Body))
		if d.State != store.Received {
			in.Errorf("pending %s is %s", d.ID, d.State)
		}
	}
	if !slices.Equal(got, want) {
		in.Errorf("pending: %q, want %q", got, want)
	}
}

// listed compares the ids of a list.
func (in *inboxTest) listed(f store.DeliveryFilter, want ...store.Delivery) {
	in.Helper()
	ds, err := in.Deliveries(in.ctx, f)
	if err != nil {
		in.Fatal(err)
	}
	got, ids := []string{}, []string{}
	for _, d := range ds {
		got = append(got, d.ID)
		if len(d.Body) > 0 {
			in.Errorf("%s is listed with its body", d.ID)
		}
	}
	for _, d := range want {
		ids = append(ids, d.ID)
	}
	if !slices.Equal(got, ids) {
		in.Errorf("%+v lists %q, want %q", f, got, ids)
	}
}

func (in *inboxTest) receiveAll() {
	bodies := [][]byte{
		[]byte(`{"object":"whatsapp_business_account"}`), []byte(" not JSON\n"), {}, nil, {0, 0xff, 0xfe, 0, '\'', 0},
		bytes.Repeat([]byte{7, 0, 200}, (4<<20)/3),
	}
	seen := map[string]bool{}
	last := ""
	for i, b := range bodies {
		d := store.Delivery{Client: []string{"", "ACME"}[i%2], Body: b}
		if err := in.Receive(in.ctx, &d); err != nil {
			in.Fatal(err)
		}
		if !strings.HasPrefix(d.ID, "dlv_") || seen[d.ID] || d.ID <= last || !d.ReceivedAt.Equal(in.clock.Now()) || d.State != store.Received {
			in.Errorf("received: id %s after %s at %v, %s", d.ID, last, d.ReceivedAt, d.State)
		}
		seen[d.ID], last = true, d.ID
		got := in.read(d.ID)
		if !bytes.Equal(got.Body, b) || got.Client != d.Client || got.State != store.Received || !got.ReceivedAt.Equal(d.ReceivedAt) ||
			got.Attempt != 0 || !got.SettledAt.IsZero() || got.Error != "" || len(got.Clients) != 0 {
			in.Errorf("%d: %d bytes came back as %d: %s %+v %q", i, len(b), len(got.Body), got.State, got.ReceivedAt, got.Client)
		}
	}
	big := store.Delivery{Body: make([]byte, store.MaxDoc+1)}
	if err := in.Receive(in.ctx, &big); !errors.Is(err, store.ErrTooLarge) || big.ID != "" {
		in.Errorf("too large: %v, id %q", err, big.ID)
	}
	for _, id := range []string{"", "dlv_", "dlv_none", "job_" + last[4:], last[:len(last)-1] + "x", "dlv_00000000000070008000000000000000", "dlv_ffffffffffff70008000000000000000"} {
		if _, err := in.Delivery(in.ctx, id); !errors.Is(err, store.ErrNotFound) {
			in.Errorf("delivery %q: %v", id, err)
		}
	}
}

func (in *inboxTest) pending() {
	now := in.clock.Now()
	far := now.Add(365 * 24 * time.Hour)
	in.waiting(far, "", 10)
	a := in.receive("", "a")
	b := in.receive("", "b")
	in.clock.add(24 * time.Hour) // over midnight twice
	c := in.receive("ACME", "c")
	in.clock.add(24 * time.Hour)
	d := in.receive("", "d")
	in.waiting(far, "", 10, "a", "b", "c", "d")
	in.waiting(far, "", 3, "a", "b", "c")
	in.waiting(far, b.ID, 1, "c")
	in.waiting(far, b.ID, 10, "c", "d")
	in.waiting(far, d.ID, 10)
	in.waiting(c.ReceivedAt, "", 10, "a", "b")
	in.waiting(c.ReceivedAt.Add(time.Nanosecond), "", 10, "a", "b", "c")
	in.waiting(a.ReceivedAt, "", 10)
	in.settled(store.Settlement{ID: b.ID, State: store.Settled}, store.Settlement{ID: d.ID, State: store.Received, Error: "try again"},
		store.Settlement{ID: c.ID, State: store.Failed, Error: "no JSON"})
	in.waiting(far, "", 10, "a", "d")
}

func (in *inboxTest) settle() {
	a, b, c, d := in.receive("", "a"), in.receive("", "b"), in.receive("", "c"), in.receive("", "d")
	in.clock.add(24 * time.Hour)
	e := in.receive("", "e")
	at := in.clock.Now()
	in.settled(
		store.Settlement{ID: a.ID, State: store.Settled, Clients: []string{"A", "B"}},
		store.Settlement{ID: b.ID, State: store.Unresolved, Error: "nobody's number", Clients: []string{"A"}},
		store.Settlement{ID: c.ID, State: store.Failed, Error: "no JSON"},
		store.Settlement{ID: d.ID, State: store.Received, Error: "busy"},
		store.Settlement{ID: e.ID, State: store.Settled},
		store.Settlement{ID: "dlv_none", State: store.Settled},
		store.Settlement{ID: "dlv_00000000000070008000000000000000", State: store.Settled},
	)
	for _, want := range []store.Delivery{
		{ID: a.ID, Body: []byte("a"), State: store.Settled, Clients: []string{"A", "B"}, Attempt: 1, ReceivedAt: a.ReceivedAt, SettledAt: at},
		{ID: b.ID, Body: []byte("b"), State: store.Unresolved, Error: "nobody's number", Clients: []string{"A"}, Attempt: 1, ReceivedAt: b.ReceivedAt, SettledAt: at},
		{ID: c.ID, Body: []byte("c"), State: store.Failed, Error: "no JSON", Attempt: 1, ReceivedAt: c.ReceivedAt, SettledAt: at},
		{ID: d.ID, Body: []byte("d"), State: store.Received, Error: "busy", Attempt: 1, ReceivedAt: d.ReceivedAt},
		{ID: e.ID, Body: []byte("e"), State: store.Settled, Attempt: 1, ReceivedAt: e.ReceivedAt, SettledAt: at},
	} {
		if got := in.read(want.ID); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			in.Errorf("settled: %+v, want %+v", got, want)
		}
	}
	in.settled(store.Settlement{ID: d.ID, State: store.Settled, Clients: []string{"D"}})
	if got := in.read(d.ID); got.State != store.Settled || got.Error != "" || got.Attempt != 2 {
		in.Errorf("settled at the second attempt: %+v", got)
	}
	if err := in.Settle(in.ctx, store.Settlement{ID: a.ID}); err == nil || errors.Is(err, store.ErrUnavailable) {
		in.Errorf("settled without a state: %v", err)
	}
}

func (in *inboxTest) clients() {
	own, shared := in.receive("ACME", "own"), in.receive("", "shared")
	in.listed(store.DeliveryFilter{Client: "ACME"}, own)
	in.settled(store.Settlement{ID: own.ID, State: store.Settled, Clients: []string{"ACME"}},
		store.Settlement{ID: shared.ID, State: store.Unresolved, Clients: []string{"ACME", "BETA"}})
	in.listed(store.DeliveryFilter{Client: "ACME"}, shared, own)
	in.listed(store.DeliveryFilter{Client: "BETA"}, shared)
	in.listed(store.DeliveryFilter{Client: "BETA", States: []store.DeliveryState{store.Unresolved}}, shared)
	in.listed(store.DeliveryFilter{Client: "BETA", States: []store.DeliveryState{store.Settled}})
	in.listed(store.DeliveryFilter{Client: "ACM"})
	// Sorted again, to another result.
	in.settled(store.Settlement{ID: own.ID, State: store.Failed}, store.Settlement{ID: shared.ID, State: store.Settled, Clients: []string{"GAMMA", "BETA"}})
	in.listed(store.DeliveryFilter{Client: "ACME"}, own)
	in.listed(store.DeliveryFilter{Client: "BETA"}, shared)
	in.listed(store.DeliveryFilter{Client: "GAMMA"}, shared)
}

func (in *inboxTest) list() {
	states := []store.DeliveryState{store.Received, store.Settled, store.Unresolved, store.Failed}
	var all []store.Delivery // newest first
	for i := range 40 {
		if i%15 == 14 {
			in.clock.add(24 * time.Hour)
		}
		d := in.receive([]string{"", "A", ""}[i%3], "x")
		d.State = states[i/2%4]
		if i%5 == 0 {
			d.Clients = []string{"A", "B"}
		}
		in.settled(store.Settlement{ID: d.ID, State: d.State, Clients: d.Clients})
		all = slices.Insert(all, 0, d)
	}
	for _, f := range []store.DeliveryFilter{
		{}, {Client: "A"}, {Client: "B"}, {Client: "C"},
		{States: states[:1]}, {States: states[1:2]}, {States: states[2:]}, {States: states},
		{Client: "A", States: states[1:3]}, {Client: "A", States: states[3:]}, {Client: "B", States: states[:2]},
	} {
		var want []store.Delivery
		for _, d := range all {
			if (f.Client == "" || d.Client == f.Client || slices.Contains(d.Clients, f.Client)) && (f.States == nil || slices.Contains(f.States, d.State)) {
				want = append(want, d)
			}
		}
		in.listed(f, want...)
		f.Limit = 3
		for len(want) > 0 {
			page := want[:min(3, len(want))]
			in.listed(f, page...)
			f.After = page[len(page)-1].ID
			want = want[len(page):]
		}
		in.listed(f)
	}
	in.listed(store.DeliveryFilter{After: "nonsense"})
}

func (in *inboxTest) replay() {
	a, b := in.receive("", "a"), in.receive("", "b")
	in.clock.add(24 * time.Hour)
	c, d := in.receive("", "c"), in.receive("", "d")
	in.settled(store.Settlement{ID: a.ID, State: store.Settled, Clients: []string{"A"}}, store.Settlement{ID: b.ID, State: store.Unresolved, Error: "x"},
		store.Settlement{ID: c.ID, State: store.Failed, Error: "x"})
	did, err := in.Replay(in.ctx, c.ID, "dlv_none", b.ID, d.ID, a.ID, b.ID, "dlv_00000000000070008000000000000000")
	if err != nil || !slices.Equal(did, []string{c.ID, b.ID, a.ID}) {
		in.Errorf("replayed %v, %v", did, err)
	}
	in.waiting(in.clock.Now().Add(time.Hour), "", 10, "a", "b", "c", "d")
	if got := in.read(b.ID); got.State != store.Received || got.Error != "" || got.Attempt != 0 || !got.SettledAt.IsZero() {
		in.Errorf("replayed: %+v", got)
	}
	in.settled(store.Settlement{ID: b.ID, State: store.Settled})
	in.waiting(in.clock.Now().Add(time.Hour), "", 10, "a", "c", "d")
}

func (in *inboxTest) drop() {
	const day = 24 * time.Hour
	settled := in.receive("", "settled")
	in.receive("", "settled too")
	in.clock.add(day)
	mixed := in.receive("", "mixed")
	failed := in.receive("", "failed")
	in.clock.add(day)
	waiting := in.receive("", "waiting")
	in.clock.add(day)
	today := in.receive("", "today")
	ds, err := in.Deliveries(in.ctx, store.DeliveryFilter{})
	if err != nil {
		in.Fatal(err)
	}
	for _, d := range ds {
		if d.ID != failed.ID && d.ID != waiting.ID {
			in.settled(store.Settlement{ID: d.ID, State: store.Settled})
		}
	}
	in.settled(store.Settlement{ID: failed.ID, State: store.Failed})

	left := func(what string, want ...store.Delivery) {
		in.Helper()
		if err := in.Drop(in.ctx, 7*day, 30*day); err != nil {
			in.Fatal(err)
		}
		got := []string{}
		ds, err := in.Deliveries(in.ctx, store.DeliveryFilter{})
		if err != nil {
			in.Fatal(err)
		}
		for _, d := range ds {
			got = append(got, d.ID)
		}
		for _, d := range want {
			if !slices.Contains(got, d.ID) {
				in.Errorf("%s: %s is gone", what, d.ID)
			}
			if _, err := in.Delivery(in.ctx, d.ID); err != nil {
				in.Errorf("%s: %v", what, err)
			}
		}
		for _, d := range []store.Delivery{settled, mixed, failed, waiting, today} {
			if !slices.ContainsFunc(want, func(w store.Delivery) bool { return w.ID == d.ID }) {
				if _, err := in.Delivery(in.ctx, d.ID); !errors.Is(err, store.ErrNotFound) {
					in.Errorf("%s: %s is still there: %v", what, d.ID, err)
				}
			}
		}
	}
	left("at once", settled, mixed, failed, waiting, today)
	in.clock.add(8 * day)
	left("after a week", mixed, failed, waiting)
	in.settled(store.Settlement{ID: settled.ID, State: store.Failed}) // of a day that is gone
	if did, err := in.Replay(in.ctx, settled.ID); err != nil || len(did) != 0 {
		in.Errorf("replayed what is gone: %v, %v", did, err)
	}
	in.settled(store.Settlement{ID: failed.ID, State: store.Settled})
	left("when the last is settled", waiting)
	in.clock.add(22 * day)
	left("after a month")
	in.receive("", "new")
	in.waiting(in.clock.Now().Add(time.Hour), "", 10, "new")
	if err := in.Drop(in.ctx, 0, 0); err != nil {
		in.Fatal(err)
	}
	in.waiting(in.clock.Now().Add(time.Hour), "", 10, "new") // today is never dropped
}

func (in *inboxTest) concurrent() {
	var mu sync.Mutex
	all := map[string]string{}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for k := range 20 {
				d := store.Delivery{Body: fmt.Append(nil, i, " ", k)}
				if err := in.Receive(in.ctx, &d); err != nil {
					in.Error(err)
					return
				}
				mu.Lock()
				all[d.ID] = string(d.Body)
				mu.Unlock()
				if k%2 == 0 {
					if err := in.Settle(in.ctx, store.Settlement{ID: d.ID, State: store.Settled, Clients: []string{"A"}}); err != nil {
						in.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if len(all) != 640 {
		in.Errorf("%d ids for 640 deliveries", len(all))
	}
	for id, body := range all {
		if d := in.read(id); string(d.Body) != body {
			in.Errorf("%s holds %q, want %q", id, d.Body, body)
		}
	}
	ds, err := in.Pending(in.ctx, in.clock.Now().Add(time.Hour), "", 1000)
	if err != nil || len(ds) != 320 {
		in.Errorf("%d pending, want 320: %v", len(ds), err)
	}
}

func (in *inboxTest) closed() {
	d := in.receive("", "a")
	if err := in.Close(); err != nil {
		in.Fatal(err)
	}
	if err := in.Receive(in.ctx, &store.Delivery{}); !errors.Is(err, store.ErrClosed) {
		in.Errorf("received after close: %v", err)
	}
	if _, err := in.Delivery(in.ctx, d.ID); !errors.Is(err, store.ErrClosed) {
		in.Errorf("read after close: %v", err)
	}
	if err := in.Close(); err != nil {
		in.Errorf("closed twice: %v", err)
	}
}
