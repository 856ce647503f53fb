package s3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"

	"github.com/ecodrix/ecod/internal/s3"
	"github.com/ecodrix/ecod/internal/s3/s3test"
	"github.com/ecodrix/ecod/internal/secret"
)

const (
	keyID  = "AKIDMEDIA"
	keyVal = "wJalrXUtnFEMI-do-not-print"
)

func TestMain(m *testing.M) {
	minio.DefaultRetryUnit = time.Millisecond // the waits are the library's, not what is tested
	goleak.VerifyTestMain(m)
}

// store starts a server and a client of its bucket "media".
func store(t *testing.T, sc s3test.Config, edit func(*s3.Config)) (*s3test.Server, *s3.Client) {
	t.Helper()
	sc.AccessKeyID, sc.SecretAccessKey, sc.Buckets = keyID, keyVal, []string{"media"}
	s, err := s3test.Start(sc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	cfg := s3.Config{Endpoint: s.URL, Region: "auto", Bucket: "media", AccessKeyID: keyID, SecretAccessKey: keyVal}
	if edit != nil {
		edit(&cfg)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Roots(), MinVersion: tls.VersionTLS12}}
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { // whatever the name, this server
		u, _ := url.Parse(s.URL)
		return (&net.Dialer{}).DialContext(ctx, network, u.Host)
	}
	t.Cleanup(tr.CloseIdleConnections)
	c, err := s3.New(cfg, tr)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func put(t *testing.T, c *s3.Client, key, body string) {
	t.Helper()
	if err := c.Put(t.Context(), key, strings.NewReader(body), int64(len(body)), s3.Meta{MIME: "text/plain"}); err != nil {
		t.Fatal(err)
	}
}

func TestAnObjectThereAndBack(t *testing.T) {
	for name, o := range map[string]struct {
		server s3test.Config
		client func(*s3.Config)
		key    string // as the server sees it
	}{
		"http":          {s3test.Config{}, nil, "ACME/ab/abc.thumb"},
		"https":         {s3test.Config{TLS: true}, nil, "ACME/ab/abc.thumb"},
		"prefix":        {s3test.Config{}, func(c *s3.Config) { c.Prefix = "my files/ä+/" }, "my files/ä+/ACME/ab/abc.thumb"},
		"session token": {s3test.Config{SessionToken: "tok/en=="}, func(c *s3.Config) { c.SessionToken = "tok/en==" }, "ACME/ab/abc.thumb"},
		"no region":     {s3test.Config{Region: "us-east-1"}, func(c *s3.Config) { c.Region = "" }, "ACME/ab/abc.thumb"},
		"bucket in the host": {s3test.Config{}, func(c *s3.Config) { c.Style = "host"; c.Endpoint = "http://store.example" },
			"ACME/ab/abc.thumb"},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := store(t, o.server, o.client)
			for _, size := range []int{0, 1, 4096, 1<<20 + 1} {
				body := bytes.Repeat([]byte("x"), size)
				if err := c.Put(t.Context(), "ACME/ab/abc.thumb", bytes.NewReader(body), int64(size), s3.Meta{MIME: "image/png", Disposition: "inline"}); err != nil {
					t.Fatal(err)
				}
				held, ok := s.Object("media", o.key)
				if !ok || !bytes.Equal(held.Body, body) || held.MIME != "image/png" || held.Disposition != "inline" {
					t.Fatalf("%d bytes: held %v, %d bytes, %q, %q", size, ok, len(held.Body), held.MIME, held.Disposition)
				}
				r, info, err := c.Get(t.Context(), "ACME/ab/abc.thumb")
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, body) || info.Size != int64(size) || info.MIME != "image/png" || time.Since(info.Modified) > time.Minute {
					t.Fatalf("%d bytes back, %+v, %v", len(got), info, err)
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if info, err := c.Stat(t.Context(), "ACME/ab/abc.thumb"); err != nil || info.Size != 1<<20+1 {
				t.Fatalf("stat: %+v %v", info, err)
			}
			if err := c.Check(t.Context()); err != nil {
				t.Fatalf("check: %v", err)
			}
			for range 2 { // the second time it is not there
				if err := c.Delete(t.Context(), "ACME/ab/abc.thumb"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.Stat(t.Context(), "ACME/ab/abc.thumb"); !errors.Is(err, s3.ErrNotFound) {
				t.Fatalf("stat of nothing: %v", err)
			}
			if _, _, err := c.Get(t.Context(), "ACME/ab/abc.thumb"); !errors.Is(err, s3.ErrNotFound) {
				t.Fatalf("get of nothing: %v", err)
			}
			for _, r := range s.Requests() { // the server is strict; this is what it was strict about
				if r.Signed != "header" || r.Status >= 400 && r.Status != 404 {
					t.Errorf("%s: %d %s", r.Op, r.Status, r.Code)
				}
				if r.Op == "put" && (r.Header.Get("Content-Md5") == "" || len(r.Payload) != 64 || r.Size < 0) {
					t.Errorf("put without checksums or length: %v %q %d", r.Header, r.Payload, r.Size)
				}
				if r.Header.Get("Accept-Encoding") != "identity" {
					t.Errorf("%s lets a gateway compress", r.Op)
				}
			}
		})
	}
}

// TestTheServerWouldRefuse shows that the strictness above is real: what the same
// library sends without our options is refused.
func TestTheServerWouldRefuse(t *testing.T) {
	s, _ := store(t, s3test.Config{TLS: true}, nil)
	client := func(trailers bool) *minio.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Roots(), MinVersion: tls.VersionTLS12}}
		t.Cleanup(tr.CloseIdleConnections)
		c, err := minio.New(strings.TrimPrefix(s.URL, "https://"), &minio.Options{Creds: credentials.NewStaticV4(keyID, keyVal, ""), Secure: true,
			Region: "auto", Transport: tr, TrailingHeaders: trailers, MaxRetries: 1})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if _, err := client(true).PutObject(t.Context(), "media", "k", strings.NewReader("x"), 1, minio.PutObjectOptions{}); minio.ToErrorResponse(err).Code != "NotImplemented" {
		t.Errorf("with trailers: %v", err)
	}
	if _, err := client(false).PutObject(t.Context(), "media", "k", strings.NewReader("x"), 1, minio.PutObjectOptions{}); minio.ToErrorResponse(err).Code != "InvalidRequest" {
		t.Errorf("without a checksum: %v", err)
	}
	if _, err := client(false).PutObject(t.Context(), "media", "k", strings.NewReader("x"), 1, minio.PutObjectOptions{SendContentMd5: true}); err != nil {
		t.Errorf("with Content-MD5: %v", err)
	}
	c, err := s3.New(s3.Config{Endpoint: s.URL, Bucket: "media", Region: "auto", AccessKeyID: keyID, SecretAccessKey: "wrong", Attempts: 1},
		&http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Roots(), MinVersion: tls.VersionTLS12}, DisableKeepAlives: true})
	if err != nil {
		t.Fatal(err)
	}
	var e *s3.Error
	if err := c.Check(t.Context()); !errors.As(err, &e) || e.Code != "SignatureDoesNotMatch" || e.Temporary() {
		t.Errorf("with a wrong key: %v", err)
	}
}

