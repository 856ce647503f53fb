package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/gorilla/websocket"
)

var transports = []string{sockettest.Websocket, sockettest.Polling, sockettest.Upgrade}

// lab sets up the server that most tests use: everything a client can ask of it.
func lab(srv *Server) {
	for _, name := range []string{"/", "/custom"} {
		ns := srv.Of(name)
		ns.OnConnect(func(s *Socket) {
			s.On("message", func(_ context.Context, args []json.RawMessage, _ func(...any)) {
				s.Emit("message-back", anys(args)...)
			})
			s.On("message-with-ack", func(_ context.Context, args []json.RawMessage, ack func(...any)) {
				ack(anys(args)...)
				ack("twice") // to no effect
			})
			s.On("join", func(_ context.Context, args []json.RawMessage, ack func(...any)) {
				s.Join(str(args))
				ack()
			})
			s.On("leave", func(_ context.Context, args []json.RawMessage, ack func(...any)) {
				s.Leave(str(args))
				ack()
			})
			s.On("panic", func(context.Context, []json.RawMessage, func(...any)) { panic("as asked") })
			s.On("kick", func(_ context.Context, args []json.RawMessage, _ func(...any)) {
				s.Emit("last words")
				s.Disconnect(str(args) == "session")
			})
		})
	}
}

func anys(args []json.RawMessage) []any {
	list := make([]any, len(args))
	for i, a := range args {
		list[i] = a
	}
	return list
}

func str(args []json.RawMessage) (s string) {
	if len(args) > 0 {
		_ = json.Unmarshal(args[0], &s)
	}
	return s
}

func dial(t testing.TB, base string, opt sockettest.Options) *sockettest.Client {
	t.Helper()
	c, err := sockettest.Dial(testContext(t), base, opt)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(c.Drop)
	return c
}

func wait(t testing.TB, c *sockettest.Client, event string) string {
	t.Helper()
	ev, err := c.Wait(testContext(t), event)
	if err != nil {
		t.Fatalf("waiting for %q: %v", event, err)
	}
	return mustJSON(ev.Args)
}

func ack(t testing.TB, c *sockettest.Client, event string, args ...any) string {
	t.Helper()
	answer, err := c.EmitAck(testContext(t), event, args...)
	if err != nil {
		t.Fatalf("%q: %v", event, err)
	}
	return mustJSON(answer)
}

// The wire, byte for byte, as the Socket.IO protocol document (version 5) has it.
func TestWire(t *testing.T) {
	_, base := start(t, Config{}, lab)
	t.Run("connect", func(t *testing.T) {
		for request, prefix := range map[string]string{
			`40`: `40{"sid":"`, `40{"token":"123"}`: `40{"sid":"`, `40/custom,`: `40/custom,{"sid":"`, `40/custom`: `40/custom,{"sid":"`,
			`40/custom,{"token":"abc"}`: `40/custom,{"sid":"`,
		} {
			ws := openRaw(t, base)
			ws.send(request)
			if got := ws.read(); !strings.HasPrefix(got, prefix) || !strings.HasSuffix(got, `"}`) {
				t.Errorf("%s: %s", request, got)
			}
		}
	})
	t.Run("unknown namespace", func(t *testing.T) {
		ws := openRaw(t, base)
		ws.send("40/random")
		ws.want(`44/random,{"message":"Invalid namespace"}`)
		ws.send("40")
		ws.read()
	})
	t.Run("events and acks", func(t *testing.T) {
		ws := openRaw(t, base)
		ws.send("40")
		ws.read()
		ws.send(`42["message",1,"2",{"3":[true]}]`, `42456["message-with-ack",1,"2",{"3":[false]}]`, `421["message-with-ack"]`, `422["nobody listens"]`)
		ws.want(`42["message-back",1,"2",{"3":[true]}]`, `43456[1,"2",{"3":[false]}]`, `431[]`)
	})
	t.Run("namespaces are apart", func(t *testing.T) {
		ws := openRaw(t, base)
		ws.send("40")
		ws.read()
		ws.send("40/custom")
		ws.read()
		ws.send(`42/custom,["message",1]`, `42/custom,7["message-with-ack"]`)
		ws.want(`42/custom,["message-back",1]`, `43/custom,7[]`)
		ws.send(`41/custom`, `42/custom,["message",2]`, `42["message",3]`) // the second crossed, for all we know
		ws.want(`42["message-back",3]`)
		ws.send(`40/custom,`)
		ws.read()
		ws.send(`42/custom,["message",4]`)
		ws.want(`42/custom,["message-back",4]`)
	})
	t.Run("session outlives its last namespace", func(t *testing.T) {
		ws := openRaw(t, base)
		ws.send("40")
		ws.read()
		ws.send("41", "40")
		if got := ws.read(); !strings.HasPrefix(got, `40{"sid":`) {
			t.Errorf("got %s", got)
		}
	})
}

