package servertest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// Namespace is a network of its own, on the same machine: what runs in it reaches, and is reached through, nothing but
// its links. Unlike a [Link] by itself, whose program stands between, a link of a namespace that is cut loses packets.
type Namespace struct {
	t     testing.TB
	name  string
	links int
}

var namespaces atomic.Int32

// NewNamespace makes a namespace that lives as long as the test, which is skipped where one cannot be made: it takes root
// and the iproute2 tools.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t: t, name: fmt.Sprintf("ecodtest-%d-%d", os.Getpid(), namespaces.Add(1))}
	out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", n.name).CombinedOutput() // #nosec G204
	if err != nil {
		say := fmt.Sprintf("no network namespace can be made here (root and iproute2): %v: %s", err, out)
		if os.Getenv("ECOD_TEST_ALL") != "" {
			t.Fatal(say)
		}
		t.Skip("SKIP: " + say)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", n.name).CombinedOutput(); err != nil { // #nosec G204
			t.Errorf("ip netns del %s: %v: %s", n.name, err, out)
		}
	})
	ran(t, "netns")
	n.ip("-n", n.name, "link", "set", "lo", "up")
	return n
}

// Command is a command that runs in the namespace.
func (n *Namespace) Command(name string, arg ...string) *exec.Cmd {
	return exec.CommandContext(n.t.Context(), "ip", append([]string{"netns", "exec", n.name, name}, arg...)...) // #nosec G204
}

// Link lays a cable of its own into the namespace, at whose other end is a server of this machine's. inside is the
// namespace's own address on it, under which a server in there is reached.
func (n *Namespace) Link(addr string) (l *Link, inside string) {
	n.t.Helper()
	n.links++
	// 10.213.a.b/30: four addresses for each cable. Names of devices have 15 letters at most.
	k := (os.Getpid()*64 + int(namespaces.Load())*8 + n.links) % (1 << 14)
	net4 := func(host int) string { return fmt.Sprintf("10.213.%d.%d", k>>6, k&63<<2+host) }
	out, in := fmt.Sprintf("eo%d", k), fmt.Sprintf("ei%d", k)
	n.ip("link", "add", out, "type", "veth", "peer", "name", in, "netns", n.name)
	n.ip("addr", "add", net4(1)+"/30", "dev", out)
	n.ip("link", "set", out, "up")
	n.ip("-n", n.name, "addr", "add", net4(2)+"/30", "dev", in)
	n.ip("-n", n.name, "link", "set", in, "up")
	l = newLink(n.t, addr, net.JoinHostPort(net4(1), "0"))
	l.netns = func(up bool) {
		state := "down"
		if up {
			state = "up"
		}
		// The outer end: the inner one stays up, its packets leave it and are lost.
		n.ip("link", "set", out, state)
	}
	return l, net4(2)
}

// Loopback gives an address on the namespace's own loopback that leads to a link: for programs that speak plainly to
// loopback alone.
func (n *Namespace) Loopback(l *Link) string {
	n.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := n.Command(self)
	cmd.Env = append(os.Environ(), relayTo+"="+l.Addr)
	in, err := cmd.StdinPipe() // it ends when this closes, with this process at the latest
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		n.t.Fatalf("the relay in the namespace: %v", err)
	}
	return strings.TrimSpace(addr)
}

const relayTo = "ECOD_TEST_RELAY_TO"

// A test's program that is run again with a namespace's relay to be is that, and nothing else.
func init() {
	if to := os.Getenv(relayTo); to != "" {
		relay(to)
		os.Exit(0)
	}
}

func relay(to string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				far, err := net.Dial("tcp", to) //nolint:gosec // the test's own address
				if err != nil {
					return
				}
				defer far.Close()
				go func() {
					_, _ = io.Copy(far, near)
					_ = far.(*net.TCPConn).CloseWrite()
				}()
				_, _ = io.Copy(near, far)
			}()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func (n *Namespace) ip(arg ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", arg...).CombinedOutput(); err != nil { // #nosec G204
		n.t.Fatalf("ip %v: %v: %s", arg, err, out)
	}
}
