package googletest

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Config is a server's. The zero Config listens on a free loopback port.
type Config struct {
	Addr         string        // default "127.0.0.1:0"
	TokenLife    time.Duration // of access tokens; default 1 h
	PendingPolls int           // a Meet link is there at the so-many-th reading of its event; 0: at once
	JournalLimit int           // how many requests, writes and mails are kept; 0 for all
	Now          func() time.Time
}

// Server is a running Google. It is safe for concurrent use.
type Server struct {
	URL string // of the listener: the client's BaseURL

	cfg  Config
	http *http.Server
	life context.Context // ends with Close
	end  context.CancelFunc
	work sync.WaitGroup

	mu        sync.Mutex
	grants    []*Grant
	services  []*ServiceAccount
	access    map[string]*access   // by access token
	calendars map[string]*calendar // by id
	links     map[string]string    // by user and request id
	rules     []*rule
	journal   journal
}

// Start listens.
func Start(cfg Config) (*Server, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.TokenLife == 0 {
		cfg.TokenLife = time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + ln.Addr().String(), cfg: cfg,
		access: map[string]*access{}, calendars: map[string]*calendar{}, links: map[string]string{}}
	s.life, s.end = context.WithCancel(context.Background())
	s.journal.changed = make(chan struct{})
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	s.work.Go(func() { _ = s.http.Serve(ln) })
	return s, nil
}

// Close ends the listener and open requests.
func (s *Server) Close() {
	s.end()
	_ = s.http.Close()
	s.work.Wait()
}

// ServeHTTP answers as Google would, or as a Fault says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, who := s.read(r)
	if f := s.fault(req, true); f != nil {
		s.note(req, f)
		f.do(s, w, r, nil, "")
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		s.note(req, nil)
		s.write(w, req, refuse(http.StatusBadRequest, "badRequest", "The body cannot be read."))
		return
	}
	if req.Kind != "token" { // whose bodies are secrets
		req.Body = body
	}
	f := s.fault(req, false)
	s.note(req, f)
	if f != nil && !f.accept && f.do(s, w, r, nil, string(body)) {
		s.answered(req, f.status)
		return
	}
	a := s.answer(r, req, who, body, f)
	if f != nil && f.accept && a.status < 300 && f.do(s, w, r, a.body, string(body)) {
		s.answered(req, f.status)
		return
	}
	s.write(w, req, a)
}

func (s *Server) answer(r *http.Request, req *Request, who *access, body []byte, f *Fault) answer {
	if r.URL.Path == "/token" {
		return s.token(r, body)
	}
	cal, id, ok := route(r)
	if !ok || req.Kind == "other" {
		return refuse(http.StatusNotFound, "notFound", "Not Found")
	}
	if who == nil {
		if req.Token == "" {
			return refuse(http.StatusUnauthorized, "required", "Login Required.")
		}
		return refuse(http.StatusUnauthorized, "authError", "Invalid Credentials")
	}
	if !who.may(req.Kind) {
		return refuse(http.StatusForbidden, "insufficientPermissions", "Request had insufficient authentication scopes.")
	}
	return s.serve(r, req, who, cal, id, body, f)
}

// route takes a Calendar address apart; the parts are unescaped one by one, since ids may hold slashes.
func route(r *http.Request) (calendar, event string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/calendar/v3/calendars/")
	if !ok {
		return "", "", false
	}
	parts := strings.Split(rest, "/")
	for i := range parts {
		p, err := url.PathUnescape(parts[i])
		if err != nil || p == "" {
			return "", "", false
		}
		parts[i] = p
	}
	if len(parts) < 2 || len(parts) > 3 || parts[1] != "events" {
		return "", "", false
	}
	if len(parts) == 3 {
		event = parts[2]
	}
	return parts[0], event, true
}

func kindOf(r *http.Request) string {
	if r.URL.Path == "/token" {
		return "token"
	}
	_, id, ok := route(r)
	kind := map[string]string{"POST false": "insert", "GET false": "list", "GET true": "get", "PATCH true": "patch", "DELETE true": "delete"}[r.Method+map[bool]string{false: " false", true: " true"}[id != ""]]
	if !ok || kind == "" {
		return "other"
	}
	return kind
}

// answer is what a well-behaved Google says.
type answer struct {
	status int
	body   []byte
}

func reply(v any) answer {
	b, _ := json.Marshal(v)
	return answer{http.StatusOK, b}
}

// refuse is Calendar's error envelope.
func refuse(status int, reason, message string) answer {
	domain := "global"
	if strings.HasSuffix(reason, "Exceeded") {
		domain = "usageLimits"
	}
	a := reply(map[string]any{"error": map[string]any{"code": status, "message": message,
		"errors": []any{map[string]any{"domain": domain, "reason": reason, "message": message}}}})
	a.status = status
	return a
}

// deny is the token endpoint's error.
func deny(status int, code, description string) answer {
	a := reply(map[string]any{"error": code, "error_description": description})
	a.status = status
	return a
}

func (s *Server) write(w http.ResponseWriter, req *Request, a answer) {
	s.answered(req, a.status)
	if len(a.body) > 0 {
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}
