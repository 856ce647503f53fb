package servertest

import (
	"bufio"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// echo is a server that answers each line with itself, and tells of it.
func echo(t *testing.T) (addr string, heard chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	heard = make(chan string, 100)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					heard <- in.Text()
					_, _ = c.Write([]byte(in.Text() + "\n"))
				}
			}()
		}
	}()
	return ln.Addr().String(), heard
}

type caller struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func call(t *testing.T, addr string) *caller {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &caller{t, c, bufio.NewReader(c)}
}

func (c *caller) say(line string) {
	c.t.Helper()
	if _, err := c.c.Write([]byte(line + "\n")); err != nil {
		c.t.Fatal(err)
	}
}

// hears is the next line within a time; "" is none.
func (c *caller) hears(within time.Duration) string {
	c.t.Helper()
	_ = c.c.SetReadDeadline(time.Now().Add(within))
	line, err := c.r.ReadString('\n')
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal(err)
	}
	if err != nil {
		return ""
	}
	return line[:len(line)-1]
}

func next(t *testing.T, heard chan string) string {
	t.Helper()
	select {
	case s := <-heard:
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("the server hears nothing")
		return ""
	}
}

const silence = 150 * time.Millisecond

func TestLink(t *testing.T) {
	addr, heard := echo(t)
	l := NewLink(t, addr)
	if got := l.Through("mongodb://" + addr + "/x?y=z"); got != "mongodb://"+l.Addr+"/x?y=z" {
		t.Errorf("through: %s", got)
	}
	c := call(t, l.Addr)
	c.say("one")
	if got := c.hears(10 * time.Second); got != "one" {
		t.Fatalf("%q", got)
	}
	<-heard

	l.Cut()
	c.say("two")
	late := call(t, l.Addr)
	late.say("three")
	if got := c.hears(silence) + late.hears(silence); got != "" || len(heard) != 0 {
		t.Fatalf("a cut link answers %q; the server heard of %d", got, len(heard))
	}
	l.Heal()
	if a, b := c.hears(10*time.Second), late.hears(10*time.Second); a != "two" || b != "three" {
		t.Fatalf("healed: %q %q", a, b)
	}
	<-heard
	<-heard

	l.CutAnswers()
	c.say("four")
	if next(t, heard) != "four" || c.hears(silence) != "" {
		t.Fatal("with answers cut, what is asked arrives and what is answered does not")
	}
	l.Heal()
	if got := c.hears(10 * time.Second); got != "four" {
		t.Fatalf("healed: %q", got)
	}

	l.Delay(silence)
	at := time.Now()
	c.say("five")
	if got := c.hears(10 * time.Second); got != "five" || time.Since(at) < 2*silence {
		t.Fatalf("%q after %s", got, time.Since(at))
	}
	next(t, heard)
	l.Heal()

	l.Reset()
	_ = c.c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a reset connection: %v", err)
	}
	again := call(t, l.Addr)
	again.say("six")
	if got := again.hears(10 * time.Second); got != "six" {
		t.Fatalf("%q", got)
	}
}

// TestNamespace: what runs in a namespace reaches the server through its link, and not when that is cut.
func TestNamespace(t *testing.T) {
	addr, heard := echo(t)
	n := NewNamespace(t)
	l, inside := n.Link(addr)
	other, _ := n.Link(addr)
	loopback := n.Loopback(other)
	host, port, err := net.SplitHostPort(l.Addr)
	if err != nil || inside == "" {
		t.Fatal(err)
	}
	say := func(at, line string, within string) error {
		h, p, _ := net.SplitHostPort(at)
		return n.Command("timeout", within, "bash", "-c", `exec 3<>"/dev/tcp/$0/$1" && echo "$2" >&3 && read -r x <&3 && [ "$x" = "$2" ]`, h, p, line).Run()
	}
	if err := say(net.JoinHostPort(host, port), "one", "10"); err != nil || next(t, heard) != "one" {
		t.Fatalf("through the link: %v", err)
	}
	if err := say(addr, "past", "1"); err == nil {
		t.Fatal("the namespace reaches the server past its link")
	}
	if err := say(loopback, "inside", "10"); err != nil || next(t, heard) != "inside" {
		t.Fatalf("through the namespace's loopback: %v", err)
	}
	l.Cut()
	if err := say(l.Addr, "two", "1"); err == nil || len(heard) != 0 {
		t.Fatal("a cut link carries")
	}
	if err := say(other.Addr, "three", "10"); err != nil || next(t, heard) != "three" {
		t.Fatalf("the other link, which was not cut: %v", err)
	}
	l.Heal()
	if err := say(l.Addr, "four", "10"); err != nil || next(t, heard) != "four" {
		t.Fatalf("healed: %v", err)
	}
}
