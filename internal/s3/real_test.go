package s3_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/s3"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/servertest"
)

// realStore is a client of the store that the environment names.
func realStore(t *testing.T, edit func(*s3.Config)) *s3.Client {
	t.Helper()
	cfg, err := s3.ParseURL(servertest.S3(t), os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(&cfg)
	}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(tr.CloseIdleConnections)
	c, err := s3.New(cfg, tr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// follow opens a signed link as a browser does: with nothing else in its hands.
func follow(t *testing.T, link string) (int, http.Header, []byte) {
	t.Helper()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get(link)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, body
}

// TestARealStore holds the client to a store that shares nothing with the fake: what both were written to expect is
// what stores do.
func TestARealStore(t *testing.T) {
	c := realStore(t, nil)
	if err := c.Check(t.Context()); err != nil {
		t.Fatalf("check of an empty prefix: %v", err)
	}
	for _, key := range []string{"ACME/ab/abc", "ACME/ab/my files ä+&=.thumb"} {
		for _, size := range []int{0, 1, 4096, 6<<20 + 1} {
			body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			if err := c.Put(t.Context(), key, bytes.NewReader(body), int64(size), s3.Meta{MIME: "image/png", Disposition: "inline"}); err != nil {
				t.Fatal(err)
			}
			r, info, err := c.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, body) || info.Size != int64(size) || info.MIME != "image/png" || time.Since(info.Modified) > time.Minute {
				t.Fatalf("%d bytes of %d back, %+v, %v", len(got), size, info, err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if info, err := c.Stat(t.Context(), key); err != nil || info.Size != int64(size) {
				t.Fatalf("stat: %+v %v", info, err)
			}
		}
		for range 2 { // the second time it is not there
			if err := c.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Stat(t.Context(), key); !errors.Is(err, s3.ErrNotFound) {
			t.Fatalf("stat of nothing: %v", err)
		}
		if _, _, err := c.Get(t.Context(), key); !errors.Is(err, s3.ErrNotFound) {
			t.Fatalf("get of nothing: %v", err)
		}
	}
}

func TestARealStoreRemovesAllAndNothingElse(t *testing.T) {
	c := realStore(t, nil)
	for _, key := range []string{"ACME/aa/1", "ACME/aa/1.thumb", "ACME/bb/2", "ACMEX/aa/1"} {
		put(t, c, key, "x")
	}
	if n, err := c.DeleteAll(t.Context(), "ACME/"); n != 3 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if _, err := c.Stat(t.Context(), "ACMEX/aa/1"); err != nil {
		t.Fatalf("the neighbour: %v", err)
	}
	if n, err := c.DeleteAll(t.Context(), "ACME/"); n != 0 || err != nil {
		t.Fatalf("the second time: %d, %v", n, err)
	}
}

func TestARealStoreOpensASignedLink(t *testing.T) {
	c := realStore(t, nil)
	put(t, c, "ACME/ab/abc", "the very bytes")
	link, err := c.SignGet(t.Context(), "ACME/ab/abc", time.Minute, `attachment; filename="b.txt"`, "text/x-other")
	if err != nil {
		t.Fatal(err)
	}
	status, header, body := follow(t, link)
	if status != 200 || string(body) != "the very bytes" || header.Get("Content-Disposition") != `attachment; filename="b.txt"` ||
		header.Get("Content-Type") != "text/x-other" {
		t.Fatalf("%d %v %q", status, header, body)
	}
	for name, bad := range map[string]string{
		"another object": strings.Replace(link, "/abc?", "/abd?", 1),
		"a longer life":  strings.Replace(link, "X-Amz-Expires=60", "X-Amz-Expires=600", 1),
		"another name":   strings.Replace(link, "b.txt", "c.txt", 1),
		"no signature":   link[:strings.Index(link, "&X-Amz-Signature=")],
	} {
		if bad == link {
			t.Fatalf("%s: not changed", name)
		}
		if status, _, body := follow(t, bad); status/100 != 4 || strings.Contains(string(body), "the very bytes") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	short, err := c.SignGet(t.Context(), "ACME/ab/abc", time.Second, "", "")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if status, _, _ := follow(t, short); status == 403 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a link of one second still opens after ten")
		}
	}
}

func TestARealStoreRefusesOtherKeys(t *testing.T) {
	for name, edit := range map[string]func(*s3.Config){
		"secret": func(c *s3.Config) { c.SecretAccessKey = secret.Text("not-the-secret") },
		"key id": func(c *s3.Config) { c.AccessKeyID = "nobody" },
		"bucket": func(c *s3.Config) { c.Bucket = "not-there-at-all" },
	} {
		t.Run(name, func(t *testing.T) {
			c := realStore(t, edit)
			err := c.Put(t.Context(), "ACME/ab/abc", strings.NewReader("x"), 1, s3.Meta{})
			for call, err := range map[string]error{"put": err, "check": c.Check(t.Context())} {
				var refused *s3.Error
				if !errors.As(err, &refused) || refused.Temporary() || refused.HTTP/100 != 4 {
					t.Errorf("%s: %v", call, err)
				}
				if err != nil && strings.Contains(err.Error(), "not-the-secret") {
					t.Errorf("%s: the secret is in %v", call, err)
				}
			}
		})
	}
}
