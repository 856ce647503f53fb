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

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/socketio"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Limits of catching up.
const (
	sinceMost  = 500
	sinceBytes = 1 << 20 // after so many, the rest is for the next question
	readMost   = 200
	safetyLook = 2 * time.Second // news is looked for even if nobody poked
)

// Config is what a Hub is built from.
type Config struct {
	Tenants            *tenant.Registry
	Log                *slog.Logger
	MaxSessionsPerAddr int
}

// Hub is the live side of every client.
type Hub struct {
	cfg Config
	srv *socketio.Server
	ns  *socketio.Namespace

	mu      sync.Mutex
	tellers map[string]*teller
	rooms   int // made so far
	stop    context.Context
	end     context.CancelFunc
	wg      sync.WaitGroup
}

// teller tells one client's sockets; it lives while there are any.
type teller struct {
	room    string // never the one of a teller before it, which may still be telling
	sockets int
	poke    chan struct{}
	quit    context.CancelFunc

	mu   sync.Mutex // held while the room is told, and while a socket comes into it
	told int64      // up to which number the room has heard; its goroutine alone writes it
}

// guest is a socket's data: whose it is, and which number was the newest when it was let in.
type guest struct {
	code string
	seq  int64
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
	h := &Hub{cfg: cfg, tellers: map[string]*teller{}}
	h.stop, h.end = context.WithCancel(context.Background())
	h.srv = socketio.NewServer(socketio.Config{
		Logger:             cfg.Log,
		MaxSessionsPerAddr: cfg.MaxSessionsPerAddr,
		AllowOrigin: func(r *http.Request, origin string) bool {
			return socketio.SameOrigin(r, origin) || cfg.Tenants.AnyAllowsOrigin(origin)
		},
	})
	h.ns = h.srv.Of("/")
	h.ns.Use(h.admit)
	h.ns.OnConnect(h.connected)
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
	h.wg.Wait()
	return err
}

// Sockets is the number of connected sockets.
func (h *Hub) Sockets() int { return h.ns.Len() }

// Poke says that a client has news. It never blocks.
func (h *Hub) Poke(code string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.tellers[code]; t != nil {
		select {
		case t.poke <- struct{}{}:
		default:
		}
	}
}

// Drop ends a client's sockets: it was suspended or erased.
func (h *Hub) Drop(code string) {
	h.mu.Lock()
	t := h.tellers[code]
	h.mu.Unlock()
	if t != nil {
		h.ns.To(t.room).Disconnect(true)
	}
}

func unauthenticated() error {
	return &socketio.ConnectError{Message: "unauthenticated", Data: map[string]string{"code": "unauthenticated"}}
}

// admit lets a socket in that brings an API key of its client.
func (h *Hub) admit(ctx context.Context, hs *socketio.Handshake) (any, error) {
	var auth struct {
		ClientCode string `json:"clientCode"`
		APIKey     string `json:"apiKey"`
	}
	if len(hs.Auth) == 0 || json.Unmarshal(hs.Auth, &auth) != nil {
		return nil, unauthenticated()
	}
	code, err := h.cfg.Tenants.Authenticate(auth.ClientCode, auth.APIKey)
	if fault.Of(err) == fault.Forbidden {
		return nil, &socketio.ConnectError{Message: "suspended", Data: map[string]string{"code": "client.suspended"}}
	}
	if err != nil {
		return nil, unauthenticated()
	}
	if hs.Origin != "" && !ownPage(hs) && !h.cfg.Tenants.AllowsOrigin(code, hs.Origin) {
		return nil, &socketio.ConnectError{Message: "origin refused", Data: map[string]string{"code": "origin.refused"}}
	}
	seq, err := h.newest(ctx, code)
	if err != nil {
		if ctx.Err() == nil {
			h.cfg.Log.Warn("a socket cannot be let in; its client's database cannot be reached", "client", code, "error", err)
		}
		return nil, &socketio.ConnectError{Message: "unavailable", Data: map[string]string{"code": "client.unavailable"}}
	}
	return guest{code, seq}, nil
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
	g, _ := s.Data().(guest)
	s.On("since", func(ctx context.Context, args []json.RawMessage, ack func(...any)) { h.since(ctx, g.code, args, ack) })
	t := h.join(g)
	if t == nil {
		s.Disconnect(true)
		return
	}
	s.OnDisconnect(func(string) { h.leave(g.code, t) })
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
func (h *Hub) enter(s *socketio.Socket, g guest, t *teller) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told > g.seq {
		if err := h.catchUp(s, g, t.told); err != nil && !errors.Is(err, socketio.ErrDisconnected) {
			return err
		}
	}
	s.Join(t.room)
	return nil
}

