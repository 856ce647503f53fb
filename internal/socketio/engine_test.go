package socketio

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// The tests of this file follow the Engine.IO protocol document, version 4, section
// by section, against a server that echoes.

func TestOpenPacket(t *testing.T) {
	cfg := Config{PingInterval: 30 * time.Second, PingTimeout: 7 * time.Second, MaxPayload: 1_000_000}
	_, base := start(t, cfg, echo)
	resp := do(t, "GET", base+"/engine.io/?EIO=4&transport=polling", "")
	open := decodeOpen(t, resp.body)
	if len(open.Upgrades) != 1 || open.Upgrades[0] != "websocket" {
		t.Errorf("upgrades: %v", open.Upgrades)
	}
	if open.PingInterval != 30000 || open.PingTimeout != 7000 || open.MaxPayload != 1_000_000 {
		t.Errorf("open packet: %+v", open)
	}
	if ct := resp.header.Get("Content-Type"); ct != "text/plain; charset=UTF-8" {
		t.Errorf("content type %q", ct)
	}
	ws := dialRaw(t, base, "EIO=4&transport=websocket")
	packet := ws.read()
	if other := decodeOpen(t, packet); other.SID == open.SID || !strings.Contains(packet, `"upgrades":[]`) {
		t.Errorf("open packet over websocket: %s", packet)
	}
}

func TestBadHandshakes(t *testing.T) {
	srv, base := start(t, Config{AllowOrigin: func(_ *http.Request, o string) bool { return o == "https://good.example" }}, echo)
	p := openPoller(t, base)
	for _, tc := range []struct {
		name, method, query string
		header              []string
		status, code        int
		message             string
	}{
		{"no transport", "GET", "EIO=4", nil, 400, 0, "Transport unknown"},
		{"unknown transport", "GET", "EIO=4&transport=abc", nil, 400, 0, "Transport unknown"},
		{"no EIO", "GET", "transport=polling", nil, 400, 5, "Unsupported protocol version"},
		{"EIO 3", "GET", "EIO=3&transport=polling", nil, 400, 5, "Unsupported protocol version"},
		{"EIO abc", "GET", "EIO=abc&transport=websocket", nil, 400, 5, "Unsupported protocol version"},
		{"unknown sid", "GET", "EIO=4&transport=polling&sid=nope", nil, 400, 1, "Session ID unknown"},
		{"unknown sid, POST", "POST", "EIO=4&transport=polling&sid=nope", nil, 400, 1, "Session ID unknown"},
		{"POST to open", "POST", "EIO=4&transport=polling", nil, 400, 2, "Bad handshake method"},
		{"PUT to open", "PUT", "EIO=4&transport=polling", nil, 400, 2, "Bad handshake method"},
		{"websocket without upgrade", "GET", "EIO=4&transport=websocket", nil, 400, 3, "Bad request"},
		{"upgrade of polling", "GET", "EIO=4&transport=polling", []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 400, 3, "Bad request"},
		{"bad websocket handshake", "GET", "EIO=4&transport=websocket", []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 400, 3, "Bad request"},
		{"foreign origin", "GET", "EIO=4&transport=polling", []string{"Origin", "https://evil.example"}, 403, 4, "Forbidden"},
		{"foreign origin, websocket", "GET", "EIO=4&transport=websocket", []string{"Origin", "https://evil.example", "Connection", "Upgrade", "Upgrade", "websocket"}, 403, 4, "Forbidden"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp := do(t, tc.method, base+"/engine.io/?"+tc.query, "", tc.header...)
			var got struct {
				Code    *int   `json:"code"`
				Message string `json:"message"`
			}
			if err := json.Unmarshal([]byte(resp.body), &got); err != nil || got.Code == nil {
				t.Fatalf("body %q: %v", resp.body, err)
			}
			if resp.status != tc.status || *got.Code != tc.code || got.Message != tc.message {
				t.Errorf("got %d %s, want %d code %d", resp.status, resp.body, tc.status, tc.code)
			}
			if ct := resp.header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %q", ct)
			}
		})
	}
	if resp := do(t, "PUT", p.url, ""); resp.status != 400 {
		t.Errorf("PUT to a session: %d", resp.status)
	}
	if n := srv.Stats().Sessions; n != 1 {
		t.Errorf("%d sessions, want the poller's only", n)
	}
}

