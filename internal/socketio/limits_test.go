package socketio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/gorilla/websocket"
)

func TestOrigin(t *testing.T) {
	_, base := start(t, Config{
		AllowCredentials: true,
		AllowOrigin:      func(r *http.Request, origin string) bool { return origin == "https://app.example" },
	}, lab)
	open := base + "/socket.io/?EIO=4&transport=polling"
	good := do(t, "GET", open, "", "Origin", "https://app.example")
	if good.status != 200 || good.header.Get("Access-Control-Allow-Origin") != "https://app.example" ||
		good.header.Get("Access-Control-Allow-Credentials") != "true" || !strings.Contains(good.header.Get("Vary"), "Origin") {
		t.Errorf("allowed: %d %v", good.status, good.header)
	}
	if none := do(t, "GET", open, ""); none.status != 200 || none.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without an origin: %d %v", none.status, none.header)
	}
	pre := do(t, "OPTIONS", open, "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-mine")
	if pre.status != 204 || pre.header.Get("Access-Control-Allow-Headers") != "x-mine" || !strings.Contains(pre.header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("preflight: %d %v", pre.status, pre.header)
	}
	// An error has to be readable by the page that it is for.
	if bad := do(t, "GET", open+"&sid=x", "", "Origin", "https://app.example"); bad.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("error: %v", bad.header)
	}
	sid := decodeOpen(t, good.body).SID
	for _, method := range []string{"GET", "POST", "OPTIONS"} {
		for _, url := range []string{open, open + "&sid=" + sid} {
			resp := do(t, method, url, "4", "Origin", "https://evil.example")
			if resp.status != 403 || resp.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("foreign %s: %d %v", method, resp.status, resp.header)
			}
		}
	}
	for origin, status := range map[string]int{"https://evil.example": 403, "null": 403, "https://app.example": 101, "": 101} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, resp, err := websocket.DefaultDialer.Dial(wsURL(base, "EIO=4&transport=websocket"), header)
		if err == nil {
			conn.Close()
		}
		if resp == nil || resp.StatusCode != status {
			t.Errorf("websocket from %q: %v %v, want %d", origin, resp, err, status)
		}
	}
}

func TestSameOrigin(t *testing.T) {
	r := httptest.NewRequest("GET", "http://app.example:8080/socket.io/", nil)
	for origin, want := range map[string]bool{
		"http://app.example:8080": true, "https://APP.example:8080": true, "http://app.example": false, "http://evil.example:8080": false,
		"null": false, "": false, "%": false,
	} {
		if got := SameOrigin(r, origin); got != want {
			t.Errorf("%q: %v", origin, got)
		}
	}
}

func TestSessionLimits(t *testing.T) {
	srv, base := start(t, Config{
		MaxSessions: 3, MaxSessionsPerAddr: 2,
		ClientAddr: func(r *http.Request) string { return r.Header.Get("X-Client") },
	}, lab)
	as := func(name, transport string) sockettest.Options {
		return sockettest.Options{Transport: transport, Header: http.Header{"X-Client": {name}}}
	}
	refused := func(opt sockettest.Options, status int) {
		t.Helper()
		c, err := sockettest.Dial(testContext(t), base, opt)
		if err == nil {
			c.Drop()
		}
		if he := new(sockettest.HTTPError); !errors.As(err, &he) || he.Status != status {
			t.Errorf("got %v, want status %d", err, status)
		}
	}
	a1 := dial(t, base, as("a", sockettest.Polling))
	a2 := dial(t, base, as("a", sockettest.Upgrade)) // the upgrade is no second session
	refused(as("a", sockettest.Websocket), 429)
	refused(as("a", sockettest.Polling), 429)
	dial(t, base, as("b", sockettest.Websocket))
	refused(as("c", sockettest.Websocket), 503)
	refused(as("c", sockettest.Polling), 503)
	a1.Close()
	a2.Close()
	eventually(t, "room for one more", func() bool { return srv.Stats().Sessions == 1 })
	dial(t, base, as("a", sockettest.Websocket))
	srv.mu.RLock()
	defer srv.mu.RUnlock()
	if len(srv.perAddr) != 2 {
		t.Errorf("addresses counted: %v", srv.perAddr)
	}
}