// changing gives other bytes at every reading, as a file that is being written does.
type changing struct{ n int }

func (c *changing) ReadAt(p []byte, _ int64) (int, error) {
	c.n++
	for i := range p {
		p[i] = byte('a' + c.n)
	}
	return len(p), nil
}

func TestBytesThatChangeUnderwayAreRefused(t *testing.T) {
	s, c := store(t, s3test.Config{}, nil)
	err := c.Put(t.Context(), "k", &changing{}, 10, s3.Meta{})
	var e *s3.Error
	if !errors.As(err, &e) || e.HTTP != 400 || e.Temporary() {
		t.Fatalf("%v", err)
	}
	if len(s.Keys("media")) != 0 {
		t.Fatal("it was stored")
	}
	if err := c.Put(t.Context(), "k", strings.NewReader("short"), 10, s3.Meta{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("fewer bytes than told: %v", err)
	}
	if len(s.Keys("media")) != 0 {
		t.Fatal("it was stored")
	}
}

func TestPassingTroubleIsTriedAgain(t *testing.T) {
	for _, f := range []s3test.Fault{s3test.SlowDown(), s3test.Reset(), s3test.ResetAfterAccepting(), s3test.GatewayHTML(502), s3test.Refusal(429, "TooManyRequests", "x")} {
		for op, call := range map[string]func(*s3.Client) error{
			"put": func(c *s3.Client) error {
				return c.Put(t.Context(), "k", strings.NewReader("body"), 4, s3.Meta{})
			},
			"get": func(c *s3.Client) error {
				r, _, err := c.Get(t.Context(), "k")
				if err == nil {
					_ = r.Close()
				}
				return err
			},
			"head":        func(c *s3.Client) error { _, err := c.Stat(t.Context(), "k"); return err },
			"delete":      func(c *s3.Client) error { return c.Delete(t.Context(), "k") },
			"list":        func(c *s3.Client) error { return c.Check(t.Context()) },
			"delete-many": func(c *s3.Client) error { _, err := c.DeleteAll(t.Context(), "d/"); return err },
		} {
			s, c := store(t, s3test.Config{}, nil)
			s.Set("media", "k", s3test.Object{Body: []byte("body")})
			s.Set("media", "d/1", s3test.Object{Body: []byte("body")})
			s.Next(2, op, f)
			if err := call(c); err != nil {
				t.Errorf("%s twice at %s: %v", f.Name, op, err)
			}
			if n := s.Count(op, 0); n != 3 {
				t.Errorf("%s twice at %s: %d calls", f.Name, op, n)
			}
			s.Next(-1, op, f)
			s.Set("media", "d/1", s3test.Object{Body: []byte("body")})
			err := call(c)
			var e *s3.Error
			if !errors.As(err, &e) || !e.Temporary() {
				t.Errorf("%s for ever at %s: %v", f.Name, op, err)
			}
			if n := s.Count(op, 0) - 3; n < 4 || n > 8 { // net/http adds its own where a kept connection was reset
				t.Errorf("%s for ever at %s: %d calls", f.Name, op, n)
			}
		}
	}
}

func TestLastingTroubleIsNot(t *testing.T) {
	for _, x := range []struct {
		status    int
		code      string
		temporary bool
	}{
		{400, "InvalidRequest", false}, {403, "AccessDenied", false}, {403, "InvalidAccessKeyId", false}, {403, "RequestTimeTooSkewed", false},
		{404, "NoSuchBucket", false}, {409, "OperationAborted", true}, {411, "MissingContentLength", false}, {412, "PreconditionFailed", false},
		{501, "NotImplemented", false}, {301, "PermanentRedirect", false},
	} {
		s, c := store(t, s3test.Config{}, nil)
		s.Next(-1, "put", s3test.Refusal(x.status, x.code, "…"))
		err := c.Put(t.Context(), "k", strings.NewReader("b"), 1, s3.Meta{})
		var e *s3.Error
		if !errors.As(err, &e) || e.HTTP != x.status || e.Code != x.code || e.Temporary() != x.temporary || errors.Is(err, s3.ErrNotFound) {
			t.Errorf("%d %s: %v", x.status, x.code, err)
		}
		if n := s.Count("put", 0); n != 1 {
			t.Errorf("%d %s: %d calls", x.status, x.code, n)
		}
	}
}

func TestATruncatedAnswerIsNoEnd(t *testing.T) {
	for _, tls := range []bool{false, true} {
		s, c := store(t, s3test.Config{TLS: tls}, nil)
		put(t, c, "k", strings.Repeat("y", 100_000))
		s.Next(1, "get", s3test.Truncate(50_000))
		r, info, err := c.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		_ = r.Close()
		var e *s3.Error
		if len(got) > 50_000 || info.Size != 100_000 || !errors.As(err, &e) || !e.Temporary() || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("tls %v: %d bytes of %d, %v", tls, len(got), info.Size, err)
		}
	}
}

