package realtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/realtime"
	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/ecodrix/ecod/internal/tenant"
)

type reply struct {
	OK    bool     `json:"ok"`
	Error string   `json:"error"`
	Here  []person `json:"here"`
}

type person struct {
	ID     string  `json:"id"`
	UserID *string `json:"userId"`
	Name   *string `json:"name"`
}

func names(list []person) string {
	var out []string
	for _, p := range list {
		switch {
		case p.Name != nil && p.UserID != nil:
			out = append(out, *p.Name)
		default:
			out = append(out, "?")
		}
	}
	return strings.Join(out, " ")
}

func (e *ear) ask(event string, args ...any) (r reply) {
	e.h.Helper()
	answer, err := e.EmitAck(e.h.ctx, event, args...)
	e.h.must(err)
	e.h.must(json.Unmarshal(answer[0], &r))
	return r
}

// presence waits until those in a conversation are these.
func (e *ear) presence(want string) {
	e.h.Helper()
	for {
		ctx, cancel := context.WithTimeout(e.h.ctx, patience)
		ev, err := e.Wait(ctx, "presence")
		cancel()
		if err != nil {
			e.h.Fatalf("%s are never here: %v", want, err)
		}
		var p struct {
			ConversationID string
			Here           []person
		}
		e.h.must(ev.Decode(0, &p))
		if p.ConversationID != "cnv_of_"+e.code {
			e.h.Errorf("a socket of %s hears of %s", e.code, p.ConversationID)
		}
		if names(p.Here) == want {
			return
		}
	}
}

// user makes a user of a client and opens a socket with its session.
func (h *hall) user(code, name string) (*ear, auth.Stay) {
	h.Helper()
	tn, release := h.use(code)
	defer release()
	email := strings.ToLower(name) + "@example.com"
	_, err := h.porter.AddUser(h.ctx, tn, auth.NewUser{Email: email, Name: name, Role: "agent", Password: "tides of march 7"}, "")
	h.must(err)
	token, stay, err := h.porter.Login(h.ctx, code, email, "tides of march 7")
	h.must(err)
	return h.dial(code, func(o *sockettest.Options) { o.Auth = map[string]string{"token": token.Reveal()} }), stay
}

// Those who look at a conversation know of each other, and of who types; nobody else does.
func TestConversation(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	ana, _ := h.user("ACME", "Ana")
	bob, stay := h.user("ACME", "Bob")
	foreign, _ := h.user("BETA", "Eve")
	about := map[string]any{"conversationId": "cnv_of_ACME"}

	if r := ana.ask("subscribe", about); !r.OK || names(r.Here) != "Ana" {
		t.Fatalf("%+v", r)
	}
	if r := bob.ask("typing", about); r.OK || r.Error != "conversation.not_subscribed" {
		t.Errorf("typing from outside: %+v", r)
	}
	for _, bad := range []any{nil, 5, "cnv_of_ACME", map[string]any{}, map[string]any{"conversationId": 5}, map[string]any{"conversationId": strings.Repeat("x", 5000)}} {
		for _, event := range []string{"subscribe", "unsubscribe", "typing"} {
			if r := bob.ask(event, bad); r.OK || r.Error != "invalid" {
				t.Errorf("%s %v: %+v", event, bad, r)
			}
		}
	}
	for _, other := range []string{"cnv_of_BETA", "cnv_none", "x/../cnv_of_ACME"} {
		if r := bob.ask("subscribe", map[string]any{"conversationId": other}); r.OK || r.Error != "conversation.not_found" || r.Here != nil {
			t.Errorf("%s: %+v", other, r)
		}
	}
	if r := foreign.ask("subscribe", about); r.OK || r.Error != "conversation.not_found" {
		t.Fatalf("another client's: %+v", r)
	}
	if r := bob.ask("subscribe", about); !r.OK || names(r.Here) != "Ana Bob" {
		t.Fatalf("%+v", r)
	}
	ana.presence("Ana Bob")
	key := h.dial("ACME")
	if r := key.ask("subscribe", about); !r.OK || names(r.Here) != "Ana Bob ?" {
		t.Fatalf("%+v", r)
	}
	ana.presence("Ana Bob ?")
	type typed struct {
		ConversationID string
		By             person
		Typing         bool
	}
	for _, on := range []bool{true, false} {
		if r := bob.ask("typing", map[string]any{"conversationId": "cnv_of_ACME", "typing": on}); !r.OK {
			t.Fatalf("%+v", r)
		}
		ev, err := ana.Wait(h.ctx, "typing")
		h.must(err)
		var got typed
		if h.must(ev.Decode(0, &got)); got.ConversationID != "cnv_of_ACME" || got.Typing != on || got.By.ID != bob.ID() || *got.By.Name != "Bob" || *got.By.UserID != stay.User.ID {
			t.Errorf("%+v", got)
		}
	}
	if r := key.ask("unsubscribe", about); !r.OK {
		t.Fatalf("%+v", r)
	}
	ana.presence("Ana Bob")
	bob.Drop()
	ana.presence("Ana")

	// what is of the moment is not numbered and not told again; the foreign socket has heard nothing of all that
	h.tell("BETA", 1)
	foreign.hears(1, 1)
	if m := key.since(0); len(m.Items) != 0 {
		t.Errorf("since: %+v", m)
	}
}

func TestSubscriptionsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHallOf(t, realtime.Config{Conversation: func(context.Context, *tenant.Tenant, string) (bool, error) { return true, nil }})
	e := h.dial("ACME")
	for i := range 50 {
		if r := e.ask("subscribe", map[string]any{"conversationId": fmt.Sprint(i)}); !r.OK {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	if r := e.ask("subscribe", map[string]any{"conversationId": "one more"}); r.OK || r.Error != "subscriptions.too_many" {
		t.Errorf("%+v", r)
	}
	if r := e.ask("subscribe", map[string]any{"conversationId": "7"}); !r.OK {
		t.Errorf("again: %+v", r)
	}
	e.ask("unsubscribe", map[string]any{"conversationId": "7"})
	if r := e.ask("subscribe", map[string]any{"conversationId": "one more"}); !r.OK {
		t.Errorf("%+v", r)
	}
}

// Whoever asks too much is answered slowly, and nobody else is.
func TestTooManyEvents(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	e, other := h.dial("ACME"), h.dial("ACME")
	begun := time.Now()
	for range 150 {
		e.ask("typing")
	}
	took := time.Since(begun)
	if took < 900*time.Millisecond {
		t.Errorf("150 questions are answered in %v", took)
	}
	begun = time.Now()
	if other.ask("typing"); time.Since(begun) > took/2 {
		t.Errorf("its neighbour waits %v", time.Since(begun))
	}
}

// A client has so many sockets and no more; another's are not counted.
func TestSocketsOfOneClientAreBounded(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	var last *ear
	for range mostSockets {
		last = h.dial("ACME")
	}
	h.refused(sockettest.Options{Auth: h.auth("ACME")}, "sockets.too_many")
	h.dial("BETA")
	last.Close()
	for deadline := time.Now().Add(patience); ; {
		c, err := sockettest.Dial(h.ctx, h.url, sockettest.Options{Auth: h.auth("ACME")})
		if err == nil {
			c.Drop()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A socket goes with what it was let in with: its session, or its key.
func TestSocketsEndWithTheirProof(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	ana, stay := h.user("ACME", "Ana")
	bob, _ := h.user("ACME", "Bob")
	tn, release := h.use("ACME")
	defer release()
	ticket, _, err := h.porter.SocketToken(tn, stay.Session.ID)
	h.must(err)
	second := h.dial("ACME", func(o *sockettest.Options) { o.Auth = map[string]string{"token": ticket} })
	key := h.dial("ACME")
	begun := time.Now()
	h.must(h.porter.Logout(h.ctx, tn, stay.Session.ID))
	ana.ends()
	second.ends()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("sockets of a session that is over end after %v", took)
	}
	h.refused(sockettest.Options{Auth: map[string]string{"token": ticket}}, "unauthenticated")
	_, err = h.tenants.Change(h.ctx, "ACME", func(a *tenant.Account) error { a.APIKeys = nil; return nil })
	h.must(err)
	key.ends()
	h.tell("ACME", 1)
	bob.hears(1, 1)
}

// A client that does not read is cut off, and told later, by "since", all that it missed.
func TestSlowClientCatchesUp(t *testing.T) {
	t.Parallel()
	h := newHallOf(t, realtime.Config{MaxBuffered: 1 << 20})
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(4096)
		}
		return conn, err
	}}
	conn, _, err := dialer.Dial("ws"+strings.TrimPrefix(h.url, "http")+"/socket.io/?EIO=4&transport=websocket", nil)
	h.must(err)
	defer conn.Close()
	b, _ := json.Marshal(h.auth("ACME"))
	h.must(conn.WriteMessage(websocket.TextMessage, append([]byte("40"), b...)))
	for deadline := time.Now().Add(patience); h.hub.Sockets() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("it is not let in")
		}
		time.Sleep(time.Millisecond)
	}
	healthy := h.dial("ACME")
	const items = 40 // of 256 KiB: more than may wait, and than the network holds
	text := strings.Repeat("x", 256<<10)
	for range items {
		h.write("ACME", 1, text)
		h.hub.Poke("ACME")
		healthy.hear()
	}
	for deadline := time.Now().Add(patience); h.hub.Handler().Stats().SlowClients == 0; {
		if time.Now().After(deadline) {
			t.Fatal("it is not cut off")
		}
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(h.log.String(), "slow client") {
		t.Error("the operator is not told")
	}
	back := h.dial("ACME")
	seq, n := int64(0), int64(0)
	for more := true; more; {
		m := back.since(seq)
		for _, i := range m.Items {
			if n++; i.Data.Seq != n || i.Event != news.LeadCreated || len(i.Data.Lead.Text) != len(text) {
				t.Fatalf("item %d: number %d", n, i.Data.Seq)
			}
		}
		seq, more = *m.Seq, m.More
	}
	if n != items {
		t.Errorf("told of %d of %d", n, items)
	}
}