func TestPollingPayloads(t *testing.T) {
	_, base := start(t, Config{}, echo)
	for _, body := range []string{"4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA==", "4€ é \"\\", "4"} {
		p := openPoller(t, base)
		if resp := p.post(body); resp.status != 200 || resp.body != "ok" {
			t.Fatalf("POST %q: %d %q", body, resp.status, resp.body)
		}
		p.wantGet(200, body)
	}
}

func TestWebsocketMessages(t *testing.T) {
	_, base := start(t, Config{}, echo)
	ws := openRaw(t, base)
	ws.send("4hello", "4world", "6")
	ws.want("4hello", "4world")
	ws.WriteMessage(websocket.BinaryMessage, []byte{1, 2, 3, 4})
	typ, data, err := ws.ReadMessage()
	if err != nil || typ != websocket.BinaryMessage || string(data) != "\x01\x02\x03\x04" {
		t.Errorf("binary: %d %v %v", typ, data, err)
	}
}

func TestMalformedPayloadClosesPollingSession(t *testing.T) {
	srv, base := start(t, Config{MaxPayload: 1000}, echo)
	for _, tc := range []struct {
		body   string
		header []string
		status int
	}{
		{"abc", nil, 400}, {"", nil, 400}, {"4a\x1e", nil, 400}, {"\x1e4a", nil, 400}, {"b!!!", nil, 400},
		{"2", nil, 400}, {"0{}", nil, 400}, {"4\x1e4\x1e9", nil, 400},
		{"4hello", []string{"Content-Type", "application/octet-stream"}, 400},
		{"4" + strings.Repeat("x", 1000), nil, 413},
	} {
		p := openPoller(t, base)
		waiting := p.background("GET", "")
		eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })
		resp, err := tryDo("POST", p.url, tc.body, tc.header...)
		if err == nil && resp.status != tc.status {
			t.Errorf("POST %.20q: %d, want %d", tc.body, resp.status, tc.status)
		}
		if got := <-waiting; got.status != 200 || !strings.HasSuffix(got.body, "1") {
			t.Errorf("POST %.20q: waiting poll got %d %q, want a close packet", tc.body, got.status, got.body)
		}
		p.wantGet(400, "")
	}
}

// waitingPoll reports whether some session has a GET waiting.
func waitingPoll(srv *Server) bool {
	srv.mu.RLock()
	defer srv.mu.RUnlock()
	for _, s := range srv.sessions {
		s.mu.Lock()
		waiting := s.poll != nil
		s.mu.Unlock()
		if waiting {
			return true
		}
	}
	return false
}

func TestMalformedFrameClosesWebsocket(t *testing.T) {
	srv, base := start(t, Config{MaxPayload: 1000}, echo)
	for packet, code := range map[string]int{
		"abc": websocket.CloseProtocolError, "": websocket.CloseProtocolError, "0": websocket.CloseProtocolError,
		"2": websocket.CloseProtocolError, "2probe": websocket.CloseProtocolError,
		"4" + strings.Repeat("x", 1000): websocket.CloseMessageTooBig,
	} {
		ws := openRaw(t, base)
		ws.send(packet)
		if got := ws.wantClosed(); got != code {
			t.Errorf("%.20q: close code %d, want %d", packet, got, code)
		}
	}
	eventually(t, "no sessions", func() bool { return srv.Stats().Sessions == 0 })
	if n := srv.Stats().Malformed; n != 5 {
		t.Errorf("counted %d malformed, want 5", n)
	}
}

