// Package bustest starts Redis servers of a test's own, which it may pause and kill.
package bustest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a redis-server of the test's own.
type Server struct {
	t    testing.TB
	port string
	args []string
	cmd  *exec.Cmd
}

// Start starts a server on a free port; it ends with the test. Where no redis-server is installed the test is skipped, or
// fails with ECOD_TEST_ALL=1.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := Unstarted(t, args...)
	s.Start()
	return s
}

// Unstarted gives a server that does not run yet.
func Unstarted(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("ECOD_TEST_ALL") == "1" {
			t.Fatal("redis-server is not installed")
		}
		t.Skip("redis-server is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	_ = ln.Close()
	s := &Server{t: t, port: port, args: args}
	t.Cleanup(s.Kill)
	return s
}

// Addr is its host and port.
func (s *Server) Addr() string { return "127.0.0.1:" + s.port }

// URL is its address.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Start starts it, again on the same port, and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	//nolint:gosec // the test's own arguments
	s.cmd = exec.Command("redis-server", append([]string{"--port", s.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.t.TempDir()}, s.args...)...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s.answers() {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("redis-server does not answer")
		}
	}
}

func (s *Server) answers() bool {
	c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprint(c, "PING\r\n")
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && (strings.HasPrefix(line, "+PONG") || strings.HasPrefix(line, "-NOAUTH"))
}

// Pause lets it stand still, its connections open.
func (s *Server) Pause() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (s *Server) Resume() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

// Kill ends it at once; Start starts it again.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}
