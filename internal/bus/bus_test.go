package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/bus/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 15 * time.Second

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// open joins a bus by Redis, and waits until it is whole.
func open(t *testing.T, url string) (bus.Bus, *lockedBuffer) {
	t.Helper()
	b, log := join(t, url)
	eventually(t, "connected", func() bool { return b.Healthy() == nil })
	return b, log
}

func join(t *testing.T, url string) (bus.Bus, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	b, err := bus.OpenRedis(url, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, log
}

// ear keeps what is heard.
type ear struct {
	mu  sync.Mutex
	all []string
}

func (e *ear) hear(data []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, string(data))
}

func (e *ear) heard() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.all, " ")
}

// ready waits until what a subscribes to, of a topic, reaches it from b.
func ready(t *testing.T, from bus.Bus, to bus.Bus, topic string) {
	t.Helper()
	var there atomic.Bool
	stop := to.Subscribe(topic, func([]byte) { there.Store(true) })
	defer stop()
	eventually(t, "heard on "+topic, func() bool { from.Publish(topic, []byte("?")); return there.Load() })
}

func nodes(t *testing.T, kind string) (a, b bus.Bus) {
	if kind == "memory" {
		m := bus.NewMemory(slog.New(slog.DiscardHandler))
		a, b = m.Node(), m.Node()
		t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
		return a, b
	}
	s := bustest.Start(t)
	a, _ = open(t, s.URL())
	b, _ = open(t, s.URL())
	return a, b
}

// What one node says the others hear, once and in order, and it does not hear itself.
func TestNodesHearEachOther(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"memory", "redis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a, b := nodes(t, kind)
			ready(t, a, b, "ready")
			ready(t, b, a, "ready")
			var atA, atB, other ear
			a.Subscribe("x", atA.hear)
			stop := b.Subscribe("x", atB.hear)
			b.Subscribe("y", other.hear)
			ready(t, a, b, "more") // after the subscriptions above, by the same connection
			ready(t, b, a, "more")
			var want []string
			for i := range 500 {
				a.Publish("x", fmt.Append(nil, i))
				want = append(want, fmt.Sprint(i))
			}
			eventually(t, "500 heard", func() bool { return strings.Count(atB.heard(), " ") >= 499 })
			if got := atB.heard(); got != strings.Join(want, " ") {
				t.Errorf("heard %s", got)
			}
			b.Publish("x", nil)
			b.Publish("x", []byte("of b"))
			eventually(t, "the other way", func() bool { return atA.heard() == " of b" })
			stop()
			a.Publish("x", []byte("late"))
			a.Publish("y", []byte("end"))
			eventually(t, "the end", func() bool { return other.heard() == "end" })
			if strings.Contains(atB.heard(), "late") {
				t.Error("heard after stop")
			}
		})
	}
}

// Wires know channels as they are, by name and by beginning, and what is published here too.
func TestWire(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"memory", "redis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a, b := nodes(t, kind)
			var mu sync.Mutex
			got := map[string]int{}
			note := func(who string) func(string, []byte) {
				return func(channel string, data []byte) {
					mu.Lock()
					defer mu.Unlock()
					got[who+" "+channel+" "+string(data)]++
				}
			}
			a.Wire().Subscribe([]string{"p[1]*?#all"}, []string{`p[1]*?#`}, note("a"))
			b.Wire().Subscribe(nil, []string{`p[1]*?#`, `back\slash`}, note("b"))
			ready(t, a, b, "subscribed")
			ready(t, b, a, "subscribed")
			for _, channel := range []string{"p[1]*?#all", "p[1]*?#room#", "p1xx#", "pp[1]*?#", `back\slash!`} {
				a.Wire().Publish(channel, []byte("m"))
			}
			ready(t, a, b, "said")
			ready(t, b, a, "said")
			want := map[string]int{
				"a p[1]*?#all m": 2, "b p[1]*?#all m": 1, "a p[1]*?#room# m": 1, "b p[1]*?#room# m": 1, `b back\slash! m`: 1,
			}
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("heard %v\nwant  %v", got, want)
			}
		})
	}
}

