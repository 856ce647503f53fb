package smtptest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"time"
)

// Config is a server's. The zero Config listens on a free loopback port, offers
// STARTTLS and asks for no sign-in.
type Config struct {
	Addr     string            // default "127.0.0.1:0"
	Security string            // "starttls" (default), "tls" or "none"
	Users    map[string]string // passwords by username; nil: AUTH is not offered, and not needed

	Mechanisms []string // of AUTH; default PLAIN and LOGIN; CRAM-MD5 is known too
	Names      []string // that the certificate is for; default localhost and the loopback addresses
	Expired    bool     // the certificate is

	SMTPUTF8         bool          // offer it
	Size             int           // the largest message, in bytes; 0: any, and SIZE is not offered
	NoEnhanced       bool          // answer without RFC 3463 codes
	NoPipelining     bool          // do not offer PIPELINING
	MaxPerConnection int           // answer 421 to the message after so many, and close; 0: any number
	Greylist         bool          // refuse each recipient's first message with 451
	IdleTimeout      time.Duration // say 421 and close after so long without a command; 0: never
	Delay            time.Duration // before each answer
	JournalLimit     int           // how many messages and commands are kept; 0: all
	Now              func() time.Time
}

// Server is a running SMTP server. It is safe for concurrent use.
type Server struct {
	Addr string // of the listener, "127.0.0.1:41234"

	cfg   Config
	ln    net.Listener
	roots *x509.CertPool
	cert  tls.Certificate
	life  context.Context // ends with Close
	end   context.CancelFunc
	work  sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	closed  bool
	greyed  map[string]bool
	rules   []*rule
	journal journal
}

// Start listens.
func Start(cfg Config) (*Server, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Security == "" {
		cfg.Security = "starttls"
	}
	if cfg.Mechanisms == nil {
		cfg.Mechanisms = []string{"PLAIN", "LOGIN"}
	}
	if cfg.Names == nil {
		cfg.Names = []string{"localhost", "127.0.0.1", "::1"}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, conns: map[net.Conn]bool{}, greyed: map[string]bool{}}
	s.journal.changed = make(chan struct{})
	var err error
	if s.cert, s.roots, err = certificate(cfg.Names, cfg.Expired); err != nil {
		return nil, err
	}
	if s.ln, err = net.Listen("tcp", cfg.Addr); err != nil {
		return nil, err
	}
	s.Addr = s.ln.Addr().String()
	s.life, s.end = context.WithCancel(context.Background())
	s.work.Go(s.accept)
	return s, nil
}

// RootCAs are those that a client has to trust.
func (s *Server) RootCAs() *x509.CertPool { return s.roots }

// HostPort is Addr in its parts.
func (s *Server) HostPort() (string, int) {
	a := s.ln.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

// Close ends the listener and all connections.
func (s *Server) Close() {
	s.end()
	_ = s.ln.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

// Disconnect resets all connections, as a server's crash would.
func (s *Server) Disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		reset(c)
	}
}

func (s *Server) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = c.Close()
			return
		}
		s.conns[c] = true
		s.work.Go(func() { s.serve(c) })
		s.mu.Unlock()
	}
}

func (s *Server) serve(raw net.Conn) {
	var nth int
	s.change(func(j *journal) {
		j.opened++
		j.open++
		j.peak = max(j.peak, j.open)
		nth = j.opened
	})
	defer func() {
		_ = raw.Close()
		s.mu.Lock()
		delete(s.conns, raw)
		s.mu.Unlock()
		s.change(func(j *journal) { j.open-- })
	}()
	c := &conn{s: s, raw: raw, link: raw, nth: nth}
	if s.cfg.Security == "tls" && c.secure() != nil {
		return
	}
	c.talk()
}

// grey tells whether a recipient is met for the first time.
func (s *Server) grey(to string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	to = strings.ToLower(to)
	first := !s.greyed[to]
	s.greyed[to] = true
	return first
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