func TestAnETagProvesNothing(t *testing.T) { // a store that encrypts gives others; the signed SHA-256 has proved it
	s, c := store(t, s3test.Config{}, nil)
	s.Next(1, "put", s3test.WrongETag())
	put(t, c, "k", "body")
	s.Next(1, "get", s3test.WrongETag())
	r, _, err := c.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "body" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestDeleteAllIsAllAndNothingElse(t *testing.T) {
	s, c := store(t, s3test.Config{PageSize: 300}, func(c *s3.Config) { c.Prefix = "p/" })
	for i := range 2500 {
		s.Set("media", fmt.Sprintf("p/ACME/ab/%d&<ä ", i), s3test.Object{Body: []byte("x")})
	}
	keep := []string{"ACME/ab/outside", "p/ACME2/ab/1", "p/ACMF/ab/1", "p/a"}
	for _, k := range keep {
		s.Set("media", k, s3test.Object{Body: []byte("x")})
	}
	s.Next(1, "delete-many", s3test.Partly(7))
	n, err := c.DeleteAll(t.Context(), "ACME/")
	var e *s3.Error
	if n != 2493 || !errors.As(err, &e) || !e.Temporary() {
		t.Fatalf("seven failed, but: %d, %v", n, err)
	}
	if n, err = c.DeleteAll(t.Context(), "ACME/"); n != 7 || err != nil {
		t.Fatalf("again: %d, %v", n, err)
	}
	if n, err = c.DeleteAll(t.Context(), "ACME/"); n != 0 || err != nil {
		t.Fatalf("of nothing: %d, %v", n, err)
	}
	if got := s.Keys("media"); fmt.Sprint(got) != fmt.Sprint(keep) {
		t.Fatalf("left: %v", got)
	}
	for _, bad := range []string{"", "/", "ACME"} {
		if _, err := c.DeleteAll(t.Context(), bad); err == nil {
			t.Errorf("prefix %q was taken", bad)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.DeleteAll(ctx, "ACME/"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestASignedLink(t *testing.T) {
	now := time.Now()
	_, c := store(t, s3test.Config{Now: func() time.Time { return now }}, nil)
	put(t, c, "ACME/ab/c", "body")
	const want = "attachment; filename=\"a b.pdf\"; filename*=UTF-8''%C3%A4%20b.pdf"
	link, err := c.SignGet(t.Context(), "ACME/ab/c", time.Minute, want, "application/pdf")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(link, keyVal) {
		t.Fatal("the secret stands in the link")
	}
	get := func(l string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l, nil)
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp, string(b)
	}
	resp, body := get(link)
	if resp.StatusCode != 200 || body != "body" || resp.Header.Get("Content-Disposition") != want || resp.Header.Get("Content-Type") != "application/pdf" {
		t.Fatalf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	for what, l := range map[string]string{
		"another object":      strings.Replace(link, "ACME", "ACMF", 1),
		"another disposition": strings.Replace(link, "attachment", "inline", 1),
		"a longer life":       strings.Replace(link, "X-Amz-Expires=60", "X-Amz-Expires=6000", 1),
		"another signature":   link[:len(link)-1] + map[bool]string{true: "0", false: "1"}[link[len(link)-1] != '0'],
	} {
		if l == link {
			t.Fatalf("%s: nothing changed", what)
		}
		if resp, _ := get(l); resp.StatusCode != 403 {
			t.Errorf("%s: %d", what, resp.StatusCode)
		}
	}
	now = now.Add(2 * time.Minute)
	if resp, _ := get(link); resp.StatusCode != 403 {
		t.Errorf("after its life: %d", resp.StatusCode)
	}
	for _, ttl := range []time.Duration{0, -time.Second, time.Second - 1, s3.MaxTTL + time.Second} {
		if _, err := c.SignGet(t.Context(), "k", ttl, "", ""); err == nil {
			t.Errorf("a life of %s was taken", ttl)
		}
	}
}

func TestAnEndedContextEndsTheCall(t *testing.T) {
	s, c := store(t, s3test.Config{}, nil)
	s.Next(-1, "", s3test.Hang())
	for name, call := range map[string]func(context.Context) error{
		"put":        func(ctx context.Context) error { return c.Put(ctx, "k", strings.NewReader("b"), 1, s3.Meta{}) },
		"get":        func(ctx context.Context) error { _, _, err := c.Get(ctx, "k"); return err },
		"stat":       func(ctx context.Context) error { _, err := c.Stat(ctx, "k"); return err },
		"delete":     func(ctx context.Context) error { return c.Delete(ctx, "k") },
		"delete all": func(ctx context.Context) error { _, err := c.DeleteAll(ctx, "d/"); return err },
		"check":      func(ctx context.Context) error { return c.Check(ctx) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// TestNoErrorLeaksASecret makes calls fail in every way, with a store that repeats
// what it knows, and looks for it in the errors.
func TestNoErrorLeaksASecret(t *testing.T) {
	token := secret.Text("session-token-do-not-print")
	echo := "you sent " + keyID + " " + keyVal + " " + token.Reveal() + "\nERROR forged line"
	for name, f := range map[string]s3test.Fault{
		"echo":        s3test.Refusal(403, "InvalidAccessKeyId", echo),
		"echo code":   s3test.Refusal(400, echo, echo),
		"gateway":     s3test.GatewayHTML(503),
		"reset":       s3test.Reset(),
		"reset after": s3test.ResetAfterAccepting(),
	} {
		s, c := store(t, s3test.Config{SessionToken: token.Reveal()}, func(c *s3.Config) { c.SessionToken = token })
		s.Next(-1, "", f)
		_, _, getErr := c.Get(t.Context(), "ACME/ab/object")
		_, statErr := c.Stat(t.Context(), "ACME/ab/object")
		_, allErr := c.DeleteAll(t.Context(), "ACME/")
		for _, err := range []error{c.Put(t.Context(), "ACME/ab/object", strings.NewReader("b"), 1, s3.Meta{}), getErr, statErr, allErr,
			c.Delete(t.Context(), "ACME/ab/object"), c.Check(t.Context())} {
			if err == nil {
				t.Errorf("%s: no error", name)
				continue
			}
			text := fmt.Sprintf("%v %+v %#v", err, err, err)
			for e := err; e != nil; e = errors.Unwrap(e) {
				text += e.Error()
			}
			for _, s := range []string{keyID, keyVal, token.Reveal(), "ERROR", "\n", "ab/object", "<html>"} {
				if strings.Contains(text, s) {
					t.Errorf("%s: %q stands in %s", name, s, text)
				}
			}
		}
	}
}
