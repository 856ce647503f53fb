package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/socketio"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Limits of catching up.
const (
	sinceMost  = 500
	sinceBytes = 1 << 20 // after so many, the rest is for the next question
	readMost   = 200
	safetyLook = 2 * time.Second // news is looked for even if nobody poked
	proofLook  = 2 * time.Second // between two looks at whether what sockets were let in with still stands
)

// Config is what a Hub is built from.
type Config struct {
	Tenants *tenant.Registry
	Porter  *auth.Porter
	Log     *slog.Logger
	// Conversation tells whether a client has a conversation.
	Conversation func(ctx context.Context, tn *tenant.Tenant, id string) (bool, error)
	// ClientAddr names the address that a request comes from; "" is not counted. nil: the neighbour's.
	ClientAddr          func(r *http.Request) string
	MaxSessionsPerAddr  int // 0: 500
	MaxSocketsPerClient int // 0: 10,000
	MaxBuffered         int // bytes that may wait for one socket before it is cut off; 0: 16 MiB
	// Bus joins this hub to those of other nodes; nil: it is alone. SocketIOKey is how the channels of Socket.IO servers begin
	// there; "": as usual.
	Bus         bus.Bus
	SocketIOKey string
}

// Hub is the live side of every client.
type Hub struct {
	cfg Config
	srv *socketio.Server
	ns  *socketio.Namespace

	others *others // nil: there are none

	presenting sync.Mutex // while it is looked up who is where, and said

	mu      sync.Mutex
	tellers map[string]*teller
	rooms   int // made so far
	stop    context.Context
	end     context.CancelFunc
	wg      sync.WaitGroup
}

// teller tells one client's sockets; it lives while there are any.
type teller struct {
	room    string                      // never the one of a teller before it, which may still be telling
	sockets map[*socketio.Socket]string // with the proof that each stands on
	poke    chan struct{}
	quit    context.CancelFunc

	mu   sync.Mutex // held while the room is told, and while a socket comes into it
	told int64      // up to which number the room has heard; its goroutine alone writes it
}

// guest is a socket's data: whose it is, and which number was the newest when it was let in. What follows that is its
// handlers' own, which run one at a time.
type guest struct {
	code string
	seq  int64
	pass auth.Pass

	pace *rate.Limiter
	subs map[string]bool // conversations; nil until there is one
}

// Said is one event as a socket hears it.
type Said map[string]any

func say(i *news.Item) Said {
	s := Said{"id": i.ID, "seq": i.Seq, "at": news.Stamp(i.At)}
	for name, resource := range i.Data {
		s[name] = resource
	}
	return s
}

// New makes a hub; mount Handler at /socket.io/, and Close it.
func New(cfg Config) *Hub {
	if cfg.MaxSessionsPerAddr == 0 {
		cfg.MaxSessionsPerAddr = 500
	}
	if cfg.MaxSocketsPerClient == 0 {
		cfg.MaxSocketsPerClient = 10_000
	}
	h := &Hub{cfg: cfg, tellers: map[string]*teller{}}
	h.stop, h.end = context.WithCancel(context.Background())
	var cluster socketio.Adapter
	if cfg.Bus != nil {
		cluster = socketio.NewCluster(socketio.ClusterConfig{Wire: cfg.Bus.Wire(), Key: cfg.SocketIOKey, FixedRooms: true})
	}
	h.srv = socketio.NewServer(socketio.Config{
		Adapter:            cluster,
		Logger:             cfg.Log,
		ClientAddr:         cfg.ClientAddr,
		MaxSessionsPerAddr: cfg.MaxSessionsPerAddr,
		MaxBuffered:        cfg.MaxBuffered,
		AllowOrigin: func(r *http.Request, origin string) bool {
			return socketio.SameOrigin(r, origin) || cfg.Tenants.AnyAllowsOrigin(origin)
		},
	})
	h.ns = h.srv.Of("/")
	h.ns.Use(h.admit)
	h.ns.OnConnect(h.connected)
	h.wg.Go(h.watch)
	if cfg.Bus != nil {
		h.others = h.joinOthers(cfg.Bus)
	}
	return h
}

// Handler serves the sockets.
func (h *Hub) Handler() *socketio.Server { return h.srv }