func TestOverlappingPollsCloseTheSession(t *testing.T) {
	srv, base := start(t, Config{}, echo)
	p := openPoller(t, base)
	first := p.background("GET", "")
	eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })
	p.wantGet(400, "")
	if got := <-first; got.status != 200 || got.body != "1" {
		t.Errorf("first poll: %d %q, want a close packet", got.status, got.body)
	}
	p.wantGet(400, "")
}

func TestOverlappingPostsCloseTheSession(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	_, base := start(t, Config{}, func(srv *Server) {
		srv.recv = func(*session, []byte, bool) error {
			close(entered)
			<-release
			return nil
		}
	})
	p := openPoller(t, base)
	first := p.background("POST", "4a")
	<-entered
	if resp := p.post("4b"); resp.status != 400 {
		t.Errorf("second POST: %d", resp.status)
	}
	close(release)
	<-first
	p.wantGet(400, "")
}

func TestCancelledPollClosesTheSession(t *testing.T) {
	srv, base := start(t, Config{}, echo)
	p := openPoller(t, base)
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, "GET", p.url, nil)
	done := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })
	cancel()
	<-done
	eventually(t, "the end of the session", func() bool { return srv.Stats().Sessions == 0 })
	p.wantGet(400, "")
}

func TestHeartbeat(t *testing.T) {
	cfg := Config{PingInterval: 50 * time.Millisecond, PingTimeout: 5 * time.Second}
	_, base := start(t, cfg, echo)
	p := openPoller(t, base)
	ws := openRaw(t, base)
	for range 3 {
		p.wantGet(200, "2")
		if resp := p.post("3"); resp.status != 200 {
			t.Fatalf("pong: %d", resp.status)
		}
		ws.want("2")
		ws.send("3")
	}
}

func TestPingTimeout(t *testing.T) {
	cfg := Config{PingInterval: 40 * time.Millisecond, PingTimeout: 40 * time.Millisecond}
	srv, base := start(t, cfg, echo)
	began := time.Now()
	p := openPoller(t, base)
	ws := openRaw(t, base)
	ws.want("2")
	ws.wantClosed()
	if took := time.Since(began); took < 80*time.Millisecond {
		t.Errorf("closed after %v", took)
	}
	eventually(t, "both counted", func() bool { return srv.Stats().PingTimeouts == 2 })
	p.wantGet(400, "")
}

// The deadline is a point in time, not a timer that may be late.
func TestPollAtThePingDeadline(t *testing.T) {
	srv, base := start(t, Config{}, echo)
	for _, pinged := range []bool{false, true} {
		p := openPoller(t, base)
		srv.mu.RLock()
		s := srv.sessions[sidOf(p)]
		srv.mu.RUnlock()
		s.mu.Lock()
		s.timer.Stop()
		s.awaitingPong = pinged
		s.deadline = time.Now() // of the pong
		if !pinged {
			s.deadline = s.deadline.Add(-srv.cfg.PingTimeout)
		}
		s.mu.Unlock()
		p.wantGet(400, "")
		if n := srv.Stats().Sessions; n != 0 {
			t.Errorf("pinged %v: %d sessions left", pinged, n)
		}
	}
}

// A pong that waits behind a handler of ours must not cost the client its session.
func TestBusyHandlerHoldsOffThePingTimeout(t *testing.T) {
	cfg := Config{PingInterval: 20 * time.Millisecond, PingTimeout: 20 * time.Millisecond}
	release := make(chan struct{})
	srv, base := start(t, cfg, func(srv *Server) {
		srv.recv = func(s *session, data []byte, _ bool) error {
			<-release
			s.send(&frame{data: append([]byte{eioMessage}, data...)})
			return nil
		}
	})
	ws := openRaw(t, base)
	ws.send("4slow")
	ws.want("2")
	ws.send("3")
	time.Sleep(10 * (cfg.PingInterval + cfg.PingTimeout)) // what is tested is that nothing happens
	close(release)
	ws.want("4slow")
	if n := srv.Stats().PingTimeouts; n != 0 {
		t.Errorf("%d ping timeouts", n)
	}
}

