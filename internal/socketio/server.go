package socketio

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"
)

// Server is a Socket.IO server. It is an http.Handler, to be mounted at /socket.io/.
// It has to be closed.
type Server struct {
	cfg      Config
	ctx      context.Context // ends when Close has ended
	cancel   context.CancelFunc
	upgrader *websocket.Upgrader
	stats    counters
	closing  atomic.Bool
	wg       sync.WaitGroup // twice per session (its transport, its callbacks) and its goroutines

	// recv, in tests, takes the place of the Socket.IO layer.
	recv func(s *session, data []byte, binary bool) error

	mu         sync.RWMutex
	sessions   map[string]*session
	perAddr    map[string]int
	namespaces map[string]*Namespace
	detach     []func() // from the adapter
}

// NewServer makes a server. Its namespaces are those that Of was called for.
func NewServer(cfg Config) *Server {
	srv := &Server{
		cfg:        cfg.withDefaults(),
		sessions:   map[string]*session{},
		perAddr:    map[string]int{},
		namespaces: map[string]*Namespace{},
	}
	srv.ctx, srv.cancel = context.WithCancel(context.Background())
	srv.upgrader = newUpgrader(srv)
	return srv
}

// Of returns the namespace of that name, and makes it if need be. The main namespace is
// "/". Clients are refused by namespaces that were never asked for here. It panics if
// the name holds a comma, which the protocol cannot carry.
func (srv *Server) Of(name string) *Namespace {
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	if strings.Contains(name, ",") || len(name) > srv.cfg.MaxNamespace {
		panic(fmt.Sprintf("socketio: bad namespace %q", name))
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	ns := srv.namespaces[name]
	if ns == nil {
		ns = &Namespace{srv: srv, name: name, sockets: map[string]*Socket{}, rooms: map[string]map[*Socket]struct{}{}}
		srv.namespaces[name] = ns
		if a := srv.cfg.Adapter; a != nil && !srv.closing.Load() {
			srv.detach = append(srv.detach, a.Attach(ns))
		}
	}
	return ns
}

func (srv *Server) namespace(name string) *Namespace {
	srv.mu.RLock()
	defer srv.mu.RUnlock()
	return srv.namespaces[name]
}

// refusal is an error of the Engine.IO handshake, as clients know them.
type refusal struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	status  int
}

var (
	errUnknownTransport = refusal{0, "Transport unknown", http.StatusBadRequest}
	errUnknownSession   = refusal{1, "Session ID unknown", http.StatusBadRequest}
	errBadMethod        = refusal{2, "Bad handshake method", http.StatusBadRequest}
	errBadRequest       = refusal{3, "Bad request", http.StatusBadRequest}
	errTooLarge         = refusal{3, "Payload too large", http.StatusRequestEntityTooLarge}
	errForbidden        = refusal{4, "Forbidden", http.StatusForbidden}
	errTooMany          = refusal{4, "Too many sessions", http.StatusTooManyRequests}
	errFull             = refusal{4, "Server is full", http.StatusServiceUnavailable}
	errClosing          = refusal{4, "Server is closing", http.StatusServiceUnavailable}
	errBadProtocol      = refusal{5, "Unsupported protocol version", http.StatusBadRequest}
)

func (srv *Server) refuse(w http.ResponseWriter, ref refusal) {
	srv.stats.refused.Add(1)
	body, _ := json.Marshal(ref)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if ref.status == http.StatusServiceUnavailable || ref.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "5")
	}
	w.WriteHeader(ref.status)
	_, _ = w.Write(body)
}

// ServeHTTP serves the requests of both transports, whatever their path.
func (srv *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !srv.checkOrigin(w, r) {
		srv.refuse(w, errForbidden)
		return
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	query := r.URL.Query()
	transport, sid := query.Get("transport"), query.Get("sid")
	upgrade := websocket.IsWebSocketUpgrade(r)
	if transport != "polling" && transport != "websocket" {
		srv.refuse(w, errUnknownTransport)
		return
	}
	if query.Get("EIO") != "4" {
		srv.refuse(w, errBadProtocol)
		return
	}
	var s *session
	if sid != "" {
		srv.mu.RLock()
		s = srv.sessions[sid]
		srv.mu.RUnlock()
		if s == nil {
			srv.refuse(w, errUnknownSession)
			return
		}
	} else if r.Method != http.MethodGet {
		srv.refuse(w, errBadMethod)
		return
	}
	switch {
	case upgrade != (transport == "websocket"):
		srv.refuse(w, errBadRequest)
	case s != nil && upgrade:
		s.serveUpgrade(w, r)
	case s != nil && r.Method == http.MethodGet:
		s.servePoll(w, r)
	case s != nil && r.Method == http.MethodPost:
		s.servePost(w, r)
	case s != nil:
		srv.refuse(w, errBadRequest)
	case upgrade:
		srv.serveWebsocket(w, r)
	default:
		srv.servePolling(w, r)
	}
}

// servePolling opens a session over polling.
func (srv *Server) servePolling(w http.ResponseWriter, r *http.Request) {
	s, problem := srv.newSession(r)
	if problem != nil {
		srv.refuse(w, *problem)
		return
	}
	s.mu.Lock()
	s.start(true)
	s.mu.Unlock()
	s.servePoll(w, r)
}

// checkOrigin sets the CORS headers and reports whether the request's origin is allowed.
func (srv *Server) checkOrigin(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if !srv.cfg.AllowOrigin(r, origin) {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	if srv.cfg.AllowCredentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			h.Set("Access-Control-Allow-Headers", asked)
			h.Add("Vary", "Access-Control-Request-Headers")
		}
		h.Set("Access-Control-Max-Age", "600")
	}
	return true
}

