package realtime_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

var transports = []string{sockettest.Websocket, sockettest.Polling, sockettest.Upgrade}

func TestAuth(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	for _, tr := range transports {
		c := h.dial("ACME", func(o *sockettest.Options) { o.Transport = tr })
		h.tell("ACME", 1)
		c.hear()
		c.Drop()
	}
	h.dial("ACME", func(o *sockettest.Options) { o.Auth = proof{"aCMe", h.keys["ACME"]} })

	for name, a := range map[string]any{
		"no auth":           nil,
		"nothing in it":     map[string]any{},
		"wrong key":         proof{"ACME", h.keys["ACME"] + "x"},
		"another's key":     proof{"ACME", h.keys["BETA"]},
		"no key":            proof{ClientCode: "ACME"},
		"no code":           proof{APIKey: h.keys["ACME"]},
		"unknown client":    proof{"GHOST", h.keys["ACME"]},
		"numbers":           proof{7, 8},
		"a list as key":     proof{"ACME", []string{h.keys["ACME"]}},
		"a token, no key":   map[string]any{"token": "x"},
		"very long":         proof{strings.Repeat("A", 10_000), strings.Repeat("b", 10_000)},
		"code with a space": proof{"ACME ", h.keys["ACME"]},
	} {
		t.Run(name, func(t *testing.T) {
			h.refused(sockettest.Options{Auth: a}, "unauthenticated")
			h.refused(sockettest.Options{Auth: a, Transport: sockettest.Polling}, "unauthenticated")
		})
	}
	_, err := h.tenants.SetStatus(h.ctx, "BETA", tenant.Suspended)
	h.must(err)
	h.refused(sockettest.Options{Auth: h.auth("BETA")}, "client.suspended")
	h.refused(sockettest.Options{Auth: proof{"BETA", "wrong"}}, "unauthenticated")
	for _, secret := range []string{h.keys["ACME"], h.keys["BETA"]} {
		if strings.Contains(h.log.String(), secret) {
			t.Error("a key is in the log")
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Each socket hears its own client's news, all of them, once, in order.
func TestHearsItsOwn(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.tell("ACME", 3) // before anybody listens
	h.hub.Poke("GHOST")
	ears := []*ear{h.dial("ACME"), h.dial("BETA"), h.dial("ACME", func(o *sockettest.Options) { o.Transport = sockettest.Polling })}
	if n := h.hub.Sockets(); n != 3 {
		t.Errorf("%d sockets", n)
	}
	const each, commits = 10, 15
	var wg sync.WaitGroup
	for _, code := range []string{"ACME", "ACME", "BETA"} {
		wg.Go(func() {
			for range commits {
				h.tell(code, each)
			}
		})
	}
	wg.Wait()
	ears[0].hears(4, 3+2*each*commits)
	ears[1].hears(1, each*commits)
	ears[2].hears(4, 3+2*each*commits)
	for i, next := range []int64{4 + 2*each*commits, 1 + each*commits} {
		ears[i].silent(next)
	}

	// What is heard is what is stored.
	tn, release := h.use("BETA")
	defer release()
	items, err := news.Items.Find(h.ctx, tn.DB, store.Query{Order: "seq", Desc: true, Limit: 1})
	must(t, err)
	m := ears[1].since(items[0].Seq)
	if len(m.Items) != 0 {
		t.Errorf("missed %+v", m)
	}
}

// News nobody poked for is found all the same.
func TestSafetyLook(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	c := h.dial("ACME")
	h.write("ACME", 2, "")
	c.hears(1, 2)
}

// A socket hears everything that was committed after it was let in, also what its room heard before it came into it.
func TestBetweenAdmissionAndRoom(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	first := h.dial("ACME")
	h.tell("ACME", 5)
	first.hears(1, 5)
	var fired atomic.Bool
	hook := func(q store.Query, _ []store.Record) {
		if newest(q) && !fired.Swap(true) { // the second has read its place, and is not in the room yet
			h.tell("ACME", 3)
			first.hears(6, 8)
		}
	}
	h.db("ACME").after.Store(&hook)
	second := h.dial("ACME")
	h.tell("ACME", 1)
	second.hears(6, 9)
	second.silent(10)
	first.hears(9, 10)
}

// What a new socket missed is not overtaken by what its room hears meanwhile.
func TestCatchUpIsNotOvertaken(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	first := h.dial("ACME")
	var admitted, told, behind atomic.Bool
	hook := func(q store.Query, _ []store.Record) {
		switch {
		case newest(q) && !admitted.Swap(true):
			h.tell("ACME", 3)
			first.hears(1, 3)
			told.Store(true)
		case told.Load() && q.After != nil && q.After.Value == int64(0) && !behind.Swap(true): // the second catches up
			h.tell("ACME", 1)
			ctx, cancel := context.WithTimeout(h.ctx, 100*time.Millisecond) // the room may have to wait for us: then this is for nothing
			defer cancel()
			_, _ = first.Next(ctx)
		}
	}
	h.db("ACME").after.Store(&hook)
	second := h.dial("ACME")
	second.hears(1, 4)
	if !behind.Load() {
		t.Error("it did not have to catch up")
	}
}

// Sockets come and go while news are made without a pause: each hears an unbroken row from its admission on.
func TestUnbrokenRow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		room bool // somebody else is in the room all the time
	}{{"into a room", true}, {"first in the room", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHall(t)
			if c.room {
				other := h.dial("ACME")
				defer other.Drop()
			}
			var admitted atomic.Int64
			hook := func(q store.Query, recs []store.Record) {
				if newest(q) {
					admitted.Store(0)
					if len(recs) > 0 {
						admitted.Store(recs[0].Seq)
					}
				}
			}
			h.db("ACME").after.Store(&hook)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						h.tell("ACME", 1)
					}
				}
			})
			defer wg.Wait()
			defer close(stop)
			for range 100 {
				s := h.dial("ACME")
				from := admitted.Load()
				s.row(from+1, from+2)
				s.Drop()
			}
		})
	}
}

