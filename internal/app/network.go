package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/smtp"
)

// errPrivateNetwork is why an address of a client's is not called.
var errPrivateNetwork = fmt.Errorf("%w: it is on a private network; ECOD_ALLOW_PRIVATE_NETWORKS allows it", rule.ErrRefusedAddress)

// clientTransport is for addresses that came from a client: public ones only, unless the operator allows others. Every
// address that a name resolves to is looked at when it is dialled: a name that changes its mind gains nothing.
func clientTransport(allowPrivate bool) *http.Transport {
	t := transport()
	t.Proxy = nil
	d := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	if !allowPrivate {
		d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			if ap, err := netip.ParseAddrPort(address); err != nil || !smtp.IsPublic(ap.Addr()) {
				return errPrivateNetwork
			}
			return nil
		}
	}
	t.DialContext = d.DialContext
	return t
}

// webhookClient posts to addresses that came from a client, and follows none that these name.
func webhookClient(allowPrivate bool) *http.Client {
	t := clientTransport(allowPrivate)
	t.MaxIdleConnsPerHost, t.MaxResponseHeaderBytes = 4, 64<<10
	return &http.Client{Transport: t, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