func TestClientCloses(t *testing.T) {
	srv, base := start(t, Config{}, echo)
	t.Run("websocket", func(t *testing.T) {
		ws := openRaw(t, base)
		ws.send("1")
		if code := ws.wantClosed(); code != websocket.CloseNormalClosure {
			t.Errorf("close code %d", code)
		}
	})
	t.Run("a poll waits", func(t *testing.T) {
		p := openPoller(t, base)
		waiting := p.background("GET", "")
		eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })
		if resp := p.post("1"); resp.status != 200 || resp.body != "ok" {
			t.Errorf("POST: %d %q", resp.status, resp.body)
		}
		if got := <-waiting; got.status != 200 || got.body != "6" {
			t.Errorf("waiting poll: %d %q, want a noop", got.status, got.body)
		}
		p.wantGet(400, "")
	})
	t.Run("the poll is overtaken", func(t *testing.T) {
		p := openPoller(t, base)
		p.post("1")
		p.wantGet(200, "6")
		p.wantGet(400, "")
	})
	t.Run("no poll comes", func(t *testing.T) {
		p := openPoller(t, base)
		p.post("1")
		eventually(t, "the end of the session", func() bool { return srv.Stats().Sessions == 0 })
		p.wantGet(400, "")
	})
}

func sidOf(p *poller) string { return p.url[strings.LastIndex(p.url, "=")+1:] }

func TestUpgrade(t *testing.T) {
	srv, base := start(t, Config{}, echo)
	p := openPoller(t, base)
	waiting := p.background("GET", "")
	eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })

	ws := dialRaw(t, base, "EIO=4&transport=websocket&sid="+sidOf(p))
	ws.send("2probe")
	ws.want("3probe")
	if got := <-waiting; got.status != 200 || got.body != "6" {
		t.Errorf("waiting poll: %d %q, want a noop", got.status, got.body)
	}
	p.wantGet(200, "6") // one that comes during the upgrade too
	if resp := p.post("4by post"); resp.status != 200 {
		t.Errorf("POST during the upgrade: %d", resp.status)
	}
	ws.send("5")
	ws.want("4by post") // what waited comes by the new transport
	ws.send("4hello")
	ws.want("4hello")

	p.wantGet(400, "")
	if resp := p.post("4x"); resp.status != 400 {
		t.Errorf("POST after the upgrade: %d", resp.status)
	}
	dialRaw(t, base, "EIO=4&transport=websocket&sid="+sidOf(p)).wantClosed()
	ws.send("4still here")
	ws.want("4still here")
	if st := srv.Stats(); st.Upgraded != 1 || st.Websockets != 1 || st.Sessions != 1 {
		t.Errorf("%+v", st)
	}
}

// Clients may poll while their websocket's last packet is on its way.
func TestPollDuringUpgradeIsHeldUntilItsEnd(t *testing.T) {
	srv, base := start(t, Config{}, echo)
	p := openPoller(t, base)
	ws := dialRaw(t, base, "EIO=4&transport=websocket&sid="+sidOf(p))
	ws.send("2probe")
	ws.want("3probe")
	waiting := p.background("GET", "")
	eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })
	ws.send("5")
	if got := <-waiting; got.status != 400 {
		t.Errorf("poll: %d %q", got.status, got.body)
	}
	ws.send("4hello")
	ws.want("4hello")
}

// Clients may also send the last packet without waiting for the probe's answer.
func TestHastyUpgrade(t *testing.T) {
	_, base := start(t, Config{}, echo)
	for range 20 {
		p := openPoller(t, base)
		query := "EIO=4&transport=websocket&sid=" + sidOf(p)
		ws := dialRaw(t, base, query)
		ws.send("2probe", "5")
		p.wantGet(400, "")
		dialRaw(t, base, query).wantClosed()
		ws.send("4hello")
		ws.want("3probe", "4hello")
	}
}