// Close tells the sockets and ends them.
func (h *Hub) Close(ctx context.Context) error {
	err := h.srv.Close(ctx)
	h.mu.Lock()
	h.end() // from here on no teller begins
	h.mu.Unlock()
	if h.others != nil {
		h.others.leave()
	}
	h.wg.Wait()
	return err
}

// Sockets is the number of connected sockets.
func (h *Hub) Sockets() int { return h.ns.Len() }

// Poke says that a client has news, to its sockets on every node. It never blocks.
func (h *Hub) Poke(code string) {
	h.poke(code)
	if h.others != nil {
		h.others.poke(code)
	}
}

// poke is Poke, for the sockets here.
func (h *Hub) poke(code string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.tellers[code]; t != nil {
		t.wake()
	}
}

func (t *teller) wake() {
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

// Drop ends a client's sockets here: it was suspended or erased.
func (h *Hub) Drop(code string) {
	h.mu.Lock()
	t := h.tellers[code]
	h.mu.Unlock()
	if t != nil {
		h.ns.To(t.room).Local().Disconnect(true)
	}
}

func unauthenticated() error {
	return &socketio.ConnectError{Message: "unauthenticated", Data: map[string]string{"code": "unauthenticated"}}
}

func refusal(message, code string) error {
	return &socketio.ConnectError{Message: message, Data: map[string]string{"code": code}}
}

// admit lets a socket in that brings an API key, a session's token or a socket token. A cookie alone lets nobody in: pages
// of any origin can make a browser send it, and a token costs a page of our own one request.
func (h *Hub) admit(ctx context.Context, hs *socketio.Handshake) (any, error) {
	var c auth.Credentials
	if len(hs.Auth) == 0 || json.Unmarshal(hs.Auth, &c) != nil {
		return nil, unauthenticated()
	}
	pass, err := h.cfg.Porter.Admit(ctx, c)
	switch {
	case err == nil:
	case fault.Of(err) == fault.Unauthenticated:
		return nil, unauthenticated()
	case fault.Of(err) == fault.Forbidden:
		return nil, refusal("suspended", "client.suspended")
	default:
		return nil, h.unavailable(ctx, pass.Client, err)
	}
	code := pass.Client
	if hs.Origin != "" && !ownPage(hs) && !h.cfg.Tenants.AllowsOrigin(code, hs.Origin) {
		return nil, refusal("origin refused", "origin.refused")
	}
	if h.full(code) {
		return nil, refusal("too many sockets", "sockets.too_many")
	}
	seq, err := h.newest(ctx, code)
	if err != nil {
		return nil, h.unavailable(ctx, code, err)
	}
	return &guest{code: code, seq: seq, pass: pass, pace: rate.NewLimiter(eventsPerSecond, eventsBurst)}, nil
}

func (h *Hub) unavailable(ctx context.Context, code string, err error) error {
	if ctx.Err() == nil {
		h.cfg.Log.Warn("a socket cannot be let in; its client's database cannot be reached", "client", code, "error", err)
	}
	return refusal("unavailable", "client.unavailable")
}

// full tells whether a client has as many sockets as it may have.
func (h *Hub) full(code string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tellers[code]
	return t != nil && len(t.sockets) >= h.cfg.MaxSocketsPerClient
}

func (h *Hub) newest(ctx context.Context, code string) (int64, error) {
	tn, release, err := h.cfg.Tenants.Use(ctx, code)
	if err != nil {
		return 0, err
	}
	defer release()
	return current(ctx, tn)
}

// ownPage tells whether the page that opened a socket came from this server.
func ownPage(hs *socketio.Handshake) bool {
	u, err := url.Parse(hs.Origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, hs.Host)
}

func (h *Hub) connected(s *socketio.Socket) {
	g, _ := s.Data().(*guest)
	on := func(event string, do func(ctx context.Context, args []json.RawMessage, ack func(...any))) {
		s.On(event, func(ctx context.Context, args []json.RawMessage, ack func(...any)) {
			if g.pace.Wait(ctx) == nil { // whoever asks too much waits, unread, and nobody else does
				do(ctx, args, ack)
			}
		})
	}
	on("since", func(ctx context.Context, args []json.RawMessage, ack func(...any)) { h.since(ctx, g.code, args, ack) })
	on("subscribe", func(ctx context.Context, args []json.RawMessage, ack func(...any)) { h.subscribe(ctx, s, g, args, ack) })
	on("unsubscribe", func(_ context.Context, args []json.RawMessage, ack func(...any)) { h.unsubscribe(s, g, args, ack) })
	on("typing", func(_ context.Context, args []json.RawMessage, ack func(...any)) { h.typing(s, g, args, ack) })
	t := h.join(s, g)
	if t == nil {
		s.Disconnect(true)
		return
	}
	s.OnDisconnect(func(string) {
		h.leave(s, g.code, t)
		for conversation := range g.subs {
			h.tellPresence(g.code, conversation)
		}
	})
	if err := h.enter(s, g, t); err != nil {
		h.cfg.Log.Warn("a socket cannot be told what it missed; it is closed to come again", "client", g.code, "error", err)
		s.Disconnect(true)
	}
	if h.cfg.Tenants.Status(g.code) != tenant.Active { // since it was let in; Drop may not have seen it
		s.Disconnect(true)
	}
}

// enter brings a socket into its room. What the room heard since the socket was let in, it hears first: so it hears
// everything once, in order.
func (h *Hub) enter(s *socketio.Socket, g *guest, t *teller) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told > g.seq {
		if err := h.catchUp(s, g, t.told); err != nil && !errors.Is(err, socketio.ErrDisconnected) {
			return err
		}
	}
	s.Join(t.room)
	if h.others != nil {
		s.Join(g.code) // by that others on the bus may speak to a client's sockets
	}
	return nil
}