// slowClient connects over TCP with a small receive buffer, and then does not read.
func slowClient(t *testing.T, base string) net.Conn {
	t.Helper()
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(4096)
		}
		return conn, err
	}}
	conn, _, err := dialer.Dial(wsURL(base, "EIO=4&transport=websocket"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.WriteMessage(websocket.TextMessage, []byte("40")); err != nil {
		t.Fatal(err)
	}
	return conn.NetConn()
}

// A client that does not read is cut off at the cap; memory stays bounded, others are
// served, and the cut does not deadlock with the broadcast that notices.
func TestSlowClientIsCutOff(t *testing.T) {
	const limit = 4 << 20
	var log bytes.Buffer
	reasons := make(chan string, 1)
	srv, base := start(t, Config{MaxBuffered: limit, Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(srv *Server) {
		srv.Of("/").OnConnect(func(s *Socket) {
			s.OnDisconnect(func(reason string) {
				s.Namespace().Len() // takes the namespace's lock
				reasons <- reason
			})
		})
	})
	slowClient(t, base)
	eventually(t, "the slow client", func() bool { return srv.Of("/").Len() == 1 })
	healthy := dial(t, base, sockettest.Options{})
	received := make(chan int, 1)
	const messages, size = 1600, 32 << 10 // 50 MB
	go func() {
		n := 0
		for ; n < messages; n++ {
			if _, err := healthy.Next(context.Background()); err != nil {
				break
			}
		}
		received <- n
	}()
	// The broadcaster keeps pace with the healthy client, far faster than the other.
	text := strings.Repeat("x", size)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	h := srv.Of("/").Socket(healthy.ID())
	for i := range messages {
		for deadline := time.Now().Add(patience); h.sess.pending.Load() > limit/4 && time.Now().Before(deadline); {
			time.Sleep(50 * time.Microsecond)
		}
		srv.Of("/").Emit("e", text)
		if i%100 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapInuse)
		}
	}
	if reason := <-reasons; reason != ReasonSlowClient {
		t.Errorf("reason %q", reason)
	}
	if n := <-received; n != messages {
		t.Errorf("healthy client received %d of %d", n, messages)
	}
	// The slow client's backlog (a broadcast is held twice, as bytes and as a websocket
	// frame), garbage, and what the test's own client has not looked at yet.
	grown := int64(peak) - int64(before.HeapInuse)
	t.Logf("heap grew by %.1f MiB while %d MiB were sent to each client", float64(grown)/(1<<20), messages*size>>20)
	if grown > 8*limit {
		t.Errorf("that is not bounded by the cap of %d MiB", limit>>20)
	}
	if st := srv.Stats(); st.SlowClients != 1 || st.Sockets != 1 {
		t.Errorf("%+v", st)
	}
	healthy.Drop()
	eventually(t, "the end of the sessions", func() bool { return srv.Stats().Sessions == 0 })
	if !strings.Contains(log.String(), "slow client") {
		t.Errorf("log: %s", log.String())
	}
}

// A polling client that does not poll is cut off too.
func TestSlowPollerIsCutOff(t *testing.T) {
	srv, base := start(t, Config{MaxBuffered: 100_000}, lab)
	p := dialPoller(t, base)
	for range 11 {
		srv.Of("/").Emit("e", strings.Repeat("x", 10_000))
	}
	p.wantGet(400, "")
	if n := srv.Stats().SlowClients; n != 1 {
		t.Errorf("%d slow clients", n)
	}
}

