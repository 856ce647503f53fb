package smtp

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// Config is how mail is handed in. Zero fields take the defaults.
type Config struct {
	// AllowPrivate allows private and loopback addresses, and any port.
	AllowPrivate bool

	// DialContext replaces the dialer, and with it the check of addresses; ports are checked still.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	RootCAs   *x509.CertPool // who signs servers' certificates; default the system's
	HelloName string         // who we say we are; default the machine's name

	DialTimeout    time.Duration // to connect, greet, secure and sign in; default 30 s
	CommandTimeout time.Duration // for what is said before the message; default 1 min
	DataTimeout    time.Duration // for the message and the answer to it; default 5 min, as that answer decides
	IdleTimeout    time.Duration // after which an unused connection is closed; default 30 s

	MaxPerAccount    int // connections at a time; default 4
	MaxPerConnection int // messages; default 100
	MaxIdle          int // connections kept unused, over all accounts; default 64

	Now func() time.Time // for the header Date; default time.Now
}

// Client hands mail to the servers of many accounts and keeps connections to
// them. It is safe for concurrent use. Every error it returns is an *Error.
type Client struct {
	cfg  Config
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	lanes  map[login]*lane
	idle   int // over all lanes
	closed bool
}

// New makes a client. Close it when it is not needed any more.
func New(cfg Config) *Client {
	defaults(&cfg.DialTimeout, 30*time.Second)
	defaults(&cfg.CommandTimeout, time.Minute)
	defaults(&cfg.DataTimeout, 5*time.Minute)
	defaults(&cfg.IdleTimeout, 30*time.Second)
	defaults(&cfg.MaxPerAccount, 4)
	defaults(&cfg.MaxPerConnection, 100)
	defaults(&cfg.MaxIdle, 64)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.HelloName == "" {
		cfg.HelloName, _ = os.Hostname()
	}
	if name, err := asciiDomain(cfg.HelloName); err == nil {
		cfg.HelloName = name
	} else {
		cfg.HelloName = "localhost"
	}
	c := &Client{cfg: cfg, dial: cfg.DialContext, lanes: map[login]*lane{}}
	if c.dial == nil {
		c.dial = guarded(cfg.AllowPrivate)
	}
	return c
}

func defaults[T int | time.Duration](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

// Send hands over one message, once, and returns nil when the server has taken
// it. It waits for one of the account's connections and is over when ctx is; if
// that happens in the middle, its connection is closed.
func (c *Client) Send(ctx context.Context, acc Account, msg Message) error {
	if e := c.send(ctx, acc, msg); e != nil {
		return e
	}
	return nil
}

func (c *Client) send(ctx context.Context, acc Account, msg Message) *Error {
	if e := c.validate(acc); e != nil {
		return e
	}
	l, e := c.compose(acc, msg)
	if e != nil {
		return e
	}
	defer l.free()
	return c.with(ctx, acc, func(n *lane) *Error {
		for {
			s := c.take(n)
			kept := s != nil
			if s == nil {
				if s, e = c.open(ctx, acc); e != nil {
					return e
				}
			}
			e = s.send(ctx, l)
			c.keep(n, s)
			if e == nil || !e.retry || !kept || ctx.Err() != nil {
				return e
			}
			// It was kept too long. Nothing of the message was written; the next is another, or a new one.
		}
	})
}

// Check connects to the account's server, signs in and asks it to do nothing.
// It sends no mail.
func (c *Client) Check(ctx context.Context, acc Account) error {
	e := c.validate(acc)
	if e == nil {
		e = c.with(ctx, acc, func(*lane) *Error {
			s, e := c.open(ctx, acc)
			if e != nil {
				return e
			}
			defer s.quit()
			return s.noop(ctx)
		})
	}
	if e != nil {
		return e
	}
	return nil
}

// Validate tells whether an account can be used at all, without calling its server.
func (c *Client) Validate(acc Account) error {
	if e := c.validate(acc); e != nil {
		return e
	}
	return nil
}

func (c *Client) validate(acc Account) *Error {
	host, err := hostName(acc.Host)
	switch {
	case err != nil || host == "":
		return invalid(ScopeAccount, "host is not a server's name or address")
	case acc.Port < 1 || acc.Port > 65535:
		return invalid(ScopeAccount, "port is not a port")
	case !c.cfg.AllowPrivate && !slices.Contains(mailPorts, acc.Port):
		return &Error{Op: "validate", Outcome: Rejected, Scope: ScopeAccount, Err: ErrForbidden}
	case acc.Security != StartTLS && acc.Security != TLS && acc.Security != None:
		return invalid(ScopeAccount, "security is none of starttls, tls and none")
	case acc.Username == "" && acc.Password != "":
		return invalid(ScopeAccount, "there is a password and no username")
	}
	if _, err := parseAddress(acc.From); err != nil {
		return invalid(ScopeAccount, "from is not a mail address")
	}
	if acc.ReplyTo != "" {
		if _, err := parseAddress(acc.ReplyTo); err != nil {
			return invalid(ScopeAccount, "replyTo is not a mail address")
		}
	}
	return nil
}

// hostName gives the host as it is looked up and as its certificate names it.
func hostName(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.WithZone("").String(), nil
	}
	return asciiDomain(s)
}

// Close closes the connections that nobody uses. Sends under way go on and
// close theirs; later ones fail with ErrClosed.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	var unused []*session
	for key, n := range c.lanes {
		unused = append(unused, n.idle...)
		n.idle = nil
		if n.users == 0 {
			delete(c.lanes, key)
		}
	}
	c.idle = 0
	c.mu.Unlock()
	for _, s := range unused {
		s.timer.Stop()
		s.quit()
	}
}