// A subscriber that stands still costs so much memory and no more, and nobody else waits for it. One that panics goes on.
func TestSlowAndBrokenSubscribers(t *testing.T) {
	t.Parallel()
	a, b := nodes(t, "memory")
	hold := make(chan struct{})
	defer close(hold)
	b.Subscribe("x", func([]byte) { <-hold })
	var panicked, heard atomic.Int64
	b.Subscribe("x", func([]byte) { panicked.Add(1); panic("no") })
	b.Subscribe("x", func([]byte) { heard.Add(1) })
	big := make([]byte, 64<<10)
	begun := time.Now()
	for range 2000 {
		a.Publish("x", big)
		for heard.Load()+100 < int64(a.Stats().Published) {
			time.Sleep(time.Millisecond)
		}
	}
	if took := time.Since(begun); took > patience {
		t.Errorf("publishing took %v", took)
	}
	eventually(t, "others hear all", func() bool { return heard.Load() == 2000 && panicked.Load() == 2000 })
	if n := b.Stats().Unheard; n < 1400 {
		t.Errorf("%d dropped for a subscriber that stands still", n)
	}
}

// A server that is killed, or stands still, is told of once, blocks nobody, and what it missed is no secret afterwards.
func TestRedisGoesAndComes(t *testing.T) {
	t.Parallel()
	for how, cut := range map[string]struct{ cut, mend func(*bustest.Server) }{
		"killed": {(*bustest.Server).Kill, (*bustest.Server).Start},
		"paused": {(*bustest.Server).Pause, (*bustest.Server).Resume},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := bustest.Start(t)
			a, log := open(t, s.URL())
			b, logB := open(t, s.URL())
			var gapsA, gapsB atomic.Int64
			a.OnGap(func() { gapsA.Add(1) })
			b.OnGap(func() { gapsB.Add(1) })
			var at ear
			b.Subscribe("x", at.hear)
			ready(t, a, b, "ready")

			cut.cut(s)
			eventually(t, "trouble is known", func() bool { return a.Healthy() != nil && b.Healthy() != nil })
			begun := time.Now()
			for i := range 100_000 {
				a.Publish("x", fmt.Append(nil, "lost", i))
			}
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("100,000 messages into a dead server took %v", took)
			}
			if n := a.Stats().Unsent; n < 90_000 {
				t.Errorf("%d are unsent", n)
			}
			time.Sleep(time.Second) // several tries
			cut.mend(s)
			eventually(t, "whole again", func() bool { return a.Healthy() == nil && b.Healthy() == nil })
			eventually(t, "a gap is told", func() bool { return gapsA.Load() > 0 && gapsB.Load() > 0 })
			ready(t, a, b, "ready")
			a.Publish("x", []byte("again"))
			eventually(t, "heard again", func() bool { return strings.HasSuffix(at.heard(), "again") })
			for _, l := range []string{log.String(), logB.String()} {
				if strings.Count(l, "is cut") != 1 || strings.Count(l, "is whole again") != 1 {
					t.Errorf("logged:\n%s", l)
				}
			}
		})
	}
}

// A node that was cut off alone tells the others that they missed something.
func TestGapOfOthers(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	through := newForwarder(t, s.Addr())
	a, _ := open(t, "redis://"+through.addr())
	b, _ := open(t, s.URL())
	ready(t, a, b, "ready")
	var gaps atomic.Int64
	b.OnGap(func() { gaps.Add(1) })
	through.cut()
	eventually(t, "a is cut off", func() bool { return a.Healthy() != nil })
	if b.Healthy() != nil {
		t.Errorf("b: %v", b.Healthy())
	}
	a.Publish("x", []byte("nobody hears this"))
	through.mend()
	eventually(t, "b is told", func() bool { return gaps.Load() > 0 })
}

// A start does not wait for a server that is not there, and says so; it joins when the server comes.
func TestRedisComesLater(t *testing.T) {
	t.Parallel()
	s := bustest.Unstarted(t)
	begun := time.Now()
	a, log := join(t, s.URL())
	if took := time.Since(begun); took > time.Second {
		t.Errorf("joining took %v", took)
	}
	a.Publish("x", []byte("into the void"))
	if a.Healthy() == nil {
		t.Error("whole without a server")
	}
	eventually(t, "it says so", func() bool { return strings.Contains(log.String(), "is cut") })
	s.Start()
	eventually(t, "it joins", func() bool { return a.Healthy() == nil })
	b, _ := open(t, s.URL())
	ready(t, a, b, "x")
}

