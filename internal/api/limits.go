package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// buckets limit how often something may be done under a key: an address, a caller. They know the keys that came last;
// one that is forgotten begins anew with a full bucket.
type buckets struct {
	mu    sync.Mutex
	known *simplelru.LRU[string, *rate.Limiter]
}

// knownKeys is how many keys of one kind are remembered.
const knownKeys = 16 << 10

func newBuckets() *buckets {
	l, _ := simplelru.NewLRU[string, *rate.Limiter](knownKeys, nil) // fails only for a size below one
	return &buckets{known: l}
}

// pace is how fast a bucket fills, a second, and what it holds.
type pace struct {
	per   float64
	burst int
}

// take takes one from the key's bucket; above zero, there is none, and how long to wait for it.
func (b *buckets) take(key string, now time.Time, p pace) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.of(key, p)
	if l.AllowN(now, 1) {
		return 0
	}
	return missing(l, now)
}

// look is take without taking.
func (b *buckets) look(key string, now time.Time, p pace) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.of(key, p)
	if l.TokensAt(now) >= 1 {
		return 0
	}
	return missing(l, now)
}

// of gives the key's bucket: a new one if the pace is another than before.
func (b *buckets) of(key string, p pace) *rate.Limiter {
	l, ok := b.known.Get(key)
	if !ok || l.Limit() != rate.Limit(p.per) || l.Burst() != p.burst {
		l = rate.NewLimiter(rate.Limit(p.per), p.burst)
		b.known.Add(key, l)
	}
	return l
}

// missing is how long until an empty bucket holds one.
func missing(l *rate.Limiter, now time.Time) time.Duration {
	res := l.ReserveN(now, 1)
	defer res.CancelAt(now)
	return res.DelayFrom(now)
}

// The paces that are not configured.
var (
	publicPace = pace{100, 500} // of one address, on routes that ask for no credentials
	loginPace  = pace{0.1, 50}  // failed logins of one address
	burstOf    = 2              // seconds of a caller's pace that may come at once
)

// callerPace is how often a caller may call.
func (a *API) callerPace(c Caller) pace {
	per := a.cfg.RatePerSecond
	if a.cfg.RateOf != nil {
		per = or(a.cfg.RateOf(c.Client), per)
	}
	return pace{per, max(int(per)*burstOf, 1)}
}

// limit counts a call of somebody who may call, or of anybody on a public route; a *Problem of 429 if it is one too many.
func (a *API) limit(r *http.Request, o *operation, c Caller) error {
	now := a.cfg.Now()
	var wait time.Duration
	switch {
	case o.access == AccessPublic:
		wait = a.public.take(clientAddr(r), now, publicPace)
	case c.Client != "":
		wait = a.callers.take(c.scope(), now, a.callerPace(c))
	}
	if wait <= 0 {
		return nil
	}
	return tooMany("rate.limited", "Too many calls. Wait before the next.", wait)
}

func tooMany(code, detail string, wait time.Duration) *Problem {
	p := newProblem(http.StatusTooManyRequests, code, detail)
	p.retryAfter = wait
	return p
}

// ClientAddr names the address that a request comes from, for limits: see clientAddr.
func ClientAddr(r *http.Request) string { return clientAddr(r) }

// clientAddr is the address a request comes from, an IPv6 address as its /64. X-Forwarded-For counts only where the
// neighbour is a proxy of our own network, and then its last public entry: what the caller itself wrote stands further left.
func clientAddr(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	peer, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	peer = peer.Unmap()
	if inside(peer) {
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0; i-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			if hop = hop.Unmap(); !inside(hop) {
				peer = hop
				break
			}
		}
	}
	if peer.Is6() {
		if p, err := peer.Prefix(64); err == nil {
			return p.String()
		}
	}
	return peer.String()
}

var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

func inside(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || carrierNAT.Contains(a)
}
