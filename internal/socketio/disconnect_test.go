package socketio

import (
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/gorilla/websocket"
)

func TestDisconnects(t *testing.T) {
	for _, tr := range transports {
		for _, tc := range []struct {
			name, reason string
			act          func(c *sockettest.Client, s *Socket)
			lastWords    bool
		}{
			{"client says goodbye", ReasonClientDisconnect, func(c *sockettest.Client, s *Socket) { c.Close() }, false},
			{"client vanishes", ReasonTransportError, func(c *sockettest.Client, s *Socket) { c.Drop() }, false},
			{"server ends the socket", ReasonServerDisconnect, func(c *sockettest.Client, s *Socket) { c.Emit("kick") }, true},
			{"server ends the session", ReasonForcedClose, func(c *sockettest.Client, s *Socket) { c.Emit("kick", "session") }, true},
			{"server ends all", ReasonForcedClose, func(c *sockettest.Client, s *Socket) { s.Namespace().To("r").Disconnect(true) }, false},
			{"handler panics", ReasonHandlerPanic, func(c *sockettest.Client, s *Socket) { c.Emit("panic") }, false},
		} {
			if tr == sockettest.Polling && tc.reason == ReasonTransportError {
				tc.reason = ReasonTransportClose // a cancelled poll
			}
			t.Run(tr+"/"+tc.name, func(t *testing.T) {
				reasons := make(chan string, 10)
				sockets := make(chan *Socket, 1)
				srv, base := start(t, Config{}, lab, func(srv *Server) {
					srv.Of("/").OnConnect(func(s *Socket) {
						s.Join("r")
						s.OnDisconnect(func(reason string) {
							if s.Connected() || len(s.Namespace().To("r").Sockets()) != 0 {
								t.Error("still there when its disconnect is told")
							}
							reasons <- reason
						})
						sockets <- s
					})
				})
				c := dial(t, base, sockettest.Options{Transport: tr})
				s := <-sockets
				if tr == sockettest.Polling { // one that is between two polls vanishes unnoticed
					eventually(t, "a waiting poll", func() bool { return waitingPoll(srv) })
				}
				tc.act(c, s)
				if reason := <-reasons; reason != tc.reason {
					t.Errorf("reason %q, want %q", reason, tc.reason)
				}
				<-c.Done()
				if tc.lastWords {
					wait(t, c, "last words")
				}
				s.OnDisconnect(func(reason string) { reasons <- reason })
				if reason := <-reasons; reason != tc.reason {
					t.Errorf("reason told late %q", reason)
				}
				s.Disconnect(true)
				s.Disconnect(false)
				c.Drop()
				eventually(t, "the end of the session", func() bool { return srv.Stats().Sessions == 0 })
				if len(reasons) != 0 {
					t.Errorf("told twice: %s", <-reasons)
				}
				if want := map[bool]uint64{true: 1}[tc.reason == ReasonHandlerPanic]; srv.Stats().Panics != want {
					t.Errorf("%d panics", srv.Stats().Panics)
				}
				<-s.Context().Done()
			})
		}
	}
}

// Disconnecting one namespace leaves the others of the session alone.
func TestServerDisconnectsOneNamespace(t *testing.T) {
	srv, base := start(t, Config{}, lab)
	ws := openRaw(t, base)
	ws.send("40", "40/custom,")
	ws.read()
	ws.read()
	srv.Of("/custom").All().Disconnect(false)
	ws.want("41/custom,")
	ws.send(`42/custom,["message"]`, `42["message",1]`)
	ws.want(`42["message-back",1]`)
	srv.Of("/").All().Disconnect(true)
	ws.want("41")
	if code := ws.wantClosed(); code != websocket.CloseNormalClosure {
		t.Errorf("close code %d", code)
	}
}

func TestConnectTimeout(t *testing.T) {
	srv, base := start(t, Config{ConnectTimeout: 50 * time.Millisecond}, lab)
	c := dial(t, base, sockettest.Options{})
	ws := openRaw(t, base)
	p := openPoller(t, base)
	ws.wantClosed()
	eventually(t, "one session left", func() bool { return srv.Stats().Sessions == 1 })
	p.wantGet(400, "")
	ack(t, c, "message-with-ack")
}