// Two installations on one server do not hear each other: by prefix, or by the number of the database.
func TestInstallationsAreApart(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	var at ear
	for _, path := range []string{"", "/1", "?prefix=staging"} {
		b, _ := open(t, s.URL()+path)
		b.Subscribe("x", at.hear)
		twin, _ := open(t, s.URL()+path)
		ready(t, twin, b, "ready")
	}
	a, _ := open(t, s.URL()+"/1")
	a.Publish("x", []byte("one"))
	b, _ := open(t, s.URL()+"/1")
	ready(t, a, b, "said")
	if at.heard() != "one" {
		t.Errorf("heard %q", at.heard())
	}
}

// Foreign messages on our channels do nothing but be counted.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	a, _ := open(t, s.URL())
	var at ear
	a.Subscribe("x", at.hear)
	client := redis.NewClient(&redis.Options{Addr: s.Addr()})
	defer client.Close()
	eventually(t, "counted", func() bool {
		for _, m := range []string{"", "short", "{}"} {
			if err := client.Publish(context.Background(), "ecod:0:x", m).Err(); err != nil {
				t.Fatal(err)
			}
		}
		return a.Stats().Unheard >= 3
	})
	if at.heard() != "" {
		t.Errorf("heard %q", at.heard())
	}
}

// Neither passwords nor users are told by what goes wrong.
func TestCredentialsStayHidden(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, "--requirepass", "right")
	a, log := join(t, "redis://some-user:hunter2@"+s.Addr())
	eventually(t, "refused", func() bool { return strings.Contains(log.String(), "is cut") })
	b, _ := open(t, "redis://:right@"+s.Addr())
	if b.Healthy() != nil {
		t.Error(b.Healthy())
	}
	for _, text := range []string{log.String(), fmt.Sprint(a.Healthy())} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "some-user") {
			t.Errorf("told: %s", text)
		}
	}
	for url, ok := range map[string]bool{
		"redis://h": true, "redis://h:6379/3": true, "rediss://u:p%23w@h:6380/0?prefix=a_b": true,
		"": false, "h:6379": false, "http://hunter2@h": false, "redis://": false, "redis://:hunter2@h/x": false, "redis://:hunter2@h:x": false,
		"redis://:hunter2@h:70000": false, "redis://h?prefix=*": false, "redis://h?prefix=a:b": false, "redis://h?protocol=3": false,
		"redis://:hunter#2@h": false, "redis://:hunter2%zz@h": false, "redis://h?prefix=" + strings.Repeat("x", 65): false,
	} {
		err := bus.CheckRedisURL(url)
		if (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter") {
			t.Errorf("told: %v", err)
		}
		if !ok {
			if _, err := bus.OpenRedis(url, slog.New(slog.DiscardHandler)); err == nil {
				t.Errorf("%s is opened", url)
			}
		}
	}
}

// forwarder is a connection to a server that can be cut.
type forwarder struct {
	t  *testing.T
	ln net.Listener
	to string

	mu    sync.Mutex
	off   bool
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newForwarder(t *testing.T, to string) *forwarder {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{t: t, ln: ln, to: to, conns: map[net.Conn]bool{}}
	f.wg.Go(f.accept)
	t.Cleanup(func() { _ = ln.Close(); f.cut(); f.wg.Wait() })
	return f
}

func (f *forwarder) addr() string { return f.ln.Addr().String() }

func (f *forwarder) accept() {
	for {
		in, err := f.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", f.to)
		f.mu.Lock()
		if err != nil || f.off {
			_ = in.Close()
			if err == nil {
				_ = out.Close()
			}
			f.mu.Unlock()
			continue
		}
		f.conns[in], f.conns[out] = true, true
		f.mu.Unlock()
		pump := func(dst, src net.Conn) {
			buf := make([]byte, 32<<10)
			for {
				n, err := src.Read(buf)
				if n > 0 {
					if _, werr := dst.Write(buf[:n]); werr != nil {
						err = werr
					}
				}
				if err != nil {
					_ = dst.Close()
					_ = src.Close()
					return
				}
			}
		}
		f.wg.Go(func() { pump(in, out) })
		f.wg.Go(func() { pump(out, in) })
	}
}

func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
	for c := range f.conns {
		_ = c.Close()
	}
	clear(f.conns)
}

func (f *forwarder) mend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = false
}