func (h *Hub) catchUp(s *socketio.Socket, g guest, told int64) error {
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
func (h *Hub) join(g guest) *teller {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop.Err() != nil {
		return nil
	}
	t := h.tellers[g.code]
	if t == nil {
		ctx, quit := context.WithCancel(h.stop)
		h.rooms++
		t = &teller{room: g.code + "#" + strconv.Itoa(h.rooms), poke: make(chan struct{}, 1), quit: quit, told: g.seq}
		h.tellers[g.code] = t
		h.wg.Go(func() { h.tell(ctx, g.code, t) })
	}
	t.sockets++
	return t
}

func (h *Hub) leave(code string, t *teller) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.sockets--; t.sockets == 0 {
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
		if err := h.ns.To(t.room).Emit(i.Event, say(i)); err != nil {
			h.cfg.Log.Warn("news cannot be told", "client", code, "event", i.Event, "error", err)
		}
		t.told = i.Seq
	}
}

// current is the number of a client's newest item.
func current(ctx context.Context, tn *tenant.Tenant) (int64, error) {
	items, err := news.Items.Find(ctx, tn.DB, store.Query{Order: "seq", Desc: true, Limit: 1})
	if err != nil || len(items) == 0 {
		return 0, err
	}
	return items[0].Seq, nil
}

func after(ctx context.Context, tn *tenant.Tenant, seq int64, limit int) ([]*news.Item, error) {
	return news.Items.Find(ctx, tn.DB, store.Query{Order: "seq", After: &store.Cursor{Value: seq, ID: "\xff"}, Limit: limit})
}

// sinceAnswer is what "since" is acknowledged with.
type sinceAnswer struct {
	Items []saidEvent `json:"items"`
	Seq   int64       `json:"seq"`  // ask on from here
	More  bool        `json:"more"` // at once
	// Reset: the items since then are no longer kept; read all anew, and ask on from Seq.
	Reset bool   `json:"reset"`
	Error string `json:"error,omitempty"`
}

type saidEvent struct {
	Event string `json:"event"`
	Data  Said   `json:"data"`
}

// since answers what a client has missed after a number.
func (h *Hub) since(ctx context.Context, code string, args []json.RawMessage, ack func(...any)) {
	answer := sinceAnswer{Items: []saidEvent{}}
	var seq int64
	if len(args) == 0 || string(args[0]) == "null" || json.Unmarshal(args[0], &seq) != nil || seq < 0 {
		answer.Error = "seq must be a number, 0 or more"
		ack(answer)
		return
	}
	tn, release, err := h.cfg.Tenants.Use(ctx, code)
	if err != nil {
		answer.Error, answer.Seq, answer.More = "unavailable", seq, true
		ack(answer)
		return
	}
	defer release()
	if err := h.fillSince(ctx, tn, seq, &answer); err != nil {
		h.cfg.Log.Warn("a client's news cannot be read", "client", code, "error", err)
		answer = sinceAnswer{Items: []saidEvent{}, Seq: seq, More: true, Error: "unavailable"}
	}
	ack(answer)
}

func (h *Hub) fillSince(ctx context.Context, tn *tenant.Tenant, seq int64, answer *sinceAnswer) error {
	items, err := after(ctx, tn, seq, sinceMost)
	if err != nil {
		return err
	}
	// Read after the items: what was deleted before they were read shows here.
	oldest, err := news.Items.Find(ctx, tn.DB, store.Query{Order: "seq", Limit: 1})
	if err != nil {
		return err
	}
	now, err := current(ctx, tn)
	if err != nil {
		return err
	}
	if seq > now || (len(oldest) > 0 && seq+1 < oldest[0].Seq) {
		answer.Seq, answer.Reset = now, true
		return nil
	}
	answer.Seq, answer.More = seq, len(items) == sinceMost
	size := 0
	for _, i := range items {
		for _, resource := range i.Data {
			size += len(resource)
		}
		if size > sinceBytes && len(answer.Items) > 0 {
			answer.More = true
			break
		}
		answer.Items = append(answer.Items, saidEvent{i.Event, say(i)})
		answer.Seq = i.Seq
	}
	return nil
}