// newSession admits a client, within the limits. Its transport and its first frame are
// still to come.
func (srv *Server) newSession(r *http.Request) (*session, *refusal) {
	s := &session{
		srv:      srv,
		id:       newID(),
		addr:     srv.cfg.ClientAddr(r),
		remote:   r.RemoteAddr,
		host:     r.Host,
		header:   r.Header,
		rawQuery: r.URL.RawQuery,
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch {
	case srv.closing.Load():
		return nil, &errClosing
	case srv.cfg.MaxSessions > 0 && len(srv.sessions) >= srv.cfg.MaxSessions:
		return nil, &errFull
	case srv.cfg.MaxSessionsPerAddr > 0 && s.addr != "" && srv.perAddr[s.addr] >= srv.cfg.MaxSessionsPerAddr:
		return nil, &errTooMany
	}
	s.ctx, s.cancel = context.WithCancel(srv.ctx)
	srv.wg.Add(2) // done in forget, and after the disconnect callbacks
	srv.sessions[s.id] = s
	srv.perAddr[s.addr]++
	return s, nil
}

// forget drops a session whose transport has ended. It is called once for each.
func (srv *Server) forget(s *session) {
	srv.mu.Lock()
	delete(srv.sessions, s.id)
	if srv.perAddr[s.addr]--; srv.perAddr[s.addr] <= 0 {
		delete(srv.perAddr, s.addr)
	}
	srv.mu.Unlock()
	srv.wg.Done()
}

func (srv *Server) openFrame(sid string, upgradable bool) *frame {
	open := struct {
		SID          string   `json:"sid"`
		Upgrades     []string `json:"upgrades"`
		PingInterval int64    `json:"pingInterval"`
		PingTimeout  int64    `json:"pingTimeout"`
		MaxPayload   int      `json:"maxPayload"`
	}{sid, []string{}, srv.cfg.PingInterval.Milliseconds(), srv.cfg.PingTimeout.Milliseconds(), srv.cfg.MaxPayload}
	if upgradable {
		open.Upgrades = []string{"websocket"}
	}
	body, _ := json.Marshal(open)
	return &frame{data: append([]byte{eioOpen}, body...)}
}

// noteClose counts the end of a session, and logs what an operator may have to act on.
func (srv *Server) noteClose(reason string, backlog int64) {
	switch reason {
	case ReasonSlowClient:
		srv.stats.slow.Add(1)
		srv.cfg.Logger.Warn("socketio: slow client cut off", "waitingBytes", backlog)
	case ReasonPingTimeout:
		srv.stats.pingTimeouts.Add(1)
	case ReasonParseError:
		srv.stats.malformed.Add(1)
	}
}

// Close ends the server: it takes no new clients, tells those it has, sends what still
// waits for them, and runs their disconnect callbacks. When ctx is done it cuts off the
// rest and returns ctx's error. The official clients try to reconnect.
func (srv *Server) Close(ctx context.Context) error {
	srv.mu.Lock()
	srv.closing.Store(true)
	detach := srv.detach
	srv.detach = nil
	sessions := make([]*session, 0, len(srv.sessions))
	for _, s := range srv.sessions {
		sessions = append(sessions, s)
	}
	srv.mu.Unlock()
	for _, leave := range detach {
		leave()
	}
	for _, s := range sessions {
		s.close(ReasonServerShutdown, polite)
	}
	done := make(chan struct{})
	go func() {
		srv.wg.Wait()
		close(done)
	}()
	defer srv.cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, s := range sessions {
		s.close(ReasonServerShutdown, abrupt)
	}
	return ctx.Err()
}

// newID makes an id that cannot be guessed: 20 characters, safe in a URL.
func newID() string {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
