package socketio

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// The benchmarks' clients live in a process of their own, so that what is measured is
// the server.
const loadChildEnv = "SOCKETIO_LOAD_CHILD"

// loadChild opens "count base" websockets, connects each to "/", says so, and reads
// until its stdin ends.
func loadChild(arg string) {
	count, base, _ := strings.Cut(arg, " ")
	n, _ := strconv.Atoi(count)
	dialer := websocket.Dialer{ReadBufferSize: 1024, WriteBufferSize: 1024}
	var ready sync.WaitGroup
	gate := make(chan struct{}, 32)
	for range n {
		ready.Add(1)
		gate <- struct{}{}
		go func() {
			conn, _, err := dialer.Dial(wsURL(base, "EIO=4&transport=websocket"), nil)
			if err == nil {
				err = conn.WriteMessage(websocket.TextMessage, []byte("40"))
			}
			for range 2 { // open, connect
				if err == nil {
					_, _, err = conn.ReadMessage()
				}
			}
			<-gate
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			ready.Done()
			raw, buf := conn.NetConn(), make([]byte, 16<<10)
			for err == nil {
				_, err = raw.Read(buf)
			}
		}()
	}
	ready.Wait()
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// crowd serves n sockets, whose clients are in another process.
func crowd(b *testing.B, n int, before func()) *Server {
	srv := NewServer(Config{PingInterval: time.Hour, PingTimeout: time.Hour})
	srv.Of("/").OnConnect(func(s *Socket) { s.Join("room") })
	mux := http.NewServeMux()
	mux.Handle("/socket.io/", srv)
	ts := httptest.NewServer(mux)
	before()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", loadChildEnv, n, ts.URL))
	cmd.Stderr = os.Stderr
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		if err := srv.Close(testContext(b)); err != nil {
			b.Error(err)
		}
		ts.Close()
	})
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		b.Fatalf("clients: %q", line)
	}
	if got := srv.Of("/").Len(); got != n {
		b.Fatalf("%d sockets", got)
	}
	return srv
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBroadcast sends to a room of 1,000 websockets; one iteration is one
// broadcast.
func BenchmarkBroadcast(b *testing.B) {
	const n = 1000
	srv := crowd(b, n, func() {})
	room := srv.Of("/").To("room")
	text := strings.Repeat("x", 200)
	watched := room.Sockets()[0].sess
	sent := srv.stats.framesOut.Load()
	b.ResetTimer()
	began, used := time.Now(), cpu()
	for i := range b.N {
		if err := room.Emit("news", i, text); err != nil {
			b.Fatal(err)
		}
		for watched.pending.Load() > 64<<10 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	for srv.stats.framesOut.Load() < sent+uint64(b.N)*n {
		time.Sleep(100 * time.Microsecond)
	}
	took := time.Since(began)
	b.StopTimer()
	deliveries := float64(b.N) * n
	b.ReportMetric(deliveries/took.Seconds(), "deliveries/s")
	b.ReportMetric(float64((cpu()-used).Microseconds())/deliveries, "cpu-µs/delivery")
}

// BenchmarkIdle reports what an idle websocket costs this process.
func BenchmarkIdle(b *testing.B) {
	const n = 3000
	measure := func() (heap, rss float64, goroutines int) {
		for range 3 {
			runtime.GC()
		}
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		statm, _ := os.ReadFile("/proc/self/statm")
		var total, resident float64
		fmt.Sscan(string(statm), &total, &resident)
		return float64(m.HeapInuse+m.StackInuse) / 1024, resident * float64(os.Getpagesize()) / 1024, runtime.NumGoroutine()
	}
	for range b.N {
		var heap, rss float64
		var goroutines int
		srv := crowd(b, n, func() { heap, rss, goroutines = measure() })
		time.Sleep(100 * time.Millisecond) // the HTTP server's goroutines of the handshakes end
		h, r, g := measure()
		b.ReportMetric((h-heap)/n, "KB/websocket")
		b.ReportMetric((r-rss)/n, "rss-KB/websocket")
		b.ReportMetric(float64(g-goroutines)/n, "goroutines/websocket")
		_ = srv.Stats()
	}
}
