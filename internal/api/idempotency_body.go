package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
)

// newBody is a body that was read already.
func newBody(data []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(data)) }

// onceStream is once for a streamed operation: the body is hashed while the handler reads it, and what the handler
// leaves is read after it.
func (a *API) onceStream(w http.ResponseWriter, r *http.Request, caller Caller, key string, h func(http.ResponseWriter, *http.Request) error) error {
	return a.once(w, r, caller, key, streamTotal+jsonLease(a.cfg.RequestTimeout), "", func() (*capture, string, error) {
		hash := newBodyHash(r)
		body := r.Body
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(body, hash), body}
		defer hash.close()
		c := newCapture(w)
		c.header.Set("Cache-Control", "no-store")
		if err := h(c, r); err != nil {
			c = newCapture(w)
			WriteError(c, r, err)
		}
		if !worthKeeping(c.status) {
			return c, "", nil
		}
		if err := hash.drain(body); err != nil && c.status < 400 {
			return nil, "", err
		}
		return c, hash.sum(), nil
	})
}

// bodyHash hashes a streamed body as it passes. Of a multipart body it hashes the parts: the boundary is a new random
// text each time the same form is sent.
type bodyHash struct {
	sha   hash.Hash
	parts *io.PipeWriter // nil: the bytes as they are
	done  chan struct{}
}

func newBodyHash(r *http.Request) *bodyHash {
	b := &bodyHash{sha: sha256.New(), done: make(chan struct{})}
	fmt.Fprintf(b.sha, "%d:%s", len(r.URL.RawQuery), r.URL.RawQuery)
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(media, "multipart/") || params["boundary"] == "" {
		close(b.done)
		return b
	}
	pr, pw := io.Pipe()
	b.parts = pw
	go func() {
		defer close(b.done)
		hashParts(b.sha, multipart.NewReader(pr, params["boundary"]))
		_, _ = io.Copy(io.Discard, pr) // what follows the last part, or could not be read: never block the writer
	}()
	return b
}

func hashParts(h hash.Hash, mr *multipart.Reader) {
	for {
		p, err := mr.NextRawPart()
		if err != nil {
			fmt.Fprintf(h, "|end %t", err == io.EOF) //nolint:errorlint // NextRawPart gives io.EOF itself
			return
		}
		content := sha256.New()
		_, err = io.Copy(content, p)
		fmt.Fprintf(h, "|part %q %q %q %x %t", p.FormName(), p.FileName(), p.Header.Get("Content-Type"), content.Sum(nil), err == nil)
	}
}

// Write takes a piece of the body.
func (b *bodyHash) Write(p []byte) (int, error) {
	if b.parts == nil {
		return b.sha.Write(p)
	}
	return b.parts.Write(p)
}

// drain reads the rest of the body into the hash.
func (b *bodyHash) drain(body io.Reader) error {
	_, err := io.Copy(b, body)
	return err
}

func (b *bodyHash) close() {
	if b.parts != nil {
		_ = b.parts.Close()
	}
	<-b.done
}

// sum ends the hash.
func (b *bodyHash) sum() string {
	b.close()
	return hex.EncodeToString(b.sha.Sum(nil))
}
