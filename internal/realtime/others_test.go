package realtime_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/bus/bustest"
	"github.com/ecodrix/ecod/internal/realtime"
	"github.com/ecodrix/ecod/internal/socketio/sockettest"
)

// beside is a second hub for the same clients: what another node has.
func (h *hall) beside(b bus.Bus) *hall {
	h.Helper()
	two := &hall{T: h.T, ctx: h.ctx, keys: h.keys, log: h.log, dbs: h.dbs, tenants: h.tenants, porter: h.porter, services: h.services}
	two.made.Store(1_000_000 + h.made.Load()) // what it makes is its own
	two.hub = realtime.New(realtime.Config{
		Tenants: h.tenants, Porter: h.porter, Log: slog.New(slog.NewTextHandler(h.log, nil)), Conversation: knows, Bus: b,
	})
	srv := httptest.NewServer(two.hub.Handler())
	two.url = srv.URL
	h.Cleanup(func() {
		two.shut()
		srv.Close()
	})
	return two
}

// redisNode joins a bus by Redis.
func redisNode(t *testing.T, url string) bus.Bus {
	t.Helper()
	b, err := bus.OpenRedis(url, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { _ = b.Close() })
	whole(t, b)
	return b
}

func whole(t *testing.T, nodes ...bus.Bus) {
	t.Helper()
	for _, b := range nodes {
		until(t, "the bus is whole", func() bool { return b.Healthy() == nil })
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// places gives what joins one bus of a kind.
func places(t *testing.T, kind string) (join func() bus.Bus) {
	if kind == "memory" {
		m := bus.NewMemory(slog.New(slog.DiscardHandler))
		return func() bus.Bus {
			b := m.Node()
			t.Cleanup(func() { _ = b.Close() })
			return b
		}
	}
	s := bustest.Start(t)
	return func() bus.Bus { return redisNode(t, s.URL()) }
}

// twoHubs are two nodes' for the same clients, on one bus.
func twoHubs(t *testing.T, join func() bus.Bus) (one, two *hall) {
	one = newHallOf(t, realtime.Config{Bus: join()})
	return one, one.beside(join())
}

// hearsSoon asserts that a client's news, told at one node, is heard from another at once: not when that looks by itself.
func hearsSoon(t *testing.T, at *hall, e *ear, from, n int64) {
	t.Helper()
	for seq := from; seq < from+n; seq++ {
		begun := time.Now()
		at.tell(e.code, 1)
		e.hears(seq, seq)
		if took := time.Since(begun); took > 700*time.Millisecond {
			t.Errorf("number %d is heard after %v", seq, took)
		}
	}
}

// News are heard at once wherever a socket is, in order, and by nobody else.
func TestNewsReachOtherNodes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"memory", "redis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			one, two := twoHubs(t, places(t, kind))
			e1, e2, foreign := one.dial("ACME"), two.dial("ACME"), two.dial("BETA")
			hearsSoon(t, one, e2, 1, 5)
			e1.hears(1, 5)
			hearsSoon(t, two, e1, 6, 5)
			e2.hears(6, 10)
			for range 100 {
				one.tell("ACME", 2)
				two.tell("ACME", 1)
			}
			e1.hears(11, 310)
			e2.hears(11, 310)
			if m := e2.since(300); len(m.Items) != 10 || *m.Seq != 310 {
				t.Errorf("since: %+v", m)
			}
			one.tell("BETA", 1)
			foreign.hears(1, 1)
		})
	}
}

// While Redis is away, killed or standing still, each node finds news by looking; nothing is lost. When it is back, all is
// as before.
func TestNewsWithoutRedis(t *testing.T) {
	t.Parallel()
	for how, cut := range map[string]struct{ cut, mend func(*bustest.Server) }{
		"killed": {(*bustest.Server).Kill, (*bustest.Server).Start},
		"paused": {(*bustest.Server).Pause, (*bustest.Server).Resume},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := bustest.Start(t)
			a, b := redisNode(t, s.URL()), redisNode(t, s.URL())
			one := newHallOf(t, realtime.Config{Bus: a})
			two := one.beside(b)
			e := two.dial("ACME")
			hearsSoon(t, one, e, 1, 3)
			cut.cut(s)
			for seq := int64(4); seq <= 8; seq++ {
				begun := time.Now()
				one.tell("ACME", 1)
				e.hears(seq, seq)
				if took := time.Since(begun); took > 5*time.Second {
					t.Errorf("number %d is heard after %v", seq, took)
				}
			}
			if m := e.since(3); len(m.Items) != 5 {
				t.Errorf("since: %+v", m)
			}
			cut.mend(s)
			whole(t, a, b)
			one.tell("ACME", 1)
			e.hears(9, 9)
			hearsSoon(t, one, e, 10, 5)
		})
	}
}