func (h *Hub) catchUp(s *socketio.Socket, g *guest, told int64) error {
	tn, release, err := h.cfg.Tenants.Use(h.stop, g.code)
	if err != nil {
		return err
	}
	defer release()
	for seq := g.seq; seq < told; {
		items, err := after(h.stop, tn, seq, readMost)
		if err != nil || len(items) == 0 {
			return err
		}
		for _, i := range items {
			if i.Seq > told { // the room has yet to hear it
				return nil
			}
			if err := s.Emit(i.Event, say(i)); err != nil {
				return err
			}
			seq = i.Seq
		}
	}
	return nil
}

// join counts a socket in; nil if the hub is closing.
func (h *Hub) join(s *socketio.Socket, g *guest) *teller {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop.Err() != nil {
		return nil
	}
	t := h.tellers[g.code]
	if t == nil {
		ctx, quit := context.WithCancel(h.stop)
		h.rooms++
		t = &teller{room: g.code + "#" + strconv.Itoa(h.rooms), poke: make(chan struct{}, 1), quit: quit, told: g.seq, sockets: map[*socketio.Socket]string{}}
		h.tellers[g.code] = t
		h.wg.Go(func() { h.tell(ctx, g.code, t) })
	}
	t.sockets[s] = g.pass.Proof
	return t
}

func (h *Hub) leave(s *socketio.Socket, code string, t *teller) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if delete(t.sockets, s); len(t.sockets) == 0 {
		t.quit()
		delete(h.tellers, code)
	}
}

// tell reads a client's news in order and says it to the client's room.
func (h *Hub) tell(ctx context.Context, code string, t *teller) {
	tick := time.NewTicker(safetyLook)
	defer tick.Stop()
	for {
		if err := h.tellNew(ctx, code, t); err != nil && ctx.Err() == nil {
			h.cfg.Log.Warn("a client's news cannot be read; its sockets hear later", "client", code, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.poke:
		case <-tick.C:
		}
	}
}

func (h *Hub) tellNew(ctx context.Context, code string, t *teller) error {
	tn, release, err := h.cfg.Tenants.Use(ctx, code)
	if err != nil {
		return err
	}
	defer release()
	for {
		items, err := after(ctx, tn, t.told, readMost)
		if err != nil {
			return err
		}
		h.tellRoom(t, code, items)
		if len(items) < readMost {
			return nil
		}
	}
}

// tellRoom tells a room a part of its client's news.
func (h *Hub) tellRoom(t *teller, code string, items []*news.Item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range items {
		if err := h.ns.To(t.room).Local().Emit(i.Event, say(i)); err != nil {
			h.cfg.Log.Warn("news cannot be told", "client", code, "event", i.Event, "error", err)
		}
		t.told = i.Seq
	}
}
