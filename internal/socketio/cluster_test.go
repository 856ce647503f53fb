package socketio

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/bus/bustest"
)

// clustered is a server that is joined to others.
func clustered(t *testing.T, wire Wire, cfg ClusterConfig) (*Server, *Cluster, string) {
	t.Helper()
	cfg.Wire = wire
	c := NewCluster(cfg)
	srv := NewServer(Config{Adapter: c, Logger: slog.New(slog.DiscardHandler)})
	interop(srv)
	clusterInterop(srv.Of("/"))
	web := httptest.NewServer(srv)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Error(err)
		}
		web.Close()
	})
	return srv, c, web.URL
}

// clusterInterop is what the suite expects of a server in a cluster, beside interop.
func clusterInterop(ns *Namespace) {
	var mu sync.Mutex
	heard := []json.RawMessage{}
	ns.OnServer("server news", func(args []json.RawMessage, _ func(any)) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, args...)
	})
	ns.OnServer("server question", func(args []json.RawMessage, ack func(any)) {
		var n int
		_ = json.Unmarshal(args[0], &n)
		ack(n + 1)
		ack("once only")
	})
	ns.OnConnect(func(s *Socket) {
		on := func(event string, f func(args []json.RawMessage) any) {
			s.On(event, func(_ context.Context, args []json.RawMessage, ack func(...any)) { ack(f(args)) })
		}
		list := func(b json.RawMessage) (l []string) { _ = json.Unmarshal(b, &l); return l }
		on("to all", func(args []json.RawMessage) any { _ = ns.Emit(str(args)); return nil })
		on("sockets join", func(args []json.RawMessage) any { ns.To(list(args[0])...).Join(list(args[1])...); return nil })
		on("sockets leave", func(args []json.RawMessage) any { ns.To(list(args[0])...).Leave(list(args[1])...); return nil })
		on("sockets disconnect", func(args []json.RawMessage) any { ns.To(list(args[0])...).Disconnect(false); return nil })
		on("server emit", func(args []json.RawMessage) any { return ns.ServerEmit(str(args), anys(args[1:])...) })
		on("server news", func([]json.RawMessage) any {
			mu.Lock()
			defer mu.Unlock()
			return heard
		})
	})
}

func redisWire(t *testing.T, url string) Wire {
	t.Helper()
	b, err := bus.OpenRedis(url, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	for deadline := time.Now().Add(patience); b.Healthy() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(b.Healthy())
		}
	}
	return b.Wire()
}

// TestJavaScriptCluster runs two servers together with one of JavaScript's and its emitter, over a Redis.
func TestJavaScriptCluster(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("testdata", "node")
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node is not installed")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@socket.io", "redis-adapter")); err != nil {
		missing(t, "@socket.io/redis-adapter is not installed: run `npm ci` in "+dir)
	}
	redis := bustest.Start(t)
	_, c1, url1 := clustered(t, redisWire(t, redis.URL()), ClusterConfig{})
	_, _, url2 := clustered(t, redisWire(t, redis.URL()), ClusterConfig{})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "--test", "--test-reporter=spec", "cluster.test.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SERVER_URLS="+url1+" "+url2, "REDIS_URL="+redis.URL())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "fail 0") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	if s := c1.Stats(); s.Refused == 0 || s.Heard == 0 || s.Sent == 0 {
		t.Errorf("%+v", s)
	}
}