// Those who look at a conversation know of each other on whatever nodes they are, and of who types.
func TestConversationOverNodes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"memory", "redis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			join := places(t, kind)
			one, two := twoHubs(t, join)
			ana, _ := one.user("ACME", "Ana")
			bob, _ := two.user("ACME", "Bob")
			eve, _ := two.user("BETA", "Eve")
			about := map[string]any{"conversationId": "cnv_of_ACME"}
			if r := ana.ask("subscribe", about); !r.OK {
				t.Fatalf("%+v", r)
			}
			if r := bob.ask("subscribe", about); !r.OK {
				t.Fatalf("%+v", r)
			}
			ana.presence("Ana Bob")
			bob.presence("Ana Bob")
			key := two.dial("ACME")
			if r := key.ask("subscribe", about); !r.OK || names(r.Here) != "Ana Bob ?" {
				t.Errorf("%+v", r)
			}
			ana.presence("Ana Bob ?")
			for _, on := range []bool{true, false} {
				bob.ask("typing", map[string]any{"conversationId": "cnv_of_ACME", "typing": on})
				ev, err := ana.Wait(one.ctx, "typing")
				one.must(err)
				var got struct {
					By     person
					Typing bool
				}
				if one.must(ev.Decode(0, &got)); got.Typing != on || *got.By.Name != "Bob" {
					t.Errorf("%+v", got)
				}
			}
			key.ask("unsubscribe", about)
			ana.presence("Ana Bob")

			three := one.beside(join()) // a node that comes later learns who is there
			late, _ := three.user("ACME", "Lea")
			until(t, "a new node knows who is there", func() bool {
				r := late.ask("subscribe", about)
				late.ask("unsubscribe", about)
				return names(r.Here) == "Ana Bob Lea"
			})
			three.shut()
			bob.Drop()
			ana.presence("Ana")
			one.tell("BETA", 1)
			eve.hears(1, 1) // and heard nothing of all that
		})
	}
}

// Of a node that dies nobody is there any more after a while.
func TestPresenceOfADeadNode(t *testing.T) {
	if testing.Short() || (os.Getenv("ECOD_TEST_ALL") == "" && os.Getenv("ECOD_TEST_LONG") == "") {
		t.Skip("takes half a minute; ECOD_TEST_LONG=1 runs it")
	}
	t.Parallel()
	m := bus.NewMemory(slog.New(slog.DiscardHandler))
	a, b := m.Node(), m.Node()
	defer a.Close()
	one := newHallOf(t, realtime.Config{Bus: a})
	two := one.beside(b)
	ana, _ := one.user("ACME", "Ana")
	bob, _ := two.user("ACME", "Bob")
	about := map[string]any{"conversationId": "cnv_of_ACME"}
	ana.ask("subscribe", about)
	bob.ask("subscribe", about)
	ana.presence("Ana Bob")
	_ = b.Close() // node two says nothing any more
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	for {
		ev, err := ana.Wait(ctx, "presence")
		must(t, err)
		var p struct{ Here []person }
		must(t, ev.Decode(0, &p))
		if names(p.Here) == "Ana" {
			return
		}
	}
}

// Who may publish on the bus may speak to a client's sockets, and makes nothing fall over; rooms are not theirs to change.
func TestForeignersOnTheBus(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	h := newHallOf(t, realtime.Config{Bus: redisNode(t, s.URL())})
	e, other := h.dial("ACME"), h.dial("BETA")
	client := redis.NewClient(&redis.Options{Addr: s.Addr()})
	defer client.Close()
	say := func(channel, msg string) { must(t, client.Publish(h.ctx, channel, msg).Err()) }
	for _, junk := range []string{"", "{", strings.Repeat("n", 12) + "{", strings.Repeat("n", 12) + "\n\nNOBODY\n", strings.Repeat("n", 12) + `{"node":"x","rooms":{"":[],"ACME/c":5,"y":[{"id":5}],"z/z":[{}]}}`} {
		say("ecod:0:poke", junk)
		say("ecod:0:presence", junk)
		say("socket.io#/#", junk)
		say("socket.io-request#/#", junk)
	}
	join, _ := json.Marshal(map[string]any{"type": 2, "opts": map[string]any{"rooms": []string{"BETA"}, "except": []string{}}, "rooms": []string{"ACME", "ACME#1"}})
	say("socket.io-request#/#", string(join))
	say("socket.io#/#ACME#", "\x93\xa7emitter\x83\xa4type\x02\xa4data\x92\xa5hello\x05\xa3nsp\xa1/\x83\xa5rooms\x91\xa4ACME\xa5flags\x80\xa6except\x90")
	ev, err := e.Wait(h.ctx, "hello")
	must(t, err)
	var n int
	if must(t, ev.Decode(0, &n)); n != 5 {
		t.Errorf("heard %d", n)
	}
	h.tell("ACME", 1)
	e.hears(1, 1)
	other.silent(1)
	if c, err := sockettest.Dial(h.ctx, h.url, sockettest.Options{Auth: h.auth("ACME")}); err != nil {
		t.Error(err)
	} else {
		c.Drop()
	}
}