// The last to leave ends the telling; who comes later hears what comes later.
func TestComeAndGo(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	one, two := h.dial("ACME"), h.dial("ACME")
	must(t, one.Close())
	h.tell("ACME", 1)
	two.hears(1, 1)
	must(t, two.Close())
	eventually(t, "no socket", func() bool { return h.hub.Sockets() == 0 })
	h.tell("ACME", 4)
	three := h.dial("ACME")
	three.silent(6)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: still waiting after %v", what, patience)
		}
	}
}

func TestSuspendedClientsSocketsEnd(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	all := []*ear{h.dial("ACME"), h.dial("ACME", func(o *sockettest.Options) { o.Transport = sockettest.Upgrade })}
	beta := h.dial("BETA")
	_, err := h.tenants.SetStatus(h.ctx, "ACME", tenant.Suspended)
	h.must(err)
	for _, e := range all {
		e.ends()
	}
	beta.silent(1)
	h.refused(sockettest.Options{Auth: h.auth("ACME")}, "client.suspended")
	_, err = h.tenants.SetStatus(h.ctx, "ACME", tenant.Active)
	h.must(err)
	h.dial("ACME").silent(1)
	h.hub.Drop("GHOST")
}

// Suspended, erased or deleted by hand after it was let in and before it came into its room.
func TestDroppedOnTheThreshold(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(h *hall) error{
		"suspended": func(h *hall) error {
			_, err := h.tenants.SetStatus(h.ctx, "ACME", tenant.Suspended)
			return err
		},
		"erasing": func(h *hall) error { return h.tenants.BeginErase(h.ctx, "ACME") },
		"deleted": func(h *hall) error {
			if err := h.services.Commit(h.ctx, store.Write{Action: store.Delete, Kind: tenant.Accounts.Schema.Kind, ID: "ACME"}); err != nil {
				return err
			}
			return h.tenants.Load(h.ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHall(t)
			var fired atomic.Bool
			hook := func(q store.Query, _ []store.Record) {
				if newest(q) && !fired.Swap(true) {
					if err := act(h); err != nil {
						t.Error(err)
					}
				}
			}
			h.db("ACME").after.Store(&hook)
			h.dial("ACME").ends()
			eventually(t, "no socket", func() bool { return h.hub.Sockets() == 0 })
		})
	}
}

// A client deleted by hand while its dashboards are open: they are closed.
func TestDeletedByHand(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	e := h.dial("ACME")
	h.must(h.services.Commit(h.ctx, store.Write{Action: store.Delete, Kind: tenant.Accounts.Schema.Kind, ID: "ACME"}))
	h.must(h.tenants.Load(h.ctx))
	e.ends()
	h.refused(sockettest.Options{Auth: h.auth("ACME")}, "unauthenticated")
}

