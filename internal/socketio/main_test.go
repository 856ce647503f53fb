package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if child := os.Getenv(loadChildEnv); child != "" {
		loadChild(child)
		return
	}
	goleak.VerifyTestMain(m)
}

const patience = 10 * time.Second // of a test, for what ought to happen at once

// start serves a new server; both end with the test.
func start(t testing.TB, cfg Config, setup ...func(*Server)) (*Server, string) {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	srv := NewServer(cfg)
	for _, f := range setup {
		f(srv)
	}
	mux := http.NewServeMux()
	mux.Handle("/socket.io/", srv)
	mux.Handle("/engine.io/", srv)
	ts := httptest.NewServer(mux)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		ts.Close()
		http.DefaultClient.CloseIdleConnections()
		if st := srv.Stats(); st.Sessions != 0 || st.Websockets != 0 || st.Sockets != 0 {
			t.Errorf("left behind: %+v", st)
		}
	})
	return srv, ts.URL
}

// echo makes a server of Engine.IO alone, that sends every message back.
func echo(srv *Server) {
	srv.recv = func(s *session, data []byte, binary bool) error {
		if !binary {
			data = append([]byte{eioMessage}, data...)
		}
		s.send(&frame{data: data, binary: binary})
		return nil
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a state that no signal tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

type response struct {
	status int
	body   string
	header http.Header
}

func do(t testing.TB, method, url, body string, header ...string) response {
	t.Helper()
	resp, err := tryDo(method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func tryDo(method, url, body string, header ...string) (response, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, string(b), resp.Header}, err
}

// openPacket is the server's first word.
type openPacket struct {
	SID          string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingInterval int      `json:"pingInterval"`
	PingTimeout  int      `json:"pingTimeout"`
	MaxPayload   int      `json:"maxPayload"`
}

func decodeOpen(t testing.TB, packet string) openPacket {
	t.Helper()
	var open openPacket
	dec := json.NewDecoder(strings.NewReader(strings.TrimPrefix(packet, "0")))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&open); err != nil || packet == "" || packet[0] != '0' || open.SID == "" {
		t.Fatalf("open packet %q: %v", packet, err)
	}
	return open
}

// poller is a bare polling session.
type poller struct {
	t   testing.TB
	url string
}

func openPoller(t testing.TB, base string) *poller {
	t.Helper()
	u := base + "/engine.io/?EIO=4&transport=polling"
	resp := do(t, "GET", u, "")
	if resp.status != 200 {
		t.Fatalf("handshake: %d %s", resp.status, resp.body)
	}
	return &poller{t, u + "&sid=" + decodeOpen(t, resp.body).SID}
}

func (p *poller) get() response             { p.t.Helper(); return do(p.t, "GET", p.url, "") }
func (p *poller) post(body string) response { p.t.Helper(); return do(p.t, "POST", p.url, body) }

// wantGet polls until something other than a ping comes, and compares.
func (p *poller) wantGet(status int, body string) {
	p.t.Helper()
	if got := p.get(); got.status != status || (status == 200 && got.body != body) {
		p.t.Fatalf("GET: %d %q, want %d %q", got.status, got.body, status, body)
	}
}

// background sends a request in a goroutine of its own.
func (p *poller) background(method, body string) <-chan response {
	ch := make(chan response, 1)
	go func() {
		resp, err := tryDo(method, p.url, body)
		if err != nil {
			resp.body = err.Error()
		}
		ch <- resp
	}()
	return ch
}

// rawSocket is a bare websocket.
type rawSocket struct {
	t testing.TB
	*websocket.Conn
}

func wsURL(base, query string) string {
	return "ws" + strings.TrimPrefix(base, "http") + "/socket.io/?" + query
}

func dialRaw(t testing.TB, base, query string) *rawSocket {
	t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial(wsURL(base, query), nil)
	if err != nil {
		status := 0
		if resp != nil {
			status = resp.StatusCode
		}
		t.Fatalf("dial: %v (%d)", err, status)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return &rawSocket{t, conn}
}

// openRaw is a bare websocket past the open packet.
func openRaw(t testing.TB, base string) *rawSocket {
	t.Helper()
	ws := dialRaw(t, base, "EIO=4&transport=websocket")
	decodeOpen(t, ws.read())
	return ws
}

func (ws *rawSocket) read() string {
	ws.t.Helper()
	_, data, err := ws.ReadMessage()
	if err != nil {
		ws.t.Fatalf("read: %v", err)
	}
	return string(data)
}

func (ws *rawSocket) send(packets ...string) {
	ws.t.Helper()
	for _, p := range packets {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(p)); err != nil {
			ws.t.Fatalf("write: %v", err)
		}
	}
}

func (ws *rawSocket) want(packets ...string) {
	ws.t.Helper()
	for _, p := range packets {
		if got := ws.read(); got != p {
			ws.t.Fatalf("got %q, want %q", got, p)
		}
	}
}

// wantClosed reads until the connection ends, and returns the close code, or 1006.
func (ws *rawSocket) wantClosed() int {
	ws.t.Helper()
	for {
		_, _, err := ws.ReadMessage()
		if err == nil {
			continue
		}
		var ce *websocket.CloseError
		if errors.As(err, &ce) {
			return ce.Code
		}
		if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
			ws.t.Fatal("connection was not closed")
		}
		return websocket.CloseAbnormalClosure
	}
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return string(b)
}
