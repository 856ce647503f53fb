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

// failures counts wrong credentials by address, for the few thousand addresses that failed last.
type failures struct {
	mu    sync.Mutex
	known *simplelru.LRU[string, *rate.Limiter]
	per   rate.Limit
	burst int
}

func newFailures(perSecond float64, burst int) *failures {
	l, _ := simplelru.NewLRU[string, *rate.Limiter](4096, nil) // fails only for a size below one
	return &failures{known: l, per: rate.Limit(perSecond), burst: burst}
}

// add counts one failure; above zero, it is one too many, and how long to wait.
func (f *failures) add(addr string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.known.Get(addr)
	if !ok {
		l = rate.NewLimiter(f.per, f.burst)
		f.known.Add(addr, l)
	}
	if l.AllowN(now, 1) {
		return 0
	}
	res := l.ReserveN(now, 1)
	defer res.CancelAt(now)
	return res.DelayFrom(now)
}

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
