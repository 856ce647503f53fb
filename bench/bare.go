package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// bareRole makes this program the server to compare with: the least that may say 200 to Meta. It checks the signature
// and appends the body to a file; those that wait together share a write and an fsync. It knows no clients, routes
// nothing, has no metrics and no log, and sorts nothing afterwards.
const bareRole = "-bare-server"

func (b *bench) bare() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(exec.Command(self, bareRole, filepath.Join(b.dir, "bare.bin")), filepath.Join(b.dir, "bare.log"), func(line []byte) string {
		url, _ := strings.CutPrefix(strings.TrimSpace(string(line)), "listening on ")
		return url
	})
}

func bareMain(path string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	fail(err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	fmt.Fprintf(os.Stderr, "listening on http://%s\n", ln.Addr())
	fail(http.Serve(ln, bareHandler(f)))
}

type waiting struct {
	body []byte
	done chan error
}

func bareHandler(f *os.File) http.Handler {
	queue := make(chan waiting, 1024)
	go func() {
		var buf bytes.Buffer
		var group []waiting
		for w := range queue {
			group = append(group[:0], w)
		more:
			for len(group) < 256 {
				select {
				case w := <-queue:
					group = append(group, w)
				default:
					break more
				}
			}
			buf.Reset()
			for _, w := range group {
				buf.Write(w.body)
			}
			_, err := f.Write(buf.Bytes())
			if err == nil {
				err = f.Sync()
			}
			for _, w := range group {
				w.done <- err
			}
		}
	}()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mac := hmac.New(sha256.New, []byte(appSecret))
		mac.Write(body)
		got, err := hex.DecodeString(strings.TrimPrefix(r.Header.Get("X-Hub-Signature-256"), "sha256="))
		if err != nil || !hmac.Equal(got, mac.Sum(nil)) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		done := make(chan error, 1)
		queue <- waiting{body, done}
		if <-done != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "EVENT_RECEIVED")
	})
}