func TestFailedUpgradeLeavesPollingAlone(t *testing.T) {
	srv, base := start(t, Config{UpgradeTimeout: 50 * time.Millisecond}, echo)
	p := openPoller(t, base)
	idle := func() bool {
		srv.mu.RLock()
		s := srv.sessions[sidOf(p)]
		srv.mu.RUnlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.probing && !s.upgrading
	}
	query := "EIO=4&transport=websocket&sid=" + sidOf(p)
	for _, packets := range [][]string{{"4hello"}, {"2probe", "4hello"}, {"2probe", "abc"}, {"5"}, {}} {
		ws := dialRaw(t, base, query)
		ws.send(packets...)
		ws.wantClosed()
		eventually(t, "the probe's end", idle)
		p.post("4hello")
		p.wantGet(200, "4hello")
	}
	// A second probe while one is under way is turned away.
	ws := dialRaw(t, base, query)
	ws.send("2probe")
	ws.want("3probe")
	dialRaw(t, base, query).wantClosed()
	ws.send("5", "4hello")
	ws.want("4hello")
}

func TestCloseDuringUpgrade(t *testing.T) {
	srv, base := start(t, Config{}, echo)
	p := openPoller(t, base)
	ws := dialRaw(t, base, "EIO=4&transport=websocket&sid="+sidOf(p))
	ws.send("2probe")
	ws.want("3probe")
	p.post("1")
	ws.wantClosed()
	eventually(t, "the end of the session", func() bool { return srv.Stats().Sessions == 0 })
}

// Timeouts of the HTTP server are for short requests: long polls outlive them.
func TestLongPollOutlivesServerTimeouts(t *testing.T) {
	srv := NewServer(Config{PingInterval: 400 * time.Millisecond})
	echo(srv)
	ts := httptest.NewUnstartedServer(srv)
	ts.Config.WriteTimeout = 100 * time.Millisecond
	ts.Config.ReadTimeout = 100 * time.Millisecond
	ts.Start()
	defer ts.Close()
	defer srv.Close(testContext(t))
	defer http.DefaultClient.CloseIdleConnections()

	p := openPoller(t, ts.URL)
	p.wantGet(200, "2")
	p.post("3")
	ws := openRaw(t, ts.URL)
	ws.want("2")
	ws.send("3", "4hello")
	ws.want("4hello")
	ws.send("1")
	ws.wantClosed()
}

func TestPollingOverHTTP2(t *testing.T) {
	srv := NewServer(Config{PingInterval: 300 * time.Millisecond})
	echo(srv)
	ts := httptest.NewUnstartedServer(srv)
	ts.EnableHTTP2 = true
	ts.Config.WriteTimeout = 100 * time.Millisecond
	ts.Config.ReadTimeout = 100 * time.Millisecond
	ts.StartTLS()
	defer ts.Close()
	defer srv.Close(testContext(t))
	ask := func(method, query, body string) string {
		t.Helper()
		req, _ := http.NewRequest(method, ts.URL+"/?EIO=4&transport=polling"+query, strings.NewReader(body))
		resp, err := ts.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Fatalf("protocol %s", resp.Proto)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	sid := "&sid=" + decodeOpen(t, ask("GET", "", "")).SID
	ask("POST", sid, "4hello")
	if got := ask("GET", sid, ""); got != "4hello" {
		t.Errorf("got %q", got)
	}
	if got := ask("GET", sid, ""); got != "2" { // after both timeouts
		t.Errorf("got %q", got)
	}
}

func TestLargePollsComeInPieces(t *testing.T) {
	_, base := start(t, Config{}, echo)
	p := openPoller(t, base)
	big := "4" + strings.Repeat("x", 700_000)
	for range 3 {
		p.post(big)
	}
	for range 3 {
		p.wantGet(200, big)
	}
}
