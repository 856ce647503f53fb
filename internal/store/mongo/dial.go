package mongo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// ErrForbidden says that an address that a client gave leads where clients' data has no business: into a private network, or to a
// file or an account of this machine.
var ErrForbidden = fmt.Errorf("%w: store/mongo: the address is not allowed", store.ErrUnavailable)

// dialer makes the connections of one cluster. It looks at every address at the moment of dialling, whoever named it: the
// URL, an SRV record, or a server that tells of the other members of its set.
type dialer struct {
	cfg     Config
	trusted bool
	open    *atomic.Int64 // connections of the process
}

// DialContext is the driver's.
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if !d.trusted && !strings.HasPrefix(network, "tcp") {
		return nil, ErrForbidden
	}
	dial := d.cfg.Dialer
	if dial == nil {
		nd := &net.Dialer{Timeout: d.cfg.Timeout, KeepAlive: 30 * time.Second}
		if !d.trusted {
			nd.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
				if !d.allowed(address) {
					return ErrForbidden
				}
				return nil
			}
		}
		dial = nd.DialContext
	}
	c, err := dial(ctx, network, address)
	if err != nil {
		if errors.Is(err, ErrForbidden) {
			return nil, ErrForbidden
		}
		return nil, err
	}
	if !d.trusted && !d.allowed(c.RemoteAddr().String()) {
		return nil, errors.Join(ErrForbidden, c.Close())
	}
	d.open.Add(1)
	return &counted{Conn: c, open: d.open}, nil
}

func (d dialer) allowed(address string) bool {
	if d.cfg.AllowPrivate {
		return true
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	a := ap.Addr().WithZone("").Unmap()
	if d.cfg.IsPublic != nil {
		return d.cfg.IsPublic(a)
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// reachable tells early that none of the hosts that a client's URL leads to is allowed; the driver would go on trying until it
// ran out of time. What it lets pass is looked at again when it is dialled.
func (d dialer) reachable(ctx context.Context, hosts []string) error {
	if d.trusted || d.cfg.AllowPrivate || d.cfg.Dialer != nil {
		return nil
	}
	for _, h := range hosts {
		name, port, err := net.SplitHostPort(h)
		if err != nil {
			name, port = strings.Trim(h, "[]"), "27017"
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		if err != nil {
			return nil //nolint:nilerr // the driver tries, and tells
		}
		for _, a := range addrs {
			if d.allowed(net.JoinHostPort(a.String(), port)) {
				return nil
			}
		}
	}
	return ErrForbidden
}

// special are networks that are neither private by name nor anybody's.
var special = func() (out []netip.Prefix) {
	for _, s := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2002::/16", "fec0::/10"} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

// counted is a connection that is counted while it is open.
type counted struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

func (c *counted) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// harmless tells whether a client's URL keeps to what a URL from outside may ask of this machine: no files of it, no
// accounts of it. It reads the text, so that nothing is resolved or opened for the answer.
func harmless(rawURL string) error {
	rest, ok := strings.CutPrefix(rawURL, "mongodb://")
	if !ok {
		rest, ok = strings.CutPrefix(rawURL, "mongodb+srv://")
	}
	if !ok {
		return fmt.Errorf("%w: no mongodb:// or mongodb+srv:// URL", ErrForbidden)
	}
	rest, query, _ := strings.Cut(rest, "?")
	if strings.Contains(query, "@") { // the driver takes what is before it for a name and a password
		return fmt.Errorf("%w: ? and @ in a name, a password or an option must be written as %%3F and %%40", ErrForbidden)
	}
	if host := rest[strings.LastIndex(rest, "@")+1:]; strings.Contains(strings.ToLower(host), ".sock") || strings.HasPrefix(strings.ToLower(host), "%2f") {
		return fmt.Errorf("%w: a socket file", ErrForbidden)
	}
	for _, option := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' }) { // as the driver does
		name, value, _ := strings.Cut(option, "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		switch name = strings.ToLower(name); {
		case err != nil:
			return fmt.Errorf("%w: an option that cannot be read", ErrForbidden)
		case strings.Contains(name, "file"), strings.HasPrefix(name, "proxy"):
			return fmt.Errorf("%w: the option %.40q", ErrForbidden, name)
		case name == "authmechanism":
			switch strings.ToUpper(value) {
			case "SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN":
			default:
				return fmt.Errorf("%w: an authMechanism that uses accounts of this machine", ErrForbidden)
			}
		case name == "authmechanismproperties":
			return fmt.Errorf("%w: the option %.40q", ErrForbidden, name)
		}
	}
	return nil
}
