package rule

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// networks are what addresses of webhooks may lead to.
type networks struct {
	private bool                       // also the operator's own, also without TLS
	public  func(addr netip.Addr) bool // whether an address is of the open internet; nil: all are
}

func (e *Engine) networks() networks { return networks{e.PrivateNetworks, e.IsPublic} }

// refuse tells why a webhook cannot be posted to an address; "" where it can. Rules are checked by it, and what they plan:
// a rule that is taken is one whose webhooks can go out. Where a name leads is seen when it is called.
func (n networks) refuse(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !n.private) {
		return "must be an https address without a user"
	}
	if port := u.Port(); port != "" {
		if p, err := strconv.Atoi(port); err != nil || p < 1 || p > 65535 {
			return "must have a port from 1 to 65535, or none"
		}
	}
	host := strings.TrimSuffix(u.Hostname(), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		if !n.private && n.public != nil && !n.public(ip) {
			return "lies in a network that clients may not name"
		}
		return ""
	}
	if !isHostName(host) {
		return "must name a host: labels of 1 to 63 letters, digits and hyphens, at most 253 in all"
	}
	return ""
}

func isHostName(s string) bool {
	s, err := idna.Lookup.ToASCII(s)
	if err != nil || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			return false
		}
	}
	return true
}