func packed(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type obj = map[string]any

// What others put on the channels that makes no sense is counted, and does nothing; what follows is acted upon.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	m := bus.NewMemory(slog.New(slog.DiscardHandler))
	other := m.Node()
	defer other.Close()
	mine := m.Node()
	defer mine.Close()
	_, c, url := clustered(t, mine.Wire(), ClusterConfig{MaxMessage: 1 << 20})
	ws := openRaw(t, url)
	ws.send("40")
	if got := ws.read(); !strings.HasPrefix(got, `40{"sid":`) {
		t.Fatal(got)
	}
	ws.send(`420["join","red"]`)
	ws.want(`430[]`)

	junk := [][]byte{nil, []byte("x"), []byte("{"), []byte("{}"), []byte("[]"), []byte(strings.Repeat("[", 100_000)), bytes.Repeat([]byte{0x91}, 100_000), make([]byte, 2<<20),
		{0xc1}, {0xdd, 255, 255, 255, 255}, {0xdb, 255, 255, 255, 255, 1}, {0xdf, 255, 255, 255, 255, 0xa1}, {0xc9, 255, 255, 255, 255, 1}, {0xc7, 12, 255},
		packed(t, []any{1, 2, 3}), packed(t, []any{"u"}), packed(t, []any{"u", nil, nil}),
		packed(t, []any{"u", obj{"type": 2, "data": "x", "nsp": "/"}, obj{}}), packed(t, []any{"u", obj{"type": 2, "data": []any{}, "nsp": "/"}, obj{}}),
		packed(t, []any{"u", obj{"type": 2, "data": []any{5}, "nsp": "/"}, obj{}}), packed(t, []any{"u", obj{"type": 2, "data": []any{"disconnect"}, "nsp": "/"}, obj{}}),
		packed(t, []any{"u", obj{"type": 3, "data": []any{"x"}, "nsp": "/"}, obj{}}), packed(t, []any{"u", obj{"type": 2, "data": []any{"x", []byte("bin")}, "nsp": "/"}, obj{}}),
		packed(t, []any{"u", obj{"type": 2, "data": []any{"x"}, "nsp": "/"}, obj{"rooms": 5}}), packed(t, []any{"u", obj{"type": 2, "data": []any{"x"}, "nsp": "/"}, obj{"rooms": []any{nil}}}),
		append(packed(t, []any{"u", obj{"type": 2, "data": []any{"x"}, "nsp": "/"}, obj{}}), 0), packed(t, map[int]int{1: 2}),
	}
	for _, j := range junk {
		other.Wire().Publish("socket.io#/#", j)
		other.Wire().Publish("socket.io#/#red#", j)
	}
	requests := []string{`{"type":99}`, `{"type":"2"}`, `{"type":3,"opts":5}`, `{"type":6}`, `{"type":6,"data":{}}`, `{"type":6,"data":[5]}`, `{"type":7,"requestId":"r"}`,
		`{"type":7,"requestId":"r","opts":{},"packet":{"type":2,"data":[]}}`, `{"type":5,"requestId":"r"}`, `{"type":0}`, `{"type":0,"requestId":"` + strings.Repeat("r", 1000) + `"}`,
		`{"type":2,"sid":"x","room":}`, `{"type":2,"sid":"x","room":{}}`, `{"type":4,"opts":{"rooms":[{}]}}`, `{"type":6,"data":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`}
	for _, j := range requests {
		other.Wire().Publish("socket.io-request#/#", []byte(j))
	}
	for _, j := range junk {
		other.Wire().Publish("socket.io-request#/#", j)
	}
	for _, nsp := range []any{"/other", "/nowhere"} { // of somebody else
		other.Wire().Publish("socket.io#/#", packed(t, []any{"u", obj{"type": 2, "data": []any{"wrong"}, "nsp": nsp}, obj{}}))
	}
	other.Wire().Publish("socket.io#/#nobody#", packed(t, []any{"u", obj{"type": 2, "data": []any{"wrong"}, "nsp": "/"}, obj{}}))
	other.Wire().Publish("socket.io#/#red#", packed(t, []any{"u", obj{"type": 2, "data": []any{"right", 1.5, math.NaN()}}, obj{"rooms": []any{"red"}}}))
	ws.want(`42["right",1.5,null]`)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if n := int(c.Stats().Refused); n >= 3*len(junk)+len(requests)-1 { // an unlucky sid has no socket, and is no mistake
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("refused %d of %d", n, 3*len(junk)+len(requests))
		}
	}
	if h := c.Stats().Heard; h > 2 {
		t.Errorf("%d acted upon", h)
	}
	other.Wire().Publish("socket.io#/#", packed(t, []any{"u", obj{"type": 2, "data": []any{"end"}, "nsp": "/"}, obj{}}))
	ws.want(`42["end"]`)
}

// Who keeps rooms fixed lets no other server move sockets.
func TestFixedRooms(t *testing.T) {
	t.Parallel()
	m := bus.NewMemory(slog.New(slog.DiscardHandler))
	a, b := m.Node(), m.Node()
	defer a.Close()
	defer b.Close()
	fixed, c, url := clustered(t, a.Wire(), ClusterConfig{FixedRooms: true, Key: "k"})
	other, _, _ := clustered(t, b.Wire(), ClusterConfig{Key: "k"})
	ws := openRaw(t, url)
	ws.send("40")
	ws.read()
	ws.send(`420["join","red"]`)
	ws.want(`430[]`)
	other.Of("/").All().Join("blue")
	other.Of("/").All().Leave("red")
	_ = other.Of("/").To("blue").Emit("wrong")
	_ = other.Of("/").To("red").Emit("right")
	ws.want(`42["right"]`)
	if s := c.Stats(); s.Refused != 2 {
		t.Errorf("%+v", s)
	}
	if n := len(fixed.Of("/").To("blue").Sockets()); n != 0 {
		t.Errorf("%d sockets were moved", n)
	}
	_ = other.Of("/").All().Local().Emit("wrong")
	_ = other.Of("/").To().Emit("wrong") // nobody, here and there
	_ = other.Of("/").All().Emit("end")
	ws.want(`42["end"]`)
}

// FuzzUnpack: whatever comes is turned into JSON or refused, and what JSON says survives the way there and back.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte{0x93, 0x01, 0xa1, 'x', 0xc0})
	f.Add([]byte(`["x",{"a":[1,2.5,-3,true,null,"€"]}]`))
	f.Add([]byte{0xd7, 0xff, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if j, err := unpack(b, 20); err == nil && !json.Valid(j) {
			t.Fatalf("%x became %s", b, j)
		}
		if !json.Valid(b) || !depthWithin(b, 20) {
			return
		}
		p, err := pack(b)
		if err != nil {
			return // a number beyond what there are
		}
		j, err := unpack(p, 21)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		again, err := pack(j)
		if err != nil || !bytes.Equal(again, p) {
			t.Fatalf("%s became %s", b, j)
		}
	})
}
