package smtp

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// The ports on which mail is handed in.
var mailPorts = []int{25, 465, 587, 2525}

// guarded dials public addresses only. It looks at each address that a name
// resolved to, at the moment of dialling: a name that changes its mind gains nothing.
func guarded(allowPrivate bool) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{KeepAlive: 15 * time.Second}
	if !allowPrivate {
		d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !IsPublic(ap.Addr()) || !slices.Contains(mailPorts, int(ap.Port())) {
				return ErrForbidden
			}
			return nil
		}
	}
	return d.DialContext
}

// notPublic are the networks that net/netip has no question for.
var notPublic = prefixes(
	"0.0.0.0/8",       // this network
	"100.64.0.0/10",   // carriers' NAT
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"240.0.0.0/4",     // reserved, and broadcast
	"::/96",           // IPv4 inside IPv6, long given up
	"64:ff9b:1::/48",  // NAT64 of a site
	"100::/64",        // discard
	"2001::/23",       // Teredo and other protocols
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4: carries an IPv4 address
	"3fff::/20",       // documentation
	"5f00::/16",       // segment routing
	"fec0::/10",       // sites, long given up
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// IsPublic tells an address of the open internet from one of ours, of the
// machine's neighbours, or of nobody. IPv4 addresses inside IPv6 count as what they carry.
func IsPublic(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() { // not global unicast: loopback, link-local, multicast, unspecified
		return false
	}
	return !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isPrivatePeer tells that the other end is on this machine or on a private network.
func isPrivatePeer(c net.Conn) bool {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	a := tcp.AddrPort().Addr().Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()
}