func TestMalformedPacketsCloseTheSession(t *testing.T) {
	srv, base := start(t, Config{MaxDepth: 16}, lab)
	survivor := dial(t, base, sockettest.Options{})
	bad := []string{
		`4abc`, `4`, `42{}`, `42[]`, `42[1]`, `42abc["message-with-ack",1]`, `40`, `44{}`, `43[]`, `47["x"]`, `42/none,["x"]`, `41/none,`,
		`42["message"`, `42["message",` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `]`, `42["disconnect"]`,
		`452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, `461-7[]`, "42[\"\xff\"]",
		`40/` + strings.Repeat("n", 200) + `,`, `42123456789012345678901234567890["message"]`,
	}
	for _, packet := range bad {
		ws := openRaw(t, base)
		ws.send("40")
		ws.read()
		ws.send(packet)
		if code := ws.wantClosed(); code != websocket.CloseProtocolError {
			t.Errorf("%.60q: close code %d", packet, code)
		}
		c := dialPoller(t, base)
		if resp := c.post(packet); resp.status != 400 {
			t.Errorf("%.60q: POST: %d", packet, resp.status)
		}
		c.wantGet(400, "")
	}
	ws := openRaw(t, base)
	ws.WriteMessage(websocket.BinaryMessage, []byte{1, 2})
	ws.wantClosed()
	ws = openRaw(t, base)
	ws.send(`42["message"]`) // before CONNECT
	ws.wantClosed()
	if got, want := srv.Stats().Malformed, uint64(2*len(bad)+2); got != want {
		t.Errorf("counted %d malformed, want %d", got, want)
	}
	if got := ack(t, survivor, "message-with-ack", 1); got != "[1]" {
		t.Errorf("survivor: %s", got)
	}
}

// dialPoller is a bare polling session that is connected to "/".
func dialPoller(t testing.TB, base string) *poller {
	p := openPoller(t, base)
	p.post("40")
	if resp := p.get(); !strings.HasPrefix(resp.body, "40{") {
		t.Fatalf("connect: %d %s", resp.status, resp.body)
	}
	return p
}

func TestEventsAndAcksBothWays(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr, func(t *testing.T) {
			sockets := make(chan *Socket, 1)
			_, base := start(t, Config{}, lab, func(srv *Server) {
				srv.Of("/custom").OnConnect(func(s *Socket) { sockets <- s })
			})
			c := dial(t, base, sockettest.Options{Transport: tr, Namespace: "/custom"})
			s := <-sockets
			if s.ID() != c.ID() || s.Namespace().Name() != "/custom" || s.Namespace().Socket(c.ID()) != s {
				t.Errorf("socket %s of %s, client %s", s.ID(), s.Namespace().Name(), c.ID())
			}
			if want := map[bool]string{true: "polling", false: "websocket"}[tr == sockettest.Polling]; s.Transport() != want {
				t.Errorf("transport %s", s.Transport())
			}
			if got := ack(t, c, "message-with-ack", "a", 1, nil, map[string]int{"x": 1}); got != `["a",1,null,{"x":1}]` {
				t.Errorf("ack: %s", got)
			}
			c.Emit("message", "€ <b>\x1e")
			if got := wait(t, c, "message-back"); got != mustJSON([]string{"€ <b>\x1e"}) {
				t.Errorf("event: %s", got)
			}
			go func() {
				ev, err := c.Wait(context.Background(), "question")
				if err == nil {
					ev.Ack(42, string(ev.Args[0]))
				}
			}()
			answer, err := s.EmitAck(testContext(t), "question", true)
			if err != nil || mustJSON(answer) != `[42,"true"]` {
				t.Errorf("server's ack: %s %v", mustJSON(answer), err)
			}
			if err := s.Emit("bad", make(chan int)); err == nil {
				t.Error("a channel was emitted")
			}
			if err := s.Emit("disconnect"); err == nil {
				t.Error("a reserved event was emitted")
			}
		})
	}
}

func TestAckTimeoutAndDisconnect(t *testing.T) {
	sockets := make(chan *Socket, 1)
	_, base := start(t, Config{}, func(srv *Server) { srv.Of("/").OnConnect(func(s *Socket) { sockets <- s }) })
	c := dial(t, base, sockettest.Options{})
	s := <-sockets

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.EmitAck(ctx, "q"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("EmitAck: %v", err)
	}
	results := make(chan error, 10)
	note := func(_ []json.RawMessage, err error) { results <- err }
	if err := s.EmitFunc(10*time.Millisecond, note, "q"); err != nil {
		t.Fatal(err)
	}
	if err := <-results; !errors.Is(err, ErrAckTimeout) {
		t.Errorf("EmitFunc: %v", err)
	}
	// The client's answers come too late: they find nobody.
	for range 2 {
		ev, err := c.Wait(testContext(t), "q")
		if err != nil {
			t.Fatal(err)
		}
		ev.Ack("late")
	}
	s.EmitFunc(time.Minute, note, "q")
	ev, _ := c.Wait(testContext(t), "q")
	ev.Ack()
	ev.Ack() // a second time
	if err := <-results; err != nil {
		t.Errorf("EmitFunc: %v", err)
	}

	s.EmitFunc(time.Minute, note, "q")
	waiting := make(chan error)
	go func() {
		_, err := s.EmitAck(context.Background(), "q")
		waiting <- err
	}()
	c.Wait(testContext(t), "q")
	c.Wait(testContext(t), "q")
	c.Drop()
	if err := <-waiting; !errors.Is(err, ErrDisconnected) {
		t.Errorf("EmitAck at the disconnect: %v", err)
	}
	if err := <-results; !errors.Is(err, ErrDisconnected) {
		t.Errorf("EmitFunc at the disconnect: %v", err)
	}
	if err := s.EmitFunc(time.Minute, note, "q"); !errors.Is(err, ErrDisconnected) {
		t.Errorf("EmitFunc after the disconnect: %v", err)
	}
	if err := s.Emit("q"); !errors.Is(err, ErrDisconnected) {
		t.Errorf("Emit after the disconnect: %v", err)
	}
	if len(results) != 0 {
		t.Errorf("called back twice: %v", <-results)
	}
}

func TestMiddleware(t *testing.T) {
	var order []string
	srv, base := start(t, Config{}, func(srv *Server) {
		ns := srv.Of("/")
		ns.Use(func(_ context.Context, hs *Handshake) (any, error) {
			order = append(order, "first")
			if hs.Header.Get("X-Test") != "yes" || hs.Query.Get("q") != "1" || hs.RemoteAddr == "" || hs.Addr != "127.0.0.1" || hs.Host == "" {
				return nil, &ConnectError{Message: "bad handshake"}
			}
			return "first", nil
		})
		ns.Use(func(_ context.Context, hs *Handshake) (any, error) {
			order = append(order, "second")
			var auth struct{ Token string }
			if hs.Auth != nil {
				if err := json.Unmarshal(hs.Auth, &auth); err != nil {
					return nil, err
				}
			}
			switch auth.Token {
			case "good":
				return "user of " + auth.Token, nil
			case "broken":
				return nil, errors.New("the database said: secret")
			case "unencodable":
				return nil, &ConnectError{Message: "unauthorized", Data: make(chan int)}
			}
			return nil, fmt.Errorf("wrapped: %w", &ConnectError{Message: "unauthorized", Data: map[string]string{"code": "unauthenticated"}})
		})
		ns.Use(func(context.Context, *Handshake) (any, error) { return nil, nil })
		ns.OnConnect(func(s *Socket) {
			if hs := s.Handshake(); hs.Auth != nil || hs.Header.Get("X-Test") != "yes" {
				t.Errorf("handshake kept: %+v", hs)
			}
			s.Emit("data", s.Data())
		})
	})
	opt := sockettest.Options{Auth: map[string]string{"token": "good"}, Header: map[string][]string{"X-Test": {"yes"}}, Query: map[string][]string{"q": {"1"}}}
	for _, tr := range transports {
		opt.Transport = tr
		order = nil
		c := dial(t, base, opt)
		if got := wait(t, c, "data"); got != `["user of good"]` {
			t.Errorf("%s: data %s", tr, got)
		}
		if strings.Join(order, " ") != "first second" {
			t.Errorf("order %v", order)
		}
		c.Close()
	}
	for auth, want := range map[any]*sockettest.ConnectError{
		nil:                                   {Message: "unauthorized", Data: json.RawMessage(`{"code":"unauthenticated"}`)},
		[1]string{"x"}:                        nil,
		struct{ Token string }{"broken"}:      {Message: "Internal error"},
		struct{ Token string }{"unencodable"}: {Message: "unauthorized"},
	} {
		opt.Auth = auth
		c, err := sockettest.Dial(testContext(t), base, opt)
		if err == nil {
			c.Drop()
			t.Errorf("%v: admitted", auth)
			continue
		}
		if want == nil { // an array as auth is malformed
			if errors.As(err, new(*sockettest.ConnectError)) {
				t.Errorf("%v: %v", auth, err)
			}
			continue
		}
		if ce := new(sockettest.ConnectError); !errors.As(err, &ce) || ce.Message != want.Message || string(ce.Data) != string(want.Data) {
			t.Errorf("%v: %v", auth, err)
		}
	}
	if n := srv.Stats().ConnectErrors; n != 3 {
		t.Errorf("%d connect errors, want 3", n)
	}
	eventually(t, "an empty namespace", func() bool { return srv.Of("/").Len() == 0 })
}

func TestRooms(t *testing.T) {
	srv, base := start(t, Config{}, lab)
	ns := srv.Of("/")
	var cs []*sockettest.Client
	for i := range 4 {
		c := dial(t, base, sockettest.Options{Transport: transports[i%len(transports)]})
		cs = append(cs, c)
	}
	other := dial(t, base, sockettest.Options{Namespace: "/custom"})
	ack(t, other, "join", "a")
	for i, rooms := range [][]string{{"a"}, {"a", "b"}, {"b"}, {}} {
		for _, room := range rooms {
			ack(t, cs[i], "join", room)
		}
	}
	n := 0
	// heard sends by f and returns who heard of it, in order of cs.
	heard := func(f func(n int) error) string {
		t.Helper()
		n++
		if err := f(n); err != nil {
			t.Fatal(err)
		}
		if err := ns.Emit("end", n); err != nil {
			t.Fatal(err)
		}
		got := ""
		for i, c := range cs {
			for {
				ev, err := c.Next(testContext(t))
				if err != nil {
					t.Fatal(err)
				}
				if ev.Name == "end" {
					break
				}
				got += fmt.Sprint(i)
				if mustJSON(ev.Args) != fmt.Sprintf("[%d]", n) {
					t.Errorf("event %s", mustJSON(ev.Args))
				}
			}
		}
		return got
	}
	socket := func(i int) *Socket { return ns.Socket(cs[i].ID()) }
	for _, tc := range []struct {
		name string
		to   Target
		want string
	}{
		{"all", ns.All(), "0123"},
		{"one room", ns.To("a"), "01"},
		{"two rooms, each once", ns.To("a", "b"), "012"},
		{"the same room twice", ns.To("a", "a"), "01"},
		{"a room and an id within it", ns.To("a", cs[0].ID(), cs[3].ID(), cs[3].ID()), "013"},
		{"id and room", ns.To(cs[0].ID(), "a"), "01"},
		{"except a room", ns.To("a").Except("b"), "0"},
		{"except an id", ns.All().Except(cs[1].ID(), "nobody"), "023"},
		{"no such room", ns.To("c"), ""},
		{"no rooms at all", ns.To(), ""},
		{"volatile", ns.To("b").Volatile(), "12"},
		{"others of the room", socket(0).To("a", "b"), "12"},
		{"others", socket(3).Others(), "012"},
	} {
		if got := heard(func(n int) error { return tc.to.Emit("e", n) }); got != tc.want {
			t.Errorf("%s: heard by %q, want %q", tc.name, got, tc.want)
		}
		if got := len(tc.to.Sockets()); got != len(tc.want) {
			t.Errorf("%s: %d sockets, want %d", tc.name, got, len(tc.want))
		}
		if got := heard(func(n int) error { return tc.to.Raw(fmt.Appendf(nil, `["e", %d]`, n)) }); got != tc.want {
			t.Errorf("%s, raw: heard by %q, want %q", tc.name, got, tc.want)
		}
	}
	if got := len(socket(1).Rooms()); got != 2 {
		t.Errorf("rooms of 1: %v", socket(1).Rooms())
	}
	ack(t, cs[1], "leave", "a")
	ack(t, cs[1], "leave", "never joined")
	if got := heard(func(n int) error { return ns.To("a").Emit("e", n) }); got != "0" {
		t.Errorf("after leaving: heard by %q", got)
	}
	if err := ns.To("a").Raw([]byte(`{"not":"an event"}`)); err == nil {
		t.Error("a raw object was sent")
	}
	gone := socket(0)
	cs[0].Drop()
	eventually(t, "the room to be empty", func() bool { return len(ns.To("a").Sockets()) == 0 })
	gone.Join("a", "z")
	for _, c := range cs[1:] {
		c.Close()
	}
	eventually(t, "all rooms to be gone", func() bool {
		ns.mu.Lock()
		defer ns.mu.Unlock()
		return len(ns.rooms) == 0 && len(ns.sockets) == 0
	})
}

// A broadcast never reaches a client before the answer to its CONNECT, and each client
// hears what one goroutine sends in order and without a gap, through an upgrade too.
func TestBroadcastsWhileClientsComeAndGo(t *testing.T) {
	srv, base := start(t, Config{}, lab)
	ns := srv.Of("/")
	ns.OnConnect(func(s *Socket) { s.Join("r") })
	ctx, cancel := context.WithCancel(context.Background())
	var senders, clients sync.WaitGroup
	for _, send := range []func(int) error{
		func(n int) error { return ns.Emit("all", n) },
		func(n int) error { return ns.To("r").Emit("room", n) },
	} {
		senders.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := send(n); err != nil {
					t.Error(err)
				}
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	for i := range 8 {
		clients.Go(func() {
			for range 4 {
				c, err := sockettest.Dial(testContext(t), base, sockettest.Options{Transport: transports[i%3]})
				if err != nil {
					t.Error(err) // among others: an event before CONNECT was answered
					return
				}
				last := map[string]int{"all": -1, "room": -1}
				for range 300 {
					ev, err := c.Next(testContext(t))
					if err != nil {
						t.Error(err)
						break
					}
					var n int
					if err := ev.Decode(0, &n); err != nil {
						t.Error(err)
					}
					if l := last[ev.Name]; l >= 0 && n != l+1 {
						t.Errorf("client %d: %s %d after %d", i, ev.Name, n, l)
					}
					last[ev.Name] = n
				}
				if i%2 == 0 {
					c.Close()
				} else {
					c.Drop()
				}
			}
		})
	}
	clients.Wait()
	cancel()
	senders.Wait()
}