func TestOrigin(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	_, err := h.tenants.Change(h.ctx, "ACME", func(a *tenant.Account) error { a.AllowedOrigins = []string{"https://dash.example"}; return nil })
	h.must(err)
	for _, tr := range transports {
		for _, c := range []struct {
			code, origin, want string // "" in, "403", or a connect_error's code
		}{
			{"ACME", "", ""},
			{"ACME", h.url, ""},
			{"BETA", h.url, ""},
			{"ACME", "https://dash.example", ""},
			{"BETA", "https://dash.example", "origin.refused"},
			{"ACME", "https://evil.example", "403"},
			{"ACME", "https://dash.example.evil.example", "403"},
			{"ACME", "https://evil.example/?" + h.url, "403"},
			{"ACME", "null", "403"},
			{"ACME", "file://", "403"},
		} {
			opt := sockettest.Options{Auth: h.auth(c.code), Transport: tr, Header: http.Header{}}
			if c.origin != "" {
				opt.Header.Set("Origin", c.origin)
			}
			switch c.want {
			case "":
				h.dial(c.code, func(o *sockettest.Options) { *o = opt })
			case "403":
				s, err := sockettest.Dial(h.ctx, h.url, opt)
				if err == nil {
					s.Drop()
				}
				var refusal *sockettest.HTTPError
				if !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden {
					t.Errorf("%s: %s of %s: %v", tr, c.origin, c.code, err)
				}
			default:
				h.refused(opt, c.want)
			}
		}
	}
}

// A client whose database cannot be reached is told so; when it can be, all goes on where it was.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	e := h.dial("ACME")
	h.tell("ACME", 2)
	e.hears(1, 2)
	away := func(context.Context, store.Query) error { return store.ErrUnavailable }
	h.db("ACME").before.Store(&away)
	h.tell("ACME", 3)
	h.refused(sockettest.Options{Auth: h.auth("ACME")}, "client.unavailable")
	if m := e.since(2); m.Error != "unavailable" || !m.More || m.Reset || *m.Seq != 2 || len(m.Items) != 0 {
		t.Errorf("answered %+v", m)
	}
	h.dial("BETA").silent(1) // a neighbour is not concerned
	h.db("ACME").before.Store(nil)
	h.hub.Poke("ACME")
	e.hears(3, 5)
	h.dial("ACME").silent(6)
	if !strings.Contains(h.log.String(), "client=ACME") || strings.Contains(h.log.String(), "client=BETA") {
		t.Error("the log names the wrong clients")
	}
}

// A socket that cannot be told what it missed is closed, to come again.
func TestCannotCatchUp(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	first := h.dial("ACME")
	var fired atomic.Bool
	away := func(context.Context, store.Query) error { return store.ErrUnavailable }
	hook := func(q store.Query, _ []store.Record) {
		if newest(q) && !fired.Swap(true) {
			h.tell("ACME", 1)
			first.hears(1, 1)
			h.db("ACME").before.Store(&away)
		}
	}
	h.db("ACME").after.Store(&hook)
	h.dial("ACME").ends()
	h.db("ACME").before.Store(nil)
	first.silent(2)
}

// A slow database delays its own client's sockets only.
func TestDatabaseSlow(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	acme, beta := h.dial("ACME"), h.dial("BETA")
	gate, entered := make(chan struct{}), make(chan struct{}, 100)
	slow := func(ctx context.Context, _ store.Query) error {
		entered <- struct{}{}
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.db("ACME").before.Store(&slow)
	h.tell("ACME", 2)
	<-entered
	waiting := make(chan *ear)
	go func() { waiting <- h.dial("ACME") }()
	<-entered
	beta.silent(1)
	h.dial("BETA").silent(2)
	close(gate)
	acme.hears(1, 2)
	h.tell("ACME", 1)
	(<-waiting).row(3, 3)
}

func TestClose(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	var ears []*ear
	for _, tr := range transports {
		for _, code := range []string{"ACME", "BETA"} {
			ears = append(ears, h.dial(code, func(o *sockettest.Options) { o.Transport = tr }))
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				h.tell("ACME", 5)
			}
		}
	})
	for _, e := range ears {
		if e.code == "ACME" {
			e.hear()
		}
	}
	h.shut()
	for _, e := range ears {
		e.ends()
	}
	close(stop)
	wg.Wait()
	if c, err := sockettest.Dial(h.ctx, h.url, sockettest.Options{Auth: h.auth("ACME")}); err == nil {
		c.Drop()
		t.Error("let in after Close")
	}
	if err := h.hub.Close(h.ctx); err != nil {
		t.Errorf("again: %v", err)
	}
}

// A database that hangs does not keep a process from stopping.
func TestCloseWithHangingDatabase(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	e := h.dial("ACME")
	entered := make(chan struct{}, 100)
	hang := func(ctx context.Context, _ store.Query) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	h.db("ACME").before.Store(&hang)
	h.tell("ACME", 1)
	<-entered
	dialled := make(chan struct{})
	go func() {
		defer close(dialled)
		if c, err := sockettest.Dial(h.ctx, h.url, sockettest.Options{Auth: h.auth("ACME")}); err == nil {
			c.Drop()
		}
	}()
	<-entered
	h.shut()
	e.ends()
	<-dialled
}
