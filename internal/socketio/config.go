package socketio

import (
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config of a Server. The zero value of each field means its default.
type Config struct {
	// PingInterval is the time from a client's pong to the next ping. Default 25 s.
	PingInterval time.Duration
	// PingTimeout is how long a client may take to answer a ping. Default 20 s.
	PingTimeout time.Duration
	// ConnectTimeout is how long a session may live without having been admitted
	// to any namespace. Default 45 s.
	ConnectTimeout time.Duration
	// UpgradeTimeout bounds the upgrade from polling to a websocket. Default 10 s.
	UpgradeTimeout time.Duration

	// MaxPayload is the largest websocket message or POST body accepted, in bytes.
	// A client that sends more is cut off. Default 1 MiB.
	MaxPayload int
	// MaxBuffered is how many bytes may wait for one client before it is cut off.
	// A single packet larger than this is refused with ErrTooLarge. Default 16 MiB.
	MaxBuffered int
	// MaxSessions is how many sessions may be open at once; more are answered 503.
	// Default: no limit.
	MaxSessions int
	// MaxSessionsPerAddr is the same for one client address; more are answered
	// 429. Default: no limit.
	MaxSessionsPerAddr int
	// MaxNamespace is the longest namespace name accepted, in bytes. Default 128.
	MaxNamespace int
	// MaxDepth is how deep the arrays and objects of a packet may nest. Default 64.
	MaxDepth int

	// ClientAddr names the client of a request, for MaxSessionsPerAddr and
	// Handshake.Addr. Behind a proxy it has to read the proxy's header. Clients that it
	// names "" are not counted by address. Default: the host of
	// http.Request.RemoteAddr.
	ClientAddr func(r *http.Request) string
	// AllowOrigin decides about every request, polling or websocket, that carries an
	// Origin header; without one a request is allowed. Refused: 403. Default: SameOrigin.
	AllowOrigin func(r *http.Request, origin string) bool
	// AllowCredentials lets pages of other allowed origins poll with cookies.
	AllowCredentials bool

	// Adapter joins this server to others, so that what is said to many reaches their
	// sockets too. Default: none, the server is alone.
	Adapter Adapter

	// Logger hears of panics and of clients cut off. It is never given an address, a
	// session id or anything a client sent. Default: slog.Default().
	Logger *slog.Logger
}

// Limits that are not a matter of taste.
const (
	maxAckDigits     = 15       // below 2^53: what a JavaScript client can count to
	maxAttachments   = 10       // binary attachments of one packet
	volatileBacklog  = 16 << 10 // bytes waiting beyond which a client counts as behind
	frameOverhead    = 64       // bytes accounted for a waiting packet beside its own
	maxPollResponse  = 1 << 20  // bytes of one poll's answer, unless its first packet is larger
	closeTimeout     = 5 * time.Second
	handlerGrace     = 2 * time.Minute        // how long a busy handler holds off the ping timeout
	upgradePollHold  = 100 * time.Millisecond // a poll that meets an upgrade waits this long for its end
	overtakenPollTTL = 50 * time.Millisecond  // a poll may arrive this much after the close that overtook it
)

func (c Config) withDefaults() Config {
	setDuration := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	setInt := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	setDuration(&c.PingInterval, 25*time.Second)
	setDuration(&c.PingTimeout, 20*time.Second)
	setDuration(&c.ConnectTimeout, 45*time.Second)
	setDuration(&c.UpgradeTimeout, 10*time.Second)
	setInt(&c.MaxPayload, 1<<20)
	setInt(&c.MaxBuffered, 16<<20)
	setInt(&c.MaxNamespace, 128)
	setInt(&c.MaxDepth, 64)
	if c.ClientAddr == nil {
		c.ClientAddr = remoteHost
	}
	if c.AllowOrigin == nil {
		c.AllowOrigin = SameOrigin
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// SameOrigin reports whether the origin has the host and port that the request was
// sent to. It is the default of Config.AllowOrigin, and a part to build others from.
func SameOrigin(r *http.Request, origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
