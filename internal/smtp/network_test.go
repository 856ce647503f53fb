package smtp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestIsPublic(t *testing.T) {
	for _, s := range strings.Fields(`8.8.8.8 142.250.1.1 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 2001:4860:4860::8888 2a00:1450::1
		::ffff:8.8.8.8 64:ff9b::808:808`) {
		if !IsPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused", s)
		}
	}
	for _, s := range strings.Fields(`0.0.0.0 0.1.2.3 10.0.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1
		100.64.0.1 100.127.255.255 192.0.0.1 192.0.0.170 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
		:: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:100.64.0.1 fe80::1 fe80::1%eth0 fc00::1 fd12:3456::1 fec0::1 ff02::1 ff0e::1
		2001::1 2001:db8::1 2002:7f00:1:: 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 100::1 3fff::1 5f00::1`) {
		if IsPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s is allowed", s)
		}
	}
}

// TestTheGuardIsAsked dials what is not to be dialled, on a listener that would answer.
func TestTheGuardIsAsked(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, addr := range []string{"127.0.0.1:" + port, "localhost:" + port, "127.0.0.1:25", "localhost:587", "[::1]:25", "[::ffff:127.0.0.1]:25", "0.0.0.0:25", "[::]:25", "169.254.169.254:25", "8.8.8.8:80"} {
		conn, err := guarded(false)(t.Context(), "tcp", addr)
		if !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", addr, err)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
	conn, err := guarded(true)(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// TestAccountsThatPointInside are refused as the account's own trouble, for good.
func TestAccountsThatPointInside(t *testing.T) {
	c := New(Config{})
	defer c.Close()
	acc := Account{Security: StartTLS, From: "a@b.example"}
	for _, tc := range []struct {
		host string
		port int
	}{{"127.0.0.1", 25}, {"localhost", 587}, {"::1", 465}, {"::ffff:10.0.0.1", 25}, {"10.0.0.1", 2525}, {"169.254.169.254", 25}, {"8.8.8.8", 80}, {"smtp.example", 6379}} {
		acc.Host, acc.Port = tc.host, tc.port
		for name, err := range map[string]error{"send": c.Send(t.Context(), acc, Message{ID: "1", To: "c@d.example", Text: "x"}), "check": c.Check(t.Context(), acc)} {
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrForbidden) || e.Scope != ScopeAccount || e.Outcome != Rejected || e.Temporary() {
				t.Errorf("%s to %s:%d: %v", name, tc.host, tc.port, err)
			}
			if err != nil && tc.host != "8.8.8.8" && strings.Contains(err.Error(), tc.host) {
				t.Errorf("%v names the address", err)
			}
		}
	}
}

// TestAnotherDialer keeps the ports and gives up the addresses.
func TestAnotherDialer(t *testing.T) {
	asked := ""
	c := New(Config{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		asked = address
		return nil, errors.New("not today")
	}})
	defer c.Close()
	acc := Account{Host: "Bücher.example", Port: 587, Security: StartTLS, From: "a@b.example"}
	if err := c.Check(t.Context(), acc); err == nil || asked != "xn--bcher-kva.example:587" {
		t.Errorf("asked for %q, %v", asked, err)
	}
	acc.Port, asked = 22, ""
	if err := c.Check(t.Context(), acc); !errors.Is(err, ErrForbidden) || asked != "" {
		t.Errorf("asked for %q, %v", asked, err)
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"a@b.example": "a@b.example", "A.b+c'd_{e}@B.Example": "A.b+c'd_{e}@b.example", "a@localhost": "a@localhost", "a@Bücher.example": "a@xn--bcher-kva.example",
		"a@xn--bcher-kva.example": "a@xn--bcher-kva.example", "ü@b.example": "ü@b.example", strings.Repeat("a", 64) + "@b.example": strings.Repeat("a", 64) + "@b.example",
		"a@例え.テスト": "a@xn--r8jz45g.xn--zckzah", "a@b。example": "a@b.example",
	} {
		a, err := parseAddress(in)
		if err != nil || a.String() != want {
			t.Errorf("%q: %q %v", in, a, err)
		}
	}
	for _, in := range []string{"", "a", "@", "a@", "@b", "a b@c.example", "a@b@c.example", ".a@b.example", "a.@b.example", "a..b@c.example", `"a"@b.example`, "a(c)@b.example",
		"a@b.example.", "a@.b", "a@b..c", "a@-b.example", "a@b_c.example", "a@[1.2.3.4]", "a@1.2.3.4", "a@b.example>", "<a@b.example>", "a\x00@b.example", "a\n@b.example", "a@b\n.example",
		"a\u00a0@b.example", "a\u2028@b.example", "\xff@b.example", "a@\xff.example", strings.Repeat("a", 65) + "@b.example", "a@" + strings.Repeat("b", 64) + ".example", "a@" + strings.Repeat("b.", 130) + "c",
		"a:b@c.example", "a,b@c.example", "a;b@c.example", `a\b@c.example`, "mailto:a@b.example"} {
		if a, err := parseAddress(in); err == nil {
			t.Errorf("%q is taken for %q", in, a)
		}
	}
}
