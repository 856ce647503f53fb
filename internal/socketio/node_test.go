package socketio

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// missing skips a test that lacks what not every machine has; where all tests are to run, it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ECOD_TEST_ALL") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// TestOfficialClient runs the suite of testdata/node: the official JavaScript client
// against this server. It needs node, and `npm ci` in that folder.
func TestOfficialClient(t *testing.T) {
	dir := filepath.Join("testdata", "node")
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node is not installed")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "socket.io-client")); err != nil {
		missing(t, "socket.io-client is not installed: run `npm ci` in "+dir)
	}

	house := &restartable{t: t}
	addr := house.start("127.0.0.1:0")
	defer house.stop()
	control := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		house.stop()
		house.start(addr)
	}))
	defer control.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "--test", "--test-reporter=spec", "interop.test.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SERVER_URL=http://"+addr, "CONTROL_URL="+control.URL)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "fail 0") {
		t.Fatalf("no summary in:\n%s", out)
	}
	t.Logf("%s", out)
}

// restartable is a server that can be replaced by another at the same address.
type restartable struct {
	t    *testing.T
	mu   sync.Mutex
	srv  *Server
	http *http.Server
}

func (r *restartable) start(addr string) (bound string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		r.t.Errorf("listen: %v", err)
		return ""
	}
	r.srv = NewServer(Config{PingInterval: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	interop(r.srv)
	mux := http.NewServeMux()
	mux.Handle("/socket.io/", r.srv)
	r.http = &http.Server{Handler: mux}
	go r.http.Serve(ln)
	return ln.Addr().String()
}

func (r *restartable) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.srv.Close(ctx); err != nil {
		r.t.Errorf("Close: %v", err)
	}
	if err := r.http.Shutdown(ctx); err != nil {
		r.t.Errorf("Shutdown: %v", err)
	}
}

// interop is what the suite expects of the server.
func interop(srv *Server) {
	type ackFunc = func(...any)
	ns := srv.Of("/")
	ns.OnConnect(func(s *Socket) {
		on := func(event string, f func(args []json.RawMessage, ack ackFunc)) {
			s.On(event, func(_ context.Context, args []json.RawMessage, ack ackFunc) { f(args, ack) })
		}
		on("bounce", func(args []json.RawMessage, _ ackFunc) { s.Emit("bounced", anys(args)...) })
		on("echo", func(args []json.RawMessage, ack ackFunc) { ack(append([]json.RawMessage{}, args...)) })
		on("join", func(args []json.RawMessage, ack ackFunc) { s.Join(str(args)); ack() })
		on("leave", func(args []json.RawMessage, ack ackFunc) { s.Leave(str(args)); ack() })
		on("kick me", func([]json.RawMessage, ackFunc) { s.Disconnect(true) })
		on("question me", func(args []json.RawMessage, _ ackFunc) {
			s.EmitFunc(time.Second, func(answer []json.RawMessage, err error) {
				if err != nil {
					s.Emit("unanswered", err.Error())
				} else {
					s.Emit("answered", answer)
				}
			}, "question", args[0])
		})
		tell := func(to func(...string) Target) func([]json.RawMessage, ackFunc) {
			return func(args []json.RawMessage, ack ackFunc) {
				var rooms []string
				_ = json.Unmarshal(args[0], &rooms)
				to(rooms...).Emit("room news", args[1])
				ack()
			}
		}
		on("tell", tell(ns.To))
		on("tell others", tell(s.To))
		on("volatile", func(args []json.RawMessage, ack ackFunc) {
			ns.Socket(str(args)).EmitVolatile("v", args[1])
			ack()
		})
		on("flood", func(args []json.RawMessage, ack ackFunc) {
			var n int
			_ = json.Unmarshal(args[1], &n)
			for range n {
				ns.Socket(str(args)).Emit("big", strings.Repeat("x", 1<<20))
			}
			ack()
		})
	})
	secure := srv.Of("/secure")
	secure.Use(func(_ context.Context, hs *Handshake) (any, error) {
		var auth struct{ Token string }
		_ = json.Unmarshal(hs.Auth, &auth)
		if auth.Token != "right" {
			return nil, &ConnectError{"unauthorized", map[string]string{"code": "unauthenticated"}}
		}
		return "the holder of " + auth.Token, nil
	})
	secure.OnConnect(func(s *Socket) {
		s.On("who am i", func(_ context.Context, _ []json.RawMessage, ack func(...any)) { ack([]any{s.Data()}) })
	})
}