func TestTooLargeToSend(t *testing.T) {
	srv, base := start(t, Config{MaxBuffered: 100_000}, lab)
	c := dial(t, base, sockettest.Options{})
	s := srv.Of("/").Socket(c.ID())
	text := strings.Repeat("x", 100_000)
	for name, err := range map[string]error{
		"Emit":     s.Emit("e", text),
		"EmitFunc": s.EmitFunc(time.Minute, func([]json.RawMessage, error) { t.Error("called back") }, "e", text),
		"Target":   srv.Of("/").Emit("e", text),
		"Raw":      srv.Of("/").All().Raw(fmt.Appendf(nil, "[%q]", text)),
	} {
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ack(t, c, "message-with-ack")
}

func TestVolatile(t *testing.T) {
	srv, base := start(t, Config{}, lab)
	p := dialPoller(t, base)
	s := srv.Of("/").All().Sockets()[0]
	s.EmitVolatile("v", 1)
	s.Namespace().All().Volatile().Emit("v", 2)
	p.wantGet(200, `42["v",1]`+"\x1e"+`42["v",2]`) // a client that keeps up loses nothing
	big := strings.Repeat("x", volatileBacklog)
	s.Emit("big", big)
	s.EmitVolatile("v", 3)
	s.Namespace().All().Volatile().Emit("v", 4)
	s.Emit("end")
	p.wantGet(200, `42["big","`+big+`"]`+"\x1e"+`42["end"]`)
	eventually(t, "the account to be settled", func() bool { return !s.sess.behind() })
	s.EmitVolatile("v", 5)
	p.wantGet(200, `42["v",5]`)
	if n := srv.Stats().VolatileDropped; n != 2 {
		t.Errorf("%d dropped", n)
	}
}

func TestClose(t *testing.T) {
	reasons := make(chan string, 10)
	srv, base := start(t, Config{}, lab, func(srv *Server) {
		srv.Of("/").OnConnect(func(s *Socket) {
			s.OnDisconnect(func(reason string) { reasons <- reason })
		})
	})
	ws := openRaw(t, base)
	ws.send("40")
	ws.read()
	polling, idle := dialPoller(t, base), dialPoller(t, base)
	waiting := polling.background("GET", "")
	eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })
	srv.Of("/").Emit("bye")
	if got := <-waiting; got.body != `42["bye"]` {
		t.Errorf("poll: %q", got.body)
	}
	waiting = polling.background("GET", "")
	eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })
	closed := make(chan int, 1)
	go func() { closed <- ws.wantClosed() }() // answers the close frame

	if err := srv.Close(testContext(t)); err != nil {
		t.Errorf("Close: %v", err)
	}
	if code := <-closed; code != websocket.CloseGoingAway {
		t.Errorf("close code %d", code)
	}
	if got := <-waiting; got.status != 200 || got.body != "1" {
		t.Errorf("waiting poll: %d %q", got.status, got.body)
	}
	idle.wantGet(400, "")
	for range 3 {
		if reason := <-reasons; reason != ReasonServerShutdown {
			t.Errorf("reason %q", reason)
		}
	}
	if resp := do(t, "GET", base+"/socket.io/?EIO=4&transport=polling", ""); resp.status != 503 {
		t.Errorf("handshake after Close: %d", resp.status)
	}
	if err := srv.Close(testContext(t)); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// What a handler has emitted is on the wire before the goodbye, however much it is.
func TestCloseDrains(t *testing.T) {
	srv, base := start(t, Config{}, lab)
	c := dial(t, base, sockettest.Options{})
	const n = 500
	for i := range n {
		srv.Of("/").Emit("e", i, strings.Repeat("x", 10_000))
	}
	if err := srv.Close(testContext(t)); err != nil {
		t.Errorf("Close: %v", err)
	}
	for i := range n {
		if got := wait(t, c, "e"); !strings.HasPrefix(got, fmt.Sprintf("[%d,", i)) {
			t.Fatalf("event %d: %.20s", i, got)
		}
	}
}

// A client that neither reads nor answers does not keep the server from closing.
func TestCloseIsBoundedByItsContext(t *testing.T) {
	srv, base := start(t, Config{}, lab)
	slowClient(t, base)
	eventually(t, "the slow client", func() bool { return srv.Of("/").Len() == 1 })
	for range 100 {
		srv.Of("/").Emit("e", strings.Repeat("x", 100_000))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := srv.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	eventually(t, "the end of the session", func() bool { return srv.Stats().Sessions == 0 })
}

// The official client would take the close first, and reconnect, if both came at once.
func TestPolledDisconnectComesBeforeTheClose(t *testing.T) {
	srv, base := start(t, Config{}, lab)
	p := dialPoller(t, base)
	srv.Of("/").Emit("e")
	srv.Of("/").All().Disconnect(true)
	p.wantGet(200, `42["e"]`+"\x1e41")
	p.wantGet(200, "1")
	p.wantGet(400, "")
	if n := srv.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestOf(t *testing.T) {
	srv, _ := start(t, Config{})
	if srv.Of("x") != srv.Of("/x") || srv.Of("") != srv.Of("/") {
		t.Error("names are not normalised")
	}
	for _, name := range []string{"/a,b", strings.Repeat("x", 200)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Of(%.10q) did not panic", name)
				}
			}()
			srv.Of(name)
		}()
	}
}
